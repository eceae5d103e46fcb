"""Claims of the paper held to what was measured: a statistic, a threshold fixed beforehand, an interval, a verdict."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from math import inf, isfinite
from pathlib import Path
from typing import Any, Literal

import numpy as np
import scipy
import xarray as xr
from numpy.typing import ArrayLike

from langevin_nn.errors import ConfigurationError
from langevin_nn.statistics.intervals import MOST_REPLICAS, needed_replicas
from langevin_nn.store.durable import write_json

__all__ = ["CLAIMS", "VERDICTS", "Claim", "Criterion", "Finding", "Verdict", "claims_from", "too_short", "write_claims"]

LEVEL = 0.95

Outcome = Literal["holds", "fails", "undecided", "not measured"]
Verdict = Literal["reproduced", "partly", "not", "undecided", "too short", "not measured"]

# What the paper reports, by number: the claim in short, and where it shows it.
CLAIMS: dict[int, tuple[str, str]] = {
    1: (
        "Without label noise there are two phases, fast learning then exploration, whatever learning rate, minibatch, "
        "architecture and data; the training error reaches 0 in the transition region.",
        "Figure 1A",
    ),
    2: (
        "R is finite in the first phase, near 0 in the second, and follows A₀/A; A is flat or slightly falling during fast "
        "learning and much smaller in exploration; σ_λ² is about 1 in the first, rises sharply at the transition and is much "
        "larger than 1 in the second; order parameters averaged over time tell the same.",
        "Figure 1A",
    ),
    3: (
        "The normalised noise spectra of both phases agree; D is much larger in the first; D_s is about 110 of 900, about "
        "the same in both, and roughly constant as the number of parameters grows.",
        "Figure 2",
    ),
    4: (
        "With label noise there are four phases over a wide range of ρ, at ρ = 0.5 with boundaries near epochs 10, 70 and "
        "200; the test error falls in I, is low in II, rises in III and is high in IV.",
        "Figures 3A, 3B",
    ),
    5: (
        "ε_c falls with the test error in I, and L_w rises slightly; both cohorts are flat in II; both fall to 0 in III.",
        "Figure 3A",
    ),
    6: (
        "t_m hardly depends on ρ; t_f grows with ρ; ε_f grows about linearly with ρ; ε_m stays about the same while ρ is "
        "small, rises sharply past a threshold and approaches ε_f for ρ > 0.85.",
        "Figures 3C, 3D",
    ),
    7: ("A, A_c, A_w and the directed activities grow through I–III and fall in IV.", "Figures 4A, 4B"),
    8: ("A₀,c ≫ A₀,w in I; A₀,c ≈ A₀,w from II on; A₀ ≪ A₀,c in II.", "Figure 4B"),
    9: ("R_cw < 0 in I, ≈ −1 in II, > 0 in III, < 0 in IV; R_aw < 0 in I.", "Figure 4C"),
    10: (
        "D_s is about 43, 58, 140 and 95 in phases I–IV, of 2,500; the normalised spectra are similar to each other and to "
        "those without label noise.",
        "Figure 5",
    ),
    11: (
        "The two cohorts' loss distributions coincide at the start and in IV, and are farthest apart in II.",
        "Figure 6A",
    ),
    12: (
        "Two Gaussians fit the distribution of sample losses; their means agree with the true L_c and L_w.",
        "Figures 6B, 6C",
    ),
    13: (
        "Removing, at the time of largest ΔL, the samples above the threshold recovers generalisation: Q > 50 % up to "
        "ρ = 0.8; early stopping there does as well; the two thresholds do not differ much; a_p falls slightly with ρ.",
        "Figures 6D, 6E",
    ),
    14: ("The same phases appear on CIFAR-10 and with convolutional networks.", "text of sections 3 and 4"),
}


@dataclass(frozen=True)
class Criterion:
    """What a statistic must be for a claim to hold, said before it was measured.

    Parameters
    ----------
    statistic : str
        What is computed of each replica, in words.
    reason : str
        Why the bounds are what they are.
    least, most : float, optional
        Where its mean must lie.
    is_control : bool, optional
        Whether it is a case in which it must *not* hold, so that one sees the test can fail.

    Raises
    ------
    ConfigurationError
        If there is no bound, or none can be met.
    """

    statistic: str
    reason: str
    least: float = -inf
    most: float = inf
    is_control: bool = False

    def __post_init__(self) -> None:
        for name in ("least", "most"):  # in Python's own type, whose comparisons count as numbers
            object.__setattr__(self, name, float(getattr(self, name)))
        if not self.least < self.most or (self.least == -inf and self.most == inf):
            raise ConfigurationError(
                f"criterion {self.statistic!r} asks for {self.least:g} to {self.most:g}: expected a bound, and the lower one "
                "below the upper one, since any or no number would do"
            )

    def held_to(self, values: ArrayLike) -> Finding:
        """Hold the criterion to the mean of independent values.

        The interval is Student's t; the p-value is that of the larger of the two one-sided tests (Schuirmann 1987, doi
        10.1007/BF01068419) of the hypothesis that the mean lies outside the bounds.

        Parameters
        ----------
        values : array, shape (replica,)
            NaN where a replica has no such quantity; those are left out, and counted.

        Returns
        -------
        Finding
            Not measured where there is no value, undecided where there is one.
        """
        numbers = np.asarray(values, dtype=np.float64).ravel()
        finite = numbers[np.isfinite(numbers)]
        n, missing = len(finite), int(len(numbers) - len(finite))
        if n < 2:
            only = float(finite[0]) if n else np.nan
            return self._finding(only, np.nan, np.nan, np.nan, n, missing)
        centre, error = float(finite.mean()), float(finite.std(ddof=1) / np.sqrt(n))
        half = float(scipy.stats.t.ppf(0.5 + LEVEL / 2, n - 1)) * error
        if error > 0:
            sides = [
                float(scipy.stats.t.sf((centre - self.least) / error, n - 1)),
                float(scipy.stats.t.sf((self.most - centre) / error, n - 1)),
            ]
        else:
            sides = [float(not self.least <= centre <= self.most)]
        return self._finding(centre, centre - half, centre + half, max(sides), n, missing)

    def held_to_share(self, successes: ArrayLike) -> Finding:
        """Hold the criterion to the share of replicas in which something is so.

        The interval is Clopper and Pearson's (1934, doi 10.1093/biomet/26.4.404). Replicas without an answer, such as those
        that have not reached a phase by the end, are counted against it at its lower end and for it at its upper one: left
        out, they would make a share of those alone that were fast enough.

        Parameters
        ----------
        successes : array of bool, shape (replica,)
            In which it is; NaN where a replica has no answer.

        Returns
        -------
        Finding
            Of the share among the replicas that have an answer, with the exact binomial p-value.
        """
        numbers = np.asarray(successes, dtype=np.float64).ravel()
        flags = numbers[~np.isnan(numbers)] != 0
        n, k, missing = len(flags), int(flags.sum()), int(np.isnan(numbers).sum())
        if n == 0:
            return self._finding(np.nan, np.nan, np.nan, np.nan, 0, missing)
        fewest, most = (scipy.stats.binomtest(each, n + missing) for each in (k, k + missing))
        sides = []
        if self.least > 0:
            least = min(self.least, 1.0)
            sides.append(float(scipy.stats.binomtest(k, n + missing, least, alternative="greater").pvalue))
        if self.most < 1:
            largest = max(self.most, 0.0)
            sides.append(float(scipy.stats.binomtest(k + missing, n + missing, largest, alternative="less").pvalue))
        low, high = float(fewest.proportion_ci(LEVEL).low), float(most.proportion_ci(LEVEL).high)
        found = self._finding(k / n, low, high, max(sides, default=0.0), n, missing)
        return replace(found, needed=_needed_for_share(k / n, self.least, self.most)) if found.needed else found

    def held_to_interval(
        self, estimate: float, lower: float, upper: float, *, p_value: float = np.nan, sample_size: int = 0
    ) -> Finding:
        """Hold the criterion to an estimate that has an interval already, of a fit for example.

        Parameters
        ----------
        estimate, lower, upper : float
            With the 95 % interval.
        p_value : float, optional
            Of the hypothesis that the criterion does not hold.
        sample_size : int, optional
            Independent values behind it.

        Returns
        -------
        Finding
            Undecided where the interval contains a bound.
        """
        return self._finding(float(estimate), float(lower), float(upper), float(p_value), int(sample_size), 0)

    def _finding(self, estimate: float, lower: float, upper: float, p_value: float, n: int, missing: int) -> Finding:
        needed = None
        if not isfinite(estimate):
            outcome: Outcome = "not measured"
        elif not (isfinite(lower) and isfinite(upper)):
            outcome = "undecided"
        elif self.least <= lower and upper <= self.most:
            outcome = "holds"
        elif upper < self.least or lower > self.most:
            outcome = "fails"
        else:
            outcome = "undecided"
            needed = needed_replicas(estimate, (upper - lower) / 2, n, self.least, self.most, level=LEVEL)
        return Finding(self, estimate, lower, upper, p_value, n, missing, outcome, needed)


@dataclass(frozen=True)
class Finding:
    """What came of a criterion.

    Parameters
    ----------
    criterion : Criterion
        What was asked.
    estimate, lower, upper : float
        Mean over replicas with its 95 % interval.
    p_value : float
        Probability of what was seen, or more, if the criterion does not hold.
    effective_sample_size : int
        Independent values behind it: replicas, for records of one run are not independent.
    missing : int
        Replicas without such a quantity.
    outcome : {"holds", "fails", "undecided", "not measured"}
        Where the interval lies: inside the bounds, outside, or across one; or that no replica has such a quantity.
    needed : int, optional
        Where it is undecided, the replicas that would decide it in 95 % of cases if mean and scatter stay as they are (of
        shares: that would if the share stays); None where they are more than 10,000 or cannot be told.
    """

    criterion: Criterion
    estimate: float
    lower: float
    upper: float
    p_value: float
    effective_sample_size: int
    missing: int
    outcome: Outcome
    needed: int | None = None

    @property
    def counts_for(self) -> bool:
        """Whether it speaks for the claim: a criterion that holds, a control that was measured and does not."""
        if self.criterion.is_control:
            return self.outcome not in ("holds", "not measured")
        return self.outcome == "holds"

    def in_words(self) -> str:
        """Return the finding as a line.

        Returns
        -------
        str
            Estimate, interval, bounds and outcome.
        """
        asked = self.criterion
        bounds = [f"≥ {asked.least:.3g}"] * (asked.least > -inf) + [f"≤ {asked.most:.3g}"] * (asked.most < inf)
        kind = "control, must not hold: " if asked.is_control else ""
        without = f" ({self.missing} more have no such value)" if self.missing else ""
        if self.outcome == "not measured":
            return f"{kind}{asked.statistic}: not measured in any of {self.missing} replicas"
        interval = f" ({self.lower:.3g} to {self.upper:.3g})" if isfinite(self.lower) else ", one value alone"
        return (
            f"{kind}{asked.statistic}: {self.estimate:.3g}{interval}{without}, asked for {' and '.join(bounds)}: "
            f"{self.outcome_in_words}"
        )

    @property
    def outcome_in_words(self) -> str:
        """The outcome, with the replicas that would decide where it is undecided."""
        if self.outcome != "undecided" or self.needed is None:
            return self.outcome
        return f"undecided, about {self.needed:,} replicas would decide"


@dataclass(frozen=True)
class Claim:
    """One of the paper's claims with what was found.

    Parameters
    ----------
    number : int
        In `CLAIMS`.
    findings : tuple of Finding
        Criteria and controls.
    figure : str
        File of our figure, in the study's folder.
    setting : str
        On what it was measured.
    note : str, optional
        Deviations, and what else one should know.
    too_short : str, optional
        Which phase the run did not reach, and how long to run it, where it was too short for what the claim is about.
    """

    number: int
    findings: tuple[Finding, ...]
    figure: str
    setting: str
    note: str = ""
    too_short: str = ""

    @property
    def verdict(self) -> Verdict:
        """Reproduced where all criteria hold and no control does, partly where some hold, not where none does and some fail.

        A control that holds, or was not measured, takes the worth from the criteria: the verdict is then "partly" at best.
        Undecided where the replicas are too few to decide any criterion; too short where one was not measured because the run
        did not reach the phase that it is about; not measured where none was.
        """
        outcomes = [each.outcome for each in self.findings if not each.criterion.is_control]
        if self.too_short and ("not measured" in outcomes or not outcomes):
            return "too short"
        if set(outcomes) <= {"not measured"}:
            return "not measured"
        if all(each.counts_for for each in self.findings):
            return "reproduced"
        if "holds" in outcomes:
            return "partly"
        return "not" if "fails" in outcomes else "undecided"

    @property
    def needed(self) -> int | None:
        """Replicas that would decide every criterion that is undecided and can be decided by at most 10,000."""
        return max((each.needed for each in self.findings if each.needed), default=None)

    def in_words(self) -> str:
        """Return the claim with its verdict and findings.

        Returns
        -------
        str
            A line, and one for each finding.
        """
        lines = [f"Claim {self.number} ({self.setting}): {VERDICTS[self.verdict]}"]
        lines += [f"  {self.too_short}."] if self.too_short else []
        lines += [f"  {each.in_words()}" for each in self.findings]
        return "\n".join(lines + ([f"  {self.note}"] if self.note else []))


VERDICTS: dict[Verdict, str] = {
    "reproduced": "reproduced",
    "partly": "partly reproduced",
    "not": "not reproduced",
    "undecided": "undecided, too few replicas to say",
    "too short": "too short to say",
    "not measured": "not measured",
}


def too_short(phases: xr.Dataset, last: str) -> str:
    """Return which phase a run did not reach, and how long to run it.

    Parameters
    ----------
    phases : xarray.Dataset
        Of `langevin_nn.analyzers.detect_phases`, with the coordinate ``epoch``.
    last : str
        The last phase that must have been reached, in two replicas at least, which have a mean with an interval.

    Returns
    -------
    str
        Empty where it was.
    """
    names = phases["phase"].attrs["flag_meanings"].split()
    reached = [int((phases["phase"] >= k + 1).any("step").sum()) for k in range(names.index(last) + 1)]
    if reached[-1] >= 2:
        return ""
    first = next(k for k, count in enumerate(reached) if count < 2)
    end, replicas = float(phases["epoch"].max()), phases.sizes["replica"]
    return (
        f"Phase {names[first].replace('_', ' ')} was reached by {reached[first]} of {replicas} replicas in {end:g} epochs: "
        f"more than {end:g} are needed, {2 * end:g} to begin with"
    )


def _needed_for_share(share: float, least: float, most: float) -> int | None:
    """Return the fewest replicas whose interval would decide if the share stays what it is."""
    n = np.arange(1, MOST_REPLICAS + 1)
    k = np.rint(share * n)
    with np.errstate(invalid="ignore"):
        low = np.where(k > 0, scipy.special.betaincinv(k, n - k + 1, 0.5 - LEVEL / 2), 0.0)
        high = np.where(k < n, scipy.special.betaincinv(k + 1, n - k, 0.5 + LEVEL / 2), 1.0)
    decided = np.flatnonzero(((least <= low) & (high <= most)) | (high < least) | (low > most))
    return int(n[decided[0]]) if len(decided) else None


def write_claims(path: Path, claims: Iterable[Claim]) -> None:
    """Write claims as JSON.

    Parameters
    ----------
    path : Path
        The file.
    claims : iterable of Claim
        With their findings; verdicts are written beside them.
    """
    rows = [{**asdict(each), "verdict": each.verdict, "needed": each.needed} for each in claims]
    write_json(path, rows)


def claims_from(path: Path) -> list[Claim]:
    """Read claims back.

    Parameters
    ----------
    path : Path
        A file of `write_claims`.

    Returns
    -------
    list of Claim
        As they were written.
    """
    return [_claim(row) for row in json.loads(path.read_text(encoding="utf-8"))]


def _claim(row: dict[str, Any]) -> Claim:
    findings = tuple(_finding(each) for each in row["findings"])
    return Claim(row["number"], findings, row["figure"], row["setting"], row["note"], row.get("too_short", ""))


def _finding(row: dict[str, Any]) -> Finding:
    asked = row["criterion"]
    bounds = {name: end if asked[name] is None else asked[name] for name, end in (("least", -inf), ("most", inf))}
    criterion = replace(Criterion("", "", least=0.0), **{**asked, **bounds})
    numbers = {name: np.nan if row[name] is None else row[name] for name in ("estimate", "lower", "upper", "p_value")}
    return Finding(**{**row, **numbers, "criterion": criterion})
