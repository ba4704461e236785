"""
GRPO with RePro: train a reasoning model with the outcome reward and a process advantage on every token.

On a laptop, without GPU or network, a small reasoning model from this repository, in minutes:

    accelerate launch examples/grpo_repro.py

A Hub model on a Hub dataset, or on a local file or folder:

    accelerate launch examples/grpo_repro.py --model_name_or_path Qwen/Qwen3-1.7B --dataset_name train.jsonl

The paper's hyperparameters on one node (see the comments in the config for what differs from the paper):

    accelerate launch examples/grpo_repro.py --config examples/configs/qwen3_1.7b_grpo.yaml

Every field of `ReproGRPOConfig`, `ModelConfig` and `ReproScriptArguments` is an argument; `--help` lists them.
"""

import sys
from pathlib import Path

from trl import ModelConfig, TrlParser, get_peft_config

from repro_trl import ReproGRPOConfig, ReproGRPOTrainer
from repro_trl.training.arguments import (
    ReproScriptArguments,
    config_arguments,
    load_tokenizer,
    set_model_arguments,
)
from repro_trl.training.problems import load_problems
from repro_trl.training.reward import make_reward
from repro_trl.training.run import train_and_report

DEFAULT_CONFIG = Path(__file__).parent / "configs" / "pocket_grpo.yaml"


def main(script_args: ReproScriptArguments, training_args: ReproGRPOConfig, model_args: ModelConfig) -> None:
    set_model_arguments(training_args, model_args)
    tokenizer = load_tokenizer(training_args, model_args)
    train_dataset, eval_dataset = load_problems(script_args, training_args, tokenizer)
    training_args.eval_on_start = eval_dataset is not None

    trainer = ReproGRPOTrainer(
        model=model_args.model_name_or_path,
        reward_funcs=make_reward(tokenizer, training_args),
        args=training_args,
        train_dataset=train_dataset,
        eval_dataset=eval_dataset,
        processing_class=tokenizer,
        peft_config=get_peft_config(model_args),
    )
    train_and_report(trainer, script_args.dataset_name)


if __name__ == "__main__":
    parser = TrlParser((ReproScriptArguments, ReproGRPOConfig, ModelConfig))
    arguments = config_arguments(sys.argv[1:], DEFAULT_CONFIG)
    main(*parser.parse_args_and_config(arguments, fail_with_unknown_args=True))
