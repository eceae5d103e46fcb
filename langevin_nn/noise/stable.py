"""Heavy-tailed noise: symmetric α-stable numbers, as wide in each parameter as minibatch noise is."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache
from math import sqrt
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from langevin_nn.checks import number
from langevin_nn.landscape import Landscape, SampleGradients
from langevin_nn.noise.diagonal import HeldVariances
from langevin_nn.noise.refreshed import RefreshedNoise
from langevin_nn.seeds import Key

__all__ = ["MatchedStable", "stable_numbers", "upper_quartile"]

_LEAST_INDEX = 0.5  # tails of smaller index leave floating point within a few updates


def stable_numbers(normals: NDArray[np.floating], index: float) -> NDArray[np.float64]:
    """Return symmetric α-stable numbers of characteristic function exp(−|k|^index), shape (..., number), from normal ones."""
    # Chambers, Mallows & Stuck (1976, doi 10.1080/01621459.1976.10480344): angle and waiting time come from two of them.
    x, y = np.split(normals.astype(np.float64), 2, axis=-1)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        angle, waiting = np.arctan(y / x), (x**2 + y**2) / 2
        if index == 1:
            numbers = np.tan(angle)
        else:
            front = np.sin(index * angle) / np.cos(angle) ** (1 / index)
            numbers = front * (np.cos((1 - index) * angle) / waiting) ** ((1 - index) / index)
    return np.where(waiting == 0, 0.0, numbers)


@cache
def upper_quartile(index: float) -> float:
    """Return the upper quartile of the symmetric α-stable law of characteristic function exp(−|k|^index)."""
    from scipy.stats import levy_stable

    return float(levy_stable.ppf(0.75, index, 0.0))


@dataclass(frozen=True)
class MatchedStable(RefreshedNoise):
    """η_i = s_i ζ_i with independent symmetric α-stable ζ_i, as wide in each parameter as minibatch noise is.

    A stable law of index below 2 has no variance that could be matched. What is matched is the middle half: s_i makes
    the interquartile range of η_i that of a Gaussian of variance C_ii, s_i = √C_ii q(2)/(√2 q(index)) with q the quartile
    of ζ, within 1.05 of √(C_ii/2) for an index above 1. Typical kicks are then as large as those of `MatchedDiagonal`,
    which it is at index 2, and rare ones larger. Increments scale as Δt^(1/index) α^(1 − 1/index). An index for it:
    `langevin_nn.analyzers.tail_index`. Heavy-tailed gradient noise is argued for by Şimşekli, Sagun & Gürbüzbalaban (2019,
    arXiv:1901.06053).

    Parameters
    ----------
    batch_size : int
        B of the minibatches whose variances it takes.
    index : float
        The tail index, from ½ to 2.
    refresh_every : int, optional
        Updates between measurements; N // B unless said, which is one epoch at Δt = α only.

    Raises
    ------
    ConfigurationError
        If the index is out of its range, or `refresh_every` no whole number from 1.
    """

    batch_size: int = field()
    index: float = field()
    refresh_every: int | None = None
    law = "stable"

    def __post_init__(self) -> None:
        super().__post_init__()
        expected = (
            f"a number from {_LEAST_INDEX} to 2, the index of a stable law whose kicks stay within floating point"
        )
        object.__setattr__(self, "index", number("index", self.index, expected, least=_LEAST_INDEX, most=2))

    @property
    def time_step_exponent(self) -> float:
        """1/index, that of a stable process."""
        return 1 / self.index

    def measured(self, gradients: list[SampleGradients], factor: float, weights: Tensor, step: int) -> HeldVariances:  # noqa: D102
        return HeldVariances(factor * torch.stack([each.variances() for each in gradients]), step)

    def drawn(self, memory: HeldVariances, weights: Tensor, key: Key) -> Tensor:  # noqa: D102
        normals = key.normals("stable noise", 2 * weights.shape[1], np.float64)
        numbers = torch.as_tensor(stable_numbers(normals, self.index)).to(memory.variances)
        width = upper_quartile(2.0) / (sqrt(2) * upper_quartile(self.index))
        return (width * memory.variances.sqrt() * numbers).to(weights)

    def strength(  # noqa: D102
        self, memory: HeldVariances, landscape: Landscape, weights: Tensor, sample_trace: Tensor | None
    ) -> Tensor:
        total: Any = memory.variances.sum(1)
        return total if self.index == 2 else torch.full_like(total, torch.inf)
