"""Weights as a user gives them: arrays, state dictionaries, modules, checkpoint files."""

from __future__ import annotations

import os
import pickle
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from langevin_nn.checks import kind_of, numbers
from langevin_nn.errors import ConfigurationError

__all__ = ["as_weights", "read_checkpoint", "without_prefix"]

# Under which checkpoints of training loops keep the state of the network, and what wrappers put before the names.
_WITHIN = ("state_dict", "model_state_dict", "model", "network", "module", "net")
_PREFIXES = ("module.", "_orig_mod.", "model.")


def as_weights(weights: Any, like: Any = None, count: int | None = None) -> Tensor:
    """Return weights as a tensor.

    Parameters
    ----------
    weights : array, mapping of str to Tensor, torch.nn.Module, path, or list of those
        What a user gives: an array of shape (replica, parameter); or what a network holds, its ``state_dict()``, itself or a
        checkpoint file (`read_checkpoint`), from which all replicas start, or one of these for each.
    like : Landscape, optional
        Whose weights are as precise and where they are to be; needed for what a network holds.
    count : int, optional
        How many replicas start from what a network holds; one row unless said.

    Returns
    -------
    Tensor, shape (replica, parameter)
        In float64, but for tensors, which stay what and where they are; unless there is something to be like.

    Raises
    ------
    ConfigurationError
        If they are no numbers, or not those of the network.
    """
    if isinstance(weights, str | os.PathLike | Mapping | nn.Module):
        row = _of_network(weights, like)
        return row[None].repeat(1 if count is None else count, 1)
    if (
        isinstance(weights, list | tuple)
        and weights
        and isinstance(weights[0], str | os.PathLike | Mapping | nn.Module)
    ):
        return torch.stack([_of_network(each, like) for each in weights])
    if isinstance(weights, Tensor) and weights.is_floating_point():
        found = weights.detach()
    else:
        expected = "an array of numbers (replica, parameter), where to start"
        found = torch.as_tensor(numbers("weights", weights, expected, finite=False))
    return found if like is None else found.to(like.device, like.dtype)


def _of_network(given: Any, like: Any) -> Tensor:
    """Return what a network holds as one vector, shape (parameter,)."""
    flatten = getattr(like, "flattened", None)
    if flatten is None:
        raise ConfigurationError(
            f"weights are {kind_of(given)}, and {type(like).__name__} is no network: expected an array (replica, parameter), "
            "since nothing else says which number is which; pass one"
        )
    if isinstance(given, str | os.PathLike):
        given = read_checkpoint(given)
    state = given.state_dict() if isinstance(given, nn.Module) else given
    # What else a checkpoint keeps beside its tensors, such as the state of a quantiser, is no weight.
    tensors = {
        name: torch.as_tensor(each)
        for name, each in state.items()
        if isinstance(name, str) and isinstance(each, Tensor | np.ndarray)
    }
    found: Tensor = flatten(tensors)
    return found


def read_checkpoint(path: str | os.PathLike[str]) -> dict[str, Tensor]:
    """Return the tensors of a network from a checkpoint file, without running code that it may hold.

    Parameters
    ----------
    path : path
        A file of safetensors, or of ``torch.save``: a state dictionary, or a dictionary that holds one under ``state_dict``,
        ``model_state_dict``, ``model``, ``network``, ``module`` or ``net``.

    Returns
    -------
    dict of str to Tensor
        On the CPU.

    Raises
    ------
    ConfigurationError
        If there is no such file, it cannot be read, or holds no state dictionary.
    """  # noqa: DOC501  # one of them is made by a function
    file = Path(path)
    if not file.is_file():
        raise ConfigurationError(
            f"weights={str(path)!r}: expected a checkpoint file, and there is none; check the path"
        )
    if file.suffix == ".safetensors":
        try:
            from safetensors.torch import load_file
        except ImportError as error:
            raise ConfigurationError(
                f"weights={str(path)!r} are safetensors, and that package is not installed: expected it, since it reads "
                "them; pip install safetensors"
            ) from error
        try:
            return dict(load_file(file))
        except Exception as error:
            raise _unreadable(path, error) from error
    try:
        found = torch.load(file, map_location="cpu", weights_only=True)
    except (RuntimeError, EOFError, ValueError, KeyError, OSError, pickle.UnpicklingError) as error:
        raise _unreadable(path, error) from error
    for name in _WITHIN:
        if isinstance(found, Mapping) and isinstance(found.get(name), Mapping):
            found = found[name]
            break
    if not (isinstance(found, Mapping) and found and all(isinstance(each, Tensor) for each in found.values())):
        held = ", ".join(map(str, list(found)[:6])) if isinstance(found, Mapping) else kind_of(found)
        raise ConfigurationError(
            f"{str(path)!r} holds {held}: expected a state dictionary, names and tensors of a network, itself or under "
            f"one of {', '.join(_WITHIN)}; read it with torch.load and pass the dictionary"
        )
    return dict(found)


def _unreadable(path: Any, error: Exception) -> ConfigurationError:
    said = (re.sub(r"\x1b\[[0-9;]*m", "", str(error)).splitlines() or [""])[0][:160]  # without torch's colours
    return ConfigurationError(
        f"weights={str(path)!r} cannot be read ({type(error).__name__}: {said}): expected safetensors, or a file of "
        "torch.save that holds tensors alone, since other content runs code when it is read; save module.state_dict()"
    )


def without_prefix(names: Iterable[str], known: Iterable[str]) -> str:
    """Return what wrappers put before all names of a state dictionary, such as ``module.``; nothing where they are known.

    Parameters
    ----------
    names : iterable of str
        Of the state dictionary.
    known : iterable of str
        Of the network.

    Returns
    -------
    str
        The prefix.
    """
    given, expected = set(names), set(known)
    if given & expected:
        return ""
    return next((each for each in _PREFIXES if {each + name for name in expected} & given), "")
