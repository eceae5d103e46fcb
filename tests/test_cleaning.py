"""Cleaning: known laws of losses with known posteriors, controls in which nothing is wrong, laws, refusals, a small real run.

The oracles are Bayes' rule typed with scipy's densities, the labels that were corrupted, and a slow twin of the paper's
rule; bounds are `SIGMAS` standard errors of a planned sample.
"""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from langevin_nn import NetworkLandscape, Seeds, find_mislabeled, sgd, simulate
from langevin_nn.analyzers import gaussian_mixture
from langevin_nn.cleaning import cleaning_summary, literal_rule
from langevin_nn.cleaning.components import fit_components, information_within
from langevin_nn.errors import ConfigurationError, EstimationRefused
from langevin_nn.observables import SampleLosses
from langevin_nn.schedules import EveryEpochs
from models import corrupt_labels, load_dataset, multilayer_perceptron

SIGMAS = 4.0
GUESS = np.log(10)
WEIGHTS = {"share_weight": 1000.0, "location_weight": 100.0}


def scores(n, fraction=0.4, location=-0.2, scale=0.4, mean=2.6, deviation=0.3, seed=0):
    """Scores of (1 − r) LogN + r N, and which are of the second."""
    generator = np.random.default_rng(seed)
    high = generator.random(n) < fraction
    normal = generator.standard_normal(n)
    return np.where(high, mean + deviation * normal, np.exp(location + scale * normal)), high


def training(wrong, *, hard=None, records=60, memorised=40, seed=0, spread=0.25):
    """Losses of shape (record, sample): learned ones fall, wrong ones rise above a guess and are learned by heart later."""
    generator = np.random.default_rng(seed)
    time = np.arange(records)[:, None]
    learning, heart = np.exp(-time / 6), 1 / (1 + np.exp((time - memorised) / 3))
    pace = 1.0 if hard is None else np.where(hard, 0.15, 1.0)
    learned = GUESS * (0.1 + 0.9 * learning**pace)
    level = np.where(wrong, GUESS * (0.1 + (1.3 - 0.4 * learning) * heart), learned)
    return level * np.exp(spread * generator.standard_normal(len(wrong)) * (1 - learning))


# --- Components -------------------------------------------------------------------------------------------------------


def test_parameters_are_recovered_and_probabilities_are_those_of_bayes():
    truth = {"fraction": 0.4, "location": -0.2, "scale": 0.4, "mean": 2.6, "deviation": 0.3}
    fits = []
    for seed in range(30):
        score, _ = scores(2000, seed=seed)
        found, probability = fit_components(score, np.zeros(2000, dtype=int), **WEIGHTS)
        fits.append([float(getattr(found, name)) for name in truth])
    estimates = np.array(fits)
    error = estimates.std(0, ddof=1) / np.sqrt(30)
    expected = np.array(list(truth.values()))
    # Maximum likelihood is biased by about 1/N in widths, far below these errors.
    assert (abs(estimates.mean(0) - expected) < SIGMAS * error).all()
    assert (abs(estimates.mean(0) - 1.05 * expected) > SIGMAS * error).all(), "5 % off would have passed"

    lower = 0.6 * stats.lognorm(0.4, scale=np.exp(-0.2)).pdf(score)
    upper = 0.4 * stats.norm(2.6, 0.3).pdf(score)
    between = (score > 0.8) & (score < 2.6)
    np.testing.assert_allclose(probability[between], (upper / (lower + upper))[between], atol=0.05)
    swapped = 0.6 * stats.norm(0.88, 0.37).pdf(score) / (0.6 * stats.norm(0.88, 0.37).pdf(score) + upper)
    assert abs(probability - (1 - swapped))[between].max() > 0.05, "two normals would have passed"


def test_probabilities_are_calibrated_and_never_fall_with_the_score():
    score, high = scores(8000, fraction=0.5, location=0.3, scale=0.3, mean=2.2, deviation=0.4, seed=1)
    _, probability = fit_components(score, np.zeros(8000, dtype=int), **WEIGHTS)
    assert (np.diff(probability[np.argsort(score)]) >= 0).all()
    for least in (0.0, 0.25, 0.5, 0.75):
        own = (probability >= least) & (probability < least + 0.25)
        error = np.sqrt(probability[own].mean() * (1 - probability[own].mean()) / own.sum())
        # The parameters' own errors move a probability by up to 0.01.
        assert abs(high[own].mean() - probability[own].mean()) < SIGMAS * error + 0.01


def test_classes_have_means_of_their_own():
    """Class 1 is harder: its learned samples lie nearer to the mislabeled ones."""
    label = np.arange(4000) % 2
    score, high = scores(4000, scale=0.25, seed=2)
    score = np.where((label == 1) & ~high, 1.6 * score, score)
    _, alone = fit_components(score, np.zeros(4000, dtype=int), **WEIGHTS)
    _, by_class = fit_components(score, label, **WEIGHTS)
    wrong = [((probability > 0.5) != high).sum() for probability in (alone, by_class)]
    assert wrong[1] < wrong[0]
    assert (by_class > 0.5)[high].mean() > 0.9
    assert (by_class > 0.5)[~high & (label == 1)].mean() < 0.1


def test_information_is_that_of_a_table():
    """Probabilities 0 or 1: the mutual information of component and score given the class, from counts."""
    generator = np.random.default_rng(3)
    label = generator.integers(3, size=900)
    certain = (generator.random(900) < np.array([0.1, 0.5, 0.9])[label]).astype(float)
    counts = [np.bincount(certain[label == each].astype(int), minlength=2) for each in range(3)]
    expected = sum(stats.entropy(each) * each.sum() for each in counts) / 900
    assert information_within(certain, label) == pytest.approx(expected)
    assert information_within(np.full(900, 0.3), label) == pytest.approx(0, abs=1e-12)


# --- Whole runs of known truth ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("fraction", [0.1, 0.4, 0.7])
def test_mislabeled_samples_are_found_before_they_are_learned_by_heart(fraction):
    generator = np.random.default_rng(4)
    wrong = generator.random(2000) < fraction
    label = generator.integers(10, size=2000)
    result = find_mislabeled(training(wrong), label)
    removed = result.is_removed.values == 1
    assert not result.is_refused
    assert 5 < result.cleaning_time.sel(clock="epoch") < 45
    assert removed[wrong].mean() > 0.98
    assert removed[~wrong].mean() < 0.02
    assert result.mislabeled_fraction.item() == pytest.approx(wrong.mean(), abs=0.02)
    shuffled = generator.permutation(removed)
    assert shuffled[wrong].mean() < 0.98, "as many samples at random would have passed"
    assert result.score_threshold == result.mislabeled_score.values[removed].min()


def test_nothing_is_removed_where_nothing_is_wrong_though_some_samples_are_hard():
    generator = np.random.default_rng(5)
    for hard in (None, generator.random(1000) < 0.1):
        losses = training(np.zeros(1000, dtype=bool), hard=hard, records=40)
        for label in (None, generator.integers(10, size=1000)):
            result = find_mislabeled(losses, label)
            assert result.is_refused
            assert result.reason.item()
            assert result.is_removed.sum() == 0


def test_one_gaussian_is_refused():
    generator = np.random.default_rng(6)
    steady = np.tile(2.0 + 0.2 * generator.standard_normal(1000), (10, 1))
    result = find_mislabeled(steady, n_classes=10)
    assert result.is_refused
    assert "nothing would be removed of 1000 samples" in cleaning_summary(result)


def test_noise_in_one_class_neither_spreads_nor_takes_the_class_away():
    generator = np.random.default_rng(7)
    label = np.repeat(np.arange(10), 200)
    wrong = (label == 3) & (generator.random(2000) < 0.5)
    result = find_mislabeled(training(wrong), label)
    lost = result.class_removed.values
    assert abs(lost[3] - wrong.sum()) <= 10
    assert np.delete(lost, 3).max() <= 4
    assert (result.class_samples == 200).all()
    assert f"3: {lost[3]} of 200" in cleaning_summary(result)


def test_no_class_is_removed_whole():
    label = np.repeat(np.arange(10), 200)
    wrong = (label == 3) | (np.random.default_rng(8).random(2000) < 0.3)
    result = find_mislabeled(training(wrong), label)
    assert result.class_removed.sel({"class": 3}) == 190
    own = label == 3
    kept = result.mislabeled_score.values[own & (result.is_removed.values == 0)]
    assert kept.max() <= result.mislabeled_score.values[own & (result.is_removed.values == 1)].min()
    assert find_mislabeled(training(wrong), label, most_of_class=1.0).class_removed.sel({"class": 3}) == 200


def test_the_paper_s_rule_is_its_slow_twin():
    generator = np.random.default_rng(9)
    losses = np.stack([training(generator.random(500) < 0.4, records=12, memorised=8, seed=each) for each in (0, 1)])
    result = literal_rule(losses, epoch=np.arange(12) * 5)
    for run, of_run in enumerate(losses):
        fits = [gaussian_mixture(each) for each in of_run]
        best = int(np.nanargmax([fit.separation for fit in fits]))
        assert result.cleaning_record[run] == best
        assert result.cleaning_time.sel(clock="epoch")[run] == 5 * best
        for rule in ("equal_density", "midpoint"):
            threshold = getattr(fits[best], rule)
            assert result.loss_threshold.sel(threshold_rule=rule)[run] == pytest.approx(float(threshold), rel=1e-6)
            np.testing.assert_array_equal(result.is_removed.sel(threshold_rule=rule)[run], of_run[best] > threshold)


def test_the_paper_s_rule_is_fooled_where_the_gap_grows_while_samples_are_learned_by_heart():
    """The cohorts' means go on parting while the upper one spreads over the lower: its rule waits, ours does not."""
    generator = np.random.default_rng(10)
    wrong = generator.random(2000) < 0.5
    losses = training(wrong, memorised=1000)
    late = np.arange(60)[:, None] > 30
    fallen = generator.random(2000) < 0.6
    losses = np.where(late & wrong & fallen, 0.3, np.where(late & wrong, 1.6 * losses, losses))
    ours, theirs = find_mislabeled(losses), literal_rule(losses).sel(threshold_rule="midpoint")
    assert theirs.cleaning_record > 30
    assert ours.is_removed.values[wrong].mean() > 0.9
    assert theirs.is_removed.values[wrong].mean() < 0.5


# --- Laws -------------------------------------------------------------------------------------------------------------


@given(st.integers(0, 2**20))
@settings(max_examples=5, deadline=None)
def test_the_order_of_samples_and_the_names_of_classes_do_not_matter(seed):
    generator = np.random.default_rng(seed)
    wrong, label = generator.random(600) < 0.4, generator.integers(5, size=600)
    losses = training(wrong, records=20, seed=seed, memorised=15)
    original = find_mislabeled(losses, label)
    order, names = generator.permutation(600), generator.permutation(5)
    other = find_mislabeled(losses[:, order], names[label][order])
    np.testing.assert_array_equal(other.is_removed, original.is_removed.values[order])
    np.testing.assert_allclose(other.mislabeled_probability, original.mislabeled_probability.values[order], atol=1e-4)
    np.testing.assert_array_equal(other.class_removed.values[names], original.class_removed)
    assert other.cleaning_record == original.cleaning_record


def test_arrays_replicas_and_trajectories_are_one():
    generator = np.random.default_rng(11)
    wrong, label = generator.random((2, 500)) < 0.4, generator.integers(10, size=(2, 500))
    losses = np.stack([training(each, records=20, memorised=15) for each in wrong])
    both = find_mislabeled(losses, label, epoch=np.arange(20) * 2.0)
    dims = ("replica", "sample_step", "sample")
    group = xr.Dataset(
        {"sample_loss": (dims, losses), "given_label": (("replica", "sample"), label)},
        coords={"sample_step": np.arange(20) * 40, "epoch": ("sample_step", np.arange(20) * 2.0)},
    )
    tree = find_mislabeled(xr.DataTree.from_dict({"/samples": group}))
    turned = find_mislabeled(group.transpose("sample", "sample_step", "replica"))
    for other in (tree, turned):
        for name in ("is_removed", "mislabeled_probability", "cleaning_record", "class_removed", "reason"):
            np.testing.assert_array_equal(other[name], both[name])
    assert tree.cleaning_time.sel(clock="step")[0] == 20 * both.cleaning_time.sel(clock="epoch")[0]
    one = find_mislabeled(losses[1], label[1], epoch=np.arange(20) * 2.0)
    np.testing.assert_array_equal(one.is_removed, both.is_removed[1])
    for name, variable in both.variables.items():
        assert name == "clock" or variable.attrs["long_name"], name


def test_what_follows_a_divergence_is_left_out():
    wrong = np.random.default_rng(12).random(500) < 0.4
    losses = np.stack([training(wrong, records=30, memorised=22)] * 3)
    losses[1, 25:] = np.nan
    losses[2] = np.inf
    result = find_mislabeled(losses)
    assert result.is_refused.values.tolist() == [0, 0, 1]
    assert result.is_removed.values[1][wrong].mean() > 0.9
    assert result.cleaning_record.values[2] == -1
    assert np.isnan(result.cleaning_time[2]).all()
    assert "not finite" in result.reason.values[2]
    assert np.isnan(result.mislabeled_probability[2]).all()


# --- Real losses ------------------------------------------------------------------------------------------------------


def test_digits_with_redrawn_labels_are_cleaned_and_those_without_are_left():
    """480 digits; of half the labels redrawn, 45 % are wrong."""
    data = load_dataset("digits", samples_per_class=48)
    noisy = [corrupt_labels(data.train_labels, noise, n_classes=10, seeds=Seeds(3)) for noise in (0.5, 0.0)]
    landscape = NetworkLandscape(
        lambda: multilayer_perceptron((64, 50, 50, 10)),
        data.train_inputs,
        np.stack([each.given_labels for each in noisy]),
    )
    trajectory = simulate(
        sgd(landscape, 0.1, 25), epochs=120, replicas=2, observables=SampleLosses(EveryEpochs(2)), progress=False
    )
    result = find_mislabeled(trajectory)
    assert result.is_refused.values.tolist() == [0, 1]
    removed, wrong = result.is_removed.values[0] == 1, noisy[0].mislabeled
    assert removed[wrong].mean() > 0.9
    assert removed[~wrong].mean() < 0.12
    assert result.is_removed.values[1].sum() == 0
    assert cleaning_summary(result).startswith("replica 0: ")


# --- Arguments --------------------------------------------------------------------------------------------------------


def test_malformed_arguments_are_refused_by_name():
    losses = training(np.arange(200) < 80, records=10)
    for bad in (losses[0], losses[None, None], np.zeros((3, 0)), "losses", [[1.0, "a"]], None):
        with pytest.raises(ConfigurationError, match="sample_loss"):
            find_mislabeled(bad)
    for bad in (np.zeros(3, dtype=int), np.full(200, 0.5), np.full(200, -1), ["a"] * 200):
        with pytest.raises(ConfigurationError, match="given_label"):
            find_mislabeled(losses, bad)
    for bad in (np.arange(3), np.zeros(10), np.full(10, np.nan)):
        with pytest.raises(ConfigurationError, match="epoch"):
            find_mislabeled(losses, epoch=bad)
    for name, bad in (("threshold", 1.5), ("least_separation", -1), ("most_of_class", "all"), ("n_classes", 1)):
        with pytest.raises(ConfigurationError, match=name):
            find_mislabeled(losses, **{name: bad})
    with pytest.raises(ConfigurationError, match="at least 0"):
        find_mislabeled(losses - 5.0)
    with pytest.raises(ConfigurationError, match="clocks of its own"):
        find_mislabeled(xr.Dataset({"sample_loss": (("sample_step", "sample"), losses)}), epoch=np.arange(10))
    with pytest.raises(ConfigurationError, match="no group of the trajectory has sample_loss"):
        literal_rule(xr.DataTree())
    with pytest.raises(ConfigurationError, match="lacks is_removed"):
        cleaning_summary(xr.Dataset())
    with pytest.raises(EstimationRefused, match="none of 10 records"):
        find_mislabeled(losses * np.nan)
    with pytest.raises(EstimationRefused, match="60 samples: expected at least 100") as refusal:
        find_mislabeled(losses[:, :60])
    assert refusal.value.numbers == {"samples": 60, "samples_needed": 100}
