"""The model behind PPO's critic: the policy's transformer, images included, with one number per token."""

import copy
import inspect
from typing import Any

from accelerate.utils import DistributedType
from transformers import (
    MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING,
    MODEL_FOR_TOKEN_CLASSIFICATION_MAPPING,
    MODEL_MAPPING,
    AutoConfig,
    AutoModelForTokenClassification,
    PreTrainedConfig,
    PreTrainedModel,
)
from transformers.conversion_mapping import (
    get_checkpoint_conversion_mapping,
    register_checkpoint_conversion_mapping,
)
from transformers.modeling_layers import GenericForTokenClassification
from trl.trainer.utils import create_model_from_path, disable_dropout_in_model

from .config import PPOConfig


def load_value_model(
    policy_name_or_path: str, args: PPOConfig, peft_config: Any = None, with_images: bool = False
) -> PreTrainedModel:
    """
    A transformer with one number per token: a token classifier with one label, as transformers knows it.

    Args:
        policy_name_or_path: what the critic starts from when `value_model_name_or_path` is `None`.
        peft_config: a `peft.PeftConfig`; the value head is then trained in full beside the adapter.
        with_images: whether the model must read images.

    Raises:
        ValueError: there is no model to start from, because the policy was given in memory; no such model can be made
            of it; or it reads text only where images are read.
    """
    path = args.value_model_name_or_path or policy_name_or_path
    if not path:
        raise ValueError(
            "value_model_name_or_path=None, and the policy has no name or path to load the critic from. Set "
            "value_model_name_or_path, or save the policy and pass its path to the trainer."
        )
    kwargs = dict(args.model_init_kwargs or {})
    kwargs.pop("quantization_config", None)  # a full critic cannot be trained in 4 or 8 bits
    if path != policy_name_or_path:
        kwargs.pop("revision", None)
    if args.distributed_state.distributed_type != DistributedType.NO:
        kwargs["device_map"] = None
    kwargs.setdefault("trust_remote_code", args.trust_remote_code)
    model = _load(path, kwargs)
    if with_images and "pixel_values" not in inspect.signature(type(model.base_model).forward).parameters:
        raise ValueError(
            f"The policy reads images, but a critic made from {path!r} only reads text. Set "
            "value_model_name_or_path to a vision-language model with the policy's processor, or leave it None."
        )
    # Dropout would make the value at rollout time, which clipping and GAE compare with, a random number.
    disable_dropout_in_model(model)
    if args.gradient_checkpointing:
        model.gradient_checkpointing_enable(args.gradient_checkpointing_kwargs)
    if peft_config is not None:
        from peft import LoraConfig, TaskType, get_peft_model

        peft_config = copy.deepcopy(peft_config)
        peft_config.task_type = TaskType.TOKEN_CLS
        if isinstance(peft_config, LoraConfig) and peft_config.target_modules == "all-linear":
            # PEFT would put an adapter on the head as well, which it is told to train in full.
            peft_config.exclude_modules = ["score", "classifier"]
        if args.gradient_checkpointing:
            model.enable_input_require_grads()
        model = get_peft_model(model, peft_config)
    return model


def _load(path: str, kwargs: dict[str, Any]) -> PreTrainedModel:
    names = {name: kwargs[name] for name in ("revision", "trust_remote_code") if name in kwargs}
    config = AutoConfig.from_pretrained(path, **names)
    has_classifier = type(config) in MODEL_FOR_TOKEN_CLASSIFICATION_MAPPING
    if has_classifier or type(config) not in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING:
        return create_model_from_path(path, architecture=AutoModelForTokenClassification, num_labels=1, **kwargs)
    architecture = _image_classifier(config)
    model, loading = create_model_from_path(
        path, architecture=architecture, num_labels=1, output_loading_info=True, **kwargs
    )
    missing = [name for name in loading["missing_keys"] if not name.startswith("score.")]
    if missing:
        raise ValueError(
            f"The critic could not be loaded from {path}: it has no weights for {len(missing)} parameters of "
            f"{architecture.__name__}, such as {missing[0]}. Set value_model_name_or_path, or use GRPO or REINFORCE++."
        )
    return model


def _image_classifier(config: PreTrainedConfig) -> type[PreTrainedModel]:
    """A token classifier for vision-language models, made as transformers makes them; it has hardly any itself."""
    policy_class = MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING[type(config)]
    if policy_class.base_model_prefix != "model" or type(config) not in MODEL_MAPPING:
        raise ValueError(
            f"PPO's critic cannot be made from a {policy_class.__name__}. Set value_model_name_or_path to a model "
            "of another kind, or use GRPO or REINFORCE++."
        )
    name = f"{type(config).__name__.removesuffix('Config')}ForTokenClassification"
    # Older checkpoints hold other names for the same weights, which transformers translates class by class.
    conversions = get_checkpoint_conversion_mapping(policy_class.__name__)
    conversions = conversions or get_checkpoint_conversion_mapping(config.model_type)
    if conversions is not None:
        register_checkpoint_conversion_mapping(name, conversions, overwrite=True)
    family = policy_class.__bases__[0]  # the policy's and its transformer's, which knows how weights are initialised
    return type(name, (GenericForTokenClassification, family), {"__module__": __name__})
