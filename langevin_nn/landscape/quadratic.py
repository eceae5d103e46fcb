"""The quadratic landscape with constant anisotropic noise: everything about it is known in closed form."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from scipy.linalg import cholesky, solve_discrete_lyapunov
from torch import Tensor

from langevin_nn.checks import covariance, numbers, point, symmetric
from langevin_nn.errors import ConfigurationError
from langevin_nn.formulas import FieldFormula, NoiseFormula, linear_field
from langevin_nn.landscape.base import MomentLandscape
from langevin_nn.seeds import Seeds
from langevin_nn.threads import row_by_row

__all__ = ["QuadraticLandscape"]


class QuadraticLandscape(MomentLandscape):
    """L(w) = ½ (w − w*)ᵀ H (w − w*), with gradient noise of constant covariance C.

    Parameters
    ----------
    hessian : array, shape (parameter, parameter)
        H, symmetric.
    noise_covariance : array, shape (parameter, parameter)
        C of the minibatch gradient, symmetric and positive semi-definite.
    minimum : array, shape (parameter,), optional
        w*; the origin unless said.
    start : array, shape (parameter,), optional
        Where replicas start; at the minimum unless said.

    Raises
    ------
    ConfigurationError
        If H or C is not a symmetric matrix, or C has a negative eigenvalue.

    Examples
    --------
    >>> landscape = QuadraticLandscape(np.diag([1.0, 2.0]), np.eye(2))
    >>> landscape.stationary_covariance(learning_rate=0.1).diagonal().round(6)
    array([0.052632, 0.027778])
    >>> round(0.1 / (2 - 0.1), 6), round(0.1 / (2 * (2 - 0.2)), 6)  # α/(h (2 − αh)), the AR(1) law
    (0.052632, 0.027778)
    """

    def __init__(self, hessian: Any, noise_covariance: Any, *, minimum: Any = None, start: Any = None) -> None:
        self.hessian = symmetric("hessian", hessian)
        self.n_parameters = len(self.hessian)
        self.dtype, self.device = torch.float64, torch.device("cpu")
        expected = "a symmetric matrix of real numbers, the covariance of the noise"
        noise_covariance = numbers("noise_covariance", noise_covariance, expected, finite=False)
        if noise_covariance.shape != self.hessian.shape:
            raise ConfigurationError(
                f"noise_covariance has shape {noise_covariance.shape}: expected that of the hessian, "
                f"{self.hessian.shape}, since both belong to the same parameters; give matrices of one size"
            )
        self.noise_covariance = covariance("noise_covariance", noise_covariance, self.n_parameters)
        self._factor = torch.as_tensor(_factor(self.noise_covariance))
        self.minimum = np.zeros(self.n_parameters) if minimum is None else point("minimum", minimum, self.n_parameters)
        self.start = self.minimum if start is None else point("start", start, self.n_parameters)

    @property
    def description(self) -> dict[str, object]:
        """What a file says of the landscape on which a process ran."""
        return {
            "hessian": self.hessian.tolist(),
            "noise_covariance": self.noise_covariance.tolist(),
            "minimum": self.minimum.tolist(),
            "start": self.start.tolist(),
        }

    def initial_weights(self, replicas: tuple[int, ...], seeds: Seeds) -> Tensor:  # noqa: D102
        return torch.as_tensor(np.tile(self.start, (len(replicas), 1)))

    def loss(self, weights: Tensor) -> Tensor:  # noqa: D102
        displacement = weights - torch.as_tensor(self.minimum)
        return 0.5 * (displacement * self.gradient(weights)).sum(1)

    def gradient(self, weights: Tensor) -> Tensor:  # noqa: D102
        return row_by_row(weights - torch.as_tensor(self.minimum), torch.as_tensor(self.hessian))

    def hessian_product(self, weights: Tensor, vectors: Tensor) -> Tensor:  # noqa: D102
        return vectors @ torch.as_tensor(self.hessian)

    def noise_factor(self, weights: Tensor | None = None) -> Tensor:  # noqa: D102
        return self._factor

    def gradient_formula(self) -> FieldFormula:  # noqa: D102
        return linear_field(self.hessian, self.minimum)

    def noise_formula(self, batch_size: int | None = None, replacement: bool = False) -> NoiseFormula:  # noqa: D102
        return NoiseFormula.constant(self._factor.numpy())

    def stationary_covariance(self, learning_rate: float) -> np.ndarray[Any, np.dtype[np.float64]]:
        """Return the covariance S to which w ← w − α (∇L + F ξ) settles.

        S solves the discrete Lyapunov equation S = (I − αH) S (I − αH)ᵀ + α² C; see Liu, Ziyin & Ueda (2021,
        arXiv:2012.03636) for its use on SGD.

        Parameters
        ----------
        learning_rate : float
            α.

        Returns
        -------
        ndarray, shape (parameter, parameter)
            S.

        Raises
        ------
        ConfigurationError
            If α is beyond the stability limit 2/h_max or H is not positive definite, so that there is no such law.
        """
        curvatures = np.linalg.eigvalsh(self.hessian)
        if curvatures[0] <= 0 or not 0 < learning_rate * curvatures[-1] < 2:
            limit = f" = {2 / curvatures[-1]:g}" if curvatures[-1] > 0 else ""
            raise ConfigurationError(
                f"no stationary law at learning_rate={learning_rate:g} and curvatures from {curvatures[0]:g} to "
                f"{curvatures[-1]:g}: expected positive curvatures and a learning rate above 0 and below 2/h_max{limit}"
            )
        contraction = np.eye(self.n_parameters) - learning_rate * self.hessian
        return np.asarray(solve_discrete_lyapunov(contraction, learning_rate**2 * self.noise_covariance))


def _factor(matrix: np.ndarray[Any, np.dtype[np.float64]]) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Return F with C = F Fᵀ: Cholesky where C is definite, else from its eigenvectors."""
    try:
        return np.asarray(cholesky(matrix, lower=True))
    except np.linalg.LinAlgError:
        values, vectors = np.linalg.eigh(matrix)
        return np.asarray(vectors * np.sqrt(np.clip(values, 0, None)))
