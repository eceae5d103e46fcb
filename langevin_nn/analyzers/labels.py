"""What analyzers share: asking a dataset for what they need, finding a clock, and results that say what they are."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike, NDArray

from langevin_nn.analyzers.means import mean_with_interval
from langevin_nn.errors import ConfigurationError, EstimationRefused, UnknownNameError
from langevin_nn.observables import describe
from langevin_nn.replicas import check_each_once
from langevin_nn.schema import Variable, is_clock

__all__ = [
    "along_clock",
    "clock_of",
    "common_start",
    "described",
    "evenly_spaced",
    "group_with",
    "in_memory",
    "on_clocks",
    "over_replicas",
    "record_interval",
    "record_intervals",
    "require",
    "root_of",
    "selected",
    "series_in_words",
    "way_to_record",
]

_CLOCK_NAMES = ("epoch", "time")
_ROUNDING = 1e-3  # relative: single precision in other batches, half precision too; other weights are further apart


def each_once(trajectory: xr.DataTree | xr.Dataset) -> None:
    """Raise where a replica comes twice; every analyzer passes here before it averages over replicas."""
    # The configuration is in the root, whichever group is analysed.
    check_each_once(trajectory.root.to_dataset() if isinstance(trajectory, xr.DataTree) else trajectory)


def root_of(trajectory: xr.DataTree | xr.Dataset) -> xr.Dataset:
    """Return the scalars of a trajectory.

    Parameters
    ----------
    trajectory : xarray.DataTree or xarray.Dataset
        A trajectory, or its root group.

    Returns
    -------
    xarray.Dataset
        The root group.

    Raises
    ------
    ConfigurationError
        If a replica comes twice.
    """
    each_once(trajectory)
    return trajectory.to_dataset() if isinstance(trajectory, xr.DataTree) else trajectory


_OF_GROUPS = {"spectrum": "NoiseSpectrum()", "samples": "SampleLosses()", "weights": "Weights()"}
_OF_PHASES = "pass the result of detect_phases"
_OF_ANALYZERS = {  # by how names begin
    "projection": "pass the result of PrincipalComponents(shared=True) or Fluctuations(...) on a trajectory that was "
    "recorded with simulate(..., observables=[Weights()])",
    **dict.fromkeys(("phase", "boundary_", "crossing_", "mean_boundary_"), _OF_PHASES),
    "true_": "pass a trajectory of known truth, such as those of langevin_nn.testing",
    **dict.fromkeys(("is_removed", "is_refused"), "pass the result of find_mislabeled"),
}


def _observable(variable: Variable) -> str:
    """Return the observable that records a variable."""
    if variable.group:
        return _OF_GROUPS[variable.group]
    if variable.name.startswith(("train_", "test_")):
        return "Losses()"
    return "DrivingNoise()" if variable.name == "driving_noise_strength" else "OrderParameters()"


def way_to_record(names: Iterable[str]) -> str:
    """Return how to come by variables that are missing, in words for the end of a message."""
    names, observables, others = list(names), dict[str, None](), dict[str, None]()
    for name in names:
        try:
            observables[_observable(describe(name))] = None
        except UnknownNameError:
            others |= {way: None for start, way in _OF_ANALYZERS.items() if name.startswith(start)}
    ways = [f"record with simulate(..., observables=[{', '.join(observables)}])"] if observables else []
    if any(name.startswith("test_") for name in names):
        ways.append("test losses and errors need a landscape with test data")
    if any(name.endswith("_error") for name in names):
        ways.append("errors need labels of one class a sample, and of a loop of one's own Monitor.log")
    return "; ".join([*ways, *others]) or "see what gives them"


def require(dataset: xr.Dataset, *names: str) -> None:
    """Raise unless a dataset has some variables or coordinates, and each replica once.

    Parameters
    ----------
    dataset : xarray.Dataset
        What came.
    *names : str
        What is needed.

    Raises
    ------
    ConfigurationError
        Naming those that are missing, or the replicas that come twice.
    """
    each_once(dataset)
    missing = [name for name in names if name not in dataset.variables]
    if missing:
        raise ConfigurationError(
            f"the dataset lacks {', '.join(missing)}: expected a dataset with {', '.join(names)}, which are analysed; it has "
            f"{', '.join(map(str, dataset.data_vars)) or 'nothing'}; {way_to_record(missing)}"
        )


def common_start(root: xr.Dataset, reference: str) -> bool:
    """Raise unless all processes start from a reference's weights, replica by replica; False where no file shows it."""
    clocks = [name for name in ("step", *_CLOCK_NAMES) if name in root.coords and "step" in root[name].dims]
    losses = [name for name in ("train_loss", "test_loss") if name in root.data_vars and "step" in root[name].dims]
    if not clocks or not losses or not root.sizes["step"] or root[clocks[0]].isel(step=0).max() > 0:
        return False
    shown = False
    for name in losses:
        first = root[name].isel(step=0)
        own = first.sel(process=reference)
        apart = abs(first - own) > _ROUNDING * np.maximum(abs(first), abs(own))
        shown |= bool(np.isfinite(own).any())
        others = apart.any([each for each in apart.dims if each != "process"])
        if bool(others.any()):
            other = str(root["process"].values[int(others.values.argmax())])
            place = {key: int(at) for key, at in apart.sel(process=other).argmax(...).items()}
            values = [float(each.isel(place)) for each in (own, first.sel(process=other))]
            raise ConfigurationError(
                f"{other!r} and {reference!r} start from other weights: {name} of replica {place.get('replica', 0)} is "
                f"{values[1]:.6g} and {values[0]:.6g} at step 0; expected the same in each pair, since replicas are compared "
                "in pairs that differ in their noise alone; run both from the same weights (weights=) with seeds of their own"
            )
    return shown


def group_with(trajectory: xr.DataTree | xr.Dataset, *names: str) -> xr.Dataset:
    """Return the group of a trajectory that has some variables.

    Parameters
    ----------
    trajectory : xarray.DataTree or xarray.Dataset
        A trajectory, or the group itself; nothing is read that is not asked for.
    *names : str
        What is needed.

    Returns
    -------
    xarray.Dataset
        The first group that has all of them.

    Raises
    ------
    ConfigurationError
        If none has, naming what is missing, or if a replica comes twice.
    """
    each_once(trajectory)
    if isinstance(trajectory, xr.DataTree):
        groups = [node.to_dataset() for node in trajectory.subtree]
        for group in groups:
            if all(name in group.variables for name in names):
                return group
        found = sorted({str(name) for group in groups for name in group.data_vars})
        missing = min(([name for name in names if name not in group.variables] for group in groups), key=len)
        raise ConfigurationError(
            f"no group of the trajectory has {', '.join(missing)}: expected one with {', '.join(names)}, which are analysed; "
            f"its groups have {', '.join(found) or 'nothing'}; {way_to_record(missing)}"
        )
    require(trajectory, *names)
    return trajectory


def selected(values: xr.DataArray, selection: Mapping[str, Any]) -> xr.DataArray:
    """Return a part of a variable, by coordinates such as ``{"cohort": "all"}``; nothing is read yet."""
    try:
        return values.sel(dict(selection))
    except (KeyError, ValueError) as error:
        known = {str(name): each.values.tolist()[:10] for name, each in values.coords.items() if name in values.dims}
        raise ConfigurationError(
            f"{values.name!r} has nothing at {dict(selection)}: expected coordinates that it has, among {known}"
        ) from error


def clock_of(values: xr.DataArray) -> str:
    """Return the dimension along which a variable was recorded.

    Parameters
    ----------
    values : xarray.DataArray
        A variable of a trajectory.

    Returns
    -------
    str
        Such as ``step``, ``spectrum_step``, ``sample_step``, ``weight_step``.

    Raises
    ------
    ConfigurationError
        If the variable has none of them.

    Examples
    --------
    >>> clock_of(xr.DataArray(np.zeros((2, 3)), dims=("replica", "sample_step")))
    'sample_step'
    """
    found = [str(name) for name in values.dims if is_clock(name)]
    if len(found) != 1:
        raise ConfigurationError(
            f"{values.name!r} has the dimensions {', '.join(map(str, values.dims)) or 'none'}: expected one clock "
            "among step and names that end in _step, along which it was recorded; name another dimension with clock=..."
        )
    return found[0]


def along_clock(values: xr.DataArray, clock: str | None) -> tuple[xr.DataArray, str]:
    """Return a variable as float64 numbers in memory with its clock last, which is found by name where it is None."""
    clock = clock or clock_of(values)
    if clock not in values.dims:
        raise ConfigurationError(
            f"{values.name!r} has the dimensions {', '.join(map(str, values.dims))}, none called {clock!r}: expected "
            "the dimension along which it was recorded"
        )
    return in_memory(values.transpose(..., clock)), clock


def in_memory(values: xr.DataArray) -> xr.DataArray:
    """Return a variable as float64 numbers in memory, in one layout: sums have the same bits from a file and from memory.

    Parameters
    ----------
    values : xarray.DataArray
        A variable of a trajectory.

    Returns
    -------
    xarray.DataArray
        NaN where it is not finite, as after a divergence.

    Raises
    ------
    ConfigurationError
        If it holds anything but real numbers.
    """
    if values.dtype.kind not in "iufbO":
        raise ConfigurationError(
            f"{values.name!r} holds {values.dtype}: expected real numbers, since they are averaged and compared; analyse the "
            "real and the imaginary part of complex ones apart"
        )
    numbers = np.asarray(values.values, dtype=np.float64)
    return values.copy(data=np.ascontiguousarray(np.where(np.isfinite(numbers), numbers, np.nan)))


def evenly_spaced(values: xr.DataArray, clock: str) -> xr.DataArray:
    """Return evenly spaced records, without a last one that is off the beat because the run ended there."""
    if clock not in values.coords or values.sizes[clock] < 3:
        return values
    gaps = np.diff(values[clock].values.astype(np.float64))
    usual = float(np.median(gaps))
    # Whole epochs need not be whole numbers of updates: one more or less is even enough.
    off = np.abs(gaps - usual) > max(0.1 * abs(usual), 1.0 if usual > 2 else 0.0)
    if off[:-1].any():
        raise EstimationRefused(
            f"{values.name!r} is recorded at intervals from {gaps.min():g} to {gaps.max():g} along {clock!r}: expected "
            "even ones, since correlations are counted in records; record with EverySteps or EveryEpochs, or select "
            "records that are evenly spaced",
            shortest_interval=float(gaps.min()),
            longest_interval=float(gaps.max()),
        )
    return values.isel({clock: slice(0, -1)}) if off[-1] else values


def record_intervals(values: xr.DataArray, clock: str) -> dict[str, float]:
    """Return the mean interval between two records on every clock that there is; that of the dimension is ``step``."""
    return {
        "step" if name == clock else name: float(np.diff(values[name].values.astype(np.float64)).mean())
        for name in dict.fromkeys((clock, *_CLOCK_NAMES))
        if name in values.coords and values[name].dims == (clock,)
    }


def record_interval(values: xr.DataArray, clock: str) -> dict[str, xr.DataArray]:
    """Return the variable ``record_interval`` (clock), by which records become updates, epochs or gradient-flow time."""
    gaps = record_intervals(values, clock)
    attributes = {"long_name": "interval between two records", "units": "1"}
    clocks = {"clock": described(["clock"], list(gaps), "clock")}
    found = xr.DataArray(list(gaps.values()), clocks, ["clock"], attrs=attributes)
    return {"record_interval": found} if gaps else {}


def series_in_words(variable: str, values: xr.DataArray, dimensions: Iterable[Any], index: Iterable[Any]) -> str:
    """Return which series of a variable is meant, for messages."""
    places = (
        f", {name} {values[name].values[position] if name in values.coords else position}"
        for name, position in zip(dimensions, index, strict=True)
    )
    return f"{variable!r}" + "".join(places)


def described(dimensions: Iterable[Any], values: ArrayLike, long_name: str, units: str = "1") -> Any:
    """Return what `xarray.Dataset` takes for a variable that says what it is.

    Parameters
    ----------
    dimensions : iterable of str
        Names.
    values : array
        Numbers; bools become 0 or 1, since netCDF has none.
    long_name, units : str
        As on an axis.

    Returns
    -------
    tuple
        Dimensions, values and attributes.
    """
    numbers = np.asarray(values)
    if numbers.dtype == bool:
        numbers = numbers.astype(np.int8)
    return tuple(dimensions), numbers, {"long_name": long_name, "units": units}


def _taken(
    moments: xr.DataArray, index: NDArray[np.int64], clock: str, dimensions: Sequence[Any]
) -> NDArray[np.float64]:
    """Return the moments of records, where runs may have moments of their own."""
    own = [name for name in dimensions if name in moments.dims]
    values = moments.transpose(*own, clock).values.astype(np.float64)
    shape = [moments.sizes[name] if name in own else 1 for name in dimensions]
    whole = np.broadcast_to(values.reshape(*shape, -1), (*index.shape, values.shape[-1]))
    taken: NDArray[np.float64] = np.take_along_axis(whole, index[..., None], -1)[..., 0]
    return taken


def on_clocks(
    positions: NDArray[np.float64], moments: xr.DataArray | xr.Dataset, clock: str, dimensions: Sequence[Any], text: str
) -> xr.DataArray:
    """Return the moments of some records on every clock that there is.

    Parameters
    ----------
    positions : array, shape (...)
        Indices of records; NaN where there is none.
    moments : xarray.DataArray or xarray.Dataset
        With coordinates along the clock.
    clock : str
        The dimension of the records.
    dimensions : sequence of str
        Of the positions; runs along one of them may have moments of their own.
    text : str
        Long name of the result.

    Returns
    -------
    xarray.DataArray, shape (..., clock)
        Along the dimension ``clock``: ``step``, the number of updates (of the record, where updates are not known), and
        ``epoch`` and ``time`` where they were recorded.

    Examples
    --------
    >>> run = xr.Dataset(coords={"step": [0, 10, 20], "epoch": ("step", [0.0, 1.0, 2.0])})
    >>> on_clocks(np.array([1.0, np.nan]), run, "step", ["replica"], "moment").sel(clock="epoch").values
    array([ 1., nan])
    """
    counted = moments[clock] if clock in moments.coords else xr.DataArray(np.arange(moments.sizes[clock]), dims=clock)
    clocks = {"step": counted}
    clocks |= {
        name: moments.coords[name]
        for name in _CLOCK_NAMES
        if name in moments.coords
        and set(moments.coords[name].dims) <= {*dimensions, clock}
        and clock in moments[name].dims
    }
    known = np.isfinite(positions)
    index = np.where(known, positions, 0).astype(np.int64)
    values = [np.where(known, _taken(each, index, clock, dimensions), np.nan) for each in clocks.values()]
    return xr.DataArray(
        np.stack(values, axis=-1),
        dims=(*dimensions, "clock"),
        coords={"clock": list(clocks)},
        attrs={"long_name": text, "units": "1"},
    )


def over_replicas(dataset: xr.Dataset, names: Iterable[str], level: float = 0.95) -> xr.Dataset:
    """Add means over replicas with Student's t intervals.

    Parameters
    ----------
    dataset : xarray.Dataset
        Results by replica.
    names : iterable of str
        Which of them.
    level : float, optional
        Coverage of the intervals.

    Returns
    -------
    xarray.Dataset
        With ``mean_<name>``, its ``_standard_error``, ``_lower``, ``_upper`` and ``_count``, the replicas that have a
        value.

    Examples
    --------
    >>> result = over_replicas(xr.Dataset({"delay": ("replica", [1.0, 2.0, 3.0])}), ["delay"])
    >>> result.mean_delay.item(), round(result.mean_delay_upper.item(), 3), result.mean_delay_count.item()
    (2.0, 4.484, 3)
    """
    words = {
        "mean_value": "mean over replicas of",
        "standard_error": "standard error of the mean over replicas of",
        "lower": f"lower end of the {level:.0%} interval of the mean of",
        "upper": f"upper end of the {level:.0%} interval of the mean of",
        "count": "number of replicas that have",
    }
    results: dict[str, xr.DataArray] = {}
    for name in names:
        moments, attributes = mean_with_interval(dataset[name], level=level), dataset[name].attrs
        for part, text in words.items():
            long_name = f"{text} {attributes.get('long_name', name.replace('_', ' '))}"
            units = "1" if part == "count" else attributes.get("units", "1")
            key = f"mean_{name}_{part}".removesuffix("_mean_value")
            results[key] = moments[part].assign_attrs(long_name=long_name, units=units)
    return dataset.assign(results)
