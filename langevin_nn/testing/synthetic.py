"""Trajectories whose phases are known, and the metric that scores a detector on them."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from langevin_nn.analyzers.labels import require
from langevin_nn.analyzers.phases import FOUR_PHASES, TWO_PHASES, PhaseDetector
from langevin_nn.errors import ConfigurationError
from langevin_nn.schema import COHORTS
from langevin_nn.statistics.decline import autoregressive_noise

__all__ = ["four_phase_trajectory", "score_boundaries", "stationary_trajectory", "two_phase_trajectory"]

Floats = NDArray[np.float64]

# Boundaries of replicas lie at most so many spreads from their mean, so that their order can be promised.
_FARTHEST = 4.0

# Errors before any learning, of ten classes; of correct samples in phase II; and of mislabeled ones there.
_CHANCE, _FLOOR, _TOP = 0.9, 0.03, 0.98


def four_phase_trajectory(
    generator: np.random.Generator,
    *,
    boundaries: Sequence[float] = (10.0, 70.0, 200.0),
    replicas: int = 4,
    records: int = 300,
    record_interval: float = 1.0,
    spread: float = 0.05,
    noise: float = 0.03,
    correlation: float = 0.5,
    n_samples: int = 1200,
    mislabeled_fraction: float = 0.45,
    time_per_epoch: float = 1.0,
    definition: PhaseDetector | None = None,
) -> xr.Dataset:
    """Return training errors of replicas that pass through four phases, with their true boundaries.

    The error of the correct samples relaxes exponentially from 0.9 to 0.03, that of the mislabeled ones rises from 0.9
    to 0.98 meanwhile; both are flat in II and fall linearly in III, so that the definitions of `PhaseDetector`, applied to
    the noiseless curves in continuous time, place the boundaries at b_j (1 + `spread` z_rj) for replica r, z ~ N(0, 1) cut
    at ± 4. The curves are then taken at the records, get autoregressive noise of standard deviation
    `noise` × √(ε (1 − ε)) (that of a share of 1/`noise`² samples), are cut to [0, 1] and rounded to whole samples.

    Parameters
    ----------
    generator : numpy.random.Generator
        Source of all randomness.
    boundaries : sequence of float, optional
        b_1 < b_2 < b_3, the mean boundaries in epochs; those after the last record are not reached.
    replicas, records : int, optional
        How many.
    record_interval : float, optional
        Epochs between records; the first is at epoch 0.
    spread : float, optional
        Standard deviation of boundaries between replicas, relative to their mean.
    noise : float, optional
        Standard deviation of the errors in units of √(ε (1 − ε)).
    correlation : float, optional
        Of the noise in successive records.
    n_samples : int, optional
        Of all cohorts.
    mislabeled_fraction : float, optional
        Share of them that is mislabeled.
    time_per_epoch : float, optional
        Gradient-flow time of an epoch.
    definition : PhaseDetector, optional
        What counts as learned (more than half), forgotten and fitted; its defaults if not given.

    Returns
    -------
    xarray.Dataset
        ``train_error`` (replica, step, cohort) with the coordinates ``epoch`` and ``time``, and the truth:
        ``true_boundary_epoch`` (replica, boundary), ``true_mean_boundary_epoch`` (boundary) over all replicas that might have
        been drawn, the same for ``time``; NaN where the last record is earlier.

    Raises
    ------
    ConfigurationError
        If the boundaries of some replica could come too close for four phases, or a parameter is out of its range.

    Examples
    --------
    >>> trajectory = four_phase_trajectory(np.random.default_rng(0), noise=0.0, spread=0.0, n_samples=10**9)
    >>> PhaseDetector()(trajectory).crossing_epoch.values[0].round(2)
    array([ 10.,  70., 200.])
    """
    definition = definition or PhaseDetector()
    means = np.asarray(boundaries, dtype=np.float64)
    _check(replicas, records, record_interval, spread, noise, correlation, n_samples)
    n_wrong = round(mislabeled_fraction * n_samples)
    if not 0 < n_wrong < n_samples:
        raise ConfigurationError(
            f"mislabeled_fraction={mislabeled_fraction} of {n_samples} samples: expected both cohorts to have samples, since "
            "without one of them there are no four phases; use two_phase_trajectory"
        )
    if definition.learned <= 0.5:
        raise ConfigurationError(
            f"learned={definition.learned}: expected more than 0.5, since the exponential relaxation of this curve ends at "
            "twice its boundary; use the default, 0.9"
        )
    # The last share of phase II in which the fall begins that reaches `forgotten` at its end.
    early = definition.forgotten * _TOP / ((1 - definition.forgotten) * _TOP - definition.fitted)
    least, most = means * (1 - _FARTHEST * spread), means * (1 + _FARTHEST * spread)
    if means.shape != (3,) or not (
        least[0] > 0 and 2 * most[0] < least[1] - early * (most[2] - least[1]) and most[1] < least[2]
    ):
        raise ConfigurationError(
            f"boundaries={tuple(boundaries)} with spread={spread}: expected three, so far apart that they keep their order, "
            f"and a flat phase II, in replicas {_FARTHEST:g} spreads off, since the truth would be undefined otherwise; move "
            "them apart or make the spread smaller"
        )
    first, second, third = _replica_boundaries(generator, means, replicas, spread).T[:, :, None]
    epoch = record_interval * np.arange(records, dtype=np.float64)
    base = (1 - definition.learned) / definition.learned
    share = np.minimum((1 - base ** (epoch / first)) / (1 - base**2), 1)  # `learned` at first, 1 at twice first
    start = second - early * (third - second)
    # The correct samples' error is flat until II ends: its whole fall ends there.
    learned_more = np.maximum(epoch - second, 0) / (third - second)
    correct = np.maximum(_CHANCE + (_FLOOR - _CHANCE) * share + (definition.fitted - _FLOOR) * learned_more, 0)
    rise = (_TOP - _CHANCE) * np.minimum(epoch / first, 1)
    memorised = np.maximum(epoch - start, 0) / (third - start)
    wrong = np.maximum(_CHANCE + rise + (definition.fitted - _TOP) * memorised, 0)
    curves = np.stack([correct, wrong])
    jitter = noise * np.sqrt(curves * (1 - curves)) * autoregressive_noise(generator, curves.shape, correlation)
    errors = _of_samples(curves + jitter, n_samples, n_wrong)
    truth = np.concatenate([first, second, third], axis=1)
    return _dataset(errors, epoch, time_per_epoch, FOUR_PHASES, truth, means)


def two_phase_trajectory(
    generator: np.random.Generator,
    *,
    boundary: float = 50.0,
    replicas: int = 4,
    records: int = 200,
    record_interval: float = 1.0,
    spread: float = 0.05,
    noise: float = 0.03,
    correlation: float = 0.5,
    n_samples: int = 1200,
    time_per_epoch: float = 1.0,
    definition: PhaseDetector | None = None,
) -> xr.Dataset:
    """Return training errors of replicas without mislabeled samples, with the true end of fast learning.

    The error falls from 0.9 exponentially towards a level as far below 0 as `fitted` is above, and stays 0 once it is
    there, so that it crosses `fitted` at the boundary; noise, rounding and truth as in `four_phase_trajectory`.

    Parameters
    ----------
    generator : numpy.random.Generator
        Source of all randomness.
    boundary : float, optional
        Its mean, in epochs.
    replicas, records, n_samples : int, optional
        As for `four_phase_trajectory`, like what follows.
    record_interval, spread, noise, correlation, time_per_epoch : float, optional
        Epochs between records, scatter of boundaries, noise of errors and its memory, and time.
    definition : PhaseDetector, optional
        What counts as fitted; its defaults if not given.

    Returns
    -------
    xarray.Dataset
        As that of `four_phase_trajectory`, NaN for mislabeled samples.

    Raises
    ------
    ConfigurationError
        If a boundary could be negative, or a parameter is out of its range.

    Examples
    --------
    >>> trajectory = two_phase_trajectory(np.random.default_rng(0), replicas=2)
    >>> abs(PhaseDetector()(trajectory).crossing_epoch - trajectory.true_boundary_epoch).max().item() < 3
    True
    """
    definition = definition or PhaseDetector()
    _check(replicas, records, record_interval, spread, noise, correlation, n_samples)
    if not (boundary > 0 and _FARTHEST * spread < 1):
        raise ConfigurationError(
            f"boundary={boundary} with spread={spread}: expected a positive one in replicas {_FARTHEST:g} spreads off as "
            "well, since learning takes time; make the spread smaller than 0.25"
        )
    truth = _replica_boundaries(generator, np.array([boundary]), replicas, spread)
    epoch = record_interval * np.arange(records, dtype=np.float64)
    fitted = definition.fitted
    curve = (_CHANCE + fitted) * (2 * fitted / (_CHANCE + fitted)) ** (epoch / truth) - fitted
    curve = np.maximum(curve, 0)
    jitter = noise * np.sqrt(curve * (1 - curve)) * autoregressive_noise(generator, curve.shape, correlation)
    errors = _of_samples(np.stack([curve + jitter, np.full_like(curve, np.nan)]), n_samples, 0)
    return _dataset(errors, epoch, time_per_epoch, TWO_PHASES, truth, np.array([boundary]))


def stationary_trajectory(
    generator: np.random.Generator,
    *,
    error: float = 0.5,
    amplitude: float = 0.05,
    replicas: int = 4,
    records: int = 200,
    record_interval: float = 1.0,
    correlation: float = 0.5,
    n_samples: int = 1200,
    mislabeled_fraction: float = 0.45,
    time_per_epoch: float = 1.0,
) -> xr.Dataset:
    """Return training errors that wander about one value: there is no boundary to be found.

    Parameters
    ----------
    generator : numpy.random.Generator
        Source of all randomness.
    error : float, optional
        The mean, of all cohorts.
    amplitude : float, optional
        Standard deviation of the noise, which is autoregressive and cut where errors would leave [0, 1].
    replicas, records, n_samples : int, optional
        As for `four_phase_trajectory`, like what follows.
    record_interval, correlation, time_per_epoch : float, optional
        Epochs between records, memory of the noise, and time.
    mislabeled_fraction : float, optional
        Share of the samples that is mislabeled, with noise of its own; 0 for a trajectory without mislabeled ones.

    Returns
    -------
    xarray.Dataset
        As that of `four_phase_trajectory`, all true boundaries NaN.

    Raises
    ------
    ConfigurationError
        If a parameter is out of its range.

    Examples
    --------
    >>> trajectory = stationary_trajectory(np.random.default_rng(0), correlation=0.9)
    >>> int(PhaseDetector()(trajectory).boundary_epoch.count())
    0
    """
    _check(replicas, records, record_interval, 0.0, amplitude, correlation, n_samples)
    noise = autoregressive_noise(generator, (2, replicas, records), correlation)
    n_wrong = round(mislabeled_fraction * n_samples)
    errors = _of_samples(error + amplitude * noise, n_samples, n_wrong)
    names = FOUR_PHASES if n_wrong else TWO_PHASES
    nowhere = np.full((replicas, len(names) - 1), np.nan)
    epoch = record_interval * np.arange(records, dtype=np.float64)
    return _dataset(errors, epoch, time_per_epoch, names, nowhere, nowhere[0])


def score_boundaries(found: xr.Dataset, truth: xr.Dataset, *, clock: str = "epoch") -> xr.Dataset:
    """Score the boundaries that a detector found, over all dimensions but that of boundaries.

    Parameters
    ----------
    found : xarray.Dataset
        Of `PhaseDetector`, over replicas and any other dimensions: ``crossing_epoch``, ``mean_boundary_epoch`` and its
        interval.
    truth : xarray.Dataset
        Of a generator: ``true_boundary_epoch``, ``true_mean_boundary_epoch``.
    clock : str, optional
        "epoch" or "time".

    Returns
    -------
    xarray.Dataset
        By boundary, NaN where there was no case:

        - ``covered_share``: of the ensembles of replicas with a true mean boundary, the share whose interval holds it; one
          without an interval does not; ``ensemble_count``: how many there were;
        - ``mean_width``: of those intervals;
        - ``bias``, ``root_mean_square_error``: of the boundaries found in single replicas;
        - ``missed_share``: of the replicas with a true boundary, the share without a found one;
        - ``false_alarm_share``: of the replicas without a true boundary, the share with a found one;

        and over boundaries together ``alarmed_share``: of the replicas without any true boundary, the share with any found
        one; ``stationary_count``: how many there were.

    Raises
    ------
    ConfigurationError
        If a variable is missing.

    Examples
    --------
    >>> generator = np.random.default_rng(0)
    >>> truth = xr.concat([two_phase_trajectory(generator) for _ in range(50)], dim="trial")
    >>> score = score_boundaries(PhaseDetector()(truth), truth)
    >>> score.covered_share.item() > 0.85, score.missed_share.item(), score.ensemble_count.item()
    (True, 0.0, 50)
    """
    name = f"mean_boundary_{clock}"
    require(found, f"crossing_{clock}", name, f"{name}_lower", f"{name}_upper")
    require(truth, f"true_boundary_{clock}", f"true_{name}")
    single, interval = found[f"crossing_{clock}"], found[name]
    true_single, true_mean = truth[f"true_boundary_{clock}"], truth[f"true_{name}"].broadcast_like(interval)
    lower, upper = found[f"{name}_lower"], found[f"{name}_upper"]
    covered = (lower <= true_mean) & (true_mean <= upper)
    exists, seen = true_single.notnull().broadcast_like(single), single.notnull()
    deviation = single - true_single
    stationary = ~exists.any("boundary")

    def over_trials(values: xr.DataArray) -> xr.DataArray:
        return values.mean([name for name in values.dims if name != "boundary"])

    scores = {
        "covered_share": over_trials(covered.where(true_mean.notnull())),
        "ensemble_count": true_mean.notnull().sum([name for name in true_mean.dims if name != "boundary"]),
        "mean_width": over_trials(upper - lower),
        "bias": over_trials(deviation),
        "root_mean_square_error": np.sqrt(over_trials(deviation**2)),
        "missed_share": over_trials((~seen).where(exists)),
        "false_alarm_share": over_trials(seen.where(~exists)),
        "alarmed_share": over_trials(seen.any("boundary").where(stationary)),
        "stationary_count": stationary.sum(),
    }
    return xr.Dataset(scores)


def _check(
    replicas: int, records: int, record_interval: float, spread: float, noise: float, correlation: float, n_samples: int
) -> None:
    """Refuse numbers that make no trajectory."""
    expected = {
        f"replicas={replicas}: expected at least 1": replicas >= 1,
        f"records={records}: expected at least 1": records >= 1,
        f"record_interval={record_interval}: expected a positive number of epochs": record_interval > 0,
        f"spread={spread}: expected a standard deviation that is not negative": spread >= 0,
        f"noise={noise}: expected a standard deviation that is not negative": noise >= 0,
        f"correlation={correlation}: expected a number from -1 to 1, both excluded": -1 < correlation < 1,
        f"n_samples={n_samples}: expected at least 1": n_samples >= 1,
    }
    for message, holds in expected.items():
        if not holds:
            raise ConfigurationError(f"{message}, since there is no such trajectory; choose another number")


def _replica_boundaries(generator: np.random.Generator, means: Floats, replicas: int, spread: float) -> Floats:
    """Return boundaries (replica, boundary) whose expectation is their mean: the cut of the normal law is symmetric."""
    deviations = generator.standard_normal((replicas, len(means))).clip(-_FARTHEST, _FARTHEST)
    return means * (1 + spread * deviations)


def _of_samples(errors: Floats, n_samples: int, n_wrong: int) -> Floats:
    """Return errors (replica, step, cohort) of whole samples, from those of correct and mislabeled ones."""
    n_correct = n_samples - n_wrong
    misses = np.round(np.clip(errors[0], 0, 1) * n_correct)
    if n_wrong == 0:
        return np.stack([misses / n_samples, misses / n_samples, np.full_like(misses, np.nan)], axis=-1)
    wrong_misses = np.round(np.clip(errors[1], 0, 1) * n_wrong)
    return np.stack([(misses + wrong_misses) / n_samples, misses / n_correct, wrong_misses / n_wrong], axis=-1)


def _dataset(
    errors: Floats, epoch: Floats, time_per_epoch: float, names: Sequence[str], truth: Floats, means: Floats
) -> xr.Dataset:
    """Return a trajectory in the project's schema, with its true boundaries where its records reach them."""
    boundaries = [f"{before}|{after}" for before, after in pairwise(names)]
    dataset = xr.Dataset(
        {"train_error": (("replica", "step", "cohort"), errors, {"long_name": "training error", "units": "1"})},
        coords={
            "cohort": list(COHORTS),
            "boundary": boundaries,
            "epoch": ("step", epoch),
            "time": ("step", time_per_epoch * epoch),
        },
    )
    for clock, scale in (("epoch", 1.0), ("time", time_per_epoch)):
        reached = {"long_name": f"true {clock} at which a phase begins", "units": "1"}
        expected = {"long_name": f"expectation over replicas of the true {clock} at which a phase begins", "units": "1"}
        within = np.where(truth <= epoch[-1], truth, np.nan)
        mean = np.where(means <= epoch[-1], means, np.nan)
        dataset[f"true_boundary_{clock}"] = (("replica", "boundary"), scale * within, reached)
        dataset[f"true_mean_boundary_{clock}"] = ("boundary", scale * mean, expected)
    return dataset
