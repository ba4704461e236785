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
from .completions import (
    ThoughtStatistics,
    completions_files,
    completions_schema,
    read_completions,
    read_rewards,
    thought_statistics,
)
from .saved_settings import ARGUMENTS_FILE, read_settings

STATE_FILE = "trainer_state.json"
TOKENIZER_FILES = ("tokenizer_config.json", "tokenizer.json")
EVALUATION_PREFIX = "eval_"
ACCURACY_REWARDS = ("answer_reward", "accuracy_reward")
"""Names of this package's reward for the right answer, the newest first: runs were logged under each."""


class UnreadableRunError(ValueError):
    """Nothing in a run's folder can be reported; other runs can."""


def printable(text: str) -> str:
    """`text` without what a terminal might take as a command."""
    return "".join(letter if letter.isprintable() else "�" for letter in text)


@dataclass
class Run:
    """
    A training run, read from its folder.

    Attributes:
        path: the folder.
        settings: training arguments and what else was saved, by name; empty where nothing was.
        log: the log history of `trainer_state.json`, in the order it was written; empty without such a file.
        accuracy_reward: the reward function used as accuracy; `None` if it is unknown.
        training, held_out: statistics of the logged completions by step.
        notes: sentences on what is missing from the folder, or was skipped.
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
        seed = self.settings.get("seed")
        return seed if isinstance(seed, int) else None


def read_run(
    path: str | Path,
    accuracy_reward: str | None = None,
    patterns: Mapping[str, Pattern[str]] = BACKTRACK_PATTERNS,
) -> Run:
    """
    Read a run's folder. If a file is broken, as after an interrupted write, it is skipped, and `Run.notes` says so. An
    older checkpoint replaces a broken state.

    Args:
        path: the `output_dir` of a trainer, of any TRL trainer with reward functions, finished or not.
        accuracy_reward: name of the reward function to use as accuracy. Default: the only one, or the only one
            with "accuracy" in its name, or `answer_reward`.
        patterns: kinds of backtrack, from `repro_trl.thinking.backtrack_patterns`.

    Raises:
        UnreadableRunError: nothing in the folder can be reported.
        ValueError: there is no such folder, or no reward function has the name `accuracy_reward`.
    """
    folder = Path(path)
    if not folder.is_dir():
        raise ValueError(f"{path}: there is no such folder. Give the output_dir of a training run.")
    run = Run(folder)
    checkpoints = _checkpoints(folder)
    state = _read_state(run, checkpoints)
    files = _sound_files(run)
    if state is None and not files:
        broken = f" {' '.join(f'{note}.' for note in run.notes)}" if run.notes else ""
        raise UnreadableRunError(
            f"{path}: neither logs ({STATE_FILE}, here or in a checkpoint) nor completions can be read in this folder."
            f"{broken} Call trainer.save_state() after training, keep checkpoints, or train with log_completions=True."
        )
    # A run that was stopped has its settings and tokenizer in its checkpoints only.
    home = next((place for place in (folder, *checkpoints) if (place / ARGUMENTS_FILE).is_file()), folder)
    run.settings, broken = read_settings(home)
    run.notes += broken
    if not run.settings:
        run.notes.append(f"no {ARGUMENTS_FILE}: its settings and seed are unknown")
    if state is None:
        run.notes.append(
            f"no {STATE_FILE}: what is only in the logs is missing, and held-out completions cannot be told from "
            "training ones (trainer.save_state() after training writes it)"
        )
    else:
        run.log = _sound_entries(run, state["log_history"])
        if not any("repro/" in key for entry in run.log for key in entry):
            run.notes.append(
                "no RePro metrics in the logs (repro_alpha=0, or another trainer): no J gain, J AUC or process reward"
            )
    if not files:
        run.notes.append(
            "no completions were logged (set log_completions=True): no thoughts by verdict, no backtracks by kind"
        )
    last_step = max((entry["step"] for entry in run.log), default=math.inf)
    beyond = [step for step in files if step > last_step]
    if beyond:
        run.notes.append(
            f"completions of {len(beyond)} step(s) after the end of the logs, at step {last_step}, are skipped"
        )
        files = {step: file for step, file in files.items() if step <= last_step}
    columns = completions_schema(next(iter(files.values()))).names if files else []
    run.accuracy_reward = _choose_accuracy_reward(run, columns, accuracy_reward)
    if files:
        _read_thoughts(run, files, _load_tokenizer(run, home), patterns)
    return run


def _checkpoints(folder: Path) -> list[Path]:
    """The checkpoints in a run's folder, the newest first."""
    steps = {
        int(match[1]): entry for entry in folder.iterdir() if (match := re.fullmatch(r"checkpoint-(\d+)", entry.name))
    }
    return [steps[step] for step in sorted(steps, reverse=True)]


def _read_state(run: Run, checkpoints: list[Path]) -> dict[str, Any] | None:
    """The trainer state that goes furthest, of the folder itself and of its newest checkpoint that has a whole one."""
    states, broken = {}, []
    for place in (run.path, *checkpoints):
        file = place / STATE_FILE
        if not file.is_file():
            continue
        name = str(file.relative_to(run.path))
        try:
            state = json.loads(file.read_text(encoding="utf-8"))
            states[name] = {"global_step": int(state["global_step"]), "log_history": list(state["log_history"])}
        except (ValueError, KeyError, TypeError, RecursionError, OSError) as error:
            broken.append(f"{name} cannot be read as a trainer state ({type(error).__name__})")
            continue
        if place != run.path:
            break
    name = max(states, key=lambda name: states[name]["global_step"], default=None)
    if broken:
        used = "no log is left" if name is None else f"using the log of {name}"
        run.notes.append(f"{'; '.join(broken)}: {used}")
    return None if name is None else states[name]


def _sound_entries(run: Run, log: list[Any]) -> list[dict[str, Any]]:
    """Entries of a log with a step, and of their values those that are numbers; null is none, as NaN."""
    entries, strange = [], set()
    for entry in log:
        if not isinstance(entry, dict) or not isinstance(entry.get("step"), int):
            strange.add("entries without a step that is an integer")
            continue
        values = {key: math.nan if value is None else value for key, value in entry.items()}
        strange |= {f"values of {key!r}" for key, value in values.items() if not isinstance(value, int | float)}
        entries.append({key: value for key, value in values.items() if isinstance(value, int | float)})
    if strange:
        run.notes.append(f"the logs have values that are not numbers; they are skipped: {', '.join(sorted(strange))}")
    return entries


def _sound_files(run: Run) -> dict[int, Path]:
    """The files of logged completions by step; those that cannot be read are left out and noted."""
    files, broken = {}, []
    for step, file in completions_files(run.path).items():
        try:
            completions_schema(file)
            files[step] = file
        except ValueError as error:
            broken.append(error)
    _note_broken_files(run, broken)
    return files


def _note_broken_files(run: Run, broken: list[ValueError]) -> None:
    if broken:
        more = f" and so are {len(broken) - 1} more" if len(broken) > 1 else ""
        run.notes.append(f"logged completions are skipped: {broken[0]}{more}".removesuffix("."))


def _choose_accuracy_reward(run: Run, columns: list[str], wanted: str | None) -> str | None:
    pattern = re.compile(rf"(?:{EVALUATION_PREFIX})?rewards/(.+)/mean")
    logged = {match[1] for entry in run.log for key in entry if (match := pattern.fullmatch(key))}
    named_so = {name for name in (logged if run.log else columns) if "accuracy" in name or name in ACCURACY_REWARDS}
    if not run.log:  # TRL's table of completions does not say which of its columns are rewards
        logged = named_so | {name for name in columns if name == wanted}
    if wanted in ACCURACY_REWARDS and wanted not in logged:
        wanted = next((name for name in ACCURACY_REWARDS if name in logged), wanted)
    if wanted is not None:
        if wanted not in logged:
            raise ValueError(f"{run.path}: no reward function {wanted!r} was logged, only {sorted(logged)}.")
        return wanted
    candidates = logged if len(logged) == 1 else named_so
    if len(candidates) == 1:
        return next(iter(candidates))
    run.notes.append(
        f"accuracy is unknown: use --accuracy to name the reward function for it, one of {sorted(logged)}"
        if logged
        else "accuracy is unknown: no reward function was logged"
    )
    return None


def _load_tokenizer(run: Run, home: Path) -> PreTrainedTokenizerBase | None:
    if not any((home / name).is_file() for name in TOKENIZER_FILES):
        run.notes.append("there is no tokenizer in the folder: thoughts of completions are not counted in tokens")
        return None
    try:
        return AutoTokenizer.from_pretrained(home, trust_remote_code=False)
    # Broken files may fail in any way in the libraries that read them.
    except Exception as error:
        run.notes.append(
            f"its tokenizer cannot be loaded ({type(error).__name__}): thoughts of completions are not counted in "
            "tokens"
        )
        return None


def _read_thoughts(
    run: Run,
    files: Mapping[int, Path],
    tokenizer: PreTrainedTokenizerBase | None,
    patterns: Mapping[str, Pattern[str]],
) -> None:
    delimiter = run.settings.get("repro_delimiter")
    delimiter = delimiter if isinstance(delimiter, str) and delimiter else "\n\n"
    think_end = run.settings.get("repro_think_end", "</think>")
    think_end = think_end if isinstance(think_end, str | None) else "</think>"
    evaluated = {entry["step"]: entry for entry in run.log if f"{EVALUATION_PREFIX}loss" in entry}
    previous, broken = None, []
    console = Console(stderr=True)
    progress = track(
        files.items(),
        description=f"Reading completions of {escape(run.name)}",
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )
    for step, file in progress:
        try:
            table = read_completions(file)
        except ValueError as error:
            broken.append(error)
            continue
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
        rewards = read_rewards(table, run.accuracy_reward)
        first = len(completions) - rows
        (run.held_out if step in evaluated else run.training)[step] = thought_statistics(
            completions[first:], rewards and rewards[first:], tokenizer, delimiter, think_end, patterns
        )
    _note_broken_files(run, broken)
    read = [*run.training.values(), *run.held_out.values()]
    if read and think_end and all(statistics.unclosed_thoughts == 1 for statistics in read):
        run.notes.append(
            f"no completion has {think_end!r}: each counts as one long thought. TRL removes special tokens from "
            "the texts it logs"
        )


def _num_evaluated(entry: Mapping[str, Any]) -> int:
    """Completions of an evaluation; transformers logs their rate only."""
    number = entry.get("eval_runtime", math.nan) * entry.get("eval_samples_per_second", math.nan)
    return 0 if math.isnan(number) else round(number)
