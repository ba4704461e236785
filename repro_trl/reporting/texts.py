"""Sentences that the terminal and the HTML page share."""

from .completions import CORRECT_ABOVE
from .metrics import HELD_OUT, TRAINING

_PHASE_NOTES = {
    HELD_OUT: "Start and end: the first and the last evaluation by the trainer.",
    TRAINING: "Start and end: means over the first and the last fifth of the logged steps.",
}
_TASK_NOTE = "Start and end: the first and the last evaluation, sampled and verified as by `repro-trl eval`."


def phase_note(phase: str) -> str:
    """What start and end are in a phase."""
    return _PHASE_NOTES.get(phase, _TASK_NOTE)


COMPLETIONS_NOTE = (
    "* from the logged completions, of which TRL keeps at most one generation batch per file; the rest is the "
    f"mean over all completions, from the logs. Correct: the accuracy reward is above {CORRECT_ABOVE:g}."
)
INTERVAL_NOTE = (
    "± is half the width of the 95% confidence interval of the mean over runs, by Student's t; for a difference, "
    "over pairs of runs with the same seed, or unpaired, by Welch's formula."
)
