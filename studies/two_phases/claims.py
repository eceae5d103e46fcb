"""Claims 1 to 3 of the paper, without label noise: what is computed of each replica, and what it must be."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from langevin_nn.analyzers import Timescales, detect_phases
from studies.lab.claims import Claim, Criterion, Finding, too_short
from studies.lab.lines import slopes as slopes_of
from studies.two_phases.curves import Curves
from studies.two_phases.plan import CHOICES, FAST, LATE, Settled

__all__ = ["Evidence", "claims", "in_their_phase", "reached"]

Floats = NDArray[np.float64]

PAPER_DIMENSION = 110.0  # of 900, "roughly the same in both phases"


@dataclass(frozen=True)
class Evidence:
    """What was measured.

    Parameters
    ----------
    curves : dict of str to Curves
        By name in `CHOICES`.
    root : xarray.Dataset
        Losses and errors of the long run.
    phases : xarray.Dataset
        Its phases.
    control : xarray.Dataset
        Losses and errors with half of the labels redrawn.
    spectra : dict of str to xarray.Dataset
        Noise spectra by name in `CHOICES`.
    widths : xarray.Dataset
        Of `width_runs`.
    grid : xarray.Dataset
        Phases at each point, ``reached`` (point, replica) among them.
    time_averages : xarray.Dataset
        Of `TimeAveragedOrderParameters`.
    """

    curves: Mapping[str, Curves]
    root: xr.Dataset
    phases: xr.Dataset
    control: xr.Dataset
    spectra: Mapping[str, xr.Dataset]
    widths: xr.Dataset
    grid: xr.Dataset
    time_averages: xr.Dataset


def claims(found: Evidence, config: Settled) -> list[Claim]:
    """Hold the paper's claims to what was measured.

    Parameters
    ----------
    found : Evidence
        What was measured.
    config : Settled
        What was chosen.

    Returns
    -------
    list of Claim
        1, 2 and 3.
    """
    setting = (
        f"{config.dataset}, {config.samples_per_class} images a class, hidden layers of {config.hidden[0]} and "
        f"{config.hidden[1]} units, α = {config.learning_rate:g}, B = {config.batch_size}, {config.epochs:g} epochs, "
        f"{config.replicas} replicas ({config.few_replicas} of all parameters, widths and grid)"
    )
    short = too_short(found.phases, "exploration")
    return [
        Claim(
            1,
            _two_phases(found),
            "two_phases.png",
            setting,
            "Convolutional networks and other data are left to the study of claim 14.",
            short,
        ),
        Claim(
            2,
            tuple(each for name in CHOICES for each in _order_parameters(found.curves[name], name)) + _over_time(found),
            "two_phases.png",
            setting,
            "The paper measures the weights between the hidden layers; all parameters are measured beside them.",
            short,
        ),
        Claim(
            3,
            tuple(each for name in CHOICES for each in _dimensions(found, name)) + _spectra(found),
            "spectra.png",
            setting,
            "Noise strength and shape of the spectrum are compared over the hidden weights, of which all modes are known.",
            short,
        ),
    ]


def _two_phases(found: Evidence) -> tuple[Finding, ...]:
    curves = found.curves[CHOICES[0]]
    errors = found.root.train_error.sel(cohort="all").transpose("replica", "step").values
    fits = Timescales()(found.root).time_of_fit.sel(clock="epoch").values
    slopes = [-curves.slope("train_loss", begin, end) for begin, end in curves.both]
    epoch = found.root.epoch.values
    begins = curves.boundary[np.isfinite(curves.boundary)]
    at = int(np.searchsorted(epoch, 2 * begins.mean() if len(begins) else np.inf))
    wrong = found.control.train_error.sel(cohort="all").transpose("replica", "step").values
    # From the same record on in all replicas: the null of the test is computed anew for each number of records.
    after = np.flatnonzero(epoch >= (begins.max() if len(begins) else curves.end))
    late = found.root.isel(replica=np.flatnonzero(np.isfinite(curves.boundary)), step=after)
    again = (
        detect_phases(late).boundary_epoch.notnull().any("boundary").values if len(begins) else np.zeros(0, dtype=bool)
    )
    widths = found.widths.train_error.sel(choice=CHOICES[0])
    crossed = (widths.sel(phase="fast_learning") > 0.01).astype(np.float64)
    crossed = crossed.where(widths.sel(phase="exploration") <= 0.01)
    chance = "the detector finds one in stationary noise with a probability of at most 0.05"
    return (
        Criterion(
            "share of replicas with a transition from fast learning to exploration", chance, least=0.5
        ).held_to_share(np.where(np.isfinite(curves.boundary), 1.0, np.nan)),
        Criterion("share of replicas with one, over the grid of α and B", chance, least=0.8).held_to_share(
            found.grid.reached.astype(np.float64).where(found.grid.reached > 0).values
        ),
        Criterion(
            f"share of replicas, over widths {', '.join(map(str, widths.width.values))}, that are in fast learning early in "
            "the run and have fitted all but 1 % halfway",
            "most networks, whatever their width",
            least=0.8,
        ).held_to_share(crossed.values),
        Criterion(
            "relative rate at which L falls, d ln L/dt, in fast learning over that in exploration",
            "'much more slowly': at least three times",
            least=3.0,
        ).held_to(slopes[0] / slopes[1]),
        Criterion(
            "epoch from which ε_tr stays at 0.1 % over that at which A has fallen half of its way, on a logarithmic scale",
            "zero 'in the transition region': within a factor of two of where activity changes",
            least=0.5,
            most=2.0,
        ).held_to(fits / curves.fall_of_activity()),
        Criterion(
            "mean ε_tr in the second half of exploration", "'stays zero': less than a sample in a thousand", most=0.001
        ).held_to(curves.mean("train_error", (curves.boundary + curves.end) / 2, curves.end)),
        Criterion(
            "share of replicas with ε_tr ≤ 1 % at twice the epoch of the transition, with half of the labels redrawn",
            "there exploration is reached by memorisation alone, much later",
            least=0.5,
            is_control=True,
        ).held_to_share(wrong[:, at] <= 0.01 if at < len(epoch) else np.full(len(wrong), np.nan)),
        Criterion(
            "share of replicas with a further transition within exploration", chance, least=0.5, is_control=True
        ).held_to_share(again),
        Criterion("mean ε_tr in fast learning", "as for exploration", most=0.001, is_control=True).held_to(
            np.array([np.interp(curves.boundary[k] / 2, epoch, errors[k]) for k in range(len(errors))])
        ),
    )


def _order_parameters(curves: Curves, name: str) -> tuple[Finding, ...]:
    fast = curves.both[0]
    alignment = [curves.mean("alignment", *each) for each in curves.both]
    variance = [np.exp(curves.mean("projection_variance", *each, logarithmic=True)) for each in curves.both]
    activity = [np.exp(curves.mean("activity", *each, logarithmic=True)) for each in curves.both]
    middle = fast[1] / 2
    halves = [
        np.exp(curves.mean("activity", *each, logarithmic=True)) for each in ((0 * middle, middle), (middle, fast[1]))
    ]
    around = [
        np.exp(curves.mean("projection_variance", *each, logarithmic=True))
        for each in ((fast[1] / 3, fast[1]), (fast[1], np.minimum(3 * fast[1], curves.end)))
    ]
    distance = np.abs(curves.values["alignment"] - curves.values["alignment_approximation"]).mean(axis=1)
    follows, shuffled = curves.correlation("alignment", "alignment_approximation")
    finite = "three times the cosine 1/√900 of unrelated directions is 0.1"
    return (
        Criterion(f"{name}: mean R in fast learning", f"finite; {finite}", least=0.1).held_to(alignment[0]),
        Criterion(
            f"{name}: mean R in exploration", "'close to zero': half of what counts as finite", most=0.05
        ).held_to(alignment[1]),
        Criterion(f"{name}: mean R in fast learning", "as in exploration", most=0.05, is_control=True).held_to(
            alignment[0]
        ),
        Criterion(f"{name}: correlation of R with A₀/A over the records of a run", "R follows A₀/A", least=0.9).held_to(
            follows
        ),
        Criterion(f"{name}: mean |R − A₀/A|", "half of what counts as finite", most=0.05).held_to(distance),
        Criterion(
            f"{name}: correlation of R with A₀/A of records in another order",
            "as in their own",
            least=0.9,
            is_control=True,
        ).held_to(shuffled),
        Criterion(
            f"{name}: A in the second half of fast learning over that in the first",
            "'flat or slightly falling': between a third and a tenth more",
            least=1 / 3,
            most=1.1,
        ).held_to(halves[1] / halves[0]),
        Criterion(
            f"{name}: A at the initial weights over that in fast learning",
            "'relatively large in the beginning': at least a third",
            least=1 / 3,
        ).held_to(curves.values["activity"][:, 0] / activity[0]),
        Criterion(
            f"{name}: A in exploration over that in fast learning", "'much smaller': at most a tenth", most=0.1
        ).held_to(activity[1] / activity[0]),
        Criterion(
            f"{name}: A in the second half of fast learning over that in the first",
            "as for exploration",
            most=0.1,
            is_control=True,
        ).held_to(halves[1] / halves[0]),
        Criterion(
            f"{name}: geometric mean of σ_λ² in fast learning",
            "'about 1': within a factor of three",
            least=1 / 3,
            most=3.0,
        ).held_to(variance[0]),
        Criterion(
            f"{name}: geometric mean of σ_λ² in exploration", "'much larger than 1': at least three", least=3.0
        ).held_to(variance[1]),
        Criterion(
            f"{name}: geometric mean of σ_λ² in fast learning", "as in exploration", least=3.0, is_control=True
        ).held_to(variance[0]),
        Criterion(
            f"{name}: σ_λ² in the three times as long after the transition over that in two thirds before it",
            "'rises sharply': at least doubles across the transition",
            least=2.0,
        ).held_to(around[1] / around[0]),
    )


def _over_time(found: Evidence) -> tuple[Finding, ...]:
    """Ask of averages over time what is asked of the ensemble."""
    curves, windows = found.curves[CHOICES[0]], found.time_averages
    middle = windows.epoch.values
    # A replica that has not reached exploration by the end has no window in it.
    is_fast, is_slow = ~(middle[None] >= curves.boundary[:, None]), middle[None] >= curves.boundary[:, None]

    def mean(name: str, where: NDArray[np.bool_], logarithmic: bool = False) -> Floats:
        values = windows[name].transpose("replica", "window").values
        with np.errstate(invalid="ignore", divide="ignore"):
            numbers = np.log(values) if logarithmic else values
        with np.errstate(invalid="ignore"):
            means = np.where(where, numbers, 0).sum(1) / where.sum(1)
        return np.asarray(np.exp(means) if logarithmic else means)

    ensemble = np.exp([np.interp(middle, curves.epochs["activity"], np.log(row)) for row in curves.values["activity"]])
    ratio = windows["activity"].transpose("replica", "window").values / ensemble
    fast = mean("alignment", is_fast)
    return (
        Criterion(
            "over time: A over that of the ensemble, geometric mean over windows",
            "the same to a fifth",
            least=0.8,
            most=1.25,
        ).held_to(np.exp(np.log(ratio).mean(1))),
        Criterion("over time: mean R in fast learning", "as of the ensemble", least=0.1).held_to(fast),
        Criterion(
            "over time: mean R in exploration", "as of the ensemble, near 0 from either side", least=-0.05, most=0.05
        ).held_to(mean("alignment", is_slow)),
        Criterion("over time: mean R in fast learning", "as in exploration", most=0.05, is_control=True).held_to(fast),
        Criterion("over time: A in exploration over that in fast learning", "as of the ensemble", most=0.1).held_to(
            mean("activity", is_slow, True) / mean("activity", is_fast, True)
        ),
        Criterion("over time: geometric mean of σ_λ² in exploration", "as of the ensemble", least=3.0).held_to(
            mean("projection_variance", is_slow, True)
        ),
        Criterion(
            "over time: geometric mean of σ_λ² in fast learning", "as in exploration", least=3.0, is_control=True
        ).held_to(mean("projection_variance", is_fast, True)),
    )


_PHASES = ("fast_learning", "exploration")


def in_their_phase(widths: xr.Dataset) -> xr.Dataset:
    """Return effective dimensions without those of runs that are not in the phase after which the moment is called."""
    fitted = widths.train_error <= 0.01
    return widths.assign(
        effective_dimension=widths.effective_dimension.where(fitted == (widths.phase == "exploration"))
    )


def reached(curves: Curves, epochs: Floats) -> NDArray[np.bool_]:
    """Return whether all replicas are in fast learning at the first of two epochs, and in exploration at the second."""
    return np.array([_is_in(phase, curves, at).all() for phase, at in zip(_PHASES, epochs, strict=True)])


def _is_in(phase: str, curves: Curves, epoch: float) -> NDArray[np.bool_]:
    """Return which replicas are in a phase at an epoch; one that never reaches exploration is not in it."""
    explores: NDArray[np.bool_] = epoch >= curves.boundary
    return explores if phase == "exploration" else ~explores


def _dimensions(found: Evidence, name: str) -> tuple[Finding, ...]:
    spectra = found.spectra[name]
    last = float(found.root.epoch[-1])
    moments = [int(np.argmin(np.abs(spectra.epoch.values - share * last))) for share in (FAST, LATE)]
    fast, slow = (
        np.where(_is_in(phase, found.curves[name], spectra.epoch.values[k]), values, np.nan)
        for phase, k in zip(_PHASES, moments, strict=True)
        for values in [spectra.effective_dimension.isel(spectrum_step=k).values]
    )
    sizes = found.widths.n_parameters.sel(choice=name)
    whole = float(found.curves[name].n_parameters)
    known = np.isfinite(sizes.values)
    dimension = in_their_phase(found.widths).effective_dimension.sel(choice=name).isel(width=known)
    logarithms = np.log(sizes.values[known])
    paper = f"within a factor of two of the paper's {PAPER_DIMENSION:g}"
    rows = [
        Criterion(f"{name}: D_s in {words}", paper, least=PAPER_DIMENSION / 2, most=2 * PAPER_DIMENSION).held_to(values)
        for words, values in (("fast learning", fast), ("exploration", slow))
    ]
    rows += [
        Criterion(f"{name}: D_s/P in {words}", "'much smaller': at most a fifth; the paper has 0.12", most=0.2).held_to(
            values / whole
        )
        for words, values in (("fast learning", fast), ("exploration", slow))
    ]
    rows += [
        Criterion(
            f"{name}: D_s/P of isotropic noise", "as of the noise of minibatches", most=0.2, is_control=True
        ).held_to(np.full(2, np.ceil(0.9 * whole) / whole)),
        Criterion(
            f"{name}: D_s in exploration over that in fast learning", "'roughly the same'", least=2 / 3, most=1.5
        ).held_to(slow / fast),
    ]
    bounds = "'roughly constant' over a hundredfold P: at most a factor of 2.5"
    for phase in ("fast_learning", "exploration"):
        values = np.log(dimension.sel(phase=phase).transpose("replica", "width").values)
        slopes = slopes_of(logarithms, values)
        words = phase.replace("_", " ")
        rows.append(
            Criterion(f"{name}: slope of ln D_s against ln P in {words}", bounds, least=-0.2, most=0.2).held_to(slopes)
        )
    isotropic = np.polyfit(logarithms, np.log(np.ceil(0.9 * sizes.values[known])), 1)[0]
    rows.append(
        Criterion(
            f"{name}: slope of ln D_s against ln P for isotropic noise", bounds, least=-0.2, most=0.2, is_control=True
        ).held_to(np.full(2, isotropic))
    )
    return tuple(rows)


def _spectra(found: Evidence) -> tuple[Finding, ...]:
    spectra = found.spectra[CHOICES[0]]
    last = float(found.root.epoch[-1])
    values = spectra.noise_eigenvalue.transpose("replica", "spectrum_step", "mode").values
    moments = [int(np.argmin(np.abs(spectra.epoch.values - share * last))) for share in (FAST, LATE)]
    fast, slow = (
        np.where(_is_in(phase, found.curves[CHOICES[0]], spectra.epoch.values[k])[:, None], each, np.nan)
        for phase, k in zip(_PHASES, moments, strict=True)
        for each in [np.cumsum(values[:, k], axis=1)]
    )
    isotropic = np.linspace(0, 1, values.shape[2] + 1)[1:]
    shares = [each / each[:, -1:] for each in (fast, slow)]
    close = "'similar': nowhere apart by more than a tenth of D"
    return (
        Criterion(
            "largest difference of the normalised cumulative variances of the two phases", close, most=0.1
        ).held_to(np.abs(shares[0] - shares[1]).max(1)),
        Criterion("the same between fast learning and isotropic noise", close, most=0.1, is_control=True).held_to(
            np.abs(shares[0] - isotropic).max(1)
        ),
        Criterion(
            "D in fast learning over that in exploration", "'much higher': at least ten times", least=10.0
        ).held_to(fast[:, -1] / slow[:, -1]),
    )
