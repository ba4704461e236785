"""
What other libraries print at the start of a training, though nobody who runs a command can do anything about it.

Commands and scripts call this, the trainers never do.
"""

import logging
import sys
import warnings

# Names whose deprecation is announced though nobody who runs a command uses them: TRL's configs set the first one, its
# trainers call the others.
_DEPRECATED = (
    "gradient_checkpointing",
    "is_gradient_checkpointing",
    "gradient_checkpointing_enable",
    "gradient_checkpointing_disable",
)


class _Without(logging.Filter):
    """Drops messages that start with a text."""

    def __init__(self, start: str, unless: str | None = None) -> None:
        super().__init__()
        self.start, self.unless = start, unless

    def filter(self, record: logging.LogRecord) -> bool:
        message = record.getMessage()
        return not message.startswith(self.start) or (self.unless is not None and self.unless in message)


def quiet_upstream() -> None:
    """Drop the warnings listed in this module, and where output is no terminal the bars of loading and preparing."""
    for name in _DEPRECATED:
        warnings.filterwarnings("ignore", f"`{name}` is deprecated", FutureWarning)
    # DeepSpeed is imported wherever it is installed, used or not.
    logging.getLogger("DeepSpeed").addFilter(_Without("Setting accelerator to CPU."))
    if not sys.stderr.isatty():
        quiet_bars()


def quiet_bars() -> None:
    """Turn off the bars of transformers and datasets, such as those of loading weights and of saving them."""
    # Here, for the commands call `quiet_launcher` without loading a model library.
    import datasets
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()
    datasets.disable_progress_bars()


def quiet_launcher() -> None:
    """
    Drop accelerate's list of the values that it took by itself: on one process they are the only ones there are. It
    stays where accelerate has found several GPUs and uses them all.
    """
    logging.getLogger("accelerate.commands.launch").addFilter(
        _Without("The following values were not passed to `accelerate launch`", unless="More than one GPU")
    )
