"""The study's arms, measurements and cells."""

import random
import re
import subprocess
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

from repro_trl.method.advantage import normalize_rewards, reward_to_go
from repro_trl.method.process_reward import process_rewards
from study import arms, auto, chain, health, instruments, large, make, measure, records, sampler
from study.cell import Cell, load, run_cell
from study.run import commit_of
from study.tasks import TASKS

DIGITS = TASKS["digits"]


@pytest.fixture(scope="module")
def model():
    return AutoModelForCausalLM.from_pretrained(DIGITS.model_dir).eval()


@pytest.fixture(scope="module")
def tokenizer():
    return AutoTokenizer.from_pretrained(DIGITS.model_dir)


def test_the_study_starts_from_models_of_its_own():
    folders = [task.model_dir for task in TASKS.values()] + [warm_up.base for warm_up in make.WARM_UPS.values()]
    assert {folder.resolve().parent for folder in folders if folder} == {make.MODELS_DIR.resolve()}


@pytest.fixture(scope="module")
def sample(model, tokenizer):
    torch.manual_seed(0)
    return measure.draw(model, tokenizer, DIGITS, problem_seed=0, num_problems=4, num_generations=6)


def test_the_sampler_has_the_probabilities_of_the_model(model, tokenizer, monkeypatch):
    prompts = tokenizer(["A: 1+1 = 2\n\n", "Find the digits. A: 7-1 ; B: 8-2\n\n"], return_tensors="pt", padding=True)
    seen = []
    step = sampler._step
    monkeypatch.setattr(sampler, "_step", lambda *args: seen.append((args[3], step(*args))) or seen[-1][1])
    torch.manual_seed(1)
    output = sampler.sample(model, prompts["input_ids"], prompts["attention_mask"], 12)
    new = torch.ones(2, output.shape[1] - prompts["input_ids"].shape[1], dtype=torch.long)
    mask = torch.cat([prompts["attention_mask"], new], dim=1)
    with torch.no_grad():
        expected = model(input_ids=output, attention_mask=mask).logits
    compared = [(place, logits) for place, logits in seen if len(logits) == 2]
    assert len(compared) > 5
    for place, logits in compared:
        torch.testing.assert_close(logits, expected[:, place], atol=1e-4, rtol=1e-4)


def test_completions_end_once(model, tokenizer):
    torch.manual_seed(2)
    prompts = tokenizer(["A: 1+1 = 2\n\n</think>\n\n\\boxed{2}"] * 30, return_tensors="pt")
    output = sampler.sample(model, prompts["input_ids"], prompts["attention_mask"], 20)
    ended = 0
    for row in output[:, prompts["input_ids"].shape[1] :].tolist():
        if tokenizer.eos_token_id in row:
            ended += 1
            assert set(row[row.index(tokenizer.eos_token_id) + 1 :]) <= {tokenizer.pad_token_id}
    assert ended > 25


def test_the_sampler_refuses_what_it_cannot_do(model):
    try:
        sampler.use_in(model)
        for settings in ({"temperature": 0.7}, {"top_k": 5}, {"top_p": 0.9}, {"do_sample": False}):
            config = GenerationConfig(max_new_tokens=3, **{"do_sample": True, "top_k": 0, **settings})
            with pytest.raises(ValueError, match="temperature 1"):
                model.generate(torch.tensor([[5]]), torch.tensor([[1]]), config)
    finally:
        del model.generate


def test_a_sample_says_what_it_holds(sample, tokenizer):
    ids, mask = sample.batch["completion_ids"], sample.batch["completion_mask"].bool()
    assert sample.groups.tolist() == [group for group in range(4) for _ in range(6)]
    assert {segment.label for segment in sample.segments} >= {"step", "wrong"}
    for segment in sample.segments:
        piece = tokenizer.decode(ids[segment.row, segment.start : segment.end])
        assert piece.endswith("\n\n") and piece.count("\n\n") == 1
        assert mask[segment.row, segment.start : segment.end].all() and segment.end <= sample.ends[segment.row]
    for text, correct, group in zip(sample.texts, sample.correct, sample.groups, strict=True):
        assert correct == float(text.endswith(f"\\boxed{{{sample.problems[group].answer}}}"))
    by_group = sample.outcome_advantages.view(4, 6)
    torch.testing.assert_close(by_group.mean(dim=1), torch.zeros(4), atol=1e-6, rtol=0)


def test_credit_of_the_papers_form_is_that_of_the_method(model, tokenizer, sample):
    boundaries, mask, values = scored = measure.score_as("repro", model, tokenizer, sample)
    assert mask.sum(dim=1).max() == 4 and (values[mask] < 0).all()
    given = measure.credit("repro", scored, sample)
    rewards = process_rewards(values, mask)
    normalized = normalize_rewards(rewards, mask[:, 1:], sample.groups)
    expected = reward_to_go(normalized, mask[:, 1:], boundaries[:, 1:], given.advantages.shape[1])
    torch.testing.assert_close(given.advantages, expected)
    for row, segment_rewards in enumerate(rewards):
        bounds = boundaries[row][mask[row]].tolist()
        for index, (start, end) in enumerate(pairwise(bounds)):
            assert (given.rewards[row, start:end] == segment_rewards[index]).all()


def test_discounted_credit_lies_between_both_kinds(model, tokenizer, sample):
    scored = measure.score_as("recipe", model, tokenizer, sample)
    discounted = measure.credit("recipe discounted", scored, sample).advantages
    own = measure.credit("recipe", scored, sample).advantages
    boundaries, mask, _ = scored
    row = mask.sum(dim=1).argmax()
    starts = boundaries[row][mask[row]].tolist()[:-1]
    credit = 0.0
    for start in reversed(starts):
        credit = own[row, start].item() + 0.5 * credit
        assert discounted[row, start].item() == pytest.approx(credit, abs=1e-4)


def test_potential_credit_is_the_objective_at_a_segments_start(model, tokenizer, sample):
    _, mask, values = scored = measure.score_as("recipe", model, tokenizer, sample)
    advantages = measure.credit("recipe potential", scored, sample).advantages
    is_start = mask[:, 1:]  # of the segment that ends at each boundary
    mean = values[:, :-1][is_start].mean()
    for row in range(len(values)):
        starts = scored[0][row][mask[row]].tolist()[:-1]
        ends = scored[0][row][mask[row]].tolist()[1:]
        for index, (start, end) in enumerate(zip(starts, ends, strict=True)):
            expected = (mean - values[row, index]).expand(end - start)
            torch.testing.assert_close(advantages[row, start:end], expected, atol=1e-4, rtol=1e-4)


def test_credit_of_a_rival_is_the_change_in_probability(model, tokenizer, sample):
    boundaries, mask, values = scored = measure.score_as("recipe", model, tokenizer, sample)
    given = measure.credit("vps", scored, sample).rewards
    for row in range(len(values)):
        bounds, probabilities = boundaries[row][mask[row]].tolist(), values[row][mask[row]].exp()
        for (start, end), (before, after) in zip(pairwise(bounds), pairwise(probabilities), strict=True):
            torch.testing.assert_close(given[row, start:end], (after - before).expand(end - start))


@pytest.mark.parametrize("name", TASKS)
def test_auto_finds_where_each_starting_policy_answers(name):
    task = TASKS[name]
    policy, tokenizer = load(task)
    torch.manual_seed(0)
    drawn = measure.draw(policy.eval(), tokenizer, task, 0, num_problems=6, num_generations=8, held_out=False)
    search = auto.search_in(drawn, policy, tokenizer)
    assert search.chosen == measure.asked_by("recipe", name)[0]
    found = auto.describe(search)
    assert found["chosen"]["prefix"] == arms.PER_TASK["repro_answer_prefix"][name]
    assert found["chosen"]["auc"] > 0.7 and found["chosen"]["auc"] >= found["paper"]["auc"] - found["paper"]["error"]
    assert found["paper"]["prefix"] == "" and found["runner-up"]["prefix"] != found["chosen"]["prefix"]


def test_auto_without_evidence_has_found_nothing(model, tokenizer):
    torch.manual_seed(0)
    drawn = measure.draw(model, tokenizer, DIGITS, 0, num_problems=1, num_generations=4)
    search = auto.search_in(drawn, model, tokenizer)
    assert search.chosen is None and set(auto.describe(search).values()) == {None}


def test_perfect_rewards_have_perfect_auc(sample):
    values = torch.zeros(sample.batch["completion_ids"].shape)
    for segment in sample.segments:
        values[segment.row, segment.start : segment.end] = float(segment.label in DIGITS.useful)
    assert measure.segment_auc(values, sample) == {"useful": 1.0, "inner": 1.0, "step": 1.0}
    assert measure.segment_auc(-values, sample) == {"useful": 0.0, "inner": 0.0, "step": 0.0}
    assert measure.segment_auc(0 * values, sample) == {"useful": 0.5, "inner": 0.5, "step": 0.5}


def test_gradients_of_thought_and_answer_make_the_whole(model, tokenizer, sample):
    totals = instruments.total_advantages(model, tokenizer, sample, ("recipe",))
    parts = instruments.split_gradients(model, sample, totals)
    assert parts.keys() == {"outcome", "recipe", "labels", "labels shuffled", "answer"}
    whole = instruments.gradients(model, sample, totals)
    for name, vector in whole.items():
        torch.testing.assert_close(parts[name] + parts["answer"], vector, atol=1e-5, rtol=1e-3)
    assert torch.cosine_similarity(whole["outcome"], whole["recipe"], dim=0) < 0.99


def test_what_labels_lead_to_sums_to_the_cosine(model, tokenizer, sample):
    process = instruments.process_advantages(model, tokenizer, sample, ("recipe",))["recipe"][1]
    gradient = instruments.gradients(model, sample, {"process": process})["process"]
    target = torch.randn(len(gradient))
    led = instruments.leads(model, tokenizer, sample, "recipe", target)
    assert led.keys() == DIGITS.labels | {"end of the thought"}
    cosine = torch.cosine_similarity(gradient, target, dim=0).item()
    assert sum(led.values()) == pytest.approx(cosine, abs=1e-4)
    assert led["restart"] == 0 or any(segment.label == "restart" for segment in sample.segments)


def test_evaluation_is_reproducible_and_leaves_no_trace(model, tokenizer):
    torch.manual_seed(5)
    before = torch.get_rng_state()
    found = [measure.evaluate(model, tokenizer, DIGITS, seed=1, num_problems=3, num_generations=4) for _ in range(2)]
    assert found[0] == found[1]
    assert torch.equal(torch.get_rng_state(), before)


@pytest.fixture(scope="module")
def chain_health():
    task = TASKS["chain"]
    model = AutoModelForCausalLM.from_pretrained(task.model_dir).eval()
    tokenizer = AutoTokenizer.from_pretrained(task.model_dir)
    found = health.measure_health(model, tokenizer, "chain", seed=0)
    torch.manual_seed(0)
    return found, measure.draw(model, tokenizer, task, problem_seed=0, num_problems=32, num_generations=8), tokenizer


def test_the_chain_policy_is_in_the_papers_regime(chain_health):
    found, drawn, tokenizer = chain_health
    assert 0.3 < drawn.correct.mean() < 0.6
    assert len(drawn.segments) / len(drawn.texts) >= 12 and found["beyond k"] > 0.6
    assert sum(found["labels"][label] for label in health.NEUTRAL) > 0.4
    closed = [text for text in drawn.texts if "</think>" in text]
    assert len(closed) > 0.85 * len(drawn.texts)
    assert sum("</think>\\boxed{" in text for text in closed) > 0.98 * len(closed)
    # The tokens of the answer are those that are scored.
    ids = drawn.batch["completion_ids"][0][drawn.batch["completion_mask"][0].bool()].tolist()
    text = drawn.texts[0]
    assert tokenizer.decode(ids, skip_special_tokens=True) == text
    answer = tokenizer(text[text.rindex("\\boxed{") :], add_special_tokens=False)["input_ids"]
    assert ids[-1 - len(answer) : -1] == answer


def test_j_in_the_papers_form_knows_right_from_wrong_on_chain(chain_health):
    found, *_ = chain_health
    assert found["objective auc"]["repro"] > 0.8


def test_the_chain_answer_is_settled_piece_by_piece(chain_health):
    found, *_ = chain_health
    by_steps = found["objective by steps"]["recipe"]
    assert len(by_steps) == 6 and by_steps == sorted(by_steps)
    assert by_steps[-1] - by_steps[0] > 1


def test_overthinking_is_about_neutral_on_chain(chain_health):
    found, *_ = chain_health
    assert abs(found["longer gain"]) < 0.15


@pytest.mark.slow
@pytest.mark.parametrize(
    ("algorithm", "arm"),
    [("grpo", "recipe shuffled"), ("reinforce_pp_baseline", "repro"), ("ppo", "repro"), ("grpo", "length")],
)
def test_a_cell_again_gives_the_same(algorithm, arm):
    cell = Cell("digits", algorithm, arm, 3)
    found = [run_cell(cell, steps=1) for _ in range(2 if algorithm == "grpo" else 1)]
    for result in found:
        result.pop("seconds")
        assert len(result["curve"]) == 1 and 0 <= result["evaluations"]["1"]["accuracy"] <= 1
    assert found[0] == found[-1]


@pytest.mark.slow
def test_auto_trains_as_the_recipe_once_it_has_found_its_prefix():
    by_hand, auto_found = (run_cell(Cell("digits", "grpo", arm, 3), steps=2) for arm in ("recipe", "recipe auto"))
    found = auto_found.pop("auto")
    assert found["step"] == 1 and found["chosen"]["prefix"] == "</think>\n\n"
    assert by_hand.keys() == auto_found.keys() and by_hand["curve"] == auto_found["curve"]
    assert by_hand["evaluations"].keys() == auto_found["evaluations"].keys()
    # Of an arm with auto, fewer answer forms are followed.
    for step, values in auto_found["evaluations"].items():
        assert values.items() <= by_hand["evaluations"][step].items()


@pytest.mark.slow
def test_j_in_the_papers_form_shows_the_trouble_within_five_steps():
    curves = {arm: run_cell(Cell("digits", "grpo", arm, 3), steps=5)["curve"] for arm in ("repro", "recipe auto")}
    asked_wrong, asked_right = ([step["objective_auc"] for step in curve] for curve in curves.values())
    assert min(asked_right) > 0.9 and max(asked_wrong[2:]) < 0.85


@pytest.mark.slow
def test_arms_of_a_seed_share_start_and_problems():
    curves = [run_cell(Cell("digits", "grpo", arm, 3), steps=1)["curve"][0] for arm in ("plain", "repro")]
    shared = ("accuracy", "thinking_tokens", "backtracks")
    assert [curves[0][name] for name in shared] == [curves[1][name] for name in shared]
    assert "objective_gain" in curves[1] and "objective_gain" not in curves[0]


@pytest.mark.slow
def test_the_larger_study_runs_and_goes_on(tmp_path, capsys):
    small = ["--num_changes", "6", "--hidden_size", "32", "--num_layers", "1", "--warm_up_steps", "6", "--steps", "1"]
    options = ["--device", "cpu", "--output", str(tmp_path), *small]
    large.main([*options, "--arms", "plain", "--seeds", "0"])
    policy = (tmp_path / "policy" / "model.safetensors").read_bytes()
    large.main([*options, "--arms", "plain", "recipe", "--seeds", "0"])
    assert (tmp_path / "policy" / "model.safetensors").read_bytes() == policy
    found = records.read(tmp_path / "cells.jsonl")
    assert [record["arm"] for record in found] == ["plain", "recipe"]
    assert all(record["device"] == "cpu" and len(record["curve"]) == 1 for record in found)
    assert capsys.readouterr().out.count("chain/grpo/plain/0") == 1


def test_thoughts_of_the_larger_study_are_long():
    rng, task = random.Random(0), large.large_task(Path("policy"), 24)
    tokenizer = AutoTokenizer.from_pretrained(DIGITS.model_dir)
    problems = task.sample_problems(200, 0, held_out=False)
    traces = ["".join(chain.make_trace(problem, rng, large.STYLE)[0]) for problem in problems]
    lengths = [len(ids) for ids in tokenizer(traces)["input_ids"]]
    assert sum(lengths) / len(lengths) > 450 and max(lengths) < task.max_completion_length
    assert sum(chain.make_trace(p, rng, large.STYLE)[1].endswith(f"{{{p.answer}}}") for p in problems) > 70


def test_the_commit_is_recorded_where_there_is_one(tmp_path):
    assert commit_of(tmp_path) == "unknown"
    folder = tmp_path / "study"
    folder.mkdir()
    (folder / "arms.py").write_text("first")
    (tmp_path / "repro_trl").mkdir()
    author = ["-c", "user.name=a", "-c", "user.email=a@example.org"]
    for command in (["init", "-q"], ["add", "."], [*author, "commit", "-q", "-m", "first"]):
        subprocess.run(["git", "-C", str(tmp_path), *command], check=True)
    assert re.fullmatch("[0-9a-f]{7,}", commit_of(folder))
    (folder / "arms.py").write_text("second")
    assert re.fullmatch(r"[0-9a-f]{7,}\+", commit_of(folder))
