"""How a landscape bends at a point: its Hessian, its flatness along lines, and the noise beside it."""

from langevin_nn.curvature.flatness import flatness, loss_profile
from langevin_nn.curvature.hessian import Hessian
from langevin_nn.curvature.overlap import curvature, noise_curvature_overlap

__all__ = ["Hessian", "curvature", "flatness", "loss_profile", "noise_curvature_overlap"]
