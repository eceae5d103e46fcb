"""Which layers may be trusted to have the sample gradients that their activations and signals say."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace

import torch
from torch import Tensor, nn

from langevin_nn.landscape.checks import arrangements, doubled, in_double, trial_positions, with_moved
from langevin_nn.landscape.sample_gradients import OuterProductBlock, PositionBlock
from langevin_nn.landscape.signals import SampleGradientSource, fast_layers, owner

__all__ = ["overwrites_its_inputs", "verified_layers"]

_FAST_PATHS = (OuterProductBlock.path, PositionBlock.path)


def verified_layers(source: SampleGradientSource) -> tuple[dict[str, nn.Module], bool]:
    """Return the layers whose fast path agrees with plain autograd, sample by sample, on a few samples in several orders.

    A layer whose tensors are used elsewhere, too, or whose output is turned about before the samples are told apart, is not
    among them. Compared is in float64, where a small gradient is told from rounding; in the network's own precision where
    its code fixes that.

    Parameters
    ----------
    source : SampleGradientSource
        The network at weights in general position.

    Returns
    -------
    layers : dict of str to torch.nn.Module
        Those that agree, by name.
    decided : bool
        Whether that holds everywhere: where no gradient reaches a layer at these weights, agreement says nothing.
    """
    layers = fast_layers(source.module)
    names = tuple(name for name in source.names if owner(name) in layers)
    if not names:
        return {}, True
    tried = _tried(replace(source, names=names, layers=layers))
    try:
        module, parameters = in_double(tried.module, tried.parameters)
        precise = replace(
            tried,
            module=module,
            parameters=parameters,
            inputs=doubled(tried.inputs),
            labels=doubled(tried.labels),
            layers=fast_layers(module),
        )
        agreeing, decided = _compare(precise, 1e-12)
    except RuntimeError:
        agreeing, decided = _compare(tried, 1e-5)
    return {name: layer for name, layer in tried.layers.items() if name in agreeing}, decided


def _tried(source: SampleGradientSource) -> SampleGradientSource:
    """Return the network with a few samples from all over the data, in random order, as they are and moved a little."""
    positions = trial_positions(source.n_samples).to(source.inputs.device)
    inputs, labels = with_moved(source.inputs[positions]), source.labels[positions]
    if len(inputs) > len(labels):
        labels = torch.cat([labels, labels])
    tried = replace(source, inputs=inputs, labels=labels)
    # A trial that leaves the network's domain says nothing; evaluations may leave what cannot be copied.
    usable = torch.isfinite(replace(tried, module=deepcopy(source.module)).losses(slice(None)))
    return replace(tried, inputs=inputs[usable], labels=labels[usable]) if bool(usable.any()) else tried


def _compare(source: SampleGradientSource, rounding: float) -> tuple[set[str], bool]:
    """Return the layers that agree however samples are arranged, and whether every layer's gradients are beyond rounding."""
    slow = source.one_by_one(source.inputs, source.labels)
    scale = max(float(gradients.abs().max()) for gradients in slow.values())
    agreeing, decided = set(source.layers), True
    for order in arrangements(source.n_samples):
        fast = source(order.to(source.inputs.device))
        told = set()
        for layer, block in fast.blocks.items():
            if block.path not in _FAST_PATHS:
                continue
            expected = torch.cat([slow[name][order] for name in block.tensors], dim=1).double()
            size = float(expected.abs().max())
            if size <= rounding * scale:
                decided = False
            elif torch.allclose(
                block.rows(slice(None)), expected, rtol=1e-3, atol=rounding * max(size, scale * rounding)
            ):
                told.add(layer)
        agreeing &= told
    return agreeing, decided


def overwrites_its_inputs(module: nn.Module, inputs: Tensor) -> bool:
    """Return whether a network writes into the tensor that it is given, as a first layer that works in place does.

    Parameters
    ----------
    module : torch.nn.Module
        The network.
    inputs : Tensor, shape (sample, ...)
        A few samples; they are copied.

    Returns
    -------
    bool
        Whether it does; a network that cannot take the inputs does not.
    """
    copy = inputs.clone()
    version = copy._version
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        try:
            module(copy)
        except (RuntimeError, ValueError, IndexError, TypeError):
            return False
    return copy._version != version
