"""How a process advances: update by update, in kernels, captured as a graph, in one batch with others."""

from langevin_nn.engine.choice import advance, advance_together, shares, way
from langevin_nn.engine.compiled import follow

__all__ = ["advance", "advance_together", "follow", "shares", "way"]
