"""The derivative of a network's gradient at one point, along any number of directions."""

from __future__ import annotations

import torch
from torch import Tensor

from langevin_nn.gradients.functional import WeightedLoss
from langevin_nn.gradients.layout import ParameterLayout
from langevin_nn.gradients.samples import Samples, number_of, taken

__all__ = ["GradientDerivative"]


class GradientDerivative:
    """v → ∇²L(w) v: the graph of the gradient, gone back through once for each v.

    The graph of some samples at a time is built for each call; that of all of them, where they are gone through at once, is
    built with the first and kept.

    Parameters
    ----------
    total : callable
        (parameters, inputs, labels, coefficients) → Σ_k c_k ℓ_k, as `langevin_nn.gradients.functional.weighted_loss` makes.
    layout : ParameterLayout
        Order of the parameters.
    weights : Tensor, shape (parameter,)
        Where.
    inputs, labels : Tensor, shape (sample, ...)
        All samples.
    at_a_time : int
        How many of them a graph may hold.
    """

    def __init__(
        self,
        total: WeightedLoss,
        layout: ParameterLayout,
        weights: Tensor,
        inputs: Samples,
        labels: Tensor,
        at_a_time: int,
    ) -> None:
        self._total, self._layout, self._weights = total, layout, weights.detach()
        self._inputs, self._labels, self._at_a_time = inputs, labels, at_a_time
        self._kept: tuple[Tensor, Tensor] | None = None

    def __call__(self, vectors: Tensor) -> Tensor:
        """Return the products.

        Parameters
        ----------
        vectors : Tensor, shape (row, parameter)
            Each v, in the precision of the weights.

        Returns
        -------
        Tensor of float64, shape (row, parameter)
            ∇²L v, computed in that precision and summed over pieces in double precision.
        """
        products = torch.zeros_like(vectors, dtype=torch.float64)
        for start in range(0, number_of(self._inputs), self._at_a_time):
            weights, gradient = self._graph(slice(start, start + self._at_a_time))
            if not gradient.requires_grad:  # of a loss that is linear in the weights
                continue
            for product, vector in zip(products, vectors, strict=True):
                with torch.enable_grad():
                    along = gradient @ vector
                product += torch.autograd.grad(along, weights, retain_graph=True, materialize_grads=True)[0]
        return products

    def _graph(self, samples: slice) -> tuple[Tensor, Tensor]:
        """Return the weights as a leaf of the graph, and the gradient over some samples that was made of them."""
        if self._kept is not None:
            return self._kept
        with torch.enable_grad():
            weights = self._weights.clone().requires_grad_()
            inputs, labels = taken(self._inputs, samples), self._labels[samples]
            shares = weights.new_full((len(labels),), 1 / number_of(self._inputs))
            total = self._total(self._layout.split(weights), inputs, labels, shares)
            (gradient,) = torch.autograd.grad(total, weights, create_graph=True, materialize_grads=True)
        if len(labels) == number_of(self._inputs):
            self._kept = weights, gradient
        return weights, gradient
