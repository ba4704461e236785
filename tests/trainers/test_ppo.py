"""PPO: advantages and targets against GAE read literally; the critic beside the policy, on one process and several."""

import json
import math
from pathlib import Path

import pytest
import torch
from peft import LoraConfig
from ranks import backend_settings, run_ranks
from safetensors.torch import load_file
from tiny_runs import token_reward, trl_settings
from transformers import AutoModelForCausalLM, AutoModelForTokenClassification

from repro_trl import PPOConfig, PPOTrainer, ReproPPOConfig, ReproPPOTrainer
from repro_trl.demo import task


@pytest.fixture(scope="module")
def dataset():
    return task.train_dataset(size=32, seed=3)


def settings(output_dir, **overrides):
    return trl_settings(output_dir, **{"num_generations": 2, "critic_learning_rate": 1e-3, **overrides})


class Recording(ReproPPOTrainer):
    def _compute_advantages(self, rollout):
        advantages = super()._compute_advantages(rollout)
        self.__dict__.setdefault("recorded", []).append((rollout, advantages.clone()))
        return advantages

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        values, self.final_values = self.critic.values, []

        def recording(batch):
            result = values(batch)
            self.final_values.append(result[1])
            return result

        self.critic.values = recording

    def _token_rewards(self, rollout, outcome):
        rewards, mask = super()._token_rewards(rollout, outcome)
        self.__dict__.setdefault("rewards", []).append(rewards)
        return rewards, mask

    def _compute_loss(self, model, inputs):
        names = ("completion_ids", "values", "returns", "value_mask", "advantages")
        self.__dict__.setdefault("loss_inputs", []).append({name: inputs[name].clone() for name in names})
        return super()._compute_loss(model, inputs)


def train(trainer_class, config, policy, dataset, reward=token_reward, resume=None, **kwargs):
    trainer = trainer_class(policy, reward, config, dataset, **kwargs)
    trainer.train(resume_from_checkpoint=resume)
    return trainer


def logged(trainer, *names):
    entries = [entry for entry in trainer.state.log_history if "loss" in entry]
    return [tuple(entry.get(name) for name in names) for entry in entries]


def weights(model):
    return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])


def literal_gae(rewards, values, last_value, gamma, lam):
    """Σ_l (γλ)^l δ_{t+l}, equation 16 of arXiv 1506.02438, one completion."""
    following = [*values[1:], last_value]
    deltas = [r + gamma * after - v for r, v, after in zip(rewards, values, following, strict=True)]
    return [sum((gamma * lam) ** (s - t) * deltas[s] for s in range(t, len(deltas))) for t in range(len(deltas))]


@pytest.mark.parametrize("bootstrap", [False, True])
def test_advantages_and_targets_are_those_of_gae(tmp_path, policy, dataset, bootstrap):
    config = ReproPPOConfig(
        **settings(tmp_path, gamma=0.98, lam=0.9, beta=0.05, bootstrap_truncated=bootstrap, num_generations=1),
        repro_alpha=0.0,
    )
    trainer = train(Recording, config, policy, dataset)
    ends = {*trainer.eos_token_ids, trainer.processing_class.pad_token_id}
    cut = 0
    for (rollout, advantages), rewards, final_values in zip(
        trainer.recorded, trainer.rewards, trainer.final_values, strict=True
    ):
        batch = rollout.batch
        outcome = rollout.rewards_per_func[:, 0]
        rows = []
        for i, length in enumerate(batch["completion_mask"].sum(dim=1).tolist()):
            values = batch["values"][i, :length].tolist()
            truncated = batch["completion_ids"][i, length - 1].item() not in ends
            cut += truncated
            last = final_values[i].item() if bootstrap and truncated else 0.0
            row = literal_gae(rewards[i, :length].tolist(), values, last, config.gamma, config.lam)
            returns = [a + v for a, v in zip(row, values, strict=True)]
            torch.testing.assert_close(batch["returns"][i, :length], torch.tensor(returns), atol=1e-5, rtol=1e-5)
            assert rewards[i, length:].abs().sum() == 0
            penalties = rewards[i, :length].clone()
            penalties[-1] -= outcome[i]
            assert penalties.abs().max() < 0.5, "beyond the last token there is nothing but the KL penalty"
            rows.append(row)
        tokens = torch.tensor([value for row in rows for value in row])
        for i, row in enumerate(rows):
            expected = (torch.tensor(row) - tokens.mean()) / (tokens.var() + 1e-8).sqrt()
            torch.testing.assert_close(advantages[i, : len(row)], expected, atol=1e-4, rtol=1e-4)
            assert not advantages[i, len(row) :].any()
    assert 0 < cut < 16, "the test needs completions of both kinds"


def test_process_advantage_moves_the_policy_only(tmp_path, policy, dataset):
    runs = {}
    for alpha in (0.0, 0.5):
        config = ReproPPOConfig(**settings(tmp_path / str(alpha), max_steps=1), repro_alpha=alpha)
        runs[alpha] = train(Recording, config, policy, dataset)
    (rollout, plain), (same_rollout, repro) = runs[0.0].recorded[0], runs[0.5].recorded[0]
    assert torch.equal(rollout.batch["completion_ids"], same_rollout.batch["completion_ids"])
    assert not torch.equal(plain, repro)
    assert torch.equal(rollout.batch["returns"], same_rollout.batch["returns"])
    assert torch.equal(weights(runs[0.0].critic.model), weights(runs[0.5].critic.model))
    assert not torch.equal(weights(runs[0.0].model), weights(runs[0.5].model))


def test_alpha_zero_is_the_plain_algorithm(tmp_path, policy, dataset):
    plain = train(PPOTrainer, PPOConfig(**settings(tmp_path / "a")), policy, dataset)
    repro = train(ReproPPOTrainer, ReproPPOConfig(**settings(tmp_path / "b"), repro_alpha=0.0), policy, dataset)
    assert logged(repro, "loss", "critic/value_loss") == logged(plain, "loss", "critic/value_loss")
    assert torch.equal(weights(repro.model), weights(plain.model))
    assert torch.equal(weights(repro.critic.model), weights(plain.critic.model))


def test_targets_stay_with_their_completions_through_shuffling_and_epochs(tmp_path, policy, dataset):
    config = ReproPPOConfig(
        **settings(tmp_path, per_device_train_batch_size=4, steps_per_generation=2, num_iterations=2, max_steps=4)
    )
    trainer = train(Recording, config, policy, dataset)
    ((rollout, advantages),) = trainer.recorded
    batch = rollout.batch | {"advantages": advantages}
    place = {tuple(ids.tolist()): i for i, ids in enumerate(batch["completion_ids"])}
    seen = []
    for inputs in trainer.loss_inputs:
        for j, ids in enumerate(inputs["completion_ids"]):
            seen.append(place[tuple(ids.tolist())])
            for name in ("values", "returns", "value_mask", "advantages"):
                assert torch.equal(inputs[name][j], batch[name][seen[-1]])
    assert sorted(seen) == sorted([*range(8)] * 2)


def test_metrics(tmp_path, policy, dataset):
    trainer = train(PPOTrainer, PPOConfig(**settings(tmp_path, beta=0.1)), policy, dataset)
    for entry in logged(
        trainer,
        "critic/value_loss",
        "critic/clip_ratio",
        "critic/grad_norm",
        "critic/learning_rate",
        "critic/explained_variance",
        "critic/value_mean",
        "critic/return_mean",
        "kl",
        "kl_in_reward",
    ):
        assert all(math.isfinite(value) for value in entry)
    evaluation = PPOTrainer(policy, token_reward, PPOConfig(**settings(tmp_path)), dataset, dataset).evaluate()
    assert math.isfinite(evaluation["eval_reward"]) and not any("critic" in name for name in evaluation)


def test_equal_returns_have_no_explained_variance(tmp_path, policy, dataset):
    trainer = train(
        PPOTrainer, PPOConfig(**settings(tmp_path)), policy, dataset, lambda completions, **_: [1.0] * len(completions)
    )
    assert logged(trainer, "critic/explained_variance") == [(None,), (None,)]


def test_policy_waits_for_the_critic(tmp_path, policy, dataset):
    start = weights(AutoModelForCausalLM.from_pretrained(policy, dtype=torch.float32))
    config = PPOConfig(**settings(tmp_path, critic_warmup_steps=2, beta=0.1, kl_in_reward=False))
    trainer = train(PPOTrainer, config, policy, dataset)
    critic_start = weights(PPOTrainer(policy, token_reward, config, dataset).critic.model)
    assert torch.equal(weights(trainer.model), start)
    assert not torch.equal(weights(trainer.critic.model), critic_start)
    trainer = train(PPOTrainer, PPOConfig(**settings(tmp_path, critic_warmup_steps=1)), policy, dataset)
    assert not torch.equal(weights(trainer.model), start)


def test_reward_rises(tmp_path, policy):
    def even_share(completion_ids, **kwargs):
        return [sum(token % 2 == 0 for token in ids) / 24 for ids in completion_ids]

    config = PPOConfig(
        **settings(tmp_path, per_device_train_batch_size=32, num_generations=1, max_steps=24),
        lr_scheduler_type="constant",
        critic_warmup_steps=2,
    )
    config.learning_rate = config.critic_learning_rate = 3e-3
    trainer = train(PPOTrainer, config, policy, task.train_dataset(size=512), even_share)
    rewards = [reward for (reward,) in logged(trainer, "reward")]
    assert sum(rewards[-3:]) / 3 > sum(rewards[:3]) / 3 + 0.1


def test_completions_without_a_reward_teach_nothing(tmp_path, policy, dataset):
    def reward(completion_ids, **kwargs):
        return [None if i % 4 == 0 else float(i) for i, _ in enumerate(completion_ids)]

    config = ReproPPOConfig(**settings(tmp_path, max_steps=1), repro_alpha=0.0)
    trainer = train(Recording, config, policy, dataset, reward)
    rollout, advantages = trainer.recorded[0]
    assert not advantages[::4].any() and advantages[1].any()
    assert not rollout.batch["value_mask"][::4].any()
    assert torch.equal(rollout.batch["value_mask"][1], rollout.policy_mask[1])


def test_checkpoints_hold_the_policy_as_if_it_were_alone(tmp_path, policy, dataset):
    config = PPOConfig(**settings(tmp_path, save_strategy="steps", save_steps=2))
    trainer = train(PPOTrainer, config, policy, dataset)
    trainer.save_model()
    names = set(load_file(Path(policy) / "model.safetensors"))
    for folder in (tmp_path, tmp_path / "checkpoint-2"):
        # vLLM and transformers look at the weight files of the folder itself, and map each name to a parameter.
        assert [file.name for file in folder.glob("*.safetensors")] == ["model.safetensors"]
        assert set(load_file(folder / "model.safetensors")) == names
        loaded, info = AutoModelForCausalLM.from_pretrained(folder, output_loading_info=True)
        assert not info["missing_keys"] and not info["unexpected_keys"]
        assert torch.equal(weights(loaded), weights(trainer.model))
        critic, info = AutoModelForTokenClassification.from_pretrained(folder / "critic", output_loading_info=True)
        assert not info["missing_keys"] and not info["unexpected_keys"]
        assert torch.equal(weights(critic), weights(trainer.critic.model))
    assert not any("critic" in name for name, _ in trainer.model.named_parameters())


LORA = {"target_modules": ["q_proj", "v_proj"], "r": 4}


@pytest.mark.parametrize("adapters", ["none", "policy", "both"])
def test_resume_is_exact(tmp_path, policy, dataset, adapters):
    def run(folder, resume=None):
        kwargs = {} if adapters == "none" else {"peft_config": LoraConfig(**LORA, task_type="CAUSAL_LM")}
        kwargs |= {"critic_peft_config": LoraConfig(**LORA)} if adapters == "both" else {}
        config = ReproPPOConfig(
            **settings(tmp_path / folder, max_steps=4, save_strategy="steps", save_steps=2, beta=0.05),
            repro_alpha=0.1,
        )
        return train(ReproPPOTrainer, config, policy, dataset, resume=resume, **kwargs)

    whole = run("a")
    resumed = run("b", resume=str(tmp_path / "a" / "checkpoint-2"))
    names = ("loss", "reward", "critic/value_loss", "critic/grad_norm", "critic/learning_rate")
    assert logged(resumed, *names) == logged(whole, *names) and len(logged(whole, *names)) == 4
    assert torch.equal(weights(resumed.model), weights(whole.model))
    assert torch.equal(weights(resumed.critic.model), weights(whole.critic.model))


def test_second_training_goes_on_with_the_same_critic(tmp_path, policy, dataset):
    trainer = train(PPOTrainer, PPOConfig(**settings(tmp_path)), policy, dataset)
    optimizer, before = trainer.critic.optimizer, weights(trainer.critic.model)
    trainer.train()
    assert trainer.critic.optimizer is optimizer and not torch.equal(weights(trainer.critic.model), before)
    assert logged(trainer, "critic/learning_rate") == [(1e-3,), (5e-4,)]


def test_checkpoint_without_a_critic_is_named(tmp_path, policy, dataset):
    config = PPOConfig(**settings(tmp_path, save_strategy="steps", save_steps=1))
    train(PPOTrainer, config, policy, dataset)
    (tmp_path / "checkpoint-1" / "critic").rename(tmp_path / "elsewhere")
    with pytest.raises(ValueError, match=r"checkpoint-1.critic"):
        train(PPOTrainer, config, policy, dataset, resume=str(tmp_path / "checkpoint-1"))


@pytest.mark.parametrize(
    "overrides, message",
    [
        ({"lam": -0.1}, "lam=-0.1"),
        ({"critic_learning_rate": 0.0}, "critic_learning_rate=0.0"),
        ({"critic_max_grad_norm": -1.0}, "critic_max_grad_norm=-1.0"),
        ({"critic_warmup_steps": -1}, "critic_warmup_steps=-1"),
        ({"cliprange_value": 0.0}, "cliprange_value=0.0"),
    ],
)
def test_bad_settings_are_named(tmp_path, overrides, message):
    with pytest.raises(ValueError, match=message):
        PPOConfig(**settings(tmp_path, **overrides))


# ------------------------------------------------------------------------------------------------------ several ranks

METRICS = ("loss", "reward", "grad_norm", "critic/value_loss", "critic/grad_norm", "critic/explained_variance", "kl")
WRAPPERS = {"ddp": "DistributedDataParallel", "fsdp2": "FSDPQwen3For"}


def _train_rank(policy, folder, backend, resume, adapters):
    kwargs = {}
    if adapters:
        kwargs["peft_config"] = LoraConfig(**LORA, task_type="CAUSAL_LM")
        kwargs["critic_peft_config"] = LoraConfig(**LORA)
    config = ReproPPOConfig(
        **settings(
            folder,
            per_device_train_batch_size=2,
            gradient_accumulation_steps=2,
            max_steps=4,
            save_strategy="steps",
            save_steps=2,
            beta=0.05,
            **backend_settings(backend),
        ),
        repro_alpha=0.1,
    )
    trainer = train(ReproPPOTrainer, config, policy, task.train_dataset(size=32, seed=3), resume=resume, **kwargs)
    trainer.save_model()
    return {
        "processes": trainer.accelerator.num_processes,
        "type": trainer.accelerator.distributed_type.value,
        "wrappers": [type(model).__name__ for model in (trainer.model_wrapped, trainer.critic.wrapped)],
        "metrics": json.loads(json.dumps(logged(trainer, *METRICS), default=float)),
    }


@pytest.mark.distributed
@pytest.mark.parametrize("backend", ["ddp", "zero1", "zero2", "zero3", "fsdp2"])
def test_several_processes_train_save_and_resume(tmp_path, policy, backend):
    results = run_ranks(_train_rank, tmp_path, policy, tmp_path / "a", backend, None, False, backend=backend)
    for result in results:
        assert result["processes"] == 2
        assert result["type"] == {"ddp": "MULTI_CPU", "fsdp2": "FSDP"}.get(backend, "DEEPSPEED")
        assert all(name.startswith(WRAPPERS.get(backend, "DeepSpeedEngine")) for name in result["wrappers"])
    metrics = torch.tensor(results[0]["metrics"])
    # The losses of all backends are those of DDP.
    reference_folder = tmp_path / "reference"
    reference_folder.mkdir()
    if backend != "ddp":
        reference = run_ranks(_train_rank, reference_folder, policy, reference_folder / "a", "ddp", None, False)
        torch.testing.assert_close(metrics, torch.tensor(reference[0]["metrics"]), atol=2e-4, rtol=2e-3)

    # What is saved: a policy with a policy's names and a critic that moved.
    start = load_file(Path(policy) / "model.safetensors")
    for folder in (tmp_path / "a", tmp_path / "a" / "checkpoint-2"):
        saved = load_file(folder / "model.safetensors")
        assert set(saved) - {"lm_head.weight"} == set(start) - {"lm_head.weight"}
        critic = load_file(folder / "critic" / "model.safetensors")
        head = {"score.weight", "score.bias"}
        assert set(critic) == (set(start) | head) - {"lm_head.weight"}
        for name in set(critic) - head:
            assert critic[name].shape == start[name].shape and not torch.equal(critic[name], start[name])
            assert not torch.equal(saved[name], start[name]) and not torch.equal(saved[name], critic[name])

    resumed = run_ranks(
        _train_rank, tmp_path, policy, tmp_path / "b", backend, tmp_path / "a" / "checkpoint-2", False, backend=backend
    )
    assert resumed[0]["metrics"] == results[0]["metrics"]
    for part in ("", "critic"):
        whole, again = (load_file(tmp_path / run / part / "model.safetensors") for run in ("a", "b"))
        assert all(torch.equal(whole[name], again[name]) for name in whole)


@pytest.mark.distributed
@pytest.mark.parametrize("backend", ["ddp", "zero2", "zero3", "fsdp2"])
def test_several_processes_with_adapters(tmp_path, policy, backend):
    whole = run_ranks(_train_rank, tmp_path, policy, tmp_path / "a", backend, None, True, backend=backend)
    resumed = run_ranks(
        _train_rank, tmp_path, policy, tmp_path / "b", backend, tmp_path / "a" / "checkpoint-2", True, backend=backend
    )
    assert resumed[0]["metrics"] == whole[0]["metrics"]
    names = set(load_file(tmp_path / "a" / "adapter_model.safetensors"))
    assert names and not any("score" in name for name in names)
    critic_names = set(load_file(tmp_path / "a" / "critic" / "adapter" / "adapter_model.safetensors"))
    assert any("score" in name for name in critic_names)
