"""Traces made up on the spot, with all numbers consistent."""

import random

import torch

from repro_trl.method.advantage import normalize_rewards, reward_to_go
from repro_trl.method.process_reward import magnitude_score, scores, stability_score
from repro_trl.traces import Trace, floats

WORDS = ["Let", " us", " see", ":", " 12", " +", " 30", " =", " 42", ".", " Wait", ",", " check", " again", " so"]


def random_trace(rng: random.Random, group: str = "0", segments: int = 4, length: int = 30, **fields) -> Trace:
    """A scored trace of about `length` tokens; every segment ends with a blank line, the thought with its marker."""
    tokens, boundaries = [], [0]
    for _ in range(segments):
        size = rng.randint(max(2, length // segments // 2), max(3, length // segments))
        tokens += [*rng.choices(WORDS, k=size - 1), "\n\n"]
        boundaries.append(len(tokens))
    tokens[-1] = "</think>"
    answer, given = "42", rng.choice(["42", "41"])
    thought = len(tokens)
    tokens += ["\n\n", "\\boxed{", given, "}"]
    objective = torch.tensor([[-rng.uniform(0.01, 4) for _ in boundaries]])
    mask = torch.ones_like(objective, dtype=torch.bool)
    score = scores(objective, mask)
    rewards = score.diff()
    normalized = normalize_rewards(rewards, mask[:, 1:], torch.zeros(1, dtype=torch.long))
    advantages = reward_to_go(normalized, mask[:, 1:], torch.tensor([boundaries[1:]]), len(tokens))
    values = {
        "group": group,
        "prompt": f"Problem {group}: 12 + 30 = ?",
        "answer": answer,
        "given_answer": given,
        "correct": given == answer,
        "thinking_tokens": thought,
        "backtracks": rng.randint(0, 5),
        "tokens": tokens,
        "boundaries": boundaries,
        "entropies": [None, *(round(rng.uniform(0.1, 3), 4) for _ in boundaries[1:-1]), None],
        "objective": floats(objective[0]),
        "magnitude": floats(magnitude_score(objective, mask)[0]),
        "stability": floats(stability_score(objective, mask)[0]),
        "scores": floats(score[0]),
        "process_rewards": floats(rewards[0]),
        "normalized_rewards": floats(normalized[0]),
        "advantages": floats(advantages[0]),
    }
    return Trace(**{**values, **fields})


def unscored_trace(tokens: list[str], **fields) -> Trace:
    """A completion without ground truth."""
    values = {"group": "0", "prompt": "?", "answer": None, "given_answer": None, "correct": None}
    values |= {"thinking_tokens": len(tokens), "backtracks": 0, "advantages": [0.0] * len(tokens)}
    return Trace(**{**values, "tokens": tokens, **fields})
