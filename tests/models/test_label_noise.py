from unittest.mock import Mock

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chi2

from langevin_nn.errors import ConfigurationError, UnknownNameError
from langevin_nn.seeds import Seeds
from models import NoisyLabels, corrupt_labels

KINDS = ("uniform", "exclusive", "transition")
SKEWED = np.array([[0.7, 0.1, 0.2, 0.0], [0.0, 0.0, 0.5, 0.5], [0.25, 0.25, 0.25, 0.25], [0.0, 1.0, 0.0, 0.0]])


def corrupt(labels, label_noise, kind, n_classes, **rest):
    matrix = np.full((n_classes, n_classes), 1 / n_classes) if kind == "transition" else None
    return corrupt_labels(labels, label_noise, kind=kind, n_classes=n_classes, transition_matrix=matrix, **rest)


@st.composite
def problems(draw):
    n_classes = draw(st.integers(2, 6))
    labels = draw(st.lists(st.integers(0, n_classes - 1), min_size=1, max_size=60))
    return (
        np.array(labels),
        n_classes,
        draw(st.floats(0, 1)),
        draw(st.sampled_from(KINDS)),
        draw(st.integers(0, 2**40)),
    )


# Laws that hold for every draw


@settings(deadline=None)
@given(problems())
def test_laws_of_the_cohorts(problem):
    labels, n_classes, label_noise, kind, seed = problem
    before = labels.copy()
    noisy = corrupt(labels, label_noise, kind, n_classes, seeds=Seeds(seed))
    np.testing.assert_array_equal(labels, before)
    np.testing.assert_array_equal(noisy.true_labels, before)
    assert noisy.given_labels.dtype == noisy.true_labels.dtype == np.int64
    assert noisy.mislabeled.dtype == noisy.relabeled.dtype == bool
    assert set(noisy.given_labels.tolist()) <= set(range(n_classes))
    assert sum(noisy.relabeled.tolist()) == round(label_noise * len(labels))
    for given_label, true, wrong, redrawn in zip(
        noisy.given_labels, noisy.true_labels, noisy.mislabeled, noisy.relabeled, strict=True
    ):
        assert wrong == (given_label != true)
        assert redrawn or not wrong
    assert noisy.mislabeled_fraction == sum(noisy.mislabeled.tolist()) / len(labels)


@settings(deadline=None)
@given(problems(), st.integers(0, 50))
def test_same_seed_and_replica_give_the_same_labels(problem, replica):
    labels, n_classes, label_noise, kind, seed = problem
    first, again = (corrupt(labels, label_noise, kind, n_classes, seeds=Seeds(seed), replica=replica) for _ in range(2))
    np.testing.assert_array_equal(first.given_labels, again.given_labels)
    np.testing.assert_array_equal(first.relabeled, again.relabeled)


@settings(deadline=None)
@given(problems(), st.permutations(range(6)))
def test_which_samples_are_relabeled_depends_on_nothing_but_their_number(problem, names):
    labels, n_classes, label_noise, kind, seed = problem
    renamed = np.array([name for name in names if name < n_classes])[labels]
    first, second = (
        corrupt(given_to, label_noise, kind, n_classes, seeds=Seeds(seed)) for given_to in (labels, renamed)
    )
    np.testing.assert_array_equal(first.relabeled, second.relabeled)


@settings(deadline=None)
@given(problems(), st.floats(0, 1))
def test_less_noise_relabels_some_of_the_same_samples(problem, share):
    labels, n_classes, label_noise, kind, seed = problem
    more = corrupt(labels, label_noise, kind, n_classes, seeds=Seeds(seed))
    less = corrupt(labels, share * label_noise, kind, n_classes, seeds=Seeds(seed))
    assert not (less.relabeled & ~more.relabeled).any()


@settings(deadline=None)
@given(problems())
def test_cyclic_matrix_moves_every_relabeled_sample_to_the_next_class(problem):
    labels, n_classes, label_noise, _, seed = problem
    cyclic = np.roll(np.eye(n_classes), 1, axis=1)
    noisy = corrupt_labels(labels, label_noise, kind="transition", transition_matrix=cyclic, seeds=Seeds(seed))
    np.testing.assert_array_equal((noisy.given_labels - labels) % n_classes, noisy.relabeled)


def test_replicas_and_seeds_differ():
    labels = np.arange(400) % 10
    drawn = [
        corrupt_labels(labels, 0.5, seeds=Seeds(seed), replica=replica).given_labels.tobytes()
        for seed in range(3)
        for replica in range(3)
    ]
    assert len(set(drawn)) == 9


@pytest.mark.parametrize("container", [list, tuple, np.array, lambda labels: np.array(labels, dtype=np.uint8)])
def test_any_container_of_whole_numbers_will_do(container):
    labels = [0, 1, 2, 9] * 10
    noisy = corrupt_labels(container(labels), 0.3, seeds=Seeds(0))
    np.testing.assert_array_equal(noisy.given_labels, corrupt_labels(labels, 0.3, seeds=Seeds(0)).given_labels)


def test_no_samples_wrong_at_no_noise_and_all_relabeled_at_full_noise():
    assert corrupt_labels([0, 1] * 20, 0.0, seeds=Seeds(0)).mislabeled_fraction == 0
    assert corrupt_labels([0, 1] * 20, 1, seeds=Seeds(0)).relabeled.all()


# Laws of distribution


def expected_matrix(kind):
    return {
        "uniform": np.full((4, 4), 0.25),
        "exclusive": (1 - np.eye(4)) / 3,
        "transition equal to uniform": np.full((4, 4), 0.25),
        "skewed transition": SKEWED,
    }[kind]


def draw(kind, matrix=None, n_samples=200_000):
    """Relabel nine tenths of equally many samples of four classes: 45,000 of each, up to the draw."""
    if kind in {"uniform", "exclusive"}:
        return corrupt_labels(np.arange(n_samples) % 4, 0.9, kind=kind, seeds=Seeds(3))
    matrix = expected_matrix(kind) if matrix is None else matrix
    return corrupt_labels(np.arange(n_samples) % 4, 0.9, kind="transition", transition_matrix=matrix, seeds=Seeds(3))


def follows(noisy: NoisyLabels, matrix):
    """Whether Pearson's χ² of (true, new) among the relabeled stays below its quantile 1 - 10⁻⁴."""
    counts = np.zeros((4, 4))
    np.add.at(counts, (noisy.true_labels[noisy.relabeled], noisy.given_labels[noisy.relabeled]), 1)
    expected = counts.sum(axis=1, keepdims=True) * matrix
    possible = expected > 0
    if counts[~possible].any():
        return False
    statistic = ((counts - expected)[possible] ** 2 / expected[possible]).sum()
    return statistic < chi2(possible.sum() - 4).ppf(1 - 1e-4)


@pytest.mark.parametrize("kind", ["uniform", "exclusive", "transition equal to uniform", "skewed transition"])
def test_new_labels_follow_the_law(kind):
    assert follows(draw(kind), expected_matrix(kind))


def test_five_percent_off_is_noticed():
    # Non-centrality n·Σδ²/p = 180,000 × 8.3·10⁻⁴ = 150 at 12 degrees of freedom: missed once in 10⁶.
    twin = np.full((4, 4), (1 - 0.25 * 1.05) / 3)
    twin[:, 0] = 0.25 * 1.05
    assert not follows(draw("twin", twin), expected_matrix("uniform"))


@pytest.mark.parametrize(
    ("kind", "truth"), [("exclusive", "uniform"), ("uniform", "exclusive"), ("skewed transition", "uniform")]
)
def test_one_kind_is_not_taken_for_another(kind, truth):
    assert not follows(draw(kind), expected_matrix(truth))


def test_transposed_matrix_is_noticed():
    cyclic = 0.9 * np.roll(np.eye(4), 1, axis=1) + 0.1 / 4
    assert follows(draw("cyclic", cyclic), cyclic)
    assert not follows(draw("cyclic", cyclic), cyclic.T)


def test_every_sample_is_relabeled_equally_often():
    # 2,000 replicas of 50 samples: counts are binomial, and the largest of 50 deviations stays below 4.5 errors.
    counts = sum(
        corrupt_labels(np.arange(50) % 10, 0.3, seeds=Seeds(5), replica=r).relabeled.astype(int) for r in range(2000)
    )
    deviations = (counts / 2000 - 0.3) / np.sqrt(0.3 * 0.7 / 2000)
    assert np.abs(deviations).max() < 4.5


class EdgeSeeds(Seeds):
    """Uniform numbers that are all the same: the smallest or the largest that a generator returns."""

    def __init__(self, number):
        super().__init__(0)
        object.__setattr__(self, "number", number)

    def generator(self, purpose, replica, step=0):
        generator = Mock(wraps=super().generator(purpose, replica, step))
        generator.random = lambda size: np.full(size, self.number)
        return generator


@pytest.mark.parametrize(("number", "new_label"), [(0.0, 1), (1 - 2**-53, 10)])
def test_impossible_classes_stay_impossible_at_the_edges(number, new_label):
    # Tenths summed in binary end below 1, and the classes before and behind them have probability 0.
    row = np.array([0.0] + [0.1] * 10 + [0.0])
    assert row.cumsum()[-1] == 1 - 2**-53
    noisy = corrupt_labels(
        np.arange(12), 1.0, kind="transition", transition_matrix=np.tile(row, (12, 1)), seeds=EdgeSeeds(number)
    )
    assert set(noisy.given_labels.tolist()) == {new_label}


# Errors


@pytest.mark.parametrize("label_noise", [-0.01, 1.01, 20, float("nan"), float("inf")])
def test_label_noise_outside_its_range(label_noise):
    with pytest.raises(
        ConfigurationError, match=f"label_noise: expected a fraction from 0 to 1, got {label_noise}"
    ) as caught:
        corrupt_labels([0, 1], label_noise, seeds=Seeds(0))
    assert "\n" not in str(caught.value)


def test_unknown_kind():
    with pytest.raises(
        UnknownNameError,
        match=r"unknown kind of label noise 'unifrom': .* uniform, exclusive, transition; .*'uniform'",
    ):
        corrupt_labels([0, 1], 0.1, kind="unifrom", seeds=Seeds(0))


@pytest.mark.parametrize(
    ("matrix", "message"),
    [
        (None, "expected a matrix for label noise of kind 'transition', got none"),
        (np.ones((2, 3)) / 3, r"expected shape \(class, class\), got \(2, 3\)"),
        (np.ones(4) / 4, r"expected shape \(class, class\), got \(4,\)"),
        (np.empty((0, 0)), r"expected shape \(class, class\), got \(0, 0\)"),
        ([[1, 0], [1.5, -0.5]], "got row 1 with smallest entry -0.5 and sum 1"),
        ([[0.5, 0.6], [0.5, 0.5]], "got row 0 with smallest entry 0.5 and sum 1.1"),
        ([[0.5, 0.5], [0.5, 0.49]], "got row 1 with smallest entry 0.49 and sum 0.99"),
        ([[1, 0], [np.nan, 1]], "got row 1 with smallest entry nan"),
    ],
)
def test_bad_transition_matrix(matrix, message):
    with pytest.raises(ConfigurationError, match=f"transition_matrix: .*{message}") as caught:
        corrupt_labels([0, 1, 1], 0.5, kind="transition", transition_matrix=matrix, seeds=Seeds(0))
    assert "\n" not in str(caught.value)


def test_matrix_for_another_number_of_classes():
    with pytest.raises(
        ConfigurationError, match=r"transition_matrix: expected shape \(3, 3\) for 3 classes, got \(2, 2\)"
    ):
        corrupt_labels([0, 1], 0.5, kind="transition", transition_matrix=np.eye(2), n_classes=3, seeds=Seeds(0))


def test_matrix_too_small_for_the_labels():
    with pytest.raises(ConfigurationError, match="true_labels: expected classes from 0 to 1, got 2"):
        corrupt_labels([0, 2], 0.5, kind="transition", transition_matrix=np.eye(2), seeds=Seeds(0))


@pytest.mark.parametrize("kind", ["uniform", "exclusive"])
def test_superfluous_transition_matrix(kind):
    with pytest.raises(
        ConfigurationError, match=f"transition_matrix: expected none for label noise of kind '{kind}', got one"
    ):
        corrupt_labels([0, 1], 0.5, kind=kind, transition_matrix=np.eye(2), seeds=Seeds(0))


@pytest.mark.parametrize("n_classes", [None, 1])
def test_exclusive_needs_another_class(n_classes):
    with pytest.raises(ConfigurationError, match=r"n_classes: expected at least 2 .* 'exclusive', got 1"):
        corrupt_labels([0, 0], 0.5, kind="exclusive", n_classes=n_classes, seeds=Seeds(0))


@pytest.mark.parametrize(
    ("labels", "message"),
    [([], r"shape \(0,\)"), ([[0, 1]], r"shape \(1, 2\)"), ([0.5, 1.0], "type float64"), ([0, -1], "from -1")],
)
def test_labels_that_are_no_classes(labels, message):
    with pytest.raises(ConfigurationError, match=f"true_labels: expected one class number .*{message}"):
        corrupt_labels(labels, 0.5, seeds=Seeds(0))


@pytest.mark.parametrize("n_classes", [0, 3])
def test_labels_beyond_the_named_number_of_classes(n_classes):
    with pytest.raises(ConfigurationError, match=f"true_labels: expected classes from 0 to {n_classes - 1}, got 3"):
        corrupt_labels([0, 3], 0.5, n_classes=n_classes, seeds=Seeds(0))
