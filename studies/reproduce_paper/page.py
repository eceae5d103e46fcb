"""One self-contained HTML page: what the paper claims, what came out, and the pictures."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from math import inf, isfinite
from pathlib import Path

from studies.lab.claims import CLAIMS, VERDICTS, Claim, Finding, Verdict

__all__ = ["Part", "page", "verdict_of"]

_MARKS: dict[Verdict, str] = {
    "reproduced": "●",
    "partly": "◐",
    "not": "○",
    "undecided": "?",
    "too short": "…",
    "not measured": "–",
}

_STYLE = """
:root { color-scheme: light; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem; color: #1a1a1a; }
h1 { line-height: 1.2; } h2 { margin-top: 2.5rem; border-top: 1px solid #ccc; padding-top: 1rem; }
table { border-collapse: collapse; width: 100%; font-size: 0.9rem; }
th, td { text-align: left; vertical-align: top; padding: 0.3rem 0.6rem; border-bottom: 1px solid #e0e0e0; }
td.number { white-space: nowrap; font-variant-numeric: tabular-nums; }
img { max-width: 100%; height: auto; border: 1px solid #e0e0e0; }
figure { margin: 1rem 0; } figcaption, .quiet { color: #555; font-size: 0.9rem; }
.verdict { font-weight: 600; white-space: nowrap; }
.reproduced { color: #00643c; } .partly { color: #8a5a00; } .not { color: #a30f00; }
.control { color: #555; font-style: italic; }
blockquote { margin: 0.5rem 0; padding-left: 1rem; border-left: 3px solid #ccc; }
"""


@dataclass(frozen=True)
class Part:
    """What one study gives to the report.

    Parameters
    ----------
    name : str
        Of the study, with its data set.
    folder : Path
        Where its figures are.
    claims : sequence of Claim
        With findings.
    seconds : float
        How long it took.
    problem : str, optional
        Why it has no result, where it has none.
    """

    name: str
    folder: Path
    claims: Sequence[Claim]
    seconds: float
    problem: str = ""


def verdict_of(claims: Sequence[Claim]) -> Verdict:
    """Return the verdict on a claim from all studies that measured it.

    Parameters
    ----------
    claims : sequence of Claim
        Of the same number.

    Returns
    -------
    Verdict
        Reproduced where each study says so, not where each that decided says that, partly where some of it is reproduced.
        Where none decided, what is in want; not measured where no study measured it.
    """
    verdicts = {each.verdict for each in claims} - {"not measured"}
    if len(verdicts) < 2:
        return verdicts.pop() if verdicts else "not measured"
    if verdicts & {"reproduced", "partly"}:
        return "partly"
    return "not" if "not" in verdicts else "too short"


def page(parts: Sequence[Part], *, about: Mapping[str, str], deviations: Sequence[str]) -> str:
    """Return the report.

    Parameters
    ----------
    parts : sequence of Part
        The studies.
    about : mapping of str to str
        What one must know to run it again: command, seed, versions, time.
    deviations : sequence of str
        Where this is not what the paper did, or what it does not say.

    Returns
    -------
    str
        HTML with all pictures in it.
    """
    found = {
        number: [(part, each) for part in parts for each in part.claims if each.number == number] for number in CLAIMS
    }
    verdicts = {number: verdict_of([each for _, each in rows]) for number, rows in found.items()}
    counts = [f"{list(verdicts.values()).count(each)} {words}" for each, words in VERDICTS.items()]
    body = [
        "<h1>Phases of learning, claim by claim</h1>",
        "<p>Feng &amp; Tu, <cite>Phases of learning dynamics in artificial neural networks in the absence or presence of "
        'mislabeled data</cite>, Mach. Learn.: Sci. Technol. 2 043001 (2021), <a href="https://doi.org/10.1088/2632-2153/abf5b9">'
        "doi 10.1088/2632-2153/abf5b9</a>. Fourteen claims, each held to criteria that were fixed "
        "beforehand; where one was changed after a first look, its reason says so.</p>",
        f"<p><strong>{', '.join(counts)}.</strong></p>",
        _overview(verdicts),
        *(_section(number, verdicts[number], rows) for number, rows in found.items()),
        _reading(),
        "<h2>Deviations from the paper</h2><ul>" + "".join(f"<li>{escape(each)}</li>" for each in deviations) + "</ul>",
        _studies(parts),
        "<h2>To run it again</h2>" + _table(["", ""], [[escape(name), escape(value)] for name, value in about.items()]),
    ]
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, '
        f'initial-scale=1"><title>Phases of learning, claim by claim</title><style>{_STYLE}</style></head><body>\n'
        + "\n".join(body)
        + "\n</body></html>\n"
    )


def _overview(verdicts: Mapping[int, Verdict]) -> str:
    rows = [
        [
            f'<a href="#claim-{number}">{number}</a>',
            escape(CLAIMS[number][0]),
            escape(CLAIMS[number][1]),
            _said(verdict),
        ]
        for number, verdict in verdicts.items()
    ]
    return _table(["", "claim", "in the paper", "verdict"], rows)


def _said(verdict: Verdict) -> str:
    return f'<span class="verdict {verdict.replace(" ", "-")}">{_MARKS[verdict]} {VERDICTS[verdict]}</span>'


def _section(number: int, verdict: Verdict, rows: Sequence[tuple[Part, Claim]]) -> str:
    statement, figure = CLAIMS[number]
    pieces = [
        f'<h2 id="claim-{number}">Claim {number}: {_said(verdict)}</h2>',
        f'<blockquote>{escape(statement)} <span class="quiet">({escape(figure)} of the paper)</span></blockquote>',
    ]
    for part, claim in rows:
        pieces.append(f"<h3>{escape(part.name)}, {escape(claim.setting)}: {_said(claim.verdict)}</h3>")
        if claim.too_short:
            pieces.append(f"<p>{escape(claim.too_short)}.</p>")
        pieces.append(_findings(claim.findings))
        if claim.note:
            pieces.append(f"<p>{escape(claim.note)}</p>")
        pieces.append(_picture(part.folder / claim.figure, number))
    if not rows:
        pieces.append("<p>No study that measures it has a result here.</p>")
    return "\n".join(pieces)


def _findings(findings: Sequence[Finding]) -> str:
    rows = [
        [
            f'<span class="{"control" if each.criterion.is_control else ""}">'
            f"{'control, must not hold: ' if each.criterion.is_control else ''}{escape(each.criterion.statistic)}</span>"
            f'<details><summary class="quiet">why this bound</summary>{escape(each.criterion.reason)}</details>',
            f"{each.estimate:.3g} ({each.lower:.3g} to {each.upper:.3g})"
            if isfinite(each.lower)
            else f"{each.estimate:.3g}"
            if isfinite(each.estimate)
            else "–",
            escape(_asked(each)),
            f"{each.p_value:.2g}" if isfinite(each.p_value) else "–",
            f"{each.effective_sample_size}" + (f" ({each.missing} without)" if each.missing else ""),
            each.outcome_in_words,
        ]
        for each in findings
    ]
    return _table(["statistic", "measured (95 % interval)", "asked for", "p", "n", "outcome"], rows)


def _asked(finding: Finding) -> str:
    least, most = finding.criterion.least, finding.criterion.most
    if least == -inf:
        return f"at most {most:.3g}"
    return f"at least {least:.3g}" if most == inf else f"{least:.3g} to {most:.3g}"


def _picture(path: Path, number: int) -> str:
    if not path.is_file():
        return f'<p class="quiet">The picture {escape(path.name)} is missing.</p>'
    code = base64.b64encode(path.read_bytes()).decode()
    text = f"Figure for claim {number}: {path.stem.replace('_', ' ')}"
    return f'<figure><img alt="{escape(text)}" src="data:image/png;base64,{code}"></figure>'


def _reading() -> str:
    return (
        "<h2>How to read this</h2><p>Each statistic is one number a replica; a replica has initial weights, "
        "minibatches and, with label noise, labels of its own, so that n counts independent values. A criterion holds "
        "where the whole 95 % interval lies within the bounds, fails where it lies outside, and is undecided across a "
        "bound. p is the probability of what was seen, or more, if the criterion does not hold. Controls are cases in "
        "which the criterion must not hold: they show that the test can fail. A claim is reproduced where all "
        "criteria hold and no control does, partly where some hold, not where none does and some fail. Where the replicas "
        "are too few to decide any criterion it is undecided, and how many would decide is said; where the run ended before "
        "a phase that it is about it is too short to say, and how many epochs are surely too few is said.</p>"
    )


def _studies(parts: Sequence[Part]) -> str:
    rows = [[escape(part.name), f"{part.seconds / 60:.1f} min", escape(part.problem or "done")] for part in parts]
    return "<h2>Studies</h2>" + _table(["study", "took", ""], rows)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    top = "".join(f"<th>{each}</th>" for each in head)
    body = "".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table>"
