import math

import numpy as np
import pytest
import yaml
from trl import GRPOConfig, TrlParser

from repro_trl import ReinforcePlusPlusConfig, ReproGRPOConfig, ReproPPOConfig


def test_defaults_are_those_of_the_method(tmp_path):
    config = ReproGRPOConfig(str(tmp_path), use_cpu=True, bf16=False)
    assert config.repro_alpha == 0.05
    assert config.repro_stability_weight == 0.1
    assert config.repro_top_k == 10
    assert config.repro_delimiter == "\n\n"
    assert config.repro_think_end == "</think>"
    assert config.repro_answer_column is None
    assert config.repro_answer_template.format(answer="42") == "\\boxed{42}"
    assert config.repro_answer_prefix == "auto"
    assert config.repro_ema_weight is None
    assert (config.repro_scale, config.repro_method) == ("group", "auto")
    assert (config.repro_baseline_score, config.repro_center, config.repro_credit) == ("zero", "group", "to_go")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("repro_alpha", -0.1),
        ("repro_alpha", float("nan")),
        ("repro_alpha", float("inf")),
        ("repro_stability_weight", 1.5),
        ("repro_stability_weight", -0.01),
        ("repro_top_k", 0),
        ("repro_top_k", -3),
        ("repro_top_k", 2.5),
        ("repro_ema_weight", 0.0),
        ("repro_ema_weight", 1.1),
        ("repro_scale", "prompt"),
        ("repro_baseline_score", "none"),
        ("repro_center", "segment"),
        ("repro_credit", "own"),
        ("repro_method", "fast"),
        ("repro_delimiter", ""),
        ("repro_delimiter", "\\n\\n"),
        ("repro_answer_prefix", "\\n</think>\\n\\n"),
        ("repro_answer_column", ""),
        ("repro_alpha", None),
        ("repro_alpha", "0.1"),
        ("repro_alpha", True),
        ("repro_alpha", [0.1]),
        ("repro_stability_weight", None),
        ("repro_stability_weight", "small"),
        ("repro_top_k", True),
        ("repro_top_k", "None"),
        ("repro_top_k", "ten"),
        ("repro_top_k", [10]),
        ("repro_trace_steps", None),
        ("repro_trace_steps", 1.5),
        ("repro_ema_weight", "0.5"),
        ("repro_ema_weight", float("nan")),
        ("repro_scale", None),
        ("repro_scale", ["group"]),
        ("repro_delimiter", None),
        ("repro_delimiter", ["\n\n"]),
        ("repro_delimiter", 2),
        ("repro_think_end", "None"),
        ("repro_think_end", "null"),
        ("repro_think_end", ["/THINK"]),
        ("repro_think_end", 5),
        ("repro_think_end", "\\n</think>"),
        ("repro_answer_prefix", None),
        ("repro_answer_prefix", "null"),
        ("repro_answer_prefix", ["</think>"]),
        ("repro_prefix_candidates", "</think>"),
        ("repro_prefix_candidates", [None]),
        ("repro_answer_column", 3),
        ("repro_answer_column", "None"),
        ("repro_answer_column", ["answer"]),
        ("repro_answer_template", None),
        ("repro_answer_template", ["\\boxed{{{answer}}}"]),
        ("repro_answer_template", "\\n\\n{answer}"),
        ("repro_answer_template", "\\boxed{}"),
        ("repro_answer_template", "the answer"),
        ("repro_answer_template", "\\boxed{{answer}}"),
    ],
)
def test_bad_settings_are_named_with_their_value(tmp_path, name, value):
    with pytest.raises(ValueError) as error:
        ReproGRPOConfig(str(tmp_path), use_cpu=True, bf16=False, **{name: value})
    assert name in str(error.value)
    assert repr(value) in str(error.value)


def test_centring_needs_a_scale(tmp_path):
    with pytest.raises(ValueError, match=r"repro_center='index' with repro_scale='none'"):
        ReproGRPOConfig(str(tmp_path), use_cpu=True, bf16=False, repro_center="index", repro_scale="none")


def test_latex_in_a_prefix_is_no_escaped_line_break(tmp_path):
    assert (
        ReproGRPOConfig(str(tmp_path), use_cpu=True, bf16=False, repro_answer_prefix="\\neq").repro_answer_prefix
        == "\\neq"
    )


def test_empty_think_end_means_none(tmp_path):
    assert ReproGRPOConfig(str(tmp_path), use_cpu=True, bf16=False, repro_think_end="").repro_think_end is None


def test_command_line_and_yaml(tmp_path):
    yaml_file = tmp_path / "config.yaml"
    yaml_file.write_text(
        f"output_dir: {tmp_path}\nuse_cpu: true\nbf16: false\nrepro_top_k: 3\n"
        'repro_answer_prefix: "\\n</think>\\n\\n"\n'
    )
    parser = TrlParser((ReproGRPOConfig,))
    (config,) = parser.parse_args_and_config(["--config", str(yaml_file), "--repro_alpha", "0.2"])
    assert (config.repro_alpha, config.repro_top_k) == (0.2, 3)
    assert config.repro_answer_prefix == "\n</think>\n\n"
    assert "--repro_stability_weight" in parser.format_help()


def test_from_trl_keeps_every_value_and_adds_the_defaults(tmp_path):
    plain = GRPOConfig(
        str(tmp_path), use_cpu=True, bf16=False, learning_rate=3e-4, num_generations=4, generation_batch_size=8
    )
    config = ReproGRPOConfig.from_trl(plain)
    assert isinstance(config, ReproGRPOConfig)
    assert {name: getattr(config, name) for name in vars(plain)} == vars(plain)
    assert config.repro_alpha == 0.05


@pytest.mark.parametrize(
    ("config_class", "name", "value"),
    [
        (ReproPPOConfig, "gamma", None),
        (ReproPPOConfig, "gamma", "1"),
        (ReproPPOConfig, "gamma", 1.5),
        (ReproPPOConfig, "lam", None),
        (ReproPPOConfig, "lam", True),
        (ReproPPOConfig, "num_generations", None),
        (ReproPPOConfig, "num_generations", "8"),
        (ReproPPOConfig, "critic_learning_rate", None),
        (ReproPPOConfig, "critic_learning_rate", math.inf),
        (ReproPPOConfig, "critic_max_grad_norm", "1.0"),
        (ReproPPOConfig, "critic_warmup_steps", None),
        (ReproPPOConfig, "critic_warmup_steps", 0.5),
        (ReproPPOConfig, "cliprange_value", "none"),
        (ReproPPOConfig, "kl_in_reward", None),
        (ReproPPOConfig, "kl_in_reward", "false"),
        (ReproPPOConfig, "bootstrap_truncated", 1),
        (ReproPPOConfig, "value_model_name_or_path", "None"),
        (ReproPPOConfig, "value_model_name_or_path", ["model"]),
        (ReinforcePlusPlusConfig, "use_group_baseline", "yes"),
        (ReinforcePlusPlusConfig, "gamma", [1.0]),
    ],
)
def test_bad_settings_of_the_algorithms_are_named_with_their_value(tmp_path, config_class, name, value):
    with pytest.raises(ValueError) as error:
        config_class(str(tmp_path), use_cpu=True, bf16=False, **{name: value})
    assert f"{name}={value!r}" in str(error.value)


@pytest.mark.parametrize(
    ("line", "remedy"),
    [
        ("repro_think_end: [/THINK]", 'repro_think_end: "[/THINK]"'),
        ("repro_think_end: {think}", 'repro_think_end: "{think}"'),
        ("repro_think_end: None", "null in YAML"),
        ('repro_think_end: "null"', "null in YAML"),
        ("repro_think_end: '\\n</think>'", "double quotes"),
        ("repro_think_end: 5", 'repro_think_end: "5"'),
        ("repro_answer_column: 2024", 'repro_answer_column: "2024"'),
        ("repro_alpha: null", "a number >= 0"),
        ("repro_alpha: true", "a number >= 0"),
        ("repro_alpha: [0.1]", "a number >= 0"),
        ("repro_top_k: 2.5", "'all'"),
        ("repro_delimiter: null", "give a text"),
        ("repro_scale: 5", "'group'"),
    ],
)
def test_slips_in_yaml_are_answered_with_a_remedy(tmp_path, line, remedy):
    (file := tmp_path / "config.yaml").write_text(f"output_dir: {tmp_path}\nuse_cpu: true\nbf16: false\n{line}\n")
    with pytest.raises(ValueError) as error:
        TrlParser((ReproGRPOConfig,)).parse_args_and_config(["--config", str(file)])
    (name, value), *_ = yaml.safe_load(line).items()
    assert f"{name}={value!r}" in str(error.value) and remedy in str(error.value)


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--repro_alpha", "None"], "--repro_alpha"),
        (["--repro_alpha", "nan"], "repro_alpha=nan"),
        (["--repro_ema_weight", "low"], "--repro_ema_weight"),
        (["--repro_think_end", "None"], "repro_think_end='None'"),
        (["--repro_delimiter", "\\n\\n"], "repro_delimiter="),
        (["--repro_top_k", "2.5"], "repro_top_k='2.5'"),
        (["--repro_trace_steps", "often"], "--repro_trace_steps"),
    ],
)
def test_slips_on_the_command_line_are_named(tmp_path, capsys, arguments, named):
    with pytest.raises((ValueError, SystemExit)) as error:
        TrlParser((ReproGRPOConfig,)).parse_args_and_config(["--output_dir", str(tmp_path), *arguments])
    assert named in str(error.value) + capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "yaml_line", "top_k"),
    [
        (["--repro_top_k", "all"], "", None),
        ([], "repro_top_k: null", None),
        ([], "repro_top_k: all", None),
        (["--repro_top_k", "7"], "repro_top_k: all", 7),
        ([], "repro_top_k: 3", 3),
        ([], "repro_top_k: '3'", 3),
    ],
)
def test_top_k_of_all_or_null_keeps_every_start(tmp_path, arguments, yaml_line, top_k):
    (file := tmp_path / "config.yaml").write_text(f"output_dir: {tmp_path}\nuse_cpu: true\nbf16: false\n{yaml_line}\n")
    (config,) = TrlParser((ReproGRPOConfig,)).parse_args_and_config(["--config", str(file), *arguments])
    assert config.repro_top_k == top_k and type(config.repro_top_k) is type(top_k)


def test_numbers_of_numpy_are_numbers(tmp_path):
    options = {"repro_alpha": np.float32(0.5), "repro_top_k": np.int64(3)}
    config = ReproGRPOConfig(str(tmp_path), use_cpu=True, bf16=False, **options)
    assert (config.repro_alpha, config.repro_top_k) == (0.5, 3)


def test_one_generation_is_the_plain_number_afterwards(tmp_path):
    config = ReinforcePlusPlusConfig(
        str(tmp_path), use_cpu=True, bf16=False, num_generations=1, per_device_train_batch_size=3
    )
    assert type(config.num_generations) is int and config.num_generations < 2
    assert config.generation_batch_size == 3
