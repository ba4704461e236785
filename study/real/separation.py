"""How well J tells right completions from wrong ones, by the text before the answer and by what is scored of it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from repro_trl.generation import TransformersSampler, prompt_ids
from repro_trl.method.answer_forms import (
    AnswerForm,
    FormEvidence,
    best_separation,
    candidate_forms,
    frequent_texts,
    own_texts,
    template_opening,
)
from repro_trl.method.completions import CompletionReader
from repro_trl.method.measure import Scorer, scoring_mode
from repro_trl.method.objective import answer_log_probs
from repro_trl.method.padding import pad_rows
from repro_trl.sampling import Sampling, completion_seed
from repro_trl.verifier import verify_answer
from repro_trl.viewing.scorer import ScoringSettings

from .problems import Problem, prompt_of, sample_problems

TEMPERATURE = 0.8
BOX, BARE, OPENED_BOX = "whole box", "bare answer", "bare answer, box opened"
PREFIXES = ("", "The final answer is ", "Final answer: ")
PROBLEM_SEED = 1000

SETTINGS = ScoringSettings(repro_think_end=None)
"""The policy writes no marker: it thinks to the end of its completion."""

PAPER_FORM = AnswerForm("", SETTINGS.repro_answer_template)
AFTER_TURN = (PAPER_FORM, AnswerForm("The final answer is ", "{answer}"))
"""Forms that are asked after the end-of-turn token, too."""


@dataclass(frozen=True)
class Plan:
    """What is sampled and measured.

    Attributes:
        num_problems: held-out problems.
        num_generations: completions of each.
        max_new_tokens: of a completion.
        num_asked: completions on which the candidates of `repro_answer_prefix="auto"` are compared.
    """

    num_problems: int = 50
    num_generations: int = 4
    max_new_tokens: int = 100
    num_asked: int = 32

    def problems(self) -> list[Problem]:
        """Always the same."""
        return sample_problems(self.num_problems, PROBLEM_SEED, held_out=True)


def forms() -> dict[tuple[str, str], AnswerForm]:
    """By prefix and by what is scored."""
    template = SETTINGS.repro_answer_template
    found = {}
    for prefix in PREFIXES:
        found[prefix, BOX] = AnswerForm(prefix, template)
        found[prefix, OPENED_BOX] = AnswerForm(prefix + template_opening(template), "{answer}")
        found[prefix, BARE] = AnswerForm(prefix, "{answer}")
    return found


def sample(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, problems: Sequence[Problem], plan: Plan
) -> list[list[dict[str, Any]]]:
    """Completions of some problems, sampled together.

    Returns: for each problem its completions; of each "ids", without the end-of-turn token; "text"; "ended", whether
    that token was there; "right".
    """
    wanted = [(problem, index) for problem in problems for index in range(plan.num_generations)]
    generations = TransformersSampler(model, tokenizer).generate(
        [prompt_ids(tokenizer, prompt_of(problem)) for problem, _ in wanted],
        [completion_seed(problem.text, index) for problem, index in wanted],
        Sampling(temperature=TEMPERATURE, top_p=1.0, max_new_tokens=plan.max_new_tokens),
    )
    found: list[list[dict[str, Any]]] = [[] for _ in problems]
    for number, (generation, (problem, _)) in enumerate(zip(generations, wanted, strict=True)):
        ids = generation.ids if generation.truncated else generation.ids[:-1]
        text = tokenizer.decode(ids)
        right = bool(verify_answer(text, problem.answer, SETTINGS.repro_think_end))
        completion = {"ids": ids, "text": text, "ended": not generation.truncated, "right": right}
        found[number // plan.num_generations].append(completion)
    return found


@torch.no_grad()
def measure(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    problem: Problem,
    completions: list[dict[str, Any]],
    asked: Sequence[AnswerForm],
    after_turn: Sequence[AnswerForm] = (),
) -> list[float]:
    """J of one problem's completions, added to them.

    Adds: "segments", their number; "before": for each of `asked` J at the last segment start, or before the first
    token where there is none; "end": J at the end; "turn": for each of `after_turn` J after the end-of-turn token, or
    at the end of a completion that was cut off.

    Returns: for each of `asked` J before the first token, which all completions share.
    """
    reader, device = CompletionReader(tokenizer, SETTINGS), model.device
    places = []
    for completion in completions:
        starts, end, _ = reader.cut(completion["ids"])
        completion["segments"] = len({0, *starts, end}) - 1
        row = [max(starts, default=0)] * len(asked) + [end] * len(asked)
        places.append(row + [end + completion["ended"]] * len(after_turn))
    rollout = _rollout(tokenizer, problem, completions, device)
    values = _ask(model, reader, problem, rollout, places, [*asked, *asked, *after_turn])
    count = len(asked)
    for completion, row in zip(completions, values, strict=True):
        completion["before"], completion["end"] = row[:count], row[count : 2 * count]
        completion["turn"] = row[2 * count :]
    first = [tensor[:1] for tensor in rollout]
    return _ask(model, reader, problem, first, [[0] * count], asked)[0]


def _ask(
    model: PreTrainedModel,
    reader: CompletionReader,
    problem: Problem,
    rollout: Sequence[Tensor],
    places: list[list[int]],
    asked: Sequence[AnswerForm],
) -> list[list[float]]:
    """(R, N) J of R completions at N places each, with the n-th form at the n-th place."""
    answers = [reader.encode(problem.answer, False, form)[0] for form in asked]
    bounds, mask = pad_rows(places, model.device)
    answer_ids, answer_mask = pad_rows([answer.ids for answer in answers], model.device)
    scored, _ = pad_rows([list(map(int, answer.scored)) for answer in answers], model.device)
    branches = (tensor.expand(len(places), -1, -1) for tensor in (answer_ids, answer_mask, scored.bool()))
    with scoring_mode(model, "shared"):
        objective = answer_log_probs(model, *rollout, bounds, mask, *branches, temperature=TEMPERATURE)
    return [[round(value, 4) for value in row] for row in objective.tolist()]


def _rollout(
    tokenizer: PreTrainedTokenizerBase, problem: Problem, completions: list[dict[str, Any]], device: torch.device
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Prompt and completions with their end-of-turn tokens: ids and masks, as `answer_log_probs` takes them."""
    prompts = torch.tensor([prompt_ids(tokenizer, prompt_of(problem))] * len(completions), device=device)
    end = [tokenizer.eos_token_id]
    return (
        prompts,
        torch.ones_like(prompts, dtype=torch.bool),
        *pad_rows([completion["ids"] + end * completion["ended"] for completion in completions], device),
    )


@torch.no_grad()
def compare_candidates(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, records: list[dict[str, Any]], plan: Plan
) -> dict[str, Any]:
    """What `repro_answer_prefix="auto"` makes of the first completions.

    Returns: "count" of completions; "candidates", each with "prefix", "template", "auc", "error" and "objective",
    the chosen one first; none where there are too few right or too few wrong completions.
    """
    reader = CompletionReader(tokenizer, SETTINGS)
    scorer = Scorer(model, reader, TEMPERATURE)
    records = records[: -(-plan.num_asked // plan.num_generations)]
    texts = [completion["text"] for record in records for completion in record["completions"]]
    template = SETTINGS.repro_answer_template
    evidence = FormEvidence(
        candidate_forms(template, None, frequent_texts(own_texts(texts, template, None), len(texts)))
    )
    for record in records:
        problem, completions = Problem(record["problem"], record["answer"]), record["completions"]
        rows = [
            reader.row(index, *reader.cut(completion["ids"]), problem.answer)
            for index, completion in enumerate(completions)
        ]
        names = ("prompt_ids", "prompt_mask", "completion_ids", "completion_mask")
        batch = dict(zip(names, _rollout(tokenizer, problem, completions, model.device), strict=True))
        answers = [problem.answer] * len(rows)
        values = scorer.ask_forms(batch, rows, answers, evidence.forms, batch_size=len(rows))
        evidence.add(values, torch.tensor([completion["right"] for completion in completions]))
    found = evidence.separations() or []
    if found:
        chosen = best_separation(found)[0]
        found = sorted(found, key=lambda one: (one is not chosen, -one.auc))
    candidates = [
        {"prefix": one.form.prefix, "template": one.form.template}
        | {name: round(getattr(one, name), 4) for name in ("auc", "error", "objective")}
        for one in found
    ]
    return {"count": evidence.count, "candidates": candidates}
