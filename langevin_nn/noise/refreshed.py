"""Noise that is made after the covariance at an earlier point, measured anew every so many updates."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

from torch import Tensor

from langevin_nn.checks import whole_number
from langevin_nn.ensemble import covariance_factor
from langevin_nn.landscape import EmpiricalLandscape, Landscape, SampleGradients
from langevin_nn.noise.base import AdditiveNoise
from langevin_nn.seeds import Key

__all__ = ["RefreshedNoise"]


class RefreshedNoise(AdditiveNoise):
    """Noise that holds what it knows of C, (f/B) Σ over all tensors, between refreshes.

    `refresh_every` counts updates; N // B unless said, which is one epoch at Δt = α only. What is held is old by so many Δt
    at most, which leaves the weak order at 1. A number larger than the run freezes the noise at the start.
    """

    batch_size: int
    refresh_every: int | None = None
    needs_batch_size = True
    weak_order = 1.0

    def __post_init__(self) -> None:
        if self.refresh_every is not None:
            expected = "at least 1 update between refreshes, a whole number (int)"
            whole_number("refresh_every", self.refresh_every, expected, least=1)

    @abstractmethod
    def measured(self, gradients: list[SampleGradients], factor: float, weights: Tensor, step: int) -> Any:
        """Measure what the noise is made after.

        Parameters
        ----------
        gradients : list of SampleGradients
            ∇ℓ_k at the weights of each replica.
        factor : float
            f/B.
        weights : Tensor, shape (replica, parameter)
            Where.
        step : int
            When.

        Returns
        -------
        object
            The memory until the next refresh, whose ``step`` says when it was measured.
        """

    @abstractmethod
    def drawn(self, memory: Any, weights: Tensor, key: Key) -> Tensor:
        """Draw η of one update.

        Parameters
        ----------
        memory : object
            What was measured last.
        weights : Tensor, shape (replica, parameter)
            Of their number, as precise, and where they are.
        key : Key
            Address of the update.

        Returns
        -------
        Tensor, shape (replica, parameter)
            η, in units of the gradient.
        """

    def start(self, landscape: Landscape, weights: Tensor) -> Any:  # noqa: D102
        return self._measured(landscape, weights, 0)

    def increment(self, landscape: Landscape, weights: Tensor, memory: Any, key: Key) -> tuple[Tensor, Any]:  # noqa: D102
        assert isinstance(landscape, EmpiricalLandscape)
        interval = self.refresh_every or max(landscape.n_samples // self.batch_size, 1)
        if key.step - memory.step >= interval:
            memory = self._measured(landscape, weights, key.step)
        return self.drawn(memory, weights, key), memory

    def _measured(self, landscape: Landscape, weights: Tensor, step: int) -> Any:
        assert isinstance(landscape, EmpiricalLandscape)
        gradients = [landscape.sample_gradients(row, replica, everywhere=True) for replica, row in enumerate(weights)]
        return self.measured(gradients, covariance_factor(landscape.n_samples, self.batch_size), weights, step)
