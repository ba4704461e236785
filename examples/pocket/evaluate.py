"""Held-out accuracy, thinking length and backtracks of a policy: what the before/after table shows."""

from collections.abc import Callable
from dataclasses import dataclass

from datasets import Dataset
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from repro_trl.evaluation import Sampling, task_from_rows
from repro_trl.evaluation.sampling import sample_units, work_units
from repro_trl.generation import TransformersSampler
from repro_trl.thinking import count_backtracks, thinking_text

from .traces import DELIMITER, THINK_END, accuracy_reward


@dataclass(frozen=True)
class Evaluation:
    """Means over the completions of one evaluation."""

    accuracy: float
    """Share that the reward function scores above 0.5."""
    thinking_tokens: float
    """Tokens before `</think>`; all of them in a completion without it."""
    backtracks: float
    """Segments of the thought with a phrase of `repro_trl.thinking.BACKTRACK_PHRASES` in them, per completion."""
    truncated: float
    """Share without an end-of-sequence token within the limit."""


def evaluate(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    dataset: Dataset,
    reward_function: Callable[..., list[float]] = accuracy_reward,
    batch_size: int = 128,
    max_new_tokens: int = 160,
    temperature: float = 1.0,
    seed: int = 0,
) -> Evaluation:
    """Sample one completion for each row of `dataset` (columns `prompt`, conversational, and `solution`): the one that
    `repro-trl eval` samples with the same settings.

    The random state of the caller is left as it was; the model comes back in the mode it had. Temperature 0 is greedy.
    """
    sampling = Sampling(
        temperature=temperature, top_p=1.0, max_new_tokens=max_new_tokens, seed=seed, batch_size=batch_size
    )
    units = work_units(task_from_rows("pocket", dataset).problems, samples=1, batch_size=batch_size)
    batches = sample_units(TransformersSampler(model, tokenizer), units, sampling)
    samples = [sample for batch in batches for sample in batch]
    completions = [sample.completion for sample in samples]

    messages = [[{"role": "assistant", "content": completion}] for completion in completions]
    rewards = reward_function(completions=messages, solution=dataset["solution"])
    thoughts = [thinking_text(completion, THINK_END) for completion in completions]
    lengths = [len(ids) for ids in tokenizer(thoughts, add_special_tokens=False)["input_ids"]]
    return Evaluation(
        accuracy=sum(reward > 0.5 for reward in rewards) / len(completions),
        thinking_tokens=sum(lengths) / len(completions),
        backtracks=sum(count_backtracks(completion, DELIMITER, THINK_END) for completion in completions)
        / len(completions),
        truncated=sum(sample.truncated for sample in samples) / len(completions),
    )


def format_table(rows: dict[str, Evaluation]) -> str:
    """A text table with one line per evaluation, for example `{"before": …, "after": …}`."""
    head = f"{'':12}{'accuracy':>10}{'thinking tokens':>18}{'backtracks':>13}{'truncated':>12}"
    lines = [
        f"{name:12}{e.accuracy:>10.3f}{e.thinking_tokens:>18.1f}{e.backtracks:>13.2f}{e.truncated:>12.3f}"
        for name, e in rows.items()
    ]
    return "\n".join([head, *lines])
