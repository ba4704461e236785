"""Sentences that the terminal and the HTML page share."""

from .completions import CORRECT_ABOVE
from .metrics import HELD_OUT, TRAINING

PHASE_NOTES = {
    HELD_OUT: "Start and end: the first and the last evaluation.",
    TRAINING: "Start and end: means over the first and the last fifth of the logged steps.",
}
COMPLETIONS_NOTE = (
    "* read off the logged completions, of which TRL keeps at most one generation batch a file; the rest is the mean "
    f"over all completions, from the logs. Correct: the accuracy reward is above {CORRECT_ABOVE:g}."
)
INTERVAL_NOTE = (
    "± is half the width of the 95% interval of the mean over runs, by Student's t; of a difference, over pairs of "
    "runs with the same seed, or unpaired, by Welch's formula."
)
