"""What a noise source is: an increment over one update, carried by sample weights or added to the gradient."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from numbers import Integral
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor

from langevin_nn.ensemble import covariance_factor
from langevin_nn.errors import ConfigurationError
from langevin_nn.landscape import EmpiricalLandscape, Landscape
from langevin_nn.seeds import Key

__all__ = ["AdditiveNoise", "Noise", "SampleWeightNoise", "SampleWeights", "is_number", "kind_of"]


def is_number(value: Any, kind: type) -> bool:
    """Return whether a value is a number of some kind.

    Parameters
    ----------
    value : object
        Anything.
    kind : type
        ``numbers.Real`` or ``numbers.Integral``.

    Returns
    -------
    bool
        False for truth values.
    """
    return isinstance(value, kind) and not isinstance(value, bool | np.bool_)


def kind_of(value: Any) -> str:
    """Say what came, for messages.

    Parameters
    ----------
    value : object
        Anything.

    Returns
    -------
    str
        Whether it is a class, or of which it is an instance.
    """
    return f"the class {value.__name__}" if isinstance(value, type) else f"of type {type(value).__name__}"


@dataclass(frozen=True)
class SampleWeights:
    """The c_k of one update.

    Parameters
    ----------
    coefficients : Tensor, shape (replica, row)
        c_k of the samples in `indices`, or of all.
    indices : Tensor of int64 or None, shape (replica, row)
        Which samples; the c_k of the others are 0. None for all, in order.
    """

    coefficients: Tensor
    indices: Tensor | None = None

    def spread(self, n_samples: int) -> Tensor:
        """Return the c_k of all samples.

        Parameters
        ----------
        n_samples : int
            N.

        Returns
        -------
        Tensor, shape (replica, sample)
            0 for samples that were not drawn; drawn twice counts twice.
        """
        if self.indices is None:
            return self.coefficients
        full = self.coefficients.new_zeros(len(self.coefficients), n_samples)
        return full.scatter_add(1, self.indices, self.coefficients)


class Noise(ABC):
    """A law of gradient noise η with ⟨η⟩ = 0, at the learning rate's own time step.

    At another time step Δt a process multiplies η by (α/Δt)^`1 − time_step_exponent`, so that the increment Δt η scales
    as Δt^`time_step_exponent`.

    Attributes
    ----------
    family : {"sample_weights", "additive"}
        Whether the noise is a law of the c_k in Σ c_k ∇ℓ_k, or a vector added to the gradient.
    time_step_exponent : float
        Power of Δt in the noise increment: ½ for anything that converges to Brownian motion.
    calculus : {"ito", "stratonovich"}
        How a noise that depends on the weights is to be read.
    """

    family: ClassVar[Literal["sample_weights", "additive"]]
    time_step_exponent: ClassVar[float] = 0.5
    calculus: ClassVar[Literal["ito", "stratonovich"]] = "ito"
    batch_size: int | None = None

    def check(self, landscape: Landscape) -> None:
        """Raise where this source cannot run on a landscape.

        Parameters
        ----------
        landscape : Landscape
            Whose noise.

        Raises
        ------
        ConfigurationError
            If samples are needed and there are none, or fewer than a minibatch, or `batch_size` is not a whole number.
        """
        if self.batch_size is None:
            return
        if not isinstance(landscape, EmpiricalLandscape):
            raise ConfigurationError(
                f"{type(self).__name__} draws minibatches, but {type(landscape).__name__} has no samples: expected a "
                "landscape that averages sample losses"
            )
        if not is_number(self.batch_size, Integral):
            raise ConfigurationError(
                f"batch_size={self.batch_size!r}: expected a whole number (int), since samples are counted; round it"
            )
        if getattr(self, "replacement", False):
            if self.batch_size < 1:
                raise ConfigurationError(
                    f"batch_size={self.batch_size}: expected at least 1, since an empty minibatch has no gradient; choose a "
                    "larger one"
                )
        elif not 1 <= self.batch_size <= landscape.n_samples:
            raise ConfigurationError(
                f"batch_size={self.batch_size} with {landscape.n_samples} training samples: expected 1 to "
                f"{landscape.n_samples}, since a minibatch is drawn from them without replacement; choose a smaller one"
            )

    def start(self, landscape: Landscape, weights: Tensor) -> Any:
        """Return the memory with which a run starts.

        Parameters
        ----------
        landscape : Landscape
            Whose noise.
        weights : Tensor, shape (replica, parameter)
            Where the run starts.

        Returns
        -------
        object
            Frozen; None where the source remembers nothing.
        """
        return None

    @abstractmethod
    def strength(self, memory: Any, landscape: Landscape, sample_trace: Tensor | None) -> Tensor:
        """Return the trace of the covariance of η.

        Parameters
        ----------
        memory : object
            The source's memory.
        landscape : Landscape
            Whose noise.
        sample_trace : Tensor or None, shape (replica,)
            Tr Σ of the sample gradients at the current weights, where there are samples.

        Returns
        -------
        Tensor, shape (replica,) or (1,)
            ``driving_noise_strength``.
        """


class SampleWeightNoise(Noise):
    """Noise carried by random sample weights with ⟨c_k⟩ = 1/N; one weighted backward pass makes drift and noise."""

    family = "sample_weights"
    replacement: bool = False

    @abstractmethod
    def sample_weights(self, landscape: EmpiricalLandscape, memory: Any, key: Key) -> tuple[SampleWeights, Any]:
        """Draw the c_k of one update.

        Parameters
        ----------
        landscape : EmpiricalLandscape
            Whose samples.
        memory : object
            The source's memory.
        key : Key
            Address of the update.

        Returns
        -------
        weights : SampleWeights
            The c_k.
        memory : object
            For the next update.
        """

    def strength(self, memory: Any, landscape: Landscape, sample_trace: Tensor | None) -> Tensor:  # noqa: D102
        if self.batch_size is None or sample_trace is None or not isinstance(landscape, EmpiricalLandscape):
            return torch.zeros(1, dtype=torch.float64)
        return covariance_factor(landscape.n_samples, self.batch_size, self.replacement) * sample_trace


class AdditiveNoise(Noise):
    """Noise added to the gradient."""

    family = "additive"

    @abstractmethod
    def increment(self, landscape: Landscape, weights: Tensor, memory: Any, key: Key) -> tuple[Tensor, Any]:
        """Draw η of one update.

        Parameters
        ----------
        landscape : Landscape
            Whose noise.
        weights : Tensor, shape (replica, parameter)
            Where.
        memory : object
            The source's memory.
        key : Key
            Address of the update.

        Returns
        -------
        noise : Tensor, shape (replica, parameter)
            η, in units of the gradient.
        memory : object
            For the next update.
        """
