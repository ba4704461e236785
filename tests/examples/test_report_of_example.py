"""The report of two real runs of the example, against figures taken from their files by other means."""

import json
import re
from html.parser import HTMLParser

import pandas as pd
import pytest
from tiny_run_folders import train_example
from transformers import AutoTokenizer

from repro_trl.cli import main
from repro_trl.messages import completion_text


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    return [
        train_example(folder / "plain", "--repro_alpha", 0, "--seed", 1),
        train_example(folder / "repro", "--repro_alpha", 0.1, "--seed", 1),
    ]


@pytest.fixture(scope="module")
def report(runs, tmp_path_factory):
    """The printed table, and the page."""
    page = tmp_path_factory.mktemp("report") / "report.html"
    with pytest.MonkeyPatch.context() as patch:
        printed = []
        patch.setattr("sys.stdout.write", lambda text: printed.append(text))
        assert main(["report", *map(str, runs), "--html", str(page)]) == 0
    return "".join(printed), page.read_text(encoding="utf-8")


DECIMALS = {"process reward": 4, "thinking tokens": 1, "thinking tokens, correct": 1, "thinking tokens, wrong": 1}


def recompute(folder):
    """First and last evaluation, and first and last training step, of each quantity, from the raw files."""
    log = json.loads((folder / "trainer_state.json").read_text())["log_history"]
    tokenizer = AutoTokenizer.from_pretrained(folder)
    evaluations = [entry for entry in log if "eval_reward" in entry]
    steps = [entry for entry in log if "reward" in entry]
    evaluated = {entry["step"] for entry in evaluations}
    logged = {
        "accuracy": "rewards/accuracy/mean",
        "thinking tokens": "thinking_tokens",
        "truncated": "completions/clipped_ratio",
        "J gain": "repro/objective_gain",
        "J AUC": "repro/objective_auc",
        "process reward": "repro/process_reward/mean",
    }
    figures = {
        ("held out", name): [evaluations[i].get(f"eval_{key}") for i in (0, -1)] for name, key in logged.items()
    }
    figures |= {("training", name): [steps[i].get(key) for i in (0, -1)] for name, key in logged.items()}

    task = {
        "accuracy": "accuracy",
        "thinking tokens": "thinking_tokens",
        "thinking tokens, correct": "thinking_tokens_right",
        "thinking tokens, wrong": "thinking_tokens_wrong",
        "backtracks": "backtracks",
        "truncated": "truncation_rate",
    }
    for name, key in task.items():
        values = [entry[f"eval_held_out/{key}"] for entry in log if "eval_held_out/accuracy" in entry]
        figures["task held_out", name] = [values[0], values[-1]]

    def thoughts(step):
        frame = pd.read_parquet(folder / "completions" / f"completions_{step:05d}.parquet")
        # Twelve problems are held out, and sixteen completions fill a file.
        frame = frame.tail(12) if step in evaluated else frame
        text = frame["completion"].map(lambda completion: completion_text(completion).partition("</think>")[0])
        lengths = text.map(lambda thought: len(tokenizer(thought, add_special_tokens=False)["input_ids"]))
        segments = text.str.split("\n\n").explode().str.lower()
        wait = segments.str.contains(r"wait")
        check = segments.str.contains(r"let me check|check again")
        restart = segments.str.contains(r"start over")
        return {
            "thinking tokens, correct": lengths[frame["accuracy"] == 1].mean(),
            "thinking tokens, wrong": lengths[frame["accuracy"] == 0].mean(),
            "backtracks": (wait | check | restart).sum() / len(frame),
            "backtracks, wait": wait.sum() / len(frame),
            "backtracks, re-check": check.sum() / len(frame),
            "backtracks, restart": restart.sum() / len(frame),
            "empty thoughts": (text.str.strip() == "").mean(),
        }

    trained = sorted({entry["step"] for entry in steps} - evaluated)
    for phase, (first, last) in (
        ("held out", (min(evaluated), max(evaluated))),
        ("training", (trained[0], trained[-1])),
    ):
        first, last = thoughts(first), thoughts(last)
        figures |= {(phase, name): [first[name], last[name]] for name in first}
    return figures


def shown(figure, name):
    return "–" if figure is None or figure != figure else f"{figure:.{DECIMALS.get(name, 3)}f}"


def test_the_table_equals_a_recomputation_from_the_raw_files(runs, report):
    printed, _ = report
    plain, repro = (recompute(run) for run in runs)
    assert repro["held out", "J gain"][1] is not None and plain["held out", "J gain"][1] is None
    phase, name, checked = None, None, 0
    for line in printed.splitlines():
        line = line.strip()
        phase = line if line in ("held out", "task held_out", "training") else phase
        match = re.match(r"(?:(.+?)\*?\s{2,})?repro_alpha=(0\.[01])\s+(\S+)\s+(\S+)\s+(\S+)\s+(\S+)\s+(\d)", line)
        if not match:
            continue
        name, alpha = match[1] or name, match[2]
        start, end = (plain if alpha == "0.0" else repro)[phase, name]
        assert match[3] == shown(start, name) and match[4] == shown(end, name), (phase, line)
        base = plain[phase, name][1]
        difference = None if None in (base, end) or alpha == "0.0" else end - base
        text = shown(difference, name)
        assert float(match[6].replace("–", "nan")) == pytest.approx(float(text.replace("–", "nan")), nan_ok=True), line
        checked += 1
    assert checked == 2 * (13 + 6 + 13)


class _Cells(HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.rows, self.is_cell = [], False
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        if tag == "tr":
            self.rows.append([])
        elif tag in ("td", "th"):
            self.is_cell = True
            self.rows[-1].append("")

    def handle_endtag(self, tag):
        self.is_cell = self.is_cell and tag not in ("td", "th")

    def handle_data(self, data):
        if self.is_cell:
            self.rows[-1][-1] += data.strip()


def test_the_page_has_the_numbers_of_the_table(runs, report):
    printed, page = report
    rows = [row for row in _Cells(page.partition("<h2>What was compared")[0]).rows if len(row) == 7]
    values = [row[2:6] for row in rows if row[1].startswith("repro_alpha")]
    pattern = re.compile(r"repro_alpha=0\.[01] +(\S+) +(\S+) +(\S+) +(\S+) +[01]")
    assert values == [list(match.groups()) for match in pattern.finditer(printed)] and len(values) == 64


def test_what_is_missing_is_said(report):
    printed, page = report
    note = "no RePro metrics in the logs"
    assert f"Note, plain: {note}" in printed and f"plain: {note}" in page
    assert "reward hacking, repro: not judged: only 3 training steps" in printed
    assert "No flags." in printed
