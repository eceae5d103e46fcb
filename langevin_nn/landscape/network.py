"""Any `torch.nn.Module` with its data and loss as a landscape."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from copy import copy, deepcopy
from dataclasses import replace
from functools import cached_property
from math import prod
from typing import Any, Literal
from weakref import WeakValueDictionary

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call

from langevin_nn.checks import kind_of, one_of
from langevin_nn.errors import AllMislabeledWarning, ConfigurationError, OwnWeightsWarning, UnknownNameError
from langevin_nn.gradients.choice import gradient_path
from langevin_nn.gradients.copies import copied
from langevin_nn.gradients.derivative import GradientDerivative
from langevin_nn.gradients.forward import ForwardChange, ForwardGradient
from langevin_nn.gradients.functional import Loss, evaluate, outputs_of, weighted_loss
from langevin_nn.gradients.layout import ParameterLayout
from langevin_nn.gradients.problem import GradientPath, Kept, Problem, identity_of
from langevin_nn.gradients.refusal import (
    check_sample_losses,
    general_point,
    refuse_altered_embeddings,
    refuse_labels_without_loss,
    refuse_loss_mixing,
    refuse_sample_mixing,
    refuse_sparse_gradients,
    refuse_undefined_losses,
    sample_losses,
    trial_positions,
    usable_device,
)
from langevin_nn.gradients.sample_gradients import SampleGradients
from langevin_nn.gradients.samples import Samples, leaves, mapped, number_of, taken
from langevin_nn.gradients.signals import SampleGradientSource
from langevin_nn.gradients.streamed import Footprint, within_memory
from langevin_nn.gradients.verification import overwrites_its_inputs, verified_layers
from langevin_nn.landscape.adapted import OutputRule, Picked, Spread, output_rule
from langevin_nn.landscape.base import EmpiricalLandscape
from langevin_nn.landscape.classes import ERRORS, class_rule, errors_of, rule_of_positions
from langevin_nn.landscape.data import as_samples, is_dataset, read_dataset
from langevin_nn.landscape.forward import ForwardPass
from langevin_nn.landscape.given import loss_unlike_drawn, weights_unlike_drawn
from langevin_nn.landscape.initialisation import draw_weights, flat_parameters, redrawn, without_frozen
from langevin_nn.landscape.user_code import digests_of_user_code
from langevin_nn.landscape.weights import without_prefix
from langevin_nn.memory import as_bytes
from langevin_nn.provenance import digest, plain
from langevin_nn.readable import counted, precision
from langevin_nn.seeds import Seeds
from langevin_nn.threads import single_threaded_products

__all__ = ["COHORT_MASKS", "NetworkLandscape", "cross_entropy"]

COHORT_MASKS = ("mislabeled", "relabeled")
_OWNED: WeakValueDictionary[str, Tensor] = WeakValueDictionary()
# Of a larger network the weights tell; losses of a few samples are compared where there are few weights.
_FEW_PARAMETERS, _FEW_SAMPLES, _FEW_DRAWS = 50_000, 64, 8
_LOOKED_AT = 4096  # samples at a time


def cross_entropy(outputs: Tensor, labels: Tensor) -> Tensor:
    """Return the cross-entropy of each sample.

    Parameters
    ----------
    outputs : Tensor, shape (sample, class)
        Logits.
    labels : Tensor of int64, shape (sample,)
        Classes.

    Returns
    -------
    Tensor, shape (sample,)
        −ln softmax(outputs)[label], in nats.

    Examples
    --------
    >>> cross_entropy(torch.zeros(1, 2), torch.tensor([1]))
    tensor([0.6931])
    """
    return nn.functional.cross_entropy(outputs, labels, reduction="none")


class NetworkLandscape(EmpiricalLandscape):
    """The training loss of a network as a function of its weights.

    Replicas start from weights drawn anew, each its own, unless the given module came with others than its initialisation
    draws; see `start`. What is trained are the parameters with ``requires_grad``, and weight space is theirs alone, in the
    order of ``module.named_parameters()``; those that are frozen stay as they are.

    Parameters
    ----------
    module : torch.nn.Module or callable
        The network, or a function without arguments that makes one (needed where layers without ``reset_parameters``
        own parameters, so that each replica can draw its own initial weights). It is copied, never changed.
    inputs : array, tuple or mapping of arrays, Dataset or DataLoader, shapes (sample, ...)
        Training inputs: what the network takes, several in the order of its arguments or by name. A dataset has the labels,
        too, and is read once, in its own order; see `labels`.
    labels : array, shape (sample, ...) or (replica, sample)
        Given labels, classes as integers or whatever `loss` takes; classes may differ between replicas. Of a dataset, the
        last of what a sample is made of, or what is called labels, label, targets, target or y.
    loss : callable, optional
        (outputs, labels) → one loss a sample, shape (sample,); the cross-entropy unless said.
    output : int, str or callable, optional
        What of the network's return value are the outputs for the loss, by position, by name, or a function of it, which may
        return several; the value itself unless said, or its ``logits`` where it has such.
    error : {"class", "sign", "positions", "threshold", "none"} or callable, optional
        What the error of a sample is: whether the largest output says another class than its label, or the sign of
        one output; the share of positions (tokens, pixels) at which the largest output does, those with negative
        labels apart; the share of outputs that lie on the other side of 0 than their labels of ½; none; or (outputs,
        labels) → numbers from 0 to 1, shape (sample,). Unless said, one of the first three where labels and loss show that it
        is meant, else none.
    true_labels : array, optional
        Labels before any label noise, in the shape of `labels`; without them no sample counts as mislabeled.
    relabeled : array of bool, optional
        Samples whose label was redrawn, whether or not it changed.
    test_inputs, test_labels : array, optional
        Data for the test loss and error; never corrupted.
    parameters : str or iterable of str, optional
        Patterns of tensor names (``"2.weight"``, ``"*.weight"``) to which *measurements* are restricted.
    device : str or torch.device, optional
        Where to compute; the module's own device unless said.
    cohort_mask : {"mislabeled", "relabeled"}, optional
        Which samples make the cohort `mislabeled` of every measurement: those whose given label is wrong, or all whose
        label was redrawn, as the paper has it.
    start : {"own", "drawn"}, optional
        Where replicas start: all at the weights that the module came with, `own_weights`, or each at weights of its own,
        which the layers draw in ``reset_parameters`` or the function that makes the network. Unless said, drawn, but for a
        module whose weights are surely none that were just drawn, such as one that was trained or initialised by hand, or
        whose layers cannot draw them: replicas start from these, with an `OwnWeightsWarning`.
    memory_limit : int, float or str, optional
        The most that a pass over all samples may take beside the data, in bytes or as ``"512 MiB"``, 1 GiB unless
        said: it goes in pieces where it would take more. What is read from a dataset and takes more is kept in a
        temporary file.

    Raises
    ------
    ConfigurationError
        If shapes do not fit together, the loss is not one value a sample, inputs are not finite, there is no such device
        or all parameters are frozen.
    UnknownNameError
        If there is no such cohort mask or start.
    SampleMixingError
        If the network or the loss mixes the samples of a batch, or a layer draws random numbers.

    Warns
    -----
    AllMislabeledWarning
        If no sample of a replica has its true class.
    RandomDataWarning
        If a dataset gives other samples when it is read once more.

    Examples
    --------
    >>> landscape = NetworkLandscape(nn.Linear(2, 3), torch.zeros(5, 2), torch.tensor([0, 1, 2, 0, 1]))
    >>> landscape
    NetworkLandscape(Linear, 9 parameters, 5 samples of 2 → 3 classes, float32)
    >>> weights = landscape.initial_weights((0, 1), Seeds(0))
    >>> weights.shape
    torch.Size([2, 9])
    >>> bool((landscape.gradient(weights)[:, :6] == 0).all())  # the inputs are zero
    True
    """

    _recomputes_statistics = False

    def __init__(
        self,
        module: nn.Module | Callable[[], nn.Module],
        inputs: Any,
        labels: Any = None,
        *,
        loss: Loss | None = None,
        output: OutputRule = None,
        error: Literal["class", "sign", "positions", "threshold", "none"] | Callable[..., Tensor] | None = None,
        true_labels: Any = None,
        relabeled: Any = None,
        test_inputs: Any = None,
        test_labels: Any = None,
        parameters: str | Iterable[str] = "*",
        device: str | torch.device | None = None,
        cohort_mask: Literal["mislabeled", "relabeled"] = "mislabeled",
        start: Literal["own", "drawn"] | None = None,
        memory_limit: int | float | str | None = None,
    ) -> None:
        if not callable(module):  # modules are callable too
            raise ConfigurationError(
                f"module is of type {type(module).__name__}: expected a torch.nn.Module, or a function without arguments "
                "that makes one; pass the network itself"
            )
        if cohort_mask not in COHORT_MASKS:
            raise UnknownNameError("cohort mask", cohort_mask, COHORT_MASKS)
        self.cohort_mask = cohort_mask
        if start is not None:
            one_of("start", start, ("own", "drawn"))
        self._start = start
        self._make = None if isinstance(module, nn.Module) else module
        try:
            made = module if isinstance(module, nn.Module) else _seeded(module)
        except TypeError as failure:
            if "argument" not in str(failure):
                raise
            raise ConfigurationError(
                f"the function that makes the network cannot be called without arguments ({failure}): expected "
                "one that returns a torch.nn.Module, such as a class of networks; a function of inputs is no network: put "
                "it into the forward of a module that has parameters"
            ) from failure
        if not isinstance(made, nn.Module):
            raise ConfigurationError(
                f"the function that makes the network returned something of type {type(made).__name__}: expected a "
                "torch.nn.Module; return the network"
            )
        if next(made.parameters(), None) is None:
            raise ConfigurationError("the network has no parameters: expected at least one weight to train")
        self._module, self._frozen = without_frozen(copied(made))
        self._module.requires_grad_(False)
        self._layout = ParameterLayout.of(self._module)
        first = next(self._module.parameters(), None)
        if first is None:
            raise ConfigurationError(
                "all parameters are frozen (requires_grad=False): expected at least one to train, since frozen ones stay as "
                "they are; call .requires_grad_(True) on what is to be trained"
            )
        self.device = usable_device(device) if device is not None else first.device
        self.dtype = first.dtype
        self._module.to(self.device)
        self.n_parameters = self._layout.n_parameters
        self.measured_parameters = self._layout.matching(parameters)
        self.measures_everything = len(self.measured_parameters) == len(self._layout.shapes)

        self._memory_limit = as_bytes(memory_limit)
        inputs, labels = self._read(inputs, labels, "inputs", "labels")
        self.inputs = self._as_inputs(inputs, "inputs")
        self.n_samples = number_of(self.inputs)
        if self.n_samples == 0:
            raise ConfigurationError("there are no training inputs: expected at least one sample")
        self._adapt(output)
        self._loss = loss or cross_entropy
        self.labels = self._as_labels(labels, "labels", self.n_samples, loss is None)
        self.true_labels = self.labels
        if true_labels is not None:
            self.true_labels = self._as_labels(true_labels, "true_labels", self.n_samples, loss is None)
        if self.true_labels.shape != self.labels.shape:
            raise ConfigurationError(
                f"true_labels have shape {tuple(self.true_labels.shape)}: expected that of the labels, "
                f"{tuple(self.labels.shape)}, since they say which of them are wrong"
            )
        self.relabeled = self.mislabeled
        if relabeled is not None:
            flags = torch.as_tensor(np.asarray(relabeled), dtype=torch.bool, device=self.device)
            self.relabeled = flags[None] if flags.ndim == 1 else flags
            of_each = self.relabeled.shape[1:] == self.mislabeled.shape[1:]
            if not of_each or len(self.relabeled) not in (1, len(self.labels)):
                raise ConfigurationError(
                    f"relabeled has shape {tuple(flags.shape)}: expected one flag a label, {tuple(self.mislabeled.shape)}"
                )
        if is_dataset(test_inputs):
            test_inputs, test_labels = self._read(test_inputs, test_labels, "test_inputs", "test_labels")
        if (test_inputs is None) != (test_labels is None):
            raise ConfigurationError("test_inputs and test_labels come together: expected both or neither")
        self.test_inputs = self.test_labels = None
        if test_inputs is not None:
            self.test_inputs = self._as_inputs(test_inputs, "test_inputs")
            given = self._as_labels(test_labels, "test_labels", number_of(self.test_inputs), loss is None)
            if len(given) > 1:
                raise ConfigurationError("test_labels differ between replicas: expected one label a test input")
            self.test_labels = given[0]
        if error is not None and not callable(error):
            one_of("error", error, ERRORS)
        with single_threaded_products():
            self._check(error)
        self._footprints = Kept()
        self._layers: tuple[dict[str, nn.Module], frozenset[str]] | None = None

    def _said(self) -> Iterator[str]:
        yield type(self._module).__name__
        yield from counted(self, n_parameters="parameter")
        shapes = [each.shape[1:] for each in leaves(self.inputs)]
        size = " + ".join(" × ".join(map(str, each)) or "1" for each in shapes)
        outputs = " × ".join(map(str, self._output_shape)) or "1"
        kinds = " classes" if self.is_classifier else ""
        outputs = "2" if self._error == "sign" else outputs
        yield f"{next(counted(self, n_samples='sample'))} of {size} → {outputs}{kinds}"
        if share := float(self.cohort.double().mean()):
            yield f"{100 * share:.3g} % {self.cohort_mask}"
        if len(self.labels) > 1:
            yield f"labels of {len(self.labels):,} replicas"
        if self.test_inputs is not None:
            yield f"{number_of(self.test_inputs):,} test samples"
        if not self.measures_everything:
            yield f"measured in {len(self.measured_parameters)} of {len(self._layout.shapes)} tensors"
        if self._start is not None:
            yield f"start={self._start!r}"
        yield from precision(self)

    def _read(self, inputs: Any, labels: Any, name: str, of_labels: str) -> tuple[Any, Any]:
        """Return inputs and labels, read from a dataset where they come as one."""
        if not is_dataset(inputs):
            if labels is None:
                raise ConfigurationError(
                    f"{of_labels} are missing: expected one for each of the {name}, since the loss compares outputs "
                    "with them; pass "
                    "them, or a Dataset or DataLoader that has both (the inputs themselves, where these are to be predicted)"
                )
            return inputs, labels
        read, found = read_dataset(inputs, name, self._memory_limit)
        return read, found if labels is None else labels

    def _adapt(self, output: OutputRule) -> None:
        """Make the network a function from samples to outputs."""
        if not isinstance(self.inputs, Tensor):
            self._module.register_forward_pre_hook(Spread(), with_kwargs=True)
        returned = None
        with torch.no_grad(), torch.random.fork_rng(devices=[]), suppress(Exception):  # `_check` says what is wrong
            returned = deepcopy(self._module)(mapped(torch.clone, taken(self.inputs, slice(0, min(2, self.n_samples)))))
        self._output_rule = output_rule(output, returned)
        if self._output_rule is not None:
            self._module.register_forward_hook(Picked(self._output_rule))

    def _as_inputs(self, values: Any, name: str) -> Samples:
        return mapped(lambda each: self._as_input(each, name), as_samples(values, name, self.device))

    def _as_input(self, tensor: Tensor, name: str) -> Tensor:
        if not tensor.is_floating_point():
            return self._kept(tensor)
        tensor = self._kept(tensor.to(self.dtype).contiguous())
        pieces = torch.split(tensor, _LOOKED_AT) if tensor.numel() else ()
        broken = [~torch.isfinite(piece).reshape(len(piece), -1).all(1) for piece in pieces]
        if any(bool(each.any()) for each in broken):
            where = torch.nonzero(torch.cat(broken))[:, 0]
            raise ConfigurationError(
                f"{name} hold NaN or infinite numbers (as {self.dtype}) in {len(where)} samples, the first is sample "
                f"{int(where[0])}: expected finite numbers, since one such sample makes every gradient NaN; leave those "
                "samples out or fill in their values"
            )
        return tensor

    def _kept(self, tensor: Tensor) -> Tensor:
        """Return numbers that nobody else changes: a copy, but of what is too large for one."""
        return tensor if tensor.nbytes > self._memory_limit else _owned(tensor)

    def _as_labels(self, values: Any, name: str, n: int, classes: bool) -> Tensor:
        """Return labels with a leading axis of length 1 or replica."""
        tensor = as_samples(values, name, self.device)
        if not isinstance(tensor, Tensor):
            raise ConfigurationError(
                f"{name} are {kind_of(values)}: expected one tensor or array, whose first dimension are the samples; "
                "put several "
                "labels of a sample into one tensor, and have the loss take it apart"
            )
        if classes and tensor.is_floating_point():
            raise ConfigurationError(
                f"{name} are of type {tensor.dtype}: the cross-entropy expects classes as integers; convert them, or pass "
                "a loss of your own"
            )
        tensor = _owned(tensor.to(self.dtype if tensor.is_floating_point() else torch.int64).contiguous())
        per_replica = classes and tensor.ndim == 2
        if len(tensor[0] if per_replica else tensor) != n:
            raise ConfigurationError(
                f"{name} have shape {tuple(tensor.shape)}: expected one for each of the {n} inputs, shape ({n},)"
                + (f" or (replica, {n})" if classes else "")
            )
        return tensor if per_replica else tensor[None]

    def _check(self, error: Any) -> None:
        if overwrites_its_inputs(self._module, taken(self.inputs, slice(0, min(2, self.n_samples)))):
            # A first layer that works in place would change the caller's data.
            self._module.register_forward_pre_hook(
                lambda _, given: (mapped(torch.clone, given[0]), *given[1:]), prepend=True
            )
        # Evaluations may leave what cannot be copied in a module whose layers share weights.
        self._untouched = deepcopy(self._module)
        refuse_altered_embeddings(self._module)
        parameters = self._layout.split(self._general_point(self.own_weights))
        refuse_sample_mixing(self._module, parameters, self.inputs)
        few = slice(0, min(2, self.n_samples))
        with torch.no_grad():
            outputs = self._module(taken(self.inputs, few))
            self._output_shape = tuple(leaves(outputs)[0].shape[1:])
            if self.test_inputs is not None and number_of(self.test_inputs):
                self._check_test_inputs(taken(self.test_inputs, few), leaves(outputs)[0].shape[1:])
        given = {"labels": self.labels.flatten(0, 1), "true_labels": self.true_labels.flatten(0, 1)}
        if self.test_labels is not None:
            given["test_labels"] = self.test_labels
        for name, labels in given.items():
            if self._loss is cross_entropy and isinstance(outputs, Tensor):
                self._check_classes(name, labels, outputs.shape[-1])
            else:
                with torch.no_grad():
                    refuse_labels_without_loss(self._loss, taken(outputs, slice(0, 1)), name, labels)
        at_own = sample_losses(self._loss, outputs, self.labels[0, few])
        check_sample_losses(at_own, number_of(outputs))
        tried = self._trial_of_labels()
        with torch.no_grad():
            outputs = functional_call(self._module, parameters, (taken(self.inputs, tried),))
            refuse_undefined_losses(at_own, sample_losses(self._loss, outputs, self.labels[0, tried]))
            self._one_sample_error = refuse_loss_mixing(self._loss, outputs, self.labels[0, tried])
        of_test = () if self.test_labels is None else (self.test_labels,)
        refuse_sparse_gradients(
            parameters,
            lambda weights: self._loss(
                evaluate(self._module, dict(weights), taken(self.inputs, few)), self.labels[0, few]
            ),
        )
        self._warn_where_all_are_mislabeled()
        self._error = error or self._error_meant(outputs, self.labels.flatten(0, 1), *of_test)

    def _error_meant(self, outputs: Any, *labels: Tensor) -> str:
        """Return what an error is, as far as labels and loss show it."""
        if isinstance(outputs, Tensor) and (rule := class_rule(self._loss, outputs, *labels)) is not None:
            return "class" if rule == "largest output" else "sign"
        return (
            "positions" if rule_of_positions(self._loss, outputs, labels[0][: len(self._trial_of_labels())]) else "none"
        )

    def _warn_where_all_are_mislabeled(self) -> None:
        """Warn where no sample of a replica has its true class, as of classes that are numbered otherwise."""
        all_wrong = self.mislabeled.all(1).nonzero()[:, 0].tolist()
        if all_wrong and not self.labels.is_floating_point():  # noise makes every number another
            replicas = f"replica{'s' * (len(all_wrong) > 1)} {', '.join(map(str, all_wrong[:5]))}"
            warnings.warn(
                f"all {self.n_samples} samples of {replicas} have labels that differ from true_labels, and none counts as "
                "correct: expected some that agree, unless all were meant to be wrong; see that both number the classes "
                "alike and have one order of samples",
                AllMislabeledWarning,
                stacklevel=4,
            )

    def _check_test_inputs(self, few: Samples, shape: torch.Size) -> None:
        try:
            found = leaves(self._module(few))[0].shape[1:]
        except Exception as error:  # whatever a user's code raises there
            of_test, of_training = (
                ", ".join(str(tuple(each.shape[1:])) for each in leaves(some)) for some in (few, self.inputs)
            )
            raise ConfigurationError(
                f"the network cannot take test_inputs of shape {of_test} a sample, where inputs have {of_training} "
                f"({(str(error).splitlines() or [''])[0]}): expected samples of one kind; prepare both alike"
            ) from error
        if len(found) != len(shape):
            raise ConfigurationError(
                f"the network returns {tuple(found)} for a test input and {tuple(shape)} for an input: expected outputs of "
                "one kind; prepare both alike"
            )

    def _trial_of_labels(self) -> Tensor:
        """Return positions of a few samples from all over the data; their labels differ where labels do."""
        tried, labels = trial_positions(self.n_samples).to(self.device), self.labels[0]
        others = (labels != labels[tried[0]]).reshape(self.n_samples, -1).any(1).nonzero()[:, 0]
        return torch.cat([tried, others[trial_positions(len(others)).to(self.device)[:2]]])

    def _general_point(self, weights: Tensor) -> Tensor:
        """Return weights nearby at which a check is not deceived."""
        return general_point(self._module, self._layout, weights.to(self.device, self.dtype), self.inputs)

    def _check_classes(self, name: str, labels: Tensor, n_classes: int) -> None:
        smallest, largest = int(labels.min()), int(labels.max())
        if smallest < 0 or largest >= n_classes:
            raise ConfigurationError(
                f"{name} run from {smallest} to {largest}: expected classes 0 to {n_classes - 1}, since the network has "
                f"{n_classes} outputs"
            )

    @property
    def is_classifier(self) -> bool:
        """Whether labels are one class a sample and outputs say which, so that an error rate is defined."""
        return self._error in ("class", "sign")

    @property
    def has_error(self) -> bool:
        """Whether it is said what the error of a sample is."""
        return self._error != "none"

    @property
    def n_classes(self) -> int | None:
        """M, where labels are one class a sample and outputs say which; None elsewhere."""
        if not self.is_classifier:
            return None
        return 2 if prod(self._output_shape) == 1 else self._output_shape[-1]

    @property
    def mislabeled(self) -> Tensor:
        """Whether the given label differs from the true one, shape (replica or 1, sample)."""
        different: Tensor = self.labels != self.true_labels
        return different.flatten(2).any(2) if different.ndim > 2 else different

    @property
    def cohort(self) -> Tensor:
        """The samples of the cohort `mislabeled`, by `cohort_mask`, shape (replica or 1, sample)."""
        return self.relabeled if self.cohort_mask == "relabeled" else self.mislabeled

    @property
    def own_weights(self) -> Tensor:
        """The weights that the given module came with, a copy, shape (parameter,)."""
        return flat_parameters(self._module, self._layout).clone()

    def flattened(self, state: Mapping[str, Tensor]) -> Tensor:
        """Return the weights that a state dictionary of the network holds.

        Parameters
        ----------
        state : mapping of str to Tensor
            Of ``module.state_dict()``. What is no parameter that is trained, buffers and frozen parameters, must be as it is
            in the network.

        Returns
        -------
        Tensor, shape (parameter,)
            In the order of the landscape.

        Raises
        ------
        ConfigurationError
            If tensors are missing or of another shape, or constants differ.
        """
        prefix = without_prefix(state, self._layout.shapes)
        given = {name.removeprefix(prefix): each for name, each in state.items()}
        shapes = {name: tuple(given[name].shape) for name in self._layout.shapes if name in given}
        wrong = [name for name, shape in self._layout.shapes.items() if shapes.get(name) != tuple(shape)]
        if wrong:
            wanted, came = self._layout.shapes[wrong[0]], shapes.get(wrong[0])
            what = "has no" if came is None else f"has {came} in the place of {wanted} in"
            raise ConfigurationError(
                f"the state dictionary {what} {wrong[0]!r} ({len(wrong)} of {len(self._layout.shapes)} tensors do not fit): "
                "expected those of this network, by name and shape; pass the state_dict() of the same architecture"
            )
        for name, constant in self._untouched.named_buffers():
            if name in given and constant.is_floating_point() and not _equal(given[name], constant):
                raise ConfigurationError(
                    f"the state dictionary has another {name!r} than the network: expected the same buffers and frozen "
                    "parameters, since these are constants of a landscape, running means of batch normalisation among them; "
                    "load it into the module with module.load_state_dict(...) and make the landscape of that"
                )
        return self._layout.flatten({name: given[name].to(self.device, self.dtype) for name in self._layout.shapes})

    @property
    def description(self) -> dict[str, object]:
        """What a file says of the landscape on which a process ran."""
        return {
            "module": str(self._module),
            "loss": getattr(self._loss, "__name__", type(self._loss).__name__),
            "n_samples": self.n_samples,
            "n_parameters": self.n_parameters,
            "measured_parameters": list(self.measured_parameters),
            "mislabeled_fraction": float(self.mislabeled.double().mean()),
            "cohort_mask": self.cohort_mask,
            "device": str(self.device),
            "gradient_path": self._path.name,
            **({} if self._output_rule is None else {"output": plain(self._output_rule)}),
            **({} if self._error in ("class", "sign", "none") else {"error": plain(self._error)}),
            "data_sha256": self._data_digest,
            **({"start": "own", "own_weights_sha256": digest(self.own_weights)} if self.start == "own" else {}),
            **({"frozen_parameters": self._frozen_values} if self._frozen else {}),
            **self._user_code,
        }

    @cached_property
    def _path(self) -> GradientPath:
        """How weighted gradients are computed: tried when they are first wanted, since a trial takes a moment."""
        few = trial_positions(self.n_samples, 8).to(self.device)
        tried = self._general_point(self.own_weights), taken(self.inputs, few), self.labels[0, few]
        with single_threaded_products():
            return gradient_path(
                self._untouched,
                self._layout,
                self._loss,
                self.inputs,
                tried,
                is_cross_entropy=self._loss is cross_entropy,
            )

    @cached_property
    def _user_code(self) -> dict[str, Any]:
        """A run of other code is another run, whatever its names."""
        return digests_of_user_code(self._module, self._loss, self._frozen)

    @cached_property
    def _frozen_values(self) -> dict[str, object]:
        """A run beside other frozen weights is another run."""
        values = {name: self._module.get_buffer(name) for name in self._frozen}
        return {"names": list(values), "sha256": digest(*values.values())}

    @cached_property
    def _data_digest(self) -> str:
        """A run on other samples or labels is another run."""
        of_test = () if self.test_inputs is None else leaves(self.test_inputs)
        tensors = (*leaves(self.inputs), self.labels, self.true_labels, *of_test, self.test_labels)
        return digest(*(each for each in tensors if each is not None))

    @property
    def problem(self) -> Problem | None:  # noqa: D102
        own = type(self).weighted_gradient is not NetworkLandscape.weighted_gradient
        return None if own else Problem(self._path, self.inputs, self.labels, self._identity, self._rows_at_once)

    @cached_property
    def _identity(self) -> str | None:
        """Landscapes of equal identity differ in their labels only; a class of a user's own may differ in anything."""
        own = type(self) is not NetworkLandscape
        return None if own else identity_of(self._path, self._module, self._loss, self.inputs, self.labels)

    def labels_of(self, replica: int) -> Tensor:
        """Return one replica's labels.

        Parameters
        ----------
        replica : int
            Its position among the replicas.

        Returns
        -------
        Tensor, shape (sample, ...)
            The given labels.
        """
        return self.labels[replica if len(self.labels) > 1 else 0]

    @cached_property
    def start(self) -> Literal["own", "drawn"]:
        """Where replicas start: all at the network's own weights, or each where it is drawn."""
        if self._start is not None:
            return self._start
        return "drawn" if self._not_drawn is None else "own"

    @cached_property
    def _not_drawn(self) -> str | None:
        """Why the given network's weights are surely none that its initialisation draws; None where they may be."""
        if self._make is not None:
            return None
        with single_threaded_products():
            try:
                reason = weights_unlike_drawn(self._untouched, self._layout)
            except ConfigurationError as error:  # layers that cannot draw them
                return str(error).partition(":")[0]
            if reason is not None or self.n_parameters > _FEW_PARAMETERS:
                return reason
            drawn = redrawn(self._untouched, self._layout, _FEW_DRAWS, slice(None)).to(self.device)
            tried = torch.randperm(self.n_samples, generator=torch.Generator().manual_seed(0))[:_FEW_SAMPLES]
            inputs, labels = taken(self.inputs, tried), self.labels[0, tried.to(self.device)]
            outputs = self.outputs(torch.cat([self.own_weights[None], drawn]), inputs)
            each = (taken(outputs, torch.tensor(k)) for k in range(_FEW_DRAWS + 1))
            losses = [float(self._loss(one, labels).mean()) for one in each]
        return loss_unlike_drawn(losses[0], np.array(losses[1:]))

    def initial_weights(self, replicas: tuple[int, ...], seeds: Seeds) -> Tensor:  # noqa: D102
        if self.start == "own":
            if self._start is None:
                warnings.warn(
                    f"all replicas start from the weights that the network came with, since these were not just drawn: "
                    f"{self._not_drawn}; say so with start='own', or have each replica draw its own with start='drawn'",
                    OwnWeightsWarning,
                    stacklevel=2,
                )
            return self.own_weights.repeat(len(replicas), 1)
        rows = [draw_weights(self._make or self._module, self._layout, seeds, replica) for replica in replicas]
        return torch.stack(rows).to(self.device)

    def outputs(self, weights: Tensor, inputs: Tensor) -> Tensor:
        """Return the network's outputs.

        Parameters
        ----------
        weights : Tensor, shape (replica, parameter)
            Where.
        inputs : Tensor, shape (sample, ...)
            What to evaluate.

        Returns
        -------
        Tensor, shape (replica, sample, ...)
            The outputs.
        """
        if self._recomputes_statistics:
            return self.forward_gradient.recomputed(weights, self.inputs, inputs)
        found: Tensor = outputs_of(self._module, self._untouched, self._layout, weights, inputs)
        return found

    def with_recomputed_statistics(self) -> NetworkLandscape:
        """Return the landscape whose losses are those with statistics of the training data at the weights themselves.

        Returns
        -------
        NetworkLandscape
            Of which batch normalisation, in evaluation, has means and variances of one pass over all training inputs; its
            gradients are those of the landscape.
        """
        found = copy(self)
        found._recomputes_statistics = True
        return found

    def losses_and_errors(self, weights: Tensor, test: bool = False) -> tuple[Tensor, Tensor]:
        """Return the loss of each sample, and whether it is classified otherwise than its label says.

        Parameters
        ----------
        weights : Tensor, shape (replica, parameter)
            Where.
        test : bool, optional
            Whether over the test data rather than the training data.

        Returns
        -------
        losses : Tensor, shape (replica, sample)
            ℓ_k.
        errors : Tensor, shape (replica, sample)
            From 0 where right to 1 where wrong; NaN throughout where it is not said what an error is (`has_error`).

        Raises
        ------
        ConfigurationError
            If test data are asked for and there are none.
        """
        if test and (self.test_inputs is None or self.test_labels is None):
            raise ConfigurationError("this landscape has no test data: pass test_inputs and test_labels to it")
        inputs = self.test_inputs if test else self.inputs
        labels = self.test_labels[None] if test else self.labels  # type: ignore[index]
        labels = labels.expand(len(weights), *labels.shape[1:])
        size = self._rows_at_once
        pieces = [
            self._evaluated(weights, taken(inputs, slice(k, k + size)), labels[:, k : k + size])
            for k in range(0, number_of(inputs), size)
        ]
        losses, errors = zip(*pieces, strict=True)
        return (losses[0], errors[0]) if len(pieces) == 1 else (torch.cat(losses, 1), torch.cat(errors, 1))

    def _evaluated(self, weights: Tensor, inputs: Samples, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Return losses and errors of some samples, shape (replica, sample)."""
        outputs = self.outputs(weights, inputs)
        of_each = [taken(outputs, torch.tensor(k)) for k in range(len(weights))]
        losses = [self._loss(*pair) for pair in zip(of_each, labels, strict=True)]
        errors = [errors_of(self._error, *each) for each in zip(of_each, labels, losses, strict=True)]
        return torch.stack(losses), torch.stack(errors)

    @cached_property
    def _rows_at_once(self) -> int:
        """How many samples of a replica a pass may take at once."""
        few = slice(0, min(2, self.n_samples))
        try:
            kept = self._source(self.own_weights, 0, (), {}).graph_bytes(few) / few.stop
        except RuntimeError:  # of what cannot be seen through nothing is known
            return 2**62
        # What a pass keeps, its gradients and copies in other memory layouts.
        return max(1, int(self._memory_limit / max(1.0, 4 * kept)))

    def sample_losses(self, weights: Tensor) -> Tensor:  # noqa: D102
        return self.losses_and_errors(weights)[0]

    def weighted_gradient(self, weights: Tensor, coefficients: Tensor, indices: Tensor | None = None) -> Tensor:  # noqa: D102
        expected = (len(weights), self.n_parameters)
        if tuple(weights.shape) != expected:
            raise ConfigurationError(
                f"weights have shape {tuple(weights.shape)}: expected (replica, parameter) = {expected}"
            )
        problem = Problem(self._path, self.inputs, self.labels, rows_at_once=self._rows_at_once)
        return problem.weighted_gradient(weights.to(self.dtype), coefficients, indices)

    def through(self, change: ForwardChange, seeds: Sequence[int]) -> ForwardPass:
        """Return the loss through a random forward pass.

        Parameters
        ----------
        change : ForwardChange
            What the pass does otherwise than the deterministic one.
        seeds : sequence of int
            With which number the generator of each replica is seeded.

        Returns
        -------
        ForwardPass
            Of the same data and weights.
        """
        return ForwardPass(self).through(change, seeds)

    @cached_property
    def forward_gradient(self) -> ForwardGradient:
        """What computes weighted gradients through random forward passes."""
        return ForwardGradient(self._untouched, self._layout, self._loss)

    @property
    def layers(self) -> dict[str, nn.Module]:
        """The layers of the network by name, to be looked at and left as they are."""
        return dict(self._module.named_modules())

    def hessian_product(  # noqa: D102
        self, weights: Tensor, vectors: Tensor, *, memory_limit: int | float | str | None = None
    ) -> Tensor:
        rows = [
            self.gradient_derivative(row, replica, memory_limit=memory_limit)(vector[None])
            for replica, (row, vector) in enumerate(zip(weights, vectors, strict=True))
        ]
        return torch.cat(rows).to(self.dtype)

    def gradient_derivative(
        self, weights: Tensor, replica: int = 0, *, memory_limit: int | float | str | None = None
    ) -> GradientDerivative:
        """Return what multiplies vectors with the Hessian at one point.

        Parameters
        ----------
        weights : Tensor, shape (parameter,)
            Where.
        replica : int, optional
            Whose labels, where labels differ between replicas.
        memory_limit : int or str, optional
            Budget in bytes or as ``"512 MiB"``, 1 GiB unless said: samples are gone through in pieces.

        Returns
        -------
        callable
            (vectors, shape (row, parameter)) → products in float64.
        """
        few = slice(0, min(2, self.n_samples))
        kept = self._source(weights, 0, (), {}).graph_bytes(few) / few.stop
        # Gradient, its derivative and what each keeps.
        at_a_time = max(1, int(as_bytes(memory_limit) / max(1.0, 6 * kept)))
        total, labels = weighted_loss(self._module, self._loss), self.labels_of(replica)
        return GradientDerivative(total, self._layout, weights.to(self.dtype), self.inputs, labels, at_a_time)

    @property
    def measured_columns(self) -> Tensor:
        """Positions of the measured parameters among all, shape (measured parameter,)."""
        every = self._layout.split(torch.arange(self.n_parameters, device=self.device))
        return torch.cat([every[name].reshape(-1) for name in self.measured_parameters])

    def sample_gradients(  # noqa: D102
        self,
        weights: Tensor,
        replica: int = 0,
        *,
        everywhere: bool = False,
        memory_limit: int | float | str | None = None,
        samples: Tensor | None = None,
    ) -> SampleGradients:
        limit = as_bytes(memory_limit)
        if weights.shape != (self.n_parameters,):
            raise ConfigurationError(
                f"weights have shape {tuple(weights.shape)}: expected ({self.n_parameters},), one point of weight space"
            )
        if self._one_sample_error is not None:
            raise ConfigurationError(
                f"the loss cannot take one sample alone ({self._one_sample_error}): expected outputs of any number of "
                "samples, since the gradient of each is measured; name the dimension, outputs.squeeze(-1) in the place of "
                "outputs.squeeze()"
            )
        found = self._layers
        if found is None:
            # Away from special points: a gate at zero or units that are all active would hide what differs elsewhere.
            layers, shared, decided = verified_layers(
                self._source(self._general_point(weights), replica, tuple(self._layout.shapes), {})
            )
            found = layers, shared
            self._layers = found if decided else None
        names = tuple(self._layout.shapes) if everywhere else self.measured_parameters
        source = replace(self._source(weights, replica, names, found[0]), shared=found[1])
        if samples is not None:
            source = replace(source, inputs=taken(source.inputs, samples), labels=taken(source.labels, samples))
        key = names, tuple(found[0]), limit, source.n_samples
        if key not in self._footprints:
            self._footprints[key] = Footprint.of(source, limit)
        return within_memory(source, limit, self._footprints[key])

    def _source(
        self, weights: Tensor, replica: int, names: tuple[str, ...], layers: dict[str, nn.Module]
    ) -> SampleGradientSource:
        parameters = self._layout.split(weights.to(self.device, self.dtype))
        # Its own, since it holds weights and hooks while others are measured beside it.
        module = deepcopy(self._untouched)
        own = {name: module.get_submodule(name) for name in layers}
        return SampleGradientSource(module, parameters, self.inputs, self.labels_of(replica), self._loss, names, own)


def _equal(one: Tensor, other: Tensor) -> bool:
    return one.shape == other.shape and torch.allclose(one.to(other), other, equal_nan=True)


def _owned(tensor: Tensor) -> Tensor:
    """Return numbers that nobody else changes afterwards: a copy, which landscapes of equal data share."""
    key = f"{tensor.device} {digest(tensor)}"
    kept = _OWNED.get(key)
    if kept is None:
        kept = _OWNED[key] = tensor.detach().clone()
    return kept


def _seeded(make: Callable[[], nn.Module]) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return make()
