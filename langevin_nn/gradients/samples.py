"""Samples as networks take them: one tensor, or several in order or by name, of one length."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import torch
from torch import Tensor

__all__ = ["Samples", "arguments", "joined_samples", "leaves", "mapped", "number_of", "shapes", "taken"]

Samples: TypeAlias = Any  # a tensor, or a tuple or a dictionary of such


def leaves(samples: Samples) -> list[Tensor]:
    """Return the tensors of which samples are made, in order."""
    if isinstance(samples, Tensor):
        return [samples]
    held = samples.values() if isinstance(samples, Mapping) else samples
    return [leaf for each in held for leaf in leaves(each)]


def mapped(function: Callable[[Tensor], Tensor], samples: Samples) -> Samples:
    """Return the same samples with a function of each tensor in its place."""
    if isinstance(samples, Tensor):
        return function(samples)
    if isinstance(samples, Mapping):
        return {name: mapped(function, each) for name, each in samples.items()}
    return tuple(mapped(function, each) for each in samples)


def number_of(samples: Samples) -> int:
    """Return how many samples there are."""
    return len(leaves(samples)[0])


def taken(samples: Samples, which: slice | Tensor) -> Samples:
    """Return some samples, with the shape of their positions first, where the samples lie."""
    if isinstance(which, Tensor):
        return mapped(lambda each: each[which.to(each.device)], samples)
    return mapped(lambda each: each[which], samples)


def joined_samples(parts: Sequence[Samples]) -> Samples:
    """Return samples of one structure one after the other."""
    first = parts[0]
    if isinstance(first, Tensor):
        return torch.cat(list(parts))
    if isinstance(first, Mapping):
        return {name: joined_samples([part[name] for part in parts]) for name in first}
    return tuple(joined_samples([part[k] for part in parts]) for k in range(len(first)))


def shapes(samples: Samples) -> str:
    """Return of what shape one sample is, and of what type, for a message."""
    if isinstance(samples, Tensor):
        return f"shape (sample, {', '.join(map(str, samples.shape[1:]))}) and type {samples.dtype}"
    if isinstance(samples, Mapping):
        return "; ".join(f"{name} of {shapes(each)}" for name, each in samples.items())
    return "; ".join(map(shapes, samples))


def arguments(samples: Samples) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return with which arguments a network is called: several in order, or by name."""
    if isinstance(samples, Tensor):
        return (samples,), {}
    if isinstance(samples, Mapping):
        return (), dict(samples)
    return tuple(samples), {}
