"""From a network at one point to its sample gradients: activations and backpropagated signals where layers allow it."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

from langevin_nn.landscape.gradients import Loss
from langevin_nn.landscape.sample_gradients import Block, DenseBlock, OuterProductBlock, SampleGradients

__all__ = ["linear_layers", "one_by_one", "sample_gradients"]

Signals = dict[str, tuple[Tensor, Tensor]]


def linear_layers(module: nn.Module) -> dict[str, nn.Linear]:
    """Return a network's linear layers.

    Parameters
    ----------
    module : torch.nn.Module
        The network.

    Returns
    -------
    dict of str to torch.nn.Linear
        By name of the layer; subclasses are left out, since they may compute something else.
    """
    return {name: layer for name, layer in module.named_modules() if type(layer) is nn.Linear}


def _signals(
    module: nn.Module,
    parameters: dict[str, Tensor],
    inputs: Tensor,
    labels: Tensor,
    loss: Loss,
    layers: dict[str, nn.Linear],
) -> Signals:
    """Return inputs and backpropagated signals of the layers that were called once, with a vector a sample."""
    calls: dict[str, list[tuple[Tensor, Tensor]]] = {name: [] for name in layers}

    def remember(name: str) -> torch.utils.hooks.RemovableHandle:
        def hook(_: nn.Module, given: tuple[Tensor, ...], output: Tensor) -> Tensor:
            calls[name].append((given[0], output))
            return output.clone()  # what follows may overwrite its input, as ReLU(inplace=True) does

        return layers[name].register_forward_hook(hook)

    handles = [remember(name) for name in layers]
    try:
        with torch.enable_grad():
            tracked = {name: tensor.detach().requires_grad_() for name, tensor in parameters.items()}
            total = loss(functional_call(module, tracked, (inputs,)), labels).sum()
    finally:
        for handle in handles:
            handle.remove()
    usable = {name: call[0] for name, call in calls.items() if len(call) == 1 and call[0][0].ndim == 2}
    if not usable:
        return {}
    deltas = torch.autograd.grad(total, [output for _, output in usable.values()], materialize_grads=True)
    return {
        name: (given.detach().double(), delta.double())
        for (name, (given, _)), delta in zip(usable.items(), deltas, strict=True)
    }


def one_by_one(
    module: nn.Module, parameters: dict[str, Tensor], inputs: Tensor, labels: Tensor, loss: Loss
) -> dict[str, Tensor]:
    """Return sample gradients by one backward pass a sample: slow, and as plain as it gets.

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

    Returns
    -------
    dict of str to Tensor, shapes (sample, parameters of the tensor)
        By name, float64.
    """
    with torch.enable_grad():
        tracked = {name: tensor.detach().requires_grad_() for name, tensor in parameters.items()}
        losses = [
            loss(functional_call(module, tracked, (inputs[k : k + 1],)), labels[k : k + 1]).sum()
            for k in range(len(inputs))
        ]
    rows = [torch.autograd.grad(each, list(tracked.values()), materialize_grads=True) for each in losses]
    return {
        name: torch.stack([row[position].reshape(-1) for row in rows]).double() for position, name in enumerate(tracked)
    }


def _stored(
    module: nn.Module,
    parameters: dict[str, Tensor],
    inputs: Tensor,
    labels: Tensor,
    loss: Loss,
    names: list[str],
    chunk_size: int,
) -> dict[str, Block]:
    """Return sample gradients of any tensors, one by one in chunks."""
    fixed = {name: tensor for name, tensor in parameters.items() if name not in names}

    def one(chosen: dict[str, Tensor], sample: Tensor, label: Tensor) -> Tensor:
        outputs = functional_call(module, {**fixed, **chosen}, (sample[None],))
        return loss(outputs, label[None]).sum()

    chosen = {name: parameters[name] for name in names}
    with torch.no_grad():
        gradients = vmap(grad(one), in_dims=(None, 0, 0), chunk_size=chunk_size)(chosen, inputs, labels)
    return {name: DenseBlock(gradients[name].reshape(len(inputs), -1).double()) for name in names}


def sample_gradients(
    module: nn.Module,
    parameters: dict[str, Tensor],
    inputs: Tensor,
    labels: Tensor,
    loss: Loss,
    names: Iterable[str],
    layers: dict[str, nn.Linear],
    chunk_size: int = 256,
) -> SampleGradients:
    """Return the gradients of all sample losses at one point.

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
    names : iterable of str
        The tensors to measure.
    layers : dict of str to torch.nn.Linear
        Layers for which the outer-product form may be used; all others are computed through ``torch.func``.
    chunk_size : int, optional
        Samples at a time where gradients are stored.

    Returns
    -------
    SampleGradients
        One block a tensor; `SampleGradients.paths` says how each is held.
    """
    names = list(names)
    signals = _signals(module, parameters, inputs, labels, loss, layers) if layers else {}
    blocks: dict[str, Block] = {}
    for layer, (activations, deltas) in signals.items():
        prefix = f"{layer}." if layer else ""
        blocks[f"{prefix}weight"] = OuterProductBlock(deltas, activations)
        blocks[f"{prefix}bias"] = DenseBlock(deltas)
    missing = [name for name in names if name not in blocks]
    if missing:
        blocks.update(_stored(module, parameters, inputs, labels, loss, missing, chunk_size))
    return SampleGradients({name: blocks[name] for name in names})
