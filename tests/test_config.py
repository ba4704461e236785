import pytest
from trl import GRPOConfig, TrlParser

from repro_trl import ReproGRPOConfig


def test_defaults_are_those_of_the_method(tmp_path):
    config = ReproGRPOConfig(str(tmp_path), use_cpu=True, bf16=False)
    assert config.repro_alpha == 0.05
    assert config.repro_stability_weight == 0.1
    assert config.repro_top_k == 10
    assert config.repro_delimiter == "\n\n"
    assert config.repro_think_end == "</think>"
    assert config.repro_answer_column == "solution"
    assert config.repro_answer_template.format(answer="42") == "\\boxed{42}"
    assert config.repro_answer_prefix == ""
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
