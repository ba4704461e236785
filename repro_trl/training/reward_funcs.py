"""Reward functions beside the verdict on the answer, by the names that `trl grpo` knows them by."""

import importlib
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from trl.rewards import (
    accuracy_reward,
    get_soft_overlong_punishment,
    reasoning_accuracy_reward,
    think_format_reward,
)

from .names import nearest

VERDICTS = {"accuracy_reward": accuracy_reward, "reasoning_accuracy_reward": reasoning_accuracy_reward}
"""TRL's own verdicts on the answer."""
REWARD_FUNCS = {
    **VERDICTS,
    "think_format_reward": think_format_reward,
    # The values of `trl grpo`.
    "get_soft_overlong_punishment": get_soft_overlong_punishment(max_completion_len=1280, soft_punish_cache=256),
}


def load_reward_funcs(names: Sequence[str] | None, model: str | None) -> list[Callable[..., list[float | None]] | str]:
    """
    A reward model, if any, and the functions of these names, in the order of `trl grpo`.

    Args:
        names: keys of `REWARD_FUNCS`, or dotted import paths, looked for in the working folder too.
        model: name or folder of a reward model.

    Raises:
        ValueError: there is no such function.
    """
    return [*([model] if model else []), *(_load(name) for name in names or [])]


def _load(name: str) -> Callable[..., list[float | None]]:
    if name in REWARD_FUNCS:
        return REWARD_FUNCS[name]
    module_name, _, attribute = name.rpartition(".")
    if not module_name:
        raise ValueError(
            f"reward_funcs: {name!r} is none of {', '.join(REWARD_FUNCS)} (the nearest is "
            f"{nearest(name, REWARD_FUNCS)!r}). For your own function, give its import path, such as "
            "my_lib.rewards.brevity"
        )
    folder = str(Path.cwd())
    if folder not in sys.path:
        sys.path.insert(0, folder)
    try:
        function = getattr(importlib.import_module(module_name), attribute)
    except (ModuleNotFoundError, AttributeError) as error:
        raise ValueError(f"reward_funcs: {name!r} cannot be imported ({error})") from error
    if not callable(function):
        raise ValueError(f"reward_funcs: {name!r} is not a function")
    return function


def reward_weights(given: Sequence[float] | None, names: Sequence[str] | None, others: int) -> list[float] | None:
    """
    Weights of all rewards, that of the verdict on the answer first.

    It has weight 1; but weight 0, so that it is measured and not learned from twice, beside one of TRL's verdicts.

    Args:
        given: `reward_weights` of the config: one weight per reward beside the verdict on the answer, as `trl grpo`
            has them, or one more, that of the verdict, in front.
        names: of the reward functions.
        others: number of rewards beside the verdict on the answer.

    Raises:
        ValueError: another number of weights.
    """
    if given is not None and len(given) == others + 1:
        return list(given)
    if given is not None and len(given) != others:
        raise ValueError(
            f"reward_weights={list(given)}: give {others + 1} weights, the first for the answer reward, or "
            f"{others}, one for each of reward_funcs and the reward model"
        )
    if not others:
        return None
    weight = 0.0 if set(VERDICTS) & set(names or []) else 1.0
    return [weight, *(given or [1.0] * others)]
