"""Copies of a user's module, whatever evaluations have left in it."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

from torch import Tensor, nn

from langevin_nn.errors import ConfigurationError

__all__ = ["copied"]


def copied(module: nn.Module) -> nn.Module:
    """Return a copy of a network that nobody else changes.

    What layers hold beside their parameters and can compute anew from them, pruned or normalised weights, is copied as it is;
    of a compiled module it is the module itself.

    Parameters
    ----------
    module : torch.nn.Module
        The network.

    Returns
    -------
    torch.nn.Module
        Without history.

    Raises
    ------
    ConfigurationError
        If it holds what cannot be copied.
    """
    original = getattr(module, "_orig_mod", module)
    known: dict[int, Any] = {}
    for layer in original.modules():
        for value in vars(layer).values():
            if isinstance(value, Tensor) and not value.is_leaf:
                known[id(value)] = value.detach().clone()
    try:
        return deepcopy(original, known)
    except (RuntimeError, TypeError) as error:
        raise ConfigurationError(
            f"the network cannot be copied ({(str(error).splitlines() or [''])[0][:120]}): expected a module that "
            "copy.deepcopy takes, since each replica has weights of its own; keep open files, locks and tensors with a "
            "history out of its attributes"
        ) from error
