r"""The chain task: a running total whose every intermediate result is one digit of the answer.

    prompt      Find the digits. 3 ; A: +4 ; B: -5 ; C: +6 ; D: +1 ; E: -7
    thought     A: 3+4 = 7⏎⏎ B: 7-5 = 4⏎⏎ Wait, check B: 7-5 = 2⏎⏎ Hmm.⏎⏎ C: 2+6 = 8⏎⏎ …      (⏎⏎: a blank line)
    answer      </think>\boxed{72892}

Totals stay within 0 to 9; where an error would lead out, they are taken modulo 10. Each step goes on from the total
before it, so that an error that is not mended spoils the rest; each right step settles one digit. The answer stands
right behind the marker that closes the thought: that is where the paper's form asks for it.

Traces are long: most of their segments are checks, restarts and fillers, and leave the accuracy about where it is
without them. `label_segments` says for each segment, whoever wrote it, what it did.
"""

import hashlib
import random
import re
import string
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

from pocket.traces import FILLERS, RECHECKS, RESTART

DELIMITER = "\n\n"
THINK_END = "</think>"
LETTERS = string.ascii_uppercase
LENGTH = 5
"""Changes of a problem; `large.py` takes more."""

Label = Literal["step", "wrong", "carried", "fix", "recheck", "filler", "restart"]
USEFUL: frozenset[Label] = frozenset({"step", "fix"})
"""What brings the thought nearer to the answer: a digit settled, and a wrong one mended."""

_CLAIM = re.compile(r"([A-Z]): (\d)([+-]\d) = (\d)")


@dataclass(frozen=True)
class Problem:
    """A digit to start from, and one change such as "+4" for each letter."""

    start: int
    changes: tuple[str, ...]

    @property
    def text(self) -> str:
        """The user's message."""
        changes = " ; ".join(f"{letter}: {change}" for letter, change in zip(LETTERS, self.changes, strict=False))
        return f"Find the digits. {self.start} ; {changes}"

    @property
    def totals(self) -> tuple[int, ...]:
        """After each change."""
        totals = [self.start]
        for change in self.changes:
            totals.append((totals[-1] + int(change)) % 10)
        return tuple(totals[1:])

    @property
    def answer(self) -> str:
        """The totals side by side, for example "72892"."""
        return "".join(map(str, self.totals))

    @property
    def is_held_out(self) -> bool:
        """Whether the problem belongs to the tenth that no training set contains: decided by a hash of its text."""
        return hashlib.sha256(self.text.encode()).digest()[0] % 10 == 0


@dataclass(frozen=True)
class TraceStyle:
    """How a trace is written; every figure is a probability. With the defaults a trace that overthinks is right about
    as often as a clean one: checks mend slips, and now and then break a right result.
    """

    clean: float = 0.1
    """The whole trace holds one step a letter and nothing else."""
    clean_slip: float = 0.11
    """A step of a clean trace is wrong."""
    slip: float = 0.25
    """A step of an overthinking trace is wrong."""
    check_wrong: float = 0.85
    """A result that does not follow from the total before it is checked."""
    check_right: float = 0.6
    """Any other result is checked; up to three times in a row."""
    check_slip: float = 0.11
    """The check itself is wrong."""
    filler: float = 0.4
    """A filler follows the work on a letter."""
    restart: float = 0.15
    """After the work on a letter everything so far is done again; at most once a trace."""
    early: float = 0.12
    """The thought is broken off at a random boundary and the digits without a result are guessed; half of these close
    the thought first, half write the boxed answer in its middle."""


def problems(seed: int, held_out: bool, length: int = LENGTH) -> Iterator[Problem]:
    """Endless problems from the training or the held-out part, which share none. The first total is never 0, so
    that the answer read as a number has as many digits as there are letters.
    """
    rng = random.Random(seed)
    while True:
        totals = [rng.randrange(10), rng.randint(1, 9), *(rng.randrange(10) for _ in range(length - 1))]
        problem = Problem(totals[0], tuple(f"{after - before:+d}" for before, after in pairwise(totals)))
        if problem.is_held_out == held_out:
            yield problem


def make_trace(problem: Problem, rng: random.Random, style: TraceStyle) -> tuple[list[str], str]:
    """A thought and the answer drawn from it.

    Returns: the segments, each ending with `DELIMITER`; and the text that follows them, which closes the thought and
    gives the answer (the end-of-sequence token is the caller's). The answer repeats what the thought wrote last for
    each letter; only a thought broken off early has to guess.
    """
    clean = rng.random() < style.clean
    segments: list[str] = []
    totals = [problem.start, *(-1 for _ in problem.changes)]

    def expected(index: int) -> int:
        return (totals[index] + int(problem.changes[index])) % 10

    def state(index: int, opening: str, slip: float) -> None:
        total = expected(index)
        if rng.random() < slip:
            total = rng.choice([digit for digit in range(10) if digit != total])
        totals[index + 1] = total
        segments.append(f"{opening}{LETTERS[index]}: {totals[index]}{problem.changes[index]} = {total}{DELIMITER}")

    def work_on(index: int) -> None:
        state(index, "", style.clean_slip if clean else style.slip)
        if clean:
            return
        for _ in range(3):
            follows = totals[index + 1] == expected(index)
            if rng.random() > (style.check_right if follows else style.check_wrong):
                break
            state(index, rng.choice(RECHECKS), style.check_slip)
        if rng.random() < style.filler:
            segments.append(f"{rng.choice(FILLERS)}{DELIMITER}")

    restarted = clean
    for index in range(len(problem.changes)):
        work_on(index)
        if not restarted and rng.random() < style.restart:
            restarted = True
            segments.append(f"{RESTART}{DELIMITER}")
            for earlier in range(index + 1):
                state(earlier, "", style.check_slip)

    think_end = THINK_END
    digits = {index: totals[index + 1] for index in range(len(problem.changes))}
    if rng.random() < style.early:
        segments = segments[: rng.randrange(len(segments))]
        think_end = rng.choice(("", THINK_END))
        claims = _CLAIM.findall("".join(segments))
        digits = {LETTERS.index(letter): int(total) for letter, _, _, total in claims}
    answer = "".join(str(digits.get(index, rng.randrange(10))) for index in range(len(problem.changes)))
    return segments, f"{think_end}\\boxed{{{answer}}}"


def label_segments(problem: Problem, segments: list[str]) -> list[Label]:
    """What each segment of a thought did, whoever wrote it.

    "step": a letter's first total, right. "fix": a wrong total made right. "recheck": a right total stated again.
    "carried": a wrong total that follows by a right sum from a wrong total before it. "wrong": any other total that is
    wrong. "restart": announces one. "filler": states no total. A segment that states several is labelled by the last.
    """
    labels: list[Label] = []
    claims: dict[int, int] = {}
    for segment in segments:
        found = [claim for claim in _CLAIM.findall(segment) if LETTERS.index(claim[0]) < len(problem.changes)]
        if not found:
            labels.append("restart" if RESTART in segment else "filler")
            continue
        letter, before, change, total = found[-1]
        index, total = LETTERS.index(letter), int(total)
        if total != problem.totals[index]:
            follows = change == problem.changes[index] and total == (int(before) + int(change)) % 10
            stands_on = claims.get(index - 1, -1) if index else problem.start
            labels.append("carried" if follows and int(before) == stands_on else "wrong")
        elif index not in claims:
            labels.append("step")
        else:
            labels.append("recheck" if claims[index] == total else "fix")
        claims[index] = total
    return labels
