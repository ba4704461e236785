"""`repro-trl inspect`: what it shows of given, logged, sampled and typed-in completions."""

import json
import random
import shutil

import pytest
from matplotlib.image import imread
from tiny_runs import settings, token_reward
from tiny_traces import random_trace, unscored_trace
from trl import GRPOConfig, GRPOTrainer

from repro_trl import ReproGRPOConfig, ReproGRPOTrainer
from repro_trl.cli import main
from repro_trl.demo import MODEL_DIR, PROBLEMS_FILE, task
from repro_trl.traces import read_traces, write_traces
from repro_trl.viewing import inspect_command
from repro_trl.viewing.picture import write_picture

PROMPT = [{"role": "user", "content": "Find the digits. A: 3+4 ; B: 9-4"}]
THOUGHTS = ["A: 3+4 = 7\n\nB: 9-4 = 5\n\n</think>\n\n\\boxed{75}", "A: 3+4 = 8\n\nHmm.\n\n</think>\n\n\\boxed{85}"]

SHORT = ["--limit", "1", "--num_generations", "1", "--max_completion_length", "4"]


def inspect(tmp_path, *arguments):
    """Exit status and traces of one run; the page must hold as many."""
    output, traces = tmp_path / "page.html", tmp_path / "shown.jsonl"
    traces.unlink(missing_ok=True)
    status = main(["inspect", *map(str, arguments), "--output", str(output), "--traces", str(traces)])
    shown = list(read_traces(traces)) if traces.exists() else []
    if shown:
        assert output.read_text().count('<script type="application/json" id="trace-') == len(shown)
    return status, shown


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_given_completions_have_the_numbers_of_the_score_command(tmp_path):
    rows = [
        {"prompt": PROMPT, "completions": THOUGHTS, "solution": "75"},
        {"problem": "B: 1+1", "completion": "x", "answer": None},
    ]
    source = write(tmp_path / "rows.jsonl", rows)
    recipe = ["--repro_baseline_score", "magnitude", "--repro_credit", "segment", "--repro_top_k", "1"]
    status, traces = inspect(tmp_path, source, "--repro_top_k", "1", "--repro_answer_prefix", "")
    assert status == 0
    assert main(["score", str(source), str(tmp_path / "scored.jsonl"), *recipe]) == 0
    scored = [json.loads(line)["repro"] for line in (tmp_path / "scored.jsonl").read_text().splitlines()]
    for trace, numbers in zip(traces, [*scored[0], None], strict=True):
        if numbers is not None:
            assert {name: trace.to_dict()[name] for name in numbers} == numbers
    assert [trace.completion for trace in traces] == [*THOUGHTS, "x"]
    assert [trace.correct for trace in traces] == [True, False, None]
    assert [trace.given_answer for trace in traces] == ["75", "85", None]
    assert [trace.group for trace in traces] == ["1", "1", "2"]
    assert traces[0].prompt == PROMPT[0]["content"]
    assert traces[0].entropies[0] is None and traces[0].entropies[1] > 0 and traces[2].boundaries == []


def test_samples_for_the_bundled_problems_by_default(tmp_path):
    options = ["--limit", "2", "--num_generations", "3", "--max_completion_length", "40"]
    status, traces = inspect(tmp_path, *options)
    problems = [json.loads(line) for line in PROBLEMS_FILE.read_text().splitlines()]
    assert status == 0 and len(traces) == 6
    for index, trace in enumerate(traces):
        assert trace.prompt == problems[index // 3]["prompt"][0]["content"]
        assert trace.answer in problems[index // 3]["solution"]
        assert trace.truncated == ("<|im_end|>" not in trace.completion)
        assert len(trace.tokens) == 40 if trace.truncated else trace.tokens[-1] == "<|im_end|>"
        assert len(trace.boundaries) >= 2
    assert len({trace.completion for trace in traces}) > 2
    assert inspect(tmp_path, *options, PROBLEMS_FILE, PROBLEMS_FILE) == (0, traces), "the limit is one of all sources"


def test_a_problem_typed_in(tmp_path):
    question = "Find the digits. A: 4+4 ; B: 2+1"
    status, traces = inspect(
        tmp_path, "--problem", question, "--answer", "83", "--num_generations", "2", "--max_completion_length", "60"
    )
    assert status == 0 and [trace.prompt for trace in traces] == [question] * 2
    assert traces[0].tokens[0].startswith("A"), "the model was not asked in the form it knows"
    assert all(trace.answer == "83" and trace.objective for trace in traces)


def test_the_completions_that_training_logs(tmp_path):
    dataset = task.train_dataset(size=8, seed=3)
    logged = {"max_steps": 1, "log_completions": True, "num_completions_to_print": 0, "generation_kwargs": None}
    config = ReproGRPOConfig(**settings(tmp_path / "run", **logged))
    ReproGRPOTrainer(str(MODEL_DIR), token_reward, config, dataset).train()
    (file,) = (tmp_path / "run" / "completions").glob("*.parquet")
    status, traces = inspect(tmp_path, file)
    assert status == 0 and len(traces) == 8
    assert len({trace.group for trace in traces}) == 2
    assert all(trace.step == 1 and set(trace.rewards) == {"token_reward"} for trace in traces)
    assert all(len(trace.boundaries) >= 2 for trace in traces)


def test_the_completions_of_a_plain_trainer_take_their_answers_from_the_problems(tmp_path, capsys):
    dataset = task.train_dataset(size=8, seed=3)
    plain = settings(tmp_path / "run", max_steps=1, log_completions=True, num_completions_to_print=0)
    plain = {name: value for name, value in plain.items() if not name.startswith("repro_")}
    GRPOTrainer(str(MODEL_DIR), token_reward, GRPOConfig(**plain), train_dataset=dataset).train()
    (file,) = (tmp_path / "run" / "completions").glob("*.parquet")
    capsys.readouterr()
    assert inspect(tmp_path, file) == (2, [])
    assert "--answers_from" in capsys.readouterr().err
    problems = write(tmp_path / "problems.jsonl", dataset.to_list())
    status, traces = inspect(tmp_path, file, "--answers_from", problems)
    answers = {row["prompt"][0]["content"]: row["solution"][7:-1] for row in dataset}
    # Some versions of TRL log a prompt's text with the chat template around it.
    expected = [next(answer for problem, answer in answers.items() if problem in trace.prompt) for trace in traces]
    assert status == 0 and [trace.answer for trace in traces] == expected


def test_trace_files_are_shown_as_they_are(tmp_path, monkeypatch):
    monkeypatch.setattr(inspect_command, "scorer_from_arguments", lambda arguments: pytest.fail("a model was loaded"))
    rng = random.Random(0)
    files = [tmp_path / "step_0.jsonl", tmp_path / "step_1.jsonl"]
    traces = [[random_trace(rng, f"{step}.{index // 2}") for index in range(4)] for step in range(2)]
    for file, some in zip(files, traces, strict=True):
        write_traces(file, some)
    assert inspect(tmp_path, *files) == (0, [*traces[0], *traces[1]])
    assert inspect(tmp_path, *files, "--limit", "1") == (0, traces[0][:2])


def test_bad_rows_are_named_and_the_rest_is_shown(tmp_path, capsys):
    rows = ["no object", {"prompt": 3}, {"prompt": PROMPT, "completion": THOUGHTS[0], "solution": "75"}]
    rows += [{"completion": "a"}, {"prompt": [{"role": "user", "content": "?"}] * 2, "completion": "a", "answer": 1}]
    template = "{% if messages|length > 1 %}{{ raise_exception('one only') }}{% endif %}{{ messages[0].content }}"
    model = tmp_path / "model"
    shutil.copytree(MODEL_DIR, model)
    (model / "chat_template.jinja").write_text(template)
    status, traces = inspect(tmp_path, write(tmp_path / "rows.jsonl", rows), "--model", model)
    assert status == 1 and [trace.completion for trace in traces] == THOUGHTS[:1]
    errors = capsys.readouterr().err
    assert [f"line {number}: " in errors for number in range(1, 6)] == [True, True, False, True, True]
    assert "one only" in errors


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["missing.jsonl"], "missing.jsonl: there is no such file"),
        (["rows.txt"], "rows.txt"),
        (["empty.jsonl"], "no rows"),
        (["broken.parquet"], "broken.parquet"),
        (["--answers_from", "rows.txt"], "rows.txt"),
        (["--problem", "1+1"], "--answer"),
        (["--num_generations", "0"], "--num_generations"),
        (["--top_p", "0"], "--top_p"),
        (["--repro_top_k", "0"], "repro_top_k"),
        ([*SHORT, "--png_prompt", "9", "--png", "x.png"], "--png_prompt"),
    ],
)
def test_what_cannot_work_is_named(tmp_path, monkeypatch, capsys, arguments, word):
    monkeypatch.chdir(tmp_path)
    for name in ("rows.txt", "empty.jsonl", "broken.parquet"):
        (tmp_path / name).write_text("\n" if name == "empty.jsonl" else "x")
    assert main(["inspect", *arguments]) == 2
    assert word in capsys.readouterr().err


def test_a_picture_of_one_prompt(tmp_path):
    rng = random.Random(2)
    traces = [random_trace(rng, "0", index + 1) for index in range(6)]
    traces += [
        unscored_trace(["$\\bad{ $x$ ", "\n\n", "\u202e\x00 </script>"], prompt="$100 \\frac{", given_answer="$")
    ]
    for count in (1, 6):
        write_picture(tmp_path / f"{count}.png", traces[:count])
    widths = [imread(tmp_path / f"{count}.png").shape[1] for count in (1, 6)]
    assert widths[1] == 4 * widths[0]
    write_picture(tmp_path / "odd.png", [traces[-1], random_trace(rng, "0", 80, length=300)])
    picture = imread(tmp_path / "1.png")[..., :3]
    red, blue = picture[..., 0], picture[..., 2]
    assert ((blue - red > 0.4).any()) or ((red - blue > 0.4).any()), "no segment is coloured"
