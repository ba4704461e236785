"""`repro-trl report` under damaged folders, places that cannot be written, full disks and Ctrl-C: the other runs are
reported, and a page is whole or not there."""

import shutil
import signal

import pytest
from faults import DAMAGES, Command, small_disk, stop_at_random
from tiny_run_folders import write_completions, write_run

from repro_trl.cli import main
from repro_trl.demo import MODEL_DIR

ACCURACY = "rewards/accuracy_reward/mean"
FILES = [
    "trainer_state.json",
    "checkpoint-2/trainer_state.json",
    "training_args.bin",
    "config.json",
    "run.json",
    "tokenizer.json",
    "completions/completions_00002.parquet",
]
OFTEN = {"cut in half", "noise in the middle", "fields of other types"}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Two whole runs, of which the second is damaged by tests."""
    folder = tmp_path_factory.mktemp("runs")
    for seed in (1, 2):
        run = folder / f"seed-{seed}"
        for place, steps in ((run, 3), (run / "checkpoint-2", 2)):
            write_run(place, {ACCURACY: [0.2] * steps}, {steps: {ACCURACY: 0.5}}, settings={"seed": seed})
        for step in (1, 2, 3):
            write_completions(run, step, [f"thought {step}\n\nwait</think>1"], accuracy_reward=[1.0])
        (run / "run.json").write_text('{"model": "m"}')
        shutil.copytree(MODEL_DIR, run, dirs_exist_ok=True)
    return folder


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("way", [pytest.param(w, marks=[] if w in OFTEN else pytest.mark.slow) for w in DAMAGES])
def test_a_damaged_file_in_one_run(runs, tmp_path, capsys, name, way):
    shutil.copytree(runs, tmp_path / "runs")
    whole, damaged = tmp_path / "runs" / "seed-1", tmp_path / "runs" / "seed-2"
    (damaged / name).write_bytes(DAMAGES[way]((damaged / name).read_bytes()))
    page = tmp_path / "page.html"
    assert main(["report", str(whole), str(damaged), "--html", str(page)]) == 0
    printed = capsys.readouterr()
    assert "seed-1" in printed.out and "seed-2" in printed.out and "0.500" in printed.out
    assert page.read_text(encoding="utf-8").endswith("</html>")
    assert not list(tmp_path.glob(".part-*"))
    if way in ("empty", "cut in half", "noise", "another format") and not name.startswith("checkpoint"):
        assert "Note, seed-2: " in printed.out


@pytest.mark.parametrize("way", DAMAGES)
def test_phrases_that_are_damaged(runs, tmp_path, capsys, way):
    phrases = tmp_path / "phrases.json"
    phrases.write_bytes(DAMAGES[way](b'{"wait": ["wait", "hold on", "hmm", "one moment"], "again": ["once more"]}'))
    status = main(["report", str(runs / "seed-1"), "--backtracks", str(phrases)])
    assert status in (0, 2) and (status == 0 or "phrases" in capsys.readouterr().err)


def test_all_files_of_a_run_damaged(runs, tmp_path, capsys):
    shutil.copytree(runs, tmp_path / "runs")
    for name in FILES:
        (tmp_path / "runs" / "seed-2" / name).write_bytes(b"")
    for file in (tmp_path / "runs" / "seed-2" / "completions").iterdir():
        file.write_bytes(b"PAR1")
    page = tmp_path / "page.html"
    assert main(["report", *(str(tmp_path / "runs" / f"seed-{s}") for s in (2, 1)), "--html", str(page)]) == 1
    printed = capsys.readouterr()
    assert "seed-1" in printed.out and "seed-2: neither logs" in printed.err and page.is_file()


@pytest.mark.parametrize("option", ["--html", "--png"])
@pytest.mark.parametrize("name", ["file/out", "folder", "loop/out"])
def test_an_output_that_cannot_be_written_is_said_before_any_work(runs, tmp_path, monkeypatch, capsys, option, name):
    monkeypatch.setattr("repro_trl.reporting.command.read_run", lambda *args: pytest.fail("a run was read"))
    (tmp_path / "file").write_text("")
    (tmp_path / "folder").mkdir()
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    assert main(["report", str(runs / "seed-1"), option, str(tmp_path / name)]) == 2
    printed = capsys.readouterr()
    assert name.partition("/")[0] in printed.err and not printed.out


def test_folders_are_made_for_every_output(runs, tmp_path):
    files = {"--html": tmp_path / "a/b/x.html", "--png": tmp_path / "c/d/x.png"}
    options = [str(part) for pair in files.items() for part in pair]
    assert main(["report", str(runs / "seed-1"), *options]) == 0
    assert all(file.stat().st_size for file in files.values()) and not list(tmp_path.rglob(".part-*"))


@pytest.mark.parametrize("option", ["--html", "--png"])
def test_no_room_leaves_what_was_there(runs, tmp_path, option):
    old = tmp_path / "out" / "old"
    old.parent.mkdir()
    old.write_text("old")
    command = Command(["report", str(runs / "seed-1"), option, str(old)], tmp_path / "log", file_size=3000)
    assert command.finish() == 1 and "File too large" in command.printed()
    assert old.read_text() == "old" and list(old.parent.iterdir()) == [old]


@pytest.mark.slow
@pytest.mark.parametrize("option", ["--html", "--png"])
def test_a_full_disk(runs, tmp_path, option):
    with small_disk(tmp_path / "disk", 8) as disk:
        command = Command(["report", str(runs / "seed-1"), option, str(disk / "out")], tmp_path / "log")
        assert command.finish() == 1 and "No space left on device" in command.printed()
        assert not list(disk.iterdir())


@pytest.mark.parametrize(
    "times", [pytest.param(2, id="twice"), pytest.param(20, id="20 times", marks=pytest.mark.slow)]
)
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_stopped_at_random_moments(runs, tmp_path, number, times):
    page = tmp_path / "out" / "page.html"

    def check():
        assert page.read_text(encoding="utf-8").endswith("</html>")
        shutil.rmtree(page.parent)

    arguments = ["report", *(str(runs / f"seed-{seed}") for seed in (1, 2)), "--html", str(page)]
    stop_at_random(arguments, tmp_path, number, times, seed=times, finished=check)
