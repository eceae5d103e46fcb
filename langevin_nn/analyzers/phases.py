"""Phases of learning: two without label noise, four with, from training quantities only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from langevin_nn.analyzers.labels import require, root_of
from langevin_nn.analyzers.means import mean_with_interval
from langevin_nn.errors import ConfigurationError, EstimationRefused
from langevin_nn.statistics.decline import decline_p_value

__all__ = ["FOUR_PHASES", "TWO_PHASES", "PhaseDetector", "detect_phases", "mean_boundaries", "phase_means"]

TWO_PHASES = ("fast_learning", "exploration")
FOUR_PHASES = ("I", "II", "III", "IV")

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class PhaseDetector:
    """Labels each record with a phase of learning.

    The phases are told from the training errors of the two cohorts, so that what the order parameters do in them, and
    what the test error does, can be asked without going round in a circle:

    - I, fast learning of the correct samples, until their error has fallen by `learned` of its whole fall;
    - II, until the error of the mislabeled samples has fallen by `forgotten` below the highest it was;
    - III, learning of the mislabeled samples, until the training error over all samples is at most `fitted`;
    - IV, exploration of the solutions of all samples.

    Without mislabeled samples there are two: fast learning until the training error is at most `fitted`, then
    exploration. Errors fluctuate, phases do not come back: each boundary is where the monotone step function that fits
    best (fewest records on the wrong side) has its step, so that single records on the wrong side are
    outvoted. Phases after Feng & Tu (2021), doi 10.1088/2632-2153/abf5b9, sections 3 and 4, who placed theirs by eye.

    **No transition.** A boundary is reported only where the error that defines it (of the correct samples, of the
    mislabeled ones, of all) has fallen in a way that stationary noise does not: `decline_p_value` must be at most
    `significance` over the number of boundaries, so that a trajectory of noise, whatever its level, shows any boundary
    with a probability of at most `significance`. With fewer than 7 records nothing can be shown and there
    is no boundary. The test asks for a fall somewhere, not at one place: it does not protect against an error
    that fell and then wanders about a threshold. Where phase I ends is told by the whole fall of the correct samples' error,
    and a run that ends in the middle of it would have a tenth of any fall in II: II is reported only where III has begun, or
    II has lasted as long as I, after which little more than a hundredth of an exponential fall is to come. It is the careful
    side for falls of other shapes: a sigmoid that is over, and flat for less time than it took, has not reached II. A phase
    in which the first record already is has no boundary either: it began before.

    **How well boundaries are known.** Between two records an error crosses its threshold somewhere: ``crossing_epoch`` is
    where the line between them does, halfway between the first and the last of equally good places. For it, the highest
    error and the whole fall are taken from medians over phase II, in which both errors are flat; for ``boundary_epoch``
    they are extremes of single records, which noise moves. `mean_boundaries` says how the intervals over replicas come
    about.

    Parameters
    ----------
    learned : float, optional
        Share of the fall of the correct samples' error that makes them learned.
    forgotten : float, optional
        Relative fall of the mislabeled samples' error that ends phase II.
    fitted : float, optional
        Training error at which all samples count as fitted.
    significance : float, optional
        Largest probability of any boundary in a trajectory of stationary noise.
    correlation : float, optional
        Largest correlation of successive records that this noise may have.
    level : float, optional
        Coverage of the intervals of mean boundaries.

    Raises
    ------
    ConfigurationError
        If a parameter is out of its range.
    """

    learned: float = 0.9
    forgotten: float = 0.1
    fitted: float = 0.01
    significance: float = 0.05
    correlation: float = 0.97
    level: float = 0.95

    def __post_init__(self) -> None:
        for name in ("learned", "forgotten", "fitted", "significance", "correlation", "level"):
            if not 0 < getattr(self, name) < 1:
                raise ConfigurationError(
                    f"{name}={getattr(self, name)}: expected a number between 0 and 1, both excluded, since it is a share or "
                    f"a probability; the default is {getattr(type(self), name)}"
                )

    def __call__(self, trajectory: xr.DataTree | xr.Dataset) -> xr.Dataset:
        """Label a trajectory.

        Parameters
        ----------
        trajectory : xarray.DataTree or xarray.Dataset
            With ``train_error`` by cohort; ``process`` and ``replica`` are taken one by one.

        Returns
        -------
        xarray.Dataset
            ``phase`` (…, step), from 1, and 0 where there is no training error, as after a divergence;
            ``boundary_epoch`` and ``boundary_time`` (…, boundary):
            epoch and gradient-flow time of the first record of each phase but the first, NaN where it was not reached, or
            began before the first record; ``crossing_epoch`` and ``crossing_time``: where the error crossed the threshold
            between the records at ``crossing_epoch_lower`` and ``crossing_epoch_upper`` (the same for time);
            ``transition_p_value`` (…, boundary): the probability of such a fall under stationary noise, NaN with fewer
            than 7 records. With two replicas or more, also all that `mean_boundaries` returns.

        Raises
        ------
        ConfigurationError
            If the training errors were not recorded or are all NaN, or some replicas have mislabeled samples and others
            none.
        """
        root = root_of(trajectory)
        require(root, "train_error", "time")
        errors = root["train_error"]
        if errors.size and not bool(errors.sel(cohort="all").notnull().any()):
            raise ConfigurationError(
                "every training error is NaN: expected errors of labels that are one class a sample, since phases are told "
                "from their fall; look at train_loss instead"
            )
        noisy = bool(errors.sel(cohort="mislabeled").notnull().any())
        names = FOUR_PHASES if noisy else TWO_PHASES
        wrong, seen = (errors.sel(cohort=name).notnull().any("step") for name in ("mislabeled", "all"))
        if noisy and not bool((wrong | ~seen).all()):
            raise ConfigurationError(
                "some replicas have mislabeled samples and some have none: expected all alike, since they pass through four "
                "phases and two; select replicas of one kind"
            )
        boundaries = [f"{before}|{after}" for before, after in pairwise(names)]
        phase, position, before, after, p_value = xr.apply_ufunc(
            partial(self._labelled, len(boundaries)),
            errors.sel(cohort=["all", "correct", "mislabeled"]),
            root["time"].reset_coords(drop=True),
            input_core_dims=[["step", "cohort"], ["step"]],
            output_core_dims=[["step"], *[["boundary"]] * 4],
            vectorize=True,
        )
        phase = phase.astype(np.int8)
        phase.attrs = {"long_name": "phase of learning", "units": "1", "flag_meanings": " ".join(names)}
        p_value.attrs = {"long_name": "probability of such a fall under stationary noise", "units": "1"}
        result = xr.Dataset({"phase": phase, "transition_p_value": p_value})
        for clock in ("epoch", "time"):
            if clock in root.coords:
                moments = root[clock]
                firsts = [moments.where(phase >= number).min("step") for number in range(2, len(names) + 1)]
                first = xr.concat(firsts, "boundary").transpose(..., "boundary").where(position.notnull())
                result[f"boundary_{clock}"] = first.assign_attrs(
                    long_name=f"{clock} at which a phase begins", units="1"
                )
                result = result.assign(_crossings({"": position, "_lower": before, "_upper": after}, moments))
        result = result.assign_coords(boundary=boundaries)
        if result.sizes.get("replica", 1) > 1:
            result = result.assign(mean_boundaries(result, level=self.level))
        return result.assign_coords(root.coords)

    def _labelled(self, n_boundaries: int, errors: Floats, time: Floats) -> tuple[Floats, ...]:
        """Label the records with training errors, 0 elsewhere; crossings, and those around them, in units of records."""
        known = np.flatnonzero(np.isfinite(errors if n_boundaries > 1 else errors[:, :1]).all(1))
        phases, nothing = np.zeros(len(errors)), np.full(n_boundaries, np.nan)
        if not len(known):
            return phases, nothing, nothing, nothing, nothing
        used = errors[known]
        p_values = np.array([self._p_value(each) for each in (used.T[[1, 2, 0]] if n_boundaries > 1 else used.T[:1])])
        # NaN, of too few records, is not below anything.
        fallen = p_values <= self.significance / n_boundaries
        found, crossings = self._four(used, fallen, time[known]) if n_boundaries > 1 else self._two(used, fallen)
        starts = np.array([np.argmax(found >= number) for number in range(2, n_boundaries + 2)])
        crossings = np.minimum.accumulate(crossings[::-1])[::-1]  # a phase that is skipped ends where the next does
        crossings = np.where(np.isfinite(crossings), crossings, starts - 0.5)
        # The argmax of nothing is 0, too: either not reached, or there from the first record on.
        crossings, phases[known] = np.where(starts > 0, crossings, np.nan), found
        after = np.ceil(crossings)
        position, lower, upper = (
            np.where(np.isfinite(each), np.interp(each, np.arange(len(known)), known), np.nan)
            for each in (crossings, after - 1, after)
        )
        return phases, position, lower, upper, p_values

    def _p_value(self, errors: Floats) -> float:
        try:
            return decline_p_value(errors, correlation=self.correlation)
        except EstimationRefused:
            return np.nan

    def _fitted(self, everything: Floats, fallen: np.bool_) -> NDArray[np.int64]:
        """Return where all samples are fitted: in all records or none, unless their error has fallen."""
        if fallen:
            return _steps_up(everything <= self.fitted)
        return np.full(len(everything), int(np.median(everything) <= self.fitted))

    def _two(self, errors: Floats, fallen: NDArray[np.bool_]) -> tuple[NDArray[np.int64], Floats]:
        everything = errors[:, 0]
        return 1 + self._fitted(everything, fallen[0]), np.array([_crossing(everything, self.fitted)])

    def _four(self, errors: Floats, fallen: NDArray[np.bool_], time: Floats) -> tuple[NDArray[np.int64], Floats]:
        everything, correct, wrong = errors.T
        fitted = self._fitted(everything, fallen[2])
        highest = np.maximum.accumulate(wrong)
        memorising = (_steps_up(wrong < (1 - self.forgotten) * highest) if fallen[1] else 0) | fitted
        # Only records before memorisation tell how low the correct samples' error falls on its own.
        before = correct[memorising == 0] if (memorising == 0).any() else correct[:1]
        whole_fall = correct[0] - before.min()
        learned = _steps_up((whole_fall > 0) & (correct[0] - correct >= self.learned * whole_fall)) if fallen[0] else 0
        if np.any(learned) and not memorising.any():
            begin = time[np.argmax(learned)]
            if time[-1] - begin < begin - time[0]:  # the fall may go on
                learned, fallen = 0 * memorising, fallen & [False, True, True]
        phases = 1 + (learned | memorising) + memorising + fitted
        lowest, top, flat = before.min(), highest.max(), phases == 2
        if flat.any():
            lowest, top = np.median(correct[flat]), np.median(wrong[flat])
        levels = (correct[0] - self.learned * (correct[0] - lowest), (1 - self.forgotten) * top, self.fitted)
        crossings = [
            _crossing(series, level) for series, level in zip((correct, wrong, everything), levels, strict=True)
        ]
        return phases, np.where(fallen, crossings, np.inf)


def detect_phases(trajectory: xr.DataTree | xr.Dataset, **parameters: Any) -> xr.Dataset:
    """Label a trajectory with its phases of learning: two without label noise, four with.

    Parameters
    ----------
    trajectory : xarray.DataTree or xarray.Dataset
        With ``train_error`` by cohort.
    **parameters : float
        Of `PhaseDetector`.

    Returns
    -------
    xarray.Dataset
        See `PhaseDetector`.

    Examples
    --------
    >>> errors = np.array([0.9, 0.7, 0.3, 0.1, 0.02, 0.0, 0.0, 0.0])
    >>> trajectory = xr.Dataset(
    ...     {"train_error": (("step", "cohort"), np.stack([errors, errors, np.full(8, np.nan)], axis=1))},
    ...     coords={"cohort": ["all", "correct", "mislabeled"], "time": ("step", np.arange(8.0))},
    ... )
    >>> phases = detect_phases(trajectory)
    >>> phases.boundary_time.values, phases.crossing_time.values
    (array([5.]), array([4.5]))
    >>> np.unique(detect_phases(0 * trajectory + 0.5).phase)  # no transition
    array([1], dtype=int8)
    """
    return PhaseDetector(**parameters)(trajectory)


def phase_means(values: xr.DataArray, phases: xr.Dataset) -> xr.DataArray:
    """Return the mean of a quantity over the records of each phase of learning.

    Parameters
    ----------
    values : xarray.DataArray, shape (..., replica, step)
        Recorded on any clock with the coordinate ``epoch`` or ``time``; missing values are left out.
    phases : xarray.Dataset
        Of `PhaseDetector`, with boundaries on that clock, of the same replicas. A phase that the first record is in
        already, and so has no boundary, is taken to have begun before.

    Returns
    -------
    xarray.DataArray, shape (..., replica, phase)
        NaN for a phase that was not reached, or in which there is no record.

    Raises
    ------
    ConfigurationError
        If the values have no clock, or the boundaries are on none of its coordinates.

    Examples
    --------
    >>> clock = {"epoch": ("step", [0.0, 1.0, 2.0, 3.0])}
    >>> values = xr.DataArray([[4.0, 2.0, 1.0, 0.0]], dims=("replica", "step"), coords=clock)
    >>> phase = xr.DataArray([[1, 1, 2, 2]], dims=("replica", "step"), attrs={"flag_meanings": "fast slow"})
    >>> phases = xr.Dataset({"boundary_epoch": (("replica", "boundary"), [[2.0]]), "phase": phase})
    >>> phase_means(values, phases).values
    array([[3. , 0.5]])
    """
    clock = next((name for name in ("epoch", "time") if name in values.coords and f"boundary_{name}" in phases), None)
    if clock is None:
        raise ConfigurationError(
            f"values have the coordinates {', '.join(map(str, values.coords)) or 'none'}: expected epoch or time, on which "
            "the phases have boundaries too, since records belong to the phase that their clock says"
        )
    at = values[clock].reset_coords(drop=True)
    begin = phases[f"boundary_{clock}"].reset_coords(drop=True)
    known = phases["phase"] > 0
    at_first = phases["phase"].isel(step=known.argmax("step"), drop=True).reset_coords(drop=True)
    began_before = xr.concat([at_first >= k + 2 for k in range(begin.sizes["boundary"])], "boundary")
    begin = begin.drop_vars("boundary", errors="ignore").where(~began_before, -np.inf)
    begun = [(k + 2) * (at >= begin.isel(boundary=k, drop=True)) for k in range(begin.sizes["boundary"])]
    number = xr.concat([xr.ones_like(at), *begun], "boundary").max("boundary")
    names = phases["phase"].attrs["flag_meanings"].split()
    pieces = [values.where(number == k + 1).mean(str(at.dims[-1])) for k in range(len(names))]
    found = xr.concat(pieces, xr.Variable("phase", names)).transpose(..., "phase")
    return found.assign_attrs(values.attrs)


def mean_boundaries(phases: xr.Dataset, *, level: float = 0.95) -> xr.Dataset:
    """Return the mean boundaries over replicas with intervals that hold for few replicas and coarse records.

    The interval is Student's t of the crossings x_r over R replicas, widened by the records b_r < x_r ≤ a_r between which
    they lie,

        [x̄ − t s/√R − mean(x − b),  x̄ + t s/√R + mean(a − x)],

    since linear interpolation between coarse records errs in the same direction in all replicas, which their spread does
    not show: where all fall into the same record interval, that is the interval. The mean is that of the crossings of the
    noiseless curves; a replica that does not reach a boundary makes it undefined, for a mean over those only that were fast
    enough would be too early. Percentile bootstraps over 4 replicas cover about 80 % where they say 95.

    Parameters
    ----------
    phases : xarray.Dataset
        Of `PhaseDetector`: ``crossing_epoch`` (…, replica, boundary) with its lower and upper records, or those of time.
    level : float, optional
        Coverage of the intervals.

    Returns
    -------
    xarray.Dataset
        ``mean_boundary_epoch``, ``mean_boundary_epoch_lower``, ``mean_boundary_epoch_upper`` (…, boundary), the same for
        ``time``, NaN unless all replicas reached the boundary; ``reached_count``: how many did.

    Raises
    ------
    EstimationRefused
        For fewer than two replicas, which have no spread.
    ConfigurationError
        If there are no crossings.

    Examples
    --------
    >>> values = {"crossing_time": [2.2, 2.4], "crossing_time_lower": [2.0, 2.0], "crossing_time_upper": [3.0, 3.0]}
    >>> phases = xr.Dataset({name: ("replica", each) for name, each in values.items()})
    >>> result = mean_boundaries(phases)
    >>> result.mean_boundary_time.item(), round(result.mean_boundary_time_upper.item(), 3)  # 2.3 + 12.706/10 + 0.7
    (2.3, 4.271)
    """
    n_replicas = phases.sizes.get("replica", 1)
    if n_replicas < 2:
        raise EstimationRefused(
            f"intervals of mean boundaries need at least 2 replicas, got {n_replicas}: one has no spread, and how much "
            "boundaries differ from run to run cannot be said; simulate more replicas",
            replicas=n_replicas,
            needed=2,
        )
    clocks = [clock for clock in ("epoch", "time") if f"crossing_{clock}" in phases]
    if not clocks:
        require(phases, "crossing_epoch")
    result = xr.Dataset()
    for clock in clocks:
        crossing = phases[f"crossing_{clock}"].reset_coords(drop=True)
        moments = mean_with_interval(crossing, level=level)
        complete = moments["count"] == n_replicas
        before = (crossing - phases[f"crossing_{clock}_lower"]).mean("replica")
        after = (phases[f"crossing_{clock}_upper"] - crossing).mean("replica")
        ends = {
            "": (moments["mean_value"], "mean over replicas of"),
            "_lower": (moments["lower"] - before, "lower end of the interval of"),
            "_upper": (moments["upper"] + after, "upper end of the interval of"),
        }
        for end, (values, words) in ends.items():
            attributes = {"long_name": f"{words} the {clock} at which a phase begins", "units": "1"}
            result[f"mean_boundary_{clock}{end}"] = values.where(complete).assign_attrs(attributes)
        result["reached_count"] = moments["count"].assign_attrs(long_name="replicas that reached the phase", units="1")
    return result


def _disagreements(indicator: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Return with how many records each rising 0-1 step disagrees, by the record at which it rises."""
    ones_before = np.concatenate([[0], np.cumsum(indicator)])
    zeros_after = np.concatenate([np.cumsum(~indicator[::-1])[::-1], [0]])
    return np.asarray(ones_before + zeros_after)


def _steps_up(indicator: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Return the rising 0-1 step that disagrees with the fewest records; the last of equally good ones."""
    split = len(indicator) - int(np.argmin(_disagreements(indicator)[::-1]))
    return (np.arange(len(indicator)) >= split).astype(np.int64)


def _crossing(errors: Floats, level: float) -> float:
    """Return where errors fall through a level for good, in records: infinity if they lie on one side of it."""
    disagreements = _disagreements(errors <= level)
    best = np.flatnonzero(disagreements == disagreements.min())
    # The last of equally good steps alone would be late, the more so the finer the records.
    after = best[[0, -1]]
    if after[0] == 0 or after[1] == len(errors):
        return np.inf
    # The best steps lie between a record above the level and one that is not: else a neighbour would be better.
    above, below = errors[after - 1] - level, errors[after] - level
    return float((after - 1 + above / (above - below)).mean())


def _crossings(ends: Mapping[str, xr.DataArray], clock: xr.DataArray) -> xr.Dataset:
    """Return what a clock says at positions in units of records, and at the records around them."""

    def read(positions: Floats, times: Floats) -> Floats:
        return np.where(np.isfinite(positions), np.interp(positions, np.arange(len(times)), times), np.nan)

    words = {
        "": "where the error crosses the threshold",
        "_lower": "of the record before",
        "_upper": "of the record after",
    }
    result = xr.Dataset()
    for end, places in ends.items():
        result[f"crossing_{clock.name}{end}"] = xr.apply_ufunc(
            read,
            places,
            clock.reset_coords(drop=True),
            input_core_dims=[["boundary"], ["step"]],
            output_core_dims=[["boundary"]],
            vectorize=True,
        ).assign_attrs(long_name=f"{clock.name} {words[end]}", units="1")
    return result
