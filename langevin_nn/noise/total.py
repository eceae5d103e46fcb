"""Noise from several sources at once."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf
from typing import Any, ClassVar, Literal

from torch import Tensor

from langevin_nn.checks import instance, listed
from langevin_nn.errors import ConfigurationError
from langevin_nn.landscape import EmpiricalLandscape, Landscape, NetworkLandscape
from langevin_nn.noise.base import Noise, SampleWeightNoise
from langevin_nn.noise.forward import BatchStatistics, ForwardNoise
from langevin_nn.noise.minibatch import Minibatches
from langevin_nn.rates import Rate
from langevin_nn.seeds import Key

__all__ = ["SumNoise"]


@dataclass(frozen=True)
class SumNoise(Noise):
    """η = η₁ + η₂ + …, from independent sources: covariances and strengths add; ``a + b`` makes one.

    Each source keeps its own powers of Δt and α, its memory and its numbers; those of the first are the numbers that it
    draws alone. Minibatches with thermal noise are stochastic gradient Langevin dynamics, see `sgld`. A law of sample
    weights is drift and noise in one backward pass as it is alone; each further one costs a pass over all samples. Noise of
    the forward pass, such as `DropoutNoise`, changes the pass in which that law has its gradient: minibatches and masks
    come from one pass, and their covariances do not add, see `noise_shares`.

    Parameters
    ----------
    terms : tuple of Noise
        At least two, of which those with minibatches have the same batch size.

    Raises
    ------
    ConfigurationError
        If a term is no source, or batch sizes differ.

    Examples
    --------
    >>> from langevin_nn.noise import IndependentMinibatches, ThermalNoise
    >>> IndependentMinibatches(5) + ThermalNoise(0.1)
    IndependentMinibatches(batch_size=5) + ThermalNoise(temperature=0.1)
    """

    terms: tuple[Noise, ...]
    family: ClassVar[Literal["sum"]] = "sum"

    def __post_init__(self) -> None:
        expected = "sources of noise, at least two, such as (IndependentMinibatches(25), ThermalNoise(0.1))"
        terms: list[Noise] = []
        for each in listed("terms", self.terms, expected):
            instance("a term", each, Noise, expected)
            terms += each.parts
        if len(terms) < 2:
            raise ConfigurationError(f"{len(terms)} sources came: expected {expected}")
        sizes = {repr(each.batch_size): each.batch_size for each in terms if each.batch_size is not None}
        if len(sizes) > 1:
            raise ConfigurationError(
                f"sources of batch sizes {' and '.join(sizes)} came: expected the same for all, since epochs and order "
                "parameters are counted in minibatches; give them one batch_size"
            )
        object.__setattr__(self, "terms", tuple(terms))

    def __repr__(self) -> str:
        return " + ".join(map(repr, self.terms))

    @property
    def parts(self) -> tuple[Noise, ...]:
        """The sources."""
        return self.terms

    @property
    def leading(self) -> int:
        """The term that comes in one pass with the drift: the first law of sample weights; the first where there is none."""
        return next((k for k, each in enumerate(self.terms) if isinstance(each, SampleWeightNoise)), 0)

    @property
    def is_in_the_pass(self) -> bool:
        """Whether a source changes the forward pass."""
        return any(isinstance(each, ForwardNoise) for each in self.terms)

    def seen(self, landscape: Landscape, key: Key) -> Landscape:
        """Return the landscape as one update sees it.

        Parameters
        ----------
        landscape : Landscape
            Whose noise.
        key : Key
            Address of the update.

        Returns
        -------
        Landscape
            Itself where no source changes the forward pass.
        """
        for k, each in enumerate(self.terms):
            if isinstance(each, ForwardNoise):
                assert isinstance(landscape, EmpiricalLandscape)
                landscape = each.seen(landscape, key.of_part(k))
        return landscape

    @property
    def batch_size(self) -> int | None:  # type: ignore[override]  # that of its terms
        """B of the terms that have one."""
        return next((each.batch_size for each in self.terms if each.batch_size is not None), None)

    @property
    def replacement(self) -> bool:
        """Whether minibatches are drawn with replacement."""
        return any(getattr(each, "replacement", False) for each in self.terms)

    @property
    def law(self) -> Literal["brownian", "coloured", "stable"]:  # type: ignore[override]
        """That of the term that is furthest from Brownian motion."""
        laws = {each.law for each in self.terms}
        return "stable" if "stable" in laws else "coloured" if "coloured" in laws else "brownian"

    @property
    def calculus(self) -> Literal["ito", "stratonovich"]:  # type: ignore[override]
        """That of the terms; `check` refuses those that depend on the weights and differ."""
        return "stratonovich" if any(each.calculus == "stratonovich" for each in self.terms) else "ito"

    @property
    def weak_order(self) -> float:  # type: ignore[override]
        """The lowest of all."""
        return min((each.weak_order for each in self.terms), default=inf)

    def dependence(self, landscape: Landscape) -> Literal["constant", "diagonal", "full"]:  # noqa: D102
        return "constant" if all(each.dependence(landscape) == "constant" for each in self.terms) else "full"

    def check(self, landscape: Landscape) -> None:  # noqa: D102
        for each in self.terms:
            each.check(landscape)
            if each.dependence(landscape) != "constant" and each.calculus != self.calculus:
                raise ConfigurationError(
                    f"{each!r} is to be read in the sense of {each.calculus}, another source of {self!r} in the sense of "
                    f"{self.calculus}: expected one reading of both, since one scheme converges to one; give both the same "
                    "calculus"
                )
        if self.is_in_the_pass:
            self._check_pass(landscape)

    def _check_pass(self, landscape: Landscape) -> None:
        """Raise where a random forward pass is no gradient of all sources that weigh samples."""
        laws = [each for each in self.terms if isinstance(each, SampleWeightNoise)]
        if len(laws) > 1:
            raise ConfigurationError(
                f"{len(laws)} laws of sample weights beside noise of the forward pass came, {self!r}: expected one, since "
                "there is one pass for an update; leave the others out"
            )
        statistics = next((each for each in self.terms if isinstance(each, BatchStatistics)), None)
        if statistics is None or not laws:
            return
        if not isinstance(laws[0], Minibatches):
            raise ConfigurationError(
                f"BatchStatistics() with {laws[0]!r}: expected minibatches, since samples that are weighed otherwise have no "
                "statistics of their own; take ShuffledMinibatches(B) or IndependentMinibatches(B), or leave it out"
            )
        assert isinstance(landscape, NetworkLandscape)
        statistics.check_size(landscape, self.batch_size)

    def check_rates(self, learning_rate: float, time_step: float) -> None:  # noqa: D102
        for each in self.terms:
            each.check_rates(learning_rate, time_step)

    def over(self, time_step: float) -> Noise:  # noqa: D102
        return SumNoise(tuple(each.over(time_step) for each in self.terms))

    @property
    def rates(self) -> tuple[Rate, ...]:  # noqa: D102
        return tuple(rate for each in self.terms for rate in each.rates)

    def at(self, step: int) -> Noise:  # noqa: D102
        return SumNoise(tuple(each.at(step) for each in self.terms)) if self.rates else self

    def start(self, landscape: Landscape, weights: Tensor) -> tuple[Any, ...]:  # noqa: D102
        return tuple(each.start(landscape, weights) for each in self.terms)

    def strength(self, memory: Any, landscape: Landscape, weights: Tensor, sample_trace: Tensor | None) -> Tensor:
        """Refuse: what the terms add depends on the learning rate, each by its own power; ask them one by one."""
        raise ConfigurationError(
            f"the strength of {self!r} depends on the learning rate: expected a question for that of each of its parts, by "
            "the `strength_ratio` of each; see `Process.driving_noise_strength`"
        )
