"""
PPO with RePro: a critic learns the value of each prefix, and every token also gets a process advantage.

The command `repro-trl ppo` runs this script. To change it, copy it; it only needs the installed package.

On a laptop CPU, offline, train the bundled reasoning model in minutes:

    accelerate launch ppo_repro.py

Train a Hub model on a Hub dataset, or on a local file or folder:

    accelerate launch ppo_repro.py --model_name_or_path Qwen/Qwen3-1.7B --dataset_name train.jsonl

Use the paper's hyperparameters on one node (the comments in the config say what differs from the paper):

    accelerate launch ppo_repro.py --config examples/configs/r1_distill_qwen_1.5b_ppo.yaml

With `--use_peft true`, the policy trains an adapter; with `--critic_use_peft true`, so does the critic.

Every field of the classes in `ARGUMENTS` is an argument; `repro-trl ppo --help` lists them.
"""

import dataclasses
from dataclasses import dataclass, field

from trl import DatasetMixtureConfig, ModelConfig, get_peft_config

from repro_trl import ReproPPOConfig, ReproPPOTrainer
from repro_trl.training.arguments import ReproScriptArguments, parse_arguments
from repro_trl.training.inputs import load_inputs
from repro_trl.training.run import train_and_report


@dataclass
class PPOScriptArguments(ReproScriptArguments):
    """`ReproScriptArguments`, and whether the critic learns an adapter."""

    critic_use_peft: bool = field(
        default=False,
        metadata={"help": "Train the critic with an adapter too, with the same settings as the policy's."},
    )


ARGUMENTS = (PPOScriptArguments, ReproPPOConfig, ModelConfig, DatasetMixtureConfig)


def make_trainer(
    script_args: PPOScriptArguments,
    training_args: ReproPPOConfig,
    model_args: ModelConfig,
    dataset_args: DatasetMixtureConfig,
) -> ReproPPOTrainer:
    inputs = load_inputs(script_args, training_args, model_args, dataset_args)
    return ReproPPOTrainer(
        model=inputs.model,
        reward_funcs=inputs.reward_funcs,
        args=training_args,
        train_dataset=inputs.train_dataset,
        eval_dataset=inputs.eval_dataset,
        processing_class=inputs.tokenizer,
        peft_config=get_peft_config(model_args),
        critic_peft_config=get_peft_config(dataclasses.replace(model_args, use_peft=script_args.critic_use_peft)),
    )


if __name__ == "__main__":
    arguments = parse_arguments("ppo", ARGUMENTS)
    train_and_report(make_trainer(*arguments), arguments[0].dataset_name)
