"""Refusal of networks for which "the gradient of sample k" has no meaning, and of devices that are not there."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor
from torch.func import functional_call
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd

from langevin_nn.checks import shown
from langevin_nn.errors import ConfigurationError, SampleMixingError
from langevin_nn.gradients.layout import ParameterLayout
from langevin_nn.gradients.samples import Samples, joined_samples, leaves, mapped, number_of, shapes, taken

__all__ = [
    "arrangements",
    "check_sample_losses",
    "doubled",
    "general_point",
    "in_double",
    "is_samples",
    "refuse_labels_without_loss",
    "refuse_loss_mixing",
    "refuse_sample_mixing",
    "refuse_sparse_gradients",
    "sample_losses",
    "trial_positions",
    "usable_device",
    "with_moved",
]

_TRIED = 4  # samples as they are, and as many moved a little
_TOGETHER = (5, 2)  # sizes of smaller arrangements of them
_MANY, _FEWER = 64, 16  # samples together, with repetitions; of a network of many parameters, where they take long
_LARGE = 1_000_000
_OF_A_LOSS = (RuntimeError, ValueError, IndexError, TypeError)


def usable_device(device: str | torch.device) -> torch.device:
    """Return a device on which numbers can be kept here, or raise.

    Parameters
    ----------
    device : str or torch.device
        What came.

    Returns
    -------
    torch.device
        The same.

    Raises
    ------
    ConfigurationError
        If there is no such device.
    """
    try:
        chosen = torch.device(device)
        torch.zeros(1, device=chosen).item()
    except (RuntimeError, AssertionError, NotImplementedError, TypeError) as error:
        raise ConfigurationError(
            f"device={shown(str(device))} cannot be used here ({str(error).splitlines()[0][:200]}): expected a device of "
            f"this machine, {'cpu or cuda' if torch.cuda.is_available() else 'cpu, since no GPU is available to torch'}; "
            "choose another or leave it out"
        ) from error
    return chosen


def trial_positions(n_samples: int, tried: int = _TRIED) -> Tensor:
    """Return the positions of a few samples from all over the data, in random order, the same at each call.

    Parameters
    ----------
    n_samples : int
        N.
    tried : int, optional
        How many, at most.

    Returns
    -------
    Tensor of int64, shape (trial sample,)
        On the CPU.
    """
    return torch.randperm(n_samples, generator=torch.Generator().manual_seed(1))[:tried]


def arrangements(n: int) -> list[Tensor]:
    """Return orders in which n trial samples are passed together: all of them, and fewer, each in an order of its own."""
    generator = torch.Generator().manual_seed(2)
    return [torch.randperm(n, generator=generator)[:size] for size in (n, *(each for each in _TOGETHER if each < n))]


def _repeated(n: int, size: int) -> Tensor:
    """Return positions among a few samples for a minibatch of more than there are, such as capacities show in."""
    return torch.randint(n, (size,), generator=torch.Generator().manual_seed(3))


def with_moved(inputs: Samples) -> Samples:
    """Return samples, then, where numbers can be changed, as many moved a little, so that no two are alike."""
    if not any(each.is_floating_point() for each in leaves(inputs)):
        return inputs
    generator = torch.Generator().manual_seed(1)

    def twice(each: Tensor) -> Tensor:
        if not each.is_floating_point():
            return torch.cat([each, each])
        kick = torch.randn(each.shape, generator=generator, dtype=torch.float64)
        return torch.cat([each, each + 0.1 * kick.to(each.device, each.dtype)])

    return mapped(twice, inputs)


def is_samples(outputs: Any) -> bool:
    """Return whether something is a tensor, or a tuple or dictionary of such."""
    if isinstance(outputs, Tensor):
        return True
    held = outputs.values() if type(outputs) is dict else outputs if type(outputs) is tuple else ()
    return bool(held) and all(map(is_samples, held))


def _rows(outputs: Samples) -> Tensor:
    """Return all numbers of each sample in one row; a tensor as it is."""
    if isinstance(outputs, Tensor):
        return outputs
    return torch.cat([each.reshape(len(each), -1) for each in leaves(outputs)], dim=1)


def in_double(module: torch.nn.Module, parameters: Mapping[str, Tensor]) -> tuple[torch.nn.Module, dict[str, Tensor]]:
    """Return a copy of a network and its weights in float64, where differences are told from rounding."""
    return deepcopy(module).double(), {name: tensor.double() for name, tensor in parameters.items()}


def doubled(tensor: Tensor) -> Tensor:
    """Return floating-point numbers in float64, anything else as it is."""
    return tensor.double() if tensor.is_floating_point() else tensor


def general_point(module: torch.nn.Module, layout: ParameterLayout, weights: Tensor, inputs: Samples) -> Tensor:
    """Return weights near some others at which nothing vanishes by chance, and all outputs are finite.

    Parameters
    ----------
    module : torch.nn.Module
        The network.
    layout : ParameterLayout
        Order of its parameters.
    weights : Tensor, shape (parameter,)
        Where, perhaps with entries at exactly zero.
    inputs : Tensor, shape (sample, ...)
        All samples; a few are passed through the network.

    Returns
    -------
    Tensor, shape (parameter,)
        The weights themselves where numbers beyond their neighbourhood are all that the network gives.
    """
    few = taken(inputs, trial_positions(number_of(inputs)))
    for moved in (_perturbed(weights), _perturbed(weights, relative=True)):
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            try:
                outputs = functional_call(module, layout.split(moved), (few,))
            except (RuntimeError, ValueError, IndexError, TypeError):
                return weights  # whoever needs the outputs says what is wrong
        if is_samples(outputs) and all(bool(torch.isfinite(each).all()) for each in leaves(outputs)):
            return moved
    return weights


def _perturbed(weights: Tensor, *, relative: bool = False) -> Tensor:
    """Return weights in general position, the same at each call; relative where none is to change its sign."""
    kick = torch.randn(weights.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    kick = kick.to(weights.device, weights.dtype)
    return weights + 0.1 * (weights * kick.clamp(-5, 5) if relative else kick)


def refuse_sample_mixing(module: torch.nn.Module, parameters: dict[str, Tensor], inputs: Samples) -> None:
    """Raise if a sample's output depends on the other samples of its batch or on hidden randomness.

    Parameters
    ----------
    module : torch.nn.Module
        The network.
    parameters : dict of str to Tensor
        Weights in general position: at special ones a dependence may vanish.
    inputs : Tensor, shape (sample, ...)
        A few from all over them are passed through the network, alone and together, in several random orders.

    Raises
    ------
    ConfigurationError
        If the network cannot take the inputs, or returns something else than a tensor.
    SampleMixingError
        Naming the layer where its type tells, with the remedy.
    """
    for name, layer in module.named_modules():
        if isinstance(layer, _BatchNorm) and (layer.training or layer.running_mean is None):
            raise SampleMixingError(
                f"layer {name!r} ({type(layer).__name__}) normalises over the batch: sample gradients, and with them "
                "every order parameter, are undefined there; put it into evaluation mode with .eval(), and add "
                "BatchStatistics() to the noise where updates are to use those of the minibatch, or use GroupNorm or "
                "LayerNorm instead"
            )
        if isinstance(layer, _DropoutNd) and layer.training and layer.p > 0:
            raise SampleMixingError(
                f"layer {name!r} ({type(layer).__name__}, p={layer.p}) draws random numbers of its own: the gradient "
                "noise would no longer be that of the minibatches alone; put it into evaluation mode with .eval(), and add "
                "DropoutNoise() to the noise where updates are to draw masks"
            )
    untouched = deepcopy(module)  # evaluations may leave what cannot be copied
    few = with_moved(taken(inputs, trial_positions(number_of(inputs))))
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        try:
            together = functional_call(module, parameters, (few,))
            again = functional_call(module, parameters, (few,))
        except Exception as error:  # whatever a user's code raises there
            raise ConfigurationError(
                f"the network cannot take inputs of {shapes(inputs)}: {_first_line(error)}; reshape or convert them "
                "(images to "
                "floating point); several inputs come in a tuple, in the order of the network's arguments, or by name in a "
                "dictionary"
            ) from error
        several = () if isinstance(together, Tensor) or not is_samples(together) else leaves(together)
        if not is_samples(together) or any(not each.ndim or len(each) != number_of(few) for each in several):
            raise ConfigurationError(
                f"the network returned something of type {type(together).__name__}: expected one tensor, whose first "
                "dimension are the samples, as outputs for the loss; say with output= what of it they are: a "
                "position, a name "
                "or a function"
            )
        together, again = _rows(together), _rows(again)
        if not torch.equal(together.isnan(), again.isnan()) or not torch.equal(
            together.nan_to_num(), again.nan_to_num()
        ):
            raise SampleMixingError(
                f"{_first_that_varies(module, parameters, few)} gave two different outputs for the same inputs: expected "
                "a function of inputs and weights alone; remove the random layer or put the network into evaluation mode "
                "with .eval(), and add DropoutNoise() to the noise where updates are to draw"
            )
        try:
            mixing = _mixing(*in_double(untouched, parameters), mapped(doubled, few), 1e-5, 2e-6)
        except (RuntimeError, TypeError):  # its code fixes the precision, or the device knows one only
            mixing = _mixing(module, parameters, few, 1e-3, 1e-3)
    if mixing is not None:
        culprit = _first_that_mixes(module, parameters, taken(few, mixing))
        raise SampleMixingError(
            f"the output {culprit} for a sample changes with the other samples of the batch: expected an independent "
            "output for each sample, since sample gradients are undefined otherwise; use layers that normalise within "
            "a sample (GroupNorm, LayerNorm)"
        )


def _mixing(
    module: torch.nn.Module, parameters: dict[str, Tensor], few: Samples, of_spread: float, of_largest: float
) -> Tensor | None:
    """Return the first arrangement of samples in which an output differs from that of the sample alone."""
    rows = [_rows(functional_call(module, parameters, (taken(few, slice(k, k + 1)),))) for k in range(number_of(few))]
    if any(row.shape != (1, *rows[0].shape[1:]) for row in rows):
        return arrangements(number_of(few))[0]
    alone = torch.cat(rows)
    # A trial that leaves the network's domain says nothing.
    usable = torch.isfinite(alone.reshape(len(alone), -1)).all(1).nonzero()[:, 0].cpu()
    if not len(usable):
        return None
    alone = alone[usable].reshape(len(usable), -1).to(torch.promote_types(alone.dtype, torch.float32))
    allowed = of_spread * (alone - alone.mean(0)).abs().max() + of_largest * alone.abs().max()
    many = _MANY if sum(each.numel() for each in parameters.values()) <= _LARGE else _FEWER
    for order in (*arrangements(len(usable)), _repeated(len(usable), many)):
        try:
            together = _rows(functional_call(module, parameters, (taken(few, usable[order]),)))
        except (RuntimeError, ValueError, IndexError):
            if len(order) == many:  # more than it takes, or than there is memory for
                return None
            raise
        if len(together) != len(order) or together.shape[1:] != rows[0].shape[1:]:
            return usable[order]
        if not bool(((together.reshape(len(order), -1) - alone[order]).abs() <= allowed).all()):
            return usable[order]
    return None


def _layer_outputs(
    module: torch.nn.Module, parameters: dict[str, Tensor], *passes: Samples
) -> list[list[tuple[str, Tensor]]]:
    """Return what each layer gives in some passes, with its name, in the order of execution."""
    found: list[list[tuple[str, Tensor]]] = []

    def remember(name: str, layer: torch.nn.Module) -> torch.utils.hooks.RemovableHandle:
        def hook(_: torch.nn.Module, __: object, output: object) -> None:
            first = (
                output[0] if isinstance(output, tuple) and output else output
            )  # recurrent layers return their state, too
            if isinstance(first, Tensor):
                found[-1].append((f"layer {name!r} ({type(layer).__name__})", first.detach().clone()))

        return layer.register_forward_hook(hook)

    handles = [remember(name, layer) for name, layer in module.named_modules() if name]
    try:
        with torch.no_grad():
            for each in passes:
                found.append([])
                functional_call(module, parameters, (each,))
    finally:
        for handle in handles:
            handle.remove()
    return found


def _first_that_mixes(module: torch.nn.Module, parameters: dict[str, Tensor], few: Samples) -> str:
    """Name the first layer, in the order of execution, whose outputs differ when a sample comes alone."""
    both = _layer_outputs(module, parameters, few, taken(few, slice(0, 1)))
    for (name, output), (_, alone) in zip(*both, strict=False):
        if not output.ndim or not alone.ndim or len(output) != number_of(few) or output.shape[1:] != alone.shape[1:]:
            continue
        if not torch.allclose(output[:1], alone, rtol=1e-3, atol=1e-5):
            return f"of {name}"
    return "of the network"


def _first_that_varies(module: torch.nn.Module, parameters: dict[str, Tensor], few: Samples) -> str:
    """Name the first layer, in the order of execution, whose outputs differ from pass to pass."""
    for (name, one), (_, other) in zip(*_layer_outputs(module, parameters, few, few), strict=False):
        if one.shape != other.shape or not torch.equal(one.nan_to_num(), other.nan_to_num()):
            return str(name)
    return "the network"


def refuse_loss_mixing(loss: Callable[[Tensor, Tensor], Tensor], outputs: Samples, labels: Tensor) -> str | None:
    """Raise if the loss of a sample depends on the outputs or labels of the others, as one that broadcasts does.

    Parameters
    ----------
    loss : callable
        (outputs, labels) → one loss a sample.
    outputs : Tensor, shape (sample, ...)
        Of a few samples.
    labels : Tensor, shape (sample, ...)
        Their labels.

    Returns
    -------
    str or None
        What the loss raises where a sample comes alone.

    Raises
    ------
    SampleMixingError
        Naming the shapes and the remedy.
    """
    pairs = [(taken(outputs, slice(k, k + 1)), labels[k : k + 1]) for k in range(len(labels))]
    said = alone = None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            alone = torch.stack([loss(*pair).reshape(()) for pair in pairs])
        except (RuntimeError, ValueError, IndexError) as error:
            said = str(error).splitlines()[0]
    if alone is None or not bool(torch.isfinite(alone).all()):
        # A squeeze() that knows no minibatch of one, or a deviation among one: each comes twice.
        alone = torch.stack([loss(*(joined_samples([each, each]) for each in pair))[0] for pair in pairs])
    usable = torch.isfinite(alone).nonzero()[:, 0]
    if not len(usable):
        return said
    rounding = max(1e-6, torch.finfo(alone.dtype).eps)
    largest = max(float(each[usable.to(each.device)].abs().max()) for each in leaves(outputs) if each.numel())
    allowed = rounding * (20 * alone[usable].abs().max() + largest)
    for order in (usable[each] for each in (*arrangements(len(usable)), _repeated(len(usable), _MANY))):
        if not bool(((loss(taken(outputs, order), labels[order]) - alone[order]).abs() <= allowed).all()):
            n, remedy = len(labels), "take no mean, sum or extremum over the first dimension, that of the samples"
            if isinstance(outputs, Tensor) and {outputs.shape[1:], labels.shape[1:]} == {(), (1,)}:
                remedy = (
                    f"if one is taken from the other they broadcast to ({n}, {n}): give both the same shape, with "
                    f"outputs.squeeze(-1) or labels[:, None]; else {remedy}"
                )
            raise SampleMixingError(
                "the loss of a sample changes with the other samples of its minibatch: outputs have shape "
                f"{_shape(outputs)}, labels {tuple(labels.shape)}; expected the loss of each sample to depend on its "
                f"own output and label alone, since sample gradients are undefined otherwise; {remedy}"
            )
    return said


def sample_losses(loss: Callable[[Tensor, Tensor], Tensor], outputs: Samples, labels: Tensor) -> Tensor:
    """Return the losses of a few samples, or say why there are none.

    Parameters
    ----------
    loss : callable
        (outputs, labels) → one loss a sample.
    outputs : Tensor, shape (sample, ...)
        Of a few samples.
    labels : Tensor, shape (sample, ...)
        Their labels.

    Returns
    -------
    Tensor
        What the loss returned.

    Raises
    ------
    ConfigurationError
        If it fails, saying whether it takes its arguments the other way round.
    """
    try:
        return loss(outputs, labels)
    except _OF_A_LOSS as error:
        given = (
            f"outputs of shape {_shape(outputs)} ({leaves(outputs)[0].dtype}) and labels of shape {tuple(labels.shape)} "
            f"({labels.dtype})"
        )
        if _works(loss, labels, outputs):
            raise ConfigurationError(
                f"the loss fails on {given} and takes them the other way round: expected loss(outputs, labels), one loss a "
                "sample; swap its arguments"
            ) from error
        if not isinstance(outputs, Tensor):
            given += ", several as the network returns them (output= picks one)"
        raise ConfigurationError(
            f"the loss fails on {given} ({type(error).__name__}: {_first_line(error)}): expected loss(outputs, labels), "
            "which returns one loss a sample; see that it takes the outputs first, and what shape and type of labels it takes"
        ) from error


def refuse_labels_without_loss(
    loss: Callable[[Tensor, Tensor], Tensor], output: Samples, name: str, labels: Tensor
) -> None:
    """Raise where a loss takes some classes and fails on the smallest or the largest of them.

    Parameters
    ----------
    loss : callable
        (outputs, labels) → one loss a sample.
    output : Tensor, shape (1, ...)
        Of any sample.
    name : str
        Of the labels.
    labels : Tensor, shape (sample, ...)
        All that are to be used; only whole numbers, one a sample, are classes.

    Raises
    ------
    ConfigurationError
        With the class.
    """
    if labels.is_floating_point() or not len(labels) or labels[0].numel() != 1:
        return
    classes = torch.unique(labels)
    usual = classes[len(classes) // 2]
    twice = joined_samples([output, output])  # a squeeze() may know no minibatch of one
    for value in (classes[0], classes[-1]):
        first, ordinary = (each.expand(2, *labels.shape[1:]) for each in (value, usual))
        if value != usual and _works(loss, twice, ordinary) and not _works(loss, twice, first):
            where = (labels.flatten() == value).nonzero()[:, 0]
            raise ConfigurationError(
                f"{name} hold {int(value)} in {len(where)} samples, the first is sample {int(where[0])}, on which the loss "
                "fails: expected classes that it takes, 0 to M − 1 for cross-entropies, since each sample has a loss; "
                "number the classes so, or leave those samples out"
            )


def _works(loss: Callable[[Tensor, Tensor], Tensor], first: Tensor, second: Tensor) -> bool:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            loss(first, second)
        except _OF_A_LOSS:
            return False
    return True


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [""])[0]


def refuse_altered_embeddings(module: torch.nn.Module) -> None:
    """Raise where an embedding depends on the other samples, or moves weights when it is evaluated.

    Parameters
    ----------
    module : torch.nn.Module
        The network.

    Raises
    ------
    SampleMixingError
        If the gradients of its words depend on how often they come in a minibatch.
    ConfigurationError
        If it shortens its rows in the forward pass.
    """
    for name, layer in module.named_modules():
        if not isinstance(layer, torch.nn.Embedding | torch.nn.EmbeddingBag):
            continue
        of_layer = f"layer {name!r} ({type(layer).__name__})"
        if layer.scale_grad_by_freq:
            raise SampleMixingError(
                f"{of_layer} divides gradients by how often a word comes in the minibatch (scale_grad_by_freq=True), so that "
                "the gradient of a minibatch is no mean over its samples: expected a layer that treats samples apart; make "
                "it with scale_grad_by_freq=False"
            )
        if layer.max_norm is not None:
            raise ConfigurationError(
                f"{of_layer} shortens rows of its weight whenever it is evaluated (max_norm={layer.max_norm:g}), so that "
                "weights move without an update: expected a forward pass that leaves them; make it with max_norm=None, and "
                "normalise what it returns, if need be"
            )


def refuse_sparse_gradients(parameters: Mapping[str, Tensor], losses: Callable[[Mapping[str, Tensor]], Tensor]) -> None:
    """Raise where the gradient of a tensor is sparse, which no sum over parameters takes, or there is none.

    Parameters
    ----------
    parameters : mapping of str to Tensor
        Weights, by name.
    losses : callable
        From weights to the losses of a few samples.

    Raises
    ------
    ConfigurationError
        With the tensors; or if losses have no gradient.
    """
    tracked = {name: each.detach().requires_grad_() for name, each in parameters.items()}
    try:
        with torch.enable_grad():
            values = losses(tracked)
            if not values.requires_grad:
                raise ConfigurationError(
                    "the losses do not depend on any weight, as far as torch can see: expected a loss with a gradient, since "
                    "training follows it; leave out detach(), item(), torch.no_grad() and conversions to NumPy"
                )
            found = torch.autograd.grad(values.sum(), list(tracked.values()), allow_unused=True)
    except (RuntimeError, NotImplementedError):  # whoever needs a gradient says what is wrong
        return
    sparse = [
        name for name, each in zip(tracked, found, strict=True) if each is not None and each.layout != torch.strided
    ]
    if sparse:
        raise ConfigurationError(
            f"the gradients of {', '.join(sparse)} are sparse tensors: expected dense ones, since noise and weights are "
            "dense vectors over all parameters; make the layer with sparse=False, which computes the same"
        )


def refuse_undefined_losses(*tried: Tensor) -> None:
    """Raise where no loss is a number, at whatever weights it was tried.

    Parameters
    ----------
    *tried : Tensor, shape (sample,)
        Losses at several weights.

    Raises
    ------
    ConfigurationError
        If all of them are NaN.
    """
    if all(bool(torch.isnan(losses).all()) for losses in tried):
        raise ConfigurationError(
            "the losses of all samples that were tried are NaN, at the network's weights and near them: expected numbers, "
            "since every gradient would be NaN; look at what the loss divides by or takes the logarithm of"
        )


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


def _shape(outputs: Samples) -> str:
    return ", ".join(str(tuple(each.shape)) for each in leaves(outputs))
