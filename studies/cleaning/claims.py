"""Claims 11, 12 and 13: how far losses part, whether two Gaussians fit them, and what cleaning recovers."""

from __future__ import annotations

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from langevin_nn.analyzers import LossMixture, gaussian_mixture, mean_with_interval, phase_means
from studies.cleaning.measures import separability
from studies.lab.claims import Claim, Criterion, too_short

__all__ = ["claim_11", "claim_12", "claim_13", "in_short", "which_to_use"]

FIGURE = "cleaning.png"
PHASES = ("I", "II", "III", "IV")

_BY_EYE = "the distributions of figure 6A"

AT_START = Criterion(
    "probability that a mislabeled sample has the larger loss, at the start",
    "½ by chance, within 0.01 for 4,000 samples; the paper's distributions are identical then",
    least=0.45,
    most=0.55,
)
APART_IN_II = Criterion(
    "probability that a mislabeled sample has the larger loss, in phase II",
    f"{_BY_EYE} overlap little in II; 0.9 leaves a tenth of the pairs in the wrong order",
    least=0.9,
)
FARTHEST_IN_II = Criterion(
    "distance of the cohorts' losses in phase II less the larger of those in I and III (nat)",
    "the separation grows in I and closes in III",
    least=0.0,
)
TOGETHER_IN_IV = Criterion(
    "distance of the cohorts' losses in phase IV, over that in II",
    f"{_BY_EYE} lie on one another in IV; a tenth of the separation of II is about the width of a bar",
    most=0.1,
)
INDISTINGUISHABLE_IN_IV = Criterion(
    "probability that a mislabeled sample has the larger loss, in phase IV",
    "“indistinguishable”, to the letter, is ½ by chance",
    least=0.45,
    most=0.55,
)
SHUFFLED = Criterion(
    "probability that a mislabeled sample has the larger loss, in phase II, with shuffled cohorts",
    "without cohorts there is nothing to tell apart",
    least=0.9,
    is_control=True,
)

APART = Criterion(
    "separation of the two Gaussians in their standard deviations, mean over phase II, 0 where one alone is preferred",
    "the paper's P(l) is bimodal: two Gaussians of one width and weight have two maxima from 2 on (Ashman, Bird "
    "& Zepf 1994, doi 10.1086/117248); after a first look this took the place of the share of replicas above 2, which so few "
    "replicas cannot decide",
    least=2.0,
)
ONE_GAUSSIAN = Criterion(
    "the same of samples of one Gaussian, of the same size",
    "one Gaussian is not bimodal",
    least=2.0,
    is_control=True,
)
FITS = Criterion(
    "Kolmogorov–Smirnov distance of the losses from two Gaussians, mean over phase II",
    "5 % off at worst is what a fit drawn over a histogram does not show, and what LossMixture accepts",
    most=0.05,
)
MEANS_AGREE = Criterion(
    "distance of the fitted means from L_c and L_w, mean over phase II, in units of L_w − L_c",
    "figure 6C: symbols lie on lines, to within about their size, a tenth of the separation",
    most=0.1,
)
MEANS_OF_SHUFFLED = Criterion(
    "the same with shuffled cohorts, in units of L_w − L_c of the true ones",
    "with shuffled cohorts both means are that of all samples, half a separation away",
    most=0.1,
    is_control=True,
)

HALF = 0.5  # the paper's "significant improvement"
AS_MUCH = 0.1  # of Q: what does not show in figure 6E
GAINS_NOTHING = Criterion(
    "test accuracy gained by cleaning at ρ = 0 (equal density)",
    "where no label is wrong there is nothing to gain; at ρ = ½ the paper gains about 0.3",
    least=0.05,
    is_control=True,
)
STOPPING = Criterion(
    "Q of early stopping less Q of cleaning (equal density), mean over ρ",
    "“no significant differences”; a tenth does not show in figure 6E",
    least=-AS_MUCH,
)
THRESHOLDS = Criterion(
    "Q of the midpoint less Q of the equal-density threshold, mean over ρ",
    "“no significant differences”; a tenth does not show in figure 6E",
    least=-AS_MUCH,
    most=AS_MUCH,
)
FALLS_SLIGHTLY = Criterion(
    "a_p at the lowest ρ less a_p at the highest up to 0.8",
    "“slight decrease”: it falls, by less than a tenth",
    least=0.0,
    most=0.1,
)


def claim_11(shown: xr.Dataset, phases: xr.Dataset, setting: str) -> Claim:
    """Hold the separation of the cohorts to the claim.

    Parameters
    ----------
    shown : xarray.Dataset
        ``sample_loss`` (replica, step, sample) and ``mislabeled`` (replica, sample) at one label noise.
    phases : xarray.Dataset
        Of `detect_phases`.
    setting : str
        On what it was measured.

    Returns
    -------
    Claim
        Number 11.
    """
    apart = separability(shown.sample_loss, shown.mislabeled)
    area = _by_phase(apart.area_under_curve, phases)
    distance = _by_phase(apart.transport_distance, phases)
    other = separability(_in_ii(shown.sample_loss, phases), _shuffled(shown.mislabeled))
    findings = (
        AT_START.held_to(apart.area_under_curve.isel(step=0)),
        APART_IN_II.held_to(area.sel(phase="II")),
        FARTHEST_IN_II.held_to(distance.sel(phase="II") - distance.sel(phase=["I", "III"]).max("phase", skipna=False)),
        TOGETHER_IN_IV.held_to(distance.sel(phase="IV") / distance.sel(phase="II")),
        INDISTINGUISHABLE_IN_IV.held_to(area.sel(phase="IV")),
        SHUFFLED.held_to(other.area_under_curve.mean("step")),
    )
    steps = _by_phase(apart.kolmogorov_smirnov, phases).mean("replica")
    known = ", ".join(f"{name} {float(steps.sel(phase=name)):.2f}" for name in PHASES)
    note = (
        f"Kolmogorov–Smirnov distance of the cohorts: {float(apart.kolmogorov_smirnov[:, 0].mean()):.2f} at the start, "
        f"by phase {known}. On the axis of losses, which the paper draws, cohorts may coincide in IV while the order of "
        "losses, by which a rule could clean, still tells them apart: both are held to it."
    )
    return Claim(11, findings, FIGURE, setting, note, too_short(phases, "IV"))


def claim_12(shown: xr.Dataset, phases: xr.Dataset, mixture: xr.Dataset, setting: str) -> Claim:
    """Hold the fit of two Gaussians to the claim.

    Parameters
    ----------
    shown, phases, setting : object
        As in `claim_11`.
    mixture : xarray.Dataset
        Of `LossMixture`, with the true means.

    Returns
    -------
    Claim
        Number 12.
    """
    of_shuffled = LossMixture()(shown.assign(mislabeled=_shuffled(shown.mislabeled)))
    gap = mixture.cohort_separation
    spread = (mixture.component_standard_deviation**2).mean("component") ** 0.5
    apart = (mixture.separation / spread).where(mixture.components == 2, 0.0)
    findings = (
        APART.held_to(_by_phase(apart, phases).sel(phase="II")),
        ONE_GAUSSIAN.held_to(_of_one_gaussian(shown.sizes["replica"], shown.sizes["sample"])),
        FITS.held_to(_by_phase(mixture.fit_distance.sel(n_components=2), phases).sel(phase="II")),
        MEANS_AGREE.held_to(_by_phase(_off(mixture) / gap, phases).sel(phase="II")),
        MEANS_OF_SHUFFLED.held_to(_by_phase(_off(of_shuffled) / gap, phases).sel(phase="II")),
    )
    distance = _by_phase(mixture.fit_distance, phases).sel(phase="II").mean("replica")
    ratio = float(distance.sel(n_components=1) / distance.sel(n_components=2))
    note = f"One Gaussian alone is {ratio:.1f} times as far from the losses of phase II."
    return Claim(12, findings, FIGURE, setting, note, too_short(phases, "II"))


def claim_13(results: xr.Dataset, setting: str) -> Claim:
    """Hold the paper's rule to the claim, and say what ours does beside it.

    Parameters
    ----------
    results : xarray.Dataset
        Of `results_of`.
    setting : str
        On what it was measured.

    Returns
    -------
    Claim
        Number 13.
    """
    noisy = results.sel(label_noise=(results.label_noise > 0) & (results.label_noise <= 0.8 + 1e-9))
    quality = noisy.cleaning_quality
    findings = [
        Criterion(
            f"Q of cleaning at the largest ΔL (equal density) at ρ = {noise:g}", "Q > 50 % up to ρ = 0.8", least=HALF
        ).held_to(quality.sel(label_noise=noise, rule="equal_density"))
        for noise in noisy.label_noise.values
    ]
    over_noises = quality.mean("label_noise", skipna=False)
    fall = noisy.accuracy_pure.isel(label_noise=0, drop=True) - noisy.accuracy_pure.isel(label_noise=-1, drop=True)
    findings += [
        STOPPING.held_to(over_noises.sel(rule="stopped_literal") - over_noises.sel(rule="equal_density")),
        THRESHOLDS.held_to(over_noises.sel(rule="midpoint") - over_noises.sel(rule="equal_density")),
        FALLS_SLIGHTLY.held_to(fall if len(noisy.label_noise) > 1 else fall * np.nan),
        Criterion(
            "Q of removing as many samples at random, where it was tried",
            "what matters is which samples are removed, not how many",
            least=HALF,
            is_control=True,
        ).held_to(quality.sel(rule="random").mean("label_noise")),
    ]
    notes = [f"{_RULES[rule]}: Q = {_qualities(quality.sel(rule=rule))}" for rule in _RULES if rule in quality.rule]
    if 0 in results.label_noise:
        clean = results.sel(label_noise=0)
        gain = clean.accuracy_cleaned - clean.accuracy_uncleaned
        findings.append(GAINS_NOTHING.held_to(gain.sel(rule="equal_density")))
        notes.append(
            f"At ρ = 0 the paper's rule removes {float(clean.removed_share.sel(cleaning_rule='equal_density').mean()):.0%} "
            f"of the samples and changes the test accuracy by {_value(gain.sel(rule='equal_density'))}; find_mislabeled "
            f"removes {float(clean.removed_share.sel(cleaning_rule='find_mislabeled').mean()):.0%} and changes it by "
            f"{_value(gain.sel(rule='find_mislabeled'))}"
        )
    return Claim(13, tuple(findings), FIGURE, setting, ". ".join(notes) + ".")


_RULES = {"find_mislabeled": "Our rule, find_mislabeled", "midpoint": "The paper's with the midpoint"}


def in_short(results: xr.Dataset) -> list[str]:
    """Return Q of each rule and what it removes, as lines.

    Parameters
    ----------
    results : xarray.Dataset
        Of `results_of`.

    Returns
    -------
    list of str
        A block for each label noise.
    """
    lines = []
    for noise in results.label_noise.values:
        at = results.sel(label_noise=noise)
        lines.append(
            f"ρ = {noise:g}: test accuracy {_value(at.accuracy_uncleaned)} uncleaned, {_value(at.accuracy_pure)} trained on "
            "correct labels alone"
        )
        for rule in at.rule.values:
            if not bool(at.accuracy_cleaned.sel(rule=rule).notnull().any()):
                continue
            said = f"  {rule}: a_c = {_value(at.accuracy_cleaned.sel(rule=rule))}"
            if noise > 0:
                said += f", Q = {_value(at.cleaning_quality.sel(rule=rule))}"
            if rule in at.cleaning_rule:
                of = at.sel(cleaning_rule=rule)
                said += (
                    f", removed {float(of.removed_share.mean()):.0%} with precision {_value(of.precision)} and recall "
                    f"{_value(of.recall)}, refused in {int(of.is_refused.sum())} of {of.sizes['replica']}"
                )
            lines.append(said)
    return lines


def which_to_use(results: xr.Dataset) -> list[str]:
    """Return how our rule compares with the paper's and with cleanlab at each label noise, and what each asks for.

    "Not told apart" is said where the interval of the difference holds 0.

    Parameters
    ----------
    results : xarray.Dataset
        Of `results_of`.

    Returns
    -------
    list of str
        A line for each label noise, and one for what the rules need.
    """
    lines = ["When to use which (differences of Q with 95 % intervals, replica by replica):"]
    others = [name for name in ("equal_density", "cleanlab") if name in results.rule]
    for noise in results.label_noise.values:
        at = results.sel(label_noise=noise)
        if noise == 0:
            shares = {rule: at.removed_share.sel(cleaning_rule=rule).mean() for rule in ("find_mislabeled", *others)}
            tried = [f"{rule} {float(share):.1%}" for rule, share in shares.items() if np.isfinite(share)]
            lines.append(f"  no wrong labels: samples removed for nothing: {', '.join(tried)}.")
            continue
        own, said = at.cleaning_quality.sel(rule="find_mislabeled"), []
        for rule in others:
            moments = mean_with_interval(own - at.cleaning_quality.sel(rule=rule))
            if np.isfinite(moments.lower):
                compared = (
                    "better than" if moments.lower > 0 else "worse than" if moments.upper < 0 else "not told apart from"
                )
                # Adding 0 takes the sign from a rounded 0.
                low, middle, high = (round(float(moments[name]), 2) + 0.0 for name in ("lower", "mean_value", "upper"))
                said.append(f"{compared} {rule} ({middle:+.2f}, {low:+.2f} to {high:+.2f})")
        lines.append(f"  ρ = {noise:g}: find_mislabeled is {' and '.join(said) or 'compared with nothing'}.")
    lines.append(
        "  find_mislabeled asks for the losses of each sample during one training; cleanlab for predictions out of sample, "
        "from several trainings, and for no losses: use it where none were recorded."
    )
    return lines


def _by_phase(values: xr.DataArray, phases: xr.Dataset) -> xr.DataArray:
    """Return means over each of four phases, NaN for one that was not reached."""
    return phase_means(values.transpose(..., "replica", "step"), phases).reindex(phase=list(PHASES))


def _in_ii(losses: xr.DataArray, phases: xr.Dataset) -> xr.DataArray:
    """Return the losses of up to five records that lie in phase II in most replicas; of replicas that are there."""
    share = (phases.phase == 2).mean("replica").values
    at = np.flatnonzero((share == share.max()) & (share > 0))
    if not len(at):
        return losses.isel(step=[0]) * np.nan
    losses = losses.where(phases.phase == 2)
    return losses.isel(step=at[np.unique(np.linspace(0, len(at) - 1, 5).round().astype(int))])


def _shuffled(mislabeled: xr.DataArray) -> xr.DataArray:
    """Return cohorts of the same sizes, of other samples."""
    generator = np.random.default_rng(0)
    rows = mislabeled.transpose("replica", "sample")
    return rows.copy(data=np.stack([generator.permutation(row) for row in rows.values]))


def _of_one_gaussian(replicas: int, samples: int) -> NDArray[np.float64]:
    """Return the separation of two Gaussians fitted to samples of one, 0 where one is preferred."""
    mixture = gaussian_mixture(np.random.default_rng(0).standard_normal((replicas, samples)), least_samples=2)
    spread = np.sqrt((mixture.standard_deviation**2).mean(-1))
    return np.where(mixture.components == 2, mixture.separation / spread, 0.0)


def _off(mixture: xr.Dataset) -> xr.DataArray:
    """Return the mean distance of the two fitted means from the true ones."""
    fitted = mixture.component_mean.rename(component="cohort").assign_coords(cohort=mixture.cohort.values)
    off: xr.DataArray = abs(fitted - mixture.cohort_mean)
    return off.mean("cohort", skipna=False)


def _value(values: xr.DataArray) -> str:
    moments = mean_with_interval(values)
    count, half = int(moments["count"]), float(moments.upper - moments.mean_value)
    if not count:
        return "not measured"
    few = f" ({count} of {values.size})" if count < values.size else ""
    return f"{float(moments.mean_value):.2f}" + (f" ± {half:.2f}" if count > 1 else "") + few


def _qualities(quality: xr.DataArray) -> str:
    return ", ".join(f"{_value(quality.sel(label_noise=noise))} at {noise:g}" for noise in quality.label_noise.values)
