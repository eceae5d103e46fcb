"""Linear regression: the simplest landscape made of samples, whose minibatch covariance is known at every point."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from langevin_nn.checks import numbers, point, whole_number
from langevin_nn.errors import ConfigurationError
from langevin_nn.formulas import TILE, FieldFormula, NoiseFormula, linear_field, regression_factor
from langevin_nn.gradients.sample_gradients import SampleGradients
from langevin_nn.landscape.base import EmpiricalLandscape
from langevin_nn.seeds import Seeds
from langevin_nn.threads import row_by_row

__all__ = ["LinearRegressionLandscape"]


class LinearRegressionLandscape(EmpiricalLandscape):
    """L(θ) = (1/N) Σ_k ½ (x_k·θ − y_k)².

    Sample gradients are g_k = (x_k·θ − y_k) x_k, so that the covariance of a minibatch gradient, (f/B) Σ(θ), is a
    polynomial of second degree in θ. It vanishes nowhere where labels are noisy, and at the minimum where they are not.
    True minibatches and every Langevin source run on it, step by step as in the integrators.

    Parameters
    ----------
    inputs : array, shape (sample, parameter)
        x; add a column of ones for an intercept.
    targets : array, shape (sample,)
        y.
    start : array, shape (parameter,), optional
        Where replicas start; at the origin unless said.

    Raises
    ------
    ConfigurationError
        If inputs and targets are not those of the same samples, or not finite.

    Examples
    --------
    >>> landscape = LinearRegressionLandscape([[1.0], [1.0], [1.0]], [0.0, 1.0, 2.0])
    >>> landscape.minimum
    array([1.])
    >>> landscape.noise_covariance(np.array([1.0]), batch_size=1)  # the variance of y
    array([[0.66666667]])
    """

    def __init__(self, inputs: Any, targets: Any, *, start: Any = None) -> None:
        expected = "finite numbers, one row a sample; leave out samples that have none"
        self.inputs, self.targets = numbers("inputs", inputs, expected), numbers("targets", targets, expected)
        if self.inputs.ndim != 2 or self.targets.shape != self.inputs.shape[:1] or not self.inputs.size:
            raise ConfigurationError(
                f"inputs of shape {self.inputs.shape} and targets of shape {self.targets.shape} came: expected (sample, "
                "parameter) and (sample,), at least one sample; a single feature is a column"
            )
        self.n_samples, self.n_parameters = self.inputs.shape
        self.dtype, self.device = torch.float64, torch.device("cpu")
        self.start = np.zeros(self.n_parameters) if start is None else point("start", start, self.n_parameters)
        self._x, self._y = torch.as_tensor(self.inputs), torch.as_tensor(self.targets)

    @property
    def description(self) -> dict[str, object]:
        """What a file says of the landscape on which a process ran."""
        return {"inputs": self.inputs.tolist(), "targets": self.targets.tolist(), "start": self.start.tolist()}

    @property
    def hessian(self) -> NDArray[np.float64]:
        """H = (1/N) Σ x xᵀ, shape (parameter, parameter)."""
        return np.asarray(self.inputs.T @ self.inputs / self.n_samples)

    @property
    def minimum(self) -> NDArray[np.float64]:
        """The least-squares solution, of smallest norm where there are several, shape (parameter,)."""
        return np.asarray(np.linalg.lstsq(self.inputs, self.targets, rcond=None)[0])

    def initial_weights(self, replicas: tuple[int, ...], seeds: Seeds) -> Tensor:  # noqa: D102
        return torch.as_tensor(np.tile(self.start, (len(replicas), 1)))

    def sample_losses(self, weights: Tensor) -> Tensor:  # noqa: D102
        return 0.5 * (row_by_row(weights, self._x.T) - self._y).square()

    def weighted_gradient(self, weights: Tensor, coefficients: Tensor, indices: Tensor | None = None) -> Tensor:  # noqa: D102
        if indices is None:
            return row_by_row(coefficients * (row_by_row(weights, self._x.T) - self._y), self._x)
        rows = self._x[indices]
        residuals = torch.einsum("rkp,rp->rk", rows, weights) - self._y[indices]
        return torch.einsum("rk,rkp->rp", coefficients * residuals, rows)

    def hessian_product(self, weights: Tensor, vectors: Tensor) -> Tensor:  # noqa: D102
        return vectors @ torch.as_tensor(self.hessian)

    def sample_gradients(  # noqa: D102
        self,
        weights: Tensor,
        replica: int = 0,
        *,
        everywhere: bool = False,
        memory_limit: int | float | str | None = None,
        samples: Tensor | None = None,
    ) -> SampleGradients:
        x, y = (self._x, self._y) if samples is None else (self._x[samples], self._y[samples])
        return SampleGradients.from_matrix((x @ weights.to(x) - y)[:, None] * x)

    def noise_covariance(self, weights: Any, batch_size: int, *, replacement: bool = False) -> NDArray[np.float64]:
        """Return the covariance C of the minibatch gradient.

        Parameters
        ----------
        weights : array, shape (parameter,)
            θ.
        batch_size : int
            B.
        replacement : bool, optional
            Whether minibatches are drawn with replacement.

        Returns
        -------
        ndarray, shape (parameter, parameter)
            (f/B) Σ(θ).
        """
        gradients = (self.inputs @ np.asarray(weights, dtype=np.float64) - self.targets)[:, None] * self.inputs
        centred = gradients - gradients.mean(0)
        return np.asarray(self._scale(batch_size, replacement) * centred.T @ centred / self.n_samples)

    def stationary_moments(
        self, learning_rate: float, batch_size: int, *, replacement: bool = False
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return mean and covariance of the law to which w ← w − α g^μ settles, and its Langevin dynamics alike.

        C is of second degree in the weights, so that the second moments S about the minimum close: S = (I − αH) S (I −
        αH) + α² ⟨C⟩_S is linear in S. Exact for independent minibatches; see Ziyin et al. (2022, arXiv:2102.05375).

        Parameters
        ----------
        learning_rate : float
            α.
        batch_size : int
            B.
        replacement : bool, optional
            Whether minibatches are drawn with replacement.

        Returns
        -------
        mean : ndarray, shape (parameter,)
            The minimum.
        covariance : ndarray, shape (parameter, parameter)
            S.

        Raises
        ------
        ConfigurationError
            If the second moments grow without bound, or the minimum is not unique.
        """
        n, hessian, scale = self.n_parameters, self.hessian, self._scale(batch_size, replacement)
        step = np.eye(n) - learning_rate * hessian
        fourth = np.einsum("ki,kj,kl,km->ijlm", *[self.inputs] * 4, optimize=True) / self.n_samples
        # ⟨C⟩ = C(minimum) + s (⟨x xᵀ S x xᵀ⟩ − H S H): terms of first degree average out.
        noise = scale * (fourth - np.einsum("il,jm->ijlm", hessian, hessian))
        operator = np.kron(step, step) + learning_rate**2 * noise.reshape(n * n, n * n)
        largest = float(np.abs(np.linalg.eigvals(operator)).max())
        if not largest < 1:
            raise ConfigurationError(
                f"no stationary law at learning_rate={learning_rate:g} and batch_size={batch_size}: second moments grow by "
                f"{largest:g} an update, expected below 1; choose a smaller learning rate or a larger minibatch"
            )
        at_minimum = learning_rate**2 * self.noise_covariance(self.minimum, batch_size, replacement=replacement)
        covariance = np.linalg.solve(np.eye(n * n) - operator, at_minimum.ravel()).reshape(n, n)
        return self.minimum, covariance

    def _scale(self, batch_size: int, replacement: bool) -> float:
        """Return f/B."""
        n = self.n_samples
        whole_number("batch_size", batch_size, "a whole number (int), since samples are counted; round it")
        if not batch_size >= 1 or (batch_size > n and not replacement):
            raise ConfigurationError(
                f"batch_size={batch_size} with {n} samples: expected 1 to {n}, since a minibatch is drawn from them without "
                "replacement; choose a smaller one, or replacement=True"
            )
        return (1.0 if replacement else (n - batch_size) / max(n - 1, 1)) / batch_size

    def gradient_formula(self) -> FieldFormula:  # noqa: D102
        return linear_field(self.hessian, self.minimum)

    def noise_formula(self, batch_size: int | None = None, replacement: bool = False) -> NoiseFormula:  # noqa: D102
        if batch_size is None:
            raise ConfigurationError(
                "the noise of linear regression is that of its minibatches: expected a batch_size; use "
                "LandscapeNoise(batch_size=...)"
            )
        minimum = self.minimum
        extended = np.column_stack([self.inputs, self.inputs @ minimum - self.targets])
        mean = self.inputs.T @ extended / self.n_samples
        second = np.einsum("ki,kj,kl,km->ijlm", self.inputs, self.inputs, extended, extended, optimize=True)
        constants = [[self._scale(batch_size, replacement)], minimum, mean.ravel(), second.ravel() / self.n_samples]
        return NoiseFormula.dependent(
            FieldFormula(TILE, regression_factor, np.concatenate(constants)), self.n_parameters, self.n_parameters
        )
