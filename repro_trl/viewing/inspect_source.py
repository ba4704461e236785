"""What `repro-trl inspect` is asked to show: rows of files, of a dataset on the Hub or typed in, and traces."""

import argparse
import itertools
import sys
from collections.abc import Iterator
from pathlib import Path

from tqdm import tqdm

from ..command_line import first_line
from ..demo import PROBLEMS_FILE
from ..row_files import RowFileError, is_row_file, plain_numbers, row_files
from ..traces import Trace, is_trace
from .inspect_arguments import DEFAULT_LIMIT
from .rows import AnswerBook, Columns, Record, Row, begin, check_row, groups, has_completions, scan


class Source:
    """
    What is asked for, by prompt; rows that cannot be read are reported and counted. A `ValueError` if a file is not
    there, or cannot be read.
    """

    def __init__(self, arguments: argparse.Namespace) -> None:
        self._arguments = arguments
        self._columns = Columns(arguments.prompt_column, arguments.completion_column, arguments.answer_column)
        self._answers: AnswerBook | None = None
        self.refused = 0
        self._names = arguments.source or ([] if arguments.problem else [str(PROBLEMS_FILE)])
        self._files = {name: row_files(Path(name)) for name in self._names if not _is_on_hub(name)}
        if arguments.answers_from:
            # Only the problems' own columns are known by name: the given ones are those of the completions.
            files = row_files(arguments.answers_from)
            rows = [row for file in files for row in self._checked(scan(file), Columns(), False, None)]
            self._answers = AnswerBook(rows)

    def holds_traces(self) -> bool:
        """Whether all files are trace files; a `ValueError` if some are, and others are not."""
        files = [file for files in self._files.values() for file in files]
        traces = [file for file in files if is_trace(next((record for _, record in scan(file)), None))]
        if traces and (len(traces) < len(files) or len(self._files) < len(self._names) or self._arguments.problem):
            raise ValueError(f"{traces[0]} has traces, but other sources do not. Show traces on a page of their own.")
        return bool(traces)

    def traces(self) -> Iterator[Trace]:
        """The traces in all files; what is none is refused."""
        for file in itertools.chain.from_iterable(self._files.values()):
            for place, record in scan(file):
                try:
                    if isinstance(record, RowFileError):
                        raise record
                    yield Trace.from_dict(plain_numbers(record))
                except RowFileError as error:
                    self.refuse(error)
                except (ValueError, TypeError) as error:
                    self.refuse(RowFileError(f"{place}: {error}"))

    def groups(self) -> Iterator[tuple[list[Row], bool]]:
        """The rows of each prompt, and whether a text prompt is a problem to be put as a message."""
        for problem, answer in zip(self._arguments.problem, self._arguments.answer, strict=True):
            place = f"--problem {problem!r}"
            row = check_row(place, {"prompt": problem, "answer": answer}, Columns(), with_completions=False)
            if isinstance(row, RowFileError):
                raise row
            yield [row], True
        limit, num_given, num_sampled = self._arguments.limit, 0, 0
        for records in self._sources():
            for group, given in self._groups_of(records):
                num_given, num_sampled = num_given + given, num_sampled + (not given)
                if limit is None and num_sampled > DEFAULT_LIMIT:
                    break
                if limit is not None and num_given + num_sampled > limit:
                    return
                yield group, not given

    def _sources(self) -> Iterator[Iterator[Record]]:
        for name in self._names:
            if name in self._files:
                yield from map(scan, self._files[name])
            else:
                yield _read_hub(name, self._arguments.split)

    def _groups_of(self, records: Iterator[Record]) -> Iterator[tuple[list[Row], bool]]:
        """The rows of each prompt in one source, and whether they come with completions."""
        head, columns, records = begin(records, self._columns)
        given = not self._arguments.sample and any(has_completions(record, columns) for record in head)
        rows = self._checked(records, columns, given, self._answers)
        yield from ((group, given) for group in (groups(rows) if given else ([row] for row in rows)))

    def _checked(
        self, records: Iterator[Record], columns: Columns, with_completions: bool, answers: AnswerBook | None
    ) -> Iterator[Row]:
        for place, record in records:
            row = check_row(place, record, columns, with_completions, answers)
            if isinstance(row, Row):
                yield row
            else:
                self.refuse(row)

    def refuse(self, refusal: RowFileError) -> None:
        """Report a row that is left out, or a file that cannot be read."""
        self.refused += 1
        tqdm.write(str(refusal), file=sys.stderr)


def _is_on_hub(name: str) -> bool:
    """Whether a source can only be a dataset on the Hub, NAME or OWNER/NAME, for it is no path."""
    path = Path(name)
    return not path.exists() and not is_row_file(path) and not path.is_absolute() and len(path.parts) <= 2


def _read_hub(name: str, split: str) -> Iterator[Record]:
    from datasets import load_dataset

    try:
        for number, record in enumerate(load_dataset(name, split=split, streaming=True), start=1):
            yield f"{name}, row {number}", record
    # Loaders fail in ways of their own: of the network, of the Hub, of each format.
    except Exception as error:
        raise ValueError(
            f"{name}: there is no such file or folder, and loading split {split!r} from the Hub failed "
            f"({first_line(error)})"
        ) from error
