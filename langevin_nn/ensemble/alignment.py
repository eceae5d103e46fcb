"""R, the mean cosine of two independent minibatch gradients, by U-statistic with its standard error."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import exp, isfinite

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import ndtri, stdtrit
from torch import Tensor

from langevin_nn.gradients import SampleGradients

__all__ = ["Alignment", "alignment_from_cosines", "alignment_of", "alignment_of_minibatches", "draw_minibatches"]


@dataclass(frozen=True)
class Alignment:
    """An estimate of R."""

    value: float  # NaN where it is undefined
    standard_error: float  # by delete-one jackknife over minibatches; 0 where the value is exact
    zero_share: float  # of minibatches with zero gradient, which are left out
    n_minibatches: float = np.nan  # from which it is estimated; 0 where the value is exact, NaN where it is undefined
    norm_spread: float = np.nan  # mean of (1 − ‖g^μ‖/√A)² over the minibatches, A their mean squared norm

    def interval(self, level: float = 0.95) -> tuple[float, float]:
        """Return Student's interval, widened where the estimate is skewed; the value twice where that is exact."""
        # Of R̂ ± t e with the standard error e of M minibatches, the lower end and, near 1, the upper one are those of
        # ln(1 − R), whose error is e/(1 − R̂). Near 0, R̂ is the square of a mean and e goes down with it: the upper end is
        # that of √R, R̂ + t e + t² e²/(4 R̂) with R̂ at least e. Where even ‖Σ ĝ‖² = M s, s = 1 + (M − 1) R̂, lies below the
        # M that independent unit vectors without a mean have on average, the vectors have few directions, the fewer the
        # smaller s is: a share 1 − s of the way, the upper end goes up to that of a single direction,
        # ((√s + z)² − 1)/(M − 1). Without these three, intervals of two parameters and R ≤ 0.1 hold the truth in 87 to 92 %
        # of cases.
        value, error, m = self.value, self.standard_error, self.n_minibatches
        if m == 0 or value >= 1 or not isfinite(error):
            return (value, value) if error == 0 else (np.nan, np.nan)
        quantile, rest = float(stdtrit(m - 1.0, 0.5 + level / 2)), 1 - value
        reach = quantile * error
        of_a_root = value + reach + reach**2 / (4 * max(abs(value), error)) if error else value
        upper = max(1 - rest * exp(-reach / rest), of_a_root)
        squared = max(1 + (m - 1) * value, 0.0)
        of_one_direction = ((squared**0.5 + float(ndtri(0.5 + level / 2))) ** 2 - 1) / (m - 1)
        upper = max(upper, value + max(1 - squared, 0.0) * (of_one_direction - value))
        return 1 - rest * exp(reach / rest), min(upper, 1.0)

    @classmethod
    def undefined(cls, zero_share: float = np.nan) -> Alignment:
        """Return the alignment of nothing, all NaN but for the share of minibatches with zero gradient."""
        return cls(np.nan, np.nan, zero_share)

    @staticmethod
    def arrays(
        estimates: Sequence[Alignment], squared_means: NDArray[np.float64], activities: NDArray[np.float64]
    ) -> dict[str, NDArray[np.float64]]:
        """Return estimates, one a group, as arrays, with the approximation ‖ḡ‖²/A and its bound beside them."""
        # R = ‖E ĝ‖² and ‖E ĝ − ḡ/√A‖ ≤ E|1 − ‖g‖/√A| ≤ s, where s² = E(1 − ‖g‖/√A)² measures how unequal the norms of drawn
        # minibatch gradients are. So R ≈ ‖ḡ‖²/A to within s(2‖ḡ‖/√A + s): good where norms hardly vary, that is for large
        # minibatches or many directions of noise.
        values = np.array([each.value for each in estimates])
        with np.errstate(divide="ignore", invalid="ignore"):
            approximation = np.where(squared_means > 0, squared_means / activities, np.nan)
        spread = np.sqrt([each.norm_spread for each in estimates])
        # The norms of one minibatch say nothing of how much they vary.
        spread[[each.n_minibatches == 1 for each in estimates]] = np.nan
        bound = spread * (2 * np.sqrt(approximation) + spread)
        return {
            "alignment": values,
            "alignment_standard_error": np.array([each.standard_error for each in estimates]),
            "alignment_zero_share": np.array([each.zero_share for each in estimates]),
            "alignment_minibatches": np.array([each.n_minibatches for each in estimates], dtype=np.float64),
            "alignment_approximation": approximation,
            "alignment_approximation_bound": np.minimum(bound, np.maximum(approximation, 1 - approximation)),
        }


def draw_minibatches(
    generator: np.random.Generator, n_samples: int, batch_size: int, n_minibatches: int, replacement: bool
) -> NDArray[np.int64]:
    """Draw minibatches independently of each other, shape (minibatch, row); two of them may overlap."""
    if replacement:
        return generator.integers(n_samples, size=(n_minibatches, batch_size))
    keys = generator.random((n_minibatches, n_samples), dtype=np.float32)
    if batch_size == n_samples:
        return np.argsort(keys, axis=1)
    return np.argpartition(keys, batch_size, axis=1)[:, :batch_size]


def alignment_of(gradients: Tensor) -> Alignment:
    """Estimate R from minibatch gradients (minibatch, parameter) that were drawn independently of each other."""
    norms = torch.linalg.vector_norm(gradients, dim=1)
    units = gradients[norms > 0] / norms[norms > 0, None]
    return alignment_from_cosines(units @ units.sum(0), norms)


def alignment_of_minibatches(gradients: SampleGradients, indices: Tensor) -> Alignment:
    """Estimate R from drawn minibatches (minibatch, row), without forming their gradients where that is less work."""
    # Their norms come from Gram matrices, and their cosines with the sum of all from one weighted sum of sample gradients and
    # its product with each: M·B² numbers instead of M·P.
    drawn = gradients.minibatch_gradients(indices)
    if drawn is not None:
        return alignment_of(drawn)
    norms = gradients.minibatch_squared_norms(indices).sqrt()
    chosen = indices[norms > 0]
    if len(chosen) == 0:
        return Alignment.undefined(1.0)
    shares = (1 / (indices.shape[1] * norms[norms > 0]))[:, None].expand(chosen.shape)
    coefficients = torch.zeros(gradients.n_samples, dtype=norms.dtype, device=norms.device)
    coefficients.index_add_(0, chosen.reshape(-1), shares.reshape(-1))
    onto_total = gradients.sums_with_each(coefficients[None])[:, 0]
    return alignment_from_cosines((onto_total[chosen] * shares).sum(1), norms)


def alignment_from_cosines(with_total: Tensor, norms: Tensor) -> Alignment:
    """Estimate R and its error from ĝ_μ · Σ_ν ĝ_ν where g^μ is not zero, and ‖g^μ‖ of all minibatches."""
    # R = ‖E ĝ‖² is estimated without bias by the mean cosine over all pairs, (‖Σ ĝ_μ‖² − M)/(M(M − 1)). Pairs share
    # minibatches and are not independent, so the error comes from leaving out one minibatch at a time (Efron & Stein 1981,
    # doi 10.1214/aos/1176345462).
    m = len(with_total)
    zero_share = 1 - m / len(norms)
    if m == 0:
        return Alignment.undefined(zero_share)
    spread = float((1 - norms / norms.square().mean().sqrt()).square().mean())
    if m < 2:
        return Alignment(np.nan, np.nan, zero_share, m, spread)
    squared = float(with_total.sum())
    value = (squared - m) / (m * (m - 1))
    if m < 3:
        return Alignment(value, np.nan, zero_share, m, spread)
    # ‖Σ − ĝ_i‖² = ‖Σ‖² − 2 Σ·ĝ_i + 1, for every i at once.
    left_out = (squared - 2 * with_total + 1 - (m - 1)) / ((m - 1) * (m - 2))
    variance = (m - 1) / m * float((left_out - left_out.mean()).square().sum())
    return Alignment(value, variance**0.5, zero_share, m, spread)
