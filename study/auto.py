"""`repro_answer_prefix="auto"` in the study: what it finds, by the very search of the trainers."""

from dataclasses import asdict
from typing import Any

from accelerate import Accelerator
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from repro_trl.config import AUTO_PREFIX
from repro_trl.method.answer_forms import Separation, best_separation
from repro_trl.trainers.health import written_texts
from repro_trl.trainers.policy_scorer import PolicyScorer
from repro_trl.trainers.prefix_search import PrefixSearch
from repro_trl.verifier import verify_answer

from .measure import THINK_END, Sample, Settings


def search_in(sample: Sample, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> PrefixSearch:
    """A search that has seen one generation batch, the sample."""
    scorer = PolicyScorer(model, tokenizer, Settings({"repro_answer_prefix": AUTO_PREFIX}), Accelerator(cpu=True))
    search = PrefixSearch(scorer)
    count = len(sample.texts) // len(sample.problems)
    answers = [problem.answer for problem in sample.problems for _ in range(count)]
    texts = written_texts(tokenizer, sample.batch, {tokenizer.eos_token_id})
    verdicts = [verify_answer(text, answer, THINK_END) for text, answer in zip(texts, answers, strict=True)]
    mask = sample.batch["completion_mask"].bool()
    search.observe(sample.batch, answers, mask, texts, verdicts, len(texts))
    return search


def describe(search: PrefixSearch) -> dict[str, Any]:
    """The form that was found, the runner-up and the paper's, each with its figures; all `None` before it was."""
    if search.separations is None:
        return {"chosen": None, "runner-up": None, "paper": None}
    best, second = best_separation(search.separations)
    named = {"chosen": best, "runner-up": second, "paper": search.separations[0]}
    return {name: _as_record(separation) for name, separation in named.items()}


def _as_record(separation: Separation) -> dict[str, Any]:
    figures = {"auc": separation.auc, "error": separation.error, "objective": separation.objective}
    return asdict(separation.form) | {name: round(value, 4) for name, value in figures.items()}
