"""Gaussian noise with exactly the minibatch covariance, through random sample weights."""

from __future__ import annotations

from dataclasses import dataclass

import torch

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
        scale = (covariance_factor(n, self.batch_size, self.replacement) / n) ** 0.5
        normals = key.normals("sample weights", n)
        normals -= normals.mean(axis=1, keepdims=True)
        normals *= scale
        normals += 1 / n
        return SampleWeights(torch.as_tensor(normals).to(landscape.device, landscape.dtype)), memory
