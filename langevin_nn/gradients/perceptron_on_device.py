"""The path of multi-layer perceptrons on a GPU: hand-derived gradients of all replicas in batched matrix products."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn

from langevin_nn.gradients.perceptron import recognised

__all__ = ["BatchedPerceptronGradient"]

_AT_ONCE = 2**26  # activations: 256 MiB in float32


@dataclass(frozen=True)
class BatchedPerceptronGradient:
    """Σ_k c_k ∇ℓ_k of a perceptron with cross-entropy loss, in operations of torch that wait for nothing."""

    # They can be captured as a CUDA graph. Agrees with `TracedGradient` to rounding.

    widths: tuple[int, ...]
    activation: type[nn.Module]
    path = "batched products"

    @classmethod
    def of(cls, module: nn.Module, inputs: Tensor) -> BatchedPerceptronGradient | None:
        """Return this path of a network that `recognised` knows, with inputs as precise as the weights; else None."""
        known = recognised(module, inputs)
        if known is None or any(each.dtype != inputs.dtype for each in module.parameters()):
            return None
        return cls(*known)

    def __call__(
        self, weights: Tensor, inputs: Tensor, labels: Tensor, coefficients: Tensor, indices: Tensor | None
    ) -> Tensor:
        """Return the weighted gradients, as a `WeightedGradient` does."""
        labels = labels.expand(len(weights), -1)
        at_once = max(1, _AT_ONCE // max(1, coefficients.shape[1] * sum(self.widths)))
        pieces = []
        for start in range(0, len(weights), at_once):
            some = slice(start, start + at_once)
            rows = None if indices is None else indices[some]
            x = inputs.expand(len(weights[some]), *inputs.shape) if rows is None else inputs[rows]
            y = labels[some] if rows is None else torch.gather(labels[some], 1, rows)
            pieces.append(self._gradient(weights[some], x, y, coefficients[some]))
        return pieces[0] if len(pieces) == 1 else torch.cat(pieces)

    def _gradient(self, weights: Tensor, x: Tensor, y: Tensor, coefficients: Tensor) -> Tensor:
        """Return the gradients over inputs (replica, row, feature) of labels and coefficients (replica, row)."""
        matrices, biases, begin = [], [], 0
        for across, up in pairwise(self.widths):
            end = begin + up * across
            matrices.append(weights[:, begin:end].view(-1, up, across))
            biases.append(weights[:, end : end + up, None].mT)
            begin = end + up
        before, layers = [], [x]
        for matrix, bias in zip(matrices, biases, strict=True):
            before.append(torch.baddbmm(bias, layers[-1], matrix.mT))
            layers.append(self._activated(before[-1]))
        error = before[-1].softmax(2)
        error.scatter_add_(2, y[..., None], torch.full_like(error[..., :1], -1.0))
        error *= coefficients[..., None]
        parts: list[Tensor] = []
        for layer in reversed(range(len(matrices))):
            parts[:0] = [torch.bmm(error.mT, layers[layer]).flatten(1), error.sum(1)]
            if layer:
                error = torch.bmm(error, matrices[layer]) * self._slope(before[layer - 1], layers[layer])
        return torch.cat(parts, 1)

    def _activated(self, z: Tensor) -> Tensor:
        if self.activation is nn.ReLU:
            return z.relu()
        return z.tanh() if self.activation is nn.Tanh else nn.functional.gelu(z)

    def _slope(self, z: Tensor, activated: Tensor) -> Tensor:
        """Return the derivative of the activation, from its argument and its value."""
        if self.activation is nn.ReLU:
            return (z > 0).to(z.dtype)
        if self.activation is nn.Tanh:
            return 1 - activated.square()
        density = (-0.5 * z.square()).exp() / math.sqrt(2 * math.pi)
        return 0.5 * (1 + (z / math.sqrt(2)).erf()) + z * density
