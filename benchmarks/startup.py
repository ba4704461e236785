"""How long a command takes to say how it is called, and what a bare interpreter takes."""

import resource
import statistics
import subprocess
import sys
from typing import Any

from repro_trl.cli import COMMANDS

CASES = {
    "repro-trl --help": ["-m", "repro_trl", "--help"],
    **{f"repro-trl {name} --help": ["-m", "repro_trl", name, "--help"] for name in COMMANDS},
    "import repro_trl": ["-c", "import repro_trl"],
}


def measure_startup(repeats: int) -> list[dict[str, Any]]:
    """One row of results for each case; the first run of each, which fills the caches, does not count."""
    return [_measure(case, arguments, repeats) for case, arguments in CASES.items()]


def _measure(case: str, arguments: list[str], repeats: int) -> dict[str, Any]:
    # By turns, so that what else the machine does falls on both.
    times = [(_seconds(arguments), _seconds(["-c", ""])) for _ in range(repeats + 1)][1:]
    whole, bare = (statistics.median(of_one) for of_one in zip(*times, strict=True))
    print(f"{case} | {whole:.2f} s | bare interpreter {bare:.2f} s", flush=True)
    return {
        "case": case,
        "seconds": {"to the end": round(whole, 3), "bare interpreter": round(bare, 3)},
        "ratios": {"command / bare interpreter": round(whole / bare, 2)},
    }


def _seconds(arguments: list[str]) -> float:
    """Of the processor: what else the machine does at the same time does not count."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
