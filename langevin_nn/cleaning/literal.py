"""The paper's rule for cleaning, to the letter: for comparison."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr

from langevin_nn.analyzers import LossMixture
from langevin_nn.analyzers.labels import described, on_clocks
from langevin_nn.cleaning.records import sample_records

__all__ = ["literal_rule"]


def literal_rule(sample_loss: Any, *, epoch: Any = None) -> xr.Dataset:
    """Remove every sample above the threshold where the fitted means of the losses are farthest apart.

    Feng & Tu (2021, doi 10.1088/2632-2153/abf5b9), section 5: two Gaussians are fitted to the losses of each record,
    t_c is the record of the largest ΔL = m_w − m_c, and the loss l_c that divides them there is where their weighted
    densities are equal, or half-way between the means. It asks neither whether the fit is good nor whether the largest
    ΔL comes after samples have been learned by heart, and never refuses: `find_mislabeled` does better. A record that lacks
    a sample is not fitted; ``records_fitted`` counts those that are.

    Parameters
    ----------
    sample_loss : array, xarray.DataTree or xarray.Dataset
        Losses of shape (epoch, sample) or (replica, epoch, sample), or a trajectory with ``sample_loss``.
    epoch : array, shape (epoch,), optional
        When an array's losses were recorded; 0, 1, 2, … unless said.

    Returns
    -------
    xarray.Dataset
        By run, ``cleaning_record`` (its number; −1 where nothing could be fitted), ``cleaning_time`` (clock),
        ``separation`` ΔL, ``loss_threshold`` (threshold_rule: equal_density, midpoint), ``is_removed``
        (threshold_rule, sample; where there is no threshold, nothing is), ``mislabeled_fraction``, the weight of the
        high component, ``fit_is_poor``, and ``records_fitted``.

    Raises
    ------
    ConfigurationError
        If they are no such losses.
    EstimationRefused
        If there are too few samples, or no record is complete.

    Examples
    --------
    >>> generator = np.random.default_rng(0)
    >>> height = np.where(np.arange(1000) < 300, 1.0, 0.0) * np.array([[0.5], [3.0], [1.0]])
    >>> result = literal_rule(height + 0.1 * generator.standard_normal((3, 1000)) + 1.0)
    >>> result.cleaning_record.item(), result.is_removed.sum("sample").values
    (1, array([300, 300]))
    """
    records = sample_records(sample_loss, epoch=epoch)
    losses, clock, dims = records.losses, records.clock, records.dimensions
    mixture = LossMixture()(losses.to_dataset(name="sample_loss"))
    gap = mixture.separation.transpose(*dims, clock).values
    known = np.isfinite(gap).any(-1)
    best = np.where(np.isfinite(gap), gap, -np.inf).argmax(-1)
    at = mixture.isel({clock: xr.DataArray(best, dims=dims)}) if dims else mixture.isel({clock: int(best)})
    at = at.drop_vars(list(losses[clock].coords) if clock in losses.coords else [], errors="ignore")
    there = np.take_along_axis(losses.values, best[..., None, None], -2)[..., 0, :]
    threshold = at.loss_threshold.transpose(*dims, "threshold_rule")
    with np.errstate(invalid="ignore"):
        removed = there[..., None, :] > threshold.values[..., None]
    variables = {
        "cleaning_record": described(dims, np.where(known, best, -1), "record from which samples are removed"),
        "cleaning_time": on_clocks(
            np.where(known, best, np.nan), losses, clock, dims, "time t_c from which samples are removed"
        ),
        "records_fitted": described(
            dims, np.isfinite(losses.values).all(-1).sum(-1), "records of which no sample is missing"
        ),
        "separation": at.separation,
        "loss_threshold": threshold,
        "is_removed": described([*dims, "threshold_rule", "sample"], removed, "whether a sample is removed"),
        "mislabeled_fraction": described(
            dims, at.component_weight.sel(component="high").values, "share of the samples in the high component"
        ),
        "fit_is_poor": at.fit_is_poor,
    }
    return xr.Dataset(variables).drop_vars(["epoch", "time", clock, "component"], errors="ignore")
