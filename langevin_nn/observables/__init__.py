"""Observables: what to record of a state."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from langevin_nn.observables.averages import LossesOfAverage as LossesOfAverage
    from langevin_nn.observables.base import Observable as Observable
    from langevin_nn.observables.base import Snapshot as Snapshot
    from langevin_nn.observables.groups import MeasuredWeights as MeasuredWeights
    from langevin_nn.observables.groups import NoiseSpectrum as NoiseSpectrum
    from langevin_nn.observables.groups import SampleLosses as SampleLosses
    from langevin_nn.observables.groups import Weights as Weights
    from langevin_nn.observables.scalars import DrivingNoise as DrivingNoise
    from langevin_nn.observables.scalars import Losses as Losses
    from langevin_nn.observables.scalars import OrderParameters as OrderParameters
    from langevin_nn.observables.scalars import default_observables as default_observables
    from langevin_nn.observables.variables import Coordinate as Coordinate
    from langevin_nn.observables.variables import Variable as Variable
    from langevin_nn.observables.variables import describe as describe
else:
    from langevin_nn.lazy import lazily

    __getattr__, __dir__, __all__ = lazily(__name__)
