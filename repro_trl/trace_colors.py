"""How traces look outside the page: blue for a gain, orange for a loss, told apart by any kind of colour vision."""

import unicodedata

POSITIVE, NEGATIVE = "#2f7dd1", "#d9730d"

_CONTROLS = ("Cc", "Cf", "Cs", "Zl", "Zp")


def strength(value: float, largest: float) -> float:
    """How strongly a value is coloured, in [0, 1]: its size against the largest one, on a square-root scale."""
    return min(abs(value) / largest, 1.0) ** 0.5 if largest > 0 else 0.0


def visible(text: str) -> str:
    """Text without characters that control a terminal or the direction of writing: their code points instead."""
    return "".join(
        character
        if character == "\n" or unicodedata.category(character) not in _CONTROLS
        else f"⟨U+{ord(character):04X}⟩"
        for character in text
    )
