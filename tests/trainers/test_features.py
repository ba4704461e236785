"""Every feature of `trl.GRPOTrainer`, with the process advantage on top: it trains, and credit goes where it may."""

import logging
import math
from types import SimpleNamespace

import pytest
import torch
from checked_runs import check, train
from tiny_runs import CheckedTrainer, settings, token_reward, weights
from transformers import AutoTokenizer

from repro_trl import ReproGRPOConfig
from repro_trl.demo import task

LOSS_TYPES = ["grpo", "dapo", "dr_grpo", "bnpo", "cispo", "sapo", "luspo", "vespo"]


@pytest.mark.parametrize("level", ["token", "sequence"])
@pytest.mark.parametrize("loss_type", LOSS_TYPES)
def test_loss_types(tmp_path, policy, dataset, loss_type, level):
    options = {"loss_type": loss_type, "importance_sampling_level": level, "num_iterations": 2, "max_steps": 2}
    plain = train(policy, dataset, tmp_path, repro_alpha=1e-3, **options)
    repro = train(policy, dataset, tmp_path, **options)
    assert len(repro.rollouts) == 1  # the second step reuses the first one's completions
    # The rollouts are the same: what differs is the credit of single tokens, and it has to arrive.
    assert torch.equal(plain.rollouts[0][0].batch["completion_ids"], repro.rollouts[0][0].batch["completion_ids"])
    assert not torch.allclose(weights(plain.model), weights(repro.model), atol=1e-5)


OPTIONS = {
    "beta": {"beta": 0.1},
    "beta, corrected KL": {"beta": 0.1, "use_bias_correction_kl": True, "num_iterations": 2},
    "reference follows": {"beta": 0.1, "sync_ref_model": True, "ref_model_sync_steps": 1},
    "scale group": {"scale_rewards": "group"},
    "scale batch": {"scale_rewards": "batch"},
    "scale none": {"scale_rewards": "none"},
    "repro_scale batch": {"repro_scale": "batch"},
    "repro_scale none": {"repro_scale": "none"},
    "three iterations, accumulation": {
        "num_iterations": 3,
        "per_device_train_batch_size": 4,
        "gradient_accumulation_steps": 2,
        "max_steps": 4,
    },
    "old rollouts": {"per_device_train_batch_size": 4, "steps_per_generation": 4, "max_steps": 4},
    "two-sided clipping": {"delta": 1.5, "epsilon_high": 0.28, "num_iterations": 2},
    "mask truncated": {"mask_truncated_completions": True},
    "high-entropy tokens": {"top_entropy_quantile": 0.5},
    "off-policy mask": {"off_policy_mask_threshold": 1e-4, "num_iterations": 2, "max_steps": 4},
    "off-policy mask, sequence": {
        "off_policy_mask_threshold": 1e-4,
        "num_iterations": 2,
        "max_steps": 4,
        "importance_sampling_level": "sequence",
    },
    "entropy bonus": {"entropy_coef": 0.01},
    "checkpointing": {"gradient_checkpointing": True},
    "checkpointing, reentrant": {
        "gradient_checkpointing": True,
        "gradient_checkpointing_kwargs": {"use_reentrant": True},
    },
    "bf16": {"bf16": True},
    "LM head in float32": {"model_init_kwargs": {"dtype": "bfloat16"}, "cast_lm_head_to_fp32": True},
    "eager attention": {"model_init_kwargs": {"attn_implementation": "eager"}},
    "padding to a multiple": {"pad_to_multiple_of": 16},
    "unused columns removed": {"remove_unused_columns": True},
    "replay": {"repro_method": "replay"},
    "prefix": {"repro_answer_prefix": "\n</think>\n\n"},
    "no marker": {"repro_think_end": ""},
    "other delimiter": {"repro_delimiter": "e"},
    "temperature": {"temperature": 0.7, "top_p": 0.9, "top_k": 50},
    "greedy-like penalty": {"repetition_penalty": 1.1},
}


@pytest.mark.parametrize("name", OPTIONS)
def test_options(tmp_path, policy, dataset, name):
    train(policy, dataset, tmp_path, **OPTIONS[name])


def second_reward(completions, **kwargs):
    return [float(len(str(completion)) % 3) for completion in completions]


def sometimes_none(completion_ids, **kwargs):
    return [None if sum(ids) % 3 == 0 else float(sum(ids) % 5) for ids in completion_ids]


async def async_reward(completion_ids, **kwargs):
    return [float(sum(ids) % 7) for ids in completion_ids]


def logging_reward(completion_ids, log_extra, log_metric, **kwargs):
    log_extra("length", [len(ids) for ids in completion_ids])
    log_metric("own_metric", 1.0)
    return token_reward(completion_ids)


REWARDS = {
    "several, weighted": ([token_reward, second_reward], {"reward_weights": [1.0, 0.3]}),
    "normalised one by one": ([token_reward, second_reward], {"multi_objective_aggregation": "normalize_then_sum"}),
    "None": (sometimes_none, {}),
    "None beside another": ([sometimes_none, second_reward], {}),
    "async": (async_reward, {}),
    "async and not": ([async_reward, token_reward], {"reward_weights": [0.2, 0.8]}),
    "logging": (logging_reward, {}),
    "ties": (lambda completions, **kwargs: [1.0] * len(completions), {}),
}


@pytest.mark.parametrize("name", REWARDS)
def test_rewards(tmp_path, policy, dataset, name):
    reward, overrides = REWARDS[name]
    trainer = train(policy, dataset, tmp_path, reward=reward, **overrides)
    if name == "ties":  # rewards that tie teach nothing, but segments differ
        assert not any(outcome.any() for _, outcome, _ in trainer.rollouts)
    if name == "logging":
        assert trainer.state.log_history[0]["own_metric"] == 1.0


def test_truncated_completions_are_masked_and_get_nothing(tmp_path, policy, dataset):
    trainer = train(policy, dataset, tmp_path, mask_truncated_completions=True)
    masked = [~rollout.policy_mask.any(1) for rollout, _, _ in trainer.rollouts]
    assert any(rows.any() for rows in masked) and any((~rows).any() for rows in masked)


def test_everything_masked_is_no_error(tmp_path, policy, dataset):
    args = ReproGRPOConfig(**settings(tmp_path, mask_truncated_completions=True, max_completion_length=2))
    args.generation_kwargs = {"min_new_tokens": 2, "suppress_tokens": [1, 2, *range(10, 20)]}
    trainer = CheckedTrainer(policy, token_reward, args, dataset)
    trainer.train()
    assert not any(rollout.policy_mask.any() for rollout, _, _ in trainer.rollouts)
    assert not any(total.any() for _, _, total in trainer.rollouts)


# -------------------------------------------------------------------------------------------------------------- data


def test_iterable_dataset(tmp_path, policy, dataset):
    train(policy, dataset.to_iterable_dataset(), tmp_path)


@pytest.mark.parametrize("template", [None, "{{ messages[0]['content'] }}"])
def test_plain_prompts(tmp_path, policy, dataset, template):
    plain = dataset.map(lambda row: {"prompt": row["prompt"][0]["content"]})
    tokenizer = AutoTokenizer.from_pretrained(policy)
    tokenizer.chat_template = template
    train(policy, plain, tmp_path, model_args={"processing_class": tokenizer})


def test_prompts_of_several_turns_and_template_settings(tmp_path, policy, dataset):
    turns = dataset.map(
        lambda row: {
            "prompt": [
                {"role": "system", "content": "Be quick."},
                *row["prompt"],
                {"role": "assistant", "content": "7"},
                {"role": "user", "content": "Sure?"},
            ]
        }
    )
    train(policy, turns, tmp_path, chat_template_kwargs={"enable_thinking": True})


@pytest.mark.parametrize("streamed", [False, True])
def test_evaluation_while_training(tmp_path, policy, dataset, streamed):
    held_out = task.eval_dataset(size=4)
    args = ReproGRPOConfig(
        **settings(tmp_path, eval_strategy="steps", eval_steps=1, per_device_eval_batch_size=4, num_generations_eval=2)
    )
    trainer = CheckedTrainer(
        policy, token_reward, args, dataset, eval_dataset=held_out.to_iterable_dataset() if streamed else held_out
    )
    trainer.train()
    check(trainer)
    evaluated = [entry for entry in trainer.state.log_history if "eval_loss" in entry]
    assert len(evaluated) == 2
    assert all(math.isfinite(entry["eval_loss"]) and entry["eval_repro/segments"] > 1 for entry in evaluated)
    sizes = [len(set(rollout.groups.tolist())) for rollout, _, _ in trainer.rollouts]
    assert sizes[0] == 2 and sizes[1] == 2  # 8 completions in groups of 4, then 4 in groups of 2


def test_evaluation_rows_without_the_answer_column(tmp_path, policy, dataset):
    args = ReproGRPOConfig(**settings(tmp_path, per_device_eval_batch_size=4))
    bare = task.eval_dataset(size=2).remove_columns("solution")
    trainer = CheckedTrainer(policy, token_reward, args, dataset, eval_dataset=bare)
    metrics = trainer.evaluate()
    assert metrics["eval_repro/no_answer_ratio"] == 1.0 and math.isfinite(metrics["eval_loss"])


# ------------------------------------------------------------------------------------------------------------ logging


def test_completions_table_while_groups_are_logged(tmp_path, policy, dataset):
    import pandas

    trainer = train(
        policy,
        dataset,
        tmp_path,
        reward=logging_reward,
        log_completions=True,
        num_completions_to_print=0,
        log_unique_prompts=True,
    )
    files = sorted((tmp_path / "completions").glob("*.parquet"))
    assert len(files) == 2
    for file, (rollout, _, total) in zip(files, trainer.rollouts, strict=True):
        table = pandas.read_parquet(file)
        mean = (total * rollout.policy_mask).sum(1) / rollout.policy_mask.sum(1)
        assert table["advantage"].tolist() == pytest.approx(mean.tolist(), abs=1e-6)
        assert table["length"].tolist() == rollout.batch["completion_mask"].sum(1).tolist()
        assert table["repro_segments"].notna().any()


def test_hub_card_and_tags(tmp_path, policy, dataset):
    trainer = train(policy, dataset, tmp_path)
    trainer.create_model_card(model_name="tiny", tags=["mine"])
    card = (tmp_path / "README.md").read_text()
    for word in ("repro", "grpo", "mine", "2512.01925"):
        assert word in card


# --------------------------------------------------------------------------------------------------------------- vLLM


class FakeVLLM:
    """Stands where TRL's vLLM client stands: samples from the policy, and its log-probabilities are a little off."""

    dtype = torch.float32

    def __init__(self, model, processing_class, **kwargs):
        self.model, self.tokenizer, self.syncs = model, processing_class, 0
        config = SimpleNamespace(dtype=self.dtype, max_model_len=512)
        self.llm = SimpleNamespace(llm_engine=SimpleNamespace(model_config=config))

    def sync_weights(self):
        self.syncs += 1

    def generate(self, prompts, images, num_generations, profiler=None):
        generator = torch.Generator().manual_seed(self.syncs)
        words = self.tokenizer.encode("A: 3+4 = 7\n\n")
        completion_ids = []
        for i, _ in enumerate(prompts):
            order = torch.randint(len(words), (6 + i,), generator=generator)
            completion_ids.append([words[j] for j in order] + words[-1:] + words + [self.tokenizer.eos_token_id])
        logprobs = [[[-6.0 - 0.1 * (j % 3)] for j, _ in enumerate(ids)] for ids in completion_ids]
        return prompts, completion_ids, logprobs, None


@pytest.mark.parametrize("mode", ["token_truncate", "token_mask", "sequence_truncate", "sequence_mask", None])
@pytest.mark.parametrize("level", ["token", "sequence"])
def test_vllm_settings_with_a_server_that_is_not_there(tmp_path, policy, dataset, monkeypatch, mode, level):
    monkeypatch.setattr("trl.trainer.grpo_trainer.VLLMGeneration", FakeVLLM)
    overrides = (
        {"vllm_importance_sampling_correction": False} if mode is None else {"vllm_importance_sampling_mode": mode}
    )
    trainer = CheckedTrainer(
        policy,
        token_reward,
        ReproGRPOConfig(
            **settings(
                tmp_path,
                use_vllm=True,
                vllm_mode="colocate",
                importance_sampling_level=level,
                vllm_importance_sampling_clip_max=1e9,
                off_policy_mask_threshold=0.5,
                **overrides,
            )
        ),
        dataset,
    )
    trainer.train()
    check(trainer)
    assert trainer.vllm_generation.syncs == 2
    assert ("importance_sampling_ratio" in trainer.rollouts[0][0].batch) == (mode is not None)


@pytest.mark.parametrize(
    ("dtype", "bf16", "is_said"), [("float32", False, 0), ("bfloat16", False, 1), ("bfloat16", True, 0)]
)
def test_an_engine_of_another_precision_is_said_once(
    tmp_path, policy, dataset, monkeypatch, caplog, dtype, bf16, is_said
):
    monkeypatch.setattr("trl.trainer.grpo_trainer.VLLMGeneration", FakeVLLM)
    monkeypatch.setattr(FakeVLLM, "dtype", getattr(torch, dtype))
    args = ReproGRPOConfig(**settings(tmp_path, use_vllm=True, vllm_mode="colocate", bf16=bf16))
    with caplog.at_level(logging.WARNING, logger="repro_trl.trainers.repro"):
        CheckedTrainer(policy, token_reward, args, dataset)
    assert caplog.text.count("vLLM computes in torch.bfloat16, the trainer in torch.float32") == is_said
