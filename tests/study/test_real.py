"""The study on a real language model, at tiny size with a random one."""

import random
import re

import numpy as np
import pytest
import torch
from tiny_models import tiny_model
from tiny_tokenizers import byte_level_tokenizer
from transformers import AutoModelForCausalLM, AutoTokenizer

from repro_trl.generation import prompt_ids
from repro_trl.method.answer_forms import area_under_curve
from repro_trl.method.completions import encode_answer
from repro_trl.method.objective import answer_log_probs
from repro_trl.verifier import verify_answer
from study import records
from study.real import policy, problems, run, separation, tables, training

SMALL = ["--num_problems", "3", "--num_generations", "2", "--max_new_tokens", "12", "--num_asked", "4"]
SHORT = ["--steps", "1", "--prompts_per_step", "2", "--num_generations", "2", "--max_new_tokens", "8"]


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    """A policy that is warmed up for two steps."""
    path = tmp_path_factory.mktemp("real")
    tokenizer = byte_level_tokenizer()
    tiny_model("llama", vocab_size=len(tokenizer)).save_pretrained(path / "source")
    tokenizer.save_pretrained(path / "source")
    policy.make_policy(path / "source", path / "policy", steps=2)
    assert not (path / "policy.part").exists()
    return path / "policy"


def test_problems_are_different_and_keep_their_side():
    sides = {held_out: problems.sample_problems(200, 3, held_out) for held_out in (True, False)}
    texts = {held_out: {problem.text for problem in side} for held_out, side in sides.items()}
    assert len(texts[True]) == len(texts[False]) == 200 and not texts[True] & texts[False]
    assert problems.sample_problems(200, 3, True) == sides[True] != problems.sample_problems(200, 4, True)
    assert all(int(problem.answer) > 0 for problem in sides[False])


def test_written_out_thoughts_are_right():
    rng = random.Random(0)
    for problem in problems.sample_problems(100, 0, held_out=False):
        text = problems.written_out(problem, rng)
        assert verify_answer(text, problem.answer, None)
        sums = re.findall(r"(\d+ [-+*] \d+) = (\d+)", text)
        assert len(sums) == 2 and all(eval(sum) == int(result) for sum, result in sums), text
        assert sums[-1][1] == problem.answer
        assert text.count("\n\n") == 3


def test_the_warm_up_learns(start):
    tokenizer = AutoTokenizer.from_pretrained(start)
    model = tiny_model("llama", vocab_size=len(tokenizer))
    problem = problems.sample_problems(1, 0, held_out=False)[0]
    row = [*problems.prompt_of(problem), {"role": "assistant", "content": problem.answer}]
    before = policy._loss(model, tokenizer, [row]).item()
    prompt = prompt_ids(tokenizer, row[:1])
    answer = [*tokenizer.encode(problem.answer, add_special_tokens=False), tokenizer.eos_token_id]
    logits = model(torch.tensor([prompt + answer])).logits[0, len(prompt) - 1 : -1]
    assert before == pytest.approx(torch.nn.functional.cross_entropy(logits, torch.tensor(answer)).item(), abs=1e-4)
    policy.warm_up(model, tokenizer, 4)
    assert policy._loss(model, tokenizer, [row]).item() < before


def test_separation_runs_goes_on_and_refuses_another_plan(start, tmp_path, capsys):
    arguments = ["separation", "--policy", str(start), "--results", str(tmp_path / "found.jsonl"), *SMALL]
    run.main(arguments)
    found = records.read(tmp_path / "found.jsonl")
    assert [record["kind"] for record in found] == ["problem"] * 3 + ["auto"]
    assert found[-1]["count"] == 4 and found[-1]["candidates"] == []
    whole = (tmp_path / "found.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "found.jsonl").write_text("".join(whole[:2]) + whole[2][:50])
    run.main(arguments)
    assert (tmp_path / "found.jsonl").read_text() == "".join(whole)
    with pytest.raises(SystemExit):
        run.main([*arguments, "--num_problems", "4"])
    assert "another plan" in capsys.readouterr().err


@pytest.mark.parametrize("device", ["no_such_device", "cuda:99"])
def test_a_device_that_is_not_there_is_named(device, tmp_path, capsys):
    with pytest.raises(SystemExit):
        run.main(["train", "--device", device, "--results", str(tmp_path / "none.jsonl")])
    assert f"--device {device}: " in capsys.readouterr().err


def test_objectives_are_those_of_the_method(start):
    tokenizer, model = AutoTokenizer.from_pretrained(start), AutoModelForCausalLM.from_pretrained(start).eval()
    problem = problems.sample_problems(1, 5, held_out=True)[0]
    texts = ["There are 3.\n\nThat is 12.\n\n\\boxed{12}", "12"]
    completions = [
        {"ids": tokenizer.encode(text), "ended": ended} for text, ended in zip(texts, (True, False), strict=True)
    ]
    forms = list(separation.forms().values())
    first = separation.measure(model, tokenizer, problem, completions, forms, separation.AFTER_TURN)
    assert [completion["segments"] for completion in completions] == [3, 1]
    prompt = torch.tensor([prompt_ids(tokenizer, problems.prompt_of(problem))])

    def replayed(completion, form, place):
        ids = torch.tensor([[*completion["ids"], tokenizer.eos_token_id]])
        answer = encode_answer(tokenizer, form.template.format(answer=problem.answer), form.prefix)
        return answer_log_probs(
            model,
            prompt,
            torch.ones_like(prompt).bool(),
            ids,
            torch.ones_like(ids).bool(),
            torch.tensor([[place]]),
            torch.tensor([[True]]),
            torch.tensor([answer.ids]),
            torch.ones(1, len(answer.ids)).bool(),
            torch.tensor([answer.scored]),
            temperature=separation.TEMPERATURE,
            method="replay",
        ).item()

    for completion, text, shared in zip(completions, texts, (first, first), strict=True):
        length = len(completion["ids"])
        before = len(tokenizer.encode(text.rpartition("\n\n")[0] + "\n\n")) if "\n\n" in text else 0
        for index, form in enumerate(forms):
            assert completion["end"][index] == pytest.approx(replayed(completion, form, length), abs=2e-4)
            assert completion["before"][index] == pytest.approx(replayed(completion, form, before), abs=2e-4)
            assert shared[index] == pytest.approx(replayed(completion, form, 0), abs=2e-4)
        for value, form in zip(completion["turn"], separation.AFTER_TURN, strict=True):
            assert value == pytest.approx(replayed(completion, form, length + completion["ended"]), abs=2e-4)


def test_training_runs_and_goes_on(start, tmp_path, capsys):
    results = tmp_path / "runs.jsonl"
    arguments = ["train", "--policy", str(start), "--results", str(results), "--num_evaluated", "2", *SHORT]
    run.main([*arguments, "--seeds", "0", "--only", "start/0", "recipe/0"])
    run.main([*arguments, "--seeds", "0"])
    found = records.read(results)
    assert [record["arm"] for record in found] == ["start", "recipe", "plain", "repro"]
    assert all(len(record["curve"]) == (record["arm"] != "start") for record in found)
    assert "objective_gain" in found[1]["curve"][0] and "objective_gain" not in found[2]["curve"][0]
    assert all(record["evaluation"]["objective_gain repro"] < 1 for record in found)
    capsys.readouterr()
    run.main([*arguments, "--seeds", "0", "1", "--list"])
    listed = capsys.readouterr().out.splitlines()
    assert [line.split() for line in listed[:2]] == [["done", "start/0"], ["done", "plain/0"]]
    assert listed[-1].split() == ["recipe/1"]
    with pytest.raises(SystemExit):
        run.main([*arguments, "--only", "recipe/7"])
    assert "no such run" in capsys.readouterr().err


def test_arms_of_a_seed_share_problems_and_evaluations():
    assert training.ARMS["plain"] is None and training.ARMS["repro"] == {"repro_answer_prefix": ""}
    forms = separation.forms().values()
    assert separation.AnswerForm(*training.ASKED.values()) in forms


# -------------------------------------------------------------------------------------------------------------- tables


def made_up(right, values, problem):
    """A record of completions with these J at the end, in all forms."""
    count = len(separation.forms())
    completions = [
        {"ids": [1, 2], "ended": True, "right": is_right, "segments": 2}
        | {"before": [-2.0] * count, "end": [value] * count, "turn": [-1.0] * 2}
        for is_right, value in zip(right, values, strict=True)
    ]
    return {"kind": "problem", "problem": problem, "answer": "1", "first": [-3.0] * count, "completions": completions}


def test_intervals_are_of_problems():
    rng = np.random.default_rng(1)
    made = []
    for index in range(60):
        right = rng.random(4) < 0.4
        made.append(made_up(right.tolist(), (rng.normal(size=4) + right).tolist(), str(index)))
    found = tables.Separations(made)
    values = found.objective("end", 0)
    areas = found.auc(values)
    expected, error = area_under_curve(torch.tensor(values), torch.tensor(found.right))
    assert areas[0] == pytest.approx(expected) and len(areas) == 1 + tables.NUM_RESAMPLES
    assert areas[1:].std() == pytest.approx(error, rel=0.25)
    copies = tables.Separations([{**one, "completions": one["completions"] * 3} for one in made])
    assert copies.auc(copies.objective("end", 0))[1:].std() == pytest.approx(areas[1:].std(), rel=0.05)
    gains = found.mean(values, found.right)
    assert gains[0] == pytest.approx(values[found.right].mean())
    assert found.gain(0) == pytest.approx(values + 3) and set(found.objective("turn", 1)) == {-1.0}


@pytest.fixture
def unread(monkeypatch):
    """Tables read their files anew, before and after."""
    for name in ("_problems", "_separations"):
        getattr(tables, name).cache_clear()
    yield monkeypatch
    for name in ("_problems", "_separations"):
        getattr(tables, name).cache_clear()


def test_tables_say_what_has_not_run(unread, tmp_path):
    unread.setattr(tables, "SEPARATION_FILE", tmp_path / "none.jsonl")
    unread.setattr(tables, "TRAINING_FILE", tmp_path / "none.jsonl")
    said = {name: make(None) for name, make in tables.SECTIONS.items()}
    assert all("Not run yet: `" in said.pop(name) for name in ("real completions", "real training"))
    assert set(said.values()) == {""}
    assert "`recipe/1`" in tables.training_line(None)


def test_tables_of_made_up_completions(unread, tmp_path):
    file = tmp_path / "found.jsonl"
    unread.setattr(tables, "SEPARATION_FILE", file)
    common = {"plan": vars(separation.Plan()), "date": "today", "versions": {"torch": "2"}, "machine": "this"}
    for index in range(8):
        records.append(file, made_up([True, False], [-0.5, -1.5], str(index)) | common)
    assert "16 completions of 8 problems; 0.50 are right" in tables.completions_line(None)
    rows = tables.separation_table(None).splitlines()[2:]
    assert len(rows) == len(separation.forms())
    assert rows[0].startswith("| nothing (paper) | whole box | 1.00 [1.00, 1.00] | 0.50 [0.50, 0.50] | +2.50 [")
    assert all("+0.00 [+0.00, +0.00]" in row for row in tables.difference_table(None).splitlines()[2:])
    turns = tables.turn_table(None).splitlines()[2:]
    assert len(turns) == 2 and all("| 1.00 [1.00, 1.00] | 0.50 [" in row for row in turns)
    assert tables.auto_line(None) == ""


def test_tables_of_made_up_runs(unread, tmp_path):
    unread.setattr(tables, "TRAINING_FILE", tmp_path / "runs.jsonl")
    plan = training.Plan()
    for arm, accuracy in (("start", 0.2), ("plain", 0.25), ("recipe", 0.5)):
        step = {"accuracy": accuracy, "thinking_tokens": 60.0} | ({"objective_auc": 0.7} if arm == "recipe" else {})
        evaluation = dict.fromkeys(tables.MEASURES, accuracy) | {"objective_auc repro": None}
        record = {"arm": arm, "seed": 0, "plan": vars(plan), "curve": [step] * plan.steps * (arm != "start")}
        records.append(tmp_path / "runs.jsonl", record | {"evaluation": evaluation})
    assert "`repro/0`" in tables.training_line(None) and "`recipe/0`" not in tables.training_line(None)
    rows = tables.training_table(None).splitlines()
    assert rows[2].startswith("| start | 0.200 (0.200) | 0.2 (0.2) |") and " – |" in rows[2]
    curves = tables.curve_table(None).splitlines()
    assert curves[2] == "| accuracy | GRPO |" + " 0.25 |" * plan.steps
    assert sum(line.startswith("| J, right or wrong") for line in curves) == 1


def test_the_choice_of_auto_is_told(unread, tmp_path):
    unread.setattr(tables, "SEPARATION_FILE", tmp_path / "found.jsonl")
    candidates = [
        {"prefix": prefix, "template": template, "auc": auc, "error": 0.05, "objective": -1.0}
        for prefix, template, auc in (
            ("x ", "{answer}", 0.8),
            ("y", "{answer}", 0.82),
            ("", "\\boxed{{{answer}}}", 0.6),
        )
    ]
    records.append(tmp_path / "found.jsonl", {"kind": "auto", "count": 64, "candidates": candidates})
    line = tables.auto_line(None)
    assert "takes `'x '` before `…` (AUC 0.80 ± 0.05)" in line and "`'y'`" in line and "0.60 ± 0.05" in line
    (tmp_path / "found.jsonl").unlink()
    candidates[0]["auc"] = 0.82
    records.append(tmp_path / "found.jsonl", {"kind": "auto", "count": 64, "candidates": candidates})
    assert "The largest area is 0.82, that of 2 candidates;" in tables.auto_line(None)
