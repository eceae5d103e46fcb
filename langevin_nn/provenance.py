"""Where a dataset comes from: configuration, seed and versions, as text that netCDF can hold."""

from __future__ import annotations

import dataclasses
import json
import platform
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.metadata import version
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import torch

from langevin_nn.schema import SCHEMA_VERSION

__all__ = ["attributes", "plain", "versions"]

_LARGEST_ARRAY = 4096
_LIBRARIES = ("langevin_nn", "numba", "numpy", "scipy", "torch", "xarray")


def versions() -> dict[str, str]:
    """Return the versions on which the bits of a run depend.

    Returns
    -------
    dict of str to str
        Of this package, its libraries and Python.
    """
    return {name: version(name) for name in _LIBRARIES} | {"python": platform.python_version()}


def plain(value: Any) -> Any:
    """Return a value in the words of JSON.

    Parameters
    ----------
    value : object
        Numbers, text, containers, paths, frozen dataclasses, things with a ``description``, arrays; of arrays of more
        than 4,096 numbers the shapes only.

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
    if isinstance(value, np.ndarray | torch.Tensor):
        described = {"type": type(value).__name__, "shape": list(value.shape)}
        # Little ones, such as start weights or factors of surrogates, are kept whole: without them no run is repeated.
        return {**described, "values": plain(value.tolist())} if prod(value.shape) <= _LARGEST_ARRAY else described
    if hasattr(value, "description"):
        return {"type": type(value).__name__, **plain(value.description)}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
        return {"type": type(value).__name__, **fields}
    return {"type": type(value).__name__}


def attributes(config: Mapping[str, Any], *, complete: bool = True) -> dict[str, str | int]:
    """Return the attributes that every file carries.

    Parameters
    ----------
    config : mapping
        What was run, seed included.
    complete : bool, optional
        Whether the run reached its end.

    Returns
    -------
    dict
        ``schema_version``, ``config_json`` (sorted keys, with the library versions), ``created_at``, ``source``,
        ``complete`` (0 or 1).
    """
    described = {**plain(config), "versions": versions()}
    return {
        "schema_version": SCHEMA_VERSION,
        "config_json": json.dumps(described, sort_keys=True),
        "created_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "source": f"langevin_nn {version('langevin_nn')}",
        "complete": int(complete),
    }
