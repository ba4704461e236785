"""How arms are told apart in pictures: by colour, dashes and marker, so that none of these is needed alone."""

from dataclasses import dataclass


@dataclass(frozen=True)
class ArmStyle:
    """Colours on a light and on a dark ground, dashes in line widths (empty: solid), and a marker of matplotlib's."""

    light: str
    dark: str
    dashes: tuple[int, ...]
    marker: str


# Colours after Okabe and Ito (2008), which stay apart in every common kind of colour blindness; the light ground takes
# the darker ones first.
_COLOURS = (
    ("#0072B2", "#56B4E9"),
    ("#D55E00", "#E69F00"),
    ("#007A5A", "#2EC4A0"),
    ("#AA4499", "#E3A0C8"),
    ("#8A6D00", "#F0E442"),
    ("#444444", "#BBBBBB"),
)
_DASHES = ((), (5, 2), (2, 2), (6, 2, 2, 2), (1, 2), (8, 3))
_MARKERS = ("o", "s", "^", "D", "v", "P")


def arm_style(index: int) -> ArmStyle:
    """The style of the arm with this number; after six arms colours come again with other dashes."""
    light, dark = _COLOURS[index % len(_COLOURS)]
    dashes = _DASHES[(index + index // len(_COLOURS)) % len(_DASHES)]
    return ArmStyle(light, dark, dashes, _MARKERS[(index + index // len(_COLOURS)) % len(_MARKERS)])
