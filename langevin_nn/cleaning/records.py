"""What comes in: sample losses over training, as a user or our recorder has them, with the labels that were given."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from langevin_nn.analyzers.labels import clock_of, group_with, in_memory
from langevin_nn.checks import numbers
from langevin_nn.errors import ConfigurationError, EstimationRefused
from langevin_nn.statistics.mixture import LEAST_SAMPLES

__all__ = ["SampleRecords", "sample_records"]

Floats = NDArray[np.float64]

_CLOCK = "sample_step"
_LOSSES = "losses of shape (epoch, sample) or (replica, epoch, sample), or a trajectory with sample_loss"


@dataclass(frozen=True)
class SampleRecords:
    """Sample losses over training.

    What is missing is NaN and stays so: a sample that was not seen in an epoch, a record that was not taken. A divergence
    is something else. From the first record on in which most losses are infinite a run's records are left out, as are
    those that follow one in which most of its samples were seen for the last time, since a network that has diverged, like
    an epoch that was broken off, says little of the few that remain. An infinite loss of a few is missing.
    """

    losses: xr.DataArray  # shape (..., clock, sample), in memory
    clock: str
    labels: NDArray[np.int64] | None  # those that were given, shape (..., sample), where they are known

    @property
    def dimensions(self) -> list[str]:
        """Names of the dimensions before the clock's."""
        return [str(name) for name in self.losses.dims[:-2]]


def sample_records(sample_loss: Any, given_label: Any = None, epoch: Any = None) -> SampleRecords:
    """Return sample losses in one form, with the arguments of `find_mislabeled`, and refuse what are none."""
    if isinstance(sample_loss, xr.DataTree | xr.Dataset):
        if epoch is not None:
            raise ConfigurationError(
                "epoch came with a trajectory, which has clocks of its own: expected it with arrays"
            )
        dataset = group_with(sample_loss, "sample_loss")
    else:
        dataset = _dataset_of(sample_loss, epoch, given_label)
    recorded = dataset["sample_loss"]
    if "sample" not in recorded.dims:
        raise ConfigurationError(
            f"sample_loss has the dimensions {', '.join(map(str, recorded.dims))}: expected one called 'sample'"
        )
    clock = clock_of(recorded)
    ordered = recorded.transpose(..., clock, "sample")
    losses = in_memory(ordered)
    losses.values[_diverged(np.asarray(ordered.values))] = np.nan
    losses.values[np.isinf(losses.values)] = np.nan
    if not np.isfinite(losses.values).any():
        raise EstimationRefused(
            f"sample_loss: none of {losses[..., 0].size} records has a finite loss of any of {losses.sizes['sample']} "
            "samples: expected some before a divergence; select other replicas or record earlier",
            records=losses[..., 0].size,
            samples=losses.sizes["sample"],
        )
    if losses.sizes["sample"] < LEAST_SAMPLES:
        raise EstimationRefused(
            f"sample_loss has {losses.sizes['sample']} samples: expected at least {LEAST_SAMPLES}, since two components are "
            "fitted to their losses, which fewer do by chance; record more samples",
            samples=losses.sizes["sample"],
            samples_needed=LEAST_SAMPLES,
        )
    if given_label is None:
        given_label = dataset.get("given_label")
    return SampleRecords(losses, clock, None if given_label is None else _labels_of(given_label, losses))


def _diverged(losses: NDArray[Any]) -> NDArray[np.bool_]:
    """Return which records follow a divergence, shape (..., clock), for losses of shape (..., clock, sample)."""
    seen = np.isfinite(losses)
    later = np.logical_or.accumulate(seen[..., ::-1, :], axis=-2)[..., ::-1, :].sum(-1)  # samples seen then or after
    left = np.concatenate([later[..., 1:], np.zeros_like(later[..., :1])], axis=-1)
    most_gone = 2 * (later - left) > later[..., :1]
    # Each record that follows: an infinite one is left out itself.
    after = np.concatenate([np.zeros_like(most_gone[..., :1]), most_gone[..., :-1]], axis=-1)
    infinite = np.isinf(losses).sum(-1)
    return np.logical_or.accumulate((infinite > seen.sum(-1)) | after, axis=-1)


def _dataset_of(sample_loss: Any, epoch: Any, given_label: Any) -> xr.Dataset:
    losses = numbers("sample_loss", sample_loss, _LOSSES, finite=False)
    if losses.ndim not in (2, 3) or not losses.size:
        raise ConfigurationError(f"sample_loss has shape {losses.shape}: expected {_LOSSES}, with at least one of each")
    records, samples = losses.shape[-2:]
    labels = None
    with suppress(ValueError):  # rows of different lengths, which are refused as labels
        labels = None if given_label is None else np.shape(given_label)[-1:]
    if records > samples and epoch is None and labels != (samples,):
        raise ConfigurationError(
            f"sample_loss has shape {losses.shape}, more records than samples, where {_LOSSES} were expected: is it "
            "transposed? Pass sample_loss.T, or say with epoch or given_label that it is as meant"
        )
    expected = "one finite number a record, increasing"
    epochs = np.arange(records, dtype=np.float64) if epoch is None else numbers("epoch", epoch, expected)
    if epochs.shape != (records,) or (np.diff(epochs) <= 0).any():
        raise ConfigurationError(
            f"epoch has shape {epochs.shape}: expected ({records},), {expected}, since it says when losses were recorded"
        )
    dims = ("replica", _CLOCK, "sample")[-losses.ndim :]
    return xr.Dataset({"sample_loss": (dims, losses, {"units": "nat"})}, coords={"epoch": (_CLOCK, epochs)})


def _labels_of(given_label: Any, losses: xr.DataArray) -> NDArray[np.int64]:
    """Return labels with the leading dimensions of the losses."""
    shape = (*losses.shape[:-2], losses.shape[-1])
    shapes = dict.fromkeys((shape[-1:], shape))
    expected = (
        f"class numbers (int) from 0, one for each of {shape[-1]} samples (names of classes become numbers by "
        "np.unique(labels, return_inverse=True)[1])"
    )
    if isinstance(given_label, xr.DataArray):
        known = [name for name in (*losses.dims[:-2], "sample") if name in given_label.dims]
        missing = {name: losses.sizes[name] for name in losses.dims[:-2] if name not in known}
        labels = given_label.expand_dims(missing).transpose(*losses.dims[:-2], "sample").values
    else:
        labels = numbers("given_label", given_label, expected)
    if labels.shape not in (shape, shape[-1:]):
        raise ConfigurationError(
            f"given_label has shape {labels.shape}: expected {expected}, in shape {' or '.join(map(str, shapes))}; losses "
            "are compared within the classes that were given"
        )
    found = labels.astype(np.int64)
    refused = (found != labels) | (found < 0)
    if refused.any():
        raise ConfigurationError(
            f"given_label holds {labels[refused][0]:g} in {int(refused.sum())} places, the first is sample "
            f"{int(np.argwhere(refused)[0][-1])}: expected {expected}; losses are compared within the classes that were "
            "given, so leave samples without a class out"
        )
    return np.broadcast_to(found, shape)
