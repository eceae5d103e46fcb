"""The variables of the package's own observables, by name: what a file may hold without saying what it is."""

from __future__ import annotations

from langevin_nn.ensemble.variables import MEASURES
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
    Variable("true_label", "label before label noise", ("sample",), "1", "samples", timeless=True),
    Variable("mislabeled", "given label differs from the true one", ("sample",), "1", "samples", timeless=True),
    Variable("relabeled", "label was redrawn", ("sample",), "1", "samples", timeless=True),
    Variable("weights", "weights", ("parameter",), "weight", "weights"),
)
# With those that an ensemble measures, which it also gives without a run.
OWN = {**MEASURES, **{variable.name: variable for variable in _VARIABLES}}
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
