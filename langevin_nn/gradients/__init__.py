"""Gradients of a network and its data: weighted, of each sample, and their derivatives."""

from langevin_nn.gradients.problem import Problem
from langevin_nn.gradients.sample_gradients import SampleGradients

__all__ = ["Problem", "SampleGradients"]
