"""Drift: the deterministic part of a process."""

from langevin_nn.drift.gradient import Drift, GradientDrift

__all__ = ["Drift", "GradientDrift"]
