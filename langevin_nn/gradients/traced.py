"""Weighted gradients of any network: one traced graph for all replicas."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from math import inf
from typing import Any

import torch
from torch import Tensor
from torch.func import grad, vmap
from torch.fx.experimental.proxy_tensor import make_fx

from langevin_nn.gradients.functional import Loss, weighted_loss
from langevin_nn.gradients.layout import ParameterLayout
from langevin_nn.gradients.samples import Samples, leaves, mapped, taken
from langevin_nn.threads import side_by_side

__all__ = ["TracedGradient"]

# A pass of less is mostly Python, whose threads wait for one another. Seconds.
_WORTH_A_THREAD = 2e-3
# How often all replicas at once must have had the bits of each alone before they are taken without looking.
_TRIALS = 2
_MANY = 16  # replicas, from which on that is worth a trial


class TracedGradient:
    """Σ_k c_k ∇ℓ_k for a batch of replicas, through ``torch.func``."""

    # The vectorised gradient is traced once for each shape into a flat graph of tensor operations, which leaves out most of
    # what `vmap` and autograd cost in Python at every call. It is the path of every network for which there is no kernel,
    # and the oracle of those for which there is one. On a CPU the replicas of a large network run side by side.

    path = "torch.func"

    def __init__(self, module: torch.nn.Module, layout: ParameterLayout, loss: Loss) -> None:
        self._layout = layout
        self._gradient = grad(weighted_loss(module, loss))
        self._graphs: dict[tuple[object, ...], Callable[..., Tensor]] = {}
        self._seconds: dict[tuple[int, bool], float] = {}
        self._alike: dict[tuple[object, ...], int] = {}

    def untraced(
        self, weights: Tensor, inputs: Samples, labels: Tensor, coefficients: Tensor, own_inputs: bool = False
    ) -> Tensor:
        """Return the weighted gradients at inputs (row, ...), or, if they are own ones, (replica, row, ...)."""
        if len(weights) == 1:  # without vectorisation the graph is half as long
            own = mapped(lambda each: each[0], inputs) if own_inputs else inputs
            gradients = self._gradient(self._layout.split(weights[0]), own, labels[0], coefficients[0])
            return self._layout.flatten(gradients)[None]
        axes = (0, 0 if own_inputs else None, 0, 0)
        gradients = vmap(self._gradient, in_dims=axes)(self._layout.split(weights), inputs, labels, coefficients)
        return torch.cat([gradients[name].reshape(len(weights), -1) for name in self._layout.shapes], dim=1)

    def __call__(
        self, weights: Tensor, inputs: Samples, labels: Tensor, coefficients: Tensor, indices: Tensor | None
    ) -> Tensor:
        """Return the weighted gradients, as a `WeightedGradient` does."""
        labels = labels.expand(len(weights), *labels.shape[1:])
        if weights.device.type == "cpu" and len(weights) > 1:
            # Batched products round differently for other numbers of replicas; one by one, each has bits of its own.
            def of_replica(r: int) -> Tensor:
                rows = None if indices is None else indices[r, None]
                return self(weights[r, None].clone(), inputs, labels[r, None], coefficients[r, None].clone(), rows)

            key = (coefficients.shape[1], indices is not None)
            if self._seconds.get(key, 0.0) > _WORTH_A_THREAD:
                return torch.cat(side_by_side(of_replica, range(len(weights))))
            # Of networks whose sums are none of products, all replicas at once have the bits of each alone, and are far
            # faster: known where they had them.
            shape = (*weights.shape, *key)
            if self._alike.get(shape, 0) >= _TRIALS:
                return self._at_once(weights, inputs, labels, coefficients, indices)
            found, seconds = [of_replica(0)], inf  # the first goes to tracing, once for all threads
            for r in range(1, len(weights)):
                started = time.perf_counter()
                found.append(of_replica(r))
                seconds = min(seconds, time.perf_counter() - started)  # whatever else the machine does
            self._seconds[key] = seconds
            gradients = torch.cat(found)
            trials = self._alike.get(shape, 0)
            if len(weights) >= _MANY and seconds <= _WORTH_A_THREAD and trials >= 0:
                same = self._same_at_once(gradients, weights, inputs, labels, coefficients, indices)
                self._alike[shape] = trials + 1 if same else -1
            return gradients
        return self._at_once(weights, inputs, labels, coefficients, indices)

    def _same_at_once(self, gradients: Tensor, *given: Any) -> bool:
        """Return whether all replicas at once have these bits."""
        with warnings.catch_warnings():
            warnings.filterwarnings("error", message=".*batching rule")  # it would loop over replicas inside
            try:
                return torch.equal(self._at_once(*given), gradients)
            except Exception:  # whatever cannot be vectorised goes one by one
                return False

    def _at_once(
        self, weights: Tensor, inputs: Samples, labels: Tensor, coefficients: Tensor, indices: Tensor | None
    ) -> Tensor:
        if indices is not None:
            inputs = taken(inputs, indices)
            labels = torch.gather(labels, 1, indices) if labels.ndim == 2 else _gather_rows(labels, indices)
        own_inputs = indices is not None
        shape = (weights.shape, *(each.shape for each in leaves(inputs)), weights.dtype, weights.device, own_inputs)
        with torch.no_grad():
            if shape not in self._graphs:

                def flat(w: Tensor, x: Samples, y: Tensor, c: Tensor) -> Tensor:
                    return self.untraced(w, x, y, c, own_inputs)

                try:
                    self._graphs[shape] = make_fx(flat)(weights, inputs, labels, coefficients)
                except RuntimeError:  # what the network does depends on values, which no graph holds
                    self._graphs[shape] = flat
            return self._graphs[shape](weights, inputs, labels, coefficients)


def _gather_rows(labels: Tensor, indices: Tensor) -> Tensor:
    return labels[torch.arange(len(labels), device=labels.device)[:, None], indices]
