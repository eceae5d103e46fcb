"""Sweep label noise, learning rate and batch size, and ask of training what a physicist asks of a phase transition.

Which phases of learning exist, and when do they begin, in gradient-flow time? How do the minimum and the end of the test
error depend on label noise? Do runs of equal α/B fall onto one another, and where not? Does memorisation sharpen as the
network widens or the training set grows, as a phase transition would? Hundreds of runs on the digits, packed into batches and
spread over all cores. Writes the sweeps, phases.nc, summary.json and three figures, and prints what was found.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from functools import cache, partial
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from langevin_nn import NetworkLandscape, Seeds, Simulation, sgd
from langevin_nn.analyzers import Timescales, collapse_distance, detect_phases, fit_power_law
from langevin_nn.checks import number, shown, whole_number
from langevin_nn.errors import ConfigurationError, EstimationRefused
from langevin_nn.figures import collapse_figure, finite_size_figure, phase_diagram_figure, write_figures
from langevin_nn.observables import Losses
from langevin_nn.provenance import attributes, versions
from langevin_nn.report import say
from langevin_nn.schedules import AtSteps
from langevin_nn.store import write_trajectory
from langevin_nn.store.durable import write_json
from models.datasets import ImageData, load_dataset
from models.label_noise import corrupt_labels
from models.networks import multilayer_perceptron
from studies.command import Command, Output, checked, sized
from studies.paper.folder import begin, words_of
from studies.sweeps import common_times, record_times, whole_sweep

__all__ = ["Config", "main", "run", "verdict"]

NAME = "phase_diagram"
RESULTS = ("phases.nc", "summary.json", f"{NAME}.png", "collapse.png", "finite_size.png")
_PHASES = ("II", "III", "IV")
_CURVES = ("test_error", "train_error_correct", "train_error_mislabeled")
_QUICK: dict[str, Any] = {
    "label_noises": (0.0, 0.5),
    "learning_rates": (0.1, 0.2),
    "batch_sizes": (10, 20),
    "widths": (10, 20, 40),
    "class_sizes": (6, 9, 12),
    "width": 20,
    "samples_per_class": 12,
    "replicas": 4,
    "size_replicas": 6,
    "longest": 300.0,
    "records": 30,
    "workers": 1,
}


@dataclass(frozen=True)
class Config(Output):
    """Everything that can be chosen."""

    label_noises: tuple[float, ...] = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
    """Shares of training samples whose label is redrawn from all classes."""
    learning_rates: tuple[float, ...] = (0.05, 0.1, 0.2)
    """Learning rates α, in units of gradient-flow time."""
    batch_sizes: tuple[int, ...] = (10, 20, 40)
    """Minibatches B; with the learning rates, several pairs share α/B."""
    widths: tuple[int, ...] = (30, 40, 60, 90, 130, 200)
    """Units of each hidden layer, at which the sharpness of memorisation is measured."""
    class_sizes: tuple[int, ...] = (30, 45, 60, 90, 120)
    """Training samples a class, at which it is measured, too."""
    width: int = 50
    """Units of each of the two hidden layers elsewhere."""
    samples_per_class: int = 120
    """Training samples a class elsewhere."""
    label_noise: float = 0.5
    """Label noise of the collapse and of the sizes."""
    learning_rate: float = 0.1
    """Learning rate of the diagram against label noise and of the sizes: one of those swept."""
    batch_size: int = 20
    """Minibatch of the diagram against label noise and of the sizes: one of those swept."""
    replicas: int = 8
    """Replicas of each point of the diagram: their weights and minibatches differ, their labels do not."""
    size_replicas: int = 32
    """Replicas at each size, whose fluctuation is measured."""
    longest: float = 1800.0
    """Length of each run, in units of gradient-flow time."""
    records: int = 120
    """Records of each run, at times of equal ratio."""
    seed: int = 0
    """Owner of all randomness."""
    workers: int | None = None
    """Local processes; as many as there are cores unless given."""
    out: Path = field(default=Path("output/phase_diagram"))
    """Folder for the sweeps, phases.nc, summary.json and the figures."""

    def sized(self) -> Config:
        """Return the configuration that is run: with --quick, a smaller one."""
        return sized(self, _QUICK) if self.quick else self


def _checked(config: Config) -> None:
    for name, above in (("label_noises", -1e-300), ("learning_rates", 0.0), ("batch_sizes", 0.0)):
        values = getattr(config, name)
        if not values or len(set(values)) < len(values):
            raise ConfigurationError(f"{name}={shown(values)}: expected at least one value, each of them once")
        for each in values:
            number(name, each, f"numbers above {max(above, 0):g}, of a share, a rate or a count", above=above, most=1e9)
    for each in (*config.label_noises, config.label_noise):
        number("label_noise", each, "a share of the samples, from 0 to 1", least=0, most=1)
    for name, values in (("learning_rate", config.learning_rates), ("batch_size", config.batch_sizes)):
        if getattr(config, name) not in values:
            raise ConfigurationError(
                f"{name}={getattr(config, name)}: expected one of those swept, {shown(values)}, since the diagram against "
                f"label noise is drawn there; add it to {name}s"
            )
    if config.label_noise not in config.label_noises or config.label_noise == 0:
        raise ConfigurationError(
            f"label_noise={config.label_noise}: expected one of those swept, {shown(config.label_noises)}, and not 0, since "
            "there is no memorisation without it; add it to label_noises"
        )
    for name, values in (("widths", config.widths), ("class_sizes", config.class_sizes)):
        if len(set(values)) < 3 or len(set(values)) < len(values) or min(values) < 1:
            raise ConfigurationError(
                f"{name}={shown(values)}: expected at least 3 whole numbers from 1, each of them once, since a line goes "
                "through any two points"
            )
    whole_number("width", config.width, "at least 1 unit (int)", least=1, most=10_000)
    whole_number("samples_per_class", config.samples_per_class, "at least 1 sample (int)", least=1)
    whole_number("replicas", config.replicas, "at least 3 (int), since intervals leave one out", least=3, most=10_000)
    expected = "at least 6 (int), since their variance is measured"
    whole_number("size_replicas", config.size_replicas, expected, least=6, most=10_000)
    whole_number("records", config.records, "at least 12 (int), of a curve that is smoothed", least=12, most=10_000)
    number("longest", config.longest, "a finite time above 0", above=0, most=1e7)
    made, least = len(_times(config)) - 1, Timescales.least_records
    if made < least:
        raise ConfigurationError(
            f"longest={config.longest:g} and records={config.records}: expected at least {least} records after the start at "
            f"updates of their own at every learning rate, got {made}; choose longer runs, or smaller learning rates"
        )
    if config.workers is not None:
        whole_number("workers", config.workers, "at least 1 process (int)", least=1)


def _times(config: Config) -> tuple[float, ...]:
    """Return when runs are recorded: at the same times at every learning rate."""
    times = record_times(config.longest, config.records)
    return common_times(times.tolist(), (1 / rate for rate in config.learning_rates))


@cache
def _digits(samples_per_class: int) -> ImageData:
    return load_dataset("digits", samples_per_class=samples_per_class)


def simulation(
    label_noise: float,
    learning_rate: float,
    batch_size: int,
    width: int,
    samples_per_class: int,
    *,
    replicas: int,
    times: tuple[float, ...],
    seed: int,
    of_sizes: bool = False,
) -> Simulation:
    """Return the run at one point.

    Parameters
    ----------
    label_noise : float
        Share of redrawn labels, the same in all replicas.
    learning_rate : float
        α.
    batch_size : int
        B.
    width : int
        Units of each hidden layer.
    samples_per_class : int
        Training samples a class.
    replicas : int
        How many.
    times : tuple of float
        Of records, in gradient-flow time.
    seed : int
        Of the labels, which all points of a size share, and with the rates of everything else.
    of_sizes : bool, optional
        Whether width and samples give the point randomness of its own, too.

    Returns
    -------
    Simulation
        Recorded at the same gradient-flow times at every learning rate, to within half an update.
    """
    data = _digits(samples_per_class)
    noisy = corrupt_labels(data.train_labels, label_noise, seeds=Seeds(seed))
    landscape = NetworkLandscape(
        multilayer_perceptron((64, width, width, 10)),
        data.train_inputs,
        noisy.given_labels,
        true_labels=noisy.true_labels,
        test_inputs=data.test_inputs,
        test_labels=data.test_labels,
    )
    process = sgd(landscape, learning_rate, batch_size)
    last = round(times[-1] / learning_rate)
    # Weights and minibatches of their own wherever curves are compared or a law is fitted through points: rates, and sizes.
    ensemble = f"ensemble at α = {learning_rate!r}, B = {batch_size}"
    if of_sizes:
        ensemble += f", {width} units, {samples_per_class} samples a class"
    return Simulation(
        process,
        steps=last,
        replicas=replicas,
        seed=Seeds(seed).integer(ensemble, 0),
        schedule=AtSteps(tuple(int(each) for each in np.rint(np.array(times) / learning_rate))),
        observables=[Losses()],
    )


def _grids(config: Config) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Return the grid of the diagram and the points of the sizes."""
    diagram = {
        "label_noise": config.label_noises,
        "learning_rate": config.learning_rates,
        "batch_size": config.batch_sizes,
        "width": [config.width],
        "samples_per_class": [config.samples_per_class],
    }
    base = (config.label_noise, config.learning_rate, config.batch_size)
    pairs = [(width, config.samples_per_class) for width in config.widths]
    pairs += [(config.width, size) for size in config.class_sizes if (config.width, size) not in pairs]
    return diagram, [dict(zip(diagram, (*base, *pair), strict=True)) for pair in pairs]


def _sweeps(config: Config, place: Path) -> tuple[xr.Dataset, xr.Dataset]:
    """Return the trajectories of the diagram and of the sizes."""
    fixed: dict[str, Any] = {"times": _times(config), "seed": config.seed}
    diagram, sizes = _grids(config)
    one = whole_sweep(
        partial(simulation, replicas=config.replicas, **fixed), diagram, place / "diagram", config.workers
    )
    other = whole_sweep(
        partial(simulation, replicas=config.size_replicas, of_sizes=True, **fixed),
        sizes,
        place / "sizes",
        config.workers,
    )
    return one, other


def _refuse_what_cannot_run(config: Config) -> None:
    """Make the runs that ask for most, before any is run."""
    diagram, sizes = _grids(config)
    largest = {name: max(values) for name, values in diagram.items()}
    for each in (largest, *sizes):
        simulation(**each, replicas=1, times=_times(config), seed=config.seed)


def _with_own_cohorts(runs: xr.Dataset) -> xr.Dataset:
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
        names = _PHASES if noisy else _PHASES[-1:]
        piece = xr.Dataset()
        for end in ("", "_lower", "_upper"):
            values = phases[f"mean_boundary_time{end}"].drop_vars("boundary").rename(boundary="phase")
            piece[f"boundary{end}"] = values.assign_coords(phase=list(names)).reindex(phase=list(_PHASES))
        reached = phases["reached_count"].drop_vars("boundary").rename(boundary="phase") / runs.sizes["replica"]
        piece["reached"] = reached.assign_coords(phase=list(names)).reindex(phase=list(_PHASES), fill_value=0.0)
        scales = Timescales(test_samples=n_test)(part)
        for name in ("time_of_minimum", "time_of_fit"):
            for end in ("", "_lower", "_upper"):
                piece[name + end] = scales[f"mean_{name}{end}"].sel(clock="time", drop=True)
        for name in ("minimum_test_error", "final_test_error"):
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
    curves = _with_own_cohorts(runs)
    level = (runs.learning_rate / runs.batch_size).values
    rows: list[xr.Dataset] = []
    for i, j in combinations(range(runs.sizes["point"]), 2):
        found = xr.concat(
            [collapse_distance(*(curves[name][k].values[:, 1:] for k in (i, j))) for name in _CURVES],
            "curve",
        )
        first, second = (f"α={runs.learning_rate[k].item():g}, B={runs.batch_size[k].item()}" for k in (i, j))
        ratio = max(level[i], level[j]) / min(level[i], level[j])
        rows.append(found.assign_coords(noise_ratio=round(float(ratio), 6), first=first, second=second))
    result = xr.concat(rows, "pair").assign_coords(curve=list(_CURVES))
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
            part = _of_one_size(sizes, config, size)
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


def _of_one_size(sizes: xr.Dataset, config: Config, size: str) -> xr.Dataset:
    """Return the points that differ in width alone, or in samples alone, where memorisation was seen."""
    if size == "width":
        chosen = sizes.samples_per_class.isin([config.samples_per_class]) & sizes.width.isin(list(config.widths))
    else:
        chosen = sizes.width.isin([config.width]) & sizes.samples_per_class.isin(list(config.class_sizes))
    return sizes.sel(point=chosen & np.isfinite(sizes.relative_spread)).sortby(
        "width" if size == "width" else "samples_per_class"
    )


def run(config: Config) -> dict[str, xr.Dataset]:
    """Run the study and write its results.

    Parameters
    ----------
    config : Config
        What was chosen.

    Returns
    -------
    dict of str to xarray.Dataset
        ``boundaries``, ``collapse``, ``sharpness`` and ``exponents``.

    Raises
    ------
    ConfigurationError
        If a choice cannot be run, or points failed.
    EstimationRefused
        If memorisation was seen at too few sizes.
    """
    config = checked(config).sized()
    _checked(config)
    _refuse_what_cannot_run(config)
    place = begin(config, NAME, RESULTS, runs="sweeps")
    started = time.perf_counter()
    diagram, of_sizes = _sweeps(config, place)
    n_test = len(_digits(config.samples_per_class).test_labels)
    found = {"boundaries": boundaries(diagram, n_test)}
    found["collapse"] = collapse(diagram.sel(point=diagram.label_noise == config.label_noise))
    found["sharpness"] = sharpness(of_sizes)
    found["exponents"] = exponents(found["sharpness"], config)
    tree = xr.DataTree.from_dict({f"/{name}": each for name, each in found.items()})
    tree.attrs.update(attributes(_described(config)))
    write_trajectory(tree, config.out / "phases.nc", overwrite=True)
    summary = {
        "verdict": verdict(found, config).splitlines(),
        "boundaries": _table(found["boundaries"]),
        "collapse": _collapse_table(found["collapse"]),
        "sharpness": _table(found["sharpness"]),
        "exponents": {
            f"{measure} against {size}": {
                name: found["exponents"][name].sel(measure=measure, size=size).item() for name in found["exponents"]
            }
            for measure in found["exponents"].measure.values
            for size in found["exponents"]["size"].values
        },
        "configuration": words_of(config),
        "versions": versions(),
        "seconds": round(time.perf_counter() - started, 1),
    }
    write_json(config.out / "summary.json", summary)
    _draw(config, found, diagram)
    return found


def _draw(config: Config, found: dict[str, xr.Dataset], diagram: xr.Dataset) -> None:
    chosen = found["boundaries"].sel(
        point=(found["boundaries"].learning_rate == config.learning_rate)
        & (found["boundaries"].batch_size == config.batch_size)
    )
    figures = {
        "phase_diagram": phase_diagram_figure(
            chosen.sortby("label_noise").assign_attrs(replicas=config.replicas), config.longest
        ),
        "collapse": collapse_figure(
            _with_own_cohorts(diagram.sel(point=diagram.label_noise == config.label_noise)), found["collapse"]
        ),
        "finite_size": finite_size_figure(
            found["sharpness"],
            found["exponents"],
            {s: _of_one_size(found["sharpness"], config, s) for s in ("width", "samples")},
        ),
    }
    write_figures(figures, config.out)


def _table(dataset: xr.Dataset) -> list[dict[str, Any]]:
    """Return a row for each point."""
    rows = []
    for k in range(dataset.sizes["point"]):
        point = dataset.isel(point=k)
        names = [
            name for name in point.variables if name not in ("phase", "replica") and "replica" not in point[name].dims
        ]
        rows.append({str(name): point[name].values.tolist() for name in names})
    return rows


def _collapse_table(distances: xr.Dataset) -> list[dict[str, Any]]:
    return [
        {
            "first": str(pair["first"].item()),
            "second": str(pair["second"].item()),
            "noise_ratio": pair["noise_ratio"].item(),
            "squared_distance": dict(zip(_CURVES, pair.squared_distance.values.tolist(), strict=True)),
            "standard_error": dict(zip(_CURVES, pair.squared_distance_standard_error.values.tolist(), strict=True)),
        }
        for pair in (distances.isel(pair=k) for k in range(distances.sizes["pair"]))
    ]


def _described(config: Config) -> dict[str, object]:
    return {"study": NAME, "seed": config.seed, "choices": words_of(config)}


def verdict(found: dict[str, xr.Dataset], config: Config) -> str:
    """Return what was found, in words.

    Parameters
    ----------
    found : dict of str to xarray.Dataset
        Of `run`.
    config : Config
        What was chosen.

    Returns
    -------
    str
        Some lines on phases, collapse and sizes.
    """
    every = found["boundaries"]
    base = every.sel(point=(every.learning_rate == config.learning_rate) & (every.batch_size == config.batch_size))
    lines = [
        f"Phases at α = {config.learning_rate:g}, B = {config.batch_size} begin in gradient-flow time (95 % interval over "
        f"{config.replicas} replicas):"
    ]
    for k in range(base.sizes["point"]):
        point = base.isel(point=k)
        said = [f"{phase} {_interval(point, phase)}" for phase in _PHASES if point.label_noise > 0 or phase == "IV"]
        words = ", ".join(said) if point.label_noise > 0 else f"everything fitted {_interval(point, 'IV')}"
        lines.append(f"  label noise {point.label_noise.item():g}: {words}")
    distances = found["collapse"]
    equal = distances.noise_ratio <= 1.0001
    lines.append("")
    if bool(equal.any()):
        lines.append("Collapse: squared distance of curves in units of the variance between replicas, mean over pairs:")
        for curve in _CURVES:
            parts = []
            for ratio in np.unique(distances.noise_ratio.values):
                chosen = distances.squared_distance.sel(curve=curve)[distances.noise_ratio.values == ratio]
                parts.append(
                    f"{chosen.mean().item():.2f} at α/B {'equal' if ratio <= 1.0001 else f'apart by {ratio:g}'}"
                )
            lines.append(f"  {curve.replace('_', ' ')}: {', '.join(parts)}")
        lines.append(f"  {_where_it_fails(distances.isel(pair=equal.values))}")
    else:
        lines.append("Collapse: no two pairs share α/B; choose learning rates and batch sizes that do.")
    lines += ["", f"Sharpness of memorisation over {config.size_replicas} replicas (share m of wrong labels learned):"]
    for measure, name in _MEASURES.items():
        for size in ("width", "samples"):
            fit = found["exponents"].sel(measure=measure, size=size)
            lines.append(f"  {name} against {size}: {_fit_in_words(fit)}")
    return "\n".join(lines)


_MEASURES = {
    "relative_spread": "relative spread of the time at which m = 1/2",
    "susceptibility": "fluctuation N_w Var m at m = 1/2",
    "slope": "slope dm/d ln t at m = 1/2",
}


def _fit_in_words(fit: xr.Dataset) -> str:
    law = f"exponent {fit.exponent.item():.2f} ({fit.exponent_lower.item():.2f} to {fit.exponent_upper.item():.2f})"
    chance = f"p = {fit.p_value.item():.2g}"
    said = str(fit.verdict.item())
    if said == "too few sizes":
        return "memorisation was seen at fewer than 3 sizes, too few to fit an exponent"
    if said == "no power law":
        return f"no exponent can be fitted: a power law misses the points by more than their errors ({chance})"
    if said == "no dependence seen":
        return f"no dependence seen: {law}, {chance}"
    return f"{law}, {chance}"


def _interval(point: xr.Dataset, phase: str) -> str:
    own = point.sel(phase=phase)
    if np.isfinite(own.boundary.item()):
        return f"at {own.boundary.item():.0f} ({own.boundary_lower.item():.0f} to {own.boundary_upper.item():.0f})"
    return f"reached by {own.reached.item():.0%} of replicas"


def _where_it_fails(pairs: xr.Dataset) -> str:
    """Say at which times curves of equal α/B differ by more than chance."""
    worst = np.abs(pairs.deviation.transpose("pair", "curve", "record").values).reshape(-1, pairs.sizes["record"])
    known = np.isfinite(worst)  # not where nothing varies between replicas
    shares = (worst > 3).sum(axis=0) / np.maximum(known.sum(axis=0), 1)
    times = pairs.time.values
    if not (shares > 0.1).any():
        return "Runs of equal α/B differ nowhere by more than three standard errors in a tenth of pairs and curves."
    failing = times[shares > 0.1]
    return (
        f"Runs of equal α/B differ by more than three standard errors in a tenth of pairs and curves at {len(failing)} of "
        f"{len(times)} records, between times {failing.min():.0f} and {failing.max():.0f}."
    )


def _study(config: Config) -> None:
    found = run(config)
    say(verdict(found, config.sized()))
    say(f"\nResults are in {config.out}: sweeps/, {', '.join(RESULTS)}.")


main = Command(NAME, Config, __doc__, _study)


if __name__ == "__main__":
    raise SystemExit(main())
