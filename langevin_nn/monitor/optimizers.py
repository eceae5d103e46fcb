"""What an optimizer of torch's makes its steps with."""

from __future__ import annotations

from math import isfinite
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

__all__ = ["rates_of"]

_SQUARES = ("max_exp_avg_sq", "exp_avg_sq", "square_avg", "sum")  # of Adam with and without AMSGrad, RMSprop, Adagrad
_KNOWN = (torch.optim.Adam, torch.optim.AdamW, torch.optim.RMSprop, torch.optim.Adagrad)


def rates_of(optimizer: torch.optim.Optimizer) -> dict[str, NDArray[np.float64]]:
    """Return the learning rate, and what is known of the metric D by which gradients are divided.

    D is √v̂ + ε of Adam and AdamW, of RMSprop that is not centered and of Adagrad as they are before the update, v̂ corrected
    for its start at 0 where they do so. Over all weights, the geometric mean of D and the standard deviation of ln D are
    recorded: the first tells the scale of the steps, α / D, the second by how much directions are stretched.

    Parameters
    ----------
    optimizer : torch.optim.Optimizer
        Any; of several groups of parameters the first one's learning rate is taken.

    Returns
    -------
    dict of str to ndarray
        ``step_learning_rate`` and, where there is a metric, ``metric_geometric_mean`` and ``metric_deviation``.
    """
    found = {"step_learning_rate": np.array([float(optimizer.param_groups[0]["lr"])])}
    number, total, squares = 0, 0.0, 0.0
    for group in optimizer.param_groups if isinstance(optimizer, _KNOWN) else ():
        for parameter in group["params"]:
            metric = _metric(optimizer.state.get(parameter, {}), group)
            if metric is not None:
                logarithms = metric.double().log()
                number += logarithms.numel()
                total += float(logarithms.sum())
                squares += float(logarithms.square().sum())
    if number and isfinite(squares):
        mean = total / number
        found["metric_geometric_mean"] = np.array([np.exp(mean)])
        found["metric_deviation"] = np.array([max(squares / number - mean**2, 0.0) ** 0.5])
    return found


def _metric(state: dict[str, Any], group: dict[str, Any]) -> Tensor | None:
    """Return D of one parameter; None where the optimizer has none, or has made no step yet."""
    name = next((each for each in _SQUARES if isinstance(state.get(each), Tensor)), None)
    if name is None or group.get("centered") or not float(state.get("step", 1)):
        return None
    square: Tensor = state[name].detach()
    if name.endswith("exp_avg_sq") and "betas" in group:
        square = square / (1 - group["betas"][1] ** float(state["step"]))
    return square.sqrt() + float(group["eps"])
