"""What studies that sweep do alike: all points or none, and records at times of equal ratio."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from langevin_nn import sweep
from langevin_nn.errors import ConfigurationError
from langevin_nn.run import points_of_sweep

__all__ = ["common_times", "complete", "record_times", "whole_sweep"]


def complete(tree: xr.DataTree, folder: Path) -> xr.DataTree:
    """Return a sweep, all of whose points are done.

    Parameters
    ----------
    tree : xarray.DataTree
        Of `langevin_nn.sweep`.
    folder : Path
        Where points are kept.

    Returns
    -------
    xarray.DataTree
        The same.

    Raises
    ------
    ConfigurationError
        If points failed, with the reason of the first.
    """
    if tree.attrs["points_failed"]:
        points = points_of_sweep(folder)
        first = str(points.error.values[points.state.values == "failed"][0])
        raise ConfigurationError(
            f"{tree.attrs['points_failed']} points of {str(folder)!r} failed, the first by {first}: expected all of them, "
            "since they are compared; langevin_nn.run.points_of_sweep(folder) says why each did, then go on with --resume"
        )
    return tree


def whole_sweep(run: Callable[..., Any], grid: Any, folder: Path, workers: int | None) -> xr.Dataset:
    """Return all points of a sweep, in memory.

    Parameters
    ----------
    run : callable
        From the values of a point to a `Simulation`.
    grid : mapping or sequence of mappings
        As `sweep` takes it.
    folder : Path
        Where points are kept.
    workers : int or None
        Local processes.

    Returns
    -------
    xarray.Dataset
        By ``point``.

    Raises
    ------
    ConfigurationError
        If points failed.
    """
    return complete(sweep(run, grid, folder, workers=workers), folder).to_dataset().load()


def common_times(times: Sequence[float], clocks: Iterable[float]) -> tuple[float, ...]:
    """Return those times of records that are updates of their own in every run, so that the k-th of one is the k-th of all.

    Parameters
    ----------
    times : sequence of float
        Ascending from 0; the last is where the runs end, and stays.
    clocks : iterable of float
        Updates in a unit of time, of each run.

    Returns
    -------
    tuple of float
        All of them where none fall together.

    Examples
    --------
    >>> common_times([0, 0.2, 1, 2], [10, 2])
    (0.0, 1.0, 2.0)
    """
    end, all_clocks = float(times[-1]), tuple(clocks)

    def update(time: float, clock: float) -> float:
        return min(float(np.rint(time * clock)), round(end / (1 / clock)))

    def are_apart(earlier: float, later: float) -> bool:
        return all(update(earlier, clock) < update(later, clock) for clock in all_clocks)

    kept = [0.0]
    for each in map(float, times[1:-1]):
        if are_apart(kept[-1], each) and are_apart(each, end):
            kept.append(each)
    return (*kept, end)


def record_times(longest: float, records: int, *, least: float = 0.05) -> NDArray[np.float64]:
    """Return times of records: 0, then of equal ratio, but not too close.

    Parameters
    ----------
    longest : float
        The last of them.
    records : int
        How many.
    least : float, optional
        Shortest time between two of them, in units of the time between evenly spaced ones.

    Returns
    -------
    ndarray, shape (records,)
        In the units of `longest`.

    Examples
    --------
    >>> record_times(500.0, 4).round(1)
    array([  0. ,   6.2,  22.4, 500. ])
    """
    gap = least * longest / records
    times = [0.0]
    for each in np.geomspace(longest / 500, longest, records - 1):
        times.append(max(float(each), times[-1] + gap))
    found: NDArray[np.float64] = np.minimum(np.array(times), longest)
    return found
