"""Which layers may be trusted to have the sample gradients that their activations and signals say."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace

import torch
from torch import Tensor, nn

from langevin_nn.landscape.sample_gradients import OuterProductBlock, PositionBlock
from langevin_nn.landscape.signals import SampleGradientSource, fast_layers

__all__ = ["overwrites_its_inputs", "verified_layers"]

_FAST_PATHS = (OuterProductBlock.path, PositionBlock.path)
_N_SAMPLES = 3


def verified_layers(source: SampleGradientSource) -> tuple[dict[str, nn.Module], bool]:
    """Return the layers whose fast path agrees with plain autograd, sample by sample, on a few samples.

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
    few = slice(0, _N_SAMPLES)
    own = replace(source, inputs=source.inputs[few], labels=source.labels[few], layers=fast_layers(source.module))
    try:
        precise, rounding = _in_double(own), 1e-12
        agreeing, decided = _compare(precise, rounding)
    except RuntimeError:
        agreeing, decided = _compare(own, 1e-5)
    return {name: layer for name, layer in own.layers.items() if name in agreeing}, decided


def _in_double(source: SampleGradientSource) -> SampleGradientSource:
    module = deepcopy(source.module).double()

    def double(tensor: Tensor) -> Tensor:
        return tensor.double() if tensor.is_floating_point() else tensor

    return replace(
        source,
        module=module,
        parameters={name: tensor.double() for name, tensor in source.parameters.items()},
        inputs=double(source.inputs),
        labels=double(source.labels),
        layers=fast_layers(module),
    )


def _compare(source: SampleGradientSource, rounding: float) -> tuple[set[str], bool]:
    """Return the layers that agree, and whether every layer's gradients are beyond rounding."""
    fast = source(slice(0, source.n_samples))
    slow = source.one_by_one(source.inputs, source.labels)
    scale = max(float(gradients.abs().max()) for gradients in slow.values())
    agreeing, decided = set(), True
    for layer, block in fast.blocks.items():
        if block.path not in _FAST_PATHS:
            continue
        expected = torch.cat([slow[name] for name in block.tensors], dim=1).double()
        size = float(expected.abs().max())
        if size <= rounding * scale:
            decided = False
        elif torch.allclose(block.rows(slice(None)), expected, rtol=1e-3, atol=rounding * max(size, scale * rounding)):
            agreeing.add(layer)
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
