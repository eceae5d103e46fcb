"""Initial weights of a replica, from the seed and its own index only."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from langevin_nn.errors import ConfigurationError
from langevin_nn.gradients.copies import copied
from langevin_nn.gradients.layout import ParameterLayout
from langevin_nn.seeds import Seeds

__all__ = ["draw_weights", "flat_parameters", "redrawn", "without_frozen"]


def flat_parameters(module: nn.Module, layout: ParameterLayout) -> Tensor:
    """Return a network's own weights as a vector, a copy."""
    return layout.flatten({name: tensor.detach() for name, tensor in module.named_parameters()})


def without_frozen(module: nn.Module) -> tuple[nn.Module, tuple[str, ...]]:
    """Make constants (buffers) of the parameters that are not trained; return the network, changed, and their names."""
    names = tuple(name for name, tensor in module.named_parameters() if not tensor.requires_grad)
    for layer in module.modules() if names else ():
        frozen = {name: tensor for name, tensor in layer.named_parameters(recurse=False) if not tensor.requires_grad}
        for name, tensor in frozen.items():
            delattr(layer, name)
            layer.register_buffer(name, tensor.detach())
    return module, names


def draw_weights(
    source: nn.Module | Callable[[], nn.Module], layout: ParameterLayout, seeds: Seeds, replica: int
) -> Tensor:
    """Draw the weights at which one replica starts, on the CPU, so that every device starts from the same bits."""
    # PyTorch's initialisers take no generator, so its global one is seeded for the while and put back.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seeds.integer("initial weights", replica))
        module = _reset(copied(source).cpu()) if isinstance(source, nn.Module) else without_frozen(source())[0].cpu()
    made = ParameterLayout.of(module)
    if dict(made.shapes) != dict(layout.shapes):
        raise ConfigurationError(
            "the function that makes the network returned one of another shape than before: expected the same "
            f"architecture at each call, {dict(layout.shapes)}, got {dict(made.shapes)}"
        )
    return flat_parameters(module, layout)


def redrawn(module: nn.Module, layout: ParameterLayout, count: int, kept: Tensor | slice) -> Tensor:
    """Return entries of weights that a network's layers draw, shape (draw, kept parameter), the same at each call."""
    fresh = copied(module).cpu()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return torch.stack([flat_parameters(_reset(fresh), layout)[kept] for _ in range(count)])


def _reset(fresh: nn.Module) -> nn.Module:
    """Have each layer draw its weights, after the layers that it holds: what it says of them is the last word."""
    for name, layer in _inside_out("", fresh, set()):
        if callable(reset := getattr(layer, "reset_parameters", None)):
            reset()
        elif next(layer.parameters(recurse=False), None) is not None:
            raise ConfigurationError(
                f"layer {name!r} ({type(layer).__name__}) owns parameters but has no reset_parameters(): replicas need "
                "initial weights of their own; pass a function that makes the network instead of the network itself "
                "(lambda: MyNetwork()), or start all from the network's own weights with start='own'"
            )
    return fresh


def _inside_out(name: str, module: nn.Module, seen: set[nn.Module]) -> Iterator[tuple[str, nn.Module]]:
    seen.add(module)
    for child, layer in module.named_children():
        if layer not in seen:
            yield from _inside_out(f"{name}.{child}" if name else child, layer, seen)
    yield name, module
