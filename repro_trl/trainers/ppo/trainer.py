"""PPO with a critic, plain and with RePro."""

import os
from typing import Any

import torch
from accelerate.utils import set_seed
from torch import Tensor
from trl import GRPOTrainer
from trl.trainer.utils import get_config_model_id

from ..estimators import discounted_returns, gae, masked_moments
from ..hook import Rollout
from ..repro import ReproMixin
from ..token_reward import TokenRewardHook
from .config import PPOConfig, ReproPPOConfig
from .critic import Critic
from .value_model import load_value_model

CRITIC_FOLDER = "critic"
PPO_PAPER = {
    "title": "Proximal Policy Optimization Algorithms",
    "id": "1707.06347",
    "citation": """\
@article{schulman2017proximal,
    title   = {{Proximal Policy Optimization Algorithms}},
    author  = {John Schulman and Filip Wolski and Prafulla Dhariwal and Alec Radford and Oleg Klimov},
    year    = 2017,
    eprint  = {arXiv:1707.06347},
}""",
}


class PPOTrainer(TokenRewardHook, GRPOTrainer):
    """
    PPO (arXiv 1707.06347) on the rollouts, the reward functions and the clipped loss of `trl.GRPOTrainer`.

    Advantages come from generalised advantage estimation (arXiv 1506.02438) over the completion's tokens and are
    whitened over the global batch. The critic's targets are advantages before whitening plus values. The critic is a
    separate model with its own optimizer, saved in `critic/` next to the policy. It is not used in evaluation.

    It takes the arguments of `trl.GRPOTrainer`. `args` is a [`PPOConfig`]. `critic_peft_config` is a `peft.PeftConfig`
    for the critic; `peft_config` is for the policy only.
    """

    _config_class = PPOConfig
    _tag_names = ["trl", "ppo"]
    _name = "PPO"
    _paper = PPO_PAPER

    def __init__(self, *args: Any, critic_peft_config: Any = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        policy = self.accelerator.unwrap_model(self.model)
        set_seed(self.args.seed)  # the same new value head on every process
        model = load_value_model(get_config_model_id(policy.config), self.args, critic_peft_config, self._is_vlm)
        set_seed(self.args.seed, device_specific=True)  # as TRL leaves it: rollouts differ between processes
        self.critic = Critic(model, self.args, self.accelerator)

    def _compute_advantages(self, rollout: Rollout) -> Tensor:
        if not self.model.training:
            return super()._compute_advantages(rollout)
        args = self.args
        rewards, mask = self._token_rewards(rollout, self._outcome_rewards(rollout))
        values, final_values = self.critic.values(rollout.batch)
        bootstrap = final_values * self._is_truncated(rollout.batch) if args.bootstrap_truncated else None
        advantages = gae(rewards, values, mask, args.gamma, args.lam, bootstrap)
        # In the batch they are shuffled and split with the completions they belong to.
        rollout.batch |= {"values": values, "returns": advantages + values, "value_mask": mask}
        self._log_values(values, discounted_returns(rewards, mask, args.gamma), mask)
        return self._whiten_globally(advantages, mask)

    def _is_truncated(self, batch: dict[str, Any]) -> Tensor:
        """(B,) bool: completions that do not end with an end-of-sequence token."""
        last = batch["completion_mask"].sum(dim=1, keepdim=True).clamp(min=1) - 1
        ends = torch.tensor([*self.eos_token_ids, self._tokenizer.pad_token_id], device=last.device)
        return ~torch.isin(batch["completion_ids"].gather(1, last).squeeze(1), ends)

    def _log_values(self, values: Tensor, returns: Tensor, mask: Tensor) -> None:
        """Explained variance is 1 − Var(G − V) / Var(G), with G the return that came, not the critic's target."""
        residual, variance = (self._global_variance(x, mask) for x in (returns - values, returns))
        variance = variance if variance > 0 else torch.nan  # equal returns: there is nothing to explain
        self._log_ratios(
            {
                "critic/explained_variance": (1 - residual / variance, 1),
                "critic/value_mean": (values.masked_fill(~mask, 0.0).sum(), mask.sum()),
                "critic/return_mean": (returns.sum(), mask.sum()),
            }
        )

    def _global_variance(self, values: Tensor, mask: Tensor) -> Tensor:
        counts, means, deviations = self.accelerator.gather(masked_moments(values, mask)).view(-1, 3).unbind(dim=1)
        mean = (counts * means).sum() / counts.sum()
        return (deviations.sum() + (counts * (means - mean) ** 2).sum()) / counts.sum()

    # --------------------------------------------------------------------------------------------- the critic's steps

    def _compute_loss(self, model: Any, inputs: dict[str, Any]) -> Tensor:
        loss = super()._compute_loss(model, inputs)
        if self.model.training:
            self._critic_batch = inputs
            if self.state.global_step < self.args.critic_warmup_steps:
                loss = loss * 0.0
        return loss

    def training_step(self, model: Any, inputs: Any, num_items_in_batch: Any) -> Tensor:
        loss = super().training_step(model, inputs, num_items_in_batch)
        # Only now: the policy's activations are freed. As in TRL's token-level loss, every token of an optimizer
        # step has the same weight, whatever its completion, micro-batch or process.
        batch = self._critic_batch
        num_tokens = batch["num_items_in_batch"].clamp(min=1.0) / self.accelerator.num_processes
        num_tokens = num_tokens * self.current_gradient_accumulation_steps / self.args.steps_per_generation
        for name, value in self.critic.learn(batch, num_tokens).items():
            self._metrics["train"][name].append(value)
        return loss

    def _prepare_for_training(self, max_steps: int, train_dataloader: Any, resume_from_checkpoint: Any) -> Any:
        prepared = super()._prepare_for_training(max_steps, train_dataloader, resume_from_checkpoint)
        checkpoint = resume_from_checkpoint and os.path.join(resume_from_checkpoint, CRITIC_FOLDER)
        if checkpoint and not (self.is_deepspeed_enabled or self.is_fsdp_enabled):
            self._load_from_checkpoint(self.critic.weights_folder(checkpoint), self.critic.model)
        self.critic.prepare(max_steps, self.get_decay_parameter_names(self.critic.model))
        if checkpoint:
            self.critic.load_state(checkpoint)
        return prepared

    # ---------------------------------------------------------------------------------------------------- checkpoints

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        # Before the policy, whose saving may push the folder to the Hub.
        self.critic.save_pretrained(os.path.join(output_dir or self.args.output_dir, CRITIC_FOLDER))
        super().save_model(output_dir, _internal_call)

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        super()._save_optimizer_and_scheduler(output_dir)
        self.critic.save_state(os.path.join(output_dir, CRITIC_FOLDER))


class ReproPPOTrainer(ReproMixin, PPOTrainer):
    """
    [`PPOTrainer`] with the process advantage of RePro added to every completion token. The critic still learns
    the outcome return only.

    `args` is a [`ReproPPOConfig`]; with a plain TRL config, all other settings have their defaults.
    """

    _config_class = ReproPPOConfig
    _tag_names = ["trl", "ppo", "repro"]
    _name = "RePro PPO"
