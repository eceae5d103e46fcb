"""Update rules: from a stochastic gradient to the next weights, and integrators of stochastic differential equations."""

from langevin_nn.former import found_elsewhere
from langevin_nn.update.adam import Adam
from langevin_nn.update.adamw import AdamW
from langevin_nn.update.averaged import Averaged
from langevin_nn.update.base import Orders, SteppedUpdate, Update
from langevin_nn.update.clipped import Clipped
from langevin_nn.update.lion import Lion
from langevin_nn.update.nesterov import Nesterov
from langevin_nn.update.plain import Momentum, Plain
from langevin_nn.update.preconditioned import Preconditioned
from langevin_nn.update.rmsprop import RMSprop
from langevin_nn.update.schemes import (
    BAOAB,
    EulerMaruyama,
    Heun,
    Integrator,
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
    "AdamW",
    "Averaged",
    "Clipped",
    "EulerMaruyama",
    "Heun",
    "Integrator",
    "LeimkuhlerMatthews",
    "Lion",
    "Milstein",
    "Momentum",
    "Nesterov",
    "Orders",
    "Plain",
    "Preconditioned",
    "RMSprop",
    "State",
    "SteppedUpdate",
    "StrongAdditive",
    "UnderdampedLangevin",
    "Update",
    "WeakSecondOrder",
]

__getattr__ = found_elsewhere(__name__, {"CompiledUpdate": "langevin_nn.update:Integrator"})
