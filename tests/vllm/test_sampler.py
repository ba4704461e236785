"""`VllmSampler` on a real vLLM, on a CPU: what it draws is what transformers draws."""

import dataclasses

import pytest
import torch
from tiny_policy import save_tiny_policy
from transformers import AutoModelForCausalLM
from vllm_on_cpu import run_with_vllm

from repro_trl.demo import MODEL_DIR, task
from repro_trl.generation import load_sampler, prompt_ids
from repro_trl.models import load_tokenizer
from repro_trl.sampling import Sampling, VllmSettings

pytestmark = pytest.mark.vllm

GREEDY = Sampling(temperature=0.0, max_new_tokens=64)
SAMPLED = Sampling(temperature=1.0, top_p=1.0, max_new_tokens=24)
WARM = Sampling(temperature=0.7, top_p=0.9, max_new_tokens=1)
PROMPTS, DRAWS = 12, 2000


def load(model, backend, dtype="auto", **settings):
    return load_sampler(str(model), None, backend, dtype, torch.device("cpu"), vllm_settings=VllmSettings(**settings))


def prompts_of(model):
    tokenizer = load_tokenizer(str(model), None, False)
    return [prompt_ids(tokenizer, row["prompt"]) for row in task.eval_dataset(PROMPTS)]


def first_tokens(sampler, prompt):
    """Of many completions: with vLLM, of more than it begins at once."""
    return [draw.ids[0] for draw in sampler.generate([prompt] * DRAWS, list(range(DRAWS)), WARM)]


# --------------------------------------------------------------------------------------------- one engine, many draws


def _draw(model):
    sampler, prompts = load(model, "vllm"), prompts_of(model)
    seeds = list(range(PROMPTS))
    return {
        "greedy": sampler.generate(prompts, seeds, GREEDY),
        "short": sampler.generate(prompts, seeds, dataclasses.replace(GREEDY, max_new_tokens=5)),
        "sampled": sampler.generate(prompts, seeds, SAMPLED),
        "in parts": [
            sampler.generate([prompt], [seed], SAMPLED)[0] for prompt, seed in zip(prompts, seeds, strict=True)
        ],
        "other seeds": sampler.generate(prompts, [seed + 100 for seed in seeds], SAMPLED),
        "first tokens": first_tokens(sampler, prompts[0]),
    }


@pytest.fixture(scope="module", params=["bundled", "several ends, settings of its own"])
def model(request, tmp_path_factory):
    if request.param == "bundled":
        return MODEL_DIR
    folder = tmp_path_factory.mktemp("policy")
    # Several end-of-sequence tokens, and a generation config that must not count.
    save_tiny_policy(folder, hidden_size=128, head_dim=32)
    policy = AutoModelForCausalLM.from_pretrained(folder)
    policy.generation_config.update(do_sample=True, top_k=1, top_p=0.5, temperature=0.2, repetition_penalty=1.5)
    policy.generation_config.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def drawn(model, tmp_path_factory):
    return run_with_vllm(_draw, tmp_path_factory.mktemp("draws"), model)[0]


def test_greedy_completions_are_those_of_transformers(model, drawn):
    sampler, prompts = load(model, "transformers"), prompts_of(model)
    assert drawn["greedy"] == sampler.generate(prompts, [0] * PROMPTS, GREEDY)
    assert not all(draw.truncated for draw in drawn["greedy"])
    short = dataclasses.replace(GREEDY, max_new_tokens=5)
    assert drawn["short"] == sampler.generate(prompts, [0] * PROMPTS, short)
    assert any(draw.truncated for draw in drawn["short"])


def test_a_completion_hangs_on_its_seed_alone(drawn):
    assert drawn["sampled"] == drawn["in parts"]
    assert sum(one != other for one, other in zip(drawn["sampled"], drawn["other seeds"], strict=True)) > PROMPTS / 2


def test_draws_have_the_distribution_of_temperature_and_top_p(model, drawn):
    sampler, prompts = load(model, "transformers"), prompts_of(model)
    expected = first_tokens(sampler, prompts[0])
    size = sampler.model.config.vocab_size
    of_vllm, of_transformers = (
        torch.bincount(torch.tensor(ids), minlength=size) / DRAWS for ids in (drawn["first tokens"], expected)
    )
    error = ((of_vllm + of_transformers) / DRAWS).sqrt()  # of the difference of two shares
    assert ((of_vllm - of_transformers).abs() <= 5 * error).all()


# ------------------------------------------------------------------------------------------------- what goes wrong


def _refused(model, prompt, settings):
    with pytest.raises(ValueError) as error:
        load(model, "vllm", **settings).generate([prompt], [0], GREEDY)
    return str(error.value)


@pytest.mark.parametrize(
    ("max_model_length", "prompt", "message"),
    [(32, 32, "vllm_max_model_length=32: the longest prompt has 32 tokens"), (100_000, 2, "max_model_len")],
)
def test_lengths_that_the_engine_does_not_take(tmp_path, max_model_length, prompt, message):
    settings = {"max_model_length": max_model_length}
    (error,) = run_with_vllm(_refused, tmp_path, MODEL_DIR, [5] * prompt, settings)
    assert message in error
