"""Vision-language policies in every trainer: what is scored, what models are given, several processes, resuming."""

from collections import defaultdict

import pytest
import torch
from datasets import Dataset
from peft import LoraConfig
from ranks import backend_settings, run_ranks
from tiny_models import tiny_model
from tiny_runs import losses, token_reward, trl_settings, weights
from tiny_vision import FAMILIES, make_processor, random_image, save_tiny_vision_policy
from transformers import AutoModelForImageTextToText, TrainerCallback

from repro_trl import (
    ReproGRPOConfig,
    ReproGRPOTrainer,
    ReproPPOConfig,
    ReproPPOTrainer,
    ReproReinforcePlusPlusConfig,
    ReproReinforcePlusPlusTrainer,
)
from repro_trl.answers import answer_text
from repro_trl.method.branch_attention import cache_argument
from repro_trl.trainers.ppo.value_model import load_value_model

TRAINERS = {
    "grpo": (ReproGRPOTrainer, ReproGRPOConfig),
    "reinforce_pp": (ReproReinforcePlusPlusTrainer, ReproReinforcePlusPlusConfig),
    "ppo": (ReproPPOTrainer, ReproPPOConfig),
}
# What a model of each family is given for images.
IMAGE_INPUTS = {
    "gemma3": {"pixel_values", "token_type_ids"},
    "qwen2_5_vl": {"pixel_values", "image_grid_thw", "mm_token_type_ids"},
    "llava": {"pixel_values"},
}
NUM_PROMPTS, NUM_GENERATIONS = 2, 2


@pytest.fixture(scope="module")
def policies(tmp_path_factory):
    folder = tmp_path_factory.mktemp("policies")
    return {family: save_tiny_vision_policy(family, folder / family) for family in FAMILIES}


def rows_of(num_images, blocks=False):
    """One row per entry of `num_images`; as plain strings, or as blocks with a place for every image."""
    rows = []
    for i, number in enumerate(num_images):
        content = f"Add {i} and {3 * i}."
        if blocks:
            places = [{"type": "image", "text": None}] * number
            content = [{"type": "text", "text": "Look: "}, *places, {"type": "text", "text": content}]
        images = [random_image(10 * i + j, height=16 + 8 * (j % 2)) for j in range(number)]
        rows.append({"prompt": [{"role": "user", "content": content}], "images": images, "solution": str(4 * i)})
    return rows


def settings(output_dir, **overrides):
    return trl_settings(
        output_dir,
        **{
            "per_device_train_batch_size": NUM_PROMPTS * NUM_GENERATIONS,
            "num_generations": NUM_GENERATIONS,
            "max_completion_length": 8,
            "shuffle_dataset": False,
            "repro_alpha": 0.5,
            "generation_kwargs": {"sequence_bias": [[make_processor("llava").tokenizer.encode("\n\n"), 4.0]]},
            **overrides,
        },
    )


def make_trainer(policies, algorithm, family, rows, output_dir, **overrides):
    trainer_class, config_class = TRAINERS[algorithm]
    args = config_class(**settings(output_dir, **overrides))
    dataset, processor = Dataset.from_list(rows), make_processor(family)
    return trainer_class(policies[family], token_reward, args, dataset, processing_class=processor)


def messages_of(row):
    """A row's prompt with its images in their places."""
    content = row["prompt"][0]["content"]
    if isinstance(content, str):
        content = [*[{"type": "image"}] * len(row["images"]), {"type": "text", "text": content}]
    images = iter(row["images"])
    return [
        {"role": "user", "content": [p | ({"image": next(images)} if p["type"] == "image" else {}) for p in content]}
    ]


def alone(processor, row, text_ids):
    """What a model is given for one row and what follows its prompt, without padding, straight from the processor."""
    inputs = processor.apply_chat_template(
        [messages_of(row)], add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt"
    )
    longer = torch.tensor([text_ids])
    for name, values in inputs.items():
        if name == "input_ids":
            inputs[name] = torch.cat([values, longer], dim=1)
        elif name.endswith("token_type_ids"):
            inputs[name] = torch.cat([values, torch.zeros_like(longer)], dim=1)
        elif name == "attention_mask":
            inputs[name] = torch.cat([values, torch.ones_like(longer)], dim=1)
    return dict(inputs)


@torch.no_grad()
def log_probs_alone(model, processor, row, text_ids):
    logits = model(**alone(processor, row, text_ids)).logits[0, -len(text_ids) - 1 : -1]
    return logits.log_softmax(-1).gather(1, torch.tensor(text_ids)[:, None])[:, 0]


def first_objective(model, processor, rows):
    """J_0, the mean log-probability of the answer right after the prompt, averaged over rows."""
    terms = []
    for row in rows:
        answer = answer_text(row["solution"], ReproGRPOConfig.repro_answer_template)
        terms.append(log_probs_alone(model, processor, row, processor.tokenizer.encode(answer)).mean().item())
    return sum(terms) / len(terms)


class Expectation(TrainerCallback):
    """At the start of each step: J_0 of the step's rows, and what it would be with their images swapped."""

    def __init__(self, path, processor, rows):
        self.model = AutoModelForImageTextToText.from_pretrained(path).eval()
        self.processor, self.rows, self.right, self.swapped = processor, rows, [], []

    def on_step_begin(self, args, state, control, model=None, **kwargs):
        first = NUM_PROMPTS * state.global_step
        rows = self.rows[first : first + NUM_PROMPTS]
        others = [{**row, "images": [random_image(1000 + i) for i, _ in enumerate(row["images"])]} for row in rows]
        self.model.load_state_dict(model.state_dict())
        self.right.append(first_objective(self.model, self.processor, rows))
        self.swapped.append(first_objective(self.model, self.processor, others))


def watch(model, trainer):
    """The names of what a model is given for log-probabilities or values: {step: [names of one call]}."""
    calls = defaultdict(list)

    def note(_, args, kwargs):
        if kwargs.get(cache_argument(model)) is None:  # that would be generation
            calls[trainer.state.global_step].append(set(kwargs))

    model.register_forward_pre_hook(note, with_kwargs=True)
    return calls


def keep_rollouts(trainer):
    rollouts, inner = [], trainer._compute_advantages

    def keep(rollout):
        rollouts.append(rollout)
        return inner(rollout)

    trainer._compute_advantages = keep
    return rollouts


def logged(trainer, metric):
    return [entry[metric] for entry in trainer.state.log_history if metric in entry]


# ------------------------------------------------------------------------------------------------------ whole trainers

RUNS = [
    ("grpo", "gemma3", {"pad_to_multiple_of": 8, "log_completions": True}),
    ("grpo", "qwen2_5_vl", {"importance_sampling_level": "sequence"}),
    ("grpo", "llava", {}),
    ("reinforce_pp", "gemma3", {"beta": 0.1}),
    ("reinforce_pp", "qwen2_5_vl", {"beta": 0.1}),
    ("ppo", "gemma3", {"beta": 0.1}),
    ("ppo", "qwen2_5_vl", {"beta": 0.1}),
]


@pytest.mark.parametrize(("algorithm", "family", "overrides"), RUNS)
def test_images_reach_every_pass(tmp_path, policies, caplog, algorithm, family, overrides):
    """Two steps with images, one of text alone between them."""
    rows = rows_of([1, 2, 0, 0, 2, 1], blocks=family == "qwen2_5_vl")
    trainer = make_trainer(policies, algorithm, family, rows, tmp_path, max_steps=3, **overrides)
    expectation = Expectation(policies[family], trainer.processing_class, rows)
    trainer.add_callback(expectation)
    calls = {"policy": watch(trainer.model, trainer)}
    if algorithm == "ppo":
        calls["critic"] = watch(trainer.critic.model, trainer)
    rollouts = keep_rollouts(trainer)
    trainer.train()

    assert len(losses(trainer)) == 3 and torch.tensor(losses(trainer)).isfinite().all()
    assert all(segments > 0 for segments in logged(trainer, "repro/segments"))
    # The objective is that of the model by itself, and the images are part of it.
    assert logged(trainer, "repro/objective_first") == pytest.approx(expectation.right, abs=1e-3)
    differences = [abs(a - b) for a, b in zip(expectation.right, expectation.swapped, strict=True)]
    assert differences[0] > 1e-2 and differences[1] == 0 and differences[2] > 1e-2

    for passes in calls.values():
        for step, of_images in enumerate([True, False, True]):
            assert passes[step]
            for names in passes[step]:
                assert names & set().union(*IMAGE_INPUTS.values()) == (IMAGE_INPUTS[family] if of_images else set())
    assert caplog.text.count("prompts have images") == 1
    assert ["pixel_values" in rollout.batch for rollout in rollouts] == [True, False, True]

    # Rows with different numbers of images are cut into micro-batches where they belong.
    batch, processor = rollouts[0].batch, trainer.processing_class
    trainer.args.per_device_train_batch_size = 3
    trainer.model.eval()
    texts = [
        ids[mask.bool()].tolist() for ids, mask in zip(batch["completion_ids"], batch["completion_mask"], strict=True)
    ]
    for index, text_ids in enumerate(texts):
        row = rows[index // NUM_GENERATIONS]
        if algorithm != "grpo":
            found = trainer._policy_logps({n: v for n, v in batch.items() if n != "old_per_token_logps"})
            expected = log_probs_alone(trainer.model, processor, row, text_ids)
            torch.testing.assert_close(found[index, : len(text_ids)].detach(), expected, atol=1e-4, rtol=1e-4)
        if algorithm == "ppo":
            values, final = trainer.critic.values(batch)
            with torch.no_grad():
                expected = trainer.critic.model(**alone(processor, row, text_ids)).logits[0, -len(text_ids) - 1 :, 0]
            found = torch.cat([values[index, : len(text_ids)], final[index, None]])
            torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("family", ["gemma3", "llava"])
def test_shared_scoring_is_refused_for_images_alone(tmp_path, policies, family):
    trainer = make_trainer(policies, "grpo", family, rows_of([0, 0, 1, 1]), tmp_path, repro_method="shared")
    with pytest.raises(ValueError, match="repro_method='shared' cannot score prompts with images"):
        trainer.train()
    assert trainer.state.global_step == 1


# ---------------------------------------------------------------------------------------------------------- the critic


def ppo_args(tmp_path, **overrides):
    return ReproPPOConfig(**settings(tmp_path, **overrides))


@pytest.mark.parametrize("family", FAMILIES)
def test_critic_starts_from_all_weights_of_the_policy_and_is_loaded_again(tmp_path, policies, family):
    policy = dict(AutoModelForImageTextToText.from_pretrained(policies[family]).named_parameters())
    critic = load_value_model(policies[family], ppo_args(tmp_path), with_images=True)
    shared = {name: weight for name, weight in critic.named_parameters() if not name.startswith("score.")}
    assert set(policy) - set(shared) <= {"lm_head.weight"}
    assert all(torch.equal(weight, policy[name]) for name, weight in shared.items())
    critic.save_pretrained(tmp_path / "critic")
    again = load_value_model("", ppo_args(tmp_path, value_model_name_or_path=str(tmp_path / "critic")))
    assert torch.equal(weights(again), weights(critic))


def test_critic_with_adapters_reads_images(tmp_path, policies):
    model = load_value_model(policies["qwen2_5_vl"], ppo_args(tmp_path), LoraConfig(target_modules="all-linear"), True)
    processor = make_processor("qwen2_5_vl")
    with torch.no_grad():
        values = [model(**alone(processor, row, [5, 6])).logits for row in rows_of([1, 1])]
    assert values[0].shape[-1] == 1 and not torch.allclose(values[0][0, -1], values[1][0, -1], atol=1e-4)


def test_critic_of_text_alone_is_refused_for_images(tmp_path, policies):
    tiny_model("qwen3").save_pretrained(tmp_path / "text")
    with pytest.raises(ValueError, match=r"only reads text\. Set value_model_name_or_path"):
        load_value_model(
            policies["llava"], ppo_args(tmp_path, value_model_name_or_path=str(tmp_path / "text")), None, True
        )


def test_critic_whose_weights_are_not_there_is_refused(tmp_path, policies):
    model = AutoModelForImageTextToText.from_pretrained(policies["llava"])
    state = {name: weight for name, weight in model.state_dict().items() if "layers.1.mlp" not in name}
    model.save_pretrained(tmp_path / "part", state_dict=state)
    with pytest.raises(ValueError, match="has no weights for"):
        load_value_model(str(tmp_path / "part"), ppo_args(tmp_path))


# ------------------------------------------------------------------------------------------------------------ resuming


def test_interrupted_run_with_images_goes_on_exactly(tmp_path, policies):
    """Transformers saves this family's weights under other names than those of its parameters."""

    def run(checkpoint):
        trainer = make_trainer(
            policies,
            "ppo",
            "qwen2_5_vl",
            rows_of([1, 2, 2, 1]),
            tmp_path,
            gradient_accumulation_steps=1,
            steps_per_generation=2,
            per_device_train_batch_size=2,
            max_steps=3,
            save_strategy="steps",
            save_steps=1,
        )
        trainer.train(resume_from_checkpoint=checkpoint)
        return losses(trainer), weights(trainer.model), weights(trainer.critic.model)

    whole, resumed = run(None), run(str(tmp_path / "checkpoint-1"))
    assert resumed[0] == whole[0]
    assert torch.equal(resumed[1], whole[1]) and torch.equal(resumed[2], whole[2])


# --------------------------------------------------------------------------------------------------- several processes


def _train_unevenly(policies, folder, algorithm, backend):
    """Process 0 has the images first, then process 1, then neither."""
    rows = rows_of([2, 0, 0, 1, 0, 0])
    trainer = make_trainer(
        policies,
        algorithm,
        "qwen2_5_vl",
        rows,
        folder,
        per_device_train_batch_size=NUM_GENERATIONS,
        max_steps=3,
        **backend_settings(backend),
    )
    rollouts = keep_rollouts(trainer)
    trainer.train()
    return {
        "processes": trainer.accelerator.num_processes,
        "type": trainer.accelerator.distributed_type.value,
        "losses": losses(trainer),
        "objective": logged(trainer, "repro/objective_first"),
        "images": ["pixel_values" in rollout.batch for rollout in rollouts],
    }


@pytest.mark.distributed
@pytest.mark.parametrize("algorithm", ["grpo", "ppo"])
def test_processes_with_and_without_images_stay_in_step(tmp_path, policies, algorithm):
    results = run_ranks(_train_unevenly, tmp_path, policies, tmp_path / "run", algorithm, "ddp")
    assert [result["images"] for result in results] == [[True, False, False], [False, True, False]]
    for result in results:
        assert result["processes"] == 2
        assert result["type"] == "MULTI_CPU"
        assert len(result["losses"]) == 3 and torch.tensor(result["losses"]).isfinite().all()
        assert result["objective"] == results[0]["objective"]


def _refuse_unevenly(policies, folder, backend):
    with pytest.raises(ValueError, match="Some processes have images in this batch and others have none"):
        _train_unevenly(policies, folder, "grpo", backend)
    return True


@pytest.mark.distributed
@pytest.mark.parametrize("backend", ["zero3", "fsdp2"])
def test_split_models_need_images_on_all_processes_or_none(tmp_path, policies, backend):
    assert run_ranks(_refuse_unevenly, tmp_path, policies, tmp_path / "run", backend, backend=backend) == [True, True]
