"""The laws that an analyzer keeps, checked on one trajectory."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import xarray as xr

from langevin_nn.checks import instance
from langevin_nn.errors import ConfigurationError, EstimationRefused
from langevin_nn.schema import is_clock
from langevin_nn.testing.observables import raise_broken

__all__ = ["check_analyzer"]

Trajectory: TypeAlias = xr.DataTree | xr.Dataset


def check_analyzer(
    analyzer: Callable[[Any], xr.Dataset],
    trajectory: Trajectory,
    *,
    together: bool = False,
    too_little: Callable[[Any], Any] | None = None,
    rounding: float = 1e-9,
) -> None:
    """Hold an analyzer to what those who use it take for granted.

    It changes nothing that it is given, and gives the same again, from a file that is opened lazily as from memory, and
    through a file of its own. Variables have a name and units, dimensions of its own have labels. Results that have replicas
    follow their order, are those of a replica alone, and stay as they are where another replica is missing, which is then
    missing itself; or the whole is refused. Too little data, and data without what it needs, are refused.

    Parameters
    ----------
    analyzer : callable
        From a trajectory to a dataset; give what more it takes with a partial.
    trajectory : xarray.DataTree or xarray.Dataset
        With a dimension ``replica`` of at least two, on which it succeeds.
    together : bool, optional
        Whether results of a replica depend on the others on purpose, as where they share directions or a window.
    too_little : callable, optional
        From the trajectory to one with too few data for an answer; its first record alone unless said.
    rounding : float, optional
        What another order of replicas may change, relative to the largest value; more where exchanges of them are drawn.

    Raises
    ------
    AssertionError
        With one sentence for each law that it breaks.

    Examples
    --------
    >>> from langevin_nn.analyzers import Stationarity
    >>> noise = np.random.default_rng(0).standard_normal((3, 400))
    >>> trajectory = xr.Dataset({"train_loss": (("replica", "step"), noise)}, coords={"step": np.arange(400)})
    >>> check_analyzer(Stationarity("train_loss"), trajectory)
    """
    instance("trajectory", trajectory, (xr.DataTree, xr.Dataset), "a trajectory, on which the analyzer succeeds")
    name = getattr(analyzer, "__name__", type(analyzer).__name__)
    raise_broken(name, _broken(analyzer, trajectory, together, too_little, rounding))


def _broken(
    analyzer: Callable[[Any], xr.Dataset],
    trajectory: Trajectory,
    together: bool,
    too_little: Callable[[Any], Any] | None,
    rounding: float,
) -> Iterator[str]:
    before: Any = trajectory.copy(deep=True)
    result = analyzer(trajectory).load()
    if not trajectory.identical(before):
        yield "it changes the trajectory that it is given: expected a copy to be changed"
        return
    again = "the same trajectory gives other values a second time: expected a seed among its parameters"
    yield from _compared(analyzer(trajectory), result, again, 0.0)
    with tempfile.TemporaryDirectory() as folder:
        yield from _through_files(analyzer, trajectory, result, Path(folder))
    yield from _labels(result, trajectory)
    yield from _replicas(analyzer, trajectory, result, together, rounding)
    least = too_little or (
        lambda given: _each(given, lambda node: node.isel({k: [0] for k in node.dims if is_clock(k)}))
    )
    what = "too little data are answered: expected EstimationRefused with the numbers that there were"
    try:
        found = analyzer(least(trajectory))
        if any(each.dtype.kind == "f" and bool(each.notnull().any()) for each in found.data_vars.values()):
            yield what
    except EstimationRefused as refusal:
        if not refusal.numbers:
            yield what
    try:
        analyzer(xr.Dataset())
        yield "a dataset without anything in it is answered: expected ConfigurationError that names what is missing"
    except ConfigurationError:
        pass


def _through_files(
    analyzer: Callable[[Any], xr.Dataset], trajectory: Trajectory, result: xr.Dataset, folder: Path
) -> Iterator[str]:
    trajectory.to_netcdf(folder / "given.nc")
    opened = xr.open_datatree if isinstance(trajectory, xr.DataTree) else xr.open_dataset
    with opened(folder / "given.nc") as lazy:
        yield from _compared(analyzer(lazy).load(), result, "a file opened lazily gives other values than memory", 0.0)
    try:
        result.to_netcdf(folder / "found.nc")
        with xr.open_dataset(folder / "found.nc") as found:
            yield from _compared(found.load(), result, "the result comes back from its file with other values", 0.0)
    except (TypeError, ValueError) as error:
        yield f"the result cannot be written ({error}): expected numbers and text; bools as 0 and 1"


def _labels(result: xr.Dataset, trajectory: Trajectory) -> Iterator[str]:
    for name, each in result.data_vars.items():
        if missing := [key for key in ("long_name", "units") if not each.attrs.get(key)]:
            yield f"{name!r} has no {' and no '.join(missing)}: expected both, as on an axis; use described(...)"
    nodes = trajectory.subtree if isinstance(trajectory, xr.DataTree) else [trajectory]
    known = {size for node in nodes for size in node.sizes}
    for name in set(result.dims) - known:
        if not any(name in each.dims for each in result.coords.values()):
            yield f"the dimension {name!r} has no labels: expected a coordinate along it"


def _replicas(
    analyzer: Callable[[Any], xr.Dataset], trajectory: Trajectory, result: xr.Dataset, together: bool, rounding: float
) -> Iterator[str]:
    own = [name for name, each in result.data_vars.items() if "replica" in each.dims]
    count = int(trajectory.sizes["replica"])
    turned = [*range(1, count), 0]
    what = "in another order of replicas it gives other values than those in that order"
    yield from _compared(analyzer(_chosen(trajectory, turned)), _chosen(result, turned), what, rounding)
    if not own:
        return
    for rest in [] if together else [[0], [*range(count - 1)]]:
        what = f"of {len(rest)} replicas it gives other values than among {count} (or say together=True)"
        with suppress(EstimationRefused):  # what it says of all of them needs more
            yield from _compared(analyzer(_chosen(trajectory, rest))[own], _chosen(result[own], rest), what, rounding)
    holed = _each(trajectory, _without_the_last)
    try:
        found = analyzer(holed)
    except EstimationRefused:
        return
    others = [*range(count - 1)]
    if not together:
        what = "where a replica is missing it gives other values of the others"
        yield from _compared(_chosen(found[own], others), _chosen(result[own], others), what, rounding)
    gone = _chosen(found[own], [count - 1])
    for name, each in gone.data_vars.items():
        if each.dtype.kind == "f" and bool(each.notnull().any()):
            yield f"{name!r} of a replica that is missing has values: expected NaN, since nothing was observed"


def _without_the_last(node: xr.Dataset) -> xr.Dataset:
    """Return a group in which nothing was observed of the last replica."""
    found = node.copy(deep=True)
    for name, each in node.data_vars.items():
        if "replica" in each.dims and each.dtype.kind == "f":
            count = each.sizes["replica"]
            found[name] = each.where(xr.DataArray(np.arange(count) < count - 1, dims="replica"))
    return found


def _each(trajectory: Any, change: Callable[[xr.Dataset], xr.Dataset]) -> Any:
    if isinstance(trajectory, xr.DataTree):
        nodes = {node.path: change(node.to_dataset(inherit=False)) for node in trajectory.subtree}
        return xr.DataTree.from_dict(nodes)
    return change(trajectory)


def _chosen(trajectory: Any, places: list[int]) -> Any:
    return _each(trajectory, lambda node: node.isel(replica=places) if "replica" in node.dims else node)


def _compared(one: xr.Dataset, other: xr.Dataset, what: str, rounding: float) -> Iterator[str]:
    """Say which variables differ by more than rounding, relative to the largest number of each."""
    different = sorted(map(str, set(one.data_vars) ^ set(other.data_vars)))
    for name in set(one.data_vars) & set(other.data_vars):
        left, right = np.asarray(one[name].values), np.asarray(other[name].values)
        if one[name].dims != other[name].dims or left.shape != right.shape or left.dtype.kind != right.dtype.kind:
            different.append(str(name))
        elif left.dtype.kind == "f":
            largest = np.abs(right[np.isfinite(right)]).max(initial=0)
            if not np.allclose(left, right, rtol=0, atol=rounding * largest, equal_nan=True):
                different.append(str(name))
        elif not (left == right).all():
            different.append(str(name))
    if different:
        yield f"{what}: {', '.join(different)}"
