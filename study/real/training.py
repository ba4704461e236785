"""Training runs from the warmed-up real model: plain GRPO, RePro in the paper's form, and its recipe."""

import dataclasses
import math
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from peft import LoraConfig
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase
from transformers.trainer_callback import PrinterCallback
from trl import GRPOConfig, GRPOTrainer

from repro_trl import ReproGRPOConfig, ReproGRPOTrainer
from repro_trl.method.answer_forms import AnswerForm, area_under_curve
from repro_trl.recipe import RECIPE
from repro_trl.rewards import make_answer_reward
from repro_trl.thinking import count_backtracks

from . import separation
from .problems import dataset, sample_problems

ASKED: dict[str, Any] = {"repro_answer_prefix": "The final answer is \\boxed{", "repro_answer_template": "{answer}"}
"""Where the recipe asks for the answer: one of the forms with the largest area in the table of prefixes."""

PAPER: dict[str, Any] = {"repro_answer_prefix": ""}
"""The paper's form: all other values are the defaults."""

ARMS: dict[str, dict[str, Any] | None] = {"plain": None, "repro": PAPER, "recipe": RECIPE | ASKED}
"""RePro's settings: none, the paper's, the recipe's."""

START = "start"
"""The cell that trains nothing."""

LEARNING_RATE = 3e-4
LORA = {"r": 16, "lora_alpha": 32, "target_modules": "all-linear"}
DELIMITER = "\n\n"


@dataclass(frozen=True)
class Plan:
    """Size of a run, the same for all arms.

    Attributes:
        steps: optimizer steps, each on new problems.
        prompts_per_step, num_generations: completions of a step.
        max_new_tokens: of a completion.
        num_evaluated: held-out problems after training, with `num_generations` completions each.
    """

    steps: int = 8
    prompts_per_step: int = 4
    num_generations: int = 4
    max_new_tokens: int = 96
    num_evaluated: int = 12


@dataclass(frozen=True)
class Cell:
    """One run; the same arm, seed and plan give the same result on the same machine."""

    arm: str
    seed: int
    plan: Plan

    @property
    def name(self) -> str:
        """For example `recipe/0`."""
        return f"{self.arm}/{self.seed}"


def cell_of(record: dict[str, Any]) -> Cell:
    """The cell that a record is the result of."""
    return Cell(record["arm"], record["seed"], Plan(**record["plan"]))


def run_cell(cell: Cell, policy: Path, device: str = "cpu") -> dict[str, Any]:
    """Train and measure.

    Returns: the cell; "curve", for each step the figures of the rollouts it trained on; "evaluation"; "seconds".
    """
    started = time.monotonic()
    tokenizer = AutoTokenizer.from_pretrained(policy)
    if cell.arm == START:
        model, curve = AutoModelForCausalLM.from_pretrained(policy).to(device), []
    else:
        model, curve = _train(cell, policy, tokenizer, device)
    return {
        **dataclasses.asdict(cell),
        "curve": curve,
        "evaluation": evaluate(model.eval(), tokenizer, cell),
        "seconds": round(time.monotonic() - started, 1),
    }


def _train(
    cell: Cell, policy: Path, tokenizer: PreTrainedTokenizerBase, device: str
) -> tuple[PreTrainedModel, list[dict[str, float]]]:
    plan, settings = cell.plan, ARMS[cell.arm]
    if settings is None:
        trainer_class, config_class, settings = GRPOTrainer, GRPOConfig, {}
    else:
        trainer_class, config_class = ReproGRPOTrainer, ReproGRPOConfig
        settings = settings | {"repro_think_end": separation.SETTINGS.repro_think_end}
    with tempfile.TemporaryDirectory() as folder:
        config = config_class(
            output_dir=folder,
            use_cpu=device == "cpu",
            bf16=False,
            gradient_checkpointing=False,
            seed=cell.seed,
            max_steps=plan.steps,
            learning_rate=LEARNING_RATE,
            lr_scheduler_type="constant",
            per_device_train_batch_size=plan.prompts_per_step * plan.num_generations,
            num_generations=plan.num_generations,
            max_completion_length=plan.max_new_tokens,
            temperature=separation.TEMPERATURE,
            beta=0.0,
            model_init_kwargs={"dtype": "float32"},
            logging_steps=1,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
            dataloader_pin_memory=False,
            **settings,
        )
        trainer = trainer_class(
            model=str(policy),
            reward_funcs=_accuracy(tokenizer),
            args=config,
            train_dataset=dataset(sample_problems(plan.steps * plan.prompts_per_step, cell.seed, held_out=False)),
            processing_class=tokenizer,
            peft_config=LoraConfig(task_type="CAUSAL_LM", **LORA),
        )
        trainer.remove_callback(PrinterCallback)
        trainer.train()
    curve = [
        {name: round(entry[key], 5) for name, key in CURVE_KEYS.items() if entry.get(key) is not None}
        for entry in trainer.state.log_history
        if "loss" in entry
    ]
    return trainer.model, curve


CURVE_KEYS = {
    "accuracy": "rewards/accuracy/mean",
    "thinking_tokens": "completions/mean_length",
    "truncated": "completions/clipped_ratio",
    "backtracks": "backtracks",
    "objective_gain": "repro/objective_gain",
    "objective_auc": "repro/objective_auc",
    "segments": "repro/segments",
    "advantage_share": "repro/advantage_share",
}


def _accuracy(tokenizer: PreTrainedTokenizerBase) -> Any:
    think_end = separation.SETTINGS.repro_think_end
    reward = make_answer_reward("solution", think_end=think_end)

    def accuracy(completions: list, log_metric: Any, **kwargs: Any) -> list[float | None]:
        for completion in completions:
            log_metric("backtracks", count_backtracks(completion[-1]["content"], DELIMITER, think_end))
        return reward(completions=completions, **kwargs)

    return accuracy


def evaluate(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, cell: Cell) -> dict[str, Any]:
    """Behaviour on held-out problems, which depend on the seed alone, and J of these completions in two forms."""
    plan = cell.plan
    problems = sample_problems(plan.num_evaluated, 10_000 + cell.seed, held_out=True)
    drawn = separation.Plan(num_generations=plan.num_generations, max_new_tokens=plan.max_new_tokens)
    asked = {"repro": separation.PAPER_FORM, "recipe": AnswerForm(*ASKED.values())}
    completions: list[dict[str, Any]] = []
    first: list[list[float]] = []
    for problem, of_problem in zip(problems, separation.sample(model, tokenizer, problems, drawn), strict=True):
        shared = separation.measure(model, tokenizer, problem, of_problem, list(asked.values()))
        first += [shared] * len(of_problem)
        completions += of_problem
    found = {
        "accuracy": fmean(completion["right"] for completion in completions),
        "thinking_tokens": fmean(len(completion["ids"]) for completion in completions),
        "truncated": fmean(not completion["ended"] for completion in completions),
        "segments": fmean(completion["segments"] for completion in completions),
        "backtracks": fmean(count_backtracks(c["text"], DELIMITER, None) for c in completions),
    }
    right = torch.tensor([completion["right"] for completion in completions])
    last = torch.tensor([completion["end"] for completion in completions])
    gains = (last - torch.tensor(first)).mean(dim=0).tolist()
    for index, form in enumerate(asked):
        found[f"objective_gain {form}"] = gains[index]
        found[f"objective_auc {form}"], _ = area_under_curve(last[:, index], right)
    return {name: None if math.isnan(value) else round(value, 5) for name, value in found.items()}
