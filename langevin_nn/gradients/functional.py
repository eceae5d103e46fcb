"""A network as a function of its weights: outputs and losses of samples, to be differentiated or vectorised."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy

import torch
from torch import Tensor
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel

from langevin_nn.gradients.layout import ParameterLayout
from langevin_nn.gradients.samples import Samples, number_of
from langevin_nn.threads import WORTH_A_THREAD, side_by_side

__all__ = ["Loss", "WeightedLoss", "evaluate", "outputs_of", "weighted_loss"]

Loss = Callable[[Tensor, Tensor], Tensor]
WeightedLoss = Callable[[dict[str, Tensor], Samples, Tensor, Tensor], Tensor]


def evaluate(module: torch.nn.Module, parameters: dict[str, Tensor], inputs: Samples) -> Tensor:
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


def weighted_loss(module: torch.nn.Module, loss: Loss) -> WeightedLoss:
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


def outputs_of(
    module: torch.nn.Module, untouched: torch.nn.Module, layout: ParameterLayout, weights: Tensor, inputs: Samples
) -> Samples:
    """Return a network's outputs at several weights; on a CPU those of a large network side by side.

    Parameters
    ----------
    module : torch.nn.Module
        The network.
    untouched : torch.nn.Module
        The same as it was before any evaluation, which may leave what cannot be copied.
    layout : ParameterLayout
        Order of its parameters.
    weights : Tensor, shape (replica, parameter)
        Where.
    inputs : Tensor, shape (sample, ...)
        What to evaluate.

    Returns
    -------
    Tensor, shape (replica, sample, ...)
        The outputs.
    """

    def of_replica(each: tuple[torch.nn.Module, Tensor]) -> Tensor:
        network, row = each
        with torch.no_grad():
            return functional_call(network, layout.split(row.clone()), (inputs,))  # type: ignore[no-any-return]

    is_long = number_of(inputs) * layout.n_parameters > WORTH_A_THREAD
    if weights.device.type != "cpu" or len(weights) < 2 or not is_long:
        return _stacked([of_replica((module, row)) for row in weights])
    # A module can hold the weights of one replica at a time.
    return _stacked(side_by_side(of_replica, [(deepcopy(untouched), row) for row in weights]))


def _stacked(outputs: Sequence[Samples]) -> Samples:
    """Return outputs of several replicas with the replica first."""
    first = outputs[0]
    if isinstance(first, Tensor):
        return torch.stack(list(outputs))
    if isinstance(first, Mapping):
        return {name: _stacked([each[name] for each in outputs]) for name in first}
    return tuple(_stacked([each[k] for each in outputs]) for k in range(len(first)))
