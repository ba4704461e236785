"""`GroundTruth`: where a training run reads the answers, and whether there are any."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
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

_ROWS_FOR_CHOICE = 100
_MAX_ROWS = 2000
_MAX_ROWS_OF_FUNCTION = 256  # a function may need the whole row, with its images
_STREAM_BATCHES = 4


@dataclass
class _Tally:
    """What a number of rows hold. Examples are the first of their kind; of values that hold no answer, as read."""

    rows: int = 0
    answers: int = 0
    worked: int = 0
    answer: str | None = None
    worked_answer: str | None = None
    blank: str = ""

    def add(self, answer: str | None, value: Any) -> None:
        self.rows += 1
        if answer is None:
            self.blank = self.blank or _shortened(repr(value))
            return
        self.answers += 1
        self.answer = self.answer or answer
        if is_worked_text(answer):
            self.worked += 1
            self.worked_answer = self.worked_answer or answer

    def __add__(self, other: "_Tally") -> "_Tally":
        return _Tally(
            self.rows + other.rows,
            self.answers + other.answers,
            self.worked + other.worked,
            self.answer or other.answer,
            self.worked_answer or other.worked_answer,
            self.blank or other.blank,
        )


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
        self._tally, self._batches = _Tally(), 0
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
        The bare answer of a row; `None` for a row without one.

        Raises:
            ValueError: a value that cannot be an answer.
        """
        if self._answer_fn is not None:
            return self._read_function(row)[0]
        return None if self.column is None else read_answer(row, self.column)

    def observe(self, rows: list[dict[str, Any]]) -> None:
        """
        Look at the rows of a training batch, of which a stream's first ones are checked. To be called for each batch
        on every process; collective.

        Raises:
            ValueError: as the constructor does.
        """
        if self._is_checked:
            return
        if self._answer_fn is None and self._batches == 0 and not self._find_column_in(rows):
            return
        self._add(self._tally, rows)
        self._batches += 1
        if self._batches not in (1, _STREAM_BATCHES):
            return
        total = sum(gather_object([self._tally]), _Tally())
        if self._batches == _STREAM_BATCHES:
            self._is_checked = True
            self._report(total, f"the rows of the first {_STREAM_BATCHES} generation batches", rows)
        elif total.answers == 0 and self._is_main_process:
            logger.warning(
                f"{self._setting()}: found no answer in the first generation batch, but values such as "
                f"{total.blank}. Training stops if none of the first {_STREAM_BATCHES} batches has one."
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
            rows = list(_spread_rows(dataset, _ROWS_FOR_CHOICE))
            self.column = self.column or find_answer_column(rows)
            if self.column is None or not any(has_column(row, self.column) for row in rows):
                self._report_missing(rows[0])
                return
            self._add(self._tally, _spread_rows(dataset, _MAX_ROWS, self.column))
        else:
            self._add(self._tally, _spread_rows(dataset, _MAX_ROWS_OF_FUNCTION, ""))
        seen = self._tally.rows
        self._report(
            self._tally, f"the {size:,} rows" if seen == size else f"the {seen:,} rows sampled from {size:,}", rows
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

    def _report(self, tally: _Tally, of_rows: str, rows: list[dict[str, Any]]) -> None:
        """
        Say what the rows hold.

        Args:
            tally: what was found in them.
            of_rows: which rows these are, in words.
            rows: some whole rows, in which other columns are looked up.
        """
        others = [name for name in find_columns(rows, ANSWER_COLUMNS) if name != self.column]
        if tally.answers == 0:
            better = find_answer_column([{name: read_column(row, name) for name in others} for row in rows])
            remedy = f"Column {better!r} may have them: name it" if better else "Name the column that has them"
            raise ValueError(
                f"{self._setting()}: found no answer in {of_rows}, but values such as {tally.blank}. {remedy} in "
                "repro_answer_column, pass an `answer_fn` to the trainer, or set repro_alpha to 0."
            )
        if tally.worked:
            share = f"{tally.worked / tally.answers:.0%}"
            message = (
                f"{self._setting()}: {share} of the answers look like worked solutions, because they are too long "
                f"for an answer, for example {_shortened(repr(tally.worked_answer))}."
            )
            if tally.worked * 2 >= tally.answers:
                raise ValueError(
                    f"{message} Name a column with bare answers in repro_answer_column, put the answer of each "
                    "solution in \\boxed{}, or pass an `answer_fn` that returns it to the trainer."
                )
            if self._is_main_process:
                logger.warning(message)
        if not self._is_main_process:
            return
        instead = f" (not from {', '.join(map(repr, others))})" if others else ""
        share = tally.answers / tally.rows
        percent = "All" if share == 1 else "Less than 1%" if share < 0.01 else f"{min(share, 0.99):.0%}"
        source = "answer_fn" if self._answer_fn is not None else f"column {self.column!r}"
        message = (
            f"Reading the ground truth from {source}{instead}, for example {_shortened(repr(tally.answer))}. "
            f"{percent} of {of_rows} have an answer."
        )
        if share < 0.5:
            logger.warning(f"{message} The others train on the outcome reward alone.")
        else:
            print(message, flush=True)

    def _setting(self) -> str:
        return "answer_fn" if self._answer_fn is not None else f"repro_answer_column={self.column!r}"

    # ---------------------------------------------------------------------------------------------------- reading rows

    def _add(self, tally: _Tally, rows: Iterable[Mapping[str, Any]]) -> None:
        for row in rows:
            if self._answer_fn is not None:
                tally.add(*self._read_function(row))
            else:
                tally.add(read_answer(row, self.column), read_column(row, self.column))

    def _read_function(self, row: Mapping[str, Any]) -> tuple[str | None, Any]:
        try:
            value = self._answer_fn(row)
        except KeyError as error:
            raise ValueError(f"answer_fn reads the column {error}, but the row has {column_paths(row)}.") from error
        try:
            return extract_answer(value), value
        except ValueError as error:
            raise ValueError(f"answer_fn: {error}") from None


def _spread_rows(dataset: Dataset, count: int, column: str | None = None) -> Iterator[dict[str, Any]]:
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
