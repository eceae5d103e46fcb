"""Any `torch.nn.Module` with its data and loss as a landscape."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Mapping
from copy import deepcopy
from functools import cached_property
from typing import Any, Literal
from weakref import WeakValueDictionary

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call

from langevin_nn.checks import kind_of, one_of, shown
from langevin_nn.errors import AllMislabeledWarning, ConfigurationError, OwnWeightsWarning, UnknownNameError
from langevin_nn.gradients.blocks import SampleGradients
from langevin_nn.gradients.choice import gradient_path
from langevin_nn.gradients.derivative import GradientDerivative
from langevin_nn.gradients.functional import Loss, evaluate, outputs_of, weighted_loss
from langevin_nn.gradients.layout import ParameterLayout
from langevin_nn.gradients.problem import Kept, Problem, identity_of
from langevin_nn.gradients.refusal import (
    check_sample_losses,
    general_point,
    refuse_labels_without_loss,
    refuse_loss_mixing,
    refuse_sample_mixing,
    refuse_sparse_gradients,
    sample_losses,
    trial_positions,
)
from langevin_nn.gradients.signals import SampleGradientSource
from langevin_nn.gradients.streamed import Footprint, within_memory
from langevin_nn.gradients.verification import overwrites_its_inputs, verified_layers
from langevin_nn.landscape.base import EmpiricalLandscape
from langevin_nn.landscape.classes import class_rule
from langevin_nn.landscape.given import loss_unlike_drawn, weights_unlike_drawn
from langevin_nn.landscape.initialisation import draw_weights, flat_parameters, redrawn, without_frozen
from langevin_nn.landscape.user_code import digests_of_user_code
from langevin_nn.memory import as_bytes
from langevin_nn.provenance import digest
from langevin_nn.seeds import Seeds
from langevin_nn.threads import single_threaded_products

__all__ = ["COHORT_MASKS", "NetworkLandscape", "cross_entropy"]

COHORT_MASKS = ("mislabeled", "relabeled")
STARTS = ("own", "drawn")
_OWNED: WeakValueDictionary[str, Tensor] = WeakValueDictionary()
# Of a larger network the weights tell; losses of a few samples are compared where there are few weights.
_FEW_PARAMETERS, _FEW_SAMPLES, _FEW_DRAWS = 50_000, 64, 8


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
    inputs : array, shape (sample, ...)
        Training inputs.
    labels : array, shape (sample, ...) or (replica, sample)
        Given labels, classes as integers or whatever `loss` takes; classes may differ between replicas.
    loss : callable, optional
        (outputs, labels) → one loss a sample, shape (sample,); the cross-entropy unless said.
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
        module whose weights are surely none that were just drawn, such as one that was trained or initialised by hand:
        replicas start from these, with an `OwnWeightsWarning`.

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

    Examples
    --------
    >>> landscape = NetworkLandscape(nn.Linear(2, 3), torch.zeros(5, 2), torch.tensor([0, 1, 2, 0, 1]))
    >>> weights = landscape.initial_weights((0, 1), Seeds(0))
    >>> weights.shape
    torch.Size([2, 9])
    >>> bool((landscape.gradient(weights)[:, :6] == 0).all())  # the inputs are zero
    True
    """

    def __init__(
        self,
        module: nn.Module | Callable[[], nn.Module],
        inputs: Any,
        labels: Any,
        *,
        loss: Loss | None = None,
        true_labels: Any = None,
        relabeled: Any = None,
        test_inputs: Any = None,
        test_labels: Any = None,
        parameters: str | Iterable[str] = "*",
        device: str | torch.device | None = None,
        cohort_mask: Literal["mislabeled", "relabeled"] = "mislabeled",
        start: Literal["own", "drawn"] | None = None,
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
            one_of("start", start, STARTS)
        self._start = start
        self._make = None if isinstance(module, nn.Module) else module
        made = module if isinstance(module, nn.Module) else _seeded(module)
        if not isinstance(made, nn.Module):
            raise ConfigurationError(
                f"the function that makes the network returned something of type {type(made).__name__}: expected a "
                "torch.nn.Module; return the network"
            )
        if next(made.parameters(), None) is None:
            raise ConfigurationError("the network has no parameters: expected at least one weight to train")
        self._module, self._frozen = without_frozen(_copied(made))
        self._module.requires_grad_(False)
        self._layout = ParameterLayout.of(self._module)
        first = next(self._module.parameters(), None)
        if first is None:
            raise ConfigurationError(
                "all parameters are frozen (requires_grad=False): expected at least one to train, since frozen ones stay as "
                "they are; call .requires_grad_(True) on what is to be trained"
            )
        self.device = _device(device) if device is not None else first.device
        self.dtype = first.dtype
        self._module.to(self.device)
        self.n_parameters = self._layout.n_parameters
        self.measured_parameters = self._layout.matching(parameters)
        self.measures_everything = len(self.measured_parameters) == len(self._layout.shapes)

        self.inputs = self._as_inputs(inputs, "inputs")
        self.n_samples = len(self.inputs)
        if self.n_samples == 0:
            raise ConfigurationError("there are no training inputs: expected at least one sample")
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
            if self.relabeled.shape[1:] != self.mislabeled.shape[1:] or len(self.relabeled) not in (
                1,
                len(self.labels),
            ):
                raise ConfigurationError(
                    f"relabeled has shape {tuple(flags.shape)}: expected one flag a label, {tuple(self.mislabeled.shape)}"
                )
        if (test_inputs is None) != (test_labels is None):
            raise ConfigurationError("test_inputs and test_labels come together: expected both or neither")
        self.test_inputs = self.test_labels = None
        if test_inputs is not None:
            self.test_inputs = self._as_inputs(test_inputs, "test_inputs")
            given = self._as_labels(test_labels, "test_labels", len(self.test_inputs), loss is None)
            if len(given) > 1:
                raise ConfigurationError("test_labels differ between replicas: expected one label a test input")
            self.test_labels = given[0]
        with single_threaded_products():
            self._check()
        self._path = gradient_path(self._module, self._layout, self._loss, self.inputs, is_cross_entropy=loss is None)
        self._footprints = Kept()
        self._layers: dict[str, nn.Module] | None = None

    def _as_inputs(self, values: Any, name: str) -> Tensor:
        tensor = _as_tensor(values, name, self.device)
        if not tensor.is_floating_point():
            return _owned(tensor)
        tensor = _owned(tensor.to(self.dtype).contiguous())
        broken = ~torch.isfinite(tensor).reshape(len(tensor), -1).all(1) if tensor.numel() else tensor.new_zeros(0)
        if broken.any():
            raise ConfigurationError(
                f"{name} hold NaN or infinite numbers (as {self.dtype}) in {int(broken.sum())} samples, the first is sample "
                f"{int(torch.nonzero(broken)[0, 0])}: expected finite numbers, since one such sample makes every gradient "
                "NaN; leave those samples out or fill in their values"
            )
        return tensor

    def _as_labels(self, values: Any, name: str, n: int, classes: bool) -> Tensor:
        """Return labels with a leading axis of length 1 or replica."""
        tensor = _as_tensor(values, name, self.device)
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

    def _check(self) -> None:
        if overwrites_its_inputs(self._module, self.inputs[: min(2, self.n_samples)]):
            # A first layer that works in place would change the caller's data.
            self._module.register_forward_pre_hook(lambda _, given: (given[0].clone(), *given[1:]))
        # Evaluations may leave what cannot be copied in a module whose layers share weights.
        self._untouched = deepcopy(self._module)
        parameters = self._layout.split(self._general_point(self.own_weights))
        refuse_sample_mixing(self._module, parameters, self.inputs)
        few = slice(0, min(2, self.n_samples))
        with torch.no_grad():
            outputs = self._module(self.inputs[few])
            if self.test_inputs is not None and len(self.test_inputs):
                self._check_test_inputs(self.test_inputs[few], outputs.shape[1:])
        given = {"labels": self.labels.flatten(0, 1), "true_labels": self.true_labels.flatten(0, 1)}
        if self.test_labels is not None:
            given["test_labels"] = self.test_labels
        for name, labels in given.items():
            if self._loss is cross_entropy:
                self._check_classes(name, labels, outputs.shape[-1])
            else:
                with torch.no_grad():
                    refuse_labels_without_loss(self._loss, outputs[:1], name, labels)
        check_sample_losses(sample_losses(self._loss, outputs, self.labels[0, few]), len(outputs))
        tried = self._trial_of_labels()
        with torch.no_grad():
            outputs = functional_call(self._module, parameters, (self.inputs[tried],))
            sample_losses(self._loss, outputs, self.labels[0, tried])
            self._one_sample_error = refuse_loss_mixing(self._loss, outputs, self.labels[0, tried])
        of_test = () if self.test_labels is None else (self.test_labels,)
        refuse_sparse_gradients(parameters, lambda weights: self._few_losses(weights, few))
        self._warn_where_all_are_mislabeled()
        self._class_rule = class_rule(self._loss, outputs, self.labels.flatten(0, 1), *of_test)

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

    def _few_losses(self, parameters: Mapping[str, Tensor], few: slice) -> Tensor:
        return self._loss(evaluate(self._module, dict(parameters), self.inputs[few]), self.labels[0, few])

    def _check_test_inputs(self, few: Tensor, shape: torch.Size) -> None:
        try:
            found = self._module(few).shape[1:]
        except (RuntimeError, ValueError, IndexError, TypeError) as error:
            raise ConfigurationError(
                f"the network cannot take test_inputs of shape {tuple(few.shape[1:])} a sample, where inputs have "
                f"{tuple(self.inputs.shape[1:])} ({str(error).splitlines()[0]}): expected samples of one kind; prepare both "
                "alike"
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
        return self._class_rule is not None

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
            "data_sha256": self._data_digest,
            **({"start": "own", "own_weights_sha256": digest(self.own_weights)} if self.start == "own" else {}),
            **({"frozen_parameters": self._frozen_values} if self._frozen else {}),
            **self._user_code,
        }

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
        tensors = (self.inputs, self.labels, self.true_labels, self.test_inputs, self.test_labels)
        return digest(*(each for each in tensors if each is not None))

    @property
    def problem(self) -> Problem | None:  # noqa: D102
        own = type(self).weighted_gradient is not NetworkLandscape.weighted_gradient
        return None if own else Problem(self._path, self.inputs, self.labels, self._identity)

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
            except ConfigurationError:  # which `initial_weights` raises
                return None
            if reason is not None or self.n_parameters > _FEW_PARAMETERS:
                return reason
            drawn = redrawn(self._untouched, self._layout, _FEW_DRAWS, slice(None)).to(self.device)
            tried = torch.randperm(self.n_samples, generator=torch.Generator().manual_seed(0))[:_FEW_SAMPLES]
            inputs, labels = self.inputs[tried.to(self.device)], self.labels[0, tried.to(self.device)]
            outputs = self.outputs(torch.cat([self.own_weights[None], drawn]), inputs)
            losses = [float(self._loss(each, labels).mean()) for each in outputs]
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
        return outputs_of(self._module, self._untouched, self._layout, weights, inputs)

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
            1 where wrong, 0 where right; NaN throughout where labels are not one class a sample, or outputs do not say which
            (`is_classifier`).

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
        outputs = self.outputs(weights, inputs)  # type: ignore[arg-type]
        losses = torch.stack([self._loss(out, label) for out, label in zip(outputs, labels, strict=True)])
        if self._class_rule is None:
            return losses, torch.full_like(losses, torch.nan)
        said = outputs.argmax(-1) if self._class_rule == "largest output" else outputs.reshape(losses.shape) > 0
        return losses, (said != labels.reshape(losses.shape)).to(losses.dtype)

    def sample_losses(self, weights: Tensor) -> Tensor:  # noqa: D102
        return self.losses_and_errors(weights)[0]

    def weighted_gradient(self, weights: Tensor, coefficients: Tensor, indices: Tensor | None = None) -> Tensor:  # noqa: D102
        expected = (len(weights), self.n_parameters)
        if tuple(weights.shape) != expected:
            raise ConfigurationError(
                f"weights have shape {tuple(weights.shape)}: expected (replica, parameter) = {expected}"
            )
        problem = Problem(self._path, self.inputs, self.labels)
        return problem.weighted_gradient(weights.to(self.dtype), coefficients, indices)

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
        total, at_a_time = (
            weighted_loss(self._module, self._loss),
            self._samples_of_a_product(weights, as_bytes(memory_limit)),
        )
        labels = self.labels_of(replica)
        return GradientDerivative(total, self._layout, weights.to(self.dtype), self.inputs, labels, at_a_time)

    def _samples_of_a_product(self, weights: Tensor, memory_limit: int) -> int:
        """Return how many samples a Hessian product may take at a time."""
        few = slice(0, min(2, self.n_samples))
        kept = self._source(weights, 0, (), {}).graph_bytes(few) / (few.stop or 1)
        # Gradient, its derivative and what each keeps.
        return max(1, int(memory_limit / max(1.0, 6 * kept)))

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
        layers = self._layers
        if layers is None:
            # Away from special points: a gate at zero or units that are all active would hide what differs elsewhere.
            layers, decided = verified_layers(
                self._source(self._general_point(weights), replica, tuple(self._layout.shapes), {})
            )
            self._layers = layers if decided else None
        names = tuple(self._layout.shapes) if everywhere else self.measured_parameters
        source = self._source(weights, replica, names, layers)
        key = names, tuple(layers), limit
        if key not in self._footprints:
            self._footprints[key] = Footprint.of(source, limit)
        return within_memory(source, limit, self._footprints[key])

    def _source(
        self, weights: Tensor, replica: int, names: tuple[str, ...], layers: dict[str, nn.Module]
    ) -> SampleGradientSource:
        parameters = self._layout.split(weights.to(self.device, self.dtype))
        module = deepcopy(
            self._untouched
        )  # its own, since it holds weights and hooks while others are measured beside it
        own = {name: module.get_submodule(name) for name in layers}
        return SampleGradientSource(module, parameters, self.inputs, self.labels_of(replica), self._loss, names, own)


def _device(device: str | torch.device) -> torch.device:
    """Return a device on which numbers can be kept here."""
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


def _as_tensor(values: Any, name: str, device: torch.device) -> Tensor:
    try:
        return torch.as_tensor(values if isinstance(values, Tensor) else np.asarray(values), device=device)
    except (TypeError, ValueError) as error:
        if not isinstance(values, Tensor) and np.asarray(values).dtype.kind in "SUTO" and "labels" in name:
            raise ConfigurationError(
                f"{name} are names ({shown(np.asarray(values).flat[0])}, …): expected classes as integers, which the loss "
                "compares with outputs; number them by np.unique(labels, return_inverse=True), which gives the names and the "
                "numbers, given and true labels and those of test data together"
            ) from error
        raise ConfigurationError(
            f"{name} are {kind_of(values)} ({str(error)[:60]}…): expected one tensor or array of numbers, whose first "
            "dimension are the samples; join what belongs together, and let the module take it apart"
        ) from error


def _owned(tensor: Tensor) -> Tensor:
    """Return numbers that nobody else changes afterwards: a copy, which landscapes of equal data share."""
    key = f"{tensor.device} {digest(tensor)}"
    kept = _OWNED.get(key)
    if kept is None:
        kept = _OWNED[key] = tensor.detach().clone()
    return kept


def _copied(module: nn.Module) -> nn.Module:
    try:
        return deepcopy(module)
    except RuntimeError as error:
        raise ConfigurationError(
            f"the network cannot be copied ({str(error).splitlines()[0][:120]}): expected weights that are parameters, since "
            "each replica has its own; make what was pruned or normalised permanent first (torch.nn.utils.prune.remove, "
            "remove_weight_norm)"
        ) from error


def _seeded(make: Callable[[], nn.Module]) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return make()
