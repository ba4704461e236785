"""Evaluation of checkpoints on the paper's benchmarks: `repro-trl eval`, and during training."""

from typing import TYPE_CHECKING

from ..lazy import lazy_names

if TYPE_CHECKING:
    from ..sampling import Sampling
    from .callback import EvaluationCallback
    from .figures import Comparison, Figures, compare, compute_figures
    from .tasks import HUB_TASKS, Task, TaskError, load_task, task_from_rows

# Of each module the public names that it holds.
_NAMES = {
    ".tasks": ("HUB_TASKS", "Task", "TaskError", "load_task", "task_from_rows"),
    ".figures": ("Comparison", "Figures", "compare", "compute_figures"),
    ".callback": ("EvaluationCallback",),
    "..sampling": ("Sampling",),
}

__all__ = [
    "HUB_TASKS",
    "Comparison",
    "EvaluationCallback",
    "Figures",
    "Sampling",
    "Task",
    "TaskError",
    "compare",
    "compute_figures",
    "load_task",
    "task_from_rows",
]

__getattr__, __dir__ = lazy_names(__name__, _NAMES)
