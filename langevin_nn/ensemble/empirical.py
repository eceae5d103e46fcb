"""The exact minibatch ensemble of N sample gradients."""

from __future__ import annotations

from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from langevin_nn.ensemble.alignment import Alignment, alignment_of_minibatches, draw_minibatches
from langevin_nn.ensemble.base import GradientEnsemble
from langevin_nn.errors import ConfigurationError
from langevin_nn.landscape import SampleGradients

__all__ = ["LARGEST_MATRIX", "EmpiricalEnsemble", "covariance_factor"]

# Bytes of a matrix beyond which spectra are refused.
LARGEST_MATRIX = 4 * 2**30


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


class EmpiricalEnsemble(GradientEnsemble):
    """Minibatches of B of N samples, for the whole training set and for its two cohorts.

    Parameters
    ----------
    gradients : SampleGradients
        ∇ℓ_k of all samples.
    batch_size : int
        B.
    mislabeled : Tensor of bool, shape (sample,), optional
        The cohort `mislabeled`; nobody unless said.
    replacement : bool, optional
        Whether minibatches are drawn with replacement.

    Raises
    ------
    ConfigurationError
        If B is not between 1 and N (without an upper limit with replacement).
    """

    def __init__(
        self,
        gradients: SampleGradients,
        batch_size: int,
        mislabeled: Tensor | None = None,
        replacement: bool = False,
    ) -> None:
        self._gradients = gradients
        self._squared_norms = gradients.squared_norms()
        n = len(self._squared_norms)
        if replacement and batch_size < 1:
            raise ConfigurationError(
                f"batch_size={batch_size}: expected at least 1, since an empty minibatch has no gradient; choose a larger one"
            )
        if not replacement and not 1 <= batch_size <= n:
            raise ConfigurationError(
                f"batch_size={batch_size} with {n} samples: expected 1 to {n}, since a minibatch is drawn from them "
                "without replacement; choose a smaller one, or replacement=True"
            )
        self.n_samples, self.batch_size, self.replacement = n, batch_size, replacement
        nobody = torch.zeros(n, dtype=torch.bool, device=self._squared_norms.device)
        wrong = nobody if mislabeled is None else mislabeled.to(nobody)
        self._masks = torch.stack([torch.ones_like(wrong), ~wrong, wrong]).double()

    @cached_property
    def _sizes(self) -> NDArray[np.float64]:
        return np.asarray(self._masks.sum(1).cpu())

    @cached_property
    def _means(self) -> Tensor:
        """Mean gradient of each cohort, shape (cohort, parameter); NaN for an empty one."""
        return self._gradients.combine(self._masks / self._masks.sum(1, keepdim=True))

    @property
    def _batch_sizes(self) -> NDArray[np.float64]:
        """A cohort's share of a minibatch, real-valued."""
        return self.batch_size * self._sizes / self.n_samples

    @cached_property
    def _factors(self) -> NDArray[np.float64]:
        pairs = zip(self._sizes, self._batch_sizes, strict=True)
        factors = np.array([covariance_factor(n, b, self.replacement) for n, b in pairs])
        # One sample has no variance; the whole set of one sample is not random at all.
        single = (self._sizes == 1) & (np.arange(3) > 0)
        return np.where(single, np.nan, factors)

    @property
    def mean_gradient(self) -> Tensor:
        """ḡ, shape (parameter,)."""
        return self._means[0]

    @cached_property
    def sample_trace(self) -> NDArray[np.float64]:
        """Tr Σ of each cohort about its own mean, shape (cohort,)."""
        mean_square = (self._masks @ self._squared_norms) / self._masks.sum(1)
        return np.asarray((mean_square - self._means.square().sum(1)).clamp_min(0).cpu())

    def closed_forms(self) -> dict[str, NDArray[np.float64]]:  # noqa: D102
        squared = np.asarray(self._means.square().sum(1).cpu())
        with np.errstate(divide="ignore", invalid="ignore"):
            noise = self._factors * self.sample_trace
            parallel_noise = self._factors * self._variance_along_mean()
            projection = np.where(squared > 0, parallel_noise / squared, np.nan)
        parallel_noise = np.where(squared > 0, parallel_noise, np.nan)
        return {
            "activity": squared + noise,
            "directed_activity": (self._sizes / self.n_samples) ** 2 * squared,
            "parallel_activity": squared + parallel_noise,
            "perpendicular_activity": noise - parallel_noise,
            "noise_strength": noise,
            "parallel_noise": parallel_noise,
            "projection_variance": projection,
            "gradient_alignment": self._gradient_alignment(),
        }

    def _variance_along_mean(self) -> NDArray[np.float64]:
        """Variance of g_k · ĝ within each cohort."""
        norms = torch.linalg.vector_norm(self._means, dim=1, keepdim=True)
        along = self._gradients.project(torch.nan_to_num(self._means / norms)).T
        centre = (self._masks * along).sum(1, keepdim=True) / self._masks.sum(1, keepdim=True)
        return np.asarray(((along - centre).square() * self._masks).sum(1).cpu()) / self._sizes

    def _gradient_alignment(self) -> NDArray[np.float64]:
        units = self._means / torch.linalg.vector_norm(self._means, dim=1, keepdim=True)
        cosines = np.asarray((units @ units.T).cpu())
        return np.array([cosines[1, 2], cosines[0, 1], cosines[0, 2]])

    def alignment(self, generator: np.random.Generator, n_minibatches: int = 64) -> dict[str, NDArray[np.float64]]:  # noqa: D102
        cohorts = [self._cohort_alignment(cohort, generator, n_minibatches) for cohort in range(3)]
        return {
            "alignment": np.array([each.value for each in cohorts]),
            "alignment_standard_error": np.array([each.standard_error for each in cohorts]),
            "alignment_zero_share": np.array([each.zero_share for each in cohorts]),
        }

    def _cohort_alignment(self, cohort: int, generator: np.random.Generator, n_minibatches: int) -> Alignment:
        members = torch.nonzero(self._masks[cohort])[:, 0]
        n = len(members)
        if n == 0 or float(self._means[cohort].square().sum()) == 0:
            return Alignment.undefined()
        size = max(1, round(float(self._batch_sizes[cohort])))
        if size == n and not self.replacement:
            return Alignment(1.0, 0.0, 0.0)
        if size == 1:
            return self._exact_alignment(members)
        drawn = draw_minibatches(generator, n, size, n_minibatches, self.replacement)
        indices = members[torch.as_tensor(drawn, device=members.device)]
        return alignment_of_minibatches(self._gradients, indices)

    def _exact_alignment(self, members: Tensor) -> Alignment:
        """At B = 1 the minibatches are the samples: R = ‖mean of ĝ_k‖²."""
        norms = self._squared_norms.sqrt()
        nonzero = members[norms[members] > 0]
        zero_share = 1 - len(nonzero) / len(members)
        if len(nonzero) == 0:
            return Alignment.undefined(zero_share)
        coefficients = torch.zeros(1, self.n_samples, dtype=torch.float64, device=norms.device)
        coefficients[0, nonzero] = 1 / (norms[nonzero] * len(nonzero))
        return Alignment(float(self._gradients.combine(coefficients).square().sum()), 0.0, zero_share)

    def _refuse_what_is_too_large(self) -> None:
        n, p = self.n_samples, self._gradients.n_parameters
        # The square matrix to decompose and, where that is P × P, the N × P one that it is made of.
        rows, columns = (n, p) if p < n else (n, n)
        size = 8 * rows * columns
        if size > LARGEST_MATRIX:
            raise ConfigurationError(
                f"the noise spectrum of {n} samples and {p} measured parameters takes {rows} × {columns} numbers, "
                f"{size / 2**30:.1f} GiB: expected at most {LARGEST_MATRIX / 2**30:g} GiB, since it is kept in memory once a "
                "replica; take fewer samples, measure fewer tensors with a parameters= pattern, or leave NoiseSpectrum out"
            )

    def noise_eigenvalues(self) -> NDArray[np.float64]:  # noqa: D102
        self._refuse_what_is_too_large()
        # C and (f/(BN)) J K J share their nonzero spectrum: decompose the smaller one.
        if self._gradients.n_parameters < self.n_samples:
            centred = self._gradients.dense() - self.mean_gradient
            matrix = centred.T @ centred
        else:
            matrix = self._gradients.gram()
            matrix = matrix - matrix.mean(0) - matrix.mean(1, keepdim=True) + matrix.mean()
        if not bool(torch.isfinite(matrix).all()):
            return np.full(len(matrix), np.nan)
        values = np.linalg.eigvalsh(np.asarray(matrix.cpu()))[::-1]
        scaled: NDArray[np.float64] = np.clip(values, 0, None) * (self._factors[0] / self.n_samples)
        return scaled
