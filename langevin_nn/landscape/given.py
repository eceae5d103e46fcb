"""Whether weights that a network came with are such as its initialisation draws."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from langevin_nn.gradients.layout import ParameterLayout
from langevin_nn.landscape.initialisation import flat_parameters, redrawn

__all__ = ["loss_unlike_drawn", "weights_unlike_drawn"]

Floats = NDArray[np.float64]

# A network that was made a moment ago is hardly ever taken for a trained one: in less than one of 10⁵.
_FALSE_ALARM = 1e-9  # of one test of one tensor
_DEVIATIONS = 15.0
_DRAWN_NUMBERS = 2**19
_ENTRIES = 4_000  # of a tensor that are looked at


def weights_unlike_drawn(module: nn.Module, layout: ParameterLayout) -> str | None:
    """Say which tensor of a network is surely not one that its layers draw, and why; None where there is none."""
    looked_at: dict[str, Tensor] = {}
    for name, positions in layout.split(torch.arange(layout.n_parameters)).items():
        flat = positions.reshape(-1)
        looked_at[name] = flat[torch.linspace(0, len(flat) - 1, min(len(flat), _ENTRIES), dtype=torch.float64).long()]
    kept = torch.cat(list(looked_at.values()))
    count = int(np.clip(_DRAWN_NUMBERS // layout.n_parameters, 8, 64))
    drawn = redrawn(module, layout, count, kept).double()
    own = flat_parameters(module, layout).cpu()[kept].double()
    sizes = [len(positions) for positions in looked_at.values()]
    for name, x, y in zip(looked_at, torch.split(own, sizes), torch.split(drawn, sizes, dim=1), strict=True):
        if (reason := _difference(x.numpy(), y.numpy())) is not None:
            return f"{name!r} {reason}"
    return None


def _difference(x: Floats, y: Floats) -> str | None:
    from scipy.stats import ks_2samp  # slow to import

    fixed = (y == y[0]).all(0)
    other = np.flatnonzero(fixed & (x != y[0]))
    other = other[~np.isin(x[other], y)] if len(other) else other  # one of few values may be drawn every time by chance
    if len(other):
        return f"holds {x[other[0]]:.3g} where initialisation puts {y[0, other[0]]:.3g}"
    x, y = x[~fixed], y[:, ~fixed]
    if not x.size:
        return None
    sizes = np.abs(y)
    own, largest = float(np.abs(x).max()), sizes.max(1)
    # How far the largest ones of the draws are apart tells how the tail goes on: not at all, or slowly.
    margin = 15 * np.ptp(np.sort(largest)[-10:]) + 1e-6 * largest.max()
    if own > largest.max() + margin:
        return f"reaches {own:.3g}, and the largest of those drawn is {largest.max():.3g}"
    below = ((sizes <= own).sum() + 1) / (sizes.size + 1)
    if x.size * np.log(below) < np.log(_FALSE_ALARM) and own < largest.min() ** 2 / largest.max():
        return f"ends at {own:.3g}, and those drawn reach {largest.min():.3g}"
    # Of a continuous law no two are equal; a law of few values says nothing here.
    if _share_of_values(x) < 0.9 and min(_share_of_values(row) for row in y) > 0.99:
        return "holds numbers that are equal or zero, and those drawn differ"
    found = ks_2samp(x, y.ravel(), method="asymp")
    # Draws of one tensor may be alike, and differ from those of another by more than if each entry were drawn by itself.
    if found.pvalue < _FALSE_ALARM and found.statistic > 1.5 * max(
        ks_2samp(row, np.delete(y, k, axis=0).ravel(), method="asymp").statistic for k, row in enumerate(y)
    ):
        return f"has a standard deviation of {x.std():.3g} and another distribution than those drawn, of {y.std():.3g}"
    return None


def _share_of_values(x: Floats) -> float:
    """Return how many of the numbers differ from each other and from zero."""
    return len(np.unique(x[x != 0])) / len(x)


def loss_unlike_drawn(own: float, drawn: Floats) -> str | None:
    """Say that a loss is surely lower than those where weights were drawn; None where it is not."""
    values = np.array([own, *drawn])
    if not np.isfinite(values).all() or own >= 0.5 * drawn.min() or drawn.min() <= 0:
        return None
    logarithms = np.log(drawn)
    deviations = (logarithms.mean() - np.log(max(own, np.finfo(float).tiny))) / max(float(logarithms.std(ddof=1)), 1e-3)
    if deviations < _DEVIATIONS:
        return None
    return f"their loss is {own:.3g}, and at least {drawn.min():.3g} where weights are drawn"
