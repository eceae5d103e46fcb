"""Landscapes: a loss over weight space, made of a network and its data or of a formula."""

import warnings
from importlib import import_module
from typing import Any

from langevin_nn.gradients.blocks import SampleGradients
from langevin_nn.landscape.base import EmpiricalLandscape, Landscape, MomentLandscape
from langevin_nn.landscape.network import NetworkLandscape, cross_entropy
from langevin_nn.landscape.potential import PotentialLandscape
from langevin_nn.landscape.quadratic import QuadraticLandscape
from langevin_nn.landscape.regression import LinearRegressionLandscape

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
]


def __getattr__(name: str) -> Any:
    if name in ("flatness", "loss_profile"):  # which lie above, and whose documented home this was
        words = f"langevin_nn.landscape.{name} is langevin_nn.curvature.{name}, and will be found there alone"
        warnings.warn(words, DeprecationWarning, stacklevel=2)
        return getattr(import_module("langevin_nn.curvature"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
