"""Landscapes: a loss over weight space, made of a network and its data or of a formula."""

from langevin_nn.former import found_elsewhere
from langevin_nn.gradients.sample_gradients import SampleGradients
from langevin_nn.landscape.base import EmpiricalLandscape, Landscape, MomentLandscape
from langevin_nn.landscape.network import NetworkLandscape, cross_entropy
from langevin_nn.landscape.potential import PotentialLandscape
from langevin_nn.landscape.quadratic import QuadraticLandscape
from langevin_nn.landscape.regression import LinearRegressionLandscape
from langevin_nn.landscape.weights import read_checkpoint

__all__ = [
    "EmpiricalLandscape",
    "Landscape",
    "LinearRegressionLandscape",
    "MomentLandscape",
    "NetworkLandscape",
    "PotentialLandscape",
    "QuadraticLandscape",
    "SampleGradients",
    "cross_entropy",
    "read_checkpoint",
]

__getattr__ = found_elsewhere(__name__, dict.fromkeys(("Hessian", "flatness", "loss_profile"), "langevin_nn.curvature"))
