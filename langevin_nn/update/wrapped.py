"""Rules around another one, of which they change the gradient or watch the weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from langevin_nn.checks import instance
from langevin_nn.drift import Drift
from langevin_nn.landscape import Landscape
from langevin_nn.noise import Noise
from langevin_nn.update.base import SteppedUpdate

__all__ = ["Wrapped"]


@dataclass(frozen=True)
class Wrapped(SteppedUpdate):
    """A rule around another one, which it is in all that it does not say.

    Parameters
    ----------
    update : SteppedUpdate
        The rule inside.

    Raises
    ------
    ConfigurationError
        If it is none that is applied step by step.
    """

    update: SteppedUpdate

    def __post_init__(self) -> None:
        expected = (
            "an instance of a rule that is applied step by step, since integrators make all steps in one loop; use Plain(), "
            "Momentum(0.9) or Adam()"
        )
        instance("update", self.update, SteppedUpdate, expected)
        for name in ("calculus", "laws", "momentum"):
            object.__setattr__(self, name, getattr(self.update, name))

    def check(self, landscape: Landscape, drift: Drift, noise: Noise) -> None:  # noqa: D102
        self.update.check(landscape, drift, noise)

    def check_rates(self, learning_rate: float, time_step: float) -> None:  # noqa: D102
        self.update.check_rates(learning_rate, time_step)

    def start(self, weights: Tensor) -> Any:  # noqa: D102
        return self.update.start(weights)

    def preconditioner(self, memory: Any) -> Tensor | None:  # noqa: D102
        return self.update.preconditioner(memory)

    def average(self, memory: Any) -> Tensor | None:  # noqa: D102
        return self.update.average(memory)
