"""
One HTML file that shows traces: it needs no network, and nothing that a model wrote can act in it.

Texts go in as JSON, in `<script type="application/json">`, with every character escaped that HTML could read; the
page's script puts them in by `textContent`; and the page's policy lets nothing run but that one script.
"""

import base64
import hashlib
import html
import itertools
import json
import os
import string
from collections.abc import Sequence
from importlib import resources
from typing import Any

from ..traces import Trace

# What the page reads of each trace when it is looked at; what the list needs stands in the index.
_DETAILS = (
    "tokens", "boundaries", "entropies", "objective", "magnitude", "stability", "scores", "process_rewards",
    "normalized_rewards", "given_answer", "rewards", "step", "truncated",
)  # fmt: skip


def write_page(path: str | os.PathLike, traces: Sequence[Trace], title: str = "Traces") -> None:
    """
    Write traces as a page, in the order of its list. Traces that follow each other, with the same group and prompt,
    stand side by side. The folder of the file is made where it is missing.
    """
    os.makedirs(os.path.dirname(os.path.abspath(path)), exist_ok=True)
    script, style = _part("page.js"), _part("page.css")
    head, rest = _part("page.html").split("$traces")
    values = {
        "title": html.escape(title.encode("utf-8", "replace").decode()),
        "script": script,
        "style": style,
        "script_hash": _policy_hash(script),
        "style_hash": _policy_hash(style),
        "index": inert_json(_index(traces)),
    }
    with open(path, "w", encoding="utf-8", newline="\n") as file:
        file.write(string.Template(head).substitute(values))
        for number, trace in enumerate(traces):
            file.write(f'<script type="application/json" id="trace-{number}">{inert_json(_details(trace))}</script>\n')
        file.write(string.Template(rest).substitute(values))


def inert_json(value: Any) -> str:
    """JSON that HTML cannot mistake for markup: ASCII without `<`, `>` and `&`, which only occur in its texts."""
    text = json.dumps(value, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _part(name: str) -> str:
    return resources.files(__package__).joinpath(name).read_text(encoding="utf-8")


def _policy_hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _index(traces: Sequence[Trace]) -> dict[str, Any]:
    prompts: list[dict[str, Any]] = []
    summaries = []
    for (_, text), members in itertools.groupby(enumerate(traces), key=lambda item: (item[1].group, item[1].prompt)):
        prompt: dict[str, Any] = {"text": text, "answer": None, "traces": []}
        for number, trace in members:
            prompt["answer"] = trace.answer
            prompt["traces"].append(number)
            summaries.append(_summary(number, len(prompts), trace))
        prompts.append(prompt)
    return {"prompts": prompts, "traces": summaries, "largest": _largest(traces)}


def _summary(number: int, prompt: int, trace: Trace) -> dict[str, Any]:
    return {
        "id": number,
        "prompt": prompt,
        "correct": trace.correct,
        "length": len(trace.tokens),
        "thinking_tokens": trace.thinking_tokens,
        "backtracks": trace.backtracks,
        "reward": sum(trace.process_rewards) if trace.boundaries else None,
        "gain": trace.objective[-1] - trace.objective[0] if trace.boundaries else None,
        "strip": trace.process_rewards,
        "ends": trace.boundaries[1:],
    }


def _details(trace: Trace) -> dict[str, Any]:
    totals = trace.total_advantages
    return {
        **{name: getattr(trace, name) for name in _DETAILS},
        "advantages": _runs(trace.advantages),
        "total_advantages": None if totals is None else _runs(totals),
    }


def _runs(values: Sequence[float]) -> list[list[float]]:
    """Runs of equal values as [value, length]: advantages change at boundaries only."""
    return [[value, len(list(run))] for value, run in itertools.groupby(values)]


def _largest(traces: Sequence[Trace]) -> dict[str, float]:
    """Ends of the colour scales: the largest size of each measure."""
    measures = ("process_rewards", "normalized_rewards", "advantages", "entropies")
    return {
        name: max((abs(value) for trace in traces for value in getattr(trace, name) if value is not None), default=0.0)
        for name in measures
    }
