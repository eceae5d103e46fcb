"""What the study of variance and flatness measures: fluctuations, landscape and noise along directions, and currents."""

from __future__ import annotations

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from scipy.linalg import helmert
from torch import Tensor

from langevin_nn import NetworkLandscape, gradient_ensemble
from langevin_nn.analyzers import Fluctuations, PrincipalComponents, ProbabilityCurrents
from langevin_nn.analyzers.fluctuations import Detrend
from langevin_nn.curvature import Hessian, flatness, loss_profile
from langevin_nn.ensemble import covariance_factor
from langevin_nn.operators import leading_eigenpairs
from studies.variance_flatness.runs import Settled, Start

__all__ = ["BASES", "Point", "components", "currents", "measure", "profiles"]

Floats = NDArray[np.float64]

BASES = ("principal components", "with their drift", "hidden weights", "Hessian eigenvectors")

# What is taken off each weight over a window: weights drift, and what drifts is the first component where that is left.
_DETREND: dict[str, Detrend] = {name: "mean" if name == "with their drift" else "linear" for name in BASES}

_RANKS, _PLANES = 24, 4
_TOLERANCE = 0.01  # of an eigenvector, whose direction is all that counts


class Point:
    """The landscape where the windows of one network begin: curvature, flatness and noise along directions.

    Parameters
    ----------
    settled : Settled
        What was chosen.
    landscape : NetworkLandscape
        Of `network`.
    start : Start
        Trained networks.
    replica : int
        Which of them.
    """

    def __init__(self, settled: Settled, landscape: NetworkLandscape, start: Start, replica: int) -> None:
        self._landscape, self.weights = landscape, start.weights[replica]
        self._covariance = gradient_ensemble(landscape, self.weights, settled.batch_size).covariance
        trace = float(landscape.sample_gradients(self.weights, everywhere=True).trace())
        factor = covariance_factor(landscape.n_samples, settled.batch_size)
        self._isotropic = factor * trace / landscape.n_parameters
        self._flatness: dict[bytes, xr.Dataset] = {}
        hessian = Hessian(landscape, self.weights)
        count = min(max(3, settled.components // 2), hessian.size)
        self.eigenvectors: Floats = leading_eigenpairs(hessian, count, tolerance=_TOLERANCE).vectors.cpu().numpy()

    def along(self, directions: Floats, process: str) -> xr.Dataset:
        """Return flatness, curvature and driving noise along directions.

        Parameters
        ----------
        directions : ndarray, shape (direction, parameter)
            Unit vectors over the measured parameters.
        process : str
            Whose noise.

        Returns
        -------
        xarray.Dataset
            What `langevin_nn.curvature.flatness` gives, and ``noise`` pᵀ C p, of isotropic noise Tr C/P.
        """
        known = directions.tobytes()  # those of the Hessian are the same for all processes
        if known not in self._flatness:
            self._flatness[known] = flatness(self._landscape, self.weights, directions)
        found = self._flatness[known]
        noise = (directions.T * self._covariance.matmat(directions.T)).sum(0)
        if process == "isotropic_langevin":
            noise = np.full(len(directions), self._isotropic)
        text = {"long_name": "covariance of the noise along a direction", "units": "nat2 weight-2"}
        return found.assign(noise=("direction", noise, text))


def measure(settled: Settled, point: Point, process: str, copies: xr.Dataset, hidden: NDArray[np.int64]) -> xr.Dataset:
    """Measure fluctuations and landscape along every basis of directions.

    Parameters
    ----------
    settled : Settled
        What was chosen.
    point : Point
        Where the windows begin.
    process : str
        Its name.
    copies : xarray.Dataset
        ``weights`` (replica, weight_step, parameter) of all copies from one network.
    hidden : ndarray of int
        Positions of the weights between the hidden layers among the measured ones; empty where these are all.

    Returns
    -------
    xarray.Dataset
        By ``basis`` and ``rank``: of the first copy ``variance`` and ``correlation_time``, in gradient-flow time;
        ``held_out_variance``, the mean of the others along the same directions; ``flatness``, ``curvature_flatness``,
        ``curvature`` and ``noise``; ``component``, which direction it is; by basis, ``trend_share``.
    """
    first, others = copies.isel(replica=[0]), copies.isel(replica=slice(1, None))
    rows = []
    for basis in BASES:
        if basis == "hidden weights" and not len(hidden):
            rows.append(_padded(xr.Dataset(), np.empty(0, dtype=int)))
            continue
        directions = point.eigenvectors if basis == BASES[-1] else components(settled, basis, first, hidden)
        count = min(_RANKS, max(3, len(directions) // 2))
        ranks = np.unique(np.rint(np.geomspace(1, len(directions), count)).astype(int)) - 1
        chosen = directions[ranks]
        fluctuations = Fluctuations(chosen, _DETREND[basis])
        own = fluctuations(first).isel(replica=0)
        held_out = fluctuations(others).component_variance.mean("replica")
        times = own.correlation_time * float(own.record_interval.sel(clock="time"))
        found = point.along(chosen, process)
        values = {
            "variance": own.component_variance.values,
            "variance_standard_error": own.component_variance_standard_error.values,
            "correlation_time": times.values,
            "held_out_variance": held_out.values,
            "trend_share": own.trend_share.values,
            **{name: found[name].values for name in ("flatness", "curvature_flatness", "curvature", "noise")},
        }
        rows.append(_padded(xr.Dataset({name: ("rank", each) for name, each in values.items()}), ranks + 1))
    return xr.concat(rows, xr.Variable("basis", list(BASES)), join="outer")


def components(settled: Settled, basis: str, trajectory: xr.Dataset, hidden: NDArray[np.int64]) -> Floats:
    """Return principal components.

    Parameters
    ----------
    settled, hidden
        As in `measure`.
    basis : str
        One of `BASES`, but for eigenvectors.
    trajectory : xarray.Dataset
        ``weights`` of one copy.

    Returns
    -------
    ndarray, shape (direction, parameter)
        Unit vectors over all measured parameters.
    """
    columns = hidden if basis == "hidden weights" else np.arange(trajectory.sizes["parameter"])
    count = min(settled.components, len(columns), trajectory.sizes["weight_step"] - 2)
    found = PrincipalComponents(count, _DETREND[basis])(trajectory.isel(parameter=columns)).direction.values[0]
    directions = np.zeros((len(found), trajectory.sizes["parameter"]))
    directions[:, columns] = found
    return directions


def _padded(found: xr.Dataset, ranks: NDArray[np.int64]) -> xr.Dataset:
    """Return a table of as many rows as any has."""
    padded = np.full(_RANKS, np.nan)
    padded[: len(ranks)] = ranks
    table = found.pad(rank=(0, _RANKS - len(ranks)), constant_values=np.nan) if len(ranks) else found
    return table.assign(component=("rank", padded))


def currents(copies: xr.Dataset) -> xr.Dataset:
    """Measure probability currents in planes of principal components, free of what all copies do alike.

    Contrasts of n copies from the same start, (w₁ − w₂)/√2, (w₁ + w₂ − 2w₃)/√6 and so on, have no part in the path that
    all take, and the fluctuations of one trajectory; to first order in these they are n − 1 independent ones. One of them
    gives the planes, the others the currents, each in turn: in a plane that does not depend on them reversible
    fluctuations have no circulation on average, wherever they started, and neither has the product of two of them.

    Parameters
    ----------
    copies : xarray.Dataset
        ``weights`` (replica, weight_step, parameter), four copies at least.

    Returns
    -------
    xarray.Dataset
        By ``plane`` of components (1, 2), (3, 4), …: ``entropy_production_rate`` in gradient-flow time,
        ``entropy_production_bias``, and ``entropy_per_correlation_time``, the rate times the longer correlation time.
    """
    weights = copies["weights"].transpose("replica", "weight_step", "parameter")
    contrasts = np.tensordot(helmert(weights.sizes["replica"]), np.asarray(weights.values, dtype=np.float64), 1)
    clocks = {name: each for name, each in copies.coords.items() if each.dims == ("weight_step",)}
    count = min(2 * _PLANES, contrasts.shape[2] // 2 * 2)

    def trajectories(values: Floats) -> xr.Dataset:
        return xr.Dataset({"weights": (("replica", "weight_step", "parameter"), values)}, coords=clocks)

    turns = [
        _crossed(trajectories(contrasts[[k]]), trajectories(np.delete(contrasts, k, 0)), count)
        for k in range(len(contrasts))
    ]
    return xr.concat(turns, "turn").mean("turn")


def _crossed(one: xr.Dataset, others: xr.Dataset, count: int) -> xr.Dataset:
    """Return the currents of some trajectories in planes of principal components of another."""
    directions = PrincipalComponents(count, "mean")(one).direction.values[0]
    found = Fluctuations(directions, "mean")(others)
    unit = float(found.record_interval.sel(clock="time"))
    rows = []
    for first in range(0, count, 2):
        both = (first, first + 1)
        plane = ProbabilityCurrents(plane=both)(found)
        longest = float(found.correlation_time.isel(component=list(both)).mean("replica").max()) * unit
        row = plane[["entropy_production_rate", "entropy_production_bias"]]
        rows.append(row.assign(entropy_per_correlation_time=plane.entropy_production_rate * longest))
    return xr.concat(rows, xr.Variable("plane", np.arange(1, len(rows) + 1)))


def profiles(landscape: NetworkLandscape, weights: Tensor, directions: Floats, n_points: int = 81) -> xr.Dataset:
    """Return loss profiles along some directions, for a figure.

    Parameters
    ----------
    landscape : NetworkLandscape
        Of `network`.
    weights : Tensor, shape (parameter,)
        Through which they go.
    directions : ndarray, shape (direction, parameter)
        Unit vectors.
    n_points : int, optional
        Displacements on each line.

    Returns
    -------
    xarray.Dataset
        ``loss`` (direction, displacement) over twice the width on either side, ``at`` the displacements of each, and
        what `langevin_nn.curvature.flatness` gives.
    """
    found = flatness(landscape, weights, directions)
    rows, places = [], []
    for k, direction in enumerate(directions):
        reach = [float(found[side][k]) for side in ("width_left", "width_right")]
        widest = max([each for each in reach if np.isfinite(each)], default=1.0)
        at = np.linspace(-1.3 * min(reach[0], 3 * widest), 1.3 * min(reach[1], 3 * widest), n_points)
        rows.append(loss_profile(landscape, weights, direction[None], at).loss.values[0])
        places.append(at)
    return found.rename(loss="loss_at_start").assign(
        loss=(("direction", "displacement"), np.stack(rows), {"long_name": "training loss", "units": "nat"}),
        at=(("direction", "displacement"), np.stack(places), {"long_name": "displacement", "units": "weight"}),
    )
