"""For tests of analyzers, yours and ours: trajectories of known truth, and the metric that scores what is found on them."""

from langevin_nn.testing.synthetic import (
    four_phase_trajectory,
    score_boundaries,
    stationary_trajectory,
    two_phase_trajectory,
)

__all__ = ["four_phase_trajectory", "score_boundaries", "stationary_trajectory", "two_phase_trajectory"]
