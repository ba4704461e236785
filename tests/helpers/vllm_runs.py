"""Short training runs of the bundled model whose completions a real vLLM generates."""

from pathlib import Path
from typing import Any

import torch
from counted_forwards import CountsForwards
from tiny_runs import losses, trl_settings, weights
from transformers import set_seed
from vllm_on_cpu import ask_for_float32

from repro_trl import (
    ReproGRPOConfig,
    ReproGRPOTrainer,
    ReproPPOConfig,
    ReproPPOTrainer,
    ReproReinforcePlusPlusConfig,
    ReproReinforcePlusPlusTrainer,
)
from repro_trl.demo import ANSWER_PREFIX, MODEL_DIR, task
from repro_trl.generation import TransformersSampler, prompt_ids
from repro_trl.rewards import answer_reward
from repro_trl.sampling import Sampling

TRAINERS = {
    "grpo": (ReproGRPOTrainer, ReproGRPOConfig),
    "reinforce++": (ReproReinforcePlusPlusTrainer, ReproReinforcePlusPlusConfig),
    "ppo": (ReproPPOTrainer, ReproPPOConfig),
}
GREEDY_PROMPTS = 4


def make_trainer(algorithm: str, folder: Path, peft_config: Any = None, **overrides: Any) -> Any:
    """Two steps of sixteen completions, in micro-batches of eight, in colocate mode."""
    trainer_class, config_class = TRAINERS[algorithm]

    class Counted(CountsForwards, trainer_class):
        """Keeps what was scored, and every generation batch."""

        def __init__(self, *args: Any, **kwargs: Any) -> None:
            self.batches: list[dict[str, Any]] = []
            super().__init__(*args, **kwargs)

        def _generate_and_score_completions(self, inputs):
            self.batches.append(super()._generate_and_score_completions(inputs))
            return self.batches[-1]

    set_seed(0)  # of new adapters
    settings = {
        "gradient_accumulation_steps": 2,
        "max_completion_length": 128,
        "use_vllm": True,
        "vllm_mode": "colocate",
        "vllm_max_model_length": 256,
        "repro_alpha": 0.5,
        "repro_answer_prefix": ANSWER_PREFIX,
        "repro_method": "shared",
        **overrides,
    }
    config = config_class(**trl_settings(folder, **settings))
    rows = task.train_dataset(size=32, seed=3)
    return Counted(
        str(MODEL_DIR), answer_reward, config, rows, eval_dataset=rows.select(range(4)), peft_config=peft_config
    )


def train(algorithm: str, folder: Path, float32: bool = True, resume: str | None = None, **overrides: Any):
    """What a run did, in plain values: a process can hand them over."""
    if float32:
        ask_for_float32()
    trainer = make_trainer(algorithm, folder, **overrides)
    start = weights(trainer.model)
    trainer.train(resume_from_checkpoint=resume)
    logged = [entry for entry in trainer.state.log_history if "loss" in entry]
    return {
        "losses": losses(trainer),
        "logged": logged,
        "evaluated": [entry for entry in trainer.state.log_history if "eval_repro/segments" in entry],
        "moved": not torch.equal(weights(trainer.accelerator.unwrap_model(trainer.model)), start),
        "read_on_trls_pass": trainer.scored,
        "forwards": trainer.forwards_per_batch,
        "per_token": [batch["advantages"].dim() == 2 for batch in trainer.batches],
        "differences": [difference(batch) for batch in trainer.batches if "old_per_token_logps" in batch],
        "corrected": ["importance_sampling_ratio" in batch for batch in trainer.batches],
        "completions": [batch["completion_ids"].tolist() for batch in trainer.batches],
        "processes": trainer.accelerator.num_processes,
        "form": trainer._scorer.reader.form.prefix if trainer.args.repro_alpha else None,
        "greedy": greedy_completions(trainer) if trainer.args.vllm_mode == "colocate" else None,
    }


def difference(batch: dict[str, Any]) -> float:
    """
    The largest difference of a sampled token's log-probability between trainer and vLLM: in nats down to -1, relative
    below.
    """
    trained, sampled = batch["old_per_token_logps"], batch["sampling_per_token_logps"]
    differences = (trained - sampled).abs() / sampled.abs().clamp(min=1)
    return differences[batch["completion_mask"].bool()].max().item()


def greedy_completions(trainer: Any) -> tuple[list[list[int]], list[list[int]]]:
    """Of the weights as they are after training: what vLLM writes once it has them, and what transformers does."""
    from vllm import SamplingParams

    prompts = [prompt_ids(trainer._tokenizer, row["prompt"]) for row in task.eval_dataset(GREEDY_PROMPTS)]
    generation = trainer.vllm_generation
    generation.sync_weights()
    outputs = generation.llm.generate(
        [{"prompt_token_ids": ids} for ids in prompts], SamplingParams(temperature=0, max_tokens=64), use_tqdm=False
    )
    model = trainer.accelerator.unwrap_model(trainer.model)
    sampler = TransformersSampler(model, trainer._tokenizer)
    expected = sampler.generate(prompts, [0] * len(prompts), Sampling(temperature=0, max_new_tokens=64))
    return [list(output.outputs[0].token_ids) for output in outputs], [generation.ids for generation in expected]
