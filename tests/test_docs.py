"""Every code block of README and docs runs or says why not; what the docs list is what the code has."""

import dataclasses
import importlib.util
import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml
from pocket.make import MODEL_DIR
from tiny_policy import save_tiny_policy
from tiny_runs import token_reward, trl_settings
from trl import GRPOConfig

import repro_trl
from repro_trl import ReproConfigMixin, ReproPPOConfig, ReproPPOTrainer
from repro_trl.demo import task
from repro_trl.recipe import RECIPE
from repro_trl.reporting.completions import completions_files, read_completions
from repro_trl.training.command import read_request

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))]

# Languages of blocks that hold no program.
NO_PROGRAM = {"diff", "text", "bibtex"}

# Names of models in the docs stand for the bundled one.
MODELS = ("Qwen/Qwen3-1.7B", "my-sft-model", "my-reward-model")
SMALL_SCRIPT = (
    "--max_steps 2 --per_device_train_batch_size 16 --num_eval_problems 8 --per_device_eval_batch_size 8 "
    "--max_completion_length 40 --use_cpu true --disable_tqdm true"
)
SMALL_CONFIG = {
    "max_steps": 1,
    "per_device_train_batch_size": 4,
    "num_generations": 2,
    "max_completion_length": 16,
    "use_cpu": True,
    "bf16": False,
    "gradient_checkpointing": False,
    "disable_tqdm": True,
    "report_to": "none",
}


@dataclass(frozen=True)
class Block:
    page: Path
    language: str
    text: str
    remark: str

    @property
    def reason(self) -> str | None:
        """Why it is not run by these tests."""
        if self.remark.startswith("skip, "):
            return self.remark.removeprefix("skip, ")
        if self.remark in ("train", "test"):
            return "the CI job runs it"
        return None


def read_blocks(page: Path) -> list[Block]:
    pattern = re.compile(r"(?:^<!-- (?:test|ci): (.+?) -->\n)?^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
    return [Block(page, m[2], m[3], m[1] or "") for m in pattern.finditer(page.read_text(encoding="utf-8"))]


BLOCKS = [block for page in PAGES for block in read_blocks(page)]


def pages_with(language: str) -> list:
    runnable = {b.page: b for b in BLOCKS if b.language == language and b.reason is None}
    return [pytest.param(page, id=page.relative_to(ROOT).as_posix()) for page in runnable]


def test_every_block_is_of_a_known_kind():
    assert BLOCKS
    for block in BLOCKS:
        where = f"{block.page.name}: {block.text[:60]!r}"
        assert block.language in {"python", "bash", "yaml", "json", *NO_PROGRAM}, where
        assert block.remark in ("", "train", "test") or re.fullmatch(r"skip, .{8,}", block.remark), where


@pytest.mark.parametrize("page", pages_with("python"))
def test_python_blocks_run(page, tmp_path, monkeypatch):
    """The blocks of a page in their order, in one namespace, with small settings and the bundled model."""
    run_python_blocks(page, tmp_path, monkeypatch)


def run_python_blocks(page, tmp_path, monkeypatch):
    original = GRPOConfig.__post_init__

    def with_small_settings(self):
        for name, value in SMALL_CONFIG.items():
            setattr(self, name, value)
        original(self)

    monkeypatch.setattr(GRPOConfig, "__post_init__", with_small_settings)
    monkeypatch.chdir(tmp_path)
    namespace = {"dataset": task.train_dataset(size=8), "__name__": "docs"}
    for block in BLOCKS:
        if block.page == page and block.language == "python" and block.reason is None:
            text = block.text
            for name in MODELS:
                text = text.replace(name, str(MODEL_DIR))
            exec(compile(text, f"{page.name}: {block.text[:40]}", "exec"), namespace)
    return namespace


def test_the_worked_example_gives_the_numbers_on_its_page(tmp_path, monkeypatch):
    page = DOCS / "method.md"
    values = run_python_blocks(page, tmp_path, monkeypatch)
    comments = " ".join(re.findall(r"# (.*)", next(b.text for b in BLOCKS if b.page == page)))
    stated = [float(number) for number in re.findall(r"-?\d\.\d{3}", comments)]
    computed = [
        *values["magnitude"][0].tolist(),
        *values["stability"][0, 1:].tolist(),
        *values["rewards"][values["is_segment"]].tolist(),
        *values["normalized"][values["is_segment"]].tolist(),
        *values["advantages"][0, [0, 3, 5, 6]].tolist(),
    ]
    assert stated == pytest.approx(computed, abs=5e-4)


@pytest.mark.slow
@pytest.mark.parametrize("page", pages_with("bash"))
def test_bash_blocks_run(page, tmp_path):
    """The blocks of a page in their order, in one folder, where `accelerate launch` makes a short run."""
    for name in ("examples", "accelerate_configs"):
        (tmp_path / name).symlink_to(ROOT / name)
    programs = tmp_path / "bin"
    programs.mkdir()
    for name, line in {
        "accelerate": f'shift; exec "{sys.executable}" "$@" {SMALL_SCRIPT}',
        "repro-trl": f'case "$1" in grpo|ppo|reinforce-pp) set -- "$@" {SMALL_SCRIPT};; esac\n'
        f'exec "{sys.executable}" -m repro_trl "$@"',
    }.items():
        (programs / name).write_text(f"#!/usr/bin/env bash\n{line}\n")
        (programs / name).chmod(0o755)
    environment = os.environ | {"PATH": f"{programs}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT)}
    for block in BLOCKS:
        if block.page == page and block.language == "bash" and block.reason is None:
            result = subprocess.run(
                ["bash", "-euo", "pipefail", "-c", block.text],
                cwd=tmp_path,
                env=environment,
                capture_output=True,
                text=True,
                timeout=900,
            )
            assert result.returncode == 0, f"{block.text}\n{result.stdout[-2000:]}\n{result.stderr[-4000:]}"


@pytest.mark.parametrize("block", [b for b in BLOCKS if b.language in ("yaml", "json")], ids=lambda b: b.text[:30])
def test_data_blocks_are_read(block, tmp_path):
    if block.language == "json":
        assert json.loads(block.text)
    else:
        file = tmp_path / "run.yaml"
        file.write_text(block.text)
        assert read_request("grpo", ["--config", str(file)]).config == yaml.safe_load(block.text)


# ------------------------------------------------------------------------------------------------ what the docs list


@pytest.fixture(scope="module")
def hooks():
    spec = importlib.util.spec_from_file_location("docs_hooks", DOCS / "hooks.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_setting_is_listed(hooks):
    page = hooks.on_page_markdown((DOCS / "settings.md").read_text(encoding="utf-8"))
    trl = {field.name for field in dataclasses.fields(GRPOConfig)}
    configs = [getattr(repro_trl, name) for name in repro_trl.__all__ if "Config" in name]
    names = {f.name for config in configs for f in dataclasses.fields(config)} - trl
    listed = re.findall(r"^\| `(\w+)` \| `.+?` \| \S", page, re.MULTILINE)
    assert sorted(listed) == sorted(names) and names >= {f.name for f in dataclasses.fields(ReproConfigMixin)}
    assert "`0.05`" in page and "`'\\n\\n'`" in page  # defaults as in code


def test_markers_are_filled(hooks):
    for page in PAGES[1:]:
        text = hooks.on_page_markdown(page.read_text(encoding="utf-8"))
        assert "<!-- fill" not in text, page
    filled = hooks.on_page_markdown((DOCS / "report.md").read_text(encoding="utf-8"))
    assert "| wait | wait, hold on" in filled and "--backtracks FILE" in filled and "reward hacking" in filled


def listed_names(page: Path) -> set[str]:
    rows = re.findall(r"^\| ([^|]+) \|", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {name for row in rows for name in re.findall(r"`([^`]+)`", row)}


def test_every_metric_is_listed_and_no_other(tmp_path):
    """PPO with a KL penalty logs all there are but those of the example scripts."""
    policy = save_tiny_policy(tmp_path / "policy")
    args = trl_settings(tmp_path / "out", beta=0.1, num_generations=2, max_steps=1, log_completions=True)
    trainer = ReproPPOTrainer(
        model=str(policy),
        reward_funcs=token_reward,
        args=ReproPPOConfig(**args, num_completions_to_print=0, repro_alpha=0.1),
        train_dataset=task.train_dataset(size=8),
    )
    trainer.train()
    logged = {key for entry in trainer.state.log_history for key in entry}
    own = {key for key in logged if key.startswith(("repro/", "critic/", "kl"))}
    (file,) = completions_files(tmp_path / "out").values()
    columns = {name for name in read_completions(file).column_names if name.startswith("repro_")}
    example = {"thinking_tokens", "backtracks"}
    assert listed_names(DOCS / "metrics.md") == own | columns | example
    script = (ROOT / "repro_trl" / "training" / "reward.py").read_text(encoding="utf-8")
    assert set(re.findall(r'log_metric\("(\w+)"', script)) == example


def test_readme_lists_what_users_set_with_its_default():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| `(repro_\w+)` \| (.+?) \|", readme, re.MULTILINE))
    shown = ("alpha", "stability_weight", "top_k", "delimiter", "think_end", "answer_column", "answer_prefix")
    assert list(rows) == [f"repro_{name}" for name in (*shown, "trace_steps")]
    defaults = {field.name: field.default for field in dataclasses.fields(ReproConfigMixin)}
    for name, shown_default in rows.items():
        default = json.dumps(defaults[name]) if isinstance(defaults[name], str) else repr(defaults[name])
        assert shown_default.strip("`").strip('"') == default.strip('"'), name


@pytest.mark.parametrize("page", ["README.md", "docs/quickstart.md"])
def test_the_recipe_is_the_same_in_yaml_and_in_python(page):
    text = (ROOT / page).read_text(encoding="utf-8")
    assert yaml.safe_load(re.search(r"```yaml\n(.*?)```", text, re.DOTALL)[1]) == RECIPE
    block = re.search(r"recipe = ReproGRPOConfig\((.*?)\n\)", text, re.DOTALL)[1]
    for name, value in RECIPE.items():
        assert f"{name}={json.dumps(value) if isinstance(value, str) else value}" in block, name


def test_the_page_on_differences_sets_the_forms_side_by_side():
    page = (DOCS / "differences.md").read_text(encoding="utf-8")
    cell = r"`?(.+?)`?(?: \(all\))? \|"
    rows = re.findall(rf"^\| `(repro_\w+)` \| {cell} {cell} {cell}$", page, re.MULTILINE)
    defaults = {field.name: field.default for field in dataclasses.fields(ReproConfigMixin)}
    shown = {name: (json.dumps(v) if isinstance(v, str) else str(v)) for name, v in (defaults | RECIPE).items()}
    assert {name: recipe for name, *_, recipe in rows} == {name: shown[name] for name in RECIPE}
    assert all(yaml.safe_load(default) == defaults[name] for name, _, default, _ in rows)
    papers = {name: yaml.safe_load(paper) for name, paper, *_ in rows}
    assert papers == {name: defaults[name] for name in RECIPE} | {"repro_answer_prefix": ""}


def test_the_shipped_recipe_configs_have_the_recipe():
    configs = list((ROOT / "examples" / "configs").glob("*_recipe.yaml"))
    assert len(configs) == 2
    for config in configs:
        shipped = yaml.safe_load(config.read_text(encoding="utf-8"))
        assert {name: shipped[name] for name in RECIPE} == RECIPE, config


def test_readme_is_short():
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) < 180
