"""What a network and its loss compute where code of a user's own says it, which no name tells."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from types import FunctionType
from typing import Any

from torch import Tensor, nn

from langevin_nn.identity import identity
from langevin_nn.provenance import digest

__all__ = ["digests_of_user_code"]

_KNOWN = ("torch", "langevin_nn")  # count by name and version


def digests_of_user_code(module: nn.Module, loss: Any, constants: Iterable[str]) -> dict[str, str]:
    """Return digests of a loss, of layers and of constants that a run depends on, for its configuration.

    Parameters
    ----------
    module : torch.nn.Module
        The network.
    loss : callable
        (outputs, labels) → one loss a sample.
    constants : iterable of str
        Names of buffers that are told elsewhere.

    Returns
    -------
    dict of str to str
        ``loss_sha256``, ``layers_sha256`` and ``buffers_sha256``; each only where there is a user's own, or a buffer.

    Examples
    --------
    >>> digests_of_user_code(nn.Linear(2, 1), nn.functional.mse_loss, ())
    {}
    >>> one, other = (digests_of_user_code(nn.Linear(2, 1), each, ()) for each in (lambda o, t: o - t, lambda o, t: t - o))
    >>> list(one), one == other
    (['loss_sha256'], False)
    """
    found = {}
    if isinstance(loss, nn.Module):
        found["loss_sha256"] = _digest_of_layers([*loss.named_modules()], digest(*loss.buffers()))
    elif _is_own(loss if isinstance(loss, FunctionType) else type(loss)):
        found["loss_sha256"] = identity(loss, libraries=_KNOWN).digest
    layers = [(name, layer) for name, layer in module.named_modules() if _is_own(type(layer))]
    if layers:
        found["layers_sha256"] = _digest_of_layers(layers)
    told = {*constants}
    buffers: dict[str, Tensor] = {name: each for name, each in module.named_buffers() if name not in told}
    if buffers:
        found["buffers_sha256"] = digest(*buffers.values())
    return found


def _is_own(code: Any) -> bool:
    return str(code.__module__).split(".", 1)[0] not in _KNOWN


def _digest_of_layers(layers: list[tuple[str, nn.Module]], *more: str) -> str:
    words = [
        (name, type(layer).__qualname__, _numbers(layer), *map(_methods, type(layer).__mro__)) for name, layer in layers
    ]
    return hashlib.sha256(repr((words, more)).encode()).hexdigest()


def _methods(kind: type) -> list[tuple[str, str]]:
    """Return what the functions of a class compute, where it is a user's own."""
    if not _is_own(kind) or kind is object:
        return []
    functions = (
        (name, each) for name, each in vars(kind).items() if isinstance(each, FunctionType) and name != "__init__"
    )
    return [(name, identity(each, libraries=_KNOWN).digest) for name, each in sorted(functions)]


def _numbers(layer: nn.Module) -> list[tuple[str, Any]]:
    """Return numbers and words that a layer holds: what its code reads of them."""
    plain = (bool, int, float, complex, str)
    held = ((name, each) for name, each in vars(layer).items() if name != "training")
    return sorted((name, repr(each)) for name, each in held if isinstance(each, plain))
