"""REINFORCE++: what reaches the loss against the paper's formulas read literally, on one process and on several."""

import math
from types import SimpleNamespace

import pytest
import torch
from accelerate import Accelerator
from ranks import run_ranks
from tiny_runs import losses, token_reward
from tiny_runs import trl_settings as settings
from transformers import AutoModelForCausalLM

from repro_trl import (
    ReinforcePlusPlusConfig,
    ReinforcePlusPlusTrainer,
    ReproReinforcePlusPlusConfig,
    ReproReinforcePlusPlusTrainer,
)
from repro_trl.demo import task
from repro_trl.trainers.token_reward import TokenRewardHook


@pytest.fixture(scope="module")
def dataset():
    return task.train_dataset(size=32, seed=3)


class Recording(ReinforcePlusPlusTrainer):
    def _compute_advantages(self, rollout):
        state = {name: tensor.clone() for name, tensor in self.model.state_dict().items()}
        advantages = super()._compute_advantages(rollout)
        self.__dict__.setdefault("recorded", []).append((rollout, advantages.clone(), state))
        return advantages


def train(trainer_class, config, policy, dataset, reward=token_reward):
    trainer = trainer_class(policy, reward, config, dataset)
    trainer.train()
    return trainer


def weights(trainer):
    return torch.cat([parameter.detach().flatten() for parameter in trainer.model.parameters()])


def token_log_probs(model, prompt, completion, temperature):
    with torch.no_grad():
        logits = model(torch.tensor([prompt + completion])).logits[0] / temperature
    log_probs = logits.log_softmax(-1)
    return [log_probs[len(prompt) + t - 1, token].item() for t, token in enumerate(completion)]


def literal_advantages(rollout, policy_model, reference_model, config):
    """Paper, equations for the token reward, the reward-to-go and the global normalisation, one number at a time."""
    batch, outcomes = rollout.batch, rollout.rewards_per_func[:, 0].tolist()
    rows = []
    for i, outcome in enumerate(outcomes):
        prompt = batch["prompt_ids"][i][batch["prompt_mask"][i].bool()].tolist()
        completion = batch["completion_ids"][i][batch["completion_mask"][i].bool()].tolist()
        if config.use_group_baseline:
            group = [o for o, g in zip(outcomes, rollout.groups.tolist(), strict=True) if g == rollout.groups[i]]
            outcome -= sum(group) / len(group)
        rewards = [0.0] * (len(completion) - 1) + [outcome]
        if config.beta and not config.use_group_baseline:
            ours = token_log_probs(policy_model, prompt, completion, config.temperature)
            theirs = token_log_probs(reference_model, prompt, completion, config.temperature)
            rewards = [r - config.beta * (p - q) for r, p, q in zip(rewards, ours, theirs, strict=True)]
        rows.append(
            [sum(config.gamma ** (s - t) * rewards[s] for s in range(t, len(rewards))) for t in range(len(rewards))]
        )
    tokens = [value for row in rows for value in row]
    mean = sum(tokens) / len(tokens)
    variance = sum((value - mean) ** 2 for value in tokens) / (len(tokens) - 1)
    expected = torch.zeros(batch["completion_ids"].shape)
    for i, row in enumerate(rows):
        expected[i, : len(row)] = torch.tensor([(value - mean) / math.sqrt(variance + 1e-8) for value in row])
    return expected


@pytest.mark.parametrize(
    "overrides",
    [
        {"beta": 0.1, "num_generations": 1, "gamma": 0.97},
        {"beta": 0.1, "temperature": 0.7, "num_iterations": 2, "max_steps": 4},
        {"beta": 0.0},
        {"beta": 0.1, "use_group_baseline": True},
    ],
    ids=["one completion per prompt", "two epochs", "no penalty", "baseline"],
)
def test_advantages_are_those_of_the_paper(tmp_path, policy, dataset, overrides):
    config = ReinforcePlusPlusConfig(**settings(tmp_path, **overrides))
    trainer = train(Recording, config, policy, dataset)
    reference = AutoModelForCausalLM.from_pretrained(policy, dtype=torch.float32)
    model = AutoModelForCausalLM.from_pretrained(policy, dtype=torch.float32)
    assert len(trainer.recorded) == 2
    for rollout, advantages, state in trainer.recorded:
        model.load_state_dict(state)
        expected = literal_advantages(rollout, model, reference, config)
        torch.testing.assert_close(advantages, expected, atol=2e-4, rtol=1e-4)
        assert advantages.std() > 0.3


def test_penalty_is_in_the_reward_or_in_the_loss_never_in_both(tmp_path, policy, dataset):
    def keys(**overrides):
        config = ReinforcePlusPlusConfig(**settings(tmp_path, **overrides))
        trainer = train(ReinforcePlusPlusTrainer, config, policy, dataset)
        return trainer, {name for entry in trainer.state.log_history for name in entry}

    # The whitened rewards of one batch have mean 0, so that without a term of its own the loss is 0 in each first
    # step, where the ratio is 1.
    trainer, names = keys(beta=0.5)
    assert {"kl", "kl_in_reward"} <= names and trainer.beta == 0.5
    assert all(abs(loss) < 1e-5 for loss in losses(trainer))
    trainer, names = keys(beta=0.5, use_group_baseline=True)
    assert "kl" in names and "kl_in_reward" not in names
    assert losses(trainer)[1] > 1e-3
    assert not {"kl", "kl_in_reward"} & keys(beta=0.0)[1]


def test_completions_without_a_reward_are_left_out(tmp_path, policy, dataset):
    def reward(completion_ids, **kwargs):
        return [None if i % 4 == 0 else float(i) for i, _ in enumerate(completion_ids)]

    for use_group_baseline in (False, True):
        config = ReinforcePlusPlusConfig(
            **settings(tmp_path, max_steps=1, beta=0.1), use_group_baseline=use_group_baseline
        )
        trainer = train(Recording, config, policy, dataset, reward)
        rollout, advantages, _ = trainer.recorded[0]
        assert not advantages[::4].any()
        kept = advantages[rollout.policy_mask & (torch.arange(8) % 4 != 0)[:, None]]
        assert kept.mean().item() == pytest.approx(0, abs=1e-5) and kept.std().item() == pytest.approx(1, abs=1e-3)


def test_alpha_zero_is_the_plain_algorithm(tmp_path, policy, dataset):
    plain = train(
        ReinforcePlusPlusTrainer, ReinforcePlusPlusConfig(**settings(tmp_path / "a", beta=0.1)), policy, dataset
    )
    config = ReproReinforcePlusPlusConfig(**settings(tmp_path / "b", beta=0.1), repro_alpha=0.0)
    repro = train(ReproReinforcePlusPlusTrainer, config, policy, dataset)
    assert losses(repro) == losses(plain) and torch.equal(weights(repro), weights(plain))
    config = ReproReinforcePlusPlusConfig(**settings(tmp_path / "c", beta=0.1), repro_alpha=0.5)
    repro = train(ReproReinforcePlusPlusTrainer, config, policy, dataset)
    assert not torch.equal(weights(repro), weights(plain))


def test_plain_trl_config_gets_the_defaults_of_repro_and_of_the_algorithm(tmp_path, policy, dataset):
    from trl import GRPOConfig

    trainer = ReproReinforcePlusPlusTrainer(policy, token_reward, GRPOConfig(**settings(tmp_path)), dataset)
    assert trainer.args.repro_alpha == 0.05 and trainer.args.gamma == 1.0 and not trainer.args.use_group_baseline
    assert trainer.args.max_completion_length == 24
    with pytest.raises(ValueError, match="pass ReinforcePlusPlusTrainer a ReinforcePlusPlusConfig"):
        ReinforcePlusPlusTrainer(policy, token_reward, GRPOConfig(**settings(tmp_path)), dataset)


def test_sequence_ratios_take_token_advantages(tmp_path, policy, dataset):
    runs = {}
    for level in ("token", "sequence"):
        config = ReinforcePlusPlusConfig(
            **settings(tmp_path / level, num_iterations=2, max_steps=4, beta=0.1, importance_sampling_level=level)
        )
        runs[level] = train(ReinforcePlusPlusTrainer, config, policy, dataset)
        assert runs[level].importance_sampling_level == level and runs[level].beta == 0.1
    assert losses(runs["sequence"])[0] == pytest.approx(losses(runs["token"])[0], abs=1e-6)
    assert not torch.equal(weights(runs["sequence"]), weights(runs["token"]))


def even_share(completion_ids, **kwargs):
    return [sum(token % 2 == 0 for token in ids) / 24 for ids in completion_ids]


@pytest.mark.parametrize("variant", [{"num_generations": 1}, {"use_group_baseline": True}], ids=["plain", "baseline"])
def test_reward_rises(tmp_path, policy, variant):
    config = ReinforcePlusPlusConfig(
        **settings(tmp_path, per_device_train_batch_size=32, max_steps=16, lr_scheduler_type="constant", **variant)
    )
    config.learning_rate = 3e-3
    trainer = train(ReinforcePlusPlusTrainer, config, policy, task.train_dataset(size=512), even_share)
    rewards = [entry["reward"] for entry in trainer.state.log_history if "reward" in entry]
    assert sum(rewards[-3:]) / 3 > sum(rewards[:3]) / 3 + 0.1


@pytest.mark.parametrize(
    "overrides, message",
    [
        ({"use_group_baseline": True, "num_generations": 1}, "use_group_baseline=True with num_generations=1"),
        ({"num_generations": 0}, "num_generations=0"),
        ({"gamma": 1.5}, "gamma=1.5"),
        ({"num_generations": 3}, "divisible by num_generations"),
    ],
)
def test_bad_settings_are_named(tmp_path, overrides, message):
    with pytest.raises(ValueError, match=message):
        ReinforcePlusPlusConfig(**settings(tmp_path, **overrides))


def test_one_generation_works_with_any_batch_size(tmp_path):
    overrides = {"num_generations": 1, "per_device_train_batch_size": 3, "gradient_accumulation_steps": 5}
    config = ReinforcePlusPlusConfig(
        **settings(tmp_path, **overrides), eval_strategy="epoch", do_eval=True, per_device_eval_batch_size=7
    )
    assert type(config.num_generations) is int and config.num_generations == 1
    assert config.generation_batch_size == 15


# ------------------------------------------------------------------------------------------------------ several ranks


def _whiten_share(values, mask):
    accelerator = Accelerator(cpu=True)
    share = slice(accelerator.process_index, None, accelerator.num_processes)
    whitened = TokenRewardHook._whiten_globally(SimpleNamespace(accelerator=accelerator), values[share], mask[share])
    return accelerator.num_processes, whitened.tolist()


@pytest.mark.distributed
@pytest.mark.parametrize("world_size", [2, 4])
def test_normalisation_does_not_depend_on_the_number_of_processes(tmp_path, world_size):
    generator = torch.Generator().manual_seed(0)
    values, mask = torch.randn(8, 6, generator=generator) * 3 + 50, torch.rand(8, 6, generator=generator) < 0.6
    values[1::4] += 100  # processes that normalised for themselves would agree on nothing
    _, alone = _whiten_share(values, mask)
    results = run_ranks(_whiten_share, tmp_path, values, mask, world_size=world_size)
    assert [count for count, _ in results] == [world_size] * world_size
    for rank, (_, whitened) in enumerate(results):
        torch.testing.assert_close(torch.tensor(whitened), torch.tensor(alone)[rank::world_size], atol=1e-6, rtol=1e-6)


def _group_means(outcome, groups):
    accelerator = Accelerator(cpu=True)
    rows = len(outcome) // accelerator.num_processes
    share = slice(accelerator.process_index * rows, (accelerator.process_index + 1) * rows)
    return ReinforcePlusPlusTrainer._group_means(
        SimpleNamespace(accelerator=accelerator), outcome[share], groups[share]
    ).tolist()


@pytest.mark.distributed
def test_groups_may_span_processes(tmp_path):
    outcome = torch.tensor([1.0, 2.0, 6.0, torch.nan, 4.0, 0.0])
    groups = torch.tensor([0, 0, 0, 1, 1, 1])
    first, second = run_ranks(_group_means, tmp_path, outcome, groups)
    assert first == [3.0, 3.0, 3.0] and second == [2.0, 2.0, 2.0]
    outcome, groups = torch.arange(4.0), torch.tensor([0, 1, 1, 1])
    first, second = run_ranks(_group_means, tmp_path, outcome, groups)
    assert first == [0.0, 2.0] and second == [2.0, 2.0]
