"""Low-rank frozen noise: the leading directions of C at the last refresh, with or without an isotropic remainder."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from langevin_nn.checks import one_of, whole_number
from langevin_nn.ensemble import GradientEnsemble
from langevin_nn.landscape import Landscape, SampleGradients
from langevin_nn.noise.refreshed import RefreshedNoise
from langevin_nn.seeds import Key

__all__ = ["HeldFactor", "LowRankNoise"]

Remainder = Literal["isotropic", "none"]

_TOLERANCE = 1e-3  # residual of an eigenvector, relative to its eigenvalue


@dataclass(frozen=True)
class HeldFactor:
    """The leading part of C and when it was measured."""

    factor: Tensor  # F, shape (replica, parameter, rank), in the precision of the weights: its columns are √e_l u_l
    lost_trace: Tensor  # Tr C − Tr F Fᵀ, shape (replica,)
    step: int

    @property
    def kept_trace(self) -> Tensor:
        """Tr F Fᵀ, shape (replica,)."""
        return self.factor.double().square().sum((1, 2))


@dataclass(frozen=True)
class LowRankNoise(RefreshedNoise):
    """η = F ξ, ξ ~ N(0, 1), F Fᵀ = Σ_{l ≤ rank} e_l u_l u_lᵀ the leading part of C at the last refresh.

    The trace that this loses, Σ_{l > rank} e_l, is left out, or spread evenly over the directions orthogonal to all u_l, so
    that the noise along these keeps its strength and the whole has the trace of C. The recorded strength is that of the
    noise in use; `HeldFactor.lost_trace` has the rest. Memory is P·rank numbers a replica.

    Parameters
    ----------
    batch_size : int
        B of the minibatches whose covariance it takes.
    rank : int
        Leading directions that are kept; those of C where it has fewer.
    refresh_every : int, optional
        Updates between measurements of C; N // B unless said, which is one epoch at Δt = α only. A number larger than the
        run freezes it at the start.
    remainder : {"isotropic", "none"}, optional
        What becomes of the lost trace.

    Raises
    ------
    ConfigurationError
        If `rank` or `refresh_every` is no whole number from 1, or there is no such remainder.
    """

    batch_size: int = field()
    rank: int = field()
    refresh_every: int | None = None
    remainder: Remainder = "isotropic"

    def __post_init__(self) -> None:
        super().__post_init__()
        whole_number("rank", self.rank, "a whole number (int) from 1, directions in which there is noise", least=1)
        one_of("remainder", self.remainder, ("isotropic", "none"))

    def measured(self, gradients: list[SampleGradients], factor: float, weights: Tensor, step: int) -> HeldFactor:  # noqa: D102
        columns, lost = zip(*(self._leading(each) for each in gradients), strict=True)
        return HeldFactor(torch.stack(columns).to(weights), torch.stack(lost), step)

    def _leading(self, gradients: SampleGradients) -> tuple[Tensor, Tensor]:
        """Return F in float64 and the trace that it loses."""
        ensemble = GradientEnsemble.from_sample_gradients(gradients, self.batch_size)
        rank = min(self.rank, gradients.n_samples, gradients.n_parameters)
        trace = torch.as_tensor(ensemble.closed_forms()["noise_strength"][0])
        if not trace > 0:  # none at B = N; no number in a replica that has diverged
            return trace.expand(gradients.n_parameters, rank), trace
        pairs = ensemble.noise_modes(rank, tolerance=_TOLERANCE)
        values = torch.as_tensor(pairs.values).clamp_min(0)
        return pairs.vectors.T.cpu() * values.sqrt(), (trace - values.sum()).clamp_min(0)

    def drawn(self, memory: HeldFactor, weights: Tensor, key: Key) -> Tensor:  # noqa: D102
        factor, n = memory.factor, weights.shape[1]
        rank = factor.shape[2]
        normals = torch.as_tensor(key.normals("low-rank noise", rank)).to(weights)
        noise = _products(factor, normals)
        if self.remainder == "none" or rank == n:
            return noise
        rest = torch.as_tensor(key.normals("remainder", n)).to(weights)
        directions = torch.nn.functional.normalize(factor, dim=1)
        rest = rest - _products(directions, _products(directions.mT, rest))
        amplitude = (memory.lost_trace / (n - rank)).sqrt().to(weights)
        return noise + amplitude[:, None] * rest

    def strength(  # noqa: D102
        self, memory: HeldFactor, landscape: Landscape, weights: Tensor, sample_trace: Tensor | None
    ) -> Tensor:
        kept = memory.kept_trace.cpu()
        return kept + memory.lost_trace if self.remainder == "isotropic" else kept


def _products(matrices: Tensor, vectors: Tensor) -> Tensor:
    """Multiply by replica, each in memory of its own: a product rounds otherwise where rows of a batch lie off the grid."""
    return torch.stack([one.clone() @ other.clone() for one, other in zip(matrices, vectors, strict=True)])
