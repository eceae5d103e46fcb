"""Symmetric operators that are never written out: leading eigenpairs, trace, density, overlap; principal directions."""

from langevin_nn.operators.base import DenseOperator, SplitOperator, SymmetricOperator
from langevin_nn.operators.density import SpectralDensity, estimate_trace, spectral_density
from langevin_nn.operators.lanczos import Eigenpairs, leading_eigenpairs
from langevin_nn.operators.overlap import eigenvector_overlap, subspace_overlap
from langevin_nn.operators.principal import principal_directions

__all__ = [
    "DenseOperator",
    "Eigenpairs",
    "SpectralDensity",
    "SplitOperator",
    "SymmetricOperator",
    "eigenvector_overlap",
    "estimate_trace",
    "leading_eigenpairs",
    "principal_directions",
    "spectral_density",
    "subspace_overlap",
]
