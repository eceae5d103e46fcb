"""From trajectories of several processes to the figures of a verdict, and to the verdict in words."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr

from langevin_nn.analyzers.base import root_of
from langevin_nn.analyzers.comparison import ComparisonAnalyzer, at_equal_loss
from langevin_nn.analyzers.phases import detect_phases
from langevin_nn.analyzers.statistics import mean_with_interval

__all__ = ["SUMMARY_VERSION", "Comparison", "analyze"]

SUMMARY_VERSION = "1.0"

_LABELS = {
    "sgd": "SGD",
    "sgd_null": "SGD with other noise (null)",
    "langevin": "Langevin, matched Gaussian noise",
    "isotropic_langevin": "Langevin, isotropic noise of the same trace",
    "gradient_descent": "gradient descent, no noise",
    "independent_sgd": "SGD with independent minibatches",
}


def label(process: str) -> str:
    """Return a process's name as a reader sees it.

    Parameters
    ----------
    process : str
        As in files.

    Returns
    -------
    str
        The same where it has no other.

    Examples
    --------
    >>> label("gradient_descent")
    'gradient descent, no noise'
    """
    return _LABELS.get(process, process)


@dataclass(frozen=True, eq=False)
class Comparison:
    """What `langevin_nn.compare` returns.

    Parameters
    ----------
    trajectories : xarray.DataTree
        All processes, in the schema of trajectory files.
    phases : xarray.Dataset
        Of `detect_phases`.
    equal_time, equal_loss : xarray.Dataset
        Of `ComparisonAnalyzer` at equal gradient-flow time and at equal training loss.
    summary : dict
        The figures of the verdict, ready for JSON; see `analyze` for its keys.
    """

    trajectories: xr.DataTree
    phases: xr.Dataset
    equal_time: xr.Dataset
    equal_loss: xr.Dataset
    summary: dict[str, Any]

    @property
    def verdict(self) -> str:
        """The answer in words."""
        return "\n".join(_verdict_lines(self.summary))


def analyze(
    trajectories: xr.DataTree,
    *,
    epoch: float = 50.0,
    tolerance: float = 0.5,
    reference: str = "sgd",
    null: str = "sgd_null",
) -> Comparison:
    """Answer which noise makes Langevin dynamics follow SGD, from recorded trajectories.

    The summary has the keys

    - ``summary_version``, ``reference``, ``null``, ``replicas``, ``tolerance``;
    - ``distance``: clock (``equal_time``, ``equal_loss``) → process → quantity → figure, and ``mean`` over quantities;
    - ``excess``: the same for the distance less the null's, replica by replica;
    - ``relation``: clock → process → "indistinguishable" where the interval of the mean excess reaches down to 0,
      "close" where it does not but ends below `tolerance`, else "apart";
    - ``follows``: clock → process → whether it is not apart;
    - ``reached_share``: process → share of the reference's loss levels that it reached;
    - ``sample_trace``: process → Tr Σ at the epoch ``sample_trace_epoch``;
    - ``phase_boundary_epoch``: process → boundary → figure, ``value`` null where no replica reached it;
    - ``final``: process → ``train_loss``, ``train_error``, ``test_error`` at the end;
    - ``configuration``: what was run.

    Each figure has ``value``, ``standard_error``, ``lower``, ``upper`` (a 95 % t interval over replicas) and ``count``.

    Parameters
    ----------
    trajectories : xarray.DataTree
        Of all processes, as `langevin_nn.compare` records them.
    epoch : float, optional
        Where to report Tr Σ; the nearest record is taken.
    tolerance : float, optional
        Excess distance, in spreads, below which a process that can be told from the reference still counts as close:
        half of what one replica of SGD differs from another.
    reference : str, optional
        The process to which the others are compared.
    null : str, optional
        A second ensemble of the reference with other noise.

    Returns
    -------
    Comparison
        Distances, phases and summary.
    """
    root = root_of(trajectories)
    analyzer = ComparisonAnalyzer(reference, null)
    phases = detect_phases(root)
    by_loss = at_equal_loss(root, reference)
    results = {"equal_time": analyzer(root), "equal_loss": analyzer(by_loss, clock="loss_level")}
    others = [str(name) for name in root["process"].values if name != reference]
    summary: dict[str, Any] = {
        "summary_version": SUMMARY_VERSION,
        "reference": reference,
        "null": null,
        "replicas": root.sizes["replica"],
        "distance": {clock: _distances(result["distance"], others) for clock, result in results.items()},
        "excess": {
            clock: _distances(result["excess"], [name for name in others if name != null])
            for clock, result in results.items()
        },
    }
    summary["tolerance"] = tolerance
    summary["relation"] = {
        clock: {process: _relation(figures["mean"], tolerance) for process, figures in processes.items()}
        for clock, processes in summary["excess"].items()
    }
    summary["follows"] = {
        clock: {process: relation != "apart" for process, relation in relations.items()}
        for clock, relations in summary["relation"].items()
    }
    reached = by_loss["train_loss"].sel(cohort="all").notnull().mean(["replica", "loss_level"])
    summary["reached_share"] = {str(name): float(reached.sel(process=name)) for name in reached["process"].values}
    summary |= _context(root, phases, epoch)
    summary["configuration"] = json.loads(str(trajectories.attrs.get("config_json", "{}")))
    return Comparison(trajectories, phases, results["equal_time"], results["equal_loss"], summary)


_ENDINGS = ("train_loss", "train_error", "test_error")
_FIGURE = {"value": "mean_value", "standard_error": "standard_error", "lower": "lower", "upper": "upper"}


def _figures(values: xr.DataArray) -> Any:
    """Return numbers with their errors over replicas, in the words of JSON, nested by the other dimensions."""
    return _nested(mean_with_interval(values))


def _nested(moments: xr.Dataset) -> Any:
    if moments.sizes:
        dimension = str(next(iter(moments["mean_value"].dims)))
        return {str(name): _nested(moments.sel({dimension: name})) for name in moments[dimension].values}
    numbers = {key: float(moments[name].values) for key, name in _FIGURE.items()}
    return {key: number if np.isfinite(number) else None for key, number in numbers.items()} | {
        "count": int(moments["count"].values)
    }


def _distances(values: xr.DataArray, processes: list[str]) -> dict[str, Any]:
    chosen = values.sel(process=processes)
    mean = chosen.mean("quantity").expand_dims(quantity=["mean"])
    nested: dict[str, Any] = _figures(xr.concat([chosen, mean], dim="quantity").transpose("process", "quantity", ...))
    return nested


def _context(root: xr.Dataset, phases: xr.Dataset, epoch: float) -> dict[str, Any]:
    """Return what a reader needs beside the distances: where the processes were, and when."""
    processes = [str(name) for name in root["process"].values]
    nearest = int(np.argmin(np.abs(root["epoch"].values - epoch)))
    batch_factor = root.attrs.get("covariance_factor")
    final = root.isel(step=-1)
    endings = {name: _figures(_all_samples(final[name])) for name in _ENDINGS if name in final}
    context: dict[str, Any] = {
        "phase_boundary_epoch": _figures(phases["boundary_epoch"].transpose("process", "boundary", ...)),
        "final": {process: {name: each[process] for name, each in endings.items()} for process in processes},
    }
    if batch_factor is not None:
        trace = root["noise_strength"].sel(cohort="all").isel(step=nearest) / float(batch_factor)
        context["sample_trace"] = _figures(trace)
        context["sample_trace_epoch"] = float(root["epoch"][nearest])
    return context


def _all_samples(values: xr.DataArray) -> xr.DataArray:
    return values.sel(cohort="all", drop=True) if "cohort" in values.dims else values


def _plus_minus(figure: Mapping[str, Any], digits: int = 2) -> str:
    if figure["value"] is None:
        return "not reached"
    if figure["standard_error"] is None:
        return f"{figure['value']:.{digits}f}"
    return f"{figure['value']:.{digits}f} ± {figure['upper'] - figure['value']:.{digits}f}"


def _verdict_lines(summary: Mapping[str, Any]) -> list[str]:
    reference, null = summary["reference"], summary["null"]
    lines = [
        "Which noise makes Langevin dynamics follow SGD?",
        f"Mean distance from {label(reference)} over the order parameters, in units of its replica-to-replica spread",
        f"(95 % t intervals over {summary['replicas']} replicas), at equal gradient-flow time and at equal training loss:",
        "",
    ]
    by_time, by_loss = summary["distance"]["equal_time"], summary["distance"]["equal_loss"]
    lines += [
        f"  {label(process):<46}{_plus_minus(by_time[process]['mean']):>16}{_plus_minus(by_loss[process]['mean']):>16}"
        for process in [null, *(name for name in by_time if name != null)]
    ]
    lines += ["", _reached(summary)]
    lines += [_sentence(summary, process) for process in summary["excess"]["equal_time"]]
    if "sample_trace" in summary:
        traces = ", ".join(f"{name} {_plus_minus(figure, 1)}" for name, figure in summary["sample_trace"].items())
        lines += ["", f"Tr Σ at epoch {summary['sample_trace_epoch']:g}: {traces}."]
    return lines


def _reached(summary: Mapping[str, Any]) -> str:
    """Say how far the reference came: an answer about fast learning says nothing of memorisation."""
    boundaries = summary["phase_boundary_epoch"][summary["reference"]]
    names = [name.split("|") for name in boundaries]
    reached = [
        names[0][0],
        *(after for (_, after), figure in zip(names, boundaries.values(), strict=True) if figure["count"]),
    ]
    words = ", ".join(name.replace("_", " ") for name in reached)
    return (
        f"{label(summary['reference'])} passed through {len(reached)} of {len(names) + 1} phases of learning: {words}."
    )


def _relation(excess: Mapping[str, Any], tolerance: float) -> str:
    """Return how a process stands to the reference, from its mean excess distance."""
    if excess["lower"] is None or excess["lower"] <= 0:
        return "indistinguishable"
    return "close" if excess["upper"] < tolerance else "apart"


def _sentence(summary: Mapping[str, Any], process: str) -> str:
    subject = label(process)[0].upper() + label(process)[1:]
    reference = label(summary["reference"])
    clauses = []
    for clock, words in {"equal_time": "at equal time", "equal_loss": "at equal training loss"}.items():
        excess = _plus_minus(summary["excess"][clock][process]["mean"])
        clauses.append(
            {
                "indistinguishable": f"{words} no further from {reference} than its own noise puts it ({excess} spreads)",
                "close": f"{words} told from {reference}, but by less than {summary['tolerance']:g} spreads ({excess})",
                "apart": f"{words} further from {reference} than its own noise puts it, by {excess} spreads",
            }[summary["relation"][clock][process]]
        )
    follows = [summary["follows"][clock][process] for clock in ("equal_time", "equal_loss")]
    answer = "follows" if all(follows) else "follows in part" if any(follows) else "does not follow"
    return f"- {subject}: {answer}; {', and '.join(clauses)}."
