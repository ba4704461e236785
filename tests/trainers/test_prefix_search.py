"""`repro_answer_prefix="auto"`: the form that a policy answers in is found from outcomes, once, and kept."""

import logging
from types import SimpleNamespace

import pytest
import torch
from accelerate import Accelerator
from closing_policies import CLOSINGS, OTHER_MARKER, save_closing_policy
from counted_forwards import CountsForwards
from pocket.traces import accuracy_reward
from ranks import backend_settings, run_ranks
from tiny_policy import save_tiny_policy
from tiny_runs import settings
from transformers import AutoModelForCausalLM, AutoTokenizer

from repro_trl import ReproGRPOConfig, ReproGRPOTrainer
from repro_trl.config import ReproConfigMixin
from repro_trl.demo import MODEL_DIR, task
from repro_trl.method.answer_forms import AnswerForm
from repro_trl.trainers.health import ObjectiveHealth
from repro_trl.trainers.policy_scorer import PolicyScorer
from repro_trl.trainers.prefix_search import PrefixSearch

SAMPLED = {
    "generation_kwargs": None,
    "num_generations": 4,
    "max_completion_length": 128,
    "per_device_train_batch_size": 16,
    "max_steps": 1,
}


def train(path, folder, trainer_class=ReproGRPOTrainer, train=True, **overrides):
    config = ReproGRPOConfig(
        **settings(folder, **{**SAMPLED, "repro_answer_prefix": "auto", "learning_rate": 1e-9, **overrides})
    )
    trainer = trainer_class(str(path), accuracy_reward, config, task.train_dataset(size=32, seed=3))
    if train:
        trainer.train()
    return trainer


def test_the_bundled_models_closing_is_found_in_the_first_batch(tmp_path, caplog):
    trainer = train(MODEL_DIR, tmp_path, gradient_accumulation_steps=2)
    assert trainer._scorer.reader.form.prefix.startswith("</think>\n\n")
    assert caplog.text.count("repro_answer_prefix='auto': using the answer form") == 1
    assert "the paper's form" in caplog.text
    (entry,) = [entry for entry in trainer.state.log_history if "repro/objective_auc" in entry]
    assert entry["repro/objective_auc"] > 0.9


@pytest.mark.slow
@pytest.mark.parametrize("name", CLOSINGS)
def test_closings_of_every_kind(name, tmp_path):
    closing = CLOSINGS[name]
    marker = OTHER_MARKER if OTHER_MARKER in closing else "</think>"
    path = save_closing_policy(closing, tmp_path / "policy")
    trainer = train(path, tmp_path, gradient_accumulation_steps=2, max_steps=4, repro_think_end=marker)
    assert trainer._prefix_search.chosen is not None, "four batches had too few right or too few wrong completions"
    form = trainer._scorer.reader.form
    # With or without the opening of the template, it is what the policy writes.
    assert (form.prefix + form.template.format(answer="\0").split("\0")[0]) == closing


def scorer_of(path, prefix="auto"):
    class Settings(ReproConfigMixin):
        repro_answer_prefix = prefix

    model = AutoModelForCausalLM.from_pretrained(path).eval()
    return PolicyScorer(model, AutoTokenizer.from_pretrained(path), Settings.__new__(Settings), Accelerator(cpu=True))


def rollouts(tokenizer, texts):
    tokenizer.padding_side = "right"
    completions = tokenizer(texts, add_special_tokens=False, return_tensors="pt", padding=True)
    prompt = "<|im_start|>user\nFind the digits. A: 3+4 ; B: 9-4<|im_end|>\n<|im_start|>assistant\n<think>\n"
    prompts = tokenizer([prompt] * len(texts), add_special_tokens=False, return_tensors="pt")
    return {
        "prompt_ids": prompts["input_ids"],
        "prompt_mask": prompts["attention_mask"],
        "completion_ids": completions["input_ids"],
        "completion_mask": completions["attention_mask"],
    }


RIGHT = "A: 3+4 = 7\n\nB: 9-4 = 5\n\n</think>\n\n\\boxed{75}"
WRONG = "A: 3+4 = 7\n\nB: 9-4 = 6\n\n</think>\n\n\\boxed{76}"


def observe(search, texts):
    batch = rollouts(search._scorer.reader.tokenizer, texts)
    verdicts = [text == RIGHT for text in texts]
    search.observe(batch, ["75"] * len(texts), batch["completion_mask"].bool(), texts, verdicts, 4)


def test_scorer_and_search_need_no_trainer_and_wait_for_both_kinds():
    scorer = scorer_of(MODEL_DIR)
    search = PrefixSearch(scorer)
    observe(search, [RIGHT] * 8)
    assert search.chosen is None and scorer.reader.form.prefix == ""
    observe(search, [WRONG] * 6)
    assert search.chosen is None
    observe(search, [WRONG] * 2)
    assert search.chosen is not None and scorer.reader.form == search.chosen
    assert search.chosen.prefix.startswith("</think>\n\n")


def test_no_more_is_asked_than_needed():
    search = PrefixSearch(scorer_of(MODEL_DIR))
    forwards = []
    search._scorer.model.register_forward_pre_hook(lambda *_: forwards.append(1))
    observe(search, [WRONG] * 8)
    asked = len(forwards)
    assert asked > 0
    for _ in range(3):  # a policy that is always wrong
        observe(search, [WRONG] * 8)
    assert len(forwards) == asked and search._evidence.count == 8
    observe(search, [WRONG] * 7 + [RIGHT])
    assert len(forwards) > asked and search._evidence.count == 16


def test_a_search_goes_on_where_it_stopped():
    whole, first = PrefixSearch(scorer_of(MODEL_DIR)), PrefixSearch(scorer_of(MODEL_DIR))
    for search in (whole, first):
        observe(search, [RIGHT] * 8)
    resumed = PrefixSearch(scorer_of(MODEL_DIR))
    resumed.restore(first.state())
    for search in (whole, resumed):
        observe(search, [WRONG] * 8)
    assert whole.chosen == resumed.chosen is not None
    again = PrefixSearch(scorer_of(MODEL_DIR))
    again.restore(resumed.state())
    assert again.chosen == whole.chosen and again._scorer.reader.form == whole.chosen


def test_a_process_without_rows_keeps_step():
    scorer = scorer_of(MODEL_DIR)
    batch = rollouts(scorer.reader.tokenizer, [RIGHT, WRONG])
    calls = []
    scorer.model.register_forward_pre_hook(lambda *_: calls.append(1))
    forms = [AnswerForm("", r"\boxed{{{answer}}}"), AnswerForm("</think>", r"\boxed{{{answer}}}")]
    found = scorer.ask_forms(batch, [], [None, "75"], forms, batch_size=4, num_micro_batches=2)
    assert found.shape == (2, 2, 2) and found.isnan().all()
    assert len(calls) == 4  # the prefix and the branches of each micro-batch


def test_rows_without_an_answer_take_no_part():
    search = PrefixSearch(scorer_of(MODEL_DIR))
    batch = rollouts(search._scorer.reader.tokenizer, [RIGHT, WRONG])
    search.observe(batch, [None, None], batch["completion_mask"].bool(), [RIGHT, WRONG], [None, None], 4)
    assert search.chosen is None and search._evidence.count == 0


def scored(values):
    objective = torch.tensor([[-9.0, value] for value in values]).view(-1, 2)
    mask = torch.ones_like(objective, dtype=torch.bool)
    return SimpleNamespace(objective=objective, boundary_mask=mask, scored=mask.any(dim=1))


def test_health_over_a_window(caplog):
    health = ObjectiveHealth(scorer_of(MODEL_DIR, prefix=""))
    assert health.update(scored([-1.0, -2.0]), [True, True]) != health.update(scored([]), [])  # NaN
    assert health.update(scored([-3.0, -0.5]), [False, None]) == 1.0
    assert health.update(scored([-1.5]), [False]) == 0.75
    assert "hardly separates" not in caplog.text


@pytest.mark.parametrize(
    ("prefix", "advice"), [("", "Set repro_answer_prefix='auto'"), ("auto", "to repro_prefix_candidates")]
)
def test_noise_is_said_once(caplog, prefix, advice):
    health = ObjectiveHealth(scorer_of(MODEL_DIR, prefix=prefix))
    generator = torch.Generator().manual_seed(0)
    with caplog.at_level(logging.WARNING, logger="repro_trl.trainers.health"):
        for _ in range(4):
            auc = health.update(scored(torch.randn(32, generator=generator).tolist()), [True, False] * 16)
    assert 0.35 < auc < 0.65
    assert caplog.text.count("J hardly separates correct completions from wrong ones") == 1
    assert advice in caplog.text
    other = ObjectiveHealth(scorer_of(MODEL_DIR, prefix=""))
    other.restore(health.state())
    assert other.update(scored([]), []) == auc


def test_auto_without_any_signal_keeps_training(tmp_path, caplog):
    path = save_tiny_policy(tmp_path / "policy")
    trainer = train(path, tmp_path, max_completion_length=16, max_steps=2)
    assert trainer._prefix_search.chosen is None and trainer._scorer.reader.form.prefix == ""
    assert caplog.text.count("repro_answer_prefix='auto' waits for 8 correct and 8 wrong completions") == 1


class CountingTrainer(CountsForwards, ReproGRPOTrainer):
    pass


def test_the_trainers_own_pass_is_used_while_the_search_waits(tmp_path):
    path = save_tiny_policy(tmp_path / "policy")
    trainer = train(path, tmp_path, CountingTrainer, max_completion_length=16, max_steps=4, num_iterations=2)
    assert trainer._prefix_search.chosen is None
    assert trainer.scored == len(trainer.scores) == 2
    searched, other = trainer.forwards_per_batch
    assert other < searched  # all are wrong: more of these are not asked


def test_the_batch_in_which_the_form_is_found_is_asked_in_that_form(tmp_path):
    shared = {"num_iterations": 2, "max_steps": 4, "gradient_accumulation_steps": 2}
    found = train(MODEL_DIR, tmp_path / "auto", CountingTrainer, **shared)
    prefix = found._scorer.reader.form.prefix
    given = train(MODEL_DIR, tmp_path / "given", CountingTrainer, repro_answer_prefix=prefix, **shared)
    assert (found.scored, given.scored) == (1, 2)  # the first batch was read again, apart from the trainer's own pass
    for one, other in zip(found.scores, given.scores, strict=True):
        torch.testing.assert_close(one.objectives.objective, other.objectives.objective, rtol=1e-4, atol=1e-4)


def _search_on_ranks(folder, backend, world_size, steps, resume):
    trainer = train(
        MODEL_DIR,
        folder,
        train=False,
        per_device_train_batch_size=32 // world_size,
        max_steps=steps,
        save_strategy="steps",
        save_steps=1,
        **backend_settings(backend),
    )
    trainer.train(resume_from_checkpoint=resume)
    form = trainer._scorer.reader.form
    aucs = [entry["repro/objective_auc"] for entry in trainer.state.log_history if "repro/objective_auc" in entry]
    state = trainer._kept_state()
    return trainer.accelerator.num_processes, form.prefix, form.template, aucs, state


@pytest.mark.distributed
@pytest.mark.parametrize(("backend", "world_size"), [("ddp", 1), ("ddp", 2), ("ddp", 4), ("zero3", 2)])
def test_the_same_form_on_any_number_of_processes(tmp_path, backend, world_size):
    arguments = (tmp_path / "run", backend, world_size, 2, None)
    results = run_ranks(_search_on_ranks, tmp_path, *arguments, world_size=world_size, backend=backend)
    for processes, prefix, template, aucs, state in results:
        assert processes == world_size
        assert prefix.startswith("</think>\n\n")
        assert (prefix, template, aucs, state) == results[0][1:]
        assert len(aucs) == 2 and min(aucs) > 0.9


@pytest.mark.distributed
def test_a_resumed_run_keeps_the_form(tmp_path):
    whole = run_ranks(_search_on_ranks, tmp_path, tmp_path / "whole", "ddp", 2, 2, None)
    run_ranks(_search_on_ranks, tmp_path, tmp_path / "cut", "ddp", 2, 1, None)
    checkpoint = str(tmp_path / "cut" / "checkpoint-1")
    resumed = run_ranks(_search_on_ranks, tmp_path, tmp_path / "cut", "ddp", 2, 2, checkpoint)
    for one, other in zip(whole, resumed, strict=True):
        assert one[1:] == other[1:]
