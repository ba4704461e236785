"""What the example scripts share: problems from any dataset, the reward, progress lines, the before/after table."""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from datasets import Dataset, DatasetDict, load_dataset
from pocket import task as pocket_task
from transformers import AutoTokenizer, PreTrainedTokenizerBase, PrinterCallback, ProgressCallback, TrainerCallback
from trl import ModelConfig, ScriptArguments, get_quantization_config
from trl.trainer.utils import get_config_model_id

from repro_trl.answers import extract_answer
from repro_trl.boundaries import find_segment_starts
from repro_trl.config import ReproConfigMixin
from repro_trl.evaluation import EvaluationCallback, Sampling, task_from_rows
from repro_trl.rewards import make_answer_reward
from repro_trl.thinking import count_backtracks

EXAMPLES = Path(__file__).parent
POCKET = "pocket"
PROMPT_COLUMNS = ("prompt", "problem", "question")
ANSWER_COLUMNS = ("solution", "answer")
FILE_FORMATS = {".json": "json", ".jsonl": "json", ".parquet": "parquet"}


@dataclass
class ReproScriptArguments(ScriptArguments):
    """`trl.ScriptArguments`, where `dataset_name` may also be a local json, jsonl or parquet file, and what else it
    takes to read a math dataset."""

    prompt_column: str | None = field(
        default=None,
        metadata={"help": f"Column with the problem. Default: the first there is of {', '.join(PROMPT_COLUMNS)}."},
    )
    instruction: str = field(
        default="Please reason step by step, and put your final answer within \\boxed{}.",
        metadata={"help": "Text added to each problem; not to prompts that are lists of messages already."},
    )
    num_eval_problems: int = field(
        default=256,
        metadata={
            "help": "Held-out problems measured before and after training: from the dataset's test split, or else "
            "taken out of its train split. 0: no measurement."
        },
    )


def config_arguments(arguments: list[str], default_config: str) -> list[str]:
    """Command-line arguments, with the embedded default's config added when they name no model and no config."""
    named = {argument.split("=")[0] for argument in arguments}
    if named & {"--model_name_or_path", "--config", "-h", "--help"}:
        return arguments
    return [*arguments, "--config", str(EXAMPLES / "configs" / default_config)]


def set_model_arguments(training_args: ReproConfigMixin, model_args: ModelConfig) -> None:
    """Put what `ModelConfig` says of loading into `training_args.model_init_kwargs`, where TRL's trainers read it."""
    # The embedded default's folder is named relative to this file, so that the script runs from any directory.
    if model_args.model_name_or_path == POCKET:
        model_args.model_name_or_path = str(EXAMPLES / "pocket" / "model")
    training_args.model_init_kwargs = {
        "revision": model_args.model_revision,
        "attn_implementation": model_args.attn_implementation,
        "dtype": model_args.dtype,
        "quantization_config": get_quantization_config(model_args),
        **(training_args.model_init_kwargs or {}),
    }


def load_tokenizer(training_args: ReproConfigMixin, model_args: ModelConfig) -> PreTrainedTokenizerBase:
    """The model's tokenizer, padding and truncating on the left as TRL expects."""
    return AutoTokenizer.from_pretrained(
        model_args.model_name_or_path,
        revision=model_args.model_revision,
        trust_remote_code=training_args.trust_remote_code,
        padding_side="left",
        truncation_side="left",
    )


def load_problems(
    script_args: ReproScriptArguments, training_args: ReproConfigMixin, tokenizer: PreTrainedTokenizerBase
) -> tuple[Dataset, Dataset | None]:
    """
    Training problems and held-out ones, with a column `prompt` as TRL wants it.

    The ground truth is read from `repro_answer_column`, or from `answer` in a dataset that has no such column; the
    setting is changed then, and said so.
    """
    count = script_args.num_eval_problems
    if script_args.dataset_name in (None, POCKET):
        return pocket_task.train_dataset(), pocket_task.eval_dataset(count) if count else None

    splits = _load_splits(script_args)
    train = splits[script_args.dataset_train_split]
    if script_args.dataset_test_split in splits:
        held_out = splits[script_args.dataset_test_split].shuffle(seed=training_args.seed)
    elif count:
        parts = train.train_test_split(test_size=min(count, len(train) // 2), seed=training_args.seed)
        train, held_out = parts["train"], parts["test"]
    else:
        held_out = train.select([])

    columns = train.column_names
    prompt_column = script_args.prompt_column or next((name for name in PROMPT_COLUMNS if name in columns), None)
    if prompt_column not in columns:
        raise ValueError(
            f"prompt_column={script_args.prompt_column!r}: the dataset has the columns {columns}. Name the one that "
            "holds the problem."
        )
    wanted = training_args.repro_answer_column
    if wanted not in columns:
        training_args.repro_answer_column = next((name for name in ANSWER_COLUMNS if name in columns), wanted)
        print(f"No column {wanted!r} in the dataset: ground truth is read from {training_args.repro_answer_column!r}.")

    def to_prompt(row: dict[str, Any]) -> dict[str, Any]:
        problem = row[prompt_column]
        if isinstance(problem, list):
            return {"prompt": problem}
        text = f"{problem}\n\n{script_args.instruction}" if script_args.instruction else problem
        if tokenizer.chat_template is None:  # a base model continues plain text
            return {"prompt": f"{text}\n\n"}
        return {"prompt": [{"role": "user", "content": text}]}

    train, held_out = (
        rows.map(to_prompt, remove_columns=[prompt_column] if prompt_column != "prompt" else None)
        for rows in (train, held_out)
    )
    return train, held_out.select(range(min(count, len(held_out)))) if count else None


def _load_splits(script_args: ReproScriptArguments) -> DatasetDict:
    path = Path(script_args.dataset_name)
    if path.suffix in FILE_FORMATS:
        if not path.is_file():
            raise ValueError(f"dataset_name={script_args.dataset_name!r}: there is no such file.")
        train = load_dataset(FILE_FORMATS[path.suffix], data_files=str(path), split="train")
        return DatasetDict({script_args.dataset_train_split: train})
    return load_dataset(script_args.dataset_name, name=script_args.dataset_config)


def make_reward(
    tokenizer: PreTrainedTokenizerBase, training_args: ReproConfigMixin
) -> Callable[..., list[float | None]]:
    """math-verify's verdict on each completion; logs thinking tokens and backtracks per trace on the way."""
    delimiter, think_end = training_args.repro_delimiter, training_args.repro_think_end
    verdicts = make_answer_reward(training_args.repro_answer_column, think_end)

    def accuracy(
        completions: list, completion_ids: list[list[int]], log_metric: Callable[[str, float], None], **kwargs: Any
    ) -> list[float | None]:
        texts = [
            completion if isinstance(completion, str) else completion[-1]["content"] for completion in completions
        ]
        lengths = [find_segment_starts(tokenizer, ids, delimiter, think_end)[1] for ids in completion_ids]
        for length, text in zip(lengths, texts, strict=True):
            log_metric("thinking_tokens", length)
            log_metric("backtracks", count_backtracks(text, delimiter, think_end))
        return verdicts(completions=completions, **kwargs)

    return accuracy


# Logged by the trainer's evaluation, which samples as training does; and by `EvaluationCallback`, whose completions
# have seeds of their own, so that `repro-trl eval` gets the same ones from the saved model.
TRAINER_COLUMNS = {
    "accuracy": "eval_rewards/accuracy/mean",
    "thinking tokens": "eval_thinking_tokens",
    "backtracks": "eval_backtracks",
    "truncated": "eval_completions/clipped_ratio",
    "J gain": "eval_repro/objective_gain",
}
HELD_OUT = "held_out"
HELD_OUT_COLUMNS = {
    "accuracy": f"eval_{HELD_OUT}/accuracy",
    "thinking tokens": f"eval_{HELD_OUT}/thinking_tokens",
    "backtracks": f"eval_{HELD_OUT}/backtracks",
    "truncated": f"eval_{HELD_OUT}/truncation_rate",
}
TRAINING_COLUMNS = {name: key.removeprefix("eval_") for name, key in TRAINER_COLUMNS.items()}


class ProgressLines(TrainerCallback):
    """
    One short line per logging step above the progress bar, where TRL would print every metric it has. Of held-out
    problems those in `held_out_columns` are shown.
    """

    def __init__(self, held_out_columns: dict[str, str]) -> None:
        self.columns = {"held out": held_out_columns, "training": TRAINING_COLUMNS}

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **kwargs: Any) -> None:
        if not state.is_world_process_zero or not logs:
            return
        label = next((label for label, columns in self.columns.items() if columns["accuracy"] in logs), None)
        if label is None:
            return
        values = {name: logs.get(key) for name, key in self.columns[label].items()}
        numbers = "  ".join(f"{name} {value:.2f}" for name, value in values.items() if value is not None)
        print(f"step {state.global_step:>4}/{state.max_steps}  {label}:  {numbers}", flush=True)


class QuietProgressBar(ProgressCallback):
    """The progress bar without the dictionary of metrics under it."""

    def on_log(self, *args: Any, **kwargs: Any) -> None:
        pass


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
    if trainer.eval_dataset is None or args.use_vllm:
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


def show_progress(trainer: Any, held_out_columns: dict[str, str]) -> None:
    """Replace the trainer's printing of metrics by `ProgressLines`; trackers still get all of them."""
    for printing in (ProgressCallback, PrinterCallback):
        trainer.pop_callback(printing)
    if not trainer.args.disable_tqdm:
        trainer.add_callback(QuietProgressBar)
    trainer.add_callback(ProgressLines(held_out_columns))


def before_after_table(trainer: Any, columns: dict[str, str]) -> str:
    """
    The first and the last evaluation of a run side by side, with the keys in `columns`; also written to
    `before_after.json` in its folder.
    """
    logged = {key: [entry[key] for entry in trainer.state.log_history if key in entry] for key in columns.values()}
    rows = {
        name: {column: logged[key][index] if logged[key] else None for column, key in columns.items()}
        for name, index in (("before", 0), ("after", -1))
    }
    if trainer.is_world_process_zero():
        Path(trainer.args.output_dir, "before_after.json").write_text(json.dumps(rows, indent=2) + "\n")
    shown = [column for column, value in rows["after"].items() if value is not None]
    lines = ["".join([f"{'held out':10}", *(f"{column:>17}" for column in shown)])]
    for name, row in rows.items():
        lines.append("".join([f"{name:10}", *(f"{row[column]:>17.3f}" for column in shown)]))
    return "\n".join(lines)
