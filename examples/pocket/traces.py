"""How the pocket model was taught to think: traces that overthink on purpose, and what is right in them.

A trace has slips, re-checks that sometimes mend them, fillers and restarts. `label_segments` says for each segment,
written by `make_trace` or by a policy, what it did.
"""

import random
import re
from dataclasses import dataclass
from typing import Literal

from repro_trl.demo.task import LETTERS, Problem, result_of

DELIMITER = "\n\n"
THINK_END = "</think>"

Label = Literal["step", "wrong", "recheck", "fix", "filler", "restart"]

_BOXED = re.compile(r"\\boxed\{([^{}]*)\}")
_CLAIM = re.compile(rf"([{LETTERS}]): \d[+-]\d = (\d)")


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
        result = result_of(problem.items[index])
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
        return claims[index] == result_of(problem.items[index])

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
        right = digit == result_of(problem.items[index])
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
