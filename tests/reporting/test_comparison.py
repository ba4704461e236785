import io
import math
import random
import re
import shutil

import pytest
from rich.console import Console
from tiny_run_folders import write_completions, write_run

from repro_trl.cli import main
from repro_trl.demo import MODEL_DIR
from repro_trl.reporting import compare, group_runs, read_run
from repro_trl.reporting.arms import difference, estimate, t_quantile
from repro_trl.reporting.flags import find_flags
from repro_trl.reporting.metrics import HELD_OUT, TRAINING
from repro_trl.reporting.table import print_comparison
from repro_trl.thinking import BACKTRACK_PATTERNS

ACCURACY, PROCESS, TOKENS = "rewards/accuracy/mean", "repro/process_reward/mean", "thinking_tokens"


def rows_of(comparison, phase, key):
    return {row.arm.name: row for row in comparison.rows if (row.phase, row.metric.key) == (phase, key)}


# ------------------------------------------------------------------------------------------------------ arms and seeds


def test_quantiles_of_student_s_t():
    # https://en.wikipedia.org/wiki/Student%27s_t-distribution#Table_of_selected_values
    table = {1: 12.706, 2: 4.303, 3: 3.182, 4: 2.776, 5: 2.571, 9: 2.262, 10: 2.228, 30: 2.042, 120: 1.980}
    assert {degrees: round(t_quantile(degrees), 3) for degrees in table} == table
    assert t_quantile(3, 0.95) == pytest.approx(2.353, abs=5e-4)


def test_mean_and_interval():
    result = estimate([1.0, 2.0, 4.0])
    assert result.mean == pytest.approx(7 / 3)
    assert result.half_width == pytest.approx(4.302653 * math.sqrt(7 / 3) / math.sqrt(3), rel=1e-6)
    assert estimate([0.5]).half_width is None
    assert estimate([0.5, 0.5]).half_width == 0


def test_differences_are_paired_where_seeds_match():
    arm, base = [(1, 5.0), (2, 7.0), (3, 100.0)], [(2, 4.0), (1, 3.0), (9, 0.0)]
    paired = difference(arm, base)
    assert paired.num_pairs == 2 and paired.estimate == estimate([2.0, 3.0])


@pytest.mark.parametrize("seeds", [(None, None), (1, 1), (3, 4)])
def test_differences_without_pairs_take_welch_s_interval(seeds):
    arm = list(zip(seeds, [1.0, 2.0], strict=True))
    result = difference(arm, [(5, 4.0), (6, 4.5), (7, 6.0)])
    assert result.num_pairs == 0 and result.estimate.mean == pytest.approx(1.5 - 14.5 / 3)
    # Variances of the means 0.25 and 0.361: 2.5 degrees of freedom, rounded down to 2.
    assert result.estimate.half_width == pytest.approx(4.302653 * math.sqrt(0.25 + 0.3611111), rel=1e-5)


def test_a_difference_of_single_runs_has_no_interval():
    assert difference([(1, 2.0)], [(1, 3.0)]).estimate.half_width is None
    assert difference([(1, 2.0), (2, 2.0)], [(3, 3.0), (4, 3.0)]).estimate.half_width == 0


def make_runs(tmp_path, *settings):
    return [read_run(write_run(tmp_path / f"run {i}", {ACCURACY: [0.5]}, settings=s)) for i, s in enumerate(settings)]


def test_runs_that_differ_in_the_seed_alone_form_an_arm(tmp_path):
    runs = make_runs(
        tmp_path,
        {"repro_alpha": 0.0, "seed": 1},
        {"repro_alpha": 0.1, "seed": 1},
        {"repro_alpha": 0.0, "seed": 2, "logging_steps": 3, "run_name": "other"},
    )
    arms = group_runs(runs)
    assert [(arm.name, arm.runs) for arm in arms] == [
        ("repro_alpha=0.0", [runs[0], runs[2]]),
        ("repro_alpha=0.1", [runs[1]]),
    ]


def test_settings_in_a_name_are_printable(tmp_path):
    arms = group_runs(make_runs(tmp_path, {"repro_delimiter": "\x1b[2J"}, {"repro_delimiter": ";"}))
    assert [arm.name for arm in arms] == [r"repro_delimiter='\x1b[2J'", "repro_delimiter=;"]


def test_runs_that_nothing_tells_apart_stay_apart(tmp_path):
    runs = make_runs(tmp_path, {"seed": 1}, {"seed": 1}, None, None)
    arms = group_runs(runs)
    assert [arm.name for arm in arms] == ["run 0", "run 1", "run 2", "run 3"]
    assert "the same settings and seed as another run" in runs[1].notes[-1]


def test_runs_of_two_versions_stay_apart_and_it_is_said(tmp_path):
    runs = make_runs(tmp_path, {"seed": 1}, {"seed": 2})
    del runs[0].settings["repro_scale"]
    assert [arm.name for arm in group_runs(runs)] == ["run 0", "run 1"]
    assert "differs from run 0 only in settings" in runs[1].notes[-1] and "repro_scale" in runs[1].notes[-1]


def test_many_differences_are_named_by_folder(tmp_path):
    other = {"repro_alpha": 0.3, "repro_top_k": 3, "beta": 0.1, "epsilon": 0.3}
    arms = group_runs(make_runs(tmp_path, {"seed": 1}, {"seed": 2}, other))
    assert [arm.name for arm in arms] == ["run 0 and seeds", "run 2"]


# ------------------------------------------------------------------------------------------------------------- figures


def test_start_and_end(tmp_path):
    training = {ACCURACY: [0.1, 0.3, None, *[0.5] * 6, 0.7, 0.9], TOKENS: [float("nan")] * 10 + [5.0]}
    held_out = {0: {ACCURACY: 0.2}, 7: {ACCURACY: 0.9}, 11: {ACCURACY: 0.6}}
    run = read_run(write_run(tmp_path, training, held_out))
    comparison = compare(group_runs([run]))
    (row,) = rows_of(comparison, TRAINING, "accuracy").values()
    assert (row.start.mean, row.end.mean) == (pytest.approx(0.2), pytest.approx(0.8))  # ten points: two each
    (row,) = rows_of(comparison, HELD_OUT, "accuracy").values()
    assert (row.start.mean, row.end.mean, row.change.mean) == (0.2, 0.6, pytest.approx(0.4))
    (row,) = rows_of(comparison, TRAINING, "thinking_tokens").values()
    assert row.start is None and row.end.mean == 5.0 and row.change is None
    assert not rows_of(comparison, HELD_OUT, "thinking_tokens")


def test_what_j_knows_is_in_the_report(tmp_path):
    values = [float("nan"), 0.75, 1.0]  # unknown while all completions are wrong
    run = read_run(write_run(tmp_path, {ACCURACY: [0.0, 0.5, 0.5], "repro/objective_auc": values}))
    (row,) = rows_of(compare(group_runs([run])), TRAINING, "objective_auc").values()
    assert (row.metric.label, row.start.mean, row.end.mean) == ("J AUC", 0.75, 1.0)


@pytest.mark.parametrize("gap", [float("nan"), float("inf"), None])
def test_a_start_or_end_that_is_no_number_is_said(tmp_path, gap):
    values = [gap, 0.1, 0.2, 0.3, gap, gap]
    folder = write_run(tmp_path / "run", {ACCURACY: values, TOKENS: [5.0] * 6, PROCESS: [gap] * 6})
    write_run(tmp_path / "run", {ACCURACY: values, TOKENS: [5.0] * 6, PROCESS: [gap] * 6}, {6: {ACCURACY: gap}})
    notes = compare(group_runs([read_run(folder)])).notes
    assert "accuracy (training) is not a number after step 4, so its end is taken there and not at step 6" in notes
    assert "accuracy (training) is not a number before step 2, so its start is taken there and not at step 1" in notes
    assert "accuracy (held out) was logged, but never as a finite number" in notes
    assert "process reward (training) was logged, but never as a finite number" in notes
    assert not any("thinking tokens" in note for note in notes)


def test_an_end_without_a_right_completion_is_said(tmp_path):
    folder = write_run(tmp_path / "run", {ACCURACY: [0.5, 0.5]})
    shutil.copytree(MODEL_DIR, folder, dirs_exist_ok=True)
    for step, reward in ((1, 1.0), (2, 0.0)):
        write_completions(folder, step, [f"a {step}</think>1"], accuracy=[reward])
    notes = compare(group_runs([read_run(folder)])).notes
    assert any(note.startswith("thinking tokens, correct (training) is not a number after step 1") for note in notes)


def test_tasks_evaluated_during_training_have_their_own_table(tmp_path, capsys):
    figures = {"aime24/accuracy": 0.25, "aime24/thinking_tokens_right": 9.0, "aime24/truncation_rate": 0.5}
    path = write_run(tmp_path / "run", {ACCURACY: [0.5]}, {0: figures, 4: figures | {"aime24/accuracy": 0.75}})
    comparison = compare(group_runs([read_run(path)]))
    assert comparison.phases == [HELD_OUT, "task aime24", TRAINING]
    (row,) = rows_of(comparison, "task aime24", "accuracy").values()
    assert (row.start.mean, row.end.mean) == (0.25, 0.75)
    (row,) = rows_of(comparison, "task aime24", "thinking_tokens_correct").values()
    assert row.end.mean == 9.0 and not rows_of(comparison, "task aime24", "backtracks")
    assert main(["report", str(path)]) == 0
    assert re.search(r"task aime24[^─]+─+\s+accuracy +run +0\.250 +0\.750", capsys.readouterr().out)


def test_runs_without_a_quantity_are_counted(tmp_path, capsys):
    paths = [
        write_run(tmp_path / "a", {ACCURACY: [0.5], PROCESS: [0.1]}, settings={"seed": 1}),
        write_run(tmp_path / "b", {ACCURACY: [0.7]}, settings={"seed": 2}),
        write_run(tmp_path / "c", {ACCURACY: [0.7]}, settings={"seed": 1, "repro_alpha": 0}),
    ]
    assert main(["report", *map(str, paths)]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["process", "reward", "repro_alpha=0.05", "–", "0.1000", "–", "–", "1", "of", "2"] in lines
    assert ["repro_alpha=0", "–", "–", "–", "–", "0", "of", "1"] in lines


def test_two_sources_of_a_quantity_are_said(tmp_path, capsys):
    logs = write_run(tmp_path / "logs", {ACCURACY: [0.5], "backtracks": [2.0]}, settings={"seed": 1})
    completions = write_run(tmp_path / "completions", {ACCURACY: [0.5]}, settings={"seed": 1, "repro_alpha": 0})
    write_completions(completions, 1, ["wait</think>1"], accuracy=[1.0])
    assert main(["report", str(logs), str(completions)]) == 0
    printed = capsys.readouterr().out
    assert re.search(r"backtracks\* +repro_alpha=0\.05 +– +2\.000", printed)
    assert "Note, completions: backtracks (training) comes from logged completions, that of other runs" in printed


def test_curves_have_the_steps_that_runs_share(tmp_path):
    values = ([0.1, 0.2, 0.3], [0.3, 0.4], [0.5, 0.6, 0.7])
    runs = [
        read_run(write_run(tmp_path / str(seed), {ACCURACY: v}, settings={"seed": seed}))
        for seed, v in enumerate(values)
    ]
    comparison = compare(group_runs(runs))
    curve = comparison.curve(comparison.metrics[0], TRAINING, comparison.arms[0])
    assert curve.steps == [1, 2] and [point.mean for point in curve.estimates] == pytest.approx([0.3, 0.4])
    assert curve.range == (0.1, 0.6) and None not in curve.intervals
    assert comparison.curve(comparison.metrics[0], HELD_OUT, comparison.arms[0]) is None


# --------------------------------------------------------------------------------------------------------------- flags


def noisy(values, spread, seed=0):
    rng = random.Random(seed)
    return [value + rng.gauss(0, spread) for value in values]


def flags_of(tmp_path, **training):
    names = {"accuracy": ACCURACY, "process": PROCESS, "tokens": TOKENS}
    run = read_run(write_run(tmp_path, {names[key]: values for key, values in training.items()}))
    comparison = compare(group_runs([run]))
    return {flag.rule: flag for flag in find_flags(run, comparison.metrics)}


RISING = [0.1 + 0.002 * step for step in range(50)]


@pytest.mark.parametrize(
    ("accuracy", "process", "is_hacking"),
    [
        ([0.7 - 0.008 * step for step in range(50)], RISING, True),
        ([0.4 + 0.02 * min(step, 20) - 0.02 * max(step - 20, 0) for step in range(50)], RISING, True),  # a turn
        ([0.4 + 0.008 * step for step in range(50)], RISING, False),
        ([0.5] * 50, RISING, False),
        ([0.7 - 0.008 * step for step in range(50)], RISING[::-1], False),
    ],
)
def test_reward_hacking(tmp_path, accuracy, process, is_hacking):
    flags = flags_of(tmp_path, accuracy=noisy(accuracy, 0.03), process=noisy(process, 0.005, 1), tokens=[50.0] * 50)
    assert ("reward hacking" in flags) == is_hacking
    assert not is_hacking or re.search(r"accuracy fell from 0\.[67]\d+ to 0\.3\d+", flags["reward hacking"].text)


def test_flat_accuracy_is_seldom_called_hacking(tmp_path):
    raised = 0
    for seed in range(60):
        flags = flags_of(
            tmp_path,
            accuracy=noisy([0.5] * 20, 0.05, seed),
            process=noisy(RISING[:20], 0.005, -seed),
            tokens=[50.0] * 20,
        )
        raised += "reward hacking" in flags
    assert raised <= 3


def test_few_steps_are_not_judged(tmp_path):
    flags = flags_of(tmp_path, accuracy=[0.5] * 9, process=[0.1] * 9)
    assert not flags["reward hacking"].raised and "9 training steps" in flags["reward hacking"].text
    assert not flags["vanishing thoughts"].raised
    assert "reward hacking" not in flags_of(tmp_path / "plain", accuracy=[0.5] * 50, tokens=[50.0] * 50)


@pytest.mark.parametrize(("last", "vanishes"), [(9.0, True), (11.0, False), (0.0, True)])
def test_vanishing_thoughts(tmp_path, last, vanishes):
    flags = flags_of(tmp_path, accuracy=[0.5] * 10, tokens=[50.0] * 5 + [last] * 5)
    assert ("vanishing thoughts" in flags) == vanishes


def test_empty_thoughts(tmp_path):
    write_run(tmp_path, {ACCURACY: [0.5] * 2, TOKENS: [50.0, 40.0]})
    write_completions(tmp_path, 1, ["a</think>1"] * 10, accuracy=[1.0] * 10)
    write_completions(tmp_path, 2, ["a</think>1"] * 8 + ["\n\n</think>1"] * 2, accuracy=[1.0] * 10)
    run = read_run(tmp_path)
    (flag,) = find_flags(run, compare(group_runs([run])).metrics)
    assert flag.raised and flag.text == "empty thoughts went from 0.0% to 20.0%"


# --------------------------------------------------------------------------------------------------------- the command


def test_arms_by_hand_and_phrases_of_your_own(tmp_path, capsys):
    paths = [write_run(tmp_path / name, {ACCURACY: [0.5]}, settings={"seed": 1}) for name in ("a", "b", "c")]
    for path in paths:
        write_completions(path, 1, ["hmm\n\nwait\n\nhmm"], accuracy=[1.0])
    phrases = tmp_path / "phrases.json"
    phrases.write_text('{"doubt": ["hmm"]}')
    arms = ["--arm", f"first arm={paths[0]},{paths[1]}", str(paths[2])]
    assert main(["report", *arms, "--backtracks", str(phrases)]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("first arm: a (seed 1), b (seed 1)\nc: c (seed 1)")
    assert re.search(r"backtracks, doubt\*\s+first arm\s+–\s+2\.000 ± 0\.000", printed)
    assert "backtracks, wait" not in printed


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "at least one"),
        (["nowhere"], "no such folder"),
        (["--arm", "name"], "NAME=RUN"),
        (["--arm", "name=a,,b"], "NAME=RUN"),
        (["--arm", "name=a", "--arm", "name=b"], "there already is an arm of this name"),
        (["--backtracks", "nowhere.json", "."], r"nowhere\.json"),
    ],
)
def test_bad_arguments_are_told_on_one_line(arguments, message, capsys):
    assert main(["report", *arguments]) == 2
    printed = capsys.readouterr()
    assert re.search(message, printed.err) and printed.err.count("\n") == 1 and not printed.out


@pytest.mark.parametrize(("width", "has_change"), [(160, True), (64, False)])
def test_narrow_terminals_lose_no_figure(tmp_path, width, has_change):
    values = {ACCURACY: [0.1, 0.123, 0.456], "backtracks": [1.0, 2.0, 3.0]}
    paths = [write_run(tmp_path / str(a), values, settings={"repro_alpha": a, "seed": 1}) for a in (0.1, 0.2)]
    console = Console(width=width, record=True, file=io.StringIO())
    print_comparison(compare(group_runs([read_run(path) for path in paths])), console)
    printed = console.export_text()
    assert ("change" in printed) == has_change and "…" not in printed
    assert printed.count("0.456") == 2 and max(map(len, printed.splitlines())) <= width


def test_kinds_of_backtrack_are_quantities(tmp_path):
    run = read_run(write_run(tmp_path, {ACCURACY: [0.5]}))
    keys = [metric.key for metric in compare(group_runs([run])).metrics]
    assert [key for key in keys if key.startswith("backtracks/")] == [
        f"backtracks/{kind}" for kind in BACKTRACK_PATTERNS
    ]
