"""Any source at another temperature: κ times the covariance, the same drift."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import sqrt
from typing import TYPE_CHECKING, Any, Literal

from torch import Tensor

from langevin_nn.checks import instance, number
from langevin_nn.draws import Draws
from langevin_nn.landscape import Landscape
from langevin_nn.noise.base import AdditiveNoise, Noise, SampleWeightNoise, SampleWeights
from langevin_nn.seeds import Key

if TYPE_CHECKING:
    from langevin_nn.kernels.sources import CompiledNoise

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
    temperature : float
        κ; 1 for the source as it is, 0 for none.

    Raises
    ------
    ConfigurationError
        If there is no source, or κ is negative or not finite.

    Examples
    --------
    >>> from langevin_nn import LinearRegressionLandscape, MatchedGaussian, Process, advance
    >>> landscape = LinearRegressionLandscape([[1.0], [1.0]], [-1.0, 1.0])
    >>> hot = Process(landscape, ScaledNoise(MatchedGaussian(1), temperature=4.0), learning_rate=0.1)
    >>> state = advance(hot, hot.start(replicas=20_000, seed=0), steps=1)
    >>> round(float(state.weights.var()), 3)  # κ α² C
    0.04
    """

    noise: Noise
    temperature: float

    def __new__(cls, noise: Noise | None = None, temperature: float = 1.0) -> ScaledNoise:
        """Return the kind that goes with the source: a law of sample weights, or increments."""
        if cls is ScaledNoise:
            cls = ScaledSampleWeights if isinstance(noise, SampleWeightNoise) else ScaledIncrement
        return object.__new__(cls)

    def __post_init__(self) -> None:
        instance("noise", self.noise, self._takes, "an instance of a noise source, MatchedGaussian(25) for example")
        expected = "a finite number κ ≥ 0, since √κ multiplies the noise"
        object.__setattr__(self, "temperature", number("temperature", self.temperature, expected, least=0))

    @property
    def _takes(self) -> type:
        return Noise

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

    def compiled(self, landscape: Landscape) -> CompiledNoise:  # noqa: D102
        noise = self.noise.compiled(landscape)
        return replace(noise, scale=noise.scale * self.amplitude)

    def strength(self, memory: Any, landscape: Landscape, weights: Tensor, sample_trace: Tensor | None) -> Tensor:  # noqa: D102
        if not self.temperature:  # also of a strength that is infinite
            return self.noise.strength(memory, landscape, weights, sample_trace).new_zeros(1)
        return self.temperature * self.noise.strength(memory, landscape, weights, sample_trace)


@dataclass(frozen=True)
class ScaledSampleWeights(ScaledNoise, SampleWeightNoise):
    """What `ScaledNoise` makes of a law of sample weights."""

    @property
    def _takes(self) -> type:
        return SampleWeightNoise

    def sample_weights(self, n_samples: int, memory: Any, draws: Draws, steps: int) -> tuple[SampleWeights, Any]:  # noqa: D102
        assert isinstance(self.noise, SampleWeightNoise)
        drawn, memory = self.noise.sample_weights(n_samples, memory, draws, steps)
        return (drawn if self.temperature == 1 else drawn.scaled(self.amplitude, n_samples)), memory


@dataclass(frozen=True)
class ScaledIncrement(ScaledNoise, AdditiveNoise):
    """What `ScaledNoise` makes of noise that is added to the gradient."""

    @property
    def _takes(self) -> type:
        return AdditiveNoise

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
