"""What every study's command does alike: exit codes, and one clear line for what went wrong."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

from langevin_nn.errors import LangevinError, UnstableTrajectory

__all__ = ["BAD_INPUT", "DIVERGED", "INTERRUPTED", "guarded"]

BAD_INPUT, DIVERGED, INTERRUPTED = 2, 3, 130


def guarded(run: Callable[[], None], out: Path) -> int:
    """Run a study and turn its errors into a line and an exit code.

    Parameters
    ----------
    run : callable
        The study.
    out : Path
        Its output folder, where what was recorded is kept.

    Returns
    -------
    int
        0; 2 for bad input; 3 for dynamics that diverged; 130 for an interrupt.
    """
    try:
        run()
    except UnstableTrajectory as error:
        print(f"error: {error}; everything recorded until then is in {out}", file=sys.stderr)
        return DIVERGED
    except LangevinError as error:
        print(f"error: {error}", file=sys.stderr)
        return BAD_INPUT
    except KeyboardInterrupt:
        print(f"interrupted; what was recorded until then is in {out}", file=sys.stderr)
        return INTERRUPTED
    return 0
