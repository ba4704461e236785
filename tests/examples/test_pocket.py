import filecmp
import json
import random
from pathlib import Path

import pytest
import torch
from pocket.evaluate import Evaluation, evaluate, format_table
from pocket.make import HEAD_DIM, MODEL_DIR, make, make_model, make_tokenizer, widen_heads
from pocket.traces import (
    DELIMITER,
    THINK_END,
    TraceStyle,
    accuracy_reward,
    is_correct,
    label_segments,
    make_trace,
)
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

from repro_trl.demo import task
from repro_trl.rewards import make_answer_reward

PROBLEM = task.Problem(("3+4", "9-4"))


@pytest.fixture(scope="module")
def tokenizer():
    return AutoTokenizer.from_pretrained(MODEL_DIR)


@pytest.fixture(scope="module")
def model():
    return AutoModelForCausalLM.from_pretrained(MODEL_DIR)


def traces(count: int, style: TraceStyle, seed: int = 0) -> list[tuple[task.Problem, list[str], str]]:
    rng = random.Random(seed)
    return [
        (problem, *make_trace(problem, rng, style))
        for problem, _ in zip(task.problems(seed, held_out=False), range(count), strict=False)
    ]


def test_the_tokenizer_gives_every_text_back(tokenizer):
    texts = [problem.text + "".join(segments) + ending for problem, segments, ending in traces(300, TraceStyle())]
    texts += ["", " ", "\n\n\n", " a  b ", "Zwölf 漢字 👍\t</think> \\boxed{07}\n\n", "A: 3+4 =7", "<think></think>\n"]
    assert tokenizer.batch_decode(tokenizer(texts, add_special_tokens=False)["input_ids"]) == texts


def test_digits_delimiter_and_marker_are_one_token_each(tokenizer):
    for text in [*"0123456789", DELIMITER, THINK_END, "\\boxed{", "}"]:
        assert len(tokenizer(text, add_special_tokens=False)["input_ids"]) == 1, text
    ids = tokenizer("\\boxed{70412}", add_special_tokens=False)["input_ids"]
    assert [tokenizer.decode([token]) for token in ids] == ["\\boxed{", *"70412", "}"]
    # Decoding for reward functions drops special tokens; the marker must survive that.
    assert tokenizer.decode(tokenizer("x</think>y")["input_ids"], skip_special_tokens=True) == "x</think>y"


def test_the_committed_tokenizer_is_what_the_script_makes(tmp_path):
    make_tokenizer().save_pretrained(tmp_path)
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        assert filecmp.cmp(tmp_path / name, MODEL_DIR / name, shallow=False), name


def test_the_chat_template_opens_the_thought(tokenizer):
    prompt = task.train_dataset(1)[0]["prompt"]
    text = tokenizer.apply_chat_template(prompt, add_generation_prompt=True, tokenize=False)
    content = prompt[0]["content"]
    assert text == f"<|im_start|>user\n{content}<|im_end|>\n<|im_start|>assistant\n<think>\n"


def test_problems_are_sums_with_one_digit_each():
    for problem, _ in zip(task.problems(3, held_out=False), range(500), strict=False):
        results = [eval(item) for item in problem.items]  # "3+4": digits and signs only
        assert task.MIN_ITEMS <= len(results) <= task.MAX_ITEMS
        assert 1 <= results[0] <= 9 and all(0 <= result <= 9 for result in results)
        assert problem.answer == "".join(map(str, results))
    assert PROBLEM.text == "Find the digits. A: 3+4 ; B: 9-4" and PROBLEM.answer == "75"


def test_one_seed_gives_one_dataset():
    assert task.train_dataset(20, seed=5).to_list() == task.train_dataset(20, seed=5).to_list()
    assert task.train_dataset(20, seed=5).to_list() != task.train_dataset(20, seed=6).to_list()


def test_training_and_held_out_problems_are_disjoint():
    train = {row["prompt"][0]["content"] for row in task.train_dataset(4096, seed=0)}
    held_out = {row["prompt"][0]["content"] for row in task.eval_dataset(512, seed=0)}
    assert not train & held_out
    warm_up = {problem.text for problem, *_ in traces(2000, TraceStyle())}
    assert not warm_up & held_out


def test_labels_of_a_hand_made_thought():
    segments = {
        "A: 3+4 = 7\n\n": "step",
        "Wait, check A: 3+4 = 7\n\n": "recheck",
        "So far so good.\n\n": "filler",
        "B: 9-4 = 2\n\n": "wrong",
        "Let me check B: 9-4 = 3\n\n": "wrong",
        "Check again, B: 9-4 = 5\n\n": "fix",
        "No, start over.\n\n": "restart",
        "A: 3+4 = 1\n\n": "wrong",
        "C: 1+1 = 2\n\n": "filler",  # the problem has no C
    }
    assert label_segments(PROBLEM, list(segments)) == list(segments.values())


def test_the_generators_style_shows_in_the_labels():
    faultless = TraceStyle(clean_slip=0, slip=0, recheck_slip=0, early=0)
    for problem, segments, ending in traces(200, faultless):
        labels = label_segments(problem, segments)
        assert "wrong" not in labels and "fix" not in labels
        assert labels.count("step") == len(problem.items)
        assert ending == f"</think>\n\n\\boxed{{{problem.answer}}}"
    for problem, segments, _ in traces(50, TraceStyle(clean=1, clean_slip=0, early=0)):
        assert label_segments(problem, segments) == ["step"] * len(problem.items)
    seen = {label for problem, segments, _ in traces(300, TraceStyle()) for label in label_segments(problem, segments)}
    assert seen == {"step", "wrong", "recheck", "fix", "filler", "restart"}


def test_an_answer_repeats_the_last_results_and_is_verified_against_them():
    for problem, segments, ending in traces(300, TraceStyle(early=0)):
        last = {}
        for segment in segments:
            for index, letter in enumerate(task.LETTERS[: len(problem.items)]):
                if f"{letter}: " in segment:
                    last[index] = segment.strip()[-1]
        answer = "".join(last[index] for index in range(len(problem.items)))
        assert ending.endswith(f"\\boxed{{{answer}}}")
        completion = "".join(segments) + ending
        assert is_correct(completion, f"\\boxed{{{problem.answer}}}") == (answer == problem.answer)


def test_thoughts_broken_off_early_are_answered_in_both_ways():
    rows = traces(200, TraceStyle(early=1))
    closed = sum(ending.startswith(THINK_END) for *_, ending in rows)
    assert 60 < closed < 140
    assert all(len(ending.split("{")[1].rstrip("}")) == len(problem.items) for problem, _, ending in rows)


def test_overthinking_is_about_neutral_for_accuracy():
    def accuracy(style: TraceStyle) -> float:
        rows = traces(3000, style)
        return sum(is_correct(ending, f"\\boxed{{{problem.answer}}}") for problem, _, ending in rows) / len(rows)

    assert abs(accuracy(TraceStyle(clean=1)) - accuracy(TraceStyle(clean=0))) < 0.08


@pytest.mark.parametrize(
    ("completion", "right"),
    [
        ("x</think>\n\n\\boxed{75}", 1.0),
        ("\\boxed{75} \\boxed{57}", 0.0),
        ("\\boxed{57} \\boxed{75}", 1.0),
        ("75", 0.0),
    ],
)
def test_the_reward_reads_the_last_box(completion, right):
    assert accuracy_reward([completion], [r"\boxed{75}"]) == [right]
    assert accuracy_reward([[{"role": "assistant", "content": completion}]], [r"\boxed{75}"]) == [right]


def test_the_packages_math_reward_agrees_with_the_tasks_own():
    rows = traces(150, TraceStyle())
    completions = [[{"role": "assistant", "content": "".join(segments) + ending}] for _, segments, ending in rows]
    solutions = [f"\\boxed{{{problem.answer}}}" for problem, *_ in rows]
    verdicts = make_answer_reward("solution", THINK_END)(completions=completions, solution=solutions)
    own = accuracy_reward(completions, solutions)
    assert verdicts == own and 0 < sum(own) < len(own)


class Parrot(torch.nn.Module):
    """Stands in for a model: `generate` gives fixed completions in turn."""

    def __init__(self, tokenizer, completions: list[str]):
        super().__init__()
        self.tokenizer, self.completions, self.device = tokenizer, completions, torch.device("cpu")
        self.generation_config = GenerationConfig(eos_token_id=tokenizer.eos_token_id)

    def generate(self, input_ids, generation_config, **kwargs):
        rows, self.completions = self.completions[: len(input_ids)], self.completions[len(input_ids) :]
        ids = self.tokenizer(rows, add_special_tokens=False, padding=True, padding_side="right", return_tensors="pt")
        return torch.cat([input_ids, ids["input_ids"][:, : generation_config.max_new_tokens]], dim=1)


def test_evaluate_counts_what_hand_made_completions_hold(tokenizer):
    dataset = task.eval_dataset(3)
    right = dataset[0]["solution"]
    completions = [
        f"A: 3+4 = 7\n\nWait, let me check A: 3+4 = 7\n\nNo, start over.\n\n</think>\n\n{right}<|im_end|>",
        "A: 3+4 = 7\n\n</think>\n\nWait, \\boxed{x}<|im_end|>",
        "Hmm.\n\n" * 10,
    ]
    thoughts = [
        "A: 3+4 = 7\n\nWait, let me check A: 3+4 = 7\n\nNo, start over.\n\n",
        "A: 3+4 = 7\n\n",
        "Hmm.\n\n" * 10,
    ]
    lengths = [len(tokenizer(text, add_special_tokens=False)["input_ids"]) for text in thoughts]
    result = evaluate(Parrot(tokenizer, completions), tokenizer, dataset, batch_size=2)
    assert result == Evaluation(accuracy=1 / 3, thinking_tokens=sum(lengths) / 3, backtracks=2 / 3, truncated=1 / 3)
    assert lengths[1:] == [7, 20]


def test_evaluate_leaves_the_random_state_and_the_mode_alone(model, tokenizer):
    torch.manual_seed(1)
    before = torch.get_rng_state()
    model.train()
    first = evaluate(model, tokenizer, task.eval_dataset(8), max_new_tokens=8)
    assert torch.equal(torch.get_rng_state(), before) and model.training
    assert evaluate(model, tokenizer, task.eval_dataset(8), max_new_tokens=8) == first
    model.eval()


def test_the_starting_policy_is_mediocre_and_verbose(model, tokenizer):
    assert model.num_parameters() <= 1_000_000
    assert model.config.head_dim == HEAD_DIM == 32  # vLLM's CPU attention refuses smaller heads
    assert sum(path.stat().st_size for path in Path(MODEL_DIR).iterdir()) < 2_000_000
    held_out = task.eval_dataset(128, seed=7)
    start = evaluate(model, tokenizer, held_out)
    items = [row["prompt"][0]["content"].count(":") for row in held_out]
    clean_tokens = 7 * sum(items) / len(items)
    assert 0.3 < start.accuracy < 0.6
    assert 1.4 < start.thinking_tokens / clean_tokens < 2.5
    assert 1.2 < start.backtracks < 2.6
    assert start.truncated < 0.03


def test_the_table_has_a_line_for_each_evaluation():
    lines = format_table(
        {"before": Evaluation(0.5, 45.25, 1.9, 0.0), "after": Evaluation(0.75, 25, 0, 0)}
    ).splitlines()
    assert lines[0].split() == ["accuracy", "thinking", "tokens", "backtracks", "truncated"]
    assert [line.split() for line in lines[1:]] == [
        ["before", "0.500", "45.2", "1.90", "0.000"],
        ["after", "0.750", "25.0", "0.00", "0.000"],
    ]


@pytest.fixture
def restored_torch():
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(False)


def test_wider_heads_are_the_same_function(tokenizer):
    torch.manual_seed(0)
    narrow = make_model(tokenizer).eval()
    for name, parameter in narrow.named_parameters():
        if name.endswith(("proj.weight", "norm.weight")):
            parameter.data += 0.3 * torch.randn_like(parameter)
    ids = torch.randint(3, len(tokenizer), (2, 300))
    with torch.no_grad():
        expected = narrow(ids).logits
        for head_dim in (32, 64):
            wide = widen_heads(narrow, head_dim)
            assert wide.config.head_dim == head_dim and narrow.config.head_dim == 24
            assert wide.model.layers[0].self_attn.q_proj.out_features == 4 * head_dim
            torch.testing.assert_close(wide(ids).logits, expected, atol=1e-3, rtol=1e-3)


def test_two_short_runs_of_the_script_give_the_same_bytes(tmp_path, restored_torch):
    random.seed(1)
    make(tmp_path / "a", 2, 2)
    torch.rand(3)
    random.seed(2)
    make(tmp_path / "b", 2, 2)
    names = sorted(path.name for path in (tmp_path / "a").iterdir())
    assert names == sorted(path.name for path in MODEL_DIR.iterdir())
    assert filecmp.cmpfiles(tmp_path / "a", tmp_path / "b", names, shallow=False)[0] == names
    made, bundled = (json.loads((folder / "config.json").read_text()) for folder in (tmp_path / "a", MODEL_DIR))
    assert {**made, "transformers_version": bundled["transformers_version"]} == bundled
    assert not filecmp.cmp(tmp_path / "a" / "model.safetensors", MODEL_DIR / "model.safetensors", shallow=False)
