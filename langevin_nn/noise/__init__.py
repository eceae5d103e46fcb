"""Noise sources: interchangeable laws of the gradient noise."""

from langevin_nn.noise.anisotropic import AnisotropicNoise
from langevin_nn.noise.base import AdditiveNoise, Noise, SampleWeightNoise, SampleWeights
from langevin_nn.noise.gaussian import MatchedGaussian
from langevin_nn.noise.isotropic import IsotropicNoise
from langevin_nn.noise.minibatch import IndependentMinibatches, ShuffledMinibatches
from langevin_nn.noise.silent import Silent

__all__ = [
    "AdditiveNoise",
    "AnisotropicNoise",
    "IndependentMinibatches",
    "IsotropicNoise",
    "MatchedGaussian",
    "Noise",
    "SampleWeightNoise",
    "SampleWeights",
    "ShuffledMinibatches",
    "Silent",
]
