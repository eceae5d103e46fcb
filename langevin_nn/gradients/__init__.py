"""Gradients of a network and its data: weighted, of each sample, and their derivatives."""

from langevin_nn.gradients.blocks import SampleGradients
from langevin_nn.gradients.problem import Problem

__all__ = ["Problem", "SampleGradients"]
