"""Clean a training set of mislabeled samples by their losses, as the paper does, as we do, and as cleanlab does.

Figure 6 of Feng & Tu: how far the losses of correct and mislabeled samples are apart in each phase of learning, whether two
Gaussians fit them, and what test accuracy is recovered by removing samples where the fitted means are farthest apart, or by
stopping there, from no label noise to four fifths. Beside it `find_mislabeled`, removal at random and, where it is installed,
cleanlab, on the same labels and with as many updates: their precision and recall, and when to use which. Writes the runs,
cleaning.nc, claims.json, summary.json and two figures, and prints what was found.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field, fields, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from langevin_nn import detect_phases, sweep
from langevin_nn.analyzers import LossMixture, mean_with_interval
from langevin_nn.checks import number, shown, whole_number
from langevin_nn.errors import ConfigurationError
from langevin_nn.figures import cleaning_figure, removal_figure, write_figures
from langevin_nn.provenance import attributes
from langevin_nn.report import say
from langevin_nn.store import write_trajectory
from studies.command import Command, of_the_numbers
from studies.paper.claims import Claim, write_claims
from studies.paper.cleaning_claims import claim_11, claim_12, claim_13, in_short, which_to_use
from studies.paper.cleaning_measures import results_of
from studies.paper.cleaning_runs import RULES, Trained, cleaned, has_cleanlab, uncleaned
from studies.paper.folder import begin, finish, words_of
from studies.paper.training import DEVIATIONS, load, settled
from studies.sweeps import complete

__all__ = ["Config", "main", "run", "verdict"]

RESULTS = ("cleaning.nc", "claims.json", "summary.json", "cleaning.png", "removal.png")
INSTALL = "pip install 'langevin_nn[compare]'"

_QUICK: dict[str, Any] = {
    "dataset": "digits",
    "label_noises": (0.0, 0.5),
    "samples_per_class": 15,
    "hidden": (16, 16),
    "epochs": 60.0,
    "batch_size": 20,
    "learning_rate": 0.2,
    "replicas": 2,
    "workers": 1,
    "with_cleanlab": False,
}


@dataclass(frozen=True)
class Config(Trained):
    """Everything that can be chosen."""

    label_noises: tuple[float, ...] = (0.0, 0.2, 0.35, 0.5, 0.65, 0.8)
    """Shares ρ of training samples whose label is redrawn from all classes."""
    shown_noise: float = 0.5
    """The one of them whose losses are shown and held to claims 11 and 12."""
    replicas: int = 5
    """Replicas, each with its own labels, initial weights and minibatches."""
    with_cleanlab: bool | None = None
    """Whether to compare with cleanlab; where it is installed unless given."""
    cleanlab_noises: tuple[float, ...] = (0.2, 0.5, 0.8)
    """The label noises at which it is compared, five trainings of a fifth of the length and one more a replica each."""
    workers: int | None = None
    """Local processes; as many as there are cores unless given."""
    out: Path = field(default=Path("output/cleaning"))
    """Folder for runs, cleaning.nc, summary.json, claims.json and figures."""


def _sized(config: Config) -> Config:
    config = settled(config, _QUICK)
    _check(config)
    wanted = has_cleanlab() if config.with_cleanlab is None else config.with_cleanlab
    noises = tuple(each for each in config.cleanlab_noises if each in config.label_noises) if wanted else ()
    return replace(config, cleanlab_noises=noises)


def _check(config: Config) -> None:
    for name in ("label_noises", "cleanlab_noises"):
        values = getattr(config, name)
        if len(set(values)) < len(values):
            raise ConfigurationError(f"{name}={shown(values)}: expected each value once")
        for each in values:
            number(name, each, "shares of the samples, from 0 to 1", least=0, most=1)
    if config.shown_noise not in config.label_noises or config.shown_noise == 0:
        raise ConfigurationError(
            f"shown_noise={config.shown_noise:g}: expected one of label_noises, {shown(config.label_noises)}, and not 0, "
            "since cohorts are compared there; add it to label_noises"
        )
    for each in config.hidden:
        whole_number("hidden", each, "at least 1 unit (int) a layer", least=1)
    if config.workers is not None:
        whole_number("workers", config.workers, "at least 1 process (int)", least=1)
    if config.with_cleanlab and not has_cleanlab():
        raise ConfigurationError(
            f"with_cleanlab: expected cleanlab, which is not installed; {INSTALL}, or leave the comparison out"
        )


def _trained(config: Config) -> Trained:
    return of_the_numbers(Trained(**{each.name: getattr(config, each.name) for each in fields(Trained)}))


def _runs(config: Config, folder: Path) -> tuple[xr.DataTree, xr.Dataset]:
    """Return the runs on all samples, and those on what each rule leaves."""
    choices = _trained(config)
    options: dict[str, Any] = {"workers": config.workers, "progress": None}
    place = folder / "uncleaned"
    whole = complete(
        sweep(partial(uncleaned, choices=choices), {"label_noise": config.label_noises}, place, **options), place
    )
    points = [
        {"label_noise": noise, "replica_index": replica, "rule": rule}
        for replica in range(config.replicas)
        for rule in RULES
        for noise in _noises_of(rule, config)
    ]
    run_at = partial(cleaned, choices=choices, place=str(place))
    rest = complete(sweep(run_at, points, folder / "cleaned", **options), folder / "cleaned")
    table = rest.to_dataset().load().set_index(point=["label_noise", "replica_index", "rule"]).unstack("point")
    return whole, table.rename(replica_index="replica")


def _noises_of(rule: str, config: Config) -> tuple[float, ...]:
    """Return the label noises at which a rule is tried: the control at one of them."""
    if rule == "random":
        return (config.shown_noise,)
    return config.cleanlab_noises if rule == "cleanlab" else config.label_noises


def _at(whole: xr.DataTree, noise: float) -> xr.Dataset:
    """Return all that was recorded at a label noise, on one clock."""
    point = int(np.flatnonzero(whole.label_noise.values == noise)[0])
    root, samples = (node.to_dataset().isel(point=point).load() for node in (whole, whole["samples"]))
    names = ["sample_loss", "mislabeled"]
    on_root = samples[names].rename(sample_step="step").drop_vars([*samples.coords], errors="ignore")
    return root[["train_error", "test_error"]].assign({name: on_root[name] for name in names})


def run(config: Config) -> tuple[xr.Dataset, list[Claim]]:
    """Run the study and write its results.

    Parameters
    ----------
    config : Config
        What was chosen.

    Returns
    -------
    results : xarray.Dataset
        Accuracies, qualities and removals of all rules.
    claims : list of Claim
        11, 12 and 13.

    Raises
    ------
    ConfigurationError
        If a choice cannot be run, or points failed.
    """
    started = time.perf_counter()
    config = _sized(config)
    n_samples = len(load(config).train_labels)
    uncleaned(config.shown_noise, choices=_trained(config))  # what cannot run is refused before anything does
    folder = begin(config, "cleaning", RESULTS)
    whole, rest = _runs(config, folder)
    results = results_of(whole, rest)
    at_shown = _at(whole, config.shown_noise)
    phases = detect_phases(at_shown[["train_error"]])
    mixture = LossMixture()(at_shown[["sample_loss", "mislabeled"]])
    setting = (
        f"{config.dataset}, {n_samples} samples, {'-'.join(map(str, config.hidden))}, B = {config.batch_size}, "
        f"α = {config.learning_rate:g}, {config.replicas} replicas"
    )
    at = f"{setting}, ρ = {config.shown_noise:g}"
    claims = [
        claim_11(at_shown, phases, at),
        claim_12(at_shown, phases, mixture, at),
        claim_13(results, setting),
    ]
    _write(config, results, phases, mixture)
    write_claims(config.out / "claims.json", claims)
    summary = {
        "verdict": [line for claim in claims for line in claim.in_words().splitlines()],
        "rules": _table(results),
        "with_cleanlab": bool(config.cleanlab_noises),
        "deviations": list(DEVIATIONS),
    }
    finish(summary, config, "cleaning", config.out, time.perf_counter() - started)
    accuracy = rest.accuracy.sel(label_noise=config.shown_noise)
    figure = cleaning_figure(at_shown, phases, mixture, accuracy, results)
    write_figures({"cleaning": figure, "removal": removal_figure(results)}, config.out)
    return results, claims


def _write(config: Config, results: xr.Dataset, phases: xr.Dataset, mixture: xr.Dataset) -> None:
    tree = xr.DataTree.from_dict({"/": results, "/mixture": mixture, "/phases": phases})
    tree.attrs.update(attributes({"study": "cleaning", "choices": words_of(config)}))
    write_trajectory(tree, config.out / "cleaning.nc", overwrite=True)


def _table(results: xr.Dataset) -> list[dict[str, Any]]:
    """Return means over replicas with their intervals, by label noise and rule."""
    rows = []
    for noise in results.label_noise.values:
        for rule in results.rule.values:
            row: dict[str, Any] = {"label_noise": float(noise), "rule": str(rule)}
            at = results.sel(label_noise=noise, rule=rule)
            measured = {name: at[name] for name in ("accuracy_cleaned", "cleaning_quality")}
            if rule in results.cleaning_rule:
                of = at.sel(cleaning_rule=rule)
                names = ("precision", "recall", "removed_share", "area_under_curve", "is_refused", "cleaning_epoch")
                measured |= {name: of[name] for name in names}
            for name, values in measured.items():
                moments = mean_with_interval(values)
                ends = {"mean": moments.mean_value, "lower": moments.lower, "upper": moments.upper}
                row[name] = {key: float(each) for key, each in ends.items()}
            rows.append(row)
    return rows


def verdict(results: xr.Dataset, claims: list[Claim]) -> str:
    """Return what was found, in words.

    Parameters
    ----------
    results : xarray.Dataset
        Of `run`.
    claims : list of Claim
        Of `run`.

    Returns
    -------
    str
        The claims with their verdicts, then each rule at each label noise.
    """
    lines = [claim.in_words() for claim in claims]
    lines += [
        "",
        "Test accuracies, cleaning quality Q, precision and recall (mean over replicas ± half a 95 % interval):",
    ]
    lines += in_short(results)
    lines += ["", *which_to_use(results)]
    if "cleanlab" not in results.cleaning_rule:
        lines += ["", f"cleanlab is left out; to compare with it: {INSTALL}"]
    return "\n".join(lines)


def _study(config: Config) -> None:
    say(verdict(*run(config)))
    say(f"\nResults are in {config.out}: runs/, {', '.join(RESULTS)}.")


main = Command("cleaning", Config, __doc__, _study)


if __name__ == "__main__":
    raise SystemExit(main())
