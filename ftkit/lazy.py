"""Public names of a package, imported when they are first used: importing the package itself loads no torch."""

from collections.abc import Callable
from importlib import import_module
from typing import Any


def names(package: str, homes: dict[str, str]) -> tuple[Callable[[str], Any], Callable[[], list[str]], list[str]]:
    """`__getattr__`, `__dir__` and `__all__` of `package` (PEP 562); `homes` is public name to the module it is in."""

    def get(name: str) -> Any:
        if name in homes:
            return getattr(import_module(homes[name]), name)
        raise AttributeError(f"module {package!r} has no attribute {name!r}")

    return get, lambda: sorted(homes), [*homes]
