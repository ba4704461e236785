"""`repro-trl eval` under kills, Ctrl-C, full disks, company and damaged files: nothing lost, nothing twice."""

import shutil
import signal

import pytest
from faults import DAMAGES, Command, small_disk, stop_at_random
from tiny_evaluations import arguments, final_files

from repro_trl.cli import main
from repro_trl.evaluation.records import Record, read_items


@pytest.mark.parametrize(
    ("number", "times"),
    [
        pytest.param(signal.SIGKILL, 2, id="killed"),
        pytest.param(signal.SIGINT, 2, id="interrupted"),
        pytest.param(signal.SIGKILL, 20, id="killed 20 times", marks=pytest.mark.slow),
        pytest.param(signal.SIGINT, 20, id="interrupted 20 times", marks=pytest.mark.slow),
    ],
)
def test_stopped_at_random_moments(finished, policy, held_out, tmp_path, number, times):
    folder = tmp_path / "out"

    def check():
        assert final_files(folder) == final_files(finished)
        shutil.rmtree(folder)

    stop_at_random(arguments(policy, held_out, folder), tmp_path, number, times, seed=times, finished=check)


@pytest.mark.parametrize("size", [900, *(pytest.param(s, marks=pytest.mark.slow) for s in (0, 10, 1200, 2000, 4000))])
def test_no_room_for_a_file(finished, policy, held_out, tmp_path, size):
    """Wherever writing fails, what was done is kept, and the run goes on from there."""
    folder = tmp_path / "out"
    command = Command(arguments(policy, held_out, folder), tmp_path / "log", file_size=size)
    assert command.finish() == 1
    assert "File too large" in command.printed() and "Finished work is kept" in command.printed()
    assert not (folder / "results.json").exists()
    assert Command(arguments(policy, held_out, folder), tmp_path / "log").finish() == 0
    assert final_files(folder) == final_files(finished)


@pytest.mark.slow
@pytest.mark.parametrize("kilobytes", [8, 12, 16, 20, 24])
def test_a_full_disk(finished, policy, held_out, tmp_path, kilobytes):
    with small_disk(tmp_path / "disk", kilobytes) as disk:
        command = Command(arguments(policy, held_out, disk / "out"), tmp_path / "log")
        assert command.finish() == 1 and "No space left on device" in command.printed()
        shutil.copytree(disk / "out", tmp_path / "out")
    assert Command(arguments(policy, held_out, tmp_path / "out"), tmp_path / "log").finish() == 0
    assert final_files(tmp_path / "out") == final_files(finished)


def test_two_at_once(finished, policy, held_out, tmp_path):
    folder = tmp_path / "out"
    two = [Command(arguments(policy, held_out, folder), tmp_path / f"log{number}") for number in range(2)]
    assert [command.finish() for command in two] == [0, 0]
    assert final_files(folder) == final_files(finished)
    assert sum("waiting for it to end" in command.printed() for command in two) == 1


def damaged_file(kind, policy, held_out, finished, tmp_path):
    """Copies of all that an evaluation reads, and the file to damage."""
    copies = {"policy": tmp_path / "policy", "out": tmp_path / "out", "earlier": tmp_path / "earlier"}
    shutil.copytree(policy, copies["policy"])
    shutil.copytree(finished, copies["out"])
    shutil.copytree(finished, copies["earlier"])
    tasks = tmp_path / "held_out.jsonl"
    shutil.copy(held_out, tasks)
    folder, name = kind.split("/", 1)
    return copies, tasks, tasks if folder == "tasks" else copies[folder] / name


FILES = [
    "tasks/held_out.jsonl",
    "policy/config.json",
    "policy/generation_config.json",
    "policy/model.safetensors",
    "policy/tokenizer.json",
    "policy/tokenizer_config.json",
    "out/work/held_out/settings.json",
    "out/work/held_out/samples-0.jsonl",
    "out/work/held_out/verdicts-0.jsonl",
    "out/held_out.jsonl",
    "out/results.json",
    "earlier/results.json",
    "earlier/held_out.jsonl",
]


@pytest.mark.parametrize("kind", FILES)
@pytest.mark.parametrize(
    "way", [pytest.param(way, marks=[] if way == "cut in half" else pytest.mark.slow) for way in DAMAGES]
)
def test_a_damaged_file(finished, policy, held_out, tmp_path, capsys, kind, way):
    copies, tasks, file = damaged_file(kind, policy, held_out, finished, tmp_path)
    file.write_bytes(DAMAGES[way](file.read_bytes()))
    folder = tmp_path / "new" if kind.startswith(("tasks", "policy")) else copies["out"]
    # The name of the model is in its settings: only one that is damaged is another one.
    model = copies["policy"] if kind.startswith("policy") else policy
    status = main(arguments(model, tasks, folder, "--compare_to", str(copies["earlier"])))
    printed = capsys.readouterr().err
    if status == 0:
        records = [(r.problem, r.sample) for r in read_items(folder / "held_out.jsonl", Record)]
        assert len(records) == len(set(records)) > 0
        if kind.startswith("out"):
            assert (folder / "held_out.jsonl").read_bytes() == (finished / "held_out.jsonl").read_bytes()
    else:
        assert status in (1, 2)
        # One sentence, which names what is damaged.
        (said,) = (line for line in printed.splitlines() if line.startswith("repro-trl eval: "))
        assert file.name in said or str(copies["policy"]) in said or "held_out" in said


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: path.write_text(""), "Not a directory"),
        (lambda path: path.symlink_to("/proc/version"), "Not a directory"),
        (lambda path: path.symlink_to("/sys"), "out: "),  # the words differ between kernels
        (lambda path: path.symlink_to(path), "oo many"),
    ],
)
def test_a_folder_that_cannot_be_written(policy, held_out, tmp_path, capsys, make, message):
    make(tmp_path / "file")
    assert main(arguments(policy, held_out, tmp_path / "file" / "out")) == 2
    assert message in capsys.readouterr().err
