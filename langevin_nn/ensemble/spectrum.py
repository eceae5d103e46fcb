"""Spectra: how much of the noise lies in how many directions, by the cheapest of three routes."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike, NDArray

from langevin_nn.checks import numbers
from langevin_nn.ensemble.variables import MEASURES
from langevin_nn.errors import ConfigurationError, UnknownNameError
from langevin_nn.memory import as_text

__all__ = ["METHODS", "Method", "Route", "Spectrum", "effective_dimension", "krylov_dimension", "routes"]

Method = Literal["auto", "parameters", "samples", "matrix-free"]
METHODS: tuple[Method, ...] = ("auto", "parameters", "samples", "matrix-free")

# Products with thin blocks, and the reduction of a dense matrix, run at this fraction of the rate of large products.
_SLOWNESS = 2.5


def effective_dimension(eigenvalues: ArrayLike, fraction: float = 0.9) -> float:
    """Return D_s, the smallest number of directions that hold a share of the noise.

    The smallest l with Σ_{i≤l} e_i ≥ fraction · Σ e_i (Feng & Tu 2021, doi 10.1088/2632-2153/abf5b9, section 2).

    Parameters
    ----------
    eigenvalues : array, shape (mode,)
        All eigenvalues of C, descending.
    fraction : float, optional
        The share, in (0, 1].

    Returns
    -------
    float
        A whole number; NaN where there is no noise.

    Raises
    ------
    ConfigurationError
        If `fraction` is outside (0, 1].

    Examples
    --------
    >>> effective_dimension([6.0, 3.0, 1.0])
    2.0
    """
    values = numbers("eigenvalues", eigenvalues, "numbers, shape (eigenvalue,)", finite=False)
    return _dimension(values, float(values.sum()), fraction)[0]


def _dimension(values: NDArray[np.float64], total: float, fraction: float) -> tuple[float, bool]:
    """Return D_s and whether the values reach it; where they do not, a lower bound on it."""
    if not 0 < fraction <= 1:
        raise ConfigurationError(f"fraction={fraction}: expected a share of the noise strength in (0, 1]")
    if values.size == 0 or not total > 0:
        return float("nan"), True
    cumulative = np.cumsum(values)
    # The share is met to rounding: [9, 1] reaches 0.9 with its first mode.
    threshold = fraction * total * (1 - 1e-12)
    reached = int(np.searchsorted(cumulative, threshold))
    if reached < values.size:
        return float(reached + 1), True
    # No mode beyond these is stronger than the last.
    missing = np.ceil((threshold - cumulative[-1]) / values[-1]) if values[-1] > 0 else 1
    return float(values.size + max(1, missing)), False


@dataclass(frozen=True)
class Spectrum:
    """Leading eigenvalues of C with bounds on their errors, beside its exact trace.

    Parameters
    ----------
    eigenvalues : ndarray, shape (mode,)
        Descending.
    residuals : ndarray, shape (mode,)
        An eigenvalue of C lies within this distance of each; 0 where a matrix was decomposed as a whole.
    errors : ndarray, shape (mode,)
        Estimates of the errors themselves, which are far smaller.
    trace : float
        D = Tr C, from the norms of the sample gradients.
    method : str
        How they were computed.
    complete : bool
        Whether no further eigenvalue can differ from zero.
    """

    eigenvalues: NDArray[np.float64]
    residuals: NDArray[np.float64]
    errors: NDArray[np.float64]
    trace: float
    method: str
    complete: bool

    def effective_dimension(self, fraction: float = 0.9) -> tuple[float, bool]:
        """Return D_s, and whether it is exact rather than a lower bound.

        Parameters
        ----------
        fraction : float, optional
            The share of the noise strength that the effective dimension holds.

        Returns
        -------
        dimension : float
            Exact where the eigenvalues, within their errors, reach the share; else no D_s is smaller.
        exact : bool
            Which of the two.
        """
        if self.complete:
            return effective_dimension(self.eigenvalues, fraction), True
        least, reached = _dimension(self.eigenvalues + self.errors, self.trace, fraction)
        most, _ = _dimension(np.maximum(self.eigenvalues - self.errors, 0), self.trace, fraction)
        return least, bool(reached and least == most) or bool(np.isnan(least))

    def dataset(self, fraction: float = 0.9) -> xr.Dataset:
        """Return the spectrum, labelled.

        Parameters
        ----------
        fraction : float, optional
            The share of the noise strength that the effective dimension holds.

        Returns
        -------
        xarray.Dataset
            ``noise_eigenvalue`` and its residual (mode), ``effective_dimension`` and whether that is a lower bound; the
            method is an attribute.
        """
        dimension, exact = self.effective_dimension(fraction)
        values = {
            "noise_eigenvalue": ("mode", self.eigenvalues),
            "noise_eigenvalue_residual": ("mode", self.residuals),
            "noise_strength": ((), self.trace),
            "effective_dimension": ((), dimension),
            "effective_dimension_is_lower_bound": ((), np.int8(not exact)),
        }
        variables = {name: (dims, value, MEASURES[name].attributes) for name, (dims, value) in values.items()}
        return xr.Dataset(variables, attrs={"method": self.method, "fraction": fraction})


def krylov_dimension(n_modes: int, size: int) -> int:
    """Return about how large a Krylov space gives leading eigenvalues, as measured on networks in training."""
    return min(size, 3 * n_modes + 64)


@dataclass(frozen=True)
class Route:
    """One way to a spectrum, with what it takes."""

    method: Method  # of which matrix
    solver: Literal["dense", "Lanczos"]
    operations: float  # floating-point operations, in units of those of large matrix products
    n_bytes: float  # beside the sample gradients


def _explicit(method: Method, forming: float, size: int, n_modes: int) -> list[Route]:
    """Return the two ways to decompose a matrix of a given size that is written out first."""
    dimension = krylov_dimension(n_modes, size)
    dense = Route(method, "dense", forming + _SLOWNESS * size**3, 8 * 3.0 * size**2)
    if dimension >= size:
        return [dense]
    iterated = _SLOWNESS * (2.0 * dimension * size**2 + 4.0 * size * dimension**2)
    return [dense, Route(method, "Lanczos", forming + iterated, 8 * (size**2 + 2.0 * dimension * size))]


def routes(
    n_samples: int,
    n_parameters: int,
    n_modes: int | None,
    pair_cost: float,
    pass_cost: float,
    n_pieces: int,
    moment_cost: float = 2.0,
) -> list[Route]:
    """Return all ways to a noise spectrum with their costs.

    The stated cost model, in operations at the rate of large matrix products. With N samples, P parameters and a Krylov
    space of dimension m = 3 `n_modes` + 64: ``parameters`` forms the P×P covariance, NP² · `moment_cost`, and decomposes it;
    ``samples`` forms the N×N Gram matrix of the sample gradients, N² · `pair_cost` (P where they are stored, inputs +
    outputs of a linear layer), and decomposes that; ``matrix-free`` multiplies blocks of vectors by the sample gradients and
    keeps them orthogonal, 2.5 (4NPm + 4nm²) with n the smaller of N and P. To decompose an n×n matrix takes 2.5 n³ as a
    whole and 2.5 (2mn² + 4nm²) by Lanczos. Where gradients are computed anew at each use, `pass_cost` comes on top: once
    for ``parameters``, (pieces + 1)/2 times for ``samples``, twice for each block of 32 vectors for ``matrix-free``.

    Parameters
    ----------
    n_samples, n_parameters : int
        N and P.
    n_modes : int or None
        Leading eigenvalues that are wanted; None for all.
    pair_cost : float
        Operations for the inner product of two sample gradients, half of them saved by symmetry.
    pass_cost : float
        Operations to compute all sample gradients once more; 0 where they are held.
    n_pieces : int
        Pieces in which they are computed.
    moment_cost : float, optional
        Operations a sample and entry of the P×P covariance: 2, or ½ where a single linear layer is measured.

    Returns
    -------
    list of Route
        Any order.
    """
    n, p, least = n_samples, n_parameters, min(n_samples, n_parameters)
    wanted = least if n_modes is None else min(n_modes, least)
    found = _explicit("parameters", moment_cost * n * p**2 + pass_cost, p, wanted)
    found += _explicit("samples", pair_cost * n**2 + pass_cost * (n_pieces + 1) / 2, n, wanted)
    if n_modes is None:
        return [route for route in found if route.solver == "dense"]
    m = krylov_dimension(wanted, least)
    iterated = _SLOWNESS * (4.0 * n * p * m + 4.0 * least * m**2) + pass_cost * 2 * max(1.0, m / 32)
    return [
        *found,
        Route("matrix-free", "Lanczos", iterated, 8 * (2.0 * m * least + 4 * max(4, min(32, wanted // 4)) * p)),
    ]


def cheapest(candidates: Iterable[Route], method: Method, memory_limit: float, shape: str) -> Route:
    """Return the cheapest way of a method that fits into memory; `shape` tells in messages what is decomposed."""
    if method not in METHODS:
        raise UnknownNameError("method", method, METHODS)
    considered = [route for route in candidates if method in ("auto", route.method)]
    fitting = [route for route in considered if route.n_bytes <= memory_limit]
    if fitting:
        return min(fitting, key=lambda route: route.operations)
    if not considered:
        raise ConfigurationError(
            f"method={method!r} gives leading eigenvalues only: expected n_modes beside it, since all of {shape} were "
            "asked for"
        )
    smallest = min(considered, key=lambda route: route.n_bytes)
    raise ConfigurationError(
        f"the noise spectrum of {shape} takes {as_text(smallest.n_bytes)} by its smallest way ({smallest.method}): "
        f"expected at most the {as_text(memory_limit)} that sample gradients leave of memory_limit; ask for fewer "
        "eigenvalues with n_modes=, measure fewer tensors with a parameters= pattern, or raise memory_limit"
    )
