"""
PPO with RePro: a critic learns what each prefix is worth, and every token gets a process advantage besides.

On a laptop, without GPU or network, a small reasoning model from this repository, in minutes:

    accelerate launch examples/ppo_repro.py

A Hub model on a Hub dataset, or on a local file or folder:

    accelerate launch examples/ppo_repro.py --model_name_or_path Qwen/Qwen3-1.7B --dataset_name train.jsonl

The paper's hyperparameters on one node (see the comments in the config for what differs from the paper):

    accelerate launch examples/ppo_repro.py --config examples/configs/r1_distill_qwen_1.5b_ppo.yaml

With `--use_peft true` the policy learns an adapter, with `--critic_use_peft true` the critic one of the same kind.

Every field of `ReproPPOConfig`, `ModelConfig` and `PPOScriptArguments` is an argument; `--help` lists them.
"""

import dataclasses
import sys
from dataclasses import dataclass, field
from pathlib import Path

from trl import ModelConfig, TrlParser, get_peft_config

from repro_trl import ReproPPOConfig, ReproPPOTrainer
from repro_trl.training.arguments import (
    ReproScriptArguments,
    config_arguments,
    load_tokenizer,
    set_model_arguments,
)
from repro_trl.training.problems import load_problems
from repro_trl.training.reward import make_reward
from repro_trl.training.run import train_and_report


@dataclass
class PPOScriptArguments(ReproScriptArguments):
    """`ReproScriptArguments`, and whether the critic learns an adapter."""

    critic_use_peft: bool = field(
        default=False,
        metadata={"help": "Train the critic with an adapter too, made from the same settings as the policy's."},
    )


DEFAULT_CONFIG = Path(__file__).parent / "configs" / "pocket_ppo.yaml"


def main(script_args: PPOScriptArguments, training_args: ReproPPOConfig, model_args: ModelConfig) -> None:
    set_model_arguments(training_args, model_args)
    tokenizer = load_tokenizer(training_args, model_args)
    train_dataset, eval_dataset = load_problems(script_args, training_args, tokenizer)
    training_args.eval_on_start = eval_dataset is not None

    trainer = ReproPPOTrainer(
        model=model_args.model_name_or_path,
        reward_funcs=make_reward(tokenizer, training_args),
        args=training_args,
        train_dataset=train_dataset,
        eval_dataset=eval_dataset,
        processing_class=tokenizer,
        peft_config=get_peft_config(model_args),
        critic_peft_config=get_peft_config(dataclasses.replace(model_args, use_peft=script_args.critic_use_peft)),
    )
    train_and_report(trainer, script_args.dataset_name)


if __name__ == "__main__":
    parser = TrlParser((PPOScriptArguments, ReproPPOConfig, ModelConfig))
    arguments = config_arguments(sys.argv[1:], DEFAULT_CONFIG)
    main(*parser.parse_args_and_config(arguments, fail_with_unknown_args=True))
