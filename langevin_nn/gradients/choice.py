"""Which implementation computes the weighted gradients of a network: the fastest that knows it, where it lies."""

from __future__ import annotations

import warnings

import torch
from torch import Tensor, nn
from torch.fx.experimental.proxy_tensor import make_fx

from langevin_nn.gradients.copies import copied
from langevin_nn.gradients.functional import Loss
from langevin_nn.gradients.layout import ParameterLayout
from langevin_nn.gradients.perceptron import PerceptronGradient
from langevin_nn.gradients.perceptron_on_device import BatchedPerceptronGradient
from langevin_nn.gradients.plain import PlainGradient
from langevin_nn.gradients.problem import GradientPath
from langevin_nn.gradients.samples import Samples, leaves, taken
from langevin_nn.gradients.traced import TracedGradient

__all__ = ["gradient_path"]

_LONGEST_TRACE = 20_000  # operations, beyond which Python takes as long for each as without a trace
# Of the largest gradient, between two ways that round differently.
_ROUNDING = {torch.float64: 1e-9, torch.float32: 1e-3, torch.float16: 5e-2, torch.bfloat16: 1e-1}


def gradient_path(
    module: nn.Module,
    layout: ParameterLayout,
    loss: Loss,
    inputs: Samples,
    tried: tuple[Tensor, Samples, Tensor],
    *,
    is_cross_entropy: bool,
) -> GradientPath:
    """Choose an implementation.

    Parameters
    ----------
    module : torch.nn.Module
        The network; it is copied.
    layout : ParameterLayout
        Order of its parameters.
    loss : callable
        (outputs, labels) → one loss a sample.
    inputs : Tensor, shape (sample, ...)
        All samples, on the device of the network.
    tried : tuple of Tensor
        Weights in general position, shape (parameter,), inputs and labels of a few samples.
    is_cross_entropy : bool
        Whether the loss is surely the cross-entropy, whose gradients are derived by hand.

    Returns
    -------
    GradientPath
        For this network and these samples; by plain autograd where the network cannot be traced.
    """
    kernel = PerceptronGradient.of(module, inputs) if is_cross_entropy else None
    batched = BatchedPerceptronGradient.of(module, inputs) if is_cross_entropy else None
    if batched is None and not _can_be_traced(module, layout, loss, tried):
        plain = PlainGradient(module, layout, loss)
        return GradientPath(plain.path, plain, None)
    traced = TracedGradient(copied(module), layout, loss)
    capturable = batched or traced
    if kernel is not None:
        return GradientPath(kernel.path, kernel, capturable, kernel.descend)
    # On a CPU the traced gradient is the faster of the two, and its bits are those of each replica alone.
    chosen = capturable if leaves(inputs)[0].device.type == "cuda" else traced
    return GradientPath(chosen.path, chosen, capturable)


def _can_be_traced(
    module: nn.Module, layout: ParameterLayout, loss: Loss, tried: tuple[Tensor, Samples, Tensor]
) -> bool:
    """Return whether one graph of a network gives its gradients, and is worth it."""
    if any(isinstance(layer, nn.RNNBase) for layer in module.modules()):
        return False  # the kernels of recurrent layers are far ahead of a graph of their steps
    weights, inputs, labels = tried
    half = (len(labels) + 1) // 2
    coefficients = torch.full((1, half), 1 / half, dtype=weights.dtype, device=weights.device)
    plain = PlainGradient(module, layout, loss)
    traced = TracedGradient(copied(module), layout, loss)
    of_some = weights[None], taken(inputs, slice(0, half)), labels[None, :half], coefficients
    with warnings.catch_warnings(), torch.no_grad(), torch.random.fork_rng(devices=[]):
        warnings.simplefilter("ignore")
        try:
            graph = make_fx(lambda *given: traced.untraced(*given))(*of_some)
            # It must serve other samples and weights than those that it was made of.
            of_others = (
                0.9 * weights[None],
                taken(inputs, slice(len(labels) - half, len(labels))),
                labels[None, -half:],
                coefficients,
            )
            pairs = [(graph(*each), plain(*each, None)) for each in (of_some, of_others)]
        except Exception:  # whatever a user's code raises there, it need not where it is run as it is
            return False
    if len(graph.graph.nodes) > _LONGEST_TRACE or any(_shaped_by_values(node) for node in graph.graph.nodes):
        return False
    rounding = _ROUNDING.get(weights.dtype, 1e-3)
    finite = [(one, other) for one, other in pairs if bool(torch.isfinite(other).all())]
    return all(bool((one - other).abs().max() <= rounding * other.abs().max()) for one, other in finite)


def _shaped_by_values(node: torch.fx.Node) -> bool:
    """Return whether the shape of a result depends on values: what follows holds the shape that it had once."""
    tags = getattr(node.target, "tags", ())
    if torch.Tag.dynamic_output_shape not in tags and torch.Tag.data_dependent_output not in tags:
        return False
    if node.target is not torch.ops.aten.index.Tensor:
        return True
    where = [each.meta.get("tensor_meta") for each in node.args[1] if isinstance(each, torch.fx.Node)]  # type: ignore[union-attr]
    return any(each is None or each.dtype in (torch.bool, torch.uint8) for each in where)
