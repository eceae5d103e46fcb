"""Order parameters from averages over time, in the place of averages over all minibatches at fixed weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from langevin_nn.analyzers.labels import require
from langevin_nn.checks import listed, whole_number
from langevin_nn.errors import ConfigurationError, EstimationRefused
from langevin_nn.observables import describe

__all__ = ["TimeAveragedOrderParameters"]

LEAST_UPDATES = 4

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class TimeAveragedOrderParameters:
    """A, A₀, R and σ_λ² from weights recorded at each update of a window, as one would measure them without an ensemble.

    Under plain SGD g^μ(t) = −(w(t+1) − w(t))/α, so that n + 1 consecutive weights give n minibatch gradients along the way.
    The definitions are those of the ensemble (Feng & Tu 2021, doi 10.1088/2632-2153/abf5b9, section 2) with averages over the
    updates of a window in the place of averages over minibatches, as in their earlier work (doi 10.1073/pnas.2015617118):

        A = (1/n) Σ ‖g_t‖²,   D = Tr S/(1 + κ),   A₀ = A − D,   σ_λ² = [m̄ᵀ S m̄/(1 + κ) − v T₂]/A₀²,

    S = Σ (g_t − m̄)(g_t − m̄)ᵀ/(n − 1) about the mean m̄, and R is the A₀ of the unit vectors ĝ_t. What averages over few
    updates would add is taken off: ‖m̄‖² contains D v, and m̄ᵀ S m̄ contains v Tr C², v = [1 − (n − 1)κ]/n, with T₂ the
    estimate of Tr C² that is unbiased for independent Gaussian gradients. Two minibatches of one shuffled epoch covary as
    −C B/(N − B); κ is that factor times the share of pairs that lie within one epoch, 0 where minibatches are drawn
    independently. At fixed weights A, A₀ and D are then without bias, R to leading order, and σ_λ² in its numerator; over a
    whole shuffled epoch that B divides, m̄ is the gradient itself.

    Weights are not fixed, and two things make these averages differ from the ensemble's: the gradient changes within a
    window, which counts as noise; and a step taken along a minibatch's own noise is undone by the gradients after it, so that
    pairs of gradients covary as −α Tr(H C) and less, which lowers A₀ and R. Where it makes A₀ negative, σ_λ² is NaN.

    Parameters
    ----------
    length : int, optional
        Updates in a window, into which longer stretches of consecutive records are cut; each stretch is one unless given.
    n_samples, batch_size : int, optional
        N and B where minibatches come from shuffled epochs, as those of `langevin_nn.sgd` do; leave both out where they are
        drawn independently.
    parameters : sequence of int, optional
        Positions, among those recorded, of the parameters to measure; all unless given.

    Raises
    ------
    ConfigurationError
        If a number is out of its range, or only one of N and B is given.

    Examples
    --------
    >>> gradients = np.array([[1.0, 1.0], [1.0, -1.0], [1.0, 1.0], [1.0, -1.0]])
    >>> weights = np.cumsum(np.vstack([np.zeros(2), -0.1 * gradients]), axis=0)
    >>> trajectory = xr.Dataset(
    ...     {"weights": (("replica", "weight_step", "parameter"), weights[None])},
    ...     coords={"weight_step": np.arange(5), "learning_rate": ("replica", [0.1])},
    ... )
    >>> found = TimeAveragedOrderParameters(n_samples=4, batch_size=1)(trajectory).isel(window=0, replica=0)
    >>> [round(found[name].item(), 6) for name in ("activity", "directed_activity", "noise_strength", "alignment")]
    [2.0, 1.0, 1.0, 0.5]
    >>> abs(round(found.projection_variance.item(), 6))
    0.0
    """

    length: int | None = None
    n_samples: int | None = None
    batch_size: int | None = None
    parameters: Sequence[int] | None = None

    def __post_init__(self) -> None:
        if self.length is not None:
            expected = f"at least {LEAST_UPDATES} updates (int), of which moments are taken"
            whole_number("length", self.length, expected, least=LEAST_UPDATES)
        if (self.n_samples is None) != (self.batch_size is None):
            raise ConfigurationError(
                f"n_samples={self.n_samples} and batch_size={self.batch_size}: expected both, for shuffled epochs, or "
                "neither, for minibatches drawn independently"
            )
        if self.n_samples is not None and self.batch_size is not None:
            size = whole_number("batch_size", self.batch_size, "at least 1 sample (int)", least=1)
            expected = f"more samples (int) than the {size} of a minibatch, since one that holds all has no noise"
            whole_number("n_samples", self.n_samples, expected, least=size + 1)

    def __call__(self, trajectory: xr.DataTree | xr.Dataset) -> xr.Dataset:
        """Average over the windows of a trajectory.

        Parameters
        ----------
        trajectory : xarray.DataTree or xarray.Dataset
            With ``weights`` (replica, weight_step, parameter) at consecutive steps, and ``learning_rate`` (replica).

        Returns
        -------
        xarray.Dataset
            ``activity``, ``directed_activity``, ``noise_strength``, ``projection_variance`` and ``alignment``
            (replica, window), and ``rounding_activity``, what rounding of the recorded weights adds to the activity.
            Coordinates along ``window``: ``first_step``, ``updates``, and the middle on the recorded clocks, ``epoch``
            and ``time``.

        Raises
        ------
        ConfigurationError
            If weights or learning rate are missing, or the run has momentum.
        EstimationRefused
            If weights were not recorded at enough consecutive steps.
        """
        dataset = _with_rates(trajectory)
        require(dataset, "weights", "weight_step", "learning_rate")
        rates = np.atleast_1d(np.asarray(dataset["learning_rate"].values, dtype=np.float64))
        effective = np.atleast_1d(dataset.get("effective_learning_rate", dataset["learning_rate"]).values)
        if not np.allclose(rates, effective):
            raise ConfigurationError(
                f"the run has learning rates {rates} and effective ones {effective}: expected plain SGD, whose steps are "
                "minibatch gradients; with momentum they are sums of many"
            )
        weights = dataset["weights"].transpose("replica", "weight_step", "parameter")
        if self.parameters is not None:
            weights = weights.isel(parameter=self._chosen(weights.sizes["parameter"]))
        steps = np.asarray(dataset["weight_step"].values, dtype=np.int64)
        windows = self._windows(steps)
        rows = [self._averages(weights.values[:, window], rates, steps[window][:-1]) for window in windows]
        found = {
            name: (("replica", "window"), np.stack([row[name] for row in rows], axis=1), _described(name))
            for name in rows[0]
        }
        first, last = np.array([(window.start, window.stop - 1) for window in windows]).T
        clocks: dict[str, Any] = {
            clock: ("window", (dataset[clock].values[first] + dataset[clock].values[last]) / 2)
            for clock in ("epoch", "time")
            if clock in dataset.coords and dataset[clock].dims == ("weight_step",)
        }
        clocks |= {"first_step": ("window", steps[first]), "updates": ("window", last - first)}
        kept = {"replica": dataset["replica"]} if "replica" in dataset.coords else {}
        return xr.Dataset(found, coords=clocks | kept)

    def _chosen(self, recorded: int) -> list[int]:
        expected = f"positions (int) from 0 to {recorded - 1} among the parameters that were recorded, at least one"
        chosen = listed("parameters", self.parameters, expected)
        if not chosen:
            raise ConfigurationError(f"parameters=(): expected {expected}")
        return [whole_number("parameters", each, expected, least=0, most=recorded - 1) for each in chosen]

    def _windows(self, steps: NDArray[np.int64]) -> list[slice]:
        """Return the stretches of consecutive records, cut to length; what is shorter is left out."""
        edges = [0, *(np.flatnonzero(np.diff(steps) != 1) + 1), len(steps)]
        windows = []
        for begin, end in pairwise(edges):
            updates = end - begin - 1
            size = self.length or updates
            windows += [
                slice(int(first), int(first) + size + 1)
                for first in range(begin, begin + updates - size + 1, max(size, 1))
                if size >= LEAST_UPDATES
            ]
        if not windows:
            longest = max((end - begin - 1 for begin, end in pairwise(edges)), default=0)
            raise EstimationRefused(
                f"weights were recorded over {max(longest, 0)} consecutive updates at most: expected windows of at least "
                f"{self.length or LEAST_UPDATES}, since each step between two records is one gradient; record them with "
                "Weights(AtSteps(range(first, last)))",
                longest=longest,
                needed=self.length or LEAST_UPDATES,
            )
        return windows

    def _averages(self, weights: NDArray[np.floating], rates: Floats, steps: NDArray[np.int64]) -> dict[str, Floats]:
        """Return the order parameters of each replica over one window."""
        kappa = self._anticorrelation(steps)
        rows = []
        for own, rate in zip(weights, np.broadcast_to(rates, len(weights)), strict=True):
            gradients = -np.diff(own.astype(np.float64), axis=0) / rate
            row = _moments(gradients @ gradients.T, kappa)
            # Half a unit in the last place at either end of a step, each uniform.
            row["rounding_activity"] = float((np.spacing(np.abs(own[:-1])).astype(np.float64) ** 2).sum(1).mean())
            row["rounding_activity"] *= 0.0 if own.dtype == np.float64 else 1 / (6 * rate**2)
            rows.append(row)
        return {name: np.array([row[name] for row in rows]) for name in rows[0]}

    def _anticorrelation(self, steps: NDArray[np.int64]) -> float:
        """Return κ: B/(N − B) times the share of pairs of updates within one epoch."""
        if self.n_samples is None or self.batch_size is None:
            return 0.0
        n = len(steps)
        sizes = np.unique(steps // (self.n_samples // self.batch_size), return_counts=True)[1]
        share = float((sizes * (sizes - 1)).sum()) / (n * (n - 1))
        return share * self.batch_size / (self.n_samples - self.batch_size)


def _moments(gram: Floats, kappa: float) -> dict[str, float]:
    """Return the order parameters of gradients with given inner products."""
    n = len(gram)
    activity, noise = _activity_and_noise(gram, kappa)
    directed = activity - noise
    centred = gram - gram.mean(0) - gram.mean(1)[:, None] + gram.mean()
    scatter, squared = float(np.trace(centred)) / (n - 1), float((centred**2).sum()) / (n - 1) ** 2
    of_square = (n - 1) ** 2 / ((n - 2) * (n + 1)) * (squared - scatter**2 / (n - 1)) / (1 + kappa) ** 2
    along = float(gram.mean(0).var(ddof=1)) / (1 + kappa) - (1 - (n - 1) * kappa) / n * of_square
    norms = np.sqrt(np.diag(gram))
    with np.errstate(divide="ignore", invalid="ignore"):
        unit, spread = _activity_and_noise(gram / np.outer(norms, norms), kappa)
    return {
        "activity": activity,
        "directed_activity": directed,
        "noise_strength": noise,
        "projection_variance": along / directed**2 if directed > 0 else np.nan,
        "alignment": unit - spread,
    }


def _activity_and_noise(gram: Floats, kappa: float) -> tuple[float, float]:
    n = len(gram)
    activity = float(np.trace(gram)) / n
    return activity, (activity - float(gram.mean())) * n / (n - 1) / (1 + kappa)


def _described(name: str) -> dict[str, str]:
    if name == "rounding_activity":
        return {"long_name": "activity due to rounding of weights", "units": "loss2 weight-2"}
    found = describe(name)
    return {"long_name": f"{found.long_name}, averaged over time", "units": found.units}


def _with_rates(trajectory: xr.DataTree | xr.Dataset) -> xr.Dataset:
    """Return the weights with the learning rates beside them, which a file has in its root."""
    if not isinstance(trajectory, xr.DataTree):
        return trajectory
    if "weights" not in trajectory.children:
        raise ConfigurationError(
            "the trajectory has no group of weights: expected those of consecutive steps; record them with "
            "Weights(AtSteps(range(first, last)))"
        )
    root = trajectory.to_dataset()
    rates = {name: root[name] for name in ("learning_rate", "effective_learning_rate") if name in root.variables}
    return trajectory["weights"].to_dataset().assign_coords(rates)
