"""Update rules: from a stochastic gradient to the next weights."""

from langevin_nn.update.base import Dynamics, Update
from langevin_nn.update.euler_maruyama import EulerMaruyama
from langevin_nn.update.plain import Momentum, Plain
from langevin_nn.update.state import State

__all__ = ["Dynamics", "EulerMaruyama", "Momentum", "Plain", "State", "Update"]
