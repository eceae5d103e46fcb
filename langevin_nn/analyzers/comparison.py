"""How far processes are from a reference, in units of its own spread over replicas, and the figures of a verdict."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from langevin_nn.analyzers.labels import common_start, require, root_of
from langevin_nn.analyzers.means import logarithm, mean_with_interval
from langevin_nn.analyzers.phases import detect_phases
from langevin_nn.checks import one_of
from langevin_nn.errors import ConfigurationError, EstimationRefused
from langevin_nn.readable import Readable
from langevin_nn.statistics.decline import LEAST_RECORDS
from langevin_nn.statistics.intervals import needed_replicas

__all__ = ["COMPARED", "SUMMARY_VERSION", "Comparison", "ComparisonAnalyzer", "Quantity", "analyze", "at_equal_loss"]

SUMMARY_VERSION = "1.1"

_LEAST_SHARE = 0.5  # of the loss levels
_ENDINGS = ("train_loss", "train_error", "test_error")
_FIGURE = {"value": "mean_value", "standard_error": "standard_error", "lower": "lower", "upper": "upper"}


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


COMPARED: tuple[Quantity, ...] = (
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


_WORDS = {
    "difference": "difference from the reference in units of its spread over replicas",
    "difference_lower": "lower end of the interval of that difference",
    "difference_upper": "upper end of the interval of that difference",
    "distance": "mean distance from the reference over the run, in units of its spread",
    "excess": "that distance less that of the null",
}


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
            one_of("process", name, known)
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
        found = xr.concat([self._one(each, clock) for each in compared], names)
        for key, each in found.data_vars.items():
            each.attrs.update(long_name=_WORDS[str(key)], units="1")
        return found.assign_attrs(common_start=int(shown))

    def _each_once(self, root: xr.Dataset) -> list[xr.DataArray]:
        """Return the quantities; missing are those with the numbers of another, as of a cohort that is all samples."""
        found: list[xr.DataArray] = []
        for quantity in self.quantities:
            values = quantity.of(root)
            others = zip(self.quantities, found, strict=False)
            same = any(other.variable == quantity.variable and values.equals(each) for other, each in others)
            found.append(values.where(False) if same else values)
        return found

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


@dataclass(frozen=True, eq=False)
class Comparison(Readable):
    """What `analyze` finds.

    Parameters
    ----------
    trajectories : xarray.DataTree
        All processes, in the schema of trajectory files.
    phases : xarray.Dataset
        Of `detect_phases`.
    equal_time, equal_loss : xarray.Dataset
        Of `ComparisonAnalyzer` at equal gradient-flow time and at equal training loss.
    summary : dict
        The figures of the verdict, ready for JSON; see `analyze` for its keys.
    """

    trajectories: xr.DataTree
    phases: xr.Dataset
    equal_time: xr.Dataset
    equal_loss: xr.Dataset
    summary: dict[str, Any]


def analyze(
    trajectories: xr.DataTree,
    *,
    epoch: float = 50.0,
    tolerance: float = 0.5,
    reference: str = "sgd",
    null: str = "sgd_null",
) -> Comparison:
    """Answer which noise makes Langevin dynamics follow SGD, from recorded trajectories.

    The summary has the keys

    - ``summary_version``, ``reference``, ``null``, ``replicas``, ``tolerance``;
    - ``distance``: clock (``equal_time``, ``equal_loss``) → process → quantity → figure, and ``mean`` over quantities;
    - ``excess``: the same for the distance less the null's, replica by replica;
    - ``relation``: clock → process → "apart" where the interval of the mean excess begins above `tolerance`; "close" where it
      ends below and is no wider than ± `tolerance`; "undecided" where it does neither; where the mean is close and a quantity
      that surely differs does so by more than `tolerance`, that quantity's interval decides; "too_short" where it is not
      apart and the reference has not left the first phase of learning in all replicas, or a replica of the process reached
      less than half of its loss levels; "undefined" where there is no interval, or not of all replicas;
    - ``needed``: clock → process → what would decide, null where it is decided: ``replicas``, with which the interval would
      decide in 95 % of cases if mean and scatter stay as they are (`needed_replicas`), null where they are not in want or
      more than 10,000; ``epochs``, twice the run, to begin with, where it is too short (its own length is what is surely
      too little), else null; ``records``, where there are too few of them to tell phases, else null;
    - ``follows``: clock → process → true where close, false where apart, else null;
    - ``told_apart``: clock → process → the quantities in which it surely differs (excess above 0 in intervals that hold
      together at 95 %, after Bonferroni);
    - ``reached_share``: process → share of the reference's loss levels that it reached;
    - ``sample_trace``: process → Tr Σ at the record nearest to `epoch`, ``sample_trace_epoch``;
    - ``phase_boundary_epoch``: process → boundary → figure, ``value`` null unless all replicas reached it;
    - ``record_interval_epochs``: the largest distance between records, to which boundaries are known;
    - ``final``: process → ``train_loss``, ``train_error``, ``test_error`` at the end;
    - ``configuration``: what was run.

    Each figure has ``value``, ``standard_error``, ``lower``, ``upper`` (a 95 % t interval over replicas) and ``count``.

    Parameters
    ----------
    trajectories : xarray.DataTree
        Of all processes, as `langevin_nn.compare` records them.
    epoch : float, optional
        Where to report Tr Σ; the nearest record is taken.
    tolerance : float, optional
        Excess distance, in spreads, below which a process counts as close, and above which as apart; half of what one
        replica of SGD differs from another. It is fixed before looking: an interval decides, not its absence.
    reference : str, optional
        The process to which the others are compared.
    null : str, optional
        A second ensemble of the reference with other noise.

    Returns
    -------
    Comparison
        Distances, phases and summary.

    Raises
    ------
    ConfigurationError
        If a replica comes twice, processes start from other weights, or the null is a copy of the reference.
    EstimationRefused
        If there are too few replicas or records, or the loss of the reference never falls, as where it diverges.
    """
    root = root_of(trajectories)
    analyzer = ComparisonAnalyzer(reference, null)
    phases = detect_phases(root)
    by_loss = at_equal_loss(root, reference)
    _refuse_without_descent(root, by_loss, reference)
    results = {"equal_time": analyzer(root), "equal_loss": analyzer(by_loss, clock="loss_level")}
    others = [str(name) for name in root["process"].values if name != reference]
    compared = [name for name in others if name != null]
    reached = by_loss["train_loss"].sel(cohort="all").notnull()
    shares = reached.mean(["replica", "loss_level"])
    summary: dict[str, Any] = {
        "summary_version": SUMMARY_VERSION,
        "reference": reference,
        "null": null,
        "replicas": root.sizes["replica"],
        "distance": {clock: _distances(result["distance"], others) for clock, result in results.items()},
        "excess": {clock: _distances(result["excess"], compared) for clock, result in results.items()},
        "tolerance": tolerance,
        "reached_share": {str(name): float(shares.sel(process=name)) for name in shares["process"].values},
        "relation": {},
        "needed": {},
        "follows": {},
    }
    in_first_phase = not bool((phases["phase"].sel(process=reference) > 1).any("step").all("replica"))
    for clock, result in results.items():
        relation, needed = {}, {}
        for process in compared:
            least_share = float(reached.sel(process=process).mean("loss_level").min("replica"))
            is_short = in_first_phase or (clock == "equal_loss" and least_share < _LEAST_SHARE)
            mean = summary["excess"][clock][process]["mean"]
            decisive = _decisive(result["excess"].sel(process=process), mean, tolerance)
            relation[process] = _relation(decisive, tolerance, summary["replicas"], is_short)
            needed[process] = _needed(relation[process], decisive, tolerance, root)
        summary["relation"][clock], summary["needed"][clock] = relation, needed
        summary["follows"][clock] = {name: {"close": True, "apart": False}.get(each) for name, each in relation.items()}
    summary["told_apart"] = {clock: _told_apart(result["excess"], compared) for clock, result in results.items()}
    summary |= _context(root, phases, epoch)
    summary["configuration"] = json.loads(str(trajectories.attrs.get("config_json", "{}")))
    return Comparison(trajectories, phases, results["equal_time"], results["equal_loss"], summary)


def _refuse_without_descent(root: xr.Dataset, by_loss: xr.Dataset, reference: str) -> None:
    """Raise where the loss of the reference never falls below its start, so that there is no level to compare at."""
    loss = root["train_loss"].sel(process=reference, cohort="all", drop=True).mean("replica").dropna("step").values
    if by_loss.sizes["loss_level"] > 1 or len(loss) < 2:
        return
    rate = json.loads(str(root.attrs.get("config_json", "{}"))).get("learning_rate")
    at = f" with learning_rate={rate:g}" if isinstance(rate, int | float) else ""
    what, remedy = "nothing is learned", "run longer, or choose a larger learning rate"
    if loss[-1] > loss[0]:
        what, remedy = "it diverges", "choose a smaller learning rate, by factors of ten until the loss falls"
    raise EstimationRefused(
        f"the training loss of {reference!r}{at} never falls below that of the start, {loss[0]:.4g}, and is {loss[-1]:.4g} "
        f"at the end: {what}; expected one that falls, since processes are compared at equal loss too; {remedy}",
        first_loss=float(loss[0]),
        last_loss=float(loss[-1]),
    )


def _figures(values: xr.DataArray, level: float = 0.95) -> Any:
    """Return numbers with their errors over replicas, in the words of JSON, nested by the other dimensions."""
    return _nested(mean_with_interval(values, level=level))


def _nested(moments: xr.Dataset) -> Any:
    if moments.sizes:
        dimension = str(next(iter(moments["mean_value"].dims)))
        return {str(name): _nested(moments.sel({dimension: name})) for name in moments[dimension].values}
    numbers = {key: float(moments[name].values) for key, name in _FIGURE.items()}
    known = {key: number if np.isfinite(number) else None for key, number in numbers.items()}
    return known | {"count": int(moments["count"].values)}


def _distances(values: xr.DataArray, processes: list[str]) -> dict[str, Any]:
    chosen = values.sel(process=processes)
    # A quantity that some replica lacks would make its mean one of other quantities; what nobody has (without mislabeled
    # samples, for example) is no part of any.
    known = chosen.isel(quantity=np.flatnonzero(chosen.notnull().any(["process", "replica"]).values))
    mean = (known if known.size else chosen).mean("quantity", skipna=False).expand_dims(quantity=["mean"])
    nested: dict[str, Any] = _figures(xr.concat([chosen, mean], dim="quantity").transpose("process", "quantity", ...))
    return nested


def _context(root: xr.Dataset, phases: xr.Dataset, epoch: float) -> dict[str, Any]:
    """Return what a reader needs beside the distances: where the processes were, and when."""
    batch_factor = root.attrs.get("covariance_factor")
    endings = {}
    for name in [name for name in _ENDINGS if name in root]:
        final = root[name].isel(step=-1)
        endings[name] = _figures(final.sel(cohort="all", drop=True) if "cohort" in final.dims else final)
    boundaries = _figures(phases["boundary_epoch"].transpose("process", "boundary", ...))
    for figure in (figure for figures in boundaries.values() for figure in figures.values()):
        if figure["count"] < root.sizes["replica"]:  # a mean over those only that were fast enough to reach it
            figure.update(dict.fromkeys(_FIGURE))
    context: dict[str, Any] = {
        "phase_boundary_epoch": boundaries,
        "record_interval_epochs": float(np.diff(root["epoch"].values).max()),
        "final": {
            str(process): {name: each[str(process)] for name, each in endings.items()}
            for process in root["process"].values
        },
    }
    if batch_factor is not None:
        nearest = int(np.argmin(np.abs(root["epoch"].values - epoch)))
        trace = root["noise_strength"].sel(cohort="all").isel(step=nearest) / float(batch_factor)
        context["sample_trace"] = _figures(trace)
        context["sample_trace_epoch"] = float(root["epoch"][nearest])
    return context


def _decisive(excess: xr.DataArray, mean: Mapping[str, Any], tolerance: float) -> Mapping[str, Any]:
    """Return the figure that decides: the mean over quantities, or the worst of those that surely differ by more."""
    # What is nearer to the reference than chance has it, as a path without noise may be, does not pay for what is further.
    if mean["upper"] is None or not _is_within(mean, tolerance):
        return mean
    each: dict[str, Mapping[str, Any]] = _figures(excess, _level(excess))
    beyond = [figure for figure in each.values() if (figure["lower"] or 0) > 0 and figure["value"] > tolerance]
    return max(beyond, key=lambda figure: figure["lower"], default=mean)


def _relation(excess: Mapping[str, Any], tolerance: float, n_replicas: int, is_short: bool) -> str:
    """Return how a process stands to the reference, from its mean excess distance."""
    if excess["lower"] is None or excess["upper"] is None:
        return "undefined"
    if excess["lower"] > tolerance:
        return "apart"
    if is_short:
        return "too_short"
    if excess["count"] < n_replicas:
        return "undefined"
    return "close" if _is_within(excess, tolerance) else "undecided"


def _is_within(excess: Mapping[str, Any], tolerance: float) -> bool:
    """Return whether an interval ends below the tolerance, and tells as much as that from nothing."""
    return bool(excess["upper"] < tolerance and excess["upper"] - excess["value"] <= tolerance)


def _needed(relation: str, excess: Mapping[str, Any], tolerance: float, root: xr.Dataset) -> dict[str, Any] | None:
    """Return the replicas, epochs and records that would decide; nothing where it is decided."""
    if relation in ("close", "apart"):
        return None
    replicas = None
    if relation != "undefined" and not _is_within(excess, tolerance):
        half = excess["upper"] - excess["value"]
        replicas = needed_replicas(excess["value"], half, excess["count"], tolerance, widest=tolerance)
        if replicas is not None:  # as many as there are have not decided
            replicas = max(replicas, excess["count"] + 1)
    is_short = relation != "undecided"
    return {
        "replicas": replicas,
        "epochs": 2 * float(root["epoch"][-1]) if is_short else None,
        "records": LEAST_RECORDS if is_short and root.sizes["step"] < LEAST_RECORDS else None,
    }


def _level(excess: xr.DataArray) -> float:
    """Return the level of intervals that hold together at 95 % (Bonferroni)."""
    return 1 - 0.05 / excess.sizes["quantity"]


def _told_apart(excess: xr.DataArray, processes: list[str]) -> dict[str, list[str]]:
    """Return the quantities in which processes surely differ: 95 % over all quantities of a process together."""
    lower = mean_with_interval(excess, level=_level(excess))["lower"]
    names = np.asarray(excess["quantity"].values)
    return {process: [str(name) for name in names[lower.sel(process=process).values > 0]] for process in processes}
