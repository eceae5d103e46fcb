"""What an update rule is: from weights and a stochastic gradient to the next weights."""

from __future__ import annotations

from abc import ABC, abstractmethod
from math import isfinite
from typing import Any, ClassVar, Literal, Protocol

import torch
from torch import Tensor

from langevin_nn.drift import Drift
from langevin_nn.noise import Noise
from langevin_nn.seeds import Key
from langevin_nn.update.state import State

__all__ = ["Dynamics", "Update"]


class Dynamics(Protocol):
    """What an update rule needs to know of the process that it advances."""

    @property
    def drift(self) -> Drift:
        """The deterministic field."""

    @property
    def noise(self) -> Noise:
        """The noise source."""

    @property
    def learning_rate(self) -> float:
        """α, which sets the noise."""

    @property
    def time_step(self) -> float:
        """Δt, which sets the discretisation."""

    def stochastic_gradient(self, weights: Tensor, memory: Any, key: Key) -> tuple[Tensor, Any]:
        """Return drift and noise together, and the noise source's memory."""


class Update(ABC):
    """One rule for a whole block of updates.

    Attributes
    ----------
    strong_order, weak_order : float
        Orders at which it converges to the stochastic differential equation, for noise that depends on the weights.
    calculus : {"ito", "stratonovich"}
        The reading of that equation to which it converges.
    momentum : float
        μ; 0 for rules without.
    """

    strong_order: ClassVar[float]
    weak_order: ClassVar[float]
    calculus: ClassVar[Literal["ito", "stratonovich"]] = "ito"
    momentum: float = 0.0

    def check(self, process: Dynamics) -> None:  # noqa: B027
        """Raise where this rule cannot run a process.

        Parameters
        ----------
        process : Dynamics
            With its drift and noise.
        """

    def start(self, weights: Tensor) -> Any:
        """Return the memory with which a run starts.

        Parameters
        ----------
        weights : Tensor, shape (replica, parameter)
            Where the run starts.

        Returns
        -------
        object
            Frozen; None where the rule remembers nothing.
        """
        return None

    @abstractmethod
    def apply(
        self, weights: Tensor, memory: Any, gradient: Tensor, learning_rate: float, time_step: float
    ) -> tuple[Tensor, Any]:
        """Make one update.

        Parameters
        ----------
        weights : Tensor, shape (replica, parameter)
            Before.
        memory : object
            The rule's memory.
        gradient : Tensor, shape (replica, parameter)
            Drift and noise together.
        learning_rate : float
            α, which sets the noise.
        time_step : float
            Δt, which sets the discretisation.

        Returns
        -------
        weights : Tensor, shape (replica, parameter)
            After.
        memory : object
            For the next update.
        """

    def advance(self, process: Dynamics, state: State, steps: int) -> State:
        """Make a block of updates.

        Parameters
        ----------
        process : Dynamics
            Gives the stochastic gradient.
        state : State
            Before.
        steps : int
            How many.

        Returns
        -------
        State
            After; stops early at the first update that leaves a replica non-finite that was not before.
        """
        weights, memory, noise_memory = state.weights, state.update_memory, state.noise_memory
        diverged = state.diverged
        for step in range(state.step, state.step + steps):
            gradient, noise_memory = process.stochastic_gradient(weights, noise_memory, state.key(step))
            weights, memory = self.apply(weights, memory, gradient, process.learning_rate, process.time_step)
            # One sum finds any non-finite weight at the price of one pass; only then is it asked whose it is.
            if not isfinite(float(weights.sum())):
                now = ~torch.isfinite(weights.sum(1))
                if bool((now & ~diverged).any()):
                    return state.replaced(step + 1, weights, memory, noise_memory, now | diverged)
        return state.replaced(state.step + steps, weights, memory, noise_memory, diverged)
