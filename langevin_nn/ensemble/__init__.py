"""The gradient ensemble at one point in weight space."""

from langevin_nn.ensemble.base import GradientEnsemble
from langevin_nn.ensemble.groups import covariance_factor
from langevin_nn.ensemble.measure import gradient_ensemble, gradient_ensembles
from langevin_nn.ensemble.plane import draw_minibatch_gradients, project_gradients
from langevin_nn.ensemble.replicas import ReplicaEnsembles
from langevin_nn.ensemble.spectrum import Spectrum, effective_dimension
from langevin_nn.former import found_elsewhere

__all__ = [
    "GradientEnsemble",
    "ReplicaEnsembles",
    "Spectrum",
    "covariance_factor",
    "draw_minibatch_gradients",
    "effective_dimension",
    "gradient_ensemble",
    "gradient_ensembles",
    "project_gradients",
]

__getattr__ = found_elsewhere(
    __name__, dict.fromkeys(("curvature", "noise_curvature_overlap"), "langevin_nn.curvature")
)
