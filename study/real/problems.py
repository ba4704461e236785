"""Word problems of two steps, made by script: what is asked, the answer, and a thought that leads there.

Names, things and numbers are drawn. The text of a problem decides whether it is held out, so that none is on both
sides, whatever the seeds.
"""

import random
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from datasets import Dataset

NAMES = (
    "Tom", "Anna", "Ben", "Lucy", "Sam", "Mia", "Jack", "Ella", "Max", "Nora", "Leo", "Ruth", "Omar", "Ivy", "Paul",
    "Zoe",
)  # fmt: skip
THINGS = (
    "apples", "books", "stickers", "marbles", "pencils", "cookies", "shells", "coins", "cards", "balloons", "stamps",
    "flowers", "candies", "oranges", "buttons", "toys",
)  # fmt: skip
CONTAINERS = ("boxes", "bags", "baskets", "jars", "trays", "drawers")
CONCLUSIONS = (
    "The final answer is {box}.",
    "Final answer: {box}",
    "Therefore, the answer is {box}.",
    "So the result is {box} {unit}.",
    "{box}",
)
"""How a written-out thought ends: in several ways, so that the policy is not trained for one answer prefix."""

INSTRUCTION = "Solve the problem step by step. Put the final answer in \\boxed{}."
HELD_OUT = 10
"""One problem in so many is held out."""


@dataclass(frozen=True)
class Problem:
    """A word problem with a whole, positive answer.

    Attributes:
        unit: of the answer.
        steps: paragraphs of a thought that leads to it.
    """

    text: str
    answer: str
    unit: str = ""
    steps: tuple[str, ...] = ()

    @property
    def held_out(self) -> bool:
        """Whether it is kept for evaluations."""
        return zlib.crc32(self.text.encode()) % HELD_OUT == 0


def _gain_and_loss(rng: random.Random) -> Problem:
    name, thing = rng.choice(NAMES), rng.choice(THINGS)
    have, more = rng.randint(3, 30), rng.randint(3, 30)
    less = rng.randint(1, have + more - 1)
    return Problem(
        f"{name} has {have} {thing}, finds {more} more and gives away {less}. How many {thing} does {name} have now?",
        str(have + more - less),
        thing,
        (
            f"{name} starts with {have} {thing}.",
            f"With {more} more it is {have} + {more} = {have + more}.",
            f"After giving away {less} it is {have + more} - {less} = {have + more - less}.",
        ),
    )


def _containers(rng: random.Random) -> Problem:
    name, thing, container = rng.choice(NAMES), rng.choice(THINGS), rng.choice(CONTAINERS)
    count, each, more = rng.randint(2, 6), rng.randint(2, 9), rng.randint(1, 15)
    return Problem(
        f"{name} has {count} {container} with {each} {thing} in each, and {more} more {thing}. How many {thing} does "
        f"{name} have in total?",
        str(count * each + more),
        thing,
        (
            f"There are {count} {container} with {each} {thing} in each.",
            f"That is {count} * {each} = {count * each} {thing}.",
            f"With {more} more it is {count * each} + {more} = {count * each + more}.",
        ),
    )


def _two_people(rng: random.Random) -> Problem:
    name, other, thing = *rng.sample(NAMES, 2), rng.choice(THINGS)
    have, more = rng.randint(3, 30), rng.randint(2, 20)
    return Problem(
        f"{name} has {have} {thing}. {other} has {more} more than {name}. How many {thing} do they have together?",
        str(have + have + more),
        thing,
        (
            f"{name} has {have} {thing}.",
            f"{other} has {have} + {more} = {have + more} {thing}.",
            f"Together it is {have} + {have + more} = {have + have + more}.",
        ),
    )


def _change(rng: random.Random) -> Problem:
    name, thing = rng.choice(NAMES), rng.choice(THINGS)
    count, price = rng.randint(2, 6), rng.randint(2, 9)
    money = count * price + rng.randint(1, 30)
    return Problem(
        f"{name} has {money} dollars and buys {count} {thing} for {price} dollars each. How many dollars are left?",
        str(money - count * price),
        "dollars",
        (
            f"{name} buys {count} {thing} for {price} dollars each.",
            f"They cost {count} * {price} = {count * price} dollars.",
            f"What is left is {money} - {count * price} = {money - count * price}.",
        ),
    )


KINDS: tuple[Callable[[random.Random], Problem], ...] = (_gain_and_loss, _containers, _two_people, _change)


def sample_problems(count: int, seed: int, held_out: bool) -> list[Problem]:
    """`count` different problems, of all kinds in turn; the same for the same seed.

    Args:
        held_out: of which side.
    """
    rng = random.Random(seed)
    problems: dict[str, Problem] = {}
    while len(problems) < count:
        problem = KINDS[len(problems) % len(KINDS)](rng)
        if problem.held_out == held_out:
            problems.setdefault(problem.text, problem)
    return list(problems.values())


def prompt_of(problem: Problem) -> list[dict[str, str]]:
    """As a chat."""
    return [{"role": "user", "content": f"{INSTRUCTION}\n\n{problem.text}"}]


def written_out(problem: Problem, rng: random.Random) -> str:
    """A thought in paragraphs and its answer, with a conclusion at random."""
    conclusion = rng.choice(CONCLUSIONS).format(box=f"\\boxed{{{problem.answer}}}", unit=problem.unit)
    return "\n\n".join([*problem.steps, conclusion])


def dataset(problems: Sequence[Problem]) -> Dataset:
    """Columns `prompt` and `solution`, the bare answer."""
    return Dataset.from_list([{"prompt": prompt_of(problem), "solution": problem.answer} for problem in problems])
