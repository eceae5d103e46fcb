"""Processes: drift + noise + update rule, and the state between two updates."""

from langevin_nn.process.base import Process
from langevin_nn.process.named import (
    PROCESSES,
    frozen_langevin,
    gradient_descent,
    isotropic_langevin,
    langevin,
    sgd,
    sghmc,
    sgld,
    svag,
)
from langevin_nn.update import State

__all__ = [
    "PROCESSES",
    "Process",
    "State",
    "frozen_langevin",
    "gradient_descent",
    "isotropic_langevin",
    "langevin",
    "sgd",
    "sghmc",
    "sgld",
    "svag",
]
