"""Constant noise: thermal, diagonal, of a dense covariance; with memory, or with heavy tails."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import expm1, sqrt, tanh
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from langevin_nn.checks import number, numbers
from langevin_nn.errors import ConfigurationError
from langevin_nn.formulas import COLOURED, STABLE, NoiseFormula
from langevin_nn.landscape import Landscape
from langevin_nn.noise.base import Noise
from langevin_nn.noise.factored import PURPOSE, FactoredNoise, checked_factor, drawn_in
from langevin_nn.noise.stable import stable_numbers
from langevin_nn.rates import Rate
from langevin_nn.seeds import Key

__all__ = [
    "AnisotropicNoise",
    "ColouredNoise",
    "ConstantNoise",
    "DiagonalNoise",
    "PreconditionedThermalNoise",
    "StableNoise",
    "ThermalNoise",
    "check_metric",
    "checked_metric",
]

_SHORTEST = 1e-60  # correlation time, below which ζ leaves single precision


def checked_metric(value: Any) -> NDArray[np.float64]:
    """Return the diagonal of a metric as a read-only array of positive, finite numbers, shape (parameter,), or raise."""
    expected = (
        "an array of positive, finite numbers, (parameter,), since it divides gradients; pass an array or a tensor"
    )
    array = np.asarray(numbers("metric", value, expected), order="C")
    if array.ndim != 1 or array.size == 0:
        raise ConfigurationError(
            f"metric has shape {array.shape}: expected (parameter,), since all replicas share one; of what "
            "update.preconditioner(memory) returns take the row of one, or the mean of all"
        )
    if (array <= 0).any():
        raise ConfigurationError(
            f"metric has {int((array <= 0).sum())} entries that are not above 0: expected positive numbers, since gradients "
            "are divided by them; add an offset, as RMSprop does"
        )
    array.flags.writeable = False
    return array


def check_metric(metric: NDArray[np.float64], landscape: Landscape) -> None:
    """Raise where a metric has not one entry for each parameter of a landscape."""
    if len(metric) != landscape.n_parameters:
        raise ConfigurationError(
            f"metric has {len(metric)} entries: expected {landscape.n_parameters}, one a parameter of the landscape, since "
            "each component of the gradient is divided by its own; measure it on this landscape"
        )


class ConstantNoise(FactoredNoise):
    """η = F ζ with the same F everywhere."""

    def formula(self, landscape: Landscape) -> NoiseFormula:  # noqa: D102
        return NoiseFormula.constant(self._factor(landscape))

    def _factor(self, landscape: Landscape) -> NDArray[np.float64]:
        """Return F, shape (parameter, rank), or its diagonal, shape (parameter,)."""
        factor: NDArray[np.float64] = self.factor  # type: ignore[attr-defined]
        return np.full(landscape.n_parameters, float(factor)) if factor.ndim == 0 else factor


@dataclass(frozen=True, eq=False)
class AnisotropicNoise(ConstantNoise):
    """η = F ξ, ξ ~ N(0, 1): covariance C = F Fᵀ everywhere.

    Parameters
    ----------
    factor : array, shape (parameter, rank)
        F; kept as a read-only array of float64.

    Raises
    ------
    ConfigurationError
        If F is no matrix of finite numbers.
    """

    factor: NDArray[np.float64]

    def __post_init__(self) -> None:
        object.__setattr__(self, "factor", checked_factor("factor", self.factor, (2,)))


@dataclass(frozen=True, eq=False)
class DiagonalNoise(ConstantNoise):
    """η_i = s_i ξ_i, ξ ~ N(0, 1): covariance C = diag(s²).

    Parameters
    ----------
    factor : float or array, shape (parameter,)
        s, the standard deviation of each component; one number for all alike.

    Raises
    ------
    ConfigurationError
        If s is no vector of finite numbers.
    """

    factor: NDArray[np.float64]

    def __post_init__(self) -> None:
        object.__setattr__(self, "factor", checked_factor("factor", self.factor, (0, 1)))


@dataclass(frozen=True)
class ThermalNoise(ConstantNoise):
    """√(2T) dW, whatever the learning rate: the stationary law is Boltzmann's, exp(−L/T).

    It is that of the equation, and of `BAOAB`. Rules with a memory of the gradient change the temperature: as Δt → 0 it is
    T/(1 − μ) with `Momentum` and T/ζ with `UnderdampedLangevin`.

    Parameters
    ----------
    temperature : float or Rate
        T, in units of the loss.

    Raises
    ------
    ConfigurationError
        If T is negative or not finite.

    Examples
    --------
    >>> from langevin_nn import Process, advance
    >>> from langevin_nn.landscape import QuadraticLandscape
    >>> from langevin_nn.update import EulerMaruyama
    >>> landscape = QuadraticLandscape([[2.0]], [[0.0]])
    >>> process = Process(landscape, ThermalNoise(0.5), learning_rate=0.01, update=EulerMaruyama())
    >>> state = advance(process, process.start(replicas=20_000, seed=0), steps=1000)
    >>> round(float(state.weights.var()), 2)  # T/h
    0.25
    """

    temperature: Any

    def __post_init__(self) -> None:
        expected = "a finite number T ≥ 0, since √(2T) multiplies the noise"
        if not isinstance(self.temperature, Rate):
            object.__setattr__(self, "temperature", number("temperature", self.temperature, expected, least=0))

    @property
    def learning_rate_exponent(self) -> float:
        """0: a temperature is not made by drawing samples."""
        return 0.0

    def _factor(self, landscape: Landscape) -> NDArray[np.float64]:
        return np.full(landscape.n_parameters, sqrt(2 * self.temperature))


@dataclass(frozen=True, eq=False)
class PreconditionedThermalNoise(ThermalNoise):
    """√(2T D) dW in the gradient that `Preconditioned` divides by D: √(2T D⁻¹) dW in the weights.

    With that rule in the same constant metric the stationary law is exp(−L/T), whatever D; with others it is not. `sgld` and
    `sghmc` make both of ``metric=``.

    Parameters
    ----------
    temperature : float or Rate
        T, in units of the loss.
    metric : array, shape (parameter,)
        D, positive; kept as a read-only array of float64.

    Raises
    ------
    ConfigurationError
        If T is negative or not finite, or D no vector of positive, finite numbers.

    Examples
    --------
    >>> from langevin_nn import Process, advance
    >>> from langevin_nn.landscape import QuadraticLandscape
    >>> from langevin_nn.update import Plain, Preconditioned
    >>> valley = QuadraticLandscape([[100.0, 0.0], [0.0, 1.0]], [[0.0, 0.0], [0.0, 0.0]])
    >>> noise, update = PreconditionedThermalNoise(0.5, [100.0, 1.0]), Preconditioned(Plain(), [100.0, 1.0])
    >>> process = Process(valley, noise, learning_rate=0.02, update=update)
    >>> state = advance(process, process.start(replicas=20_000, seed=0), steps=300)
    >>> (state.weights.var(0) * torch.tensor([100.0, 1.0])).numpy().round(1)  # T in both directions
    array([0.5, 0.5])
    """

    metric: NDArray[np.float64]

    # As of other noise with arrays: ThermalNoise would compare temperatures alone.
    __eq__ = object.__eq__
    __hash__ = object.__hash__

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "metric", checked_metric(self.metric))

    def check(self, landscape: Landscape) -> None:  # noqa: D102
        check_metric(self.metric, landscape)
        super().check(landscape)

    def _factor(self, landscape: Landscape) -> NDArray[np.float64]:
        factor: NDArray[np.float64] = sqrt(2 * self.temperature) * np.sqrt(self.metric)
        return factor


@dataclass(frozen=True, eq=False)
class ColouredNoise(ConstantNoise):
    """η = F ζ(t) with an Ornstein–Uhlenbeck process ζ: ⟨ζ(t) ζ(s)⟩ = exp(−|t − s|/τ)/(2τ), stationary from the start.

    The integral of its correlation over time is that of white noise of covariance F Fᵀ, which it becomes as τ → 0
    (Hänggi & Jung 1995, doi 10.1002/9780470141489.ch4). A step moves the weights by F ∫ζ dt: ζ at its end and the integral
    are drawn by their exact joint law (Gillespie 1996, doi 10.1103/PhysRevE.54.2084), whatever Δt/τ. `strength` is that of
    the white noise.

    Parameters
    ----------
    factor : float or array, shape (parameter,) or (parameter, rank)
        F, or its diagonal, or one number for all components alike.
    correlation_time : float
        τ, in units of gradient-flow time.

    Raises
    ------
    ConfigurationError
        If F is no array of finite numbers, or τ not positive and finite.
    """

    factor: NDArray[np.float64]
    correlation_time: float
    law = "coloured"

    def __post_init__(self) -> None:
        object.__setattr__(self, "factor", checked_factor("factor", self.factor, (0, 1, 2)))
        expected = (
            f"a positive, finite number τ, from {_SHORTEST:g}, of which the strength of ζ is 1/(2τ); noise without memory is "
            "DiagonalNoise or AnisotropicNoise"
        )
        time = number("correlation_time", self.correlation_time, expected, least=_SHORTEST)
        object.__setattr__(self, "correlation_time", time)

    @property
    def time_step_exponent(self) -> float:
        """1: a field that is smooth on the scale of the time step."""
        return 1.0

    @property
    def learning_rate_exponent(self) -> float:
        """½, so that τ → 0 gives the white noise of the gradient."""
        return 0.5

    def start(self, landscape: Landscape, weights: Tensor) -> Tensor:  # noqa: D102
        return torch.zeros(len(weights), self.formula(landscape).rank, dtype=weights.dtype)

    def formula(self, landscape: Landscape) -> NoiseFormula:  # noqa: D102
        law = {"law": COLOURED, "time_step_exponent": 1.0}
        return NoiseFormula.constant(self._factor(landscape), **law)

    def strength_ratio(self, learning_rate: float) -> float:
        """Return 1, whatever the learning rate: in the long run Δw = √α F ∫ζ dt is √(αΔt) η."""
        return 1.0

    def over(self, time_step: float) -> Noise:  # noqa: D102
        return _ColouredStep(self, time_step)

    def law_parameters(self, time_step: float) -> tuple[float, ...]:
        """Return the joint law of ζ after a step and of its mean ζ̄ over the step, from two normal numbers ξ and ξ′.

        ζ' = ζ + a ζ + b ξ and ζ̄ = c (ζ + ζ') + d ξ′, and at the first step of a run, whose start is not drawn, ζ' = b₀ ξ
        and ζ̄ = c₀ ζ' + d₀ ξ′.

        Parameters
        ----------
        time_step : float
            Δt.

        Returns
        -------
        tuple of float
            a, b, c, d, b₀, c₀, d₀. With x = Δt/τ: a = e⁻ˣ − 1, b² = (1 − e⁻²ˣ)/(2τ), c = tanh(x/2)/x, d² = (1 − 2c)/Δt, b₀²
            = 1/(2τ), c₀ = c (1 + e⁻ˣ), d₀² = d² + b² c².

        Examples
        --------
        >>> a, b, c, d, *_ = ColouredNoise(1.0, correlation_time=1e-3).law_parameters(1.0)
        >>> a, c, round(d, 6)  # nothing is left of ζ, and ζ̄ is white: its variance is 1/Δt
        (-1.0, 0.001, 0.998999)
        """
        ratio, stationary = time_step / self.correlation_time, sqrt(0.5 / self.correlation_time)
        lost, gain = expm1(-ratio), stationary * sqrt(-expm1(-2 * ratio))
        share, rest = _mean_of_a_bridge(ratio)
        rest /= time_step
        first = sqrt(rest + (gain * share) ** 2)
        return lost, gain, share, sqrt(rest), stationary, share * (2 + lost), first

    def _driving(self, landscape: Landscape, weights: Tensor, memory: Any, key: Key) -> tuple[NDArray[Any], Any]:
        raise ConfigurationError(
            "an increment of ColouredNoise was asked for without a time step: expected one, since the mean of ζ over a step "
            "depends on its length; draw from noise.over(time_step)"
        )


def _mean_of_a_bridge(ratio: float) -> tuple[float, float]:
    """Return c = tanh(y)/(2y) and 1 − 2c, with y half of Δt/τ, both to their last digits."""
    half = ratio / 2
    if half > 1:
        mean = tanh(half) / half
        return mean / 2, 1 - mean
    fraction = 0.0  # tanh(y) = y/(1 + y²/(3 + y²/(5 + …)))
    for odd in range(21, 1, -2):
        fraction = half**2 / (odd + fraction)
    return 0.5 / (1 + fraction), fraction / (1 + fraction)


@dataclass(frozen=True, eq=False)
class _ColouredStep(FactoredNoise):
    """Coloured noise, as steps of one length see it."""

    noise: ColouredNoise
    time_step: float
    law = "coloured"

    def formula(self, landscape: Landscape) -> NoiseFormula:
        return replace(self.noise.formula(landscape), parameters=self.noise.law_parameters(self.time_step))

    def _driving(self, landscape: Landscape, weights: Tensor, memory: Tensor, key: Key) -> tuple[NDArray[Any], Tensor]:
        lost, gain, share, rest, *first = self.noise.law_parameters(self.time_step)
        rank, precision = self.formula(landscape).rank, drawn_in(weights)
        pairs = key.counted_normals(PURPOSE, 2 * rank, precision)
        one, other = pairs[:, :rank], pairs[:, rank:]
        if key.step == 0:
            after = first[0] * one
            return first[1] * after + first[2] * other, torch.as_tensor(after)
        before = memory.cpu().numpy()
        after = before + (lost * before + gain * one)
        return share * (before + after) + rest * other, torch.as_tensor(after)


@dataclass(frozen=True, eq=False)
class StableNoise(ConstantNoise):
    """η = F ζ with independent symmetric α-stable ζ, of characteristic function exp(−|k|^index).

    The variance is infinite below index 2, where it is Gaussian of variance 2. Increments scale as Δt^(1/index). Drawn as
    Chambers, Mallows & Stuck (1976, doi 10.1080/01621459.1976.10480344) do. Heavy-tailed gradient noise is argued for by
    Şimşekli, Sagun & Gürbüzbalaban (2019, arXiv:1901.06053).

    Parameters
    ----------
    factor : float or array, shape (parameter,) or (parameter, rank)
        F, or its diagonal, or one number for all components alike.
    index : float
        The tail index, above 0 and at most 2.

    Raises
    ------
    ConfigurationError
        If F is no array of finite numbers, or the index out of its range.
    """

    factor: NDArray[np.float64]
    index: float
    law = "stable"

    def __post_init__(self) -> None:
        object.__setattr__(self, "factor", checked_factor("factor", self.factor, (0, 1, 2)))
        expected = "a number above 0 and at most 2, since only these have a stable law"
        object.__setattr__(self, "index", number("index", self.index, expected, above=0, most=2))

    @property
    def time_step_exponent(self) -> float:
        """1/index, that of a stable process."""
        return 1 / self.index

    def formula(self, landscape: Landscape) -> NoiseFormula:  # noqa: D102
        law = {"law": STABLE, "parameters": (float(self.index),), "time_step_exponent": 1 / self.index}
        return NoiseFormula.constant(self._factor(landscape), **law)

    def strength(self, memory: Any, landscape: Landscape, weights: Tensor, sample_trace: Tensor | None) -> Tensor:  # noqa: D102
        if self.index < 2:
            return torch.full((1,), torch.inf, dtype=torch.float64)
        return 2 * super().strength(memory, landscape, weights, sample_trace)

    def _driving(self, landscape: Landscape, weights: Tensor, memory: Any, key: Key) -> tuple[NDArray[Any], Any]:
        rank = self.formula(landscape).rank
        pairs = key.counted_normals(PURPOSE, 2 * rank, drawn_in(weights))
        return stable_numbers(pairs, self.index), memory
