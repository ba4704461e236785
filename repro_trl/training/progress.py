"""What a training script shows: progress, and the held-out figures before and after."""

import json
from pathlib import Path
from typing import Any

from transformers import PrinterCallback, ProgressCallback, TrainerCallback

# Logged by the trainer's evaluation, which samples as training does; and by `EvaluationCallback`, whose completions
# have seeds of their own, so that `repro-trl eval` gets the same ones from the saved model.
TRAINER_COLUMNS = {
    "accuracy": "eval_rewards/accuracy/mean",
    "thinking tokens": "eval_thinking_tokens",
    "backtracks": "eval_backtracks",
    "truncated": "eval_completions/clipped_ratio",
    "J gain": "eval_repro/objective_gain",
}
HELD_OUT = "held_out"
HELD_OUT_COLUMNS = {
    "accuracy": f"eval_{HELD_OUT}/accuracy",
    "thinking tokens": f"eval_{HELD_OUT}/thinking_tokens",
    "backtracks": f"eval_{HELD_OUT}/backtracks",
    "truncated": f"eval_{HELD_OUT}/truncation_rate",
}
TRAINING_COLUMNS = {name: key.removeprefix("eval_") for name, key in TRAINER_COLUMNS.items()}


class ProgressLines(TrainerCallback):
    """
    One short line per logging step above the progress bar, where TRL would print every metric it has. Of held-out
    problems those in `held_out_columns` are shown.
    """

    def __init__(self, held_out_columns: dict[str, str]) -> None:
        self.columns = {"held out": held_out_columns, "training": TRAINING_COLUMNS}

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **kwargs: Any) -> None:
        if not state.is_world_process_zero or not logs:
            return
        label = next((label for label, columns in self.columns.items() if columns["accuracy"] in logs), None)
        if label is None:
            return
        values = {name: logs.get(key) for name, key in self.columns[label].items()}
        numbers = "  ".join(f"{name} {value:.2f}" for name, value in values.items() if value is not None)
        print(f"step {state.global_step:>4}/{state.max_steps}  {label}:  {numbers}", flush=True)


class QuietProgressBar(ProgressCallback):
    """The progress bar without the dictionary of metrics under it."""

    def on_log(self, *args: Any, **kwargs: Any) -> None:
        pass


def show_progress(trainer: Any, held_out_columns: dict[str, str]) -> None:
    """Replace the trainer's printing of metrics by `ProgressLines`; trackers still get all of them."""
    for printing in (ProgressCallback, PrinterCallback):
        trainer.pop_callback(printing)
    if not trainer.args.disable_tqdm:
        trainer.add_callback(QuietProgressBar)
    trainer.add_callback(ProgressLines(held_out_columns))


def before_after_table(trainer: Any, columns: dict[str, str]) -> str:
    """
    The first and the last evaluation of a run side by side, with the keys in `columns`; also written to
    `before_after.json` in its folder.
    """
    logged = {key: [entry[key] for entry in trainer.state.log_history if key in entry] for key in columns.values()}
    rows = {
        name: {column: logged[key][index] if logged[key] else None for column, key in columns.items()}
        for name, index in (("before", 0), ("after", -1))
    }
    if trainer.is_world_process_zero():
        Path(trainer.args.output_dir, "before_after.json").write_text(json.dumps(rows, indent=2) + "\n")
    shown = [column for column, value in rows["after"].items() if value is not None]
    lines = ["".join([f"{'held out':10}", *(f"{column:>17}" for column in shown)])]
    for name, row in rows.items():
        lines.append("".join([f"{name:10}", *(f"{row[column]:>17.3f}" for column in shown)]))
    return "\n".join(lines)
