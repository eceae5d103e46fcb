"""Rates of transitions between two valleys, from recorded weights."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from scipy.special import gammaincinv

from langevin_nn.analyzers.labels import described, group_with
from langevin_nn.checks import number
from langevin_nn.errors import ConfigurationError, EstimationRefused

__all__ = ["TransitionRates"]

# Of records one relaxation time apart: up to there the law of what is missed between them holds.
_LEAST_CORRELATION = float(np.exp(-1))
# Up to here it holds whatever is missed; beyond, only where every second record misses no more than this share.
_FINE_CORRELATION, _MOST_MISSED = 0.85, 0.02


@dataclass(frozen=True)
class TransitionRates:
    """How often replicas go from one core set to another: transitions over time spent.

    A replica belongs to the core that it visited last, so that to and fro at the barrier is not counted (Schütte et al.
    2011, doi 10.1063/1.3590108). Rates are the number of transitions over the time spent. Their variance is that of a Poisson
    number, or that of counts between replicas where it is larger: near the barrier a replica comes back soon and transitions
    come in bursts, which replicas tell and a single one does not.

    **Between records.** Records k updates apart miss visits to the edge of a core that end before the next: a path that is
    looked at every Δ seems to have its edges further off by a length of the order √Δ (Broadie, Glasserman & Kou 1997, doi
    10.1111/1467-9965.00035). So the rate r(k) falls as r(1) − r(k) ∝ √k − 1, and from r(k) and the rate r(2k) of every second
    record,

        r(1) = r(k) + (r(k) − r(2k)) (1 − k^−½)/(√2 − 1),

    which changes nothing where each update is recorded. The law is that of records much denser than the relaxation time
    within a valley: where neighbours correlate by 0.85 or more, rates came out right to about 1 % in double wells with 1 to
    5 % missed by every second record. On coarser ones it falls short, the more the closer cores are to the barrier: by 8 to
    12 % where 5 to 6 % of the transitions are missed, by 3 to 5 % at 2 to 3 %, by 1 % at 1.5 %. So there the rate is refused
    where more than 2 % are missed, by more than the error of that number; and where neighbours hardly correlate, since visits
    leave no trace then.

    Parameters
    ----------
    below, above : float
        The cores: where the coordinate is at most `below`, or at least `above`.
    parameter : int, optional
        The coordinate.
    least_correlation : float, optional
        Correlation of neighbouring records within a valley below which rates are refused; with 0, those of visits that
        records see are given there as they are, and those with too many missed as well: lower bounds.
    level : float, optional
        Coverage of intervals.

    Raises
    ------
    ConfigurationError
        If the cores overlap.

    Examples
    --------
    >>> weights = xr.DataArray([[[-1.0], [0.2], [1.0], [1.0], [-1.0]]], dims=("replica", "weight_step", "parameter"))
    >>> clocks = {"time": ("weight_step", np.arange(5.0)), "weight_step": np.arange(5)}
    >>> trajectory = xr.Dataset({"weights": weights}, coords=clocks)
    >>> rates = TransitionRates(-0.5, 0.5)(trajectory)
    >>> rates.transition_rate.sel(valley="below").item(), rates.transition_rate.sel(valley="above").item()
    (0.5, 0.5)
    """

    below: float
    above: float
    parameter: int = 0
    least_correlation: float = _LEAST_CORRELATION
    level: float = 0.95

    def __post_init__(self) -> None:
        number("least_correlation", self.least_correlation, "a number from 0 to below 1", least=0, below=1)
        number("level", self.level, "a number between 0 and 1, the coverage of intervals", above=0, below=1)
        if not self.below < self.above:
            raise ConfigurationError(
                f"below={self.below} and above={self.above}: expected the first core below the second, with a barrier between"
            )

    def __call__(self, trajectory: xr.DataTree | xr.Dataset) -> xr.Dataset:
        """Estimate the rates.

        Parameters
        ----------
        trajectory : xarray.DataTree or xarray.Dataset
            With weights, or their group.

        Returns
        -------
        xarray.Dataset
            ``transition_rate`` out of each valley with its standard error and, for few transitions too, ``_lower`` and
            ``_upper``, those of a Poisson number (Garwood 1936, doi 10.1093/biomet/28.3-4.437); ``transitions`` that records
            see, ``time_spent``, ``record_correlation``, and ``occupancy``, the share of replicas in the upper valley over
            time.

        Raises
        ------
        EstimationRefused
            If no replica ever is in a core, or records are too coarse to say what they miss.
        """
        dataset = group_with(trajectory, "weights", "time")
        position = dataset["weights"].isel(parameter=self.parameter).transpose("replica", "weight_step").values
        core = _last_core(position, self.below, self.above)
        if not np.isfinite(core).any():
            raise EstimationRefused(
                f"no replica is ever below {self.below:g} or above {self.above:g}: expected weights that visit the cores; "
                "choose others",
                lowest=float(np.nanmin(position)),
                highest=float(np.nanmax(position)),
            )
        times = dataset["time"].values
        left_by_replica, spent_by_replica = _visits(core, times)
        left, spent = left_by_replica.sum(1), spent_by_replica.sum(1)
        counted = "weight_step" in dataset.coords and len(times) > 1
        gap = float(np.diff(dataset["weight_step"].values).max()) if counted else np.inf  # updates between records
        correlation = _correlation(position, core)
        if not spent.any():
            raise EstimationRefused(
                f"{len(times)} records, in which no replica spends any time after it was in a core: expected two at least, "
                "since a rate is a number of transitions over time; record for longer",
                records=len(times),
            )
        coarse = gap > 1 and correlation < _LEAST_CORRELATION
        if coarse and correlation < self.least_correlation:
            raise EstimationRefused(
                f"neighbouring records within a valley, {np.diff(times).mean():g} apart, correlate by {correlation:.2g}: "
                f"expected at least {self.least_correlation:.2g}, since a replica enters and leaves a core unseen otherwise "
                "and the rate comes out too small; record more often, or take what records see as a lower bound with "
                "least_correlation=0",
                record_interval=float(np.diff(times).mean()),
                correlation=correlation,
                transitions=left.tolist(),
                time_spent=spent.tolist(),
            )
        weight = 0.0 if coarse else (1 - gap**-0.5) / (2**0.5 - 1)
        seldom = [
            _visits(_last_core(position[:, first::2], self.below, self.above), times[first::2]) for first in (0, 1)
        ]
        with np.errstate(divide="ignore", invalid="ignore"):
            jumps, waits = (seldom[0][part] + seldom[1][part] for part in (0, 1))
            of_seldom = jumps.sum(1) / waits.sum(1)
            missed = np.nan_to_num(left - of_seldom * spent) if weight else 0 * spent
            self._check_missed(missed.sum(), left.sum(), correlation, gap)
            counts = left + weight * missed
            # What is missed is a part of a Poisson number, and so Poisson itself.
            variance = np.maximum(left, 1) + (weight**2 + 2 * weight) * np.maximum(missed, 0)
            own = left_by_replica + weight * (left_by_replica - jumps / 2)
            variance = np.fmax(variance, _between(own, spent_by_replica))
            rates, errors = counts / spent, np.sqrt(variance) / spent
            # Of a Poisson number of the same relative error.
            number_of = counts**2 / variance
            unit = np.where(counts > 0, counts / number_of, 1.0) / spent
            ends = [gammaincinv(number_of, 0.5 - self.level / 2), gammaincinv(number_of + 1, 0.5 + self.level / 2)]
            lower, upper = np.where(counts > 0, ends[0], 0.0) * unit, ends[1] * unit
        known = np.isfinite(core)
        with np.errstate(invalid="ignore"):
            share = np.where(known, core, 0).sum(0) / known.sum(0)
        interval = f"{self.level:.0%} interval of the rate"
        of_valleys = {
            "transition_rate": (rates, "rate of transitions out of a valley", "time-1"),
            "transition_rate_standard_error": (errors, "standard error of the rate", "time-1"),
            "transition_rate_lower": (lower, f"lower end of the {interval}", "time-1"),
            "transition_rate_upper": (upper, f"upper end of the {interval}", "time-1"),
            "transitions": (left, "number of transitions out of a valley"),
            "time_spent": (spent, "time spent in a valley, over all replicas", "time"),
        }
        variables = {name: described(["valley"], *each) for name, each in of_valleys.items()} | {
            "occupancy": described(["weight_step"], share, "share of replicas in the upper valley"),
            "record_correlation": described([], correlation, "correlation of neighbouring records within a valley"),
        }
        return xr.Dataset(variables, coords={"valley": ["below", "above"], "time": dataset["time"]})

    def _check_missed(self, missed: float, left: float, correlation: float, gap: float) -> None:
        fine = gap <= 1 or correlation >= _FINE_CORRELATION or correlation < _LEAST_CORRELATION
        if fine or not self.least_correlation or missed - max(missed, 0) ** 0.5 <= _MOST_MISSED * left:
            return
        raise EstimationRefused(
            f"every second record misses {missed:.3g} of {left:g} transitions, and neighbouring records within a valley "
            f"correlate by {correlation:.2g}: expected at most {_MOST_MISSED:.0%}, or a correlation of at least "
            f"{_FINE_CORRELATION:g}, since what all records miss cannot be told otherwise and the rate comes out too small; "
            "record more often, or choose cores further from the barrier",
            missed=missed,
            transitions=left,
            correlation=correlation,
        )


def _visits(core: NDArray[np.float64], times: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the number of transitions out of each valley, and the time spent in it, both (valley, replica)."""
    intervals, before, after = np.diff(times), core[:, :-1], core[:, 1:]
    left = np.array([((before == state) & (after == 1 - state)).sum(1) for state in (0, 1)])
    return left, np.array([(intervals * (before == state)).sum(1) for state in (0, 1)])


def _between(counts: NDArray[np.float64], spent: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the variance of sums of counts, from how they scatter between replicas about their common rate."""
    replicas = (spent > 0).sum(1)
    rest = counts - spent * (counts.sum(1) / spent.sum(1))[:, None]
    return np.where(replicas > 1, (rest**2).sum(1) * replicas / (replicas - 1), np.nan)


def _correlation(position: NDArray[np.float64], core: NDArray[np.float64]) -> float:
    """Return the correlation of neighbouring records of one valley about its mean; 1 where nothing varies."""
    products = squares = 0.0
    for state in (0, 1):
        stays = (core[:, :-1] == state) & (core[:, 1:] == state)
        if stays.any():
            now, then = position[:, :-1][stays], position[:, 1:][stays]
            centre = (now.mean() + then.mean()) / 2
            products += float(((now - centre) * (then - centre)).sum())
            squares += float(((now - centre) ** 2 + (then - centre) ** 2).sum()) / 2
    return products / squares if squares > 0 else 1.0


def _last_core(position: NDArray[np.float64], below: float, above: float) -> NDArray[np.float64]:
    """Return 0 or 1 for the core visited last, NaN before the first visit and after divergence; shape (replica, record)."""
    core = np.where(position <= below, 0.0, np.where(position >= above, 1.0, np.nan))
    last = np.where(np.isfinite(core), np.arange(core.shape[1]), -1)
    np.maximum.accumulate(last, axis=1, out=last)
    filled = np.take_along_axis(core, np.maximum(last, 0), axis=1)
    dead = np.logical_or.accumulate(~np.isfinite(position), axis=1)
    return np.asarray(np.where((last >= 0) & ~dead, filled, np.nan))
