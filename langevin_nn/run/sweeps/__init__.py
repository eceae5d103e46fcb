"""Grids of runs: packed into batches, spread over workers, resumed, and opened as one dataset."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from langevin_nn.run.sweeps.grid import log_spaced as log_spaced
    from langevin_nn.run.sweeps.grid import log_uniform as log_uniform
    from langevin_nn.run.sweeps.grid import points_of as points_of
    from langevin_nn.run.sweeps.grid import random_points as random_points
    from langevin_nn.run.sweeps.grid import uniform as uniform
    from langevin_nn.run.sweeps.opened import open_sweep as open_sweep
    from langevin_nn.run.sweeps.opened import points_of_sweep as points_of_sweep
    from langevin_nn.run.sweeps.run import sweep as sweep
else:
    from langevin_nn.lazy import lazily

    __getattr__, __dir__, __all__ = lazily(__name__)
