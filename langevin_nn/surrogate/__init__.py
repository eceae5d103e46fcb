"""From a network at a point to a landscape of few dimensions that runs in Numba, and how good it is."""

from langevin_nn.surrogate.fit import fit_surrogate
from langevin_nn.surrogate.landscape import SurrogateLandscape
from langevin_nn.surrogate.moments import Moments
from langevin_nn.surrogate.surrogate import Surrogate

__all__ = ["Moments", "Surrogate", "SurrogateLandscape", "fit_surrogate"]
