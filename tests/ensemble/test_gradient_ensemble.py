"""The gradient ensemble against enumerations of every minibatch, its identities, its limits, and R with its error."""

from __future__ import annotations

from copy import deepcopy
from itertools import combinations, product

import numpy as np
import pytest
import torch
from cases import digits_landscape
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from langevin_nn import Seeds, gradient_ensemble
from langevin_nn.ensemble import GradientEnsemble, covariance_factor, effective_dimension, gradient_ensembles
from langevin_nn.ensemble.alignment import Alignment, alignment_of, alignment_of_minibatches, draw_minibatches
from langevin_nn.ensemble.plane import draw_minibatch_gradients
from langevin_nn.errors import ConfigurationError, UndefinedQuantityWarning
from langevin_nn.gradients.blocks import DenseBlock, OuterProductBlock
from langevin_nn.landscape import QuadraticLandscape, SampleGradients
from langevin_nn.landscape.regression import LinearRegressionLandscape
from langevin_nn.observables import describe
from langevin_nn.schema import COHORT_PAIRS, COHORTS

pytestmark = pytest.mark.usefixtures("one_thread")

# Closed forms and enumerations differ by the rounding of some hundred float64 operations, relative to the largest
# squared gradient; cancellation between them is why the scale is not that of the result.
ROUNDING = 1e-12

SCALED_AS_SQUARES = (
    "activity",
    "directed_activity",
    "parallel_activity",
    "perpendicular_activity",
    "noise_strength",
    "parallel_noise",
)


ALIGNMENT = (
    "alignment",
    "alignment_standard_error",
    "alignment_zero_share",
    "alignment_minibatches",
    "alignment_approximation",
    "alignment_approximation_bound",
)


def ensemble_of(matrix, batch_size, **options):
    if "mislabeled" in options:
        options["mislabeled"] = torch.as_tensor(options["mislabeled"])
    gradients = SampleGradients.from_matrix(torch.as_tensor(np.asarray(matrix, dtype=np.float64)))
    return GradientEnsemble.from_sample_gradients(gradients, batch_size, **options)


def closed_forms(matrix, batch_size, cohort="all", **options):
    dataset = ensemble_of(matrix, batch_size, **options).order_parameters()
    selected = dataset.drop_dims("cohort_pair").sel(cohort=cohort)
    return {str(name): float(value) for name, value in selected.data_vars.items()}


def all_minibatches(matrix, batch_size, replacement=False):
    """The gradient of each minibatch that can be drawn, each as likely as any other."""
    samples = range(len(matrix))
    draws = product(samples, repeat=batch_size) if replacement else combinations(samples, batch_size)
    return np.array([sum(matrix[k] for k in draw) / batch_size for draw in draws])


def moments(minibatches):
    """Order parameters as averages over minibatches, word by word."""
    mean = sum(minibatches) / len(minibatches)
    size = np.sqrt(mean @ mean)
    along = np.array([gradient @ mean / size for gradient in minibatches])
    across = [gradient - part * mean / size for gradient, part in zip(minibatches, along, strict=True)]
    projections = np.array([gradient @ mean / (mean @ mean) for gradient in minibatches])
    assert np.isclose(projections.mean(), 1)
    return {
        "activity": np.mean([gradient @ gradient for gradient in minibatches]),
        "directed_activity": mean @ mean,
        "parallel_activity": np.mean(along**2),
        "perpendicular_activity": np.mean([part @ part for part in across]),
        "noise_strength": np.mean([(gradient - mean) @ (gradient - mean) for gradient in minibatches]),
        "parallel_noise": np.mean((along - size) ** 2),
        "projection_variance": np.mean((projections - 1) ** 2),
    }


def assert_same(got, expected, matrix):
    """Compare to rounding; the projection variance carries the condition of its denominator."""
    scale = np.square(matrix).sum(1).max()
    mean = np.square(np.mean(matrix, axis=0)).sum()
    for name, value in expected.items():
        tolerance = ROUNDING * scale * (scale / mean**2 if name == "projection_variance" else 1)
        assert abs(got[name] - value) <= tolerance, name


def exact_alignment(minibatches):
    """R = ‖E ĝ‖² over all minibatches with nonzero gradient, and the share of the others."""
    norms = np.linalg.norm(minibatches, axis=1)
    units = minibatches[norms > 0] / norms[norms > 0, None]
    mean = units.mean(0)
    return mean @ mean, np.mean(norms == 0)


def gaussian_matrix(n_samples, n_parameters, seed=0, mean=0.6):
    return np.random.default_rng(seed).standard_normal((n_samples, n_parameters)) + mean


entries = st.floats(-4, 4, allow_subnormal=False).map(lambda value: round(value, 6))


@st.composite
def matrices(draw, min_samples=2, max_samples=6):
    """Sample gradients with a mean that is not zero by cancellation."""
    shape = draw(st.tuples(st.integers(min_samples, max_samples), st.integers(1, 4)))
    matrix = draw(arrays(np.float64, shape, elements=entries))
    assume(np.linalg.norm(matrix.mean(0)) > 1e-2)
    return matrix


@st.composite
def cohorts(draw):
    """Six samples in cohorts of four and two; a minibatch of three has two and one of them."""
    matrix = draw(matrices(6, 6))
    mislabeled = np.zeros(6, dtype=bool)
    mislabeled[draw(st.permutations(range(6)))[:2]] = True
    assume(min(np.linalg.norm(matrix[mislabeled].mean(0)), np.linalg.norm(matrix[~mislabeled].mean(0))) > 1e-2)
    return matrix, mislabeled


# --- closed forms


@given(matrix=matrices(), batch_size=st.integers(1, 4), replacement=st.booleans())
def test_closed_forms_are_averages_over_every_minibatch(matrix, batch_size, replacement):
    assume(replacement or batch_size <= len(matrix))
    expected = moments(all_minibatches(matrix, batch_size, replacement))
    assert_same(closed_forms(matrix, batch_size, replacement=replacement), expected, matrix)


@pytest.mark.parametrize(("replacement", "wrong"), [(False, True), (True, False)])
def test_the_enumeration_sees_the_other_finite_population_factor(replacement, wrong):
    """Mutated twin: f of the other way to draw."""
    matrix = gaussian_matrix(6, 3)
    expected = moments(all_minibatches(matrix, 2, replacement))
    with pytest.raises(AssertionError, match="activity"):
        assert_same(closed_forms(matrix, 2, replacement=wrong), expected, matrix)


@given(matrix=matrices(), batch_size=st.integers(1, 4), replacement=st.booleans())
def test_the_noise_spectrum_is_that_of_the_covariance_over_every_minibatch(matrix, batch_size, replacement):
    assume(replacement or batch_size <= len(matrix))
    minibatches = all_minibatches(matrix, batch_size, replacement)
    deviations = minibatches - minibatches.mean(0)
    expected = np.linalg.eigvalsh(deviations.T @ deviations / len(deviations))[::-1]
    got = ensemble_of(matrix, batch_size, replacement=replacement).noise_eigenvalues()
    n_modes = min(len(got), len(expected))
    scale = np.square(matrix).sum(1).max()
    np.testing.assert_allclose(got[:n_modes], expected[:n_modes], rtol=0, atol=ROUNDING * scale)
    assert (abs(got[n_modes:]) <= ROUNDING * scale).all()
    assert (abs(expected[n_modes:]) <= ROUNDING * scale).all()
    assert (np.diff(got) <= 0).all()


@given(data=cohorts())
def test_cohort_quantities_are_averages_over_every_minibatch_of_the_cohort(data):
    matrix, mislabeled = data
    for cohort, members, size in (("correct", ~mislabeled, 2), ("mislabeled", mislabeled, 1)):
        got = closed_forms(matrix, 3, cohort, mislabeled=mislabeled)
        expected = moments(all_minibatches(matrix[members], size))
        share = members.mean()
        expected["directed_activity"] *= share**2
        assert_same(got, expected, matrix[members])


# --- identities of section 3


@given(data=cohorts(), batch_size=st.integers(1, 6), replacement=st.booleans())
def test_activities_add_up(data, batch_size, replacement):
    matrix, mislabeled = data
    tolerance = ROUNDING * np.square(matrix).sum(1).max()
    for cohort in COHORTS:
        got = closed_forms(matrix, batch_size, cohort, mislabeled=mislabeled, replacement=replacement)
        assert abs(got["activity"] - got["parallel_activity"] - got["perpendicular_activity"]) <= tolerance
        assert abs(got["noise_strength"] - got["perpendicular_activity"] - got["parallel_noise"]) <= 3 * tolerance
        if cohort == "all":
            assert abs(got["activity"] - got["directed_activity"] - got["noise_strength"]) <= tolerance
            ratio = got["parallel_noise"] / got["directed_activity"]
            assert got["projection_variance"] == pytest.approx(ratio, rel=1e-12)


@given(data=cohorts())
def test_mean_gradients_and_directed_activities_of_the_cohorts_make_the_whole(data):
    matrix, mislabeled = data
    ensemble = ensemble_of(matrix, 3, mislabeled=mislabeled)
    order = ensemble.order_parameters()
    rho = mislabeled.mean()
    correct, wrong = matrix[~mislabeled].mean(0), matrix[mislabeled].mean(0)
    scale = np.square(matrix).sum(1).max()
    np.testing.assert_allclose(ensemble.mean_gradient, (1 - rho) * correct + rho * wrong, atol=1e-14)

    cosine = correct @ wrong / np.linalg.norm(correct) / np.linalg.norm(wrong)
    assert float(order.gradient_alignment.sel(cohort_pair="correct_mislabeled")) == pytest.approx(cosine, abs=1e-12)
    for pair, part in (("all_correct", correct), ("all_mislabeled", wrong)):
        mean = matrix.mean(0)
        cosine = mean @ part / np.linalg.norm(mean) / np.linalg.norm(part)
        assert float(order.gradient_alignment.sel(cohort_pair=pair)) == pytest.approx(cosine, abs=1e-12)

    directed = order.directed_activity
    cross = 2 * np.sqrt(float(directed.sel(cohort="correct")) * float(directed.sel(cohort="mislabeled")))
    whole = float(directed.sel(cohort="correct")) + float(directed.sel(cohort="mislabeled"))
    whole += cross * float(order.gradient_alignment.sel(cohort_pair="correct_mislabeled"))
    assert abs(whole - float(directed.sel(cohort="all"))) <= ROUNDING * scale


@given(data=cohorts())
def test_the_variance_of_the_whole_is_that_within_and_that_between_cohorts(data):
    matrix, mislabeled = data
    trace, of_correct, of_wrong = ensemble_of(matrix, 3, mislabeled=mislabeled).sample_trace
    rho = mislabeled.mean()
    gap = matrix[~mislabeled].mean(0) - matrix[mislabeled].mean(0)
    expected = (1 - rho) * of_correct + rho * of_wrong + rho * (1 - rho) * gap @ gap
    assert abs(trace - expected) <= ROUNDING * np.square(matrix).sum(1).max()


def paper_equation_15(matrix, batch_size, mislabeled, replacement=False):
    """A of the whole from the cohorts' activities and mean gradients."""
    activities = [
        closed_forms(matrix, batch_size, cohort, mislabeled=mislabeled, replacement=replacement)["activity"]
        for cohort in ("correct", "mislabeled")
    ]
    rho = mislabeled.mean()
    cross = matrix[~mislabeled].mean(0) @ matrix[mislabeled].mean(0)
    return (1 - rho) ** 2 * activities[0] + rho**2 * activities[1] + 2 * rho * (1 - rho) * cross


@given(data=cohorts())
def test_equation_15_holds_for_stratified_minibatches(data):
    """Two of the four correct and one of the two mislabeled samples, drawn separately."""
    matrix, mislabeled = data
    right, wrong = np.flatnonzero(~mislabeled), np.flatnonzero(mislabeled)
    drawn = [matrix[[*two, one]].mean(0) for two in combinations(right, 2) for one in wrong]
    activity = np.mean([gradient @ gradient for gradient in drawn])
    difference = activity - paper_equation_15(matrix, 3, mislabeled)
    assert abs(difference) <= ROUNDING * np.square(matrix).sum(1).max()


@given(data=cohorts(), replacement=st.booleans())
def test_equation_15_misses_the_variance_between_cohorts_for_plain_minibatches(data, replacement):
    """By (f/B) ρ(1−ρ) ‖g_c − g_w‖², exactly with replacement and without the cohorts' own scatter divided by N_c − 1."""
    matrix, mislabeled = data
    minibatches = all_minibatches(matrix, 3, replacement)
    missed = np.mean(np.square(minibatches).sum(1)) - paper_equation_15(matrix, 3, mislabeled, replacement)
    parts = matrix[~mislabeled], matrix[mislabeled]
    between = np.square(parts[0].mean(0) - parts[1].mean(0)).sum()
    if not replacement:
        between -= sum(np.square(part - part.mean(0)).sum(1).mean() / (len(part) - 1) for part in parts)
    factor = 1 / 3 if replacement else (6 - 3) / (6 - 1) / 3
    rho = mislabeled.mean()
    assert abs(missed - factor * rho * (1 - rho) * between) <= ROUNDING * np.square(matrix).sum(1).max()


# --- invariances


@given(data=cohorts(), order=st.permutations(range(6)), batch_size=st.integers(1, 6))
def test_the_order_of_the_samples_does_not_matter(data, order, batch_size):
    matrix, mislabeled = data
    first = ensemble_of(matrix, batch_size, mislabeled=mislabeled)
    second = ensemble_of(matrix[order], batch_size, mislabeled=mislabeled[order])
    assert_equal_ensembles(first, second, matrix)


@given(data=cohorts(), seed=st.integers(0, 2**32 - 1), batch_size=st.integers(1, 6))
def test_a_rotation_of_weight_space_does_not_matter(data, seed, batch_size):
    matrix, mislabeled = data
    rotation, _ = np.linalg.qr(np.random.default_rng(seed).standard_normal((matrix.shape[1],) * 2))
    first = ensemble_of(matrix, batch_size, mislabeled=mislabeled)
    second = ensemble_of(matrix @ rotation, batch_size, mislabeled=mislabeled)
    assert_equal_ensembles(first, second, matrix)

    indices = torch.as_tensor(np.random.default_rng(seed).integers(6, size=(20, 2)))
    aligned = [
        alignment_of_minibatches(SampleGradients.from_matrix(torch.as_tensor(each)), indices).value
        for each in (matrix, matrix @ rotation)
    ]
    norms = np.linalg.norm(matrix[indices].mean(1), axis=1)
    if norms.min() > 1e-3:  # a nearly vanishing minibatch gradient has no direction to speak of
        assert aligned[0] == pytest.approx(aligned[1], abs=1e-9)


def assert_equal_ensembles(first, second, matrix, factor=1.0):
    smallest = min(first.order_parameters().directed_activity.values)
    scale = np.square(matrix).sum(1).max()
    one, other = first.order_parameters(), second.order_parameters()
    for name in SCALED_AS_SQUARES:
        np.testing.assert_allclose(
            other[name], factor * one[name], rtol=0, atol=factor * ROUNDING * scale, err_msg=name
        )
    np.testing.assert_allclose(
        other.projection_variance, one.projection_variance, rtol=0, atol=ROUNDING * (1 + scale / smallest) ** 2
    )
    np.testing.assert_allclose(other.gradient_alignment, one.gradient_alignment, rtol=0, atol=1e-10)
    np.testing.assert_allclose(
        second.noise_eigenvalues(), factor * first.noise_eigenvalues(), rtol=0, atol=factor * ROUNDING * scale
    )


@given(data=cohorts(), power=st.integers(-8, 8), batch_size=st.integers(1, 5))
def test_scaling_the_loss_scales_activities_by_its_square_and_leaves_ratios(data, power, batch_size):
    """By a power of two, so that nothing is rounded anew."""
    matrix, mislabeled = data
    s = 2.0**power
    first = ensemble_of(matrix, batch_size, mislabeled=mislabeled)
    second = ensemble_of(s * matrix, batch_size, mislabeled=mislabeled)
    one, other = (each.order_parameters(np.random.default_rng(3), n_minibatches=20) for each in (first, second))
    for name in SCALED_AS_SQUARES:
        np.testing.assert_allclose(other[name], s**2 * one[name], rtol=1e-12, atol=ROUNDING * s**2)
    for name in ("projection_variance", "alignment", "alignment_standard_error", "gradient_alignment"):
        np.testing.assert_allclose(other[name], one[name], rtol=1e-9, atol=1e-12, err_msg=name)
    dimensions = [float(each.spectrum().effective_dimension) for each in (first, second)]
    np.testing.assert_equal(*dimensions)


# --- limits

VANISHING = (
    r"^the mean gradient is zero: projection_variance, gradient_noise_scale, alignment .* undefined here, and NaN$"
)


@given(matrix=matrices())
def test_the_whole_set_is_one_minibatch_without_noise(matrix):
    ensemble = ensemble_of(matrix, len(matrix))
    order = ensemble.order_parameters(np.random.default_rng(0)).sel(cohort="all")
    for name in ("noise_strength", "parallel_noise", "perpendicular_activity", "projection_variance"):
        assert float(order[name]) == 0
    assert float(order.activity) == float(order.directed_activity) == float(order.parallel_activity)
    assert (float(order.alignment), float(order.alignment_standard_error)) == (1, 0)
    assert (ensemble.noise_eigenvalues() == 0).all()
    assert np.isnan(float(ensemble.spectrum().effective_dimension))


@pytest.mark.parametrize("replacement", [False, True])
def test_one_sample_has_no_noise(replacement):
    ensemble = ensemble_of([[3.0, 4.0]], 1, replacement=replacement)
    order = ensemble.order_parameters(np.random.default_rng(0)).sel(cohort="all")
    assert float(order.activity) == float(order.directed_activity) == 25
    assert float(order.noise_strength) == float(order.projection_variance) == 0
    assert float(order.alignment) == pytest.approx(1, abs=1e-15)
    assert covariance_factor(1, 1) == 0


@pytest.mark.parametrize(
    "matrix", [[[1.0, 2.0], [-1.0, -2.0], [3.0, 0.5], [-3.0, -0.5]], np.zeros((4, 2))], ids=["balanced", "all zero"]
)
@pytest.mark.parametrize("batch_size", [1, 2, 4])
def test_a_vanishing_mean_gradient_gives_nan_with_a_warning_and_never_an_infinity(matrix, batch_size):
    ensemble = ensemble_of(matrix, batch_size)
    with pytest.warns(UndefinedQuantityWarning, match=VANISHING) as caught:
        order = ensemble.order_parameters(np.random.default_rng(0)).sel(cohort="all")
    assert len(caught) == 1
    assert caught[0].filename == __file__  # it points to the line that asked
    assert float(order.directed_activity) == 0
    assert float(order.activity) == float(order.noise_strength)
    undefined = ["projection_variance", "alignment", "alignment_standard_error"]
    undefined += ["parallel_activity", "perpendicular_activity", "parallel_noise"]
    undefined += ["gradient_noise_scale", "alignment_approximation", "alignment_approximation_bound"]
    assert all(np.isnan(float(order[name])) for name in undefined)
    for values in order.data_vars.values():
        assert not np.isinf(values).any()


def test_the_arrays_of_a_vanishing_mean_gradient_are_nan_without_a_warning():
    """Recording takes those: a run of a thousand records warns elsewhere or not at all."""
    ensemble = ensemble_of(np.zeros((4, 2)), 2)
    values = ensemble.closed_forms() | ensemble.alignment(np.random.default_rng(0))
    assert np.isnan(values["projection_variance"][0])
    assert np.isnan(values["alignment"][0])
    assert not any(np.isinf(value).any() for value in values.values())


def test_an_empty_cohort_is_nan_and_leaves_the_rest():
    matrix = gaussian_matrix(6, 3)
    order = ensemble_of(matrix, 2).order_parameters(np.random.default_rng(0))
    for name, values in order.drop_dims("cohort_pair").data_vars.items():
        assert np.isnan(values.sel(cohort="mislabeled")), name
        assert np.isfinite(values.sel(cohort="all")), name
    np.testing.assert_allclose(order.activity.sel(cohort="correct"), order.activity.sel(cohort="all"), rtol=1e-14)
    assert np.isnan(order.gradient_alignment.sel(cohort_pair="correct_mislabeled"))
    assert np.isnan(order.gradient_alignment.sel(cohort_pair="all_mislabeled"))
    assert float(order.gradient_alignment.sel(cohort_pair="all_correct")) == pytest.approx(1, abs=1e-15)


def test_a_cohort_of_one_sample_has_a_direction_and_no_variance():
    matrix = gaussian_matrix(6, 3)
    mislabeled = np.arange(6) == 4
    order = ensemble_of(matrix, 2, mislabeled=mislabeled).order_parameters(np.random.default_rng(0))
    lone = order.sel(cohort="mislabeled")
    assert float(lone.directed_activity) == pytest.approx(matrix[4] @ matrix[4] / 36, rel=1e-14)
    assert float(lone.alignment) == pytest.approx(1, abs=1e-14)
    for name in ("activity", "noise_strength", "parallel_noise", "perpendicular_activity", "projection_variance"):
        assert np.isnan(lone[name]), name
    assert np.isfinite(order.gradient_alignment).all()


@pytest.mark.parametrize("batch_size", [0, -1, 6])
def test_a_minibatch_that_cannot_be_drawn_is_refused(batch_size):
    with pytest.raises(ConfigurationError, match=rf"batch_size={batch_size} with 5 samples: expected 1 to 5, since"):
        ensemble_of(gaussian_matrix(5, 2), batch_size)


def test_minibatches_are_counted_in_whole_numbers():
    samples, generator = SampleGradients.from_matrix(torch.eye(4)), np.random.default_rng(0)
    moments = GradientEnsemble.from_moments(torch.ones(2), torch.eye(2))
    inputs = np.arange(8.0).reshape(4, 2)
    for size in (2.5, 2.0, True, "2"):
        for refused in (
            lambda: GradientEnsemble.from_sample_gradients(samples, size),  # noqa: B023
            lambda: GradientEnsemble.from_moments(torch.ones(2), torch.eye(2), size),  # noqa: B023
            lambda: draw_minibatch_gradients(samples, size, generator),  # noqa: B023
            lambda: LinearRegressionLandscape(inputs, inputs[:, 0]).noise_covariance(np.zeros(2), size),  # noqa: B023
        ):
            with pytest.raises(ConfigurationError, match=r"batch_size=.*: expected a whole number"):
                refused()
        for ensemble in (moments, GradientEnsemble.from_sample_gradients(samples, 2)):
            with pytest.raises(ConfigurationError, match=r"n_minibatches=.*: expected a whole number"):
                ensemble.alignment(generator, size)
        with pytest.raises(ConfigurationError, match=r"n_minibatches=.*: expected a whole number"):
            draw_minibatch_gradients(samples, 2, generator, size)


@pytest.mark.parametrize("arguments", [(0, 1), (-1, 1), (5, 0), (0, 0)])
def test_the_covariance_factor_of_nothing_is_nan(arguments):
    assert np.isnan(covariance_factor(*arguments))


# --- alignment: the estimate


@pytest.mark.parametrize("replacement", [False, True])
@pytest.mark.parametrize("batch_size", [2, 3, 5])
def test_alignment_is_that_of_all_pairs_of_minibatches(batch_size, replacement):
    """Within four of its own standard errors, which 4,000 minibatches make smaller than 0.02."""
    matrix = gaussian_matrix(6, 4, mean=0.4)
    exact, _ = exact_alignment(all_minibatches(matrix, batch_size, replacement))
    estimate = ensemble_of(matrix, batch_size, replacement=replacement).alignment(np.random.default_rng(1), 4000)
    value, error = estimate["alignment"][0], estimate["alignment_standard_error"][0]
    assert 0.1 < exact < 0.97
    assert 0 < error < 0.02
    assert abs(value - exact) < 4 * error


def test_alignment_of_a_cohort_draws_its_rounded_share_of_a_minibatch():
    """B = 4 with 6 of 8 samples correct: three correct ones and one mislabeled."""
    matrix, mislabeled = gaussian_matrix(8, 4, mean=0.4), np.arange(8) >= 6
    estimate = ensemble_of(matrix, 4, mislabeled=mislabeled).alignment(np.random.default_rng(1), 4000)
    exact, _ = exact_alignment(all_minibatches(matrix[:6], 3))
    assert abs(estimate["alignment"][1] - exact) < 4 * estimate["alignment_standard_error"][1]
    assert estimate["alignment_standard_error"][1] < 0.02
    alone, _ = exact_alignment(matrix[6:])
    assert estimate["alignment"][2] == pytest.approx(alone, rel=1e-12)
    assert estimate["alignment_standard_error"][2] == 0


@given(matrix=matrices(), replacement=st.booleans())
def test_alignment_of_single_samples_is_exact(matrix, replacement):
    exact, zero_share = exact_alignment(matrix)
    estimate = ensemble_of(matrix, 1, replacement=replacement).alignment(np.random.default_rng(1), 3)
    assert estimate["alignment"][0] == pytest.approx(exact, abs=1e-12)
    assert estimate["alignment_standard_error"][0] == 0
    assert estimate["alignment_zero_share"][0] == pytest.approx(zero_share, abs=1e-15)


SPARSE = np.array([[1.0, 2.0], [0, 0], [0, 0], [0, 0]])


def test_minibatches_with_zero_gradient_are_left_out_and_counted():
    """Half of the pairs of four samples miss the only one that has a gradient."""
    n_minibatches = 2000
    estimate = ensemble_of(SPARSE, 2).alignment(np.random.default_rng(1), n_minibatches)
    assert estimate["alignment"][0] == pytest.approx(1, abs=1e-12)
    assert estimate["alignment_standard_error"][0] == pytest.approx(0, abs=1e-12)
    assert abs(estimate["alignment_zero_share"][0] - 0.5) < 4 * np.sqrt(0.25 / n_minibatches)
    single = ensemble_of(SPARSE, 1).alignment(np.random.default_rng(1))
    assert (single["alignment"][0], single["alignment_zero_share"][0]) == (pytest.approx(1), 0.75)


def test_fewer_than_two_directions_have_no_alignment_and_two_no_error():
    assert np.isnan(alignment_of(torch.zeros(4, 2)).value)
    assert alignment_of(torch.zeros(4, 2)).zero_share == 1
    one = alignment_of(torch.tensor([[1.0, 0.0], [0.0, 0.0]]))
    assert np.isnan(one.value)
    assert one.zero_share == 0.5
    two = alignment_of(torch.tensor([[1.0, 0.0], [1.0, 1.0]], dtype=torch.float64))
    assert two.value == pytest.approx(np.sqrt(0.5))
    assert np.isnan(two.standard_error)
    gradients = SampleGradients.from_matrix(torch.as_tensor(SPARSE))
    assert alignment_of_minibatches(gradients, torch.tensor([[1, 2], [2, 3]])).zero_share == 1
    np.testing.assert_equal(Alignment.undefined(), Alignment(np.nan, np.nan, np.nan))


@given(
    matrix=matrices(3, 6),
    batch_size=st.integers(1, 4),
    n_minibatches=st.integers(3, 12),
    seed=st.integers(0, 2**32 - 1),
)
def test_value_and_error_are_the_mean_over_pairs_and_the_delete_one_jackknife(matrix, batch_size, n_minibatches, seed):
    """Against loops: over pairs for the value, over what is left after each deletion for the error."""
    indices = np.random.default_rng(seed).integers(len(matrix), size=(n_minibatches, batch_size))
    minibatches = np.array([matrix[row].mean(0) for row in indices])
    assume(np.linalg.norm(minibatches, axis=1).min() > 1e-3)
    units = minibatches / np.linalg.norm(minibatches, axis=1, keepdims=True)

    def mean_over_pairs(vectors):
        return np.mean([a @ b for a, b in combinations(vectors, 2)])

    deleted = np.array([mean_over_pairs(np.delete(units, k, axis=0)) for k in range(n_minibatches)])
    error = np.sqrt((n_minibatches - 1) * np.mean((deleted - deleted.mean()) ** 2))
    gradients = SampleGradients.from_matrix(torch.as_tensor(matrix))
    for got in (
        alignment_of(torch.as_tensor(minibatches)),
        alignment_of_minibatches(gradients, torch.as_tensor(indices)),
    ):
        assert got.value == pytest.approx(mean_over_pairs(units), abs=1e-9)
        # The error is the root of a difference: rounding of 1e-16 in it shows as 1e-8.
        assert got.standard_error == pytest.approx(error, abs=1e-7)
        assert got.zero_share == 0


@pytest.mark.parametrize("room", [0, 2**28], ids=["no room", "room"])
@pytest.mark.parametrize("chunk", [1, 37, 2**22])
def test_minibatches_need_not_be_formed(monkeypatch, chunk, room):
    """Stored and outer-product blocks side by side, worked through in pieces of any size."""
    monkeypatch.setattr("langevin_nn.gradients.blocks.ELEMENTS_AT_A_TIME", chunk)
    generator = np.random.default_rng(2)
    signals, activations, stored = (torch.as_tensor(generator.standard_normal((9, p)) + 0.3) for p in (3, 5, 4))
    signals[0], stored[0] = 0, 0  # one sample without gradient
    blocks = {"weight": OuterProductBlock(signals, activations), "bias": DenseBlock(stored)}
    matrix = np.hstack([np.einsum("no,ni->noi", signals, activations).reshape(9, -1), stored])
    indices = np.vstack([generator.integers(9, size=(40, 3)), [[0, 0, 0]]])
    expected = alignment_of(torch.as_tensor(matrix[indices].mean(1)))
    gradients = SampleGradients(blocks, room=room)
    assert (gradients.minibatch_gradients(torch.as_tensor(indices)) is None) == (room == 0)
    got = alignment_of_minibatches(gradients, torch.as_tensor(indices))
    assert got.value == pytest.approx(expected.value, abs=1e-12)
    assert got.standard_error == pytest.approx(expected.standard_error, abs=1e-12)
    assert got.zero_share == expected.zero_share == pytest.approx(1 / 41)


# --- alignment: draws and error

N_REPETITIONS, N_MINIBATCHES = 300, 40


def error_over_pairs(gradients, indices):
    """Mutated twin of the jackknife: pairs of minibatches treated as if they were independent."""
    minibatches = gradients.dense()[indices].mean(1)
    units = minibatches / torch.linalg.vector_norm(minibatches, dim=1, keepdim=True)
    upper = np.triu_indices(len(units), k=1)
    cosines = (units @ units.T).numpy()[upper]
    return cosines.std(ddof=1) / np.sqrt(len(cosines))


def test_the_estimate_of_alignment_is_unbiased_and_its_error_is_its_spread():
    """300 repetitions fix the spread to 1/√600 = 4 %, so that 15 % are more than three standard errors."""
    matrix = gaussian_matrix(40, 12, mean=0.25)
    gradients = SampleGradients.from_matrix(torch.as_tensor(matrix))
    generator = np.random.default_rng(11)
    values, errors, twins = [], [], []
    for _ in range(N_REPETITIONS):
        indices = torch.as_tensor(draw_minibatches(generator, 40, 4, N_MINIBATCHES, replacement=False))
        estimate = alignment_of_minibatches(gradients, indices)
        values.append(estimate.value)
        errors.append(estimate.standard_error)
        twins.append(error_over_pairs(gradients, indices))
    exact, _ = exact_alignment(all_minibatches(matrix, 4))
    spread = np.std(values, ddof=1)
    assert abs(np.mean(values) - exact) < 4 * spread / np.sqrt(N_REPETITIONS)
    assert np.mean(errors) == pytest.approx(spread, rel=0.15)
    assert np.mean(twins) < 0.5 * spread


def test_intervals_of_alignments_that_are_exact_or_have_no_error():
    assert Alignment(0.3, 0.0, 0.0, 0).interval() == (0.3, 0.3)
    assert alignment_of(torch.ones(5, 2)).interval() == pytest.approx((1, 1))
    assert np.isnan(alignment_of(torch.ones(2, 2)).interval()).all()
    # Two minibatches against two have no error by jackknife, and yet the mean may be large.
    lower, upper = alignment_of(torch.tensor([[1.0], [1.0], [-1.0], [-1.0]])).interval()
    assert lower <= 0 < upper == pytest.approx((1.959964**2 - 1) / 3)


def test_the_error_is_on_the_safe_side_where_directions_are_random():
    """At R ≈ 0 pairs are uncorrelated and the jackknife reports √2 times the spread, never less than it."""
    generator = np.random.default_rng(12)
    estimates = [alignment_of(torch.as_tensor(generator.standard_normal((40, 12)))) for _ in range(N_REPETITIONS)]
    spread = np.std([estimate.value for estimate in estimates], ddof=1)
    ratio = np.mean([estimate.standard_error for estimate in estimates]) / spread
    assert 1 < ratio < np.sqrt(2) * 1.15


def test_independent_draws_meet_the_exact_alignment_and_one_epochs_partition_misses_it():
    """Mutated twin: minibatches that share no sample shift R by about −(B/(N−B))·D/A."""
    matrix, generator = gaussian_matrix(24, 30, mean=0.3), np.random.default_rng(5)
    gradients = SampleGradients.from_matrix(torch.as_tensor(matrix))
    exact, _ = exact_alignment(all_minibatches(matrix, 4))
    ways = {
        "independent": lambda: draw_minibatches(generator, 24, 4, 6, replacement=False),
        "partition": lambda: generator.permutation(24).reshape(-1, 4),
    }
    off, errors = {}, {}
    for name, draw in ways.items():
        values = [alignment_of_minibatches(gradients, torch.as_tensor(draw())).value for _ in range(600)]
        off[name], errors[name] = np.mean(values) - exact, np.std(values, ddof=1) / np.sqrt(600)
    assert abs(off["independent"]) < 4 * errors["independent"]
    order = ensemble_of(matrix, 4).order_parameters().sel(cohort="all")
    assert abs(off["partition"]) > 20 * errors["partition"]
    assert off["partition"] == pytest.approx(-(4 / 20) * float(order.noise_strength / order.activity), rel=0.2)


@pytest.mark.parametrize("replacement", [False, True])
@pytest.mark.parametrize("batch_size", [1, 3, 5])
def test_draws_are_uniform_over_minibatches_and_independent_of_each_other(replacement, batch_size):
    """Counts of 20,000 drawn sets are multinomial: χ² within four of its standard deviations, √(2k)."""
    n_drawn = 20_000
    drawn = draw_minibatches(np.random.default_rng(6), 5, batch_size, n_drawn, replacement)
    assert drawn.shape == (n_drawn, batch_size)
    if replacement:
        kinds, law = list(product(range(5), repeat=batch_size)), drawn
    else:
        kinds, law = list(combinations(range(5), batch_size)), np.sort(drawn, axis=1)
    place = {kind: number for number, kind in enumerate(kinds)}
    numbers = np.array([place[tuple(row)] for row in law.tolist()])
    expected = n_drawn / len(kinds)
    chi_squared = np.square(np.bincount(numbers, minlength=len(kinds)) - expected).sum() / expected
    freedom = len(kinds) - 1
    assert abs(chi_squared - freedom) <= 4 * np.sqrt(2 * freedom)
    if freedom:
        # Consecutive minibatches coincide as often as chance has it: those of one epoch never would.
        coincide = np.mean(numbers[1:] == numbers[:-1])
        assert abs(coincide - 1 / len(kinds)) < 4 * np.sqrt(1 / len(kinds) / n_drawn)


# --- moments

MEAN = np.array([0.8, -0.5, 0.3, 0.0])
FACTOR = np.array([[0.9, 0.1, 0.0], [0.2, 0.7, -0.3], [0.0, 0.4, 0.5], [0.3, 0.0, 0.2]])


def moment_ensemble(mean=MEAN, factor=FACTOR):
    return GradientEnsemble.from_moments(torch.as_tensor(mean), torch.as_tensor(factor))


def gaussian_minibatches(n=200_000):
    return MEAN + np.random.default_rng(8).standard_normal((n, 3)) @ FACTOR.T


def deviations_in_standard_errors(order, draws):
    """How far each order parameter is from its average over draws, in standard errors of that average."""
    unit = MEAN / np.linalg.norm(MEAN)
    along = draws @ unit
    each = {
        "activity": np.square(draws).sum(1),
        "parallel_activity": along**2,
        "perpendicular_activity": np.square(draws).sum(1) - along**2,
        "noise_strength": np.square(draws - MEAN).sum(1),
        "parallel_noise": (along - np.linalg.norm(MEAN)) ** 2,
        "projection_variance": (along / np.linalg.norm(MEAN) - 1) ** 2,
    }
    return {
        name: abs(float(order[name]) - values.mean()) / (values.std() / np.sqrt(len(values)))
        for name, values in each.items()
    }


def test_the_ensemble_of_moments_is_that_of_gaussian_draws():
    """200,000 draws fix each average to about 0.3 %: F times 1.05 would be seen in each."""
    order, twin = (moment_ensemble(factor=k * FACTOR).order_parameters().sel(cohort="all") for k in (1, 1.05))
    assert float(order.directed_activity) == pytest.approx(MEAN @ MEAN, rel=1e-14)
    assert max(deviations_in_standard_errors(order, gaussian_minibatches()).values()) < 4
    assert min(deviations_in_standard_errors(twin, gaussian_minibatches()).values()) > 4


def test_alignment_of_moments_is_that_of_gaussian_draws():
    exact, _ = exact_alignment(gaussian_minibatches())
    estimate = moment_ensemble().alignment(np.random.default_rng(9), 4000)
    assert estimate["alignment_standard_error"][0] < 0.02
    assert abs(estimate["alignment"][0] - exact) < 4 * estimate["alignment_standard_error"][0]
    assert estimate["alignment_zero_share"][0] == 0


def test_moments_have_the_spectrum_of_the_covariance_and_no_cohorts():
    ensemble = moment_ensemble()
    expected = np.linalg.eigvalsh(FACTOR @ FACTOR.T)[::-1]
    np.testing.assert_allclose(ensemble.noise_eigenvalues(), expected[:3], rtol=1e-12)
    order = ensemble.order_parameters(np.random.default_rng(0))
    assert np.isnan(order.drop_dims("cohort_pair").sel(cohort=["correct", "mislabeled"]).to_array()).all()
    assert np.isnan(order.gradient_alignment).all()


def test_moments_without_mean_or_without_noise():
    with pytest.warns(UndefinedQuantityWarning, match=VANISHING):
        order = moment_ensemble(mean=np.zeros(4)).order_parameters(np.random.default_rng(0)).sel(cohort="all")
    assert float(order.activity) == float(order.noise_strength) > 0
    undefined = ("projection_variance", "parallel_noise", "parallel_activity", "perpendicular_activity", "alignment")
    for name in (*undefined, "gradient_noise_scale", "alignment_approximation", "alignment_approximation_bound"):
        assert np.isnan(order[name]), name
    still = moment_ensemble(factor=np.zeros((4, 2))).order_parameters(np.random.default_rng(0)).sel(cohort="all")
    assert float(still.noise_strength) == float(still.projection_variance) == 0
    assert float(still.alignment) == pytest.approx(1, abs=1e-14)


# --- moments and samples

N_DRAWS = 20_000


def worst_deviations(ensemble, covariance, n_draws=N_DRAWS):
    """Mean and covariance of Gaussian noise, in standard errors of each entry under the law N(0, C)."""
    draws = ensemble.gaussian_noise(np.random.default_rng(7), n_draws).numpy()
    assert draws.shape == (n_draws, len(covariance))
    variances = np.diag(covariance)
    means = np.abs(draws.mean(0)) / np.sqrt(variances / n_draws)
    errors = np.sqrt((covariance**2 + np.outer(variances, variances)) / n_draws)
    return means.max(), (np.abs(draws.T @ draws / n_draws - covariance) / errors).max()


def empirical_covariance(matrix, batch_size, replacement):
    minibatches = all_minibatches(matrix, batch_size, replacement)
    deviations = minibatches - minibatches.mean(0)
    return deviations.T @ deviations / len(deviations)


# Of some twenty entries the worst lies below this many standard errors in all but one of ten thousand samples.
WORST = 4.5
NOISY = {
    "without replacement": (lambda: ensemble_of(gaussian_matrix(6, 4), 2), lambda: (6, 4, 2, False)),
    "with replacement": (lambda: ensemble_of(gaussian_matrix(5, 3), 3, replacement=True), lambda: (5, 3, 3, True)),
    "fewer samples than parameters": (lambda: ensemble_of(gaussian_matrix(4, 6), 2), lambda: (4, 6, 2, False)),
    "moments": (lambda: moment_ensemble(), None),
}


@pytest.mark.parametrize(("make", "of"), NOISY.values(), ids=NOISY.keys())
def test_gaussian_noise_has_the_covariance_of_minibatches_and_no_mean(make, of):
    covariance = FACTOR @ FACTOR.T
    if of is not None:
        n_samples, n_parameters, batch_size, replacement = of()
        covariance = empirical_covariance(gaussian_matrix(n_samples, n_parameters), batch_size, replacement)
    ensemble = make()
    np.testing.assert_allclose(ensemble.covariance.dense(), covariance, rtol=0, atol=1e-12)
    of_mean, of_covariance = worst_deviations(ensemble, covariance)
    assert of_mean < WORST
    assert of_covariance < WORST
    # Mutated twin: noise that is 5 % too loud.
    assert worst_deviations(ensemble, covariance / 1.05**2)[1] > WORST


def test_gaussian_noise_of_independent_draws_is_independent():
    draws = moment_ensemble().gaussian_noise(np.random.default_rng(1), N_DRAWS).numpy()
    one, other = draws[:-1], draws[1:]
    variances = np.diag(FACTOR @ FACTOR.T)
    errors = np.sqrt(np.outer(variances, variances) / N_DRAWS)
    assert (np.abs(one.T @ other / N_DRAWS) / errors).max() < WORST


@given(matrix=matrices(), batch_size=st.integers(1, 6), replacement=st.booleans())
def test_the_gradient_noise_scale_is_the_batch_size_at_which_noise_equals_drift(matrix, batch_size, replacement):
    """With replacement D = A₀ there; it depends neither on B nor on how minibatches are drawn."""
    batch_size = min(batch_size, len(matrix))
    order = closed_forms(matrix, batch_size, replacement=replacement)
    mean = matrix.mean(0)
    expected = sum((row - mean) @ (row - mean) for row in matrix) / len(matrix) / (mean @ mean)
    tolerance = ROUNDING * (np.square(matrix).sum(1).max() / (mean @ mean)) ** 2
    assert abs(order["gradient_noise_scale"] - expected) <= tolerance * max(1, expected)
    if replacement:
        drift = order["directed_activity"] * order["gradient_noise_scale"] / batch_size
        assert order["noise_strength"] == pytest.approx(drift, rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("batch_size", [1, 4])
def test_the_gradient_noise_scale_of_moments_counts_their_minibatches(batch_size):
    ensemble = GradientEnsemble.from_moments(torch.as_tensor(MEAN), torch.as_tensor(FACTOR), batch_size)
    scale = float(ensemble.order_parameters().gradient_noise_scale.sel(cohort="all"))
    assert scale == pytest.approx(batch_size * np.square(FACTOR).sum() / (MEAN @ MEAN), rel=1e-13)
    surrogate = QuadraticLandscape(np.eye(2), np.diag([3.0, 1.0]))
    weights = torch.tensor([1.0, 1.0], dtype=torch.float64)
    order = gradient_ensemble(surrogate, weights, batch_size).order_parameters()
    assert float(order.gradient_noise_scale.sel(cohort="all")) == pytest.approx(batch_size * 4 / 2)


def enumerated_bound(matrix, batch_size, replacement=False):
    """R, A₀/A and s² by running through every minibatch."""
    minibatches = all_minibatches(matrix, batch_size, replacement)
    exact, _ = exact_alignment(minibatches)
    activity = np.mean([gradient @ gradient for gradient in minibatches])
    mean = sum(minibatches) / len(minibatches)
    lengths = np.array([np.sqrt(gradient @ gradient) for gradient in minibatches])
    return exact, mean @ mean / activity, np.mean((1 - lengths / np.sqrt(activity)) ** 2)


@given(matrix=matrices(3, 6), batch_size=st.integers(1, 4), replacement=st.booleans())
def test_the_bound_on_the_approximation_of_alignment_holds(matrix, batch_size, replacement):
    """With R and s² over every minibatch; the library is given each of them once as its draw."""
    batch_size = min(batch_size, len(matrix) - 1)
    exact, approximation, spread = enumerated_bound(matrix, batch_size, replacement)
    bound = np.sqrt(spread) * (2 * np.sqrt(approximation) + np.sqrt(spread))
    assert abs(exact - approximation) <= bound + 1e-12
    ensemble = ensemble_of(matrix, batch_size, replacement=replacement)
    draws = (
        product(range(len(matrix)), repeat=batch_size) if replacement else combinations(range(len(matrix)), batch_size)
    )
    every = torch.tensor(list(draws))
    estimate = alignment_of_minibatches(ensemble.gradients, every)
    # Norms from Gram matrices are roots: their rounding is that of the squares to the power of one half.
    assert estimate.norm_spread == pytest.approx(spread, abs=1e-6)
    assume(estimate.n_minibatches >= 2)  # of one gradient that is not zero there is no R, and no bound
    squared, activity = (ensemble.closed_forms()[name][:1] for name in ("directed_activity", "activity"))
    values = Alignment.arrays([estimate], squared, activity)
    assert values["alignment_approximation"][0] == pytest.approx(approximation, rel=1e-9, abs=1e-12)
    assert abs(exact - approximation) <= values["alignment_approximation_bound"][0] + 1e-6
    assert values["alignment_approximation_bound"][0] <= bound + 1e-5
    if batch_size == 1:  # no draws: the bound is exact
        values = ensemble.alignment(np.random.default_rng(0))
        assert abs(values["alignment"][0] - approximation) <= values["alignment_approximation_bound"][0] + 1e-9
        assert values["alignment_minibatches"][0] == 0


def test_the_bound_needs_its_term_of_first_order():
    """Mutated twin: s² alone is no bound for this ensemble of unequal norms."""
    exact, approximation, spread = enumerated_bound(np.array([[0.6, 0.3], [-0.5, -0.5], [0.5, 0.4]]), 1)
    assert spread < abs(exact - approximation) <= np.sqrt(spread) * (2 * np.sqrt(approximation) + np.sqrt(spread))


def test_the_number_of_minibatches_says_from_how_many_alignment_is_estimated():
    values = ensemble_of(gaussian_matrix(6, 3), 3, mislabeled=np.arange(6) >= 4).alignment(np.random.default_rng(0), 17)
    # The mislabeled cohort's share is a single sample, where R is exact.
    assert values["alignment_minibatches"].tolist() == [17, 17, 0]
    sparse = ensemble_of(SPARSE, 2).alignment(np.random.default_rng(1), 200)
    counted = 200 * (1 - sparse["alignment_zero_share"][0])
    assert sparse["alignment_minibatches"][0] == pytest.approx(counted)
    assert 0 < counted < 200


def test_the_alignment_of_the_correct_is_that_of_all_where_nobody_is_mislabeled():
    ensemble = ensemble_of(gaussian_matrix(9, 3), 3)
    values = ensemble.alignment(np.random.default_rng(0), 20)
    assert values["alignment"][0] == values["alignment"][1]
    assert np.isnan(values["alignment"][2])
    other = ensemble_of(gaussian_matrix(9, 3), 3, mislabeled=np.arange(9) == 4).alignment(np.random.default_rng(0), 20)
    assert other["alignment"][0] == values["alignment"][0]
    assert other["alignment"][1] != values["alignment"][1]


@pytest.mark.parametrize("shape", [(6, 4), (4, 6)])
@pytest.mark.parametrize("replacement", [False, True])
def test_moments_answer_as_the_samples_do_whose_moments_they_are(shape, replacement):
    matrix = gaussian_matrix(*shape)
    n = len(matrix)
    factor = np.sqrt((1 if replacement else (n - 3) / (n - 1)) / 3 / n) * (matrix - matrix.mean(0)).T
    samples = ensemble_of(matrix, 3, replacement=replacement)
    moments_only = GradientEnsemble.from_moments(torch.as_tensor(matrix.mean(0)), torch.as_tensor(factor), 3)
    directions = torch.as_tensor(np.random.default_rng(1).standard_normal((3, shape[1])))
    for measure in (
        lambda each: each.projected_covariance(directions),
        lambda each: each.covariance.dense(),
        lambda each: each.covariance.to_scipy() @ directions.numpy().T,
        lambda each: each.spectrum(2).noise_eigenvalue.values,
        lambda each: each.spectrum().noise_eigenvalue.values[:3],
        lambda each: each.noise_modes(2, tolerance=1e-9).values,
        lambda each: float(each.spectrum().noise_strength),
        lambda each: float(each.spectrum().effective_dimension),
        lambda each: each.spectrum(2).effective_dimension_is_lower_bound.values,
        lambda each: np.abs(each.noise_modes(1, tolerance=1e-9).vectors.numpy()),
        lambda each: each.mean_gradient.numpy(),
    ):
        np.testing.assert_allclose(measure(moments_only), measure(samples), rtol=0, atol=1e-8)
    one, other = (each.order_parameters().sel(cohort="all") for each in (samples, moments_only))
    for name in (*SCALED_AS_SQUARES, "projection_variance"):
        assert float(one[name]) == pytest.approx(float(other[name]), rel=1e-12), name
    finite = 1 if replacement else (n - 3) / (n - 1)
    assert float(other.gradient_noise_scale) == pytest.approx(finite * float(one.gradient_noise_scale), rel=1e-10)
    for question in ("samples", "classes"):
        with pytest.raises(ConfigurationError, match=rf"moments know no {question}: expected an ensemble of sample"):
            getattr(moments_only, question)()


# --- effective dimension


@given(
    spectrum=st.lists(st.integers(0, 1000), min_size=1, max_size=30),
    fraction=st.integers(1, 100).map(lambda percent: percent / 100),
)
def test_effective_dimension_counts_the_fewest_leading_modes_that_hold_the_share(spectrum, fraction):
    """In whole numbers, where a share is met exactly or not at all."""
    assume(sum(spectrum) > 0)
    spectrum = sorted(spectrum, reverse=True)
    fewest = next(n for n in range(1, 31) if 100 * sum(spectrum[:n]) >= round(100 * fraction) * sum(spectrum))
    assert effective_dimension(spectrum, fraction) == fewest


@given(n_modes=st.integers(1, 200), percent=st.integers(1, 100), scale=st.floats(1e-12, 1e12))
def test_effective_dimension_of_equal_modes(n_modes, percent, scale):
    assert effective_dimension(np.full(n_modes, scale), percent / 100) == -(-n_modes * percent // 100)


@pytest.mark.parametrize("spectrum", [[], [0.0], [0.0, 0.0, 0.0], [np.nan, np.nan]])
def test_no_noise_has_no_effective_dimension(spectrum):
    assert np.isnan(effective_dimension(spectrum))


@pytest.mark.parametrize("fraction", [0, -0.1, 1.0001, 90, np.nan])
def test_a_fraction_that_is_no_share_is_refused(fraction):
    with pytest.raises(
        ConfigurationError, match=rf"fraction={fraction}: expected a share of the noise strength in \(0, 1\]"
    ):
        effective_dimension([1.0], fraction)
    with pytest.raises(ConfigurationError, match="expected a share"):
        ensemble_of(gaussian_matrix(4, 2), 2).spectrum(fraction=fraction)


# --- labelled output


def test_order_parameters_carry_their_dimensions_units_and_long_names():
    mislabeled = np.arange(6) >= 4
    order = ensemble_of(gaussian_matrix(6, 3), 3, mislabeled=mislabeled).order_parameters(np.random.default_rng(0))
    assert tuple(order.cohort.values) == COHORTS
    assert tuple(order.cohort_pair.values) == COHORT_PAIRS
    others = {"projection_variance", "gradient_noise_scale", "gradient_alignment", *ALIGNMENT}
    assert set(order.data_vars) == {*SCALED_AS_SQUARES, *others}
    for name, values in order.data_vars.items():
        assert values.dims == describe(str(name)).dimensions
        assert values.attrs == describe(str(name)).attributes
        assert values.attrs["long_name"]
        units = dict.fromkeys(SCALED_AS_SQUARES, "loss2 weight-2") | {"gradient_noise_scale": "sample"}
        assert values.attrs["units"] == units.get(str(name), "1")
        assert values.dtype == np.float64


def test_without_a_generator_nothing_is_random():
    order = ensemble_of(gaussian_matrix(6, 3), 3).order_parameters()
    assert not set(ALIGNMENT) & set(order.data_vars)
    drawn = [ensemble_of(gaussian_matrix(6, 3), 3).order_parameters(np.random.default_rng(seed)) for seed in (1, 1, 2)]
    assert drawn[0].identical(drawn[1])
    random = ["alignment", "alignment_standard_error", "alignment_approximation_bound"]
    assert drawn[0].drop_vars(random).equals(drawn[2].drop_vars(random))
    assert order.equals(drawn[0].drop_vars(ALIGNMENT))
    for name in random:
        assert float(drawn[0][name][0]) != float(drawn[2][name][0]), name


# --- from a landscape


@pytest.fixture(scope="module")
def digits():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        landscape = digits_landscape()
    return landscape, landscape.initial_weights((0,), Seeds(2))[0]


@pytest.mark.parametrize("cohort_mask", ["mislabeled", "relabeled"])
def test_a_landscape_gives_the_ensemble_of_its_sample_gradients_for_either_cohort(digits, cohort_mask):
    landscape, weights = digits
    relabeled, mislabeled = landscape.relabeled[0].numpy(), landscape.mislabeled[0].numpy()
    assert (mislabeled <= relabeled).all()
    assert mislabeled.sum() < relabeled.sum()  # some redrawn labels happen to be right
    wrong = {"mislabeled": mislabeled, "relabeled": relabeled}[cohort_mask]
    order = gradient_ensemble(landscape, weights, 10, cohort_mask=cohort_mask).order_parameters()

    matrix = landscape.sample_gradients(weights).dense().numpy()
    for cohort, members in (("all", wrong | ~wrong), ("correct", ~wrong), ("mislabeled", wrong)):
        part = matrix[members]
        mean, n = part.mean(0), len(part)
        size = 10 * n / len(matrix)
        noise = (n - size) / (size * (n - 1)) * np.square(part - mean).sum(1).mean()
        got = order.sel(cohort=cohort)
        assert float(got.directed_activity) == pytest.approx(members.mean() ** 2 * mean @ mean, rel=1e-10)
        assert float(got.noise_strength) == pytest.approx(noise, rel=1e-10)
        assert float(got.activity) == pytest.approx(mean @ mean + noise, rel=1e-10)


def replicas_of(digits, n_replicas=3):
    """The same network with labels of their own for each replica."""
    landscape, _ = digits
    labels = torch.stack([landscape.true_labels[0].roll(k) for k in range(n_replicas)])
    true = landscape.true_labels.expand(n_replicas, -1)
    own = type(landscape)(deepcopy(landscape._module).requires_grad_(), landscape.inputs, labels, true_labels=true)
    return own, own.initial_weights(tuple(range(n_replicas)), Seeds(2))


def test_ensembles_of_several_replicas_are_those_of_each(digits):
    landscape, weights = replicas_of(digits)
    together = gradient_ensembles(landscape, weights, 10, replacement=True)
    alone = [gradient_ensemble(landscape, weights[r], 10, replica=r, replacement=True) for r in range(3)]
    assert len(together) == 3
    generators = [Seeds(1).generator("alignment", r) for r in range(3)]
    order = together.order_parameters(generators, 20)
    layers, spectra = together.by_layer(), together.spectrum(5)
    assert order.activity.dims == ("replica", "cohort")
    assert order.gradient_alignment.dims == ("replica", "cohort_pair")
    assert layers.activity.dims == ("replica", "layer", "cohort")
    assert spectra.noise_eigenvalue.dims == ("replica", "mode")
    for r, each in enumerate(alone):
        expected = each.order_parameters(Seeds(1).generator("alignment", r), 20)
        assert order.isel(replica=r).equals(expected)
        assert layers.isel(replica=r).equals(each.by_layer())
        assert spectra.isel(replica=r).equals(each.spectrum(5))
    # Labels are those of the replica: nobody is mislabeled in the first one only.
    assert np.isnan(order.activity.sel(cohort="mislabeled")).values.tolist() == [True, False, False]
    assert together.order_parameters().equals(order.drop_vars(ALIGNMENT))


def test_a_slice_of_ensembles_keeps_the_labels_and_the_order_of_its_replicas(digits):
    landscape, weights = replicas_of(digits)
    together = gradient_ensembles(landscape, weights, 10)
    activity = together.order_parameters().activity
    for chosen in (slice(1, None), slice(None, None, -1), slice(0, 3, 2)):
        part = together[chosen]
        np.testing.assert_array_equal(part.order_parameters().activity, activity[chosen])
        assert len(part) == len(activity[chosen])
    assert together[-1].order_parameters().activity.equals(activity[2])
    assert [each.closed_forms()["activity"][0] for each in together] == activity.sel(cohort="all").values.tolist()
    with pytest.raises(IndexError):
        together[3]


def test_ensembles_need_one_generator_a_replica_and_several_points(digits):
    landscape, weights = replicas_of(digits)
    together = gradient_ensembles(landscape, weights, 10)
    with pytest.raises(ConfigurationError, match=r"2 generators came for 3 replicas: expected one each, so that"):
        together.order_parameters([np.random.default_rng(k) for k in range(2)])
    with pytest.raises(
        ConfigurationError, match=r"expected \(replica, parameter\), .*use gradient_ensemble for one point"
    ):
        gradient_ensembles(landscape, weights[0], 10)
    with pytest.raises(ConfigurationError, match=r"expected \(parameter,\), .*use gradient_ensembles for several"):
        gradient_ensemble(landscape, weights, 10)


def test_classes_are_the_given_labels_and_need_one_a_sample(digits):
    landscape, weights = digits
    ensemble = gradient_ensemble(landscape, weights, 10)
    given = landscape.labels[0].numpy()
    by_default, said = ensemble.classes(), ensemble.classes(given)
    assert by_default.equals(said)
    assert by_default["class"].values.tolist() == sorted(set(given.tolist()))
    assert int(by_default.class_size.sum()) == landscape.n_samples
    for name, values in by_default.data_vars.items():
        assert values.attrs == describe(str(name)).attributes
    for labels, shape in (([0, 1], r"\(2,\)"), (np.zeros((60, 1)), r"\(60, 1\)")):
        with pytest.raises(ConfigurationError, match=rf"one class a sample, shape \(60,\), got {shape}: pass labels="):
            ensemble.classes(labels)
    with pytest.raises(ConfigurationError, match=r"got none: pass labels="):
        ensemble_of(gaussian_matrix(4, 2), 2).classes()


def test_known_moments_need_no_batch_size_and_samples_need_one(digits):
    surrogate = QuadraticLandscape(np.diag([2.0, 1.0]), np.diag([3.0, 1.0]))
    order = (
        gradient_ensemble(surrogate, torch.tensor([1.0, 1.0], dtype=torch.float64)).order_parameters().sel(cohort="all")
    )
    assert (float(order.directed_activity), float(order.noise_strength)) == (5, pytest.approx(4))
    with pytest.raises(ConfigurationError, match=r"with a batch_size, .* got NetworkLandscape and batch_size=None"):
        gradient_ensemble(*digits)


def test_one_minibatch_bounds_nothing():
    """The norms of one say nothing of how much they vary: the bound on the approximation of R was 0."""
    ensemble = ensemble_of(np.random.default_rng(0).standard_normal((12, 3)) + 1, 4)
    bounds = [
        ensemble.order_parameters(np.random.default_rng(1), n).alignment_approximation_bound.values[0]
        for n in (1, 2, 64)
    ]
    assert np.isnan(bounds[0])
    assert min(bounds[1:]) > 0
    with pytest.raises(ConfigurationError, match=r"generator is of type int: expected a generator of NumPy"):
        ensemble.order_parameters(0)


@pytest.mark.parametrize("batch_size", [1, 2, 3, 5, 7])
def test_closed_forms_of_seven_samples_at_every_kind_of_batch_size(batch_size):
    matrix = gaussian_matrix(7, 3)
    expected = moments(all_minibatches(matrix, batch_size))
    assert_same(closed_forms(matrix, batch_size), expected, matrix)


def test_alignment_is_directed_over_total_activity_to_leading_order():
    """In many dimensions the norms of minibatch gradients hardly differ, and R → A₀/A."""
    matrix = gaussian_matrix(60, 2000, mean=0.3)
    order = ensemble_of(matrix, 5).order_parameters(np.random.default_rng(0), 400).sel(cohort="all")
    ratio = float(order.directed_activity / order.activity)
    assert 0.2 < ratio < 0.6
    # Second order: the variance of the squared norm, about 2 D²/(P A²), plus the error of the estimate.
    assert abs(float(order.alignment) - ratio) < 4 * float(order.alignment_standard_error) + 2 / 2000
