"""Compiled code on disk: one file a function and signature, named by all that it depends on.

Numba's own cache is named by a function's place in its file and knows neither its constants nor what it reads; and its index
numbers data by what it holds, so that two processes which compile at once may leave an entry that points at the other's code.
"""

from __future__ import annotations

import functools
import inspect
import os
import pickle
from collections.abc import Callable
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from typing import Any
from uuid import uuid4

import numba
from numba import njit
from numba.core.caching import CompileResultCacheImpl, NullCache
from numba.core.serialize import dumps
from numba.core.sigutils import normalize_signature
from numba.core.typeinfer import register_dispatcher

__all__ = ["CompiledCache", "cached", "compile_function"]

_KEPT = 64  # files a function, the newest


class CompiledCache(NullCache):
    """Keeps the compiled forms of one function beside its file, or where Numba is told to keep them.

    Another `identity`, what the function computes and with which options, is another file. A function without a place, as one
    that was typed into an interpreter, raises RuntimeError. `loaded` lists the files from which compiled forms came.
    """

    def __init__(self, function: Callable[..., Any], identity: str) -> None:
        self._packing = CompileResultCacheImpl(function)
        self._folder = Path(self._packing.locator.get_cache_path())
        self._name = "".join(each for each in self._packing.filename_base.rpartition("-")[0] if each not in "<>")
        self._identity = identity
        self.loaded: list[Path] = []

    def _path(self, signature: Any, codegen: Any) -> Path:
        arguments, result = normalize_signature(signature)
        key = f"{self._identity} {arguments} {result} {codegen.magic_tuple()} {numba.__version__}"
        return self._folder / f"{self._name}-{sha256(key.encode()).hexdigest()[:32]}.nbc"

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        """Return Numba's result for a signature; None where there is none, or a file that is damaged."""
        target_context.refresh()
        path = self._path(sig, target_context.codegen())
        try:
            content = path.read_bytes()
            if sha256(content[32:]).digest() != content[:32]:
                return None
            found = self._packing.rebuild(target_context, pickle.loads(content[32:]))
        except (OSError, ImportError, AttributeError, pickle.UnpicklingError):
            return None
        self.loaded.append(path)
        return found

    def save_overload(self, sig: Any, data: Any) -> None:
        """Keep a compiled form, unless it holds addresses of this process; a full disk is no error."""
        if data.library.has_dynamic_globals or data.lifted:
            return
        path = self._path(sig, data.codegen)
        content = dumps(self._packing.reduce(data))
        temporary = path.with_suffix(f".{uuid4().hex}.tmp")
        with suppress(OSError):
            try:
                self._packing.locator.ensure_cache_path()
                temporary.write_bytes(sha256(content).digest() + content)
                os.replace(temporary, path)
            finally:
                temporary.unlink(missing_ok=True)
            kept = sorted(self._folder.glob(f"{self._name}-*.nbc"), key=lambda each: each.stat().st_mtime)
            for each in kept[:-_KEPT]:
                each.unlink(missing_ok=True)


@functools.cache
def _sources(file: str) -> str:
    """Return a digest of all kernels and formulas, and of one more file: what a kernel is made of lies nowhere else."""
    found, here = sha256(), Path(__file__).parent
    for path in [*sorted(here.glob("*.py")), here.parent / "formulas.py", Path(file)]:
        found.update(path.read_bytes())
    return found.hexdigest()


def compile_function(
    function: Callable[..., Any], signatures: Any, cache: CompiledCache | None = None, **options: Any
) -> Any:
    """Compile a function for these signatures alone, or for whatever it is called with; or take it from its cache."""
    made: Any = njit(**options)(function)
    if cache is not None:
        made._cache = cache
    if signatures is not None:
        with register_dispatcher(made):
            for each in signatures if isinstance(signatures, list) else [signatures]:
                made.compile(each)
            made.disable_compile()
    return made


def cached(signatures: Any = None, /, **options: Any) -> Callable[[Callable[..., Any]], Any]:
    """Compile a kernel of this package, unless it is in the cache on disk: a decorator, as `compile_function`."""

    def decorated(function: Callable[..., Any]) -> Any:
        cache = None
        if function.__closure__ is None:  # what it encloses is not in its file
            with suppress(RuntimeError, OSError):
                cache = CompiledCache(function, f"{function.__qualname__} {_sources(inspect.getfile(function))}")
        return compile_function(function, signatures, cache, **options)

    return decorated
