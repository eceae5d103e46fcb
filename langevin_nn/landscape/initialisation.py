"""Initial weights of a replica, from the seed and its own index only."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy

import torch
from torch import Tensor, nn

from langevin_nn.errors import ConfigurationError
from langevin_nn.landscape.layout import ParameterLayout
from langevin_nn.seeds import Seeds

__all__ = ["draw_weights", "flat_parameters", "perturbed"]


def flat_parameters(module: nn.Module, layout: ParameterLayout) -> Tensor:
    """Return a network's own weights as a vector.

    Parameters
    ----------
    module : torch.nn.Module
        The network.
    layout : ParameterLayout
        Order of its parameters.

    Returns
    -------
    Tensor, shape (parameter,)
        A copy.
    """
    return layout.flatten({name: tensor.detach() for name, tensor in module.named_parameters()})


def perturbed(weights: Tensor) -> Tensor:
    """Return weights in general position near some others, for checks that special points would deceive.

    Parameters
    ----------
    weights : Tensor, shape (parameter,)
        Where, perhaps with entries at exactly zero.

    Returns
    -------
    Tensor, shape (parameter,)
        The same at each call.
    """
    kick = torch.randn(weights.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return weights + 0.1 * kick.to(weights.device, weights.dtype)


def draw_weights(
    source: nn.Module | Callable[[], nn.Module], layout: ParameterLayout, seeds: Seeds, replica: int
) -> Tensor:
    """Draw the weights at which one replica starts.

    PyTorch's initialisers take no generator, so its global one is seeded for the while and put back.

    Parameters
    ----------
    source : torch.nn.Module or callable
        A network whose layers know how to reset themselves, or a function that makes a fresh one.
    layout : ParameterLayout
        Order of the parameters.
    seeds : Seeds
        The tree of randomness.
    replica : int
        Index of the replica.

    Returns
    -------
    Tensor, shape (parameter,)
        On the CPU, so that every device starts from the same bits.

    Raises
    ------
    ConfigurationError
        If a layer of the network owns parameters and cannot draw them.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seeds.integer("initial weights", replica))
        module = _reset(source) if isinstance(source, nn.Module) else source().cpu()
    made = ParameterLayout.of(module)
    if dict(made.shapes) != dict(layout.shapes):
        raise ConfigurationError(
            "the function that makes the network returned one of another shape than before: expected the same "
            f"architecture at each call, {dict(layout.shapes)}, got {dict(made.shapes)}"
        )
    return flat_parameters(module, layout)


def _reset(module: nn.Module) -> nn.Module:
    fresh = deepcopy(module).cpu()
    for name, layer in fresh.named_modules():
        if hasattr(layer, "reset_parameters"):
            layer.reset_parameters()
        elif next(layer.parameters(recurse=False), None) is not None:
            raise ConfigurationError(
                f"layer {name!r} ({type(layer).__name__}) owns parameters but has no reset_parameters(): replicas need "
                "initial weights of their own; pass a function that makes the network instead of the network itself "
                "(lambda: MyNetwork()), or the weights to start from"
            )
    return fresh
