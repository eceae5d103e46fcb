"""Sweep label noise, learning rate and batch size, and ask of training what a physicist asks of a phase transition.

Which phases of learning exist, and when do they begin, in gradient-flow time? How do the minimum and the end of the test
error depend on label noise? Do runs of equal α/B fall onto one another, and where not? Does memorisation sharpen as the
network widens or the training set grows, as a phase transition would? Hundreds of runs on the digits, packed into batches and
spread over all cores. Writes phases.nc, summary.json and three figures, and prints what was found.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from langevin_nn.analyzers import Timescales
from langevin_nn.checks import number, shown, whole_number
from langevin_nn.errors import ConfigurationError
from studies.lab.study import Answer, Study, Work
from studies.lab.sweeps import whole_sweep
from studies.phase_diagram.figures import collapse_figure, finite_size_figure, phase_diagram_figure
from studies.phase_diagram.measures import (
    CURVES,
    MEASURES,
    PHASES,
    boundaries,
    collapse,
    curves_of,
    exponents,
    of_one_size,
    sharpness,
)
from studies.phase_diagram.plan import Config
from studies.phase_diagram.runs import digits, grids, simulation, times_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["STUDY", "Config", "Found"]

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
class Found:
    """What was measured.

    Parameters
    ----------
    boundaries, collapse, sharpness, exponents : xarray.Dataset
        Of the functions of `measures` of these names.
    curves : xarray.Dataset
        Of the runs that are held to one another.
    """

    boundaries: xr.Dataset
    collapse: xr.Dataset
    sharpness: xr.Dataset
    exponents: xr.Dataset
    curves: xr.Dataset


class PhaseDiagram(Study[Config, Config, Found]):
    """Phases against label noise, collapse against α/B, sharpness against size."""

    name = "phase_diagram"
    choices = Config
    quick = _QUICK
    table = "phases.nc"
    drawn = ("phase_diagram", "collapse", "finite_size")

    def settle(self, choices: Config) -> Config:
        _check(choices)
        return choices

    def plan(self, settled: Config) -> dict[str, float]:
        diagram, sizes = grids(settled)
        per_rate = settled.replicas * len(diagram["label_noise"]) * len(diagram["batch_size"])
        return {  # updates in a unit of time, of all replicas
            "diagram": per_rate * sum(1 / each for each in diagram["learning_rate"]),
            "sizes": settled.size_replicas * len(sizes) / settled.learning_rate,
        }

    def measure(self, settled: Config, work: Work) -> Found:
        diagram, sizes = grids(settled)
        point = partial(simulation, times=times_of(settled), seed=settled.seed)
        with work.part("diagram"):
            run = partial(point, replicas=settled.replicas)
            runs = whole_sweep(run, diagram, work.path("diagram"), settled.workers)
        with work.part("sizes"):
            run = partial(point, replicas=settled.size_replicas, of_sizes=True)
            sharp = sharpness(whole_sweep(run, sizes, work.path("sizes"), settled.workers))
        alike = runs.sel(point=runs.label_noise == settled.label_noise)
        return Found(
            boundaries(runs, len(digits(settled.samples_per_class).test_labels)),
            collapse(alike),
            sharp,
            exponents(sharp, settled),
            curves_of(alike),
        )

    def tables(self, settled: Config, found: Found) -> dict[str, xr.Dataset]:
        return {name: getattr(found, name) for name in ("boundaries", "collapse", "sharpness", "exponents")}

    def verdict(self, answer: Answer[Config, Found]) -> str:
        return _verdict(answer.found, answer.settled)

    def summary(self, answer: Answer[Config, Found]) -> dict[str, Any]:
        laws = answer.found.exponents
        return {
            "boundaries": _table(answer.found.boundaries),
            "collapse": _collapse_table(answer.found.collapse),
            "sharpness": _table(answer.found.sharpness),
            "exponents": {
                f"{measure} against {size}": {name: laws[name].sel(measure=measure, size=size).item() for name in laws}
                for measure in laws.measure.values
                for size in laws["size"].values
            },
        }

    def figures(self, answer: Answer[Config, Found]) -> dict[str, Figure]:
        settled, found = answer.settled, answer.found
        chosen = _at_base(found.boundaries, settled).sortby("label_noise").assign_attrs(replicas=settled.replicas)
        of_sizes = {size: of_one_size(found.sharpness, settled, size) for size in ("width", "samples")}
        return {
            "phase_diagram": phase_diagram_figure(chosen, settled.longest),
            "collapse": collapse_figure(found.curves, found.collapse),
            "finite_size": finite_size_figure(found.sharpness, found.exponents, of_sizes),
        }


def _check(config: Config) -> None:
    """Refuse what cannot be run, or tells nothing, before anything runs."""
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
    made, least = len(times_of(config)) - 1, Timescales.least_records
    if made < least:
        raise ConfigurationError(
            f"longest={config.longest:g} and records={config.records}: expected at least {least} records after the start at "
            f"updates of their own at every learning rate, got {made}; choose longer runs, or smaller learning rates"
        )
    diagram, sizes = grids(config)
    largest = {name: max(values) for name, values in diagram.items()}
    for each in (largest, *sizes):  # those that ask for most
        simulation(**each, replicas=1, times=times_of(config), seed=config.seed)


def _at_base(points: xr.Dataset, config: Config) -> xr.Dataset:
    """Return the points at the rate and size at which the diagram is drawn."""
    return points.sel(point=(points.learning_rate == config.learning_rate) & (points.batch_size == config.batch_size))


def _table(dataset: xr.Dataset) -> list[dict[str, Any]]:
    """Return a row for each point."""
    kept = dataset.drop_dims("replica", errors="ignore").drop_vars("phase", errors="ignore")
    points = (kept.isel(point=k) for k in range(kept.sizes["point"]))
    return [{str(name): each.values.tolist() for name, each in point.variables.items()} for point in points]


def _collapse_table(distances: xr.Dataset) -> list[dict[str, Any]]:
    return [
        {
            "first": str(pair["first"].item()),
            "second": str(pair["second"].item()),
            "noise_ratio": pair["noise_ratio"].item(),
            "squared_distance": dict(zip(CURVES, pair.squared_distance.values.tolist(), strict=True)),
            "standard_error": dict(zip(CURVES, pair.squared_distance_standard_error.values.tolist(), strict=True)),
        }
        for pair in (distances.isel(pair=k) for k in range(distances.sizes["pair"]))
    ]


def _verdict(found: Found, config: Config) -> str:
    base = _at_base(found.boundaries, config)
    lines = [
        f"Phases at α = {config.learning_rate:g}, B = {config.batch_size} begin in gradient-flow time (95 % interval over "
        f"{config.replicas} replicas):"
    ]
    for k in range(base.sizes["point"]):
        point = base.isel(point=k)
        said = [f"{phase} {_interval(point, phase)}" for phase in PHASES if point.label_noise > 0 or phase == "IV"]
        words = ", ".join(said) if point.label_noise > 0 else f"everything fitted {_interval(point, 'IV')}"
        lines.append(f"  label noise {point.label_noise.item():g}: {words}")
    distances = found.collapse
    equal = distances.noise_ratio <= 1.0001
    lines.append("")
    if bool(equal.any()):
        lines.append("Collapse: squared distance of curves in units of the variance between replicas, mean over pairs:")
        for curve in CURVES:
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
    for measure, name in MEASURES.items():
        for size in ("width", "samples"):
            fit = found.exponents.sel(measure=measure, size=size)
            lines.append(f"  {name} against {size}: {_fit_in_words(fit)}")
    return "\n".join(lines)


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


STUDY = PhaseDiagram()
