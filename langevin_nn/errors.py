"""Errors of the package: each says what was expected, what came, why it matters and what to do."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches
from typing import Any

__all__ = [
    "AllMislabeledWarning",
    "ConfigurationError",
    "DamagedTrajectory",
    "EstimationRefused",
    "LangevinError",
    "MonitorWarning",
    "OwnWeightsWarning",
    "ResumedElsewhereWarning",
    "RunInUse",
    "SampleMixingError",
    "StorageError",
    "StrayFileWarning",
    "UndefinedQuantityWarning",
    "UnknownNameError",
    "UnstableTrajectory",
    "UntoldFunctionWarning",
]


class LangevinError(Exception):
    """Base of every error that this package raises on purpose."""


class ConfigurationError(LangevinError, ValueError):
    """An argument or a combination of arguments that cannot be run."""


class UnknownNameError(ConfigurationError):
    """A name that is not among the known ones, which the message lists.

    Parameters
    ----------
    kind : str
        What was looked up, as the reader calls it ("data set").
    name : str
        The name that came.
    known : iterable of str
        The names that would have been accepted.

    Examples
    --------
    >>> print(UnknownNameError("data set", "minst", ["digits", "mnist"]))
    unknown data set 'minst': expected one of digits, mnist; did you mean 'mnist'?
    """

    def __init__(self, kind: str, name: str, known: Iterable[str]) -> None:
        self.kind, self.name, self.known = kind, name, tuple(known)
        close = get_close_matches(str(name), self.known, n=1)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        super().__init__(f"unknown {kind} {name!r}: expected one of {', '.join(self.known)}{hint}")


class SampleMixingError(ConfigurationError):
    """A network whose output for one sample is not a function of that sample and the weights alone."""


class AllMislabeledWarning(UserWarning):
    """Labels of a replica that all differ from the true ones, as where the classes are numbered otherwise."""


class MonitorWarning(UserWarning):
    """A monitor could not measure something of a training run, which goes on as it is."""


class OwnWeightsWarning(UserWarning):
    """Replicas start from the weights that a network came with, though nobody said so."""


class RandomDataWarning(UserWarning):
    """Data that are others each time they are read."""


class UndefinedQuantityWarning(UserWarning):
    """A quantity that has no value here, and is NaN."""


class EstimationRefused(LangevinError):
    """An estimator that has too little to work with; `numbers` carries what it had.

    Parameters
    ----------
    message : str
        What was asked for, what was there and what is needed.
    **numbers : object
        The figures behind the refusal.
    """

    def __init__(self, message: str, **numbers: Any) -> None:
        self.numbers = numbers
        super().__init__(message)


class StorageError(LangevinError):
    """Records could not be written; what had been written before is still there.

    Parameters
    ----------
    message : str
        What failed, where the finished records are and how to go on.
    trajectory : xarray.DataTree, optional
        What was in memory and did not reach the disk.
    """

    def __init__(self, message: str, trajectory: Any = None) -> None:
        self.trajectory = trajectory
        super().__init__(message)


class DamagedTrajectory(StorageError):
    """A recorded file that is not what was written: a checksum differs, or a file is missing."""


class RunInUse(ConfigurationError):
    """A run that another process is writing."""


class StrayFileWarning(UserWarning):
    """A file in a run's folder that does not belong to it, and is left alone."""


class ResumedElsewhereWarning(UserWarning):
    """A run that goes on with other versions of libraries, so that its bits are no longer promised."""


class UntoldFunctionWarning(UserWarning):
    """A function that reads what cannot be told from outside, so that nobody can say whether it is still the same."""


class UnstableTrajectory(LangevinError):
    """A replica left the finite numbers.

    Parameters
    ----------
    replica : int
        Index of the first replica that did.
    step : int
        Number of updates after which its weights or its loss were not finite.
    time_step : float
        Gradient-flow time of one update.
    trajectory : xarray.DataTree, optional
        Everything that was recorded until then.
    """

    def __init__(self, replica: int, step: int, time_step: float, trajectory: Any = None) -> None:
        self.replica, self.step, self.time_step = replica, step, time_step
        self.trajectory = trajectory
        super().__init__(
            f"replica {replica} became non-finite at step {step} with time step {time_step:g}: expected finite weights "
            "and loss; the dynamics are unstable there, so try a smaller learning rate or time step"
        )
