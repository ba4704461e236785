"""The model card of a RePro run: TRL's, with RePro's method, settings and metrics, and a picture of J."""

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any

from huggingface_hub import ModelCard

from .. import __version__
from ..config import ReproConfigMixin
from ..method.score import ScoredRollouts
from ..trace_colors import NEGATIVE, POSITIVE
from .prefix_search import PrefixSearch

PICTURE = "repro_objective.png"
_MAX_CURVES = 16

# Metrics of the card, where they were logged: they say how training went, and can be compared between runs.
_METRICS = {
    "reward": "mean reward",
    "eval_reward": "mean reward, held out",
    "accuracy": "accuracy",
    "eval_accuracy": "accuracy, held out",
    "completions/mean_length": "completion length (tokens)",
    "repro/objective_first": "J before any thought (nats per token)",
    "repro/objective_last": "J after the thought (nats per token)",
    "repro/objective_gain": "rise of J along the thought (nats per token)",
    "repro/process_reward/mean": "process reward per segment",
    "repro/segments": "segments per completion",
}

_METHOD = (
    "## RePro\n\nRePro treats a chain of thought as an optimisation trajectory. The thought is cut into segments. "
    "At each cut, J is the mean log-probability that the policy itself gives to the tokens of the correct answer. "
    "How far and how steadily J rises over a segment is the reward of that segment. It is added to the outcome "
    "advantage of {algorithm}, token by token. Trained with [repro_trl](https://pypi.org/project/repro-trl/) "
    "{version}."
)


class ReproModelCard:
    """Extends the card that TRL writes with each checkpoint and with `push_to_hub`; before the trainer among bases."""

    # The rollouts scored last on this process; `None` before the first.
    _newest_scored: ScoredRollouts | None = None
    # Finds the answer form; `None` where it is given.
    _prefix_search: PrefixSearch | None = None

    def create_model_card(self, *args: Any, **kwargs: Any) -> None:
        """
        Write `README.md` into the output folder: TRL's card, and RePro's method, settings, metrics and picture.

        The picture shows curves only: no prompt and no completion reaches the card. Arguments are those of TRL.
        """
        super().create_model_card(*args, **kwargs)
        if not self.is_world_process_zero():
            return
        path = os.path.join(self.args.output_dir, "README.md")
        card = ModelCard.load(path)
        settings = [(f"`{f.name}`", self._shown(f.name)) for f in fields(ReproConfigMixin)]
        sections = [
            _METHOD.format(algorithm=self._name.removeprefix("RePro "), version=__version__),
            f"### Settings\n\n{_table(('setting', 'value'), settings)}",
        ]
        metrics = _metric_rows(self.state.log_history)
        if metrics:
            sections.append(f"### Metrics\n\n{_table(('metric', 'first', 'last'), metrics)}")
        scored = self._newest_scored
        if scored is not None and scored.scored.any():
            _draw_objective(os.path.join(self.args.output_dir, PICTURE), scored)
            sections.append(
                "### J along the latest thoughts\n\n![J at each boundary of the completions that were scored "
                f"last]({PICTURE})"
            )
        heading = "### Framework versions"
        before, _, after = card.text.partition(heading)
        # A base model in a local folder has no page on the Hub.
        before = before.replace("[None](https://huggingface.co/None)", "a local model")
        card.text = "\n\n".join([before.rstrip(), *sections, heading + after])
        card.save(path)

    def _shown(self, setting: str) -> str:
        value = f"`{getattr(self.args, setting)!r}`"
        search = self._prefix_search
        if setting != "repro_answer_prefix" or search is None:
            return value
        found = "nothing" if search.chosen is None else f"`{search.chosen}`"
        return f"{value}, which found {found}"


def _metric_rows(history: Sequence[Mapping[str, Any]]) -> list[tuple[str, str, str]]:
    rows = []
    for name, meaning in _METRICS.items():
        # TRL logs None for a reward that no completion got.
        values = [entry[name] for entry in history if entry.get(name) is not None and math.isfinite(entry[name])]
        if values:
            rows.append((f"{meaning}: `{name}`", f"{values[0]:.4g}", f"{values[-1]:.4g}"))
    return rows


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    # Settings are texts of users: a bar would end the cell.
    lines = [head, ["---"] * len(head), *([cell.replace("|", "\\|") for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _draw_objective(path: str, scored: ScoredRollouts) -> None:
    """J over the share of the thought that is written, a line for each completion: blue where it rose, else orange."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 3.5), layout="constrained")
    axes = figure.add_subplot()
    for row in scored.scored.nonzero().flatten().tolist()[:_MAX_CURVES]:
        used = scored.boundary_mask[row]
        positions, values = scored.boundaries[row, used].cpu(), scored.objective[row, used].cpu()
        colour = POSITIVE if values[-1] >= values[0] else NEGATIVE
        axes.plot((positions / positions[-1]).tolist(), values.tolist(), color=colour, alpha=0.7, marker=".")
    axes.set_xlabel("share of the thought")
    axes.set_ylabel("J (nats per answer token)")
    axes.grid(alpha=0.3)
    figure.savefig(path, dpi=120)
