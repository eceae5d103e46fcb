"""C as an operator: products with the covariance of minibatch gradients, which is never written out."""

from __future__ import annotations

from torch import Tensor

from langevin_nn.gradients import SampleGradients
from langevin_nn.operators import SymmetricOperator

__all__ = ["CentredGram", "FactoredCovariance", "NoiseCovariance"]


class NoiseCovariance(SymmetricOperator):
    """C = (f/B) Σ of sample gradients: a projection of all of them, centred, and a weighted sum; `factor` is f/B."""

    def __init__(self, gradients: SampleGradients, factor: float) -> None:
        self._gradients, self._factor = gradients, factor
        self.size, self.device = gradients.n_parameters, gradients.device

    def apply(self, vectors: Tensor) -> Tensor:  # noqa: D102
        along = self._gradients.project(vectors).T
        along = along - along.mean(1, keepdim=True)
        return self._gradients.combine(along * (self._factor / self._gradients.n_samples))


class CentredGram(SymmetricOperator):
    """J K J · f/(BN), which shares the nonzero spectrum of C: the same products in the other order."""

    def __init__(self, gradients: SampleGradients, factor: float) -> None:
        self._gradients, self._factor = gradients, factor
        self.size, self.device = gradients.n_samples, gradients.device

    def apply(self, vectors: Tensor) -> Tensor:  # noqa: D102
        combined = self._gradients.combine(vectors - vectors.mean(1, keepdim=True))
        products = self._gradients.project(combined).T
        return (products - products.mean(1, keepdim=True)) * (self._factor / self.size)


class FactoredCovariance(SymmetricOperator):
    """C = F Fᵀ, F of shape (parameter, rank)."""

    def __init__(self, factor: Tensor) -> None:
        self._factor = factor.double()
        self.size, self.device = len(factor), factor.device

    def apply(self, vectors: Tensor) -> Tensor:  # noqa: D102
        products: Tensor = (vectors @ self._factor) @ self._factor.T
        return products
