"""Trajectories in other formats."""

from __future__ import annotations

import os
import shutil
from itertools import product
from pathlib import Path

import xarray as xr

from langevin_nn.errors import ConfigurationError, DamagedTrajectory, UnknownNameError
from langevin_nn.schema import clock_of_group
from langevin_nn.store.durable import aside_of, publish, refuse_finished, storage_errors

__all__ = ["FORMATS", "export"]

FORMATS = ("csv", "zarr")
_TOGETHER = 10_000  # records that are turned into text at a time


def export(
    trajectory: xr.DataTree,
    path: str | os.PathLike[str],
    kind: str = "csv",
    *,
    group: str = "",
    overwrite: bool = False,
) -> Path:
    """Write a trajectory as a table or as a Zarr store.

    Parameters
    ----------
    trajectory : xarray.DataTree
        Opened lazily, or in memory.
    path : path
        The file, or the folder of the store.
    kind : {"csv", "zarr"}, optional
        A table of one group, a row for each replica and record and a column for each variable and label
        (``activity[correct]``), or all groups as they are.
    group : str, optional
        Of a table: "" is the root.
    overwrite : bool, optional
        Whether to replace what lies at `path`.

    Returns
    -------
    Path
        The same.

    Raises
    ------
    ConfigurationError
        If there is something at `path`, there is no such group, or Zarr is not installed.
    UnknownNameError
        If `kind` is none of the formats.
    StorageError
        If it cannot be written.
    DamagedTrajectory
        If a value cannot be read.
    RuntimeError
        If something else fails.
    """
    path = Path(path)
    if kind not in FORMATS:
        raise UnknownNameError("format", kind, FORMATS)
    refuse_finished(path, overwrite=overwrite)
    try:
        with storage_errors(path, "nothing was put in its place"):
            if kind == "zarr":
                _write_zarr(trajectory, path)
            else:
                _write_table(trajectory, path, group.strip("/"))
    except RuntimeError as error:
        if "NetCDF" not in str(error):
            raise
        raise DamagedTrajectory(
            f"a value cannot be read ({error}): expected the values as they were written; its checksum differs, the file "
            "that holds it is damaged; langevin_nn.validate names the variables"
        ) from error
    return path


def _write_zarr(trajectory: xr.DataTree, path: Path) -> None:
    aside = aside_of(path)
    try:
        trajectory.map_over_datasets(_plain).to_zarr(aside, mode="w", zarr_format=2)
        if path.exists():
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        aside.rename(path)
    except ImportError as error:
        raise ConfigurationError(
            "Zarr is not installed: expected the package zarr for this format; pip install 'langevin_nn[zarr]'"
        ) from error
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _plain(dataset: xr.Dataset) -> xr.Dataset:
    """Return a dataset without what only netCDF knows, and with C's long long as the int64 that it is."""
    long = {name: each.astype(each.dtype.str) for name, each in dataset.variables.items() if each.dtype.char in "qQ"}
    return (
        dataset.drop_encoding()
        .assign_coords({name: each for name, each in long.items() if name in dataset.coords})
        .assign({name: each for name, each in long.items() if name in dataset.data_vars})
    )


def _write_table(trajectory: xr.DataTree, path: Path, group: str) -> None:
    if f"/{group}" not in trajectory.groups:
        known = ", ".join(sorted(name.strip("/") or "(root)" for name in trajectory.groups))
        raise ConfigurationError(f"there is no group {group!r}: expected one of {known}")
    node = trajectory[f"/{group}"]
    assert isinstance(node, xr.DataTree)
    dataset, clock = node.to_dataset(), clock_of_group(group)
    if clock not in dataset.sizes:
        raise ConfigurationError(f"group {group or '(root)'} has no records: choose another with group=")
    moving = dataset[[name for name, each in dataset.data_vars.items() if clock in each.dims]]
    aside = aside_of(path)
    try:
        for start in range(0, moving.sizes[clock], _TOGETHER):
            rows = _flat(moving.isel({clock: slice(start, start + _TOGETHER)}), clock)
            index = [name for name in ("process", "replica", clock) if name in rows.dims]
            table = rows.to_dataframe(dim_order=index).reset_index()
            table.to_csv(aside, mode="a" if start else "w", header=not start, index=False)
        publish(aside, path)
    finally:
        aside.unlink(missing_ok=True)


def _flat(dataset: xr.Dataset, clock: str) -> xr.Dataset:
    """Turn labels into columns: ``activity`` by cohort becomes ``activity[all]``, ``activity[correct]``, …."""
    kept = {"process", "replica", clock}
    columns: dict[str, xr.DataArray] = {}
    for name, variable in dataset.data_vars.items():
        others = [dimension for dimension in variable.dims if dimension not in kept]
        if not others:
            columns[str(name)] = variable
            continue
        flat = variable.stack(label=others, create_index=False)
        labels = product(*(map(str, variable[dimension].values) for dimension in others))
        for position, label in enumerate(labels):
            columns[f"{name}[{','.join(label)}]"] = flat.isel(label=position, drop=True)
    table = xr.Dataset(columns)
    return table.drop_vars([name for name in table.coords if not set(table[name].dims) <= kept or not table[name].dims])
