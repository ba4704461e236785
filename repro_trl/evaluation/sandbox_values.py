"""Results of called functions as they come out of the sandbox: with their types, to be compared as Python compares."""

from fractions import Fraction
from typing import Any


class OneElement:
    """A NumPy array of one element: equal to that element, however many lists are around it."""

    __hash__ = None

    def __init__(self, element: Any) -> None:
        self.element = element

    def __eq__(self, other: object) -> bool:
        while isinstance(other, list) and len(other) == 1:
            other = other[0]
        return self.element == other


class Incomparable:
    """A value of a type that equals no JSON value, such as a set."""

    def __init__(self, type_name: str) -> None:
        self.type_name = type_name

    def __repr__(self) -> str:
        return f"<{self.type_name}>"


def decode(tree: Any) -> Any:
    """
    The value that `sandbox_child.encode` wrote, or a `ValueError`: it came from the program's side, which can write
    anything.
    """
    match tree:
        case None | bool() | int() | float() | str():
            return tree
        case ["list", list(items)]:
            return [decode(item) for item in items]
        case ["tuple", list(items)]:
            return tuple(decode(item) for item in items)
        case ["dict", list(pairs)]:
            try:
                return {decode(key): decode(item) for key, item in pairs}
            except TypeError as error:
                raise ValueError(f"not the pairs of a dictionary: {error}") from error
        case ["array", element]:
            return OneElement(decode(element))
        case ["ratio", [int(numerator), int(denominator)]] if denominator:
            return Fraction(numerator, denominator)
        case ["other", str(name)]:
            return Incomparable(name)
    raise ValueError("not the value of a result")
