"""Completions with random numbers of their own: the right distribution, and the same ones however they are sampled."""

import sys
import types

import pytest
import torch
from pocket.make import MODEL_DIR
from tiny_models import tiny_model
from tiny_tokenizers import byte_level_tokenizer
from tokenizers.processors import TemplateProcessing
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.generation import TemperatureLogitsWarper, TopPLogitsWarper
from vllm_stand_in import engine_core, vllm_modules

from repro_trl import generation as generation_module
from repro_trl.demo import task as pocket_task
from repro_trl.evaluation import Sampling, task_from_rows
from repro_trl.evaluation.rows import MathTarget, Problem
from repro_trl.evaluation.sampling import pending_units, sample_seed, sample_units, work_units
from repro_trl.generation import (
    SeededDraw,
    TransformersSampler,
    eos_token_ids,
    load_sampler,
    prompt_ids,
    prompt_text,
)
from repro_trl.sampling import VllmSettings


@pytest.fixture(scope="module")
def sampler():
    return TransformersSampler(
        AutoModelForCausalLM.from_pretrained(MODEL_DIR), AutoTokenizer.from_pretrained(MODEL_DIR)
    )


@pytest.fixture(scope="module")
def problems():
    return task_from_rows("pocket", pocket_task.eval_dataset(12)).problems


def samples_of(sampler, problems, sampling, samples=2):
    units = work_units(problems, samples, sampling.batch_size)
    return [sample for unit in sample_units(sampler, units, sampling) for sample in unit]


SHORT = Sampling(temperature=1.0, top_p=0.95, max_new_tokens=40, batch_size=24)


@pytest.mark.parametrize(("temperature", "top_p"), [(1.0, 1.0), (0.6, 0.95), (2.0, 0.5)])
def test_draws_have_the_distribution_of_temperature_and_top_p(temperature, top_p):
    torch.manual_seed(0)
    logits = torch.randn(1, 20) * 2
    expected = TemperatureLogitsWarper(temperature)(None, logits)
    if top_p < 1:
        expected = TopPLogitsWarper(top_p)(None, expected)
    expected = expected.softmax(-1)[0]
    rows = 20_000
    draw = SeededDraw(list(range(rows)), Sampling(temperature=temperature, top_p=top_p))
    scores = draw(None, logits.expand(rows, -1))
    assert (scores == 0).sum(-1).eq(1).all() and scores[scores != 0].isneginf().all()
    drawn = torch.bincount(scores.argmax(-1), minlength=20) / rows
    assert drawn[expected == 0].sum() == 0
    error = (expected * (1 - expected) / rows).sqrt()
    assert ((drawn - expected).abs() <= 5 * error + 1e-6).all()


def test_a_row_of_one_certain_token():
    logits = torch.full((3, 5), -torch.inf)
    logits[:, 2] = 7.0
    draw = SeededDraw([0, 1, 2], Sampling())
    for _ in range(300):  # past the block of random numbers
        assert draw(None, logits).argmax(-1).tolist() == [2, 2, 2]


def test_samples_do_not_depend_on_what_is_sampled_beside_them(sampler, problems):
    together = samples_of(sampler, problems, SHORT)
    alone = samples_of(sampler, problems, Sampling(**{**vars(SHORT), "batch_size": 5}))
    assert together == alone
    assert [(s.problem, s.sample) for s in together] == [(str(p), i) for p in range(12) for i in range(2)]
    # Samples of a problem differ, and so do seeds.
    assert sum(together[i].completion != together[i + 1].completion for i in range(0, 24, 2)) > 6
    other = samples_of(sampler, problems, Sampling(**{**vars(SHORT), "seed": 1}))
    assert sum(a.completion != b.completion for a, b in zip(together, other, strict=True)) > 12


def test_the_callers_random_state_and_the_models_mode_are_left_alone(sampler, problems):
    torch.manual_seed(3)
    before = torch.get_rng_state()
    sampler.model.train()
    samples_of(sampler, problems[:2], SHORT, 1)
    assert torch.equal(torch.get_rng_state(), before) and sampler.model.training
    sampler.model.eval()


def test_temperature_zero_is_greedy(sampler, problems):
    greedy = Sampling(temperature=0.0, max_new_tokens=40)
    first, second = samples_of(sampler, problems[:2], greedy), samples_of(sampler, problems[:2], greedy)
    assert first == second and first[0].completion == first[1].completion
    inputs = sampler.tokenizer(prompt_text(sampler.tokenizer, problems[0].prompt), return_tensors="pt")
    ids = sampler.model.generate(**inputs, do_sample=False, max_new_tokens=40)[0, inputs["input_ids"].shape[1] :]
    assert first[0].completion == sampler.tokenizer.decode(ids, skip_special_tokens=True)


def test_what_a_sample_says(sampler, problems):
    for sample in samples_of(sampler, problems, SHORT):
        ids = sampler.tokenizer(sample.completion, add_special_tokens=False)["input_ids"]
        thought, marker, _ = sample.completion.partition("</think>")
        assert sample.completion_tokens == len(ids) + (not sample.truncated)  # the end-of-sequence token
        assert sample.truncated == (sample.completion_tokens == 40 and len(ids) == 40)
        if marker:
            assert sample.thinking_tokens == len(sampler.tokenizer(thought + marker)["input_ids"])
        else:
            assert sample.thinking_tokens == sample.completion_tokens
        assert sample.segments == len([s for s in thought.split("\n\n") if s.strip()]) >= sample.backtracks


def test_units_hold_everything_once_and_done_ones_are_left_out(sampler, problems):
    units = work_units(problems, 3, 7)
    assert [len(unit) for unit in units] == [7, 7, 7, 7, 7, 1]
    assert len({(problem.id, sample) for unit in units for problem, sample in unit}) == 36
    done = frozenset((problem.id, sample) for unit in units[1:] for problem, sample in unit)
    (only,) = sample_units(sampler, pending_units(units, done), Sampling(max_new_tokens=2))
    assert [(sample.problem, sample.sample) for sample in only] == [(p.id, s) for p, s in units[0]]


def test_seeds_differ_by_seed_problem_prompt_and_number():
    problem = Problem("1", "text", MathTarget("5"))
    seeds = {
        sample_seed(0, problem, 0),
        sample_seed(1, problem, 0),
        sample_seed(0, problem, 1),
        sample_seed(0, Problem("2", "text", problem.target), 0),
        sample_seed(0, Problem("1", "other", problem.target), 0),
    }
    assert len(seeds) == 5 and all(0 <= seed < 2**63 for seed in seeds)
    assert sample_seed(0, Problem("1", "text", MathTarget("6")), 0) == sample_seed(0, problem, 0)


def test_prompts_without_a_chat_template():
    tokenizer = byte_level_tokenizer()
    messages = [{"role": "user", "content": "1+1?"}]
    assert prompt_text(tokenizer, messages) == "<|user|>\n1+1?\n<|assistant|>\n"
    tokenizer.chat_template = None
    assert prompt_text(tokenizer, messages) == "1+1?\n\n" and prompt_text(tokenizer, "as it is") == "as it is"


def test_special_tokens_are_written_once():
    tokenizer = byte_level_tokenizer()
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="<eos> $A", special_tokens=[("<eos>", tokenizer.eos_token_id)]
    )
    messages = [{"role": "user", "content": "1+1?"}]
    # The template is taken to write what it needs.
    assert tokenizer.eos_token_id not in prompt_ids(tokenizer, messages)
    tokenizer.chat_template = None
    ids = prompt_ids(tokenizer, messages)
    assert ids[0] == tokenizer.eos_token_id and ids.count(tokenizer.eos_token_id) == 1
    assert prompt_ids(tokenizer, "1+1?\n\n") == ids


def test_a_tokenizer_without_padding_and_a_model_with_its_own_sampling(tmp_path):
    tokenizer = byte_level_tokenizer()
    tokenizer.pad_token = None
    model = tiny_model("qwen3", vocab_size=len(tokenizer))
    model.generation_config.update(do_sample=True, top_k=1, repetition_penalty=1.5, eos_token_id=[1, 7])
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    sampler = load_sampler(str(tmp_path), None, "transformers", "auto", torch.device("cpu"), 1)
    assert eos_token_ids(sampler.model, sampler.tokenizer) == [1, 7]
    problems = [Problem(str(i), "Let x" * i, MathTarget("5")) for i in range(1, 3)]
    hot = Sampling(temperature=5.0, top_p=1.0, max_new_tokens=8)
    texts = {sample.completion for sample in samples_of(sampler, problems, hot, 8)}
    assert len(texts) > 8  # top_k=1 of the model's own settings would leave one for each problem


def test_no_end_of_sequence_token_is_an_error():
    tokenizer = byte_level_tokenizer()
    tokenizer.eos_token = None
    model = tiny_model("qwen3")
    model.generation_config.eos_token_id = None
    with pytest.raises(ValueError, match="end-of-sequence"):
        eos_token_ids(model, tokenizer)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"temperature": -1}, "temperature=-1"),
        ({"temperature": float("nan")}, "temperature=nan"),
        ({"top_p": 0}, "top_p=0"),
        ({"top_p": 1.1}, "top_p=1.1"),
        ({"max_new_tokens": 0}, "max_new_tokens=0"),
        ({"batch_size": 0}, "batch_size=0"),
        ({"delimiter": ""}, "delimiter"),
        ({"think_end": ""}, "think_end"),
    ],
)
def test_settings_out_of_range(setting, message):
    with pytest.raises(ValueError, match=message):
        Sampling(**setting)


@pytest.fixture
def asked(monkeypatch):
    """What a stand-in for vLLM was asked for. The real one is in tests/vllm, and not installed everywhere."""
    calls = []

    class LLM:
        def __init__(self, **settings):
            calls.append(settings)
            self.llm_engine = engine_core(settings)

        def generate(self, prompts, params, use_tqdm):
            calls.extend(zip(prompts, params, strict=True))
            ids = tokenizer.encode("A\n\n</think>\\boxed{5}")
            reply = types.SimpleNamespace(token_ids=ids, finish_reason="length")
            return [types.SimpleNamespace(outputs=[reply]) for _ in prompts]

    for name, module in vllm_modules(LLM).items():
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setattr(generation_module.importlib.util, "find_spec", lambda name: name == "vllm")
    tokenizer = AutoTokenizer.from_pretrained(MODEL_DIR)
    return calls


def test_vllm_gets_the_same_prompts_settings_and_seeds(asked, problems):
    tokenizer = AutoTokenizer.from_pretrained(MODEL_DIR)
    sampler = load_sampler(str(MODEL_DIR), None, "vllm", "bfloat16", torch.device("cpu"), 2)
    samples = samples_of(sampler, problems[:1], Sampling(), 2)
    assert asked[0]["model"] == str(MODEL_DIR) and asked[0]["distributed_executor_backend"] == "external_launcher"
    for number, (prompt, params) in enumerate(asked[1:]):
        assert tokenizer.decode(prompt["prompt_token_ids"]) == prompt_text(tokenizer, problems[0].prompt)
        assert params.seed == sample_seed(0, problems[0], number)
        assert (params.temperature, params.top_p, params.max_tokens) == (0.6, 0.95, 32768)
    assert samples[0].truncated and samples[0].completion.endswith("\\boxed{5}")
    assert samples[0].thinking_tokens < samples[0].completion_tokens


def test_prompts_are_read_whole_on_a_cpu(asked, monkeypatch):
    for is_cpu in (False, True):
        monkeypatch.setattr(sys.modules["vllm.platforms"].current_platform, "is_cpu", lambda is_cpu=is_cpu: is_cpu)
        load_sampler(str(MODEL_DIR), None, "vllm", "auto", torch.device("cpu"))
    on_gpu, on_cpu = asked
    assert "enable_chunked_prefill" not in on_gpu and on_cpu["enable_chunked_prefill"] is False


def test_vllm_and_what_is_longer_than_it_takes(asked, capsys):
    for process in (0, 1):
        settings = VllmSettings(max_model_length=32)
        sampler = load_sampler(str(MODEL_DIR), None, "vllm", "auto", torch.device("cpu"), 2, process, settings)
        sampler.generate([[5] * 20], [0], Sampling(max_new_tokens=12))
        assert "vllm_max_model_length" not in capsys.readouterr().err
        for _ in range(2):
            sampler.generate([[5] * 2, [5] * 21], [0, 1], Sampling(max_new_tokens=12))
        said = capsys.readouterr().err.count("vllm_max_model_length=32: completions are cut off there")
        assert said == (process == 0)
        with pytest.raises(ValueError, match="vllm_max_model_length=32: the longest prompt has 32 tokens"):
            sampler.generate([[5] * 32], [0], Sampling(max_new_tokens=1))


def test_vllm_that_is_not_there():
    with pytest.raises(ValueError, match="vLLM is not installed"):
        load_sampler(str(MODEL_DIR), None, "vllm", "auto", torch.device("cpu"), 1)
