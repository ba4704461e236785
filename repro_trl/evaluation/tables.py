"""Results as text: the paper's table, one row a model, and a second table with what the answers cost."""

from collections.abc import Mapping, Sequence
from typing import Literal

from .figures import Comparison, Figures
from .tasks import HUB_TASKS, task_title

Style = Literal["markdown", "terminal"]
NONE = "–"


def paper_table(rows: Mapping[str, Mapping[str, str]], style: Style) -> str:
    """
    One line for each row, one column for each task, in the paper's order; tasks of your own come last.

    Args:
        rows: label → task → cell.
    """
    named = {task for cells in rows.values() for task in cells}
    tasks = [task for task in HUB_TASKS if task in named] + sorted(named - HUB_TASKS.keys())
    lines = [[label, *(cells.get(task, NONE) for task in tasks)] for label, cells in rows.items()]
    return _table(["model", *map(task_title, tasks)], lines, style)


def accuracy_cell(figures: Figures) -> str:
    """avg@n in percent with its standard error."""
    return _percent(figures.accuracy) + _error(figures.standard_error)


def difference_cell(comparison: Comparison) -> str:
    """Difference in percentage points with its paired standard error."""
    return f"{100 * comparison.difference:+.1f}" + _error(comparison.standard_error)


def cost_table(figures: Mapping[str, Figures], style: Style) -> str:
    """One line for each task: accuracy in its other forms, and the tokens spent."""
    head = [
        "task",
        "problems",
        "n",
        "avg@n",
        "pass@n",
        "maj@n",
        "thinking tokens",
        "if right",
        "if wrong",
        "tokens per correct",
        "backtracks",
        "backtracking rate",
        "truncated",
        "verifier failures",
    ]
    lines = [
        [
            task_title(task),
            str(row.problems),
            str(row.samples),
            accuracy_cell(row),
            _percent(row.pass_at[row.samples]),
            _percent(row.majority),
            _tokens(row.thinking_tokens),
            _tokens(row.thinking_tokens_right),
            _tokens(row.thinking_tokens_wrong),
            _tokens(row.tokens_per_correct),
            f"{row.backtracks:.2f}",
            _percent(row.backtracking_rate),
            _percent(row.truncation_rate),
            str(row.verifier_failures),
        ]
        for task, row in figures.items()
    ]
    return _table(head, lines, style)


def comparison_table(comparisons: Mapping[str, Comparison], style: Style) -> str:
    """One line for each task: what changed, problem by problem."""
    head = ["task", "problems", "accuracy", "p", "better", "worse", "thinking tokens"]
    lines = [
        [
            task_title(task),
            str(row.problems),
            difference_cell(row),
            NONE if row.p_value is None else f"{row.p_value:.3f}",
            str(row.better),
            str(row.worse),
            f"{row.thinking_tokens:+.1f}"
            + ("" if row.thinking_tokens_error is None else f" ± {row.thinking_tokens_error:.1f}"),
        ]
        for task, row in comparisons.items()
    ]
    return _table(head, lines, style)


def _percent(share: float | None) -> str:
    return NONE if share is None else f"{100 * share:.1f}"


def _error(standard_error: float | None) -> str:
    return "" if standard_error is None else f" ± {100 * standard_error:.1f}"


def _tokens(count: float | None) -> str:
    return NONE if count is None else f"{count:.1f}"


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
