"""Runs: one simulation, an experiment of several processes, a sweep over a grid, and a file's configuration run again."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from langevin_nn.run.experiment import Experiment as Experiment
    from langevin_nn.run.experiment import compare as compare
    from langevin_nn.run.repetition import rerun as rerun
    from langevin_nn.run.simulation import Simulation as Simulation
    from langevin_nn.run.simulation import simulate as simulate
    from langevin_nn.run.simulation import simulate_together as simulate_together
    from langevin_nn.run.sweeps import log_spaced as log_spaced
    from langevin_nn.run.sweeps import log_uniform as log_uniform
    from langevin_nn.run.sweeps import open_sweep as open_sweep
    from langevin_nn.run.sweeps import points_of_sweep as points_of_sweep
    from langevin_nn.run.sweeps import random_points as random_points
    from langevin_nn.run.sweeps import sweep as sweep
    from langevin_nn.run.sweeps import uniform as uniform
else:
    from langevin_nn.lazy import lazily

    __getattr__, __dir__, __all__ = lazily(__name__)
