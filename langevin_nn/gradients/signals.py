"""From a network at one point to its sample gradients: activations and backpropagated signals where layers allow it."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from math import prod

import torch
from torch import Tensor, nn
from torch.func import grad, vmap
from torch.nn.functional import pad, unfold

from langevin_nn.gradients.blocks import (
    Block,
    DenseBlock,
    OuterProductBlock,
    PositionBlock,
    SampleGradients,
)
from langevin_nn.gradients.functional import Loss, evaluate

__all__ = ["SampleGradientSource", "fast_layers", "owner"]

Call = tuple[Tensor, Tensor]

_FAST = (nn.Linear, nn.Conv1d, nn.Conv2d)
_filtering = threading.Lock()  # filters of warnings belong to the whole process


def fast_layers(module: nn.Module) -> dict[str, nn.Module]:
    """Return the layers whose sample gradients are products of activations and backpropagated signals.

    Parameters
    ----------
    module : torch.nn.Module
        The network.

    Returns
    -------
    dict of str to torch.nn.Module
        Linear layers and convolutions, by name; subclasses, and those that own another tensor, are left out, since they may
        compute something else.
    """
    return {
        name: layer
        for name, layer in module.named_modules()
        if type(layer) in _FAST and set(layer._parameters) <= {"weight", "bias"}
    }


def owner(tensor: str) -> str:
    """Return the layer to which a tensor belongs.

    Parameters
    ----------
    tensor : str
        Its name.

    Returns
    -------
    str
        All but the last part of it.
    """
    return tensor.rpartition(".")[0]


def _linear_products(weight: bool, bias: bool, activations: Tensor, signals: Tensor) -> Tensor:
    """Return Σ_t δ_t a_tᵀ of a linear layer over all dimensions between the first and the last."""
    activations, signals = (each.reshape(len(each), -1, each.shape[-1]) for each in (activations, signals))
    parts = [(signals.mT @ activations).flatten(1)] if weight else []
    return torch.cat([*parts, signals.sum(1)] if bias else parts, dim=1)


def _patches(layer: nn.Conv1d | nn.Conv2d, activations: Tensor) -> Tensor:
    """Return what each position of a convolution sees, shape (sample, channel · kernel, position)."""
    margins = layer._reversed_padding_repeated_twice
    padded = pad(activations, margins, mode="constant" if layer.padding_mode == "zeros" else layer.padding_mode)
    if isinstance(layer, nn.Conv1d):
        flat = (1, *layer.kernel_size), (1, *layer.dilation), 0, (1, *layer.stride)
        return unfold(padded[:, :, None], *flat)
    return unfold(padded, layer.kernel_size, layer.dilation, 0, layer.stride)


def _convolution_products(
    layer: nn.Conv1d | nn.Conv2d, weight: bool, bias: bool, activations: Tensor, signals: Tensor
) -> Tensor:
    """Return Σ_t δ_t a_tᵀ of a convolution over its positions, group by group."""
    signals = signals.flatten(2)
    parts = []
    if weight:
        n, n_positions = len(signals), signals.shape[2]
        seen = _patches(layer, activations).reshape(n, layer.groups, -1, n_positions)
        parts.append((signals.reshape(n, layer.groups, -1, n_positions) @ seen.mT).flatten(1))
    return torch.cat([*parts, signals.sum(2)] if bias else parts, dim=1)


def _block(layer: nn.Module, calls: Sequence[Call], tensors: dict[str, int], stored: bool) -> Block:
    """Return a layer's block from what went in and what came back at each of its calls."""
    weight, bias = (any(name.rpartition(".")[2] == part for name in tensors) for part in ("weight", "bias"))
    activations, signals = calls[0]
    if isinstance(layer, nn.Linear):
        if len(calls) == 1 and activations.ndim == 2:
            if not weight:
                return DenseBlock(signals, tensors, OuterProductBlock.path)
            return OuterProductBlock(signals.double(), activations.double(), tensors)
        products = partial(_linear_products, weight, bias)
        row_elements = 0
    else:
        assert isinstance(layer, (nn.Conv1d, nn.Conv2d))
        products = partial(_convolution_products, layer, weight, bias)
        row_elements = 2 * prod(layer.kernel_size) * layer.in_channels * signals[0, 0].numel()
    positions = PositionBlock(signals, activations, products, row_elements, tensors)
    larger = sum(tensors.values()) > signals[0].numel() + activations[0].numel()
    if len(calls) == 1 and larger and not stored:
        return positions
    dense: Tensor | None = None
    for activations, signals in calls:
        call = replace(positions, signals=signals, activations=activations)
        dense = signals.new_zeros(len(signals), call.n_parameters) if dense is None else dense
        for piece in call.pieces():
            dense[piece] += products(activations[piece], signals[piece])
    assert dense is not None
    return DenseBlock(dense, tensors, PositionBlock.path)


@dataclass(frozen=True)
class SampleGradientSource:
    """A network at one point: gives the gradients of any of its samples' losses.

    Parameters
    ----------
    module : torch.nn.Module
        The network.
    parameters : dict of str to Tensor
        Its weights, by name.
    inputs : Tensor, shape (sample, ...)
        The samples.
    labels : Tensor, shape (sample, ...)
        Their labels.
    loss : callable
        (outputs, labels) → one loss a sample.
    names : tuple of str
        The tensors to measure, in order.
    layers : dict of str to torch.nn.Module
        Layers for which activations and signals may be used; all other tensors are computed through ``torch.func``.
    vectorised : int, optional
        Samples at a time there.
    stored : bool, optional
        Whether to store the sample gradients of layers that act at several positions even where they are larger than what
        they are made of: that takes memory and saves multiplying them out at every use.
    """

    module: nn.Module
    parameters: dict[str, Tensor]
    inputs: Tensor
    labels: Tensor
    loss: Loss
    names: tuple[str, ...]
    layers: dict[str, nn.Module]
    vectorised: int = 256
    stored: bool = False

    @property
    def n_samples(self) -> int:
        """N."""
        return len(self.inputs)

    def _tensors(self, layer: str) -> dict[str, int]:
        return {name: self.parameters[name].numel() for name in self.names if owner(name) == layer}

    def __call__(self, samples: slice | Tensor) -> SampleGradients:
        """Return the gradients of some samples.

        Parameters
        ----------
        samples : slice or Tensor of int
            Which.

        Returns
        -------
        SampleGradients
            One block a layer; `SampleGradients.paths` says how each was computed.
        """
        inputs, labels = self.inputs[samples], self.labels[samples]
        losses, calls = self._signals(inputs, labels)
        blocks = {
            layer: _block(self.layers[layer], made, self._tensors(layer), self.stored) for layer, made in calls.items()
        }
        missing = [name for name in self.names if owner(name) not in blocks]
        if missing:
            blocks |= self._stored(inputs, labels, missing)
        order = dict.fromkeys(owner(name) for name in self.names)
        return SampleGradients({layer: blocks[layer] for layer in order}, self.names, losses)

    def losses(self, samples: slice) -> Tensor:
        """Return the losses of some samples.

        Parameters
        ----------
        samples : slice
            Which.

        Returns
        -------
        Tensor, shape (row,)
            ℓ_k.
        """
        with torch.no_grad():
            return self._forward(self.inputs[samples], self.labels[samples])[0].detach()

    def _forward(self, inputs: Tensor, labels: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        tracked = {name: tensor.detach().requires_grad_() for name, tensor in self.parameters.items()}
        return self.loss(evaluate(self.module, tracked, inputs), labels), tracked

    def _signals(self, inputs: Tensor, labels: Tensor) -> tuple[Tensor, dict[str, list[Call]]]:
        """Return the losses, and inputs and backpropagated signals of each call of each fast layer."""
        wanted = {owner(name) for name in self.names} & set(self.layers)
        calls: dict[str, list[Call]] = {name: [] for name in wanted}

        def remember(name: str) -> torch.utils.hooks.RemovableHandle:
            def hook(_: nn.Module, given: tuple[Tensor, ...], named: dict[str, Tensor], output: Tensor) -> Tensor:
                if output.requires_grad:  # what is evaluated without a gradient contributes none
                    calls[name].append((given[0] if given else named["input"], output))
                return output.clone()  # what follows may overwrite its input, as ReLU(inplace=True) does

            return self.layers[name].register_forward_hook(hook, with_kwargs=True)

        handles = [remember(name) for name in wanted]
        try:
            with torch.enable_grad():
                losses, _ = self._forward(inputs, labels)
                total = losses.sum()
        finally:
            for handle in handles:
                handle.remove()
        usable = {
            name: made for name, made in calls.items() if made and all(len(given) == len(inputs) for given, _ in made)
        }
        outputs = [output for made in usable.values() for _, output in made]
        if not outputs:
            return losses.detach(), {}
        deltas = iter(torch.autograd.grad(total, outputs, materialize_grads=True))
        found = {name: [(given.detach(), next(deltas)) for given, _ in made] for name, made in usable.items()}
        return losses.detach(), found

    def _stored(self, inputs: Tensor, labels: Tensor, names: list[str]) -> dict[str, Block]:
        """Return sample gradients of any tensors, one by one in chunks."""
        path = "torch.func"
        try:
            gradients = self._vectorised(inputs, labels, names)
        except (RuntimeError, NotImplementedError, UserWarning) as error:
            if "out of memory" in str(error):
                raise
            path = "one by one"  # some operations know no vectorisation
            gradients = self.one_by_one(inputs, labels)
        blocks: dict[str, Block] = {}
        for layer in dict.fromkeys(owner(name) for name in names):
            tensors = self._tensors(layer)
            rows = [gradients[name].reshape(len(inputs), -1) for name in tensors]
            blocks[layer] = DenseBlock(torch.cat(rows, dim=1) if len(rows) > 1 else rows[0], tensors, path)
        return blocks

    def _vectorised(self, inputs: Tensor, labels: Tensor, names: list[str]) -> dict[str, Tensor]:
        fixed = {name: tensor for name, tensor in self.parameters.items() if name not in names}

        def one(chosen: dict[str, Tensor], sample: Tensor, label: Tensor) -> Tensor:
            outputs = evaluate(self.module, {**fixed, **chosen}, sample[None])
            return self.loss(outputs, label[None]).sum()

        chosen = {name: self.parameters[name] for name in names}
        per_sample: Callable[..., dict[str, Tensor]] = vmap(
            grad(one), in_dims=(None, 0, 0), chunk_size=min(self.vectorised, len(inputs))
        )
        with _filtering, torch.no_grad(), warnings.catch_warnings():
            warnings.filterwarnings("error", message=".*batching rule")  # it would loop over samples inside
            return per_sample(chosen, inputs, labels)

    def one_by_one(self, inputs: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """Return sample gradients by one backward pass a sample: slow, and as plain as it gets.

        Parameters
        ----------
        inputs : Tensor, shape (sample, ...)
            The samples.
        labels : Tensor, shape (sample, ...)
            Their labels.

        Returns
        -------
        dict of str to Tensor, shapes (sample, parameters of the tensor)
            By name, of all tensors.
        """
        rows = []
        for k in range(len(inputs)):
            with torch.enable_grad():
                losses, tracked = self._forward(inputs[k : k + 1], labels[k : k + 1])
                total = losses.sum()
            rows.append(torch.autograd.grad(total, list(tracked.values()), materialize_grads=True))
        return {
            name: torch.stack([row[position].reshape(-1) for row in rows])
            for position, name in enumerate(self.parameters)
        }

    def graph_bytes(self, samples: slice) -> int:
        """Return what a forward pass of some samples keeps for the backward pass.

        Parameters
        ----------
        samples : slice
            Which.

        Returns
        -------
        int
            Bytes, without those of weights.
        """
        kept: dict[int, int] = {}

        def pack(tensor: Tensor) -> Tensor:
            kept[tensor.untyped_storage().data_ptr()] = tensor.nbytes
            return tensor

        with torch.enable_grad(), torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            _, tracked = self._forward(self.inputs[samples], self.labels[samples])
        for tensor in tracked.values():
            kept.pop(tensor.untyped_storage().data_ptr(), None)
        return sum(kept.values())

    def of_all(self, size: int) -> SampleGradients:
        """Return the gradients of all samples, computed some at a time.

        Parameters
        ----------
        size : int
            Samples that are computed at a time.

        Returns
        -------
        SampleGradients
            Held in memory.
        """
        if size >= self.n_samples:
            return self(slice(0, self.n_samples))
        whole: dict[str, tuple[Tensor, ...]] = {}
        losses = []
        for start in range(0, self.n_samples, size):
            samples = slice(start, min(start + size, self.n_samples))
            piece = self(samples)
            losses.append(piece.losses)
            for layer, block in piece.blocks.items():
                if layer not in whole:
                    whole[layer] = tuple(each.new_empty(self.n_samples, *each.shape[1:]) for each in block.held)
                for target, part in zip(whole[layer], block.held, strict=True):
                    target[samples] = part
        blocks = {layer: block.holding(*whole[layer]) for layer, block in piece.blocks.items()}
        return SampleGradients(blocks, self.names, torch.cat([each for each in losses if each is not None]))
