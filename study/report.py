"""
Tables, plot and verdicts of `docs/results.md`, made of the raw results: no figure on that page is typed by hand.

    python study/report.py            # rewrites what stands between the markers, and docs/results.svg
    python study/report.py --check    # fails where the page is not what the raw results give

Needs the extra `study` (scipy, matplotlib).
"""

import argparse
import re
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path[0:1] = [str(ROOT), str(ROOT / "examples")]  # so that `study` and `pocket` are found from anywhere

from study import health_tables, records, tables, verdicts  # noqa: E402
from study.figures import Results  # noqa: E402
from study.grid import AUTO, CONTROLS, RIVALS  # noqa: E402
from study.plot import plot  # noqa: E402
from study.real import tables as real  # noqa: E402
from study.regimes import regimes_table  # noqa: E402

PAGE, PLOT = ROOT / "docs" / "results.md", ROOT / "docs" / "results.svg"

SECTIONS = {
    "provenance": tables.provenance,
    "coverage": tables.coverage_table,
    "regimes": regimes_table,
    "claims": verdicts.claims_table,
    "start": tables.start_table,
    "health": health_tables.health_table,
    "signals": health_tables.signal_table,
    "auto": health_tables.auto_table,
    "longer": tables.longer_table,
    "longer paired": tables.longer_paired_table,
    "main": tables.main_table,
    "paired": tables.paired_table,
    "arms": lambda results: tables.arms_table(results, ["plain", "repro", *CONTROLS, *AUTO, *RIVALS]),
    "controls": tables.control_table,
    "ablations": tables.ablation_table,
    "auc": tables.auc_table,
    "auc over time": tables.auc_over_time_table,
    "cosines": tables.cosine_table,
    "leads": tables.leads_table,
    "traces": tables.trace_table,
    "tuning": tables.tuning_table,
    "rates": tables.rates_table,
    **real.SECTIONS,
}


def fill(page: str, results: Results) -> str:
    """Replace what stands between `<!-- begin: NAME -->` and `<!-- end: NAME -->` for every section."""
    for name, make in SECTIONS.items():
        pattern = re.compile(rf"(<!-- begin: {name} -->\n).*?(<!-- end: {name} -->)", re.DOTALL)
        if not pattern.search(page):
            raise ValueError(f"{PAGE} has no markers for {name!r}.")
        content = make(results)
        page = pattern.sub(lambda match, content=content: f"{match[1]}\n{content}\n\n{match[2]}", page)
    return page


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=records.CELLS_FILE, help="default: %(default)s")
    parser.add_argument("--check", action="store_true", help="change nothing; fail where the page is out of date")
    options = parser.parse_args()
    results = Results(records.read(options.results))
    page = PAGE.read_text()
    filled = fill(page, results)
    if options.check:
        if filled != page:
            sys.exit(f"{PAGE} is not what {options.results} gives: run report.py.")
        return
    PAGE.write_text(filled)
    plot(results, PLOT)


if __name__ == "__main__":
    main()
