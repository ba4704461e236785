import json
import math

import pytest
import torch
from tiny_tokenizers import TOKENIZERS, byte_level_tokenizer

from repro_trl.method.process_reward import magnitude_score, process_rewards, scores, stability_score
from repro_trl.method.score import ScoredRollouts
from repro_trl.traces import Trace, floats, is_trace, make_trace, read_traces, token_texts, write_traces


class Settings:
    repro_think_end, repro_delimiter = "</think>", "\n\n"
    repro_stability_weight, repro_ema_weight, repro_baseline_score = 0.1, None, "zero"


def scored_rollouts(objective, boundaries, length):
    objective, boundaries = torch.tensor([objective]), torch.tensor([boundaries])
    mask = torch.ones_like(boundaries, dtype=torch.bool)
    rewards = process_rewards(objective, mask)
    return ScoredRollouts(
        boundaries=boundaries,
        boundary_mask=mask,
        entropies=torch.rand(1, mask.shape[1]),
        objective=objective,
        magnitude=magnitude_score(objective, mask),
        stability=stability_score(objective, mask),
        scores=scores(objective, mask),
        process_rewards=rewards,
        normalized_rewards=rewards,
        advantages=torch.linspace(-1, 1, length + 3).unsqueeze(0),
    )


@pytest.fixture(scope="module")
def trace():
    tokenizer = byte_level_tokenizer(think_end=True)
    ids = tokenizer.encode("Two 😀 plus.\n\nWait, no.\n\n</think>\n\n\\boxed{42}", add_special_tokens=False)
    scored = scored_rollouts([-4.0, -3.0, -3.5], [0, 3, 7], len(ids))
    return make_trace(tokenizer, Settings(), scored, 0, ids, "42", group="a", prompt="2 + 40 = ?")


def test_a_trace_holds_what_was_measured(trace):
    assert trace.completion == "Two 😀 plus.\n\nWait, no.\n\n</think>\n\n\\boxed{42}"
    assert (trace.given_answer, trace.answer, trace.correct) == ("42", "42", True)
    assert trace.backtracks == 1
    assert "".join(trace.tokens[: trace.thinking_tokens]).endswith("</think>")
    mask = torch.ones(1, 3, dtype=torch.bool)
    assert trace.scores == pytest.approx(scores(torch.tensor([trace.objective]), mask)[0].tolist(), abs=1e-7)
    differences = [b - a for a, b in zip(trace.scores, trace.scores[1:], strict=False)]
    assert trace.process_rewards == pytest.approx(differences, abs=1e-6)
    assert len(trace.advantages) == len(trace.tokens)


@pytest.mark.parametrize("kind", sorted(TOKENIZERS))
def test_token_texts_join_to_the_decoded_text(kind):
    tokenizer = TOKENIZERS[kind](think_end=True)
    ids = tokenizer.encode("Mais oui: 😀🎉 → ∑\n\n因此</think> 42", add_special_tokens=False)
    texts = token_texts(tokenizer, ids)
    assert len(texts) == len(ids)
    assert "".join(texts) == tokenizer.decode(ids, clean_up_tokenization_spaces=False)


def test_part_of_a_character_at_the_end_is_a_replacement_character():
    tokenizer = byte_level_tokenizer()
    ids = tokenizer.encode("x🜁", add_special_tokens=False)[:-1]
    assert token_texts(tokenizer, ids)[-1].endswith("\ufffd")
    assert token_texts(tokenizer, []) == []


def test_floats_are_short_and_exact():
    values = torch.randn(100) * torch.logspace(-8, 8, 100)
    assert torch.equal(torch.tensor(floats(values)), values)
    assert max(len(json.dumps(value)) for value in floats(values)) < 17


def test_files_give_back_what_was_written(tmp_path, trace):
    hostile = Trace("a", "\ud800", ["\ud800", "\u2028</script>"], None, None, None, 2, 0, advantages=[0.0, 1.0])
    path = tmp_path / "deep" / "traces.jsonl"
    write_traces(path, [trace])
    write_traces(path, [hostile], append=True)
    assert list(read_traces(path)) == [trace, hostile]
    assert is_trace(json.loads(path.read_text().splitlines()[0]))
    assert not is_trace({"prompt": "a", "completion": "b"}) and not is_trace([1])


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("tokens", "text"),
        ("tokens", ["a", 1]),
        ("prompt", None),
        ("correct", "yes"),
        ("boundaries", [0, 3]),
        ("boundaries", [0, 7, 3]),
        ("boundaries", [1, 3, 7]),
        ("boundaries", [0, 3, 700]),
        ("objective", [-1.0, -1.0]),
        ("objective", [-1.0, -1.0, math.nan]),
        ("process_rewards", [0.1, None]),
        ("advantages", [0.0]),
        ("rewards", [1.0]),
        ("backtracks", -1),
        ("step", 1.5),
    ],
)
def test_a_bad_line_is_named(tmp_path, trace, field, value):
    path = tmp_path / "traces.jsonl"
    path.write_text(f"{json.dumps(trace.to_dict())}\n\n{json.dumps({**trace.to_dict(), field: value})}\n")
    traces = read_traces(path)
    assert next(traces) == trace
    with pytest.raises(ValueError, match=r"traces.jsonl, line 3: ") as error:
        next(traces)
    assert field.rstrip("s") in str(error.value) or "values" in str(error.value)


@pytest.mark.parametrize("line", ["[1]", "{", '{"prompt": "a"}', "[" * 100_000])
def test_a_line_that_is_no_trace_is_named(tmp_path, line):
    path = tmp_path / "traces.jsonl"
    path.write_text(line + "\n")
    with pytest.raises(ValueError, match="line 1: "):
        list(read_traces(path))
