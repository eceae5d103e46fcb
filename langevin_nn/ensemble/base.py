"""The gradient ensemble at one point: order parameters and spectrum, wherever its moments come from."""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from langevin_nn.checks import instance, whole_number
from langevin_nn.ensemble.spectrum import METHODS, Method, Spectrum
from langevin_nn.ensemble.variables import measure_named
from langevin_nn.errors import UndefinedQuantityWarning, UnknownNameError
from langevin_nn.operators import Eigenpairs, SymmetricOperator
from langevin_nn.schema import COHORT_PAIRS, COHORTS

if TYPE_CHECKING:
    from langevin_nn.ensemble.forecast import Forecast
    from langevin_nn.gradients import SampleGradients

__all__ = ["GradientEnsemble", "labelled"]


def labelled(values: Mapping[str, NDArray[Any]], *dimensions: str) -> xr.Dataset:
    """Return arrays along the same dimensions, with the units of `langevin_nn.ensemble.variables`."""
    return xr.Dataset({name: (dimensions, value, measure_named(name).attributes) for name, value in values.items()})


class GradientEnsemble(ABC):
    """The law of minibatch gradients at fixed weights.

    Made by `gradient_ensemble` from a landscape, by `from_sample_gradients` or by `from_moments`; what it measures means
    the same for all.

    Attributes
    ----------
    batch_size : int
        B.
    """

    batch_size: int

    @staticmethod
    def from_sample_gradients(
        gradients: SampleGradients,
        batch_size: int,
        *,
        mislabeled: Tensor | None = None,
        replacement: bool = False,
        memory_limit: int | float | str | None = None,
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
        memory_limit : int or str, optional
            Budget for sample gradients, matrices and Krylov spaces, in bytes or as ``"512 MiB"``; 1 GiB unless said.

        Returns
        -------
        GradientEnsemble
            Closed forms; only R is estimated.

        Raises
        ------
        ConfigurationError
            If B is not between 1 and N, without an upper limit with replacement.
        """
        from langevin_nn.ensemble.empirical import EmpiricalEnsemble

        return EmpiricalEnsemble(gradients, batch_size, mislabeled, replacement, memory_limit=memory_limit)

    @staticmethod
    def from_moments(mean: Tensor, factor: Tensor, batch_size: int = 1) -> GradientEnsemble:
        """Return the ensemble of Gaussian gradients with given moments.

        Parameters
        ----------
        mean : Tensor, shape (parameter,)
            ḡ.
        factor : Tensor, shape (parameter, rank)
            F with C = F Fᵀ.
        batch_size : int, optional
            The B of which C is the covariance; the gradient noise scale counts samples with it.

        Returns
        -------
        GradientEnsemble
            Its alignment is that of Gaussian minibatch gradients.
        """
        from langevin_nn.ensemble.moments import MomentEnsemble

        return MomentEnsemble(mean, factor, batch_size)

    @property
    @abstractmethod
    def mean_gradient(self) -> Tensor:
        """ḡ over the measured parameters, shape (parameter,), float64."""

    @property
    @abstractmethod
    def layers(self) -> tuple[str, ...]:
        """Names of the measured layers."""

    @property
    @abstractmethod
    def paths(self) -> dict[str, str]:
        """How the sample gradients of each tensor were computed."""

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
    def closed_forms_by_layer(self) -> dict[str, NDArray[np.float64]]:
        """Return the order parameters of the gradients within each layer, as arrays.

        Returns
        -------
        dict of str to ndarray, shape (layer, cohort)
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
            ``alignment`` with ``alignment_standard_error``, ``alignment_zero_share`` and ``alignment_minibatches``; the
            closed form ``alignment_approximation`` with ``alignment_approximation_bound``.
        """

    @abstractmethod
    def classes(self, labels: ArrayLike | Tensor | None = None) -> xr.Dataset:
        """Return the ensembles of single classes, and the alignments of their mean gradients.

        Parameters
        ----------
        labels : array of int, shape (sample,), optional
            The class of each sample; the given labels unless said.

        Returns
        -------
        xarray.Dataset
            Order parameters along ``class``, defined as those of cohorts are; ``class_alignment`` (class, other_class), the
            cosines of mean gradients.

        Raises
        ------
        ConfigurationError
            If there are no classes, or there is not one for each sample.
        """

    @abstractmethod
    def samples(self) -> xr.Dataset:
        """Return what is known of each sample.

        Returns
        -------
        xarray.Dataset
            ``sample_gradient_norm`` and, where the ensemble was made from a landscape, ``sample_loss`` (sample).

        Raises
        ------
        ConfigurationError
            If the ensemble is not made of samples.
        """

    @property
    @abstractmethod
    def covariance(self) -> SymmetricOperator:
        """C as an operator; ``covariance.to_scipy()`` is a ``scipy.sparse.linalg.LinearOperator``."""

    @abstractmethod
    def projected_covariance(self, directions: Tensor) -> NDArray[np.float64]:
        """Return V C Vᵀ.

        Parameters
        ----------
        directions : Tensor, shape (direction, parameter)
            The rows of V, any vectors.

        Returns
        -------
        ndarray, shape (direction, direction)
            Covariances of the minibatch gradient along the directions.
        """

    @abstractmethod
    def gaussian_noise(self, generator: np.random.Generator, n_vectors: int = 1) -> Tensor:
        """Draw vectors of Gaussian noise whose covariance is exactly C.

        Parameters
        ----------
        generator : numpy.random.Generator
            Source of randomness.
        n_vectors : int, optional
            How many.

        Returns
        -------
        Tensor, shape (vector, parameter)
            Independent N(0, C), float64.
        """

    @abstractmethod
    def _spectrum(self, n_modes: int | None, method: Method, tolerance: float) -> Spectrum:
        """Return leading eigenvalues of C."""

    @abstractmethod
    def noise_modes(self, n_modes: int, *, tolerance: float = 1e-3) -> Eigenpairs:
        """Return leading eigenvalues of C with their eigenvectors.

        Parameters
        ----------
        n_modes : int
            How many.
        tolerance : float, optional
            Largest residual ‖C u − e u‖/e.

        Returns
        -------
        Eigenpairs
            Descending, with residuals.

        Raises
        ------
        ConfigurationError
            If there are not so many.
        """

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
        return self._spectrum(None, "auto", 1e-3).eigenvalues

    def leading_spectrum(
        self, n_modes: int | None = None, *, method: Method = "auto", tolerance: float = 1e-3
    ) -> Spectrum:
        """Return the spectrum as arrays; see `spectrum`.

        Parameters
        ----------
        n_modes : int, optional
            How many eigenvalues; all unless said.
        method : {"auto", "parameters", "samples", "matrix-free"}, optional
            Which matrix to decompose.
        tolerance : float, optional
            Largest relative residual of an iterative solver.

        Returns
        -------
        Spectrum
            Eigenvalues with bounds.

        Raises
        ------
        ConfigurationError
            If `n_modes` is not positive, or no way fits into the memory limit.
        UnknownNameError
            If there is no such method.
        """
        if n_modes is not None:
            expected = "a whole number (int) of at least 1; leave it out for all eigenvalues"
            whole_number("n_modes", n_modes, expected, least=1)
        if method not in METHODS:
            raise UnknownNameError("method", method, METHODS)
        return self._spectrum(n_modes, method, tolerance)

    @abstractmethod
    def forecast(self, *, n_minibatches: int = 64, n_modes: int = 0) -> Forecast:
        """Say what order parameters and a spectrum will take, before they are computed.

        Parameters
        ----------
        n_minibatches : int, optional
            From how many minibatches R is estimated; 0 where it is left out.
        n_modes : int, optional
            How many leading eigenvalues of C; none unless said.

        Returns
        -------
        Forecast
            About how many seconds, from a pass over a few samples, and what memory; ``print`` it.

        Raises
        ------
        ConfigurationError
            If the ensemble is not made of samples, numbers are none, or no way to a spectrum fits into the memory limit.
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
            (2021), doi 10.1088/2632-2153/abf5b9; the gradient noise scale Tr Σ/‖ḡ‖² is the "simple" one of McCandlish et
            al. (2018), arXiv:1812.06162.

        Warns
        -----
        UndefinedQuantityWarning
            If the mean gradient is zero, where σ_λ², R and what else refers to its direction are NaN.
        """
        values = dict(self.closed_forms())
        expected = "a generator of NumPy, np.random.default_rng(seed), or None to leave R out"
        instance("generator", generator, (np.random.Generator, type(None)), expected)
        if generator is not None:
            values |= self.alignment(generator, n_minibatches)
        if values["directed_activity"][0] == 0:
            warnings.warn(
                "the mean gradient is zero: projection_variance, gradient_noise_scale, alignment and all that refers to its "
                "direction are undefined here, and NaN",
                UndefinedQuantityWarning,
                stacklevel=2,
            )
        pairs = {name: values.pop(name) for name in list(values) if name.startswith("gradient_alignment")}
        data = labelled(values, "cohort").merge(labelled(pairs, "cohort_pair"))
        return data.assign_coords(cohort=list(COHORTS), cohort_pair=list(COHORT_PAIRS))

    def by_layer(self) -> xr.Dataset:
        """Return the order parameters of the gradients within each layer.

        A, A₀ and D of the layers sum to those of the whole gradient; σ_λ² refers to the mean gradient within the layer.
        It takes no further pass through the network.

        Returns
        -------
        xarray.Dataset
            Dimensions ``layer`` and ``cohort``; the coordinate ``path`` says how a layer's sample gradients were computed.
        """
        data = labelled(self.closed_forms_by_layer(), "layer", "cohort")
        paths: dict[str, str] = {}
        for tensor, path in self.paths.items():
            paths.setdefault(tensor.rpartition(".")[0], path)
        found = [paths.get(layer, next(iter(paths.values()))) for layer in self.layers]
        return data.assign_coords(layer=list(self.layers), cohort=list(COHORTS), path=("layer", found))

    def spectrum(
        self,
        n_modes: int | None = None,
        *,
        fraction: float = 0.9,
        method: Method = "auto",
        tolerance: float = 1e-3,
    ) -> xr.Dataset:
        """Return the noise spectrum and the effective dimension.

        Parameters
        ----------
        n_modes : int, optional
            How many leading eigenvalues; all that may differ from zero unless said.
        fraction : float, optional
            The share of the noise strength that the effective dimension holds.
        method : {"auto", "parameters", "samples", "matrix-free"}, optional
            Whether to decompose the P×P covariance, the N×N Gram matrix or no matrix; the cheapest by the cost model of
            `langevin_nn.ensemble.spectrum.routes` unless said.
        tolerance : float, optional
            Largest relative residual ‖C u − e u‖/e of an iterative solver; eigenvalues err by about its square.

        Returns
        -------
        xarray.Dataset
            ``noise_eigenvalue`` and ``noise_eigenvalue_residual`` (mode), ``noise_strength`` from the exact trace,
            ``effective_dimension`` and ``effective_dimension_is_lower_bound``.

        Raises
        ------
        ConfigurationError
            If `n_modes` or `fraction` make no sense, or no way fits into the memory limit.
        UnknownNameError
            If there is no such method.
        """
        return self.leading_spectrum(n_modes, method=method, tolerance=tolerance).dataset(fraction)
