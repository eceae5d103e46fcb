"""What an update rule is: from weights and a stochastic gradient to the next weights."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from torch import Tensor

from langevin_nn.drift import Drift
from langevin_nn.errors import ConfigurationError
from langevin_nn.landscape import Landscape
from langevin_nn.noise import Noise
from langevin_nn.readable import Readable

__all__ = ["Orders", "SteppedUpdate", "Update"]


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


class Update(Readable, ABC):
    """One rule for all updates of a run.

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
    mass : float or None
        m of underdamped dynamics, whose memory are velocities; None for rules without.
    """

    orders: ClassVar[Mapping[str, Orders]]
    calculus: ClassVar[Literal["ito", "stratonovich"]] = "ito"
    laws: ClassVar[frozenset[str]] = frozenset({"brownian"})
    momentum: float = 0.0
    mass: float | None = None

    def check(self, landscape: Landscape, drift: Drift, noise: Noise) -> None:
        """Raise where this rule cannot run a process.

        Parameters
        ----------
        landscape : Landscape
            Where the noise comes from.
        drift : Drift
            The deterministic field.
        noise : Noise
            The noise source.

        Raises
        ------
        ConfigurationError
            If it knows no order for such noise.
        """
        name = type(self).__name__
        if noise.law not in self.laws:
            raise ConfigurationError(
                f"{name} cannot run the {noise.law} noise of {type(noise).__name__}: expected noise that is "
                f"{' or '.join(sorted(self.laws))}, for which it converges; use EulerMaruyama"
            )
        dependence = noise.dependence(landscape)
        if dependence not in self.orders:
            raise ConfigurationError(
                f"{name} cannot run {type(noise).__name__}, whose factor is {dependence}: expected one that is "
                f"{' or '.join(self.orders)}, for which the scheme is made; with others it would converge to nothing, or "
                "more slowly than it says; use EulerMaruyama, or Heun in the sense of Stratonovich"
            )

    def check_rates(self, learning_rate: float, time_step: float) -> None:
        """Raise where this rule cannot run at some rates.

        Parameters
        ----------
        learning_rate : float
            α.
        time_step : float
            Δt.

        Raises
        ------
        ConfigurationError
            If the rule is not stable there.
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

    def average(self, memory: Any) -> Tensor | None:
        """Return the average of the weights that the rule keeps beside them.

        Parameters
        ----------
        memory : object
            The rule's memory.

        Returns
        -------
        Tensor or None, shape (replica, parameter)
            None for rules that keep none.
        """
        return None


class SteppedUpdate(Update):
    """A rule that is applied step by step to drift and noise together, of any landscape."""

    laws = frozenset({"brownian", "coloured", "stable"})

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

    @property
    def descent_rates(self) -> tuple[float, float] | None:
        """μ and λ where the rule is v ← μv + g + λw, w ← w − Δt v; None for others.

        Believed of the class that says it: a class of one's own may change `apply`, and is to say it again.
        """
        return None
