"""
`AdvantageHook`: gives TRL's trainers `_compute_advantages`, and says what of TRL and transformers all of it rests on.

`PRIVATE_MEMBERS` lists every private member that this package calls, overrides or reads, and the file that does. TRL
promises none of them: tests/trainers/test_trl_contract.py holds each at both ends of the supported range.
"""

import logging
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from transformers.integrations import is_deepspeed_zero3_enabled

from .estimators import sequence_ratio_log_probs
from .images import has_image
from .resume import ExactResume
from .shared_pass import SharedPass

logger = logging.getLogger(__name__)

PRIVATE_MEMBERS = {
    # methods of trl.GRPOTrainer that are overridden
    "_generate_and_score_completions": "hook.py: advantages are replaced after it",
    "_calculate_rewards": "hook.py: the rewards of single functions are kept",
    "_compute_loss": "hook.py: GSPO-token around it; token_reward.py: the KL term; ppo/trainer.py: the critic",
    "_get_per_token_logps_and_entropies": "hook.py: answers are read in it; token_reward.py and repro.py call it",
    # methods of transformers.Trainer that are overridden
    "_set_signature_columns_if_needed": "repro.py: the column with the ground truth is kept",
    "_get_train_sampler": "resume.py: the order of prompts is brought up to the epoch",
    "_save_rng_state": "resume.py: rollouts in use are kept beside it",
    "_load_from_checkpoint": "resume.py: weights under old names; ppo/trainer.py: the critic's",
    "_load_optimizer_and_scheduler": "resume.py: rollouts are restored after it",
    "_prepare_for_training": "ppo/trainer.py: the critic is prepared after the policy",
    "_save_optimizer_and_scheduler": "ppo/trainer.py: the critic's are saved beside them",
    # attributes that are read or set
    "_logs": "hook.py, repro.py, trace_recorder.py: TRL's completions table",
    "_metrics": "repro.py, token_reward.py, ppo/trainer.py: metrics of the next log",
    "_signature_columns": "repro.py: see `_set_signature_columns_if_needed`",
    "_tokenizer": "repro.py, trace_recorder.py, ppo/trainer.py: the tokenizer, also of a processor",
    "_is_vlm": "hook.py, ppo/trainer.py: whether prompts may hold images",
    "_step": "resume.py: micro-batches since the last generation",
    "_buffered_inputs": "resume.py: rollouts in use",
}
"""Private members of TRL's and transformers' trainers that this package relies on: where, and for what."""


@dataclass
class Rollout:
    """
    One process's slice of a generation batch as TRL made it: B completions, prompts of length P, completions of T.

    Attributes:
        examples: the B dataset rows.
        batch: the tensors TRL hands to the loss; `batch["advantages"]` (B,) is TRL's own outcome advantage.
        rewards_per_func: (B, F) raw reward of each reward function, NaN where it returned `None`.
        groups: (B,) id of each completion's prompt group, unique over all processes.
    """

    examples: list[dict[str, Any]]
    batch: dict[str, Any]
    rewards_per_func: Tensor
    groups: Tensor

    @property
    def policy_mask(self) -> Tensor:
        """(B, T) bool: tokens that the policy wrote and the loss sees; not padding, tool output or masked rows."""
        mask = self.batch["completion_mask"].bool()
        return mask & self.batch["tool_mask"].bool() if "tool_mask" in self.batch else mask


class AdvantageHook(ExactResume):
    """
    Gives a TRL trainer a method to override, `_compute_advantages`. Put it before the trainer class:
    `class MyTrainer(AdvantageHook, GRPOTrainer)`.

    TRL computes advantages inline while it generates and scores, and its loss accepts per-token advantages. This class
    calls TRL's methods without copying any, and replaces the advantages between the two. TRL then logs the new ones.

    With `importance_sampling_level="sequence"`, TRL's gradient would average a completion's advantages, because all of
    its tokens share one differentiable ratio. Per-token advantages then use the form of GSPO-token (arXiv 2507.18071,
    §4.3): the same ratio, but each token has its own gradient.
    """

    # Reads along when the policy runs over the rollouts, where a subclass sets one.
    _shared_pass: SharedPass | None = None
    # The inputs of a loss in the GSPO-token form, while it is computed.
    _gspo_token_inputs: dict[str, Any] | None = None
    _is_image_log_warned = False

    @property
    def _mode(self) -> str:
        """Which of TRL's metrics are logged to."""
        return "train" if self.model.training else "eval"

    @property
    def _size(self) -> int:
        """Completions per forward."""
        args = self.args
        return args.per_device_train_batch_size if self.model.training else args.per_device_eval_batch_size

    def _compute_advantages(self, rollout: Rollout) -> Tensor:
        """
        Advantages that reach the loss: (B,), one per completion, or (B, T), one per completion token.

        Override it, usually as `super()._compute_advantages(rollout) + …`. It runs without gradients on every process
        for every generation batch, in training and in evaluation. If it uses collectives, all processes must call
        them.
        """
        return rollout.batch["advantages"]

    def _before_rollout(self, examples: list[dict[str, Any]]) -> None:
        """Called with the dataset rows before a generation batch is made from them."""

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        log_multimodal = self.log_multimodal
        if self._is_vlm and self.accelerator.num_processes > 1:
            self._check_images(inputs)
        self._before_rollout(inputs)
        try:
            batch = super()._generate_and_score_completions(inputs)
            self._replace_advantages(inputs, batch)
        finally:
            self.log_multimodal = log_multimodal
            if self._shared_pass is not None:
                self._shared_pass.close()
        return batch

    def _replace_advantages(self, examples: list[dict[str, Any]], batch: dict[str, Any]) -> None:
        rows = len(examples)
        first_row = self.accelerator.process_index * rows
        num_generations = self.num_generations if self.model.training else self.num_generations_eval
        row_ids = torch.arange(first_row, first_row + rows, device=batch["completion_ids"].device)
        rollout = Rollout(
            examples=examples,
            batch=batch,
            rewards_per_func=self._rewards_per_func[first_row : first_row + rows],
            groups=row_ids // num_generations,
        )
        with torch.no_grad():
            advantages = self._compute_advantages(rollout)
        if advantages is not batch["advantages"]:
            self._check_advantages(advantages, batch["completion_ids"])
            batch["advantages"] = advantages
            self._rewrite_logged_advantages(advantages, rollout.policy_mask)

    def _read_completions(self, completions: list[Any], completion_ids: list[list[int]]) -> None:
        """Called with what reward functions and logs are given, in TRL's form; change it in place."""

    def _calculate_rewards(
        self, inputs: list[dict[str, Any]], prompts: list[Any], completions: list[Any], completion_ids_list: list[Any]
    ) -> Tensor:
        self._read_completions(completions, completion_ids_list)
        # TRL keeps the rewards of single functions to itself; algorithms other than GRPO start from them.
        self._rewards_per_func = super()._calculate_rewards(inputs, prompts, completions, completion_ids_list)
        return self._rewards_per_func

    def _compute_loss(self, model: Any, inputs: dict[str, Any]) -> Tensor:
        if self.importance_sampling_level != "sequence" or inputs["advantages"].dim() == 1:
            return super()._compute_loss(model, inputs)
        self.importance_sampling_level, self._gspo_token_inputs = "token", dict(inputs)
        try:
            return super()._compute_loss(model, self._gspo_token_inputs)
        finally:
            self.importance_sampling_level, self._gspo_token_inputs = "sequence", None

    def _get_per_token_logps_and_entropies(
        self,
        model: nn.Module,
        input_ids: Tensor,
        attention_mask: Tensor,
        logits_to_keep: int,
        batch_size: int | None = None,
        **kwargs: Any,
    ) -> tuple[Tensor, ...]:
        run = super()._get_per_token_logps_and_entropies
        if self._shared_pass is not None and self._shared_pass.takes(model):
            run = partial(run, logits_to_keep=logits_to_keep, compute_entropy=True)
            size = batch_size or len(input_ids)
            return self._shared_pass.run(run, input_ids, attention_mask, logits_to_keep, size)
        log_probs, *rest = run(model, input_ids, attention_mask, logits_to_keep, batch_size=batch_size, **kwargs)
        inputs = self._gspo_token_inputs
        if inputs is not None:
            # TRL reads the old log-probabilities after this call, and takes exp(new - old) as the ratio.
            mask = inputs["completion_mask"] * inputs.get("tool_mask", 1)
            inputs["old_per_token_logps"] = sequence_ratio_log_probs(
                log_probs, inputs.get("old_per_token_logps", log_probs), mask.bool()
            )
        return log_probs, *rest

    # --------------------------------------------------------------------------------------------------------- checks

    def _sum_over_processes(self, ratios: dict[str, tuple[Any, Any]]) -> dict[str, tuple[float, float]]:
        """Both numbers of each pair (one-element tensors or plain numbers) summed over all processes; collective."""
        device = self.accelerator.device
        pairs = ratios.values()
        numbers = [torch.as_tensor(number, dtype=torch.float32, device=device) for pair in pairs for number in pair]
        # Stacked first, so that the host waits for the device once.
        totals = self.accelerator.reduce(torch.stack(numbers), reduction="sum").tolist()
        return dict(zip(ratios, zip(totals[::2], totals[1::2], strict=True), strict=True))

    def _check_images(self, inputs: list[dict[str, Any]]) -> None:
        """See to it that processes whose rows hold images, and others whose rows do not, stay in step."""
        has_images = any(has_image(example) for example in inputs)
        local = torch.tensor([has_images], device=self.accelerator.device)
        if len(self.accelerator.gather(local).unique()) == 1:
            return
        if self.is_fsdp_enabled or is_deepspeed_zero3_enabled():
            raise ValueError(
                "Some processes have images in this batch and others have none, so they cannot exchange the parts "
                "of the model that read images. Order the dataset so that in each generation batch either all "
                "prompts have images or none has, or use a config that does not split the model (not ZeRO-3 or "
                "FSDP)."
            )
        if self.log_multimodal and not self._is_image_log_warned and self.accelerator.is_main_process:
            logger.warning("Images are not logged for batches in which some processes have none.")
        self._is_image_log_warned = True
        self.log_multimodal = False  # TRL would gather them from those processes alone that have some

    def _check_advantages(self, advantages: Tensor, completion_ids: Tensor) -> None:
        rows, length = completion_ids.shape
        if advantages.shape not in {(rows,), (rows, length)}:
            raise ValueError(
                f"{type(self).__name__}._compute_advantages returned shape {tuple(advantages.shape)}; return "
                f"({rows},), one value per completion, or ({rows}, {length}), one per completion token."
            )

    def _rewrite_logged_advantages(self, advantages: Tensor, policy_mask: Tensor) -> None:
        # TRL's completions table holds one number per completion: the mean over the tokens that are trained on.
        if advantages.dim() == 2:
            tokens = policy_mask.sum(dim=1).clamp(min=1)
            advantages = (advantages * policy_mask).sum(dim=1) / tokens
        logged = self._logs["advantages"]
        values = self.accelerator.gather(advantages).tolist()
        for _ in range(min(len(values), len(logged))):
            logged.pop()
        logged.extend(values)
