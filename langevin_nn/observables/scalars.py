"""Losses, errors and order parameters: the root group."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from langevin_nn.checks import one_of, whole_number
from langevin_nn.ensemble import GradientEnsemble
from langevin_nn.landscape import NetworkLandscape
from langevin_nn.memory import as_bytes
from langevin_nn.observables.base import Arrays, Observable, Snapshot, stacked
from langevin_nn.observables.variables import described
from langevin_nn.schedules import Schedule
from langevin_nn.threads import side_by_side

__all__ = ["DrivingNoise", "Losses", "OrderParameters", "default_observables"]


_MOST_MINIBATCHES = 100_000


def _array(tensor: Tensor) -> NDArray[np.float64]:
    return np.asarray(tensor.double().cpu())


def _by_cohort(values: NDArray[np.float64], mislabeled: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Average over all, the correct and the mislabeled samples: shape (replica, cohort)."""
    masks = np.stack([np.ones_like(mislabeled), ~mislabeled, mislabeled], axis=1).astype(np.float64)
    with np.errstate(invalid="ignore"):
        means: NDArray[np.float64] = np.einsum("rk,rck->rc", values, masks) / masks.sum(2)
    return means


@dataclass(frozen=True)
class Losses(Observable):
    """Training loss and error by cohort, each over its own samples; test loss and error where there are test data.

    Parameters
    ----------
    schedule : Schedule, optional
        When to record.
    batch_statistics : {"given", "recomputed"}, optional
        What batch normalisation takes in evaluation: the running means and variances that the network came with, or those
        of the training data at the weights that are measured, for processes with `BatchStatistics`.

    Raises
    ------
    UnknownNameError
        If there are no such statistics.
    """

    schedule: Schedule | None = None
    batch_statistics: Literal["given", "recomputed"] = "given"
    variables = described("train_loss", "train_error", "test_loss", "test_error")

    def __post_init__(self) -> None:
        super().__post_init__()
        one_of("batch_statistics", self.batch_statistics, ("given", "recomputed"))

    def measure(self, snapshot: Snapshot) -> Arrays:  # noqa: D102
        landscape, weights = snapshot.landscape, snapshot.state.weights
        if not isinstance(landscape, NetworkLandscape):
            total = _array(landscape.loss(weights))
            nothing = np.full_like(total, np.nan)
            return {"train_loss": np.stack([total, nothing, nothing], axis=1)}
        mislabeled = np.broadcast_to(landscape.cohort.cpu().numpy(), (len(weights), landscape.n_samples))
        if self.batch_statistics == "recomputed":
            landscape = landscape.with_recomputed_statistics()
            losses, errors = landscape.losses_and_errors(weights)
        else:
            losses, errors = snapshot.training
        measured = {"train_loss": _by_cohort(_array(losses), mislabeled)}
        has_error = landscape.has_error or not landscape.labels.is_floating_point()  # NaN where nobody says what one is
        if has_error:
            measured["train_error"] = _by_cohort(_array(errors), mislabeled)
        if landscape.test_inputs is not None:
            losses, errors = landscape.losses_and_errors(weights, test=True)
            measured["test_loss"] = _array(losses).mean(1)
            if has_error:
                measured["test_error"] = _array(errors).mean(1)
        return measured


@dataclass(frozen=True)
class OrderParameters(Observable):
    """All order parameters of the landscape's minibatch ensemble, by cohort, with R and its standard error.

    Parameters
    ----------
    n_minibatches : int, optional
        Independent minibatches from which R is estimated.
    schedule : Schedule, optional
        When to record.
    metric : {"euclidean", "preconditioned"}, optional
        Whether lengths and angles are those of the gradients, or of D^(−1/2) g with the preconditioner D of an update rule
        such as `Adam`, over its mean so that units stay.
    memory_limit : int or str, optional
        Budget of each replica's gradient ensemble, in bytes or as ``"512 MiB"``; 1 GiB unless said. Sample gradients of
        which half of it does not hold all are computed anew at each use, which takes longer.

    Raises
    ------
    ConfigurationError
        If minibatches are not counted by a whole number, or are more than can be drawn at once, there is no such metric, or
        the budget is none.
    """

    n_minibatches: int = 64
    schedule: Schedule | None = None
    metric: Literal["euclidean", "preconditioned"] = "euclidean"
    memory_limit: int | float | str | None = None
    variables = described(
        "activity",
        "directed_activity",
        "parallel_activity",
        "perpendicular_activity",
        "noise_strength",
        "parallel_noise",
        "projection_variance",
        "gradient_noise_scale",
        "gradient_alignment",
        "alignment",
        "alignment_standard_error",
        "alignment_zero_share",
        "alignment_minibatches",
        "alignment_approximation",
        "alignment_approximation_bound",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        one_of("metric", self.metric, ("euclidean", "preconditioned"))
        as_bytes(self.memory_limit)
        expected = f"a whole number (int) of minibatches from 1 to {_MOST_MINIBATCHES:,}, which are drawn together"
        whole_number("n_minibatches", self.n_minibatches, expected, least=1, most=_MOST_MINIBATCHES)

    def measure(self, snapshot: Snapshot) -> Arrays:  # noqa: D102
        ensembles = snapshot.ensembles_within(self.memory_limit, self.metric)
        pairs = list(zip(ensembles, snapshot.generators("alignment"), strict=True))
        return stacked(side_by_side(self._of_one, pairs, snapshot.multiplications))

    def _of_one(self, pair: tuple[GradientEnsemble, np.random.Generator]) -> Arrays:
        ensemble, generator = pair
        return {**ensemble.closed_forms(), **ensemble.alignment(generator, self.n_minibatches)}


@dataclass(frozen=True)
class DrivingNoise(Observable):
    """The trace of the covariance of the noise that drives the process, whatever the landscape's own is."""

    schedule: Schedule | None = None
    variables = described("driving_noise_strength")

    def measure(self, snapshot: Snapshot) -> Arrays:  # noqa: D102
        process, state = snapshot.process, snapshot.state
        strength = process.driving_noise_strength(state.noise_memory, state.weights, snapshot.sample_trace)
        return {"driving_noise_strength": np.broadcast_to(_array(strength), (len(state.weights),)).copy()}


def default_observables() -> tuple[Observable, ...]:
    """Return what is recorded unless said: losses, order parameters and the driving noise.

    Returns
    -------
    tuple of Observable
        All of the root group.
    """
    return (Losses(), OrderParameters(), DrivingNoise())
