"""How heavy the tails of gradient noise are: the index of a stable law, with its error."""

from __future__ import annotations

from dataclasses import dataclass
from math import log
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

from langevin_nn.checks import number, numbers, one_of
from langevin_nn.errors import ConfigurationError, EstimationRefused

__all__ = ["TailIndex", "tail_index"]

Floats = NDArray[np.float64]
Method = Literal["characteristic function", "block sums"]

LEAST_SAMPLES = 200

# Wave numbers in units of the inverse scale, where the characteristic function is neither 1 nor lost in its noise.
_WAVE_NUMBERS = np.arange(1, 11) / 10
# Groups of blocks that are left out in turn.
_GROUPS = 50


@dataclass(frozen=True)
class TailIndex:
    """The index of the stable law that samples follow best.

    Parameters
    ----------
    index : float
        2 for Gaussian samples, less for heavier tails; may exceed 2 by its error, or where tails are lighter.
    standard_error : float
        Of `index`, for independent samples.
    n_samples : int
        How many there were.
    method : str
        How it was estimated.
    """

    index: float
    standard_error: float
    n_samples: int
    method: str

    def interval(self, level: float = 0.95) -> tuple[float, float]:
        """Return the normal interval about the estimate.

        Parameters
        ----------
        level : float, optional
            Coverage, between 0 and 1.

        Returns
        -------
        tuple of float
            Lower and upper end.
        """
        level = number("level", level, "a number between 0 and 1, the coverage of the interval", above=0, below=1)
        half = float(ndtri(0.5 + level / 2)) * self.standard_error
        return self.index - half, self.index + half


def tail_index(samples: Any, method: Method = "characteristic function") -> TailIndex:
    """Estimate the index of a stable law from independent samples.

    "characteristic function": the slope of ln(−ln |φ(k)|²) against ln k, by least squares over ten wave numbers up to the
    inverse scale (Koutrouvelis 1980, doi 10.1080/01621459.1980.10477573), with its bias of order 1/n taken off and the
    standard error of its linearisation. Neither location nor skewness matter.

    "block sums": with n = K₁ K₂ samples, 1/index = (⟨ln |Y|⟩ − ⟨ln |x|⟩)/ln K₁, Y the sums of K₁ ≈ √n neighbours
    (Mohammadi, Mohammadpour & Ogata 2015, doi 10.1007/s00184-014-0515-7), as Şimşekli, Sagun & Gürbüzbalaban (2019,
    arXiv:1901.06053) applied it to gradient noise; medians are taken off first, errors are jackknifed over blocks. It takes
    for granted that the samples are stable: of others, whose sums are nearer to a Gaussian than they are, it tells how fast.
    Of samples that are pooled from parameters of different scale, as gradient noise is, both find tails that no
    single parameter has (Xie, Sato & Sugiyama 2021, arXiv:2002.03495): divide each parameter by its own scale first.

    Parameters
    ----------
    samples : array, shape (sample,)
        Independent; 200 at least.
    method : {"characteristic function", "block sums"}, optional
        Which estimator.

    Returns
    -------
    TailIndex
        With its standard error.

    Raises
    ------
    ConfigurationError
        If samples are no series of finite numbers, or there is no such method.
    EstimationRefused
        If there are too few of them, or half of them are equal.

    Examples
    --------
    >>> generator = np.random.default_rng(0)
    >>> gaussian, cauchy = generator.standard_normal(20_000), generator.standard_cauchy(20_000)
    >>> [round(tail_index(each).index, 1) for each in (gaussian, cauchy)]
    [2.0, 1.0]
    """
    chosen = one_of("method", method, ("characteristic function", "block sums"))
    values = numbers("samples", samples, "a series of finite numbers, the noise of one component")
    if values.ndim != 1:
        raise ConfigurationError(
            f"samples have shape {values.shape}: expected (sample,), since one index is estimated; flatten them, each "
            "parameter over its own scale"
        )
    if len(values) < LEAST_SAMPLES:
        raise EstimationRefused(
            f"{len(values)} samples: expected at least {LEAST_SAMPLES}, since tails are rare; draw more", n=len(values)
        )
    lower, median, upper = np.quantile(values, [0.25, 0.5, 0.75])
    if not upper > lower:
        raise EstimationRefused(
            "half of the samples are equal: expected samples of a continuous law, since their scale is the interquartile "
            "range; leave out components without noise",
            n=len(values),
        )
    standard = (values - median) / (0.5 * (upper - lower))
    estimate = _from_waves if chosen == "characteristic function" else _from_blocks
    return TailIndex(*estimate(standard), len(values), chosen)


def _from_waves(x: Floats) -> tuple[float, float]:
    """Return the index and its standard error from the empirical characteristic function."""
    n = len(x)
    waves = np.exp(1j * _WAVE_NUMBERS[:, None] * x)
    mean = waves.mean(1)
    # The squared modulus of a mean of n exceeds that of the expectation by (1 − |φ|²)/n.
    squared = np.maximum((n * np.abs(mean) ** 2 - 1) / (n - 1), 1 / n)
    logarithm = np.log(_WAVE_NUMBERS)
    centred = logarithm - logarithm.mean()
    slope = centred / (centred @ centred)
    index = float(slope @ np.log(-np.log(squared)))
    influence = 2 * (mean.conj()[:, None] * (waves - mean[:, None])).real
    linearised = (slope / (squared * np.log(squared))) @ influence
    return index, float(linearised.std(ddof=1) / n**0.5)


def _from_blocks(x: Floats) -> tuple[float, float]:
    """Return the index and its standard error from sums over blocks."""
    length = int(len(x) ** 0.5)
    blocks = x[: len(x) // length * length].reshape(-1, length)
    tiny = np.finfo(float).tiny
    sums = np.log(np.maximum(np.abs(blocks.sum(1)), tiny))
    singles = np.log(np.maximum(np.abs(blocks), tiny)).mean(1)
    terms = (sums - singles) / log(length)
    inverse = float(terms.mean())
    parts = np.array([part.sum() for part in np.array_split(terms, min(_GROUPS, len(terms)))])
    sizes = np.array([len(part) for part in np.array_split(terms, min(_GROUPS, len(terms)))])
    without = (terms.sum() - parts) / (len(terms) - sizes)
    error = float(np.sqrt((len(parts) - 1) / len(parts) * ((without - without.mean()) ** 2).sum()))
    return 1 / inverse, error / inverse**2
