"""The value model: what its numbers mean, what it learns, what is saved."""

import copy
from types import SimpleNamespace

import pytest
import torch
from accelerate import Accelerator
from peft import AutoPeftModelForTokenClassification, LoraConfig
from tiny_models import tiny_model
from tiny_policy import save_tiny_policy
from transformers import AutoModelForTokenClassification
from trl import GRPOConfig

from repro_trl import PPOConfig, PPOTrainer
from repro_trl.demo import task
from repro_trl.trainers.ppo.critic import Critic, value_loss
from repro_trl.trainers.ppo.value_model import load_value_model


@pytest.fixture(scope="module")
def policy_path(tmp_path_factory):
    path = tmp_path_factory.mktemp("policy")
    tiny_model("qwen3").save_pretrained(path)
    return str(path)


def config(tmp_path, **overrides):
    settings = {"use_cpu": True, "bf16": False, "gradient_checkpointing": False, "report_to": "none"}
    settings |= {"per_device_train_batch_size": 4, "num_generations": 1, "critic_learning_rate": 1e-2}
    return PPOConfig(str(tmp_path), **{**settings, **overrides})


def make_critic(policy_path, args, peft_config=None):
    torch.manual_seed(0)
    critic = Critic(load_value_model(policy_path, args, peft_config), args, Accelerator(cpu=True))
    critic.prepare(max_steps=100, decay_parameters=[])
    return critic


def ragged_batch(rows=6, prompt=7, length=9):
    generator = torch.Generator().manual_seed(1)
    prompt_lengths = torch.randint(1, prompt + 1, (rows,), generator=generator)
    lengths = torch.randint(1, length + 1, (rows,), generator=generator)
    lengths[0] = length
    return {
        "prompt_ids": torch.randint(2, 61, (rows, prompt), generator=generator),
        "prompt_mask": (torch.arange(prompt) >= prompt - prompt_lengths[:, None]).long(),
        "completion_ids": torch.randint(2, 61, (rows, length), generator=generator),
        "completion_mask": (torch.arange(length) < lengths[:, None]).long(),
    }


def with_targets(batch):
    mask = batch["completion_mask"].bool()
    targets = torch.randn(mask.shape, generator=torch.Generator().manual_seed(2))
    return batch | {"values": torch.zeros(mask.shape), "returns": targets, "value_mask": mask}


def weights(model):
    return torch.cat([weight.detach().flatten() for weight in model.parameters()])


def test_value_of_a_token_is_the_models_output_on_what_stands_before_it(policy_path, tmp_path):
    critic = make_critic(policy_path, config(tmp_path))
    batch = ragged_batch()
    values, final_values = critic.values(batch)
    assert values.shape == batch["completion_ids"].shape
    for row in range(len(values)):
        prompt = batch["prompt_ids"][row][batch["prompt_mask"][row].bool()].tolist()
        completion = batch["completion_ids"][row][batch["completion_mask"][row].bool()].tolist()
        for t in range(len(completion) + 1):
            with torch.no_grad():
                alone = critic.model(torch.tensor([prompt + completion[:t]])).logits[0, -1, 0]
            batched = final_values[row] if t == len(completion) else values[row, t]
            torch.testing.assert_close(batched, alone, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("cliprange", [0.3, None])
def test_value_loss_is_that_of_one_token_at_a_time(cliprange):
    values, old_values, returns = torch.randn(3, 20, 5, generator=torch.Generator().manual_seed(0))
    mask = torch.rand(20, 5, generator=torch.Generator().manual_seed(1)) < 0.7
    loss, clipped = value_loss(values, old_values, returns, mask, cliprange)
    for i in range(20):
        for t in range(5):
            v, old, g = values[i, t].item(), old_values[i, t].item(), returns[i, t].item()
            near = v if cliprange is None else min(max(v, old - cliprange), old + cliprange)
            expected = 0.5 * max((v - g) ** 2, (near - g) ** 2) if mask[i, t] else 0.0
            assert loss[i, t].item() == pytest.approx(expected, abs=1e-6)
            assert clipped[i, t].item() == (bool(mask[i, t]) and (near - g) ** 2 > (v - g) ** 2)
    assert clipped.any() == (cliprange is not None)


def test_micro_batches_accumulate_to_the_step_of_the_whole_batch(policy_path, tmp_path):
    args = config(tmp_path, critic_max_grad_norm=1e9)
    batch = with_targets(ragged_batch(rows=6))
    num_tokens = batch["completion_mask"].sum()
    whole, split = make_critic(policy_path, args), make_critic(policy_path, args)
    before = weights(whole.model)
    all_metrics = whole.learn(batch, num_tokens)
    for first, last in ((0, 2), (2, 5), (5, 6)):
        split.accelerator.gradient_state._set_sync_gradients(last == 6)
        metrics = split.learn({name: tensor[first:last] for name, tensor in batch.items()}, num_tokens)
        assert ("critic/grad_norm" in metrics) == (last == 6)
    assert metrics["critic/grad_norm"] == pytest.approx(all_metrics["critic/grad_norm"], rel=1e-4)
    torch.testing.assert_close(weights(split.model), weights(whole.model), atol=1e-4, rtol=0)
    assert not torch.equal(before, weights(whole.model))


def test_gradients_are_clipped_and_the_norm_before_is_logged(policy_path, tmp_path):
    batch = with_targets(ragged_batch())
    num_tokens = batch["completion_mask"].sum()
    moved = []
    for limit in (1e9, 0.05):
        # SGD, since Adam does not see the size of the gradient.
        critic = make_critic(policy_path, config(tmp_path, critic_max_grad_norm=limit, optim="sgd"))
        before = weights(critic.model)
        norm = critic.learn(batch, num_tokens)["critic/grad_norm"]
        moved.append((weights(critic.model) - before).norm().item())
        assert moved[-1] == pytest.approx(1e-2 * min(norm, limit), rel=1e-3)
    assert moved[1] < 0.1 * moved[0]


def test_schedule_is_that_of_the_policy(policy_path, tmp_path):
    critic = make_critic(policy_path, config(tmp_path, lr_scheduler_type="linear", critic_learning_rate=0.5))
    batch = with_targets(ragged_batch())
    rates = [critic.learn(batch, torch.tensor(10.0))["critic/learning_rate"] for _ in range(3)]
    assert rates == pytest.approx([0.5, 0.495, 0.49])


def test_saved_critic_is_a_token_classifier(policy_path, tmp_path):
    critic = make_critic(policy_path, config(tmp_path))
    critic.learn(with_targets(ragged_batch()), torch.tensor(30.0))
    critic.save_pretrained(str(tmp_path / "critic"))
    loaded, info = AutoModelForTokenClassification.from_pretrained(tmp_path / "critic", output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"]
    assert torch.equal(weights(loaded), weights(critic.model))
    again = load_value_model(policy_path, config(tmp_path, value_model_name_or_path=str(tmp_path / "critic")))
    assert torch.equal(weights(again), weights(critic.model))


def test_state_continues_exactly(policy_path, tmp_path):
    args = config(tmp_path, lr_scheduler_type="linear")
    batch = with_targets(ragged_batch())
    critic = make_critic(policy_path, args)
    critic.learn(batch, torch.tensor(30.0))
    critic.save_state(str(tmp_path))
    resumed = make_critic(policy_path, args)
    resumed.model.load_state_dict(copy.deepcopy(critic.model.state_dict()))
    resumed.load_state(str(tmp_path))
    for _ in range(2):
        assert critic.learn(batch, torch.tensor(30.0)) == resumed.learn(batch, torch.tensor(30.0))
    assert torch.equal(weights(critic.model), weights(resumed.model))
    with pytest.raises(ValueError, match="save_only_model"):
        resumed.load_state(str(tmp_path / "nowhere"))


def test_adapter_and_head_are_all_that_a_lora_critic_trains(policy_path, tmp_path):
    lora = LoraConfig(target_modules=["q_proj", "v_proj"], r=4, init_lora_weights=False)
    critic = make_critic(policy_path, config(tmp_path), lora)
    before = {name: weight.clone() for name, weight in critic.model.named_parameters()}
    critic.learn(with_targets(ragged_batch()), torch.tensor(30.0))
    moved = {name for name, weight in critic.model.named_parameters() if not torch.equal(weight, before[name])}
    assert moved and all("lora_" in name or "modules_to_save" in name for name in moved)
    assert any("score.modules_to_save" in name for name in moved)
    critic.save_pretrained(str(tmp_path / "critic"))
    loaded = AutoPeftModelForTokenClassification.from_pretrained(tmp_path / "critic" / "adapter", num_labels=1)
    inputs = torch.tensor([[5, 6, 7]])
    critic.model.eval()
    torch.testing.assert_close(loaded(inputs).logits, critic.model(inputs).logits)
    assert lora.task_type is None, "the caller's config was changed"


def test_policy_without_a_path_is_named(tmp_path):
    with pytest.raises(ValueError, match="value_model_name_or_path=None"):
        load_value_model("", config(tmp_path))


def test_quantisation_and_revision_stay_with_the_policy(policy_path, tmp_path):
    args = config(
        tmp_path,
        value_model_name_or_path=policy_path,
        model_init_kwargs={"quantization_config": object(), "revision": "none such", "dtype": "bfloat16"},
    )
    assert load_value_model("elsewhere", args).dtype == torch.bfloat16


def test_values_under_dropout_do_not_change(tmp_path):
    path = tmp_path / "policy"
    tiny_model("gpt2", resid_pdrop=0.5, embd_pdrop=0.5).save_pretrained(path)
    model = load_value_model(str(path), config(tmp_path)).train()
    inputs = torch.tensor([[5, 6, 7]])
    assert torch.equal(model(inputs).logits, model(inputs).logits)


def count_reward(prompts, completions, **kwargs):
    """Told by the prompt alone, so the critic can know it from the first token on."""
    return [prompt[-1]["content"].count(";") / 4 for prompt in prompts]


def test_explained_variance_rises_where_the_prompt_decides_the_return(tmp_path):
    policy = save_tiny_policy(tmp_path / "policy", initializer_range=0.05)
    args = config(
        tmp_path,
        per_device_train_batch_size=32,
        max_completion_length=8,
        max_steps=40,
        learning_rate=1e-6,
        lr_scheduler_type="constant",
        critic_learning_rate=3e-3,
        logging_steps=1,
        save_strategy="no",
        disable_tqdm=True,
    )
    trainer = PPOTrainer(policy, count_reward, args, task.train_dataset(size=512))
    trainer.train()
    explained = [entry["critic/explained_variance"] for entry in trainer.state.log_history if "loss" in entry]
    assert explained[0] < 0.2
    assert sum(explained[-5:]) / 5 > 0.5


def test_plain_config_is_refused(tmp_path):
    args = GRPOConfig(str(tmp_path), use_cpu=True, bf16=False)
    with pytest.raises(ValueError, match="pass PPOTrainer a PPOConfig"):
        PPOTrainer(SimpleNamespace(), count_reward, args, None)
