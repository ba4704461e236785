"""The template that turns an answer into the text which is scored."""

import pytest

from repro_trl.answers import (
    DEFAULT_ANSWER_TEMPLATE,
    answer_text,
    validate_answer_template,
)


@pytest.mark.parametrize(
    ("template", "text"),
    [
        (DEFAULT_ANSWER_TEMPLATE, r"\boxed{\frac{1}{2}}"),
        ("{answer}", r"\frac{1}{2}"),
        (r"The answer is \(\boxed{{{answer}}}\).", r"The answer is \(\boxed{\frac{1}{2}}\)."),
        (r"\text{{final}} {answer}", r"\text{final} \frac{1}{2}"),
        (r"\boxed{{ {answer} }}", r"\boxed{ \frac{1}{2} }"),
        (r"\left\{{ {answer} \right.", r"\left\{ \frac{1}{2} \right."),
    ],
)
def test_answer_text(template: str, text: str):
    validate_answer_template(template)
    assert answer_text(r"\frac{1}{2}", template) == text


@pytest.mark.parametrize(
    ("template", "fixed"),
    [
        (r"\boxed{answer}", r"\boxed{{{answer}}}"),
        (r"\boxed{{answer}}", r"\boxed{{{answer}}}"),
        (r"\boxed{{{{answer}}}}", r"\boxed{{{answer}}}"),
        (r"\boxed {answer}", r"\boxed {{{answer}}}"),
        (r"\boxed{ {answer} }", r"\boxed{{ {answer} }}"),
        (r"The answer is \boxed{answer}.", r"The answer is \boxed{{{answer}}}."),
        (r"\text{final} {answer}", r"\text{{final}} {answer}"),
        (r"\text{final: {answer}}", r"\text{{final: {answer}}}"),
        (r"\frac{1}{2} \boxed{answer}", r"\frac{{1}}{{2}} \boxed{{{answer}}}"),
        ("{{answer}}", "{answer}"),
        ("x^{answer}", "x^{{{answer}}}"),
    ],
)
def test_template_with_a_slip(template: str, fixed: str):
    with pytest.raises(ValueError) as error:
        validate_answer_template(template)
    message = str(error.value)
    assert f"repro_answer_template={template!r}" in message and f"Perhaps you mean {fixed} (" in message
    validate_answer_template(fixed)
    with pytest.raises(ValueError, match="repro_answer_template"):
        answer_text("5", template)


@pytest.mark.parametrize(
    "template",
    [
        "",
        "the answer",
        "{}",
        "{0}",
        "{solution}",
        "{answer} {answer}",
        "{answer!r}",
        "{answer:>5}",
        "{answer.real}",
        "{answer[0]}",
        "{answer",
        "answer}",
        r"\boxed{{{answer}",
        r"\boxed{answer} {answer}",
        "}}{answer}{{",
    ],
)
def test_template_without_one_plain_placeholder(template: str):
    with pytest.raises(ValueError, match="repro_answer_template"):
        validate_answer_template(template)
