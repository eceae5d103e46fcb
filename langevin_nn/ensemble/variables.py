"""What a gradient ensemble, its spectrum and its curvature are measured by: units and long names."""

from __future__ import annotations

from dataclasses import replace

from langevin_nn.schema import Variable

__all__ = ["MEASURES", "measure_named"]

_OF_AN_ERROR = "_standard_error"

_COHORT = ("cohort",)
_GRADIENT_SQUARED = "loss2 weight-2"

_VARIABLES = (
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
)
# By name.
MEASURES = {variable.name: variable for variable in _VARIABLES}


def measure_named(name: str) -> Variable:
    """Return what a measure is, or the standard error of one.

    Parameters
    ----------
    name : str
        Of `MEASURES`, or of one of them and ``_standard_error``.

    Returns
    -------
    Variable
        With dimensions and units.

    Examples
    --------
    >>> measure_named("activity_standard_error").long_name
    'standard error of the activity A'
    """
    if name in MEASURES:
        return MEASURES[name]
    of = MEASURES[name.removesuffix(_OF_AN_ERROR)]
    return replace(of, name=name, long_name=f"standard error of the {of.long_name}")
