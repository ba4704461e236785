"""Models by name or folder: what changes their digest, and what is said of those that cannot be loaded."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_policy import save_tiny_policy

from repro_trl import models
from repro_trl.models import load_model, load_tokenizer, model_files


@pytest.fixture(scope="module")
def policy(tmp_path_factory):
    return tmp_path_factory.mktemp("models") / "policy"


@pytest.fixture
def model(policy, tmp_path):
    if not policy.exists():
        save_tiny_policy(policy)
    shutil.copytree(policy, tmp_path / "model")
    return tmp_path / "model"


@pytest.mark.parametrize(
    "name",
    [
        *("config.json", "generation_config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"),
        *("chat_template.jinja", "tokenizer.model", "merges.txt", "vocab.txt", "modeling_own.py", "own/layers.py"),
        *("additional_chat_templates/tool.jinja", "adapter_model.safetensors", "pytorch_model.bin", "qwen.tiktoken"),
    ],
)
def test_all_that_decides_what_a_model_says_changes_its_digest(model, name):
    file = model / name
    file.parent.mkdir(exist_ok=True)
    if not file.exists():
        file.write_bytes(bytes(100))
    before = model_files(str(model))
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1  # size, beginning and end stay
    file.write_bytes(bytes(data))
    after = model_files(str(model))
    assert [part for part in before if before[part] != after[part]] == [name] and before.keys() == after.keys()


def test_what_a_trainer_leaves_does_not(model):
    before = model_files(str(model))
    for name in ("trainer_state.json", "training_args.bin", "optimizer.pt", "rng_state_0.pth", "README.md"):
        (model / name).write_text("{}")
    (model / "checkpoint-5").mkdir()
    (model / "checkpoint-5" / "model.safetensors").write_text("")
    assert model_files(str(model)) == before


def test_the_model_beneath_an_adapter_counts(model, tmp_path):
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    (adapter / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": str(model)}))
    before = model_files(str(adapter))
    assert {"adapter_config.json", "base/model.safetensors"} <= before.keys()
    (model / "config.json").write_text((model / "config.json").read_text() + " ")
    assert model_files(str(adapter)) != before
    (adapter / "adapter_config.json").write_text("{}")
    with pytest.raises(ValueError, match="names no base model"):
        model_files(str(adapter))


def test_a_model_on_the_hub_is_its_commit(monkeypatch):
    asked = []

    def snapshot(name, revision, allow_patterns):
        asked.append((name, revision))
        return f"/cache/models--{name}/snapshots/0123abc"

    monkeypatch.setattr(models, "snapshot_download", snapshot)
    assert model_files("Qwen/Qwen3-1.7B", "main") == {"commit": "0123abc"} and asked == [("Qwen/Qwen3-1.7B", "main")]


@pytest.mark.parametrize("name", ["/nowhere", "./nowhere", "../nowhere", "no/where/else", "no/where/else/"])
def test_a_folder_that_is_not_there(name):
    for load in (load_model, load_tokenizer, model_files):
        with pytest.raises(ValueError, match=r"model='.*' cannot be loaded: there is no such folder\."):
            load(name)


def test_a_file_is_no_model(model):
    with pytest.raises(ValueError, match="is a file; give the folder"):
        load_model(str(model / "config.json"))


@pytest.mark.parametrize("dtype", ["float", "flaot32", "int8", "nn", "float8_e4m3fn", ""])
def test_a_dtype_that_is_none(model, dtype):
    if dtype == "float":  # torch's other name of float32
        assert load_model(str(model), dtype=dtype).dtype is torch.float32
        return
    with pytest.raises(ValueError, match=f"dtype='{dtype}': give auto"):
        load_model(str(model), dtype=dtype)


def test_a_device_that_is_none(model):
    with pytest.raises(ValueError, match="device='gpu'"):
        load_model(str(model), device="gpu")


def test_weights_that_are_not_there_are_not_made_up(model):
    weights = load_file(model / "model.safetensors")
    gone = next(name for name in weights if "mlp" in name)
    del weights[gone]
    save_file(weights, model / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match=f"1 weights are not in its files, such as {gone}"):
        load_model(str(model))
