"""What is checked of a trainer before its first step, beside its settings and its ground truth."""

from typing import Any

import torch
from transformers.utils import logging

logger = logging.get_logger(__name__)


def check_dataset(trainer: Any) -> None:
    """Raise a `ValueError` for a training set without the column that TRL reads prompts from."""
    columns = trainer.train_dataset.column_names
    if columns is not None and "prompt" not in columns and trainer.environment_factories is None:
        raise ValueError(
            f"train_dataset has no column 'prompt', only {columns}. Rename the column that holds the problem, for "
            "example dataset.rename_column('question', 'prompt')."
        )


def check_engine_dtype(trainer: Any) -> None:
    """Warn where vLLM in colocate mode computes in another precision than the trainer."""
    args = trainer.args
    if not args.use_vllm or args.vllm_mode != "colocate" or not trainer.accelerator.is_main_process:
        return
    # TRL leaves the choice to vLLM, which takes 16 bits for weights that are saved in 32.
    sampled = trainer.vllm_generation.llm.llm_engine.model_config.dtype
    precision = {"bf16": torch.bfloat16, "fp16": torch.float16}
    trained = precision.get(trainer.accelerator.mixed_precision, trainer.model.dtype)
    if sampled is not trained:
        logger.warning(
            "vLLM computes in %s, the trainer in %s: their log-probabilities differ, and TRL has no setting for "
            "vLLM's dtype in colocate mode. Keep vllm_importance_sampling_correction=True, train in %s, or use "
            "vllm_mode='server' and `vllm serve --dtype`.",
            sampled,
            trained,
            sampled,
        )
