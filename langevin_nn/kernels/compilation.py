"""Compiling: said aloud where it takes long, cached on disk where there is a file to cache it for."""

from __future__ import annotations

import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cache, lru_cache
from time import monotonic
from types import CellType, CodeType, FunctionType, ModuleType
from typing import Any

import numpy as np
from numba import float32, float64
from numba.core.dispatcher import Dispatcher
from numba.core.errors import NumbaError, NumbaExperimentalFeatureWarning
from numba.core.types import WrapperAddressProtocol
from numpy.typing import NDArray

from langevin_nn.errors import ConfigurationError, UntoldFunctionWarning
from langevin_nn.formulas import MATRIX, NOTHING, POINT, POTENTIAL, TILE, FieldFormula
from langevin_nn.identity import identity
from langevin_nn.kernels.cache import CompiledCache, cached, compile_function
from langevin_nn.kernels.fields import TILES, no_matrix, no_point, no_potential, no_tile, signatures

__all__ = ["Compiled", "Pointer", "announced", "compiled", "pointer", "quiet", "slots", "tile"]

_PATIENCE = 1.0  # seconds

# Where a compiled function is held against the plain one: so many points, so far apart, for so many seconds.
_TRIALS, _AWAY, _LONGEST = 4, 0.1, 0.3
_ROUNDING = {8: 1e-8, 4: 1e-3}  # of the largest number, by bytes of precision


@contextmanager
def announced(what: str) -> Iterator[None]:
    """Say what is being compiled, unless it comes from the cache."""

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
    """Keep Numba from warning that functions as arguments are experimental."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NumbaExperimentalFeatureWarning)
        yield


class Pointer(WrapperAddressProtocol):
    """The address of a compiled function, which is kept alive: to pass it costs a tenth of passing the function."""

    def __init__(self, function: Any, signature: Any) -> None:
        result = function.get_compile_result(signature)
        self.function, self._signature = function, signature
        self._address = result.library.get_pointer_to_function(result.fndesc.llvm_cfunc_wrapper_name)

    def __wrapper_address__(self) -> int:
        return int(self._address)

    def signature(self) -> Any:
        """Return that with which it is called."""
        return self._signature


@lru_cache(maxsize=1024)
def pointer(function: Any, kind: int, dtype: np.dtype[Any]) -> Pointer:
    """Return the address of a compiled kernel of this package."""
    return Pointer(function, _signature(kind, dtype))


def _signature(kind: int, dtype: np.dtype[Any]) -> Any:
    return signatures(float64 if dtype == np.float64 else float32)[kind]


@cache
def tile(function: Callable[..., Any]) -> Any:
    """Return a formula over a tile, compiled when it is first asked for.

    Parameters
    ----------
    function : callable
        At the top of a module: what changes comes through its constants. One that is compiled stays as it is.

    Returns
    -------
    compiled function
        For both precisions.
    """
    if isinstance(function, Dispatcher):
        return function
    with announced(f"{function.__name__}()"):
        return cached(TILES, error_model="numpy")(function)


def slots(
    field: FieldFormula, dtype: np.dtype[Any], near: NDArray[np.float64] | None = None, rank: int = 0
) -> tuple[Pointer, ...]:
    """Return the functions that a kernel takes for a field (tile, point, potential, matrix): one its own, three stand-ins."""
    stand_ins = {TILE: no_tile, POINT: no_point, POTENTIAL: no_potential, MATRIX: no_matrix}
    found = {kind: pointer(function, kind, dtype) for kind, function in stand_ins.items()}
    if field.kind != NOTHING:
        assert field.function is not None
        found[field.kind] = (
            pointer(tile(field.function), TILE, dtype)
            if field.kind == TILE
            else compiled(field.function, field.kind, dtype, near, rank).pointer
        )
    return tuple(found.values())


@dataclass(frozen=True)
class Compiled:
    """A user's function, compiled: to be called from Python, and for kernels."""

    function: Any
    pointer: Pointer


@dataclass(frozen=True)
class _Request:
    """What is to be compiled: requests for what computes the same are equal."""

    digest: str
    kind: int
    dtype: np.dtype[Any]
    own_options: bool
    function: Any = field(compare=False)
    near: NDArray[np.float64] | None = field(compare=False)
    rank: int = field(compare=False)

    @property
    def plain(self) -> Any:
        return getattr(self.function, "py_func", self.function)

    @property
    def name(self) -> str:
        return str(getattr(self.plain, "__name__", type(self.plain).__name__))


def _cause(error: Exception) -> str:
    """Return the line of Numba's report that says what is wrong."""
    lines = [line.strip() for line in str(error).splitlines()]
    frames = ("Failed in", "During", "File ", "^", "<source", ">>>", "def ", "return ", "This is not usually")
    telling = [line for line in lines if line and not line.startswith(frames)]
    return (telling or lines or [type(error).__name__])[0][:200]


def compiled(
    function: Callable[..., Any],
    kind: int,
    dtype: np.dtype[Any],
    near: NDArray[np.float64] | None = None,
    rank: int = 0,
) -> Compiled:
    """Return a user's function, compiled anew where anything changed that it reads.

    A function whose identity is known is compiled once in a process, and cached beside its file; what cannot be told is
    compiled at each call. Whether it comes from there or not, it is held against the plain function at a few points.

    Parameters
    ----------
    function : callable
        Plain Python that Numba understands.
    kind : int
        `POINT`, `POTENTIAL` or `MATRIX` of `langevin_nn.formulas`.
    dtype : numpy.dtype
        float64 or float32.
    near : ndarray of float64, shape (parameter,), optional
        Near where it is held against the plain function; nowhere unless said.
    rank : int, optional
        Columns that a matrix has.

    Returns
    -------
    Compiled
        With the signature of its kind.

    Raises
    ------
    ConfigurationError
        If Numba cannot compile it, or the compiled function gives other numbers than the plain one.
    """
    known = identity(function)
    signature = _signature(kind, dtype)
    own_options = isinstance(function, Dispatcher) and tuple(signature.args) in function.overloads
    request = _Request(known.digest, kind, dtype, own_options, function, near, rank)
    if known.known:
        return _kept(request)
    warnings.warn(
        f"{request.name} reads what cannot be told from outside: {', '.join(known.unknown)}: expected numbers, arrays and "
        "attributes of modules, by whose values a compiled function is known again; it is compiled anew at each use",
        UntoldFunctionWarning,
        stacklevel=2,
    )
    return _made(request, None)


@lru_cache(maxsize=256)
def _kept(request: _Request) -> Compiled:
    cache = None
    with suppress(RuntimeError, TypeError, OSError, AttributeError):  # there is no file, or no code
        cache = CompiledCache(request.plain, f"{request.digest} {request.own_options}")
    return _made(request, cache)


def _made(request: _Request, cache: CompiledCache | None) -> Compiled:
    signature, name = _signature(request.kind, request.dtype), request.name
    options = request.function.targetoptions if request.own_options else {"error_model": "numpy"}
    try:
        with announced(f"{name}()"):
            renewed = _Renewal(request.digest).function(request.plain)
            options = {key: value for key, value in options.items() if key != "nopython"}
            made = compile_function(renewed, signature, cache, **options)
    except (NumbaError, TypeError, NotImplementedError) as error:
        wanted = (
            "potential(x) that returns a number at one point x, shape (parameter,)"
            if request.kind == POTENTIAL
            else f"{name}(x, out) that writes its result at one point x, shape (parameter,), into out"
        )
        helpers = ", ".join(_plain_helpers(request.plain))
        remedy = f"what it calls must be compiled too: put @numba.njit before {helpers}; " if helpers else ""
        raise ConfigurationError(
            f"{name} cannot be compiled ({_cause(error)}): expected {wanted}; {remedy}use plain "
            "numbers, loops and numpy functions"
        ) from error
    if request.near is not None:
        try:
            _hold_against_the_plain_function(request, made)
        except ConfigurationError:
            for path in cache.loaded if cache else ():
                path.unlink(missing_ok=True)
            raise
    return Compiled(made, Pointer(made, signature))


class _Renewal:
    """Copies functions, so that helpers which Numba compiled before are compiled again: what they read may have changed.

    Copies have names of their own: Numba finds code by its name, and code from the cache was named in another process.
    """

    def __init__(self, digest: str) -> None:
        self._digest = digest
        self._done: dict[int, tuple[Any, Any]] = {}

    def function(self, function: FunctionType) -> FunctionType:
        copy = self._copy(function)
        self._fill(copy, function)
        return copy

    def _copy(self, function: FunctionType) -> FunctionType:
        if not isinstance(function, FunctionType):
            raise TypeError(
                f"it is of type {type(function).__name__} and no plain function: write one with def or lambda that holds "
                "what it needs"
            )
        cells = tuple(CellType() for _ in function.__closure__ or ())
        names, code = {**function.__globals__}, function.__code__
        copy = FunctionType(code, names, function.__name__, function.__defaults__, cells)
        copy.__kwdefaults__, copy.__module__ = function.__kwdefaults__, __name__
        copy.__qualname__ = f"{function.__name__}_{self._digest[:32]}_{len(self._done)}"
        return copy

    def _fill(self, copy: FunctionType, function: FunctionType) -> None:
        names = _names(function.__code__)
        for name in names & set(copy.__globals__):
            copy.__globals__[name] = self._value(copy.__globals__[name], names)
        for new, old in zip(copy.__closure__ or (), function.__closure__ or (), strict=True):
            with suppress(ValueError):  # not yet filled
                new.cell_contents = self._value(old.cell_contents, names)

    def _value(self, value: Any, names: set[str]) -> Any:
        if id(value) in self._done:
            return self._done[id(value)][1]
        if type(value) is tuple:
            return tuple(self._value(each, names) for each in value)
        if isinstance(value, Dispatcher) and not _is_of_library(value.py_func.__module__):
            copy = self._copy(value.py_func)
            compiler = value._compiler.pipeline_class  # type: ignore[attr-defined]
            renewed = type(value)(copy, dict(value.locals), dict(value.targetoptions), compiler)
            self._done[id(value)] = (value, renewed)
            self._fill(copy, value.py_func)
            return renewed
        if isinstance(value, ModuleType) and not _is_of_library(value.__name__):
            self._done[id(value)] = (value, value)
            found = {name: vars(value)[name] for name in names & set(vars(value))}
            changed = {name: new for name, each in found.items() if (new := self._value(each, names)) is not each}
            if changed:
                stand_in = ModuleType(value.__name__)
                vars(stand_in).update(vars(value), **changed)
                self._done[id(value)] = (value, stand_in)
            return self._done[id(value)][1]
        return value


def _plain_helpers(function: Any) -> list[str]:
    """Return the names of plain functions that a function may call: its globals, what it encloses, those of modules."""
    if not isinstance(function, FunctionType):
        return []
    names = _names(function.__code__)
    reached = {name: function.__globals__[name] for name in names & set(function.__globals__)}
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        with suppress(ValueError):  # not yet filled
            reached[name] = cell.cell_contents
    for module in [each for each in reached.values() if isinstance(each, ModuleType)]:
        if not _is_of_library(module.__name__):
            reached |= {name: vars(module)[name] for name in names & set(vars(module))}
    return sorted(
        name for name, each in reached.items() if isinstance(each, FunctionType) and not _is_of_library(each.__module__)
    )


def _names(code: CodeType) -> set[str]:
    return set(code.co_names).union(*(_names(each) for each in code.co_consts if isinstance(each, CodeType)))


def _is_of_library(module: str) -> bool:
    package = module.split(".", 1)[0]
    return (
        package in ("langevin_nn", "llvmlite", "numba", "numpy", "scipy", "torch") or package in sys.stdlib_module_names
    )


@np.errstate(all="ignore")
def _hold_against_the_plain_function(request: _Request, made: Any) -> None:
    """Raise unless the compiled function gives at a few points what the plain one gives, but for rounding."""
    near = request.near
    assert near is not None
    dtype = np.dtype(np.float64) if request.kind == POTENTIAL else request.dtype
    shape = {POTENTIAL: (), MATRIX: (len(near), request.rank)}.get(request.kind, near.shape)
    generator, size = np.random.default_rng(0), np.maximum(1, np.abs(near))
    rows, began = [], monotonic()
    for number in range(_TRIALS):
        away = _AWAY * size * generator.standard_normal(len(near)) * (number > 0)
        point = (near + away).astype(dtype)
        # As far as it moves when its point does by rounding.
        plain, moved = (
            _called(request.plain, point.astype(np.float64) + step, shape)
            for step in (0, 4 * np.finfo(dtype).eps * size)
        )
        if plain is not None and moved is not None:
            rows.append((point, plain, np.abs(moved - plain), _called(made, point, shape)))
        if monotonic() - began > _LONGEST:
            break
    counted = [np.abs(plain[np.isfinite(plain)]).max(initial=0) for _, plain, _, _ in rows]
    scale = max(counted, default=0)
    for point, plain, moved, found in rows:
        usual = np.isfinite(moved) & (np.abs(plain) < np.finfo(dtype).max * np.finfo(dtype).eps)
        allowed = _ROUNDING[dtype.itemsize] * scale + 1e3 * moved
        if found is None or not (np.abs(found - plain) <= allowed)[usual].all():
            raise ConfigurationError(
                f"the compiled {request.name} gives {'an error' if found is None else found} at {point}, where the plain "
                f"function gives {plain}: expected the same but for rounding, since runs follow the compiled one. A helper "
                "that Numba compiled keeps the values that it read then: call its recompile() after a change, and take "
                "cache=True from it; whole numbers beyond 64 bits and random numbers differ, too"
            )


def _called(function: Any, point: NDArray[Any], shape: tuple[int, ...]) -> NDArray[np.float64] | None:
    """Return what a function gives at a point; None where it fails."""
    out = np.full(shape, np.nan, point.dtype)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if shape == ():
                return np.asarray(function(point.copy()), np.float64)
            function(point.copy(), out)
    except Exception:
        return None
    return out.astype(np.float64)
