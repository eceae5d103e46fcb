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
from langevin_nn.observables.base import Arrays, Observable, Snapshot, stacked
from langevin_nn.observables.variables import described
from langevin_nn.schedules import Schedule
from langevin_nn.threads import side_by_side

__all__ = ["DrivingNoise", "Losses", "OrderParameters"]


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
    """Training loss and error by cohort, each over its own samples; test loss and error where there are test data."""

    schedule: Schedule | None = None
    variables = described("train_loss", "train_error", "test_loss", "test_error")

    def measure(self, snapshot: Snapshot) -> Arrays:  # noqa: D102
        landscape, weights = snapshot.landscape, snapshot.state.weights
        if not isinstance(landscape, NetworkLandscape):
            total = _array(landscape.loss(weights))
            nothing = np.full_like(total, np.nan)
            return {"train_loss": np.stack([total, nothing, nothing], axis=1)}
        mislabeled = np.broadcast_to(landscape.cohort.cpu().numpy(), (len(weights), landscape.n_samples))
        losses, errors = snapshot.training
        measured = {"train_loss": _by_cohort(_array(losses), mislabeled)}
        has_error = not landscape.labels.is_floating_point()  # NaN where these are no classes
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

    Raises
    ------
    ConfigurationError
        If minibatches are not counted by a whole number, or are more than can be drawn at once, or there is no such metric.
    """

    n_minibatches: int = 64
    schedule: Schedule | None = None
    metric: Literal["euclidean", "preconditioned"] = "euclidean"
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
        expected = f"a whole number (int) of minibatches from 1 to {_MOST_MINIBATCHES:,}, which are drawn together"
        whole_number("n_minibatches", self.n_minibatches, expected, least=1, most=_MOST_MINIBATCHES)

    def measure(self, snapshot: Snapshot) -> Arrays:  # noqa: D102
        ensembles = snapshot.ensembles if self.metric == "euclidean" else snapshot.preconditioned_ensembles
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
        strength = process.noise.strength(state.noise_memory, process.landscape, state.weights, snapshot.sample_trace)
        strength = strength * process.noise.strength_ratio(process.learning_rate)
        return {"driving_noise_strength": np.broadcast_to(_array(strength), (len(state.weights),)).copy()}
