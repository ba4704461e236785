"""Results as text: the paper's table, one row a model, and a second table with what the answers cost."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal

from .figures import Comparison, Figures
from .tasks import task_title

Style = Literal["markdown", "terminal"]
NONE = "–"


def paper_table(tasks: Iterable[str], rows: Mapping[str, Mapping[str, str]], style: Style) -> str:
    """One line for each row (label → task → cell), one column for each task."""
    lines = [[label, *(cells.get(task, NONE) for task in tasks)] for label, cells in rows.items()]
    return _table(["model", *map(task_title, tasks)], lines, style)


def accuracy_cell(accuracy: float, standard_error: float | None) -> str:
    """avg@n in percent with its standard error."""
    return _percent(accuracy) + _error(standard_error)


def difference_cell(comparison: Comparison) -> str:
    """Difference in percentage points with its paired standard error."""
    return f"{100 * comparison.difference:+.1f}" + _error(comparison.standard_error)


def cost_table(figures: Mapping[str, Figures], style: Style) -> str:
    """One line for each task: accuracy in its other forms, and the tokens spent."""
    return _by_task(figures, _COSTS, style)


def comparison_table(comparisons: Mapping[str, Comparison], style: Style) -> str:
    """One line for each task: what changed, problem by problem."""
    return _by_task(comparisons, _CHANGES, style)


def _percent(share: float | None) -> str:
    return NONE if share is None else f"{100 * share:.1f}"


def _error(standard_error: float | None, scale: float = 100) -> str:
    return "" if standard_error is None else f" ± {scale * standard_error:.1f}"


def _tokens(count: float | None) -> str:
    return NONE if count is None else f"{count:.1f}"


_COSTS: dict[str, Callable[[Figures], str]] = {
    "problems": lambda row: str(row.problems),
    "n": lambda row: str(row.samples),
    "avg@n": lambda row: accuracy_cell(row.accuracy, row.standard_error),
    "pass@n": lambda row: _percent(row.pass_at[row.samples]),
    "maj@n": lambda row: _percent(row.majority),
    "thinking tokens": lambda row: _tokens(row.thinking_tokens),
    "if right": lambda row: _tokens(row.thinking_tokens_right),
    "if wrong": lambda row: _tokens(row.thinking_tokens_wrong),
    "tokens per correct": lambda row: _tokens(row.tokens_per_correct),
    "backtracks": lambda row: f"{row.backtracks:.2f}",
    "backtracking rate": lambda row: _percent(row.backtracking_rate),
    "truncated": lambda row: _percent(row.truncation_rate),
    "verifier failures": lambda row: str(row.verifier_failures),
}
_CHANGES: dict[str, Callable[[Comparison], str]] = {
    "problems": lambda row: str(row.problems),
    "accuracy": difference_cell,
    "p": lambda row: NONE if row.p_value is None else f"{row.p_value:.3f}",
    "better": lambda row: str(row.better),
    "worse": lambda row: str(row.worse),
    "thinking tokens": lambda row: f"{row.thinking_tokens:+.1f}" + _error(row.thinking_tokens_error, 1),
}


def _by_task(rows: Mapping[str, Any], columns: Mapping[str, Callable[[Any], str]], style: Style) -> str:
    lines = [[task_title(task), *(cell(row) for cell in columns.values())] for task, row in rows.items()]
    return _table(["task", *columns], lines, style)


def _table(head: Sequence[str], lines: Sequence[Sequence[str]], style: Style) -> str:
    if style == "markdown":
        rows = [head, ["---", *["---:"] * (len(head) - 1)], *lines]
        return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows)
    widths = [max(len(row[column]) for row in (head, *lines)) for column in range(len(head))]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if column else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in (head, *lines)
    )
