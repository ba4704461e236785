"""Short training runs of a tiny policy whose completions hold many segments."""

from typing import Any

import torch
from pocket.make import make_tokenizer
from torch import Tensor

from repro_trl import ReproGRPOTrainer

_DELIMITER_ID = make_tokenizer().encode("\n\n")[0]


def trl_settings(output_dir, **overrides: Any) -> dict[str, Any]:
    """Arguments of any TRL config: two steps of eight completions, on the CPU, without files."""
    return {
        "output_dir": str(output_dir),
        "use_cpu": True,
        "bf16": False,
        "gradient_checkpointing": False,
        "per_device_train_batch_size": 8,
        "num_generations": 4,
        "max_completion_length": 24,
        "max_steps": 2,
        "learning_rate": 1e-3,
        "logging_steps": 1,
        "report_to": "none",
        "save_strategy": "no",
        "disable_tqdm": True,
        **overrides,
    }


def settings(output_dir, **overrides: Any) -> dict[str, Any]:
    """`trl_settings` and RePro's in the paper's form, with about every fifth token a blank line."""
    repro = {
        "repro_alpha": 0.5,
        "repro_answer_prefix": "",
        "repro_top_k": 4,
        "generation_kwargs": {"sequence_bias": [[[_DELIMITER_ID], 6.0]]},
    }
    return trl_settings(output_dir, **{**repro, **overrides})


def token_reward(completion_ids, **kwargs) -> list[float]:
    """Differs between completions, whatever they say."""
    return [float(sum(ids) % 5) for ids in completion_ids]


def losses(trainer) -> list[float]:
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]


def weights(model) -> Tensor:
    """All trainable parameters in one vector."""
    return torch.cat([p.detach().flatten().float() for p in model.parameters() if p.requires_grad])


class CheckedTrainer(ReproGRPOTrainer):
    """Checks every generation batch, and keeps it: outcome (B,) and total (B, T) advantages of each rollout."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.rollouts: list[tuple[Any, Tensor, Tensor]] = []
        self.start = weights(self.model)

    def _compute_advantages(self, rollout):
        outcome = rollout.batch["advantages"].clone()
        total = super()._compute_advantages(rollout)
        assert total.shape == rollout.batch["completion_ids"].shape
        assert total.isfinite().all()
        assert not total[~rollout.policy_mask].any(), "advantage on padding, tool output or a masked completion"
        self.rollouts.append((rollout, outcome, total.clone()))
        return total

    def process_advantages(self) -> list[Tensor]:
        """What RePro added, for each generation batch."""
        return [
            (total - outcome[:, None]).masked_fill(~rollout.policy_mask, 0)
            for rollout, outcome, total in self.rollouts
        ]
