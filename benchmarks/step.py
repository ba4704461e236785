"""A training step of `ReproGRPOTrainer` against one of `GRPOTrainer` on the same rollouts, split into its parts."""

import random
import statistics
import tempfile
from typing import Any

import torch
from datasets import Dataset
from machine import DEVICE, MODELS, PROMPT, SEGMENT, make_model, seconds, words_and_blank_line
from transformers import AutoTokenizer, PrinterCallback
from trl import GRPOConfig, GRPOTrainer

from repro_trl import ReproGRPOConfig, ReproGRPOTrainer
from repro_trl.demo import MODEL_DIR

ROWS = 2
CASES = {
    # name: (settings, completions per generation batch)
    "no old log-probabilities": ({}, ROWS),
    "old log-probabilities (misaligned accumulation)": ({"steps_per_generation": 2}, 2 * ROWS),
    "old log-probabilities (two iterations)": ({"num_iterations": 2}, ROWS),
}


class TimedMixin:
    """Its completions are given, and the parts of a step are timed."""

    def __init__(self, *args: Any, completions: list[list[int]], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.completions = completions
        self.times: dict[str, list[float]] = {"step": [], "rollouts": []}

    def _generate_single_turn(self, prompt_ids: list[Any], *args: Any, **kwargs: Any) -> tuple[list[list[int]], None]:
        return self.completions[: len(prompt_ids)], None

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        run = super()._generate_and_score_completions
        result: dict[str, Any] = {}
        self.times["rollouts"].append(seconds(lambda: result.update(run(inputs))))
        return result

    def training_step(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        run = super().training_step
        losses = []
        self.times["step"].append(seconds(lambda: losses.append(run(*args, **kwargs))))
        return losses[0]


class TimedGRPOTrainer(TimedMixin, GRPOTrainer):
    """The stock trainer."""


class TimedReproGRPOTrainer(TimedMixin, ReproGRPOTrainer):
    """RePro's."""


def measure_steps(model_name: str, length: int, ks: tuple[int, ...], repeats: int) -> list[dict[str, Any]]:
    """One row of results for each kind of step and each k; seconds are per generation batch."""
    return [_measure(case, model_name, length, k, repeats) for case in CASES for k in ks]


def _measure(case: str, model_name: str, length: int, k: int, repeats: int) -> dict[str, Any]:
    totals: dict[str, list[dict[str, float]]] = {"stock": [], "repro": []}
    for _ in range(repeats):
        for name in totals:
            totals[name].append(_train(name, case, model_name, length, k))
    medians = {
        name: {part: statistics.median(run[part] for run in runs) for part in ("total", "rollouts")}
        for name, runs in totals.items()
    }
    stock, repro = medians["stock"], medians["repro"]
    result = {
        "case": f"{case}, {model_name}, {length}, k {k}",
        "k": k,
        "length": length,
        "seconds": {
            "stock: rollouts without generation": round(stock["rollouts"], 4),
            "stock: loss": round(stock["total"] - stock["rollouts"], 4),
            "RePro: scoring": round(repro["rollouts"] - stock["rollouts"], 4),
            "RePro: loss": round(repro["total"] - repro["rollouts"], 4),
        },
        "ratios": {"RePro step / stock step": round(repro["total"] / stock["total"], 3)},
    }
    parts = " | ".join(f"{name} {value:.3f} s" for name, value in result["seconds"].items())
    print(f"{result['case']} | {parts} | step {result['ratios']['RePro step / stock step']:.3f}", flush=True)
    return result


def _train(name: str, case: str, model_name: str, length: int, k: int) -> dict[str, float]:
    settings, count = CASES[case]
    tokenizer = AutoTokenizer.from_pretrained(MODEL_DIR)
    rng = random.Random(0)
    words, blank = words_and_blank_line(tokenizer)
    prompt = tokenizer.decode(rng.choices(words, k=PROMPT))
    completions = [
        [token for _ in range(length // SEGMENT) for token in (*rng.choices(words, k=SEGMENT - len(blank)), *blank)]
        for _ in range(count)
    ]
    repro = {"repro_top_k": k, "repro_answer_prefix": "", "repro_method": "shared"}
    trainer_class, config_class, own = {
        "stock": (TimedGRPOTrainer, GRPOConfig, {}),
        "repro": (TimedReproGRPOTrainer, ReproGRPOConfig, repro),
    }[name]
    batches = 2  # of which the first warms up
    steps_per_batch = settings.get("steps_per_generation", 1) * settings.get("num_iterations", 1)
    with tempfile.TemporaryDirectory() as folder:
        args = config_class(
            output_dir=folder,
            use_cpu=DEVICE.type == "cpu",
            bf16=False,
            gradient_checkpointing=False,
            per_device_train_batch_size=ROWS,
            num_generations=ROWS,
            max_completion_length=length,
            max_steps=batches * steps_per_batch,
            report_to="none",
            save_strategy="no",
            logging_strategy="no",
            disable_tqdm=True,
            **settings,
            **own,
        )
        dataset = Dataset.from_list([{"prompt": prompt, "solution": "42"}] * 8)
        trainer = trainer_class(
            make_model(model_name, max(MODELS[model_name][2], len(tokenizer))),
            lambda completion_ids, **_: [float(i % 2) for i in range(len(completion_ids))],
            args,
            dataset,
            processing_class=tokenizer,
            completions=completions,
        )
        trainer.remove_callback(PrinterCallback)
        trainer.train()
    return {"total": sum(trainer.times["step"][steps_per_batch:]), "rollouts": trainer.times["rollouts"][-1]}
