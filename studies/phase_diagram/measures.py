"""What is measured on the runs: phases, collapse, and how sharp memorisation is."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from langevin_nn.analyzers import Timescales, collapse_distance, detect_phases, fit_power_law
from langevin_nn.errors import EstimationRefused
from studies.phase_diagram.plan import Config

__all__ = [
    "CURVES",
    "MEASURES",
    "PHASES",
    "boundaries",
    "collapse",
    "curves_of",
    "exponents",
    "of_one_size",
    "sharpness",
]

PHASES = ("II", "III", "IV")
CURVES = ("test_error", "train_error_correct", "train_error_mislabeled")
MEASURES = {
    "relative_spread": "relative spread of the time at which m = 1/2",
    "susceptibility": "fluctuation N_w Var m at m = 1/2",
    "slope": "slope dm/d ln t at m = 1/2",
}


def curves_of(runs: xr.Dataset) -> xr.Dataset:
    """Return runs with their curves by name, along the records of a common clock."""
    found = runs[["test_error"]].copy()
    for cohort in ("all", "correct", "mislabeled"):
        found[f"train_error_{cohort}"] = runs.train_error.sel(cohort=cohort, drop=True)
    return found


def boundaries(runs: xr.Dataset, n_test: int) -> xr.Dataset:
    """Return when phases begin, and the times and heights of the test error, at each point.

    Parameters
    ----------
    runs : xarray.Dataset
        Of the sweep.
    n_test : int
        Test samples.

    Returns
    -------
    xarray.Dataset
        By point: ``boundary`` (phase) with its interval, and ``reached``, the share of replicas that got there; without label
        noise there is one boundary, where everything is fitted, under IV. ``time_of_minimum``, ``time_of_fit``,
        ``minimum_test_error``, ``final_test_error`` with intervals.
    """
    pieces = []
    for noisy in (False, True):
        part = runs.sel(point=(runs.label_noise > 0) == noisy)
        if not part.sizes["point"]:
            continue
        phases = detect_phases(part)
        names = PHASES if noisy else PHASES[-1:]
        piece = xr.Dataset()
        for end in ("", "_lower", "_upper"):
            values = phases[f"mean_boundary_time{end}"].drop_vars("boundary").rename(boundary="phase")
            piece[f"boundary{end}"] = values.assign_coords(phase=list(names)).reindex(phase=list(PHASES))
        reached = phases["reached_count"].drop_vars("boundary").rename(boundary="phase") / runs.sizes["replica"]
        piece["reached"] = reached.assign_coords(phase=list(names)).reindex(phase=list(PHASES), fill_value=0.0)
        scales = Timescales(test_samples=n_test)(part).sel(clock="time", drop=True)
        for name in ("time_of_minimum", "time_of_fit", "minimum_test_error", "final_test_error"):
            for end in ("", "_lower", "_upper"):
                piece[name + end] = scales[f"mean_{name}{end}"]
        piece["censored"] = scales["is_censored"].mean("replica")
        pieces.append(piece)
    whole = xr.concat(pieces, "point", coords="minimal", compat="override", join="override")
    return whole.assign_attrs(long_name="phases of learning in gradient-flow time")


def collapse(runs: xr.Dataset) -> xr.Dataset:
    """Return how far apart the curves of each two pairs of learning rate and batch size are.

    Parameters
    ----------
    runs : xarray.Dataset
        At one label noise.

    Returns
    -------
    xarray.Dataset
        By ``pair`` of points: ``noise_ratio`` of their α/B, ``squared_distance`` (curve) with ``_standard_error``, and
        ``deviation`` (curve, record) in standard errors.
    """
    curves = curves_of(runs)
    level = (runs.learning_rate / runs.batch_size).values
    rows: list[xr.Dataset] = []
    for i, j in combinations(range(runs.sizes["point"]), 2):
        found = xr.concat(
            [collapse_distance(*(curves[name][k].values[:, 1:] for k in (i, j))) for name in CURVES],
            "curve",
        )
        first, second = (f"α={runs.learning_rate[k].item():g}, B={runs.batch_size[k].item()}" for k in (i, j))
        ratio = max(level[i], level[j]) / min(level[i], level[j])
        rows.append(found.assign_coords(noise_ratio=round(float(ratio), 6), first=first, second=second))
    result = xr.concat(rows, "pair").assign_coords(curve=list(CURVES))
    times = runs.time.values if runs.time.ndim == 1 else runs.time.values[0]
    return result.assign_coords(time=("record", times[1:]))


def sharpness(runs: xr.Dataset) -> xr.Dataset:
    """Return how sharp memorisation is, and how much it fluctuates, at each size.

    The order parameter is m, the share of mislabeled samples whose wrong label has been learned.

    Parameters
    ----------
    runs : xarray.Dataset
        Of several sizes.

    Returns
    -------
    xarray.Dataset
        By point: ``half_time`` at which m = ½, mean over replicas; ``relative_spread``, its standard deviation over replicas
        divided by it; ``susceptibility`` N_w Var m where the mean of m is ½, which is ¼ for independent samples; ``slope``
        dm/d ln t at m = ½, the mean over replicas. Each but the first with ``_relative_error``, that of its logarithm.
    """
    memorised = 1 - runs.train_error.sel(cohort="mislabeled", drop=True).transpose("point", "replica", "step").values
    given = np.rint(runs.label_noise * 10 * runs.samples_per_class).values
    n_wrong = given * 0.9  # a tenth of the redrawn labels are right
    times_of = np.broadcast_to(runs.time.values, (len(memorised), memorised.shape[2]))
    replicas = memorised.shape[1]
    rows: dict[str, list[float]] = {name: [] for name in ("half_time", "relative_spread", "susceptibility", "slope")}
    errors: dict[str, list[float]] = {name: [] for name in ("relative_spread", "susceptibility", "slope")}
    for point, own in enumerate(memorised):
        log_time = np.log(times_of[point, 1:])
        curves = own[:, 1:]
        halves, slopes = zip(*(_crossing(log_time, curve) for curve in curves), strict=True)
        middle, _ = _crossing(log_time, curves.mean(0))
        at_half = np.array([np.interp(middle, log_time, curve) for curve in curves])
        times = np.exp(np.array(halves))
        rows["half_time"].append(float(times.mean()))
        rows["relative_spread"].append(float(times.std(ddof=1) / times.mean()))
        rows["susceptibility"].append(float(n_wrong[point] * at_half.var(ddof=1)))
        rows["slope"].append(float(np.mean(slopes)))
        # Of a standard deviation and a variance of normal numbers, and of a mean.
        errors["relative_spread"].append((2 * (replicas - 1)) ** -0.5)
        errors["susceptibility"].append((2 / (replicas - 1)) ** 0.5)
        errors["slope"].append(float(np.std(slopes, ddof=1) / np.mean(slopes) / replicas**0.5))
    found = {name: ("point", values) for name, values in rows.items()}
    found |= {f"{name}_relative_error": ("point", values) for name, values in errors.items()}
    kept = {name: runs[name] for name in ("width", "samples_per_class")}
    return xr.Dataset(found, coords=kept)


def _crossing(log_time: NDArray[np.float64], curve: NDArray[np.float64]) -> tuple[float, float]:
    """Return ln t and dm/d ln t where a curve passes ½ for the last time; NaN where it does not."""
    above = curve >= 0.5
    if above.all() or not above[-1]:
        return np.nan, np.nan
    k = int(np.flatnonzero(~above)[-1])
    share = (0.5 - curve[k]) / (curve[k + 1] - curve[k])
    # The slope over a factor of 1.5 in time around it, which many records share.
    middle = log_time[k] + share * (log_time[k + 1] - log_time[k])
    near = np.abs(log_time - middle) <= np.log(1.5)
    slope = float(np.polyfit(log_time[near], curve[near], 1)[0]) if near.sum() > 2 else np.nan
    return float(middle), slope


def exponents(sizes: xr.Dataset, config: Config) -> xr.Dataset:
    """Return power laws of each measure against width and against the number of samples.

    Parameters
    ----------
    sizes : xarray.Dataset
        Of `sharpness`.
    config : Config
        Which sizes were swept.

    Returns
    -------
    xarray.Dataset
        `fit_power_law` by ``measure`` and ``size``.
    """
    rows = []
    for name in ("relative_spread", "susceptibility", "slope"):
        of_sizes = []
        for size in ("width", "samples"):
            part = of_one_size(sizes, config, size)
            scale = part.width if size == "width" else 10 * part.samples_per_class
            of_sizes.append(_fit(scale.values, part[name].values, part[f"{name}_relative_error"].values))
        rows.append(xr.concat(of_sizes, "size"))
    return xr.concat(rows, "measure").assign_coords(
        measure=["relative_spread", "susceptibility", "slope"], size=["width", "samples"]
    )


def _fit(sizes: NDArray[np.float64], values: NDArray[np.float64], errors: NDArray[np.float64]) -> xr.Dataset:
    """Return a power law; NaN and the reason where memorisation was seen at too few sizes, or something has no logarithm."""
    positive = bool((values > 0).all() and (errors > 0).all())
    try:
        if positive:
            return fit_power_law(sizes, values, errors)
    except EstimationRefused:
        pass
    blank, reason = fit_power_law([1, 2, 3], [1, 1, 1], [1, 1, 1]), "too few sizes" if positive else "not all above 0"
    return xr.Dataset({name: ((), reason if name == "verdict" else np.nan) for name in blank})


def of_one_size(sizes: xr.Dataset, config: Config, size: str) -> xr.Dataset:
    """Return the points that differ in width alone, or in samples alone, where memorisation was seen."""
    if size == "width":
        chosen = sizes.samples_per_class.isin([config.samples_per_class]) & sizes.width.isin(list(config.widths))
    else:
        chosen = sizes.width.isin([config.width]) & sizes.samples_per_class.isin(list(config.class_sizes))
    return sizes.sel(point=chosen & np.isfinite(sizes.relative_spread)).sortby(
        "width" if size == "width" else "samples_per_class"
    )
