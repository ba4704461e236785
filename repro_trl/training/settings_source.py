"""
The settings of a training command, read from the source of their dataclasses.

TRL's configs import torch, which takes seconds. Names, types, defaults and help stand in the source: the help page and
the check for unknown names read them there.
"""

import ast
import importlib.util
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path


@dataclass(frozen=True)
class Setting:
    """
    One field of a dataclass that becomes a command-line argument.

    Attributes:
        name: of the field.
        type: its annotation, as written.
        default: the expression of its default, as written, or of the constant that it names; `None` where it has none.
        help: text of its metadata; empty where it has none.
        owner: name of the class that defines it.
    """

    name: str
    type: str
    default: str | None
    help: str
    owner: str


def read_settings(script: str) -> list[Setting]:
    """The settings of a script, a module with a tuple `ARGUMENTS` of dataclasses, in the order of its parser."""
    (names,) = (
        [element.id for element in node.value.elts]
        for node in _tree(script).body
        if isinstance(node, ast.Assign) and [ast.unparse(target) for target in node.targets] == ["ARGUMENTS"]
    )
    return [setting for name in names for setting in read_dataclass(script, name)]


def types_of(settings: Iterable[Setting]) -> dict[str, str]:
    """The annotations of settings, by name, as `check_values` takes them."""
    types = {setting.name: setting.type for setting in settings}
    # Declared as text, but `Trainer.train` takes true for the newest checkpoint.
    return types | {"resume_from_checkpoint": "str | Literal[True, False] | None"}


def read_dataclass(module: str, name: str) -> list[Setting]:
    """
    The fields of a dataclass that `module` defines or imports, those of its base classes first, as
    `dataclasses.fields` has them.
    """
    settings: dict[str, Setting] = {}
    for home, definition in _bases_first(module, name):
        for node in definition.body:
            if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
                setting = _setting(node, home, definition.name)
                if setting is not None:
                    settings[setting.name] = setting
    return list(settings.values())


def _bases_first(module: str, name: str) -> Iterator[tuple[str, ast.ClassDef]]:
    """The class and its base classes with their modules, in the order in which dataclasses collect fields."""
    found = _find(module, name)
    if found is None or not isinstance(found[1], ast.ClassDef):  # such as `object`
        return
    module, definition = found
    for base in reversed(definition.bases):
        if isinstance(base, ast.Name):
            yield from _bases_first(module, base.id)
    yield module, definition


def _find(module: str, name: str) -> tuple[str, ast.ClassDef | ast.Assign] | None:
    """The module that defines a class or a constant, which `module` defines or imports, and the definition."""
    for node in _tree(module).body:
        if isinstance(node, ast.ClassDef) and node.name == name:
            return module, node
        if isinstance(node, ast.Assign) and [ast.unparse(target) for target in node.targets] == [name]:
            return module, node
    for node in ast.walk(_tree(module)):
        # Packages that load lazily, as trl, transformers and this one, import for type checkers.
        if isinstance(node, ast.ImportFrom):
            for alias in node.names:
                if (alias.asname or alias.name) == name:
                    return _find(_imported_module(module, node), alias.name)
    return None


def _imported_module(module: str, node: ast.ImportFrom) -> str:
    package = module if _file(module).name == "__init__.py" else module.rpartition(".")[0]
    return importlib.util.resolve_name("." * node.level + (node.module or ""), package)


@cache
def _tree(module: str) -> ast.Module:
    return ast.parse(_file(module).read_text(encoding="utf-8"))


def _file(module: str) -> Path:
    top, *rest = module.split(".")
    # Of a package at the top this imports nothing; of a module within, it would import the packages around it.
    folder = Path(importlib.util.find_spec(top).origin).parent
    path = folder.joinpath(*rest)
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


def _setting(node: ast.AnnAssign, module: str, owner: str) -> Setting | None:
    kind = ast.unparse(node.annotation).strip("'\"")
    if kind.startswith("ClassVar"):
        return None
    default, metadata = node.value, {}
    if isinstance(default, ast.Call) and ast.unparse(default.func) in ("field", "dataclasses.field"):
        options = {keyword.arg: keyword.value for keyword in default.keywords}
        if "init" in options and not ast.literal_eval(options["init"]):
            return None
        if "metadata" in options:
            keys, values = options["metadata"].keys, options["metadata"].values
            metadata = {ast.literal_eval(key): value for key, value in zip(keys, values, strict=True)}
        default = options.get("default", options.get("default_factory"))
    if isinstance(default, ast.Name) and (found := _find(module, default.id)) and isinstance(found[1], ast.Assign):
        default = found[1].value
    return Setting(
        name=node.target.id,
        type=kind,
        default=None if default is None else ast.unparse(default),
        help=_text(metadata["help"]) if "help" in metadata else "",
        owner=owner,
    )


def _text(node: ast.expr) -> str:
    """A text written as one or several literals; what is computed within stands as its expression."""
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return _text(node.left) + _text(node.right)
    if isinstance(node, ast.JoinedStr):
        return "".join(_text(part) for part in node.values)
    if isinstance(node, ast.Constant):
        return str(node.value)
    return ast.unparse(node)
