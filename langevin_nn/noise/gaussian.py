"""Gaussian noise with exactly the minibatch covariance, through random sample weights."""

from __future__ import annotations

from dataclasses import dataclass

from langevin_nn.draws import Draws
from langevin_nn.ensemble import covariance_factor
from langevin_nn.noise.base import SampleWeightNoise, SampleWeights

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
    portable = True

    def sample_weights(self, n_samples: int, memory: None, draws: Draws, steps: int) -> tuple[SampleWeights, None]:  # noqa: D102
        factor = covariance_factor(n_samples, self.batch_size, self.replacement)
        scale = (factor / n_samples) ** 0.5
        drawn = draws.normals("sample weights", n_samples, steps, centred=True, scale=scale, shift=1 / n_samples)
        return SampleWeights(draws.tensor(drawn)), memory
