"""The distribution of sample losses as two Gaussians: where the cohorts part, and where a threshold lies."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from langevin_nn.analyzers.labels import along_clock, described, group_with
from langevin_nn.checks import one_of
from langevin_nn.errors import ConfigurationError, EstimationRefused
from langevin_nn.statistics.mixture import LEAST_SAMPLES, GaussianMixture, gaussian_mixture

__all__ = ["LossMixture"]

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class LossMixture:
    """The distribution of sample losses as two Gaussians, record by record.

    With label noise, correctly labeled samples are learned first, and the losses of the two cohorts part: Feng & Tu
    (2021, doi 10.1088/2632-2153/abf5b9), section 5, fit l ~ (1 − r) N(m_c, s_c²) + r N(m_w, s_w²) and take m_w − m_c
    for the separation ΔL. See `gaussian_mixture` for the fit. Nothing but losses is used; which samples are mislabeled
    only gives the true means beside the fitted ones.

    Parameters
    ----------
    scale : {"loss", "log"}, optional
        Whether losses are fitted, as in the paper, or their logarithms, which are less skewed; losses of 0 then count
        as the smallest positive one of their record.
    tolerance, level, least_weight : float, optional
        Of `GaussianMixture.is_poor`.
    least_samples : int, optional
        Fewest samples that are fitted.
    probabilities : bool, optional
        Whether to give the probability of each sample as well.

    Raises
    ------
    UnknownNameError
        If `scale` is none of its names.

    Examples
    --------
    >>> generator = np.random.default_rng(0)
    >>> mislabeled = np.arange(1000) < 400
    >>> losses = np.where(mislabeled, 3.0, 0.5) + 0.2 * generator.standard_normal((1, 1, 1000))
    >>> samples = xr.Dataset(
    ...     {"sample_loss": (("replica", "sample_step", "sample"), losses), "mislabeled": ("sample", mislabeled)},
    ... )
    >>> result = LossMixture()(samples).isel(replica=0, sample_step=0)
    >>> result.components.item(), result.component_weight.values.round(2), result.separation.round(1).item()
    (2, array([0.6, 0.4]), 2.5)
    >>> np.allclose(result.component_mean, result.cohort_mean, atol=1e-6)
    True
    """

    scale: Literal["loss", "log"] = "loss"
    tolerance: float = 0.05
    level: float = 0.05
    least_weight: float = 0.01
    least_samples: int = LEAST_SAMPLES
    probabilities: bool = False

    def __post_init__(self) -> None:
        one_of("scale", self.scale, ("loss", "log"))

    def __call__(self, trajectory: xr.DataTree | xr.Dataset) -> xr.Dataset:
        """Fit a trajectory.

        Parameters
        ----------
        trajectory : xarray.DataTree or xarray.Dataset
            With ``sample_loss``, and ``mislabeled`` where that is known.

        Returns
        -------
        xarray.Dataset
            By record, ``component_weight``, ``component_mean``, ``component_standard_deviation`` (component: low,
            high), ``separation``, ``loss_threshold`` (threshold_rule: equal_density, midpoint; always a loss),
            ``bayesian_information_criterion`` and ``fit_distance`` (n_components), ``components`` (1, 2, or 0 where
            nothing could be fitted), ``fit_is_poor``, ``fit_p_value``; ``cohort_mean``, ``cohort_standard_deviation``
            (cohort: correct, mislabeled) and ``cohort_separation`` where it is known; ``high_component_probability``
            (sample) where asked for; ``zero_loss_count``, where logarithms are
            fitted. Records with missing values (after a divergence) or without any variation are NaN
            and poor.

        Raises
        ------
        ConfigurationError
            If the losses were not recorded, have no dimension ``sample``, or are negative where logarithms are asked for.
        EstimationRefused
            If there are too few samples, or no record is complete.
        """
        dataset = group_with(trajectory, "sample_loss")
        recorded = dataset["sample_loss"]
        if "sample" not in recorded.dims:
            raise ConfigurationError(
                f"sample_loss has the dimensions {', '.join(map(str, recorded.dims))}: expected one called 'sample', "
                "over which losses are distributed"
            )
        losses, _ = along_clock(recorded, "sample")
        values = losses.values
        if not np.isfinite(values).all(-1).any():
            raise EstimationRefused(
                f"none of {values[..., 0].size} records has a finite loss for each of {values.shape[-1]} samples: "
                "expected at least one before a divergence; select other replicas or record earlier",
                records=int(values[..., 0].size),
                samples=int(values.shape[-1]),
            )
        scaled = _logarithms(values) if self.scale == "log" else values
        mixture = gaussian_mixture(scaled, least_samples=self.least_samples)
        dims = [str(name) for name in losses.dims[:-1]]
        variables = self._fitted(mixture, dims, str(recorded.attrs.get("units", "nat")))
        if self.scale == "log":
            zeros = (values == 0).sum(-1)
            variables["zero_loss_count"] = described(dims, zeros, "losses of 0, taken as the smallest positive one")
        if "mislabeled" in dataset:
            variables |= self._cohorts(losses.copy(data=scaled), dataset["mislabeled"], dims, variables)
        if self.probabilities:
            probability = mixture.high_probability(scaled)
            variables["high_component_probability"] = described(
                [*dims, "sample"], probability, "probability that a sample is of the high component"
            )
        kept = {name: losses[name] for name in losses.coords if self.probabilities or "sample" not in losses[name].dims}
        labels = {
            "component": described(["component"], ["low", "high"], "component of the mixture"),
            "threshold_rule": described(
                ["threshold_rule"], ["equal_density", "midpoint"], "rule that places the threshold"
            ),
            "n_components": described(["n_components"], [1, 2], "number of Gaussians"),
        }
        return xr.Dataset(variables, coords=kept | labels)

    def _fitted(self, mixture: GaussianMixture, dims: list[str], loss_units: str) -> dict[str, Any]:
        of, units = ("loss", loss_units) if self.scale == "loss" else ("logarithm of the loss", "1")
        thresholds = np.stack([mixture.equal_density, mixture.midpoint], axis=-1)
        if self.scale == "log":
            thresholds = np.exp(thresholds)
        each, models = [*dims, "component"], [*dims, "n_components"]
        poor = mixture.is_poor(tolerance=self.tolerance, level=self.level, least_weight=self.least_weight)
        return {
            "component_weight": described(each, mixture.weight, "share of the samples in a component"),
            "component_mean": described(each, mixture.mean, f"mean {of} of a component", units),
            "component_standard_deviation": described(
                each, mixture.standard_deviation, f"standard deviation of the {of} of a component", units
            ),
            "separation": described(
                dims, mixture.separation, f"separation ΔL of the mean {of} of two components", units
            ),
            "loss_threshold": described(
                [*dims, "threshold_rule"], thresholds, "loss that divides the components", loss_units
            ),
            "bayesian_information_criterion": described(
                models, mixture.bayesian_information_criterion, "Bayesian information criterion", "nat"
            ),
            "components": described(dims, mixture.components, "number of Gaussians with the lower criterion"),
            "fit_distance": described(
                models, mixture.distance, "Kolmogorov–Smirnov distance of the samples from the fit"
            ),
            "fit_p_value": described(dims, mixture.fit_p_value, "p value of the distance from two Gaussians"),
            "fit_is_poor": described(dims, poor, "whether two Gaussians fit badly"),
        }

    def _cohorts(
        self, values: xr.DataArray, mislabeled: xr.DataArray, dims: list[str], fitted: dict[str, Any]
    ) -> dict[str, Any]:
        wrong, complete = mislabeled.astype(bool), values.notnull().all("sample")
        cohorts = [values.where(own) for own in (~wrong, wrong)]
        means, deviations = (
            np.stack([getattr(each, name)("sample").where(complete).transpose(*dims) for each in cohorts], -1)
            for name in ("mean", "std")
        )
        _, _, about = fitted["component_mean"]
        of, units = about["long_name"].removesuffix(" of a component"), about["units"]
        order = [*dims, "cohort"]
        return {
            "cohort": described(["cohort"], ["correct", "mislabeled"], "training samples taken over"),
            "cohort_mean": described(order, means, f"{of} of a cohort", units),
            "cohort_standard_deviation": described(
                order, deviations, f"standard deviation about the {of} of a cohort", units
            ),
            "cohort_separation": described(
                dims, means[..., 1] - means[..., 0], "separation of the cohorts' means", units
            ),
        }


def _logarithms(losses: Floats) -> Floats:
    """Return logarithms; a loss of 0, as single precision has it, counts as the smallest positive one of its record."""
    negative = int((losses < 0).sum())
    if negative:
        raise ConfigurationError(
            f"{negative} losses are negative: expected none below 0, of which there are no logarithms; fit the losses "
            'themselves with scale="loss"'
        )
    positive = np.where(losses > 0, losses, np.inf).min(-1, keepdims=True)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(np.log(np.where(losses <= 0, np.where(np.isfinite(positive), positive, np.nan), losses)))
