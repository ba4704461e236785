"""What the policy did not write, such as the output of tools, carries no process advantage."""

import pytest
from checked_runs import train
from tiny_policy import save_tiny_policy
from tiny_runs import CheckedTrainer, token_reward
from transformers import AutoTokenizer


class ScriptedTrainer(CheckedTrainer):
    """Its turns are given, not sampled: `script[turn]`, the same for every prompt but for a number."""

    script: list[str]
    turn = 0

    def _generate(self, prompts):
        self.turn = 0
        return super()._generate(prompts)

    def _generate_single_turn(self, prompt_ids, *args, **kwargs):
        texts = [self.script[self.turn].format(number=i) for i in range(len(prompt_ids))]
        self.turn += 1
        return [[*self._tokenizer.encode(text), self._tokenizer.eos_token_id] for text in texts], None


CALL = '<tool_call>\n{{"name": "NAME", "arguments": {{"number": {number}}}}}\n</tool_call>'


def multiply(number: int) -> str:
    """
    Multiplies by seven.

    Args:
        number: what to multiply.
    """
    return f"Working.\n\nStill working.\n\nThe result is {7 * number}\n\nDone."


class Counter:
    def reset(self, **kwargs) -> str | None:
        self.count = 0
        return " Count."

    def add(self, number: int) -> str:
        """
        Adds a number.

        Args:
            number: what to add.
        """
        self.count += number
        return f"Now\n\nit is\n\n{self.count}"


def counter_reward(environments, **kwargs):
    return [float(environment.count) for environment in environments]


@pytest.mark.parametrize("kind", ["tools", "async tools", "environment"])
def test_tool_output_carries_no_process_advantage(tmp_path, dataset, kind):
    from trl.chat_template_utils import qwen3_chat_template

    async def add_slowly(number: int) -> str:
        """
        Multiplies by seven.

        Args:
            number: what to multiply.
        """
        return multiply(number)

    policy = save_tiny_policy(tmp_path / "policy", max_position_embeddings=4096)  # TRL drops results beyond these
    tokenizer = AutoTokenizer.from_pretrained(policy)
    tokenizer.chat_template = qwen3_chat_template
    tool, model_args, reward = {
        "tools": ("multiply", {"tools": [multiply]}, token_reward),
        "async tools": ("add_slowly", {"tools": [add_slowly]}, token_reward),
        "environment": ("add", {"environment_factory": Counter}, counter_reward),
    }[kind]

    class Trainer(ScriptedTrainer):
        script = [
            "Let me see.\n\nI need the tool.\n\n" + CALL.replace("NAME", tool),
            "So.\n\nThat is it.\n\n</think>\n\n\\boxed{{{number}}}",
        ]

    trainer = train(
        policy,
        dataset,
        tmp_path,
        reward=reward,
        trainer_class=Trainer,
        model_args={"processing_class": tokenizer, **model_args},
        max_completion_length=1000,
    )
    assert trainer.state.log_history[0]["tools/call_frequency"] == 1
    for rollout, _, total in trainer.rollouts:
        tool_tokens = rollout.batch["completion_mask"].bool() & ~rollout.batch["tool_mask"].bool()
        assert tool_tokens.any(1).all()
        assert not total[tool_tokens].any()


def test_rollout_func_with_env_mask_and_fields_of_its_own(tmp_path, policy, dataset):
    def rollout_func(prompts, trainer):
        tokenizer = trainer.processing_class
        parts = [
            ("One.\n\nTwo.\n\n", 1),
            ("It says\n\nno\n\n", 0),
            ("Three.\n\nFour {}.\n\n</think>\n\n\\boxed{{1}}", 1),
        ]
        completion_ids, env_mask = [], []
        for i in range(len(prompts)):
            pieces = [(tokenizer.encode(text.format(i) if own else text), own) for text, own in parts]
            completion_ids.append([token for ids, _ in pieces for token in ids] + [tokenizer.eos_token_id])
            env_mask.append([own for ids, own in pieces for _ in ids] + [1])
        return {
            "prompt_ids": [tokenizer.apply_chat_template(p, tokenize=True, return_dict=False) for p in prompts],
            "completion_ids": completion_ids,
            "logprobs": None,
            "env_mask": env_mask,
            "bonus": [0.5 * i for i in range(len(prompts))],
        }

    def reward(completions, bonus, **kwargs):
        return bonus

    trainer = train(policy, dataset, tmp_path, reward=reward, model_args={"rollout_func": rollout_func})
    for rollout, _, total in trainer.rollouts:
        foreign = rollout.batch["completion_mask"].bool() & ~rollout.policy_mask
        assert foreign.any(1).all() and not total[foreign].any()
