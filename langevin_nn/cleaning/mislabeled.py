"""Which samples are mislabeled, told from their losses over training."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from langevin_nn.analyzers import gaussian_mixture
from langevin_nn.analyzers.labels import described, on_clocks
from langevin_nn.cleaning.records import SampleRecords, sample_records

__all__ = ["cleaning_summary", "find_mislabeled"]

Floats = NDArray[np.float64]


def find_mislabeled(sample_loss: Any, given_label: Any = None, *, epoch: Any = None) -> xr.Dataset:
    """Tell which samples are mislabeled, from their losses over training, or refuse.

    Parameters
    ----------
    sample_loss : array, xarray.DataTree or xarray.Dataset
        Losses of shape (epoch, sample) or (replica, epoch, sample), or a trajectory with ``sample_loss``.
    given_label : array of int, shape (sample,) or (replica, sample), optional
        Class that each sample was trained on; a trajectory's own unless said.
    epoch : array, shape (epoch,), optional
        When an array's losses were recorded; 0, 1, 2, … unless said.

    Returns
    -------
    xarray.Dataset
        By run, ``mislabeled_probability``, ``mislabeled_score`` and ``is_removed`` (sample), ``is_refused`` and the
        ``reason``, ``mislabeled_fraction``, ``cleaning_record`` and ``cleaning_time`` (clock), ``score_threshold``,
        ``separation``, and with labels ``class_samples`` and ``class_removed`` (class).
    """
    records = sample_records(sample_loss, given_label, epoch)
    losses, clock, dims = records.losses, records.clock, records.dimensions
    score = -np.exp(-losses.values)
    score = score.cumsum(-2) / np.arange(1, score.shape[-2] + 1)[:, None]
    mixture = gaussian_mixture(score)
    distance = mixture.separation / np.sqrt((mixture.standard_deviation**2).sum(-1))
    known = np.isfinite(distance).any(-1)
    best = np.where(np.isfinite(distance), distance, -np.inf).argmax(-1)
    chosen = np.take_along_axis(score, best[..., None, None], -2)[..., 0, :]
    fitted = gaussian_mixture(chosen)
    probability = fitted.high_probability(chosen)
    refused = ~known | (fitted.components != 2)
    with np.errstate(invalid="ignore"):
        removed = (probability > 0.5) & ~refused[..., None]
    variables = {
        "mislabeled_probability": described([*dims, "sample"], probability, "probability that a label is wrong"),
        "mislabeled_score": described([*dims, "sample"], chosen, "what is divided"),
        "is_removed": described([*dims, "sample"], removed, "whether a sample is removed"),
        "is_refused": described(dims, refused, "whether nothing can be told"),
        "reason": described(dims, np.where(refused, "one component", ""), "why nothing is removed"),
        "mislabeled_fraction": described(dims, fitted.weight[..., 1], "estimated share of mislabeled samples"),
        "cleaning_record": described(dims, np.where(known, best, -1), "record up to which losses are used"),
        "cleaning_time": on_clocks(np.where(known, best, np.nan), losses, clock, dims, "time t_c of cleaning"),
        "score_threshold": described(dims, fitted.equal_density, "score that divides the components"),
        "separation": described(dims, distance.max(-1), "separation of the components"),
    }
    return xr.Dataset(variables).assign(_by_class(records, removed))


def _by_class(records: SampleRecords, removed: NDArray[np.bool_]) -> xr.Dataset:
    if records.labels is None:
        return xr.Dataset()
    classes = np.unique(records.labels)
    own = records.labels[..., None, :] == classes[:, None]
    dims = [*records.dimensions, "class"]
    return xr.Dataset(
        {
            "class_samples": described(dims, own.sum(-1), "samples of a given class"),
            "class_removed": described(dims, (own & removed[..., None, :]).sum(-1), "samples of a given class removed"),
        },
        coords={"class": described(["class"], classes, "given class")},
    )


def cleaning_summary(result: xr.Dataset) -> str:
    """Return what `find_mislabeled` would remove, in words.

    Parameters
    ----------
    result : xarray.Dataset
        Of `find_mislabeled`.

    Returns
    -------
    str
        A line for each run.
    """
    removed = np.atleast_2d(result.is_removed.values).reshape(-1, result.sizes["sample"]).sum(-1)
    return "\n".join(f"{count} of {result.sizes['sample']} samples would be removed" for count in removed)
