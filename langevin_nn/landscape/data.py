"""Data as users have them: tensors, arrays, several of them by name, a dataset or a data loader."""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset, default_collate

from langevin_nn.checks import kind_of, shown
from langevin_nn.errors import ConfigurationError, RandomDataWarning
from langevin_nn.gradients.samples import Samples, leaves, mapped, number_of
from langevin_nn.memory import as_bytes

__all__ = ["as_samples", "is_dataset", "read_dataset"]

# Under which samples that are dictionaries keep their label.
_LABELS = ("labels", "label", "targets", "target", "y")
_AT_A_TIME = 256  # samples of a dataset


def is_dataset(values: Any) -> bool:
    """Return whether something gives samples with their labels."""
    return isinstance(values, Dataset | DataLoader)


def as_samples(values: Any, name: str, device: torch.device) -> Samples:
    """Return samples as tensors, one or a tuple or dictionary of such, all of one length."""
    # Rows of numbers in a tuple are an array, as for NumPy.
    several = isinstance(values, tuple) and any(isinstance(each, Tensor | np.ndarray | Mapping) for each in values)
    if isinstance(values, Mapping) or several:
        if not values:
            raise ConfigurationError(f"{name} are empty: expected tensors, what the network takes")
        if isinstance(values, Mapping):
            found: Samples = {str(key): as_samples(each, f"{name}[{key!r}]", device) for key, each in values.items()}
        else:
            found = tuple(as_samples(each, f"{name}[{k}]", device) for k, each in enumerate(values))
        if len({len(each) if each.ndim else -1 for each in leaves(found)}) != 1 or not leaves(found)[0].ndim:
            raise ConfigurationError(
                f"{name} hold tensors of shapes {', '.join(str(tuple(each.shape)) for each in leaves(found))}: expected the "
                "samples as first dimension of each, as many in all"
            )
        return found
    try:
        return torch.as_tensor(values if isinstance(values, Tensor) else np.asarray(values), device=device)
    except (TypeError, ValueError) as error:
        if not isinstance(values, Tensor) and np.asarray(values).dtype.kind in "SUTO" and "labels" in name:
            raise ConfigurationError(
                f"{name} are names ({shown(np.asarray(values).flat[0])}, …): expected classes as integers, which the loss "
                "compares with outputs; number them by np.unique(labels, return_inverse=True), which gives the names and the "
                "numbers, given and true labels and those of test data together"
            ) from error
        raise ConfigurationError(
            f"{name} are {kind_of(values)} ({str(error)[:60]}…): expected tensors or arrays of numbers, whose first "
            "dimension "
            "are the samples: one, several in a tuple or by name in a dictionary; or a torch Dataset"
        ) from error


def read_dataset(data: Any, name: str, memory_limit: int | float | str | None) -> tuple[Samples, Tensor]:
    """Return the samples and labels of a dataset, in its own order, each read once; what is too large, in a mapped file."""
    source, collate = (data.dataset, data.collate_fn) if isinstance(data, DataLoader) else (data, default_collate)
    if isinstance(source, IterableDataset) or not hasattr(source, "__len__"):
        raise ConfigurationError(
            f"{name} are a {type(source).__name__} without a length: expected a dataset of known samples (map-style), since "
            "the loss is an average over all of them; read it into tensors first"
        )
    n = len(source)
    if n == 0:
        raise ConfigurationError(f"{name} have no samples: expected at least one")
    few = range(min(2, n))
    with torch.random.fork_rng(devices=[]):
        first, again = (_batch(source, collate, few, name) for _ in range(2))
    if any(not torch.equal(one, other) for one, other in zip(leaves(first), leaves(again), strict=True)):
        warnings.warn(
            f"{name} are others each time they are read, as augmented data are: they are read once, and what was drawn then "
            "stays; give data that are not augmented",
            RandomDataWarning,
            stacklevel=4,
        )
    spilled = sum(each.nbytes for each in leaves(first)) / len(few) * n > as_bytes(memory_limit)
    whole = mapped(lambda each: _room(n, each, spilled), first)
    at = 0
    for piece in _pieces(source, collate, n, name):
        for target, part in zip(leaves(whole), leaves(piece), strict=True):
            if target.shape[1:] != part.shape[1:]:
                raise ConfigurationError(
                    f"{name} have samples of shapes {tuple(target.shape[1:])} and {tuple(part.shape[1:])}: expected "
                    "one shape "
                    "for all; pad them to one length in collate_fn of a DataLoader, with a mask by name beside them"
                )
            target[at : at + len(part)] = part
        at += number_of(piece)
    inputs, labels = whole
    return inputs, labels


def _pieces(source: Any, collate: Any, n: int, name: str) -> Iterator[tuple[Samples, Tensor]]:
    for start in range(0, n, _AT_A_TIME):
        yield _batch(source, collate, range(start, min(start + _AT_A_TIME, n)), name)


def _room(n: int, like: Tensor, spilled: bool) -> Tensor:
    """Return room for all samples, in memory or in a temporary file that goes with the tensor."""
    shape = (n, *like.shape[1:])
    if not spilled:
        return torch.empty(shape, dtype=like.dtype)
    with tempfile.TemporaryFile() as file:
        file.truncate(n * like[0].nbytes)
        return torch.from_numpy(np.memmap(file, dtype=np.uint8, mode="r+")).view(like.dtype).reshape(shape)


def _batch(source: Any, collate: Any, rows: range, name: str) -> tuple[Samples, Tensor]:
    """Return some samples and their labels."""
    samples = [source[k] for k in rows]
    keys = [sorted(map(str, each)) if isinstance(each, Mapping) else None for each in samples]
    if collate is default_collate and any(each != keys[0] for each in keys):
        other = next(k for k, each in enumerate(keys) if each != keys[0])
        raise ConfigurationError(
            f"sample {rows[0]} of {name} has {keys[0] or 'no names'} and sample {rows[other]} has "
            f"{keys[other] or 'no names'}: expected the same names in all, since they are put together by name; fill in what "
            "is missing"
        )
    if any(each is None for each in samples):
        raise ConfigurationError(
            f"sample {rows[samples.index(None)]} of {name} is None: expected inputs and a label, (inputs, label); return "
            "them from __getitem__"
        )
    try:
        made = collate(samples)
    except (RuntimeError, TypeError, ValueError) as error:
        raise ConfigurationError(
            f"samples {rows.start} to {rows.stop - 1} of {name} cannot be put together ({str(error).splitlines()[0][:120]}): "
            "expected samples of one shape; pad them to one length in collate_fn of a DataLoader, with a mask by name"
        ) from error
    if isinstance(made, Mapping):
        label = next((key for key in _LABELS if key in made), None)
        if label is not None and len(made) > 1:
            rest = {str(key): each for key, each in made.items() if key != label}
            return _tensors(rest, name), _tensors(made[label], name)
    elif isinstance(made, tuple | list) and len(made) > 1 and isinstance(made[-1], Tensor):
        inputs = _tensors(tuple(made[:-1]), name)
        return inputs[0] if len(inputs) == 1 else inputs, made[-1]
    raise ConfigurationError(
        f"a sample of {name} is {kind_of(source[rows[0]])}: expected inputs and a label, (inputs, label), or a "
        "dictionary with "
        f"one of {', '.join(_LABELS)}, since the loss takes both"
    )


def _tensors(made: Any, name: str) -> Samples:
    """Return what was put together, or raise where it is more than tensors, as of samples with a text."""
    if isinstance(made, Tensor):
        return made
    if isinstance(made, Mapping):
        return {str(key): _tensors(each, f"{key!r} of {name}") for key, each in made.items()}
    if isinstance(made, tuple | list) and all(isinstance(each, Tensor | Mapping | tuple | list) for each in made):
        return tuple(_tensors(each, name) for each in made)
    raise ConfigurationError(
        f"{name} are, put together, {kind_of(made)}: expected tensors, which the network takes; leave out what is none, a "
        "text or an identifier, in the dataset or in collate_fn of a DataLoader"
    )
