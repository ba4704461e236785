r"""The search task: three moves on a dial that lead from one number to another, found by trying.

    prompt      Turn 12 into 64. Moves: 3.
    thought     12 a 19⏎⏎ 19 a 26⏎⏎ 26 b 78⏎⏎ 78: dead end, go back to 26⏎⏎ 26 a 33⏎⏎ Wait, check 26 a: 33⏎⏎ …
    answer      </think>⏎⏎ \boxed{aba}                                                      (⏎⏎: a blank line)

The dial has the numbers 00 to 99; move a adds 7, b triples. From the starts that are used no number is
reached in two ways. Nobody knows beforehand which move leads on: whoever ends at a number that is not the goal goes
back to the last place where something is left to try. Every right move settles one letter of the answer.

Traces are such a search, depth first, each move chosen blindly among those left. They overthink on purpose: slips in a
move's result, checks that mend some of them, fillers, restarts, thoughts broken off. `label_segments` says for each
segment, whoever wrote it, what it did.
"""

import functools
import hashlib
import itertools
import random
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

DELIMITER = "\n\n"
THINK_END = "</think>"
SIZE, LENGTH = 100, 3
MOVES = {"a": lambda n: (n + 7) % SIZE, "b": lambda n: 3 * n % SIZE}

Label = Literal["step", "wrong", "dead end", "fix", "recheck", "filler", "restart"]
USEFUL: frozenset[Label] = frozenset({"step", "fix"})
"""What brings the thought nearer to the answer: a right move, and leaving a wrong one or a dead end."""

FILLERS = ("Hmm.", "So far so good.", "Let me think.")
CHECKS = ("Wait, check ", "Let me check ")
RESTART = "No, start over."
DEAD_END = ": dead end, go back to "

LONGEST = 24
"""Segments after which a trace ends, found or not."""

_MOVE = re.compile(r"(\d\d) ([ab]) (\d\d)")
_CHECK = re.compile(r"check (\d\d) ([ab]): (\d\d)")
_BACK = re.compile(r"go back to (\d\d)")


@dataclass(frozen=True)
class Problem:
    """From `start` to `goal` by the moves of `answer`, the only ones."""

    start: int
    goal: int
    answer: str

    @property
    def text(self) -> str:
        """The user's message."""
        return f"Turn {self.start:02} into {self.goal:02}. Moves: {LENGTH}."

    @property
    def is_held_out(self) -> bool:
        """Whether the problem belongs to the tenth that no training set contains: decided by a hash of its text."""
        return hashlib.sha256(self.text.encode()).digest()[0] % 10 == 0


@dataclass(frozen=True)
class TraceStyle:
    """How a trace is written; every figure is a probability. The defaults leave overthinking about neutral for
    accuracy: checks mend some slips.
    """

    clean: float = 0.15
    """The whole trace is the search itself, and holds nothing else but slips."""
    clean_slip: float = 0.1
    """A move of a clean trace has a wrong result."""
    slip: float = 0.15
    """The same in an overthinking trace."""
    check_wrong: float = 0.75
    """A move with a wrong result is checked, and put right."""
    check_right: float = 0.2
    """Any other move is checked."""
    filler: float = 0.1
    """A filler follows a move."""
    restart: float = 0.05
    """Everything is done again after a move; at most once a trace."""
    early: float = 0.2
    """The thought is broken off at a random boundary and the rest of the moves is guessed; half of these close the
    thought first, half write the boxed answer in its middle."""


def turn(start: int, moves: str) -> int:
    """Where moves lead."""
    for move in moves:
        start = MOVES[move](start)
    return start


@functools.cache
def all_problems() -> tuple[Problem, ...]:
    """From every start to every number three moves away, where no number can be reached in two ways."""
    ways = ["".join(moves) for count in range(LENGTH + 1) for moves in itertools.product(MOVES, repeat=count)]
    found = []
    for start in range(SIZE):
        numbers = [turn(start, moves) for moves in ways]
        if len(set(numbers)) == len(numbers):
            whole = zip(numbers, ways, strict=True)
            found += [Problem(start, goal, moves) for goal, moves in whole if len(moves) == LENGTH]
    return tuple(found)


def problems(seed: int, held_out: bool) -> Iterator[Problem]:
    """Endless problems from the training or the held-out part, which share none."""
    rng = random.Random(seed)
    pool = [problem for problem in all_problems() if problem.is_held_out == held_out]
    while True:
        yield rng.choice(pool)


def make_trace(problem: Problem, rng: random.Random, style: TraceStyle) -> tuple[list[str], str]:
    """A thought and the answer drawn from it.

    Returns: the segments, each ending with `DELIMITER`; and the text that follows them, which closes the thought and
    gives the answer (the end-of-sequence token is the caller's). The answer is the moves that the thought stands on at
    its end; a thought broken off early goes on from there at random.
    """
    clean = rng.random() < style.clean
    restarted = clean
    segments: list[str] = []
    made: list[str] = []  # moves that the thought stands on after each segment
    moves, numbers = "", [problem.start]
    tried: set[str] = set()  # sequences of moves

    def write(text: str) -> None:
        segments.append(text + DELIMITER)
        made.append(moves)

    while len(segments) < LONGEST and not (len(moves) == LENGTH and numbers[-1] == problem.goal):
        if len(moves) == LENGTH:
            # Back to the last place from which something has not been tried.
            here, moves = numbers[-1], moves[:-1]
            while moves and all(moves + move in tried for move in MOVES):
                moves = moves[:-1]
            if all(moves + move in tried for move in MOVES):  # a slip has hidden the solution
                tried.clear()
            numbers = numbers[: len(moves) + 1]
            write(f"{here:02}{DEAD_END}{numbers[-1]:02}")
            continue
        move = rng.choice([move for move in MOVES if moves + move not in tried])
        before, result = numbers[-1], MOVES[move](numbers[-1])
        slipped = rng.random() < (style.clean_slip if clean else style.slip)
        claim = rng.choice([number for number in range(SIZE) if number != result]) if slipped else result
        moves += move
        tried.add(moves)
        numbers.append(claim)
        write(f"{before:02} {move} {claim:02}")
        if clean:
            continue
        if rng.random() < (style.check_wrong if slipped else style.check_right):
            numbers[-1] = result
            write(f"{rng.choice(CHECKS)}{before:02} {move}: {result:02}")
        if rng.random() < style.filler:
            write(rng.choice(FILLERS))
        if not restarted and len(moves) < LENGTH and rng.random() < style.restart:
            restarted, moves, numbers = True, "", [problem.start]
            tried.clear()
            write(RESTART)

    think_end = THINK_END + DELIMITER
    if rng.random() < style.early:
        cut = rng.randrange(len(segments))
        segments, moves = segments[:cut], made[cut - 1] if cut else ""
        think_end = rng.choice(("", think_end))
    moves += "".join(rng.choice("ab") for _ in range(LENGTH - len(moves)))
    return segments, f"{think_end}\\boxed{{{moves}}}"


def label_segments(problem: Problem, segments: list[str]) -> list[Label]:
    """What each segment of a thought did, whoever wrote it.

    "step": the next move of the solution, with its right result, where all before it were right. "wrong": a wrong
    result, moving from a number that the thought does not stand on, or leaving the right way. "dead end": a move off
    the way. "fix": a check that mends a result, or going back from off the way onto it. "recheck": a check that
    changes nothing, and moves repeated after a restart. "restart": announces one. "filler": says nothing of moves.
    """
    labels: list[Label] = []
    moves, numbers = "", [problem.start]
    reached = 0  # right moves made before the last restart

    def is_right() -> bool:
        path = [turn(problem.start, moves[:count]) for count in range(len(moves) + 1)]
        return problem.answer.startswith(moves) and numbers == path

    for segment in segments:
        move, check, back = _MOVE.search(segment), _CHECK.search(segment), _BACK.search(segment)
        was_right = is_right()
        if RESTART in segment:
            reached = max(reached, len(moves)) if was_right else reached
            moves, numbers = "", [problem.start]
            labels.append("restart")
        elif back:
            if int(back[1]) in numbers:
                kept = numbers.index(int(back[1])) + 1
                moves, numbers = moves[: kept - 1], numbers[:kept]
            labels.append("wrong" if was_right else "fix" if is_right() else "dead end")
        elif check:
            number, letter, claim = int(check[1]), check[2], int(check[3])
            if claim != MOVES[letter](number):
                labels.append("wrong")
                continue
            if moves.endswith(letter) and numbers[-2] == number:
                numbers[-1] = claim
            labels.append("fix" if is_right() and not was_right else "recheck")
        elif move:
            number, letter, claim = int(move[1]), move[2], int(move[3])
            is_wrong = claim != MOVES[letter](number) or number != numbers[-1]
            moves, numbers = moves + letter, [*numbers, claim]
            if is_wrong:
                labels.append("wrong")
            elif not is_right():
                labels.append("dead end")
            else:
                labels.append("step" if len(moves) > reached else "recheck")
        else:
            labels.append("filler")
    return labels
