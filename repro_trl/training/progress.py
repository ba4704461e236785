"""What a training script shows while it trains: one bar with the figures that matter, or one line per logging step."""

import sys
from collections.abc import Mapping
from typing import Any

from tqdm.auto import tqdm
from transformers import PrinterCallback, ProgressCallback, TrainerCallback

from .quiet import quiet_bars

HELD_OUT = "held_out"
"""Name of the task of held-out problems in the logs of `EvaluationCallback`."""

# What is shown, and the keys under which `EvaluationCallback` logs it. Its completions have seeds of their own:
# `repro-trl eval` draws the same ones from the saved model.
HELD_OUT_COLUMNS = {
    "accuracy": f"eval_{HELD_OUT}/accuracy",
    "thinking tokens": f"eval_{HELD_OUT}/thinking_tokens",
    "backtracks": f"eval_{HELD_OUT}/backtracks",
    "truncated": f"eval_{HELD_OUT}/truncation_rate",
}


def training_columns(trainer: Any) -> dict[str, str]:
    """What is shown of a training step, and the keys under which the trainer logs it."""
    answer_reward = trainer.reward_func_names[0]
    return {
        "accuracy": f"rewards/{answer_reward}/mean",
        "thinking tokens": "thinking_tokens",
        "backtracks": "backtracks",
        "truncated": "completions/clipped_ratio",
        "J gain": "repro/objective_gain",
    }


def evaluation_columns(trainer: Any) -> dict[str, str]:
    """The same of the trainer's own evaluation, which samples as training does."""
    return {name: f"eval_{key}" for name, key in training_columns(trainer).items()}


# Names and formats in a line, and in a bar, which has to fit into 80 columns.
_LINE = {
    "accuracy": "accuracy {:.2f}",
    "thinking tokens": "thinking tokens {:.2f}",
    "backtracks": "backtracks {:.2f}",
    "truncated": "truncated {:.2f}",
    "J gain": "J gain {:+.2f}",
}
_BAR = _LINE | {"thinking tokens": "thinking {:.0f}", "backtracks": "backtracks {:.1f}"}


def figures(logs: Mapping[str, Any], columns: Mapping[str, str], formats: Mapping[str, str] = _LINE) -> str:
    """The figures that `logs` has of these columns, in one line; empty where it has none of accuracy."""
    if columns["accuracy"] not in logs:
        return ""
    values = {name: logs.get(key) for name, key in columns.items()}
    # What does not happen needs no room.
    shown = {name: value for name, value in values.items() if value is not None and (value or name != "truncated")}
    return "  ".join(formats[name].format(value) for name, value in shown.items())


class ProgressLines(TrainerCallback):
    """One line per logging step and evaluation, where there is no terminal; columns as in `training_columns`."""

    def __init__(self, training: Mapping[str, str], held_out: Mapping[str, str]) -> None:
        self.columns = {"held out": held_out, "training": training}

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **kwargs: Any) -> None:
        if not state.is_world_process_zero or not logs:
            return
        for label, columns in self.columns.items():
            if line := figures(logs, columns):
                print(f"step {state.global_step:>4}/{state.max_steps}  {label}:  {line}", flush=True)


class ProgressBar(ProgressCallback):
    """
    One bar for the training, with the figures of the last logging step, or of the last evaluation, behind it. Columns
    are as in `training_columns`.
    """

    def __init__(self, training: Mapping[str, str], held_out: Mapping[str, str]) -> None:
        super().__init__()
        self.training, self.held_out = training, held_out

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.current_step = state.global_step
        if state.is_world_process_zero:
            self.training_bar = tqdm(
                desc="evaluating held-out problems " if args.eval_on_start else "",
                total=state.max_steps,
                initial=state.global_step,
                dynamic_ncols=True,
                bar_format="{desc}{n_fmt}/{total_fmt} {bar} {elapsed}<{remaining}{postfix}",
            )

    def on_prediction_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self.training_bar is not None:
            self.training_bar.set_description_str("evaluating held-out problems ")

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self.training_bar is not None:
            self.training_bar.set_description_str("")

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **kwargs: Any) -> None:
        if self.training_bar is None or not logs:
            return
        if line := figures(logs, self.training, _BAR) or figures(logs, self.held_out, _BAR):
            self.training_bar.set_postfix_str(line)


def show_progress(trainer: Any, held_out: Mapping[str, str]) -> None:
    """
    Replace the trainer's printing of metrics: in a terminal by a bar, elsewhere and with `disable_tqdm` by lines; both
    show the columns `held_out` of an evaluation. Trackers still get all metrics.
    """
    for printing in (ProgressCallback, PrinterCallback):
        trainer.pop_callback(printing)
    with_bar = sys.stderr.isatty() and not trainer.args.disable_tqdm
    trainer.add_callback((ProgressBar if with_bar else ProgressLines)(training_columns(trainer), held_out))
    quiet_bars()  # those of saving would break into this one
