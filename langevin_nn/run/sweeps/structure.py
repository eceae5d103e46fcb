"""What a trajectory looks like from outside, so that a thousand of them are opened without opening each."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import numpy as np
import xarray as xr

from langevin_nn.store.netcdf import DIGEST

__all__ = ["own_dataset", "same_values", "structure_of"]

_LARGEST = 20_000  # numbers of a coordinate that a status holds


def own_dataset(tree: xr.DataTree, path: str) -> xr.Dataset:
    """Return one group, lazily, without the coordinates of those above it."""
    node = tree[path]
    assert isinstance(node, xr.DataTree)
    return node.to_dataset(inherit=False)


def structure_of(tree: xr.DataTree) -> dict[str, Any]:
    """Return digest of all but the values, shapes of variables and values of small coordinates, in the words of JSON."""
    said: dict[str, Any] = {}
    shapes: dict[str, dict[str, list[int]]] = {}
    coordinates: dict[str, dict[str, Any]] = {}
    for path in tree.groups:
        group = own_dataset(tree, path)
        said[path] = {str(name): _described(each) for name, each in group.variables.items()}
        shapes[path] = {str(name): list(each.shape) for name, each in group.variables.items()}
        coordinates[path] = {
            str(name): each.values.tolist()
            for name, each in group.coords.items()
            if each.size <= _LARGEST and each.dtype.kind in "biufUSO"
        }
    digest = hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()[:16]
    return {"structure": digest, "shapes": shapes, "coordinates": coordinates}


def _described(variable: xr.Variable) -> list[Any]:
    size = 0 if variable.dtype.kind in "USO" else variable.dtype.itemsize
    attributes = sorted((str(key), str(value)) for key, value in variable.attrs.items() if key != DIGEST)
    return [list(map(str, variable.dims)), variable.dtype.kind, size, attributes]


def same_values(one: Any, other: Any) -> bool:
    """Return whether two coordinates agree to the last bit, NaN with NaN."""
    left, right = np.asarray(one), np.asarray(other)
    return bool(np.array_equal(left, right, equal_nan=left.dtype.kind == right.dtype.kind == "f"))
