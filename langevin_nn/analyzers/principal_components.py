"""Principal components of recorded weights: the directions in which they fluctuate most."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import xarray as xr

from langevin_nn.analyzers.fluctuations import Detrend, Fluctuations, recorded_weights, without_trend
from langevin_nn.analyzers.labels import described
from langevin_nn.checks import one_of, truth, whole_number
from langevin_nn.errors import EstimationRefused
from langevin_nn.operators import principal_directions

__all__ = ["PrincipalComponents"]


@dataclass(frozen=True)
class PrincipalComponents:
    """Directions of largest variance of recorded weights, with variance and correlation time along each.

    PCA finds order where there is none. The weights of a random walk have principal components whose variances fall as
    1/k² and whose projections are cosines, cos(π k t/T), whatever the landscape (Antognini & Sohl-Dickstein 2018,
    arXiv:1806.08805); so does every component that relaxes more slowly than the window lasts. Their correlation times are
    about 0.3/k of the window. Variances of the same records from which directions were found are too large, too;
    `Fluctuations` along them on another trajectory from the same start are not.

    Parameters
    ----------
    n_components : int, optional
        How many, from the largest variance down.
    detrend : {"mean", "linear"}, optional
        What is taken off each weight before: its mean, or its straight line over the window, where weights drift.
    shared : bool, optional
        Whether replicas share directions, those of their pooled covariance, rather than to have their own.
    discard : int, optional
        Records to leave out at the start.

    Raises
    ------
    ConfigurationError
        If a choice is not among those named.

    Examples
    --------
    >>> generator = np.random.default_rng(0)
    >>> weights = generator.standard_normal((1, 10_000, 3)) @ np.diag([1.0, 3.0, 2.0])
    >>> trajectory = xr.Dataset({"weights": (("replica", "weight_step", "parameter"), weights)})
    >>> found = PrincipalComponents(n_components=2)(trajectory)
    >>> found.component_variance.values.round(1)
    array([[8.7, 4.1]])
    >>> abs(found.direction.values).round(1)
    array([[[0., 1., 0.],
            [0., 0., 1.]]])
    """

    n_components: int = 10
    detrend: Detrend = "linear"
    shared: bool = False
    discard: int = 0

    def __post_init__(self) -> None:
        whole_number("n_components", self.n_components, "a number of components (int) from 1", least=1)
        one_of("detrend", self.detrend, ("mean", "linear"))
        truth("shared", self.shared, "whether replicas share directions")
        whole_number("discard", self.discard, "a number of records (int) from 0 to leave out", least=0)

    def __call__(self, trajectory: xr.DataTree | xr.Dataset) -> xr.Dataset:
        """Analyse a trajectory.

        Parameters
        ----------
        trajectory : xarray.DataTree or xarray.Dataset
            With ``weights`` (replica, weight_step, parameter), evenly recorded.

        Returns
        -------
        xarray.Dataset
            What `Fluctuations` gives along the principal components; and ``direction`` ([replica,] component, parameter),
            unit vectors whose largest entry is positive; ``explained_share`` (replica, component) of the variance in all
            directions; ``total_trend_share`` (replica), the share that straight lines have in the variance about the mean.

        Raises
        ------
        ConfigurationError
            If weights were not recorded.
        EstimationRefused
            If there are fewer records or parameters than components, records are not evenly spaced, or a replica has
            diverged.
        """
        weights = recorded_weights(trajectory, self.discard)
        records, parameters = weights.sizes["weight_step"], weights.sizes["parameter"]
        # Mean and slope are taken off, which leaves so many independent records.
        most = min(parameters, records - (2 if self.detrend == "linear" else 1))
        if self.n_components > most:
            raise EstimationRefused(
                f"{records} records of {parameters} parameters have {most} principal components: expected at least the "
                f"{self.n_components} that are asked for; record more often, or ask for fewer",
                components=most,
                needed=self.n_components,
            )
        rest, share = without_trend(weights.values, self.detrend)
        stretches = np.moveaxis(rest, 1, 2)
        if self.shared:
            directions = principal_directions(stretches.reshape(-1, parameters), self.n_components)[0]
        else:
            directions = np.stack([principal_directions(own, self.n_components)[0] for own in stretches])
        found = Fluctuations(directions, self.detrend, self.discard)(trajectory)
        total = (rest**2).mean(-1).sum(-1)
        spread = weights.values.var(-1)
        dimensions = ("component", "parameter") if self.shared else ("replica", "component", "parameter")
        with np.errstate(invalid="ignore"):
            lines = (np.nan_to_num(share) * spread).sum(-1) / spread.sum(-1)
            explained = found["component_variance"].values / total[:, None]
        return found.assign(
            direction=described(dimensions, directions, "principal component of the weights"),
            explained_share=described(("replica", "component"), explained, "share of the variance in all directions"),
            total_trend_share=described(
                ("replica",), lines, "share of straight lines in the variance in all directions"
            ),
        )
