"""Ask whether the monitor says when to stop, on networks with wrong labels of which it knows none.

A perceptron and a convolutional network with batch normalisation, trained by a plain loop of torch on clean labels and on
wrong ones of four kinds and rates, watched by `langevin_nn.Monitor`. What does it cost to stop where `should_stop` is first
true, or to take the weights that it then names, against the best epoch, which only test images know? How often does it say
so though no label is wrong? And what do others cost: a validation set with noisy labels, Label Wave, gradient-weight
alignment, the weight norm? Writes the runs, monitor.nc, claims.json, summary.json and monitor.png, and prints what was wanted
and what was found.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from langevin_nn.checks import number, one_of, shown, whole_number
from langevin_nn.errors import ConfigurationError
from studies.lab.choices import load, settle
from studies.lab.claims import Claim
from studies.lab.command import of_the_numbers
from studies.lab.study import Answer, Study, Work
from studies.monitor.claims import NEAR, claims_of, in_words, said
from studies.monitor.figures import NAMES, TITLES, monitor_figure
from studies.monitor.labels import CLEAN, KINDS
from studies.monitor.measures import RULES, heard, judged, noisy, together
from studies.monitor.runs import NETWORKS, Config, Settled, measured, network_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["STUDY", "Config"]

_LEAST_EPOCHS = 5  # of the running mean
_QUICK: dict[str, Any] = {
    "dataset": "digits",
    "samples_per_class": 30,
    "networks": ("perceptron",),
    "kinds": ("symmetric",),
    "label_noises": (0.4,),
    "hidden": (30,),
    "batch_size": 20,
    "epochs": 30.0,
    "clean_replicas": 2,
    "patience": 5,
}
_COST = {"perceptron": 1.0, "convolutional": 1.6}
_OF_CLEAN = 1.4  # since the verdict is asked for to the end


class MonitorStudy(Study[Config, Settled, xr.Dataset]):
    """What stopping costs, by rule."""

    name = "monitor"
    choices = Config
    quick = _QUICK
    table = "monitor.nc"
    drawn = ("monitor",)
    has_claims = True

    def settle(self, choices: Config) -> Settled:
        _check(choices)
        settled = settle(Settled, choices)
        whole_number("epochs", settled.n_epochs, "at least 5, of which a running mean is made", least=_LEAST_EPOCHS)
        data = load(settled)
        for name in settled.networks:
            network_of(name, data, settled.hidden)  # what cannot be made is refused
        n = len(data.train_labels)
        held = round(settled.held_out * n)
        if not 1 <= held <= n - settled.batch_size:
            raise ConfigurationError(
                f"batch_size={settled.batch_size} and held_out={settled.held_out:g} with {n} training samples: expected a "
                "sample that is held out, and a minibatch of others; choose smaller ones"
            )
        return settled

    def plan(self, settled: Settled) -> dict[str, float]:
        return {each.name: _COST[each.network] * (_OF_CLEAN if each.kind == CLEAN else 1.0) for each in settled.cells}

    def measure(self, settled: Settled, work: Work) -> xr.Dataset:
        choices, runs = of_the_numbers(settled), []
        for cell in settled.cells:
            with work.part(cell.name):
                runs.append(work.kept(cell.name, partial(measured, choices, cell)))
        return judged(heard(together(settled.cells, runs)), settled.patience)

    def claims(self, settled: Settled, found: xr.Dataset) -> list[Claim]:
        setting = (
            f"{settled.dataset}, {len(load(settled).train_labels):,} samples, {' and '.join(settled.networks)}, "
            f"{settled.n_epochs} epochs, {settled.replicas} replicas"
        )
        return claims_of(found, setting)

    def verdict(self, answer: Answer[Settled, xr.Dataset]) -> str:
        found = answer.found
        lines = [*in_words(answer.claims), "", *_table(found), ""]
        wrong = noisy(found)
        told = np.isfinite(wrong.delay.values)
        clean = found.isel(run=np.flatnonzero(found.kind.values == CLEAN))
        alarms = int(np.isfinite(clean.said_epoch.sel(rule="monitor")).sum())
        lines.append(
            f"The monitor said to stop in {int(told.sum())} of {len(told)} runs with wrong labels and in {alarms} of "
            f"{clean.sizes['run']} with clean ones" + (f", {_delays(wrong.delay.values[told])}." if told.any() else ".")
        )
        return "\n".join(lines)

    def summary(self, answer: Answer[Settled, xr.Dataset]) -> dict[str, Any]:
        found = answer.found
        told = noisy(found)
        return {
            "criteria": [
                {
                    "statistic": each.criterion.statistic,
                    "estimate": each.estimate,
                    "lower": each.lower,
                    "upper": each.upper,
                    "outcome": said(each),
                }
                for claim in answer.claims
                for each in claim.findings
            ],
            "lost": [row for kind in _kinds(found) for row in _rows(kind, found)],
            "stopped": {kind: int(np.isfinite(_of_kind(found, kind).stop_epoch).sum()) for kind in _kinds(found)},
            "delay": told.delay.values[np.isfinite(told.delay.values)],
        }

    def figures(self, answer: Answer[Settled, xr.Dataset]) -> dict[str, Figure]:
        return {"monitor": monitor_figure(answer.found)}


def _check(config: Config) -> None:
    for name, known, what in (("networks", NETWORKS, "network"), ("kinds", KINDS, "kind of label noise")):
        for each in getattr(config, name):
            one_of(what, each, known)
    for each in config.label_noises:
        number("label_noises", each, "shares of wrong labels, above 0 and at most 1", above=0, most=1)
    for name in ("networks", "kinds", "label_noises"):
        values = getattr(config, name)
        if not values or len(set(values)) < len(values):
            raise ConfigurationError(f"{name}={shown(values)}: expected at least one, and each of them once")
    for each in config.hidden:
        whole_number("hidden", each, "at least 1 unit (int) a layer", least=1)
    expected = "at least 2 (int), since shares of runs are held to intervals"
    whole_number("clean_replicas", config.clean_replicas, expected, least=2, most=10_000)
    number("momentum", config.momentum, "a number from 0 and below 1", least=0, below=1)
    number("held_out", config.held_out, "a share of the samples, above 0 and below 1", above=0, below=1)
    whole_number("patience", config.patience, "at least 1 epoch (int)", least=1)
    whole_number("test_samples", config.test_samples, "at least 1 image (int)", least=1)


def _kinds(found: xr.Dataset) -> list[str]:
    return [each for each in (CLEAN, *KINDS) if each in found.kind.values]


def _of_kind(found: xr.Dataset, kind: str) -> xr.Dataset:
    return found.isel(run=np.flatnonzero(found.kind.values == kind))


def _rows(kind: str, found: xr.Dataset) -> list[dict[str, Any]]:
    """Return means over runs of one kind, by rule."""
    own = _of_kind(found, kind)
    return [
        {
            "kind": kind,
            "rule": rule,
            "lost": float(own.lost.sel(rule=rule).mean()),
            "lost_raw": float(own.lost_raw.sel(rule=rule).mean()),
            "near": float((own.lost.sel(rule=rule) <= NEAR).mean()),
            "near_raw": float((own.lost_raw.sel(rule=rule) <= NEAR).mean()),
            "runs": own.sizes["run"],
        }
        for rule in RULES
    ]


def _table(found: xr.Dataset) -> list[str]:
    """Return points lost by rule and kind, and the share of runs near the best."""
    wrong = noisy(found)
    columns = [(TITLES[kind], _of_kind(found, kind)) for kind in _kinds(found)]
    columns.append(("all wrong labels", wrong))
    lines = [
        "Points of test accuracy lost against the best running mean over five epochs (and against the best epoch), means "
        "over runs:",
        "",
        "| rule | " + " | ".join(name for name, _ in columns) + " | within 1 point | of the best epoch |",
        "| --- |" + " --- |" * (len(columns) + 2),
    ]
    for rule in RULES:
        values = [
            f"{float(each.lost.sel(rule=rule).mean()):.1f} ({float(each.lost_raw.sel(rule=rule).mean()):.1f})"
            for _, each in columns
        ]
        near = [f"{float((each.sel(rule=rule) <= NEAR).mean()):.0%}" for each in (wrong.lost, wrong.lost_raw)]
        lines.append(f"| {NAMES[rule]} | " + " | ".join([*values, *near]) + " |")
    return lines


def _delays(delays: np.ndarray[Any, np.dtype[np.float64]]) -> str:
    low, middle, high = np.quantile(delays, [0, 0.5, 1])
    return f"{middle:g} epochs after the one that it names, in the median ({low:g} to {high:g})"


STUDY = MonitorStudy()
