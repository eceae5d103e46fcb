"""What is known exactly of simple stochastic differential equations: the laws that simulations are held to."""

from langevin_nn.theory.linear import circulation, entropy_production_rate, stationary_covariance
from langevin_nn.theory.one_dimension import mean_first_passage_time, stationary_density
from langevin_nn.theory.updates import covariance_after, mean_after

__all__ = [
    "circulation",
    "covariance_after",
    "entropy_production_rate",
    "mean_after",
    "mean_first_passage_time",
    "stationary_covariance",
    "stationary_density",
]
