"""Budgets of memory: how much a computation may hold at a time."""

from __future__ import annotations

import re
from math import floor, log2
from numbers import Real
from pathlib import Path
from typing import TYPE_CHECKING

from langevin_nn.checks import is_number, shown
from langevin_nn.errors import ConfigurationError

if TYPE_CHECKING:
    import torch

__all__ = ["DEFAULT_MEMORY_LIMIT", "as_bytes", "as_text", "available_memory", "budget"]

DEFAULT_MEMORY_LIMIT = "1 GiB"

_UNITS = {"": 1, "B": 1, "kB": 10**3, "MB": 10**6, "GB": 10**9, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40}
_SMALLEST = 2**20
_LEAST_BUDGET = 2**28


def as_bytes(limit: int | float | str | None) -> int:
    """Return a budget in bytes.

    Parameters
    ----------
    limit : int, float or str or None
        Bytes, or a number with a unit: ``"512 MiB"``, ``"2 GB"``; 1 GiB where it is None.

    Returns
    -------
    int
        Bytes.

    Raises
    ------
    ConfigurationError
        If it is not a size, or less than 1 MiB.

    Examples
    --------
    >>> as_bytes("2 GiB"), as_bytes(2**20), as_bytes("1.5 MB")
    (2147483648, 1048576, 1500000)
    """
    size: int | None = None
    asked = DEFAULT_MEMORY_LIMIT if limit is None else limit
    match = re.fullmatch(r"\s*([0-9.]+(?:e[0-9]+)?)\s*([A-Za-z]*)\s*", asked) if isinstance(asked, str) else None
    try:
        if is_number(asked, Real) and float(asked) >= 0:
            size = int(float(asked))
        elif match:
            size = int(float(match[1]) * _UNITS[match[2]])
    except (KeyError, ValueError, OverflowError):
        pass
    came = f"memory_limit={shown(limit)}"
    if size is None:
        raise ConfigurationError(
            f"{came}: expected bytes, or a number with one of the units {', '.join(filter(None, _UNITS))}, "
            'such as "512 MiB"'
        )
    if size < _SMALLEST:
        raise ConfigurationError(
            f"{came} is {size} bytes: expected at least 1 MiB, in which a few samples can be worked through"
        )
    return size


def budget(limit: int | float | str | None, device: torch.device | None = None) -> int:
    """Return a budget for work that is cut to what there is room for.

    Parameters
    ----------
    limit : int, float or str or None
        As for `as_bytes`; about half of the free memory where it is None.
    device : torch.device, optional
        Whose memory; that of the machine unless it is a CUDA device.

    Returns
    -------
    int
        Bytes; unless said a power of two, so that little else that goes on does not change how work is cut.

    Raises
    ------
    ConfigurationError
        If it is not a size, or less than 1 MiB.
    """
    if limit is not None:
        return as_bytes(limit)
    if device is not None and device.type == "cuda":
        import torch

        free: int | None = torch.cuda.mem_get_info(device)[0]
    else:
        free = available_memory()
    return as_bytes(None) if free is None else max(_LEAST_BUDGET, 2 ** floor(log2(max(1, free // 2))))


def as_text(n_bytes: float) -> str:
    """Return a size of memory as people write it.

    Parameters
    ----------
    n_bytes : float
        Bytes.

    Returns
    -------
    str
        Three digits in the largest fitting unit.

    Examples
    --------
    >>> as_text(2**30), as_text(1.37 * 2**20), as_text(-1)
    ('1 GiB', '1.37 MiB', '0 MiB')
    """
    n_bytes = max(0.0, n_bytes)
    unit, size = next((pair for pair in (("TiB", 2**40), ("GiB", 2**30)) if n_bytes >= pair[1]), ("MiB", 2**20))
    return f"{n_bytes / size:.3g} {unit}" if n_bytes < 999.5 * size else f"{n_bytes / size:.0f} {unit}"


_CONTROL_GROUP = Path("/sys/fs/cgroup")


def available_memory() -> int | None:
    """Return how much memory this process may still take.

    Returns
    -------
    int or None
        Bytes, the least of what the machine and the process's control group have left; None where neither says.
    """
    found = []
    try:
        match = re.search(r"^MemAvailable:\s+([0-9]+) kB", Path("/proc/meminfo").read_text(), re.MULTILINE)
        if match:
            found.append(int(match[1]) * 1024)
    except OSError:
        pass
    try:
        limit, used = ((_CONTROL_GROUP / name).read_text().strip() for name in ("memory.max", "memory.current"))
        if limit != "max":
            # What the kernel keeps of files counts as used, and is given back when it is needed.
            statistics = (_CONTROL_GROUP / "memory.stat").read_text()
            cached = sum(int(each) for each in re.findall(r"^(?:in)?active_file ([0-9]+)$", statistics, re.MULTILINE))
            found.append(int(limit) - int(used) + cached)
    except (OSError, ValueError):
        pass
    return min(found, default=None)
