"""A state as a file: arrays and JSON, nothing that runs when it is read."""

from __future__ import annotations

import dataclasses
import io
import json
import sys
import zipfile
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from langevin_nn.errors import ConfigurationError, DamagedTrajectory
from langevin_nn.seeds import Seeds
from langevin_nn.update.state import State

__all__ = ["state_bytes", "state_from"]

_STRUCTURE = "structure"
_ENCODED = ("weights", "diverged", "update_memory", "noise_memory")


def state_bytes(state: State, recorded: bool) -> bytes:
    """Return a state as the content of an ``.npz`` file; `recorded` says whether all that is due at its step has been.

    Returns
    -------
    bytes
        `numpy.load` reads it with ``allow_pickle=False``.

    Raises
    ------
    ConfigurationError
        If a memory holds anything but numbers, text, arrays, tensors, containers and dataclasses of them.
    """
    arrays: dict[str, NDArray[Any]] = {}
    structure = {
        "step": state.step,
        "seed": state.seeds.seed,
        "replicas": list(state.replicas),
        "recorded": recorded,
        **{name: _encoded(getattr(state, name), arrays, name) for name in _ENCODED},
    }
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **{_STRUCTURE: np.array(json.dumps(structure))}, **arrays)
    return buffer.getvalue()


def _encoded(value: Any, arrays: dict[str, NDArray[Any]], name: str) -> Any:
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, torch.Tensor | np.ndarray | np.generic):
        tensor = isinstance(value, torch.Tensor)
        held, bits = value, False
        if isinstance(value, torch.Tensor) and value.dtype == torch.bfloat16:  # which NumPy lacks
            held, bits = value.view(torch.int16), True
        array = held.detach().cpu().numpy() if isinstance(held, torch.Tensor) else np.asarray(held)
        if array.dtype.kind in "fiub":
            arrays[name] = array
            on_device = isinstance(value, torch.Tensor) and value.device.type != "cpu"
            of_bits = {"bits_of": "bfloat16"} if bits else {}
            return {"kind": "tensor" if tensor else "array", "name": name, "on_device": on_device, **of_bits}
    if isinstance(value, tuple | list):
        in_order = [_encoded(item, arrays, f"{name}.{number}") for number, item in enumerate(value)]
        return {"kind": "list" if isinstance(value, list) else "tuple", "items": in_order}
    if isinstance(value, dict) and all(isinstance(key, str) for key in value):
        return {"kind": "dict", "items": {key: _encoded(item, arrays, f"{name}.{key}") for key, item in value.items()}}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = [field.name for field in dataclasses.fields(value) if field.init]
        items = {field: _encoded(getattr(value, field), arrays, f"{name}.{field}") for field in fields}
        return {"kind": "dataclass", "type": f"{type(value).__module__}:{type(value).__qualname__}", "items": items}
    raise ConfigurationError(
        f"{name} is {type(value).__module__}.{type(value).__qualname__}, which cannot be saved: expected numbers, text, "
        "tensors, arrays, tuples, lists, dictionaries or dataclasses of them, so that a killed run can go on; make the "
        "memory a frozen dataclass of tensors"
    )


def state_from(content: bytes, device: torch.device) -> tuple[State, bool]:
    """Return the state that the content of a file holds, its tensors on `device`.

    Returns
    -------
    state : State
        To the last bit what was saved.
    recorded : bool
        Whether everything that is due at its step has been recorded.

    Raises
    ------
    DamagedTrajectory
        If the file cannot be read.
    """
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        structure = json.loads(str(arrays.pop(_STRUCTURE)))
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise DamagedTrajectory(
            f"the state of the run cannot be read ({error}): expected arrays and JSON as langevin_nn writes them; the run "
            "cannot go on from here, start it again"
        ) from error
    decoded = {name: _decoded(structure[name], arrays, device) for name in _ENCODED}
    state = State(
        step=structure["step"], seeds=Seeds(structure["seed"]), replicas=tuple(structure["replicas"]), **decoded
    )
    return state, structure["recorded"]


def _decoded(value: Any, arrays: dict[str, NDArray[Any]], device: torch.device) -> Any:
    if not isinstance(value, dict):
        return value
    kind, items = value["kind"], value.get("items", ())
    if kind == "tensor":
        # Of a fresh copy: what NumPy read may be read-only, or not aligned as torch likes it.
        found = torch.as_tensor(arrays[value["name"]].copy()).to(device if value["on_device"] else "cpu")
        return found.view(torch.bfloat16) if value.get("bits_of") else found
    if kind == "array":
        return arrays[value["name"]]
    if kind in ("tuple", "list"):
        decoded = [_decoded(item, arrays, device) for item in items]
        return tuple(decoded) if kind == "tuple" else decoded
    assert isinstance(items, dict)
    named = {key: _decoded(item, arrays, device) for key, item in items.items()}
    return named if kind == "dict" else _dataclass(value["type"])(**named)


def _dataclass(name: str) -> Any:
    """Return a class of a module that the program has already imported: reading a file imports nothing."""
    module, _, path = name.partition(":")
    found: Any = sys.modules.get(module)
    for part in path.split("."):
        found = getattr(found, part, None)
    if not (isinstance(found, type) and dataclasses.is_dataclass(found)):
        raise DamagedTrajectory(
            f"the state of the run holds a {name}, which is not among the imported dataclasses: expected the program that "
            "began the run, with its noise sources and update rules; import the module that defines it first"
        )
    return found
