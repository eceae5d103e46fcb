"""Mixtures of sample losses: recovered parameters, criteria and tests of fit at their level, laws, refusals.

The oracles are scikit-learn's mixtures from ten random starts, closed forms of the threshold, and planned samples;
bounds are `SIGMAS` standard errors.
"""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn.mixture import GaussianMixture as Oracle

from langevin_nn.analyzers import LossMixture, gaussian_mixture
from langevin_nn.errors import ConfigurationError, EstimationRefused, UnknownNameError

SIGMAS = 4.0


def draw(shape, weight=0.4, gap=5.0, width=1.0, seed=0, low_width=1.0):
    """Samples of (1 − weight) N(0, low_width²) + weight N(gap, width²), and which are of the second."""
    generator = np.random.default_rng(seed)
    high = generator.random(shape) < weight
    normal = generator.standard_normal(shape)
    return np.where(high, gap + width * normal, low_width * normal), high


def recorded(losses, high=None, **coordinates) -> xr.Dataset:
    """The ``/samples`` group of a trajectory."""
    variables = {"sample_loss": (("replica", "sample_step", "sample"), losses, {"units": "nat"})}
    if high is not None:
        variables["mislabeled"] = (("replica", "sample"), high.astype(np.uint8))
    steps = np.arange(losses.shape[1]) * 100
    coords = {"sample_step": steps, "epoch": ("sample_step", steps / 20), "time": ("sample_step", steps * 0.01)}
    return xr.Dataset(variables, coords={**coords, **coordinates})


# --- Maximum likelihood -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("weight", "gap", "width"), [(0.4, 5.0, 1.0), (0.3, 3.0, 2.0), (0.1, 4.0, 0.5), (0.5, 0.0, 3.0)]
)
def test_no_likelier_mixture_is_found_from_many_random_starts(weight, gap, width):
    losses, _ = draw((4, 600), weight, gap, width, seed=3)
    mixture = gaussian_mixture(losses)
    for record, samples in enumerate(losses):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            one, two = (
                Oracle(k, n_init=5, tol=1e-8, max_iter=1000, random_state=0).fit(samples[:, None]) for k in (1, 2)
            )
        assert mixture.log_likelihood[record, 1] >= 600 * two.score(samples[:, None]) - 1e-3
        found = mixture.bayesian_information_criterion[record]
        assert found[0] == pytest.approx(one.bic(samples[:, None]), abs=1e-4)
        assert found[1] <= two.bic(samples[:, None]) + 2e-3
        order = np.argsort(two.means_[:, 0])
        np.testing.assert_allclose(mixture.mean[record], two.means_[order, 0], atol=0.02)
        np.testing.assert_allclose(mixture.weight[record], two.weights_[order], atol=0.02)
    assert mixture.converged.all()


def test_parameters_are_recovered_within_their_errors():
    """300 records of 1,000 samples: the spread of the estimates over records gives the error of their mean."""
    losses, _ = draw((300, 1000), weight=0.4, gap=5.0, width=1.5, seed=4)
    mixture = gaussian_mixture(losses)
    for estimates, truth in [
        (mixture.weight, [0.6, 0.4]),
        (mixture.mean, [0.0, 5.0]),
        (mixture.separation[:, None], [5.0]),
    ]:
        error = estimates.std(0, ddof=1) / np.sqrt(300)
        assert (abs(estimates.mean(0) - truth) < SIGMAS * error).all()
        assert (abs(estimates.mean(0) - np.array(truth) * 1.05 - 0.05) > SIGMAS * error).all(), (
            "5 % off would have passed"
        )
    # Of a standard deviation, maximum likelihood is low by about 3/4 over the samples of a component.
    np.testing.assert_allclose(mixture.standard_deviation.mean(0), [1.0, 1.5], rtol=0.01)
    assert (mixture.components == 2).all()


def test_the_criterion_prefers_one_gaussian_where_there_is_one_and_a_likelihood_alone_does_not():
    """200 records of 1,000: two are preferred in 0.3 % of them (12 of 4,000 in another run), so in 3 at most."""
    losses, _ = draw((200, 1000), weight=0.0, seed=5)
    mixture = gaussian_mixture(losses)
    assert (mixture.components == 2).sum() <= 3
    assert (mixture.log_likelihood[:, 1] > mixture.log_likelihood[:, 0]).all(), "without its penalty it prefers two"


def test_a_component_does_not_fall_onto_a_sample_where_another_fit_exists():
    """Of small Gaussian samples, the likeliest mixture puts a component on a single sample in four of five."""
    losses, _ = draw((200, 100), weight=0.0, seed=22)
    assert gaussian_mixture(losses).at_floor.mean() < 0.1


# --- Goodness of fit --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("n_samples", "weight", "gap", "width"), [(150, 0.5, 5.0, 0.5), (400, 0.1, 4.5, 1.0), (1000, 0.3, 5.0, 2.0)]
)
def test_good_fits_are_called_bad_in_one_of_twenty(n_samples, weight, gap, width):
    """800 records: a share of 0.05 is known to 0.0077."""
    losses, _ = draw((800, n_samples), weight, gap, width, seed=6)
    mixture = gaussian_mixture(losses)
    assert abs((mixture.fit_p_value < 0.05).mean() - 0.05) < SIGMAS * 0.0077
    # Kolmogorov's own law, for a curve that was not fitted.
    naive = stats.kstwo.sf(mixture.distance[:, 1], n_samples)
    assert abs((naive < 0.05).mean() - 0.05) > SIGMAS * 0.0077


def test_a_distance_is_that_of_scipy():
    losses, _ = draw((1, 300), seed=7)
    mixture = gaussian_mixture(losses)

    def below(values):
        return (
            mixture.weight[0] * stats.norm.cdf(values[:, None], mixture.mean[0], mixture.standard_deviation[0])
        ).sum(1)

    assert mixture.distance[0, 1] == pytest.approx(stats.kstest(losses[0], below).statistic, rel=1e-9)
    alone = stats.kstest(losses[0], stats.norm(losses[0].mean(), losses[0].std()).cdf).statistic
    assert mixture.distance[0, 0] == pytest.approx(alone, rel=1e-9)


def test_samples_of_another_law_are_poor():
    generator = np.random.default_rng(8)
    three = generator.choice([0.0, 5.0, 10.0], size=(20, 1000)) + 0.5 * generator.standard_normal((20, 1000))
    uneven = generator.exponential(size=(20, 1000)) ** 3
    for losses in (three, uneven):
        mixture = gaussian_mixture(losses)
        assert mixture.is_poor().all()
        assert (mixture.fit_p_value < 1e-4).all()
    # A small misfit that so many samples can tell counts as bad only where it is asked.
    skewed = stats.skewnorm(2.0).rvs((20, 4000), random_state=9) * 0.5 + 4.0 * (generator.random((20, 4000)) < 0.5)
    mixture = gaussian_mixture(skewed)
    assert mixture.is_poor(tolerance=0.0).mean() > 0.8
    assert not mixture.is_poor().any()


def test_degenerate_fits_are_poor():
    atom = np.concatenate([np.zeros(200), draw(200, seed=10)[0]])
    mixture = gaussian_mixture(atom)
    assert mixture.at_floor
    assert mixture.is_poor(tolerance=1.0)
    outlier = np.concatenate([np.random.default_rng(11).standard_normal(1998), [60.0, 61.0]])
    mixture = gaussian_mixture(outlier)
    assert mixture.weight[1] == pytest.approx(0.001, rel=1e-3)
    assert mixture.is_poor(tolerance=1.0)
    assert not mixture.is_poor(tolerance=1.0, least_weight=0.0005)


def test_records_without_variation_or_with_missing_values_have_no_mixture():
    losses, _ = draw((4, 200), seed=12)
    losses[1] = 0.1
    losses[2, 7] = np.nan
    mixture = gaussian_mixture(losses)
    np.testing.assert_array_equal(np.isfinite(mixture.mean).all(1), [True, False, False, True])
    np.testing.assert_array_equal(mixture.components, [2, 0, 0, 2])
    np.testing.assert_array_equal(mixture.is_poor(tolerance=1.0), [False, True, True, False])
    assert np.isnan(mixture.equal_density[1:3]).all()
    assert gaussian_mixture(losses[:0]).mean.shape == (0, 2)


# --- Thresholds and probabilities -------------------------------------------------------------------------------------


def test_equal_density_is_the_closed_form_of_equal_variances():
    losses, _ = draw((1, 20_000), weight=0.2, gap=4.0, seed=13)
    (mixture,) = [gaussian_mixture(losses)]
    weight, mean, deviation = mixture.weight[0], mixture.mean[0], mixture.standard_deviation[0]
    densities = weight * stats.norm.pdf(mixture.equal_density[0], mean, deviation)
    assert densities[0] == pytest.approx(densities[1], rel=1e-9)
    expected = 2.0 + np.log(0.8 / 0.2) / 4.0
    assert mixture.equal_density[0] == pytest.approx(expected, abs=0.06)
    assert mixture.midpoint[0] == pytest.approx(2.0, abs=0.05)
    assert abs(mixture.midpoint[0] - expected) > 0.06, "the midpoint would have passed"


def test_where_one_component_exceeds_the_other_at_both_means_there_is_no_threshold():
    quantiles = stats.norm.ppf((np.arange(2000) + 0.5) / 2000)
    mixture = gaussian_mixture(np.concatenate([quantiles, 6 * quantiles[::4] + 0.3]))
    assert mixture.components == 2
    assert np.isnan(mixture.equal_density)
    assert np.isfinite(mixture.midpoint)


def test_probabilities_are_those_of_bayes():
    losses, high = draw((3, 500), weight=0.3, gap=3.0, width=2.0, seed=14)
    mixture = gaussian_mixture(losses)
    densities = mixture.weight[:, None] * stats.norm.pdf(
        losses[..., None], mixture.mean[:, None], mixture.standard_deviation[:, None]
    )
    probability = mixture.high_probability(losses)
    np.testing.assert_allclose(probability, densities[..., 1] / densities.sum(-1), rtol=1e-6, atol=1e-12)
    np.testing.assert_allclose(probability.mean(1), mixture.weight[:, 1], atol=1e-3)
    # Calibrated: of samples with probability p, a share p is high.
    certain = probability > 0.9
    assert high[certain].mean() == pytest.approx(probability[certain].mean(), abs=0.03)


# --- Laws -------------------------------------------------------------------------------------------------------------


@given(st.floats(1e-3, 1e3), st.floats(-1e3, 1e3), st.integers(0, 2**20))
@settings(max_examples=20)
def test_fits_follow_shift_and_scale(scale, shift, seed):
    losses, _ = draw(300, weight=0.4, gap=4.0, seed=seed)
    original, mapped = gaussian_mixture(losses), gaussian_mixture(shift + scale * losses)
    np.testing.assert_allclose(mapped.mean, shift + scale * original.mean, rtol=1e-5, atol=1e-5 * scale)
    np.testing.assert_allclose(mapped.standard_deviation, scale * original.standard_deviation, rtol=1e-5)
    np.testing.assert_allclose(mapped.weight, original.weight, rtol=1e-5)
    np.testing.assert_allclose(
        mapped.equal_density, shift + scale * original.equal_density, rtol=1e-5, atol=1e-5 * scale
    )
    differences = mapped.bayesian_information_criterion - original.bayesian_information_criterion
    np.testing.assert_allclose(differences, 2 * 300 * np.log(scale), atol=1e-3)


@given(st.integers(0, 2**20))
@settings(max_examples=20)
def test_the_order_of_samples_and_the_company_of_records_do_not_matter(seed):
    losses, _ = draw((3, 200), gap=3.0, seed=seed)
    shuffled = np.random.default_rng(seed).permuted(losses, axis=1)
    first, second = gaussian_mixture(losses), gaussian_mixture(shuffled)
    np.testing.assert_array_equal(first.mean, second.mean)
    np.testing.assert_array_equal(first.distance, second.distance)
    np.testing.assert_allclose(gaussian_mixture(losses[1]).mean, first.mean[1], rtol=1e-9)
    mirrored = gaussian_mixture(-losses)
    np.testing.assert_allclose(mirrored.separation, first.separation, rtol=1e-3)


# --- On trajectories --------------------------------------------------------------------------------------------------


def test_true_cohort_means_lie_beside_the_fitted_ones():
    high = draw((2, 1000), seed=15)[1]
    generator = np.random.default_rng(16)
    gaps = np.array([0.0, 2.0, 4.0])
    losses = 1.0 + gaps[:, None] * high[:, None] + 0.3 * generator.standard_normal((2, 3, 1000))
    result = LossMixture()(recorded(losses, high))
    np.testing.assert_array_equal(result.components, [[1, 2, 2], [1, 2, 2]])
    apart = result.isel(sample_step=slice(1, None))
    np.testing.assert_allclose(apart.component_mean, apart.cohort_mean, atol=0.05)
    np.testing.assert_allclose(apart.component_standard_deviation, apart.cohort_standard_deviation, atol=0.05)
    np.testing.assert_allclose(apart.separation, apart.cohort_separation, atol=0.05)
    np.testing.assert_allclose(result.cohort_mean[1, 2, 1], losses[1, 2][high[1]].mean())
    assert not apart.fit_is_poor.any()
    assert (
        result.loss_threshold.sel(threshold_rule="midpoint", sample_step=200)
        == apart.component_mean[:, 1].mean("component")
    ).all()
    for name, variable in {**result.data_vars, **result.coords}.items():
        if name not in ("epoch", "time", "sample_step"):
            assert variable.attrs["long_name"], name
            assert variable.attrs["units"], name
    assert result.separation.attrs["units"] == "nat"
    assert result.epoch.values.tolist() == [0, 5, 10]


def test_logarithms_of_losses():
    losses, high = draw((1, 2, 800), seed=17)
    result = LossMixture(scale="log")(recorded(np.exp(losses), high[:, 0]))
    plain = LossMixture()(recorded(losses))
    np.testing.assert_allclose(result.component_mean, plain.component_mean, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(result.loss_threshold, np.exp(plain.loss_threshold), rtol=1e-9)
    assert result.component_mean.attrs["units"] == "1"
    assert result.loss_threshold.attrs["units"] == "nat"
    # Single precision rounds losses to zero, which have no logarithm of their own.
    spoiled = np.exp(losses)
    spoiled[0, 0, np.argmin(spoiled[0, 0])] = 0.0
    with_zero = LossMixture(scale="log")(recorded(spoiled))
    np.testing.assert_allclose(with_zero.component_mean, plain.component_mean, atol=0.01)
    np.testing.assert_array_equal(with_zero.zero_loss_count, [[1, 0]])
    with pytest.raises(ConfigurationError, match="1 losses are negative"):
        LossMixture(scale="log")(recorded(np.where(spoiled == 0, -1.0, spoiled)))


def test_trees_processes_and_dimensions_in_any_order():
    losses, high = draw((2, 2, 300), seed=18)
    group = recorded(losses, high[:, 0])
    tree = xr.DataTree.from_dict(
        {"/": xr.Dataset(coords={"learning_rate": ("replica", [0.1, 0.2])}), "/samples": group}
    )
    in_memory = LossMixture(probabilities=True)(tree)
    turned = LossMixture(probabilities=True)(group.transpose("sample", "sample_step", "replica"))
    xr.testing.assert_allclose(turned.transpose(*in_memory.dims), in_memory)
    assert in_memory.high_component_probability.sizes["sample"] == 300
    several = xr.concat([group.sample_loss, group.sample_loss + 1.0], dim=xr.Variable("process", ["sgd", "langevin"]))
    result = LossMixture()(xr.Dataset({"sample_loss": several, "mislabeled": group.mislabeled}))
    np.testing.assert_allclose(result.cohort_mean.sel(process="langevin"), result.cohort_mean.sel(process="sgd") + 1.0)
    np.testing.assert_allclose(result.component_mean.sel(process="sgd"), in_memory.component_mean, rtol=1e-6)


def test_what_follows_a_divergence_has_no_mixture():
    losses, high = draw((2, 3, 200), seed=19)
    losses[1, 1:] = np.nan
    losses[1, 1, :2] = [np.inf, 0.0]
    result = LossMixture()(recorded(losses, high[:, 0]))
    np.testing.assert_array_equal(result.components, [[2, 2, 2], [2, 0, 0]])
    np.testing.assert_array_equal(result.fit_is_poor[1], [0, 1, 1])
    assert np.isnan(result.cohort_mean[1, 1:]).all()
    with pytest.raises(EstimationRefused, match="none of 2 records has a finite loss") as refusal:
        LossMixture()(recorded(losses[1:, 1:]))
    assert refusal.value.numbers == {"records": 2, "samples": 200}


def test_a_cohort_that_is_empty_is_nan():
    losses, _ = draw((1, 1, 200), seed=20)
    result = LossMixture()(recorded(losses, np.zeros((1, 200), dtype=bool)))
    assert np.isnan(result.cohort_mean.sel(cohort="mislabeled")).all()
    assert np.isfinite(result.cohort_mean.sel(cohort="correct")).all()


def test_too_few_samples_are_refused_and_arguments_checked():
    losses, _ = draw((1, 1, 60), seed=21)
    with pytest.raises(EstimationRefused, match="60 samples: expected at least 100") as refusal:
        LossMixture()(recorded(losses))
    assert refusal.value.numbers == {"samples": 60, "samples_needed": 100}
    assert LossMixture(least_samples=50)(recorded(losses)).components.item() == 2
    with pytest.raises(UnknownNameError, match="unknown scale 'logarithm': expected one of loss, log"):
        LossMixture(scale="logarithm")
    with pytest.raises(ConfigurationError, match="expected one called 'sample'"):
        LossMixture()(xr.Dataset({"sample_loss": ("sample_step", [1.0])}))
    with pytest.raises(ConfigurationError, match="a single number came"):
        gaussian_mixture(1.0)
    with pytest.raises(ConfigurationError, match="no group of the trajectory has sample_loss"):
        LossMixture()(xr.DataTree())
