"""Public names of a package that are imported when they are first asked for: model libraries take seconds to load."""

import importlib
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any


def lazy_names(
    package: str, names: Mapping[str, Sequence[str]]
) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """
    `__getattr__` and `__dir__` of a package.

    Args:
        package: its `__name__`.
        names: by module, relative to the package, the public names that it holds.
    """

    modules = {name: module for module, held in names.items() for name in held}

    def get(name: str) -> Any:
        if name not in modules:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(importlib.import_module(modules[name], package), name)

    return get, lambda: sorted({*vars(sys.modules[package]), *modules})
