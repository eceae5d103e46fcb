"""Sample gradients from a backward pass that somebody else makes: what goes into layers, and what comes back to them."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from math import prod
from typing import Any

import torch
from torch import Tensor, nn

from langevin_nn.gradients import SampleGradients
from langevin_nn.gradients.blocks import Block
from langevin_nn.gradients.forward import batch_layers, dropout_layers
from langevin_nn.gradients.layers import fast_layers, users
from langevin_nn.gradients.signals import Call, block_of

__all__ = ["Probe"]


class Probe:
    """Hooks on the layers of a network for one forward and backward pass, which they leave as it is.

    Parameters
    ----------
    network : torch.nn.Module
        The network.
    left_out : set of str, optional
        Layers that were found to be something else than they seem.
    """

    # A hook reads a layer's argument and asks for the gradient of its output; it returns nothing, so that the graph, and
    # with it every bit of the training run, is that of a pass without it.

    def __init__(self, network: nn.Module, left_out: frozenset[str] = frozenset()) -> None:
        names = dict(network.named_parameters())
        tensors = {
            name: _tensors(name, layer, names) for name, layer in fast_layers(network).items() if name not in left_out
        }
        self.tensors = {name: own for name, own in tensors.items() if own}
        self._layers = {name: network.get_submodule(name) for name in self.tensors}
        self._users = users(network, self._layers)
        self.mixing, self.random = tuple(batch_layers(network)), tuple(dropout_layers(network))
        self._calls: dict[nn.Module, list[tuple[Tensor, Tensor]]] = {}
        self._signals: dict[tuple[nn.Module, int], Tensor] = {}
        self._handles: list[torch.utils.hooks.RemovableHandle] = []
        hook = _Hook(self)
        for layer in dict.fromkeys(each for together in self._users.values() for each in together):
            self._calls[layer] = []
            self._handles.append(layer.register_forward_hook(hook, with_kwargs=True))

    def remember(self, layer: nn.Module, given: tuple[Tensor, ...], named: dict[str, Tensor], output: Tensor) -> None:
        """Keep what goes into a layer, and ask for what comes back."""
        if not (torch.is_grad_enabled() and isinstance(output, Tensor) and output.requires_grad):
            return
        number = len(self._calls[layer])
        self._calls[layer].append(((given[0] if given else next(iter(named.values()))).detach(), output.detach()))

        def keep(signal: Tensor) -> None:
            before = self._signals.get((layer, number))
            self._signals[layer, number] = signal.detach() if before is None else before + signal.detach()

        self._handles.append(output.register_hook(keep))  # type: ignore[no-untyped-call]

    @staticmethod
    def layers_of(network: nn.Module) -> dict[str, int]:
        """Return the layers that are measured, in the mode in which the network is, with their numbers of parameters."""
        names = dict(network.named_parameters())
        found = {name: _tensors(name, layer, names) for name, layer in fast_layers(network).items()}
        return {name: sum(each.numel() for each in own.values()) for name, own in found.items() if own}

    def leave_out(self, layers: Iterable[str]) -> None:
        """Measure some layers no more."""
        for name in layers:
            del self.tensors[name], self._layers[name]

    def release(self) -> None:
        """Take all hooks off."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()

    @property
    def precisions(self) -> frozenset[torch.dtype]:
        """In which signals came, lower ones under autocasting."""
        return frozenset(each.dtype for each in self._signals.values())

    def sample_gradients(self, factors: Tensor, rows: Tensor) -> SampleGradients | None:
        """Return the gradients of some samples' losses, weighed as what was differentiated weighs them, 1 on average.

        Parameters
        ----------
        factors : Tensor, shape (sample,)
            The derivative of what was differentiated by each sample's loss.
        rows : Tensor of int, shape (row,)
            Which samples.

        Returns
        -------
        SampleGradients or None
            One block a layer; None where no layer has its samples along the first dimension.
        """
        n, scale = len(factors), 1 / float(factors.double().mean())
        blocks: dict[str, Block] = {}
        names: list[str] = []
        for name, layer in self._layers.items():
            made: list[Call] = []
            for user in self._users[name]:
                made += self._made(user, n, rows, scale)
            # A call to which nothing came back, as of a forward pass that is made once more, has no part in the gradient.
            answered = sum(
                (user, k) in self._signals for user in self._users[name] for k in range(len(self._calls[user]))
            )
            if not made or len(made) < answered:
                continue
            sizes = {tensor: each.numel() for tensor, each in self.tensors[name].items()}
            blocks[name] = block_of(layer, made, sizes, stored=_is_small(sizes, made), room=2**24)
            names += list(sizes)
        return SampleGradients(blocks, tuple(names)) if blocks else None

    def _made(self, layer: nn.Module, n_samples: int, rows: Tensor, scale: float) -> Sequence[Call]:
        """Return the calls of a layer, of some samples, where these lie along the first dimension."""
        found = []
        for number, (given, _) in enumerate(self._calls[layer]):
            signal = self._signals.get((layer, number))
            if signal is None or not (given.ndim and len(given) == n_samples == len(signal)):
                continue
            precision = torch.promote_types(signal.dtype, torch.float32)
            argument = given[rows.to(given.device)]
            argument = argument.to(precision) if argument.is_floating_point() else argument
            found.append((layer, argument, signal[rows.to(signal.device)].to(precision) * scale))
        return found


class _Hook:
    """What a layer calls; a copy of the network, by deepcopy or pickle, calls nothing."""

    def __init__(self, probe: Probe | None) -> None:
        self._remember: Any = None if probe is None else probe.remember
        if probe is not None and "torch._dynamo" in sys.modules:
            # A compiled network breaks its graph here rather than compiling what keeps tensors.
            self._remember = torch.compiler.disable(probe.remember)  # type: ignore[no-untyped-call]

    def __call__(self, layer: nn.Module, given: Any, named: Any, output: Any) -> None:
        if self._remember is not None:
            self._remember(layer, given, named, output)

    def __deepcopy__(self, memo: Any) -> _Hook:
        return _Hook(None)

    def __reduce__(self) -> Any:
        return _Hook, (None,)


def _tensors(name: str, layer: nn.Module, names: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors of a layer that are trained and are its own, by their names in the network."""
    own = {f"{name}.{key}".lstrip("."): each for key, each in layer._parameters.items() if each is not None}
    return {key: each for key, each in own.items() if key in names and each.requires_grad}


def _is_small(sizes: dict[str, int], made: Sequence[Call]) -> bool:
    """Return whether gradients take no more than what they are made of."""
    _, given, signal = made[0]
    return len(given) > 0 and sum(sizes.values()) <= prod(given.shape[1:]) + prod(signal.shape[1:])
