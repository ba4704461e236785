"""What the study's report makes of raw results: intervals, verdicts, tables."""

import json
import math
import random
import statistics

import pytest

from study import figures, grid, health_tables, plot, records, regimes, report, tables, tuning, verdicts
from study.cell import Cell
from study.intervals import Interval, all_of, interval, paired, verdict_better, verdict_equal
from study.measure import auc


def test_interval_of_five_values():
    values = [0.9, 0.95, 0.85, 1.0, 0.8]
    found = interval(values)
    # 2.776: Student's t at 0.975 with 4 degrees of freedom.
    assert found.half_width == pytest.approx(2.776445 * statistics.stdev(values) / math.sqrt(5), rel=1e-6)
    assert (found.mean, found.n) == (pytest.approx(0.9), 5)
    assert interval([3.0]).half_width == math.inf
    with pytest.raises(ValueError, match="no values"):
        interval([])


def test_interval_covers_the_mean_in_95_of_100_cases():
    rng = random.Random(0)
    covered = [abs(found.mean - 2) <= found.half_width for found in
               (interval([rng.gauss(2, 3) for _ in range(5)]) for _ in range(2000))]  # fmt: skip
    assert 0.935 < sum(covered) / 2000 < 0.965


def test_pairs_are_matched_by_seed():
    found = paired({0: 1.0, 1: 2.0, 7: 9.0}, {1: 1.5, 0: 0.5, 3: 0.0})
    assert (found.mean, found.half_width, found.n) == (0.5, 0.0, 2)
    assert paired({0: 1.0}, {1: 1.0}) is None


@pytest.mark.parametrize(
    ("mean", "half_width", "better", "equal"),
    [
        (0.05, 0.04, "seen", "not seen"),
        (0.05, 0.06, "unclear", "unclear"),
        (0.0, 0.01, "not seen", "seen"),
        (-0.05, 0.04, "not seen", "not seen"),
        (0.01, 0.005, "seen", "seen"),
        (0.0, 0.5, "unclear", "unclear"),
    ],
)
def test_verdicts(mean, half_width, better, equal):
    found = Interval(mean, half_width, 5)
    assert verdict_better(found, margin=0.02) == better
    assert verdict_equal(found, margin=0.02) == equal


def test_few_seeds_give_no_verdict():
    for found in (None, Interval(1.0, 0.0, 2), interval([1.0])):
        assert verdict_better(found, 0.1) == verdict_equal(found, 0.1) == "unclear"


def test_verdict_over_several_pairs():
    assert all_of(["seen", "seen"]) == "seen"
    assert (
        all_of(["seen", "not seen"]) == all_of(["seen", "unclear"]) == all_of(["unclear"]) == all_of([]) == "unclear"
    )
    assert all_of(["not seen", "unclear"]) == "not seen"


def test_auc_brute_force():
    rng = random.Random(0)
    for _ in range(100):
        yes, no = ([rng.randint(0, 5) / 2 for _ in range(rng.randint(1, 9))] for _ in range(2))
        wins = sum((a > b) + 0.5 * (a == b) for a in yes for b in no)
        assert auc(yes, no) == pytest.approx(wins / (len(yes) * len(no)))
    assert auc([], [1.0]) is auc([1.0], []) is None


def test_records_survive_an_interrupted_write(tmp_path):
    file = tmp_path / "results" / "cells.jsonl"
    assert records.read(file) == []
    records.append(file, {"a": 1})
    with file.open("a") as stream:
        stream.write('{"a": 2, "unfini')
    assert records.read(file) == [{"a": 1}]
    records.append(file, {"a": 3})
    assert records.read(file) == [{"a": 1}, {"a": 3}]
    with pytest.raises(ValueError, match="JSON"):
        records.append(file, {"a": math.nan})
    assert records.read(file) == [{"a": 1}, {"a": 3}]


def test_the_grid_has_what_the_study_promises():
    cells = [cell for part in grid.PARTS.values() for cell in part()]
    assert len({cell.name for cell in cells}) == len(cells)
    main = {(cell.task, cell.algorithm, cell.arm, cell.seed) for cell in grid.main()}
    assert len(main) == 3 * 4 * 2 * 5
    assert not [cell for cell in grid.ablations() if cell.task == "chain"]
    assert {cell.name for cell in grid.tuning()} <= {cell.name for cell in cells}
    assert not {cell.seed for cell in grid.tuning()} & {cell.seed for cell in cells if not cell.overrides}
    for cell in cells:
        assert records.cell_of(json.loads(json.dumps(vars(cell)))).name == cell.name


def made_up(task, algorithm, arm, seed, accuracy, tokens):
    evaluation = {
        "accuracy": accuracy,
        "thinking_tokens": tokens,
        "backtracks": tokens / 20,
        "objective_gain": accuracy - 0.5,
    }
    cell = vars(Cell(task, algorithm, arm, seed))
    curve = [{"accuracy": accuracy, "thinking_tokens": tokens, "backtracks": tokens / 20}]
    environment = {"date": "2000-01-01", "commit": "0" * 7, "versions": {"trl": "1"}, "machine": "m", "seconds": 1.0}
    return {**cell, "curve": curve, "evaluations": {"1": evaluation}, **environment}


def claims_of(made: list[dict]) -> dict[str, str]:
    lines = verdicts.claims_table(figures.Results(made)).splitlines()[2:]
    return {claim.strip(): verdict.strip(" *") for _, claim, verdict, *_ in (line.split("|") for line in lines)}


def test_claims_follow_the_results():
    made = []
    for task in figures.TASKS:
        for algorithm in figures.ALGORITHMS:
            for seed in range(5):
                noise = 0.001 * seed
                made.append(made_up(task, algorithm, "plain", seed, 0.8 + noise, 40 + seed))
                better = algorithm != "ppo"
                made.append(made_up(task, algorithm, "repro", seed, 0.9 if better else 0.7 - noise, 40 - seed / 10))
    claims = claims_of(made)
    assert claims["accuracy rises under GRPO"] == "seen"
    assert claims["accuracy rises under PPO"] == "not seen"
    assert claims["alpha matters little (0.3 against 0.1)"] == "not run"
    flipped = claims_of([record | {"arm": {"plain": "repro", "repro": "plain"}[record["arm"]]} for record in made])
    assert flipped["accuracy rises under GRPO"] == "not seen"
    assert flipped["accuracy rises under PPO"] == "seen"


def test_controls_decide_about_credit():
    made = []
    for task in figures.TASKS:
        for seed in range(5):
            made.append(made_up(task, "grpo", "repro", seed, 0.9 + 0.001 * seed, 30))
            made.append(made_up(task, "grpo", "shuffled", seed, 0.8, 30 + seed))
            made.append(made_up(task, "grpo", "constants", seed, 0.95, 30.0))
    claims = claims_of(made)
    assert claims["credit: better than its own rewards shuffled"] == "seen"
    assert claims["credit: better than constants without J"] == "not seen"
    assert claims["shortening comes from J: shorter than with constants"] == "not seen"


def test_the_page_is_what_the_raw_results_give():
    page = report.PAGE.read_text()
    assert report.fill(page, figures.Results(records.read(records.CELLS_FILE))) == page


def test_settings_are_those_that_the_tuning_cells_choose():
    chosen, used = tuning.chosen(records.read(records.CELLS_FILE)), tuning.settings_in_use()
    assert chosen == {name: used[name] for name in chosen}
    not_tuned = {name for name in used.keys() - chosen.keys()}
    assert all(name.endswith("chain") for name in not_tuned)
    for name in not_tuned:
        if name.startswith("learning rate"):
            assert used[name] == used["learning rate, grpo, chain"]


def test_tuning_takes_the_best_over_its_seeds():
    made = []
    for cell in grid.tuning():
        (name, value), *_ = cell.overrides.items()
        # 3e-4 wins on one seed, and 1.5e-4 by more on the other; 6e-4 is best, but not by enough. Alpha 0.3 wins over
        # both tasks, though not on digits.
        accuracy = {1.5e-4: (0.5, 0.9), 3e-4: (0.6, 0.7), 6e-4: (0.71, 0.71)}.get(value, (0.5, 0.5))[cell.seed % 2]
        if name == "repro_alpha" and cell.arm == "recipe":
            accuracy = {("digits", 0.1): 0.8, ("digits", 0.3): 0.7, ("search", 0.3): 0.6}.get((cell.task, value), 0.3)
        tokens = {0.1: 40, 0.25: 31, 0.5: 20}[value] if name == "length_penalty" else 30
        record = made_up(cell.task, cell.algorithm, cell.arm, cell.seed, accuracy, tokens)
        made.append(record | {"overrides": cell.overrides})
    found = tuning.chosen(made)
    assert found.keys() == tuning.settings_in_use().keys()
    for name, value in found.items():
        assert value == (0.3 if "alpha" in name else 0.25 if "length" in name else 1.5e-4), name


def test_a_page_without_markers_is_refused():
    with pytest.raises(ValueError, match="provenance"):
        report.fill("# Results\n", figures.Results([made_up("digits", "grpo", "plain", 0, 0.5, 30)]))


def made_up_start(task, seed, auc):
    record = made_up(task, "start", "start", seed, 0.5, 30)
    kinds = {"useful": auc, "inner": auc, "step": auc}
    forms = {f"auc {form}": kinds for form in ("repro", "recipe", "repro total", "recipe total", "outcome")}
    start = record["evaluations"].pop("1") | forms | {"segments": 5.0, "truncated": 0.0}
    return record | {"curve": [], "evaluations": {"0": start}}


def test_claims_about_r_need_all_tasks():
    claim = "r of useful segments is above that of others (recipe)"
    digits = [made_up_start("digits", seed, 0.9) for seed in range(5)]
    others = [made_up_start(task, seed, 0.9) for task in figures.TASKS[1:] for seed in range(5)]
    assert claims_of(digits)[claim] == "unclear"
    assert claims_of(digits + others)[claim] == "seen"
    chance = [made_up_start("search", seed, 0.45 + seed / 100) for seed in range(5)]
    assert claims_of(chance)[claim] == "not seen"


def test_regimes_say_what_controls_do_as_well():
    made = []
    for seed in range(5):
        made.append(made_up("chain", "grpo", "plain", seed, 0.8, 60 + seed / 10))
        made.append(made_up("chain", "grpo", "repro", seed, 0.79 + seed / 100, 50))
        made.append(made_up("chain", "grpo", "constants", seed, 0.9 + seed / 100, 45))
    results = figures.Results(made)
    assert regimes.behaviour_cell(results, "digits", "repro", "accuracy") == "not run"
    shorter = regimes.behaviour_cell(results, "chain", "repro", "thinking_tokens")
    assert shorter == "**seen, but so with constants**, -10.2<br>constants: seen, -15.2<br>shuffled: not run"
    accuracy = regimes.behaviour_cell(results, "chain", "repro", "accuracy")
    assert accuracy.startswith("**unclear**, +0.010<br>constants: seen, +0.120")
    few = regimes.behaviour_cell(figures.Results(made[:6]), "chain", "repro", "accuracy")
    assert few == "**unclear (2 seeds)**, -0.005<br>constants: unclear (2 seeds), +0.105<br>shuffled: not run"
    head, _, *rows = regimes.regimes_table(results).splitlines()
    assert head == "|  | claim | digits | search | chain |"
    assert not any("GRPO-VPS" in row for row in rows), "rows of which nothing was run are left out"


def made_up_health(task, seed, auto, gain):
    record = made_up(task, "health", "start", seed, 0.5, 30)
    chosen = {"chosen": {"prefix": auto} if auto is not None else None}
    useful = {"repro": {"useful": 0.6}, "prefix auto": {"useful": 0.6 + gain}}
    return record | {"auto": chosen, "objective auc": {"repro": 0.7, "auto": 0.7 + gain}, "auc": useful}


def test_auto_is_set_against_the_papers_form():
    made = [made_up_health("digits", seed, "</think>\n\n" if seed else None, 0.2 + seed / 100) for seed in range(3)]
    made += [made_up_health("chain", seed, "</think>", 0.0) for seed in range(3)]
    made += [made_up("chain", "grpo", arm, seed, 0.8, 30) for arm in ("repro", "prefix auto") for seed in range(2)]
    _, _, *rows = health_tables.auto_table(figures.Results(made)).splitlines()
    cells = [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]
    assert [row[0] for row in cells] == ["digits", "chain"]
    assert cells[0][1] == "none (1 of 3), `'</think>\\n\\n'` (2 of 3)"
    assert cells[0][2] == cells[0][3] == "+0.210 ± 0.025 (better)" and cells[0][4] == "– (not run)"
    assert cells[1][2] == "+0.000 ± 0.000 (as good)" and cells[1][4] == "+0.000 ± 0.000 (unclear, 2 seeds)"


def test_auto_under_the_other_algorithms_stands_beside_it():
    made = [made_up_health("chain", seed, "</think>", 0.0) for seed in range(3)]
    made += [made_up("chain", "ppo", "repro", seed, 0.8, 30) for seed in range(3)]
    made += [made_up("chain", "ppo", "prefix auto", seed, 0.7, 30) for seed in range(3)]
    *_, row = health_tables.auto_table(figures.Results(made)).splitlines()
    assert row.endswith("| PPO: -0.100 ± 0.000 (worse) |")


def test_longer_runs_stand_apart():
    made = [made_up("chain", "grpo", arm, seed, 0.5, 90) for arm in ("plain", "repro") for seed in range(3)]
    for seed in range(3):
        for arm, accuracy, tokens in (("plain", 0.9, 60), ("repro", 0.95, 40), ("constants", 0.95, 40)):
            record = made_up("chain", "grpo", arm, seed, accuracy + seed / 1000, tokens)
            made.append(record | {"overrides": {"max_steps": grid.LONGER_STEPS}, "curve": record["curve"] * 48})
    results = figures.Results(made)
    assert results.difference("chain", "grpo", "repro", "plain", "accuracy").mean == 0
    _, _, *rows = tables.longer_paired_table(results).splitlines()
    assert [row.split("|")[2].strip() for row in rows] == ["repro − plain", "constants − plain", "repro − constants"]
    assert rows[0].startswith("| chain | repro − plain | 3 | +0.050 ± 0.000 (seen)")
    _, _, *rows = tables.longer_table(results).splitlines()
    assert [row.split("|")[2].strip() for row in rows] == ["plain", "repro", "constants"]
    (shorter,) = (
        row for row in regimes.regimes_table(results).splitlines() if "thinking gets shorter, three times" in row
    )
    assert "**seen, but so with constants**, -20.0<br>constants: seen, -20.0<br>shuffled: not run" in shorter


@pytest.mark.parametrize(
    ("mean", "half_width", "verdict"),
    [
        (0.1, 0.05, "better"),
        (-0.1, 0.05, "worse"),
        (0.0, 0.01, "as good"),
        (0.05, 0.06, "as good"),
        (0, 0.1, "unclear"),
    ],
)
def test_as_good_as_another_form(mean, half_width, verdict):
    assert health_tables.verdict_not_worse(Interval(mean, half_width, 3)) == verdict


def test_what_was_not_run_does_not_hide_what_was():
    made = [made_up("digits", "grpo", "plain", seed, 0.8, 40) for seed in range(5)]
    made += [made_up("digits", "grpo", "repro", seed, 0.9 + seed / 1000, 40) for seed in range(5)]
    claims = claims_of(made)
    assert claims["accuracy rises under GRPO"] == claims["accuracy rises, all algorithms"] == "seen"
    assert claims["accuracy rises under PPO"] == "not run"


def test_plot(tmp_path):
    made = [made_up_start(task, seed, 0.9) for task in figures.TASKS for seed in range(3)]
    made += [made_up("digits", "grpo", arm, seed, 0.5, 30) for arm in ("plain", "repro") for seed in range(2)]
    plot.plot(figures.Results(made), tmp_path / "plot.svg")
    assert (tmp_path / "plot.svg").read_text().count("<path") > 20
