"""The fast path of multi-layer perceptrons on the CPU: hand-derived gradients in a Numba kernel."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib import import_module
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from langevin_nn.formulas import GELU, RELU, TANH

__all__ = ["PerceptronGradient", "recognised"]


_ACTIVATIONS: dict[type[nn.Module], int] = {nn.ReLU: RELU, nn.Tanh: TANH, nn.GELU: GELU}


@cache
def _kernel() -> Any:
    """Return the kernel, which loads the compiler: only what runs needs it."""
    return import_module("langevin_nn.kernels.perceptron")


def recognised(module: nn.Module, inputs: Tensor) -> tuple[tuple[int, ...], type[nn.Module]] | None:
    """Return widths, the inputs first, and activation of a multi-layer perceptron; None for other networks."""
    # Known are a `Sequential` of `Linear` layers with biases and one kind of activation between them, without hooks or shared
    # tensors, and inputs that are vectors.
    if type(module) is not nn.Sequential or not isinstance(inputs, Tensor) or inputs.ndim != 2 or len(module) % 2 == 0:
        return None
    if any(layer._forward_hooks or layer._forward_pre_hooks for layer in module.modules()):
        return None
    layers = list(module)
    between = layers[1::2]
    kinds = {type(layer) for layer in between} or {nn.ReLU}
    if any(isinstance(layer, nn.GELU) and layer.approximate != "none" for layer in between):
        return None
    if len(kinds) != 1 or not kinds <= set(_ACTIVATIONS):
        return None
    linear = [layer for layer in layers[::2] if type(layer) is nn.Linear and layer.bias is not None]
    own = [f"{2 * k}.{part}" for k in range(len(linear)) for part in ("weight", "bias")]
    # Names come once for tensors that are shared, and in another order or number where a layer was altered.
    if len(linear) < len(layers[::2]) or own != [name for name, _ in module.named_parameters()]:
        return None
    return (linear[0].in_features, *(layer.out_features for layer in linear)), kinds.pop()


@dataclass(frozen=True)
class PerceptronGradient:
    """Σ_k c_k ∇ℓ_k of a perceptron with cross-entropy loss, for a batch of replicas."""

    # Agrees with `TracedGradient` to float32 rounding.

    widths: tuple[int, ...]
    activation: int  # its code in `langevin_nn.formulas`
    path = "perceptron kernel"

    @classmethod
    def of(cls, module: nn.Module, inputs: Tensor) -> PerceptronGradient | None:
        """Return the fast path of a network that `recognised` knows, where all is float32 on the CPU; else None."""
        known = recognised(module, inputs)
        tensors = [inputs, *module.parameters()]
        if known is None or any(tensor.dtype != torch.float32 or tensor.device.type != "cpu" for tensor in tensors):
            return None
        return cls(known[0], _ACTIVATIONS[known[1]])

    def __call__(
        self, weights: Tensor, inputs: Tensor, labels: Tensor, coefficients: Tensor, indices: Tensor | None
    ) -> Tensor:
        """Return the weighted gradients, as a `WeightedGradient` does."""
        rows = indices if indices is not None else torch.arange(len(inputs))[None]
        out = torch.empty_like(weights)
        _kernel().weighted_gradient(
            weights.contiguous().numpy(),
            inputs.numpy(),
            labels.numpy(),
            rows.contiguous().numpy(),
            coefficients.contiguous().numpy(),
            np.array(self.widths),
            self.activation,
            out.numpy(),
        )
        return out

    def descend(
        self,
        weights: Tensor,
        velocities: Tensor,
        inputs: Tensor,
        labels: Tensor,
        indices: Tensor,
        time_steps: Tensor,
        momentum: float,
        weight_decay: float,
    ) -> tuple[Tensor, Tensor]:
        """Make a block of updates, as a `Descent` does; where μ = 0 the velocities are of no use to anybody."""
        weights, velocities = weights.contiguous().clone(), velocities.contiguous().clone()
        if momentum == 0:
            direct = _kernel().at_once(indices.shape[2], momentum, weight_decay)
            velocities = weights.new_zeros(0 if direct else len(weights), weights.shape[1])
        with np.errstate(over="ignore"):  # what is beyond float32 makes weights that are found to diverge
            rates = np.float32(momentum), np.float32(weight_decay)
        _kernel().descend(
            weights.numpy(),
            velocities.numpy(),
            inputs.numpy(),
            labels.numpy(),
            indices.contiguous().numpy(),
            time_steps.to(torch.float32).numpy(),
            *rates,
            np.array(self.widths),
            self.activation,
        )
        return weights, velocities
