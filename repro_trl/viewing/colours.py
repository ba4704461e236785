"""The colours of process rewards: blue for a gain, orange for a loss, told apart with any kind of colour vision."""

POSITIVE, NEGATIVE = "#2f7dd1", "#d9730d"


def strength(value: float, largest: float) -> float:
    """How strongly a value is coloured, in [0, 1]: its size against the largest one, on a square-root scale."""
    return min(abs(value) / largest, 1.0) ** 0.5 if largest > 0 else 0.0
