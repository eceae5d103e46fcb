"""Noise sources: interchangeable laws of the gradient noise."""

from langevin_nn.noise.amplified import SVAG
from langevin_nn.noise.base import AdditiveNoise, Noise, SampleWeightNoise, SampleWeights
from langevin_nn.noise.constant import (
    AnisotropicNoise,
    ColouredNoise,
    DiagonalNoise,
    PreconditionedThermalNoise,
    StableNoise,
    ThermalNoise,
)
from langevin_nn.noise.dependent import LandscapeNoise, StateDependentNoise
from langevin_nn.noise.diagonal import MatchedDiagonal
from langevin_nn.noise.factored import FactoredNoise
from langevin_nn.noise.forward import (
    AugmentationNoise,
    BatchStatistics,
    DropoutNoise,
    ForwardChange,
    ForwardNoise,
    LabelSmoothingNoise,
    ModuleNoise,
)
from langevin_nn.noise.gaussian import MatchedGaussian
from langevin_nn.noise.isotropic import IsotropicNoise
from langevin_nn.noise.lowrank import LowRankNoise
from langevin_nn.noise.minibatch import IndependentMinibatches, Minibatches, ShuffledMinibatches
from langevin_nn.noise.refreshed import RefreshedNoise
from langevin_nn.noise.scaled import ScaledIncrement, ScaledNoise, ScaledSampleWeights
from langevin_nn.noise.shares import NoiseShares, noise_shares
from langevin_nn.noise.silent import Silent
from langevin_nn.noise.stable import MatchedStable
from langevin_nn.noise.total import SumNoise

__all__ = [
    "SVAG",
    "AdditiveNoise",
    "AnisotropicNoise",
    "AugmentationNoise",
    "BatchStatistics",
    "ColouredNoise",
    "DiagonalNoise",
    "DropoutNoise",
    "FactoredNoise",
    "ForwardChange",
    "ForwardNoise",
    "IndependentMinibatches",
    "IsotropicNoise",
    "LabelSmoothingNoise",
    "LandscapeNoise",
    "LowRankNoise",
    "MatchedDiagonal",
    "MatchedGaussian",
    "MatchedStable",
    "Minibatches",
    "ModuleNoise",
    "Noise",
    "NoiseShares",
    "PreconditionedThermalNoise",
    "RefreshedNoise",
    "SampleWeightNoise",
    "SampleWeights",
    "ScaledIncrement",
    "ScaledNoise",
    "ScaledSampleWeights",
    "ShuffledMinibatches",
    "Silent",
    "StableNoise",
    "StateDependentNoise",
    "SumNoise",
    "ThermalNoise",
    "noise_shares",
]
