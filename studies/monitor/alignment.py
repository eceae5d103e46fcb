"""How a network's last weights are aligned with the gradients of single samples, over an epoch."""

from __future__ import annotations

from types import TracebackType
from typing import Any, Self

import torch
from torch import Tensor, nn

__all__ = ["GradientWeightAlignment"]

_SHIFT = 1.2  # added to the excess kurtosis, as their code has it: that of a flat distribution is −1.2


class GradientWeightAlignment:
    """Gradient-weight alignment (Hölzl, Rueckert & Kaissis 2025, arXiv:2510.25480), from passes that training makes.

    With W the weights of the last linear layer, and g_i the gradient in them of the loss of sample i, it is the mean over an
    epoch of the cosine between −g_i and W, divided by their excess kurtosis + 1.2. With inputs a_i and signals δ_i,
    g_i = δ_i a_iᵀ, so that the cosine is −δ_iᵀ W a_i / (‖δ_i‖ ‖a_i‖ ‖W‖).

    Parameters
    ----------
    network : torch.nn.Module
        Whose last linear layer is looked at, while this is open.
    """

    def __init__(self, network: nn.Module) -> None:
        self._layer = [each for each in network.modules() if isinstance(each, nn.Linear)][-1]
        self._inputs = torch.empty(0)
        self._cosines: list[Tensor] = []

    def __enter__(self) -> Self:
        def keep(layer: nn.Module, given: tuple[Any, ...]) -> None:
            self._inputs = given[0].detach()

        self._handle = self._layer.register_forward_pre_hook(keep)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._handle.remove()

    def take(self, logits: Tensor, labels: Tensor) -> None:
        """Add the samples of a minibatch, after its forward pass.

        Parameters
        ----------
        logits : Tensor, shape (sample, class)
            Of that pass.
        labels : Tensor of int, shape (sample,)
            Given ones.
        """
        with torch.no_grad():
            signals = logits.softmax(1)
            signals[torch.arange(len(labels)), labels] -= 1
            weights = self._layer.weight
            products = (signals @ weights * self._inputs).sum(1)
            norms = signals.norm(dim=1) * self._inputs.norm(dim=1) * weights.norm()
            self._cosines.append(-products / norms.clamp_min(1e-12))

    def end_epoch(self) -> float:
        """Return the alignment of the samples since the last time.

        Returns
        -------
        float
            Larger where gradients agree on what is there.
        """
        cosines = torch.cat(self._cosines).double()
        self._cosines = []
        centred = cosines - cosines.mean()
        kurtosis = (centred**4).mean() / (centred**2).mean().clamp_min(1e-30) ** 2 - 3
        return float(cosines.mean() / (kurtosis + _SHIFT))
