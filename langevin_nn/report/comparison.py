"""The verdict of a comparison in words, from its summary."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from langevin_nn import analyzers

__all__ = ["Comparison", "label", "verdict"]

_LABELS = {
    "sgd": "SGD",
    "sgd_null": "SGD with other noise (null)",
    "langevin": "Langevin, matched Gaussian noise",
    "isotropic_langevin": "Langevin, isotropic noise of the same trace",
    "frozen_langevin": "Langevin, low-rank noise frozen for a while",
    "svag": "SVAG, minibatches at a finer time step",
    "gradient_descent": "gradient descent, no noise",
    "independent_sgd": "SGD with independent minibatches",
}
_CLOCKS = {"equal_time": "at equal gradient-flow time", "equal_loss": "at equal training loss"}


@dataclass(frozen=True, eq=False)
class Comparison(analyzers.Comparison):
    """What `langevin_nn.compare` returns: what `langevin_nn.analyzers.analyze` finds, with the verdict in words."""

    @property
    def verdict(self) -> str:
        """The answer in words."""
        return verdict(self.summary)


def label(process: str) -> str:
    """Return the name of a process as a reader sees it.

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


def verdict(summary: Mapping[str, Any]) -> str:
    """Return the verdict.

    Parameters
    ----------
    summary : mapping
        Of `langevin_nn.analyzers.analyze`, or ``found`` of ``summary.json``.

    Returns
    -------
    str
        Tables of distances, and a sentence for each process.
    """
    reference = label(summary["reference"])
    lines = [
        f"Which noise makes Langevin dynamics follow {reference}?",
        "",
        f"Distance from {reference} along the run, in units of its replica-to-replica spread: mean over "
        f"{summary['replicas']} replicas ± half a 95 % t interval.",
    ]
    for clock, words in _CLOCKS.items():
        lines += ["", *_table(words, summary["distance"][clock], summary["null"])]
    lines += ["", _reached(summary), ""]
    if any("too_short" in relations.values() for relations in summary["relation"].values()):
        lines += [_too_short(summary), ""]
    lines += [_sentence(summary, process) for process in summary["relation"]["equal_time"]]
    if "sample_trace" in summary:
        traces = (
            f"{label(name)} {_plus_minus(each, 1, 'standard_error')}" for name, each in summary["sample_trace"].items()
        )
        epoch = f"{summary['sample_trace_epoch']:g}"
        lines += [
            "",
            f"Tr Σ, the variance of sample gradients, at epoch {epoch} (± standard error): {'; '.join(traces)}.",
        ]
    return "\n".join(lines)


def _plus_minus(figure: Mapping[str, Any], digits: int = 2, error: str = "half_width") -> str:
    if figure["value"] is None:
        return "undefined"
    if figure["standard_error"] is None:
        return f"{figure['value']:.{digits}f}"
    width = figure["upper"] - figure["value"] if error == "half_width" else figure[error]
    return f"{figure['value']:.{digits}f} ± {width:.{digits}f}"


def _table(title: str, distances: Mapping[str, Mapping[str, Any]], null: str) -> list[str]:
    """Return the distances of one clock, a row a quantity, the null first."""
    processes = [null, *(name for name in distances if name != null)]
    rows = [f"{title[0].upper() + title[1:]:<40}" + "".join(f"{name:>20}" for name in processes)]
    for quantity in distances[null]:
        cells = "".join(f"{_plus_minus(distances[name][quantity]):>20}" for name in processes)
        rows.append(f"  {quantity.replace('_', ' '):<38}{cells}")
    return rows


def _reached(summary: Mapping[str, Any]) -> str:
    """Say how far the reference came: an answer about fast learning says nothing of memorisation."""
    boundaries = summary["phase_boundary_epoch"][summary["reference"]]
    names = [name.split("|") for name in boundaries]
    passed = [after for (_, after), each in zip(names, boundaries.values(), strict=True) if each["value"] is not None]
    words = ", ".join(name.replace("_", " ") for name in [names[0][0], *passed])
    return (
        f"All replicas of {label(summary['reference'])} passed through {len(passed) + 1} of {len(names) + 1} phases of "
        f"learning: {words}."
    )


def _sentence(summary: Mapping[str, Any], process: str) -> str:
    """Return the answer for one process, with what it rests on."""
    subject, reference = label(process), label(summary["reference"])
    relations = {clock: summary["relation"][clock][process] for clock in _CLOCKS}
    answers = {clock: _answer(relation, reference) for clock, relation in relations.items()}
    if len(set(answers.values())) == 1:
        answer = answers.popitem()[1]
    else:
        answer = ", ".join(f"{said} {_CLOCKS[clock]}" for clock, said in answers.items())
    in_want = {
        clock: each["replicas"]
        for clock in _CLOCKS
        if (each := summary["needed"][clock][process]) and (each["replicas"] or relations[clock] == "undecided")
    }
    if in_want:
        number = "more than 10,000" if None in in_want.values() else f"about {max(in_want.values()):,}"
        answer += f" ({number} replicas would decide, {summary['replicas']} were run)"
    grounds = []
    for clock, words in _CLOCKS.items():
        excess = summary["excess"][clock][process]["mean"]
        apart = summary["told_apart"][clock][process]
        listed = f"; surely different in {', '.join(name.replace('_', ' ') for name in apart)}" if apart else ""
        grounds.append(f"{words} {_plus_minus(excess)} spreads further than the null{listed}")
    return f"- {subject[0].upper() + subject[1:]}: {answer}. {'. '.join(g[0].upper() + g[1:] for g in grounds)}."


def _answer(relation: str, reference: str) -> str:
    return {
        "close": f"follows {reference}",
        "apart": f"does not follow {reference}",
        "undecided": "too few replicas to say",
        "too_short": "too short to say",
        "undefined": "undefined",
    }[relation]


def _too_short(summary: Mapping[str, Any]) -> str:
    """Say what would be long enough."""
    wanted = next(each for of in summary["needed"].values() for each in of.values() if each and each["epochs"])
    asked = f"run more than {wanted['epochs'] / 2:g} epochs, {wanted['epochs']:g} to begin with"
    if wanted["records"]:
        asked += f", with {wanted['records']} records at least, since fewer do not tell phases from noise"
    return (
        f"Too short to say that a process follows {label(summary['reference'])}, which takes that all replicas have left the "
        f"first phase of learning, and that the process has reached half of the loss levels: {asked}."
    )
