"""Compare training runs by the logs and completions that they leave behind: `repro-trl report`."""

from typing import TYPE_CHECKING

from ..lazy import lazy_names

if TYPE_CHECKING:
    from .arms import Arm, group_runs
    from .comparison import Comparison, compare
    from .page import render_page
    from .runs import Run, read_run

# Of each module the public names that it holds.
_NAMES = {
    ".arms": ("Arm", "group_runs"),
    ".comparison": ("Comparison", "compare"),
    ".runs": ("Run", "read_run"),
    ".page": ("render_page",),
}

__all__ = ["Arm", "Comparison", "Run", "compare", "group_runs", "read_run", "render_page"]

__getattr__, __dir__ = lazy_names(__name__, _NAMES)
