"""
What `repro_trl` relies on in TRL's `GRPOTrainer` and TRL does not promise: private methods, output keys, call order.

When one of these tests fails on a new version of TRL, its message says what changed and which code depends on it.
"""

import ast
import inspect
import re
from functools import partial
from pathlib import Path

import pytest
import torch
import trl
from tiny_policy import save_tiny_policy
from tiny_runs import settings, token_reward
from transformers import DynamicCache
from trl import GRPOConfig, GRPOTrainer

import repro_trl
from repro_trl.demo import task
from repro_trl.method.branch_attention import cache_argument
from repro_trl.trainers.hook import PRIVATE_MEMBERS

PARAMETERS = {
    # method of GRPOTrainer: the parameters that are passed or taken by name or place
    "_generate_and_score_completions": ["self", "inputs"],
    "_calculate_rewards": ["self", "inputs", "prompts", "completions", "completion_ids_list"],
    "_compute_loss": ["self", "model", "inputs"],
    "_get_per_token_logps_and_entropies": [
        *("self", "model", "input_ids", "attention_mask", "logits_to_keep", "batch_size", "compute_entropy")
    ],
    "_set_signature_columns_if_needed": ["self"],
    "training_step": ["self", "model", "inputs", "num_items_in_batch"],
    # of transformers' Trainer
    "_get_train_sampler": ["self", "dataset"],
    "_save_rng_state": ["self", "output_dir"],
    "_load_from_checkpoint": ["self", "resume_from_checkpoint", "model"],
    "_load_optimizer_and_scheduler": ["self", "checkpoint"],
    "_prepare_for_training": ["self", "max_steps", "train_dataloader", "resume_from_checkpoint"],
    "_save_optimizer_and_scheduler": ["self", "output_dir"],
}
TRAINERS = Path(repro_trl.__file__).parent / "trainers"


@pytest.fixture(scope="module")
def policy(tmp_path_factory):
    return save_tiny_policy(tmp_path_factory.mktemp("policy"))


def plain(**overrides):
    return {name: value for name, value in settings(**overrides).items() if not name.startswith("repro_")}


def changed(what: str, user: str) -> str:
    return f"TRL {trl.__version__}: {what}. {user}; adapt it, or pin TRL below this version in pyproject.toml."


@pytest.mark.parametrize("method", PARAMETERS)
def test_methods_are_there_and_take_what_they_took(method):
    user = PRIVATE_MEMBERS.get(method, "ppo/trainer.py overrides it")
    assert hasattr(GRPOTrainer, method), changed(f"GRPOTrainer.{method} is gone", user)
    parameters = list(inspect.signature(getattr(GRPOTrainer, method)).parameters.values())
    names, taken = PARAMETERS[method], [parameter.name for parameter in parameters]
    if any(parameter.kind == parameter.VAR_POSITIONAL for parameter in parameters):  # a decorator that passes all on
        names = names[: taken.index("args")]
    assert taken[: len(names)] == names, changed(f"GRPOTrainer.{method} now takes {taken}", user)


def test_every_private_member_is_listed(generated):
    """What files of trainers/ read of `self` or `trainer` and TRL or transformers define, is in the table."""
    host = {name for name in {*dir(GRPOTrainer), *vars(generated)} if name.startswith("_") and name[1] != "_"}
    used: dict[str, set[str]] = {}
    for file in TRAINERS.rglob("*.py"):
        if file.name == "critic.py":  # no trainer: what it calls `_step` is its own
            continue
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Attribute) and node.attr in host:
                used.setdefault(node.attr, set()).add(str(file.relative_to(TRAINERS)))
            elif isinstance(node, ast.FunctionDef) and node.name in host:
                used.setdefault(node.name, set()).add(str(file.relative_to(TRAINERS)))
    described = {"_name", "_tag_names", "_paper"}  # of TRL's model card, set and documented for subclasses
    assert used.keys() - described == PRIVATE_MEMBERS.keys()
    for name, files in used.items():
        if name not in described:
            named = set(re.findall(r"[\w/]+\.py", PRIVATE_MEMBERS[name]))
            assert named == files, f"{name} is used in {sorted(files)}, and hook.py names {sorted(named)}"


class Spy(GRPOTrainer):
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.events, self.models = [], []

    def _generate_and_score_completions(self, inputs):
        self.batch = super()._generate_and_score_completions(inputs)
        self.rows = inputs
        return self.batch

    def _calculate_rewards(self, *args, **kwargs):
        self.rewards = super()._calculate_rewards(*args, **kwargs)
        return self.rewards

    def _get_per_token_logps_and_entropies(self, *args, **kwargs):
        result = super()._get_per_token_logps_and_entropies(*args, **kwargs)
        self.events.append("log-probabilities")
        self.models.append(args[0])
        self.logps = result[0]
        return result


@pytest.fixture(scope="module")
def generated(policy, tmp_path_factory):
    config = GRPOConfig(**plain(output_dir=tmp_path_factory.mktemp("run"), num_iterations=2, max_steps=1, beta=0.1))
    trainer = Spy(policy, token_reward, config, task.train_dataset(size=8, seed=3))
    trainer.train()
    return trainer


KEYS = {
    "prompt_ids": (8, None),
    "prompt_mask": (8, None),
    "completion_ids": (8, None),
    "completion_mask": (8, None),
    "advantages": (8,),
    "old_per_token_logps": (8, None),
    "ref_per_token_logps": (8, None),
}


@pytest.mark.parametrize("key", KEYS)
def test_generation_batch_has_its_keys(generated, key):
    user = "Rollout and everything that reads rollout.batch expects it (trainers/hook.py)"
    assert key in generated.batch, changed(
        f"the generation batch has no {key!r}, only {sorted(generated.batch)}", user
    )
    shape = tuple(generated.batch[key].shape)
    agrees = len(shape) == len(KEYS[key]) and all(b in (a, None) for a, b in zip(shape, KEYS[key], strict=True))
    assert agrees, changed(f"{key!r} has shape {shape} instead of {KEYS[key]}", user)


def test_prompts_are_padded_on_the_left_and_completions_on_the_right(generated):
    for key, step in (("prompt_mask", 1), ("completion_mask", -1)):
        mask = generated.batch[key].bool()
        ordered = (mask.int().diff(dim=1) * step >= 0).all()
        assert ordered, changed(f"{key!r} is padded on the other side", "repro_trl/method/objective.py reads it so")


def test_rewards_are_gathered_in_the_order_of_the_rows(generated):
    user = "AdvantageHook takes its rows out of them (trainers/hook.py)"
    assert generated.rewards.shape == (8, 1), changed(f"rewards have shape {tuple(generated.rewards.shape)}", user)
    ids = [row[mask].tolist() for row, mask in zip(*_ids_and_masks(generated), strict=True)]
    assert generated.rewards[:, 0].tolist() == token_reward(ids), changed("the order of rewards differs", user)
    expected = generated.rewards[:, 0].view(2, 4)
    advantages = (expected - expected.mean(1, keepdim=True)) / (expected.std(1, keepdim=True) + 1e-4)
    torch.testing.assert_close(generated.batch["advantages"], advantages.flatten(), atol=1e-4, rtol=0)


def _ids_and_masks(trainer):
    return trainer.batch["completion_ids"], trainer.batch["completion_mask"].bool()


ATTRIBUTES = {
    "num_generations": "AdvantageHook tells prompt groups by it (trainers/hook.py)",
    "num_generations_eval": "AdvantageHook tells prompt groups by it (trainers/hook.py)",
    "importance_sampling_level": "AdvantageHook switches it for GSPO-token (trainers/hook.py)",
    "temperature": "ReproMixin scores answers at it (trainers/repro.py)",
    "_step": "ExactResume restores it from a checkpoint (trainers/resume.py)",
    "_buffered_inputs": "ExactResume keeps them in a checkpoint (trainers/resume.py)",
    "_tokenizer": "ReproMixin finds boundaries with it (trainers/repro.py)",
    "environment_factories": "ReproMixin lets rows without a prompt pass by it (trainers/repro.py)",
    "reward_weights": "TokenRewardHook sums rewards by them (trainers/token_reward.py)",
    "beta": "TokenRewardHook switches it (trainers/token_reward.py)",
    "eos_token_ids": "PPOTrainer tells truncated completions by them (trainers/ppo/trainer.py)",
    "tools": "SharedPass keeps its pass apart with them (trainers/shared_pass.py)",
    "rollout_func": "SharedPass keeps its pass apart with one (trainers/shared_pass.py)",
    "processing_class": "SharedPass keeps its pass apart with images (trainers/shared_pass.py)",
    "_is_vlm": "AdvantageHook looks for images by it (trainers/hook.py)",
    "log_multimodal": "AdvantageHook switches it where some processes have no images (trainers/hook.py)",
    "log_completions": "ReproMixin adds columns by it (trainers/repro.py)",
}


@pytest.mark.parametrize("name", ATTRIBUTES)
def test_attributes_are_there(generated, name):
    assert name in vars(generated), changed(f"GRPOTrainer has no attribute {name!r}", ATTRIBUTES[name])


def test_logs_and_metrics_are_where_they_were(generated):
    user = "AdvantageHook rewrites and ReproMixin extends them"
    advantages = generated.batch["advantages"].tolist()
    assert list(generated._logs["advantages"]) == advantages, changed("_logs['advantages'] holds something else", user)
    generated._logs["extra"]["column"].extend([0])
    del generated._logs["extra"]["column"]
    assert set(generated._metrics) == {"train", "eval"}, changed("_metrics has other parts", user)


def test_log_probabilities_come_first_and_per_completion_token(generated):
    user = "AdvantageHook reads them (trainers/hook.py)"
    shape = generated.batch["completion_ids"].shape
    assert generated.logps.shape == shape, changed(
        f"log-probabilities have shape {tuple(generated.logps.shape)}", user
    )


def test_old_log_probabilities_come_from_the_policy_before_the_reference(generated):
    user = "SharedPass takes the first pass of the policy for that of the old ones (trainers/shared_pass.py)"
    assert generated.models[:2] == [generated.model, generated.ref_model], changed("the order is another", user)


def test_keys_and_values_of_the_pass_can_be_kept(generated):
    user = "SharedPass reads answers on them (trainers/shared_pass.py)"
    batch, cache = generated.batch, DynamicCache()
    ids = torch.cat([batch["prompt_ids"], batch["completion_ids"]], dim=1)
    mask = torch.cat([batch["prompt_mask"], batch["completion_mask"]], dim=1)
    with torch.no_grad():
        logps, entropies, _ = generated._get_per_token_logps_and_entropies(
            partial(generated.model, **{cache_argument(generated.model): cache}),
            ids,
            mask,
            logits_to_keep=batch["completion_ids"].shape[1],
            compute_entropy=True,
        )
    assert cache.get_seq_length() == ids.shape[1], changed("the pass keeps no keys and values", user)
    assert entropies.shape == logps.shape, changed(f"entropies have shape {tuple(entropies.shape)}", user)


@pytest.mark.parametrize("level", ["token", "sequence"])
def test_loss_takes_advantages_per_token(generated, level):
    """Equal ones give the loss of one per completion."""
    inputs = dict(generated.batch)
    advantages = inputs["advantages"]
    before, generated.importance_sampling_level = generated.importance_sampling_level, level
    try:
        with torch.no_grad():
            whole = generated._compute_loss(generated.model, inputs)
            spread = generated._compute_loss(
                generated.model,
                inputs | {"advantages": advantages[:, None].expand(inputs["completion_ids"].shape).clone()},
            )
    finally:
        generated.importance_sampling_level = before
    torch.testing.assert_close(
        spread,
        whole,
        msg=changed("_compute_loss no longer takes (B, T) advantages", "the whole of repro_trl returns these"),
    )


def test_old_log_probabilities_are_read_after_the_new_ones(generated):
    class Watched(dict):
        def get(self, key, default=None):
            if key == "old_per_token_logps":
                generated.events.append("old")
            return super().get(key, default)

        def __getitem__(self, key):
            if key == "old_per_token_logps":
                generated.events.append("old")
            return super().__getitem__(key)

    generated.events.clear()
    with torch.no_grad():
        generated._compute_loss(generated.model, Watched(generated.batch))
    user = "AdvantageHook puts the GSPO-token form in between (trainers/hook.py)"
    assert generated.events == ["log-probabilities", "old"], changed(f"the order is {generated.events}", user)
