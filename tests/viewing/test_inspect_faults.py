"""`repro-trl inspect` under damaged files, places that cannot be written, full disks and Ctrl-C: one sentence, a whole
page or none."""

import gzip
import json
import random
import shutil
import signal

import pandas as pd
import pytest
from faults import DAMAGES, Command, small_disk, stop_at_random
from tiny_traces import random_trace

from repro_trl.cli import main
from repro_trl.demo import MODEL_DIR
from repro_trl.traces import write_traces

PROMPT = "Find the digits. A: 3+4 ; B: 9-4"
THOUGHTS = ["A: 3+4 = 7\n\nB: 9-4 = 5\n\n</think>\n\n\\boxed{75}", "A: 3+4 = 8\n\nHmm.\n\n</think>\n\n\\boxed{85}"]
ROWS = [{"prompt": f"{PROMPT} {i}", "completion": THOUGHTS[i % 2], "answer": "75"} for i in range(4)]
LINES = "".join(json.dumps(row) + "\n" for row in ROWS).encode()
OFTEN = {"cut in half", "noise in the middle", "fields of other types"}


def write_sources(folder):
    """The same rows in every form; a trace file; a model; ground truths."""
    (folder / "rows.jsonl").write_bytes(LINES)
    (folder / "rows.JSONL.GZ").write_bytes(gzip.compress(LINES))
    (folder / "rows.Json").write_text(json.dumps(ROWS))
    (folder / "part.jsonl").write_bytes(LINES)
    table = pd.DataFrame(ROWS)
    table.to_parquet(folder / "rows.parquet", row_group_size=2)
    table.to_csv(folder / "rows.csv", index=False)
    (folder / "answers.jsonl").write_text(json.dumps({"problem": PROMPT, "answer": "75"}))
    write_traces(folder / "traces.jsonl", [random_trace(random.Random(0), str(i)) for i in range(3)])
    shutil.copytree(MODEL_DIR, folder / "model")


MODEL_FILES = ["config", "tokenizer"]
FORMS = ["rows.jsonl", "rows.JSONL.GZ", "rows.Json", "rows.parquet", "rows.csv"]


def test_every_form_of_a_file_gives_the_same_page(tmp_path):
    write_sources(tmp_path)
    pages = set()
    for form in FORMS:
        assert main(["inspect", str(tmp_path / form), "--html", str(tmp_path / "page.html"), "--title", "t"]) == 0
        pages.add((tmp_path / "page.html").read_bytes())
    assert len(pages) == 1
    (tmp_path / "folder").mkdir()
    for number in range(2):
        (tmp_path / "folder" / f"{number}.jsonl").write_bytes(LINES)
    (tmp_path / "folder" / "README.md").write_text("no rows")
    assert main(["inspect", str(tmp_path / "folder"), "--html", str(tmp_path / "page.html")]) == 0
    assert (tmp_path / "page.html").read_text().count('id="trace-') == 8


@pytest.mark.parametrize(
    "name", [*FORMS, "traces.jsonl", "answers.jsonl", "model/config.json", "model/tokenizer.json"]
)
@pytest.mark.parametrize("way", [pytest.param(w, marks=[] if w in OFTEN else pytest.mark.slow) for w in DAMAGES])
def test_a_damaged_file(tmp_path, capsys, name, way):
    write_sources(tmp_path)
    file, page = tmp_path / name, tmp_path / "page.html"
    file.write_bytes(DAMAGES[way](file.read_bytes()))
    source = file if name in (*FORMS, "traces.jsonl") else tmp_path / "part.jsonl"
    more = ["--answers_from", tmp_path / "answers.jsonl"] if name == "answers.jsonl" else []
    more += ["--model", tmp_path / "model"] if name.startswith("model") else []
    status = main(["inspect", str(source), "--html", str(page), *map(str, more)])
    printed = capsys.readouterr()
    if status == 2:
        assert not page.exists()
        assert sum(line.startswith("repro-trl inspect: ") for line in printed.err.splitlines()) == 1
        assert name.rpartition("/")[2] in printed.err or "model=" in printed.err
    else:
        assert page.read_text().endswith("</html>\n")
        # A cut or a change within a text or a number may go unseen; what is seen is named, with its place.
        assert status == 0 or (status == 1 and str(file) in printed.err)
    assert not list(tmp_path.glob(".part-*"))


def test_a_file_that_is_cut_off_gives_its_whole_rows(tmp_path, capsys):
    (tmp_path / "rows.jsonl").write_bytes(LINES[:-9])
    assert main(["inspect", str(tmp_path / "rows.jsonl"), "--html", str(tmp_path / "page.html")]) == 1
    assert (tmp_path / "page.html").read_text().count('id="trace-') == 3
    assert "rows.jsonl, line 4: it is not JSON" in capsys.readouterr().err


@pytest.mark.parametrize("step", ["three", -1, 1.5, None, True])
def test_a_step_that_is_none_is_refused_with_its_row(tmp_path, capsys, step):
    rows = [{**row, "step": step if i == 1 else i, "advantage": 0.5, "reward": 1.0} for i, row in enumerate(ROWS)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert main(["inspect", str(tmp_path / "rows.jsonl"), "--html", str(tmp_path / "page.html")]) == 1
    assert "rows.jsonl, line 2: 'step' must be an integer" in capsys.readouterr().err
    assert (tmp_path / "page.html").read_text().count('id="trace-') == 3


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["nowhere/rows.jsonl"], "nowhere/rows.jsonl: there is no such file or folder"),
        (["/nowhere/at/all"], "/nowhere/at/all: there is no such file or folder"),
        (["empty"], "the folder has no file of rows"),
        (["rows.txt"], "rows.txt: its name does not end in a known format"),
        (["rows.jsonl", "--model", "./nowhere"], "'./nowhere' cannot be loaded: there is no such folder"),
        (["rows.jsonl", "--model", "rows.jsonl"], "is a file"),
        (["rows.jsonl", "--device", "abacus"], "abacus"),
        (["rows.jsonl", "traces.jsonl"], "traces.jsonl has traces, but other sources do not"),
        (["rows.jsonl", "--answers_from", "nowhere.csv"], "nowhere.csv: there is no such file"),
    ],
)
def test_what_cannot_be_read_is_said_in_one_sentence(tmp_path, monkeypatch, capsys, arguments, sentence):
    monkeypatch.chdir(tmp_path)
    write_sources(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "rows.txt").write_text("x")
    assert main(["inspect", *arguments]) == 2
    assert sentence in capsys.readouterr().err and not (tmp_path / "traces.html").exists()


@pytest.mark.parametrize("option", ["--html", "--png", "--traces"])
@pytest.mark.parametrize("name", ["file/out", "folder", "loop/out"])
def test_an_output_that_cannot_be_written_is_said_before_any_work(tmp_path, monkeypatch, capsys, option, name):
    monkeypatch.setattr(
        "repro_trl.viewing.inspect_command.scorer_from_arguments", lambda arguments: pytest.fail("a model was loaded")
    )
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("")
    (tmp_path / "folder").mkdir()
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    assert main(["inspect", option, name]) == 2
    assert name.partition("/")[0] in capsys.readouterr().err


def test_folders_are_made_for_every_output(tmp_path):
    write_sources(tmp_path)
    files = {"--html": tmp_path / "a/b/x.html", "--png": tmp_path / "c/d/x.png", "--traces": tmp_path / "e/f/x.jsonl"}
    options = [str(part) for pair in files.items() for part in pair]
    assert main(["inspect", str(tmp_path / "rows.jsonl"), *options]) == 0
    assert all(file.stat().st_size for file in files.values())
    assert not [file for file in tmp_path.rglob(".part-*")]


@pytest.mark.parametrize("option", ["--html", "--png", "--traces"])
def test_no_room_leaves_what_was_there(tmp_path, option):
    write_traces(tmp_path / "traces.jsonl", [random_trace(random.Random(0), str(i)) for i in range(20)])
    old = tmp_path / "out" / "old"
    old.parent.mkdir()
    old.write_text("old")
    arguments = ["inspect", str(tmp_path / "traces.jsonl"), "--html", str(tmp_path / "page.html"), option, str(old)]
    command = Command(arguments, tmp_path / "log", file_size=3000)
    assert command.finish() == 1 and "File too large" in command.printed()
    assert old.read_text() == "old" and list(old.parent.iterdir()) == [old]


@pytest.mark.slow
def test_a_full_disk(tmp_path):
    write_traces(tmp_path / "traces.jsonl", [random_trace(random.Random(0), str(i)) for i in range(20)])
    with small_disk(tmp_path / "disk", 16) as disk:
        command = Command(
            ["inspect", str(tmp_path / "traces.jsonl"), "--html", str(disk / "a.html")], tmp_path / "log"
        )
        assert command.finish() == 1 and "No space left on device" in command.printed()
        assert not list(disk.iterdir())


def test_a_device_is_written_to_and_stays(tmp_path):
    write_traces(tmp_path / "traces.jsonl", [random_trace(random.Random(0))])
    assert main(["inspect", str(tmp_path / "traces.jsonl"), "--html", "/dev/null"]) == 0
    assert main(["inspect", str(tmp_path / "traces.jsonl"), "--html", "/dev/full"]) == 1


def test_ctrl_c_keeps_what_was_scored(tmp_path, monkeypatch, capsys):
    from repro_trl.viewing.scorer import CompletionScorer

    write_sources(tmp_path)
    calls, score = [], CompletionScorer.score

    def interrupted(self, *args):
        calls.append(args)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return score(self, *args)

    monkeypatch.setattr(CompletionScorer, "score", interrupted)
    page = tmp_path / "page.html"
    assert main(["inspect", str(tmp_path / "rows.jsonl"), "--html", str(page)]) == 130
    assert page.read_text().count('id="trace-') == 2
    assert "interrupted; the page shows what was scored so far" in capsys.readouterr().err


@pytest.mark.parametrize(
    "times", [pytest.param(2, id="twice"), pytest.param(20, id="20 times", marks=pytest.mark.slow)]
)
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_stopped_at_random_moments(tmp_path, number, times):
    write_sources(tmp_path)
    page = tmp_path / "out" / "page.html"

    def check():
        assert page.read_text().count('id="trace-') == 4 and page.read_text().endswith("</html>\n")
        shutil.rmtree(page.parent)

    arguments = ["inspect", str(tmp_path / "rows.jsonl"), "--html", str(page)]
    stop_at_random(arguments, tmp_path, number, times, seed=times, finished=check)
