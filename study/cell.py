"""One cell of the grid: train one arm from the common start with one seed, and measure."""

import functools
import math
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
from transformers.trainer_callback import PrinterCallback

from repro_trl.method.segments import find_segment_starts
from repro_trl.thinking import count_backtracks
from repro_trl.trainers.prefix_search import PrefixSearch

from . import auto, sampler
from .arms import ARMS, make_trainer
from .health import measure_health
from .instruments import measure_start
from .measure import DELIMITER, THINK_END, evaluate
from .signals import NUM_GENERATIONS
from .tasks import TASKS, Task, dataset
from .trace import trace_start

STEPS = 16
PROMPTS_PER_STEP = 8
FOLLOWED = ("plain", "repro", "recipe")
"""Arms of GRPO whose rewards are measured in both forms; others in one."""
FORMS = ("repro", "recipe")
AT_START = {"instruments": measure_start, "trace": trace_start, "health": measure_health}
HALFWAY = {"num_problems": 24, "num_scored": 8}
"""The evaluation after half of the steps takes the first of the problems that the last one takes."""


@dataclass(frozen=True)
class Cell:
    """What is trained: the same four values, and overrides, give the same result on the same machine.

    Attributes:
        overrides: settings other than the arm's; for tuning.
    """

    task: str
    algorithm: str
    arm: str
    seed: int
    overrides: dict[str, Any] = field(default_factory=dict, hash=False)

    @property
    def name(self) -> str:
        """For example `digits/grpo/repro/0`."""
        extra = "".join(f" {name}={value}" for name, value in self.overrides.items())
        return f"{self.task}/{self.algorithm}/{self.arm}/{self.seed}{extra}"


@functools.cache
def load(task: Task) -> tuple[Any, Any]:
    """The starting policy, never trained, and the tokenizer."""
    return AutoModelForCausalLM.from_pretrained(task.model_dir), AutoTokenizer.from_pretrained(task.model_dir)


def evaluation_seed(seed: int) -> int:
    """Held-out problems and sampling differ between seeds, and are the same for all arms of one."""
    return 10_000 + seed


def run_cell(cell: Cell, steps: int = STEPS, task: Task | None = None, device: str = "cpu") -> dict[str, Any]:
    """Train and measure. The algorithms "start" and those of `AT_START` train nothing: they measure the start.

    Args:
        task: in place of the one that the cell names, whose settings are used.
        device: "cpu", or that of the accelerator.

    Returns: `curve`, for each step the figures of the rollouts it trained on, which are problems never seen before;
    `evaluations`, by step; `seconds`; `auto`, where the arm has it: the step at which a form was found, and which.
    """
    started = time.monotonic()
    task = task or TASKS[cell.task]
    start, tokenizer = load(task)
    if cell.algorithm == "start":
        evaluations = {"0": evaluate(start, tokenizer, task, evaluation_seed(cell.seed), forms=FORMS)}
        return {"curve": [], "evaluations": evaluations, "seconds": round(time.monotonic() - started, 1)}
    if cell.algorithm in AT_START:
        found = AT_START[cell.algorithm](start, tokenizer, cell.task, cell.seed)
        return found | {"curve": [], "evaluations": {}, "seconds": round(time.monotonic() - started, 1)}
    steps = cell.overrides.get("max_steps", steps)
    rows = dataset(task.sample_problems(steps * PROMPTS_PER_STEP, cell.seed, held_out=False))
    with tempfile.TemporaryDirectory() as folder:
        trainer = make_trainer(
            cell.algorithm,
            cell.arm,
            cell.task,
            _make_reward(tokenizer),
            {
                "output_dir": folder,
                "use_cpu": device == "cpu",
                "bf16": False,
                "gradient_checkpointing": False,
                "seed": cell.seed,
                "max_steps": steps,
                "lr_scheduler_type": "constant",
                "per_device_train_batch_size": PROMPTS_PER_STEP * NUM_GENERATIONS,
                "num_generations": NUM_GENERATIONS,
                "max_completion_length": task.max_completion_length,
                "beta": 0.0,
                "logging_steps": 1,
                "save_strategy": "no",
                "report_to": "none",
                "disable_tqdm": True,
                "dataloader_pin_memory": False,
            },
            cell.overrides,
            model=str(task.model_dir),
            train_dataset=rows,
            processing_class=tokenizer,
        )
        if device == "cpu":
            sampler.use_in(trainer.model)
        trainer.remove_callback(PrinterCallback)
        is_followed = cell.algorithm == "grpo" and cell.arm in FOLLOWED
        forms = FORMS if is_followed else FORMS[1:]
        evaluate_held_out = functools.partial(
            evaluate, tokenizer=tokenizer, task=task, seed=evaluation_seed(cell.seed), forms=forms
        )
        halfway = _Halfway(functools.partial(evaluate_held_out, **HALFWAY))
        trainer.add_callback(halfway)
        found_form = _FoundForm(trainer._prefix_search) if ARMS[cell.arm].is_auto else None
        if found_form is not None:
            trainer.add_callback(found_form)
        trainer.train()
        last = evaluate_held_out(trainer.model)
    curve = [_point(entry) for entry in trainer.state.log_history if "loss" in entry]
    evaluations = halfway.evaluations | {str(steps): last}
    result = {"curve": curve, "evaluations": evaluations, "seconds": round(time.monotonic() - started, 1)}
    return result if found_form is None else result | {"auto": found_form.record}


def _point(entry: dict[str, Any]) -> dict[str, float]:
    """Of the curve. J separates nothing where all completions of a batch are right: its AUC is NaN, logged as None."""
    values = {name: entry.get(key) for name, key in CURVE_KEYS.items()}
    return {name: round(value, 5) for name, value in values.items() if value is not None and math.isfinite(value)}


class _Halfway(TrainerCallback):
    """Evaluates after half of the steps."""

    def __init__(self, evaluate: Callable[[Any], dict[str, Any]]) -> None:
        self.evaluate = evaluate
        self.evaluations: dict[str, dict[str, Any]] = {}

    def on_step_end(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
        if 2 * state.global_step == state.max_steps:
            self.evaluations[str(state.global_step)] = self.evaluate(model)


class _FoundForm(TrainerCallback):
    """Notes when `repro_answer_prefix="auto"` has found a form."""

    def __init__(self, search: PrefixSearch) -> None:
        self.search = search
        self.record: dict[str, Any] | None = None

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self.record is None and self.search.chosen is not None:
            self.record = {"step": state.global_step} | auto.describe(self.search)


CURVE_KEYS = {
    "accuracy": "rewards/accuracy/mean",
    "thinking_tokens": "thinking_tokens",
    "backtracks": "backtracks",
    "objective_gain": "repro/objective_gain",
    "objective_auc": "repro/objective_auc",
    "segments": "repro/segments",
    "advantage_share": "repro/advantage_share",
    "explained_variance": "critic/explained_variance",
}


def _make_reward(tokenizer: Any) -> Any:
    from pocket.traces import accuracy_reward

    def accuracy(completions: list, completion_ids: list[list[int]], log_metric: Any, **kwargs: Any) -> list[float]:
        texts = [completion[-1]["content"] for completion in completions]
        for text, ids in zip(texts, completion_ids, strict=True):
            log_metric("thinking_tokens", find_segment_starts(tokenizer, ids, DELIMITER, THINK_END)[1])
            log_metric("backtracks", count_backtracks(text, DELIMITER, THINK_END))
        return accuracy_reward(completions=texts, **kwargs)

    return accuracy
