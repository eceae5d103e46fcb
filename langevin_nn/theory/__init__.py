"""What is known exactly of simple stochastic differential equations: the laws that simulations are held to."""

from langevin_nn.theory.linear import circulation, entropy_production_rate, stationary_covariance
from langevin_nn.theory.one_dimension import mean_first_passage_time, stationary_density

__all__ = [
    "circulation",
    "entropy_production_rate",
    "mean_first_passage_time",
    "stationary_covariance",
    "stationary_density",
]
