"""The gradient ensemble at one point in weight space."""

from langevin_nn.ensemble.base import GradientEnsemble
from langevin_nn.ensemble.empirical import covariance_factor
from langevin_nn.ensemble.measure import gradient_ensemble
from langevin_nn.ensemble.spectrum import effective_dimension

__all__ = ["GradientEnsemble", "covariance_factor", "effective_dimension", "gradient_ensemble"]
