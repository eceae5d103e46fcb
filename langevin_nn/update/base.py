"""What an update rule is: from weights and a stochastic gradient to the next weights."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch
from torch import Tensor

if TYPE_CHECKING:
    from langevin_nn.process import Process, State

__all__ = ["Update"]


class Update(ABC):
    """One rule for a whole block of updates.

    Attributes
    ----------
    strong_order, weak_order : float
        Orders at which it converges to the stochastic differential equation, for noise that depends on the weights.
    calculus : {"ito", "stratonovich"}
        The reading of that equation to which it converges.
    """

    strong_order: ClassVar[float]
    weak_order: ClassVar[float]
    calculus: ClassVar[Literal["ito", "stratonovich"]] = "ito"

    def check(self, process: Process) -> None:  # noqa: B027
        """Raise where this rule cannot run a process.

        Parameters
        ----------
        process : Process
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

    def advance(self, process: Process, state: State, steps: int) -> State:
        """Make a block of updates.

        Parameters
        ----------
        process : Process
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
            # One sum a replica finds every non-finite weight, at the price of one pass.
            now = ~torch.isfinite(weights.sum(1))
            if bool((now & ~diverged).any()):
                return state.replaced(step + 1, weights, memory, noise_memory, now | diverged)
        return state.replaced(state.step + steps, weights, memory, noise_memory, diverged)
