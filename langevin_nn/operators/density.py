"""Trace and spectral density of an operator by random probes, with standard errors."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from langevin_nn.errors import ConfigurationError
from langevin_nn.operators.base import SymmetricOperator

__all__ = ["SpectralDensity", "estimate_trace", "spectral_density"]


def _probes(operator: SymmetricOperator, n_probes: int, seed: int) -> Tensor:
    """Return vectors of independent signs."""
    if n_probes < 2:
        raise ConfigurationError(
            f"n_probes={n_probes}: expected at least 2, since their spread gives the standard error"
        )
    signs = np.random.Generator(np.random.Philox(seed)).integers(0, 2, size=(n_probes, operator.size))
    return torch.as_tensor(2.0 * signs - 1, device=operator.device)


def estimate_trace(operator: SymmetricOperator, n_probes: int = 16, seed: int = 0) -> tuple[float, float]:
    """Estimate the trace without bias.

    The mean of zᵀ M z over vectors z of independent signs (Hutchinson 1990, doi 10.1080/03610919008812866).

    Parameters
    ----------
    operator : SymmetricOperator
        M.
    n_probes : int, optional
        How many vectors, at least 2.
    seed : int, optional
        Of the signs.

    Returns
    -------
    value : float
        The estimate.
    standard_error : float
        From the spread of the probes.

    Raises
    ------
    ConfigurationError
        If there are fewer than 2 probes.

    Examples
    --------
    >>> from langevin_nn.operators import DenseOperator
    >>> estimate_trace(DenseOperator(np.diag([1.0, 2.0, 3.0])))  # exact for diagonal matrices
    (6.0, 0.0)
    """
    probes = _probes(operator, n_probes, seed)
    values = (probes * operator.apply(probes)).sum(1)
    return float(values.mean()), float(values.std()) / n_probes**0.5


@dataclass(frozen=True)
class SpectralDensity:
    """A spectrum as a measure: nodes and weights for each probe.

    Parameters
    ----------
    nodes : ndarray, shape (probe, node)
        Ritz values.
    weights : ndarray, shape (probe, node)
        Nonnegative, summing to 1 for each probe.
    size : int
        Number of eigenvalues.
    """

    nodes: NDArray[np.float64]
    weights: NDArray[np.float64]
    size: int

    def trace(self) -> tuple[float, float]:
        """Return the trace that the nodes imply, with its standard error.

        Returns
        -------
        value : float
            Mean over probes of size · Σ weight · node.
        standard_error : float
            From the spread of the probes.
        """
        mean, error = self._over_probes(self.size * (self.weights * self.nodes).sum(1))
        return float(mean), float(error)

    def cumulative(self, at: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return the share of eigenvalues up to given values.

        Parameters
        ----------
        at : array, shape (value,)
            Where.

        Returns
        -------
        value : ndarray, shape (value,)
            Between 0 and 1.
        standard_error : ndarray, shape (value,)
            From the spread of the probes.
        """
        below = self.nodes[:, :, None] <= np.asarray(at, dtype=np.float64)
        return self._over_probes((self.weights[:, :, None] * below).sum(1))

    def density(self, at: ArrayLike, width: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return the density of eigenvalues, smoothed by a Gaussian.

        Parameters
        ----------
        at : array, shape (value,)
            Where.
        width : float
            Standard deviation of the Gaussian, in units of the eigenvalues.

        Returns
        -------
        value : ndarray, shape (value,)
            Integrates to 1.
        standard_error : ndarray, shape (value,)
            From the spread of the probes.

        Raises
        ------
        ConfigurationError
            If the width is not positive.
        """
        if not width > 0:
            raise ConfigurationError(f"width={width}: expected a positive width, in units of the eigenvalues")
        distance = (np.asarray(at, dtype=np.float64) - self.nodes[:, :, None]) / width
        bumps = np.exp(-0.5 * distance**2) / (width * np.sqrt(2 * np.pi))
        return self._over_probes((self.weights[:, :, None] * bumps).sum(1))

    @staticmethod
    def _over_probes(values: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        return np.asarray(values.mean(0)), np.asarray(values.std(0, ddof=1) / len(values) ** 0.5)


def spectral_density(
    operator: SymmetricOperator, n_probes: int = 8, n_steps: int = 80, seed: int = 0
) -> SpectralDensity:
    """Estimate the density of eigenvalues by stochastic Lanczos quadrature.

    Each probe z gives the Gauss quadrature of the measure Σ_i (u_i·z)²/‖z‖² δ(λ − λ_i): nodes are the eigenvalues of its
    Lanczos matrix, weights the squared first components of their eigenvectors (Ubaru, Chen & Saad 2017, doi
    10.1137/16M1104974).

    Parameters
    ----------
    operator : SymmetricOperator
        M.
    n_probes : int, optional
        How many random vectors, at least 2.
    n_steps : int, optional
        Lanczos steps of each, with full reorthogonalisation; the quadrature is exact for polynomials up to degree
        2 `n_steps` − 1.
    seed : int, optional
        Of the probes.

    Returns
    -------
    SpectralDensity
        Nodes and weights.

    Raises
    ------
    ConfigurationError
        If there are fewer than 2 probes or less than 1 step.

    Examples
    --------
    >>> from langevin_nn.operators import DenseOperator
    >>> measure = spectral_density(DenseOperator(np.diag([1.0, 1.0, 1.0, 5.0])), n_steps=4)
    >>> float(measure.cumulative([2.0])[0][0].round(6))
    0.75
    """
    if n_steps < 1:
        raise ConfigurationError(f"n_steps={n_steps}: expected at least 1")
    start = _probes(operator, n_probes, seed)
    n_steps = min(n_steps, operator.size)
    vectors = [start / torch.linalg.vector_norm(start, dim=1, keepdim=True)]
    diagonal = torch.zeros(n_probes, n_steps, dtype=torch.float64)
    coupling = torch.zeros(n_probes, n_steps, dtype=torch.float64)
    for step in range(n_steps):
        product = operator.apply(vectors[-1])
        diagonal[:, step] = (product * vectors[-1]).sum(1)
        scale = torch.linalg.vector_norm(product, dim=1)
        basis = torch.stack(vectors, dim=1)
        for _ in range(2):
            product = product - torch.einsum("psn,ps->pn", basis, torch.einsum("psn,pn->ps", basis, product))
        norms = torch.linalg.vector_norm(product, dim=1)
        alive = norms > 1e-12 * scale  # a probe whose Krylov space is exhausted is exact already
        coupling[:, step] = torch.where(alive, norms, torch.zeros_like(norms)).cpu()
        vectors.append(torch.where(alive[:, None], product / norms.clamp_min(1e-300)[:, None], 0.0))
    tridiagonal = torch.diag_embed(diagonal)
    tridiagonal += torch.diag_embed(coupling[:, :-1], offset=1) + torch.diag_embed(coupling[:, :-1], offset=-1)
    values, rotations = torch.linalg.eigh(tridiagonal)
    return SpectralDensity(values.numpy(), rotations[:, 0].square().numpy(), operator.size)
