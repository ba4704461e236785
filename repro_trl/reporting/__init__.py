"""Compare training runs by the logs and completions that they leave behind: `repro-trl report`."""

from .arms import Arm, group_runs
from .comparison import Comparison, compare
from .runs import Run, read_run

__all__ = ["Arm", "Comparison", "Run", "compare", "group_runs", "read_run"]
