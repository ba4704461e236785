"""
The record of one scored completion, and files of such records: one JSON object a line.

Training (`repro_trace_steps`) and `repro-trl inspect` write these files; the viewer and reports read them.
"""

import codecs
import dataclasses
import itertools
import json
import math
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from .answers import given_answer
from .config import ReproConfigMixin
from .method.score import ScoredRollouts
from .method.segments import find_segment_starts
from .method.token_text import read_tokens, readable_text
from .thinking import count_backtracks, split_thought
from .verifier import verify_answer


@dataclass
class Trace:
    """
    One completion with everything RePro measured on it. A completion of L tokens with M boundaries has M - 1
    segments: segment j is the tokens from `boundaries[j]` to `boundaries[j + 1]`. M = 0 for one that was not scored.

    Attributes:
        group: completions of one prompt share it.
        prompt: the prompt's text; of several messages, with their roles.
        tokens: (L,) text of each token; together they are the completion. A character that is spread over several
            tokens belongs to the last of them.
        answer: the ground truth.
        given_answer: content of the completion's last box, or without a box, the answer that it states.
        correct: whether the completion's answer is the ground truth; `None` without one.
        thinking_tokens: tokens up to and including the end-of-thinking marker.
        backtracks: segments of the thought that turn back (`repro_trl.thinking`).
        truncated: whether the completion was cut off at its limit; `None` where that is unknown.
        boundaries: (M,) completion tokens before each boundary (METHOD §2).
        entropies: (M,) nats, H of the distribution that wrote the token after each boundary; `None` at the first and
            the last one, which no entropy chose.
        objective: (M,) J, nats per answer token (METHOD §3).
        magnitude: (M,) S_magn (METHOD §4).
        stability: (M,) S_stab.
        scores: (M,) S.
        process_rewards: (M - 1,) r.
        normalized_rewards: (M - 1,) r̂ (METHOD §5.1).
        advantages: (L,) process advantage of each token before the weight alpha (METHOD §5.2).
        total_advantages: (L,) what reached the loss; `None` outside training and where it was not finite.
        rewards: raw reward by reward function; `None` where a function returned none, or no finite number.
        step: optimizer steps done when the completion was sampled; `None` outside training.
    """

    group: str
    prompt: str
    tokens: list[str]
    answer: str | None
    given_answer: str | None
    correct: bool | None
    thinking_tokens: int
    backtracks: int
    truncated: bool | None = None
    boundaries: list[int] = field(default_factory=list)
    entropies: list[float | None] = field(default_factory=list)
    objective: list[float] = field(default_factory=list)
    magnitude: list[float] = field(default_factory=list)
    stability: list[float] = field(default_factory=list)
    scores: list[float] = field(default_factory=list)
    process_rewards: list[float] = field(default_factory=list)
    normalized_rewards: list[float] = field(default_factory=list)
    advantages: list[float] = field(default_factory=list)
    total_advantages: list[float] | None = None
    rewards: dict[str, float | None] = field(default_factory=dict)
    step: int | None = None

    @property
    def completion(self) -> str:
        """The completion's text."""
        return "".join(self.tokens)

    def __post_init__(self) -> None:
        """Raise a `ValueError` that names the first field which cannot be right."""
        _check(self)

    @classmethod
    def from_dict(cls, record: Any) -> Self:
        """
        The trace that a line of a trace file holds. Fields that this version does not know are ignored.

        Raises:
            ValueError: not an object, a field is missing, or see `Trace`.
        """
        if not isinstance(record, dict):
            raise ValueError(f"a trace is a JSON object, not {type(record).__name__}")
        fields = dataclasses.fields(cls)
        required = [f.name for f in fields if f.default is f.default_factory is dataclasses.MISSING]
        missing = [name for name in required if name not in record]
        if missing:
            raise ValueError(f"missing {', '.join(missing)}")
        return cls(**{f.name: record[f.name] for f in fields if f.name in record})

    def to_dict(self) -> dict[str, Any]:
        """All fields, as a line of a trace file holds them."""
        return {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}


def _check(trace: Trace) -> None:
    length, boundaries = len(trace.tokens), trace.boundaries
    texts = {"group": trace.group, "prompt": trace.prompt}
    for name, value in {**texts, "answer": trace.answer, "given_answer": trace.given_answer}.items():
        if not isinstance(value, str) and (name in texts or value is not None):
            raise ValueError(f"{name} must be text, got {value!r:.80}")
    if not isinstance(trace.tokens, list) or not all(isinstance(token, str) for token in trace.tokens):
        raise ValueError("tokens must be a list of texts")
    for name in ("correct", "truncated"):
        if getattr(trace, name) not in (True, False, None):
            raise ValueError(f"{name} must be true, false or null, got {getattr(trace, name)!r:.80}")
    for name in ("thinking_tokens", "backtracks", "step"):
        value = getattr(trace, name)
        if not _is_count(value) and not (name == "step" and value is None):
            raise ValueError(f"{name} must be an integer >= 0, got {value!r:.80}")
    if not isinstance(boundaries, list) or not all(map(_is_count, boundaries)):
        raise ValueError("boundaries must be a list of integers >= 0")
    if boundaries and (boundaries[0] != 0 or boundaries[-1] > length):
        raise ValueError(f"boundaries must begin with 0 and end within the {length} tokens, got {boundaries}")
    if any(a >= b for a, b in itertools.pairwise(boundaries)):
        raise ValueError(f"boundaries must increase, got {boundaries}")
    segments = max(len(boundaries) - 1, 0)
    sizes = {
        **dict.fromkeys(("entropies", "objective", "magnitude", "stability", "scores"), len(boundaries)),
        **dict.fromkeys(("process_rewards", "normalized_rewards"), segments),
        "advantages": length,
        **({} if trace.total_advantages is None else {"total_advantages": length}),
    }
    for name, size in sizes.items():
        values = getattr(trace, name)
        optional = name == "entropies"
        if not isinstance(values, list) or not all(_is_number(v) or (optional and v is None) for v in values):
            raise ValueError(f"{name} must be a list of finite numbers")
        if len(values) != size:
            raise ValueError(f"{name} must have {size} values, got {len(values)}")
    if not isinstance(trace.rewards, dict) or not all(v is None or _is_number(v) for v in trace.rewards.values()):
        raise ValueError("rewards must map names to finite numbers or null")


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


# ------------------------------------------------------------------------------------------------------------- making


def make_trace(
    tokenizer: PreTrainedTokenizerBase,
    settings: ReproConfigMixin,
    scored: ScoredRollouts,
    row: int,
    completion_ids: list[int],
    answer: str | None,
    **more: Any,
) -> Trace:
    """
    The trace of one row of scored rollouts.

    Args:
        tokenizer: of the policy.
        settings: those the rollouts were scored with.
        scored: B completions; `advantages` (B, T) with T at least the length of `completion_ids`.
        row: index of the completion.
        completion_ids: its tokens, without padding.
        answer: bare ground truth.
        **more: `group`, `prompt`, and any of `truncated`, `total_advantages`, `rewards`, `step`.
    """
    tokens = token_texts(tokenizer, completion_ids)
    completion = readable_text(tokenizer, completion_ids, settings.repro_think_end)
    _, thinking_tokens = find_segment_starts(
        tokenizer, completion_ids, settings.repro_delimiter, settings.repro_think_end
    )
    return Trace(
        tokens=tokens,
        answer=answer,
        given_answer=given_answer(split_thought(completion, settings.repro_think_end)[1]),
        correct=verify_answer(completion, answer, settings.repro_think_end),
        thinking_tokens=thinking_tokens,
        backtracks=count_backtracks(completion, settings.repro_delimiter, settings.repro_think_end),
        **measurements(scored, row, len(tokens)),
        **more,
    )


def measurements(scored: ScoredRollouts, row: int, length: int) -> dict[str, Any]:
    """Those fields of `Trace` that hold what was measured on one row of scored rollouts, of `length` tokens."""
    used, segments = scored.boundary_mask[row], scored.segment_mask[row]
    return {
        "boundaries": scored.boundaries[row, used].tolist(),
        "entropies": fork_entropies(scored, row),
        "objective": floats(scored.objective[row, used]),
        "magnitude": floats(scored.magnitude[row, used]),
        "stability": floats(scored.stability[row, used]),
        "scores": floats(scored.scores[row, used]),
        "process_rewards": floats(scored.process_rewards[row, segments]),
        "normalized_rewards": floats(scored.normalized_rewards[row, segments]),
        "advantages": floats(scored.advantages[row, :length]),
    }


def token_texts(tokenizer: PreTrainedTokenizerBase, completion_ids: list[int]) -> list[str]:
    """(L,) the text of each token, as `Trace.tokens` has it."""
    text, ends = read_tokens(tokenizer, completion_ids)
    decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
    begin, texts = 0, []
    for index, end in enumerate(ends.tolist()):
        texts.append(decoder.decode(text[begin:end], final=index == len(ends) - 1))
        begin = end
    return texts


def fork_entropies(scored: ScoredRollouts, row: int) -> list[float | None]:
    """(M,) H at the boundaries of one row that entropy chose, which are all but the first and the last."""
    values = floats(scored.entropies[row, scored.boundary_mask[row]])[1:-1]
    ends = [None] * min(int(scored.boundary_mask[row].sum()), 2)
    return [*ends[:1], *(value if math.isfinite(value) else None for value in values), *ends[1:]]


def floats(values: Tensor) -> list[float]:
    """Numbers with as many digits as tell one float32 from the next: short in a file, and exact."""
    return [float(str(value)) for value in values.detach().cpu().numpy().astype(np.float32)]


# -------------------------------------------------------------------------------------------------------------- files


def write_traces(path: str | os.PathLike, traces: Iterable[Trace], append: bool = False) -> None:
    """Write traces, one per line, to a file. Its folder is created if it is missing."""
    os.makedirs(os.path.dirname(os.path.abspath(path)), exist_ok=True)
    with open(path, "a" if append else "w", encoding="utf-8") as file:
        for trace in traces:
            # ASCII: half a surrogate pair, which JSON can escape, has no UTF-8.
            file.write(json.dumps(trace.to_dict(), allow_nan=False) + "\n")


def read_traces(path: str | os.PathLike) -> Iterator[Trace]:
    """
    The traces in a file, one after the other.

    Raises:
        ValueError: a line is not a trace; names the file and the line.
    """
    with open(path, "rb") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            try:
                yield Trace.from_dict(json.loads(line))
            except (ValueError, RecursionError) as error:
                raise ValueError(f"{path}, line {number}: {error}") from error


def is_trace(record: Any) -> bool:
    """Whether what was read from a file is a trace, as far as its keys tell."""
    return isinstance(record, dict) and {"tokens", "boundaries", "objective"} <= record.keys()
