"""What predictions settle on, on histories of known truth, on twins in which nothing is given up, and by scipy's mode."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.stats import mode

from langevin_nn.monitor.settled import MISSING, settled_classes, settled_of

N, EPOCHS, ONSET, CLASSES = 4000, 40, 20, 10


def history(seed, *, share=0.3, hazard=0.05, errors=0.02, missing=0.0):
    """Classes are told apart from epoch 3 on; from the onset on wrong labels are learned by heart, for good."""
    generator = np.random.default_rng(seed)
    true = generator.integers(CLASSES, size=N)
    wrong = generator.random(N) < share
    labels = np.where(wrong, (true + generator.integers(1, CLASSES, size=N)) % CLASSES, true)
    learned = np.where(wrong & (hazard > 0), ONSET + generator.geometric(max(hazard, 1e-9), N), EPOCHS)
    t = np.arange(EPOCHS)[:, None]
    table = np.where(t >= learned, labels, true)
    noise = errors + 0.6 * np.exp(-t / 3)
    table = np.where(generator.random(table.shape) < noise, generator.integers(CLASSES, size=table.shape), table)
    table[:2] = 4  # an untrained network
    table[generator.random(table.shape) < missing] = MISSING
    return table, labels, true, wrong


@pytest.mark.filterwarnings("ignore::scipy.stats._axis_nan_policy.SmallSampleWarning")  # where none was seen
@given(arrays(np.int64, st.tuples(st.integers(1, 8), st.integers(1, 6)), elements=st.integers(-1, 3)))
@settings(max_examples=200)
def test_settled_classes_are_scipys_mode_of_what_was_seen(table):
    theirs = mode(np.where(table == MISSING, np.nan, table), axis=0, nan_policy="omit").mode
    np.testing.assert_array_equal(settled_classes(table), np.nan_to_num(np.asarray(theirs, float), nan=MISSING))


@pytest.mark.parametrize(("missing", "seeds"), [(0.0, 20), (0.2, 5)])
def test_the_interval_covers_the_onset_and_classes_are_the_true_ones(missing, seeds):
    covered = 0
    for seed in range(seeds):
        table, labels, true, _ = history(seed, missing=missing)
        found = settled_of(table, labels)
        assert (found.classes == true).mean() > 0.97  # 30 % · 7 % were given up in the first half of the records
        covered += found.interval[0] <= ONSET <= found.interval[1]
        assert found.interval[0] <= found.onset <= found.interval[1]
        assert found.fall > 0.01
    assert covered >= seeds - 2  # at 95 %: fewer by chance in 8 of 100 such tests were the level exact
    assert found.interval[1] - found.interval[0] < 12


def test_the_onset_is_found_soon_and_never_before():
    """With 1.5 % of the samples given up each epoch, and three epochs to wait."""
    for seed in range(5):
        table, labels, *_ = history(seed)
        stops = [settled_of(table[:until], labels) for until in range(1, EPOCHS + 1)]
        first = next(until for until, each in enumerate(stops, 1) if each is not None and each.onset is not None)
        assert ONSET < first <= ONSET + 6


def test_where_nothing_is_given_up_nothing_is_said():
    """Twins without flips; of the differences 1 % of the samples is three standard errors."""
    for seed in range(20):
        table, labels, *_ = history(seed, hazard=0.0)
        assert not any(settled_of(table[:until], labels).onset for until in range(12, EPOCHS + 1, 4))


def test_predictions_that_do_not_settle_say_so():
    generator = np.random.default_rng(0)
    table, labels, *_ = history(0, errors=0.6)
    found = settled_of(table, labels)
    assert (found.onset, found.agreement < 0.75) == (None, True)
    assert settled_of(generator.integers(CLASSES, size=table.shape), labels).onset is None
    assert settled_of(np.full_like(table, 3), labels) is None, "classes are not told apart"
    assert settled_of(table[:7], labels) is None
    assert settled_of(np.full_like(table, MISSING), labels) is None
    assert settled_of(np.full_like(table, MISSING), None).onset is None


@given(st.integers(0, 50))
@settings(max_examples=10, deadline=None)
def test_the_order_of_samples_does_not_matter(seed):
    table, labels, *_ = history(seed)
    order = np.random.default_rng(seed).permutation(N)
    one, other = settled_of(table, labels), settled_of(table[:, order], labels[order])
    assert (one.onset, one.interval) == (other.onset, other.interval)
    assert (one.fall, one.error) == pytest.approx((other.fall, other.error))
