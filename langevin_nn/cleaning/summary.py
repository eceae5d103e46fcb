"""What a cleaning would remove, in words."""

from __future__ import annotations

import numpy as np
import xarray as xr

from langevin_nn.analyzers.labels import require

__all__ = ["cleaning_summary"]


def cleaning_summary(result: xr.Dataset) -> str:
    """Return what `find_mislabeled` would remove, in words.

    Parameters
    ----------
    result : xarray.Dataset
        Of `find_mislabeled`.

    Returns
    -------
    str
        A paragraph for each run: how many samples it would remove and why so many, class by class where labels were
        given; or why it refuses. How many samples have no verdict, and how many records were left out.

    Raises
    ------
    ConfigurationError
        If it is another dataset.
    """
    require(
        result,
        *("is_removed", "is_refused", "reason", "separation", "cleaning_time"),
        *("samples_seen", "samples_judged", "records_missing"),
    )
    dims = list(result.is_refused.dims)
    paragraphs = []
    for index in np.ndindex(*(result.sizes[name] for name in dims)):
        place = dict(zip(dims, index, strict=True))
        where = ", ".join(f"{name} {number}" for name, number in place.items())
        paragraphs.append(f"{where}: " * bool(where) + _of_one(result.isel(place)))
    return "\n".join(paragraphs)


def _of_one(run: xr.Dataset) -> str:
    n = run.sizes["sample"]
    never, seldom = n - int(run.samples_seen), int(run.samples_seen - run.samples_judged)
    unseen = f"; {never} were never seen and have no verdict" * bool(never)
    unseen += f"; {seldom} were seen too seldom while the network learned and have no verdict" * bool(seldom)
    unseen += f"; records without any loss, left out: {int(run.records_missing)}" * bool(run.records_missing)
    if bool(run.is_refused):
        return f"nothing would be removed of {n} samples: {run.reason.item()}{unseen}"
    clock = "epoch" if "epoch" in run.clock.values else str(run.clock.values[0])
    removed = int(run.is_removed.sum())
    words = (
        f"{removed} of {n} samples ({removed / n:.1%}) would be removed, by their losses until {clock} "
        f"{run.cleaning_time.sel(clock=clock).item():g}; {run.mislabeled_fraction.item():.1%} are estimated to be "
        f"mislabeled, the components are {run.separation.item():.1f} standard deviations apart, and the predicted precision "
        f"is {run.predicted_precision.item():.2f}{unseen}"
    )
    if "class_removed" in run:
        counts = zip(run["class"].values, run.class_removed.values, run.class_samples.values, strict=True)
        words += "; by class " + ", ".join(f"{name}: {lost} of {all_}" for name, lost, all_ in counts)
    return words
