"""Phases of learning: two without label noise, four with, from training quantities only."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from langevin_nn.analyzers.base import require, root_of
from langevin_nn.errors import ConfigurationError

__all__ = ["FOUR_PHASES", "TWO_PHASES", "PhaseDetector", "detect_phases"]

TWO_PHASES = ("fast_learning", "exploration")
FOUR_PHASES = ("I", "II", "III", "IV")

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class PhaseDetector:
    """Labels each record with a phase of learning.

    The phases are told from the training errors of the two cohorts, so that what the order parameters do in them, and
    what the test error does, can be asked without going round in a circle:

    - I, fast learning of the correct samples, until their error has fallen by `learned` of its whole fall;
    - II, until the error of the mislabeled samples has fallen by `forgotten` below the highest it was;
    - III, learning of the mislabeled samples, until the training error over all samples is at most `fitted`;
    - IV, exploration of the solutions of all samples.

    Without mislabeled samples there are two: fast learning until the training error is at most `fitted`, then
    exploration. Errors fluctuate, phases do not come back: each boundary is where the monotone step function that fits
    best (fewest records on the wrong side) has its step, so that single records on the wrong side are
    outvoted. Phases after Feng & Tu (2021), doi 10.1088/2632-2153/abf5b9, sections 3 and 4, who placed theirs by eye.

    Parameters
    ----------
    learned : float, optional
        Share of the fall of the correct samples' error that makes them learned.
    forgotten : float, optional
        Relative fall of the mislabeled samples' error that ends phase II.
    fitted : float, optional
        Training error at which all samples count as fitted.
    """

    learned: float = 0.9
    forgotten: float = 0.1
    fitted: float = 0.01

    def __call__(self, trajectory: xr.DataTree | xr.Dataset) -> xr.Dataset:
        """Label a trajectory.

        Parameters
        ----------
        trajectory : xarray.DataTree or xarray.Dataset
            With ``train_error`` by cohort; ``process`` and ``replica`` are taken one by one.

        Returns
        -------
        xarray.Dataset
            ``phase`` (…, step), from 1, and 0 after a divergence; ``boundary_epoch`` and ``boundary_time`` (…, boundary):
            epoch and gradient-flow time of the first record of each phase but the first, NaN where it was not reached.

        Raises
        ------
        ConfigurationError
            If the training errors were not recorded, or some replicas have mislabeled samples and others none.
        """
        root = root_of(trajectory)
        require(root, "train_error", "time")
        errors = root["train_error"]
        noisy = bool(errors.sel(cohort="mislabeled").notnull().any())
        names = FOUR_PHASES if noisy else TWO_PHASES
        wrong = errors.sel(cohort="mislabeled").notnull().any("step")
        if noisy and not bool(wrong.all()):
            raise ConfigurationError(
                "some replicas have mislabeled samples and some have none: expected all alike, since they pass through four "
                "phases and two; select replicas of one kind"
            )
        phase = xr.apply_ufunc(
            partial(self._before_divergence, self._four if noisy else self._two),
            errors,
            input_core_dims=[["step", "cohort"]],
            output_core_dims=[["step"]],
            vectorize=True,
        ).astype(np.int8)
        phase.attrs = {"long_name": "phase of learning", "units": "1", "flag_meanings": " ".join(names)}
        boundaries = [f"{before}|{after}" for before, after in pairwise(names)]
        result = xr.Dataset({"phase": phase}).assign_coords(boundary=boundaries)
        for clock in ("epoch", "time"):
            if clock in root.coords:
                result[f"boundary_{clock}"] = _first_records(phase, root[clock], boundaries)
        return result.assign_coords(root.coords)

    @staticmethod
    def _before_divergence(label: Callable[[Floats], NDArray[np.int64]], errors: Floats) -> NDArray[np.int64]:
        """Label the records up to the first without a training error; 0 from there."""
        missing = ~np.isfinite(errors[:, 0])
        end = int(np.argmax(missing)) if missing.any() else len(errors)
        phases = np.zeros(len(errors), dtype=np.int64)
        if end > 0:
            phases[:end] = label(errors[:end])
        return phases

    def _two(self, errors: Floats) -> NDArray[np.int64]:
        return 1 + _steps_up(errors[:, 0] <= self.fitted)

    def _four(self, errors: Floats) -> NDArray[np.int64]:
        everything, correct, wrong = errors.T
        fitted = _steps_up(everything <= self.fitted)
        memorising = _steps_up(wrong < (1 - self.forgotten) * np.maximum.accumulate(wrong)) | fitted
        # Only records before memorisation tell how low the correct samples' error falls on its own.
        before = correct[memorising == 0] if (memorising == 0).any() else correct[:1]
        whole_fall = correct[0] - before.min()
        learned = _steps_up((whole_fall > 0) & (correct[0] - correct >= self.learned * whole_fall))
        return 1 + (learned | memorising) + memorising + fitted


def detect_phases(trajectory: xr.DataTree | xr.Dataset, **parameters: Any) -> xr.Dataset:
    """Label a trajectory with its phases of learning: two without label noise, four with.

    Parameters
    ----------
    trajectory : xarray.DataTree or xarray.Dataset
        With ``train_error`` by cohort.
    **parameters : float
        Of `PhaseDetector`.

    Returns
    -------
    xarray.Dataset
        See `PhaseDetector`.

    Examples
    --------
    >>> errors = np.array([[0.9, 0.9, np.nan], [0.2, 0.2, np.nan], [0.0, 0.0, np.nan]])
    >>> trajectory = xr.Dataset(
    ...     {"train_error": (("step", "cohort"), errors)},
    ...     coords={"cohort": ["all", "correct", "mislabeled"], "time": ("step", [0.0, 1.0, 2.0])},
    ... )
    >>> detect_phases(trajectory).boundary_time.values
    array([2.])
    """
    return PhaseDetector(**parameters)(trajectory)


def _steps_up(indicator: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Return the rising 0-1 step that disagrees with the fewest records; the last of equally good ones."""
    ones_before = np.concatenate([[0], np.cumsum(indicator)])
    zeros_after = np.concatenate([np.cumsum(~indicator[::-1])[::-1], [0]])
    disagreements = ones_before + zeros_after
    split = len(indicator) - int(np.argmin(disagreements[::-1]))
    return (np.arange(len(indicator)) >= split).astype(np.int64)


def _first_records(phase: xr.DataArray, clock: xr.DataArray, boundaries: list[str]) -> xr.DataArray:
    """Return the clock at the first record of each phase but the first."""
    starts = [clock.where(phase >= number).min("step") for number in range(2, len(boundaries) + 2)]
    joined = xr.concat(starts, dim="boundary").transpose(..., "boundary").assign_coords(boundary=boundaries)
    joined.attrs = {"long_name": f"{clock.name} at which a phase begins", "units": "1"}
    return joined
