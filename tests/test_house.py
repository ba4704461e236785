"""The rooms of the package, and who may enter which: docs/architecture.md says why."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import repro_trl
import repro_trl.method

PACKAGE = Path(repro_trl.__file__).parent
COMMANDS = ("evaluation", "reporting", "viewing")
ROOMS = ("method", "trainers", "training", "demo", *COMMANDS)
DATA = ("accelerate_configs",)
# Room: what it may not import. A name is a room, a module beside the rooms, or another package.
FORBIDDEN = {
    "method": {"trl", "datasets", "trainers", "training", "demo", *COMMANDS},
    "trainers": {"training", "demo", *COMMANDS},
    "demo": {"trl", "trainers", "training", *COMMANDS},
    **{command: {"trainers", "training", *(other for other in COMMANDS if other != command)} for command in COMMANDS},
    "": {"trl", "method.objective", "trainers", "training", "demo", *COMMANDS},  # modules beside the rooms
}
# The front doors: they name modules of rooms, and load what is asked for.
DOORS = {"__init__.py", "__main__.py", "cli.py"}


def imports_of(file: Path) -> list[tuple[int, str, str]]:
    """Line, module and name of each import, those of this package without its name."""
    package = ["repro_trl", *file.relative_to(PACKAGE).parent.parts]
    found = []
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found += [(node.lineno, alias.name, "") for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *filter(None, [node.module])])
            found += [(node.lineno, module, alias.name) for alias in node.names]
    return [(line, module.removeprefix("repro_trl.").removeprefix("repro_trl"), name) for line, module, name in found]


def room_of(file: Path) -> str:
    parts = file.relative_to(PACKAGE).parts
    return parts[0] if len(parts) > 1 else ""


FILES = sorted(file for file in PACKAGE.rglob("*.py") if not (room_of(file) == "" and file.name in DOORS))


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(PACKAGE)))
def test_no_room_imports_what_it_may_not(file):
    forbidden = FORBIDDEN.get(room_of(file), set())
    wrong = [
        f"line {line}: {module} {name}"
        for line, module, name in imports_of(file)
        for path in (f"{module}.{name}".strip("."),)
        if any(path == room or path.startswith(f"{room}.") for room in forbidden)
    ]
    assert not wrong, wrong


def test_the_training_room_uses_commands_by_their_front_door_only():
    inside = [
        f"{file.name}, line {line}: {module}"
        for file in (PACKAGE / "training").glob("*.py")
        for line, module, name in imports_of(file)
        if module.split(".")[0] in COMMANDS and "." in module
    ]
    assert not inside, inside


def test_every_folder_is_a_known_room():
    folders = {path.name for path in PACKAGE.iterdir() if path.is_dir() and path.name != "__pycache__"}
    assert folders == {*ROOMS, *DATA}


def test_no_file_is_longer_than_400_lines():
    root = PACKAGE.parent
    folders = ("repro_trl", "examples", "study", "benchmarks", "tests")
    files = [file for folder in folders for file in (root / folder).rglob("*.py")]
    long = {str(f.relative_to(root)): n for f in files if (n := len(f.read_text(encoding="utf-8").splitlines())) > 400}
    assert not long, long


def modules_after(statement: str) -> set[str]:
    code = f"{statement}\nimport sys\nprint(*sys.modules, sep='\\n')"
    return set(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split())


def test_importing_the_package_loads_no_model_library():
    loaded = modules_after("import repro_trl, repro_trl.method, repro_trl.config, repro_trl.cli")
    assert not loaded & {"torch", "transformers", "trl", "datasets", "repro_trl.trainers.hook"}


def test_the_method_loads_no_trainer():
    names = "answer_log_probs, find_segment_starts, magnitude_score, normalize_rewards, process_rewards"
    loaded = modules_after(f"from repro_trl.method import {names}, reward_to_go, segment_credit, select_boundaries")
    assert "torch" in loaded and not loaded & {"trl", "datasets", "repro_trl.trainers"}


def test_every_public_name_is_there():
    for module in (repro_trl, repro_trl.method):
        assert all(getattr(module, name) is not None for name in module.__all__)
        assert set(module.__all__) <= set(dir(module))
        with pytest.raises(AttributeError, match="no_such_name"):
            module.no_such_name  # noqa: B018
