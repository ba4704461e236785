"""`repro-trl score` under kills, Ctrl-C, full disks, company and damaged files: nothing lost, nothing twice."""

import json
import shutil
import signal

import pytest
from faults import DAMAGES, Command, small_disk, stop_at_random

from repro_trl.cli import main
from repro_trl.demo import MODEL_DIR

PROMPT = [{"role": "user", "content": "Find the digits. A: 3+4 ; B: 9-4"}]
THOUGHTS = ["A: 3+4 = 7\n\nB: 9-4 = 5\n\n</think>\n\n\\boxed{75}", "A: 3+4 = 8\n\nHmm.\n\n</think>\n\n\\boxed{85}"]


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "rows.jsonl"
    groups = [{"id": i, "prompt": PROMPT, "completions": THOUGHTS, "solution": "75"} for i in range(3)]
    singles = [
        {"id": 3 + i, "problem": f"A: 1+{i // 3}", "completion": THOUGHTS[i % 2], "answer": "2"} for i in range(15)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in [*groups, *singles]))
    return path


@pytest.fixture(scope="module")
def scored(rows, tmp_path_factory):
    """What an uninterrupted run writes."""
    output = tmp_path_factory.mktemp("scored") / "out.jsonl"
    assert main(["score", str(rows), str(output)]) == 0
    return output.read_bytes()


@pytest.mark.parametrize(
    ("number", "times"),
    [
        pytest.param(signal.SIGKILL, 2, id="killed"),
        pytest.param(signal.SIGINT, 2, id="interrupted"),
        pytest.param(signal.SIGKILL, 20, id="killed 20 times", marks=pytest.mark.slow),
        pytest.param(signal.SIGINT, 20, id="interrupted 20 times", marks=pytest.mark.slow),
    ],
)
def test_stopped_at_random_moments(rows, scored, tmp_path, number, times):
    output = tmp_path / "out" / "scored.jsonl"

    def check():
        assert output.read_bytes() == scored
        shutil.rmtree(output.parent)

    stop_at_random(["score", str(rows), str(output)], tmp_path, number, times, seed=times, finished=check)


@pytest.mark.parametrize("size", [5000, *(pytest.param(s, marks=pytest.mark.slow) for s in (0, 100, 1500, 10000))])
def test_no_room_for_a_file(rows, scored, tmp_path, size):
    output = tmp_path / "scored.jsonl"
    command = Command(["score", str(rows), str(output)], tmp_path / "log", file_size=size)
    assert command.finish() == 1 and "File too large" in command.printed()
    kept = output.read_bytes()
    assert scored.startswith(kept) and len(kept) <= size and (not kept or kept.endswith(b"\n"))
    assert Command(["score", str(rows), str(output)], tmp_path / "log").finish() == 0
    assert output.read_bytes() == scored


@pytest.mark.slow
@pytest.mark.parametrize("kilobytes", [4, 8, 12])
def test_a_full_disk(rows, scored, tmp_path, kilobytes):
    with small_disk(tmp_path / "disk", kilobytes) as disk:
        command = Command(["score", str(rows), str(disk / "scored.jsonl")], tmp_path / "log")
        assert command.finish() == 1 and "No space left on device" in command.printed()
        shutil.copytree(disk, tmp_path / "out")
    output = tmp_path / "out" / "scored.jsonl"
    assert scored.startswith(output.read_bytes())
    assert Command(["score", str(rows), str(output)], tmp_path / "log").finish() == 0
    assert output.read_bytes() == scored


def test_two_at_once(rows, scored, tmp_path):
    output = tmp_path / "scored.jsonl"
    two = [Command(["score", str(rows), str(output)], tmp_path / f"log{number}") for number in range(2)]
    statuses = [command.finish() for command in two]
    # The second is refused, or comes when the first is done and finds nothing to do.
    assert sorted(statuses) in ([0, 2], [0, 0])
    assert output.read_bytes() == scored
    for command, status in zip(two, statuses, strict=True):
        assert (status == 2) == ("another process is writing to it" in command.printed())


def test_a_second_run_is_refused(rows, scored, tmp_path, capsys):
    import fcntl

    output = tmp_path / "scored.jsonl"
    output.write_bytes(scored[:3000])
    with output.open("rb+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert main(["score", str(rows), str(output), "--overwrite"]) == 2
    assert "another process is writing to it" in capsys.readouterr().err and output.read_bytes() == scored[:3000]


FILES = ["rows.jsonl", "model/config.json", "model/model.safetensors", "model/tokenizer.json", "scored.jsonl"]
FILES += ["model/tokenizer_config.json", "scored.jsonl.settings.json"]


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize(
    "way", [pytest.param(way, marks=[] if way == "noise in the middle" else pytest.mark.slow) for way in DAMAGES]
)
def test_a_damaged_file(rows, tmp_path, capsys, name, way):
    source, model, output = tmp_path / "rows.jsonl", tmp_path / "model", tmp_path / "scored.jsonl"
    source.write_text("".join(rows.read_text().splitlines(keepends=True)[:8]))
    shutil.copytree(MODEL_DIR, model)
    command = ["score", str(source), str(output), "--model", str(model)]
    if name.startswith("scored"):
        assert main(command) == 0
    whole = output.read_bytes() if output.exists() else b""
    file = tmp_path / name
    file.write_bytes(DAMAGES[way](file.read_bytes()))
    capsys.readouterr()
    status = main(command)
    printed = capsys.readouterr().err
    assert status in (0, 1, 2)
    if status == 2:
        lines = [line for line in printed.splitlines() if line.startswith("repro-trl score: ")]
        (said,) = (line for line in lines if "the answer form" not in line and "the paper's form is used" not in line)
        assert file.name in said or str(model) in said
    elif status == 1:
        assert name == "rows.jsonl" and "line " in printed
    elif name.startswith("scored"):
        assert output.read_bytes() == whole
    if output.exists() and status != 2:
        ids = [json.loads(line)["id"] for line in output.read_text().splitlines()]
        assert ids == sorted(set(ids))


@pytest.mark.parametrize("name", ["file/out.jsonl", "folder", "loop/out.jsonl"])
def test_an_output_that_cannot_be_written(rows, tmp_path, capsys, name):
    (tmp_path / "file").write_text("")
    (tmp_path / "folder").mkdir()
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    assert main(["score", str(rows), str(tmp_path / name)]) == 2
    assert name.partition("/")[0] in capsys.readouterr().err


@pytest.mark.parametrize("content", ["", "\n \n"])
def test_an_input_without_rows(tmp_path, capsys, content):
    (tmp_path / "rows.jsonl").write_text(content)
    assert main(["score", str(tmp_path / "rows.jsonl"), str(tmp_path / "out" / "scored.jsonl")]) == 2
    assert "rows.jsonl" in capsys.readouterr().err and not (tmp_path / "out").exists()
