"""Whether a run fits: what it will hold in memory and on disk, said before it starts."""

from __future__ import annotations

import shutil
from pathlib import Path

from langevin_nn.errors import ConfigurationError
from langevin_nn.memory import as_bytes, as_text, available_memory

__all__ = ["recording_limit", "refuse_unless_it_fits"]

_USUAL_LIMIT = "256 MiB"
_IN_MEMORY = 2  # buffers that grow hold a record twice
_ON_DISK = 2  # segments stay until the file that they become is there


def recording_limit(limit: int | float | str | None, record: int) -> int:
    """Return how many bytes recording may hold: what the user said, or 256 MiB, or four records where these are larger."""
    return max(as_bytes(_USUAL_LIMIT), 4 * record) if limit is None else as_bytes(limit)


def refuse_unless_it_fits(
    records: int, record: int, state: int, folder: Path | None, limit: int | float | str | None
) -> None:
    """Raise where a run cannot end for want of memory or disk.

    Parameters
    ----------
    records : int
        Bytes of all records.
    record : int
        Bytes of a moment at which everything is recorded.
    state : int
        Bytes of the weights.
    folder : Path or None
        Where segments go; None where records are held in memory.
    limit : int, float or str or None
        The most that recording holds in memory where there is a folder; see `recording_limit`.

    Raises
    ------
    ConfigurationError
        With what is needed and what there is.
    """
    limit = recording_limit(limit, record)
    memory = 3 * state + (_IN_MEMORY * records if folder is None else min(limit, 4 * records))
    free = available_memory()
    if free is not None and memory > free:
        advice = (
            "give a path, so that they go to disk" if folder is None else "lower memory_limit, or run fewer replicas"
        )
        raise ConfigurationError(
            f"the run would hold about {as_text(memory)} in memory, of which {as_text(free)} is free: its records are "
            f"{as_text(records)}, its weights {as_text(state)}; record less often, or {advice}"
        )
    if folder is None:
        return
    if 4 * record > limit:
        raise ConfigurationError(
            f"one record is {as_text(record)}, and recording may hold memory_limit={as_text(limit)}: expected room for four, "
            f"{as_text(4 * record)}, while one is measured, kept and written; raise memory_limit or run fewer replicas"
        )
    disk = _ON_DISK * records + 2 * state
    room = shutil.disk_usage(folder if folder.exists() else folder.parent).free
    if disk > room:
        raise ConfigurationError(
            f"the run would need about {as_text(disk)} of disk at {str(folder.parent)!r}, where {as_text(room)} is free: its "
            f"records are {as_text(records)}, twice while segments become one file; record less often, or choose another "
            "disk"
        )
