"""Gradients of a network and its data: weighted, of each sample, and their derivatives."""

from langevin_nn.gradients.blocks import SampleGradients

__all__ = ["SampleGradients"]
