"""When to record: a schedule turns the length of a run into the steps at which an observable is measured."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from langevin_nn.checks import listed, number, whole_number
from langevin_nn.errors import ConfigurationError

__all__ = ["AtEpochs", "AtSteps", "EveryEpochs", "EverySteps", "Logarithmic", "Schedule"]


_MOST_RECORDS = 10_000_000  # their steps are listed in memory


class Schedule(ABC):
    """Chooses record steps; step 0 and the last one belong to every schedule but the explicit ones.

    Attributes
    ----------
    in_epochs : bool
        Whether it counts epochs rather than updates.
    """

    in_epochs: ClassVar[bool] = False

    @abstractmethod
    def steps(self, last_step: int, steps_per_epoch: float) -> NDArray[np.int64]:
        """Return the steps at which to record.

        Parameters
        ----------
        last_step : int
            Number of updates of the run.
        steps_per_epoch : float
            Number of updates that make one epoch.

        Returns
        -------
        ndarray of int, shape (step,)
            Strictly increasing, within 0 … `last_step`.
        """


def _equidistant(interval: float, last_step: int) -> NDArray[np.int64]:
    """Return every `interval`-th step, or all where that is shorter than one."""
    interval = max(interval, 1)
    if (records := last_step / interval) > _MOST_RECORDS:
        raise ConfigurationError(
            f"the schedule has about {records:.2g} records: expected at most {_MOST_RECORDS:,}, since their steps are listed "
            "in memory; choose a longer interval between records"
        )
    return _with_ends(np.arange(0, last_step, interval), last_step)


def _with_ends(inner: NDArray[np.floating] | NDArray[np.int64], last_step: int) -> NDArray[np.int64]:
    inner = np.rint(inner).astype(np.int64)
    return np.unique(np.concatenate([[0], inner[(inner > 0) & (inner < last_step)], [last_step]]))


def _epochs_exist(steps_per_epoch: float) -> None:
    if not np.isfinite(steps_per_epoch):
        raise ConfigurationError(
            "a schedule in epochs needs a process with samples, and this one has none: expected a schedule in steps; use "
            "EverySteps(n) or AtSteps(...)"
        )


@dataclass(frozen=True)
class EverySteps(Schedule):
    """Record every `interval` updates.

    Parameters
    ----------
    interval : int
        Number of updates between records.

    Raises
    ------
    ConfigurationError
        If it is no whole number from 1.

    Examples
    --------
    >>> EverySteps(4).steps(last_step=10, steps_per_epoch=5.0)
    array([ 0,  4,  8, 10])
    """

    interval: int

    def __post_init__(self) -> None:
        expected = "a whole number (int) of updates from 1: records must move forward in time"
        object.__setattr__(self, "interval", whole_number("interval", self.interval, expected, least=1))

    def steps(self, last_step: int, steps_per_epoch: float) -> NDArray[np.int64]:  # noqa: D102
        return _equidistant(self.interval, last_step)


@dataclass(frozen=True)
class EveryEpochs(Schedule):
    """Record every `interval` epochs.

    Parameters
    ----------
    interval : float
        Number of epochs between records.

    Raises
    ------
    ConfigurationError
        If it is no positive and finite number.

    Examples
    --------
    >>> EveryEpochs(1).steps(last_step=10, steps_per_epoch=5.0)
    array([ 0,  5, 10])
    """

    interval: float = 1.0
    in_epochs = True

    def __post_init__(self) -> None:
        expected = "a positive, finite number of epochs: records must move forward in time"
        object.__setattr__(self, "interval", number("interval", self.interval, expected, above=0))

    def steps(self, last_step: int, steps_per_epoch: float) -> NDArray[np.int64]:  # noqa: D102
        _epochs_exist(steps_per_epoch)
        return _equidistant(self.interval * steps_per_epoch, last_step)


@dataclass(frozen=True)
class Logarithmic(Schedule):
    """Record at steps evenly spaced on a logarithmic axis.

    Parameters
    ----------
    per_decade : int, optional
        Number of records in each factor of ten.

    Raises
    ------
    ConfigurationError
        If it is no whole number from 1, or beyond all use.

    Examples
    --------
    >>> Logarithmic(per_decade=2).steps(last_step=100, steps_per_epoch=5.0)
    array([  0,   1,   3,  10,  32, 100])
    """

    per_decade: int = 10

    def __post_init__(self) -> None:
        expected = (
            f"a whole number (int) from 1 to {_MOST_RECORDS // 20:,}, as many records in each factor of ten: records must "
            "move forward in time"
        )
        found = whole_number("per_decade", self.per_decade, expected, least=1, most=_MOST_RECORDS // 20)
        object.__setattr__(self, "per_decade", found)

    def steps(self, last_step: int, steps_per_epoch: float) -> NDArray[np.int64]:  # noqa: D102
        decades = np.log10(max(last_step, 1))
        return _with_ends(10.0 ** np.arange(0, decades, 1 / self.per_decade), last_step)


@dataclass(frozen=True)
class AtSteps(Schedule):
    """Record at the given steps; those beyond the end of the run are left out.

    Parameters
    ----------
    at : tuple of int
        The steps.

    Raises
    ------
    ConfigurationError
        If one is no whole number.

    Examples
    --------
    >>> AtSteps((0, 3, 30)).steps(last_step=10, steps_per_epoch=5.0)
    array([0, 3])
    """

    at: tuple[int, ...]

    def __post_init__(self) -> None:
        expected = "whole numbers (int), the steps at which to record"
        at = tuple(whole_number("at", each, expected, least=-(2**63)) for each in listed("at", self.at, expected))
        object.__setattr__(self, "at", at)

    def steps(self, last_step: int, steps_per_epoch: float) -> NDArray[np.int64]:  # noqa: D102
        chosen = np.unique(np.array(self.at, dtype=np.int64))
        return chosen[(chosen >= 0) & (chosen <= last_step)]


@dataclass(frozen=True)
class AtEpochs(Schedule):
    """Record at the updates nearest to the given epochs; those beyond the end of the run are left out.

    Parameters
    ----------
    at : tuple of float
        The epochs.

    Raises
    ------
    ConfigurationError
        If one is no finite number.

    Examples
    --------
    >>> AtEpochs((0, 2)).steps(last_step=10, steps_per_epoch=5.0)
    array([ 0, 10])
    """

    at: tuple[float, ...]
    in_epochs = True

    def __post_init__(self) -> None:
        expected = "finite numbers, the epochs at which to record"
        at = tuple(number("at", each, expected) for each in listed("at", self.at, expected))
        object.__setattr__(self, "at", at)

    def steps(self, last_step: int, steps_per_epoch: float) -> NDArray[np.int64]:  # noqa: D102
        _epochs_exist(steps_per_epoch)
        with np.errstate(over="ignore"):
            nearest = np.rint(np.array(self.at, dtype=np.float64) * steps_per_epoch)
        return np.unique(nearest[(nearest >= 0) & (nearest <= last_step)].astype(np.int64))
