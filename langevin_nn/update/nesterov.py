"""Nesterov's momentum, which looks ahead."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from langevin_nn.update.plain import Momentum

__all__ = ["Nesterov"]


@dataclass(frozen=True)
class Nesterov(Momentum):
    """v ← μv + g + λw, w ← w − Δt (g + λw + μv), with v = 0 at the start (``torch.optim.SGD(nesterov=True)``).

    Sutskever et al. (2013, proceedings.mlr.press/v28/sutskever13), with the weights moved by the step that is to come. The
    limit Δt → 0 at fixed μ is that of `Momentum`, dynamics sped up by 1/(1 − μ), with its orders: steps differ by the share μ
    of the newest kick, which comes one step earlier.

    Parameters
    ----------
    momentum : float
        μ, in [0, 1).
    weight_decay : float, optional
        λ, in units of 1/time.

    Raises
    ------
    ConfigurationError
        If μ is outside [0, 1), or λ negative or not finite.

    Examples
    --------
    >>> from langevin_nn import Process, advance
    >>> from langevin_nn.landscape import QuadraticLandscape
    >>> from langevin_nn.noise import Silent
    >>> process = Process(QuadraticLandscape([[1.0]], [[0.0]], start=[1.0]), Silent(), 0.1, update=Nesterov(0.9))
    >>> advance(process, process.start(replicas=1, seed=0), steps=1).weights  # 1 − 0.1 (1 + 0.9)
    tensor([[0.8100]], dtype=torch.float64)
    """

    @property
    def descent_rates(self) -> None:
        """None: steps are not along the velocity alone."""
        return None

    def apply(  # noqa: D102
        self, weights: Tensor, memory: Tensor, gradient: Tensor, learning_rate: float, time_step: float
    ) -> tuple[Tensor, Any]:
        if self.weight_decay:
            gradient = gradient + self.weight_decay * weights
        velocity = self.momentum * memory + gradient
        return torch.add(weights, gradient + self.momentum * velocity, alpha=-time_step), velocity
