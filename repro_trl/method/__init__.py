"""
RePro itself, and nothing of TRL: a completion is cut into segments, the policy's confidence in the answer is read at
each cut, and its rise becomes a reward for each segment and an advantage for each token.

The functions below are plain ones on padded tensors, for rewards of your own:

    segments -> objective -> process_reward -> advantage
"""

from typing import TYPE_CHECKING

from ..lazy import lazy_names

if TYPE_CHECKING:
    from .advantage import normalize_rewards, reward_to_go, segment_credit
    from .objective import answer_log_probs
    from .process_reward import magnitude_score, process_rewards, stability_score
    from .segments import find_segment_starts, select_boundaries

# Of each module the public names that it holds.
_NAMES = {
    ".objective": ("answer_log_probs",),
    ".segments": ("find_segment_starts", "select_boundaries"),
    ".process_reward": ("magnitude_score", "process_rewards", "stability_score"),
    ".advantage": ("normalize_rewards", "reward_to_go", "segment_credit"),
}

__all__ = [
    "answer_log_probs",
    "find_segment_starts",
    "magnitude_score",
    "normalize_rewards",
    "process_rewards",
    "reward_to_go",
    "segment_credit",
    "select_boundaries",
    "stability_score",
]

__getattr__, __dir__ = lazy_names(__name__, _NAMES)
