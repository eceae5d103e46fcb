"""Weighted gradients of any network: one traced graph for all replicas."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch
from torch import Tensor
from torch.func import grad, vmap
from torch.fx.experimental.proxy_tensor import make_fx

from langevin_nn.gradients.functional import Loss, weighted_loss
from langevin_nn.gradients.layout import ParameterLayout
from langevin_nn.threads import side_by_side

__all__ = ["TracedGradient"]

# A pass of less is mostly Python, whose threads wait for one another. Seconds.
_WORTH_A_THREAD = 2e-3


class TracedGradient:
    """Σ_k c_k ∇ℓ_k for a batch of replicas, through ``torch.func``.

    The vectorised gradient is traced once for each shape into a flat graph of tensor operations, which leaves out most
    of what ``vmap`` and autograd cost in Python at every call. It is the path of every network for which there is no
    kernel, and the oracle of those for which there is one. On a CPU the replicas of a large network run side by side.

    Parameters
    ----------
    module : torch.nn.Module
        The network.
    layout : ParameterLayout
        Order of its parameters.
    loss : callable
        (outputs, labels) → one loss a sample.
    """

    path = "torch.func"

    def __init__(self, module: torch.nn.Module, layout: ParameterLayout, loss: Loss) -> None:
        self._layout = layout
        self._gradient = grad(weighted_loss(module, loss))
        self._graphs: dict[tuple[object, ...], Callable[..., Tensor]] = {}
        self._seconds: dict[tuple[int, bool], float] = {}

    def untraced(
        self, weights: Tensor, inputs: Tensor, labels: Tensor, coefficients: Tensor, own_inputs: bool = False
    ) -> Tensor:
        """Return the weighted gradients as a function that ``torch.func`` can transform further.

        Parameters
        ----------
        weights : Tensor, shape (replica, parameter)
            Where.
        inputs : Tensor, shape (row, ...) or (replica, row, ...)
            The samples.
        labels : Tensor, shape (replica, row, ...)
            Their labels.
        coefficients : Tensor, shape (replica, row)
            The c_k.
        own_inputs : bool, optional
            Whether each replica has inputs of its own.

        Returns
        -------
        Tensor, shape (replica, parameter)
            Σ_k c_k ∇ℓ_k.
        """
        if len(weights) == 1:  # without vectorisation the graph is half as long
            own = inputs[0] if own_inputs else inputs
            gradients = self._gradient(self._layout.split(weights[0]), own, labels[0], coefficients[0])
            return self._layout.flatten(gradients)[None]
        axes = (0, 0 if own_inputs else None, 0, 0)
        gradients = vmap(self._gradient, in_dims=axes)(self._layout.split(weights), inputs, labels, coefficients)
        return torch.cat([gradients[name].reshape(len(weights), -1) for name in self._layout.shapes], dim=1)

    def __call__(
        self, weights: Tensor, inputs: Tensor, labels: Tensor, coefficients: Tensor, indices: Tensor | None
    ) -> Tensor:
        """Return the weighted gradients.

        Parameters
        ----------
        weights : Tensor, shape (replica, parameter)
            Where.
        inputs : Tensor, shape (sample, ...)
            All samples.
        labels : Tensor, shape (replica or 1, sample)
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
        labels = labels.expand(len(weights), *labels.shape[1:])
        if weights.device.type == "cpu" and len(weights) > 1:
            # Batched products round differently for other numbers of replicas; one by one, each has bits of its own.
            def of_replica(r: int) -> Tensor:
                rows = None if indices is None else indices[r, None]
                return self(weights[r, None].clone(), inputs, labels[r, None], coefficients[r, None].clone(), rows)

            key = (coefficients.shape[1], indices is not None)
            if self._seconds.get(key, 0.0) > _WORTH_A_THREAD:
                return torch.cat(side_by_side(of_replica, range(len(weights))))
            first = of_replica(0)
            started = time.perf_counter()
            others = [of_replica(r) for r in range(1, len(weights))]
            # The first goes to tracing, once for all threads.
            self._seconds[key] = (time.perf_counter() - started) / len(others)
            return torch.cat([first, *others])
        if indices is not None:
            inputs = inputs[indices]
            labels = torch.gather(labels, 1, indices) if labels.ndim == 2 else _gather_rows(labels, indices)
        own_inputs = indices is not None
        shape = (weights.shape, inputs.shape, weights.dtype, weights.device, own_inputs)
        with torch.no_grad():
            if shape not in self._graphs:

                def flat(w: Tensor, x: Tensor, y: Tensor, c: Tensor) -> Tensor:
                    return self.untraced(w, x, y, c, own_inputs)

                try:
                    self._graphs[shape] = make_fx(flat)(weights, inputs, labels, coefficients)
                except RuntimeError:  # what the network does depends on values, which no graph holds
                    self._graphs[shape] = flat
            return self._graphs[shape](weights, inputs, labels, coefficients)


def _gather_rows(labels: Tensor, indices: Tensor) -> Tensor:
    return labels[torch.arange(len(labels), device=labels.device)[:, None], indices]
