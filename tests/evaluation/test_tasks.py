"""Every task's loader on small rows in the dataset's own columns: what is asked of the Hub, and local copies."""

import base64
import csv
import gzip
import json
import pickle
import zlib

import pytest
from datasets import Dataset
from datasets.exceptions import DatasetNotFoundError

from repro_trl.evaluation import tasks
from repro_trl.evaluation.rows import AssertTest, CallTest, ChoiceTarget, InputTest, MathTarget, livecodebench_tests
from repro_trl.evaluation.tasks import HUB_TASKS, TaskError, load_task, task_from_rows


def encoded(cases):
    """Private tests as LiveCodeBench stores them."""
    return base64.b64encode(zlib.compress(pickle.dumps(json.dumps(cases)))).decode()


LCB_COMMON = {
    "platform": "atcoder",
    "contest_id": "abc1",
    "contest_date": "2025-01-04T00:00:00",
    "difficulty": "easy",
    "question_title": "Sum",
}
ROWS = {
    "aime24": [
        {
            "id": 60 + i,
            "problem": f"What is {i} + 200?",
            "solution": f"It is \\boxed{{{200 + i}}}.",
            "answer": f"{200 + i}",
            "url": "https://artofproblemsolving.com/",
            "year": "2024",
        }
        for i in range(2)
    ],
    "aime25": [{"question": "Find $2^{3}$.", "answer": "8"}, {"question": "Which angle?", "answer": "336^\\circ"}],
    "math500": [
        {
            "problem": "Convert $(0,3)$ to polar coordinates.",
            "solution": "… $\\boxed{\\left( 3, \\frac{\\pi}{2} \\right)}$",
            "answer": "\\left( 3, \\frac{\\pi}{2} \\right)",
            "subject": "Precalculus",
            "level": 2,
            "unique_id": "test/precalculus/807.json",
        }
    ],
    "livemathbench": [{"question": "Find all $n$.", "answer": "$2k+1$", "question_type": "problem-solving"}],
    "gpqa_diamond": [
        {
            "Record ID": f"rec{i}",
            "Question": "Which one, [title] then?\n",
            "Correct Answer": "the right one\n",
            "Incorrect Answer 1": "wrong a",
            "Incorrect Answer 2": "wrong b",
            "Incorrect Answer 3": "wrong c",
            "Subdomain": "Physics",
        }
        for i in range(24)
    ],
    "mbpp": [
        {
            "source_file": "Benchmark Questions Verification V2.ipynb",
            "task_id": 11,
            "prompt": "Write a python function to double a number.",
            "code": "def double(n):\n    return 2 * n",
            "test_imports": ["import math"],
            "test_list": ["assert double(2) == 4", "assert double(math.inf) == math.inf"],
        }
    ],
    "livecodebench": [
        {
            **LCB_COMMON,
            "question_id": "abc1_a",
            "question_content": "Print the sum of the numbers.",
            "starter_code": "",
            "public_test_cases": json.dumps([{"input": "1 2\n", "output": "3\n", "testtype": "stdin"}]),
            "private_test_cases": encoded([{"input": "4 5\n", "output": "9\n", "testtype": "stdin"}]),
            "metadata": "{}",
        },
        {
            **LCB_COMMON,
            "question_id": "3701",
            "question_content": "Return the pairs.",
            "starter_code": "class Solution:\n    def pairs(self, a: List[int], b: str) -> int:\n        ",
            "public_test_cases": json.dumps([{"input": '[1, 2]\n"x"', "output": "[1]", "testtype": "functional"}]),
            "private_test_cases": json.dumps([{"input": '[]\n""', "output": "0", "testtype": "functional"}]),
            "metadata": '{"func_name": "pairs"}',
        },
    ],
}


def write(folder, name, rows, suffix=".jsonl"):
    path = folder / f"{name}{suffix}"
    path.parent.mkdir(parents=True, exist_ok=True)
    if suffix == ".csv":
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, rows[0])
            writer.writeheader()
            writer.writerows(rows)
    elif suffix == ".parquet":
        Dataset.from_list(rows).to_parquet(path)
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def content(problem):
    (message,) = problem.prompt
    assert message["role"] == "user"
    return message["content"]


@pytest.fixture
def hub(monkeypatch):
    """Stands in for the Hub: what was asked for, and the rows given."""
    asked = []

    def load_dataset(path, name=None, *, data_files=None, split, revision=None):
        asked.append((path, name, data_files, split, revision))
        (task,) = (key for key, task in HUB_TASKS.items() if task.dataset == path or task.dataset in str(data_files))
        return Dataset.from_list(ROWS[task])

    monkeypatch.setattr(tasks, "load_dataset", load_dataset)
    monkeypatch.setattr(tasks, "_newest_revision", lambda name, dataset: "f" * 40)
    return asked


def test_the_papers_seven_tasks_are_there():
    assert [task.title for task in HUB_TASKS.values()] == [
        "AIME24", "AIME25", "MATH500", "LMB", "GPQA-D", "MBPP", "LCB",
    ]  # fmt: skip
    assert list(ROWS) == list(HUB_TASKS)
    for name, task in HUB_TASKS.items():
        assert set(task.columns) <= set(ROWS[name][0])
        # A pin is a whole commit; one dataset has none, which docs/evaluation.md says.
        assert task.revision is None if name == "livemathbench" else len(task.revision) == 40


@pytest.mark.parametrize("name", HUB_TASKS)
def test_what_is_asked_of_the_hub(hub, name):
    task, hub_task = load_task(name), HUB_TASKS[name]
    revision = hub_task.revision or "f" * 40
    if name == "livecodebench":
        urls = [f"hf://datasets/livecodebench/code_generation_lite@{revision}/test6.jsonl"]
        assert hub == [("json", None, urls, "train", None)]
    else:
        assert hub == [(hub_task.dataset, config, None, hub_task.split, revision) for config in hub_task.configs]
    assert task.source["dataset"] == hub_task.dataset and task.source["revision"] == revision
    # The configurations stand one behind the other.
    assert len(task.problems) == len(ROWS[name]) * len(hub_task.configs)
    assert load_task(name, revision="abc").source["revision"] == "abc"


@pytest.mark.parametrize("name", HUB_TASKS)
def test_local_copies_in_every_format_give_the_same_problems(tmp_path, name):
    rows = ROWS[name]
    suffixes = [".jsonl", ".parquet"] if name == "mbpp" else [".jsonl", ".parquet", ".csv"]  # a CSV holds no lists
    loaded = []
    for suffix in suffixes:
        write(tmp_path / suffix, name, rows, suffix)
        task = load_task(name, tmp_path / suffix)
        assert task.source["file"] == f"{name}{suffix}" and len(task.source["sha256"]) == 64
        loaded.append([(problem.id, problem.prompt) for problem in task.problems])
    assert all(problems == loaded[0] for problems in loaded) and len(loaded[0]) == len(rows)


def test_a_folder_of_files_is_read_in_the_order_of_names(tmp_path):
    for part in (1, 0):
        write(tmp_path / "aime25", f"part{part}", [{"question": f"Q{part}", "answer": str(part)}])
    task = load_task("aime25", tmp_path)
    assert [content(problem).split("\n")[0] for problem in task.problems] == ["Q0", "Q1"]
    write(tmp_path, "aime25", ROWS["aime25"])
    with pytest.raises(TaskError, match="several local copies"):
        load_task("aime25", tmp_path)


def test_math_rows(hub):
    aime = load_task("aime24").problems
    assert [problem.id for problem in aime] == ["60", "61"] and aime[1].target == MathTarget("201")
    assert content(aime[0]).startswith("What is 0 + 200?\n\n") and "\\boxed{}" in content(aime[0])
    assert load_task("aime25").problems[1].target == MathTarget("336^\\circ")
    assert load_task("math500").problems[0].target == MathTarget("\\left( 3, \\frac{\\pi}{2} \\right)")
    assert load_task("livemathbench").problems[0].target == MathTarget("2k+1")


def test_options_are_shuffled_but_always_alike(hub):
    first, again = load_task("gpqa_diamond"), load_task("gpqa_diamond")
    assert [p.prompt for p in first.problems] == [p.prompt for p in again.problems]
    letters = set()
    for problem in first.problems:
        assert isinstance(problem.target, ChoiceTarget)
        lines = content(problem).splitlines()
        assert f"{problem.target.letter}) the right one" in lines
        assert sum(line[:3] in ("A) ", "B) ", "C) ", "D) ") for line in lines) == 4
        letters.add(problem.target.letter)
    assert letters == set("ABCD")


def test_mbpp_shows_its_tests(hub):
    (problem,) = load_task("mbpp").problems
    assert "assert double(2) == 4" in content(problem)
    assert problem.target.load() == (
        AssertTest("import math\nassert double(2) == 4"),
        AssertTest("import math\nassert double(math.inf) == math.inf"),
    )


def test_livecodebench_of_both_kinds(hub):
    by_input, by_call = load_task("livecodebench").problems
    assert by_input.target.load() == (InputTest("1 2\n", "3\n"), InputTest("4 5\n", "9\n"))
    assert by_call.target.load() == (CallTest("pairs", ([1, 2], "x"), [1]), CallTest("pairs", ([], ""), 0))
    assert "class Solution" in content(by_call) and "standard input" in content(by_input)


class Hostile:
    def __reduce__(self):
        return (print, ("code ran",))


def test_pickles_that_would_run_code_are_refused(capsys):
    row = dict(ROWS["livecodebench"][0])
    row["private_test_cases"] = base64.b64encode(zlib.compress(pickle.dumps(Hostile()))).decode()
    with pytest.raises(pickle.UnpicklingError, match="plain text"):
        livecodebench_tests(row)
    assert "code ran" not in capsys.readouterr().out


def test_tests_of_another_form_are_refused():
    row = dict(ROWS["livecodebench"][0], private_test_cases="[]", public_test_cases="[]")
    with pytest.raises(ValueError, match="no tests"):
        livecodebench_tests(row)
    row["public_test_cases"] = json.dumps([{"input": "", "output": "", "testtype": "telepathy"}])
    with pytest.raises(ValueError, match="telepathy"):
        livecodebench_tests(row)


# Files of one's own


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet", ".csv"])
def test_own_file(tmp_path, suffix):
    path = write(
        tmp_path, "own", [{"question": "1+1", "answer": "#### 1,002"}, {"question": "2", "answer": "3"}], suffix
    )
    task = load_task(str(path))
    assert task.name == "own" and [problem.id for problem in task.problems] == ["0", "1"]
    assert task.problems[0].target == MathTarget("1002")


def test_own_folder_and_compressed_files(tmp_path):
    rows = [{"question": "1+1", "answer": "2"}]
    write(tmp_path / "sums", "a", rows)
    (tmp_path / "sums" / "b.JSONL.gz").write_bytes(gzip.compress(json.dumps(rows[0]).encode()))
    (tmp_path / "sums" / "notes.txt").write_text("no rows")
    task = load_task(str(tmp_path / "sums"))
    assert task.name == "sums" and len(task.problems) == 2 and task.source["file"] == "a.jsonl, b.JSONL.gz"
    assert load_task(str(tmp_path / "sums" / "b.JSONL.gz")).name == "b"
    (tmp_path / "aime25.jsonl.gz").write_bytes(gzip.compress(json.dumps(ROWS["aime25"][0]).encode()))
    assert load_task("aime25", tmp_path).problems[0].target == MathTarget("8")


@pytest.mark.parametrize(
    ("written", "answer"),
    [
        ("12345678901234567890123", "12345678901234567890123"),
        ("9007199254740993", "9007199254740993"),
        ("0.10000000000000000001", "0.10000000000000000001"),
        ("1.50", "1.50"),
        ("27.0", "27"),
        ("1e3", "1000"),
        ('"007"', "007"),
        ('"1e3"', "1e3"),
        ("1" * 5000, "1" * 5000),
    ],
)
def test_answers_keep_their_digits(tmp_path, written, answer):
    answers = (written, "0.5", '"x"')
    lines = "".join(f'{{"problem": "{i}", "answer": {text}}}\n' for i, text in enumerate(answers))
    (tmp_path / "own.jsonl").write_text(lines)
    (tmp_path / "list.json").write_text("[" + ", ".join(lines.splitlines()) + "]")
    for name in ("own.jsonl", "list.json"):
        targets = [problem.target for problem in load_task(str(tmp_path / name)).problems]
        assert targets == [MathTarget(answer), MathTarget("0.5"), MathTarget("x")]


@pytest.mark.parametrize("cell", ["True", "007", "1e3", "1.50", "12345678901234567890123"])
def test_cells_of_a_csv_file_are_text(tmp_path, cell):
    (tmp_path / "own.csv").write_text(f"problem,answer\n1,{cell}\n2,0.5\n")
    assert load_task(str(tmp_path / "own.csv")).problems[0].target == MathTarget(cell)


@pytest.mark.parametrize("cell", ["None", "NA", "nan", "null", ""])
def test_cells_that_say_that_there_is_no_answer(tmp_path, cell):
    (tmp_path / "own.csv").write_text(f"problem,answer\n1,{cell}\n2,0.5\n")
    with pytest.raises(TaskError, match="problem '0' has no answer"):
        load_task(str(tmp_path / "own.csv"))


def test_rows_in_memory_keep_their_digits():
    task = task_from_rows("own", [{"problem": "1", "answer": 2**53 + 1}, {"problem": "2", "answer": 0.5}])
    assert task.problems[0].target == MathTarget("9007199254740993")


def test_own_messages_are_taken_as_they_are():
    prompt = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "1+1"}]
    task = task_from_rows("own", [{"prompt": prompt, "solution": "\\boxed{2}"}])
    assert task.problems[0].prompt == prompt and task.problems[0].target == MathTarget("2")


@pytest.mark.parametrize(
    "row",
    [
        {"problem": "1+1", "solution": "Adding one to one, we get the number that we want. " * 8, "answer": "2"},
        {"prompt": [{"role": "user", "content": "1+1"}], "reward_model": {"ground_truth": "2", "style": "rule"}},
        {"question": "1+1", "verification_info": '{"ground_truth": "2"}'},
        {"Problem": "1+1", "Answer": 2},
    ],
)
def test_own_rows_are_read_in_the_columns_of_training(tmp_path, row):
    (problem,) = load_task(str(write(tmp_path, "own", [row]))).problems
    assert problem.target == MathTarget("2") and "1+1" in problem.prompt[0]["content"]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"text": "1+1", "answer": "2"}], r"the columns are \['text', 'answer'\]"),
        ([{"problem": "1+1", "truth": "2"}], r"answer, .*reward_model\.ground_truth, .*solution"),
        ([{"problem": "1+1", "answer": "2"}, {"problem": "1+1", "answer": None}], "problem '1' has no answer"),
        ([{"problem": "1+1", "answer": "\\boxed{}"}], "has no answer"),
        ([{"problem": "1+1", "answer": True}], "text, a number, a list of these or None"),
    ],
)
def test_own_files_that_cannot_be_used(tmp_path, rows, message):
    with pytest.raises(TaskError, match=message):
        load_task(str(write(tmp_path, "own", rows)))


# What can go wrong


def test_names_that_lead_nowhere(tmp_path):
    with pytest.raises(TaskError, match=r"no such task. Name one of aime24, aime25.*jsonl"):
        load_task("aime26")
    with pytest.raises(TaskError, match=r"nowhere.jsonl: there is no such file"):
        load_task(str(tmp_path / "nowhere.jsonl"))
    with pytest.raises(TaskError, match="is not a folder"):
        load_task("aime24", tmp_path / "nowhere")
    (tmp_path / "broken.jsonl").write_text("{")
    with pytest.raises(TaskError, match=r"broken.jsonl, line 1: it is not JSON"):
        load_task(str(tmp_path / "broken.jsonl"))
    (tmp_path / "empty.jsonl").write_text("")
    with pytest.raises(TaskError, match="empty"):
        load_task(str(tmp_path / "empty.jsonl"))
    path = write(tmp_path, "own", [{"problem": "1", "answer": "1"}])
    with pytest.raises(TaskError, match="no revision"):
        load_task(str(path), revision="main")


def test_missing_columns_are_named(tmp_path):
    write(tmp_path, "aime24", [{"ID": "2024-I-1", "Problem": "?", "Answer": 1}])
    with pytest.raises(TaskError, match=r"should have the columns \['id', 'problem', 'answer'\]; it has \['ID'"):
        load_task("aime24", tmp_path)
    write(tmp_path, "mbpp", [dict(ROWS["mbpp"][0]), dict(ROWS["mbpp"][0])])
    with pytest.raises(TaskError, match="2 problems share 1 ids"):
        load_task("mbpp", tmp_path)


@pytest.mark.parametrize(
    ("error", "advice"),
    [
        (DatasetNotFoundError("Dataset 'Idavidrein/gpqa' is a gated dataset on the Hub."), "Accept its conditions"),
        (DatasetNotFoundError("Revision 'x' doesn't exist for dataset."), "name of the revision"),
        (ConnectionError("Couldn't reach the Hub"), "Check the network"),
        (RuntimeError("Dataset scripts are no longer supported"), "Check the network"),
    ],
)
def test_a_dataset_that_cannot_be_loaded(monkeypatch, error, advice):
    def load_dataset(*args, **kwargs):
        raise error

    monkeypatch.setattr(tasks, "load_dataset", load_dataset)
    with pytest.raises(TaskError, match=f"'gpqa_diamond': Idavidrein/gpqa .*{advice}.*--data_dir"):
        load_task("gpqa_diamond")
