"""What one backward pass tells of the minibatch ensemble: order parameters with their errors, by cohort and by layer."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from langevin_nn.ensemble.estimates import Estimate, Sums, estimated_cosines, estimated_order_parameters, noise_factor
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
    wrong = np.zeros(n, dtype=bool) if mislabeled is None else mislabeled
    masks = [np.ones(n, dtype=bool), *([~wrong, wrong] if mislabeled is not None else [np.zeros(n, dtype=bool)] * 2)]
    found: list[dict[str, Estimate]] = []
    for mask in masks:
        share = float(mask.mean())
        if not mask.any():
            found.append(dict.fromkeys(found[0], Estimate.unknown()))
            continue
        few = gram[np.ix_(mask, mask)]
        found.append(estimated_order_parameters(few, share * n_samples, share * batch_size, share))
    arrays = {}
    for name in found[0]:
        arrays[name] = np.array([[each[name].value for each in found]])
        arrays[f"{name}_standard_error"] = np.array([[each[name].standard_error for each in found]])
    cosines = [Estimate.unknown()] * 3
    if mislabeled is not None and 0 < wrong.sum() < n:
        two = dict(zip(COHORTS[1:], masks[1:], strict=True))
        cosines = list(estimated_cosines(gram, two, n_samples).values())
    arrays["gradient_alignment"] = np.array([[each.value for each in cosines]])
    arrays["gradient_alignment_standard_error"] = np.array([[each.standard_error for each in cosines]])
    return arrays


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
    arrays = {}
    for name in OF_LAYERS:
        each = [measured[layer][name] if layer in measured else Estimate.unknown() for layer in layers]
        arrays[f"layer_{name}"] = np.array([[estimate.value for estimate in each]])
        arrays[f"layer_{name}_standard_error"] = np.array([[estimate.standard_error for estimate in each]])
    return arrays
