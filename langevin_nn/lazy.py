"""Packages whose names are loaded when they are first used, so that one pays only for what one takes (PEP 562)."""

from __future__ import annotations

import ast
import sys
from collections.abc import Callable, Mapping
from importlib import import_module
from types import MappingProxyType
from typing import Any

from langevin_nn.former import found_elsewhere

__all__ = ["lazily"]


def lazily(
    package: str, former: Mapping[str, str] = MappingProxyType({})
) -> tuple[Callable[[str], Any], Callable[[], list[str]], list[str]]:
    """Return ``__getattr__``, ``__dir__`` and ``__all__`` of a package.

    What it has is what type checkers see: the imports under ``if TYPE_CHECKING:`` in its own ``__init__.py``, which are read
    here rather than run, so that nothing is listed twice.

    Parameters
    ----------
    package : str
        Its name.
    former : mapping of str to str, optional
        Names that have moved: the homes of `langevin_nn.former.found_elsewhere`.

    Returns
    -------
    tuple of two callables and list of str
        A name is looked up once: what it names then lies in the package.
    """
    module = sys.modules[package]
    source = module.__spec__.loader.get_source(package)  # type: ignore[union-attr]
    home_of: dict[str, str] = {}
    for block in ast.parse(source).body:
        if isinstance(block, ast.If) and ast.unparse(block.test) == "TYPE_CHECKING":
            imports = (each for each in block.body if isinstance(each, ast.ImportFrom))
            home_of = {alias.name: str(each.module) for each in imports for alias in each.names}

    _register_accessor()
    elsewhere = found_elsewhere(package, former, stacklevel=3)

    def __getattr__(name: str) -> Any:
        if name not in home_of:
            return elsewhere(name)
        home = home_of[name]
        found = import_module(f"{package}.{name}") if home == package else getattr(import_module(home), name)
        setattr(module, name, found)
        _register_accessor()
        return found

    return __getattr__, lambda: sorted({*vars(module), *home_of}), sorted(home_of)


def _register_accessor() -> None:
    """Let whoever may see a dataset ask it; whoever has no xarray does not pay for it."""
    if "xarray" in sys.modules:
        import_module(f"{__package__}.accessor")
