"""The shape of minibatch noise at one point, direction by direction: tail index, normality, third and fourth moments."""

from __future__ import annotations

import numpy as np
import scipy
import torch
import xarray as xr
from numpy.typing import NDArray
from torch import Tensor

from langevin_nn import NetworkLandscape, Seeds
from langevin_nn.analyzers import holm, tail_index
from langevin_nn.ensemble import GradientEnsemble
from langevin_nn.errors import EstimationRefused
from studies.is_the_sde_valid.plan import MOST_TAIL_INDEX, Settled, landscape_for

__all__ = ["LEAST_TAIL_INDEX", "N_DIRECTIONS", "noise_shapes", "observed_tail_index", "shape_of_noise"]

N_DIRECTIONS = 5  # of each kind
MOST_REPLICAS = 4
LEAST_TAIL_INDEX = 0.5


def noise_shapes(config: Settled, weights: xr.Dataset, windows: dict[str, tuple[float, float]]) -> xr.Dataset:
    """Measure the noise of SGD at one recorded point in each phase.

    Parameters
    ----------
    config : Settled
        What was chosen.
    weights : xarray.Dataset
        Of the pilot: ``weights`` (replica, weight_step, parameter) with epochs.
    windows : dict
        Phases, of `langevin_nn.analyzers.phase_windows`.

    Returns
    -------
    xarray.Dataset
        Of `shape_of_noise` by ``phase`` and ``replica``, with ``adjusted_p_value`` for all of them together.
    """
    epochs = weights["epoch"].values
    replicas = range(min(MOST_REPLICAS, config.replicas))
    rows, names = [], []
    for name, (begin, end) in windows.items():
        inside = np.flatnonzero((epochs > begin) & (epochs <= end))
        if not len(inside):
            continue
        at = inside[len(inside) // 2]
        own = weights["weights"].transpose("replica", "weight_step", "parameter").values[:, at]
        each = [
            shape_of_noise(
                landscape_for(config),
                torch.as_tensor(own[replica]),
                replica,
                config.batch_size,
                config.minibatches,
                Seeds(config.seed).generator(f"shape of noise in {name}", replica),
            )
            for replica in replicas
        ]
        rows.append(xr.concat(each, xr.Variable("replica", list(replicas))).assign(epoch=float(epochs[at])))
        names.append(name)
    found = xr.concat(rows, xr.Variable("phase", names))
    return found.assign(adjusted_p_value=(found["p_value"].dims, holm(found["p_value"].values)))


def shape_of_noise(
    landscape: NetworkLandscape,
    weights: Tensor,
    replica: int,
    batch_size: int,
    minibatches: int,
    generator: np.random.Generator,
) -> xr.Dataset:
    """Draw minibatches at one point and look at their mean gradients along single directions.

    Parameters
    ----------
    landscape : NetworkLandscape
        Whose samples.
    weights : Tensor, shape (parameter,)
        Where.
    replica : int
        Whose labels.
    batch_size : int
        B, drawn without replacement.
    minibatches : int
        How many are drawn.
    generator : numpy.random.Generator
        Of minibatches and random directions.

    Returns
    -------
    xarray.Dataset
        By ``direction``, the leading eigenvectors of C and random ones of equal probability: ``tail_index`` with its standard
        error, both NaN where the noise is not stable, ``skewness``, ``excess_kurtosis``, and ``p_value`` of Jarque & Bera's
        test of normality (1980, doi 10.1016/0165-1765(80)90024-5).
    """
    gradients = landscape.sample_gradients(weights, replica)
    ensemble = GradientEnsemble.from_sample_gradients(gradients, batch_size)
    leading = min(N_DIRECTIONS, gradients.n_samples - 1, gradients.n_parameters)
    vectors = ensemble.noise_modes(leading).vectors.cpu()
    random = torch.as_tensor(generator.standard_normal((N_DIRECTIONS, gradients.n_parameters)))
    directions = torch.cat([vectors.double(), torch.nn.functional.normalize(random, dim=1)])
    projected = gradients.project(directions.to(gradients.device)).double().cpu().numpy()
    noise = _minibatch_means(projected, batch_size, minibatches, generator)
    tails = np.array([_tail_index(column) for column in noise.T])
    values = {
        "tail_index": tails[:, 0],
        "tail_index_standard_error": tails[:, 1],
        "skewness": scipy.stats.skew(noise, axis=0),
        "excess_kurtosis": scipy.stats.kurtosis(noise, axis=0),
        "p_value": [float(scipy.stats.jarque_bera(column).pvalue) for column in noise.T],
    }
    names = [f"eigenvector {k + 1}" for k in range(leading)] + [f"random {k + 1}" for k in range(N_DIRECTIONS)]
    return xr.Dataset(
        {name: ("direction", np.asarray(each, dtype=np.float64)) for name, each in values.items()},
        coords={"direction": names},
    )


def _tail_index(noise: NDArray[np.float64]) -> tuple[float, float]:
    """Return the index with its standard error, NaN where the noise is not stable and has none."""
    try:
        found = tail_index(noise)
    except EstimationRefused as refusal:
        if "index_of_sums" not in refusal.numbers:
            raise
        return np.nan, np.nan
    return found.index, found.standard_error


def _minibatch_means(
    projected: NDArray[np.float64], batch_size: int, minibatches: int, generator: np.random.Generator
) -> NDArray[np.float64]:
    """Return means over random minibatches of distinct samples, shape (minibatch, direction)."""
    n = len(projected)
    means = np.empty((minibatches, projected.shape[1]))
    block = max(1, 2_000_000 // n)
    for begin in range(0, minibatches, block):
        keys = generator.random((min(block, minibatches - begin), n))
        chosen = np.argpartition(keys, batch_size - 1, axis=1)[:, :batch_size]
        means[begin : begin + len(keys)] = projected[chosen].mean(1)
    return means


def observed_tail_index(shapes: xr.Dataset) -> float:
    """Return the smallest tail index along any direction in any phase, averaged over replicas: the heaviest tails seen.

    Parameters
    ----------
    shapes : xarray.Dataset
        Of `noise_shapes`.

    Returns
    -------
    float
        From 0.5 to 2, as stable noise takes it; 2 where no noise is stable, since its sums are Gaussian then.
    """
    smallest = float(shapes["tail_index"].mean("replica").min())
    if np.isnan(smallest):
        return float(MOST_TAIL_INDEX)
    return float(np.clip(smallest, LEAST_TAIL_INDEX, MOST_TAIL_INDEX))
