"""From a network at one point to its sample gradients: activations and backpropagated signals where layers allow it."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial

import torch
from torch import Tensor, nn
from torch.func import grad, vmap

from langevin_nn.gradients.blocks import (
    Block,
    DenseBlock,
    OuterProductBlock,
    PositionBlock,
)
from langevin_nn.gradients.functional import Loss, evaluate
from langevin_nn.gradients.layers import owner, products_of, room_of, users
from langevin_nn.gradients.layout import ParameterLayout
from langevin_nn.gradients.plain import PlainGradient
from langevin_nn.gradients.sample_gradients import SampleGradients
from langevin_nn.gradients.samples import Samples, mapped, number_of, taken
from langevin_nn.progress import sample_bar

__all__ = ["Call", "SampleGradientSource", "block_of"]

Call = tuple[nn.Module, Tensor, Tensor]  # what was called, what went in and what came back

_filtering = threading.Lock()  # filters of warnings belong to the whole process


def _has_samples(tensor: Tensor, labels: Tensor) -> bool:
    return tensor.ndim > 0 and len(tensor) == len(labels)


def _for_each(n_samples: int, argument: Tensor, output: Tensor) -> tuple[Tensor, Tensor]:
    """Return what all samples share, argument and output of one call, once for each of them."""
    has_sample = argument.ndim > 1 and len(argument) == 1
    given, made = ((each if has_sample else each[None]) for each in (argument, output))
    return given.expand(n_samples, *given.shape[1:]), made.expand(n_samples, *made.shape[1:])


def block_of(layer: nn.Module, calls: Sequence[Call], tensors: dict[str, int], stored: bool, room: int) -> Block:
    """Return a layer's block from what went in and what came back at each call of a layer that holds its tensors.

    Parameters
    ----------
    layer : torch.nn.Module
        One of `fast_layers`.
    calls : sequence of tuple
        The layer that was called, its argument and the signal, both of shape (sample, ...).
    tensors : dict of str to int
        Names and sizes of its tensors.
    stored : bool
        Whether gradients are stored even where they are larger than what they are made of.
    room : int
        How many numbers of rows may be held while inner products are computed.

    Returns
    -------
    Block
        The gradients of the samples by these tensors.
    """
    sizes = {name.rpartition(".")[2]: size for name, size in tensors.items()}
    called, activations, signals = calls[0]
    alone = len(calls) == 1 and called is layer
    if alone and isinstance(layer, nn.Linear) and activations.ndim == 2:
        if "weight" not in sizes:
            return DenseBlock(signals, tensors, OuterProductBlock.path)
        return OuterProductBlock(signals.double(), activations.double(), tensors)

    def at_positions(called: nn.Module, activations: Tensor, signals: Tensor, columns: dict[str, int]) -> PositionBlock:
        products = products_of(called)
        assert products is not None
        multiplied = partial(products, called, "weight" in columns, "bias" in columns)
        return PositionBlock(signals, activations, multiplied, room_of(called, signals), columns, room)

    larger = sum(tensors.values()) > signals[0].numel() + activations[0].numel()
    if alone and larger and not stored:
        return replace(at_positions(*calls[0], sizes), tensors=tensors)
    dense = (signals.new_empty if alone else signals.new_zeros)(len(signals), sum(sizes.values()))
    for called, activations, signals in calls:
        shared = [each for each in sizes if called._parameters.get(each) is layer._parameters[each]]
        if not shared:
            continue
        starts = {"weight": 0, "bias": sizes.get("weight", 0)}
        call = at_positions(called, activations, signals, {each: sizes[each] for each in shared})
        for piece in call.pieces():
            rows = call.multiply_out(activations[piece], signals[piece])
            if alone:
                dense[piece] = rows
                continue
            for each, columns in zip(shared, torch.split(rows, [sizes[one] for one in shared], dim=1), strict=True):
                dense[piece, starts[each] : starts[each] + sizes[each]] += columns
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
    room : int, optional
        How many numbers of rows of such layers may be held while inner products are computed.
    shared : frozenset of str, optional
        Embeddings that are called once for all samples, as those of positions are.
    """

    module: nn.Module
    parameters: dict[str, Tensor]
    inputs: Samples
    labels: Tensor
    loss: Loss
    names: tuple[str, ...]
    layers: dict[str, nn.Module]
    vectorised: int = 256
    stored: bool = False
    room: int = 2**24
    shared: frozenset[str] = frozenset()

    @property
    def n_samples(self) -> int:
        """N."""
        return number_of(self.inputs)

    def _tensors(self, layer: str) -> dict[str, int]:
        return {name: self.parameters[name].numel() for name in self.names if owner(name) == layer}

    def __call__(self, samples: slice | Tensor, room: int = 0) -> SampleGradients:
        """Return the gradients of some samples, one block a layer; `paths` says how each was computed."""
        inputs, labels = taken(self.inputs, samples), self.labels[samples]
        losses, calls = self._signals(inputs, labels)
        blocks = {
            layer: block_of(self.layers[layer], made, self._tensors(layer), self.stored, self.room)
            for layer, made in calls.items()
        }
        missing = [name for name in self.names if owner(name) not in blocks]
        if missing:
            blocks |= self._stored(inputs, labels, missing)
        order = dict.fromkeys(owner(name) for name in self.names)
        return SampleGradients({layer: blocks[layer] for layer in order}, self.names, losses, room)

    def losses(self, samples: slice) -> Tensor:
        """Return ℓ_k of some samples."""
        with torch.no_grad():
            return self._forward(taken(self.inputs, samples), self.labels[samples])[0].detach()

    def _forward(self, inputs: Samples, labels: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        tracked = {name: tensor.detach().requires_grad_() for name, tensor in self.parameters.items()}
        return self.loss(evaluate(self.module, tracked, inputs), labels), tracked

    @cached_property
    def _users(self) -> dict[str, list[nn.Module]]:
        """The layers that hold the tensors of each layer."""
        return users(self.module, self.layers)

    def calls_for_all(self) -> frozenset[str]:
        """Return the embeddings that are called once for all samples rather than with each of them."""
        embeddings = {name: layer for name, layer in self.layers.items() if isinstance(layer, nn.Embedding)}
        lengths: dict[str, list[int]] = {name: [] for name in embeddings}

        def noted(name: str) -> Callable[..., None]:
            def hook(_: nn.Module, given: tuple[Tensor, ...], output: Tensor) -> None:
                if given and given[0].ndim:
                    lengths[name].append(len(given[0]))

            return hook

        handles = [layer.register_forward_hook(noted(name)) for name, layer in embeddings.items()]
        everything = slice(0, self.n_samples)
        try:
            losses = self.losses(everything)
            if self.n_samples > 1:  # there may be as many samples as positions by chance
                self.losses(slice(1, self.n_samples))
        finally:
            for handle in handles:
                handle.remove()
        called = frozenset(name for name, found in lengths.items() if len(found) > 1 and len(set(found)) == 1)
        if not called:
            return called
        try:
            again = replace(self, shared=called)(everything).losses
        except Exception as error:  # what follows, a user's own code, wants the shape that it had
            if "out of memory" in str(error):
                raise
            return frozenset()
        return called if again is not None and torch.allclose(again, losses) else frozenset()

    def _signals(self, inputs: Samples, labels: Tensor) -> tuple[Tensor, dict[str, list[Call]]]:
        """Return the losses, and inputs and backpropagated signals of each call that uses tensors of a fast layer."""
        wanted = {owner(name) for name in self.names} & set(self.layers)
        calls: dict[nn.Module, list[Call]] = {layer: [] for name in wanted for layer in self._users[name]}

        shared = {self.layers[name] for name in self.shared & wanted}

        def remember(layer: nn.Module) -> torch.utils.hooks.RemovableHandle:
            def hook(_: nn.Module, given: tuple[Tensor, ...], named: dict[str, Tensor], output: Tensor) -> Tensor:
                argument = given[0] if given else next(iter(named.values()))
                if layer in shared:  # each sample gets a copy of its own, whose signals tell it from the others
                    argument, output = _for_each(len(labels), argument, output)
                if output.requires_grad:  # what is evaluated without a gradient contributes none
                    calls[layer].append((layer, argument, output))
                return output.clone()  # what follows may overwrite its input, as ReLU(inplace=True) does

            return layer.register_forward_hook(hook, with_kwargs=True)

        handles = [remember(layer) for layer in calls]
        try:
            with torch.enable_grad():
                losses, _ = self._forward(inputs, labels)
                total = losses.sum()
        finally:
            for handle in handles:
                handle.remove()
        usable = [layer for layer, made in calls.items() if all(_has_samples(given, labels) for _, given, _ in made)]
        outputs = [output for layer in usable for *_, output in calls[layer]]
        if not outputs:
            return losses.detach(), {}
        try:
            deltas = iter(torch.autograd.grad(total, outputs, materialize_grads=True))
        except RuntimeError as error:  # a backward pass that evaluates layers once more, without these hooks
            if "out of memory" in str(error):
                raise
            return losses.detach(), {}
        found = {layer: [(layer, given.detach(), next(deltas)) for _, given, _ in calls[layer]] for layer in usable}
        made = {name: [call for user in self._users[name] for call in found.get(user, ())] for name in wanted}
        known = {name for name in wanted if all(user in found for user in self._users[name])}
        return losses.detach(), {name: made[name] for name in known if made[name]}

    def _stored(self, inputs: Samples, labels: Tensor, names: list[str]) -> dict[str, Block]:
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
            rows = [gradients[name].reshape(len(labels), -1) for name in tensors]
            blocks[layer] = DenseBlock(torch.cat(rows, dim=1) if len(rows) > 1 else rows[0], tensors, path)
        return blocks

    def _vectorised(self, inputs: Samples, labels: Tensor, names: list[str]) -> dict[str, Tensor]:
        fixed = {name: tensor for name, tensor in self.parameters.items() if name not in names}

        def one(chosen: dict[str, Tensor], sample: Samples, label: Tensor) -> Tensor:
            outputs = evaluate(self.module, {**fixed, **chosen}, mapped(lambda each: each[None], sample))
            return self.loss(outputs, label[None]).sum()

        chosen = {name: self.parameters[name] for name in names}
        per_sample: Callable[..., dict[str, Tensor]] = vmap(
            grad(one), in_dims=(None, 0, 0), chunk_size=min(self.vectorised, len(labels))
        )
        with _filtering, torch.no_grad(), warnings.catch_warnings():
            warnings.filterwarnings("error", message=".*batching rule")  # it would loop over samples inside
            return per_sample(chosen, inputs, labels)

    def one_by_one(self, inputs: Samples, labels: Tensor) -> dict[str, Tensor]:
        """Return the rows of every tensor, by name, by one backward pass a sample: slow, and as plain as it gets."""
        rows = []
        gradient = PlainGradient(self.module, ParameterLayout.of(self.module), self.loss)
        for k in range(len(labels)):
            one = slice(k, k + 1)
            rows.append(gradient.by_name(self.parameters, taken(inputs, one), labels[one]))
        return {name: torch.stack([row[name].reshape(-1) for row in rows]) for name in self.parameters}

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
            _, tracked = self._forward(taken(self.inputs, samples), self.labels[samples])
        for tensor in tracked.values():
            kept.pop(tensor.untyped_storage().data_ptr(), None)
        return sum(kept.values())

    def held(self, samples: slice, size: int, room: int = 0) -> SampleGradients:
        """Return the gradients of some samples in a row, held in memory, computed `size` at a time.

        Parameters
        ----------
        samples : slice
            From which to which.
        size : int
            Of how many samples a pass keeps what it needs.
        room : int, optional
            Bytes that sums of them may take beside.

        Returns
        -------
        SampleGradients
            Of all of them.
        """
        n = samples.stop - samples.start
        if size >= n:
            return self(samples, room)
        whole: dict[str, tuple[Tensor, ...]] = {}
        losses = []
        with sample_bar("sample gradients", n) as bar:
            for start in range(0, n, size):
                part = slice(start, min(start + size, n))
                piece = self(slice(samples.start + part.start, samples.start + part.stop))
                losses.append(piece.losses)
                for layer, block in piece.blocks.items():
                    if layer not in whole:
                        whole[layer] = tuple(each.new_empty(n, *each.shape[1:]) for each in block.held)
                    for target, each in zip(whole[layer], block.held, strict=True):
                        target[part] = each
                bar.update(part.stop - part.start)
        blocks = {layer: block.holding(*whole[layer]) for layer, block in piece.blocks.items()}
        return SampleGradients(blocks, self.names, torch.cat([each for each in losses if each is not None]), room)
