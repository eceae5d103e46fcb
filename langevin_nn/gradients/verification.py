"""Which layers may be trusted to have the sample gradients that their activations and signals say."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace

import torch
from torch import nn

from langevin_nn.gradients.blocks import Block, OuterProductBlock, PositionBlock
from langevin_nn.gradients.layers import fast_layers, owner
from langevin_nn.gradients.refusal import arrangements, doubled, in_double, trial_positions, with_moved
from langevin_nn.gradients.samples import Samples, leaves, mapped, number_of, taken
from langevin_nn.gradients.signals import SampleGradientSource

__all__ = ["overwrites_its_inputs", "verified_layers"]

_FAST_PATHS = (OuterProductBlock.path, PositionBlock.path)


def verified_layers(source: SampleGradientSource) -> tuple[dict[str, nn.Module], frozenset[str], bool]:
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
    shared : frozenset of str
        Those of them that are called once for all samples.
    decided : bool
        Whether that holds everywhere: where no gradient reaches a layer at these weights, agreement says nothing.
    """
    layers = fast_layers(source.module)
    names = tuple(name for name in source.names if owner(name) in layers)
    if not names:
        return {}, frozenset(), True
    tried = _tried(replace(source, names=names, layers=layers))
    tried = replace(tried, shared=tried.calls_for_all())
    try:
        module, parameters = in_double(tried.module, tried.parameters)
        precise = replace(
            tried,
            module=module,
            parameters=parameters,
            inputs=mapped(doubled, tried.inputs),
            labels=doubled(tried.labels),
            layers=fast_layers(module),
        )
        agreeing, decided = _compare(precise, 1e-12)
    except RuntimeError:
        agreeing, decided = _compare(tried, 1e-5)
    return {name: tried.layers[name] for name in tried.layers if name in agreeing}, tried.shared & agreeing, decided


def _tried(source: SampleGradientSource) -> SampleGradientSource:
    """Return the network with a few samples from all over the data, in random order, as they are and moved a little."""
    positions = trial_positions(source.n_samples).to(source.labels.device)
    inputs, labels = with_moved(taken(source.inputs, positions)), source.labels[positions]
    if number_of(inputs) > len(labels):
        labels = torch.cat([labels, labels])
    tried = replace(source, inputs=inputs, labels=labels)
    # A trial that leaves the network's domain says nothing; evaluations may leave what cannot be copied.
    usable = torch.isfinite(replace(tried, module=deepcopy(source.module)).losses(slice(None)))
    return replace(tried, inputs=taken(inputs, usable), labels=labels[usable]) if bool(usable.any()) else tried


def _compare(source: SampleGradientSource, rounding: float) -> tuple[set[str], bool]:
    """Return the layers that agree in all orders of samples, and whether every layer's gradients are beyond rounding."""
    orders = arrangements(source.n_samples)
    fast = [source(order.to(source.labels.device)).blocks for order in orders]
    layers = [name for name in source.layers if all(_is_fast(blocks.get(name)) for blocks in fast)]
    # Of each layer: how far gradients are off beyond a share of each number, and how large they are.
    off, size = dict.fromkeys(layers, 0.0), dict.fromkeys(layers, 0.0)
    scale = 0.0
    for k in range(source.n_samples):  # one by one, since they may be large
        slow = source.one_by_one(taken(source.inputs, slice(k, k + 1)), source.labels[k : k + 1])
        scale = max(scale, *(float(gradient.abs().max()) for gradient in slow.values()))
        places = [(order == k).nonzero()[:, 0].to(source.labels.device) for order in orders]
        for layer in layers:
            expected = torch.cat([slow[name] for name in fast[0][layer].tensors], dim=1).double()
            allowed = 1e-3 * expected.abs()
            size[layer] = max(size[layer], float(allowed.max()) * 1e3)
            for blocks, place in zip(fast, places, strict=True):
                if len(place):
                    beyond = (blocks[layer].rows(place) - expected).abs() - allowed
                    off[layer] = max(off[layer], float(beyond.nan_to_num(torch.inf).max()))
    reached = {layer for layer in layers if size[layer] > rounding * scale}
    agreeing = {layer for layer in reached if off[layer] <= rounding * max(size[layer], scale * rounding)}
    return agreeing, len(reached) == len(layers)


def _is_fast(block: Block | None) -> bool:
    return block is not None and block.path in _FAST_PATHS


def overwrites_its_inputs(module: nn.Module, inputs: Samples) -> bool:
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
    copy = mapped(torch.clone, inputs)
    versions = [each._version for each in leaves(copy)]
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        try:
            module(copy)
        except (RuntimeError, ValueError, IndexError, TypeError):
            return False
    return [each._version for each in leaves(copy)] != versions
