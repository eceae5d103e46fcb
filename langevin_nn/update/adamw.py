"""AdamW: Adam whose weights decay by themselves, outside its moments."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from langevin_nn.update.adam import Adam, AdamMoments

__all__ = ["AdamW"]


@dataclass(frozen=True)
class AdamW(Adam):
    """w ← (1 − Δt λ) w − Δt m̂/(√v̂ + ε), with m̂ and v̂ of the gradient alone (``torch.optim.AdamW``).

    Loshchilov & Hutter (2019, arXiv:1711.05101): in `Adam` λw is part of the gradient, and is divided by √v̂ + ε with it, so
    that weights with large gradients hardly decay. The `preconditioner` is Adam's, as are the orders.

    Parameters
    ----------
    first_decay : float, optional
        β₁, in [0, 1).
    second_decay : float, optional
        β₂, in [0, 1).
    offset : float, optional
        ε > 0, in units of the gradient.
    weight_decay : float, optional
        λ, in units of 1/time.

    Raises
    ------
    ConfigurationError
        If a decay rate is outside [0, 1), ε not positive, or λ negative or not finite.

    Examples
    --------
    >>> from langevin_nn import Process, advance
    >>> from langevin_nn.landscape import QuadraticLandscape
    >>> from langevin_nn.noise import Silent
    >>> valley = QuadraticLandscape([[100.0, 0.0], [0.0, 1.0]], [[0.0, 0.0], [0.0, 0.0]], start=[1.0, 1.0])
    >>> process = Process(valley, Silent(), learning_rate=0.1, update=AdamW(weight_decay=0.5))
    >>> advance(process, process.start(replicas=1, seed=0), steps=1).weights  # 1 − 0.1 · 0.5 · 1 − 0.1
    tensor([[0.8500, 0.8500]], dtype=torch.float64)
    """

    weight_decay: float = 0.01

    def apply(  # noqa: D102
        self, weights: Tensor, memory: AdamMoments, gradient: Tensor, learning_rate: float, time_step: float
    ) -> tuple[Tensor, AdamMoments]:
        return self._stepped((1 - time_step * self.weight_decay) * weights, memory, gradient, time_step)
