"""Weighted gradients through a random forward pass, of which the numbers are addressed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass
from threading import RLock
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd

from langevin_nn.gradients.plain import PlainGradient

__all__ = ["ForwardChange", "ForwardGradient", "batch_layers", "dropout_layers"]

SampleChange: TypeAlias = Callable[[Any, Tensor, torch.Generator], tuple[Any, Tensor]]
# Of packages that are not loaded here, by their names.
_DROPPED_PATHS = {"DropPath": "drop_prob", "StochasticDepth": "p"}
# Layers draw from torch's generator of the whole process.
_LOCK = RLock()


@dataclass(frozen=True)
class ForwardChange:
    """What a random forward pass does otherwise than the deterministic one.

    Parameters
    ----------
    layers : tuple of str, optional
        Layers that are in training mode, by name: they draw from torch's generator.
    batch_statistics : tuple of str, optional
        Layers that normalise by the samples that come together, by name; what they keep of samples before is left as it is.
    samples : callable, optional
        (inputs, labels, generator) → inputs and labels, as many, of the samples that come together.
    """

    layers: tuple[str, ...] = ()
    batch_statistics: tuple[str, ...] = ()
    samples: SampleChange | None = None


# What is changed, and with which number the generator of each replica is seeded.
Changes: TypeAlias = Sequence[tuple[ForwardChange, Sequence[int]]]


def dropout_layers(module: nn.Module) -> tuple[str, ...]:
    """Return the layers that drop activations, paths or attention when they train, by name.

    Parameters
    ----------
    module : torch.nn.Module
        The network.

    Returns
    -------
    tuple of str
        Of torch's layers, torchvision's ``StochasticDepth`` and timm's ``DropPath``, those whose probability is above 0.
    """
    return tuple(name for name, layer in module.named_modules() if _probability(layer) > 0)


def _probability(layer: nn.Module) -> float:
    if isinstance(layer, _DropoutNd):
        return float(layer.p)
    if isinstance(layer, nn.MultiheadAttention):
        return float(layer.dropout)
    if isinstance(layer, nn.RNNBase):
        return float(layer.dropout) if layer.num_layers > 1 else 0.0
    return float(getattr(layer, _DROPPED_PATHS.get(type(layer).__name__, ""), 0.0) or 0.0)


def batch_layers(module: nn.Module) -> tuple[str, ...]:
    """Return the layers that normalise over the batch when they train, by name.

    Parameters
    ----------
    module : torch.nn.Module
        The network.

    Returns
    -------
    tuple of str
        All kinds of batch normalisation.
    """
    return tuple(name for name, layer in module.named_modules() if isinstance(layer, _BatchNorm))


class ForwardGradient(PlainGradient):
    """Σ_k c_k ∇ℓ_k through one random forward pass of each replica.

    Samples are changed first, in the order of the changes, each from a generator of its own; then torch's generator is
    seeded and the layers draw from it, as in a loop of one's own that seeds it before the forward pass. It is put back
    afterwards.
    """

    _under_way: tuple[list[tuple[ForwardChange, int]], int] = ([], 0)

    def through(
        self,
        changes: Changes,
        weights: Tensor,
        inputs: Any,
        labels: Tensor,
        coefficients: Tensor,
        indices: Tensor | None,
    ) -> Tensor:
        """Return the weighted gradients.

        Parameters
        ----------
        changes : sequence of (ForwardChange, sequence of int)
            What is changed, and with which number each replica's generator is seeded.
        weights, inputs, labels, coefficients, indices : object
            As in `PlainGradient`.

        Returns
        -------
        Tensor, shape (replica, parameter)
            Σ_k c_k ∇ℓ_k.
        """
        rows = []
        if indices is None:  # of samples that are chosen, what works in place changes a copy
            indices = torch.arange(coefficients.shape[1], device=weights.device).expand(coefficients.shape)
        for r in range(len(weights)):
            one = slice(r, r + 1)
            with self._changed(changes, r, weights):
                own = labels[one] if len(labels) > 1 else labels
                rows.append(self(weights[one], inputs, own, coefficients[one], indices[one]))
        return torch.cat(rows)

    def losses(self, changes: Changes, weights: Tensor, inputs: Any, labels: Tensor) -> Tensor:
        """Return the losses of samples that come together in one pass.

        Parameters
        ----------
        changes, weights, inputs, labels : object
            As in `through`.

        Returns
        -------
        Tensor, shape (replica, sample)
            ℓ_k.
        """
        rows = []
        parameters = dict(self._module.named_parameters())
        for r, row in enumerate(weights):
            with self._changed(changes, r, weights), torch.no_grad():
                for name, value in self._layout.split(row).items():
                    parameters[name].copy_(value)
                drawn, own = self._drawn(inputs, labels[r if len(labels) > 1 else 0])
                rows.append(self._loss(self._module(drawn), own))
        return torch.stack(rows)

    def recomputed(self, weights: Tensor, training_inputs: Any, inputs: Any) -> Tensor:
        """Return outputs in evaluation mode, where batch normalisation has the statistics of the training inputs.

        Parameters
        ----------
        weights : Tensor, shape (replica, parameter)
            Where.
        training_inputs : Tensor, shape (sample, ...)
            Of which the means and variances are taken, in one pass at these weights.
        inputs : Tensor, shape (row, ...)
            What to evaluate.

        Returns
        -------
        Tensor, shape (replica, row, ...)
            The outputs.
        """
        normalised: list[Any] = [self._module.get_submodule(name) for name in batch_layers(self._module)]
        kept = [(each, each.training, each.momentum, deepcopy(each._buffers)) for each in normalised]
        rows, parameters = [], dict(self._module.named_parameters())
        try:
            for row in weights:
                with torch.no_grad():
                    for name, value in self._layout.split(row).items():
                        parameters[name].copy_(value)
                    for each in normalised:
                        each.reset_running_stats()
                        each.training, each.momentum = True, None  # of one pass, not a running mean
                    self._module(training_inputs)
                    for each in normalised:
                        each.training = False
                    rows.append(self._module(inputs))
        finally:
            for each, mode, momentum, buffers in kept:
                each.training, each.momentum = mode, momentum
                each._buffers.update(buffers)
        return torch.stack(rows)

    def by_name(  # noqa: D102
        self, weights: Mapping[str, Tensor], inputs: Any, labels: Tensor, coefficients: Tensor | None = None
    ) -> dict[str, Tensor]:
        return super().by_name(weights, *self._drawn(inputs, labels), coefficients)

    def _drawn(self, inputs: Any, labels: Tensor) -> tuple[Any, Tensor]:
        """Return the samples as this pass sees them, with torch's generator ready for the layers."""
        under_way, of_layers = self._under_way
        for change, seed in under_way:
            if change.samples is not None:
                _seed(seed, labels)
                with torch.no_grad():
                    generator = torch.Generator(labels.device).manual_seed(seed)
                    inputs, labels = change.samples(inputs, labels, generator)
        _seed(of_layers, labels)
        return inputs, labels

    @contextmanager
    def _changed(self, changes: Changes, replica: int, like: Tensor) -> Iterator[None]:
        own = [(change, seeds[replica]) for change, seeds in changes]
        of_layers = 0
        for change, seed in own:
            of_layers ^= seed if change.layers else 0
        devices = [like.device] if like.device.type == "cuda" else []
        with _LOCK, torch.random.fork_rng(devices=devices):
            before = self._under_way
            self._under_way = own, of_layers
            layers = [self._module.get_submodule(name) for change, _ in own for name in change.layers]
            normalised = [self._module.get_submodule(name) for change, _ in own for name in change.batch_statistics]
            modes = [(each, vars(each)["training"]) for each in (*layers, *normalised)]
            kept = [(each, each.track_running_stats) for each in normalised]
            try:
                for each, _ in modes:
                    each.training = True  # alone: train() would reach the layers within it, too
                for each, _ in kept:
                    each.track_running_stats = False  # type: ignore[assignment]  # it would change what is kept
                yield
            finally:
                self._under_way = before
                for each, mode in modes:
                    each.training = mode
                for each, tracked in kept:
                    each.track_running_stats = tracked


def _seed(seed: int, like: Tensor) -> None:
    """Seed torch's generator where the numbers are used, and no other."""
    if like.device.type == "cuda":
        with torch.cuda.device(like.device):
            torch.cuda.manual_seed(seed)
    else:
        torch.default_generator.manual_seed(seed)
