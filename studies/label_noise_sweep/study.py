"""Sweep label noise from none to nearly all, and ask when training generalises best and when it has memorised all.

The paper's Figures 3B to 3D: the test error falls, stays low, rises while wrong labels are memorised, and stays high. t_m is
the time of its minimum ε_m; t_f the time from which the training set stays fitted (training error at most 0.1 %), and ε_f
the test error there. How do all four depend on the share of redrawn labels, and t_m on the number of samples? Each replica
has wrong labels, initial weights and minibatches of its own. Writes the runs, sweep.nc, claims.json, summary.json and a
figure, and says which of the paper's claims (4 and 6) hold.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from langevin_nn import Simulation, sgd
from langevin_nn.analyzers import Timescales, detect_phases, phase_means
from langevin_nn.checks import number, shown, whole_number
from langevin_nn.errors import ConfigurationError
from langevin_nn.observables import Losses
from langevin_nn.schedules import AtSteps
from studies.lab.choices import DEVIATIONS, Choices, landscape_of, load, settle
from studies.lab.choices import Settled as Chosen
from studies.lab.claims import Claim
from studies.lab.command import of_the_numbers
from studies.lab.study import Answer, Study, Work
from studies.lab.sweeps import record_times, whole_sweep
from studies.label_noise_sweep.claims import claims_of, size_findings
from studies.label_noise_sweep.figures import label_noise_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["STUDY", "Config", "Found", "Settled", "simulation"]

_QUICK: dict[str, Any] = {
    "dataset": "digits",
    "label_noises": (0.0, 0.1, 0.4, 0.5, 0.7, 0.9),
    "class_sizes": (6, 9, 12),
    "samples_per_class": 12,
    "hidden": (20, 20),
    "batch_size": 10,
    "learning_rate": 0.2,
    "epochs": 150.0,
    "records": 30,
    "replicas": 3,
    "workers": 1,
}


@dataclass(frozen=True)
class Config(Choices):
    """Everything that can be chosen."""

    label_noises: tuple[float, ...] = tuple(round(0.05 * k, 2) for k in range(20))
    """Shares of training samples whose label is redrawn from all classes; 0 is a control."""
    class_sizes: tuple[int, ...] | None = None
    """Training images of each class, at which t_m is measured at one label noise; an eighth of all to all unless given."""
    label_noise: float = 0.5
    """Label noise at which t_m is measured against the number of samples: one of those swept."""
    hidden: tuple[int, ...] = (50, 50)
    """Units of each hidden layer of a fully connected network."""
    records: int = 90
    """Records of each run: at equal distances at first, then at times of equal ratio."""
    replicas: int = 5
    """Replicas at each label noise, each with its own labels, initial weights and minibatches."""
    workers: int | None = None
    """Local processes; as many as there are cores unless given."""
    out: Path = field(default=Path("output/label_noise_sweep"))
    """Folder for the runs, sweep.nc, claims.json, summary.json and the figure."""


@dataclass(frozen=True, kw_only=True)
class Settled(Chosen, Config):
    """The same, with everything chosen."""

    samples_per_class: int
    class_sizes: tuple[int, ...]

    @property
    def smaller(self) -> list[int]:
        """Class sizes below that at which label noise is swept."""
        return sorted(each for each in self.class_sizes if each != self.samples_per_class)


@dataclass(frozen=True)
class Found:
    """What was measured.

    Parameters
    ----------
    curves : xarray.Dataset
        Errors by label noise.
    measures : xarray.Dataset
        Of `measures`, with the share of wrong labels.
    sizes : xarray.Dataset
        `Timescales` by point, with ``samples``.
    """

    curves: xr.Dataset
    measures: xr.Dataset
    sizes: xr.Dataset


class LabelNoiseSweep(Study[Config, Settled, Found]):
    """Claim 6, and the part of claim 4 that is about a range of label noise."""

    name = "label_noise_sweep"
    choices = Config
    quick = _QUICK
    table = "sweep.nc"
    drawn = ("label_noise_sweep",)
    has_claims = True

    def settle(self, choices: Config) -> Settled:
        settled = settle(Settled, choices, "swept")
        if choices.class_sizes is None:
            settled = replace(settled, class_sizes=tuple(settled.samples_per_class // each for each in (8, 4, 2, 1)))
        _check(settled)
        for size in settled.class_sizes:
            made = len(_made(settled)(settled.label_noise, size).due.steps) - 1
            if made < Timescales.least_records:
                raise ConfigurationError(
                    f"epochs={settled.epochs:g} and records={settled.records}: expected at least "
                    f"{Timescales.least_records} records after the start at updates of their own, got {made}; train longer"
                )
        return settled

    def plan(self, settled: Settled) -> dict[str, float]:
        # All runs have as many updates.
        return {"label noise": len(settled.label_noises), "number of samples": len(settled.smaller)}

    def measure(self, settled: Settled, work: Work) -> Found:
        made, workers = _made(settled), settled.workers
        with work.part("label noise"):
            grid = {"label_noise": settled.label_noises, "samples_per_class": [settled.samples_per_class]}
            by_noise = whole_sweep(made, grid, work.path("label_noise"), workers)
        with work.part("number of samples"):
            grid = {"label_noise": (settled.label_noise,), "samples_per_class": settled.smaller}
            by_size = whole_sweep(made, grid, work.path("size"), workers)
        whole = by_noise.isel(point=[list(by_noise.label_noise.values).index(settled.label_noise)])
        runs = by_noise.swap_dims(point="label_noise").sortby("label_noise")
        epochs = [_with_own_epochs(each) for each in (by_size, whole)]
        sizes = Timescales()(xr.concat(epochs, "point", coords="different", compat="equals", join="override"))
        data = load(settled)
        wrong = [
            float(landscape_of(data, settled, label_noise=each, hidden=settled.hidden).mislabeled.double().mean())
            for each in runs.label_noise.values
        ]
        return Found(
            runs[["test_error", "train_error"]],
            measures(runs, len(data.test_labels)).assign_coords(mislabeled_fraction=("label_noise", wrong)),
            sizes.assign_coords(samples=data.n_classes * sizes.samples_per_class),
        )

    def tables(self, settled: Settled, found: Found) -> dict[str, xr.Dataset]:
        return {"measures": found.measures, "sizes": found.sizes, "curves": found.curves}

    def claims(self, settled: Settled, found: Found) -> list[Claim]:
        setting = f"{settled.dataset}, {int(found.sizes.samples.max()):,} samples, {settled.replicas} replicas"
        return claims_of(found.measures, seed=settled.seed, figure="label_noise_sweep.png", setting=setting)

    def verdict(self, answer: Answer[Settled, Found]) -> str:
        lines = [each.in_words() for each in answer.claims]
        sizes = [f"  {each.in_words()}" for each in size_findings(answer.found.sizes)]
        return "\n".join([*lines, "Beside them, the number of samples:", *sizes])

    def summary(self, answer: Answer[Settled, Found]) -> dict[str, Any]:
        return {
            "number_of_samples": [each.in_words() for each in size_findings(answer.found.sizes)],
            "by_label_noise": _table(answer.found.measures),
            "by_samples": _size_table(answer.found.sizes),
            "deviations": list(DEVIATIONS),
        }

    def figures(self, answer: Answer[Settled, Found]) -> dict[str, Figure]:
        found = answer.found
        return {"label_noise_sweep": label_noise_figure(found.curves, found.measures, found.sizes)}


def _check(config: Settled) -> None:
    """Refuse what cannot run, or tells nothing."""
    noises, sizes = config.label_noises, config.class_sizes
    for each in (*noises, config.label_noise):
        number("label_noise", each, "a share of the samples, from 0 to 1", least=0, most=1)
    if len(set(noises)) < len(noises) or len(noises) < 6 or 0 not in noises or max(noises) <= 0.85:
        raise ConfigurationError(
            f"label_noises={shown(noises)}: expected 0, at least one above 0.85, and at least 4 others, each of them once, "
            "since lines are fitted through them, the paper's claim has a part about the end, and 0 is its control"
        )
    if config.label_noise not in noises or config.label_noise == 0:
        raise ConfigurationError(
            f"label_noise={config.label_noise}: expected one of those swept, {shown(noises)}, and not 0, since the test "
            "error has no minimum without it; add it to label_noises"
        )
    for each in sizes:
        whole_number("class_sizes", each, "at least 1 image (int) of each class", least=1)
    if len(set(sizes)) < 3 or len(set(sizes)) < len(sizes) or config.samples_per_class != max(sizes):
        raise ConfigurationError(
            f"class_sizes={shown(sizes)}: expected at least 3 of them, each once, of which the largest is "
            f"samples_per_class={config.samples_per_class}, at which the label noise is swept"
        )
    whole_number("records", config.records, "at least 12 (int), of a curve that is smoothed", least=12, most=10_000)


def simulation(label_noise: float, samples_per_class: int, *, config: Settled) -> Simulation:
    """Return the runs of all replicas at one label noise and number of samples.

    Parameters
    ----------
    label_noise : float
        Share of redrawn labels.
    samples_per_class : int
        Training images of each class.
    config : Settled
        Everything else.

    Returns
    -------
    Simulation
        Of as many updates, recorded at the same ones, whatever the number of samples.
    """
    data = load(replace(config, samples_per_class=samples_per_class))
    landscape = landscape_of(data, config, label_noise=label_noise, hidden=config.hidden)
    updates = len(data.train_labels) * config.samples_per_class / samples_per_class / config.batch_size
    steps = np.rint(record_times(config.epochs, config.records, least=0.33) * updates).astype(int)
    return Simulation(
        sgd(landscape, config.learning_rate, config.batch_size),
        steps=int(steps[-1]),
        replicas=config.replicas,
        # One for all points: each statistic is one number a replica over all of them, and intervals are over replicas.
        seed=config.seed,
        schedule=AtSteps(tuple(np.unique(steps).tolist())),
        observables=[Losses()],
    )


def _made(config: Settled) -> partial[Simulation]:
    return partial(simulation, config=of_the_numbers(config))


def _with_own_epochs(runs: xr.Dataset) -> xr.Dataset:
    """Return runs whose epochs and times are by point, whether or not they differ."""
    kept = runs[["test_error", "train_error"]]
    clocks = {name: runs[name] for name in ("epoch", "time") if "point" not in runs[name].dims}
    return kept.assign_coords({name: each.expand_dims(point=runs.sizes["point"]) for name, each in clocks.items()})


def measures(runs: xr.Dataset, test_samples: int) -> xr.Dataset:
    """Return times, errors and phases of each replica at each label noise.

    Parameters
    ----------
    runs : xarray.Dataset
        By ``label_noise``, 0 among them.
    test_samples : int
        Number of test samples.

    Returns
    -------
    xarray.Dataset
        By label noise and replica, and `clock` where it is a time: all that `Timescales` gives; ``has_four_phases``, whether
        each of the four has a record, NaN where the run ended before the last, without label noise as if half of the
        samples were called mislabeled at random, when both halves have the error of all; ``rise``, the test error's mean in
        phase IV less that in II; boundaries. The attribute ``epochs`` is the length of the runs.
    """
    found = Timescales(test_samples=test_samples)(runs)
    # Without mislabeled samples any split of the samples into cohorts has the error of all in both, but for chance.
    sham = runs.train_error.sel(cohort="all").where(runs.label_noise == 0)
    with_sham = runs.assign(train_error=runs.train_error.fillna(sham).transpose(*runs.train_error.dims))
    phases = detect_phases(with_sham)
    counts = xr.concat([(phases.phase == number).any("step") for number in range(1, 5)], "phase")
    means = phase_means(runs.test_error, phases)
    four = counts.all("phase").astype(np.float64).where(counts.isel(phase=-1, drop=True))
    found["has_four_phases"] = four.assign_attrs(long_name="whether all four phases have a record")
    rise = means.sel(phase="IV", drop=True) - means.sel(phase="II", drop=True)
    found["rise"] = rise.assign_attrs(long_name="test error in phase IV less that in II", units="1")
    kept = [name for name in phases.data_vars if "boundary_epoch" in str(name) or name == "reached_count"]
    found = found.assign({name: phases[name] for name in kept}).assign_coords(boundary=phases.boundary)
    return found.assign_attrs(epochs=float(runs.epoch.max()))


def _table(found: xr.Dataset) -> list[dict[str, Any]]:
    """Return a row for each label noise: means over replicas with their intervals."""
    names = ["minimum_test_error", "final_test_error", "time_of_minimum", "time_of_fit", "time_of_minimum_loss"]
    rows = []
    for k in range(found.sizes["label_noise"]):
        point = found.isel(label_noise=k).sel(clock="epoch")
        row: dict[str, Any] = {name: _rounded(point[name]) for name in ("label_noise", "mislabeled_fraction")}
        for name in names:
            row |= {f"{name}{end}": _rounded(point[f"mean_{name}{end}"]) for end in ("", "_lower", "_upper")}
        row |= {name: int(point[name]) for name in ("is_censored_count", "minimum_is_last_count")}
        row["share_with_four_phases"] = _rounded(point["has_four_phases"].mean(skipna=False))
        row["mean_boundary_epoch"] = [_rounded(each) for each in point["mean_boundary_epoch"]]
        rows.append(row)
    return rows


def _size_table(of_sizes: xr.Dataset) -> list[dict[str, Any]]:
    rows = []
    for k in range(of_sizes.sizes["point"]):
        point = of_sizes.isel(point=k)
        row: dict[str, Any] = {"samples": int(point.samples)}
        for clock in ("epoch", "step"):
            for end in ("", "_lower", "_upper"):
                row[f"time_of_minimum{end} ({clock})"] = _rounded(point[f"mean_time_of_minimum{end}"].sel(clock=clock))
        rows.append(row)
    return rows


def _rounded(value: xr.DataArray) -> float:
    return round(float(value), 4)


STUDY = LabelNoiseSweep()
