"""Which cells the study has, in the order in which they are run: what the conclusions need first comes first."""

from .arms import ALGORITHMS, ARMS, LEARNING_RATES, PAPER
from .cell import STEPS, Cell
from .tasks import TASKS

SEEDS = range(5)
ABLATION_SEEDS = range(3)
MORE_SEEDS = range(5, 10)
TUNING_SEEDS = (100, 101)
LENGTH_PENALTIES = (0.1, 0.25, 0.5)
ALPHAS = (0.1, 0.3, 1.0)
ALPHA_TASKS = ("digits", "search")
"""The recipe was settled on these, and single changes are tried on these. Other tasks try both forms as they are."""

OTHERS = [algorithm for algorithm in ALGORITHMS if algorithm != "grpo"]

HIGHER_RATES = {"digits": 6e-4, "search": 3e-4}

CONTROLS = ("recipe", "shuffled", "constants", "recipe shuffled", "recipe constants", "length")
RIVALS = ("vps", "vsrm", "vps shuffled")
AUTO = ("recipe auto", "prefix auto")
LONGER = ("plain", "repro", "recipe")
"""Arms of GRPO with longer runs."""
LONGER_CONTROLS = ("constants", "shuffled", "recipe constants", "recipe shuffled")
"""Their controls, on the task of the paper's regime."""
HEADLINE = (*LONGER, "prefix auto", "constants", "shuffled", "recipe shuffled", "recipe constants")
"""Arms of GRPO with more seeds."""
LONGER_STEPS = 3 * STEPS


def start() -> list[Cell]:
    """The common start, measured on the problems of each seed."""
    return [Cell(task, "start", "start", seed) for seed in SEEDS for task in TASKS]


def health() -> list[Cell]:
    """Whether J knows right from wrong at the start, and what the segments of each kind do to the answer."""
    return [Cell(task, "health", "start", seed) for seed in SEEDS for task in TASKS]


def instruments() -> list[Cell]:
    """Completions in which to see what rewards know, and what the gradients of all arms do, at the start."""
    traces = [Cell(task, "trace", "start", 0) for task in TASKS]
    return traces + [Cell(task, "instruments", "start", seed) for seed in SEEDS for task in ALPHA_TASKS]


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


def auto() -> list[Cell]:
    """GRPO with the place where the answer is asked for found by the trainer."""
    return [Cell(task, "grpo", arm, seed) for seed in SEEDS for arm in AUTO for task in TASKS]


def rivals() -> list[Cell]:
    """GRPO with the signals of other methods, on the same scored rollouts."""
    return [Cell(task, "grpo", arm, seed) for seed in SEEDS for arm in RIVALS for task in TASKS]


def recipe_elsewhere() -> list[Cell]:
    """The recipe under the other algorithms, on the task of the paper's regime."""
    return [Cell("chain", algorithm, "recipe", seed) for seed in SEEDS for algorithm in OTHERS]


def auto_elsewhere() -> list[Cell]:
    """The default settings under the other algorithms: the paper's, with the place of the answer found."""
    return [
        Cell(task, algorithm, "prefix auto", seed) for seed in ABLATION_SEEDS for algorithm in OTHERS for task in TASKS
    ]


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
    done = {"plain", "repro", *CONTROLS, *AUTO, *RIVALS}
    return [
        Cell(task, "grpo", arm, seed)
        for seed in ABLATION_SEEDS
        for arm in ARMS
        for task in ALPHA_TASKS
        if arm not in done
    ]


def more_seeds() -> list[Cell]:
    """The headline arms of GRPO, with seeds for ten in all."""
    return [Cell(task, "grpo", arm, seed) for seed in MORE_SEEDS for arm in HEADLINE for task in TASKS]


def longer() -> list[Cell]:
    """The headline arms of GRPO for three times the steps, until the curves are flat."""
    arms = [(task, arm) for arm in LONGER for task in TASKS] + [("chain", arm) for arm in LONGER_CONTROLS]
    return [Cell(task, "grpo", arm, seed, {"max_steps": LONGER_STEPS}) for seed in SEEDS for task, arm in arms]


def tuning() -> list[Cell]:
    """Learning rate of each plain algorithm, alpha of the recipe, weight of the length penalty (`tuning.py`), on seeds
    that nothing else uses.
    """
    tried = [(algorithm, "plain", {"learning_rate": rate}) for algorithm in ALGORITHMS for rate in LEARNING_RATES]
    tried += [("grpo", "recipe", {"repro_alpha": alpha}) for alpha in ALPHAS]
    tried += [("grpo", "length", {"length_penalty": penalty}) for penalty in LENGTH_PENALTIES]
    tried += [("grpo", "repro", {"repro_alpha": PAPER["repro_alpha"]})]  # how long its thoughts are, for the penalty
    return [
        Cell(task, algorithm, arm, seed, overrides)
        for algorithm, arm, overrides in tried
        for task in (ALPHA_TASKS if arm == "recipe" else TASKS)
        for seed in TUNING_SEEDS
    ]


def _is_tuned_late(cell: Cell) -> bool:
    """Until its own cells are done, an algorithm takes over GRPO's rate on chain (`tuning.py`)."""
    return cell.task not in ALPHA_TASKS and cell.algorithm != "grpo"


PARTS = {
    "tuning": lambda: [cell for cell in tuning() if not _is_tuned_late(cell)],
    "start": start,
    "health": health,
    "main": main,
    "instruments": instruments,
    "controls": controls,
    "auto": auto,
    "rivals": rivals,
    "recipe elsewhere": recipe_elsewhere,
    "auto elsewhere": auto_elsewhere,
    "ablations": ablations,
    "rates": rates,
    "more seeds": more_seeds,
    "longer": longer,
    "late tuning": lambda: [cell for cell in tuning() if _is_tuned_late(cell)],
}
