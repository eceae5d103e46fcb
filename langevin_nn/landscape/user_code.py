"""What a network and its loss compute where code of a user's own says it, which no name tells."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from types import FunctionType
from typing import Any

from torch import Tensor, nn

from langevin_nn.identity import held_by, identity
from langevin_nn.provenance import digest

__all__ = ["digests_of_user_code"]

_KNOWN = ("torch", "torchvision", "langevin_nn")  # count by name and version
_ELSEWHERE = ("_parameters", "_buffers", "_modules", "training")


def digests_of_user_code(module: nn.Module, loss: Any, constants: Iterable[str]) -> dict[str, Any]:
    """Return digests of a loss, of layers and of buffers not told elsewhere that a run depends on."""
    # Each is there only where there is a user's own, or what a layer does not print, or a buffer; what is unknown of the code
    # of one is told beside it.
    found: dict[str, Any] = {}
    if isinstance(loss, nn.Module) or _is_own(loss if isinstance(loss, FunctionType) else type(loss)):
        found |= _told("loss", loss)
    layers = {name: (type(layer), _held(layer)) for name, layer in module.named_modules() if _is_to_tell(layer)}
    if layers:  # weights that a layer starts from are none of its code
        elsewhere = [*module.modules(), *module.parameters(), *module.buffers()]
        found |= _told("layers", partial(dict, layers), elsewhere)
    told = {*constants}
    buffers: dict[str, Tensor] = {name: each for name, each in module.named_buffers() if name not in told}
    if buffers:
        found["buffers_sha256"] = digest(*buffers.values())
    return found


def _told(what: str, value: Any, elsewhere: Iterable[Any] = ()) -> dict[str, Any]:
    known = identity(value, libraries=_KNOWN, elsewhere=elsewhere)
    unknown = {} if known.known else {f"{what}_code": {"unknown": list(known.unknown)}}
    return {f"{what}_sha256": known.digest} | unknown


def _is_own(code: Any) -> bool:
    return str(code.__module__).split(".", 1)[0] not in _KNOWN


def _held(layer: nn.Module) -> dict[str, Any]:
    """Return what a layer holds beside weights, buffers and layers, in no order of when it was set."""
    bare = vars(nn.Module())
    own = {name: each for name, each in held_by(layer).items() if name not in _ELSEWHERE}
    return {
        name: each for name, each in sorted(own.items()) if name not in bare or "hooks" in name or each != bare[name]
    }


def _is_to_tell(layer: nn.Module) -> bool:
    """Return whether its name and what it prints leave open what a layer computes."""
    held = _held(layer)
    silent = type(layer).extra_repr is nn.Module.extra_repr
    return _is_own(type(layer)) or any(silent or callable(each) or "hooks" in name for name, each in held.items())
