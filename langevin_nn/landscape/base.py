"""What every landscape offers, and what one made of samples offers besides."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator

import torch
from torch import Tensor

from langevin_nn.errors import ConfigurationError
from langevin_nn.former import RenamedMethods
from langevin_nn.formulas import FieldFormula, NoiseFormula
from langevin_nn.gradients import Problem, SampleGradients
from langevin_nn.readable import Readable, counted, precision
from langevin_nn.seeds import Seeds

__all__ = ["EmpiricalLandscape", "Landscape", "MomentLandscape"]


class Landscape(RenamedMethods, Readable, ABC):
    """A loss over weight space; `weights` always have shape (replica, parameter)."""

    n_parameters: int
    dtype: torch.dtype
    device: torch.device

    def _said(self) -> Iterator[str]:
        yield from counted(self, n_parameters="parameter", n_samples="sample")
        yield from precision(self)

    @abstractmethod
    def initial_weights(self, replicas: tuple[int, ...], seeds: Seeds) -> Tensor:
        """Draw the weights at which replicas start.

        Parameters
        ----------
        replicas : tuple of int
            Their indices.
        seeds : Seeds
            The tree of randomness.

        Returns
        -------
        Tensor, shape (replica, parameter)
            Each row depends on the seed and its own index only.
        """

    @abstractmethod
    def loss(self, weights: Tensor) -> Tensor:
        """Return L(w).

        Parameters
        ----------
        weights : Tensor, shape (replica, parameter)
            Where.

        Returns
        -------
        Tensor, shape (replica,)
            The loss.
        """

    @abstractmethod
    def gradient(self, weights: Tensor) -> Tensor:
        """Return ∇L(w).

        Parameters
        ----------
        weights : Tensor, shape (replica, parameter)
            Where.

        Returns
        -------
        Tensor, shape (replica, parameter)
            The gradient of the loss alone.
        """

    @abstractmethod
    def hessian_product(self, weights: Tensor, vectors: Tensor) -> Tensor:
        """Return ∇²L(w) v.

        Parameters
        ----------
        weights : Tensor, shape (replica, parameter)
            Where.
        vectors : Tensor, shape (replica, parameter)
            One v a replica.

        Returns
        -------
        Tensor, shape (replica, parameter)
            The products.
        """

    @property
    def problem(self) -> Problem | None:
        """What replicas of several landscapes can share; None where each is asked for its own gradients."""
        return None

    def gradient_formula(self) -> FieldFormula:
        """Return what ∇L is made of, for the integrators.

        Returns
        -------
        FieldFormula
            In the words of `langevin_nn.formulas`.

        Raises
        ------
        ConfigurationError
            If it says none.
        """  # noqa: DOC202
        raise ConfigurationError(
            f"{type(self).__name__} has no formula of its gradient: expected a landscape that says one, for the "
            "integrators; use update=Plain(), the Euler–Maruyama scheme for any landscape"
        )

    def noise_formula(self, batch_size: int | None = None, replacement: bool = False) -> NoiseFormula:
        """Return the landscape's own noise, of covariance C, for the integrators.

        Parameters
        ----------
        batch_size : int, optional
            B, for a landscape that is made of samples.
        replacement : bool, optional
            Whether minibatches are drawn with replacement.

        Returns
        -------
        NoiseFormula
            In the words of `langevin_nn.formulas`.

        Raises
        ------
        ConfigurationError
            If it knows no factor of C.
        """  # noqa: DOC202
        raise ConfigurationError(
            f"{type(self).__name__} knows no noise of its own: expected a landscape with a formula for the factor of C; use "
            "MatchedGaussian(batch_size) for networks, StateDependentNoise(amplitude) or another source"
        )


class EmpiricalLandscape(Landscape):
    """The average of N sample losses."""

    n_samples: int
    measures_everything: bool = True

    @abstractmethod
    def sample_losses(self, weights: Tensor) -> Tensor:
        """Return ℓ_k(w).

        Parameters
        ----------
        weights : Tensor, shape (replica, parameter)
            Where.

        Returns
        -------
        Tensor, shape (replica, sample)
            The loss of each training sample.
        """

    @abstractmethod
    def weighted_gradient(self, weights: Tensor, coefficients: Tensor, indices: Tensor | None = None) -> Tensor:
        """Return Σ_k c_k ∇ℓ_k(w), drift and noise in one pass.

        Parameters
        ----------
        weights : Tensor, shape (replica, parameter)
            Where.
        coefficients : Tensor, shape (replica, row)
            The c_k of the samples in `indices`, or of all.
        indices : Tensor of int64 or None, shape (replica, row)
            Which samples; None for all, in order.

        Returns
        -------
        Tensor, shape (replica, parameter)
            The weighted sums.
        """

    @abstractmethod
    def sample_gradients(
        self,
        weights: Tensor,
        replica: int = 0,
        *,
        everywhere: bool = False,
        memory_limit: int | float | str | None = None,
        samples: Tensor | None = None,
    ) -> SampleGradients:
        """Return the gradients of sample losses at one point, for measurement.

        Parameters
        ----------
        weights : Tensor, shape (parameter,)
            Where.
        replica : int, optional
            Whose labels, where labels differ between replicas.
        everywhere : bool, optional
            Whether over all tensors, rather than the measured ones.
        memory_limit : int or str, optional
            Budget in bytes or as ``"512 MiB"``, 1 GiB unless said: gradients that do not fit are computed anew at each use.
        samples : Tensor of int, shape (sample,), optional
            Which; all unless said.

        Returns
        -------
        SampleGradients
            ∇ℓ_k of every sample, in order.
        """

    def loss(self, weights: Tensor) -> Tensor:  # noqa: D102
        return self.sample_losses(weights).mean(1)

    def gradient(self, weights: Tensor) -> Tensor:  # noqa: D102
        uniform = torch.full((len(weights), self.n_samples), 1 / self.n_samples, dtype=self.dtype, device=self.device)
        return self.weighted_gradient(weights, uniform)


class MomentLandscape(Landscape):
    """A landscape whose gradient ensemble is known through its moments: mean ∇L and a factor of C."""

    @abstractmethod
    def noise_factor(self, weights: Tensor | None = None) -> Tensor:
        """Return F with C = F Fᵀ.

        Parameters
        ----------
        weights : Tensor, shape (parameter,), optional
            Where; needed unless it is the same everywhere.

        Returns
        -------
        Tensor, shape (parameter, rank)
            A factor of the noise covariance at the landscape's own batch size.
        """
