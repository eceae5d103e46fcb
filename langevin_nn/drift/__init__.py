"""Drift: the deterministic part of a process."""

from langevin_nn.drift.gradient import Drift, GradientDrift, SumDrift
from langevin_nn.drift.linear import Confinement, LinearDrift

__all__ = ["Confinement", "Drift", "GradientDrift", "LinearDrift", "SumDrift"]
