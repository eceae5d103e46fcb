"""Whether fluctuations go around: probability currents in a plane, and the entropy that they produce."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from scipy.special import stdtr, stdtrit

from langevin_nn.analyzers.labels import (
    along_clock,
    described,
    evenly_spaced,
    group_with,
    over_replicas,
    record_intervals,
    way_to_record,
)
from langevin_nn.checks import listed, number, text, whole_number
from langevin_nn.errors import ConfigurationError, EstimationRefused
from langevin_nn.statistics.intervals import jackknife_error

__all__ = ["ProbabilityCurrents"]

Floats = NDArray[np.float64]

LEAST_RECORDS = 8


@dataclass(frozen=True)
class ProbabilityCurrents:
    """Circulation in a plane, and the entropy production rate of the linear dynamics that it belongs to.

    The circulation c = ⟨x(t) y(t+Δ) − y(t) x(t+Δ)⟩/Δ over the interval Δ between records, twice the area that chords from
    record to record enclose in unit time, cuts corners: ⟨x dy − y dx⟩/dt is its limit, and what the records of a linear
    process show is `langevin_nn.theory.circulation` with ``record_interval`` Δ. It is free of bias: it is zero on average
    for every process that is the same backwards, however its plane was found from the same records, as long as that does not
    depend on their order (as principal components do not; their projections on a random walk are Lissajous figures, each of
    which encloses an area, with either sign). Replicas must share a plane, or the signs of their c mean nothing.

    The entropy production rate is that of the stationary first-order autoregression with the measured covariances
    ⟨x xᵀ⟩ and ⟨x(t+1) x(t)ᵀ⟩, exactly: in coordinates in which these are 1 and [[m₁, a], [−a, m₂]], with
    p = 1 − m₁² − a², q = 1 − m₂² − a² and k = a (m₁ − m₂), it is

        2 a² [(m₁ − m₂)² + p + q]/(p q − k²)

    per record, the divergence of Kullback and Leibler between pairs of records and the same backwards; for densely
    recorded dx = −A x dt + noise of covariance 2D it becomes c² Tr(S⁻¹ D)/(4 det D) per time, for coarser
    records it is less: `langevin_nn.theory.entropy_production_rate` with ``record_interval`` Δ. a is proportional to c,
    whose square is larger by its
    variance on average, so that reversible dynamics would seem to produce entropy: the square is averaged over *pairs* of
    replicas instead, which takes that away; the estimate may be negative. A plane hides what goes around in others: the
    rate is a lower bound of the whole.

    A bound that needs no model is the thermodynamic uncertainty relation, 2 ⟨c⟩²/(t Var c) for currents over a time t
    (Barato & Seifert 2015, doi 10.1103/PhysRevLett.114.158101).

    Parameters
    ----------
    variable : str, optional
        As in the dataset, with dimensions ``replica``, ``component`` and a clock; of zero mean.
    plane : tuple of int, optional
        Positions of two components.
    level : float, optional
        Coverage of intervals.

    Raises
    ------
    ConfigurationError
        If a choice is not among those named.

    Examples
    --------
    A rotation by one tenth of a right angle a record, with noise:

    >>> generator = np.random.default_rng(0)
    >>> angle, state, rows = 0.05 * np.pi, np.zeros((2, 40)), []
    >>> turn = 0.9 * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    >>> for _ in range(1000):
    ...     state = turn @ state + generator.standard_normal((2, 40))
    ...     rows.append(state)
    >>> records = xr.Dataset({"projection": (("step", "component", "replica"), np.stack(rows)[100:])})
    >>> found = ProbabilityCurrents()(records)
    >>> round(found.entropy_production_rate.item(), 2), round(float(4 * 0.81 * np.sin(angle) ** 2 / 0.19), 2)
    (0.43, 0.42)
    """

    variable: str = "projection"
    plane: tuple[int, int] = (0, 1)
    level: float = 0.95

    def __post_init__(self) -> None:
        text("variable", self.variable, "the name of what is recorded")
        expected = "two positions (int) of components, one behind the other"
        places = [whole_number("plane", each, expected, least=0) for each in listed("plane", self.plane, expected)]
        if len(places) != 2 or places[0] == places[1]:
            raise ConfigurationError(f"plane={self.plane!r}: expected {expected}, different ones, which span a plane")
        number("level", self.level, "a number between 0 and 1, the coverage of intervals", above=0, below=1)

    def __call__(self, dataset: xr.DataTree | xr.Dataset) -> xr.Dataset:
        """Measure currents.

        Parameters
        ----------
        dataset : xarray.DataTree or xarray.Dataset
            Such as `PrincipalComponents(shared=True)` or `Fluctuations` return, evenly recorded.

        Returns
        -------
        xarray.Dataset
            ``circulation`` (replica), with its mean and t interval over replicas, and the ``p_value`` of a mean of zero;
            ``rotation_rate``, the mean angle that is gone around in unit time; ``entropy_production_rate`` with
            ``_standard_error`` (jackknife over replicas), ``_lower``, ``_upper``; ``entropy_production_bias``, by which it
            would be larger without pairs; ``entropy_production_bound`` of the uncertainty relation; ``record_interval`` Δ,
            over which all of them are measured. Time is that of the coordinate ``time`` along the clock, else that of the
            clock, else one record.

        Raises
        ------
        ConfigurationError
            If the variable or components are missing.
        EstimationRefused
            If there are fewer than two replicas, too few records, or they do not vary in the plane.
        """
        values = group_with(dataset, self.variable)[self.variable]
        if not {"replica", "component"} <= set(values.dims) or values.sizes["component"] <= max(self.plane):
            raise ConfigurationError(
                f"{self.variable!r} has the dimensions {dict(values.sizes)}: expected replica, a clock, and component "
                f"with the positions {self.plane}; "
                + ("find more components" if "component" in values.dims else way_to_record(["projection"]))
            )
        chosen = values.isel(component=list(self.plane)).transpose("component", "replica", ...)
        others = [name for name in chosen.dims if name not in ("component", "replica")]
        series, clock = along_clock(chosen, str(others[0]) if len(others) == 1 else None)
        series = evenly_spaced(series, clock)
        n_replicas, n_records = series.sizes["replica"], series.sizes[clock]
        if n_replicas < 2 or n_records < LEAST_RECORDS or not np.isfinite(series.values).all():
            raise EstimationRefused(
                f"{n_replicas} replicas of {n_records} records, {int(series.isnull().sum())} numbers missing: expected at "
                f"least 2 complete replicas of {LEAST_RECORDS} records, since squares are averaged over pairs; simulate more",
                replicas=n_replicas,
                records=n_records,
            )
        intervals = record_intervals(series, clock)
        interval = intervals.get("time", intervals.get("step", 1.0))
        moments = _Moments.of(series.values)
        plain, unbiased, determinant = moments.entropy_production()
        duration = (n_records - 1) * interval
        circulation = -2 * moments.odd / interval
        result = xr.Dataset(
            {"circulation": described(("replica",), circulation, "circulation from record to record", "weight2 time-1")}
        )
        if "replica" in series.coords:
            result = result.assign_coords(replica=series["replica"])
        result = over_replicas(result, ["circulation"], self.level)
        mean, error = (float(result[f"mean_circulation{part}"]) for part in ("", "_standard_error"))
        squared = mean**2 - error**2
        rate, bias = unbiased / interval, (plain - unbiased) / interval
        spread = np.nan  # of two, of which none can be left out
        if n_replicas > 2:
            rates = np.array([moments.without(k).entropy_production()[1] for k in range(n_replicas)])
            spread = float(jackknife_error(rates)) / interval
        half = float(stdtrit(n_replicas - 1, 0.5 + self.level / 2)) * spread
        scalars: dict[str, tuple[float, str, str]] = {
            "record_interval": (interval, "interval between two records", "time"),
            "p_value": (2 * float(stdtr(n_replicas - 1, -abs(mean) / error)), "p value of no circulation", "1"),
            "rotation_rate": (mean / (2 * np.sqrt(determinant)), "mean angular velocity", "time-1"),
            "entropy_production_rate": (rate, "entropy production rate", "time-1"),
            "entropy_production_rate_standard_error": (spread, "its standard error", "time-1"),
            "entropy_production_rate_lower": (rate - half, f"lower end of its {self.level:.0%} interval", "time-1"),
            "entropy_production_rate_upper": (rate + half, f"upper end of its {self.level:.0%} interval", "time-1"),
            "entropy_production_bias": (bias, "what squares of estimates would add to it", "time-1"),
            "entropy_production_bound": (
                2 * squared / (duration * n_replicas * error**2),
                "bound on the entropy production rate by the uncertainty of currents",
                "time-1",
            ),
        }
        return result.assign({name: described((), np.array(value), *rest) for name, (value, *rest) in scalars.items()})


@dataclass(frozen=True)
class _Moments:
    """Moments of each replica in the plane: ⟨x xᵀ⟩, and the even and the odd part of ⟨x(t+1) x(t)ᵀ⟩."""

    covariance: Floats
    even: Floats
    odd: Floats

    @classmethod
    def of(cls, series: Floats) -> _Moments:
        """Return the moments of series (component, replica, record)."""
        now, then = series[..., :-1], series[..., 1:]
        count = now.shape[-1]
        lagged = np.einsum("irt,jrt->rij", then, now) / count
        ends = sum(np.einsum("irt,jrt->rij", each, each) for each in (now, then)) / (2 * count)
        return cls(np.asarray(ends), (lagged + np.moveaxis(lagged, 1, 2)) / 2, (lagged[:, 0, 1] - lagged[:, 1, 0]) / 2)

    def without(self, replica: int) -> _Moments:
        """Return them without one replica."""
        return _Moments(*(np.delete(each, replica, 0) for each in (self.covariance, self.even, self.odd)))

    def entropy_production(self) -> tuple[float, float, float]:
        """Return the entropy per record by the square of a mean and by pairs of replicas, and det ⟨x xᵀ⟩."""
        covariance, even = self.covariance.mean(0), self.even.mean(0)
        values, vectors = np.linalg.eigh(covariance)
        if not values[0] > 1e-12 * values[1]:
            raise EstimationRefused(
                f"variances in the plane are {values[1]:g} and {values[0]:g}: expected both positive, since a plane is gone "
                "around in two directions; choose components that vary",
                variances=values.tolist(),
            )
        whitened = vectors / np.sqrt(values)
        first, second = np.linalg.eigvalsh(whitened.T @ even @ whitened)
        determinant = float(values[0] * values[1])
        n, total = len(self.odd), float(self.odd.sum())
        plain = (total / n) ** 2 / determinant
        unbiased = (total**2 - float((self.odd**2).sum())) / (n * (n - 1)) / determinant
        factor = _production_factor(float(first), float(second), max(unbiased, 0.0))
        return factor * plain, factor * unbiased, determinant


def _production_factor(first: float, second: float, squared: float) -> float:
    """Return the entropy production per record over a², in coordinates in which the covariance is 1."""
    p, q = 1 - first**2 - squared, 1 - second**2 - squared
    gap = (first - second) ** 2
    rest = p * q - squared * gap
    if min(p, q, rest) <= 0:
        raise EstimationRefused(
            f"neighbouring records correlate by {first:g} and {second:g}, and by {squared**0.5:g} across: expected less, "
            "since nothing is left for noise; record less often, or a longer stretch",
            correlations=(first, second, squared**0.5),
        )
    return 2 * (gap + p + q) / rest
