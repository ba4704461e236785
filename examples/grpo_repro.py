"""
GRPO with RePro: train a reasoning model with the outcome reward and a process advantage on every token.

The command `repro-trl grpo` runs this script. To change it, copy it; it only needs the installed package.

On a laptop CPU, offline, train the bundled reasoning model in minutes:

    accelerate launch grpo_repro.py

Train a Hub model on a Hub dataset, or on a local file or folder:

    accelerate launch grpo_repro.py --model_name_or_path Qwen/Qwen3-1.7B --dataset_name train.jsonl

Use the paper's hyperparameters on one node (the comments in the config say what differs from the paper):

    accelerate launch grpo_repro.py --config examples/configs/qwen3_1.7b_grpo.yaml

Every field of the classes in `ARGUMENTS` is an argument; `repro-trl grpo --help` lists them.
"""

from trl import DatasetMixtureConfig, ModelConfig, get_peft_config

from repro_trl import ReproGRPOConfig, ReproGRPOTrainer
from repro_trl.training.arguments import ReproScriptArguments, parse_arguments
from repro_trl.training.inputs import load_inputs
from repro_trl.training.run import train_and_report

ARGUMENTS = (ReproScriptArguments, ReproGRPOConfig, ModelConfig, DatasetMixtureConfig)


def make_trainer(
    script_args: ReproScriptArguments,
    training_args: ReproGRPOConfig,
    model_args: ModelConfig,
    dataset_args: DatasetMixtureConfig,
) -> ReproGRPOTrainer:
    inputs = load_inputs(script_args, training_args, model_args, dataset_args)
    return ReproGRPOTrainer(
        model=inputs.model,
        reward_funcs=inputs.reward_funcs,
        args=training_args,
        train_dataset=inputs.train_dataset,
        eval_dataset=inputs.eval_dataset,
        processing_class=inputs.tokenizer,
        peft_config=get_peft_config(model_args),
    )


if __name__ == "__main__":
    arguments = parse_arguments("grpo", ARGUMENTS)
    train_and_report(make_trainer(*arguments), arguments[0].dataset_name)
