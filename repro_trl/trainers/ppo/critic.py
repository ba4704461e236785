"""PPO's critic: a value model beside the policy, with an optimizer, a schedule and checkpoints of its own."""

import contextlib
import copy
import logging
import os
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import (
    DistributedType,
    is_peft_model,
    load_fsdp_model,
    load_fsdp_optimizer,
    save_fsdp_model,
    save_fsdp_optimizer,
)
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_
from transformers import Trainer, get_scheduler
from transformers.integrations import is_deepspeed_zero3_enabled

from ..images import model_inputs, select_rows
from .config import PPOConfig

logger = logging.getLogger(__name__)

ADAPTER_FOLDER = "adapter"
OPTIMIZER_FILE, SCHEDULER_FILE = "optimizer.pt", "scheduler.pt"


def value_loss(
    values: Tensor, old_values: Tensor, returns: Tensor, mask: Tensor, cliprange: float | None
) -> tuple[Tensor, Tensor]:
    """
    Half the squared error of the values, clipped around those at rollout time as the PPO implementations do.

    L = ½ max((V − G)², (clip(V, V_old − ε, V_old + ε) − G)²). PPO (arXiv 1707.06347) has the unclipped error; the
    clipping is that of the authors' code (arXiv 2005.12729, §3).

    Args:
        values, old_values, returns: (B, T) float.
        mask: (B, T) bool, True at tokens that count.
        cliprange: ε in units of reward; `None`: no clipping.

    Returns:
        (B, T) loss of each token, 0 where masked; and (B, T) bool, where clipping decided.
    """
    error = (values - returns) ** 2
    clipped_error = error
    if cliprange is not None:
        clipped = torch.clamp(values, old_values - cliprange, old_values + cliprange)
        clipped_error = (clipped - returns) ** 2
    loss = 0.5 * torch.maximum(error, clipped_error)
    return loss.masked_fill(~mask, 0.0), (clipped_error > error) & mask


class Critic:
    """
    The value model under whatever the policy runs under: one process, DDP, DeepSpeed ZeRO or FSDP2.

    Every process must make the same calls, each with the same number of rows.

    Attributes:
        model: the value model itself; under FSDP2, once prepared, the sharded one.
        wrapped: what is called: `model`, or its DDP, DeepSpeed or FSDP2 wrapper; `None` until prepared.
    """

    def __init__(self, model: nn.Module, args: PPOConfig, accelerator: Accelerator) -> None:
        self.model = model
        self.args = args
        self.accelerator = accelerator
        self.wrapped: nn.Module | None = None

    def prepare(self, max_steps: int, decay_parameters: list[str]) -> None:
        """
        Wrap the model and make optimizer and schedule, once the policy has been prepared: for `max_steps` optimizer
        steps, with weight decay for the parameters of these names.
        """
        if self.wrapped is None:  # a second `train()` goes on with model and optimizer, as with the policy's
            optimizer = self._make_optimizer(set(decay_parameters))
            if self.accelerator.distributed_type == DistributedType.DEEPSPEED:
                self.wrapped, self.optimizer = self._prepare_deepspeed(optimizer)
            else:
                self.wrapped, self.optimizer = self.accelerator.prepare(self.model, optimizer)
            if self.accelerator.distributed_type == DistributedType.FSDP:
                self.model = self.wrapped
        args = self.args
        self.scheduler = get_scheduler(
            args.lr_scheduler_type,
            optimizer=self.optimizer,
            num_warmup_steps=args.get_warmup_steps(max_steps),
            num_training_steps=max_steps,
            scheduler_specific_kwargs=args.lr_scheduler_kwargs,
        )

    def _make_optimizer(self, decayed: set[str]) -> torch.optim.Optimizer:
        optimizer_class, settings = Trainer.get_optimizer_cls_and_kwargs(self.args, self.model)
        trained = [(name, weight) for name, weight in self.model.named_parameters() if weight.requires_grad]
        groups = [
            {"params": [weight for name, weight in trained if (name in decayed) == decays], "weight_decay": decay}
            for decays, decay in ((True, self.args.weight_decay), (False, 0.0))
        ]
        return optimizer_class(groups, **{**settings, "lr": self.args.critic_learning_rate})

    def _prepare_deepspeed(self, optimizer: torch.optim.Optimizer) -> tuple[nn.Module, torch.optim.Optimizer]:
        # Accelerate ties one engine to one accelerator, so the second is made here, from the policy's configuration.
        import deepspeed
        from accelerate.utils import DeepSpeedEngineWrapper, map_pytorch_optim_to_deepspeed

        config = copy.deepcopy(self.accelerator.state.deepspeed_plugin.deepspeed_config)
        config.pop("optimizer", None)
        config.pop("scheduler", None)
        config["zero_allow_untested_optimizer"] = True
        config["gradient_clipping"] = self.args.critic_max_grad_norm
        offload = config["zero_optimization"].get("offload_optimizer", {}).get("device", "none")
        if offload != "none" and config.get("zero_force_ds_cpu_optimizer", True):
            optimizer = map_pytorch_optim_to_deepspeed(optimizer)
        engine, *_ = deepspeed.initialize(model=self.model, optimizer=optimizer, config=config)
        self._engine = DeepSpeedEngineWrapper(engine)
        return engine, optimizer

    # --------------------------------------------------------------------------------------------------------- values

    def _forward(self, batch: dict[str, Any]) -> Tensor:
        """(B, T+1): the value before each of the T completion tokens, and after the last one."""
        input_ids = torch.cat([batch["prompt_ids"], batch["completion_ids"]], dim=1)
        attention_mask = torch.cat([batch["prompt_mask"], batch["completion_mask"]], dim=1)
        with self.accelerator.autocast():
            output = self.wrapped(
                input_ids=input_ids, attention_mask=attention_mask, use_cache=False, **model_inputs(batch)
            )
        # The state before token t ends with token t−1, which for the first one is the prompt's last.
        return output.logits[:, batch["prompt_ids"].shape[1] - 1 :, 0].float()

    @torch.no_grad()
    def values(self, batch: dict[str, Any]) -> tuple[Tensor, Tensor]:
        """
        Values of a rollout.

        Args:
            batch: `prompt_ids` and `prompt_mask` (B, P), `completion_ids` and `completion_mask` (B, T), and what
                TRL keeps of images.

        Returns:
            (B, T) value before each token, arbitrary at padding; (B,) value after the last one.
        """
        self.wrapped.eval()
        size = self.args.per_device_train_batch_size
        values = torch.cat(
            [
                self._forward(select_rows(batch, slice(first, first + size)))
                for first in range(0, len(batch["prompt_ids"]), size)
            ]
        )
        lengths = batch["completion_mask"].sum(dim=1, keepdim=True)
        return values[:, :-1], values.gather(1, lengths).squeeze(1)

    def learn(self, batch: dict[str, Any], num_tokens: Tensor) -> dict[str, float]:
        """
        Forward and backward for one micro-batch; the optimizer steps where the policy's does.

        Args:
            batch: what `values` takes, and `values`, `returns` and `value_mask` (B, T) from rollout time.
            num_tokens: tokens of this process's share of an optimizer step: what the loss is divided by.

        Returns:
            Metrics of this micro-batch.
        """
        accelerator = self.accelerator
        self.wrapped.train()
        is_step = accelerator.sync_gradients
        mask = batch["value_mask"]
        with contextlib.nullcontext() if is_step else accelerator.no_sync(self.wrapped):
            values = self._forward(batch)[:, :-1]
            loss, clipped = value_loss(values, batch["values"], batch["returns"], mask, self.args.cliprange_value)
            self._backward(loss.sum() / num_tokens)
        sums = torch.stack([loss.detach().sum(), clipped.sum(), mask.sum()])
        total, num_clipped, count = accelerator.reduce(sums, reduction="sum").tolist()
        metrics = {"critic/value_loss": total / max(count, 1), "critic/clip_ratio": num_clipped / max(count, 1)}
        if is_step:
            metrics["critic/grad_norm"] = self._step()
            metrics["critic/learning_rate"] = self.scheduler.get_last_lr()[0]
            self.scheduler.step()
        return metrics

    def _backward(self, loss: Tensor) -> None:
        if self.accelerator.distributed_type == DistributedType.DEEPSPEED:
            # Clips, steps and zeroes the gradients itself where gradients are synchronised.
            self._engine.backward(loss, sync_gradients=self.accelerator.sync_gradients, scale_wrt_gas=False)
        else:
            self.accelerator.backward(loss)

    def _step(self) -> float:
        if self.accelerator.distributed_type == DistributedType.DEEPSPEED:
            return float(self._engine.get_global_grad_norm())
        self.accelerator.unscale_gradients(self.optimizer)
        norm = clip_grad_norm_(self.model.parameters(), self.args.critic_max_grad_norm)
        self.optimizer.step()
        self.optimizer.zero_grad()
        if self.accelerator.distributed_type == DistributedType.FSDP:
            norm = norm.full_tensor()
        return norm.item()

    # ---------------------------------------------------------------------------------------------------- checkpoints

    def weights_folder(self, folder: str) -> str:
        """Where in `folder` the weights are: there, or for a critic with an adapter one level below."""
        # Right in a checkpoint's `critic/`, transformers would take it for another adapter of the policy.
        return os.path.join(folder, ADAPTER_FOLDER) if is_peft_model(self.model) else folder

    def save_pretrained(self, folder: str) -> None:
        """Save the model as transformers and PEFT load it. All processes must call it."""
        if is_deepspeed_zero3_enabled() and not self.wrapped.zero_gather_16bit_weights_on_model_save():
            logger.warning(
                "The critic is saved as DeepSpeed shards, because stage3_gather_16bit_weights_on_model_save is false."
            )
            self.wrapped.save_checkpoint(folder)
            return
        folder = self.weights_folder(folder)
        state_dict = self.accelerator.get_state_dict(self.model if self.wrapped is None else self.wrapped)
        if self.args.should_save:  # only there is the state complete
            self.model.save_pretrained(folder, state_dict=state_dict)

    def save_state(self, folder: str) -> None:
        """Save what, beside the model, an exact continuation needs. All processes must call it."""
        accelerator = self.accelerator
        os.makedirs(folder, exist_ok=True)
        if accelerator.distributed_type == DistributedType.DEEPSPEED:
            self.wrapped.save_checkpoint(folder, exclude_frozen_parameters=is_peft_model(self.model))
        elif accelerator.distributed_type == DistributedType.FSDP:
            plugin = accelerator.state.fsdp_plugin
            save_fsdp_model(plugin, accelerator, self.wrapped, folder)
            save_fsdp_optimizer(plugin, accelerator, self.optimizer, self.wrapped, folder)
        elif self.args.should_save:
            torch.save(self.optimizer.state_dict(), os.path.join(folder, OPTIMIZER_FILE))
        if self.args.should_save:
            torch.save(self.scheduler.state_dict(), os.path.join(folder, SCHEDULER_FILE))

    def load_state(self, folder: str) -> None:
        """Load what `save_state` saved, after `prepare`; with DeepSpeed and FSDP2 the weights as well."""
        accelerator = self.accelerator
        if not os.path.isfile(os.path.join(folder, SCHEDULER_FILE)):
            raise ValueError(f"{folder} has no optimizer state of the critic: it was saved with save_only_model.")
        if accelerator.distributed_type == DistributedType.DEEPSPEED:
            self.wrapped.load_checkpoint(folder, load_module_strict=not is_peft_model(self.model))
        elif accelerator.distributed_type == DistributedType.FSDP:
            plugin = accelerator.state.fsdp_plugin
            load_fsdp_model(plugin, accelerator, self.wrapped, folder)
            load_fsdp_optimizer(plugin, accelerator, self.optimizer, self.wrapped, folder)
        else:
            state = torch.load(os.path.join(folder, OPTIMIZER_FILE), map_location="cpu", weights_only=True)
            self.optimizer.load_state_dict(state)
        self.scheduler.load_state_dict(torch.load(os.path.join(folder, SCHEDULER_FILE), weights_only=True))
