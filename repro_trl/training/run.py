"""A training script from its trainer to its last line: train, save, evaluate, say where everything is."""

import json
from pathlib import Path
from typing import Any

from trl.trainer.utils import get_config_model_id

from ..answers import extract_answer
from ..evaluation import EvaluationCallback, Sampling, task_from_rows
from .progress import HELD_OUT, HELD_OUT_COLUMNS, evaluation_columns, show_progress
from .tables import RUN_FILE, Rows, format_table, write_rows


def train_and_report(trainer: Any, dataset_name: str | None = None) -> None:
    """
    Train, save model, tokenizer and card, print held-out figures before and after, and say where everything is.

    Args:
        trainer: a trainer of this package, not yet trained.
        dataset_name: for the model card.
    """
    args = trainer.args
    command = evaluate_as_the_command_does(trainer)
    columns = evaluation_columns(trainer)
    show_progress(trainer, columns if command is None else HELD_OUT_COLUMNS)
    trainer.train(resume_from_checkpoint=args.resume_from_checkpoint)
    trainer.save_model(args.output_dir)
    trainer.create_model_card(dataset_name=dataset_name)
    if trainer.eval_dataset is not None:
        trainer.evaluate()
        rows = before_and_after(trainer, columns if command is None else {**columns, **HELD_OUT_COLUMNS})
        if trainer.is_world_process_zero():
            write_rows(rows, args.output_dir)
            print(f"\n{format_table(rows)}")
    save_records(trainer, dataset_name)
    if trainer.is_world_process_zero():
        print("\n" + whereabouts(args.output_dir, command), flush=True)
    if args.push_to_hub:
        trainer.push_to_hub(dataset_name=dataset_name)
    trainer.accelerator.end_training()


def before_and_after(trainer: Any, columns: dict[str, str]) -> Rows:
    """The first and the last evaluation of a run, of which `columns` names the logged keys."""
    logged = {key: [entry[key] for entry in trainer.state.log_history if key in entry] for key in columns.values()}
    return {
        name: {column: logged[key][index] if logged[key] else None for column, key in columns.items()}
        for name, index in (("before", 0), ("after", -1))
    }


def whereabouts(output_dir: str, evaluate: str | None) -> str:
    """Where model and logs are, and the commands that read them."""
    lines = {
        "Model, card": output_dir,
        "Logs": str(Path(output_dir, "trainer_state.json")),
        "Report": f"repro-trl report {output_dir} --html {Path(output_dir, 'report.html')}",
    }
    if evaluate is not None:
        lines["Evaluate"] = evaluate
    return "\n".join(f"{name:13}{text}" for name, text in lines.items())


def save_records(trainer: Any, dataset_name: str | None) -> None:
    """
    Leave in the output folder what `repro-trl report` reads and TRL keeps in checkpoints only, or nowhere: the history
    of logs (`trainer_state.json`), and the names of model, dataset and the reward that judges answers (`run.json`).
    """
    trainer.save_state()
    if trainer.is_world_process_zero():
        names = {
            "model": get_config_model_id(trainer.model.config),
            "dataset": dataset_name,
            "accuracy_reward": trainer.reward_func_names[0],
        }
        Path(trainer.args.output_dir, RUN_FILE).write_text(json.dumps(names, indent=2) + "\n")


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
        f"repro-trl eval --model {args.output_dir} --tasks {file} --num_generations {samples} "
        f"--temperature {sampling.temperature} --top_p {sampling.top_p} "
        f"--max_completion_length {sampling.max_new_tokens} --seed {sampling.seed} --batch_size {sampling.batch_size}"
    )
