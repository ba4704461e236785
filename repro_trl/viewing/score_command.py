"""`repro-trl score`: adds RePro's scores to a jsonl file of prompts, completions and answers, for use outside TRL."""

import argparse
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from tqdm import tqdm

from ..traces import floats, fork_entropies
from .rows import Columns, Refusal, Row, groups, parse_line
from .scorer import CompletionScorer, ScoredGroup, add_scoring_arguments, scorer_from_arguments

FIELD = "repro"

_DESCRIPTION = f"""
Each row gets a field {FIELD!r}: an object, or a list of them where the row has a list of completions, with
boundaries (tokens before each boundary), entropies (nats, at the boundaries that are segment starts), objective (J,
nats per answer token), magnitude, stability and scores at the boundaries, process_rewards and normalized_rewards of
the segments between them, and advantages of the tokens; or not_scored with the reason. Neighbouring rows with the same
prompt are one group for the normalisation. Rows that cannot be read are reported with their line numbers and left out,
and the exit status is then 1. The same command run again goes on where an interrupted one stopped.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = f"{parser.description} {_DESCRIPTION}"
    parser.add_argument("input", type=Path, help="jsonl file: a prompt, its completion or completions, and an answer.")
    parser.add_argument("output", type=Path, help="jsonl file to write.")
    parser.add_argument("--overwrite", action="store_true", help="Start anew instead of going on with the output.")
    add_row_arguments(parser)
    add_scoring_arguments(parser)


def add_row_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments that say what the columns of a file are."""
    rows = parser.add_argument_group("columns")
    rows.add_argument("--prompt_column", help="Text or messages. Default: prompt, problem or question.")
    rows.add_argument(
        "--completion_column",
        help="A text, one message, or a list of either. Default: completion, completions, response or responses.",
    )
    rows.add_argument(
        "--answer_column",
        help="Ground truth: an answer, or a solution with it. Default: repro_answer, solution or answer.",
    )
    rows.add_argument(
        "--as_user_message",
        action="store_true",
        help="Put prompts that are text into the chat template, as a user's message; otherwise they are left alone.",
    )


def columns_from_arguments(arguments: argparse.Namespace) -> Columns:
    """What `add_row_arguments` was given."""
    return Columns(arguments.prompt_column, arguments.completion_column, arguments.answer_column)


class _OtherInputError(ValueError):
    """The output was written for another input."""


def run(arguments: argparse.Namespace) -> int:
    try:
        scorer, num_written = _prepare(arguments)
    except (ValueError, OSError) as error:
        print(f"repro-trl score: {error}", file=sys.stderr)
        return 2
    try:
        return _score_file(arguments, scorer, num_written)
    except _OtherInputError as error:
        print(f"repro-trl score: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\nInterrupted. The same command goes on from here.", file=sys.stderr)
        return 130


def _prepare(arguments: argparse.Namespace) -> tuple[CompletionScorer, int]:
    """The scorer, and the rows that the output holds already; raises for what cannot work."""
    if not arguments.input.is_file():
        raise ValueError(f"{arguments.input}: there is no such file.")
    if arguments.output.exists() and arguments.output.samefile(arguments.input):
        raise ValueError(f"{arguments.output} is the input, too. Name another file.")
    return scorer_from_arguments(arguments), _open_output(arguments)


# ------------------------------------------------------------------------------------------------------------ resuming


def _open_output(arguments: argparse.Namespace) -> int:
    """Make the output ready to be appended to; returns the rows that it holds already."""
    output = arguments.output
    settings_file = output.with_name(output.name + ".settings.json")
    ignored = {"input", "output", "overwrite", "command", "run"}
    settings = {name: value for name, value in vars(arguments).items() if name not in ignored}
    output.parent.mkdir(parents=True, exist_ok=True)
    if not output.exists() or arguments.overwrite:
        output.write_bytes(b"")
        settings_file.write_text(json.dumps(settings, indent=2) + "\n")
        return 0
    if not settings_file.is_file():
        raise ValueError(
            f"{output} exists, and {settings_file.name} does not, so it cannot be gone on with. Name another file, or "
            "give --overwrite."
        )
    former = json.loads(settings_file.read_text())
    changed = sorted(name for name in former.keys() | settings.keys() if former.get(name) != settings.get(name))
    if changed:
        raise ValueError(f"{output} was begun with other values of {', '.join(changed)}. Give those, or --overwrite.")
    with open(output, "rb+") as file:
        size = lines = 0
        for line in file:
            if not line.endswith(b"\n"):  # written in part
                break
            size, lines = size + len(line), lines + 1
        file.truncate(size)
    return lines


def _check_written(row: Row, line: bytes, output: Path) -> None:
    written = json.loads(line)
    written.pop(FIELD)
    if written != {name: value for name, value in row.record.items() if name != FIELD}:
        raise _OtherInputError(
            f"{output} does not belong to this input: its row for line {row.number} is another one. Give --overwrite, "
            "or name another file."
        )


# ------------------------------------------------------------------------------------------------------------- scoring


def _score_file(arguments: argparse.Namespace, scorer: CompletionScorer, num_written: int) -> int:
    num_rows = 0
    reader = _Reader(arguments, scorer)
    with (
        open(arguments.input, "rb") as source,
        open(arguments.output, "rb") as written,
        open(arguments.output, "ab") as output,
        tqdm(total=os.path.getsize(arguments.input), unit="B", unit_scale=True, desc="score") as progress,
    ):
        for group in groups(reader.rows(source, progress)):
            # Rows are written a group at a time, and a group that was written in part is scored once more as a whole:
            # so what an interrupted run leaves has no bearing on the scores.
            new = []
            for row in group:
                if num_written == 0:
                    new.append(row)
                    continue
                _check_written(row, written.readline(), arguments.output)
                num_written -= 1
            num_rows += len(group)
            if new:
                lines = reader.score(group)[-len(new) :]
                output.write(b"".join(lines))
                output.flush()
            progress.set_postfix(rows=num_rows, refused=reader.refused, refresh=False)
        if num_written:
            raise _OtherInputError(
                f"{arguments.output} has more rows than the input. Give --overwrite, or name another file."
            )
        progress.update(progress.total - progress.n)
    if reader.too_long:
        print(
            f"{reader.too_long} completions are longer than the {scorer.context_length} tokens that the model was "
            "made for; their scores say little.",
            file=sys.stderr,
        )
    print(f"{num_rows} rows in {arguments.output}, {reader.refused} refused.", file=sys.stderr)
    return 1 if reader.refused else 0


class _Reader:
    """Reads rows, refuses what cannot be scored, and counts what it meets."""

    def __init__(self, arguments: argparse.Namespace, scorer: CompletionScorer) -> None:
        self._columns = columns_from_arguments(arguments)
        self._as_user_message = arguments.as_user_message
        self._scorer = scorer
        self.refused = 0
        self.too_long = 0

    def rows(self, source: BinaryIO, progress: tqdm) -> Iterator[Row]:
        for number, line in enumerate(source, start=1):
            row = parse_line(number, line, self._columns)
            progress.update(len(line))
            if isinstance(row, Row):
                problem = self._scorer.prompt_problem(self._prompt(row))
                row = Refusal(number, problem) if problem else row
            if isinstance(row, Refusal):
                self.refused += 1
                progress.write(str(row), file=sys.stderr)
            elif row is not None:
                yield row

    def score(self, group: list[Row]) -> list[bytes]:
        """The lines of a group's rows, scores added."""
        scorer = self._scorer
        prompt_ids = scorer.encode_prompt(self._prompt(group[0]))
        completions = [scorer.encode_completion(text) for row in group for text in row.completions]
        answers = [row.answer for row in group for _ in row.completions]
        result = scorer.score(prompt_ids, completions, answers)
        self.too_long += sum(scorer.exceeds_context(prompt_ids, ids) for ids in completions)
        added = [_scores(result, index, len(ids)) for index, ids in enumerate(completions)]
        lines = []
        for row in group:
            own, added = added[: len(row.completions)], added[len(row.completions) :]
            record = {**row.record, FIELD: own if row.has_list else own[0]}
            lines.append(json.dumps(record).encode() + b"\n")
        return lines

    def _prompt(self, row: Row) -> str | list[dict[str, Any]]:
        if self._as_user_message and isinstance(row.prompt, str):
            return [{"role": "user", "content": row.prompt}]
        return row.prompt


def _scores(result: ScoredGroup, index: int, length: int) -> dict[str, Any]:
    if result.skipped[index] is not None:
        return {"not_scored": result.skipped[index]}
    scored = result.scored
    used, segments = scored.boundary_mask[index], scored.segment_mask[index]
    return {
        "boundaries": scored.boundaries[index, used].tolist(),
        "entropies": fork_entropies(scored, index),
        "objective": floats(scored.objective[index, used]),
        "magnitude": floats(scored.magnitude[index, used]),
        "stability": floats(scored.stability[index, used]),
        "scores": floats(scored.scores[index, used]),
        "process_rewards": floats(scored.process_rewards[index, segments]),
        "normalized_rewards": floats(scored.normalized_rewards[index, segments]),
        "advantages": floats(scored.advantages[index, :length]),
    }
