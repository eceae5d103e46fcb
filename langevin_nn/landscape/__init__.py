"""Landscapes: a loss over weight space, made of a network and its data or of a formula."""

from langevin_nn.gradients import SampleGradients
from langevin_nn.landscape.base import EmpiricalLandscape, Landscape, MomentLandscape
from langevin_nn.landscape.flatness import flatness, loss_profile
from langevin_nn.landscape.hessian import Hessian
from langevin_nn.landscape.network import NetworkLandscape, cross_entropy
from langevin_nn.landscape.potential import PotentialLandscape
from langevin_nn.landscape.quadratic import QuadraticLandscape
from langevin_nn.landscape.regression import LinearRegressionLandscape

__all__ = [
    "EmpiricalLandscape",
    "Hessian",
    "Landscape",
    "LinearRegressionLandscape",
    "MomentLandscape",
    "NetworkLandscape",
    "PotentialLandscape",
    "QuadraticLandscape",
    "SampleGradients",
    "cross_entropy",
    "flatness",
    "loss_profile",
]
