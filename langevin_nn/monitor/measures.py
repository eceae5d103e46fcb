"""What one backward pass tells of the minibatch ensemble: order parameters with their errors, by cohort and by layer."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from langevin_nn.ensemble.estimates import (
    Estimate,
    Sums,
    estimated_cosines,
    estimates_of_cohorts,
    noise_factor,
    with_errors,
)
from langevin_nn.gradients import SampleGradients
from langevin_nn.schema import COHORTS

__all__ = ["OF_LAYERS", "of_layers", "of_pass"]

Arrays = dict[str, NDArray[np.float64]]

# What is recorded of each layer.
OF_LAYERS = ("directed_activity", "noise_strength")


def of_pass(
    gram: NDArray[np.float64], n_samples: float, batch_size: float, mislabeled: NDArray[np.bool_] | None
) -> Arrays:
    """Return order parameters of all samples and of two cohorts, with their standard errors.

    Parameters
    ----------
    gram : ndarray, shape (sample, sample)
        Inner products of the gradients of samples that were drawn at random.
    n_samples : float
        N, or infinity where samples are drawn anew at each pass.
    batch_size : float
        B.
    mislabeled : ndarray of bool, shape (sample,), or None
        Which are taken to be mislabeled; None where that is not known.

    Returns
    -------
    dict of str to ndarray, shape (1, cohort) or (1, cohort_pair)
        One replica.
    """
    n = len(gram)
    nobody, everybody = np.zeros(n, dtype=bool), np.ones(n, dtype=bool)
    members = np.stack([everybody, nobody, nobody] if mislabeled is None else [everybody, ~mislabeled, mislabeled])
    cosines = [Estimate.unknown()] * 3
    if members[1].any() and members[2].any():
        cosines = list(estimated_cosines(gram, dict(zip(COHORTS[1:], members[1:], strict=True)), n_samples).values())
    found = estimates_of_cohorts(gram, members, n_samples, batch_size) | with_errors({"gradient_alignment": cosines})
    return {name: each[None] for name, each in found.items()}


def of_layers(gradients: SampleGradients, layers: tuple[str, ...], n_samples: float, batch_size: float) -> Arrays:
    """Return order parameters within each layer, NaN for one that the pass did not measure.

    Parameters
    ----------
    gradients : SampleGradients
        Of samples that were drawn at random.
    layers : tuple of str
        Names, in the order of the file.
    n_samples, batch_size : float
        N and B.

    Returns
    -------
    dict of str to ndarray, shape (1, layer)
        One replica.
    """
    measured: dict[str, dict[str, Estimate]] = {}
    factor = noise_factor(n_samples, batch_size)
    for name, gram in zip(gradients.layers, gradients.grams_by_layer().cpu().numpy(), strict=True):
        sums = Sums(gram, n_samples)
        measured[name] = {"directed_activity": sums.squared_mean, "noise_strength": sums.trace.times(factor)}
    unknown = dict.fromkeys(OF_LAYERS, Estimate.unknown())
    of_each = [measured.get(layer, unknown) for layer in layers]
    found = with_errors({f"layer_{name}": [each[name] for each in of_each] for name in OF_LAYERS})
    return {name: each[None] for name, each in found.items()}
