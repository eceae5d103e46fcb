"""Arrays that lie in several files, read piece by piece when they are asked for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from xarray.backends import BackendArray
from xarray.core import indexing

__all__ = ["joined", "stacked_lazily"]


class _Joined(BackendArray):
    """Parts of the same dimensions, lazily opened or in memory, one after the other along an axis."""

    def __init__(self, parts: Sequence[xr.Variable], axis: int) -> None:
        self._parts, self._axis = tuple(parts), axis
        sizes = [part.shape[axis] for part in parts]
        self._ends = np.cumsum(sizes)
        shape = list(parts[0].shape)
        shape[axis] = int(self._ends[-1])
        self.shape = tuple(shape)
        self.dtype = np.result_type(*(part.dtype for part in parts))

    def __getitem__(self, key: indexing.ExplicitIndexer) -> Any:
        return indexing.explicit_indexing_adapter(key, self.shape, indexing.IndexingSupport.OUTER, self._read)

    def _read(self, key: tuple[Any, ...]) -> NDArray[Any]:
        along = key[self._axis]
        if isinstance(along, int | np.integer):
            part = int(np.searchsorted(self._ends, along, "right"))
            return self._part(part, key, int(along) - self._start(part))
        wanted = np.arange(self.shape[self._axis])[along]
        owners = np.searchsorted(self._ends, wanted, "right")
        runs = np.split(np.arange(len(wanted)), np.flatnonzero(np.diff(owners)) + 1)
        pieces = [self._run(int(owners[run[0]]), key, wanted[run]) for run in runs if len(run)]
        axis = sum(not isinstance(each, int | np.integer) for each in key[: self._axis])
        if not pieces:
            return np.empty(_shape(key, self.shape), self.dtype)
        return np.concatenate(pieces, axis=axis).astype(self.dtype, copy=False)

    def _start(self, part: int) -> int:
        return int(self._ends[part - 1]) if part else 0

    def _run(self, part: int, key: tuple[Any, ...], wanted: NDArray[np.int64]) -> NDArray[Any]:
        local = wanted - self._start(part)
        steps = np.diff(local)
        contiguous = len(local) == 1 or bool((steps == steps[0]).all() and steps[0] > 0)
        step = int(steps[0]) if contiguous and len(local) > 1 else 1
        return self._part(part, key, slice(int(local[0]), int(local[-1]) + 1, step) if contiguous else local)

    def _part(self, part: int, key: tuple[Any, ...], along: Any) -> NDArray[Any]:
        own = (*key[: self._axis], along, *key[self._axis + 1 :])
        return np.asarray(self._parts[part][own].values, dtype=self.dtype)


class _Stacked(BackendArray):
    """Parts of the same dimensions and shape side by side along a new first axis."""

    def __init__(self, parts: Sequence[xr.Variable]) -> None:
        self._parts = tuple(parts)
        self.shape = (len(parts), *parts[0].shape)
        self.dtype = np.result_type(*(part.dtype for part in parts))

    def __getitem__(self, key: indexing.ExplicitIndexer) -> Any:
        return indexing.explicit_indexing_adapter(key, self.shape, indexing.IndexingSupport.OUTER, self._read)

    def _read(self, key: tuple[Any, ...]) -> NDArray[Any]:
        first, rest = key[0], key[1:]
        if isinstance(first, int | np.integer):
            return np.asarray(self._parts[int(first)][rest].values, dtype=self.dtype)
        chosen = np.arange(self.shape[0])[first]
        if not len(chosen):
            return np.empty(_shape(key, self.shape), self.dtype)
        return np.stack([self._parts[each][rest].values for each in chosen]).astype(self.dtype, copy=False)


def _shape(key: tuple[Any, ...], shape: tuple[int, ...]) -> tuple[int, ...]:
    pairs = zip(key, shape, strict=True)
    return tuple(len(np.arange(n)[each]) for each, n in pairs if not isinstance(each, int | np.integer))


def joined(parts: Sequence[xr.Variable], dimension: str) -> xr.Variable:
    """Return parts one after the other along one of their dimensions, without reading them; attributes are the first's."""
    if len(parts) == 1:
        return parts[0]
    array = _Joined(parts, parts[0].dims.index(dimension))
    return xr.Variable(parts[0].dims, indexing.LazilyIndexedArray(array), parts[0].attrs)


def stacked_lazily(parts: Sequence[xr.Variable], dimension: str) -> xr.Variable:
    """Return parts side by side along a new first dimension, without reading them; attributes are the first's."""
    dims = (dimension, *parts[0].dims)
    return xr.Variable(dims, indexing.LazilyIndexedArray(_Stacked(parts)), parts[0].attrs)
