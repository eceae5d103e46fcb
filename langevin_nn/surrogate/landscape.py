"""The landscape of a surrogate: few dimensions, a linear drift, noise that is constant or of second degree."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from langevin_nn.formulas import TILE, FieldFormula, NoiseFormula, affine, regression_factor
from langevin_nn.landscape import MomentLandscape
from langevin_nn.seeds import Seeds

__all__ = ["SurrogateLandscape"]

Floats = NDArray[np.float64]


class SurrogateLandscape(MomentLandscape):
    """L(x) = L₀ + g·x + ½ xᵀHx, with gradient noise of covariance C, constant or C(x) = Σ_r (A_r (x, 1)) (A_r (x, 1))ᵀ.

    H may have any signs, and L no minimum. C(x) is a sum of squares, hence positive semi-definite everywhere; both kinds run
    in the integrators.

    Parameters
    ----------
    gradient : ndarray, shape (direction,)
        g, at the origin.
    hessian : ndarray, shape (direction, direction)
        H, symmetric.
    noise_covariance : ndarray, shape (direction, direction)
        C at the origin.
    noise_polynomial : ndarray, shape (direction, direction, direction + 1, direction + 1), optional
        Σ_r A_r,il A_r,jm, the last place standing for the constant 1; constant noise unless given.
    loss : float, optional
        L₀.

    Examples
    --------
    >>> slope = SurrogateLandscape(np.array([1.0]), np.zeros((1, 1)), np.eye(1))
    >>> slope.gradient(torch.tensor([[5.0]], dtype=torch.float64))
    tensor([[1.]], dtype=torch.float64)
    """

    def __init__(
        self,
        gradient: Floats,
        hessian: Floats,
        noise_covariance: Floats,
        noise_polynomial: Floats | None = None,
        *,
        loss: float = 0.0,
    ) -> None:
        self.slope, self.hessian, self.noise_covariance = gradient, hessian, noise_covariance
        self.noise_polynomial, self.loss_at_origin = noise_polynomial, loss
        self.n_parameters = len(gradient)
        self.dtype, self.device = torch.float64, torch.device("cpu")
        self._g, self._h = torch.as_tensor(gradient), torch.as_tensor(hessian)

    @property
    def description(self) -> dict[str, object]:
        """What a file says of the landscape on which a process ran."""
        polynomial = {} if self.noise_polynomial is None else {"noise_polynomial": self.noise_polynomial.tolist()}
        matrices = {name: getattr(self, name).tolist() for name in ("slope", "hessian", "noise_covariance")}
        return {**matrices, **polynomial, "loss_at_origin": self.loss_at_origin}

    def initial_weights(self, replicas: tuple[int, ...], seeds: Seeds) -> Tensor:  # noqa: D102
        return torch.zeros(len(replicas), self.n_parameters, dtype=self.dtype)

    def loss(self, weights: Tensor) -> Tensor:  # noqa: D102
        return self.loss_at_origin + (weights * (self._g + 0.5 * weights @ self._h)).sum(1)

    def gradient(self, weights: Tensor) -> Tensor:  # noqa: D102
        return self._g + weights @ self._h

    def hessian_product(self, weights: Tensor, vectors: Tensor) -> Tensor:  # noqa: D102
        return vectors @ self._h

    def covariance_at(self, points: Floats) -> Floats:
        """Return C(x).

        Parameters
        ----------
        points : ndarray, shape (point, direction)
            Where.

        Returns
        -------
        ndarray, shape (point, direction, direction)
            The covariance of the gradient noise there.
        """
        if self.noise_polynomial is None:
            return np.broadcast_to(self.noise_covariance, (len(points), *self.noise_covariance.shape)).copy()
        extended = np.column_stack([points, np.ones(len(points))])
        return np.asarray(np.einsum("ijlm,pl,pm->pij", self.noise_polynomial, extended, extended, optimize=True))

    def noise_factor(self, weights: Tensor | None = None) -> Tensor:  # noqa: D102
        at = np.zeros((1, self.n_parameters)) if weights is None else weights.double().cpu().numpy()[None]
        values, vectors = np.linalg.eigh(self.covariance_at(at)[0])
        return torch.as_tensor(vectors * np.sqrt(np.clip(values, 0, None)))

    def gradient_formula(self) -> FieldFormula:  # noqa: D102
        return FieldFormula(TILE, affine, np.concatenate([self.hessian.ravel(), self.slope]))

    def noise_formula(self, batch_size: int | None = None, replacement: bool = False) -> NoiseFormula:  # noqa: D102
        if self.noise_polynomial is None:
            return NoiseFormula.constant(self.noise_factor().numpy())
        # Centred about the origin, with no mean to subtract from the second moments.
        n = self.n_parameters
        constants = np.concatenate([[1.0], np.zeros(n + n * (n + 1)), self.noise_polynomial.ravel()])
        return NoiseFormula.dependent(FieldFormula(TILE, regression_factor, constants), n, n)
