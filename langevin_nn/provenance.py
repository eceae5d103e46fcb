"""Where a dataset comes from: configuration, seed and versions, as text that netCDF can hold."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import platform
import sys
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from functools import cache, partial
from importlib.metadata import version
from math import prod
from pathlib import Path
from types import FunctionType, MethodType
from typing import Any

import numpy as np

from langevin_nn.checks import is_compiled, is_tensor
from langevin_nn.errors import ConfigurationError
from langevin_nn.schema import SCHEMA_VERSION

__all__ = [
    "attributes",
    "class_name",
    "configuration",
    "described_function",
    "differences",
    "differing_parts",
    "digest",
    "module_name",
    "plain",
    "told",
    "untold",
    "versions",
]

_LARGEST_ARRAY = 16384
_LIBRARIES = ("langevin_nn", "numba", "numpy", "scipy", "torch", "xarray")
_ABSENT = "absent"
_MAIN = ("__main__", "__mp_main__")  # the latter in processes that it started


@cache
def _versions() -> dict[str, str]:
    return {name: version(name) for name in _LIBRARIES} | {"python": platform.python_version()}


def versions() -> dict[str, str]:
    """Return the versions of this package, its libraries and Python, on which the bits of a run depend."""
    return dict(_versions())


def digest(*arrays: Any) -> str:
    """Return the SHA-256 of arrays or tensors, their types and shapes, by which two are told apart in a configuration.

    Returns
    -------
    str
        Hexadecimal.

    Examples
    --------
    >>> digest(np.zeros(3)) == digest(np.zeros(3)), digest(np.zeros(3)) == digest(np.zeros((3, 1)))
    (True, False)
    """
    found = hashlib.sha256()
    for each in arrays:
        if is_tensor(each):
            each = each.detach().cpu()
            if str(each.dtype) == "torch.bfloat16":  # which NumPy lacks
                found.update(b"bfloat16")
                each = each.view(sys.modules["torch"].int16)
        array = np.ascontiguousarray(each)
        found.update(f"{array.dtype.str}{np.shape(each)}".encode())
        found.update(array.data)
    return found.hexdigest()


def described_function(function: Any) -> dict[str, Any]:
    """Return what a configuration says of a function: another force is another run.

    Returns
    -------
    dict
        Its ``name``, the digest of its identity (``sha256``), and what of it is ``unknown``, if anything.
    """
    named = getattr(function, "py_func", getattr(function, "func", function))
    name = (
        f"{module_name(getattr(named, '__module__', None))}:{getattr(named, '__qualname__', type(named).__qualname__)}"
    )
    from langevin_nn.identity import identity  # here, since it loads torch: to read a file takes none

    known = identity(function, libraries=("langevin_nn",))
    described: dict[str, Any] = {"type": "function", "name": name, "sha256": known.digest}
    return described if known.known else described | {"unknown": list(known.unknown)}


def class_name(kind: type) -> str:
    """Return by which name a file knows a class of a part of a run.

    Returns
    -------
    str
        Its own name where it is the package's, wherever it lies there; of a user's ``module:qualname``, by which it can be
        imported, of a script by the script's name.

    Examples
    --------
    >>> from fractions import Fraction
    >>> from langevin_nn.schedules import EverySteps
    >>> class_name(EverySteps), class_name(Fraction)
    ('EverySteps', 'fractions:Fraction')
    """
    own = kind.__module__.partition(".")[0] == __package__
    return kind.__name__ if own else f"{module_name(kind.__module__)}:{kind.__qualname__}"


def module_name(module: Any) -> Any:
    """Return the name by which a module can be imported; of the script that runs the script's, where it has a file."""
    if module not in _MAIN:
        return module
    main = sys.modules.get(module)
    if spec := getattr(main, "__spec__", None):
        return spec.name
    file = getattr(main, "__file__", None)
    stem = Path(file).stem if file else ""
    return stem if stem.isidentifier() else module


def told(thing: Any) -> str:
    """Return what names a class or function among all of this process, and in others where it can be imported.

    Anything else is named by where it lies, too.

    Returns
    -------
    str
        ``module:qualname`` where that leads to the thing itself.

    Examples
    --------
    >>> from fractions import Fraction
    >>> told(Fraction), told(lambda: 0).startswith("function at ")
    ('fractions:Fraction', True)
    """
    module, name = getattr(thing, "__module__", None), getattr(thing, "__qualname__", "")
    found: Any = sys.modules.get(module or "")
    for each in name.split("."):
        found = getattr(found, each, None)
    return f"{module_name(module)}:{name}" if found is thing else f"{type(thing).__qualname__} at {id(thing):#x}"


def plain(value: Any) -> Any:
    """Return a value in the words of JSON.

    Parameters
    ----------
    value : object
        Numbers, text, containers, paths, frozen dataclasses, things with a ``description``, arrays; of functions the
        name, the digest of their identity and what of it is unknown, of arrays of more than 16,384 numbers the shape and a
        digest. Parts that are not the package's own are named as ``module:qualname``.

    Returns
    -------
    object
        Dictionaries, lists, text, numbers, booleans and None.

    Examples
    --------
    >>> from langevin_nn.noise import MatchedGaussian
    >>> plain(MatchedGaussian(25))
    {'type': 'MatchedGaussian', 'batch_size': 25, 'replacement': False}
    """
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, float):
        return value if np.isfinite(value) else str(value)
    if isinstance(value, np.generic):
        return plain(value.item())
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(item) for item in value]
    if isinstance(value, np.ndarray) or is_tensor(value):
        dtype = str(value.dtype).removeprefix("torch.")
        described = {"type": type(value).__name__, "dtype": dtype, "shape": list(value.shape)}
        # Little ones, such as start weights or factors of surrogates, are kept whole: without them no run is repeated.
        small = prod(value.shape) <= _LARGEST_ARRAY
        return described | ({"values": plain(value.tolist())} if small else {"sha256": digest(value)})
    if isinstance(value, FunctionType | MethodType | partial) or is_compiled(value):
        return described_function(value)
    if hasattr(value, "description"):
        return {"type": class_name(type(value)), **plain(value.description)}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
        return {"type": class_name(type(value)), **fields}
    return {"type": class_name(type(value))}


def _leaves(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    value = _parts(value)
    if isinstance(value, Mapping) and value:
        for key, item in value.items():
            yield from _leaves(item, f"{name}.{key}" if name else str(key))
    else:
        yield name, value


def _parts(value: Any) -> Any:
    """Return what has parts with names or places of their own as a mapping, and anything else as it is."""
    numbered = isinstance(value, list) and any(isinstance(item, Mapping) for item in value)
    return {str(place): item for place, item in enumerate(value)} if numbered else value


def differences(one: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Return where two configurations, in the words of JSON, differ.

    Returns
    -------
    dict of str to tuple
        The two values by dotted name; "absent" for what one of them lacks.

    Examples
    --------
    >>> differences({"seed": 0, "noise": {"batch_size": 25}}, {"seed": 0, "noise": {"batch_size": 50}})
    {'noise.batch_size': (25, 50)}
    """
    left, right = dict(_leaves(one)), dict(_leaves(other))
    names = dict.fromkeys([*left, *right])
    pairs = {name: (left.get(name, _ABSENT), right.get(name, _ABSENT)) for name in names}
    return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}


def _unequal(one: Any, other: Any, name: str = "") -> Iterator[tuple[str, tuple[Any, Any]]]:
    left, right = _parts(one), _parts(other)
    if isinstance(left, Mapping) and isinstance(right, Mapping):
        for key in dict.fromkeys([*left, *right]):
            pair = left.get(key, _ABSENT), right.get(key, _ABSENT)
            yield from _unequal(*pair, f"{name}.{key}" if name else str(key))
    elif one != other:
        yield name, (one, other)


def differing_parts(one: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Return where two configurations differ, for a reader: what one lacks, or has as a plain value, counts once.

    Returns
    -------
    dict of str to tuple
        As of `differences`.

    Examples
    --------
    >>> one, other = {"weights": None}, {"weights": {"shape": [2, 8]}, "seed": {"entropy": 1, "key": 2}}
    >>> list(differences(one, other)), list(differing_parts(one, other))
    (['weights', 'weights.shape', 'seed.entropy', 'seed.key'], ['weights', 'seed'])
    """
    return dict(_unequal(one, other))


def untold(config: Mapping[str, Any]) -> dict[str, list[str]]:
    """Return the functions of a configuration, by dotted name, with what cannot be told of what they read."""
    return {
        name.removesuffix(".unknown"): value
        for name, value in _leaves(config)
        if name.endswith(".unknown") and isinstance(value, list)
    }


def study_of(attributes: Mapping[Any, Any]) -> str | None:
    """Return the study whose results a file of some attributes holds.

    Returns
    -------
    str or None
        Its name; None for a trajectory, and where the configuration cannot be read.

    Examples
    --------
    >>> study_of({"config_json": '{"study": "cleaning"}'}), study_of({})
    ('cleaning', None)
    """
    try:
        name = configuration(attributes).get("study")
    except ConfigurationError:
        return None
    return None if name is None else str(name)


def configuration(attributes: Mapping[Any, Any], name: str = "trajectory") -> dict[str, Any]:
    """Return the configuration that a file carries in its attributes; errors call the file by its `name`.

    Returns
    -------
    dict
        With the seed and the library versions.

    Raises
    ------
    ConfigurationError
        If there is none.
    """
    try:
        found = json.loads(str(attributes["config_json"]))
    except (KeyError, ValueError):
        found = None
    if not isinstance(found, dict):
        raise ConfigurationError(
            f"{name!r} has no configuration in its attribute config_json: expected an object of JSON, as langevin_nn writes "
            "it, since nobody could tell what was run; see what else is wrong with validate"
        )
    return found


def attributes(config: Mapping[str, Any], *, complete: bool = True) -> dict[str, str | int]:
    """Return the attributes of a file, from what was run, seed included, and whether the run reached its end.

    Returns
    -------
    dict
        ``schema_version``, ``config_json`` (sorted keys, with the library versions), ``created_at``, ``source``,
        ``complete`` (0 or 1).
    """
    described = {**plain(config), "versions": versions()}
    return {
        "schema_version": SCHEMA_VERSION,
        "config_json": json.dumps(described, sort_keys=True, allow_nan=False),
        "created_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "source": f"langevin_nn {version('langevin_nn')}",
        "complete": int(complete),
    }
