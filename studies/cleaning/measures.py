"""Measures of cleaning: quality, what was removed, how far the losses of the cohorts are apart."""

from __future__ import annotations

import numpy as np
import scipy
import xarray as xr
from numpy.typing import NDArray

from langevin_nn.analyzers.labels import described

__all__ = ["cleaning_quality", "final_accuracy", "removal", "results_of", "separability"]

# Rule → what is stopped, rather than cleaned, at its time t_c.
STOPPED = {"stopped_ours": "find_mislabeled", "stopped_literal": "equal_density"}


def final_accuracy(accuracy: xr.DataArray) -> xr.DataArray:
    """Return the mean over the last tenth of the updates.

    Parameters
    ----------
    accuracy : xarray.DataArray, shape (..., step)
        With the coordinate ``step``.

    Returns
    -------
    xarray.DataArray, shape (...)
        NaN where there is none.

    Examples
    --------
    >>> curve = xr.DataArray([0.0, 0.5, 0.8, 0.9], dims="step", coords={"step": [0, 50, 90, 100]})
    >>> final_accuracy(curve).round(6).item()
    0.85
    """
    last = accuracy.step >= 0.9 * accuracy.step[-1]
    return accuracy.where(last, drop=True).mean("step", skipna=False)


def cleaning_quality(cleaned: xr.DataArray, uncleaned: xr.DataArray, pure: xr.DataArray) -> xr.DataArray:
    """Return Q = (a_c − a_n)/(a_p − a_n): 0 as without cleaning, 1 as without mislabeled samples.

    Feng & Tu (2021, doi 10.1088/2632-2153/abf5b9), section 5.

    Parameters
    ----------
    cleaned, uncleaned, pure : xarray.DataArray
        Test accuracies a_c, a_n, a_p.

    Returns
    -------
    xarray.DataArray
        NaN where a_p = a_n: there is nothing to recover.

    Examples
    --------
    >>> cleaning_quality(xr.DataArray([0.5, 0.8, 0.9]), xr.DataArray(0.5), xr.DataArray(0.9)).values
    array([0.  , 0.75, 1.  ])
    """
    gap = pure - uncleaned
    return (cleaned - uncleaned) / gap.where(gap != 0)


def removal(is_removed: xr.DataArray, score: xr.DataArray, mislabeled: xr.DataArray) -> xr.Dataset:
    """Return how well removed samples match mislabeled ones.

    Parameters
    ----------
    is_removed, score : xarray.DataArray, shape (..., sample)
        What a rule removes, and the order in which it would.
    mislabeled : xarray.DataArray, shape (..., sample)
        The truth.

    Returns
    -------
    xarray.Dataset
        ``precision``, the share of mislabeled samples among those removed (NaN where none is), ``recall``, the share of
        mislabeled samples that are removed (NaN where there are none), ``removed_share`` of all, and
        ``area_under_curve``, the probability that a mislabeled sample has a higher score than a correct one.

    Examples
    --------
    >>> flags = xr.DataArray([1, 1, 0, 0], dims="sample")
    >>> found = removal(flags, xr.DataArray([4.0, 3.0, 2.0, 1.0], dims="sample"), xr.DataArray([1, 0, 0, 0], dims="sample"))
    >>> found.precision.item(), found.recall.item(), found.removed_share.item(), found.area_under_curve.item()
    (0.5, 1.0, 0.5, 1.0)
    """
    removed, wrong = is_removed.astype(bool), mislabeled.astype(bool)
    both = (removed & wrong).sum("sample")
    counts, wrongs = removed.sum("sample"), wrong.sum("sample")
    area = xr.apply_ufunc(_area, score, wrong, input_core_dims=[["sample"], ["sample"]], vectorize=True)
    return xr.Dataset(
        {
            "precision": (both / counts.where(counts > 0)).assign_attrs(long_name="precision", units="1"),
            "recall": (both / wrongs.where(wrongs > 0)).assign_attrs(long_name="recall", units="1"),
            "removed_share": removed.mean("sample").assign_attrs(long_name="share of samples removed", units="1"),
            "area_under_curve": area.assign_attrs(long_name="area under the curve of the score", units="1"),
        }
    )


def _area(score: NDArray[np.float64], wrong: NDArray[np.bool_]) -> float:
    """Return the probability that a mislabeled sample scores higher, ties halved."""
    if not wrong.any() or wrong.all() or not np.isfinite(score).all():
        return np.nan
    high, low = score[wrong], score[~wrong]
    return float(scipy.stats.mannwhitneyu(high, low, method="asymptotic").statistic / (len(high) * len(low)))


def separability(sample_loss: xr.DataArray, mislabeled: xr.DataArray) -> xr.Dataset:
    """Return how far apart the losses of correct and mislabeled samples are, record by record.

    Parameters
    ----------
    sample_loss : xarray.DataArray, shape (replica, step, sample)
        Losses.
    mislabeled : xarray.DataArray, shape (replica, sample)
        The cohorts.

    Returns
    -------
    xarray.Dataset
        By record: ``area_under_curve``, the probability that a mislabeled sample has the larger loss, ½ for equal
        distributions; ``kolmogorov_smirnov``, the largest difference of their cumulative distributions;
        ``transport_distance``, the mean distance along the axis of losses by which one must be moved to become the
        other (Wasserstein's W₁), in nats. The first two know the order of losses only; the last one is small where all
        losses are.
    """
    losses = sample_loss.transpose("replica", "step", "sample")
    wrong = mislabeled.transpose("replica", "sample").values.astype(bool)
    rows = [
        [[_area(each, flags), *_distances(each[~flags], each[flags])] for each in own]
        for own, flags in zip(losses.values.astype(np.float64), wrong, strict=True)
    ]
    values = np.array(rows)
    names = {
        "area_under_curve": ("probability that a mislabeled sample has the larger loss", "1"),
        "kolmogorov_smirnov": ("Kolmogorov–Smirnov distance of the cohorts' losses", "1"),
        "transport_distance": ("distance of the cohorts' losses along their axis", "nat"),
    }
    return xr.Dataset(
        {
            name: described(["replica", "step"], values[..., k], text, units)
            for k, (name, (text, units)) in enumerate(names.items())
        },
        coords={name: losses[name] for name in ("replica", "step", "epoch") if name in losses.coords},
    )


def _distances(correct: NDArray[np.float64], wrong: NDArray[np.float64]) -> tuple[float, float]:
    if not len(correct) or not len(wrong):
        return np.nan, np.nan
    distance = scipy.stats.ks_2samp(correct, wrong, method="asymp").statistic
    return float(distance), float(scipy.stats.wasserstein_distance(correct, wrong))


def results_of(whole: xr.DataTree, rest: xr.Dataset) -> xr.Dataset:
    """Return accuracies, qualities and removals of all rules.

    Parameters
    ----------
    whole : xarray.DataTree
        Runs on all samples, by point with ``label_noise``.
    rest : xarray.Dataset, dimensions (label_noise, replica, rule, ...)
        Of `cleaned`; missing where a rule was not tried.

    Returns
    -------
    xarray.Dataset
        ``accuracy_uncleaned`` and ``accuracy_pure`` (label_noise, replica); by ``rule``, ``accuracy_cleaned`` and
        ``cleaning_quality``, where a refusal is as no cleaning; by ``cleaning_rule``, what `removal` gives,
        ``is_refused`` and ``cleaning_epoch``, t_c. The rules of `STOPPED` take the test accuracy at another's t_c.
    """
    curve = _by_noise(1 - whole.test_error)
    uncleaned = final_accuracy(curve)
    final = final_accuracy(rest.accuracy)
    rules = [str(name) for name in rest.rule.values if name != "pure"]
    pure = final.sel(rule="pure", drop=True)
    records = rest.cleaning_record
    stopped = [
        uncleaned.where(
            rest.is_refused.sel(rule=name) == 1, curve.isel(step=records.sel(rule=name).fillna(0).astype(int))
        )
        .where(records.sel(rule=name).notnull())
        .assign_coords(rule=new)
        for new, name in STOPPED.items()
    ]
    kept = [each.drop_vars(["step", "epoch", "time", "learning_rate"], errors="ignore") for each in stopped]
    cleaned = xr.concat([final.sel(rule=rules), *kept], "rule", coords="minimal", compat="override")
    decided = rest.sel(rule=rules).rename(rule="cleaning_rule")
    wrong = _by_noise(whole["samples"].to_dataset().mislabeled)
    found = removal(decided.is_removed.fillna(0), decided.score, wrong).where(decided.is_refused.notnull())
    quality = cleaning_quality(cleaned, uncleaned, pure)
    known = (decided.cleaning_record.notnull() & (decided.is_refused == 0)).values
    epochs = np.where(known, curve.epoch.values[decided.cleaning_record.fillna(0).astype(int)], np.nan)
    order = ("label_noise", "replica", "rule")
    return found.assign(
        accuracy_uncleaned=_named(uncleaned, "test accuracy a_n without cleaning"),
        accuracy_pure=_named(pure, "test accuracy a_p of training on the correct labels alone"),
        accuracy_cleaned=_named(cleaned.transpose(*order), "test accuracy a_c with cleaning"),
        cleaning_quality=_named(quality.transpose(*order), "cleaning quality Q"),
        is_refused=decided.is_refused,
        cleaning_epoch=_named(decided.cleaning_record.copy(data=epochs), "epoch t_c of cleaning"),
    ).drop_vars(["step", "time", "learning_rate", "effective_learning_rate"], errors="ignore")


def _by_noise(values: xr.DataArray) -> xr.DataArray:
    """Return values by label noise rather than by point."""
    return values.load().swap_dims(point="label_noise").drop_vars("point", errors="ignore").sortby("label_noise")


def _named(values: xr.DataArray, long_name: str) -> xr.DataArray:
    return values.assign_attrs(long_name=long_name, units="1")
