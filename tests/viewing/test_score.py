"""`repro-trl score`: the numbers of the method, whatever is interrupted, and bad rows by their line numbers."""

import json
from pathlib import Path

import pytest
import torch
from tiny_models import tiny_model
from tiny_tokenizers import byte_level_tokenizer
from transformers import AutoModelForCausalLM, AutoTokenizer

from repro_trl.cli import main
from repro_trl.demo import MODEL_DIR
from repro_trl.method.objective import answer_log_probs
from repro_trl.method.process_reward import magnitude_score, scores, stability_score
from repro_trl.traces import fork_entropies
from repro_trl.viewing.scorer import CompletionScorer, ScoringSettings

REAL = Path(__file__).parents[3] / "shared" / "data" / "math_cot_100.jsonl"

THOUGHTS = [
    "A: 3+4 = 7\n\nB: 9-4 = 5\n\n</think>\n\n\\boxed{75}",
    "A: 3+4 = 8\n\nWait, check A: 3+4 = 7\n\nB: 9-4 = 5\n\nSo far so good.\n\n</think>\n\n\\boxed{75}",
    "Hmm.",
]
PROMPT = [{"role": "user", "content": "Find the digits. A: 3+4 ; B: 9-4"}]


def write(path, rows):
    path.write_text("".join(row + "\n" if isinstance(row, str) else json.dumps(row) + "\n" for row in rows))
    return str(path)


def read(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def score(tmp_path, rows, *options, output="out.jsonl"):
    """Exit status and rows of one run."""
    status = main(["score", write(tmp_path / "in.jsonl", rows), str(tmp_path / output), *options])
    return status, read(tmp_path / output)


@pytest.fixture(scope="module")
def rows():
    return [
        {"id": 0, "prompt": PROMPT, "completions": THOUGHTS, "solution": "\\boxed{75}"},
        {"id": 1, "problem": "A: 1+1", "completion": [{"role": "assistant", "content": THOUGHTS[0]}], "answer": 2},
        {"id": 2, "problem": "A: 1+2", "completion": "", "answer": "3"},
        {"id": 3, "problem": "A: 1+3", "completion": THOUGHTS[1], "answer": None},
        {"id": 4, "problem": "A: 1+3 \u2028 é", "completion": THOUGHTS[1], "answer": "4", "repro": "old"},
    ]


def test_rows_come_back_with_the_numbers_of_the_method(tmp_path, rows):
    status, scored = score(tmp_path, rows, "--repro_top_k", "2", "--repro_stability_weight", "0.3")
    assert status == 0
    for row, result in zip(rows, scored, strict=True):
        assert {**result, "repro": None} == {**row, "repro": None}
    assert scored[2]["repro"] == {"not_scored": "empty completion"}
    assert scored[3]["repro"] == {"not_scored": "no ground truth"}

    tokenizer = AutoTokenizer.from_pretrained(MODEL_DIR)
    model = AutoModelForCausalLM.from_pretrained(MODEL_DIR)
    prompt = tokenizer.apply_chat_template(PROMPT, add_generation_prompt=True, return_dict=True)["input_ids"]
    answer = torch.tensor([tokenizer.encode("\\boxed{75}")])
    results = scored[0]["repro"]
    assert len(results) == 3
    for text, result in zip(THOUGHTS, results, strict=True):
        ids = torch.tensor([tokenizer.encode(text)])
        boundaries = torch.tensor([result["boundaries"]])
        # Two starts are kept, and the end lies behind the marker.
        assert len(result["boundaries"]) == min(text.split("</think>")[0].count("\n\n"), 2) + 2
        mask = torch.ones_like(boundaries, dtype=torch.bool)
        objective = answer_log_probs(
            model,
            torch.tensor([prompt]),
            torch.ones(1, len(prompt), dtype=torch.bool),
            ids,
            torch.ones_like(ids, dtype=torch.bool),
            boundaries,
            mask,
            answer,
            torch.ones_like(answer, dtype=torch.bool),
            method="replay",
        )
        assert result["objective"] == pytest.approx(objective[0].tolist(), abs=1e-5)
        assert result["magnitude"] == pytest.approx(magnitude_score(objective, mask)[0].tolist(), abs=1e-5)
        assert result["stability"] == pytest.approx(stability_score(objective, mask)[0].tolist(), abs=1e-5)
        expected = scores(objective, mask, stability_weight=0.3)[0]
        assert result["scores"] == pytest.approx(expected.tolist(), abs=1e-5)
        assert result["process_rewards"] == pytest.approx(expected.diff().tolist(), abs=1e-5)
        assert len(result["advantages"]) == ids.shape[1]

    rewards = torch.tensor([reward for result in results for reward in result["process_rewards"]])
    normalized = [reward for result in results for reward in result["normalized_rewards"]]
    assert normalized == pytest.approx(((rewards - rewards.mean()) / (rewards.std() + 1e-4)).tolist(), abs=1e-3)
    for result in results:
        ends = result["boundaries"][1:]
        for token, advantage in enumerate(result["advantages"]):
            to_go = sum(r for r, end in zip(result["normalized_rewards"], ends, strict=True) if end > token)
            assert advantage == pytest.approx(to_go, abs=1e-4)


def test_numbers_come_back_with_all_their_digits(tmp_path, capsys):
    row = '"prompt": "A: 1+1", "completion": "2\\n\\n2", "answer": 2, "ids": [9007199254740993, 12345678901234567.25'
    numbers = [", 1.50, 1E+400, 0.10000000000000000001, -0.0, NaN, 1e22", f", {'1' * 5000}"]
    lines = [f"{{{row}{more}]}}" for more in numbers]
    for _ in range(2):  # the second one goes on with a finished output, and finds its rows
        (tmp_path / "in.jsonl").write_text("".join(line + "\n" for line in lines))
        assert main(["score", str(tmp_path / "in.jsonl"), str(tmp_path / "out.jsonl")]) == 0
        written = (tmp_path / "out.jsonl").read_text().splitlines()
        assert [line.partition(', "repro": ')[0] + "}" for line in written] == [
            lines[0].replace("1e22", "1E+22"),
            lines[1],
        ]
    changed = (tmp_path / "in.jsonl").read_text().replace("740993", "740992")
    (tmp_path / "in.jsonl").write_text(changed)
    assert main(["score", str(tmp_path / "in.jsonl"), str(tmp_path / "out.jsonl")]) == 2
    assert "does not belong to this input" in capsys.readouterr().err


def test_answers_of_any_length_and_deeply_nested_rows(tmp_path, capsys):
    rows = ['{"prompt": "A: 1+1", "completion": "2\\n\\n2", "answer": ' + "1" * 5000 + "}"]
    rows.append('{"prompt": "A: 1+1", "completion": "2", "answer": 2, "x": ' + "[" * 900 + "]" * 900 + "}")
    (tmp_path / "in.jsonl").write_text("\n".join(rows))
    assert main(["score", str(tmp_path / "in.jsonl"), str(tmp_path / "out.jsonl")]) == 1
    assert (tmp_path / "out.jsonl").read_text().startswith(rows[0][:-1] + ', "repro": {"boundaries"')
    assert "in.jsonl, line 2: it is nested too deeply" in capsys.readouterr().err


def test_neighbours_with_the_same_prompt_are_one_group(tmp_path, rows):
    _, (together, *_) = score(tmp_path, rows[:1])
    single = [{"prompt": PROMPT, "completion": text, "solution": "75"} for text in THOUGHTS]
    _, apart = score(tmp_path, single, output="apart.jsonl")
    assert [row["repro"] for row in apart] == together["repro"]


@pytest.mark.parametrize("stop_after", [0, 1, 2, 4])
def test_an_interrupted_run_goes_on_to_the_same_bytes(tmp_path, rows, monkeypatch, stop_after, capsys):
    several = [rows[0], *({**rows[1], "completion": text} for text in THOUGHTS), *rows[2:], "broken", rows[0]]
    assert score(tmp_path, several, output="whole.jsonl")[0] == 1
    whole = (tmp_path / "whole.jsonl").read_bytes()

    calls = []
    score_group = CompletionScorer.score

    def interrupted(self, *args):
        if len(calls) == stop_after:
            raise KeyboardInterrupt
        calls.append(args)
        return score_group(self, *args)

    monkeypatch.setattr(CompletionScorer, "score", interrupted)
    output = tmp_path / "parts.jsonl"
    assert score(tmp_path, several, output="parts.jsonl")[0] == 130
    monkeypatch.setattr(CompletionScorer, "score", score_group)
    done = output.read_bytes()
    assert whole.startswith(done) and len(done) < len(whole)
    # Killed in the middle of a group and of a line.
    lines = whole[: len(done) + 9]
    output.write_bytes(lines)
    capsys.readouterr()
    assert score(tmp_path, several, output="parts.jsonl")[0] == 1
    assert output.read_bytes() == whole
    assert "line 8: " in capsys.readouterr().err
    assert score(tmp_path, several, output="parts.jsonl")[0] == 1
    assert output.read_bytes() == whole


def test_a_group_that_was_written_in_part_is_completed(tmp_path, rows):
    several = [{**rows[1], "completion": text} for text in THOUGHTS]
    score(tmp_path, several)
    whole = (tmp_path / "out.jsonl").read_bytes()
    (tmp_path / "out.jsonl").write_bytes(whole[: whole.index(b"\n") + 1])
    score(tmp_path, several)
    assert (tmp_path / "out.jsonl").read_bytes() == whole


def test_a_row_scores_the_same_wherever_it_stands(tmp_path, rows):
    _, (first, *_) = score(tmp_path, rows)
    _, (*_, last) = score(tmp_path, rows[::-1], output="reversed.jsonl")
    assert first == last


BAD = {
    '{"prompt": "a", "completion"': "not JSON",
    "[1, 2]": "must be an object",
    "[" * 100_000: "nested too deeply",
    '{"completion": "a", "answer": "b"}': "no prompt",
    '{"prompt": "a", "answer": "b"}': "no completion",
    '{"prompt": "a", "completion": "b"}': "no answer",
    '{"prompt": "", "completion": "b", "answer": "c"}': "empty",
    '{"prompt": 7, "completion": "b", "answer": "c"}': "prompt",
    '{"prompt": [{"content": "a"}], "completion": "b", "answer": "c"}': "role",
    '{"prompt": [{"role": "user", "content": [{"type": "image"}]}], "completion": "b", "answer": "c"}': "content",
    '{"prompt": "a", "completion": null, "answer": "c"}': "null",
    '{"prompt": "a", "completions": [], "answer": "c"}': "empty list",
    '{"prompt": "a", "completions": ["b", 3], "answer": "c"}': "a number",
    '{"prompt": "a", "completion": "b", "answer": true}': "a truth value",
    '{"prompt": "a", "completion": "b", "answer": {"c": 1}}': "an object",
    '{"prompt": "a", "completion": "\\ud800", "answer": "c"}': "surrogate",
    '{"prompt": "a\\udc00", "completion": "b", "answer": "c"}': "surrogate",
}


def test_bad_rows_are_refused_by_line_and_the_rest_is_kept(tmp_path, rows, capsys):
    mixed = [line for pair in zip(BAD, [json.dumps(rows[1])] * len(BAD), strict=True) for line in ["", *pair]]
    path = tmp_path / "in.jsonl"
    path.write_bytes("\n".join(mixed).encode() + b'\n{"prompt": "\xff"}')
    output = tmp_path / "out.jsonl"
    assert main(["score", str(path), str(output)]) == 1
    assert len(read(output)) == len(BAD)
    errors = {
        int(number): reason
        for number, _, reason in (
            line.partition("line ")[2].partition(": ")
            for line in capsys.readouterr().err.splitlines()
            if "line " in line
        )
    }
    for index, reason in enumerate(BAD.values()):
        assert reason in errors.pop(3 * index + 2)
    assert "UTF-8" in errors.pop(len(mixed) + 1)
    assert errors == {}


def test_columns_are_named(tmp_path, capsys):
    rows = [{"q": "A: 3+4", "c": THOUGHTS, "gt": "7", "prompt": 1, "answer": False}]
    columns = ["--prompt_column", "q", "--completion_column", "c", "--answer_column"]
    status, (row,) = score(tmp_path, rows, *columns, "gt")
    assert status == 0 and len(row["repro"]) == 3
    assert score(tmp_path, rows, *columns, "truth", output="other.jsonl") == (1, [])
    assert "'truth'" in capsys.readouterr().err


def test_plain_text_as_a_message(tmp_path):
    text, message = {"prompt": PROMPT[0]["content"]}, {"prompt": PROMPT}
    rest = {"completion": THOUGHTS[0], "answer": "75"}
    _, (as_text, as_message) = score(tmp_path, [{**text, **rest}, {**message, **rest}])
    assert as_text["repro"] != as_message["repro"]
    _, (wrapped,) = score(tmp_path, [{**text, **rest}], "--as_user_message", output="wrapped.jsonl")
    assert wrapped["repro"] == as_message["repro"]


@pytest.mark.parametrize(
    ("options", "word"),
    [
        (["--repro_top_k", "0"], "repro_top_k"),
        (["--repro_scale", "batch"], "repro_scale"),
        (["--temperature", "0"], "temperature"),
        (["--batch_size", "0"], "batch_size"),
        (["--model", "/nowhere"], "/nowhere"),
    ],
)
def test_bad_options_are_named(tmp_path, rows, options, word, capsys):
    assert main(["score", write(tmp_path / "in.jsonl", rows), str(tmp_path / "out.jsonl"), *options]) == 2
    assert word in capsys.readouterr().err
    assert not (tmp_path / "out.jsonl").exists()


def test_an_output_of_other_settings_or_another_input_is_left_alone(tmp_path, rows, capsys):
    score(tmp_path, rows)
    before = (tmp_path / "out.jsonl").read_bytes()
    for args in (
        (rows, "--repro_top_k", "1"),
        (rows[1:],),
        (rows[:2],),
    ):
        assert score(tmp_path, *args)[0] == 2
        assert (tmp_path / "out.jsonl").read_bytes() == before
    assert "repro_top_k" in capsys.readouterr().err
    status, (row,) = score(tmp_path, rows[:1], "--repro_top_k", "1", "--overwrite")
    assert status == 0 and len(row["repro"][0]["boundaries"]) == 3
    assert main(["score", str(tmp_path / "in.jsonl"), str(tmp_path / "in.jsonl")]) == 2
    assert main(["score", str(tmp_path / "missing.jsonl"), str(tmp_path / "out.jsonl")]) == 2


def test_completions_beyond_a_table_of_positions_are_left_out():
    tokenizer = byte_level_tokenizer(think_end=True)
    model = tiny_model("gpt2", vocab_size=len(tokenizer), max_position_embeddings=64)
    scorer = CompletionScorer(model, tokenizer, ScoringSettings())
    short, long = (scorer.encode_completion(text) for text in ("one\n\ntwo", "one\n\ntwo " * 20))
    group = scorer.score([3, 4], [short, long], ["5", "5"])
    assert group.skipped[0] is None and "positions" in group.skipped[1]
    assert group.scored.scored.tolist() == [True, False]


def test_entropies_are_those_of_the_distributions_that_wrote_the_starts():
    tokenizer = byte_level_tokenizer(think_end=True)
    model = tiny_model("qwen3", vocab_size=len(tokenizer))
    scorer = CompletionScorer(model, tokenizer, ScoringSettings(repro_top_k=2), temperature=0.7, batch_size=2)
    completions = [scorer.encode_completion(text) for text in ("a\n\nb\n\nc\n\nd</think> e", "x", "a b\n\nc")]
    group = scorer.score([3, 4, 5], completions, ["5"] * 3)
    for row, ids in enumerate(completions):
        used = group.scored.boundary_mask[row]
        with torch.no_grad():
            log_probs = (model(torch.tensor([[3, 4, 5, *ids]])).logits[0] / 0.7).log_softmax(-1)
        entropy = -(log_probs.exp() * log_probs).sum(-1)
        boundaries = group.scored.boundaries[row, used].tolist()
        first, *measured, last = fork_entropies(group.scored, row)
        assert first is last is None
        expected = [entropy[3 + boundary - 1].item() for boundary in boundaries[1:-1]]
        assert measured == pytest.approx(expected, abs=1e-5)


@pytest.mark.slow
@pytest.mark.skipif(not REAL.is_file(), reason="no real completions beside the repository")
def test_real_completions(tmp_path):
    output = tmp_path / "out.jsonl"
    assert main(["score", str(REAL), str(output)]) == 0
    rows = read(output)
    assert len(rows) == 100
    assert all(len(row["repro"]) == 8 and all("objective" in result for result in row["repro"]) for row in rows)
