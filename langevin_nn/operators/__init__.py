"""Symmetric operators that are never written out: leading eigenpairs, trace, density, overlap; principal directions."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from langevin_nn.operators.base import DenseOperator as DenseOperator
    from langevin_nn.operators.base import SplitOperator as SplitOperator
    from langevin_nn.operators.base import SymmetricOperator as SymmetricOperator
    from langevin_nn.operators.density import SpectralDensity as SpectralDensity
    from langevin_nn.operators.density import estimate_trace as estimate_trace
    from langevin_nn.operators.density import spectral_density as spectral_density
    from langevin_nn.operators.lanczos import Eigenpairs as Eigenpairs
    from langevin_nn.operators.lanczos import leading_eigenpairs as leading_eigenpairs
    from langevin_nn.operators.overlap import eigenvector_overlap as eigenvector_overlap
    from langevin_nn.operators.overlap import subspace_overlap as subspace_overlap
    from langevin_nn.operators.principal import principal_directions as principal_directions
else:
    from langevin_nn.lazy import lazily

    __getattr__, __dir__, __all__ = lazily(__name__)
