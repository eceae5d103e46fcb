"""Any source at another temperature: κ times the covariance, the same drift."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import sqrt
from typing import Any, ClassVar, Literal

from torch import Tensor

from langevin_nn.checks import instance, number
from langevin_nn.draws import Draws
from langevin_nn.errors import ConfigurationError
from langevin_nn.formulas import NoiseFormula
from langevin_nn.landscape import Landscape
from langevin_nn.noise.base import AdditiveNoise, Noise, SampleWeightNoise, SampleWeights
from langevin_nn.noise.forward import ForwardNoise
from langevin_nn.noise.total import SumNoise
from langevin_nn.rates import Rate
from langevin_nn.seeds import Key

__all__ = ["ScaledIncrement", "ScaledNoise", "ScaledSampleWeights", "unscaled"]


@dataclass(frozen=True)
class ScaledNoise(Noise):
    """A source whose noise is multiplied by √κ: κ times the covariance, the same drift.

    Sample weights become 1/N + √κ (c_k − 1/N), increments √κ η, drawn from the same numbers; whatever else the source says
    of itself, its memory and its powers of Δt and α included, stays. Stable noise has no covariance; its increments are
    multiplied by √κ all the same, which is its scale, and at index 2 the covariance is κ times its own.

    Parameters
    ----------
    noise : Noise
        The source.
    temperature : float or Rate
        κ; 1 for the source as it is, 0 for none.

    Raises
    ------
    ConfigurationError
        If there is no source, or κ is negative or not finite.

    Examples
    --------
    >>> from langevin_nn import Process, advance
    >>> from langevin_nn.landscape import LinearRegressionLandscape
    >>> from langevin_nn.noise import MatchedGaussian
    >>> landscape = LinearRegressionLandscape([[1.0], [1.0]], [-1.0, 1.0])
    >>> hot = Process(landscape, ScaledNoise(MatchedGaussian(1), temperature=4.0), learning_rate=0.1)
    >>> state = advance(hot, hot.start(replicas=20_000, seed=0), steps=1)
    >>> round(float(state.weights.var()), 3)  # κ α² C
    0.04
    """

    noise: Noise
    temperature: Any
    _called: ClassVar[str] = "ScaledNoise"  # what one writes; the two kinds of it are made from that
    _takes: ClassVar[type] = Noise

    def __new__(cls, noise: Noise | None = None, temperature: float = 1.0) -> ScaledNoise:
        """Return the kind that goes with the source: a law of sample weights, or increments; of a sum, the sum of it."""
        if isinstance(noise, SumNoise):
            return SumNoise(tuple(ScaledNoise(each, temperature) for each in noise.terms))  # type: ignore[return-value]
        if isinstance(noise, ForwardNoise):
            raise ConfigurationError(
                f"{noise!r} at another temperature came: expected noise that can be multiplied alone, and a random forward "
                "pass gives it together with its mean; change its probability, or scale the other sources and add it to them"
            )
        if cls is ScaledNoise:
            cls = ScaledSampleWeights if isinstance(noise, SampleWeightNoise) else ScaledIncrement
        return object.__new__(cls)

    def __post_init__(self) -> None:
        instance("noise", self.noise, self._takes, "an instance of a noise source, MatchedGaussian(25) for example")
        expected = "a finite number κ ≥ 0, since √κ multiplies the noise"
        if not isinstance(self.temperature, Rate):
            object.__setattr__(self, "temperature", number("temperature", self.temperature, expected, least=0))

    @property
    def amplitude(self) -> float:
        """√κ."""
        return sqrt(self.temperature)

    @property
    def law(self) -> Literal["brownian", "coloured", "stable"]:  # type: ignore[override]  # that of the source
        """That of the source."""
        return self.noise.law

    @property
    def calculus(self) -> Literal["ito", "stratonovich"]:  # type: ignore[override]
        """That of the source."""
        return self.noise.calculus

    @property
    def batch_size(self) -> int | None:  # type: ignore[override]
        """B of the source."""
        return self.noise.batch_size

    @property
    def weak_order(self) -> float:  # type: ignore[override]
        """That of the source."""
        return self.noise.weak_order

    @property
    def time_step_exponent(self) -> float:  # noqa: D102
        return self.noise.time_step_exponent

    @property
    def learning_rate_exponent(self) -> float:  # noqa: D102
        return self.noise.learning_rate_exponent

    def strength_ratio(self, learning_rate: float) -> float:  # noqa: D102
        return self.noise.strength_ratio(learning_rate)

    def dependence(self, landscape: Landscape) -> Literal["constant", "diagonal", "full"]:  # noqa: D102
        return self.noise.dependence(landscape)

    def check(self, landscape: Landscape) -> None:  # noqa: D102
        self.noise.check(landscape)

    def check_rates(self, learning_rate: float, time_step: float) -> None:  # noqa: D102
        self.noise.check_rates(learning_rate, time_step)

    def over(self, time_step: float) -> Noise:  # noqa: D102
        noise = self.noise.over(time_step)
        return self if noise is self.noise else replace(self, noise=noise)

    def start(self, landscape: Landscape, weights: Tensor) -> Any:  # noqa: D102
        return self.noise.start(landscape, weights)

    def formula(self, landscape: Landscape) -> NoiseFormula:  # noqa: D102
        noise = self.noise.formula(landscape)
        return replace(noise, scale=noise.scale * self.amplitude)

    def strength(self, memory: Any, landscape: Landscape, weights: Tensor, sample_trace: Tensor | None) -> Tensor:  # noqa: D102
        if not self.temperature:  # also of a strength that is infinite
            return self.noise.strength(memory, landscape, weights, sample_trace).new_zeros(1)
        found: Tensor = self.temperature * self.noise.strength(memory, landscape, weights, sample_trace)
        return found


@dataclass(frozen=True)
class ScaledSampleWeights(ScaledNoise, SampleWeightNoise):
    """What `ScaledNoise` makes of a law of sample weights."""

    _takes = SampleWeightNoise

    def sample_weights(self, n_samples: int, memory: Any, draws: Draws, steps: int) -> tuple[SampleWeights, Any]:  # noqa: D102
        assert isinstance(self.noise, SampleWeightNoise)
        drawn, memory = self.noise.sample_weights(n_samples, memory, draws, steps)
        return (drawn if self.temperature == 1 else drawn.scaled(self.amplitude, n_samples)), memory


@dataclass(frozen=True)
class ScaledIncrement(ScaledNoise, AdditiveNoise):
    """What `ScaledNoise` makes of noise that is added to the gradient."""

    _takes = AdditiveNoise

    def increment(self, landscape: Landscape, weights: Tensor, memory: Any, key: Key) -> tuple[Tensor, Any]:  # noqa: D102
        assert isinstance(self.noise, AdditiveNoise)
        increment, memory = self.noise.increment(landscape, weights, memory, key)
        return self.amplitude * increment, memory


def unscaled(noise: Noise) -> Noise:
    """Return the source itself.

    Parameters
    ----------
    noise : Noise
        Scaled or not, once or more often.

    Returns
    -------
    Noise
        What is multiplied.
    """
    while isinstance(noise, ScaledNoise):
        noise = noise.noise
    return noise
