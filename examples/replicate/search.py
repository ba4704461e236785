r"""The search task: three moves on a dial that lead from one number to another, found by trying.

    prompt      Turn 12 into 30. Moves: 3.
    thought     12 a 19⏎⏎ 19 b 38⏎⏎ 38: dead end, back to 12⏎⏎ 12 c 1⏎⏎ Wait, check 12 c: 1⏎⏎ …   (⏎⏎: a blank line)
    answer      </think>⏎⏎ \boxed{cab}

The dial has the numbers 00 to 59; move a adds 7, b doubles, c takes 11 away. Only problems with exactly one solution
are posed. Which move leads on has to be foreseen or found out: whoever turns wrong ends at a number that is not the
goal, and has to go back. Every right move settles one letter of the answer.

Traces overthink on purpose: moves tried blindly, slips in a move's result, checks that mend some of them, fillers,
restarts. `label_segments` says for each segment, whoever wrote it, what it did.
"""

import functools
import hashlib
import itertools
import random
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

DELIMITER = "\n\n"
THINK_END = "</think>"
SIZE, LENGTH = 60, 3
MOVES = {"a": lambda n: (n + 7) % SIZE, "b": lambda n: 2 * n % SIZE, "c": lambda n: (n - 11) % SIZE}

Label = Literal["step", "wrong", "dead end", "fix", "recheck", "filler", "restart"]
USEFUL: frozenset[Label] = frozenset({"step", "fix"})
"""What brings the thought nearer to the answer: a right move, and leaving a wrong one or a dead end."""

FILLERS = ("Hmm.", "So far so good.", "Let me think.")
CHECKS = ("Wait, check ", "Let me check ")
RESTART = "No, start over."
DEAD_END = ": dead end, go back to "

_MOVE = re.compile(r"(\d\d) ([abc]) (\d\d)")
_CHECK = re.compile(r"check (\d\d) ([abc]): (\d\d)")
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
    """The whole trace makes the right moves, and holds nothing else but slips."""
    clean_slip: float = 0.1
    """A move of a clean trace has a wrong result."""
    slip: float = 0.15
    """The same in an overthinking trace."""
    blind: float = 0.4
    """A move of an overthinking trace is taken at random among those not tried yet from the same place."""
    notice: float = 0.6
    """A wrong turn is given up after each move, before its end."""
    check_wrong: float = 0.75
    """A move with a wrong result is checked, and put right."""
    check_right: float = 0.25
    """Any other move is checked."""
    filler: float = 0.12
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
    """Every start and goal with exactly one solution."""
    found = []
    for start in range(SIZE):
        ways = [(turn(start, "".join(moves)), "".join(moves)) for moves in itertools.product(MOVES, repeat=LENGTH)]
        count = Counter(goal for goal, _ in ways)
        found += [Problem(start, goal, moves) for goal, moves in ways if count[goal] == 1]
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

    while len(segments) < 20 and not (len(moves) == LENGTH and numbers[-1] == problem.goal):
        off = not problem.answer.startswith(moves)
        if len(moves) == LENGTH or (off and rng.random() < style.notice):
            # Back to the last place from which something has not been tried.
            here, moves = numbers[-1], moves[:-1]
            while moves and all(moves + move in tried for move in MOVES):
                moves = moves[:-1]
            if all(moves + move in tried for move in MOVES):  # a slip has hidden the solution
                tried.clear()
            numbers = numbers[: len(moves) + 1]
            write(f"{here:02}{DEAD_END}{numbers[-1]:02}")
            continue
        right = problem.answer[len(moves)]
        open_moves = [move for move in MOVES if moves + move not in tried] or list(MOVES)
        is_blind = off or (not clean and rng.random() < style.blind) or right not in open_moves
        move = rng.choice(open_moves) if is_blind else right
        before, result = numbers[-1], MOVES[move](numbers[-1])
        slipped = rng.random() < (style.clean_slip if clean else style.slip)
        claim = rng.choice([number for number in range(SIZE) if number != result]) if slipped else result
        moves += move
        tried.add(moves)
        numbers.append(claim)
        write(f"{before:02} {move} {claim:02}")
        if clean:
            if len(moves) == LENGTH:
                break
            continue
        if rng.random() < (style.check_wrong if slipped else style.check_right):
            numbers[-1] = result
            write(f"{rng.choice(CHECKS)}{before:02} {move}: {result:02}")
        if rng.random() < style.filler:
            write(rng.choice(FILLERS))
        if not restarted and len(moves) < LENGTH and rng.random() < style.restart:
            restarted, moves, numbers = True, "", [problem.start]
            write(RESTART)

    think_end = THINK_END + DELIMITER
    if rng.random() < style.early:
        cut = rng.randrange(len(segments))
        segments, moves = segments[:cut], made[cut - 1] if cut else ""
        think_end = rng.choice(("", think_end))
    moves += "".join(rng.choice("abc") for _ in range(LENGTH - len(moves)))
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
