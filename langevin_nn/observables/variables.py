"""The variables of the package's own observables, by name: what a file may hold without saying what it is."""

from __future__ import annotations

from langevin_nn.ensemble.variables import MEASURES, measure_named
from langevin_nn.errors import UnknownNameError
from langevin_nn.schema import Coordinate, Variable

__all__ = ["GROUPS", "OWN", "Coordinate", "Variable", "describe", "described"]

_COHORT = ("cohort",)

_VARIABLES = (
    Variable("train_loss", "training loss", _COHORT, "nat"),
    Variable("train_error", "training error", _COHORT),
    Variable("test_loss", "test loss", (), "nat"),
    Variable("test_error", "test error"),
    Variable("average_train_loss", "training loss at the averaged weights", _COHORT, "nat"),
    Variable("average_train_error", "training error at the averaged weights", _COHORT),
    Variable("average_test_loss", "test loss at the averaged weights", (), "nat"),
    Variable("average_test_error", "test error at the averaged weights"),
    Variable("driving_noise_strength", "trace of the covariance of the driving noise", (), "loss2 weight-2"),
    Variable("given_label", "label in training", ("sample",), "1", "samples", timeless=True),
    Variable("predicted_label", "class that was predicted", ("sample",), "1", "samples"),
    Variable("true_label", "label before label noise", ("sample",), "1", "samples", timeless=True),
    Variable("mislabeled", "given label differs from the true one", ("sample",), "1", "samples", timeless=True),
    Variable("relabeled", "label was redrawn", ("sample",), "1", "samples", timeless=True),
    Variable("weights", "weights", ("parameter",), "weight", "weights"),
    Variable("step_learning_rate", "learning rate of the update"),
    Variable("step_batch_size", "samples in the minibatch of the update", (), "sample"),
    Variable("metric_geometric_mean", "geometric mean of the metric by which the optimizer divides gradients"),
    Variable("metric_deviation", "standard deviation of the logarithm of that metric"),
    Variable("weight_norm", "norm of all weights", (), "weight"),
    Variable("measured_samples", "samples from whose gradients order parameters are estimated", (), "sample"),
)
# Estimates from some of the samples come with errors.
_ESTIMATED = (
    "activity",
    "directed_activity",
    "parallel_activity",
    "perpendicular_activity",
    "noise_strength",
    "parallel_noise",
    "projection_variance",
    "gradient_noise_scale",
    "alignment_approximation",
    "gradient_alignment",
)
_ERRORS = tuple(measure_named(f"{name}_standard_error") for name in _ESTIMATED)


def _of_layer(name: str) -> Variable:
    """Return an order parameter of all samples within each layer."""
    known = measure_named(name)
    return Variable(f"layer_{name}", f"{known.long_name} of a layer", ("layer",), known.units, "measured_layers")


_LAYERS = tuple(
    _of_layer(f"{name}{suffix}")
    for name in ("directed_activity", "noise_strength")
    for suffix in ("", "_standard_error")
)
# With those that an ensemble measures, which it also gives without a run.
OWN = {**MEASURES, **{variable.name: variable for variable in (*_VARIABLES, *_ERRORS, *_LAYERS)}}
# Groups that hold nothing else, the root apart.
GROUPS = tuple(dict.fromkeys(variable.group for variable in OWN.values() if variable.group))


def describe(name: str) -> Variable:
    """Return what is known of a variable of the package's own.

    Parameters
    ----------
    name : str
        As in files.

    Returns
    -------
    Variable
        Its dimensions, units, long name and group.

    Raises
    ------
    UnknownNameError
        If the package has no such variable.

    Examples
    --------
    >>> describe("test_error").attributes
    {'long_name': 'test error', 'units': '1'}
    """
    if name not in OWN:
        raise UnknownNameError("variable", name, OWN)
    return OWN[name]


def described(*names: str) -> tuple[Variable, ...]:
    """Return what is known of several variables, for an observable to declare.

    Parameters
    ----------
    *names : str
        As in files.

    Returns
    -------
    tuple of Variable
        One each.

    Examples
    --------
    >>> [variable.clock for variable in described("weights", "test_loss")]
    ['weight_step', 'step']
    """
    return tuple(describe(name) for name in names)
