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
from langevin_nn.cleaning import cleaning_summary, literal_rule, records, search
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


def test_what_follows_a_divergence_is_left_out(monkeypatch):
    """All losses missing, all infinite, or most missing at once and for good, the rest out of all bounds."""
    generator = np.random.default_rng(12)
    wrong = generator.random(500) < 0.4
    losses = np.stack([training(wrong, records=30, memorised=22)] * 4)
    losses[1, 25:] = np.nan
    losses[2] = np.inf
    losses[3, 6:] = np.where(generator.random(500) < 0.6, np.nan, 1e6 * generator.random(500))

    def check(find):
        result = find(losses)
        assert result.is_refused.values.tolist() == [0, 0, 1, 0]
        assert result.is_removed.values[[1, 3]][:, wrong].mean() > 0.9
        assert result.records_taken.values.tolist() == [30, 25, 0, 6]
        assert result.cleaning_record.values[2] == result.ranking_record.values[2] == -1
        assert np.isnan(result.cleaning_time[2]).all()
        assert "not finite" in result.reason.values[2]
        assert np.isnan(result.mislabeled_probability[2]).all()

    check(find_mislabeled)
    monkeypatch.setattr(records, "_diverged", lambda values: np.zeros(values.shape[:-1], bool))
    with pytest.raises(AssertionError):
        check(find_mislabeled)


# --- Missing losses ---------------------------------------------------------------------------------------------------


def area(score, wrong):
    """Return the probability that a mislabeled sample has the higher score."""
    return stats.mannwhitneyu(score[wrong], score[~wrong]).statistic / (wrong.sum() * (~wrong).sum())


def up_to_the_first_gap(losses):
    """Judge as if a loss that is missing were a divergence."""
    complete = np.logical_and.accumulate(np.isfinite(losses).all(1)).sum()
    return find_mislabeled(losses[:complete]) if complete else find_mislabeled(np.ones_like(losses))


def test_each_sample_is_judged_by_what_was_seen_of_it():
    generator = np.random.default_rng(13)
    wrong = generator.random(2000) < 0.3
    losses = training(wrong, records=40, memorised=30)
    whole = find_mislabeled(losses)
    one, never, half, dropped, infinite = (losses.copy() for _ in range(5))
    infinite[[0, 3, 5], [3, 5, 7]] = np.inf
    one[3, 7] = never[:, 7] = np.nan
    half[generator.random(half.shape) < 0.5] = np.nan
    for record in dropped:
        record[generator.permutation(2000)[:16]] = np.nan

    def check(find):
        for values, most in ((one, 1), (never, 2), (infinite, 2), (dropped, 4), (half, 20)):
            result = find(values)
            assert not result.is_refused
            assert (result.is_removed != whole.is_removed).sum() <= most
            assert abs(result.separation - whole.separation) < 0.2 * whole.separation
        assert abs(find(one).cleaning_record - whole.cleaning_record) <= 1

    check(find_mislabeled)
    with pytest.raises(AssertionError):
        check(up_to_the_first_gap)
    result = find_mislabeled(never)
    assert np.isnan([result.mislabeled_score[7], result.mislabeled_probability[7]]).all()
    assert (result.is_removed[7], result.samples_seen) == (0, 1999)
    assert np.isfinite(np.delete(result.mislabeled_score.values, 7)).all()
    assert "1 were never seen and have no verdict" in cleaning_summary(result)
    losses[10] = np.nan
    result = find_mislabeled(losses)
    assert (result.records_taken, result.records_missing) == (39, 1)
    assert "records without any loss, left out: 1" in cleaning_summary(result)


def test_what_was_seen_before_learning_is_no_evidence(monkeypatch):
    generator = np.random.default_rng(19)
    wrong, early = generator.random((2, 2000)) < [[0.1], [0.4]]
    losses = training(wrong, records=40, memorised=30)
    losses *= np.exp(0.2 * generator.standard_normal(losses.shape))  # in which those of the first record differ
    losses[1:, early] = np.nan

    def check():
        result = find_mislabeled(losses)
        assert not result.is_refused
        assert result.is_removed[early].sum() == 0
        assert np.isnan(result.mislabeled_score[early]).all()
        assert (result.is_removed[~early] == wrong[~early]).mean() > 0.99
        assert (result.samples_seen, result.samples_judged) == (2000, (~early).sum())
        assert f"{early.sum()} were seen too seldom" in cleaning_summary(result)

    check()
    monkeypatch.setattr(search, "_seen_enough", lambda fit, losses, there: there.any(0))
    with pytest.raises(AssertionError):
        check()


def test_one_loss_alone_is_no_evidence(monkeypatch):
    """One random record a sample cannot be judged; 5 % of all records can, where there are two."""
    generator = np.random.default_rng(20)
    wrong = generator.random(2000) < 0.3
    losses = training(wrong, records=40, memorised=60) * np.exp(0.2 * generator.standard_normal((40, 2000)))
    one = np.where(np.arange(40)[:, None] == generator.integers(40, size=2000), losses, np.nan)
    result = find_mislabeled(np.where(generator.random(losses.shape) < 0.05, losses, np.nan), n_classes=10)
    assert result.is_removed.values[wrong].sum() > 200
    assert result.is_removed.values[wrong].sum() / result.is_removed.sum() > 0.9

    def check():
        result = find_mislabeled(one, n_classes=10)
        assert result.is_removed.sum() == 0
        assert "0 samples were seen 2 times" in result.reason.item()

    check()
    monkeypatch.setattr(search, "_LEAST_SEEN", 1)
    with pytest.raises(AssertionError):
        check()


def test_when_a_sample_was_seen_does_not_shift_its_score(monkeypatch):
    """Losses fall: averages of what was seen are higher for samples that were seen early."""
    generator = np.random.default_rng(14)
    wrong = generator.random(2000) < 0.3
    losses = training(wrong, records=40, memorised=30)
    seen = generator.random(losses.shape) < 0.5
    early = seen[:8].sum(0) / seen[:25].sum(0)

    def check():
        score = find_mislabeled(np.where(seen, losses, np.nan)).mislabeled_score.values[~wrong]
        assert abs(stats.spearmanr(score, early[~wrong]).statistic) < SIGMAS / np.sqrt(len(score))

    check()
    averages = np.broadcast_to(np.nanmean(np.where(seen, losses, np.nan), axis=0), losses.shape)
    monkeypatch.setattr(search, "_filled", lambda values, _: np.where(np.isfinite(values), values, averages))
    with pytest.raises(AssertionError):
        check()


# --- No harm ----------------------------------------------------------------------------------------------------------


def test_nothing_is_removed_before_learning_has_begun(monkeypatch):
    """An untrained network prefers some classes: its losses are in two groups, and every label is right."""
    generator = np.random.default_rng(15)
    losses = training(np.zeros(1500, dtype=bool), records=20)
    losses[0] = np.where(generator.random(1500) < 0.7, 3.0, 1.7) + 0.1 * generator.standard_normal(1500)

    def check():
        for length in (2, 5, 20):
            assert find_mislabeled(losses[:length], n_classes=10).is_removed.sum() == 0

    check()
    monkeypatch.setattr(search, "_FALLEN", np.inf)
    monkeypatch.setattr(search, "_LEARNED", np.inf)
    with pytest.raises(AssertionError):
        check()


def test_a_removal_of_too_low_a_predicted_precision_is_refused(monkeypatch):
    wrong = np.random.default_rng(16).random(500) < 0.1
    losses = training(wrong, records=20, memorised=15)

    def check():
        free, careful = (find_mislabeled(losses, n_classes=10, least_precision=least) for least in (0.0, 0.999))
        assert not free.is_refused
        assert careful.is_refused
        assert careful.is_removed.sum() == 0
        assert careful.predicted_precision == free.predicted_precision < 0.999
        assert f"{free.is_removed.sum().item()} samples would go" in careful.reason.item()
        assert f"precision is {free.predicted_precision.item():.2f}" in careful.reason.item()
        assert area(careful.mislabeled_score.values, wrong) > 0.95

    check()
    monkeypatch.setattr(search, "_predicted_precision", lambda *_: 1.0)
    with pytest.raises(AssertionError):
        check()


def test_the_tail_is_that_of_the_worst_unimodal_law():
    """The inequality is sharp for an atom and a uniform law: with that tail the prediction is exact."""
    n, distance = 3_000_000, 2.5
    share = 4 / (3 * (1 + distance**2))  # of the uniform part, from the atom to where a third of it lies above m + k s
    place = np.where(np.arange(n) < share * n, np.linspace(0, 1, n) / share, 0.0)
    mean, deviation = place.mean(), place.std()
    removed = place > mean + distance * deviation
    predicted = search._predicted_precision(place, np.zeros(n), removed, np.zeros(n, int))
    assert removed.mean() == pytest.approx(share / 3, rel=1e-3)
    assert predicted == pytest.approx(0, abs=2e-3)


def test_the_ranking_is_returned_where_it_refuses(monkeypatch):
    """Losses of wrong labels are like any other at first, and stay below a guess."""
    generator = np.random.default_rng(17)
    wrong = generator.random(1000) < 0.1
    time = np.arange(40)[:, None]
    level = np.where(wrong, 0.3 + 0.4 * np.exp(-time / 30), 0.02 + 0.7 * np.exp(-time / 3))
    losses = GUESS * level * np.exp(0.7 * generator.standard_normal((40, 1000)))

    def check():
        result = find_mislabeled(losses, n_classes=10)
        assert result.is_refused
        assert result.is_removed.sum() == 0
        assert area(result.mislabeled_score.values, wrong) > 0.95

    check()
    monkeypatch.setattr(search, "_ranking_record", lambda _: 0)
    with pytest.raises(AssertionError):
        check()


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


@pytest.mark.parametrize("own_class", [False, True])
def test_samples_that_do_not_differ_divide_by_nothing(own_class):
    wrong = np.arange(1000) < 300
    label = wrong if own_class else np.arange(1000) % 10  # warnings are errors
    found = find_mislabeled(training(wrong, spread=0.0), label.astype(int))
    # Scores have two values: nobody correct is as far up as those that would go.
    assert found.predicted_precision == 1


def test_errors_are_no_losses_and_classes_are_as_many_as_labels_say():
    generator, label = np.random.default_rng(0), np.arange(1000) % 10
    errors = (generator.random((20, 1000)) < np.linspace(0.9, 0.1, 20)[:, None]).astype(float)
    errors[3, 5] = np.nan
    for values in (errors, errors.astype(np.float32)[None] * 2):
        with pytest.raises(ConfigurationError, match="sample_loss takes two values only, 0 and"):
            find_mislabeled(values, label)
    losses = training(np.arange(1000) < 300)
    with pytest.raises(ConfigurationError, match="n_classes=5 beside given labels of 10 classes, 0 to 9"):
        find_mislabeled(losses, label, n_classes=5)
    assert find_mislabeled(losses, label, n_classes=20).samples_seen == 1000


def test_malformed_arguments_are_refused_by_name():
    losses = training(np.arange(200) < 80, records=10)
    for bad in (losses[0], losses[None, None], np.zeros((3, 0)), "losses", [[1.0, "a"]], None):
        with pytest.raises(ConfigurationError, match="sample_loss"):
            find_mislabeled(bad)
    for bad in (np.zeros(3, dtype=int), np.full(200, 0.5), np.full(200, -1), ["a"] * 200):
        with pytest.raises(ConfigurationError, match="given_label"):
            find_mislabeled(losses, bad)
    for wrong in (-1, 0.5):
        with pytest.raises(ConfigurationError, match=rf"given_label holds {wrong} in 1 places, the first is sample 7:"):
            find_mislabeled(losses, np.where(np.arange(200) == 7, wrong, 0))
    for bad in (np.arange(3), np.zeros(10), np.full(10, np.nan)):
        with pytest.raises(ConfigurationError, match="epoch"):
            find_mislabeled(losses, epoch=bad)
    for name, bad in (
        ("threshold", 1.5),
        ("least_separation", -1),
        ("most_of_class", "all"),
        ("least_precision", 2),
        ("n_classes", 1),
    ):
        with pytest.raises(ConfigurationError, match=name):
            find_mislabeled(losses, **{name: bad})
    with pytest.raises(ConfigurationError, match="return_inverse"):
        find_mislabeled(losses, np.array(["cat", "dog"] * 100))
    turned = training(np.arange(120) < 40, records=200)
    for given_label in (None, np.zeros(200, dtype=int)):
        with pytest.raises(ConfigurationError, match="is it transposed"):
            find_mislabeled(turned, given_label)
    assert find_mislabeled(training(np.arange(200) < 80, records=220), np.arange(200) % 2).records_taken == 220
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


def test_labels_of_different_lengths_are_refused_by_name():
    losses = np.random.default_rng(0).random((5, 200))
    with pytest.raises(ConfigurationError, match="given_label is of type list: expected class numbers"):
        find_mislabeled(losses, [[1, 2], [3]] * 100)
