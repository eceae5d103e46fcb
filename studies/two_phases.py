"""Train without label noise, and ask whether learning has two phases, fast learning and exploration, as the paper reports.

One long run, measured over the weights between the hidden layers and over all parameters: losses, order parameters, noise
spectra, and averages over time beside those over minibatches. Networks of several widths tell how the effective dimension
depends on size; a grid of learning rates and minibatches, whether both phases are there whatever these are. Decides claims 1
to 3. Writes trajectories, two_phases.nc, claims.json, summary.json and figures, and prints what was found.
"""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from langevin_nn.analyzers import TimeAveragedOrderParameters, detect_phases, fit_power_law, logarithm, phase_means
from langevin_nn.checks import number, shown, whole_number
from langevin_nn.errors import ConfigurationError, EstimationRefused
from langevin_nn.figures import (
    effective_dimension_figure,
    gradient_sketch,
    rates_figure,
    time_average_figure,
    two_phases_figure,
    two_spectra_figure,
    write_figures,
)
from langevin_nn.provenance import attributes
from langevin_nn.report import say
from langevin_nn.store import write_trajectory
from models.datasets import ImageData
from studies.command import Command
from studies.paper.claims import Claim, write_claims
from studies.paper.folder import begin, finish, words_of
from studies.paper.training import DEVIATIONS, SETTINGS, landscape_of, load, settled
from studies.paper.two_phases_claims import Evidence, claims, in_their_phase, reached
from studies.paper.two_phases_curves import Curves
from studies.paper.two_phases_plan import CHOICES, FAST, LATE, Config, Plan
from studies.paper.two_phases_runs import control_run, grid_runs, long_run, sketches, width_runs

__all__ = ["Config", "main", "run", "verdict"]

_FIGURES = ("two_phases", "gradients", "spectra", "effective_dimension", "rates", "time_averages")
RESULTS = ("two_phases.nc", "claims.json", "summary.json", *(f"{name}.png" for name in _FIGURES))
_QUICK: dict[str, Any] = {
    "dataset": "digits",
    "samples_per_class": 20,
    "batch_size": 10,
    "learning_rate": 0.3,
    "epochs": 40.0,
    "hidden": (16, 16),
    "widths": (6, 9, 12),
    "learning_rates": (0.2, 0.3),
    "batch_sizes": (10,),
    "replicas": 2,
    "few_replicas": 2,
}
# The paper does not give them. So that the training error reaches 0 well before the run is half over.
_WITHOUT_LABEL_NOISE: dict[str, dict[str, Any]] = {
    "mnist": {"learning_rate": 0.1, "batch_size": 50, "epochs": 200.0},
    "mnist10k": {"learning_rate": 0.1, "batch_size": 50, "epochs": 200.0},
    "digits": {"learning_rate": 0.1, "batch_size": 25, "epochs": 200.0},
}


def _settled(config: Config) -> Config:
    config = settled(config, _QUICK, **_WITHOUT_LABEL_NOISE)
    assert config.dataset is not None
    if config.dataset in SETTINGS and SETTINGS[config.dataset].is_convolutional:
        raise ConfigurationError(
            f"dataset={config.dataset!r}: expected one on which a fully connected network is trained, since its widths are "
            "varied; choose mnist10k, mnist or digits"
        )
    if len(config.hidden) != 2 or min(config.hidden) < 1:
        raise ConfigurationError(
            f"hidden={shown(config.hidden)}: expected two whole numbers from 1, since the weights between two hidden "
            "layers are measured"
        )
    if len(set(config.widths)) < 3 or len(set(config.widths)) < len(config.widths) or min(config.widths) < 1:
        raise ConfigurationError(
            f"widths={shown(config.widths)}: expected at least 3 whole numbers from 1, each of them once, since a line goes "
            "through any two points"
        )
    expected = f"from 2 to the {config.replicas} replicas (int), since claims are held to intervals over replicas"
    whole_number("few_replicas", config.few_replicas, expected, least=2, most=config.replicas)
    assert config.learning_rate is not None
    assert config.batch_size is not None
    rates = config.learning_rates or tuple(factor * config.learning_rate for factor in (0.5, 1.0, 2.0))
    sizes = config.batch_sizes or tuple(dict.fromkeys(max(1, round(config.batch_size * each)) for each in (0.5, 1, 2)))
    for name, values in (("learning_rates", rates), ("batch_sizes", sizes)):
        for each in values:
            number(name, each, "numbers above 0, of rates and counts", above=0, most=1e6)
        if len(set(values)) < len(values):
            raise ConfigurationError(
                f"{name}={shown(values)}: expected each of them once, since each is a row of the grid"
            )
    return replace(config, learning_rates=rates, batch_sizes=sizes)


def run(config: Config) -> list[Claim]:
    """Run the study and write its results.

    Parameters
    ----------
    config : Config
        What was chosen.

    Returns
    -------
    list of Claim
        1, 2 and 3, with their findings.

    Raises
    ------
    ConfigurationError
        If a choice cannot be run.
    """
    config = _settled(config)
    data = load(config)
    plan = Plan.of(config, len(data.train_inputs))
    if max(config.batch_sizes or ()) > len(data.train_inputs) // 4:
        raise ConfigurationError(
            f"batch_sizes={shown(config.batch_sizes)} with {len(data.train_inputs)} training samples: expected at most a "
            "quarter of them in a minibatch; choose smaller ones"
        )
    for width in (*config.hidden, *config.widths):
        landscape_of(data, config, hidden=(width, width))  # what is too large is refused before anything runs
    started = time.perf_counter()
    runs = begin(config, "two_phases", RESULTS)
    found, sketch = _evidence(config, data, plan, runs)
    exponents = _exponents(found.widths)
    _write(config, found, sketch, exponents)
    decided = claims(found, config)
    write_claims(config.out / "claims.json", decided)
    summary = {
        "verdict": verdict(decided).splitlines(),
        "deviations": list(DEVIATIONS),
        "exponents": exponents.exponent.to_series().unstack().to_dict(),
        "effective_dimension": found.widths.effective_dimension.mean("replica")
        .to_series()
        .dropna()
        .reset_index()
        .to_dict("records"),
    }
    finish(summary, config, "two_phases", config.out, time.perf_counter() - started)
    _draw(config, found, sketch, exponents)
    return decided


def _evidence(config: Config, data: ImageData, plan: Plan, runs: Path) -> tuple[Evidence, xr.Dataset]:
    """Run everything, or find what was run."""
    trees = long_run(config, data, plan, runs)
    root = trees[CHOICES[0]].to_dataset().load()
    # Order parameters are recorded at the ends of windows, too, where there are no losses.
    root = root.isel(step=np.flatnonzero(root.train_error.sel(cohort="all").notnull().any("replica").values))
    phases = detect_phases(root)
    control = control_run(config, data, plan, runs).load()
    averages = TimeAveragedOrderParameters(
        length=plan.per_epoch, n_samples=len(data.train_inputs), batch_size=config.batch_size
    )(trees[CHOICES[0]])
    inputs, (first, second), classes = data.train_inputs.shape[1], config.hidden, data.n_classes
    sizes = (first * second, (inputs + 1) * first + (first + 1) * second + (second + 1) * classes)
    curves = {
        name: Curves.of(tree.to_dataset().load(), phases, size)
        for (name, tree), size in zip(trees.items(), sizes, strict=True)
    }
    found = Evidence(
        curves=curves,
        root=root,
        phases=phases,
        control=control,
        spectra={name: tree["spectrum"].to_dataset().load() for name, tree in trees.items()},
        widths=in_their_phase(width_runs(config, data, plan, runs)),
        grid=_of_grid(grid_runs(config, runs)),
        time_averages=averages,
    )
    return found, sketches(config, data, trees[CHOICES[1]])


def _of_grid(runs: xr.Dataset) -> xr.Dataset:
    """Return the phases at each point, and the means of order parameters in each."""
    pieces = []
    for k in range(runs.sizes["point"]):
        own = runs.isel(point=k)
        phases = detect_phases(
            own.isel(step=np.flatnonzero(own.train_error.notnull().any(("replica", "cohort")).values))
        )
        begins = phases.boundary_time.isel(boundary=0, drop=True)
        piece = xr.Dataset({"boundary_time": begins, "reached": begins.notnull()})
        own = own.sel(cohort="all", drop=True)
        piece["alignment"] = phase_means(own.alignment, phases)
        for name in ("projection_variance", "activity"):
            piece[name] = np.exp(phase_means(logarithm(own[name]), phases))
        pieces.append(piece.reset_coords(drop=True))
    return xr.concat(pieces, "point").assign_coords({name: runs[name] for name in ("learning_rate", "batch_size")})


def _exponents(widths: xr.Dataset) -> xr.Dataset:
    """Return power laws of D_s against P by choice and phase."""
    of_choices = []
    for choice in CHOICES:
        rows = []
        own = widths.sel(choice=choice).dropna("width", subset=["n_parameters"])
        for phase in own.phase.values:
            values = own.effective_dimension.sel(phase=phase).transpose("width", "replica").values
            centre, count = values.mean(1), values.shape[1]
            # D_s is a whole number: what rounds to the same in all replicas is not without error.
            error = np.sqrt((values.var(1, ddof=1) + 1 / 12) / count) / centre
            known = np.isfinite(centre)
            try:
                fit = fit_power_law(own.n_parameters.values[known], centre[known], error[known])
            except EstimationRefused:
                fit = xr.Dataset(
                    dict.fromkeys(("exponent", "exponent_lower", "exponent_upper", "prefactor"), ((), np.nan))
                )
            rows.append(fit.expand_dims(phase=[phase]))
        of_choices.append(xr.concat(rows, "phase"))
    return xr.concat(of_choices, xr.Variable("choice", list(CHOICES)))


def _write(config: Config, found: Evidence, sketch: xr.Dataset, exponents: xr.Dataset) -> None:
    """Write what was made of the runs."""
    tables = {
        "phases": found.phases,
        "time_averages": found.time_averages.reset_coords(drop=True).assign_coords(
            epoch=("window", found.time_averages.epoch.values)
        ),
        "sketch": sketch,
        "widths": found.widths,
        "grid": found.grid,
        "exponents": exponents,
    }
    tree = xr.DataTree.from_dict({f"/{name}": each for name, each in tables.items()})
    tree.attrs.update(attributes({"study": "two_phases", "choices": words_of(config)}))
    write_trajectory(tree, config.out / "two_phases.nc", overwrite=True)


def _draw(config: Config, found: Evidence, sketch: xr.Dataset, exponents: xr.Dataset) -> None:
    spectra = found.spectra[CHOICES[0]]
    last = float(found.root.epoch[-1])
    moments = [int(np.argmin(np.abs(spectra.epoch.values - share * last))) for share in (FAST, LATE)]
    both = spectra.isel(spectrum_step=moments).rename(spectrum_step="phase")
    both = both.assign_coords(phase=["fast_learning", "exploration"])
    both = both.isel(phase=np.flatnonzero(reached(found.curves[CHOICES[0]], spectra.epoch.values[moments])))
    figures = {
        "two_phases": two_phases_figure({name: _scalars(config, name) for name in CHOICES}, found.phases),
        "gradients": gradient_sketch(sketch),
        "spectra": two_spectra_figure(both),
        "effective_dimension": effective_dimension_figure(found.widths.sel(choice=list(CHOICES)), exponents),
        "rates": rates_figure(found.grid),
        "time_averages": time_average_figure(_scalars(config, CHOICES[0]), found.time_averages, found.phases),
    }
    write_figures(figures, config.out)


def _scalars(config: Config, choice: str) -> xr.Dataset:
    return xr.load_dataset(config.out / "runs" / f"{choice.replace(' ', '_')}.nc")


def verdict(decided: list[Claim]) -> str:
    """Return what was found, in words.

    Parameters
    ----------
    decided : list of Claim
        Of `run`.

    Returns
    -------
    str
        Each claim with its findings.
    """
    return "\n\n".join(each.in_words() for each in decided)


def _study(config: Config) -> None:
    say(verdict(run(config)))
    say(f"\nResults are in {config.out}: runs/, {', '.join(RESULTS)}.")


main = Command("two_phases", Config, __doc__, _study)


if __name__ == "__main__":
    raise SystemExit(main())
