"""Every feature of `trl.GRPOTrainer`, with the process advantage on top: it trains, and credit goes where it may."""

import math

import pytest
import torch
from peft import LoraConfig, PeftModel, PromptTuningConfig, get_peft_model
from pocket.make import make_tokenizer
from tiny_models import tiny_model
from tiny_policy import save_tiny_policy
from tiny_runs import CheckedTrainer, losses, settings, token_reward, weights
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from repro_trl import ReproGRPOConfig
from repro_trl.demo import task
from repro_trl.method.measure import method_difference
from repro_trl.method.objective import branch_pass


@pytest.fixture(scope="module")
def policy(tmp_path_factory):
    return save_tiny_policy(tmp_path_factory.mktemp("policy"))


@pytest.fixture(scope="module")
def dataset():
    return task.train_dataset(size=16, seed=3)


def train(policy, dataset, tmp_path, reward=token_reward, trainer_class=CheckedTrainer, model_args=None, **overrides):
    args = ReproGRPOConfig(**settings(tmp_path, **overrides))
    trainer = trainer_class(policy, reward, args, dataset, **(model_args or {}))
    trainer.train()
    check(trainer)
    return trainer


def check(trainer):
    assert len(losses(trainer)) == trainer.args.max_steps
    assert all(map(math.isfinite, losses(trainer)))
    assert all(process.any() for process in trainer.process_advantages()), "no process advantage at all"
    assert trainer.state.log_history[0]["repro/segments"] > 1
    assert not torch.equal(weights(trainer.accelerator.unwrap_model(trainer.model)), trainer.start)


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


# --------------------------------------------------------------------------------- what the policy did not write


class ScriptedTrainer(CheckedTrainer):
    """Its turns are given, not sampled: `script[turn]`, the same for every prompt but for a number."""

    script: list[str]
    turn = 0

    def _generate(self, prompts):
        self.turn = 0
        return super()._generate(prompts)

    def _generate_single_turn(self, prompt_ids, *args, **kwargs):
        texts = [self.script[self.turn].format(number=i) for i in range(len(prompt_ids))]
        self.turn += 1
        return [[*self._tokenizer.encode(text), self._tokenizer.eos_token_id] for text in texts], None


CALL = '<tool_call>\n{{"name": "NAME", "arguments": {{"number": {number}}}}}\n</tool_call>'


def multiply(number: int) -> str:
    """
    Multiplies by seven.

    Args:
        number: what to multiply.
    """
    return f"Working.\n\nStill working.\n\nThe result is {7 * number}\n\nDone."


class Counter:
    def reset(self, **kwargs) -> str | None:
        self.count = 0
        return " Count."

    def add(self, number: int) -> str:
        """
        Adds a number.

        Args:
            number: what to add.
        """
        self.count += number
        return f"Now\n\nit is\n\n{self.count}"


def counter_reward(environments, **kwargs):
    return [float(environment.count) for environment in environments]


@pytest.mark.parametrize("kind", ["tools", "async tools", "environment"])
def test_tool_output_carries_no_process_advantage(tmp_path, dataset, kind):
    from trl.chat_template_utils import qwen3_chat_template

    async def add_slowly(number: int) -> str:
        """
        Multiplies by seven.

        Args:
            number: what to multiply.
        """
        return multiply(number)

    policy = save_tiny_policy(tmp_path / "policy", max_position_embeddings=4096)  # TRL drops results beyond these
    tokenizer = AutoTokenizer.from_pretrained(policy)
    tokenizer.chat_template = qwen3_chat_template
    tool, model_args, reward = {
        "tools": ("multiply", {"tools": [multiply]}, token_reward),
        "async tools": ("add_slowly", {"tools": [add_slowly]}, token_reward),
        "environment": ("add", {"environment_factory": Counter}, counter_reward),
    }[kind]

    class Trainer(ScriptedTrainer):
        script = [
            "Let me see.\n\nI need the tool.\n\n" + CALL.replace("NAME", tool),
            "So.\n\nThat is it.\n\n</think>\n\n\\boxed{{{number}}}",
        ]

    trainer = train(
        policy,
        dataset,
        tmp_path,
        reward=reward,
        trainer_class=Trainer,
        model_args={"processing_class": tokenizer, **model_args},
        max_completion_length=1000,
    )
    assert trainer.state.log_history[0]["tools/call_frequency"] == 1
    for rollout, _, total in trainer.rollouts:
        tool_tokens = rollout.batch["completion_mask"].bool() & ~rollout.batch["tool_mask"].bool()
        assert tool_tokens.any(1).all()
        assert not total[tool_tokens].any()


def test_rollout_func_with_env_mask_and_fields_of_its_own(tmp_path, policy, dataset):
    def rollout_func(prompts, trainer):
        tokenizer = trainer.processing_class
        parts = [
            ("One.\n\nTwo.\n\n", 1),
            ("It says\n\nno\n\n", 0),
            ("Three.\n\nFour {}.\n\n</think>\n\n\\boxed{{1}}", 1),
        ]
        completion_ids, env_mask = [], []
        for i in range(len(prompts)):
            pieces = [(tokenizer.encode(text.format(i) if own else text), own) for text, own in parts]
            completion_ids.append([token for ids, _ in pieces for token in ids] + [tokenizer.eos_token_id])
            env_mask.append([own for ids, own in pieces for _ in ids] + [1])
        return {
            "prompt_ids": [tokenizer.apply_chat_template(p, tokenize=True, return_dict=False) for p in prompts],
            "completion_ids": completion_ids,
            "logprobs": None,
            "env_mask": env_mask,
            "bonus": [0.5 * i for i in range(len(prompts))],
        }

    def reward(completions, bonus, **kwargs):
        return bonus

    trainer = train(policy, dataset, tmp_path, reward=reward, model_args={"rollout_func": rollout_func})
    for rollout, _, total in trainer.rollouts:
        foreign = rollout.batch["completion_mask"].bool() & ~rollout.policy_mask
        assert foreign.any(1).all() and not total[foreign].any()


# -------------------------------------------------------------------------------------------------------------- PEFT

LORA = {"r": 4, "target_modules": ["q_proj", "v_proj"], "task_type": "CAUSAL_LM"}


@pytest.mark.parametrize("beta", [0.0, 0.1])
@pytest.mark.parametrize("checkpointing", [False, True])
def test_lora(tmp_path, policy, dataset, beta, checkpointing):
    trainer = train(
        policy,
        dataset,
        tmp_path,
        model_args={"peft_config": LoraConfig(**LORA)},
        beta=beta,
        gradient_checkpointing=checkpointing,
    )
    base = AutoModelForCausalLM.from_pretrained(policy, dtype=torch.float32)
    trained = trainer.model.get_base_model().state_dict()
    assert all(torch.equal(value, trained[name]) for name, value in base.state_dict().items() if name in trained)


@pytest.mark.parametrize("beta", [0.0, 0.1])
def test_lora_trained_on(tmp_path, policy, dataset, beta):
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(policy), LoraConfig(**LORA, init_lora_weights=False))
    model.save_pretrained(tmp_path / "adapter")
    model = PeftModel.from_pretrained(
        AutoModelForCausalLM.from_pretrained(policy), tmp_path / "adapter", is_trainable=True
    )
    trainer = train(
        model,
        dataset,
        tmp_path,
        model_args={"processing_class": AutoTokenizer.from_pretrained(policy)},
        beta=beta,
    )
    assert ("ref" in trainer.model.peft_config) == (beta > 0)
    assert trainer.model.active_adapters == ["default"]


def test_lora_with_modules_to_save(tmp_path, policy, dataset):
    trainer = train(
        policy, dataset, tmp_path, model_args={"peft_config": LoraConfig(**LORA, modules_to_save=["lm_head"])}
    )
    assert any("modules_to_save" in name for name, p in trainer.model.named_parameters() if p.requires_grad)
    assert trainer._scorer.method == "shared"


def test_dropout_does_not_reach_the_objective(tmp_path, policy, dataset):
    dropout = LoraConfig(**LORA, lora_dropout=0.5, init_lora_weights=False)
    trainer = train(policy, dataset, tmp_path, model_args={"peft_config": dropout})
    assert trainer._scorer.method == "shared"
    assert trainer.model.training and all(module.training for module in trainer.model.modules())
    rollout, outcome, _ = trainer.rollouts[0]
    again = []
    for _ in range(2):
        rollout.batch["advantages"] = outcome
        again.append(trainer._compute_advantages(rollout))
    assert torch.equal(*again)


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


# --------------------------------------------------------------------------------------------------------------- vLLM


class FakeVLLM:
    """Stands where TRL's vLLM client stands: samples from the policy, and its log-probabilities are a little off."""

    def __init__(self, model, processing_class, **kwargs):
        self.model, self.tokenizer, self.syncs = model, processing_class, 0

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


# ------------------------------------------------------------------------------------------------------- architectures


@pytest.mark.parametrize("architecture", ["gemma2", "gemma3", "mistral", "qwen3_moe", "gpt_neox"])
def test_architectures(tmp_path, dataset, architecture):
    tokenizer = make_tokenizer()
    attention = "eager" if architecture == "gemma2" else "sdpa"
    overrides = {"output_router_logits": False} if architecture == "qwen3_moe" else {}
    tiny_model(architecture, attention, len(tokenizer), **overrides).save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    trainer = train(str(tmp_path / "model"), dataset, tmp_path)
    assert trainer._scorer.method == "shared"


def test_hub_card_and_tags(tmp_path, policy, dataset):
    trainer = train(policy, dataset, tmp_path)
    trainer.create_model_card(model_name="tiny", tags=["mine"])
    card = (tmp_path / "README.md").read_text()
    for word in ("repro", "grpo", "mine", "2512.01925"):
        assert word in card


# ---------------------------------------------------------------------------------------------------------------- auto


def test_auto_proves_the_shared_method_once(tmp_path, policy, dataset, monkeypatch, caplog):
    compared = []

    def compare(*args):
        compared.append(method_difference(*args))
        return compared[-1]

    monkeypatch.setattr("repro_trl.trainers.policy_scorer.method_difference", compare)
    trainer = train(policy, dataset, tmp_path)
    assert trainer._scorer.method == "shared" and len(compared) == 1 and compared[0] < 1e-5
    assert "replay" not in caplog.text


def test_auto_falls_back_where_the_shared_method_is_wrong(tmp_path, policy, dataset, monkeypatch, caplog):
    def wrong(*args, **kwargs):
        return branch_pass(*args, **kwargs) * 1.01

    monkeypatch.setattr("repro_trl.method.measure.branch_pass", wrong)
    replayed = train(policy, dataset, tmp_path, repro_method="replay")
    assert "takes the slower 'replay'" not in caplog.text
    trainer = train(policy, dataset, tmp_path)
    assert trainer._scorer.method == "replay"
    assert caplog.text.count("takes the slower 'replay': on this model 'shared' differs") == 1
    assert losses(trainer) == losses(replayed)


def test_auto_names_the_reason_for_replay_once(tmp_path, policy, dataset, caplog):
    prompt_tuning = PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=3)
    trainer = train(policy, dataset, tmp_path, model_args={"peft_config": prompt_tuning})
    assert trainer._scorer.method == "replay"
    assert caplog.text.count("takes the slower 'replay': PEFT's PROMPT_TUNING puts tokens of its own") == 1
    with pytest.raises(ValueError, match="repro_method='shared' is not exact for this model"):
        train(policy, dataset, tmp_path, model_args={"peft_config": prompt_tuning}, repro_method="shared", max_steps=1)


def test_attention_without_masks_makes_way_while_scoring(tmp_path, policy, dataset, monkeypatch, caplog):
    shapes = set()

    def causal(module, query, key, value, attention_mask, **kwargs):
        shapes.add(None if attention_mask is None else attention_mask.dim())
        return ALL_ATTENTION_FUNCTIONS["sdpa"](module, query, key, value, None, is_causal=True, **kwargs)

    monkeypatch.setitem(ALL_ATTENTION_FUNCTIONS, "flex_attention", causal)
    monkeypatch.setitem(ALL_MASK_ATTENTION_FUNCTIONS, "flex_attention", lambda *args, **kwargs: None)
    model = AutoModelForCausalLM.from_pretrained(policy, attn_implementation="flex_attention")
    trainer = train(model, dataset, tmp_path, model_args={"processing_class": AutoTokenizer.from_pretrained(policy)})
    assert trainer._scorer.method == "shared" and "replay" not in caplog.text
    assert model.config._attn_implementation == "flex_attention"
    assert shapes == {None}


class WithImages(CheckedTrainer):
    """Its rollouts say that they hold images; the policy reads none."""

    def _compute_advantages(self, rollout):
        rollout.batch["pixel_values"] = torch.zeros(8, 1)
        try:
            return super()._compute_advantages(rollout)
        finally:
            del rollout.batch["pixel_values"]

    def _get_per_token_logps_and_entropies(self, *args, pixel_values=None, **kwargs):
        return super()._get_per_token_logps_and_entropies(*args, **kwargs)


def test_prompts_with_images_are_replayed(tmp_path, policy, dataset, caplog):
    replayed = train(policy, dataset, tmp_path, repro_method="replay")
    trainer = train(policy, dataset, tmp_path, trainer_class=WithImages)
    assert caplog.text.count("takes the slower 'replay': prompts hold images") == 1
    for (_, _, total), (_, _, expected) in zip(trainer.rollouts, replayed.rollouts, strict=True):
        torch.testing.assert_close(total, expected, atol=1e-3, rtol=0)
    with pytest.raises(ValueError, match="repro_method='shared' cannot score prompts with images"):
        train(policy, dataset, tmp_path, trainer_class=WithImages, repro_method="shared")
