"""Update rules: from a stochastic gradient to the next weights."""

from langevin_nn.update.base import Update
from langevin_nn.update.euler_maruyama import EulerMaruyama
from langevin_nn.update.plain import Momentum, Plain

__all__ = ["EulerMaruyama", "Momentum", "Plain", "Update"]
