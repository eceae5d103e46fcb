"""When to record: a schedule turns the length of a run into the steps at which an observable is measured."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from langevin_nn.errors import ConfigurationError

__all__ = ["AtEpochs", "AtSteps", "EveryEpochs", "EverySteps", "Logarithmic", "Schedule"]


class Schedule(ABC):
    """Chooses record steps; step 0 and the last one belong to every schedule but the explicit ones."""

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


def _with_ends(inner: NDArray[np.floating] | NDArray[np.int64], last_step: int) -> NDArray[np.int64]:
    inner = np.rint(inner).astype(np.int64)
    return np.unique(np.concatenate([[0], inner[(inner > 0) & (inner < last_step)], [last_step]]))


def _epochs_exist(steps_per_epoch: float) -> None:
    if not np.isfinite(steps_per_epoch):
        raise ConfigurationError(
            "a schedule in epochs needs a process with samples, and this one has none: give a schedule in steps"
        )


def _positive(name: str, value: float) -> None:
    if not value > 0:
        raise ConfigurationError(f"a schedule needs {name} > 0, got {value}: records must move forward in time")


@dataclass(frozen=True)
class EverySteps(Schedule):
    """Record every `interval` updates.

    Parameters
    ----------
    interval : int
        Number of updates between records.

    Examples
    --------
    >>> EverySteps(4).steps(last_step=10, steps_per_epoch=5.0)
    array([ 0,  4,  8, 10])
    """

    interval: int

    def __post_init__(self) -> None:
        _positive("interval", self.interval)

    def steps(self, last_step: int, steps_per_epoch: float) -> NDArray[np.int64]:  # noqa: D102
        return _with_ends(np.arange(0, last_step, self.interval), last_step)


@dataclass(frozen=True)
class EveryEpochs(Schedule):
    """Record every `interval` epochs.

    Parameters
    ----------
    interval : float
        Number of epochs between records.

    Examples
    --------
    >>> EveryEpochs(1).steps(last_step=10, steps_per_epoch=5.0)
    array([ 0,  5, 10])
    """

    interval: float = 1.0

    def __post_init__(self) -> None:
        _positive("interval", self.interval)

    def steps(self, last_step: int, steps_per_epoch: float) -> NDArray[np.int64]:  # noqa: D102
        _epochs_exist(steps_per_epoch)
        return _with_ends(np.arange(0, last_step, self.interval * steps_per_epoch), last_step)


@dataclass(frozen=True)
class Logarithmic(Schedule):
    """Record at steps evenly spaced on a logarithmic axis.

    Parameters
    ----------
    per_decade : int, optional
        Number of records in each factor of ten.

    Examples
    --------
    >>> Logarithmic(per_decade=2).steps(last_step=100, steps_per_epoch=5.0)
    array([  0,   1,   3,  10,  32, 100])
    """

    per_decade: int = 10

    def __post_init__(self) -> None:
        _positive("per_decade", self.per_decade)

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

    Examples
    --------
    >>> AtSteps((0, 3, 30)).steps(last_step=10, steps_per_epoch=5.0)
    array([0, 3])
    """

    at: tuple[int, ...]

    def steps(self, last_step: int, steps_per_epoch: float) -> NDArray[np.int64]:  # noqa: D102
        chosen = np.unique(np.asarray(self.at, dtype=np.int64))
        return chosen[(chosen >= 0) & (chosen <= last_step)]


@dataclass(frozen=True)
class AtEpochs(Schedule):
    """Record at the updates nearest to the given epochs; those beyond the end of the run are left out.

    Parameters
    ----------
    at : tuple of float
        The epochs.

    Examples
    --------
    >>> AtEpochs((0, 2)).steps(last_step=10, steps_per_epoch=5.0)
    array([ 0, 10])
    """

    at: tuple[float, ...]

    def steps(self, last_step: int, steps_per_epoch: float) -> NDArray[np.int64]:  # noqa: D102
        _epochs_exist(steps_per_epoch)
        nearest = np.rint(np.asarray(self.at) * steps_per_epoch).astype(np.int64)
        return AtSteps(tuple(nearest.tolist())).steps(last_step, steps_per_epoch)
