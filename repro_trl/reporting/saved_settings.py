"""The settings a run was trained with, read from what it leaves in its folder, without running anything in it."""

import io
import json
import pickle
import zipfile
from pathlib import Path
from typing import Any

ARGUMENTS_FILE = "training_args.bin"
# Written beside the weights: what the model is, and (by the example scripts) which model and dataset were named.
JSON_FILES = {"run.json": "", "config.json": "model.", "adapter_config.json": "adapter."}


class _Opaque:
    """Stands for any class named in a pickle: takes whatever state it is given and does nothing with it."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.arguments = args

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def __setitem__(self, key: Any, value: Any) -> None:
        pass  # an entry of a mapping, an element of a sequence: lost with the class

    def append(self, item: Any) -> None:
        pass


class _InertUnpickler(pickle.Unpickler):
    """Reads a pickle's plain data. No class or function that it names is imported, so a hostile file does nothing."""

    def find_class(self, module: str, name: str) -> type[_Opaque]:
        return type(name, (_Opaque,), {})

    def persistent_load(self, pid: Any) -> None:
        return None  # a tensor


def read_settings(folder: Path) -> tuple[dict[str, Any], list[str]]:
    """
    Settings of a run by name, plain values only: of its training arguments, and of the JSON files beside them; and a
    sentence on each file that is there but cannot be read.

    The name of the arguments' class is the entry `config_class`. A folder without such files gives no settings.
    """
    settings: dict[str, Any] = {}
    broken = []
    for file_name, prefix in JSON_FILES.items():
        file = folder / file_name
        if file.is_file():
            try:
                values = json.loads(file.read_text(encoding="utf-8"))
                settings |= {f"{prefix}{key}": value for key, value in values.items()}
            except (ValueError, AttributeError, RecursionError, OSError) as error:
                broken.append(f"{file_name} cannot be read as a JSON object ({type(error).__name__})")
    file = folder / ARGUMENTS_FILE
    if file.is_file():
        try:
            arguments = _read_arguments(file)
        except ValueError as error:
            return settings, [*broken, str(error)]
        settings["config_class"] = type(arguments).__name__
        for name, value in arguments.state.items():
            value = _plain(value)
            if not name.startswith("_") and value is not _UNREADABLE:
                settings[name] = value
    return settings, broken


def _read_arguments(file: Path) -> _Opaque:
    try:
        with zipfile.ZipFile(file) as archive:
            (member,) = (name for name in archive.namelist() if name.endswith("/data.pkl"))
            arguments = _InertUnpickler(io.BytesIO(archive.read(member))).load()
    # A pickle is a program; a broken one may fail in any way.
    except Exception as error:
        raise ValueError(f"{file.name} cannot be read as saved training arguments ({error})") from error
    if not isinstance(arguments, _Opaque) or not isinstance(getattr(arguments, "state", None), dict):
        raise ValueError(f"{file.name} has no training arguments")
    return arguments


_UNREADABLE = object()


def _plain(value: Any) -> Any:
    """`value` if it is made of plain data alone; the text of an enum's member; otherwise `_UNREADABLE`."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, list | tuple):
        items = [_plain(item) for item in value]
        return _UNREADABLE if _UNREADABLE in items else items
    if isinstance(value, dict):
        items = {str(key): _plain(item) for key, item in value.items()}
        return {key: item for key, item in items.items() if item is not _UNREADABLE}
    # An enum's member is pickled as its class called with its value.
    if isinstance(value, _Opaque) and len(value.__dict__.get("arguments", ())) == 1:
        return _plain(value.arguments[0])
    return _UNREADABLE
