"""Checks of arguments where they enter: each returns the value in its plain form, or says what was expected and what came.

All take the `name` of the argument, the `value` that came, whatever it is, and what the message says was `expected`, and why.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Mapping
from contextlib import suppress
from math import inf, isfinite, nan
from numbers import Integral, Real
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from langevin_nn.errors import ConfigurationError, UnknownNameError

__all__ = [
    "as_path",
    "covariance",
    "instance",
    "is_compiled",
    "is_number",
    "is_tensor",
    "kind_of",
    "listed",
    "number",
    "numbers",
    "one_of",
    "point",
    "shown",
    "symmetric",
    "text",
    "truth",
    "whole_number",
]

_SHOWN = 80  # characters of a value in a message
_ADDED = ".0123456789.segments.part"  # what stores add to a file's name while they write


def is_number(value: Any, kind: type) -> bool:
    """Return whether a value is a number of `kind`, ``numbers.Real`` or ``numbers.Integral``; truth values are none."""
    return isinstance(value, kind) and not isinstance(value, bool | np.bool_)


def is_tensor(value: Any) -> bool:
    """Return whether a value is a tensor; none is where torch was not loaded."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(value, torch.Tensor)


def is_compiled(value: Any) -> bool:
    """Return whether a value is a function that Numba compiles; none is where Numba was not loaded."""
    numba = sys.modules.get("numba.core.dispatcher")
    return numba is not None and isinstance(value, numba.Dispatcher)


def kind_of(value: Any) -> str:
    """Say for messages whether a value is a class, or of which it is an instance."""
    return f"the class {value.__name__}" if isinstance(value, type) else f"of type {type(value).__name__}"


def shown(value: Any) -> str:
    """Return a value on one line of a message.

    Returns
    -------
    str
        Its beginning, where it is long.

    Examples
    --------
    >>> shown(0.5), shown([0, "1"]), shown(10**9999)
    ('0.5', "[0, '1']", '<int>')
    """
    try:
        words = " ".join(repr(value).split())
    except (ValueError, RecursionError):  # Python does not write numbers of thousands of digits
        words = f"<{type(value).__name__}>"
    return words if len(words) <= _SHOWN else f"{words[:_SHOWN]}…"


def number(
    name: str,
    value: Any,
    expected: str,
    *,
    above: float = -inf,
    least: float = -inf,
    below: float = inf,
    most: float = inf,
) -> float:
    """Return a finite number as a float, or raise where it reaches `above` or `below`, or passes `least` or `most`.

    Returns
    -------
    float
        The same number.

    Raises
    ------
    ConfigurationError
        If it is no such number.

    Examples
    --------
    >>> number("temperature", np.float32(0.5), "a finite number T ≥ 0", least=0)
    0.5
    """
    try:
        found = float(value) if is_number(value, Real) else nan
    except OverflowError:  # a whole number beyond floating point
        found = nan
    if not (isfinite(found) and above < found < below and least <= found <= most):
        raise ConfigurationError(f"{name}={shown(value)}: expected {expected}")
    return found


def whole_number(name: str, value: Any, expected: str, *, least: float = -inf, most: float = 2**63 - 1) -> int:
    """Return a whole number as an int, or raise where it passes `least` or `most`.

    Returns
    -------
    int
        The same number.

    Raises
    ------
    ConfigurationError
        If it is no such number.

    Examples
    --------
    >>> whole_number("replicas", np.int64(4), "a whole number from 1", least=1)
    4
    """
    if not is_number(value, Integral) or not least <= int(value) <= most:
        raise ConfigurationError(f"{name}={shown(value)}: expected {expected}")
    return int(value)


def truth(name: str, value: Any, meaning: str) -> bool:
    """Return a truth value, whose `meaning` is what it decides, or raise: what merely counts as true is often a mistake.

    Returns
    -------
    bool
        The same.

    Raises
    ------
    ConfigurationError
        If it is another thing.
    """
    if not isinstance(value, bool | np.bool_):
        raise ConfigurationError(f"{name}={shown(value)}: expected True or False, {meaning}")
    return bool(value)


def text(name: str, value: Any, meaning: str) -> str:
    """Return text, whose `meaning` is what it is for, or raise.

    Returns
    -------
    str
        The same.

    Raises
    ------
    ConfigurationError
        If it is no text, or cannot be written.
    """
    with suppress(UnicodeEncodeError):
        if isinstance(value, str) and value.encode() is not None:
            return str(value)
    raise ConfigurationError(f"{name}={shown(value)}: expected text that can be written as UTF-8, {meaning}")


def one_of(kind: str, value: Any, known: Iterable[str]) -> str:
    """Return a name of a `kind`, as the reader calls what is looked up, or raise unless it is known.

    Returns
    -------
    str
        The name.

    Raises
    ------
    UnknownNameError
        With the known ones.
    """
    names = tuple(known)
    if not isinstance(value, str) or value not in names:
        raise UnknownNameError(kind, value if isinstance(value, str) else shown(value), names)
    return str(value)


def instance(name: str, value: Any, kind: type | tuple[type, ...], expected: str) -> None:
    """Raise unless a value is an instance of `kind`.

    Raises
    ------
    ConfigurationError
        If it is another thing.
    """
    if not isinstance(value, kind):
        raise ConfigurationError(f"{name} is {kind_of(value)}: expected {expected}")


def numbers(name: str, value: Any, expected: str, *, finite: bool = True, flags: bool = False) -> NDArray[np.float64]:
    """Return an array of numbers, or raise.

    Parameters
    ----------
    value : object
        An array, a tensor, nested lists.
    finite : bool, optional
        Whether they must be finite.
    flags : bool, optional
        Whether truth values may come, which count as 0 and 1.

    Returns
    -------
    ndarray of float64
        A copy, of any shape.

    Raises
    ------
    ConfigurationError
        If there is anything but real numbers in it, or its rows have different lengths.

    Examples
    --------
    >>> numbers("start", [[0, 1], [2, 3]], "a matrix").shape
    (2, 2)
    """
    try:
        plain = value
        if is_tensor(value):
            plain = (value.double() if value.is_floating_point() else value).detach().cpu().numpy()
        found = np.asarray(plain)
        real = found.dtype.kind in ("iufb" if flags else "iuf") or (
            found.dtype == object and all(is_number(each, Real) for each in found.flat)
        )
        with np.errstate(over="ignore"):
            array = np.array(found, dtype=np.float64) if real else None
    except (TypeError, ValueError, OverflowError, RuntimeError):
        array = None
    if array is None:
        raise ConfigurationError(f"{name} is {kind_of(value)}: expected {expected}")
    if finite and not np.isfinite(array).all():
        raise ConfigurationError(f"{name} has numbers that are not finite: expected {expected}")
    return array


def listed(name: str, value: Any, expected: str) -> tuple[Any, ...]:
    """Return what an iterable holds, or raise.

    Returns
    -------
    tuple
        Its items, unchecked; those of arrays as Python's numbers.

    Raises
    ------
    ConfigurationError
        If it is none, or text, which would fall into letters.
    """
    plain = value.tolist() if isinstance(value, np.ndarray) or is_tensor(value) else value
    if isinstance(plain, str | bytes | Mapping) or not isinstance(plain, Iterable):
        raise ConfigurationError(f"{name}={shown(value)}: expected {expected}")
    return tuple(plain)


def point(name: str, value: Any, n_parameters: int) -> NDArray[np.float64]:
    """Return a point of the weight space of P = `n_parameters` weights, or raise.

    Returns
    -------
    ndarray of float64, shape (parameter,)
        A copy.

    Raises
    ------
    ConfigurationError
        If it is no such point.
    """
    array = numbers(name, value, f"{n_parameters} finite numbers, a point of weight space")
    if array.shape != (n_parameters,):
        raise ConfigurationError(f"{name} has shape {array.shape}: expected ({n_parameters},), a point of weight space")
    return array


def symmetric(name: str, value: Any, size: int | None = None) -> NDArray[np.float64]:
    """Return a symmetric matrix, of `size` rows where they are known, or raise.

    Returns
    -------
    ndarray of float64, shape (parameter, parameter)
        A copy.

    Raises
    ------
    ConfigurationError
        If it is no such matrix, to a relative 10⁻⁹.
    """
    expected = "a symmetric matrix (parameter, parameter) of finite numbers"
    matrix = numbers(name, value, expected)
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1] or not matrix.size:
        raise ConfigurationError(f"{name} has shape {matrix.shape}: expected {expected}")
    if size is not None and len(matrix) != size:
        raise ConfigurationError(
            f"{name} has shape {matrix.shape}: expected ({size}, {size}), a row for each parameter"
        )
    asymmetry = float(np.abs(matrix - matrix.T).max())
    if not asymmetry <= 1e-9 * np.abs(matrix).max():
        raise ConfigurationError(f"{name} differs from its transpose by {asymmetry:g}: expected a symmetric matrix")
    return matrix


def covariance(name: str, value: Any, size: int | None = None) -> NDArray[np.float64]:
    """Return a covariance, of `size` rows where they are known, or raise.

    Returns
    -------
    ndarray of float64, shape (parameter, parameter)
        A copy.

    Raises
    ------
    ConfigurationError
        If it is no symmetric matrix, or has an eigenvalue below 0 by more than a relative 10⁻¹⁰.

    Examples
    --------
    >>> covariance("noise", [[1, 2], [2, 1]])
    Traceback (most recent call last):
    langevin_nn.errors.ConfigurationError: noise has the eigenvalue -1: expected none below 0, since it is a covariance
    """
    matrix = symmetric(name, value, size)
    values = np.linalg.eigvalsh(matrix)
    if values[0] < -1e-10 * np.abs(values).max():
        raise ConfigurationError(
            f"{name} has the eigenvalue {values[0]:g}: expected none below 0, since it is a covariance"
        )
    return matrix


def as_path(name: str, value: Any) -> Path:
    """Return a path to write to, or raise where no file can be called so.

    Returns
    -------
    Path
        The same.

    Raises
    ------
    ConfigurationError
        If it is no path, or one that the file system or netCDF cannot take.
    """
    if not isinstance(value, str | os.PathLike) or not isinstance(os.fspath(value), str):
        raise ConfigurationError(
            f"{name}={shown(value)}: expected a path (str or pathlib.Path), where files are written"
        )
    path = Path(os.fspath(value))
    try:
        str(path).encode()
        with suppress(FileNotFoundError, NotADirectoryError, PermissionError):
            os.lstat(f"{path}{_ADDED}")
    except (OSError, ValueError) as error:
        raise ConfigurationError(
            f"{name}={shown(str(path))} cannot be the name of a file ({error}): expected a path in UTF-8, without null "
            "characters and short enough for the file system; choose another"
        ) from error
    return path
