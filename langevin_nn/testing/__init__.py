"""For tests of parts, yours and ours: the laws to which they are held, and trajectories of known truth for analyzers."""

from langevin_nn.testing.analyzers import check_analyzer
from langevin_nn.testing.observables import check_observable
from langevin_nn.testing.parts import check_noise, check_process, check_update
from langevin_nn.testing.synthetic import (
    four_phase_trajectory,
    score_boundaries,
    stationary_trajectory,
    two_phase_trajectory,
)

__all__ = [
    "check_analyzer",
    "check_noise",
    "check_observable",
    "check_process",
    "check_update",
    "four_phase_trajectory",
    "score_boundaries",
    "stationary_trajectory",
    "two_phase_trajectory",
]
