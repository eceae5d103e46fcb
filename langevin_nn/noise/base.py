"""What a noise source is: an increment over one update, carried by sample weights or added to the gradient."""

from __future__ import annotations

from abc import ABC, abstractmethod
from copy import copy
from dataclasses import dataclass, fields, is_dataclass
from math import inf
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from langevin_nn.checks import truth, whole_number
from langevin_nn.draws import Draws
from langevin_nn.ensemble import covariance_factor
from langevin_nn.errors import ConfigurationError
from langevin_nn.former import RenamedMethods
from langevin_nn.formulas import NoiseFormula
from langevin_nn.landscape import EmpiricalLandscape, Landscape
from langevin_nn.rates import Rate
from langevin_nn.readable import Readable
from langevin_nn.seeds import Key

__all__ = ["AdditiveNoise", "Noise", "SampleWeightNoise", "SampleWeights"]

_LARGEST = 10_000_000  # samples of a minibatch drawn with replacement


@dataclass(frozen=True)
class SampleWeights:
    """The c_k of one update, or of several.

    Parameters
    ----------
    coefficients : Tensor, shape (..., replica, row)
        c_k of the samples in `indices`, or of all.
    indices : Tensor of int64 or None, shape (..., replica, row)
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
        Tensor, shape (..., replica, sample)
            0 for samples that were not drawn; drawn twice counts twice.
        """
        if self.indices is None:
            return self.coefficients
        full = self.coefficients.new_zeros(*self.indices.shape[:-1], n_samples)
        return full.scatter_add(-1, self.indices, self.coefficients.expand(self.indices.shape))

    def scaled(self, amplitude: float | Tensor, n_samples: int) -> SampleWeights:
        """Return the c_k of another amplitude of the noise, 1/N + a (c_k − 1/N).

        Parameters
        ----------
        amplitude : float or Tensor, shape (replica, 1)
            a.
        n_samples : int
            N.

        Returns
        -------
        SampleWeights
            Of all samples.
        """
        return SampleWeights(1 / n_samples + amplitude * (self.spread(n_samples) - 1 / n_samples))

    def at(self, step: int) -> SampleWeights:
        """Return those of one of several updates.

        Parameters
        ----------
        step : int
            Which, from 0.

        Returns
        -------
        SampleWeights, shape (replica, row)
            Of this update.
        """
        coefficients = self.coefficients.select(0, step if self.coefficients.shape[0] > 1 else 0)
        return SampleWeights(coefficients, None if self.indices is None else self.indices[step])


class Noise(RenamedMethods, Readable, ABC):
    """A law of gradient noise η with ⟨η⟩ = 0.

    An update moves the weights by α^`learning_rate_exponent` Δt^`time_step_exponent` η. Noise of the gradient moves them
    by α η at Δt = α, whatever its power of the time step; thermal noise knows no learning rate.

    Attributes
    ----------
    family : {"sample_weights", "additive", "forward", "sum"}
        Whether the noise is a law of the c_k in Σ c_k ∇ℓ_k, a vector added to the gradient, a forward pass that is random
        itself, or a sum of such sources.
    law : {"brownian", "coloured", "stable"}
        What its increments are: independent and Gaussian in the limit, correlated in time, or of heavy tails.
    calculus : {"ito", "stratonovich"}
        How a noise that depends on the weights is to be read.
    needs_batch_size : bool
        Whether there is no such noise without a minibatch.
    weak_order : float
        Order in Δt, at fixed α, at which the law of the increments becomes that of the equation; infinite where they have it
        at any Δt.
    """

    family: ClassVar[Literal["sample_weights", "additive", "forward", "sum"]]
    law: ClassVar[Literal["brownian", "coloured", "stable"]] = "brownian"
    calculus: Literal["ito", "stratonovich"] = "ito"
    batch_size: int | None = None
    needs_batch_size: ClassVar[bool] = False
    weak_order: float = inf

    def dependence(self, landscape: Landscape) -> Literal["constant", "diagonal", "full"]:
        """Return how η depends on the weights.

        Parameters
        ----------
        landscape : Landscape
            Whose noise.

        Returns
        -------
        {"constant", "diagonal", "full"}
            "diagonal" where each component has a random number of its own, times a function of the weights.
        """
        return "full"

    @property
    def time_step_exponent(self) -> float:
        """Power of Δt in the noise increment: ½ for anything that converges to Brownian motion."""
        return 0.5

    @property
    def learning_rate_exponent(self) -> float:
        """Power of α in the noise increment."""
        return 1 - self.time_step_exponent

    def strength_ratio(self, learning_rate: float) -> float:
        """Return what turns `strength` into that of noise of the gradient, Δw = √(αΔt) η.

        Parameters
        ----------
        learning_rate : float
            α.

        Returns
        -------
        float
            1 for noise of the gradient.
        """
        return float(learning_rate ** (2 * (self.learning_rate_exponent - 1 + self.time_step_exponent)))

    def formula(self, landscape: Landscape) -> NoiseFormula:
        """Return what the noise is made of, F(x) ζ, for the integrators.

        Parameters
        ----------
        landscape : Landscape
            Whose noise.

        Returns
        -------
        NoiseFormula
            In the words of `langevin_nn.formulas`.

        Raises
        ------
        ConfigurationError
            If it is no factor times numbers.
        """  # noqa: DOC202
        raise ConfigurationError(
            f"{type(self).__name__} has no formula: expected noise F(x) ζ with a factor F for the "
            "integrators; use update=Plain(), the Euler–Maruyama scheme for any drift and noise"
        )

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
        if self.batch_size is None and not self.needs_batch_size:
            return
        if not isinstance(landscape, EmpiricalLandscape):
            raise ConfigurationError(
                f"{type(self).__name__} draws minibatches, but {type(landscape).__name__} has no samples: expected a "
                "landscape that averages sample losses"
            )
        replacement = truth(
            "replacement", getattr(self, "replacement", False), "whether a sample may come twice in a minibatch"
        )
        size = whole_number("batch_size", self.batch_size, "a whole number (int), since samples are counted; round it")
        if replacement:
            expected = (
                f"at least 1 and at most {_LARGEST:,}, since an empty minibatch has no gradient; choose another one"
            )
            whole_number("batch_size", size, expected, least=1, most=_LARGEST)
        elif not 1 <= size <= landscape.n_samples:
            raise ConfigurationError(
                f"batch_size={self.batch_size} with {landscape.n_samples} training samples: expected 1 to "
                f"{landscape.n_samples}, since a minibatch is drawn from them without replacement; choose a smaller one"
            )

    def check_rates(self, learning_rate: float, time_step: float) -> None:
        """Raise where this source cannot run at some rates.

        Parameters
        ----------
        learning_rate : float
            α.
        time_step : float
            Δt.

        Raises
        ------
        ConfigurationError
            If the source is made for another time step.
        """

    def __add__(self, other: Noise) -> Noise:
        """Return noise from both sources, independent of one another."""
        if not isinstance(other, Noise):
            return NotImplemented
        from langevin_nn.noise.total import SumNoise  # which is made of such as this

        return SumNoise((self, other))

    @property
    def parts(self) -> tuple[Noise, ...]:
        """The sources that it is a sum of; itself alone unless it is one."""
        return (self,)

    @property
    def rates(self) -> tuple[Rate, ...]:
        """What of the source changes along a run: its batch size, its temperature."""
        given: list[Any] = [getattr(self, each.name) for each in fields(self)] if is_dataclass(self) else []
        inner = (each.rates for each in given if isinstance(each, Noise))
        return (*(each for each in given if isinstance(each, Rate)), *(rate for rates in inner for rate in rates))

    def at(self, step: int) -> Noise:
        """Return the source as one update sees it, of which all rates are numbers.

        Parameters
        ----------
        step : int
            Number of updates made before it.

        Returns
        -------
        Noise
            Itself where nothing changes; a batch size is rounded.
        """
        if not self.rates:
            return self
        found = copy(self)
        for each in fields(self):  # type: ignore[arg-type]  # only dataclasses have rates
            value = getattr(self, each.name)
            if isinstance(value, Rate):
                now = value.at(step)
                object.__setattr__(found, each.name, max(1, round(now)) if each.name == "batch_size" else now)
            elif isinstance(value, Noise):
                object.__setattr__(found, each.name, value.at(step))
        return found

    def over(self, time_step: float) -> Noise:
        """Return the source as steps of one length see it.

        Parameters
        ----------
        time_step : float
            Δt.

        Returns
        -------
        Noise
            The source itself, unless its increments depend on Δt by more than a power.
        """
        return self

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
    def strength(self, memory: Any, landscape: Landscape, weights: Tensor, sample_trace: Tensor | None) -> Tensor:
        """Return the trace of the covariance of η.

        Parameters
        ----------
        memory : object
            The source's memory.
        landscape : Landscape
            Whose noise.
        weights : Tensor, shape (replica, parameter)
            Where.
        sample_trace : Tensor or None, shape (replica,)
            Tr Σ of the sample gradients at the current weights, where there are samples.

        Returns
        -------
        Tensor, shape (replica,) or (1,)
            ``driving_noise_strength``, for noise of the gradient.
        """


class SampleWeightNoise(Noise):
    """Noise carried by random sample weights with ⟨c_k⟩ = 1/N; one weighted backward pass makes drift and noise.

    Attributes
    ----------
    portable : bool
        Whether all numbers come from `draws`, none from NumPy, so that many updates may be drawn ahead, whoever makes the
        numbers. Believed of the class that says it: a class of one's own may draw others, and is to say it again.
    """

    family = "sample_weights"
    portable: ClassVar[bool] = False
    replacement: bool = False

    @abstractmethod
    def sample_weights(self, n_samples: int, memory: Any, draws: Draws, steps: int) -> tuple[SampleWeights, Any]:
        """Draw the c_k of some updates.

        Parameters
        ----------
        n_samples : int
            N.
        memory : object
            The source's memory; of its tensors the first dimension is the replica.
        draws : Draws
            The random numbers of these updates.
        steps : int
            How many.

        Returns
        -------
        weights : SampleWeights
            The c_k, shape (step, replica, row), made with ``draws.tensor``; coefficients that are the same in all steps
            may come once.
        memory : object
            For the update after them.
        """

    def strength(self, memory: Any, landscape: Landscape, weights: Tensor, sample_trace: Tensor | None) -> Tensor:  # noqa: D102
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
