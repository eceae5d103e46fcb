"""Several processes that train one network: what each of them sees, put together."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

__all__ = ["Ranks"]

_ERROR = "_standard_error"

Arrays = Mapping[str, NDArray[np.float64]]


class Ranks:
    """The processes of ``torch.distributed``, or the one that there is.

    Attributes
    ----------
    size : int
        How many.
    rank : int
        Which one this is; the first one records.
    """

    def __init__(self) -> None:
        together = torch.distributed.is_available() and torch.distributed.is_initialized()
        self.size = torch.distributed.get_world_size() if together else 1
        self.rank = torch.distributed.get_rank() if together else 0

    def gathered(self, mine: Any) -> list[Any]:
        """Return what each process has; all of them have to ask."""
        if self.size == 1:
            return [mine]
        found: list[Any] = [None] * self.size
        torch.distributed.all_gather_object(found, mine)
        return found

    def pooled(self, mine: Arrays | None) -> dict[str, NDArray[np.float64]] | None:
        """Return the mean of estimates from samples of each process, with their errors.

        Parameters
        ----------
        mine : mapping of str to ndarray, or None
            Estimates, and their standard errors as ``…_standard_error``; None where this process has none.

        Returns
        -------
        dict of str to ndarray, or None
            NaN where no process knows one; None where none has any.
        """
        known = [each for each in self.gathered(mine) if each is not None]
        if len(known) < 2:
            return dict(known[0]) if known else None
        pooled = {}
        for name in known[0]:
            values = np.stack([each[name] for each in known])
            count = np.isfinite(values).sum(0)
            with np.errstate(invalid="ignore", divide="ignore"):
                if name == "measured_samples":
                    pooled[name] = np.nansum(values, axis=0)
                elif name.endswith(_ERROR):  # of independent samples
                    pooled[name] = np.where(count > 0, np.sqrt(np.nansum(values**2, axis=0)) / count, np.nan)
                else:
                    pooled[name] = np.where(count > 0, np.nansum(values, axis=0) / count, np.nan)
        return pooled
