"""Grids of runs: packed into batches, spread over workers, resumed, and opened as one dataset."""

from langevin_nn.sweep.grid import log_spaced, log_uniform, points_of, random_points, uniform
from langevin_nn.sweep.opened import open_sweep, points_of_sweep
from langevin_nn.sweep.run import sweep
from langevin_nn.sweep.watch import watched

__all__ = [
    "log_spaced",
    "log_uniform",
    "open_sweep",
    "points_of",
    "points_of_sweep",
    "random_points",
    "sweep",
    "uniform",
    "watched",
]
