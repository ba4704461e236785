"""A real language model and completions that it wrote, once for all tests."""

import random
from dataclasses import dataclass

import pytest
from transformers import AutoModelForCausalLM, AutoTokenizer

from repro_trl.generation import TransformersSampler, prompt_ids
from repro_trl.sampling import Sampling, completion_seed
from repro_trl.verifier import verify_answer
from study.real.model import ModelUnavailable, make_model

# One solved problem, by which the model sees how answers are written.
EXAMPLE = [
    {"role": "user", "content": "Tom has 4 pens and gets 3 more. How many pens does he have?"},
    {
        "role": "assistant",
        "content": "Tom starts with 4 pens.\n\nHe gets 3 more: 4 + 3 = 7.\n\nThe answer is \\boxed{7}.",
    },
]
NUM_PROBLEMS, NUM_GENERATIONS = 8, 4


@dataclass(frozen=True)
class Completion:
    """What the model wrote, without its end-of-turn token."""

    prompt: list[dict[str, str]]
    answer: str
    ids: list[int]
    text: str

    @property
    def right(self) -> bool:
        return bool(verify_answer(self.text, self.answer, None))


@pytest.fixture(scope="session")
def folder():
    try:
        return make_model()
    except ModelUnavailable as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def tokenizer(folder):
    return AutoTokenizer.from_pretrained(folder)


@pytest.fixture(scope="session")
def model(folder):
    return AutoModelForCausalLM.from_pretrained(folder).eval()


def problem(rng: random.Random) -> tuple[list[dict[str, str]], str]:
    """A prompt and its answer."""
    name, thing = rng.choice(["Ann", "Ben", "Sam", "Mia"]), rng.choice(["apples", "books", "cards", "coins"])
    have, more = rng.randint(2, 9), rng.randint(2, 9)
    content = f"{name} has {have} {thing} and gets {more} more. How many {thing} does {name} have?"
    return [*EXAMPLE, {"role": "user", "content": content}], str(have + more)


@pytest.fixture(scope="session")
def completions(model, tokenizer) -> list[Completion]:
    """Those of a problem side by side."""
    rng = random.Random(0)
    problems = [problem(rng) for _ in range(NUM_PROBLEMS)]
    wanted = [one for one in problems for _ in range(NUM_GENERATIONS)]
    generations = TransformersSampler(model, tokenizer).generate(
        [prompt_ids(tokenizer, prompt) for prompt, _ in wanted],
        [completion_seed(index) for index in range(len(wanted))],
        Sampling(temperature=0.6, top_p=1.0, max_new_tokens=48),
    )
    made = []
    for (prompt, answer), generation in zip(wanted, generations, strict=True):
        ids = generation.ids if generation.truncated else generation.ids[:-1]
        made.append(Completion(prompt, answer, ids, tokenizer.decode(ids)))
    return made
