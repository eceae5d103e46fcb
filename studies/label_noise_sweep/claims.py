"""Claims 4 and 6 on label noise from none to nearly all: a number for each replica, criteria fixed beforehand, controls."""

from __future__ import annotations

from math import log

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from langevin_nn import Seeds
from studies.lab.claims import Claim, Criterion, Finding
from studies.lab.lines import explained, slopes

__all__ = ["claims_of", "size_findings"]

Floats = NDArray[np.float64]

LOW, FLAT, HIGH, STEEP, LAST = 0.1, 0.4, 0.6, 0.7, 0.85
GAP = 0.05

# Fixed before the sweep was run, from the words of the paper's section 4.
CRITERIA = {
    "four phases": Criterion(
        "share of the label noises above 0 at which all four phases are found",
        "a wide range is at least three quarters of it",
        least=0.75,
    ),
    "four phases without noise": Criterion(
        "the same without label noise, half of the samples called mislabeled at random",
        "cohorts that differ in nothing pass through two phases",
        least=0.75,
        is_control=True,
    ),
    "rise": Criterion(
        "test error in phase IV less that in II, mean over label noises",
        "a rise that is seen: several times a test set's binomial error",
        least=GAP,
    ),
    "rise without noise": Criterion(
        "final less lowest test error without label noise",
        "nothing wrong is memorised, so the test error does not rise",
        least=GAP,
        is_control=True,
    ),
    "t_m": Criterion(
        f"ln t_m at label noise {HIGH} less that at {LOW}",
        "hardly dependent is within a factor of 2",
        least=-log(2),
        most=log(2),
    ),
    "t_m against t_f": Criterion(
        f"ln t_f less ln t_m at label noise {HIGH}",
        "two times of different phases are not within a factor of 2",
        least=-log(2),
        most=log(2),
        is_control=True,
    ),
    "t_f": Criterion("slope of ln t_f against label noise, 0 left out", "grows is a slope above 0", least=0.0),
    "t_f shuffled": Criterion(
        "slope of ln t_f against permuted label noise",
        "nothing grows with a number drawn at random",
        least=0.0,
        is_control=True,
    ),
    "line": Criterion(
        "share of the variance of ε_f over label noises that a straight line explains",
        "about linear is more than a line explains of the square (0.94) or the root (0.96) of label noise",
        least=0.97,
    ),
    "line of minimum": Criterion(
        "share of the variance of ε_m that a straight line explains",
        "flat with a rise at the end is not linear",
        least=0.97,
        is_control=True,
    ),
    "line shuffled": Criterion(
        "share of the variance of ε_f that a line in permuted label noise explains",
        "no line goes through points in random order",
        least=0.97,
        is_control=True,
    ),
    "flat": Criterion(
        f"rise of ε_m up to label noise {FLAT}, in rises of ε_f",
        "about the same is at most a quarter of what a changing error does over the same range",
        most=0.25,
    ),
    "flat to the end": Criterion(
        "rise of ε_m up to the largest label noise, in rises of ε_f",
        "past the threshold it is not flat",
        most=0.25,
        is_control=True,
    ),
    "sharp": Criterion(
        f"steepness of ε_m above label noise {STEEP} over that up to {FLAT}",
        "sharply is at least three times as steep; a straight line has 1",
        least=3.0,
    ),
    "sharp final": Criterion(
        f"steepness of ε_f above label noise {STEEP} over that up to {FLAT}",
        "ε_f is linear, without a threshold",
        least=3.0,
        is_control=True,
    ),
    "approach": Criterion(
        f"(ε_f − ε_m)/ε_f, mean over label noises above {LAST}",
        "two curves within a tenth of each other are close",
        most=0.1,
    ),
    "apart": Criterion(
        "(ε_f − ε_m)/ε_f at label noise 0.5", "there early stopping pays, the paper says", most=0.1, is_control=True
    ),
}  # fmt: skip

_FOR_SIZES = "hardly dependent is an exponent within a quarter of 0, a factor of 1.4 in t_m over one of 4 in samples"
SIZE_CRITERIA = {
    "step": Criterion("exponent of t_m in updates against the number of samples", _FOR_SIZES, least=-0.25, most=0.25),
    "epoch": Criterion("exponent of t_m in epochs against the number of samples", _FOR_SIZES, least=-0.25, most=0.25),
}


def claims_of(found: xr.Dataset, *, seed: int, figure: str, setting: str) -> list[Claim]:
    """Hold claims 4 and 6 to what was measured.

    Parameters
    ----------
    found : xarray.Dataset
        Of ``studies.label_noise_sweep.study.measures``.
    seed : int
        From which the permutations of the controls are drawn.
    figure : str
        Our figure.
    setting : str
        On what it was measured.

    Returns
    -------
    list of Claim
        With one value a replica in each finding.
    """
    noise = found.label_noise.values
    noisy = found.sel(label_noise=noise > 0)
    lowest, final = (_by_replica(found[name]) for name in ("minimum_test_error", "final_test_error"))
    times = {name: np.log(_by_replica(noisy[name].sel(clock="epoch"))) for name in ("time_of_minimum", "time_of_fit")}
    four = _by_replica(found.has_four_phases)
    above = noise[noise > 0]
    orders = _permutations(seed, len(lowest), len(noise))
    mixed = np.stack([noise[order] for order in orders])
    mixed_above = np.stack([above[order[order > 0] - 1] for order in orders])

    def at(values: Floats, share: float, of: Floats = noise) -> Floats:
        """Values at the swept label noise nearest to a share."""
        return values[:, int(np.abs(of - share).argmin())]

    def steepness(values: Floats) -> Floats:
        return slopes(noise, values, noise >= STEEP) / slopes(noise, values, noise <= FLAT)

    end = float(noise.max())
    gap = (final - lowest) / final
    four_phases = {
        "four phases": four[:, noise > 0].mean(1),
        "four phases without noise": at(four, 0.0),
        "rise": _by_replica(noisy.rise).mean(1),
        "rise without noise": at(final - lowest, 0.0),
    }
    times_and_errors = {
        "t_m": at(times["time_of_minimum"], HIGH, above) - at(times["time_of_minimum"], LOW, above),
        "t_m against t_f": at(times["time_of_fit"] - times["time_of_minimum"], HIGH, above),
        "t_f": slopes(above, times["time_of_fit"]),
        "t_f shuffled": slopes(mixed_above, times["time_of_fit"]),
        "line": explained(noise, final),
        "line of minimum": explained(noise, lowest),
        "line shuffled": explained(mixed, final),
        "flat": (at(lowest, FLAT) - at(lowest, 0)) / (at(final, FLAT) - at(final, 0)),
        "flat to the end": (at(lowest, end) - at(lowest, 0)) / (at(final, end) - at(final, 0)),
        "sharp": steepness(lowest),
        "sharp final": steepness(final),
        "approach": gap[:, noise > LAST].mean(1),
        "apart": at(gap, 0.5),
    }
    held = [
        tuple(CRITERIA[name].held_to(values) for name, values in part.items())
        for part in (four_phases, times_and_errors)
    ]
    note = _note(found, gap, explained(noise, final), explained(noise, final, degree=2))
    end, censored = float(found.attrs["epochs"]), found.is_censored.astype(bool).any("replica").values
    short = ""
    if censored.any():
        noises = ", ".join(f"{each:g}" for each in found.label_noise.values[censored])
        short = (
            f"Not all replicas have fitted the training set at label noise {noises}: more than {end:g} epochs are needed, "
            f"{2 * end:g} to begin with"
        )
    return [Claim(4, held[0], figure, setting, _RANGE, short), Claim(6, held[1], figure, setting, note, short)]


_RANGE = (
    "Label noise is the share of redrawn labels, a tenth of which are right by chance; boundaries from training errors alone "
    "(docs/analyzers.md). Where the boundaries lie at ρ = 0.5 is asked by studies.label_noise_phases."
)


def _note(found: xr.Dataset, gap: Floats, line: Floats, parabola: Floats) -> str:
    noise = found.label_noise.values
    ends = found.mislabeled_fraction.values
    censored, early = int(found.is_censored.sum()), int(found.minimum_is_last.sum())
    said = [
        f"Label noise is the share of redrawn labels; at {noise[-1]:g} a share {ends[-1]:.3f} of the labels is wrong, the "
        "other reading of the paper's ρ.",
        f"Not fitted by the end in {censored} of {found.is_censored.size} runs; test error lowest at the end in {early}.",
    ]
    if np.isfinite(bend := parabola - line).any():
        said.append(f"Curvature explains {bend[np.isfinite(bend)].mean():.3f} of the variance of ε_f beyond the line.")
    said += [f"(ε_f − ε_m)/ε_f is {gap[:, k].mean():.2f} at {noise[k]:g}." for k in np.flatnonzero(noise > LAST)]
    return " ".join(said)


def size_findings(of_sizes: xr.Dataset) -> list[Finding]:
    """Hold t_m to what the paper concludes from it: that it does not depend on the number of samples.

    Parameters
    ----------
    of_sizes : xarray.Dataset
        `Timescales` by point, with ``samples``.

    Returns
    -------
    list of Finding
        In updates and in epochs, of which one at most can hold: the exponents differ by 1.
    """
    samples = np.log(of_sizes.samples.values)
    times = of_sizes.time_of_minimum.transpose("replica", "point", "clock")
    return [
        each.held_to(slopes(samples, np.log(times.sel(clock=clock).values))) for clock, each in SIZE_CRITERIA.items()
    ]


def _by_replica(values: xr.DataArray) -> Floats:
    found: Floats = values.transpose("replica", "label_noise").values.astype(np.float64)
    return found


def _permutations(seed: int, replicas: int, length: int) -> list[NDArray[np.int64]]:
    return [Seeds(seed).generator("permuted label noise", each).permutation(length) for each in range(replicas)]
