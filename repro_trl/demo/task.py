"""The pocket task: a few small sums whose results, written side by side, are the answer.

    prompt      Find the digits. A: 3+4 ; B: 9-4
    thought     A: 3+4 = 7⏎⏎ B: 9-4 = 2⏎⏎ Wait, check B: 9-4 = 5⏎⏎      (⏎⏎: the blank line that ends every segment)
    answer      </think>⏎⏎ \\boxed{75}

Each sum is one digit of the answer, so a thought settles the answer piece by piece. Results lie in 0..9 and the
first is never 0, so the answer read as a number has exactly as many digits as there are sums, and every verifier,
textual or numeric, agrees on it.

Traces overthink on purpose: slips, re-checks that sometimes mend them, fillers, restarts. `label_segments` says for
each segment, written by `make_trace` or by a policy, what it did.
"""

import hashlib
import random
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from datasets import Dataset

DELIMITER = "\n\n"
THINK_END = "</think>"
MIN_ITEMS, MAX_ITEMS = 2, 5
LETTERS = "ABCDE"

Label = Literal["step", "wrong", "recheck", "fix", "filler", "restart"]

_BOXED = re.compile(r"\\boxed\{([^{}]*)\}")
_CLAIM = re.compile(rf"([{LETTERS}]): \d[+-]\d = (\d)")


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
        return "".join(str(_result(item)) for item in self.items)

    @property
    def is_held_out(self) -> bool:
        """Whether the problem belongs to the tenth that no training set contains: decided by a hash of its text."""
        return hashlib.sha256(self.text.encode()).digest()[0] % 10 == 0


@dataclass(frozen=True)
class TraceStyle:
    """How a trace is written; every figure is a probability. The defaults leave overthinking about neutral for
    accuracy: re-checks mend slips and now and then break a right result.
    """

    clean: float = 0.2
    """The whole trace holds one step a sum and nothing else."""
    clean_slip: float = 0.12
    """A step of a clean trace is wrong."""
    slip: float = 0.25
    """A step of an overthinking trace is wrong."""
    recheck_wrong: float = 0.8
    """A wrong result is checked again."""
    recheck_right: float = 0.35
    """A right result is checked again."""
    recheck_slip: float = 0.15
    """The re-check itself is wrong."""
    filler: float = 0.3
    """A filler follows the work on a sum."""
    restart: float = 0.08
    """After the work on a sum everything so far is done again; at most once a trace."""
    early: float = 0.15
    """The thought is broken off at a random boundary and the sums without a result are guessed; half of these close
    the thought first, half write the boxed answer in its middle."""


FILLERS = ("Hmm.", "So far so good.", "Let me think.")
RECHECKS = ("Wait, check ", "Let me check ", "Check again, ")
RESTART = "No, start over."


def _result(item: str) -> int:
    return sum(int(term) for term in re.findall(r"[+-]?\d", item))


def make_problem(rng: random.Random) -> Problem:
    """One problem; results are uniform over 0..9 (1..9 for the first)."""
    items = []
    for index in range(rng.randint(MIN_ITEMS, MAX_ITEMS)):
        result = rng.randint(0 if index else 1, 9)
        while True:
            item = rng.choice("0123456789") + rng.choice("+-") + rng.choice("0123456789")
            if _result(item) == result:
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


def make_trace(problem: Problem, rng: random.Random, style: TraceStyle) -> tuple[list[str], str]:
    """A thought and the answer drawn from it.

    Returns: the segments, each ending with `DELIMITER`; and the text that follows them, which closes the thought and
    gives the answer (the end-of-sequence token is the caller's). The answer repeats what the thought wrote last for
    each sum; only a thought broken off early has to guess.
    """
    clean = rng.random() < style.clean
    segments: list[str] = []
    claims: dict[int, int] = {}

    def state(index: int, opening: str, slip: float) -> None:
        result = _result(problem.items[index])
        if rng.random() < slip:
            result = rng.choice([digit for digit in range(10) if digit != result])
        claims[index] = result
        segments.append(f"{opening}{LETTERS[index]}: {problem.items[index]} = {result}{DELIMITER}")

    def work_on(index: int) -> None:
        state(index, "", style.clean_slip if clean else style.slip)
        if clean:
            return
        for _ in range(2):
            if rng.random() > (style.recheck_right if is_right(index) else style.recheck_wrong):
                break
            state(index, rng.choice(RECHECKS), style.recheck_slip)
        if rng.random() < style.filler:
            segments.append(f"{rng.choice(FILLERS)}{DELIMITER}")

    def is_right(index: int) -> bool:
        return claims[index] == _result(problem.items[index])

    restarted = clean
    for index in range(len(problem.items)):
        work_on(index)
        if not restarted and rng.random() < style.restart:
            restarted = True
            segments.append(f"{RESTART}{DELIMITER}")
            for earlier in range(index + 1):
                state(earlier, "", style.slip)

    think_end = THINK_END + DELIMITER
    if rng.random() < style.early:
        segments = segments[: rng.randrange(len(segments))]
        think_end = rng.choice(("", think_end))
        claims = {LETTERS.index(letter): int(digit) for letter, digit in _CLAIM.findall("".join(segments))}
    digits = [claims.get(index, rng.randint(0 if index else 1, 9)) for index in range(len(problem.items))]
    return segments, f"{think_end}\\boxed{{{''.join(map(str, digits))}}}"


def label_segments(problem: Problem, segments: list[str]) -> list[Label]:
    """What each segment of a thought did, whoever wrote it.

    "step": a sum's first result, right. "fix": a wrong result made right. "recheck": a right result stated again.
    "wrong": a result that is wrong, whatever was there before. "restart": announces one. "filler": states no result.
    A segment that states several results is labelled by the last.
    """
    labels: list[Label] = []
    claims: dict[int, bool] = {}
    for segment in segments:
        stated = [(LETTERS.index(letter), int(digit)) for letter, digit in _CLAIM.findall(segment)]
        stated = [(index, digit) for index, digit in stated if index < len(problem.items)]
        if not stated:
            labels.append("restart" if RESTART in segment else "filler")
            continue
        index, digit = stated[-1]
        right = digit == _result(problem.items[index])
        if not right:
            labels.append("wrong")
        elif index not in claims:
            labels.append("step")
        else:
            labels.append("recheck" if claims[index] else "fix")
        claims[index] = right
    return labels


def is_correct(completion: str, solution: str) -> bool:
    """Whether the last `\\boxed{…}` of the completion equals the solution's, character for character."""
    boxed, expected = _BOXED.findall(completion), _BOXED.findall(solution)
    return bool(boxed) and boxed[-1] == expected[-1]


def accuracy_reward(completions: list, solution: list[str], **kwargs) -> list[float]:
    """`is_correct` as a reward function of TRL; completions are texts or lists of messages."""
    texts = [completion if isinstance(completion, str) else completion[-1]["content"] for completion in completions]
    return [float(is_correct(text, expected)) for text, expected in zip(texts, solution, strict=True)]
