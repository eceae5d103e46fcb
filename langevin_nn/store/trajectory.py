"""Trajectories as files: written whole or not at all, opened lazily, whether their run has ended or not."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Literal

import xarray as xr

from langevin_nn.errors import ConfigurationError, UnknownNameError
from langevin_nn.store.durable import aside_of, publish, refuse_finished, storage_errors
from langevin_nn.store.migration import migrated
from langevin_nn.store.netcdf import DIGEST, write_netcdf
from langevin_nn.store.segments import folder_of, has_segments, read_segments

__all__ = ["check_writable", "open_trajectory", "write_trajectory"]

_ON_DAMAGE = ("raise", "leave_out")


def check_writable(folder: Path) -> None:
    """Make a folder for results, before anything is computed; raise ConfigurationError unless files can be written there."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise ConfigurationError(
            f"output folder {str(folder)!r} cannot be written ({error.strerror}): expected a folder in which files can be "
            "made; choose another"
        ) from error


def write_trajectory(tree: xr.DataTree, path: str | os.PathLike[str], *, overwrite: bool = False) -> Path:
    """Write a trajectory to netCDF-4: aside first, then renamed, so that no half-written file is ever seen.

    Variables are chunked for reading along time, carry Fletcher-32 checksums, and are compressed where that pays. What is
    lazily opened is read block by block.

    Parameters
    ----------
    tree : xarray.DataTree
        In the schema of trajectory files.
    path : path
        The file.
    overwrite : bool, optional
        Whether it may take the place of one that is there.

    Returns
    -------
    Path
        The file.

    Raises
    ------
    ConfigurationError
        If there is something at `path`, which is not to be overwritten.
    StorageError
        If it cannot be written; a file that was there before stays.
    """
    target = Path(path)
    refuse_finished(target, overwrite=overwrite)
    aside = aside_of(target)
    with storage_errors(target, "nothing was put in its place; make room or write to another path"):
        try:
            write_netcdf(tree, aside)
            publish(aside, target)
        finally:
            aside.unlink(missing_ok=True)
    return target


def open_trajectory(path: str | os.PathLike[str], *, on_damage: Literal["raise", "leave_out"] = "raise") -> xr.DataTree:
    """Open a trajectory with all its groups: a finished file, a running one, or the remains of a killed one.

    Parameters
    ----------
    path : path
        A file that `write_trajectory` or `langevin_nn.simulate` made or is making.
    on_damage : {"raise", "leave_out"}, optional
        What to do about segments of an unfinished run that are missing or whose checksum differs.

    Returns
    -------
    xarray.DataTree
        Lazily: values are read when they are asked for; `load()` reads all. `complete` is 0 where the run has not ended.

    Raises
    ------
    ConfigurationError
        If there is no such file, or it is no netCDF, or none of ours, or of a newer version than this one knows.
    DamagedTrajectory
        If a segment is missing or its checksum differs.
    UnknownNameError
        If `on_damage` is none of its names.
    """
    if on_damage not in _ON_DAMAGE:
        raise UnknownNameError("on_damage", on_damage, _ON_DAMAGE)
    file = Path(path).absolute() if str(path) in ("", ".", "..") else Path(path)
    folder = folder_of(file) if file.name else file / ".segments"
    if file.is_dir() and folder != file:
        raise ConfigurationError(
            f"no trajectory at {str(path)!r}, which is a folder: expected the file that a run writes, finished or not; name "
            "it"
        )
    while True:
        if file.is_file():
            return migrated(_open_file(file), str(path))
        if not has_segments(folder):
            if file.is_file():  # it has just been finished
                continue
            raise ConfigurationError(
                f"no trajectory at {str(path)!r}: expected a netCDF file written by langevin_nn, or the segments of one "
                f"that is being written in {str(folder)!r}"
            )
        try:
            return migrated(read_segments(folder, on_damage), str(path))
        except FileNotFoundError:
            # The run ended between two looks at its folder.
            if file == folder:
                file = folder.with_name(folder.name.removesuffix(".segments"))


def _open_file(path: Path) -> xr.DataTree:
    try:
        tree = xr.open_datatree(path, engine="netcdf4")
    except (OSError, ValueError) as error:
        raise ConfigurationError(
            f"{str(path)!r} cannot be read as netCDF ({str(error).splitlines()[0] if str(error) else type(error).__name__}): "
            "expected a file written by langevin_nn; it is another kind of file or was cut short, name another or run again"
        ) from error
    for node in tree.subtree:
        for variable in node.variables.values():
            # What says how values were stored is no attribute of theirs; `validate` looks for it there.
            if DIGEST in variable.attrs:
                variable.encoding[DIGEST] = variable.attrs.pop(DIGEST)
    return tree
