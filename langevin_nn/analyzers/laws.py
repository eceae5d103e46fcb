"""Whether processes follow one law: distances of mean and spread, and one p-value for each process and phase."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from math import inf

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from langevin_nn.analyzers.comparison import COMPARED, Quantity
from langevin_nn.analyzers.labels import common_start, require, root_of
from langevin_nn.checks import number, one_of, whole_number
from langevin_nn.errors import ConfigurationError, EstimationRefused
from langevin_nn.seeds import Seeds
from langevin_nn.statistics.intervals import jackknife
from langevin_nn.statistics.permutation import LEAST_PAIRS, holm, swap_test

__all__ = ["RECORDED", "LawComparison", "phase_windows"]

Floats = NDArray[np.float64]

RECORDED = (
    Quantity("train_loss", "train_loss"),
    Quantity("test_loss", "test_loss", ()),
    Quantity("train_error", "train_error", logarithmic=False),
    Quantity("test_error", "test_error", (), logarithmic=False),
    *(
        Quantity(f"{variable}_{cohort}", variable, (("cohort", cohort),), logarithmic=variable == "train_loss")
        for variable in ("train_loss", "train_error")
        for cohort in ("correct", "mislabeled")
    ),
    *COMPARED,
)


_WORDS = {
    "p_value": "p-value of the law of the process being that of the reference",
    "adjusted_p_value": "that p-value, adjusted for all processes and windows",
    "is_rejected": "whether the law of the process is told from that of the reference",
    "diverged_count": "replicas of the process that diverged",
    "distance": "difference of means over standard deviation of the reference over replicas",
    "spread_ratio": "standard deviation over replicas over that of the reference",
    "squared_distance": "squared distance of means, averaged over quantities, less what chance gives",
    "mean_p_value": "p-value of the means being equal, adjusted for all that was compared",
    "spread_p_value": "p-value of the spreads being equal, adjusted for all that was compared",
    "record_count": "records in the window",
    "pair_count": "pairs of which neither member diverged, of which distances are",
    "quantity_count": "quantities with a spread, of which the squared distance is the mean",
}


@dataclass(frozen=True)
class LawComparison:
    """Whether each process follows the law of a reference in each phase, and how far it is from it.

    Replica r of all processes starts from the same weights and has the same labels; its noise is its own. If a process
    follows the reference's law, the two trajectories of a pair can be exchanged, which makes `swap_test` exact. The windows
    must not be taken from the processes that are compared: those of another ensemble of the reference leave it exact.

    Compared are, in each window and for each quantity, its mean over the records and its values at `moments` records,
    each in mean and spread over replicas. Distances are of the mean over the records: (ȳ − x̄)/s with the reference's
    standard deviation s over replicas, and the ratio of both standard deviations; intervals are delete-one jackknife over
    pairs, with Student's t quantile. Those of the ratio are for normal values: of 32 pairs of exponential ones they hold it
    in 92 % of cases where they say 95.

    Parameters
    ----------
    reference : str, optional
        The process with which the others are compared.
    quantities : tuple of Quantity, optional
        What to compare; those that were not recorded, or are defined in no replica, are left out.
    moments : int, optional
        Records of each window that are compared one by one.
    permutations : int, optional
        Exchanges from which each p-value is found.
    level : float, optional
        Probability of rejecting any process in any window when all follow the reference (Holm's correction).
    seed : int, optional
        Of the exchanges.
    """

    reference: str = "sgd"
    quantities: tuple[Quantity, ...] = RECORDED
    moments: int = 4
    permutations: int = 9_999
    level: float = 0.05
    seed: int = 0

    def __post_init__(self) -> None:
        whole_number("moments", self.moments, "a whole number (int) of records from 0", least=0)
        expected = "a whole number (int) of exchanges from 1, which bound the smallest p-value from below"
        whole_number("permutations", self.permutations, expected, least=1)
        number("level", self.level, "a probability between 0 and 1", above=0, most=0.5)

    def __call__(
        self, trajectories: xr.DataTree | xr.Dataset, windows: Mapping[str, tuple[float, float]]
    ) -> xr.Dataset:
        """Compare all processes with the reference.

        Parameters
        ----------
        trajectories : xarray.DataTree or xarray.Dataset
            Of all processes, dimension ``process``, from common initial weights.
        windows : mapping of str to tuple of two floats
            By phase, after which epoch (or time, where there are none) and up to which records belong to it; of
            `phase_windows`, for example.

        Returns
        -------
        xarray.Dataset
            By ``process`` (all but the reference) and ``phase``: ``p_value``, ``adjusted_p_value``, ``is_rejected``,
            ``squared_distance`` (the mean over quantities of the squared distance of means, less what chance gives) with
            ``_lower`` and ``_upper``, ``diverged_count``, ``pair_count`` (without those of which a member diverged) and
            ``quantity_count`` (without those that have no spread), of which distances are; by ``quantity`` besides:
            ``distance`` and ``spread_ratio`` with
            ``_lower`` and ``_upper``, ``mean_p_value`` and ``spread_p_value``, adjusted for all that was compared in the
            window. NaN where half of the reference's replicas are equal, which have no spread to speak of.
            ``record_count`` by phase. The attribute ``common_start`` is 1 where losses at step 0 show that all start from
            the same weights, and 0 where none were recorded there.

        Raises
        ------
        EstimationRefused
            If there are fewer than six replicas, or no records in any window.
        UnknownNameError
            If the reference is not among the processes.
        ConfigurationError
            If there is nothing to compare, the permutations cannot reach the corrected level, a replica comes twice, or
            processes start from other weights.
        """
        root = root_of(trajectories)
        require(root, "process")
        known = [str(name) for name in root["process"].values]
        one_of("process", self.reference, known)
        others = [name for name in known if name != self.reference]
        if not others:
            raise ConfigurationError(
                f"one process, {self.reference!r}: expected another one to compare with it; join them with join_processes"
            )
        if root.sizes["replica"] < LEAST_PAIRS:
            raise EstimationRefused(
                f"{root.sizes['replica']} replicas: expected at least {LEAST_PAIRS}, since their exchanges give no p-value "
                "small enough to reject; run more of them (16 or more are useful)",
                replicas=root.sizes["replica"],
                needed=LEAST_PAIRS,
            )
        shown = common_start(root, self.reference)
        values, first = self._values(root), known.index(self.reference)
        records = self._records(root, windows)
        if len(others) * len(records) > self.level * (self.permutations + 1):
            raise ConfigurationError(
                f"permutations={self.permutations} for {len(others)} processes in {len(records)} windows: expected at least "
                f"{int(np.ceil(len(others) * len(records) / self.level))}, since no corrected p-value can reach "
                f"{self.level:g} otherwise"
            )
        rows = []
        for process in others:
            pair = {key: each[[first, known.index(process)]] for key, each in values.items()}
            compared = [self._compared(pair, process, phase, at) for phase, at in records.items()]
            rows.append(xr.concat(compared, xr.Variable("phase", list(records))))
        found = xr.concat(rows, xr.Variable("process", others))
        adjusted = holm(found["p_value"].values)
        found["adjusted_p_value"] = found["p_value"].dims, adjusted
        found["is_rejected"] = found["p_value"].dims, (adjusted <= self.level).astype(np.int8)
        found["record_count"] = "phase", [len(at) for at in records.values()]
        for name, variable in found.data_vars.items():
            base, _, side = str(name).rpartition("_")
            words = f"{side} end of the interval of {_WORDS[base]}" if side in ("lower", "upper") else _WORDS[str(name)]
            variable.attrs.update(long_name=words, units="1")
        described = {"reference": self.reference, "level": self.level, "permutations": self.permutations}
        return found.assign_attrs(described, common_start=int(shown))

    def _values(self, root: xr.Dataset) -> dict[str, Floats]:
        """Return each quantity that was recorded and is defined, shape (process, replica, step)."""
        found = {}
        for each in self.quantities:
            chosen = dict(each.selection)
            if each.variable not in root or any(root.sizes.get(name, 0) == 0 for name in chosen):
                continue
            own = np.asarray(each.of(root).transpose("process", "replica", "step").values, dtype=np.float64)
            if np.isfinite(own).any():
                found[each.name] = own
        if not found:
            require(root, *(each.variable for each in self.quantities))
            raise ConfigurationError(
                "no quantity is defined in any replica: expected one at least; record losses and order parameters"
            )
        return found

    def _records(self, root: xr.Dataset, windows: Mapping[str, tuple[float, float]]) -> dict[str, NDArray[np.int64]]:
        """Return the records of each window that has any; never the start, which all processes share."""
        clock = root["epoch"] if "epoch" in root.coords else root["time"]
        times = clock.values
        found = {
            name: np.flatnonzero((times > max(begin, times[0])) & (times <= end))
            for name, (begin, end) in windows.items()
        }
        found = {name: at for name, at in found.items() if len(at)}
        if not found:
            raise EstimationRefused(
                f"no record in any of {len(windows)} windows: expected windows in {clock.name}, which runs from "
                f"{times[0]:g} to {times[-1]:g}",
                records=0,
            )
        return found

    def _compared(self, values: dict[str, Floats], name: str, phase: str, at: NDArray[np.int64]) -> xr.Dataset:
        """Compare one process, the second, with the reference in one window."""
        features = [self._of_window(each[:, :, at]) for each in values.values()]
        means = np.stack([each[:, :, 0] for each in features], axis=2)
        first, second = np.concatenate(features, axis=2)
        starts = np.cumsum([0, *(each.shape[2] for each in features[:-1])])
        seed = Seeds(self.seed).integer(f"exchanges of {name} in {phase}", 0)
        test = swap_test(first, second, permutations=self.permutations, seed=seed)
        measured = {
            f"{kind}_p_value": np.minimum.reduceat(own, starts)
            for kind, own in (("mean", test.mean_p_value), ("spread", test.spread_p_value))
        }
        diverged = int((~np.isfinite(means[1]) & np.isfinite(means[1]).any(0)).any(1).sum())
        found = {"p_value": np.array(test.p_value), "diverged_count": np.array(diverged)}
        found |= measured | _distances(*means)
        variables = {key: (("quantity",) * each.ndim, each) for key, each in found.items()}
        return xr.Dataset(variables, {"quantity": list(values)})

    def _of_window(self, values: Floats) -> Floats:
        """Return the mean over the records at which a quantity was measured, and its values at some of them."""
        own = values[:, :, np.isfinite(values).any((0, 1))]
        if not own.shape[2]:
            return np.full((*own.shape[:2], 1), np.nan)
        chosen = np.unique(np.rint(np.linspace(0, own.shape[2] - 1, self.moments)).astype(np.int64))
        return np.concatenate([own.mean(2, keepdims=True), own[:, :, chosen]], axis=2)


def _distances(first: Floats, second: Floats) -> dict[str, Floats]:
    """Return distances of mean and spread with intervals, from means over a window (replica, quantity)."""
    pairs = np.stack([first, second], axis=1)  # (replica, process, quantity)
    measured = np.isfinite(pairs).any((0, 1))
    pairs = pairs[np.isfinite(pairs[:, :, measured]).all((1, 2))]  # without those of which a member diverged

    def standardised(chosen: Floats) -> Floats:
        x, y = chosen.transpose(1, 0, 2)
        return np.asarray((y - x).mean(0) / _spread(x))

    def logarithmic_ratio(chosen: Floats) -> Floats:
        x, y = chosen.transpose(1, 0, 2)
        return np.asarray(np.log(_spread(y) / _spread(x)))

    def squared(chosen: Floats) -> Floats:
        x, y = chosen.transpose(1, 0, 2)
        by_chance = (y - x).var(0, ddof=1) / len(x)
        values = ((y - x).mean(0) ** 2 - by_chance) / _spread(x) ** 2
        return np.asarray(np.nansum(values) / np.maximum(np.isfinite(values).sum(), 1))

    spreads = int(np.isfinite(_spread(pairs[:, 0])).sum()) if len(pairs) > 1 else 0
    found = {"pair_count": np.array(len(pairs)), "quantity_count": np.array(spreads)}
    statistics = {"distance": standardised, "spread_ratio": logarithmic_ratio, "squared_distance": squared}
    for name, statistic in statistics.items():
        for side, value in zip(("", "_lower", "_upper"), jackknife(statistic, pairs), strict=True):
            found[name + side] = np.exp(value) if name == "spread_ratio" else value
    return found


def _spread(values: Floats) -> Floats:
    """Return the standard deviation over replicas; NaN where half of them are equal, so that a few make all of it."""
    spread = values.std(0, ddof=1)
    ordered = np.sort(values, axis=0)
    half = (len(values) + 1) // 2
    shortest = (ordered[half - 1 :] - ordered[: len(values) - half + 1]).min(0)  # interval that holds half of them
    return np.where(shortest > 1e-12 * np.abs(values).max(0), spread, np.nan)


def phase_windows(phases: xr.Dataset, end: float) -> dict[str, tuple[float, float]]:
    """Return one window for each phase of learning, the same for all replicas.

    Parameters
    ----------
    phases : xarray.Dataset
        Of `PhaseDetector`.
    end : float
        Last epoch (or time, where there are none).

    Returns
    -------
    dict of str to tuple of two floats
        From the median boundary over replicas to the next; phases that half of the replicas did not reach are left out.

    Examples
    --------
    >>> phase = xr.DataArray([[1, 2], [1, 2], [1, 2]], dims=("replica", "step"), attrs={"flag_meanings": "fast slow"})
    >>> phases = xr.Dataset({"boundary_epoch": (("replica", "boundary"), [[2.0], [3.0], [7.0]]), "phase": phase})
    >>> phase_windows(phases, 10.0)
    {'fast': (0.0, 3.0), 'slow': (3.0, 10.0)}
    """
    clock = "epoch" if "boundary_epoch" in phases else "time"
    require(phases, f"boundary_{clock}", "phase")
    reached = phases[f"boundary_{clock}"].fillna(inf).median("replica").values
    edges = [0.0, *(min(float(each), end) for each in reached), end]
    names = phases["phase"].attrs["flag_meanings"].split()
    return {name: (begin, edge) for name, (begin, edge) in zip(names, pairwise(edges), strict=True) if begin < edge}
