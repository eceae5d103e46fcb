"""Gradients clipped, by norm or by value, before a rule sees them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from langevin_nn.checks import number
from langevin_nn.errors import ConfigurationError
from langevin_nn.update.base import Orders
from langevin_nn.update.wrapped import Wrapped

__all__ = ["Clipped"]

# The noise of an update grows as the time step shrinks, until every gradient is clipped.
_NO_LIMIT = Orders(0.0, 0.0)
_GUARD = 1e-6  # torch's, beside the norm by which it divides


@dataclass(frozen=True)
class Clipped(Wrapped):
    """g ← g min(1, c/(|g| + 10⁻⁶)), or each component of g held within ±c, before another rule sees g.

    ``torch.nn.utils.clip_grad_norm_`` and ``clip_grad_value_`` before the optimizer's step, as in Pascanu et al. (2013,
    arXiv:1211.5063); |g| is the norm over all parameters of one replica. g is drift and noise together, before the rule adds
    its weight decay. What is clipped is no longer g on average: the drift changes with the law of the noise, and at fixed c
    and Δt → 0 no equation is the limit, so that the orders are 0. Memory and `preconditioner` are those of the inner rule.

    Parameters
    ----------
    update : SteppedUpdate
        The rule that makes the step.
    norm : float, optional
        c > 0, the longest gradient, in units of the gradient.
    value : float, optional
        c > 0, the largest component; instead of `norm`.

    Raises
    ------
    ConfigurationError
        If the inner rule is not applied step by step, or there is not one bound, positive and finite.

    Examples
    --------
    >>> from langevin_nn import Process, advance
    >>> from langevin_nn.landscape import QuadraticLandscape
    >>> from langevin_nn.noise import Silent
    >>> from langevin_nn.update import Plain
    >>> valley = QuadraticLandscape([[3.0, 0.0], [0.0, 4.0]], [[0.0, 0.0], [0.0, 0.0]], start=[1.0, 1.0])
    >>> process = Process(valley, Silent(), learning_rate=0.1, update=Clipped(Plain(), norm=1.0))
    >>> advance(process, process.start(replicas=1, seed=0), steps=1).weights  # 1 − 0.1 · (3, 4)/5
    tensor([[0.9400, 0.9200]], dtype=torch.float64)
    """

    norm: float | None = None
    value: float | None = None
    orders = {"constant": _NO_LIMIT, "diagonal": _NO_LIMIT, "full": _NO_LIMIT}  # noqa: RUF012

    def __post_init__(self) -> None:
        super().__post_init__()
        if (self.norm is None) == (self.value is None):
            raise ConfigurationError(
                f"norm={self.norm!r} and value={self.value!r}: expected one of them, since gradients are clipped in one "
                "way; for both put one Clipped around another"
            )
        name = "value" if self.norm is None else "norm"
        expected = "a positive, finite number, beyond which gradients are clipped; leave Clipped out to clip none"
        object.__setattr__(self, name, number(name, getattr(self, name), expected, above=0))

    def apply(  # noqa: D102
        self, weights: Tensor, memory: Any, gradient: Tensor, learning_rate: float, time_step: float
    ) -> tuple[Tensor, Any]:
        if self.value is not None:
            gradient = gradient.clamp(-self.value, self.value)
        if self.norm is not None:
            # One by one: sums over all replicas at once may round a row otherwise in other company.
            norms = torch.stack([torch.linalg.vector_norm(row) for row in gradient])
            gradient = gradient * (self.norm / (norms + _GUARD)).clamp(max=1)[:, None]
        return self.update.apply(weights, memory, gradient, learning_rate, time_step)
