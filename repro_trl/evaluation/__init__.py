"""Evaluation of checkpoints on the paper's benchmarks: `repro-trl eval`, and during training."""

from ..sampling import Sampling
from .callback import EvaluationCallback
from .figures import Comparison, Figures, compare, compute_figures
from .tasks import HUB_TASKS, Task, TaskError, load_task, task_from_rows

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
