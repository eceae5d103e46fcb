"""Weighted gradients of any network by plain autograd, replica by replica."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from langevin_nn.gradients.copies import copied
from langevin_nn.gradients.functional import Loss
from langevin_nn.gradients.layout import ParameterLayout
from langevin_nn.gradients.samples import Samples, taken

__all__ = ["PlainGradient"]


class PlainGradient:
    """Σ_k c_k ∇ℓ_k by a forward and a backward pass of the module itself, as in a loop of one's own.

    It takes whatever autograd takes: branches that depend on values, packed sequences, fused kernels of recurrent networks,
    functions with a backward pass of one's own, checkpoints, compiled modules. Weights are written into a copy of the module,
    in which the backward pass ends, too: what evaluates layers once more there finds the same weights.

    Parameters
    ----------
    module : torch.nn.Module
        The network; it is copied.
    layout : ParameterLayout
        Order of its parameters.
    loss : callable
        (outputs, labels) → one loss a sample.
    """

    path = "autograd"

    def __init__(self, module: nn.Module, layout: ParameterLayout, loss: Loss) -> None:
        self._module, self._layout, self._loss = copied(module).requires_grad_(True), layout, loss

    def __call__(
        self, weights: Tensor, inputs: Samples, labels: Tensor, coefficients: Tensor, indices: Tensor | None
    ) -> Tensor:
        """Return the weighted gradients.

        Parameters
        ----------
        weights : Tensor, shape (replica, parameter)
            Where.
        inputs : Tensor, shape (sample, ...)
            All samples.
        labels : Tensor, shape (replica or 1, sample, ...)
            All labels.
        coefficients : Tensor, shape (replica, row)
            The c_k of the samples in `indices`, or of all.
        indices : Tensor or None, shape (replica, row)
            Samples to use; None for all, in order.

        Returns
        -------
        Tensor, shape (replica, parameter)
            Σ_k c_k ∇ℓ_k.
        """
        rows = []
        for r, row in enumerate(weights):
            own = labels[r if len(labels) > 1 else 0]
            chosen = (inputs, own) if indices is None else (taken(inputs, indices[r]), own[indices[r]])
            rows.append(self._of_replica(row, *chosen, coefficients[r]))
        return torch.stack(rows)

    def _of_replica(self, weights: Tensor, inputs: Samples, labels: Tensor, coefficients: Tensor) -> Tensor:
        return self._layout.flatten(self.by_name(self._layout.split(weights), inputs, labels, coefficients))

    def by_name(
        self, weights: Mapping[str, Tensor], inputs: Samples, labels: Tensor, coefficients: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Return one weighted gradient.

        Parameters
        ----------
        weights : mapping of str to Tensor
            Where.
        inputs, labels : Tensor, shape (row, ...)
            The samples.
        coefficients : Tensor, shape (row,), optional
            The c_k; 1 unless said.

        Returns
        -------
        dict of str to Tensor
            By name of the tensor.
        """
        parameters = dict(self._module.named_parameters())
        with torch.no_grad():
            for name, value in weights.items():
                parameters[name].copy_(value)
        with torch.enable_grad():
            losses = self._loss(self._module(inputs), labels)
            total = (losses if coefficients is None else losses * coefficients.to(losses.dtype)).sum()
        # Rather than autograd.grad, with which checkpoints of the old kind do not work.
        torch.autograd.backward(total)
        found = {name: torch.zeros_like(each) if each.grad is None else each.grad for name, each in parameters.items()}
        self._module.zero_grad(set_to_none=True)
        return found
