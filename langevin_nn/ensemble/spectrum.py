"""Spectra: how much of the noise lies in how many directions."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from langevin_nn.errors import ConfigurationError

__all__ = ["effective_dimension"]


def effective_dimension(eigenvalues: ArrayLike, fraction: float = 0.9) -> float:
    """Return D_s, the smallest number of directions that hold a share of the noise.

    The smallest l with Σ_{i≤l} e_i ≥ fraction · Σ e_i (Feng & Tu 2021, doi 10.1088/2632-2153/abf5b9, section 2).

    Parameters
    ----------
    eigenvalues : array, shape (mode,)
        All eigenvalues of C, descending.
    fraction : float, optional
        The share, in (0, 1].

    Returns
    -------
    float
        A whole number; NaN where there is no noise.

    Raises
    ------
    ConfigurationError
        If `fraction` is outside (0, 1].

    Examples
    --------
    >>> effective_dimension([6.0, 3.0, 1.0])
    2.0
    """
    if not 0 < fraction <= 1:
        raise ConfigurationError(f"fraction={fraction}: expected a share of the noise strength in (0, 1]")
    cumulative = np.cumsum(np.asarray(eigenvalues, dtype=np.float64))
    if cumulative.size == 0 or not cumulative[-1] > 0:
        return float("nan")
    # The share is met to rounding: [9, 1] reaches 0.9 with its first mode.
    threshold = fraction * cumulative[-1] * (1 - 1e-12)
    return float(np.searchsorted(cumulative, threshold) + 1)
