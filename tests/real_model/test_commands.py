"""`repro-trl score` and `inspect` on a real model's own completions."""

import json
from itertools import groupby

import pytest
from browser import find_all, text
from matplotlib.image import imread

from repro_trl.cli import main
from repro_trl.traces import read_traces

pytestmark = pytest.mark.real_model

SETTINGS = ["--repro_think_end", "", "--repro_answer_prefix", "The answer is ", "--temperature", "0.6"]


def write(path, completions):
    """Rows of a prompt, its completions and its answer."""
    rows = []
    for (prompt, answer), group in groupby(completions, key=lambda one: (one.prompt, one.answer)):
        rows.append({"prompt": prompt, "completions": [one.text for one in group], "answer": answer})
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


@pytest.fixture(scope="module")
def source(tmp_path_factory, completions):
    """Two prompts with four completions each."""
    return write(tmp_path_factory.mktemp("rows") / "rows.jsonl", completions[:8])


def test_inspect_shows_what_score_computes(source, folder, completions, tmp_path, chromium):
    options = ["--model", str(folder), *SETTINGS]
    page, picture, traces = tmp_path / "page.html", tmp_path / "page.png", tmp_path / "traces.jsonl"
    assert main(["score", source, str(tmp_path / "scored.jsonl"), *options]) == 0
    scored = [
        numbers
        for line in (tmp_path / "scored.jsonl").read_text().splitlines()
        for numbers in json.loads(line)["repro"]
    ]
    outputs = ["--html", str(page), "--png", str(picture), "--traces", str(traces)]
    recipe_off = ["--repro_baseline_score", "zero", "--repro_credit", "to_go", "--repro_top_k", "10"]
    assert main(["inspect", source, *options, *outputs, *recipe_off]) == 0
    shown = list(read_traces(traces))
    assert [trace.completion for trace in shown] == [completion.text for completion in completions[:8]]
    assert [trace.correct for trace in shown] == [completion.right for completion in completions[:8]]
    for trace, numbers, completion in zip(shown, scored, completions, strict=False):
        assert trace.objective == numbers["objective"] and all(value < 0 for value in numbers["objective"])
        assert len(numbers["advantages"]) == len(completion.ids)
    assert sum(len(numbers["boundaries"]) > 2 for numbers in scored) > 4
    assert imread(picture).shape[0] > 300

    chromium.get(page.as_uri())
    columns = find_all(chromium, "article.completion")
    assert len(columns) == 4
    # Columns out of sight are filled when they come into it.
    assert all(line in text(columns[0]) for line in shown[0].completion.split("\n\n"))
    assert not [entry for entry in chromium.get_log("browser") if entry["level"] == "SEVERE"]


def test_auto_finds_where_the_model_answers(folder, completions, tmp_path, capsys):
    right = [completion for completion in completions if completion.right][:8]
    wrong = [completion for completion in completions if not completion.right][:8]
    assert len(right) == len(wrong) == 8, "the model is right often enough for a choice"
    rows = write(tmp_path / "rows.jsonl", sorted(right + wrong, key=lambda one: str(one.prompt)))
    options = ["--repro_think_end", "", "--repro_answer_prefix", "auto", "--temperature", "0.6"]
    assert main(["score", rows, str(tmp_path / "out.jsonl"), "--model", str(folder), *options]) == 0
    said = capsys.readouterr().err
    assert "using the answer form" in said and "16 completions" in said
    auc, paper = (float(said.split(before)[1][:4]) for before in ("AUC ", "the paper's form "))
    assert paper <= auc > 0.7
