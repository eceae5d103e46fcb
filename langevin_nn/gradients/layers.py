"""Layers whose sample gradients are sums over positions of products of what goes in and what comes back."""

from __future__ import annotations

from collections.abc import Callable
from math import prod

import torch
from torch import Tensor, nn
from torch.nn.functional import batch_norm, group_norm, layer_norm, pad, rms_norm, unfold

__all__ = ["fast_layers", "owner", "products_of", "room_of", "users"]

# Layer, whether its weight and its bias are wanted, what went in and what came back → rows (sample, parameter).
Products = Callable[[nn.Module, bool, bool, Tensor, Tensor], Tensor]
_TRANSPOSED = "transformers.pytorch_utils.Conv1D"  # GPT-2's linear layer, whose matrix is (input, output)


def _beside(parts: list[Tensor]) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)


def _linear(layer: nn.Module, weight: bool, bias: bool, activations: Tensor, signals: Tensor) -> Tensor:
    """Return Σ_t δ_t a_tᵀ over all dimensions between the first and the last."""
    activations, signals = (each.reshape(len(each), -1, each.shape[-1]) for each in (activations, signals))
    turned = not isinstance(layer, nn.Linear)
    parts = []
    if weight:
        one, other = (activations, signals) if turned else (signals, activations)
        parts = [(one.mT @ other).flatten(1)]
    return _beside([*parts, signals.sum(1)] if bias else parts)


def _patches(layer: nn.Conv1d | nn.Conv2d, activations: Tensor) -> Tensor:
    """Return what each position of a convolution sees, shape (sample, channel · kernel, position)."""
    margins = layer._reversed_padding_repeated_twice
    padded = pad(activations, margins, mode="constant" if layer.padding_mode == "zeros" else layer.padding_mode)
    if isinstance(layer, nn.Conv1d):
        flat = (1, *layer.kernel_size), (1, *layer.dilation), 0, (1, *layer.stride)
        return unfold(padded[:, :, None], *flat)
    return unfold(padded, layer.kernel_size, layer.dilation, 0, layer.stride)


def _convolution(layer: nn.Module, weight: bool, bias: bool, activations: Tensor, signals: Tensor) -> Tensor:
    """Return Σ_t δ_t a_tᵀ of a convolution over its positions, group by group."""
    assert isinstance(layer, nn.Conv1d | nn.Conv2d)
    signals = signals.flatten(2)
    parts = []
    if weight:
        n, n_positions = len(signals), signals.shape[2]
        seen = _patches(layer, activations).reshape(n, layer.groups, -1, n_positions)
        parts.append((signals.reshape(n, layer.groups, -1, n_positions) @ seen.mT).flatten(1))
    return _beside([*parts, signals.sum(2)] if bias else parts)


def _normalised(layer: nn.Module, activations: Tensor) -> Tensor:
    """Return what a normalisation multiplies by its weight."""
    if isinstance(layer, nn.LayerNorm):
        return layer_norm(activations, layer.normalized_shape, None, None, layer.eps)
    if isinstance(layer, nn.RMSNorm):
        return rms_norm(activations, layer.normalized_shape, None, layer.eps)
    if isinstance(layer, nn.GroupNorm):
        return group_norm(activations, layer.num_groups, None, None, layer.eps)
    assert isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d)
    return batch_norm(activations, layer.running_mean, layer.running_var, None, None, False, 0.0, layer.eps)


def _normalisation(layer: nn.Module, weight: bool, bias: bool, activations: Tensor, signals: Tensor) -> Tensor:
    """Return Σ_t δ_t ⊙ x̂_t over the dimensions that share a weight."""
    if isinstance(layer, nn.LayerNorm | nn.RMSNorm):
        shared = tuple(range(1, signals.ndim - len(layer.normalized_shape)))
    else:
        shared = tuple(range(2, signals.ndim))

    def of_each(contributions: Tensor) -> Tensor:
        return (contributions.sum(shared) if shared else contributions).flatten(1)

    parts = [of_each(signals * _normalised(layer, activations))] if weight else []
    return _beside([*parts, of_each(signals)] if bias else parts)


def _embedding(layer: nn.Module, weight: bool, bias: bool, activations: Tensor, signals: Tensor) -> Tensor:
    """Return each position's signal in the row of its word."""
    assert isinstance(layer, nn.Embedding)
    n, words = len(signals), activations.reshape(len(signals), -1)
    signals = signals.reshape(n, words.shape[1], layer.embedding_dim)
    if layer.padding_idx is not None:
        signals = signals * (words != layer.padding_idx)[:, :, None]
    rows = signals.new_zeros(n, layer.num_embeddings, layer.embedding_dim)
    rows.scatter_add_(1, words[:, :, None].expand_as(signals), signals)
    return rows.flatten(1)


_PRODUCTS: dict[type[nn.Module], Products] = {
    nn.Linear: _linear,
    nn.Conv1d: _convolution,
    nn.Conv2d: _convolution,
    nn.LayerNorm: _normalisation,
    nn.RMSNorm: _normalisation,
    nn.GroupNorm: _normalisation,
    nn.BatchNorm1d: _normalisation,
    nn.BatchNorm2d: _normalisation,
    nn.Embedding: _embedding,
}


def products_of(layer: nn.Module) -> Products | None:
    """Return what multiplies out the rows of a layer; None where that is not known."""
    # Not of subclasses: they may compute something else.
    kind = type(layer)
    if f"{kind.__module__}.{kind.__qualname__}" == _TRANSPOSED:
        return _linear
    return _PRODUCTS.get(kind)


def room_of(layer: nn.Module, signals: Tensor) -> int:
    """Return how many numbers the rows of one sample take beside themselves, while they are multiplied out."""
    if isinstance(layer, nn.Conv1d | nn.Conv2d):
        return 2 * prod(layer.kernel_size) * layer.in_channels * signals[0, 0].numel()
    return 0


def fast_layers(module: nn.Module) -> dict[str, nn.Module]:
    """Return the layers whose sample gradients are products of activations and backpropagated signals, by name."""
    # Not those that own another tensor, or whose output depends on other samples or is changed by the evaluation.
    fast = {name: layer for name, layer in module.named_modules() if _is_fast(layer)}
    return {name: fast[name] for name, together in users(module, fast).items() if all(map(_is_fast, together))}


def _is_fast(layer: nn.Module) -> bool:
    if products_of(layer) is None or not set(layer._parameters) <= {"weight", "bias"}:
        return False
    if isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d):
        return not layer.training and layer.running_mean is not None
    if isinstance(layer, nn.Embedding):
        return layer.max_norm is None and not layer.scale_grad_by_freq and not layer.sparse
    return True


def owner(tensor: str) -> str:
    """Return the layer to which a tensor belongs."""
    return tensor.rpartition(".")[0]


def users(module: nn.Module, layers: dict[str, nn.Module]) -> dict[str, list[nn.Module]]:
    """Return with each layer all layers that hold one of its tensors, as the last of a language model does of the first."""
    # A tensor of several layers belongs to the first of them, as in `named_parameters`.
    owners = {name for name, _ in module.named_parameters()}
    held: dict[int, list[nn.Module]] = {}
    for layer in module.modules():
        for tensor in layer._parameters.values():
            held.setdefault(id(tensor), []).append(layer)
    found: dict[str, list[nn.Module]] = {}
    for name, layer in layers.items():
        own = [each for key, each in layer._parameters.items() if f"{name}.{key}".lstrip(".") in owners]
        found[name] = list(dict.fromkeys(user for tensor in own for user in held[id(tensor)])) or [layer]
    return found
