"""`repro-trl score`: adds RePro's scores to a jsonl file of prompts, completions and answers, for use outside TRL."""

import argparse
import dataclasses
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tqdm import tqdm

from ..command_line import DONE, FAILED
from ..config import AUTO_PREFIX
from ..demo import MODEL_DIR
from ..jsonl import JsonlWriter, read_object, write_atomically
from ..method.answer_forms import AnswerForm
from ..models import model_files
from ..row_files import RowFileError, json_text, parse_json, row_files, scan_rows
from ..traces import measurements
from .arguments import scorer_from_arguments
from .form_search import search_form
from .rows import Columns, Row, begin, check_row, groups, scan
from .score_arguments import FIELD
from .scorer import CompletionScorer, ScoredGroup

_FORM = "answer_form"
"""Where the settings beside an output have the form that `repro_answer_prefix="auto"` found."""


def run(arguments: argparse.Namespace) -> int:
    files = _input_files(arguments.input, arguments.output)
    scorer = scorer_from_arguments(arguments)
    settings = _settings(arguments)
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    with JsonlWriter(arguments.output, wait=False) as writer:
        form = _begin(writer, settings, arguments.overwrite)
        if form is not None:
            scorer.reader.form = form
            print(f"repro-trl score: using the answer form {form}, as for the rows that are there.", file=sys.stderr)
        elif arguments.repro_answer_prefix == AUTO_PREFIX:
            form = _find_form(arguments, files, scorer)
            # Kept with the settings, because a longer input might lead to another one.
            _write_settings(writer.path, settings | {_FORM: dataclasses.asdict(form)})
        return _score_files(arguments, files, scorer, writer)


def _input_files(source: Path, output: Path) -> list[Path]:
    """
    The files to read, checked with the output before a model is loaded; a `ValueError` for one that cannot be read or
    written.
    """
    files = row_files(source)
    if output.is_dir():
        raise ValueError(f"{output} is a folder. Name the file to write.")
    if output.exists() and any(output.samefile(file) for file in files):
        raise ValueError(f"{output} is also the input. Name another file.")
    errors = []
    for row in scan_rows(source):
        if not isinstance(row, RowFileError):
            return files
        errors.append(row)
    raise errors[0]


def _settings(arguments: argparse.Namespace) -> dict[str, Any]:
    """What decides the scores of a row."""
    ignored = {"input", "output", "overwrite", "command"}
    settings = {name: value for name, value in vars(arguments).items() if name not in ignored}
    files = model_files(arguments.model_name_or_path or str(MODEL_DIR), arguments.model_revision)
    return {**settings, "model_files": files}


def _settings_file(output: Path) -> Path:
    return output.with_name(output.name + ".settings.json")


def _write_settings(output: Path, settings: dict[str, Any]) -> None:
    write_atomically(_settings_file(output), json.dumps(settings, indent=2) + "\n")


def _begin(writer: JsonlWriter, settings: dict[str, Any], overwrite: bool) -> AnswerForm | None:
    """
    Empty the output, or hold the settings with which it was begun against those of this run.

    Returns:
        The answer form of the rows that are there; `None` if there are none, or if the form was given.
    """
    output = writer.path
    if overwrite:
        writer.clear()
    if writer.is_empty:  # a run that failed before its first row binds nobody
        _write_settings(output, settings)
        return None
    file = _settings_file(output)
    if not file.is_file():
        raise ValueError(
            f"{output} exists, but {file.name} does not, so it cannot be resumed. Name another file, or pass "
            "--overwrite."
        )
    former = read_object(file, "Name another output, or pass --overwrite.")
    form = former.pop(_FORM, None)
    changed = sorted(name for name in former.keys() | settings.keys() if former.get(name) != settings.get(name))
    if changed:
        raise ValueError(
            f"{output} was started with other values of {', '.join(changed)}. Use those in {file.name}, or pass "
            "--overwrite."
        )
    if form is None:
        return None
    try:
        return AnswerForm(**form)
    except TypeError:
        raise ValueError(f"{file}: {_FORM} is {form!r}. Name another output, or pass --overwrite.") from None


def _find_form(arguments: argparse.Namespace, files: list[Path], scorer: CompletionScorer) -> AnswerForm:
    """Set the scorer's form to the one that suits the first rows, and return it."""
    with tqdm(disable=True) as silent:
        looked_at = _Reader(arguments, scorer, is_quiet=True)
        search_form(scorer, (looked_at.encode(group) for group in groups(looked_at.rows(files, silent))), "score")
    return scorer.reader.form


def _check_written(row: Row, line: bytes, output: Path) -> None:
    try:
        written = parse_json(line.decode(), str(output))
        written.pop(FIELD)
    except (ValueError, AttributeError, KeyError, TypeError):
        written = None
    record = json_text({name: value for name, value in row.record.items() if name != FIELD})
    # As text, in which NaN equals itself, of what was read from text, in which 1e22 and 1E+22 are one number.
    if json_text(written) != json_text(parse_json(record, row.place)):
        raise ValueError(
            f"{output} does not belong to this input: its row for {row.place} is a different one. Pass "
            "--overwrite, or name another file."
        )


def _score_files(
    arguments: argparse.Namespace, files: list[Path], scorer: CompletionScorer, writer: JsonlWriter
) -> int:
    num_rows = 0
    reader = _Reader(arguments, scorer)
    with open(arguments.output, "rb") as written, tqdm(unit=" rows", desc="score") as progress:
        num_written = sum(1 for _ in written)
        written.seek(0)
        for group in groups(reader.rows(files, progress)):
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
                writer.append(reader.score(group)[-len(new) :])
            progress.set_postfix(refused=reader.refused, refresh=False)
        if num_written:
            raise ValueError(
                f"{arguments.output} has more rows than the input. Pass --overwrite, or name another file."
            )
    if reader.too_long:
        print(
            f"{reader.too_long} completions are longer than the model's {scorer.context_length} tokens; their "
            "scores mean little.",
            file=sys.stderr,
        )
    print(f"Wrote {num_rows} rows to {arguments.output}; {reader.refused} rows were refused.", file=sys.stderr)
    return FAILED if reader.refused else DONE


class _Reader:
    """Reads rows, refuses what cannot be scored, and counts what it meets."""

    def __init__(self, arguments: argparse.Namespace, scorer: CompletionScorer, is_quiet: bool = False) -> None:
        self._is_quiet = is_quiet
        self._columns = Columns(arguments.prompt_column, arguments.completion_column, arguments.answer_column)
        self._as_user_message = arguments.as_user_message
        self._scorer = scorer
        self.refused = 0
        self.too_long = 0

    def rows(self, files: list[Path], progress: tqdm) -> Iterator[Row]:
        for file in files:
            _, columns, records = begin(scan(file), self._columns)
            for place, record in records:
                row = check_row(place, record, columns)
                progress.update()
                if isinstance(row, Row) and (problem := self._problem(row)):
                    row = RowFileError(f"{place}: {problem}")
                if isinstance(row, Row):
                    yield row
                else:
                    self.refused += 1
                    if not self._is_quiet:
                        progress.write(str(row), file=sys.stderr)

    def _problem(self, row: Row) -> str | None:
        try:
            json_text(row.record)
        except TypeError as error:  # dates and bytes of parquet files
            return f"it cannot be written as JSON ({error})"
        except RecursionError:
            return "it is nested too deeply"
        return self._scorer.prompt_problem(self._prompt(row))

    def encode(self, group: list[Row]) -> tuple[list[int], list[list[int]], list[str | None]]:
        """Prompt ids, completions and ground truths of a group's rows."""
        prompt_ids = self._scorer.encode_prompt(self._prompt(group[0]))
        completions = [self._scorer.encode_completion(text) for row in group for text in row.completions]
        return prompt_ids, completions, [row.answer for row in group for _ in row.completions]

    def score(self, group: list[Row]) -> list[bytes]:
        """The lines of a group's rows, scores added."""
        scorer = self._scorer
        prompt_ids, completions, answers = self.encode(group)
        result = scorer.score(prompt_ids, completions, answers)
        self.too_long += sum(scorer.exceeds_context(prompt_ids, ids) for ids in completions)
        added = [_scores(result, index, len(ids)) for index, ids in enumerate(completions)]
        lines = []
        for row in group:
            own, added = added[: len(row.completions)], added[len(row.completions) :]
            record = {**row.record, FIELD: own if row.has_list else own[0]}
            lines.append(json_text(record).encode() + b"\n")
        return lines

    def _prompt(self, row: Row) -> str | list[dict[str, Any]]:
        if self._as_user_message and isinstance(row.prompt, str):
            return [{"role": "user", "content": row.prompt}]
        return row.prompt


def _scores(result: ScoredGroup, index: int, length: int) -> dict[str, Any]:
    if result.skipped[index] is not None:
        return {"not_scored": result.skipped[index]}
    return measurements(result.scored, index, length)
