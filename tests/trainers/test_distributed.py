"""RePro on several processes: the same number of forwards everywhere, and advantages that no split changes."""

import random

import pytest
from datasets import Dataset
from ranks import backend_settings, run_ranks
from tiny_policy import save_tiny_policy
from tiny_runs import CheckedTrainer, losses, settings, token_reward

from repro_trl import ReproGRPOConfig
from repro_trl.demo import task


@pytest.fixture(scope="module")
def policy(tmp_path_factory):
    return save_tiny_policy(tmp_path_factory.mktemp("policy"), max_position_embeddings=1024)


# ------------------------------------------------------------------------------------------------------ equal forwards

# What the completions of process 0 are like, one generation batch after the other; all others have thirty segments.
KINDS = ("no delimiter", "no answer", "all masked", "one token", "no answer anywhere", "thirty segments")


class NastyTrainer(CheckedTrainer):
    """Its completions are given, and ragged; its own forwards are counted."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.calls = self.shared_passes = 0
        self.model.register_forward_pre_hook(lambda *_: setattr(self, "calls", self.calls + 1))

    def _measure(self, rollout):
        scores = super()._measure(rollout)
        self.shared_passes += self._shared_pass.scores is not None
        return scores

    def _generate_single_turn(self, prompt_ids, *args, **kwargs):
        batch_number = self.state.global_step // self.num_iterations
        kind = KINDS[batch_number] if self.accelerator.process_index == 0 else "thirty segments"
        encode, eos = self._tokenizer.encode, self._tokenizer.eos_token_id
        completions = []
        for i in range(len(prompt_ids)):
            if kind == "no delimiter":
                completions.append([*encode("A: 3+4 = 7 " * (i + 1)), eos])
            elif kind == "all masked":  # by `mask_truncated_completions`: they do not end
                completions.append(encode(f"A: {i}\n\nB: 2"))
            elif kind == "one token":
                completions.append([self.eos_token_ids[i]])
            else:
                completions.append([*encode("".join(f"{i}{j}\n\n" for j in range(31 - i))), eos])
        return completions, None


def _rows():
    rows = list(task.train_dataset(size=2 * len(KINDS), seed=3))
    for step, kind in enumerate(KINDS):
        rows[2 * step]["solution"] = None if "answer" in kind else rows[2 * step]["solution"]
        rows[2 * step + 1]["solution"] = None if kind == "no answer anywhere" else rows[2 * step + 1]["solution"]
    return rows


def _train_nasty(policy, folder, backend, num_iterations):
    args = ReproGRPOConfig(
        **settings(
            folder,
            per_device_train_batch_size=2,
            gradient_accumulation_steps=2,
            num_generations=4,
            max_completion_length=256,
            max_steps=len(KINDS) * num_iterations,
            num_iterations=num_iterations,
            shuffle_dataset=False,
            mask_truncated_completions=True,
            repro_top_k=30,
            **backend_settings(backend),
        )
    )
    trainer = NastyTrainer(policy, token_reward, args, Dataset.from_list(_rows()))
    trainer.train()
    return {
        "processes": trainer.accelerator.num_processes,
        "type": trainer.accelerator.distributed_type.value,
        "wrapper": type(trainer.model_wrapped).__name__,
        "losses": losses(trainer),
        "calls": trainer.calls,
        "read_on_the_trainers_pass": trainer.shared_passes,
        "scored": [process.any(1).tolist() for process in trainer.process_advantages()],
        "segments": [entry["repro/segments"] for entry in trainer.state.log_history if "repro/segments" in entry],
    }


@pytest.fixture(scope="module")
def losses_under_ddp(policy, tmp_path_factory):
    folder = tmp_path_factory.mktemp("ddp")
    return {
        num_iterations: run_ranks(_train_nasty, folder, policy, folder / "run", "ddp", num_iterations)[0]["losses"]
        for num_iterations in (1, 2)
    }


WRAPPERS = {"ddp": "DistributedDataParallel", "fsdp2": "FSDPQwen3ForCausalLM"}


@pytest.mark.distributed
@pytest.mark.parametrize("num_iterations", [1, 2])  # with 2, answers are read on the trainer's own pass
@pytest.mark.parametrize("backend", ["ddp", "zero2", "zero3", "fsdp2"])
def test_processes_with_nothing_to_score_stay_in_step(tmp_path, policy, backend, num_iterations, losses_under_ddp):
    results = run_ranks(_train_nasty, tmp_path, policy, tmp_path / "run", backend, num_iterations, backend=backend)
    for result in results:
        assert result["processes"] == 2
        assert result["type"] == {"ddp": "MULTI_CPU", "fsdp2": "FSDP"}.get(backend, "DEEPSPEED")
        assert result["wrapper"] == WRAPPERS.get(backend, "DeepSpeedEngine")
    nasty, other = results
    assert nasty["calls"] == other["calls"] > 0
    scored = dict(zip(KINDS, zip(nasty["scored"], other["scored"], strict=True), strict=True))
    for kind, (first, second) in scored.items():
        assert all(second) != (kind == "no answer anywhere")
        assert any(first) == (kind in ("no delimiter", "one token", "thirty segments"))
    assert nasty["segments"][-1] > 28
    assert nasty["read_on_the_trainers_pass"] == (len(KINDS) if num_iterations > 1 else 0)
    expected = losses_under_ddp[num_iterations]
    assert nasty["losses"] == pytest.approx(expected, abs=1e-5) and any(expected)


# ----------------------------------------------------------------------------------------------- world-size invariance

ROWS, NUM_GENERATIONS = 24, 8
SCALES = ("group", "batch", "none")


class ReadOutTrainer(CheckedTrainer):
    """The completion of a row depends on its number in the whole batch, whoever holds it."""

    def _generate_single_turn(self, prompt_ids, *args, **kwargs):
        first_row = self.accelerator.process_index * len(prompt_ids)
        completions = []
        for row in range(first_row, first_row + len(prompt_ids)):
            rng = random.Random(row)
            words = rng.choices(
                ["A: 3+4 = 7", "Hmm.", "\n\n", "Wait, check", " 5", "</think>"], [4, 2, 6, 2, 4, 0.3], k=40
            )
            text = "".join(words[: rng.randint(1, 40)])
            completions.append([*self._tokenizer.encode(text), self._tokenizer.eos_token_id])
        return completions, None


def _read_out(policy, folder, world_size):
    args = ReproGRPOConfig(
        **settings(
            folder,
            per_device_train_batch_size=ROWS // world_size // 2,
            gradient_accumulation_steps=2,
            num_generations=NUM_GENERATIONS,
            max_completion_length=256,
            repro_alpha=1.0,
        )
    )
    dataset = task.train_dataset(size=ROWS // NUM_GENERATIONS, seed=3)
    trainer = ReadOutTrainer(policy, token_reward, args, dataset)
    assert trainer.accelerator.num_processes == world_size
    share = ROWS // world_size
    first_row = trainer.accelerator.process_index * share
    inputs = [
        {
            **dataset[row // NUM_GENERATIONS],
            "solution": None if row % 7 == 3 else dataset[row // NUM_GENERATIONS]["solution"],
        }
        for row in range(first_row, first_row + share)
    ]
    for scale in SCALES:
        trainer.args.repro_scale = scale
        trainer._generate_and_score_completions(inputs)
    read_out = {}
    for scale, (rollout, outcome, total) in zip(SCALES, trainer.rollouts, strict=True):
        read_out[scale] = [
            (values[mask].tolist(), start.item())
            for values, mask, start in zip(total, rollout.policy_mask, outcome, strict=True)
        ]
    return read_out


@pytest.mark.distributed
@pytest.mark.parametrize("world_size", [2, 4])
def test_advantages_do_not_depend_on_the_number_of_processes(tmp_path, policy, world_size):
    alone = _read_out(policy, tmp_path / "alone", 1)
    results = run_ranks(_read_out, tmp_path, policy, tmp_path / "run", world_size, world_size=world_size)
    for scale in SCALES:
        split = [row for result in results for row in result[scale]]
        assert len(split) == len(alone[scale]) == ROWS
        varied = 0
        for (values, outcome), (expected, expected_outcome) in zip(split, alone[scale], strict=True):
            assert values == pytest.approx(expected, abs=1e-5)
            assert outcome == pytest.approx(expected_outcome, abs=1e-5)
            varied += len(set(expected)) > 1
        assert varied > ROWS // 2
