"""From a landscape and a point to the gradient ensemble there."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from langevin_nn.checks import kind_of, whole_number
from langevin_nn.ensemble.base import GradientEnsemble
from langevin_nn.ensemble.empirical import EmpiricalEnsemble
from langevin_nn.ensemble.moments import MomentEnsemble
from langevin_nn.ensemble.replicas import ReplicaEnsembles
from langevin_nn.ensemble.subsample import SampledEnsemble
from langevin_nn.errors import ConfigurationError, UnknownNameError
from langevin_nn.landscape import EmpiricalLandscape, Landscape, MomentLandscape, NetworkLandscape
from langevin_nn.landscape.network import COHORT_MASKS
from langevin_nn.landscape.weights import as_weights
from langevin_nn.memory import budget
from langevin_nn.seeds import Seeds

__all__ = ["gradient_ensemble", "gradient_ensembles"]

_LEAST_DRAWN = 8

CohortMask = Literal["mislabeled", "relabeled"]


def gradient_ensemble(
    landscape: Landscape,
    weights: Tensor,
    batch_size: int | None = None,
    *,
    replica: int = 0,
    replacement: bool = False,
    cohort_mask: CohortMask | None = None,
    preconditioner: Tensor | None = None,
    memory_limit: int | float | str | None = None,
    subsample: int | None = None,
    seed: int = 0,
) -> GradientEnsemble:
    """Return the minibatch ensemble of a landscape at one point.

    Parameters
    ----------
    landscape : Landscape
        Made of samples, or one whose moments are known.
    weights : Tensor, shape (parameter,), or state dictionary, module or checkpoint file
        Where.
    batch_size : int, optional
        B; needed where the landscape is made of samples.
    replica : int, optional
        Whose labels, where labels differ between replicas.
    replacement : bool, optional
        Whether minibatches are drawn with replacement.
    cohort_mask : {"mislabeled", "relabeled"}, optional
        Samples whose given label is wrong, or all whose label was redrawn, as the paper has it; the landscape's own choice
        unless said.
    preconditioner : Tensor, shape (parameter,), optional
        A diagonal metric D of all parameters, in which gradients are measured: their components over √D, so that ‖g‖² is
        gᵀ D⁻¹ g. Euclidean unless said.
    memory_limit : int or str, optional
        Budget in bytes or as ``"512 MiB"``, about half of the free memory unless said: for sample gradients, which are
        computed anew in pieces where half of it does not hold them, and for the matrices of a spectrum.
    subsample : int, optional
        How many samples to draw at random, from whose gradients the ensemble of all is estimated, each order parameter and
        eigenvalue with its standard error (`SampledEnsemble`); all of them, without error, unless said.
    seed : int, optional
        Which are drawn.

    Returns
    -------
    GradientEnsemble
        Gradients of the loss alone, over the measured tensors.

    Raises
    ------
    ConfigurationError
        If `batch_size` is missing, the landscape offers neither samples nor moments, the preconditioner is not one positive
        number a parameter, the subsample is none, or memory does not suffice.
    UnknownNameError
        If there is no such cohort mask.

    Examples
    --------
    >>> import numpy as np
    >>> import torch
    >>> from langevin_nn.landscape import QuadraticLandscape
    >>> landscape = QuadraticLandscape(np.eye(2), np.diag([3.0, 1.0]))
    >>> gradient_ensemble(landscape, torch.tensor([1.0, 0.0])).spectrum().noise_eigenvalue.values
    array([3., 1.])
    """
    given: Any = weights
    if isinstance(given, np.ndarray):
        weights = torch.as_tensor(given)
    elif isinstance(given, str | os.PathLike | Mapping | nn.Module):
        weights = as_weights(given, landscape)[0]
    if not hasattr(weights, "ndim"):
        raise ConfigurationError(
            f"weights are {kind_of(weights)}: expected a tensor of shape (parameter,), one point of weight space; take "
            "landscape.own_weights, or a state_dict of the network"
        )
    if weights.ndim != 1:
        raise ConfigurationError(
            f"weights have shape {tuple(weights.shape)}: expected (parameter,), one point of weight space; use "
            "gradient_ensembles for several replicas"
        )
    factors = None if preconditioner is None else _factors(preconditioner, landscape)
    if isinstance(landscape, MomentLandscape):
        mean, factor = landscape.gradient(weights[None])[0], landscape.noise_factor(weights)
        if factors is not None:
            mean, factor = mean * factors, factor * factors[:, None]
        return MomentEnsemble(mean, factor, 1 if batch_size is None else batch_size)
    if not isinstance(landscape, EmpiricalLandscape) or batch_size is None:
        raise ConfigurationError(
            "a gradient ensemble needs sample gradients with a batch_size, or a landscape with known moments; got "
            f"{type(landscape).__name__} and batch_size={batch_size}: expected one of the two; give a batch_size, or leave "
            "observables of order parameters and spectra out"
        )
    if cohort_mask is not None and cohort_mask not in COHORT_MASKS:
        raise UnknownNameError("cohort mask", cohort_mask, COHORT_MASKS)
    mislabeled = labels = None
    if isinstance(landscape, NetworkLandscape):
        mask = landscape.cohort if cohort_mask is None else getattr(landscape, cohort_mask)
        mislabeled = mask[replica if len(mask) > 1 else 0]
        given = landscape.labels_of(replica)
        labels = given if given.ndim == 1 and landscape.is_classifier else None
    memory_limit = _budget(memory_limit, landscape)
    drawn = None if subsample is None else _drawn(landscape, subsample, Seeds(seed).generator("subsample", replica))
    if drawn is None:
        gradients = landscape.sample_gradients(weights, replica, memory_limit=memory_limit)
    else:
        gradients = landscape.sample_gradients(weights, replica, memory_limit=memory_limit, samples=drawn)
    if factors is not None:
        if isinstance(landscape, NetworkLandscape):
            factors = factors[landscape.measured_columns]
        gradients = gradients.scaled(factors)
    if drawn is not None:
        cohort = None if mislabeled is None else mislabeled[drawn.to(mislabeled.device)]
        sizes = batch_size, landscape.n_samples
        return SampledEnsemble(gradients, *sizes, cohort, replacement, memory_limit=memory_limit)
    return EmpiricalEnsemble(
        gradients,
        batch_size,
        mislabeled,
        replacement,
        labels=labels,
        memory_limit=memory_limit,
    )


def _drawn(landscape: EmpiricalLandscape, subsample: int, generator: np.random.Generator) -> Tensor:
    """Return positions of some samples, drawn at random without replacement, in order."""
    n = landscape.n_samples
    least = min(_LEAST_DRAWN, n)
    expected = f"a whole number (int) of samples from {least} to {n}, since triples and quadruples of them are compared"
    count = whole_number("subsample", subsample, expected, least=least, most=n)
    return torch.as_tensor(np.sort(generator.choice(n, count, replace=False, shuffle=False)))


def _budget(memory_limit: int | float | str | None, landscape: Landscape) -> int:
    """Return a budget where the landscape computes."""
    return budget(memory_limit, landscape.device if isinstance(landscape, NetworkLandscape) else None)


def _factors(preconditioner: Tensor, landscape: Landscape) -> Tensor:
    """Return 1/√D, or raise."""
    if tuple(preconditioner.shape) != (landscape.n_parameters,) or bool((preconditioner <= 0).any()):
        raise ConfigurationError(
            f"preconditioner of shape {tuple(preconditioner.shape)}: expected ({landscape.n_parameters},), one positive "
            "number a parameter, since components of gradients are divided by its root; take a row of what "
            "update.preconditioner(memory) returns"
        )
    return preconditioner.double().rsqrt()


def gradient_ensembles(
    landscape: Landscape,
    weights: Tensor,
    batch_size: int | None = None,
    *,
    replacement: bool = False,
    cohort_mask: CohortMask | None = None,
    memory_limit: int | float | str | None = None,
) -> ReplicaEnsembles:
    """Return the minibatch ensembles of a landscape at the weights of several replicas.

    Parameters
    ----------
    landscape : Landscape
        Made of samples, or one whose moments are known.
    weights : Tensor, shape (replica, parameter)
        Where; labels that differ between replicas are matched to its rows.
    batch_size : int, optional
        B; needed where the landscape is made of samples.
    replacement : bool, optional
        Whether minibatches are drawn with replacement.
    cohort_mask : {"mislabeled", "relabeled"}, optional
        As for `gradient_ensemble`.
    memory_limit : int or str, optional
        Budget of all of them together, since one is computed at a time.

    Returns
    -------
    ReplicaEnsembles
        A sequence of ensembles, whose datasets have the dimension ``replica``.

    Raises
    ------
    ConfigurationError
        If the weights are not those of several replicas.

    Examples
    --------
    >>> import numpy as np
    >>> import torch
    >>> from langevin_nn.landscape import QuadraticLandscape
    >>> landscape = QuadraticLandscape(np.eye(2), np.eye(2))
    >>> gradient_ensembles(landscape, torch.tensor([[1.0, 0.0], [0.0, 3.0]])).order_parameters().activity[:, 0].values
    array([ 3., 11.])
    """
    if weights.ndim != 2 or len(weights) == 0:
        raise ConfigurationError(
            f"weights have shape {tuple(weights.shape)}: expected (replica, parameter), at least one replica; use "
            "gradient_ensemble for one point"
        )

    limit = _budget(memory_limit, landscape)

    def make(position: int) -> GradientEnsemble:
        return gradient_ensemble(
            landscape,
            weights[position],
            batch_size,
            replica=position,
            replacement=replacement,
            cohort_mask=cohort_mask,
            memory_limit=limit,
        )

    return ReplicaEnsembles(make, len(weights))
