"""What `repro-trl inspect` is asked to show: rows of files, of a dataset on the Hub or typed in, and traces."""

import argparse
import itertools
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from tqdm import tqdm

from ..demo import PROBLEMS_FILE
from ..loose_rows import UnreadableRow, is_row_file, read_rows, row_files
from ..traces import Trace, is_trace
from .arguments import columns_from_arguments
from .inspect_arguments import DEFAULT_LIMIT
from .rows import HEAD, AnswerBook, Columns, Refusal, Row, check_row, groups, has_completions


class Source:
    """
    What is asked for, by prompt; rows that cannot be read are reported and counted.

    Raises:
        ValueError: a file is not there, or cannot be read.
    """

    def __init__(self, arguments: argparse.Namespace) -> None:
        self._arguments = arguments
        self._columns = columns_from_arguments(arguments)
        self._answers: AnswerBook | None = None
        self.refused = 0
        names = arguments.source
        if not names and not arguments.problem:
            names = [str(PROBLEMS_FILE)]
        self._files = {name: row_files(Path(name)) for name in names if not _is_on_hub(name)}
        self._names = names
        if arguments.answers_from:
            # Only the problems' own columns are known by name: the given ones are those of the completions.
            files = row_files(arguments.answers_from)
            rows = [row for file in files for row in self._checked(read_rows(file), file, Columns(), False, None)]
            self._answers = AnswerBook(rows)

    def holds_traces(self) -> bool:
        """
        Whether all files are trace files.

        Raises:
            ValueError: some are, and others are not.
        """
        files = [file for files in self._files.values() for file in files]
        traces = [file for file in files if is_trace(next((row for _, row in read_rows(file)), None))]
        if traces and (len(traces) < len(files) or len(self._files) < len(self._names) or self._arguments.problem):
            raise ValueError(f"{traces[0]} holds traces, and other sources do not. Show them in a page of their own.")
        return bool(traces)

    def traces(self) -> Iterator[Trace]:
        """The traces in all files; what is none is refused."""
        for file in itertools.chain.from_iterable(self._files.values()):
            for number, record in read_rows(file):
                try:
                    if isinstance(record, UnreadableRow):
                        raise ValueError(record.reason)
                    yield Trace.from_dict(record)
                except (ValueError, TypeError) as error:
                    self.refuse(Refusal(number, str(error)), file)

    def groups(self) -> Iterator[tuple[list[Row], bool, str]]:
        """The rows of each prompt, whether a text prompt is a problem to be put as a message, and the source."""
        for problem, answer in zip(self._arguments.problem, self._arguments.answer, strict=True):
            row = check_row(1, {"prompt": problem, "answer": answer}, Columns(), with_completions=False)
            if isinstance(row, Refusal):
                raise ValueError(f"--problem {problem!r}: {row.reason}.")
            yield [row], True, "--problem"
        limit, num_given, num_sampled = self._arguments.limit, 0, 0
        for place, records in self._sources():
            for group, given in self._groups_of(place, records):
                num_given, num_sampled = num_given + given, num_sampled + (not given)
                if limit is None and num_sampled > DEFAULT_LIMIT:
                    break
                if limit is not None and num_given + num_sampled > limit:
                    return
                yield group, not given, place

    def _sources(self) -> Iterator[tuple[str, Iterator[tuple[int, Any]]]]:
        for name in self._names:
            if name in self._files:
                yield from ((str(file), read_rows(file)) for file in self._files[name])
            else:
                yield name, _read_hub(name, self._arguments.split)

    def _groups_of(self, place: str, records: Iterator[tuple[int, Any]]) -> Iterator[tuple[list[Row], bool]]:
        """The rows of each prompt in one source, and whether they come with completions."""
        head = list(itertools.islice(records, HEAD))
        if not head:
            raise ValueError(f"{place} holds no rows.")
        columns = self._columns.of_source([record for _, record in head if isinstance(record, dict)])
        given = not self._arguments.sample and any(has_completions(record, columns) for _, record in head)
        rows = self._checked(itertools.chain(head, records), place, columns, given, self._answers)
        yield from ((group, given) for group in (groups(rows) if given else ([row] for row in rows)))

    def _checked(
        self,
        records: Iterable[tuple[int, Any]],
        place: str | Path,
        columns: Columns,
        with_completions: bool,
        answers: AnswerBook | None,
    ) -> Iterator[Row]:
        for number, record in records:
            row = check_row(number, record, columns, with_completions, answers)
            if isinstance(row, Refusal):
                self.refuse(row, place)
            else:
                yield row

    def refuse(self, refusal: Refusal, place: str | Path) -> None:
        """Report a row that is left out."""
        self.refused += 1
        tqdm.write(f"{place}, {refusal}", file=sys.stderr)


def _is_on_hub(name: str) -> bool:
    """Whether a source can only be a dataset on the Hub, NAME or OWNER/NAME, for it is no path."""
    path = Path(name)
    return not path.exists() and not is_row_file(path) and not path.is_absolute() and len(path.parts) <= 2


def _read_hub(name: str, split: str) -> Iterator[tuple[int, Any]]:
    from datasets import load_dataset

    try:
        yield from enumerate(load_dataset(name, split=split, streaming=True), start=1)
    # Loaders fail in ways of their own: of the network, of the Hub, of each format.
    except Exception as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ValueError(
            f"{name}: there is no such file or folder, and the Hub gives no split {split!r} of it ({reason})"
        ) from error
