"""A network as a function of its weights: outputs and losses of samples, to be differentiated or vectorised."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel

__all__ = ["Loss", "evaluate", "weighted_loss"]

Loss = Callable[[Tensor, Tensor], Tensor]


def evaluate(module: torch.nn.Module, parameters: dict[str, Tensor], inputs: Tensor) -> Tensor:
    """Return a network's outputs through operations that can be vectorised and differentiated twice.

    Fused attention can do neither, so attention is computed by its plain matrix products.

    Parameters
    ----------
    module : torch.nn.Module
        The network.
    parameters : dict of str to Tensor
        Its weights, by name.
    inputs : Tensor, shape (sample, ...)
        The samples.

    Returns
    -------
    Tensor, shape (sample, ...)
        The outputs.
    """
    with sdpa_kernel(SDPBackend.MATH):
        return functional_call(module, parameters, (inputs,))  # type: ignore[no-any-return]


def weighted_loss(module: torch.nn.Module, loss: Loss) -> Callable[[dict[str, Tensor], Tensor, Tensor, Tensor], Tensor]:
    """Return (parameters, inputs, labels, coefficients) → Σ_k c_k ℓ_k of one replica.

    Parameters
    ----------
    module : torch.nn.Module
        The network.
    loss : callable
        (outputs, labels) → one loss a sample.

    Returns
    -------
    callable
        A pure function, for ``torch.func``.
    """

    def total(parameters: dict[str, Tensor], inputs: Tensor, labels: Tensor, coefficients: Tensor) -> Tensor:
        outputs = evaluate(module, parameters, inputs)
        return (loss(outputs, labels) * coefficients).sum()

    return total
