"""The pocket task: a few small sums whose results, written side by side, are the answer.

    prompt      Find the digits. A: 3+4 ; B: 9-4
    thought     A: 3+4 = 7⏎⏎ B: 9-4 = 2⏎⏎ Wait, check B: 9-4 = 5⏎⏎      (⏎⏎: the blank line that ends every segment)
    answer      </think>⏎⏎ \\boxed{75}

Each sum is one digit of the answer, so a thought settles the answer piece by piece. Results lie in 0..9 and the
first is never 0, so the answer read as a number has exactly as many digits as there are sums, and every verifier,
textual or numeric, agrees on it.

examples/pocket says how the model was taught to think about them.
"""

import hashlib
import random
import re
from collections.abc import Iterator
from dataclasses import dataclass

from datasets import Dataset

MIN_ITEMS, MAX_ITEMS = 2, 5
LETTERS = "ABCDE"


@dataclass(frozen=True)
class Problem:
    """Between `MIN_ITEMS` and `MAX_ITEMS` sums such as "3+4"."""

    items: tuple[str, ...]

    @property
    def text(self) -> str:
        """The user's message."""
        return "Find the digits. " + " ; ".join(f"{x}: {item}" for x, item in zip(LETTERS, self.items, strict=False))

    @property
    def answer(self) -> str:
        """The results side by side, for example "75"."""
        return "".join(str(result_of(item)) for item in self.items)

    @property
    def is_held_out(self) -> bool:
        """Whether the problem belongs to the tenth that no training set contains: decided by a hash of its text."""
        return hashlib.sha256(self.text.encode()).digest()[0] % 10 == 0


def result_of(item: str) -> int:
    """The digit that a sum such as "3+4" comes to."""
    return sum(int(term) for term in re.findall(r"[+-]?\d", item))


def make_problem(rng: random.Random) -> Problem:
    """One problem; results are uniform over 0..9 (1..9 for the first)."""
    items = []
    for index in range(rng.randint(MIN_ITEMS, MAX_ITEMS)):
        result = rng.randint(0 if index else 1, 9)
        while True:
            item = rng.choice("0123456789") + rng.choice("+-") + rng.choice("0123456789")
            if result_of(item) == result:
                break
        items.append(item)
    return Problem(tuple(items))


def problems(seed: int, held_out: bool) -> Iterator[Problem]:
    """Endless problems from the training or the held-out part, which share none."""
    rng = random.Random(seed)
    while True:
        problem = make_problem(rng)
        if problem.is_held_out == held_out:
            yield problem


def problem_dataset(size: int, seed: int = 0, held_out: bool = False) -> Dataset:
    """Rows for a trainer: `prompt` (conversational) and `solution` (`\\boxed{…}`)."""
    rows = [problem for problem, _ in zip(problems(seed, held_out), range(size), strict=False)]
    return Dataset.from_dict(
        {
            "prompt": [[{"role": "user", "content": problem.text}] for problem in rows],
            "solution": [f"\\boxed{{{problem.answer}}}" for problem in rows],
        }
    )


def train_dataset(size: int = 4096, seed: int = 0) -> Dataset:
    """`problem_dataset` from the training part."""
    return problem_dataset(size, seed, held_out=False)


def eval_dataset(size: int = 256, seed: int = 1) -> Dataset:
    """`problem_dataset` from the held-out part."""
    return problem_dataset(size, seed, held_out=True)
