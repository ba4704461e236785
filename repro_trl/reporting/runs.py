"""One training run, read from the folder it leaves behind: settings, log history, statistics of its completions."""

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from re import Pattern
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import track
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from ..thinking import BACKTRACK_PATTERNS
from .completions import ThoughtStatistics, completion_columns, completions_files, read_completions, thought_statistics
from .saved_settings import ARGUMENTS_FILE, read_settings

STATE_FILE = "trainer_state.json"
TOKENIZER_FILES = ("tokenizer_config.json", "tokenizer.json")
EVALUATION_PREFIX = "eval_"


def printable(text: str) -> str:
    """`text` without what a terminal might take as a command."""
    return "".join(letter if letter.isprintable() else "�" for letter in text)


@dataclass
class Run:
    """
    A training run as its folder tells it.

    Attributes:
        path: the folder.
        settings: training arguments and what else was saved, by name; empty where nothing was.
        log: the log history of `trainer_state.json`, in the order it was written; empty without such a file.
        accuracy_reward: the reward function that stands for accuracy; `None` where none could be told.
        training, held_out: statistics of the logged completions by step.
        notes: what is missing from the folder, or was left out, in sentences.
    """

    path: Path
    settings: dict[str, Any] = field(default_factory=dict)
    log: list[dict[str, Any]] = field(default_factory=list)
    accuracy_reward: str | None = None
    training: dict[int, ThoughtStatistics] = field(default_factory=dict)
    held_out: dict[int, ThoughtStatistics] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    @property
    def name(self) -> str:
        """Name of the folder, fit for a terminal."""
        return printable(self.path.resolve().name)

    @property
    def seed(self) -> int | None:
        """Seed of the run; runs of two arms with the same seed are a pair."""
        return self.settings.get("seed")


def read_run(
    path: str | Path,
    accuracy_reward: str | None = None,
    patterns: Mapping[str, Pattern[str]] = BACKTRACK_PATTERNS,
) -> Run:
    """
    Read a run's folder.

    Args:
        path: the `output_dir` of a trainer, of any TRL trainer with reward functions, finished or not.
        accuracy_reward: name of the reward function that stands for accuracy. Default: the only one, or the only one
            that is named "answer_reward" or has "accuracy" in its name.
        patterns: kinds of backtrack, from `repro_trl.thinking.backtrack_patterns`.

    Raises:
        ValueError: there is no such folder, nothing in it can be reported, a file in it cannot be read, or no reward
            function has the name `accuracy_reward`.
    """
    folder = Path(path)
    if not folder.is_dir():
        raise ValueError(f"{path}: there is no such folder. Give the output_dir of a training run.")
    newest = _newest_checkpoint(folder)
    files = completions_files(folder)
    state = _read_state(folder, newest)
    if state is None and not files:
        raise ValueError(
            f"{path}: neither logs ({STATE_FILE}, here or in a checkpoint) nor completions are in this folder. Call "
            "trainer.save_state() after training, keep checkpoints, or train with log_completions=True."
        )
    run = Run(folder)
    # A run that was stopped has its settings and tokenizer in its checkpoints only.
    home = folder if newest is None or (folder / ARGUMENTS_FILE).is_file() else newest
    run.settings = read_settings(home)
    if not run.settings:
        run.notes.append(f"no {ARGUMENTS_FILE}: its settings and seed are unknown")
    if state is None:
        run.notes.append(
            f"no {STATE_FILE}: what logs alone tell is missing, and held-out completions are not told from training "
            "ones (trainer.save_state() after training writes it)"
        )
    else:
        run.log = state["log_history"]
        if not any("repro/" in key for entry in run.log for key in entry):
            run.notes.append(
                "no metrics of RePro are in the logs (repro_alpha=0, or another trainer): no J gain, no process reward"
            )
    if not files:
        run.notes.append(
            "no completions were logged (log_completions=True does it): no thoughts by verdict, no backtracks by kind"
        )
    last_step = max((entry["step"] for entry in run.log), default=math.inf)
    beyond = [step for step in files if step > last_step]
    if beyond:
        run.notes.append(f"completions of {len(beyond)} step(s) after the logs end, at step {last_step}, are left out")
        files = {step: file for step, file in files.items() if step <= last_step}
    columns = completion_columns(next(iter(files.values()))) if files else []
    run.accuracy_reward = _choose_accuracy_reward(run, columns, accuracy_reward)
    if files:
        _read_thoughts(run, files, _load_tokenizer(run, home), patterns)
    return run


def _newest_checkpoint(folder: Path) -> Path | None:
    steps = {
        int(match[1]): entry
        for entry in folder.iterdir()
        if (match := re.fullmatch(r"checkpoint-(\d+)", entry.name)) and (entry / STATE_FILE).is_file()
    }
    return steps[max(steps)] if steps else None


def _read_state(folder: Path, newest_checkpoint: Path | None) -> dict[str, Any] | None:
    """The trainer state that goes furthest, of the folder itself and of its newest checkpoint."""
    states = []
    for file in (folder / STATE_FILE, newest_checkpoint and newest_checkpoint / STATE_FILE):
        if file is None or not file.is_file():
            continue
        try:
            state = json.loads(file.read_text(encoding="utf-8"))
            states.append({"global_step": int(state["global_step"]), "log_history": list(state["log_history"])})
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{file}: not the state of a trainer ({error!r}).") from error
    return max(states, key=lambda state: state["global_step"], default=None)


def _may_be_accuracy(reward_function: str) -> bool:
    return "accuracy" in reward_function or reward_function == "answer_reward"


def _choose_accuracy_reward(run: Run, columns: list[str], wanted: str | None) -> str | None:
    pattern = re.compile(rf"(?:{EVALUATION_PREFIX})?rewards/(.+)/mean")
    logged = {match[1] for entry in run.log for key in entry if (match := pattern.fullmatch(key))}
    if not run.log:  # TRL's table of completions does not say which of its columns are rewards
        logged = {name for name in columns if _may_be_accuracy(name) or name == wanted}
    if wanted is not None:
        if wanted not in logged:
            raise ValueError(f"{run.path}: no reward function {wanted!r} was logged, only {sorted(logged)}.")
        return wanted
    candidates = logged if len(logged) == 1 else set(filter(_may_be_accuracy, logged))
    if len(candidates) == 1:
        return candidates.pop()
    run.notes.append(
        f"accuracy is unknown: name the reward function that stands for it with --accuracy, one of {sorted(logged)}"
        if logged
        else "accuracy is unknown: no reward function was logged"
    )
    return None


def _load_tokenizer(run: Run, home: Path) -> PreTrainedTokenizerBase | None:
    if any((home / name).is_file() for name in TOKENIZER_FILES):
        return AutoTokenizer.from_pretrained(home, trust_remote_code=False)
    run.notes.append("no tokenizer is in the folder: thoughts of completions are not counted in tokens")
    return None


def _read_thoughts(
    run: Run,
    files: Mapping[int, Path],
    tokenizer: PreTrainedTokenizerBase | None,
    patterns: Mapping[str, Pattern[str]],
) -> None:
    delimiter = run.settings.get("repro_delimiter", "\n\n")
    think_end = run.settings.get("repro_think_end", "</think>")
    evaluated = {entry["step"]: entry for entry in run.log if f"{EVALUATION_PREFIX}loss" in entry}
    previous = None
    console = Console(stderr=True)
    progress = track(
        files.items(),
        description=f"Reading completions of {escape(run.name)}",
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )
    for step, file in progress:
        table = read_completions(file)
        texts = table.select([name for name in ("prompt", "completion") if name in table.column_names])
        # TRL writes what it generated last; logging more often than generating repeats a file.
        if previous is not None and texts.equals(previous):
            continue
        previous = texts
        rows = table.num_rows
        if step in evaluated:
            # An evaluation writes over the file of its step; where it is small, training completions are left before
            # its own.
            rows = min(rows, _num_evaluated(evaluated[step]) or rows)
        completions = table["completion"].to_pylist()
        rewards = table[run.accuracy_reward].to_pylist() if run.accuracy_reward in table.column_names else None
        first = len(completions) - rows
        (run.held_out if step in evaluated else run.training)[step] = thought_statistics(
            completions[first:], rewards and rewards[first:], tokenizer, delimiter, think_end, patterns
        )
    read = [*run.training.values(), *run.held_out.values()]
    if think_end and all(statistics.unclosed_thoughts == 1 for statistics in read):
        run.notes.append(
            f"no completion holds {think_end!r}: each counts as a thought to its end. TRL leaves special tokens out "
            "of the texts it logs"
        )


def _num_evaluated(entry: Mapping[str, Any]) -> int:
    """Completions of an evaluation; transformers logs their rate only."""
    number = entry.get("eval_runtime", math.nan) * entry.get("eval_samples_per_second", math.nan)
    return 0 if math.isnan(number) else round(number)
