"""Learning rates, batch sizes and temperatures that change along a run: numbers as functions of the update."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from math import isfinite
from typing import Any

import numpy as np
from numpy.typing import NDArray

from langevin_nn.checks import instance, kind_of, listed, number, whole_number
from langevin_nn.errors import ConfigurationError
from langevin_nn.readable import Readable

__all__ = [
    "Constant",
    "Cosine",
    "Cyclic",
    "InverseSquareRoot",
    "OfStep",
    "Piecewise",
    "Rate",
    "Slowed",
    "StepDecay",
    "Times",
    "WarmUp",
    "as_rate",
]


class Rate(Readable, ABC):
    """A positive number for each update, in the place of a learning rate, a batch size or a temperature.

    Update s, the first being 0, is made with the number at s: a function of the update alone, so that a run that was
    killed goes on with the same numbers.
    """

    @abstractmethod
    def along(self, steps: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return the numbers of some updates.

        Parameters
        ----------
        steps : ndarray of int64, shape (step,)
            Which, from 0.

        Returns
        -------
        ndarray of float64, shape (step,)
            One each.
        """

    def at(self, step: int) -> float:
        """Return the number of one update.

        Parameters
        ----------
        step : int
            Which, from 0.

        Returns
        -------
        float
            Positive, or 0 for a temperature.

        Raises
        ------
        ConfigurationError
            If it is negative or not finite there.
        """
        found = float(self.along(np.array([step], dtype=np.int64))[0])
        if not (isfinite(found) and found >= 0):
            raise ConfigurationError(
                f"{self!r} is {found:g} at update {step}: expected a positive, finite number, since it is the rate of an "
                "update; let it end above 0"
            )
        return found

    def same_until(self, step: int) -> int:
        """Return up to which update the number surely stays the same.

        Parameters
        ----------
        step : int
            From which on.

        Returns
        -------
        int
            The first update with another number, as far as is known: the next.
        """
        return step + 1

    def sums(self, steps: Any) -> NDArray[np.float64]:
        """Return the sums of the numbers before some updates, such as the time Σ α.

        Parameters
        ----------
        steps : array of int, shape (step,)
            Which.

        Returns
        -------
        ndarray of float64, shape (step,)
            0 at step 0.
        """
        wanted = np.atleast_1d(np.asarray(steps, dtype=np.int64))
        last = int(wanted.max(initial=0))
        known: NDArray[np.float64] | None = vars(self).get("_sums")
        known = np.zeros(1) if known is None else known
        if len(known) <= last:  # a function of one's own may say nothing of updates beyond
            more = self.along(np.arange(len(known) - 1, last, dtype=np.int64))
            known = np.concatenate([known[:-1], np.cumsum([known[-1], *more])])  # in the order of one sum
            object.__setattr__(self, "_sums", known)
        return known[wanted]


def as_rate(value: Any) -> Rate:
    """Return a number as a rate that stays.

    Parameters
    ----------
    value : float or Rate
        What came.

    Returns
    -------
    Rate
        Itself where it is one.
    """
    return value if isinstance(value, Rate) else Constant(value)


def _positive(holder: Any, *names: str, least: float | None = None) -> None:
    """Keep fields as finite numbers above 0, or from another bound."""
    for name in names:
        bounds = {"above": 0.0} if least is None else {"least": least}
        expected = f"a finite number {'above 0' if least is None else f'≥ {least:g}'}"
        object.__setattr__(holder, name, number(name, getattr(holder, name), expected, **bounds))


def _updates(holder: Any, *names: str) -> None:
    for name in names:
        expected = "a whole number (int) of updates from 1"
        object.__setattr__(holder, name, whole_number(name, getattr(holder, name), expected, least=1))


@dataclass(frozen=True)
class Constant(Rate):
    """The same number throughout.

    Parameters
    ----------
    value : float
        Which.

    Raises
    ------
    ConfigurationError
        If it is negative or not finite.
    """

    value: float

    def __post_init__(self) -> None:
        _positive(self, "value", least=0)

    def along(self, steps: NDArray[np.int64]) -> NDArray[np.float64]:  # noqa: D102
        return np.full(len(steps), self.value)

    def same_until(self, step: int) -> int:  # noqa: D102
        return 2**62


@dataclass(frozen=True)
class StepDecay(Rate):
    """α₀ γ^⌊s/n⌋ (``torch.optim.lr_scheduler.StepLR``).

    Parameters
    ----------
    initial : float
        α₀.
    every : int
        n, updates.
    factor : float, optional
        γ.

    Raises
    ------
    ConfigurationError
        If a number is not positive and finite.

    Examples
    --------
    >>> StepDecay(0.8, every=2, factor=0.5).along(np.arange(5))
    array([0.8, 0.8, 0.4, 0.4, 0.2])
    """

    initial: float
    every: int
    factor: float = 0.1

    def __post_init__(self) -> None:
        _positive(self, "initial", "factor")
        _updates(self, "every")

    def along(self, steps: NDArray[np.int64]) -> NDArray[np.float64]:  # noqa: D102
        return self.initial * self.factor ** (steps // self.every).astype(np.float64)

    def same_until(self, step: int) -> int:  # noqa: D102
        return (step // self.every + 1) * self.every


@dataclass(frozen=True)
class Cosine(Rate):
    """α₁ + ½ (α₀ − α₁)(1 + cos(π s/n)), and α₁ after n updates (``torch.optim.lr_scheduler.CosineAnnealingLR``).

    Loshchilov & Hutter (2017, arXiv:1608.03983), without restarts.

    Parameters
    ----------
    initial : float
        α₀.
    steps : int
        n, updates.
    final : float, optional
        α₁; 0 for runs of at most n updates.

    Raises
    ------
    ConfigurationError
        If a number is not positive and finite, or the last one negative.

    Examples
    --------
    >>> Cosine(0.2, steps=4, final=0.1).along(np.arange(6)).round(4)
    array([0.2   , 0.1854, 0.15  , 0.1146, 0.1   , 0.1   ])
    """

    initial: float
    steps: int
    final: float = 0.0

    def __post_init__(self) -> None:
        _positive(self, "initial")
        _positive(self, "final", least=0)
        _updates(self, "steps")

    def along(self, steps: NDArray[np.int64]) -> NDArray[np.float64]:  # noqa: D102
        share = np.minimum(steps, self.steps) / self.steps
        return self.final + 0.5 * (self.initial - self.final) * (1 + np.cos(np.pi * share))

    def same_until(self, step: int) -> int:  # noqa: D102
        return step + 1 if step < self.steps else 2**62


@dataclass(frozen=True)
class WarmUp(Rate):
    """α₀ + (α(0) − α₀) s/n for n updates, then α(s − n) (``torch.optim.lr_scheduler.LinearLR``, then another).

    Parameters
    ----------
    then : float or Rate
        α, what it rises to and goes on with.
    steps : int
        n, updates.
    initial : float, optional
        α₀; α(0)/n unless said, so that update s is made with α(0)(s + 1)/n.

    Raises
    ------
    ConfigurationError
        If a number is not positive and finite.

    Examples
    --------
    >>> WarmUp(0.4, steps=4).along(np.arange(6))
    array([0.1, 0.2, 0.3, 0.4, 0.4, 0.4])
    """

    then: float | Rate
    steps: int
    initial: float | None = None

    def __post_init__(self) -> None:
        _updates(self, "steps")
        if not isinstance(self.then, Rate):
            _positive(self, "then")
        if self.initial is not None:
            _positive(self, "initial")

    def along(self, steps: NDArray[np.int64]) -> NDArray[np.float64]:  # noqa: D102
        then = as_rate(self.then)
        top = then.at(0)
        rising = top * (steps + 1) / self.steps
        if self.initial is not None:
            rising = self.initial + (top - self.initial) * steps / self.steps
        return np.where(steps < self.steps, rising, then.along(np.maximum(steps - self.steps, 0)))

    def same_until(self, step: int) -> int:  # noqa: D102
        return step + 1 if step < self.steps else self.steps + as_rate(self.then).same_until(step - self.steps)


@dataclass(frozen=True)
class InverseSquareRoot(Rate):
    """α₀/√(1 + s/n), as 1/√t long after n updates.

    Parameters
    ----------
    initial : float
        α₀.
    steps : int
        n, updates.

    Raises
    ------
    ConfigurationError
        If a number is not positive and finite.

    Examples
    --------
    >>> InverseSquareRoot(0.6, steps=1).along(np.array([0, 3, 8])).round(4)
    array([0.6, 0.3, 0.2])
    """

    initial: float
    steps: int

    def __post_init__(self) -> None:
        _positive(self, "initial")
        _updates(self, "steps")

    def along(self, steps: NDArray[np.int64]) -> NDArray[np.float64]:  # noqa: D102
        return self.initial / np.sqrt(1 + steps / self.steps)


@dataclass(frozen=True)
class Cyclic(Rate):
    """From α₀ up to α₁ in n updates and down again in n, over and over (``torch.optim.lr_scheduler.CyclicLR``).

    Smith (2017, doi 10.1109/WACV.2017.58), the triangular policy.

    Parameters
    ----------
    lowest, highest : float
        α₀ and α₁.
    steps : int
        n, updates of half a cycle.

    Raises
    ------
    ConfigurationError
        If a number is not positive and finite.

    Examples
    --------
    >>> Cyclic(0.1, 0.3, steps=2).along(np.arange(6)).round(4)
    array([0.1, 0.2, 0.3, 0.2, 0.1, 0.2])
    """

    lowest: float
    highest: float
    steps: int

    def __post_init__(self) -> None:
        _positive(self, "lowest", "highest")
        _updates(self, "steps")

    def along(self, steps: NDArray[np.int64]) -> NDArray[np.float64]:  # noqa: D102
        within = steps % (2 * self.steps)
        up = np.minimum(within, 2 * self.steps - within) / self.steps
        return self.lowest + (self.highest - self.lowest) * up


@dataclass(frozen=True)
class Piecewise(Rate):
    """One number up to each of some updates, and another after it.

    Parameters
    ----------
    values : tuple of float
        One more than boundaries.
    boundaries : tuple of int
        The updates from which on the next number holds, increasing.

    Raises
    ------
    ConfigurationError
        If there are not as many, or they do not increase.

    Examples
    --------
    >>> Piecewise((0.3, 0.1), boundaries=(2,)).along(np.arange(4))
    array([0.3, 0.3, 0.1, 0.1])
    """

    values: tuple[float, ...]
    boundaries: tuple[int, ...]

    def __post_init__(self) -> None:
        expected = "finite numbers from 0, one for each piece"
        values = tuple(number("values", each, expected, least=0) for each in listed("values", self.values, expected))
        expected = "whole numbers (int) of updates from 1, increasing"
        given = listed("boundaries", self.boundaries, expected)
        boundaries = tuple(whole_number("boundaries", each, expected, least=1) for each in given)
        if len(values) != len(boundaries) + 1 or any(np.diff(boundaries) <= 0):
            raise ConfigurationError(
                f"{len(values)} numbers and boundaries={boundaries}: expected one number more than boundaries that increase, "
                "since each holds up to the next of them"
            )
        object.__setattr__(self, "values", values)
        object.__setattr__(self, "boundaries", boundaries)

    def along(self, steps: NDArray[np.int64]) -> NDArray[np.float64]:  # noqa: D102
        return np.array(self.values)[np.searchsorted(self.boundaries, steps, side="right")]

    def same_until(self, step: int) -> int:  # noqa: D102
        return min((each for each in self.boundaries if each > step), default=2**62)


@dataclass(frozen=True)
class OfStep(Rate):
    """A function of one's own of the update (``torch.optim.lr_scheduler.LambdaLR``, but with the number itself).

    Parameters
    ----------
    function : callable
        From the number of the update, 0 for the first, to a number.

    Raises
    ------
    ConfigurationError
        If it is no function.

    Examples
    --------
    >>> OfStep(lambda step: 0.1 / (1 + step)).along(np.arange(2))
    array([0.1 , 0.05])
    """

    function: Callable[[int], float]

    def __post_init__(self) -> None:
        if not callable(self.function):
            raise ConfigurationError(
                f"function is {kind_of(self.function)}: expected a function from the number of an update to a rate; a number "
                "that stays is given as it is"
            )

    def along(self, steps: NDArray[np.int64]) -> NDArray[np.float64]:  # noqa: D102
        expected = "a number for each update, which the function returns"
        return np.array([number("a rate", self.function(int(each)), expected) for each in steps], dtype=np.float64)


@dataclass(frozen=True)
class Times(Rate):
    """Another rate, multiplied.

    Parameters
    ----------
    rate : Rate
        Which.
    factor : float
        By what.
    """

    rate: Rate
    factor: float

    def __post_init__(self) -> None:
        instance("rate", self.rate, Rate, "a Rate, which is multiplied")
        _positive(self, "factor")

    def along(self, steps: NDArray[np.int64]) -> NDArray[np.float64]:  # noqa: D102
        return self.factor * self.rate.along(steps)

    def same_until(self, step: int) -> int:  # noqa: D102
        return self.rate.same_until(step)


@dataclass(frozen=True)
class Slowed(Rate):
    """Another rate, of which each number holds for several updates: for updates of a fraction of the time.

    Parameters
    ----------
    rate : Rate
        Which.
    times : int
        For how many.
    """

    rate: Rate
    times: int

    def __post_init__(self) -> None:
        instance("rate", self.rate, Rate, "a Rate, which is slowed down")
        _updates(self, "times")

    def along(self, steps: NDArray[np.int64]) -> NDArray[np.float64]:  # noqa: D102
        return self.rate.along(steps // self.times)

    def same_until(self, step: int) -> int:  # noqa: D102
        return self.rate.same_until(step // self.times) * self.times
