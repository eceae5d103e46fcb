"""How far processes are from a reference, in units of the reference's own spread over replicas."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from langevin_nn.analyzers.base import common_start, require, root_of
from langevin_nn.analyzers.means import logarithm, mean_with_interval
from langevin_nn.errors import ConfigurationError, EstimationRefused, UnknownNameError

__all__ = ["COMPARED", "ComparisonAnalyzer", "Quantity", "at_equal_loss"]


@dataclass(frozen=True)
class Quantity:
    """One thing to compare.

    Parameters
    ----------
    name : str
        As in summaries.
    variable : str
        As in files.
    selection : tuple of (str, str) pairs
        Coordinates to select.
    logarithmic : bool, optional
        Whether differences are taken of logarithms: for what runs over orders of magnitude.
    """

    name: str
    variable: str
    selection: tuple[tuple[str, str], ...] = (("cohort", "all"),)
    logarithmic: bool = True

    def of(self, root: xr.Dataset) -> xr.DataArray:
        """Return the quantity on the scale on which it is compared.

        Parameters
        ----------
        root : xarray.Dataset
            Scalars of a trajectory.

        Returns
        -------
        xarray.DataArray
            Its logarithm where it is logarithmic; NaN where that does not exist.
        """
        values = root[self.variable].sel(dict(self.selection), drop=True)
        return logarithm(values) if self.logarithmic else values


COMPARED = (
    Quantity("activity", "activity"),
    Quantity("directed_activity", "directed_activity"),
    Quantity("directed_activity_correct", "directed_activity", (("cohort", "correct"),)),
    Quantity("directed_activity_mislabeled", "directed_activity", (("cohort", "mislabeled"),)),
    Quantity("noise_strength", "noise_strength"),
    Quantity("projection_variance", "projection_variance"),
    Quantity("alignment", "alignment", logarithmic=False),
    Quantity(
        "gradient_alignment_correct_mislabeled",
        "gradient_alignment",
        (("cohort_pair", "correct_mislabeled"),),
        logarithmic=False,
    ),
)


@dataclass(frozen=True)
class ComparisonAnalyzer:
    """Distances of every process from a reference.

    Replica r of each process starts from the same weights, so differences δ_r are taken replica by replica. They are
    measured in units of s, the reference's replica-to-replica standard deviation at that time, pooled over the reference
    and its null and over `window` records, since few replicas leave a standard deviation uncertain.

    Parameters
    ----------
    reference : str, optional
        The process to which the others are compared.
    null : str, optional
        A second ensemble of the reference with other noise: the distance of what is not different.
    quantities : tuple of Quantity, optional
        What to compare.
    window : int, optional
        Records over which the spread is pooled, odd.
    """

    reference: str = "sgd"
    null: str = "sgd_null"
    quantities: tuple[Quantity, ...] = COMPARED
    window: int = 5

    def __call__(self, trajectories: xr.DataTree | xr.Dataset, clock: str = "step") -> xr.Dataset:
        """Measure the distances.

        Parameters
        ----------
        trajectories : xarray.DataTree or xarray.Dataset
            Of all processes, dimension ``process``.
        clock : str, optional
            The dimension along which they are compared.

        Returns
        -------
        xarray.Dataset
            Along ``quantity`` and ``process``: ``difference`` (…, clock), the mean of δ/s with its t interval
            (``_lower``, ``_upper``), signed; ``distance`` (…, replica), the average over the clock of |δ|/s; and
            ``excess`` (…, replica), the distance less that of the null at the same moments. The attribute ``common_start``
            is 1 where losses at step 0 show that all start from the same weights, and 0 where none were recorded there.

        Raises
        ------
        ConfigurationError
            If a replica comes twice, processes start from other weights, or the null is a copy of the reference.
        EstimationRefused
            If there are fewer than two replicas, and hence no spread, or no records after the start.
        UnknownNameError
            If the reference or the null is not among the processes.
        """
        root = root_of(trajectories)
        require(root, *(quantity.variable for quantity in self.quantities))
        known = [str(name) for name in root["process"].values]
        for name in (self.reference, self.null):
            if name not in known:
                raise UnknownNameError("process", name, known)
        if root.sizes["replica"] < 2:
            raise EstimationRefused(
                "a comparison in units of the replica-to-replica spread needs at least 2 replicas, got "
                f"{root.sizes['replica']}: run more of them (4 or more give useful intervals)",
                replicas=root.sizes["replica"],
            )
        shown = common_start(root, self.reference)
        compared = self._each_once(root)
        self._refuse_a_copy(compared, clock)
        names = xr.Variable("quantity", [quantity.name for quantity in self.quantities])
        found = xr.concat([self._one(each, clock) for each in compared], dim=names)
        return found.assign_attrs(common_start=int(shown))

    def _each_once(self, root: xr.Dataset) -> list[xr.DataArray]:
        """Return the quantities; missing are those with the numbers of another, as of a cohort that is all samples."""
        found: dict[str, list[xr.DataArray]] = {}
        for quantity in self.quantities:
            values, same = quantity.of(root), found.setdefault(quantity.variable, [])
            same.append(values.where(False) if any(values.equals(each) for each in same) else values)
        where = {variable: iter(each) for variable, each in found.items()}
        return [next(where[quantity.variable]) for quantity in self.quantities]

    def _refuse_a_copy(self, compared: list[xr.DataArray], clock: str) -> None:
        """Raise where the null has the numbers of the reference: it would say that chance makes no distance at all."""
        moved, same = False, True
        for values in compared:
            after = values.isel({clock: slice(1, None)})
            own, other = (after.sel(process=name) for name in (self.reference, self.null))
            same &= bool((own.fillna(0) == other.fillna(0)).all())
            moved |= bool(own.var("replica").sum() > 0)
        if same and moved and self.null != self.reference:
            raise ConfigurationError(
                f"{self.null!r} has the numbers of {self.reference!r} to the last bit: expected noise of its own, since the "
                "distance between the two says what chance makes; run it with another seed from the same weights"
            )

    def _one(self, values: xr.DataArray, clock: str) -> xr.Dataset:
        # Everything starts from the same weights: the first record says nothing.
        values = values.isel({clock: slice(1, None)})
        if values.sizes[clock] == 0:
            raise EstimationRefused(
                f"nothing to compare along {clock!r} after the start, from which all processes set out: expected more "
                "records, or a training loss that falls",
                records=0,
            )
        scaled = (values - values.sel(process=self.reference, drop=True)) / self._spread(values, clock)
        moments = mean_with_interval(scaled)
        return xr.Dataset(
            {
                "difference": moments["mean_value"],
                "difference_lower": moments["lower"],
                "difference_upper": moments["upper"],
                "distance": abs(scaled).mean(clock),
                # Where either is missing, neither counts: both averages are over the same moments.
                "excess": (abs(scaled) - abs(scaled).sel(process=self.null, drop=True)).mean(clock),
            }
        )

    def _spread(self, values: xr.DataArray, clock: str) -> xr.DataArray:
        both = values.sel(process=[self.reference, self.null])
        complete = both.notnull().all(["process", "replica"])
        own = both.var("replica", ddof=1).mean("process").where(complete)
        window = min(self.window, own.sizes[clock])
        pooled = own.rolling({clock: window}, center=True, min_periods=1).mean().where(complete)
        return pooled.where(pooled > 0) ** 0.5


def at_equal_loss(trajectories: xr.DataTree | xr.Dataset, reference: str = "sgd") -> xr.Dataset:
    """Put trajectories on the clock of the training loss: a faster process is simply further along.

    A replica is at a level when its training loss first falls to it; quantities are interpolated linearly between the
    two records around that moment. The levels are those through which the reference's mean training loss falls from record
    to record.

    Parameters
    ----------
    trajectories : xarray.DataTree or xarray.Dataset
        Of all processes, dimension ``process``.
    reference : str, optional
        Whose levels.

    Returns
    -------
    xarray.Dataset
        The scalars along ``loss_level`` instead of ``step``; NaN at levels that a replica did not reach.
    """
    root = root_of(trajectories)
    require(root, "train_loss")
    # What was recorded between losses has no place on their clock.
    measured = root["train_loss"].sel(cohort="all").notnull().any(["process", "replica"])
    root = root.isel(step=np.flatnonzero(measured.values))
    loss = root["train_loss"].sel(cohort="all", drop=True)
    mean_loss = np.asarray(loss.sel(process=reference).mean("replica", skipna=False).transpose("step").values)
    levels = np.unique(np.minimum.accumulate(mean_loss[np.isfinite(mean_loss)]))[::-1]
    moving = root[[name for name in root.data_vars if "step" in root[name].dims and name != "update_count"]]

    def on_levels(values: NDArray[np.float64], losses: NDArray[np.float64]) -> NDArray[np.float64]:
        position = _first_passages(losses, levels)
        return np.interp(position, np.arange(len(values)), values, left=np.nan, right=np.nan)

    result: xr.Dataset = xr.apply_ufunc(
        on_levels,
        moving,
        loss,
        input_core_dims=[["step"], ["step"]],
        output_core_dims=[["loss_level"]],
        vectorize=True,
        keep_attrs=True,
    )
    described = {"long_name": "training loss", "units": "nat"}
    kept: dict[str, Any] = {name: root[name] for name in ("cohort", "cohort_pair") if name in root.coords}
    return result.assign_coords(loss_level=("loss_level", levels, described), **kept)


def _first_passages(losses: NDArray[np.float64], levels: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the real-valued record at which a loss first falls to each level, NaN where it does not."""
    # Nor where it began below, or was missing just before.
    lowest = np.minimum.accumulate(np.where(np.isnan(losses), np.inf, losses))
    after = np.searchsorted(-lowest, -levels)
    reached = after < len(losses)
    after = np.minimum(after, len(losses) - 1)
    before = np.maximum(after - 1, 0)
    drop = losses[before] - losses[after]
    with np.errstate(divide="ignore", invalid="ignore"):
        share = np.where(drop == 0, 0.0, (losses[before] - levels) / drop)
    return np.where(reached & (levels <= losses[0]), before + np.clip(share, 0, 1), np.nan)
