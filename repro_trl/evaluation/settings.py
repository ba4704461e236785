"""What an evaluation is asked to do, without the libraries that do it: `repro-trl eval --help` reads this."""

from dataclasses import dataclass

PAPER_TASKS = ("aime24", "aime25", "math500", "livemathbench", "gpqa_diamond", "mbpp", "livecodebench")
"""Names of the paper's tasks, in the order of its table: the keys of `tasks.HUB_TASKS`."""

BATCH_SIZES = {"transformers": 64, "vllm": 1024}
"""Completions sampled together, by backend, where no number is given."""


@dataclass(frozen=True)
class Sampling:
    """
    How completions are drawn; the defaults are the paper's.

    Attributes:
        temperature: 0 is greedy.
        top_p: probability mass that is kept, in (0, 1].
        max_new_tokens: after which a completion is cut.
        seed: of all completions.
        batch_size: completions that are sampled together.
        delimiter: text between the segments of a thought.
        think_end: text that ends the thought; `None`: all of a completion is thought.

    Raises:
        ValueError: a value out of range.
    """

    temperature: float = 0.6
    top_p: float = 0.95
    max_new_tokens: int = 32768
    seed: int = 0
    batch_size: int = 64
    delimiter: str = "\n\n"
    think_end: str | None = "</think>"

    def __post_init__(self) -> None:
        if not self.temperature >= 0:
            raise ValueError(f"temperature={self.temperature}: give 0 (greedy) or more.")
        if not 0 < self.top_p <= 1:
            raise ValueError(f"top_p={self.top_p}: give a number above 0 and up to 1.")
        for name in ("max_new_tokens", "batch_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)}: give 1 or more.")
        if not self.delimiter or self.think_end == "":
            raise ValueError("delimiter and think_end must not be empty; think_end may be None.")
