"""Refusal of networks for which "the gradient of sample k" has no meaning."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.func import functional_call
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd

from langevin_nn.errors import ConfigurationError, SampleMixingError

__all__ = ["check_sample_losses", "refuse_sample_mixing"]


def _distinct(inputs: Tensor) -> Tensor:
    """Return a few samples that differ from one another, where numbers can be changed."""
    few = inputs[torch.linspace(0, len(inputs) - 1, min(3, len(inputs))).long()]
    if not few.is_floating_point():
        return few
    kick = torch.randn(few.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    return few + 0.1 * kick.to(few.device, few.dtype)


def refuse_sample_mixing(module: torch.nn.Module, parameters: dict[str, Tensor], inputs: Tensor) -> None:
    """Raise if a sample's output depends on the other samples of its batch or on hidden randomness.

    Parameters
    ----------
    module : torch.nn.Module
        The network.
    parameters : dict of str to Tensor
        Weights in general position: at special ones a dependence may vanish.
    inputs : Tensor, shape (sample, ...)
        A few samples are passed through the network, together, alone and twice.

    Raises
    ------
    ConfigurationError
        If the network cannot take the inputs.
    SampleMixingError
        Naming the layer where its type tells, with the remedy.
    """
    for name, layer in module.named_modules():
        if isinstance(layer, _BatchNorm) and (layer.training or layer.running_mean is None):
            raise SampleMixingError(
                f"layer {name!r} ({type(layer).__name__}) normalises over the batch: sample gradients, and with them "
                "every order parameter, are undefined there; put it into evaluation mode with .eval(), or use GroupNorm "
                "or LayerNorm instead"
            )
        if isinstance(layer, _DropoutNd) and layer.training and layer.p > 0:
            raise SampleMixingError(
                f"layer {name!r} ({type(layer).__name__}, p={layer.p}) draws random numbers of its own: the gradient "
                "noise would no longer be that of the minibatches alone; put it into evaluation mode with .eval()"
            )
    few = _distinct(inputs)
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        try:
            together = functional_call(module, parameters, (few,))
        except (RuntimeError, ValueError, IndexError, TypeError) as error:
            raise ConfigurationError(
                f"the network cannot take inputs of shape (sample, {', '.join(map(str, inputs.shape[1:]))}) and type "
                f"{inputs.dtype}: {str(error).splitlines()[0]}; reshape or convert them (images to floating point)"
            ) from error
        again = functional_call(module, parameters, (few,))
        alone = torch.cat([functional_call(module, parameters, (few[k : k + 1],)) for k in range(len(few))])
    if not torch.equal(together, again):
        raise SampleMixingError(
            "the network gave two different outputs for the same inputs: expected a function of inputs and weights "
            "alone; remove the random layer or put the network into evaluation mode with .eval()"
        )
    if together.shape != alone.shape or not torch.allclose(together, alone, rtol=1e-3, atol=1e-5):
        culprit = _first_that_mixes(module, parameters, few)
        raise SampleMixingError(
            f"the output {culprit} for a sample changes with the other samples of the batch: expected an independent "
            "output for each sample, since sample gradients are undefined otherwise; use layers that normalise within "
            "a sample (GroupNorm, LayerNorm)"
        )


def _first_that_mixes(module: torch.nn.Module, parameters: dict[str, Tensor], few: Tensor) -> str:
    """Name the first layer, in the order of execution, whose outputs differ when a sample comes alone."""
    found: list[tuple[str, Tensor]] = []

    def remember(name: str, layer: torch.nn.Module) -> torch.utils.hooks.RemovableHandle:
        def hook(_: torch.nn.Module, __: object, output: object) -> None:
            if isinstance(output, Tensor):
                found.append((f"of layer {name!r} ({type(layer).__name__})", output.detach().clone()))

        return layer.register_forward_hook(hook)

    handles = [remember(name, layer) for name, layer in module.named_modules() if name]
    try:
        with torch.no_grad():
            functional_call(module, parameters, (few,))
            together = list(found)
            found.clear()
            functional_call(module, parameters, (few[:1],))
    finally:
        for handle in handles:
            handle.remove()
    for (name, output), (_, alone) in zip(together, found, strict=False):
        if len(output) != len(few) or output.shape[1:] != alone.shape[1:]:
            continue
        if not torch.allclose(output[:1], alone, rtol=1e-3, atol=1e-5):
            return name
    return "of the network"


def check_sample_losses(losses: Tensor, n_samples: int) -> None:
    """Raise unless there is one loss a sample.

    Parameters
    ----------
    losses : Tensor
        What the loss function returned.
    n_samples : int
        How many samples it was given.

    Raises
    ------
    ConfigurationError
        If the shape is not (sample,).
    """
    if tuple(losses.shape) != (n_samples,):
        raise ConfigurationError(
            f"the loss function returned shape {tuple(losses.shape)} for {n_samples} samples: expected one value a "
            f"sample, shape ({n_samples},), since the framework weighs samples itself; pass reduction='none' and sum over "
            "the outputs"
        )
