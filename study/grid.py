"""Which cells the study has, in the order in which they are run: what the conclusions need first comes first."""

from .arms import ALGORITHMS, ARMS, LEARNING_RATES, PAPER
from .cell import Cell
from .tasks import TASKS

SEEDS = range(5)
ABLATION_SEEDS = range(3)
TUNING_SEEDS = (100, 101)
LENGTH_PENALTIES = (0.1, 0.25, 0.5)
ALPHAS = (0.1, 0.3, 1.0)

HIGHER_RATES = {"digits": 6e-4, "search": 3e-4}

CONTROLS = ("recipe", "shuffled", "constants", "recipe shuffled", "recipe constants", "length")


def start() -> list[Cell]:
    """The common start, measured on the problems of each seed."""
    return [Cell(task, "start", "start", seed) for seed in SEEDS for task in TASKS]


def instruments() -> list[Cell]:
    """What rewards and gradients know at the start, and completions in which to see it."""
    traces = [Cell(task, "trace", "start", 0) for task in TASKS]
    return traces + [Cell(task, "instruments", "start", seed) for seed in SEEDS for task in TASKS]


def main() -> list[Cell]:
    """Four algorithms, plain and with RePro in the paper's form."""
    return [
        Cell(task, algorithm, arm, seed)
        for seed in SEEDS
        for algorithm in ALGORITHMS
        for task in TASKS
        for arm in ("plain", "repro")
    ]


def controls() -> list[Cell]:
    """GRPO with the recipe, and the controls of both forms."""
    return [Cell(task, "grpo", arm, seed) for seed in SEEDS for arm in CONTROLS for task in TASKS]


def rates() -> list[Cell]:
    """REINFORCE++ Baseline at rates that were best on the tuning seeds, but not by much: do they hold on others?"""
    return [
        Cell(task, "reinforce_pp_baseline", arm, seed, {"learning_rate": rate})
        for seed in SEEDS
        for task, rate in HIGHER_RATES.items()
        for arm in ("plain", "repro")
    ]


def ablations() -> list[Cell]:
    """GRPO with one setting changed."""
    done = {"plain", "repro", *CONTROLS}
    return [
        Cell(task, "grpo", arm, seed) for seed in ABLATION_SEEDS for arm in ARMS if arm not in done for task in TASKS
    ]


def tuning() -> list[Cell]:
    """Learning rate of each plain algorithm, alpha of the recipe, weight of the length penalty (`tuning.py`), on seeds
    that nothing else uses.
    """
    grpo = [
        *(("recipe", {"repro_alpha": alpha}) for alpha in ALPHAS),
        *(("length", {"length_penalty": penalty}) for penalty in LENGTH_PENALTIES),
        ("repro", {"repro_alpha": PAPER["repro_alpha"]}),  # how long its thoughts are, for the penalty
    ]
    tried = [(algorithm, "plain", {"learning_rate": rate}) for algorithm in ALGORITHMS for rate in LEARNING_RATES]
    tried += [("grpo", *arm) for arm in grpo]
    return [
        Cell(task, algorithm, arm, seed, overrides)
        for algorithm, arm, overrides in tried
        for task in TASKS
        for seed in TUNING_SEEDS
    ]


PARTS = {
    "tuning": tuning,
    "start": start,
    "main": main,
    "instruments": instruments,
    "controls": controls,
    "ablations": ablations,
    "rates": rates,
}
