"""A step of GRPO with RePro on a real model."""

import math

import pytest
import torch
from datasets import Dataset
from objective_oracle import full_log_probs

from repro_trl import ReproGRPOConfig, ReproGRPOTrainer
from repro_trl.generation import prompt_ids
from repro_trl.method.completions import encode_answer
from repro_trl.traces import read_traces

pytestmark = pytest.mark.real_model


def test_a_step_of_grpo(folder, model, tokenizer, completions, tmp_path, caplog):
    prompts = [completion.prompt for completion in completions[::4]][:2]
    config = ReproGRPOConfig(
        output_dir=str(tmp_path),
        use_cpu=True,
        bf16=False,
        gradient_checkpointing=False,
        model_init_kwargs={"dtype": "float32"},
        per_device_train_batch_size=4,
        num_generations=2,
        max_completion_length=32,
        max_steps=1,
        learning_rate=1e-5,
        logging_steps=1,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        seed=1,
        repro_think_end=None,
        repro_answer_prefix="The answer is ",
        repro_alpha=0.3,
        repro_trace_steps=1,
    )
    trainer = ReproGRPOTrainer(
        model=str(folder),
        reward_funcs=lambda completions, **_: [float(len(one[-1]["content"]) % 3) for one in completions],
        args=config,
        train_dataset=Dataset.from_list([{"prompt": prompt, "solution": "9"} for prompt in prompts]),
        processing_class=tokenizer,
    )
    start = {name: parameter.detach().clone() for name, parameter in trainer.model.named_parameters()}
    trainer.train()
    (logged,) = [entry for entry in trainer.state.log_history if "loss" in entry]
    assert math.isfinite(logged["loss"]) and logged["grad_norm"] > 0
    assert logged["repro/segments"] > 1 and logged["repro/objective_last"] < 0 < logged["repro/advantage_share"]
    assert trainer._scorer.method == "shared" and "replay" not in caplog.text
    changed = [name for name, parameter in trainer.model.named_parameters() if not torch.equal(parameter, start[name])]
    assert len(changed) > 100
    (file,) = (tmp_path / "traces").iterdir()
    traces = list(read_traces(file))
    assert len(traces) == 4

    # J before the first token is that of the policy before the step.
    expected = []
    for prompt in prompts:
        answer = encode_answer(tokenizer, "\\boxed{9}", "The answer is ")
        ids = torch.tensor(prompt_ids(tokenizer, prompt) + answer.ids)
        log_probs = full_log_probs(model, ids, None, 1.0)[-len(answer.ids) - 1 : -1]
        chosen = log_probs.gather(1, torch.tensor(answer.ids)[:, None])[:, 0]
        expected += [chosen[torch.tensor(answer.scored)].mean().item()] * 2
    assert sorted(trace.objective[0] for trace in traces) == pytest.approx(sorted(expected), abs=1e-3)
