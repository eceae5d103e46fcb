"""Which implementation computes the weighted gradients of a network: the fastest that knows it, where it lies."""

from __future__ import annotations

from torch import Tensor, nn

from langevin_nn.gradients.functional import Loss
from langevin_nn.gradients.layout import ParameterLayout
from langevin_nn.gradients.perceptron import PerceptronGradient
from langevin_nn.gradients.perceptron_on_device import BatchedPerceptronGradient
from langevin_nn.gradients.problem import GradientPath
from langevin_nn.gradients.traced import TracedGradient

__all__ = ["gradient_path"]


def gradient_path(
    module: nn.Module, layout: ParameterLayout, loss: Loss, inputs: Tensor, *, is_cross_entropy: bool
) -> GradientPath:
    """Choose an implementation.

    Parameters
    ----------
    module : torch.nn.Module
        The network.
    layout : ParameterLayout
        Order of its parameters.
    loss : callable
        (outputs, labels) → one loss a sample.
    inputs : Tensor, shape (sample, ...)
        All samples, on the device of the network.
    is_cross_entropy : bool
        Whether the loss is surely the cross-entropy, whose gradients are derived by hand.

    Returns
    -------
    GradientPath
        For this network and these samples.
    """
    traced = TracedGradient(module, layout, loss)
    kernel = PerceptronGradient.of(module, inputs) if is_cross_entropy else None
    capturable = (BatchedPerceptronGradient.of(module, inputs) if is_cross_entropy else None) or traced
    if kernel is not None:
        return GradientPath(kernel.path, kernel, capturable, kernel.descend)
    # On a CPU the traced gradient is the faster of the two, and its bits are those of each replica alone.
    chosen = capturable if inputs.device.type == "cuda" else traced
    return GradientPath(chosen.path, chosen, capturable)
