"""Closed forms of the minibatch ensembles of groups of samples: all, cohorts, classes."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from langevin_nn.gradients import SampleGradients

__all__ = ["Groups", "covariance_factor"]

# A variance that is smaller than this share of the mean square is rounding: samples are float32 at best to 2⁻²⁴.
_ROUNDING = 64 * np.finfo(np.float64).eps


def covariance_factor(n_samples: float, batch_size: float, replacement: bool = False) -> float:
    """Return f/B, which turns the covariance Σ of sample gradients into that of minibatch gradients.

    C = (f/B) Σ with f = (N − B)/(N − 1) without replacement and 1 with (Cochran 1977, *Sampling Techniques*, theorem 2.2).

    Parameters
    ----------
    n_samples : float
        N.
    batch_size : float
        B; may be fractional, for a cohort's share of a minibatch.
    replacement : bool, optional
        Whether a sample may come twice.

    Returns
    -------
    float
        0 where the minibatch is the whole set, NaN where there is nothing to draw from or nothing drawn.

    Examples
    --------
    >>> covariance_factor(5, 2), covariance_factor(5, 2, replacement=True), covariance_factor(5, 5)
    (0.375, 0.5, 0.0)
    """
    if n_samples <= 0 or batch_size <= 0:
        return float("nan")
    if replacement:
        return 1 / batch_size
    return (n_samples - batch_size) / (n_samples - 1) / batch_size if n_samples > 1 else 0.0


class Groups:
    """Minibatches of B as seen by groups of samples, unions of parts that do not overlap; each sees its share of B."""

    # One weighted sum and one projection for each part give the mean gradient, the noise and its share along the mean of
    # every group, over all parameters and within each layer.

    def __init__(
        self,
        gradients: SampleGradients,
        parts: Tensor,  # (part, sample): each sample belongs to one part at most
        unions: Sequence[Sequence[int]],  # which parts make up each group
        batch_size: int,
        replacement: bool,
        squared_norms: Tensor | None = None,  # where they have been computed before
    ) -> None:
        self._gradients, self._replacement = gradients, replacement
        self._given_norms = squared_norms
        self._parts = parts.double()
        self._unions = torch.zeros(len(unions), len(parts), dtype=torch.float64, device=parts.device)
        for group, members in enumerate(unions):
            self._unions[group, list(members)] = 1
        self.masks = self._unions @ self._parts
        self.sizes: NDArray[np.float64] = np.asarray(self.masks.sum(1).cpu())
        self.n_samples = parts.shape[1]
        self.batch_sizes = batch_size * self.sizes / self.n_samples

    @cached_property
    def _norms_and_sums(self) -> tuple[Tensor, Tensor]:
        """‖∇ℓ_k‖² within each layer, and the mean gradient of each part that has samples."""
        sizes = self._parts.sum(1)
        some = sizes > 0
        coefficients = self._parts[some] / sizes[some, None]
        if self._given_norms is not None:
            return self._given_norms, self._gradients.combine(coefficients)
        return self._gradients.norms_and_sums(coefficients)

    @property
    def squared_norms(self) -> Tensor:
        """‖∇ℓ_k‖² within each layer, shape (layer, sample)."""
        return self._norms_and_sums[0]

    @property
    def _shares(self) -> Tensor:
        """Share of each part in each group, shape (group, part); NaN for a group without samples."""
        weights = self._unions * self._parts.sum(1)
        return weights / weights.sum(1, keepdim=True)

    @cached_property
    def _part_means(self) -> Tensor:
        """Mean gradient of each part, shape (part, parameter); zero for an empty one."""
        sizes = self._parts.sum(1)
        means = torch.zeros(len(self._parts), self._gradients.n_parameters, dtype=torch.float64, device=sizes.device)
        means[sizes > 0] = self._norms_and_sums[1]
        return means

    @cached_property
    def means(self) -> Tensor:
        """Mean gradient of each group, shape (group, parameter); NaN for an empty one."""
        return self._shares @ self._part_means

    @cached_property
    def factors(self) -> NDArray[np.float64]:
        """f/B of each group, shape (group,); NaN where there is no variance to speak of."""
        pairs = zip(self.sizes, self.batch_sizes, strict=True)
        factors = np.array([covariance_factor(n, b, self._replacement) for n, b in pairs])
        # One sample has no variance; the whole set of one sample is not random at all.
        single = (self.sizes == 1) & (self.sizes < self.n_samples)
        return np.where(single, np.nan, factors)

    def _over_samples(self, values: Tensor) -> NDArray[np.float64]:
        """Average (layer, sample) over each group: shape (layer, group)."""
        return np.asarray((values @ self.masks.T / self.masks.sum(1)).cpu())

    @cached_property
    def _squared_means(self) -> NDArray[np.float64]:
        """‖mean‖² within each layer, shape (layer, group)."""
        parts = self._gradients.split(self.means)
        return np.stack([np.asarray(part.square().sum(1).cpu()) for part in parts.values()])

    def _traces(self, by_layer: bool) -> NDArray[np.float64]:
        """Return Tr Σ about the group's own mean, shape (layer or 1, group)."""
        mean_squares, squared_means = self._over_samples(self.squared_norms), self._squared_means
        if not by_layer:
            mean_squares, squared_means = mean_squares.sum(0, keepdims=True), squared_means.sum(0, keepdims=True)
        traces = mean_squares - squared_means
        cleaned: NDArray[np.float64] = np.where(traces > _ROUNDING * mean_squares, traces, 0 * traces)
        return cleaned

    @property
    def sample_traces(self) -> NDArray[np.float64]:
        """Tr Σ of each group about its own mean, shape (group,)."""
        traces: NDArray[np.float64] = self._traces(by_layer=False)[0]
        return traces

    @cached_property
    def _projections(self) -> Tensor:
        """∇ℓ_k · mean within each layer, shape (layer, sample, group)."""
        sizes = self._parts.sum(1)
        some = torch.nonzero(sizes)[:, 0]
        onto_parts = self._gradients.sums_with_each_by_layer(
            self._parts[some] / sizes[some, None], self._part_means[some]
        )
        shares = torch.nan_to_num(self._shares[:, some])
        return onto_parts @ shares.T

    def _variances_along_mean(self, by_layer: bool) -> NDArray[np.float64]:
        """Return the variance of g_k · mean within each group, shape (layer or 1, group)."""
        along = self._projections if by_layer else self._projections.sum(0, keepdim=True)
        masks = self.masks.T
        centre = (along * masks).sum(1, keepdim=True) / masks.sum(0)
        variances = ((along - centre).square() * masks).sum(1) / masks.sum(0)
        squares = (along.square() * masks).sum(1) / masks.sum(0)
        return np.asarray(torch.where(variances > _ROUNDING * squares, variances, 0 * variances).cpu())

    def closed_forms(self, by_layer: bool = False) -> dict[str, NDArray[np.float64]]:
        """Return the order parameters that need no sampling, shape (group,), or (layer, group) of those within each layer."""
        squared = self._squared_means if by_layer else self._squared_means.sum(0, keepdims=True)
        traces = self._traces(by_layer)
        with np.errstate(divide="ignore", invalid="ignore"):
            noise = self.factors * traces
            parallel_noise = np.where(
                squared > 0, self.factors * self._variances_along_mean(by_layer) / squared, np.nan
            )
            values = {
                "activity": squared + noise,
                "directed_activity": (self.sizes / self.n_samples) ** 2 * squared,
                "parallel_activity": squared + parallel_noise,
                "perpendicular_activity": noise - parallel_noise,
                "noise_strength": noise,
                "parallel_noise": parallel_noise,
                "projection_variance": np.where(squared > 0, parallel_noise / squared, np.nan),
                "gradient_noise_scale": np.where((squared > 0) & np.isfinite(self.factors), traces / squared, np.nan),
            }
        return values if by_layer else {name: value[0] for name, value in values.items()}

    def cosines(self) -> NDArray[np.float64]:
        """Return the cosines between the mean gradients of all groups, NaN where one is zero or there are no samples."""
        units = self.means / torch.linalg.vector_norm(self.means, dim=1, keepdim=True)
        return np.asarray((units @ units.T).cpu()).clip(-1, 1)
