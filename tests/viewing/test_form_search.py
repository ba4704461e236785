"""`--repro_answer_prefix auto` of `score` and `inspect`."""

import json

import pytest

from repro_trl.cli import main
from repro_trl.demo import MODEL_DIR, task

PROBLEM = "Find the digits. A: 3+4 ; B: 9-4"
RIGHT = "A: 3+4 = 7\n\nB: 9-4 = 5\n\n</think>\n\n\\boxed{75}"
WRONG = "A: 3+4 = 7\n\nB: 9-4 = 6\n\n</think>\n\n\\boxed{76}"


def write_rows(path, texts, problem=PROBLEM):
    rows = [{"prompt": [{"role": "user", "content": problem}], "completions": texts, "answer": "75"}]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.mark.parametrize(("texts", "found"), [([RIGHT, WRONG] * 8, True), ([RIGHT] * 8, False)])
def test_score_finds_where_the_model_answers(tmp_path, capsys, texts, found):
    write_rows(tmp_path / "in.jsonl", texts)
    arguments = ["score", str(tmp_path / "in.jsonl"), "--model", str(MODEL_DIR)]
    prefix = "</think>\n\n" if found else ""
    assert main([*arguments, str(tmp_path / "auto.jsonl"), "--repro_answer_prefix", "auto"]) == 0
    said = capsys.readouterr().err
    assert ("using the answer form '</think>\\n\\n'" in said) == found and ("too few correct" in said) != found
    assert main([*arguments, str(tmp_path / "given.jsonl"), "--repro_answer_prefix", prefix]) == 0
    assert (tmp_path / "auto.jsonl").read_text() == (tmp_path / "given.jsonl").read_text()


def test_rows_of_a_longer_input_are_scored_in_the_form_of_those_before(tmp_path, capsys):
    write_rows(tmp_path / "in.jsonl", [RIGHT] * 4)
    first = (tmp_path / "in.jsonl").read_text()
    command = ["score", str(tmp_path / "in.jsonl"), str(tmp_path / "out.jsonl"), "--model", str(MODEL_DIR)]
    assert main(command) == 0
    begun = (tmp_path / "out.jsonl").read_text()
    settings = json.loads((tmp_path / "out.jsonl.settings.json").read_text())
    assert settings["answer_form"] == {"prefix": "", "template": "\\boxed{{{answer}}}"}
    write_rows(tmp_path / "in.jsonl", [RIGHT, WRONG] * 8, f"{PROBLEM} again")
    (tmp_path / "in.jsonl").write_text(first + (tmp_path / "in.jsonl").read_text())
    capsys.readouterr()
    assert main(command) == 0
    assert "using the answer form '' + \\boxed{…}, as for the rows that are there." in capsys.readouterr().err
    given = [*command[:2], str(tmp_path / "given.jsonl"), *command[3:], "--repro_answer_prefix", ""]
    assert main(given) == 0
    assert (tmp_path / "out.jsonl").read_text() == (tmp_path / "given.jsonl").read_text()
    assert (tmp_path / "out.jsonl").read_text().startswith(begun)
    damaged = settings | {"answer_form": {"prefix": ""}}
    (tmp_path / "out.jsonl.settings.json").write_text(json.dumps(damaged))
    assert main(command) == 2
    assert "answer_form is {'prefix': ''}. Name another output, or pass --overwrite." in capsys.readouterr().err


def test_inspect_takes_the_recipe(tmp_path, capsys):
    rows = list(task.eval_dataset(6))
    (tmp_path / "problems.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    arguments = ["inspect", str(tmp_path / "problems.jsonl"), "--model", str(MODEL_DIR), "--num_generations", "8"]
    outputs = ["--html", str(tmp_path / "page.html"), "--traces", str(tmp_path / "traces.jsonl")]
    assert main([*arguments, *outputs, "--max_completion_length", "160"]) == 0
    assert "using the answer form '</think>\\n\\n'" in capsys.readouterr().err
    traces = [json.loads(line) for line in (tmp_path / "traces.jsonl").read_text().splitlines()]
    assert len(traces) == 48
    assert max(len(trace["boundaries"]) for trace in traces) > 12  # all segments are kept, not ten
    assert all(trace["scores"][0] == pytest.approx(0.9 * 0.2384, abs=1e-3) for trace in traces if trace["scores"])
