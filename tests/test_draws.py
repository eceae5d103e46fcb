"""Numbers drawn on devices: Philox and its consumers against twins in whole numbers, and the laws of noise made of them."""

from __future__ import annotations

from itertools import combinations, permutations

import numpy as np
import pytest
import torch
from cases import Points
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from test_together import landscape
from twins import KNOWN_ANSWERS, MASK, halves, slow_philox, words_of

from langevin_nn import Process, Seeds, advance, draws
from langevin_nn.engine import way
from langevin_nn.kernels.normals import draw_normals
from langevin_nn.noise import SVAG, IndependentMinibatches, MatchedGaussian, ScaledNoise, ShuffledMinibatches
from langevin_nn.seeds import Key

CPU = torch.device("cpu")
SIGMAS, P_VALUE = 4.5, 1e-4


def rows_of(replicas, seed: int = 3, purpose: str = "test") -> torch.Tensor:
    return draws.addresses([Key(Seeds(seed), tuple(replicas), 0)], purpose, CPU)


def slow_words(replica: int, block: int, seed: int = 3, purpose: str = "test") -> tuple[int, ...]:
    return slow_philox((*halves(block), *halves(replica)), halves(Seeds(seed).key(purpose)))


def slow_number(replica: int, number: int) -> int:
    """Number n of 64 bits: half of block n // 2, the lower word first."""
    words = slow_words(replica, number // 2)
    low, high = words[2 * (number % 2) : 2 * (number % 2) + 2]
    return low + 2**32 * high


# --- Philox


@pytest.mark.parametrize(("counter", "key", "block"), KNOWN_ANSWERS)
def test_philox_gives_the_published_answers(counter, key, block):
    counter, key = words_of(counter), words_of(key)
    signed = np.array([counter[0] + 2**32 * counter[1]], np.uint64).view(np.int64)
    rows = torch.tensor([[*key, *counter[2:]]])
    found = tuple(draws.words(rows, torch.as_tensor(signed)).flatten().tolist())
    assert found == words_of(block)
    assert found != slow_philox(counter, key, rounds=9)


@given(st.integers(0, 2**63 - 1), st.integers(0, 2**62), st.integers(-(2**127), 2**127))
def test_words_of_any_address_are_those_of_a_twin(replica, block, seed):
    found = draws.words(rows_of([replica], seed), torch.tensor([block])).flatten().tolist()
    assert tuple(found) == slow_words(replica, block, seed)


@pytest.mark.parametrize("size", [4, 40])
def test_normal_numbers_are_those_of_the_kernel(size):
    """To float32 rounding of an angle up to 2π and a radius up to 6.6."""
    replicas = (0, 3, 2**40 + 7)
    found = draws.normals(rows_of(replicas), size, 11, 300).numpy()
    expected = draw_normals(replicas, Seeds(3).key("test"), 11, 300, size, np.float32)
    np.testing.assert_allclose(found, expected, rtol=0, atol=4e-6)
    assert np.abs(found - draw_normals(replicas, Seeds(3).key("test"), 12, 300, size, np.float32)).max() > 1


def test_steps_that_do_not_fill_a_block_leave_the_rest_out():
    whole, part = (draws.normals(rows_of((5,)), size, 2, 3) for size in (8, 6))
    assert torch.equal(whole[..., :6], part)


def test_replicas_do_not_depend_on_their_company_or_on_how_many_fit_at_once(monkeypatch):
    drawn = {
        "words": lambda rows: draws.words(rows, torch.arange(5)).movedim(0, -1),
        "permutations": lambda rows: draws.permutations(rows, 30, 4),
        "integers": lambda rows: draws.integers(rows, torch.full((7,), 100), 3, 2),
        "distinct": lambda rows: draws.distinct_integers(rows, 100, 7, 3, 2),
        "normals": lambda rows: draws.normals(rows, 10, 3, 2),
    }
    among = {name: draw(rows_of(range(400))) for name, draw in drawn.items()}
    monkeypatch.setattr(draws, "_AT_ONCE", 64)
    for name, draw in drawn.items():
        assert torch.equal(draw(rows_of([3])), among[name][3:4]), name
        assert torch.equal(draw(rows_of(range(400))), among[name]), name
        assert len(torch.unique(among[name].flatten(1), dim=0)) == 400, f"{name}: two replicas share their numbers"


def test_seeds_and_purposes_are_streams_of_their_own():
    rows = torch.cat([rows_of((0,)), rows_of((0,), seed=4), rows_of((0,), purpose="other")])
    assert len(torch.unique(draws.words(rows, torch.arange(4))[0], dim=0)) == 3


# --- Whole numbers


@settings(max_examples=20)
@given(st.integers(1, 2**30), st.integers(0, 10**6), st.integers(1, 5))
def test_integers_are_products_with_64_random_bits(below, step, size):
    found = draws.integers(rows_of((8,)), torch.full((size,), below), step, 2)[0]
    per_step = (size + 1) // 2 * 2
    for row, of_step in enumerate(found.tolist()):
        numbers = [slow_number(8, (step + row) * per_step + k) for k in range(size)]
        assert of_step == [below * number >> 64 for number in numbers]


@settings(max_examples=20)
@given(st.integers(1, 40), st.integers(0, 10**6))
def test_permutations_sort_random_numbers(size, number):
    found = draws.permutations(rows_of((8,)), size, number)[0].tolist()
    per_step = (size + 1) // 2 * 2
    numbers = [slow_number(8, number * per_step + k) for k in range(size)]
    keys = [(each >> 33 << 32) + (each & MASK) for each in numbers]  # 63 bits
    assert found == sorted(range(size), key=lambda k: keys[k])


def uniformity(found: np.ndarray, outcomes: list[tuple[int, ...]]) -> float:
    """p of Pearson's chi-square that rows are uniform over the outcomes."""
    index = {each: k for k, each in enumerate(outcomes)}
    counts = np.bincount([index[tuple(row)] for row in found.tolist()], minlength=len(outcomes))
    return float(stats.chisquare(counts).pvalue)


def test_all_permutations_are_equally_probable():
    outcomes = list(permutations(range(4)))
    found = draws.permutations(rows_of(range(24_000)), 4, 2).numpy()
    assert uniformity(found, outcomes) > P_VALUE
    naive = np.tile(np.arange(4), (24_000, 1))
    others = draws.integers(rows_of(range(24_000)), torch.full((4,), 4), 0, 1)[:, 0].numpy()
    for k in range(4):  # swaps with any place, a mistake of old
        rows = np.arange(len(naive))
        naive[rows, k], naive[rows, others[:, k]] = naive[rows, others[:, k]], naive[rows, k].copy()
    assert uniformity(naive, outcomes) < P_VALUE


def test_all_sets_are_equally_probable():
    outcomes = list(combinations(range(6), 3))
    found = draws.distinct_integers(rows_of(range(10_000)), 6, 3, 1, 2).flatten(0, 1).sort(1).values.numpy()
    assert uniformity(found, outcomes) > P_VALUE
    mutated = draws.integers(rows_of(range(20_000)), torch.full((3,), 6), 1, 1)[:, 0].numpy()
    for k in (1, 2):  # Floyd's algorithm from all numbers at once
        taken = (mutated[:, :k] == mutated[:, k, None]).any(1)
        mutated[taken, k] = 3 + k
    kept = np.array([row for row in np.sort(mutated, 1) if len(set(row)) == 3])
    assert uniformity(kept, outcomes) < P_VALUE


@given(st.integers(1, 60).flatmap(lambda n: st.tuples(st.just(n), st.integers(1, n))), st.integers(0, 1000))
def test_distinct_integers_are_distinct(sizes, first):
    """By either way, that of few and that of many."""
    below, size = sizes
    found = draws.distinct_integers(rows_of((1, 2)), below, size, first, 2)
    assert found.shape == (2, 2, size)
    assert 0 <= int(found.min()) <= int(found.max()) < below
    assert all(len(set(row)) == size for row in found.flatten(0, 1).tolist())


# --- Noise

N, B, REPLICAS = 12, 4, 40_000
WITHOUT = (N - B) / (N - 1)
SOURCES = {
    "shuffled": (ShuffledMinibatches(B), WITHOUT),
    "independent": (IndependentMinibatches(B), WITHOUT),
    "replacement": (IndependentMinibatches(B, replacement=True), 1.0),
    "matched": (MatchedGaussian(B), WITHOUT),
    "matched replacement": (MatchedGaussian(B, replacement=True), 1.0),
}


def drawn_on_device(noise, replicas=REPLICAS, steps=2, first=1):
    """c_k, shape (step, replica, sample)."""
    weights = torch.zeros(replicas, 1, dtype=torch.float64)
    philox = draws.PhiloxDraws([Key(Seeds(3), tuple(range(replicas)), first)], weights)
    return noise.sample_weights(N, noise.start(Points(N), weights), philox, steps)[0].spread(N).numpy()


def assert_law(c: np.ndarray, factor: float, lag: float) -> None:
    """⟨c⟩ = 1/N, cov(c_k, c_l) = f/(BN) (δ_kl − 1/N) in each update and `lag` times that from one to the next."""
    noise, unit = c - 1 / N, 1 / (B * N)
    pairs = [(noise[0, :, k] ** 2, factor * unit * (1 - 1 / N)) for k in (0, N - 1)]
    pairs += [(noise[1, :, 0] * noise[1, :, k], -factor * unit / N) for k in (1, N - 1)]
    pairs += [(noise[0, :, 3] * noise[1, :, 3], lag * unit * (1 - 1 / N)), (noise[0, :, 5], 0.0), (noise[1, :, 6], 0.0)]
    for products, expected in pairs:
        error = products.std() / np.sqrt(len(products))
        assert abs(products.mean() - expected) <= SIGMAS * error


@pytest.mark.parametrize("name", SOURCES)
def test_noise_drawn_on_devices_has_its_law(name):
    noise, factor = SOURCES[name]
    c = drawn_on_device(noise)
    lag = -factor * B / (N - B) if name == "shuffled" else 0.0
    assert_law(c, factor, lag)
    np.testing.assert_allclose(c.sum(2), 1, rtol=1e-5)
    with pytest.raises(AssertionError):
        assert_law(1 / N + 1.05 * (c - 1 / N), factor, lag)
    with pytest.raises(AssertionError):
        assert_law(c, factor, lag - 0.1)


def test_matched_noise_drawn_on_devices_is_gaussian():
    c = drawn_on_device(MatchedGaussian(B), 5000)[0, :, 0]
    scaled = (c - 1 / N) / np.sqrt(WITHOUT / (B * N) * (1 - 1 / N))
    assert stats.kstest(scaled, "norm").pvalue > P_VALUE
    assert stats.kstest(drawn_on_device(IndependentMinibatches(B), 5000)[0, :, 0], "norm").pvalue < P_VALUE


def test_shuffled_epochs_on_devices_are_cut_from_one_order_in_blocks_of_any_length():
    noise, weights = ShuffledMinibatches(6), torch.zeros(3, 1)
    memory = start = noise.start(Points(20), weights)

    def at(first):
        return draws.PhiloxDraws([Key(Seeds(0), (0, 7), first), Key(Seeds(4), (2,), first)], weights)

    whole, _ = noise.minibatches(20, start, at(0), 10)
    epoch = whole[:3].transpose(0, 1).flatten(1)
    assert all(len(set(row)) == 18 for row in epoch.tolist())
    assert not torch.equal(epoch, whole[3:6].transpose(0, 1).flatten(1))
    pieces = []
    for first, count in ((0, 1), (1, 3), (4, 1), (5, 5)):
        drawn, memory = noise.minibatches(20, memory, at(first), count)
        pieces.append(drawn)
    assert torch.equal(torch.cat(pieces), whole)
    alone, _ = noise.minibatches(20, start, draws.PhiloxDraws([Key(Seeds(4), (2,), 5)], weights), 4)
    assert torch.equal(alone, whole[5:9, 2:]), "without memory, and alone"


class Halved(MatchedGaussian):
    """A law of one's own, of which nothing is known."""

    def sample_weights(self, n_samples, memory, draws, steps):
        drawn, memory = super().sample_weights(n_samples, memory, draws, steps)
        return drawn.scaled(0.5, n_samples), memory


class HalvedAnywhere(Halved):
    portable = True


def test_noise_of_ones_own_is_drawn_ahead_only_where_it_says_that_it_may_be():
    """To the law of matched noise at a quarter of its temperature either way."""
    chosen = landscape()
    found = {}
    for noise in (Halved(B), HalvedAnywhere(B), ScaledNoise(MatchedGaussian(B), 0.25)):
        process = Process(chosen, noise, 0.1)
        start = process.start(2, 0)
        found[type(noise)] = way(process, captured=True), advance(process, start, 5, captured=True).weights
    assert [each for each, _ in found.values()] == ["stepwise", "captured", "stepwise"]
    known, ahead, scaled = (weights for _, weights in found.values())
    assert torch.allclose(known, scaled, atol=1e-6)
    assert not torch.allclose(ahead, scaled, atol=1e-3), "other numbers"


@pytest.mark.parametrize("kind", [draws.NumPyDraws, draws.PhiloxDraws])
@pytest.mark.parametrize("centred", [False, True])
def test_normal_numbers_come_centred_scaled_and_shifted(kind, centred):
    numbers = kind([Key(Seeds(0), (0, 7), 5), Key(Seeds(4), (2,), 5)], torch.zeros(3, 1))
    plain = numbers.normals("a", 30, 4).numpy().copy()
    if centred:
        plain -= plain.mean(2, keepdims=True)
    made = numbers.normals("a", 30, 4, centred=centred, scale=0.3, shift=0.1)
    np.testing.assert_allclose(made, plain * np.float32(0.3) + np.float32(0.1), atol=1e-7)
    assert torch.equal(numbers.normals("a", 30, 4), numbers.normals("a", 30, 4, scale=1, shift=0))


def test_laws_that_numbers_of_numpy_alone_have_run_by_any_draws():
    """SVAG chooses its minibatches itself: the same ones, whoever makes the other numbers."""
    weights = torch.zeros(2, 1, dtype=torch.float64)
    keys = [Key(Seeds(3), (0, 5), 4)]
    one, other = (
        SVAG(2, 3).sample_weights(N, None, kind(keys, weights), 3)[0] for kind in (draws.NumPyDraws, draws.PhiloxDraws)
    )
    assert torch.equal(one.indices, other.indices)
    for step in range(3):
        alone, _ = SVAG(2, 3).sample_weights(N, None, draws.draws_at(Key(Seeds(3), (0, 5), 4 + step), weights), 1)
        assert torch.equal(alone.indices[0], one.indices[step])
