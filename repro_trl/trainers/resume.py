"""`ExactResume`: a run that died comes back as if it had not."""

import dataclasses
import json
import logging
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import is_peft_model, send_to_device
from transformers import TrainingArguments
from transformers.conversion_mapping import get_model_conversion_mapping

logger = logging.getLogger(__name__)

STATE_FILE = "repro_state.json"

# Of transformers' own settings, those that shape the tensors of a rollout; which of TRL's appear in it depends on
# `gradient_accumulation_steps`.
_SHAPING = {"per_device_train_batch_size", "gradient_accumulation_steps", "bf16", "fp16"}
# Settings of TRL and of this package that act after a rollout is made, or on what is shown of it.
_NOT_SHAPING = {
    *("epsilon", "epsilon_high", "delta", "loss_type", "top_entropy_quantile", "log_completions", "log_multimodal"),
    *("num_completions_to_print", "log_unique_prompts", "log_completions_hub_repo", "num_generations_eval"),
    *("repro_trace_steps", "critic_learning_rate", "critic_max_grad_norm", "critic_warmup_steps", "cliprange_value"),
    *("vllm_server_base_url", "vllm_server_host", "vllm_server_port", "vllm_server_timeout", "vllm_group_port"),
}


class ExactResume:
    """
    Completes TRL's checkpoints; a base of `AdvantageHook`, before the trainer class.

    A checkpoint in the middle of a generation batch (`num_iterations` > 1, or `steps_per_generation` beyond one
    optimizer step) holds the rest of that batch, so that a resumed run goes on as if it had not stopped. TRL drops
    it and generates anew; and it repeats the first epoch's order of prompts in every epoch after the first.
    """

    # What orders the prompts; a streamed dataset has no sampler.
    _train_sampler: Iterable[int] = ()

    def _get_train_sampler(self, *args: Any, **kwargs: Any) -> Any:
        self._train_sampler = super()._get_train_sampler(*args, **kwargs)
        return self._train_sampler

    @property
    def _generation_settings(self) -> dict[str, str]:
        """What the tensors of a rollout depend on, by name. A setting that is not known to leave them alone counts."""
        args = self.args
        general = {f.name for f in dataclasses.fields(TrainingArguments)} - _SHAPING
        names = sorted({f.name for f in dataclasses.fields(args)} - general - _NOT_SHAPING)
        return {"number of processes": str(self.accelerator.num_processes)} | {
            n: repr(getattr(args, n)) for n in names
        }

    def _kept_state(self) -> dict[str, Any]:
        """What else a checkpoint keeps, as JSON; the same on all processes."""
        return {}

    def _restore_state(self, state: dict[str, Any]) -> None:
        """Take over what `_kept_state` returned."""

    def _rollouts_file(self, checkpoint: str) -> str:
        return os.path.join(checkpoint, f"rollouts_{self.accelerator.process_index}.pt")

    def _save_rng_state(self, output_dir: str) -> None:
        # Like the state of random numbers, rollouts are each process's own.
        super()._save_rng_state(output_dir)
        state = self._kept_state()
        if state and self.args.should_save:
            Path(output_dir, STATE_FILE).write_text(json.dumps(state) + "\n", encoding="utf-8")
        if self._step % (self.args.steps_per_generation * self.num_iterations) != 0:
            rollouts = {"settings": self._generation_settings, "step": self._step, "batches": self._buffered_inputs}
            torch.save(rollouts, self._rollouts_file(output_dir))

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        super()._load_from_checkpoint(resume_from_checkpoint, model)
        model = self.model if model is None else model
        if self.is_deepspeed_enabled or self.is_fsdp_enabled or is_peft_model(model):
            return
        # Weights that transformers knows by other names today (vision-language models, experts) are saved under their
        # old ones, which a Trainer that resumes does not translate: it passes over them with a warning.
        if get_model_conversion_mapping(model, add_legacy=False):
            saved = type(model).from_pretrained(resume_from_checkpoint, dtype=model.dtype, device_map="cpu")
            model.load_state_dict(saved.state_dict())

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        super()._load_optimizer_and_scheduler(checkpoint)
        if checkpoint is None:
            return
        # The sampler shuffles anew in every epoch, from one generator that a new process starts at the first.
        for _ in range(int(self.state.epoch)):
            next(iter(self._train_sampler), None)
        state_file = Path(checkpoint, STATE_FILE)
        if state_file.is_file():
            self._restore_state(json.loads(state_file.read_text(encoding="utf-8")))

        file = self._rollouts_file(checkpoint)
        saved = torch.load(file, map_location="cpu") if os.path.isfile(file) else None
        fits = saved is not None and saved["settings"] == self._generation_settings
        # Processes that generate and processes that do not would wait for each other.
        all_fit = self.accelerator.gather(torch.tensor([fits], device=self.accelerator.device)).all()
        if all_fit:
            self._step = saved["step"]
            self._buffered_inputs = send_to_device(saved["batches"], self.accelerator.device)
        elif saved is not None and self.accelerator.is_main_process:
            logger.warning(
                "The rollouts saved in %s were generated with other settings (%s): their completions are "
                "generated again.",
                checkpoint,
                self._changes(saved["settings"]),
            )

    def _changes(self, saved: Any) -> str:
        if not isinstance(saved, dict):
            return "from another version of this package"
        current = self._generation_settings
        names = [name for name in sorted({*saved, *current}) if saved.get(name) != current.get(name)]
        changes = [f"{name} {saved.get(name, 'unset')}, now {current.get(name, 'unset')}" for name in names]
        return "; ".join(changes) or "on another process"
