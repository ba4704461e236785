"""The whole pipeline in a trainer: what reaches the loss, compared with METHOD.md read literally."""

import math

import pytest
import torch
from pocket_runs import POCKET, settings, train, weights
from tiny_runs import losses
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import GRPOConfig, GRPOTrainer

from repro_trl import AdvantageHook, ReproGRPOConfig, ReproGRPOTrainer
from repro_trl.demo import task
from repro_trl.rewards import answer_reward


@pytest.fixture(scope="module")
def dataset():
    return task.train_dataset(size=32, seed=3)


class RecordingTrainer(ReproGRPOTrainer):
    """Keeps the rollouts as TRL made them, the weights they were made with, and what reached the loss."""

    def _compute_advantages(self, rollout):
        state = {name: tensor.clone() for name, tensor in self.model.state_dict().items()}
        outcome = rollout.batch["advantages"].clone()
        total = super()._compute_advantages(rollout)
        self.__dict__.setdefault("recorded", []).append((rollout, outcome, total.clone(), state))
        return total

    def _compute_loss(self, model, inputs):
        self.__dict__.setdefault("loss_inputs", []).append(
            {name: inputs[name].clone() for name in ("completion_ids", "advantages")}
        )
        return super()._compute_loss(model, inputs)


def literal_advantages(model, tokenizer, rollout, outcome, config, temperature):
    """METHOD §2 to §5, one row, one boundary, one number at a time."""
    batch = rollout.batch
    all_rewards, rows = {}, []
    for i, example in enumerate(rollout.examples):
        prompt = batch["prompt_ids"][i][batch["prompt_mask"][i].bool()].tolist()
        completion = batch["completion_ids"][i][batch["completion_mask"][i].bool()].tolist()
        texts = [tokenizer.decode(completion[:s]) for s in range(len(completion) + 1)]
        marker = texts[-1].find("</think>")
        end = next((s for s, text in enumerate(texts) if "</think>" in text), len(completion))
        starts = []
        for s in range(1, len(completion)):
            ends_here = any(
                texts[s].endswith("\n\n", 0, place) for place in range(len(texts[s - 1]) + 1, len(texts[s]) + 1)
            )
            if ends_here and (marker < 0 or len(texts[s]) <= marker):
                starts.append(s)
        with torch.no_grad():
            logits = model(torch.tensor([prompt + completion])).logits[0] / temperature
        log_probs = logits.log_softmax(-1)
        entropy = -(log_probs.exp() * log_probs).sum(-1)
        by_entropy = sorted(starts, key=lambda s: (-entropy[len(prompt) + s - 1].item(), s))
        boundaries = sorted({0, end, *by_entropy[: config.repro_top_k]})
        answer_text = "\\boxed{" + example["solution"].removeprefix("\\boxed{").removesuffix("}") + "}"
        answer = tokenizer.encode(answer_text, add_special_tokens=False)
        objective = []
        for boundary in boundaries:
            prefix = prompt + completion[:boundary]
            with torch.no_grad():
                logits = model(torch.tensor([prefix + answer])).logits[0] / temperature
            log_probs = logits.log_softmax(-1)
            terms = [log_probs[len(prefix) + j - 1, token].item() for j, token in enumerate(answer)]
            objective.append(sum(terms) / len(terms))
        scores = [0.0]
        for t in range(1, len(boundaries)):
            pairs = [(a, b) for b in range(t + 1) for a in range(b)]
            tau = sum((objective[b] > objective[a]) - (objective[b] < objective[a]) for a, b in pairs) / len(pairs)
            w = config.repro_stability_weight
            scores.append((1 - w) * (1 - math.tanh(objective[t] / objective[0])) + w * (tau + 1) / 2)
        rewards = [scores[j] - scores[j - 1] for j in range(1, len(scores))]
        rows.append((boundaries, rewards, len(completion)))
        all_rewards.setdefault(int(rollout.groups[i]), []).extend(rewards)

    expected = torch.zeros(batch["completion_ids"].shape)
    for i, (boundaries, rewards, length) in enumerate(rows):
        group = all_rewards[int(rollout.groups[i])]
        mean = sum(group) / len(group)
        std = math.sqrt(sum((r - mean) ** 2 for r in group) / (len(group) - 1))
        for t in range(length):
            to_go = sum(
                (r - mean) / (std + 1e-4) for r, end in zip(rewards, boundaries[1:], strict=True) if end - 1 >= t
            )
            expected[i, t] = outcome[i] + config.repro_alpha * to_go
    return expected


@pytest.mark.parametrize("method", ["shared", "replay"])
def test_advantages_that_reach_the_loss_are_those_of_the_method(tmp_path, dataset, method):
    config = ReproGRPOConfig(
        **settings(tmp_path, max_steps=2, temperature=0.8), repro_alpha=0.3, repro_top_k=2, repro_method=method
    )
    trainer = train(RecordingTrainer, config, dataset)
    tokenizer = trainer.processing_class
    model = AutoModelForCausalLM.from_pretrained(POCKET, dtype=torch.float32)
    in_loss = {}
    for inputs in trainer.loss_inputs:
        for ids, advantages in zip(inputs["completion_ids"], inputs["advantages"], strict=True):
            in_loss[tuple(ids.tolist())] = advantages
    segments = 0
    for rollout, outcome, total, state in trainer.recorded:
        model.load_state_dict(state)
        expected = literal_advantages(model, tokenizer, rollout, outcome, config, temperature=0.8)
        torch.testing.assert_close(total, expected, atol=2e-3, rtol=0)  # 1e-4 in the divisor amplifies 1e-7 in J
        for row, ids in enumerate(rollout.batch["completion_ids"]):
            torch.testing.assert_close(in_loss[tuple(ids.tolist())], total[row], atol=0, rtol=0)
        segments += (expected.diff(dim=1).abs() > 1e-3).sum().item()
    assert segments > 20, "the completions hold too few segments for this test to say anything"


def test_alpha_zero_is_plain_grpo(tmp_path, dataset):
    calls = {"plain": 0, "repro": 0}

    def counting(trainer_class, name):
        class Counting(trainer_class):
            def __init__(self, *args, **kwargs):
                super().__init__(*args, **kwargs)
                self.model.register_forward_hook(lambda *_: calls.__setitem__(name, calls[name] + 1))

        return Counting

    plain = train(counting(GRPOTrainer, "plain"), GRPOConfig(**settings(tmp_path / "plain")), dataset)
    repro = train(
        counting(ReproGRPOTrainer, "repro"),
        ReproGRPOConfig(**settings(tmp_path / "repro"), repro_alpha=0.0, repro_answer_column="nowhere"),
        dataset,
    )
    assert losses(repro) == losses(plain) and any(losses(plain))
    assert torch.equal(weights(repro), weights(plain))
    assert calls["repro"] == calls["plain"] > 0
    assert not any(name.startswith("repro/") for entry in repro.state.log_history for name in entry)


def test_alpha_changes_the_weights(tmp_path, dataset):
    plain = train(GRPOTrainer, GRPOConfig(**settings(tmp_path / "plain")), dataset)
    repro = train(ReproGRPOTrainer, ReproGRPOConfig(**settings(tmp_path / "repro"), repro_alpha=0.2), dataset)
    assert all(map(math.isfinite, losses(repro)))
    assert not torch.equal(weights(repro), weights(plain))


def test_one_line_swap_takes_the_plain_config(tmp_path, dataset):
    trainer = ReproGRPOTrainer(POCKET, answer_reward, GRPOConfig(**settings(tmp_path)), dataset)
    assert isinstance(trainer.args, ReproGRPOConfig)
    assert trainer.args.repro_alpha == 0.05
    assert trainer.args.max_completion_length == 64


def test_metrics_and_completions_table(tmp_path, dataset):
    config = ReproGRPOConfig(
        **settings(tmp_path, max_steps=1, log_completions=True, num_completions_to_print=0), repro_alpha=0.2
    )
    trainer = train(ReproGRPOTrainer, config, dataset)
    logged = {name: value for name, value in trainer.state.log_history[0].items() if name.startswith("repro/")}
    assert set(logged) == {
        "repro/objective_first",
        "repro/objective_last",
        "repro/objective_gain",
        "repro/objective_auc",
        "repro/magnitude_score",
        "repro/stability_score",
        "repro/process_reward/mean",
        "repro/process_reward/std",
        "repro/segments",
        "repro/advantage_share",
        "repro/seconds",
        "repro/no_answer_ratio",
        "repro/no_delimiter_ratio",
        "repro/no_think_end_ratio",
    }
    assert logged["repro/objective_gain"] == pytest.approx(
        logged["repro/objective_last"] - logged["repro/objective_first"], abs=1e-5
    )
    assert 0 < logged["repro/magnitude_score"] <= 1 and 0 <= logged["repro/stability_score"] <= 1
    assert 0 < logged["repro/advantage_share"] < 1 and logged["repro/seconds"] > 0
    assert logged["repro/no_answer_ratio"] == 0

    import pandas

    (file,) = (tmp_path / "completions").glob("*.parquet")
    table = pandas.read_parquet(file)
    assert len(table) == 8
    assert table["repro_segments"].mean() == pytest.approx(logged["repro/segments"])
    assert table["repro_objective_first"].mean() == pytest.approx(logged["repro/objective_first"])


def test_logged_advantage_is_the_mean_over_trained_tokens(tmp_path, dataset):
    trainer = train(RecordingTrainer, ReproGRPOConfig(**settings(tmp_path, max_steps=1), repro_alpha=0.5), dataset)
    rollout, outcome, total, _ = trainer.recorded[0]
    mask = rollout.policy_mask
    expected = (total * mask).sum(1) / mask.sum(1)
    assert list(trainer._logs["advantages"]) == pytest.approx(expected.tolist())
    assert not torch.allclose(expected, outcome, atol=1e-3)


def test_rows_without_answer_keep_the_outcome_advantage(tmp_path, dataset):
    half = dataset.map(lambda row, i: {"solution": row["solution"] if i % 2 else None}, with_indices=True)

    def reward(completions, **kwargs):
        return [float(len(completion[0]["content"]) % 7) for completion in completions]

    config = ReproGRPOConfig(**settings(tmp_path, max_steps=2, shuffle_dataset=False), repro_alpha=0.5)
    trainer = train(RecordingTrainer, config, half, reward=reward)
    without = with_answer = 0
    for rollout, outcome, total, _ in trainer.recorded:
        for i, example in enumerate(rollout.examples):
            plain = outcome[i] * rollout.policy_mask[i]
            if example["solution"] is None:
                torch.testing.assert_close(total[i], plain, atol=0, rtol=0)
                without += 1
            else:
                with_answer += not torch.equal(total[i], plain)
    assert without and with_answer
    assert trainer.state.log_history[0]["repro/no_answer_ratio"] == pytest.approx(0.5)


def test_prefix_is_cut_after_the_marker_at_the_last_boundary(tmp_path, dataset):
    config = ReproGRPOConfig(**settings(tmp_path), repro_answer_prefix="\n</think>\n\n")
    trainer = ReproGRPOTrainer(POCKET, answer_reward, config, dataset)
    answer, closing = trainer._scorer.reader.encode("42", True, trainer._scorer.reader.form)
    decode = trainer.processing_class.decode
    assert decode([i for i, scored in zip(answer.ids, answer.scored, strict=True) if not scored]) == "\n</think>\n\n"
    assert decode([i for i, scored in zip(closing.ids, closing.scored, strict=True) if not scored]) == "\n\n"
    for tokens in (answer, closing):
        assert decode([i for i, scored in zip(tokens.ids, tokens.scored, strict=True) if scored]) == "\\boxed{42}"


class ShortLineTrainer(ReproGRPOTrainer):
    """Adds a signal of its own to that of RePro: the subclass that the README shows."""

    def _compute_advantages(self, rollout):
        advantages = super()._compute_advantages(rollout)
        is_first = torch.arange(advantages.shape[1]) == 0
        return advantages + 5.0 * is_first


def test_subclass_adds_its_own_token_level_signal(tmp_path, dataset):
    torch.manual_seed(0)
    plain = train(RecordingTrainer, ReproGRPOConfig(**settings(tmp_path / "a", max_steps=1)), dataset)

    class Recording(RecordingTrainer, ShortLineTrainer):
        pass

    signal = train(Recording, ReproGRPOConfig(**settings(tmp_path / "b", max_steps=1)), dataset)
    difference = signal.recorded[0][2] - plain.recorded[0][2]
    assert torch.allclose(difference[:, 0], torch.tensor(5.0)) and not difference[:, 1:].any()


def test_wrong_shape_from_a_subclass_is_named(tmp_path, dataset):
    class Wrong(AdvantageHook, GRPOTrainer):
        def _compute_advantages(self, rollout):
            return torch.zeros(3, 2)

    with pytest.raises(ValueError, match=r"Wrong\._compute_advantages returned shape \(3, 2\)"):
        train(Wrong, GRPOConfig(**settings(tmp_path)), dataset)


def test_evaluation_scores_and_keeps_its_metrics_apart(tmp_path, dataset):
    config = ReproGRPOConfig(**settings(tmp_path, max_steps=1, per_device_eval_batch_size=4), repro_alpha=0.2)
    trainer = ReproGRPOTrainer(POCKET, answer_reward, config, dataset, eval_dataset=dataset.select(range(2)))
    metrics = trainer.evaluate()
    assert math.isfinite(metrics["eval_loss"])
    assert metrics["eval_repro/segments"] >= 1
    assert "repro/segments" not in metrics


def test_saved_model_loads_and_its_card_names_method_and_paper(tmp_path, dataset):
    trainer = train(ReproGRPOTrainer, ReproGRPOConfig(**settings(tmp_path, max_steps=1)), dataset)
    trainer.save_model(str(tmp_path))
    trainer.create_model_card()
    model = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert AutoTokenizer.from_pretrained(tmp_path).chat_template
    assert torch.equal(torch.cat([p.flatten() for p in model.parameters()]), weights(trainer))
    card = (tmp_path / "README.md").read_text()
    assert "RePro GRPO" in card and "2512.01925" in card and "Rectifying LLM Thought from Lens of Optimization" in card


class SpreadTrainer(AdvantageHook, GRPOTrainer):
    """TRL's own advantages, repeated for every token."""

    def _compute_advantages(self, rollout):
        advantages = super()._compute_advantages(rollout)
        return advantages.unsqueeze(1).expand(rollout.policy_mask.shape)


@pytest.mark.parametrize("loss_type", ["grpo", "dapo", "luspo"])
def test_equal_credit_per_token_is_plain_sequence_level_training(tmp_path, dataset, loss_type):
    options = settings(
        tmp_path, importance_sampling_level="sequence", loss_type=loss_type, num_iterations=3, max_steps=6
    )
    plain = train(GRPOTrainer, GRPOConfig(**options), dataset)
    spread = train(SpreadTrainer, GRPOConfig(**options), dataset)
    assert any(losses(plain))
    torch.testing.assert_close(weights(spread), weights(plain), atol=3e-5, rtol=0)  # Adam amplifies rounding


def test_sequence_level_keeps_the_credit_of_single_tokens(tmp_path, dataset):
    options = settings(tmp_path, importance_sampling_level="sequence", loss_type="grpo", num_iterations=2, max_steps=4)
    spread = train(SpreadTrainer, GRPOConfig(**options), dataset)

    class FirstHalf(SpreadTrainer):
        def _compute_advantages(self, rollout):
            advantages = super()._compute_advantages(rollout).clone()
            length = advantages.shape[1]
            advantages[:, : length // 2] *= 2  # a tilt whose mean over the tokens is that of SpreadTrainer
            advantages[:, length // 2 :] *= 0
            return advantages

    tilted = train(FirstHalf, GRPOConfig(**options), dataset)
    assert (weights(tilted) - weights(spread)).abs().max() > 1e-3
