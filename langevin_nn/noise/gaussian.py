"""Gaussian noise with exactly the minibatch covariance, through random sample weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from langevin_nn.draws import addresses, normals
from langevin_nn.ensemble import covariance_factor
from langevin_nn.landscape import EmpiricalLandscape
from langevin_nn.noise.base import SampleWeightNoise, SampleWeights
from langevin_nn.seeds import Key

__all__ = ["MatchedGaussian"]


@dataclass(frozen=True)
class MatchedGaussian(SampleWeightNoise):
    """c_k = 1/N + (f/(BN))^½ (ξ_k − ξ̄), ξ ~ N(0, 1): covariance exactly (f/B) Σ(w), no P×P matrix formed.

    The noise depends on the weights and is read in the Itô sense. Compare Wu et al. (2020, arXiv:1906.07405), who
    perturb SGD's sample weights.

    Parameters
    ----------
    batch_size : int
        B of the minibatches whose covariance it takes.
    replacement : bool, optional
        Whether those are drawn with replacement.
    """

    batch_size: int
    replacement: bool = False
    needs_batch_size = True

    def sample_weights(self, landscape: EmpiricalLandscape, memory: None, key: Key) -> tuple[SampleWeights, None]:  # noqa: D102
        n = landscape.n_samples
        if landscape.device.type == "cuda":
            return SampleWeights(self._drawn_on_device(landscape, [key], 1)[0]), memory
        drawn = key.normals("sample weights", n)
        drawn -= drawn.mean(axis=1, keepdims=True)
        drawn *= self._scale(n)
        drawn += 1 / n
        return SampleWeights(torch.as_tensor(drawn).to(landscape.device, landscape.dtype)), memory

    @property
    def draws_on_device(self) -> bool:  # noqa: D102
        return type(self) is MatchedGaussian

    def draw_on_device(  # noqa: D102
        self, landscape: EmpiricalLandscape, memories: Sequence[None], keys: Sequence[Key], steps: int
    ) -> tuple[SampleWeights, list[None]]:
        return SampleWeights(self._drawn_on_device(landscape, keys, steps)), list(memories)

    def _scale(self, n: int) -> float:
        return float((covariance_factor(n, self.batch_size, self.replacement) / n) ** 0.5)

    def _drawn_on_device(self, landscape: EmpiricalLandscape, keys: Sequence[Key], steps: int) -> Tensor:
        """Return the c_k, shape (step, replica, sample)."""
        n = landscape.n_samples
        drawn = normals(addresses(keys, "sample weights", landscape.device), n, keys[0].step, steps)
        drawn -= drawn.mean(2, keepdim=True)
        return drawn.mul_(self._scale(n)).add_(1 / n).transpose(0, 1).to(landscape.dtype)
