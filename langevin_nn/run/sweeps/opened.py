"""The trajectories of a sweep as one dataset, lazily: values are read when they are asked for."""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from xarray.backends import BackendArray
from xarray.backends.locks import SerializableLock
from xarray.core import indexing

from langevin_nn.errors import ConfigurationError
from langevin_nn.run.sweeps.structure import own_dataset, same_values
from langevin_nn.schema import clock_of_group
from langevin_nn.store.netcdf import DIGEST
from langevin_nn.store.parts import SWEEP, Parts, Status
from langevin_nn.store.segments import dtype_with_gaps

__all__ = ["open_sweep", "points_of_sweep"]


class _File:
    """A trajectory that is opened when it is first read."""

    def __init__(self, path: Path) -> None:
        self._path, self._lock = path, SerializableLock()
        self._tree: xr.DataTree | None = None

    def variable(self, group: str, name: str) -> xr.Variable:
        """Return a variable, lazily."""
        with self._lock:
            if self._tree is None:
                self._tree = xr.open_datatree(self._path, engine="netcdf4", cache=False)
            return own_dataset(self._tree, group).variables[name]

    def close(self) -> None:
        """Close it; reading opens it again."""
        with self._lock:
            if self._tree is not None:
                self._tree.close()
                self._tree = None


class _Points(BackendArray):
    """One variable of all points: point first, filled up with NaN where a point has less of it."""

    def __init__(
        self, files: Sequence[_File], group: str, name: str, shapes: Sequence[tuple[int, ...]], dtype: np.dtype[Any]
    ) -> None:
        self._files, self._group, self._name, self._shapes = files, group, name, shapes
        self.shape = (len(files), *np.max(np.array(shapes, dtype=int).reshape(len(files), -1), axis=0).tolist())
        self.dtype = dtype

    def __getitem__(self, key: indexing.ExplicitIndexer) -> Any:
        return indexing.explicit_indexing_adapter(key, self.shape, indexing.IndexingSupport.OUTER, self._read)

    def _read(self, key: tuple[Any, ...]) -> NDArray[Any]:
        first, rest = key[0], key[1:]
        if isinstance(first, int | np.integer):
            return self._of(int(first), rest)
        chosen = np.arange(self.shape[0])[first]
        if not len(chosen):
            kept = [np.arange(n)[k] for k, n in zip(rest, self.shape[1:], strict=True)]
            return np.empty((0, *(len(each) for each in kept if np.ndim(each))), self.dtype)
        return np.stack([self._of(int(each), rest) for each in chosen])

    def _of(self, point: int, rest: tuple[Any, ...]) -> NDArray[Any]:
        variable = self._files[point].variable(self._group, self._name)
        if self._shapes[point] == self.shape[1:]:
            return np.asarray(variable[rest].values, dtype=self.dtype)
        whole = np.full(self.shape[1:], np.nan, dtype=self.dtype)
        whole[tuple(slice(n) for n in self._shapes[point])] = variable.values
        found: NDArray[Any] = whole
        for axis in reversed(range(len(rest))):
            found = np.take(found, np.arange(self.shape[1 + axis])[rest[axis]], axis=axis)
        return found


def open_sweep(folder: str | os.PathLike[str]) -> xr.DataTree:
    """Open the trajectories of a sweep as one.

    Parameters
    ----------
    folder : path
        Of the sweep, which may still run.

    Returns
    -------
    xarray.DataTree
        With the dimension ``point`` first and the swept values as coordinates along it. Coordinates that differ between
        points, such as ``time`` where learning rates do, are along ``point`` too; ``step`` is then that of the first point,
        and ``update_count`` (point, step) says the updates of each. What a point has less of than another is filled up with
        NaN. Points that failed, or have not ended, are left out: `points_of_sweep` tells which. Points of one seed share the
        noise of each replica: compare them replica by replica, and average over replicas or points of other seeds alone.
        ``points_repeated`` counts those that asked for a simulation that another point had asked for: one path, named twice.

    Raises
    ------
    ConfigurationError
        If there is no sweep, no point of it has ended, or points were recorded with different variables.
    """
    files = Parts(folder, SWEEP)
    index = files.index()
    keys = list(index["keys"])
    statuses = files.statuses(keys)
    done = [statuses[key] for key in keys if files.is_whole(statuses.get(key))]
    failed = sum(each["state"] == "failed" for each in statuses.values())
    if not done:
        first = next((f": {each['error']}" for each in statuses.values() if each["state"] == "failed"), "")
        raise ConfigurationError(
            f"no point of the sweep at {str(files.folder)!r} is done, {failed} of {len(keys)} failed{first}; expected at "
            "least one to open; points_of_sweep(folder) has what happened"
        )
    odd = next((each for each in done if each["structure"] != done[0]["structure"]), None)
    if odd is not None:
        raise ConfigurationError(
            f"the points {odd['point']} and {done[0]['point']} of {str(files.folder)!r} were recorded with different "
            "variables, dimensions or types: expected the same of all, since they become one dataset; sweep them in folders "
            "of their own, or open their files one by one"
        )
    opened = [_File(files.path(each["file"])) for each in done]
    example = xr.open_datatree(files.path(done[0]["file"]), engine="netcdf4")
    groups = {path: _group(path, own_dataset(example, path), done, opened) for path in example.groups}
    root = groups["/"]
    names = [name for name in index["names"] if name not in root.dims]
    root = root.drop_vars([name for name in names if name in root.variables])
    groups["/"] = root.assign_coords(
        {name: ("point", _column([each["point"][name] for each in done])) for name in names}
    )
    tree = xr.DataTree.from_dict(groups)
    alike = {name: value for name, value in example.attrs.items() if name in ("schema_version", "source")}
    example.close()

    tree.set_close(partial(_close, opened))
    tree.attrs.update(
        {
            **alike,
            "function": index["function"]["name"],
            "points": len(keys),
            "points_done": len(done),
            "points_failed": failed,
            "points_repeated": len(done) - len({each["file"] for each in done}),
        }
    )
    return tree


def _close(files: Sequence[_File]) -> None:
    for each in files:
        each.close()


def _group(path: str, example: xr.Dataset, done: Sequence[Status], opened: Sequence[_File]) -> xr.Dataset:
    variables: dict[str, Any] = {}
    coordinates: dict[str, Any] = {}
    shapes = [each["shapes"][path] for each in done]
    values = [each["coordinates"][path] for each in done]
    for name, variable in example.variables.items():
        key = str(name)
        own = [tuple(each[key]) for each in shapes]
        attributes = {k: v for k, v in variable.attrs.items() if k != DIGEST}
        small = all(key in each for each in values)
        if name in example.coords and small and all(same_values(each[key], values[0][key]) for each in values[1:]):
            coordinates[key] = variable.load()
            continue
        padded = len(set(own)) > 1
        dtype = dtype_with_gaps(variable.dtype) if padded else variable.dtype
        whole: Any
        if name in example.coords and small:
            whole = _filled([np.asarray(each[key]) for each in values], dtype)
        else:
            whole = indexing.LazilyIndexedArray(_Points(opened, path, key, own, dtype))
        stacked = (("point", *variable.dims), whole, attributes)
        if name not in example.coords:
            variables[key] = xr.Variable(*stacked)
        elif name not in example.dims:
            coordinates[key] = stacked
        else:
            longest = values[int(np.argmax([len(each[key]) for each in values]))][key] if small else variable.values
            coordinates[key] = (variable.dims, longest if padded else variable.values, attributes)
            if key == clock_of_group(""):
                coordinates["update_count"] = (*stacked[:2], {"long_name": "number of updates", "units": "1"})
    return xr.Dataset(variables, coords=coordinates)


def _filled(values: Sequence[NDArray[Any]], dtype: np.dtype[Any]) -> NDArray[Any]:
    """Return arrays side by side, filled up with NaN to the largest."""
    largest = np.max([each.shape for each in values], axis=0).tolist() if values[0].ndim else []
    if all(list(each.shape) == largest for each in values):
        return np.stack(values)
    whole = np.full((len(values), *largest), np.nan, dtype=dtype)
    for row, each in zip(whole, values, strict=True):
        row[tuple(slice(n) for n in each.shape)] = each
    return whole


def _column(values: list[Any]) -> NDArray[Any]:
    """Return swept values as an array: numbers as numbers, the rest as text."""
    if all(isinstance(each, bool | int | float) for each in values):
        return np.asarray(values)
    return np.asarray(
        [each if isinstance(each, str) else str(tuple(each) if isinstance(each, list) else each) for each in values]
    )


def points_of_sweep(folder: str | os.PathLike[str]) -> xr.Dataset:
    """Return how each point of a sweep fares.

    Parameters
    ----------
    folder : path
        Of the sweep, which may still run.

    Returns
    -------
    xarray.Dataset
        Along ``point``: the swept values, ``state`` (waiting, running, stopped, done, failed), ``seconds`` of work, NaN where
        it is unknown, ``error`` and ``traceback``, empty unless it failed, and ``file``, relative to the folder.
    """
    files = Parts(folder, SWEEP)
    index = files.index()
    statuses = files.statuses(list(index["keys"]))
    rows = [statuses.get(key, {"state": "waiting"}) for key in index["keys"]]

    def column(name: str, empty: Any) -> tuple[str, list[Any]]:
        return "point", [row.get(name, empty) for row in rows]

    names = {name: ("point", _column([point[name] for point in index["points"]])) for name in index["names"]}
    table = {
        "state": column("state", "waiting"),
        "seconds": column("seconds", np.nan),
        "error": column("error", ""),
        "traceback": column("traceback", ""),
        "file": (
            "point",
            [str(files.path(row["file"]).relative_to(files.folder)) if "file" in row else "" for row in rows],
        ),
    }
    return xr.Dataset(table, coords=names)
