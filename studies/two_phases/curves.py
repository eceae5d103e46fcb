"""Curves of one run against time, and what is asked of them between two moments of each replica."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike, NDArray

__all__ = ["Curves"]

Floats = NDArray[np.float64]

NAMES = (
    "activity",
    "directed_activity",
    "alignment",
    "alignment_approximation",
    "projection_variance",
    "train_loss",
    "train_error",
)
_POINTS = 400


@dataclass(frozen=True)
class Curves:
    """Order parameters and losses, each at the records at which it was measured.

    Parameters
    ----------
    epochs : dict of str to ndarray, shape (record,)
        When, by name.
    values : dict of str to ndarray, shape (replica, record)
        By name.
    boundary : ndarray, shape (replica,)
        Epoch at which exploration begins; NaN where it does not.
    n_parameters : int
        Over how many parameters order parameters are taken.
    """

    epochs: Mapping[str, Floats]
    values: Mapping[str, Floats]
    boundary: Floats
    n_parameters: int

    @classmethod
    def of(cls, root: xr.Dataset, phases: xr.Dataset, n_parameters: int) -> Curves:
        """Return the curves of a trajectory.

        Parameters
        ----------
        root : xarray.Dataset
            Its scalars; order parameters may be missing at some records.
        phases : xarray.Dataset
            Of `detect_phases`, of these replicas at least.
        n_parameters : int
            Measured parameters.

        Returns
        -------
        Curves
            Over all samples.
        """
        whole = root[list(NAMES)].sel(cohort="all").transpose("replica", "step")
        measured = {name: np.flatnonzero(whole[name].notnull().any("replica").values) for name in NAMES}
        return cls(
            {name: whole.epoch.values[each] for name, each in measured.items()},
            {name: np.asarray(whole[name].values[:, each], dtype=np.float64) for name, each in measured.items()},
            phases.boundary_epoch.isel(boundary=0).values[: root.sizes["replica"]],
            n_parameters,
        )

    @property
    def end(self) -> float:
        """Epoch of the last record."""
        return float(self.epochs["train_loss"][-1])

    @property
    def both(self) -> tuple[tuple[Floats, Floats], tuple[Floats, Floats]]:
        """Where fast learning and exploration begin and end."""
        return (0 * self.boundary, self.boundary), (self.boundary, np.full_like(self.boundary, self.end))

    def mean(self, name: str, begin: ArrayLike, end: ArrayLike, *, logarithmic: bool = False) -> Floats:
        """Return the mean over time, linear between records, which lie at equal ratios of time.

        Parameters
        ----------
        name : str
            Of the quantity.
        begin, end : array, shape (replica,)
            Epochs; NaN gives NaN.
        logarithmic : bool, optional
            Whether to average the logarithm, which is returned.

        Returns
        -------
        ndarray, shape (replica,)
            One value a replica.
        """
        values = np.log(self.values[name]) if logarithmic else self.values[name]
        begins, ends = (np.broadcast_to(np.asarray(each, dtype=np.float64), len(values)) for each in (begin, end))
        shares = (np.arange(_POINTS) + 0.5) / _POINTS
        return np.array(
            [
                np.interp(first + shares * (last - first), self.epochs[name], row).mean()
                for row, first, last in zip(values, begins, ends, strict=True)
            ]
        )

    def slope(self, name: str, begin: ArrayLike, end: ArrayLike) -> Floats:
        """Return how fast the logarithm changes on average.

        Parameters
        ----------
        name : str
            Of the quantity.
        begin, end : array, shape (replica,)
            Epochs; NaN gives NaN.

        Returns
        -------
        ndarray, shape (replica,)
            In units of 1/epoch.
        """
        begins, ends = (
            np.broadcast_to(np.asarray(each, dtype=np.float64), len(self.boundary)) for each in (begin, end)
        )
        logarithms = np.log(self.values[name])
        edges = [
            [np.interp(at, self.epochs[name], row) for row, at in zip(logarithms, each, strict=True)]
            for each in (begins, ends)
        ]
        return np.asarray((np.array(edges[1]) - np.array(edges[0])) / (ends - begins))

    def fall_of_activity(self) -> Floats:
        """Return when the logarithm of A has fallen half of the way from its mean in fast learning to that in exploration.

        Returns
        -------
        ndarray, shape (replica,)
            The epoch that fewest records after the largest A lie on the wrong side of.
        """
        levels = [self.mean("activity", *each, logarithmic=True) for each in self.both]
        found, epoch = [], self.epochs["activity"]
        for row, level in zip(np.log(self.values["activity"]), (levels[0] + levels[1]) / 2, strict=True):
            if not (np.isfinite(level) and np.isfinite(row).all()):
                found.append(np.nan)
                continue
            first = int(np.argmax(row))
            high = row[first:] > level
            wrong = np.concatenate([[0], np.cumsum(~high)]) + high.sum() - np.concatenate([[0], np.cumsum(high)])
            k = first + int(np.argmin(wrong))
            found.append(float(epoch[min(k, len(epoch) - 1)]))
        return np.array(found)

    def correlation(self, one: str, other: str) -> tuple[Floats, Floats]:
        """Return the correlation of two quantities over the records of each replica, and with records in another order.

        Parameters
        ----------
        one, other : str
            Of the quantities.

        Returns
        -------
        own, shuffled : ndarray, shape (replica,)
            Pearson's.
        """
        generator = np.random.default_rng(0)
        pairs = list(zip(self.values[one], self.values[other], strict=True))
        own = [np.corrcoef(a, b)[0, 1] for a, b in pairs]
        shuffled = [np.corrcoef(a, generator.permutation(b))[0, 1] for a, b in pairs]
        return np.array(own), np.array(shuffled)
