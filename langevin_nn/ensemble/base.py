"""The gradient ensemble at one point: order parameters and spectrum, wherever its moments come from."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from torch import Tensor

from langevin_nn.ensemble.spectrum import effective_dimension
from langevin_nn.schema import COHORT_PAIRS, COHORTS, describe

if TYPE_CHECKING:
    from langevin_nn.landscape import SampleGradients

__all__ = ["GradientEnsemble"]


class GradientEnsemble(ABC):
    """The law of minibatch gradients at fixed weights.

    Made by `from_sample_gradients` or `from_moments`; what it measures means the same for both.
    """

    @staticmethod
    def from_sample_gradients(
        gradients: SampleGradients,
        batch_size: int,
        *,
        mislabeled: Tensor | None = None,
        replacement: bool = False,
    ) -> GradientEnsemble:
        """Return the exact ensemble of minibatches of given sample gradients.

        Parameters
        ----------
        gradients : SampleGradients
            ∇ℓ_k of all samples.
        batch_size : int
            B, from 1 to N.
        mislabeled : Tensor of bool, shape (sample,), optional
            Which samples make the cohort `mislabeled`.
        replacement : bool, optional
            Whether minibatches are drawn with replacement.

        Returns
        -------
        GradientEnsemble
            Closed forms; only R is estimated.
        """
        from langevin_nn.ensemble.empirical import EmpiricalEnsemble

        return EmpiricalEnsemble(gradients, batch_size, mislabeled, replacement)

    @staticmethod
    def from_moments(mean: Tensor, factor: Tensor) -> GradientEnsemble:
        """Return the ensemble of Gaussian gradients with given moments.

        Parameters
        ----------
        mean : Tensor, shape (parameter,)
            ḡ.
        factor : Tensor, shape (parameter, rank)
            F with C = F Fᵀ.

        Returns
        -------
        GradientEnsemble
            Its alignment is that of Gaussian minibatch gradients.
        """
        from langevin_nn.ensemble.moments import MomentEnsemble

        return MomentEnsemble(mean, factor)

    @property
    @abstractmethod
    def sample_trace(self) -> NDArray[np.float64]:
        """Tr Σ of each cohort about its own mean, shape (cohort,); NaN where there are no samples."""

    @abstractmethod
    def closed_forms(self) -> dict[str, NDArray[np.float64]]:
        """Return the order parameters that need no sampling, as arrays.

        Returns
        -------
        dict of str to ndarray, shape (cohort,) or (cohort_pair,)
            By name.
        """

    @abstractmethod
    def alignment(self, generator: np.random.Generator, n_minibatches: int = 64) -> dict[str, NDArray[np.float64]]:
        """Estimate R of each cohort.

        Parameters
        ----------
        generator : numpy.random.Generator
            Draws the minibatches.
        n_minibatches : int, optional
            How many independent minibatches.

        Returns
        -------
        dict of str to ndarray, shape (cohort,)
            ``alignment``, ``alignment_standard_error``, ``alignment_zero_share``.
        """

    @abstractmethod
    def noise_eigenvalues(self) -> NDArray[np.float64]:
        """Return all eigenvalues of C that may differ from zero.

        Returns
        -------
        ndarray, shape (mode,)
            Descending; as many as the smaller of the two matrices that share them has rows.

        Raises
        ------
        ConfigurationError
            If the matrices that this takes are too large.
        """

    def order_parameters(self, generator: np.random.Generator | None = None, n_minibatches: int = 64) -> xr.Dataset:
        """Return all order parameters, labelled.

        Parameters
        ----------
        generator : numpy.random.Generator, optional
            Draws the minibatches for R; without it R is left out, and nothing is random.
        n_minibatches : int, optional
            How many independent minibatches.

        Returns
        -------
        xarray.Dataset
            Dimensions ``cohort`` and ``cohort_pair``; each variable with long name and units. See section 2 of Feng & Tu
            (2021), doi 10.1088/2632-2153/abf5b9.
        """
        values: dict[str, NDArray[np.float64]] = dict(self.closed_forms())
        if generator is not None:
            values |= self.alignment(generator, n_minibatches)
        variables: dict[str, Any] = {
            name: (dimension_of(name), value, describe(name).attributes) for name, value in values.items()
        }
        return xr.Dataset(variables, coords={"cohort": list(COHORTS), "cohort_pair": list(COHORT_PAIRS)})

    def spectrum(self, fraction: float = 0.9) -> xr.Dataset:
        """Return the noise spectrum and the effective dimension.

        Parameters
        ----------
        fraction : float, optional
            The share of the noise strength that the effective dimension holds.

        Returns
        -------
        xarray.Dataset
            ``noise_eigenvalue`` (mode) and ``effective_dimension``.
        """
        values = self.noise_eigenvalues()
        dimension = effective_dimension(values, fraction)
        return xr.Dataset(
            {
                "noise_eigenvalue": ("mode", values, describe("noise_eigenvalue").attributes),
                "effective_dimension": ((), dimension, describe("effective_dimension").attributes),
            }
        )


def dimension_of(name: str) -> str:
    """Return the dimension along which an order parameter lies within one record.

    Parameters
    ----------
    name : str
        Its name.

    Returns
    -------
    str
        ``cohort`` or ``cohort_pair``.
    """
    return "cohort_pair" if name == "gradient_alignment" else "cohort"
