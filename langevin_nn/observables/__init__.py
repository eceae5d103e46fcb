"""Observables: what to record of a state."""

from langevin_nn.observables.base import Observable, Snapshot
from langevin_nn.observables.groups import NoiseSpectrum, SampleLosses, Weights
from langevin_nn.observables.scalars import DrivingNoise, Losses, OrderParameters

__all__ = [
    "DrivingNoise",
    "Losses",
    "NoiseSpectrum",
    "Observable",
    "OrderParameters",
    "SampleLosses",
    "Snapshot",
    "Weights",
    "default_observables",
]


def default_observables() -> tuple[Observable, ...]:
    """Return what is recorded unless said: losses, order parameters and the driving noise.

    Returns
    -------
    tuple of Observable
        All of the root group.
    """
    return (Losses(), OrderParameters(), DrivingNoise())
