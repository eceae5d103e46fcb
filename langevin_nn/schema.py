"""The one table of recorded variables: dimensions within a record, units and long names."""

from __future__ import annotations

from dataclasses import dataclass

from langevin_nn.errors import UnknownNameError

__all__ = ["CLOCKS", "COHORTS", "COHORT_PAIRS", "SCHEMA_VERSION", "Variable", "describe"]

SCHEMA_VERSION = "1.1"

COHORTS = ("all", "correct", "mislabeled")
COHORT_PAIRS = ("correct_mislabeled", "all_correct", "all_mislabeled")

# The dimension along which each group is recorded.
CLOCKS = {"": "step", "spectrum": "spectrum_step", "samples": "sample_step", "weights": "weight_step"}


@dataclass(frozen=True)
class Variable:
    """What one recorded variable is.

    Parameters
    ----------
    name : str
        As in files.
    long_name : str
        As on an axis.
    dimensions : tuple of str, optional
        Besides ``replica`` and the group's clock.
    units : str, optional
        "1" where it has none.
    group : str, optional
        Group of the file; "" is the root.
    timeless : bool, optional
        Whether it is the same at all times.
    """

    name: str
    long_name: str
    dimensions: tuple[str, ...] = ()
    units: str = "1"
    group: str = ""
    timeless: bool = False

    @property
    def attributes(self) -> dict[str, str]:
        """Attributes of the netCDF variable."""
        return {"long_name": self.long_name, "units": self.units}


_COHORT = ("cohort",)
_GRADIENT_SQUARED = "loss2 weight-2"

_VARIABLES = (
    Variable("train_loss", "training loss", _COHORT, "nat"),
    Variable("train_error", "training error", _COHORT),
    Variable("test_loss", "test loss", (), "nat"),
    Variable("test_error", "test error"),
    Variable("activity", "activity A", _COHORT, _GRADIENT_SQUARED),
    Variable("directed_activity", "directed activity A₀", _COHORT, _GRADIENT_SQUARED),
    Variable("parallel_activity", "parallel activity A∥", _COHORT, _GRADIENT_SQUARED),
    Variable("perpendicular_activity", "perpendicular activity A⊥", _COHORT, _GRADIENT_SQUARED),
    Variable("noise_strength", "noise strength D = Tr C", _COHORT, _GRADIENT_SQUARED),
    Variable("parallel_noise", "noise along the mean gradient D∥", _COHORT, _GRADIENT_SQUARED),
    Variable("projection_variance", "projection variance σ_λ²", _COHORT),
    Variable("gradient_noise_scale", "gradient noise scale Tr Σ / A₀", _COHORT, "sample"),
    Variable("alignment", "alignment R", _COHORT),
    Variable("alignment_standard_error", "standard error of the alignment R", _COHORT),
    Variable("alignment_zero_share", "share of minibatches with zero gradient", _COHORT),
    Variable("alignment_minibatches", "minibatches from which R is estimated", _COHORT),
    Variable("alignment_approximation", "approximation of R by A₀/A", _COHORT),
    Variable("alignment_approximation_bound", "bound on the error of A₀/A as an approximation of R", _COHORT),
    Variable("gradient_alignment", "cosine of two mean gradients", ("cohort_pair",)),
    Variable("driving_noise_strength", "trace of the covariance of the driving noise", (), _GRADIENT_SQUARED),
    Variable("noise_eigenvalue", "eigenvalue of the noise covariance", ("mode",), _GRADIENT_SQUARED, "spectrum"),
    Variable(
        "noise_eigenvalue_residual",
        "distance within which an eigenvalue lies",
        ("mode",),
        _GRADIENT_SQUARED,
        "spectrum",
    ),
    Variable("effective_dimension", "effective dimension D_s", (), "1", "spectrum"),
    Variable(
        "effective_dimension_is_lower_bound", "whether D_s is at least this, rather than this", (), "1", "spectrum"
    ),
    Variable("hessian_eigenvalue", "eigenvalue of the Hessian", ("hessian_mode",), "loss weight-2", "spectrum"),
    Variable(
        "hessian_eigenvalue_residual",
        "distance within which an eigenvalue lies",
        ("hessian_mode",),
        "loss weight-2",
        "spectrum",
    ),
    Variable("hessian_trace", "trace of the Hessian", (), "loss weight-2", "spectrum"),
    Variable(
        "hessian_trace_standard_error", "standard error of the trace of the Hessian", (), "loss weight-2", "spectrum"
    ),
    Variable("spectral_density", "density of eigenvalues", ("eigenvalue",), "loss-1 weight2", "spectrum"),
    Variable(
        "spectral_density_standard_error",
        "standard error of the density",
        ("eigenvalue",),
        "loss-1 weight2",
        "spectrum",
    ),
    Variable("eigenvector_overlap", "squared cosine of two eigenvectors", ("mode", "hessian_mode"), "1", "spectrum"),
    Variable("subspace_overlap", "share of one subspace that lies in the other", (), "1", "spectrum"),
    Variable("random_overlap", "subspace overlap of unrelated directions", (), "1", "spectrum"),
    Variable(
        "noise_along_hessian",
        "noise along an eigenvector of the Hessian",
        ("hessian_mode",),
        _GRADIENT_SQUARED,
        "spectrum",
    ),
    Variable("class_alignment", "cosine of the mean gradients of two classes", ("class", "other_class")),
    Variable("class_size", "number of samples of a class", ("class",)),
    Variable("sample_loss", "loss of a sample", ("sample",), "nat", "samples"),
    Variable("sample_gradient_norm", "norm of a sample's gradient", ("sample",), "loss weight-1", "samples"),
    Variable("given_label", "label in training", ("sample",), "1", "samples", timeless=True),
    Variable("true_label", "label before label noise", ("sample",), "1", "samples", timeless=True),
    Variable("mislabeled", "given label differs from the true one", ("sample",), "1", "samples", timeless=True),
    Variable("relabeled", "label was redrawn", ("sample",), "1", "samples", timeless=True),
    Variable("weights", "weights", ("parameter",), "weight", "weights"),
)
_BY_NAME = {variable.name: variable for variable in _VARIABLES}


def describe(name: str) -> Variable:
    """Return what is known of a variable.

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
        If the schema has no such variable.

    Examples
    --------
    >>> describe("test_error").attributes
    {'long_name': 'test error', 'units': '1'}
    """
    if name not in _BY_NAME:
        raise UnknownNameError("variable", name, _BY_NAME)
    return _BY_NAME[name]
