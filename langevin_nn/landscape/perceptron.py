"""The fast path of multi-layer perceptrons on the CPU: hand-derived gradients in a Numba kernel."""

from __future__ import annotations

import threading
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from langevin_nn.kernels import perceptron as kernel
from langevin_nn.threads import single_threaded_products

__all__ = ["PerceptronGradient"]


class _Scratch(threading.local):
    """One growing buffer a thread: fresh memory at every pass would cost a third of it in page faults."""

    buffer: NDArray[np.float32] = np.empty(0, dtype=np.float32)

    def rows(self, n_rows: int, size: int) -> NDArray[np.float32]:
        if self.buffer.size < n_rows * size:
            self.buffer = np.empty(n_rows * size, dtype=np.float32)
        return self.buffer[: n_rows * size].reshape(n_rows, size)


_scratch = _Scratch()

_ACTIVATIONS: dict[type[nn.Module], int] = {nn.ReLU: kernel.RELU, nn.Tanh: kernel.TANH}


@dataclass(frozen=True)
class PerceptronGradient:
    """Σ_k c_k ∇ℓ_k of a perceptron with cross-entropy loss, for a batch of replicas.

    Agrees with `TracedGradient` to float32 rounding.

    Parameters
    ----------
    widths : tuple of int
        Units of each layer, the inputs first.
    activation : int
        Code of the activation in `langevin_nn.kernels.perceptron`.
    """

    widths: tuple[int, ...]
    activation: int
    path = "perceptron kernel"

    @classmethod
    def of(cls, module: nn.Module, inputs: Tensor) -> PerceptronGradient | None:
        """Return the fast path of a network, or None where it has none.

        Parameters
        ----------
        module : torch.nn.Module
            Taken where it is a ``Sequential`` of ``Linear`` layers with biases and one kind of activation between them,
            ReLU or tanh, without hooks or shared tensors.
        inputs : Tensor, shape (sample, ...)
            Taken where they are vectors of float32 on the CPU.

        Returns
        -------
        PerceptronGradient or None
            The fast path.
        """
        if type(module) is not nn.Sequential or inputs.ndim != 2 or len(module) % 2 == 0:
            return None
        if any(layer._forward_hooks or layer._forward_pre_hooks for layer in module.modules()):
            return None
        layers = list(module)
        between = layers[1::2]
        kinds = {type(layer) for layer in between} or {nn.ReLU}
        if len(kinds) != 1 or not kinds <= set(_ACTIVATIONS):
            return None
        linear = [layer for layer in layers[::2] if type(layer) is nn.Linear and layer.bias is not None]
        own = [f"{2 * k}.{part}" for k in range(len(linear)) for part in ("weight", "bias")]
        # Names come once for tensors that are shared, and in another order or number where a layer was altered.
        if len(linear) < len(layers[::2]) or own != [name for name, _ in module.named_parameters()]:
            return None
        tensors = [inputs, *module.parameters()]
        if any(tensor.dtype != torch.float32 or tensor.device.type != "cpu" for tensor in tensors):
            return None
        widths = (linear[0].in_features, *(layer.out_features for layer in linear))
        return cls(widths, _ACTIVATIONS[kinds.pop()])

    def __call__(
        self, weights: Tensor, inputs: Tensor, labels: Tensor, coefficients: Tensor, indices: Tensor | None
    ) -> Tensor:
        """Return the weighted gradients.

        Parameters
        ----------
        weights : Tensor, shape (replica, parameter)
            Where.
        inputs : Tensor, shape (sample, feature)
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
        gather = indices is not None
        rows = indices if indices is not None else torch.arange(len(inputs))[None]
        out = torch.empty_like(weights)
        size = kernel.workspace_size(self.widths, rows.shape[1], gather)
        with single_threaded_products():
            kernel.weighted_gradient(
                weights.contiguous().numpy(),
                inputs.numpy(),
                labels.numpy(),
                rows.numpy(),
                gather,
                coefficients.contiguous().numpy(),
                np.array(self.widths),
                self.activation,
                _scratch.rows(len(weights), size),
                out.numpy(),
            )
        return out
