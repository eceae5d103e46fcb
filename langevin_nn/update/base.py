"""What an update rule is: from weights and a stochastic gradient to the next weights."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Protocol

from torch import Tensor

from langevin_nn.drift import Drift
from langevin_nn.errors import ConfigurationError
from langevin_nn.landscape import Landscape
from langevin_nn.noise import Noise
from langevin_nn.seeds import Key
from langevin_nn.update.state import State

__all__ = ["Dynamics", "Orders", "Update"]


class Dynamics(Protocol):
    """What an update rule needs to know of the process that it advances."""

    @property
    def landscape(self) -> Landscape:
        """Where the noise comes from."""

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

    @property
    def shares(self) -> str | None:
        """Names what computes drift and noise in one pass over samples: processes of equal names run in one batch."""

    def fused_weights(self, memory: Any, key: Key) -> tuple[Tensor, Tensor | None, Any]:
        """Return the coefficients of drift and noise together, their samples, and the noise source's memory."""

    @property
    def is_fused(self) -> bool:
        """Whether one weighted pass makes drift and noise together."""

    @property
    def noise_ratio(self) -> float:
        """√(α/Δt), what multiplies the noise of the gradient."""

    @property
    def takes_minibatches(self) -> bool:
        """Whether an update is the mean gradient over a minibatch."""

    def stochastic_gradient(self, weights: Tensor, memory: Any, key: Key) -> tuple[Tensor, Any]:
        """Return drift and noise together, and the noise source's memory."""


@dataclass(frozen=True)
class Orders:
    """Orders at which a rule converges to the stochastic differential equation.

    Parameters
    ----------
    strong : float
        E|x − x(T)| ~ Δt^strong along the same Brownian path.
    weak : float
        |E f(x) − E f(x(T))| ~ Δt^weak.
    """

    strong: float
    weak: float


class Update(ABC):
    """One rule for a whole block of updates.

    Attributes
    ----------
    orders : mapping of str to Orders
        By how the noise depends on the weights: "constant", "diagonal" or "full"; noise that is missing here is refused.
    calculus : {"ito", "stratonovich"}
        The reading of the equation to which it converges.
    laws : frozenset of str
        The laws of noise that it can run.
    momentum : float
        μ; 0 for rules without.
    """

    orders: ClassVar[Mapping[str, Orders]]
    calculus: ClassVar[Literal["ito", "stratonovich"]] = "ito"
    laws: ClassVar[frozenset[str]] = frozenset({"brownian"})
    momentum: float = 0.0

    def check(self, process: Dynamics) -> None:
        """Raise where this rule cannot run a process.

        Parameters
        ----------
        process : Dynamics
            With its drift and noise.

        Raises
        ------
        ConfigurationError
            If it knows no order for such noise.
        """
        noise, name = process.noise, type(self).__name__
        if noise.law not in self.laws:
            raise ConfigurationError(
                f"{name} cannot run the {noise.law} noise of {type(noise).__name__}: expected noise that is "
                f"{' or '.join(sorted(self.laws))}, for which it converges; use EulerMaruyama"
            )
        dependence = noise.dependence(process.landscape)
        if dependence not in self.orders:
            raise ConfigurationError(
                f"{name} cannot run {type(noise).__name__}, whose factor is {dependence}: expected one that is "
                f"{' or '.join(self.orders)}, for which the scheme is made; with others it would converge to nothing, or "
                "more slowly than it says; use EulerMaruyama, or Heun in the sense of Stratonovich"
            )

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

    def preconditioner(self, memory: Any) -> Tensor | None:
        """Return the diagonal metric D of the rule, dw = −D⁻¹ (∇L dt + noise).

        Parameters
        ----------
        memory : object
            The rule's memory.

        Returns
        -------
        Tensor or None, shape (replica, parameter)
            Positive; None for rules that move along the gradient itself.
        """
        return None

    @abstractmethod
    def advance(self, process: Dynamics, state: State, steps: int) -> State:
        """Make a block of updates.

        Parameters
        ----------
        process : Dynamics
            With its drift and noise.
        state : State
            Before.
        steps : int
            How many.

        Returns
        -------
        State
            After; stops early at the first update that leaves a replica non-finite that was not before.
        """
