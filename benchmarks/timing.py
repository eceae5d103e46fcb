"""Medians of alternating runs, so that a machine whose speed drifts does not favour one side."""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import median

__all__ = ["medians", "peak", "table"]


def medians(contestants: Mapping[str, Callable[[], object]], rounds: int = 15) -> dict[str, float]:
    """Time contestants in turn and return the median seconds of each.

    Parameters
    ----------
    contestants : mapping of str to callable
        What to run; each once untimed first.
    rounds : int, optional
        Timed runs of each.

    Returns
    -------
    dict of str to float
        Seconds.
    """
    for run in contestants.values():
        run()
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    for _ in range(rounds):
        for name, run in contestants.items():
            started = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - started)
    return {name: median(values) for name, values in seconds.items()}


def table(title: str, seconds: Mapping[str, float], floor: str, unit: str = "floor") -> str:
    """Return a table of milliseconds and of ratios to the floor.

    Parameters
    ----------
    title : str
        What was timed.
    seconds : mapping of str to float
        By contestant.
    floor : str
        The contestant that stands for the physical floor, or for another unit.
    unit : str, optional
        What to call it.

    Returns
    -------
    str
        One line a contestant.
    """
    lines = [title, f"  {'':<48}{'ms':>10}{f'× {unit}':>10}"]
    lines += [f"  {name:<48}{1e3 * value:>10.3f}{value / seconds[floor]:>10.2f}" for name, value in seconds.items()]
    return "\n".join(lines)


def peak() -> float:
    """Return the peak resident memory of this process.

    Returns
    -------
    float
        MiB.
    """
    # Linux keeps in ru_maxrss what the process that started this one held then; the status file tells this one's alone.
    status = Path("/proc/self/status")
    if status.exists():
        return next(int(line.split()[1]) for line in status.read_text().splitlines() if line.startswith("VmHWM")) / 1024
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20
