"""Compiling: said aloud where it takes long, cached on disk where there is a file to cache it for."""

from __future__ import annotations

import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from inspect import getclosurevars
from types import FunctionType, ModuleType
from typing import Any

import numpy as np
from numba import float32, float64, njit
from numba.core.dispatcher import Dispatcher
from numba.core.errors import NumbaError, NumbaExperimentalFeatureWarning
from numba.core.types import WrapperAddressProtocol

from langevin_nn.errors import ConfigurationError

__all__ = ["Pointer", "announced", "compiled", "pointer", "quiet"]

_PATIENCE = 1.0  # seconds


@contextmanager
def announced(what: str) -> Iterator[None]:
    """Say what is being compiled, unless it comes from the cache.

    Parameters
    ----------
    what : str
        As the reader calls it.

    Yields
    ------
    None
        While it is compiled.
    """

    def say() -> None:
        print(f"langevin_nn: compiling {what}; this takes some seconds, once", file=sys.stderr, flush=True)

    timer = threading.Timer(_PATIENCE, say)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


@contextmanager
def quiet() -> Iterator[None]:
    """Keep Numba from warning that functions as arguments are experimental.

    Yields
    ------
    None
        While it is kept.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NumbaExperimentalFeatureWarning)
        yield


class Pointer(WrapperAddressProtocol):
    """The address of a compiled function: to pass it costs a tenth of passing the function.

    Parameters
    ----------
    function : compiled function
        Kept alive.
    signature : numba signature
        One for which it is compiled.
    """

    def __init__(self, function: Any, signature: Any) -> None:
        result = function.get_compile_result(signature)
        self.function, self._signature = function, signature
        self._address = result.library.get_pointer_to_function(result.fndesc.llvm_cfunc_wrapper_name)

    def __wrapper_address__(self) -> int:
        return int(self._address)

    def signature(self) -> Any:
        """Return the signature.

        Returns
        -------
        numba signature
            That with which it is called.
        """
        return self._signature


def _outside(function: Callable[..., Any]) -> tuple[tuple[str, str], ...]:
    """Return the values that a function takes from outside, which compiling freezes: names of modules say nothing new."""
    plain = getattr(function, "py_func", function)
    if not isinstance(plain, FunctionType):
        return ()
    variables = getclosurevars(plain)
    found = {**variables.nonlocals, **variables.globals}
    return tuple((name, repr(value)) for name, value in sorted(found.items()) if not isinstance(value, ModuleType))


def pointer(function: Any, kind: int, dtype: np.dtype[Any]) -> Pointer:
    """Return the address of a compiled function, or of a user's function once it is compiled.

    Parameters
    ----------
    function : callable
        Plain Python, or compiled already.
    kind : int
        Of `langevin_nn.kernels.fields`.
    dtype : numpy.dtype
        float64 or float32.

    Returns
    -------
    Pointer
        For kernels.
    """
    return _pointer(function, kind, dtype, () if isinstance(function, Dispatcher) else _outside(function))


@lru_cache(maxsize=1024)
def _pointer(function: Any, kind: int, dtype: np.dtype[Any], _values: tuple[tuple[str, str], ...]) -> Pointer:
    from langevin_nn.kernels.fields import signatures

    signature = signatures(float64 if dtype == np.float64 else float32)[kind]
    known = isinstance(function, Dispatcher) and tuple(signature.args) in function.overloads
    return Pointer(function if known else compiled(function, kind, dtype), signature)


def _cause(error: Exception) -> str:
    """Return the line of Numba's report that says what is wrong."""
    lines = [line.strip() for line in str(error).splitlines()]
    frames = ("Failed in", "During", "File ", "^", "<source", ">>>", "def ", "return ", "This is not usually")
    telling = [line for line in lines if line and not line.startswith(frames)]
    return (telling or lines or [type(error).__name__])[0][:200]


def compiled(function: Callable[..., Any], kind: int, dtype: np.dtype[Any]) -> Any:
    """Return a user's function, compiled anew where a value changed that it takes from outside.

    It is cached beside its file where it takes nothing but modules from there.

    Parameters
    ----------
    function : callable
        Plain Python that Numba understands.
    kind : int
        `POINT`, `POTENTIAL` or `MATRIX` of `langevin_nn.kernels.fields`.
    dtype : numpy.dtype
        float64 or float32.

    Returns
    -------
    compiled function
        With the signature of its kind.

    Raises
    ------
    ConfigurationError
        If Numba cannot compile it.
    """
    return _compiled(function, kind, dtype, _outside(function))


@lru_cache(maxsize=256)
def _compiled(
    function: Callable[..., Any], kind: int, dtype: np.dtype[Any], values: tuple[tuple[str, str], ...]
) -> Any:
    from langevin_nn.kernels.fields import POTENTIAL, signatures

    plain = getattr(function, "py_func", function)
    signature = signatures(float64 if dtype == np.float64 else float32)[kind]
    name = getattr(plain, "__name__", repr(plain))
    with announced(f"{name}()"):
        try:
            try:
                return njit(signature, cache=not values, error_model="numpy")(plain)
            # A function typed into an interpreter cannot be cached, one cached under another name of its file not be loaded.
            except (RuntimeError, ImportError, AttributeError):
                return njit(signature, error_model="numpy")(plain)
        except (NumbaError, TypeError, NotImplementedError) as error:
            wanted = (
                "potential(x) that returns a number at one point x, shape (parameter,)"
                if kind == POTENTIAL
                else f"{name}(x, out) that writes its result at one point x, shape (parameter,), into out"
            )
            raise ConfigurationError(
                f"{name} cannot be compiled ({_cause(error)}): expected {wanted}; use plain "
                "numbers, loops and numpy functions"
            ) from error
