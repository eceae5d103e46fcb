"""The gradient of a landscape as drift."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

from torch import Tensor

from langevin_nn.landscape import Landscape

__all__ = ["Drift", "GradientDrift"]


class Drift(ABC):
    """A deterministic field on weight space, pointing uphill as a gradient does."""

    @abstractmethod
    def __call__(self, weights: Tensor) -> Tensor:
        """Return the field.

        Parameters
        ----------
        weights : Tensor, shape (replica, parameter)
            Where.

        Returns
        -------
        Tensor, shape (replica, parameter)
            What an update subtracts, times the time step.
        """


@dataclass(frozen=True)
class GradientDrift(Drift):
    """∇L of a landscape, which need not be the one that the noise comes from.

    Parameters
    ----------
    landscape : Landscape
        Whose gradient.
    """

    landscape: Landscape

    def __call__(self, weights: Tensor) -> Tensor:  # noqa: D102
        return self.landscape.gradient(weights)
