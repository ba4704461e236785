"""A training script from its trainer to its last line: train, save, evaluate, say where everything is."""

import json
from pathlib import Path
from typing import Any

from trl.trainer.utils import get_config_model_id

from ..answers import extract_answer
from ..evaluation import EvaluationCallback, Sampling, task_from_rows
from .progress import HELD_OUT, HELD_OUT_COLUMNS, TRAINER_COLUMNS, before_after_table, show_progress


def train_and_report(trainer: Any, dataset_name: str | None) -> None:
    """Train with progress lines, save model, tokenizer and card, and print held-out figures before and after."""
    args = trainer.args
    command = evaluate_as_the_command_does(trainer)
    columns = TRAINER_COLUMNS if command is None else HELD_OUT_COLUMNS
    show_progress(trainer, columns)
    trainer.train(resume_from_checkpoint=args.resume_from_checkpoint)
    trainer.save_model(args.output_dir)
    trainer.create_model_card(dataset_name=dataset_name)
    if trainer.eval_dataset is not None:
        trainer.evaluate()
        trainer.accelerator.print("\n" + before_after_table(trainer, {**TRAINER_COLUMNS, **columns}))
    save_records(trainer, dataset_name)
    trainer.accelerator.print(f"\nModel, tokenizer, card and logs are in {args.output_dir}")
    if command is not None:
        trainer.accelerator.print(f"The last line of the table, from the saved model:\n    {command}")
    if args.push_to_hub:
        trainer.push_to_hub(dataset_name=dataset_name)
    trainer.end()


def save_records(trainer: Any, dataset_name: str | None) -> None:
    """
    Leave in the output folder what `repro-trl report` reads and TRL keeps in checkpoints only, or nowhere: the history
    of logs (`trainer_state.json`), and the names of model and dataset (`run.json`).
    """
    trainer.save_state()
    if trainer.is_world_process_zero():
        names = {"model": get_config_model_id(trainer.model.config), "dataset": dataset_name}
        Path(trainer.args.output_dir, "run.json").write_text(json.dumps(names, indent=2) + "\n")


def evaluate_as_the_command_does(trainer: Any) -> str | None:
    """
    Evaluate the held-out problems with the package's own evaluation too, and write them to `held_out.jsonl`.

    Returns:
        The command that evaluates the saved model in the same way; `None` where nothing is held out or has an answer,
        and with vLLM, whose speed the callback does not have.
    """
    args = trainer.args
    if trainer.eval_dataset is None or args.use_vllm or args.repro_answer_column is None:
        return None
    rows = [
        {
            "prompt": [{"role": "user", "content": row["prompt"].strip()}]
            if isinstance(row["prompt"], str)
            else row["prompt"],
            "answer": row[args.repro_answer_column],
        }
        for row in trainer.eval_dataset
        if extract_answer(row[args.repro_answer_column]) is not None
    ]
    if not rows:
        return None
    sampling = Sampling(
        temperature=args.temperature,
        top_p=args.top_p,
        max_new_tokens=args.max_completion_length,
        seed=args.seed,
        batch_size=args.per_device_eval_batch_size,
        delimiter=args.repro_delimiter,
        think_end=args.repro_think_end,
    )
    samples = args.num_generations_eval or args.num_generations
    trainer.add_callback(EvaluationCallback(trainer, [task_from_rows(HELD_OUT, rows)], sampling, samples))
    file = Path(args.output_dir, f"{HELD_OUT}.jsonl")
    if trainer.is_world_process_zero():
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return (
        f"repro-trl eval --model {args.output_dir} --tasks {file} --num_samples {samples} "
        f"--temperature {sampling.temperature} --top_p {sampling.top_p} --max_new_tokens {sampling.max_new_tokens} "
        f"--seed {sampling.seed} --batch_size {sampling.batch_size}"
    )
