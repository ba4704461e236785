"""The end-of-thinking marker stays visible to rewards and logs where decoding drops it as a special token."""

import logging

import pytest
import torch
import trl
from packaging.version import Version
from tiny_policy import save_tiny_policy
from tiny_runs import settings
from transformers import AddedToken, AutoTokenizer

from repro_trl import ReproGRPOConfig, ReproGRPOTrainer
from repro_trl.config import ReproConfigMixin
from repro_trl.demo import task
from repro_trl.evaluation.rows import MathTarget, Problem
from repro_trl.evaluation.sampling import _read as read_sample
from repro_trl.evaluation.verify import Verifier
from repro_trl.generation import Generation
from repro_trl.messages import completion_text
from repro_trl.method.score import ScoredRollouts
from repro_trl.method.token_text import readable_text
from repro_trl.rewards import answer_reward, make_answer_reward
from repro_trl.sampling import Sampling
from repro_trl.thinking import THINK_ENDS, count_backtracks, other_think_end, split_thought
from repro_trl.traces import make_trace
from repro_trl.trainers.markers import MarkerKeeper

THOUGHT, ANSWER = "Maybe \\boxed{3}.\n\nWait, no. So 5.", "The answer is $5$."


@pytest.fixture(scope="module")
def policy(tmp_path_factory):
    return save_tiny_policy(tmp_path_factory.mktemp("policy"))


def tokenizer_with(policy, marker, special):
    tokenizer = AutoTokenizer.from_pretrained(policy)
    if marker == "<|channel|>final<|message|>":  # as in gpt-oss: special tokens around plain text
        tokenizer.add_tokens([AddedToken(part, special=special) for part in ("<|channel|>", "<|message|>")], special)
    else:
        tokenizer.add_tokens([AddedToken(marker, special=special, normalized=False)], special)
    return tokenizer


@pytest.mark.parametrize("special", [True, False])
@pytest.mark.parametrize("marker", THINK_ENDS)
def test_the_answer_is_judged_behind_every_known_marker(policy, marker, special):
    tokenizer = tokenizer_with(policy, marker, special)
    ids = tokenizer.encode(THOUGHT + marker + ANSWER + tokenizer.eos_token, add_special_tokens=False)
    decoded = tokenizer.decode(ids, skip_special_tokens=True)
    assert (marker in decoded) != special or marker == "</think>"
    text = readable_text(tokenizer, ids, marker)
    assert text == THOUGHT + marker + ANSWER
    assert split_thought(text, marker) == (THOUGHT, ANSWER)
    assert count_backtracks(text, think_end=marker) == 1
    messages, plain = [[{"role": "assistant", "content": decoded}]], [decoded]
    keeper = MarkerKeeper(tokenizer, marker, True)
    keeper.restore(messages, [ids])
    keeper.restore(plain, [ids])
    assert messages[0][0]["content"] == plain[0] == text
    rewards = [answer_reward(plain, [truth], think_end=marker) for truth in ("5", "3")]
    assert rewards == [[1.0], [0.0]]
    reward = make_answer_reward("answer", marker, tokenizer)
    assert reward([decoded], completion_ids=[ids], answer=["5"]) == [1.0]


def test_several_markers_and_none(policy):
    tokenizer = tokenizer_with(policy, "[/THINK]", True)
    text = "a[/THINK]b[/THINK]c"
    ids = tokenizer.encode(text, add_special_tokens=False)
    assert readable_text(tokenizer, ids, "[/THINK]") == text
    assert readable_text(tokenizer, ids, None) == "abc"
    assert readable_text(tokenizer, [], "[/THINK]") == ""
    assert split_thought(text, "[/THINK]") == ("a", "b[/THINK]c")  # the first one decides, as for boundaries
    assert split_thought("no marker", "[/THINK]") == ("no marker", "no marker")


def test_a_thought_that_a_template_parsed_stays_in_its_field(policy):
    tokenizer = tokenizer_with(policy, "[/THINK]", True)
    ids = tokenizer.encode("a[/THINK]b", add_special_tokens=False)
    messages = [[{"role": "assistant", "reasoning_content": "a", "content": "b"}]]
    MarkerKeeper(tokenizer, "[/THINK]", True).restore(messages, [ids])
    assert messages == [[{"role": "assistant", "reasoning_content": "a", "content": "b"}]]


def test_another_marker_is_named_once(policy, caplog):
    tokenizer = AutoTokenizer.from_pretrained(policy)
    ids = [tokenizer.encode("thought[/THINK]answer", add_special_tokens=False)] * 2
    keeper = MarkerKeeper(tokenizer, "</think>", True)
    with caplog.at_level(logging.WARNING, logger="repro_trl.trainers.markers"):
        for _ in range(3):
            keeper.restore(["thought[/THINK]answer"] * 2, ids)
    assert caplog.text.count("set repro_think_end='[/THINK]'") == 1
    assert other_think_end(["a</think>b", "a[/THINK]b"], "</think>") is None
    assert other_think_end(["a[/THINK]b"], None) is None


def test_rewards_and_logs_of_a_run_see_the_marker(policy, tmp_path):
    tokenizer = AutoTokenizer.from_pretrained(policy)
    marker = "9"  # a token that the tiny policy knows
    (special,) = tokenizer.encode(marker, add_special_tokens=False)
    tokenizer.add_tokens([AddedToken(marker, special=True)], special_tokens=True)
    seen = []

    def reward(completions, completion_ids, **kwargs):
        seen.extend(zip([completion[-1]["content"] for completion in completions], completion_ids, strict=True))
        return [0.0] * len(completions)

    config = ReproGRPOConfig(
        **settings(tmp_path, repro_think_end=marker, log_completions=True, max_completion_length=48, max_steps=1),
    )
    config.generation_kwargs = {"sequence_bias": [[[special], 4.0]]}
    trainer = ReproGRPOTrainer(policy, reward, config, task.train_dataset(size=8, seed=3), processing_class=tokenizer)
    trainer.train()
    with_marker = [(text, ids) for text, ids in seen if special in ids]
    assert with_marker and all(marker in text for text, _ in with_marker)
    if Version(trl.__version__) < Version("1.15"):
        return  # it logs text without special tokens
    logged = [completion_text(completion) for completion in trainer._logs["completion"]]
    assert [text for text, _ in seen] == logged


@pytest.mark.parametrize("marker", ["[/THINK]", "<|channel|>final<|message|>"])
def test_evaluation_and_traces_judge_behind_a_special_marker(policy, marker):
    tokenizer = tokenizer_with(policy, marker, special=True)
    ids = tokenizer.encode(THOUGHT + marker + ANSWER + tokenizer.eos_token, add_special_tokens=False)
    problem = Problem("0", "prompt", MathTarget("5"))
    sample = read_sample(tokenizer, problem, 0, Generation(ids, truncated=False), Sampling(think_end=marker))
    assert sample.completion == THOUGHT + marker + ANSWER and sample.backtracks == 1
    with Verifier(workers=1, think_end=marker) as verifier:
        assert [verdict.outcome for verdict in verifier.verify({"0": problem}, [sample])] == ["right"]

    class Settings(ReproConfigMixin):
        repro_think_end = marker

    nothing = torch.zeros(1, 0)
    mask = nothing.bool()
    scored = ScoredRollouts(mask.long(), mask, *[nothing] * 7, advantages=torch.zeros(1, len(ids)))
    trace = make_trace(tokenizer, Settings.__new__(Settings), scored, 0, ids, "5", group="0", prompt="prompt")
    assert trace.correct and trace.given_answer.strip("$") == "5" and trace.backtracks == 1
