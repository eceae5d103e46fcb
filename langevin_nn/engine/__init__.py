"""How a process advances: update by update, in kernels, captured as a graph, in one batch with others."""

from __future__ import annotations

import warnings
from typing import Literal

from langevin_nn.engine.choice import advance, advance_together, shares, way
from langevin_nn.engine.compiled import follow
from langevin_nn.process import Process
from langevin_nn.update import State

__all__ = ["advance", "advance_together", "follow", "shares", "way"]


def _advance(process: Process, state: State, steps: int, on_divergence: Literal["raise", "mask"] = "raise") -> State:
    """Make a block of updates: deprecated, call ``langevin_nn.advance(process, state, steps)``."""
    warnings.warn(
        "Process.advance(state, steps) is deprecated, since a process says what it is and not how it is computed: call "
        "langevin_nn.advance(process, state, steps); the next release has no method of that name",
        DeprecationWarning,
        stacklevel=2,
    )
    return advance(process, state, steps, on_divergence)


# Hung on from here, so that `process` keeps knowing nothing of what is above it.
Process.advance = _advance  # type: ignore[attr-defined]
