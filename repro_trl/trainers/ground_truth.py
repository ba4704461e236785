"""`GroundTruth`: where a training run reads the answers, and whether there are any."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from accelerate.utils import gather_object
from datasets import Dataset, IterableDataset
from datasets.features.features import require_decoding
from transformers.utils import logging

from ..answers import extract_answer
from ..columns import (
    ANSWER_COLUMNS,
    column_paths,
    find_answer_column,
    find_column,
    find_columns,
    ground_truth_paths,
    has_column,
    is_worked_text,
    read_answer,
    read_column,
)
from ..config import ReproConfigMixin

logger = logging.get_logger(__name__)

ROWS_FOR_CHOICE = 100
"""Rows, spread over a dataset, by which its columns are chosen."""
_MAX_ROWS = 2000
_MAX_ROWS_OF_FUNCTION = 256  # a function may need the whole row, with its images
_STREAM_BATCHES = 4

# The answer of a row, and of a row without one what it holds, shortened.
_Seen = tuple[str | None, str]


class GroundTruth:
    """
    The ground truths of a training set: which column or function they come from, and what share of the rows has one.

    Both are checked and said once: before the first step where the dataset can be read at any row, on a sample of at
    most 2,000 rows spread over it; in the first generation batches of a streamed one. With `repro_alpha=0` nothing is.

    Args:
        dataset: training set.
        args: settings; `repro_alpha`, `repro_answer_column` and `remove_unused_columns` are read.
        answer_fn: takes a row, returns its ground truth in any form that a column may hold it.
        is_main_process: whether this process speaks for all.

    Attributes:
        column: column with the ground truth, dotted where it is nested; `None` with `answer_fn`, before the first
            batch of a stream, and where there is none.
        has_answers: `False` once the dataset is known to hold no ground truth at all.

    Raises:
        ValueError: a column that is not there, one that holds no answer or worked solutions in place of answers, or a
            value that cannot be an answer.
    """

    def __init__(
        self,
        dataset: Dataset | IterableDataset,
        args: ReproConfigMixin,
        answer_fn: Callable[[dict[str, Any]], Any] | None = None,
        is_main_process: bool = True,
    ) -> None:
        self.column = None if answer_fn is not None else args.repro_answer_column
        self.has_answers = True
        self._answer_fn = answer_fn
        self._is_main_process = is_main_process
        self._columns: list[str] | None = dataset.column_names
        self._is_checked = args.repro_alpha == 0
        self._seen: list[_Seen] = []  # in the first batches of a stream
        self._batches = 0
        if args.remove_unused_columns and answer_fn is not None:
            self._keep_all_columns()
        if self._is_checked:
            return
        if isinstance(dataset, IterableDataset):
            self._check_columns_of_stream()
        else:
            self._check(dataset)

    def answer_of(self, row: Mapping[str, Any]) -> str | None:
        """
        The bare answer of a row; `None` for a row without one. A `ValueError` for a value that cannot be an answer.
        """
        return self._look_up(row)[0]

    def observe(self, rows: list[dict[str, Any]]) -> None:
        """
        Look at the rows of a training batch, of which a stream's first ones are checked, with errors as the
        constructor's. To be called for each batch on every process; collective.
        """
        if self._is_checked:
            return
        if self._answer_fn is None and self._batches == 0 and not self._find_column_in(rows):
            return
        self._seen += self._read(rows)
        self._batches += 1
        if self._batches not in (1, _STREAM_BATCHES):
            return
        seen = gather_object(self._seen)
        if self._batches == _STREAM_BATCHES:
            self._is_checked = True
            self._report(seen, f"the rows of the first {_STREAM_BATCHES} generation batches", rows)
        elif self._is_main_process and all(answer is None for answer, _ in seen):
            logger.warning(
                f"{self._setting}: found no answer in the first generation batch, but values such as {seen[0][1]}. "
                f"Training stops if none of the first {_STREAM_BATCHES} batches has one."
            )

    def kept_columns(self, used: list[str]) -> list[str]:
        """The columns that `remove_unused_columns=True` must leave, with those that the trainer itself uses."""
        if self._answer_fn is not None:
            own = self._columns or []
        elif self.column is not None:
            own = [self.column, self.column.partition(".")[0]]
        else:  # a stream whose column is not found yet
            own = [*ANSWER_COLUMNS, *(name.partition(".")[0] for name in ANSWER_COLUMNS)]
        return list(dict.fromkeys([*used, *own]))

    # ----------------------------------------------------------------------------------------------------- the checks

    def _keep_all_columns(self) -> None:
        if self._columns is None:
            raise ValueError(
                "remove_unused_columns=True with an answer_fn, on a stream of unknown columns: the function may "
                "need any of them. Set remove_unused_columns to False."
            )
        if self._is_main_process:
            logger.warning("remove_unused_columns=True is ignored: the answer_fn may need any column.")

    def _check(self, dataset: Dataset) -> None:
        self._is_checked = True
        size = len(dataset)
        if size == 0:
            return
        rows: list[dict[str, Any]] = []
        if self._answer_fn is None:
            rows = list(spread_rows(dataset, ROWS_FOR_CHOICE))
            self.column = self.column or find_answer_column(rows)
            if self.column is None or not any(has_column(row, self.column) for row in rows):
                self._report_missing(rows[0])
                return
            seen = self._read(spread_rows(dataset, _MAX_ROWS, self.column))
        else:
            seen = self._read(spread_rows(dataset, _MAX_ROWS_OF_FUNCTION, ""))
        count = len(seen)
        self._report(
            seen, f"the {size:,} rows" if count == size else f"the {count:,} rows sampled from {size:,}", rows
        )

    def _check_columns_of_stream(self) -> None:
        if self._columns is None or self.column is None:
            return
        row = dict.fromkeys(self._columns)
        if not has_column(row, self.column) and self.column.partition(".")[0] not in row:
            self._report_missing(row)

    def _find_column_in(self, rows: list[dict[str, Any]]) -> bool:
        """Settle the column of a stream, on all processes the same; whether there is one."""
        found = find_column(rows, [self.column] if self.column else ANSWER_COLUMNS)
        found = next((name for name in gather_object([found]) if name is not None), None)
        if found is None:
            self._report_missing(rows[0])
            return False
        self.column = found
        return True

    def _report_missing(self, row: Mapping[str, Any]) -> None:
        """An error where a ground truth seems to be meant; else a warning, so that data that train GRPO train this."""
        paths = column_paths(row)
        candidates = ground_truth_paths(row)
        if self.column is not None:
            raise ValueError(
                f"repro_answer_column={self.column!r} is not a column of the dataset, which has {paths}. Name the "
                "column with the ground truth, or pass an `answer_fn` to the trainer."
            )
        if candidates:
            raise ValueError(
                "repro_answer_column=None: no column has a usual name for a ground truth, but "
                f"{', '.join(map(repr, candidates))} looks like one. Name it in repro_answer_column, or pass an "
                "`answer_fn` to the trainer."
            )
        self._is_checked, self.has_answers = True, False
        if self._is_main_process:
            logger.warning(
                f"The dataset has no column with a ground truth, only {paths}. Without one, RePro adds nothing to "
                "the outcome advantage. Name the column in repro_answer_column, or pass an `answer_fn` to the "
                "trainer."
            )

    def _report(self, seen: list[_Seen], of_rows: str, rows: list[dict[str, Any]]) -> None:
        """
        Say what the rows hold: `seen` is what was found in them, `of_rows` says in words which ones they are. Other
        columns are looked up in `rows`, some whole ones.
        """
        others = [name for name in find_columns(rows, ANSWER_COLUMNS) if name != self.column]
        answers = [answer for answer, _ in seen if answer is not None]
        if not answers:
            better = find_answer_column([{name: read_column(row, name) for name in others} for row in rows])
            remedy = f"Column {better!r} may have them: name it" if better else "Name the column that has them"
            raise ValueError(
                f"{self._setting}: found no answer in {of_rows}, but values such as {seen[0][1]}. {remedy} in "
                "repro_answer_column, pass an `answer_fn` to the trainer, or set repro_alpha to 0."
            )
        worked = list(filter(is_worked_text, answers))
        if worked:
            message = (
                f"{self._setting}: {len(worked) / len(answers):.0%} of the answers look like worked solutions, "
                f"because they are too long for an answer, for example {_shortened(repr(worked[0]))}."
            )
            if len(worked) * 2 >= len(answers):
                raise ValueError(
                    f"{message} Name a column with bare answers in repro_answer_column, put the answer of each "
                    "solution in \\boxed{}, or pass an `answer_fn` that returns it to the trainer."
                )
            if self._is_main_process:
                logger.warning(message)
        if not self._is_main_process:
            return
        instead = f" (not from {', '.join(map(repr, others))})" if others else ""
        share = len(answers) / len(seen)
        percent = "All" if share == 1 else "Less than 1%" if share < 0.01 else f"{min(share, 0.99):.0%}"
        source = "answer_fn" if self._answer_fn is not None else f"column {self.column!r}"
        message = (
            f"Reading the ground truth from {source}{instead}, for example {_shortened(repr(answers[0]))}. "
            f"{percent} of {of_rows} have an answer."
        )
        if share < 0.5:
            logger.warning(f"{message} The others train on the outcome reward alone.")
        else:
            print(message, flush=True)

    @property
    def _setting(self) -> str:
        return "answer_fn" if self._answer_fn is not None else f"repro_answer_column={self.column!r}"

    # ---------------------------------------------------------------------------------------------------- reading rows

    def _read(self, rows: Iterable[Mapping[str, Any]]) -> list[_Seen]:
        found = map(self._look_up, rows)
        return [(answer, _shortened(repr(value)) if answer is None else "") for answer, value in found]

    def _look_up(self, row: Mapping[str, Any]) -> tuple[str | None, Any]:
        """The bare answer of a row, and the value of the column or the function that it is in."""
        if self._answer_fn is None and self.column is None:
            return None, None
        if self._answer_fn is None:
            return read_answer(row, self.column), read_column(row, self.column)
        try:
            value = self._answer_fn(row)
        except KeyError as error:
            raise ValueError(f"answer_fn reads the column {error}, but the row has {column_paths(row)}.") from error
        try:
            return extract_answer(value), value
        except ValueError as error:
            raise ValueError(f"answer_fn: {error}") from None


def spread_rows(dataset: Dataset, count: int, column: str | None = None) -> Iterator[dict[str, Any]]:
    """
    At most so many rows, spread over the dataset, as a trainer gets them.

    Args:
        column: the only column to read; "" for all of them, `None` for all but images and other media.
    """
    part = dataset.select(range(0, len(dataset), -(-len(dataset) // count) or 1))
    if column is None:
        names = [name for name, feature in dataset.features.items() if not require_decoding(feature)]
    elif column:
        names = [column if column in dataset.column_names else column.partition(".")[0]]
    else:
        names = dataset.column_names
    # A transform of the user's may need any column, and make new ones.
    return iter(part if dataset.format["type"] == "custom" else part.select_columns(names))


def _shortened(text: str, length: int = 100) -> str:
    return text if len(text) <= length else f"{text[: length - 1]}…"
