"""Update rules: from a stochastic gradient to the next weights, and integrators of stochastic differential equations."""

from langevin_nn.update.adam import Adam
from langevin_nn.update.base import Orders, SteppedUpdate, Update
from langevin_nn.update.plain import Momentum, Plain
from langevin_nn.update.schemes import (
    BAOAB,
    CompiledUpdate,
    EulerMaruyama,
    Heun,
    LeimkuhlerMatthews,
    Milstein,
    StrongAdditive,
    WeakSecondOrder,
)
from langevin_nn.update.state import State
from langevin_nn.update.underdamped import UnderdampedLangevin

__all__ = [
    "BAOAB",
    "Adam",
    "CompiledUpdate",
    "EulerMaruyama",
    "Heun",
    "LeimkuhlerMatthews",
    "Milstein",
    "Momentum",
    "Orders",
    "Plain",
    "State",
    "SteppedUpdate",
    "StrongAdditive",
    "UnderdampedLangevin",
    "Update",
    "WeakSecondOrder",
]
