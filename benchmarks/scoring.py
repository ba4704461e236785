"""Scoring by the shared method, by replay and by the released way: seconds, tokens, memory, J, growth; and the search
for an answer form.
"""

import itertools
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from machine import ANSWER, DEVICE, MODELS, PROMPT, SEGMENT, make_model, make_rollouts, medians, peak_bytes
from released import released_objective
from torch import Tensor, nn
from transformers import AutoTokenizer

from repro_trl.config import ReproConfigMixin
from repro_trl.demo import MODEL_DIR
from repro_trl.method.answer_forms import candidate_forms
from repro_trl.method.completions import CompletionReader, ScoringRow
from repro_trl.method.measure import Objectives, Scorer, score_rows


@dataclass(frozen=True)
class Case:
    """`rows` completions of `length` tokens, `k` segments of `segment` tokens kept; `vocabulary` None: the model's."""

    model: str
    rows: int
    length: int
    k: int
    vocabulary: int | None = None
    segment: int = SEGMENT

    def __str__(self) -> str:
        vocabulary = self.vocabulary or MODELS[self.model][2]
        k = "all" if self.k == ALL else self.k
        segment = "" if self.segment == SEGMENT else f" of {self.segment} tokens"
        return f"{self.model}, V {vocabulary}, {self.rows} × {self.length}, k {k}{segment}"


CASES = [
    *(Case("medium", 2, 1024, k) for k in (0, 10, 30)),
    *(Case("medium", 2, 1024, 10, vocabulary) for vocabulary in (2048, 32768)),
    *(Case("small", 2, length, k) for length, k in itertools.product((256, 1024), (0, 10, 30))),
    Case("small", 1, 4096, 10),
]
LONG_CASES = [
    Case("small", 2, 4096, 10),
    Case("small", 2, 4096, 30),
    Case("small", 2, 8192, 10),
]
ALL = 10**6
# What grows, and the cases that are run in turn and compared with the first of them.
GROWTH = {
    "k": [Case("small", 1, 4096, k) for k in (10, 30, 0)],
    "length": [Case("small", 1, length, 10) for length in (1024, 2048, 4096, 8192)],
    "all starts": [
        Case("small", 1, 8192, 10),
        *(Case("small", 1, 8192, ALL, segment=segment) for segment in (SEGMENT, 55)),
    ],
    "completions": [Case("small", rows, 1024, 10) for rows in (1, 2, 4, 8)],
}


# Generation batches in which "auto" looks for a form.
SEARCHES = [Case("medium", 2, 1024, k) for k in (10, ALL)]


class _Scoring:
    """A case made ready: its model, its rollouts, and each way to score them."""

    def __init__(self, case: Case) -> None:
        self.model: nn.Module = make_model(case.model, case.vocabulary)
        self.batch, self.rows = make_rollouts(case.rows, case.length, self.model.config.vocab_size, case.segment)
        if case.k == 0:  # only the two boundaries that every completion has
            for row in self.rows:
                row.starts = []
        self.num_boundaries = min(case.k, len(self.rows[0].starts)) + 2
        self.top_k = max(case.k, 1)
        self.boundaries = self.score("shared").boundaries

    @property
    def num_tokens(self) -> int:
        """That the shared method reads."""
        rollouts = self.batch["prompt_ids"].numel() + self.batch["completion_ids"].numel()
        return rollouts + len(self.rows) * self.num_boundaries * ANSWER

    def score(self, method: str) -> Objectives:
        return score_rows(self.model, self.batch, self.rows, self.top_k, self.num_boundaries, 1.0, method)

    def released(self) -> Tensor:
        row: ScoringRow = self.rows[0]
        answer_ids = torch.tensor(row.answer.ids, device=DEVICE)
        return released_objective(self.model, self.batch, self.boundaries, answer_ids, len(self.rows))

    @torch.no_grad()
    def bare_pass(self) -> None:
        self.model.model(torch.cat([self.batch["prompt_ids"], self.batch["completion_ids"]], dim=1), use_cache=False)


def measure_scoring(cases: Iterable[Case], repeats: int) -> list[dict[str, Any]]:
    """
    One row of results per case; seconds are medians.

    `shared / limit` is how far the shared method is from what none could undercut: the time of a bare pass over the
    rollouts, without LM head, scaled to the tokens of rollouts and answers.
    """
    return [_measure(case, repeats) for case in cases]


def _measure(case: Case, repeats: int) -> dict[str, Any]:
    scoring = _Scoring(case)
    objectives: dict[str, Tensor] = {}

    def keep(method: str, run: Callable[[], Tensor]) -> Callable[[], None]:
        return lambda: objectives.update({method: run()})

    runs = {
        "shared": keep("shared", lambda: scoring.score("shared").objective),
        "bare pass": scoring.bare_pass,
        "replay": keep("replay", lambda: scoring.score("replay").objective),
        "released": keep("released", scoring.released),
    }
    times = medians(runs, repeats)
    rollout_tokens = case.rows * (PROMPT + case.length)
    answer_tokens = case.rows * scoring.num_boundaries * ANSWER
    limit = times.pop("bare pass") * (1 + answer_tokens / rollout_tokens)
    prefix_tokens = int(case.rows * PROMPT * scoring.num_boundaries + scoring.boundaries.sum())
    differences = {
        name: float(f"{(objectives[name] - objectives['shared']).abs().max().item():.2g}")
        for name in ("replay", "released")
    }
    result = {
        "case": str(case),
        "model": case.model,
        "vocabulary": scoring.model.config.vocab_size,
        "rows": case.rows,
        "length": case.length,
        "k": case.k,
        "tokens": {
            "shared": rollout_tokens + answer_tokens,
            "replay": rollout_tokens + prefix_tokens + answer_tokens,
            "released": (rollout_tokens + case.rows * ANSWER) * scoring.num_boundaries,
        },
        "seconds": {name: round(value, 4) for name, value in times.items()},
        "ratios": {
            "replay / shared": round(times["replay"] / times["shared"], 3),
            "released / shared": round(times["released"] / times["shared"], 3),
            "shared / limit": round(times["shared"] / limit, 3),
        },
        "largest_difference": differences,
        "peak_mib": {name: round(peak_bytes(run) / 2**20, 1) for name, run in runs.items() if name != "bare pass"},
    }
    parts = [
        f"{name} {value:.3f} s, {result['tokens'][name]} tokens, {result['peak_mib'][name]:.0f} MiB"
        for name, value in result["seconds"].items()
    ]
    parts += [f"{name} {value:.2f}" for name, value in result["ratios"].items()]
    print(" | ".join([f"{case!s:<30}", *parts, f"|ΔJ| ≤ {max(differences.values()):.1e}"]), flush=True)
    return result


def measure_growth(repeats: int) -> list[dict[str, Any]]:
    """The shared method alone: how its time grows with k, with the length, and with completions per micro-batch.

    The ratio `tokens` is that of the tokens that are read.
    """
    rows = []
    for what, cases in GROWTH.items():
        scorings = {str(case): _Scoring(case) for case in cases}
        times = medians({name: _shared(scoring) for name, scoring in scorings.items()}, repeats)
        first = times[str(cases[0])]
        for name, value in times.items():
            tokens = scorings[name].num_tokens / scorings[str(cases[0])].num_tokens
            ratios = {f"/ {cases[0]}": round(value / first, 3), "tokens": round(tokens, 3)}
            if name == str(cases[0]):
                ratios = {}
            print(
                f"{what}: {name}: {value:.3f} s", *(f"{key} {ratio:.2f}" for key, ratio in ratios.items()), flush=True
            )
            rows.append({"case": f"{what}: {name}", "seconds": {"shared": round(value, 4)}, "ratios": ratios})
    return rows


def _shared(scoring: _Scoring) -> Callable[[], Any]:
    return lambda: scoring.score("shared")


def measure_search(repeats: int) -> list[dict[str, Any]]:
    """What `repro_answer_prefix="auto"` costs in the generation batch in which it finds a form, beside that batch's
    scoring. No candidates come from the texts, which are random; at most four more would.
    """
    settings = ReproConfigMixin.__new__(ReproConfigMixin)  # all at their defaults
    reader = CompletionReader(AutoTokenizer.from_pretrained(MODEL_DIR), settings)
    forms = candidate_forms(settings.repro_answer_template, settings.repro_think_end)
    rows = []
    for case in SEARCHES:
        scoring = _Scoring(case)
        answers = ["42"] * case.rows
        scorer = Scorer(scoring.model, reader)

        def search(scorer: Scorer = scorer, scoring: _Scoring = scoring, answers: list[str] = answers) -> None:
            scorer.ask_forms(scoring.batch, scoring.rows, answers, forms, batch_size=8)

        times = medians({"scoring": _shared(scoring), "search": search}, repeats)
        ratio = round(times["search"] / times["scoring"], 3)
        print(
            f"{case}: scoring {times['scoring']:.3f} s, {len(forms)} forms {times['search']:.3f} s, ratio {ratio:.2f}"
        )
        rows.append(
            {
                "case": f"{case}, {len(forms)} forms",
                "seconds": {name: round(value, 4) for name, value in times.items()},
                "ratios": {"search / scoring": ratio},
            }
        )
    return rows
