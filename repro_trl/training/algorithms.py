"""The algorithms that have a training command: their scripts and default configs."""

from dataclasses import dataclass
from pathlib import Path

from ..demo import CONFIG_DIR

POCKET = "pocket"
"""Name under which configs ask for the bundled model and its task."""


@dataclass(frozen=True)
class Algorithm:
    """
    Attributes:
        title: its name in print.
        script: module with the script that trains it.
        default_config: YAML file for the bundled model.
    """

    title: str
    script: str
    default_config: Path


ALGORITHMS = {
    "grpo": Algorithm("GRPO", "repro_trl.training.scripts.grpo", CONFIG_DIR / "grpo.yaml"),
    "ppo": Algorithm("PPO", "repro_trl.training.scripts.ppo", CONFIG_DIR / "ppo.yaml"),
    "reinforce-pp": Algorithm(
        "REINFORCE++", "repro_trl.training.scripts.reinforce_pp", CONFIG_DIR / "reinforce_pp.yaml"
    ),
}
"""By the name of the command."""
