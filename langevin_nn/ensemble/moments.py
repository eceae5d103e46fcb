"""The ensemble of Gaussian gradients with given mean and covariance, for surrogates."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from langevin_nn.ensemble.alignment import alignment_of
from langevin_nn.ensemble.base import GradientEnsemble

__all__ = ["MomentEnsemble"]


class MomentEnsemble(GradientEnsemble):
    """Gradients N(ḡ, F Fᵀ); there are no cohorts but `all`.

    Parameters
    ----------
    mean : Tensor, shape (parameter,)
        ḡ.
    factor : Tensor, shape (parameter, rank)
        F.

    Examples
    --------
    >>> ensemble = MomentEnsemble(torch.tensor([2.0, 0.0]), torch.eye(2))
    >>> order = ensemble.order_parameters().sel(cohort="all")
    >>> float(order.activity), float(order.noise_strength), float(order.projection_variance)
    (6.0, 2.0, 0.25)
    """

    def __init__(self, mean: Tensor, factor: Tensor) -> None:
        self._mean, self._factor = mean.double(), factor.double()

    @property
    def sample_trace(self) -> NDArray[np.float64]:  # noqa: D102
        return np.full(3, np.nan)

    def closed_forms(self) -> dict[str, NDArray[np.float64]]:  # noqa: D102
        squared = float(self._mean.square().sum())
        noise = float(self._factor.square().sum())
        parallel = float((self._mean @ self._factor).square().sum()) / squared if squared > 0 else np.nan
        values = {
            "activity": squared + noise,
            "directed_activity": squared,
            "parallel_activity": squared + parallel,
            "perpendicular_activity": noise - parallel,
            "noise_strength": noise,
            "parallel_noise": parallel,
            "projection_variance": parallel / squared if squared > 0 else np.nan,
        }
        cohorts = {name: np.array([value, np.nan, np.nan]) for name, value in values.items()}
        return {**cohorts, "gradient_alignment": np.full(3, np.nan)}

    def alignment(self, generator: np.random.Generator, n_minibatches: int = 64) -> dict[str, NDArray[np.float64]]:  # noqa: D102
        if not float(self._mean.square().sum()) > 0:
            value, error, zero = np.nan, np.nan, np.nan
        else:
            draws = torch.as_tensor(generator.standard_normal((n_minibatches, self._factor.shape[1])))
            estimate = alignment_of(self._mean + draws @ self._factor.T)
            value, error, zero = estimate.value, estimate.standard_error, estimate.zero_share
        return {
            "alignment": np.array([value, np.nan, np.nan]),
            "alignment_standard_error": np.array([error, np.nan, np.nan]),
            "alignment_zero_share": np.array([zero, np.nan, np.nan]),
        }

    def noise_eigenvalues(self) -> NDArray[np.float64]:  # noqa: D102
        return np.asarray(torch.linalg.svdvals(self._factor).square())
