"""Candidate texts before the answer, and the choice among them by outcomes alone."""

import math
import random

import pytest
import torch

from repro_trl.method.answer_forms import (
    AnswerForm,
    FormEvidence,
    Separation,
    area_under_curve,
    best_separation,
    candidate_forms,
    frequent_texts,
    own_texts,
)

BOX = r"\boxed{{{answer}}}"


def test_the_papers_form_comes_first_and_every_form_once():
    forms = candidate_forms(BOX, "</think>", ["</think>\n\n", "</think>\n\nSo "], ["Answer: "])
    assert forms[0] == AnswerForm("", BOX)
    assert len(set(forms)) == len(forms)
    prefixes = [form.prefix for form in forms if form.template == BOX]
    assert {"", "Answer: ", "</think>", "</think>\n\n", "\n</think>\n\n", "</think>\n\nSo "} <= set(prefixes)
    bare = [form.prefix for form in forms if form.template == "{answer}"]
    assert bare[: len(prefixes)] == [prefix + "\\boxed{" for prefix in prefixes]
    announcing = bare[len(prefixes) :]
    assert {"Answer: ", "Final answer: ", "\n\nFinal answer: ", "</think>\n\nThe answer is "} <= set(announcing)
    # A bare answer stands where one is announced, not after a thought or its marker.
    assert not {"", "</think>", "</think>\n\n", "</think>\n\nSo "} & set(announcing)


def test_without_a_marker_and_without_an_opening():
    forms = candidate_forms("{answer}", None)
    assert all(form.template == "{answer}" for form in forms) and not any("think" in form.prefix for form in forms)


@pytest.mark.parametrize(
    ("completion", "think_end", "text"),
    [
        ("A\n\nB</think>\n\n\\boxed{3}", "</think>", "</think>\n\n"),
        ("A</think>\\boxed{3}", "</think>", "</think>"),
        ("A</think>\n\nSo it is \\boxed{3}.", "</think>", "</think>\n\nSo it is "),
        ("A</think>" + "long " * 30 + "\nThe answer is $\\boxed{3}$", "</think>", "\n\nThe answer is $"),
        ("First.\nHence \\boxed{3}", "</think>", "\n\nHence "),
        ("First.\nHence \\boxed{3}", None, "\n\nHence "),
    ],
)
def test_what_a_policy_writes_before_its_answer(completion, think_end, text):
    assert dict(own_texts([completion], BOX, think_end)) == {text: 1}


@pytest.mark.parametrize(
    "completion", ["", "no box", "A</think>no box", "\\boxed{3}", "</think>" + "x" * 200 + "\\boxed{3}"]
)
def test_completions_that_show_nothing(completion):
    assert not own_texts([completion], BOX, "</think>")


def test_only_short_and_frequent_texts_are_kept():
    counts = own_texts(
        ["A</think>\n\\boxed{1}"] * 5 + [f"A</think> {i} \\boxed{{1}}" for i in range(20)], BOX, "</think>"
    )
    assert frequent_texts(counts, 25) == ["</think>\n"]
    assert frequent_texts(counts, 100) == []


def test_area_against_counting_pairs():
    rng = random.Random(0)
    for _ in range(50):
        count = rng.randrange(2, 30)
        values = torch.tensor([float(rng.randrange(6)) for _ in range(count)])
        positive = torch.tensor([rng.random() < 0.5 for _ in range(count)])
        auc, error = area_under_curve(values, positive)
        pairs = [(a, b) for a in values[positive].tolist() for b in values[~positive].tolist()]
        if not pairs:
            assert math.isnan(auc) and math.isnan(error)
            continue
        assert auc == pytest.approx(sum((a > b) + 0.5 * (a == b) for a, b in pairs) / len(pairs))
        assert 0 <= error <= 0.5


def test_error_shrinks_with_the_number_of_completions():
    torch.manual_seed(0)
    positive = torch.arange(400) % 2 == 0
    values = torch.randn(400) + positive
    _, small = area_under_curve(values[:40], positive[:40])
    _, large = area_under_curve(values, positive)
    assert large < small / 2


def test_separation_reads_the_last_boundary_and_the_mean_of_both(monkeypatch):
    monkeypatch.setattr(FormEvidence, "ENOUGH", 1)
    forms = [AnswerForm("", BOX), AnswerForm("x", BOX)]
    objective = torch.tensor([[[-1.0, -3.0], [-4.0, -1.0]], [[-2.0, -9.0], [-3.0, -9.0]]])
    evidence = FormEvidence(forms)
    evidence.add(objective, torch.tensor([True, False]))
    first, second = evidence.separations()
    assert (first.auc, first.objective) == (1.0, -2.0) and (second.auc, second.objective) == (0.0, -2.5)


def form(prefix: str, auc: float, objective: float, error: float = 0.05) -> Separation:
    return Separation(AnswerForm(prefix, BOX), auc, error, objective)


def test_choice_goes_by_area_then_objective_then_length():
    worse = form("", 0.6, -0.1)
    assert best_separation([worse, form("ab", 0.9, -5.0)])[0].form.prefix == "ab"
    assert best_separation([form("ab", 0.9, -5.0), form("abc", 0.88, -1.0), worse])[0].form.prefix == "abc"
    assert best_separation([form("ab", 0.9, -1.0), form("a", 0.88, -1.0), worse])[0].form.prefix == "a"
    first, second = best_separation([worse, form("ab", 0.9, -1.0), form("a", 0.7, -1.0)])
    assert (first.form.prefix, second.form.prefix) == ("ab", "a")
