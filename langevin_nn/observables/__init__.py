"""Observables: what to record of a state."""

from langevin_nn.observables.base import Observable, Snapshot
from langevin_nn.observables.groups import NoiseSpectrum, SampleLosses, Weights
from langevin_nn.observables.scalars import DrivingNoise, Losses, OrderParameters
from langevin_nn.observables.variables import describe
from langevin_nn.schema import Coordinate, Variable

__all__ = [
    "Coordinate",
    "DrivingNoise",
    "Losses",
    "NoiseSpectrum",
    "Observable",
    "OrderParameters",
    "SampleLosses",
    "Snapshot",
    "Variable",
    "Weights",
    "default_observables",
    "describe",
]


def default_observables() -> tuple[Observable, ...]:
    """Return what is recorded unless said: losses, order parameters and the driving noise.

    Returns
    -------
    tuple of Observable
        All of the root group.
    """
    return (Losses(), OrderParameters(), DrivingNoise())
