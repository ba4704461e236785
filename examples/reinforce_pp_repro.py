"""
REINFORCE++ with RePro: no critic, advantages normalised over the whole batch, a process advantage on every token.

On a laptop, without GPU or network, a small reasoning model from this repository, in minutes:

    accelerate launch examples/reinforce_pp_repro.py

A Hub model on a Hub dataset, or on a local file or folder:

    accelerate launch examples/reinforce_pp_repro.py --model_name_or_path Qwen/Qwen3-1.7B --dataset_name train.jsonl

REINFORCE++ Baseline, which subtracts the mean reward of a prompt's completions:

    accelerate launch examples/reinforce_pp_repro.py --config examples/configs/pocket_reinforce_pp.yaml \\
        --use_group_baseline true

The paper's hyperparameters on one node (see the comments in the config for what differs from the paper):

    accelerate launch examples/reinforce_pp_repro.py \\
        --config examples/configs/r1_distill_qwen_1.5b_reinforce_pp.yaml

Every field of `ReproReinforcePlusPlusConfig`, `ModelConfig` and `ReproScriptArguments` is an argument; `--help` lists
them.
"""

import sys
from pathlib import Path

from trl import ModelConfig, TrlParser, get_peft_config

from repro_trl import ReproReinforcePlusPlusConfig, ReproReinforcePlusPlusTrainer
from repro_trl.training.arguments import (
    ReproScriptArguments,
    config_arguments,
    load_tokenizer,
    set_model_arguments,
)
from repro_trl.training.problems import load_problems
from repro_trl.training.reward import make_reward
from repro_trl.training.run import train_and_report

DEFAULT_CONFIG = Path(__file__).parent / "configs" / "pocket_reinforce_pp.yaml"


def main(
    script_args: ReproScriptArguments, training_args: ReproReinforcePlusPlusConfig, model_args: ModelConfig
) -> None:
    set_model_arguments(training_args, model_args)
    tokenizer = load_tokenizer(training_args, model_args)
    train_dataset, eval_dataset = load_problems(script_args, training_args, tokenizer)
    training_args.eval_on_start = eval_dataset is not None

    trainer = ReproReinforcePlusPlusTrainer(
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
    parser = TrlParser((ReproScriptArguments, ReproReinforcePlusPlusConfig, ModelConfig))
    arguments = config_arguments(sys.argv[1:], DEFAULT_CONFIG)
    main(*parser.parse_args_and_config(arguments, fail_with_unknown_args=True))
