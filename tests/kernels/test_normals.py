"""Addressed normal numbers: known answers of Philox, a twin typed independently, addresses, and the law of 10⁸ numbers."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numba import njit
from scipy import stats
from twins import KNOWN_ANSWERS, MASK, halves, slow_philox, words_of

from langevin_nn import Seeds
from langevin_nn.kernels.normals import _circle, _circle_single, _log, _log_single, draw_normals, philox

SIGMAS = 4.5
PRECISIONS = [np.float64, np.float32]


# --- Twins typed independently ----------------------------------------------------------------------------------------


def slow_blocks(replica: int, key: int, first: int, count: int) -> np.ndarray:
    """Words of some blocks of a replica, shape (block, 4), as Python's whole numbers."""
    blocks = [slow_philox((*halves(block), *halves(replica)), halves(key)) for block in range(first, first + count)]
    return np.array(blocks, dtype=object)


def turned(quarter: np.ndarray, angle: np.ndarray) -> np.ndarray:
    """exp(i(π/2 · quarter + angle)), the quarter turns without rounding."""
    return np.array([1, 1j, -1, -1j])[quarter] * np.exp(1j * angle)


def twin(replica: int, key: int, first: int, count: int, mutation: str = "") -> np.ndarray:
    """float64 numbers first … first + count of a replica: 1 − m/2⁵² is uniform in (0, 1], 2 + 52 bits are an angle."""
    blocks = slow_blocks(replica, key, first // 2, (first + count + 1) // 2 - first // 2)
    radial = (blocks[:, 0] + blocks[:, 1] * 2**32).astype(object)
    angular = (blocks[:, 2] + blocks[:, 3] * 2**32).astype(object)
    u = np.array([(2**52 - (word >> 12)) / 2**52 for word in radial])
    if mutation == "other end of the interval":
        u = np.array([((word >> 12) + 0.5) / 2**52 for word in radial])
    logarithm = np.log(u)
    if mutation == "u - 1 for its logarithm":
        logarithm = u - 1
    x = np.array([((word & (2**62 - 1)) >> 10) / 2**52 - 0.5 for word in angular]) * math.pi / 2
    quarter = np.array([word >> 62 for word in angular], dtype=int)
    if mutation == "half turns alone":
        quarter = quarter & 2
    z = np.sqrt(-2 * logarithm) * turned(quarter, x)
    if mutation == "sine before cosine":
        z = z.imag + 1j * z.real
    if mutation == "variance 1 % up":
        z = z * math.sqrt(1.01)
    return np.column_stack([z.real, z.imag]).ravel()[first % 2 :][:count]


def twin_single(replica: int, key: int, first: int, count: int) -> np.ndarray:
    """float32 numbers: 31 bits and a half are uniform, rounded to 24; two bits and 23 are an angle."""
    blocks = slow_blocks(replica, key, first // 4, (first + count + 3) // 4 - first // 4)
    radial, angular = blocks[:, ::2].ravel(), blocks[:, 1::2].ravel()
    # Words 0 and 1 make the first pair, 2 and 3 the second.
    u = (np.array([word >> 1 for word in radial]).astype(np.float32) + np.float32(0.5)).astype(np.float64) / 2**31
    x = np.array([((word & (2**30 - 1)) >> 7) / 2**23 - 0.5 for word in angular]) * math.pi / 2
    z = np.sqrt(-2 * np.log(u)) * turned(np.array([word >> 30 for word in angular], dtype=int), x)
    return np.column_stack([z.real, z.imag]).ravel()[first % 4 :][:count]


def assert_equal_to(numbers: np.ndarray, expected: np.ndarray, tolerance: float) -> None:
    difference = np.abs(numbers - expected) / np.maximum(1, np.abs(expected))
    assert difference.max() <= tolerance, f"differs from its twin by {difference.max():.1e}"


@njit
def block_of(words):
    return philox(words[0], words[1], words[2], words[3], words[4], words[5])


@pytest.mark.parametrize(("counter", "key", "block"), KNOWN_ANSWERS)
def test_philox_gives_the_published_answers(counter, key, block):
    """Random123's known answers of Philox4x32-10, and those of another number of rounds are others."""
    counter, key, block = words_of(counter), words_of(key), words_of(block)
    assert slow_philox(counter, key) == block
    assert tuple(int(word) for word in block_of(np.array([*counter, *key], np.uint64))) == block
    assert slow_philox(counter, key, rounds=9) != block


words = st.integers(0, MASK)


@given(st.tuples(words, words, words, words), st.tuples(words, words))
def test_philox_equals_its_slow_twin(counter, key):
    assert tuple(int(word) for word in block_of(np.array([*counter, *key], np.uint64))) == slow_philox(counter, key)


addresses = st.integers(0, 2**64 - 1)


@settings(max_examples=20)
@given(replica=addresses, key=addresses, step=st.integers(0, 2**50), per_step=st.integers(1, 9))
def test_numbers_equal_a_transform_of_box_and_muller_typed_in_numpy(replica, key, step, per_step):
    """Number n of a replica comes from block n // 2 in float64, n // 4 in float32; counter: block, replica."""
    count = 40 * per_step
    for dtype, slow, tolerance in ((np.float64, twin, 1e-14), (np.float32, twin_single, 1e-6)):
        drawn = draw_normals([replica], key, step, 40, per_step, dtype)
        assert drawn.dtype == dtype
        assert_equal_to(drawn.ravel(), slow(replica, key, step * per_step, count), tolerance)


MUTATIONS = [
    "other end of the interval",
    "u - 1 for its logarithm",
    "half turns alone",
    "sine before cosine",
    "variance 1 % up",
]


@pytest.mark.parametrize("mutation", MUTATIONS)
def test_a_twin_that_is_a_little_off_is_noticed(mutation):
    drawn = draw_normals([5], 77, 0, 100, 1).ravel()
    assert_equal_to(drawn, twin(5, 77, 0, 100), 1e-14)
    with pytest.raises(AssertionError, match="differs from its twin"):
        assert_equal_to(drawn, twin(5, 77, 0, 100, mutation), 1e-6)


# --- Logarithm and circle ---------------------------------------------------------------------------------------------


@njit
def logarithms(u):
    out = np.empty_like(u)
    for i in range(u.shape[0]):
        if u.itemsize == 8:
            out[i] = _log(u[i])
        else:
            out[i] = _log_single(u[i])
    return out


@njit
def circles(angular):
    out = np.empty((angular.shape[0], 2))
    for i in range(angular.shape[0]):
        out[i, 0], out[i, 1] = _circle(angular[i])
    return out


@njit
def circles_single(angular):
    out = np.empty((angular.shape[0], 2), np.float32)
    for i in range(angular.shape[0]):
        out[i, 0], out[i, 1] = _circle_single(angular[i])
    return out


def test_logarithm_is_exact_to_rounding_at_both_ends_and_between():
    """2⁻⁵² is the smallest uniform number and 1 the largest: the radius is within 0 … 8.49, and never NaN."""
    near_one = 1 - np.arange(1000) / 2**52
    halves_and_roots = np.concatenate([2.0 ** -np.arange(53), np.nextafter(math.sqrt(0.5), [0, 1]), [math.sqrt(0.5)]])
    u = np.concatenate([near_one, halves_and_roots, np.random.default_rng(0).random(100_000), np.arange(1, 9) / 2**52])
    computed = logarithms(u)
    assert computed[0] == 0
    assert np.all(computed <= 0)
    np.testing.assert_allclose(computed, np.log(u), rtol=4e-16 * 2, atol=0)
    assert math.sqrt(-2 * logarithms(np.array([2.0**-52]))[0]) == pytest.approx(8.4905, abs=1e-4)


def test_logarithm_in_single_precision_is_exact_to_rounding():
    """2⁻³² … 1: the radius is within 0 … 6.66."""
    near_one = 1 - np.arange(1000, dtype=np.float32) / np.float32(2**24)
    between = np.random.default_rng(0).random(100_000, np.float32)
    u = np.concatenate([near_one, np.float32(2) ** -np.arange(33, dtype=np.float32), between[between > 0]])
    computed = logarithms(u)
    assert computed.dtype == np.float32
    assert computed[0] == 0
    assert np.all(computed <= 0)
    np.testing.assert_allclose(computed, np.log(u.astype(np.float64)), rtol=4e-7, atol=0)
    assert math.sqrt(-2 * logarithms(np.array([2.0**-32], np.float32))[0]) == pytest.approx(6.6604, abs=1e-4)


def test_circle_is_a_unit_vector_at_each_edge_of_a_quarter_and_between():
    corner = [quarter << 62 for quarter in range(4)]
    edges = [word + offset for word in corner for offset in (0, 1, 2**10, 2**61, 2**61 - 1, 2**62 - 1)]
    between = np.random.default_rng(0).integers(0, 2**64, 100_000, np.uint64, endpoint=False)
    angular = np.concatenate([np.array(edges, np.uint64), between])
    assert int(angular[:24].max()) == 2**64 - 1  # all ones
    quarter = (angular >> np.uint64(62)).astype(int)
    x = ((angular & np.uint64(2**62 - 1)) >> np.uint64(10)).astype(float) / 2**52 - 0.5
    expected = turned(quarter, x * math.pi / 2)
    np.testing.assert_allclose(circles(angular), np.column_stack([expected.real, expected.imag]), rtol=0, atol=4e-16)


def test_circle_in_single_precision_is_a_unit_vector():
    edges = [(quarter << 30) + offset for quarter in range(4) for offset in (0, 127, 128, 2**29, 2**30 - 1)]
    between = np.random.default_rng(0).integers(0, 2**32, 100_000, np.uint32, endpoint=False)
    angular = np.concatenate([np.array(edges, np.uint32), between])
    assert int(angular[:20].max()) == MASK
    x = ((angular & np.uint32(2**30 - 1)) >> np.uint32(7)).astype(float) / 2**23 - 0.5
    expected = turned((angular >> np.uint32(30)).astype(int), x * math.pi / 2)
    computed = circles_single(angular)
    np.testing.assert_allclose(computed, np.column_stack([expected.real, expected.imag]), rtol=0, atol=3e-7)


# --- Addresses --------------------------------------------------------------------------------------------------------


@settings(max_examples=40)
@given(
    replicas=st.lists(st.integers(0, 2**40), min_size=1, max_size=150, unique=True),
    first=st.integers(0, 2**40),
    begin=st.integers(0, 20),
    steps=st.integers(1, 12),
    per_step=st.integers(1, 9),
    dtype=st.sampled_from(PRECISIONS),
    data=st.data(),
)
def test_a_number_does_not_depend_on_which_others_are_drawn(replicas, first, begin, steps, per_step, dtype, data):
    """Any replicas in any order, from any step, however many: the same bits at the same address."""
    chosen = data.draw(st.lists(st.integers(0, len(replicas) - 1), min_size=1, max_size=70))
    all_of_them = draw_normals(replicas, 9, first, begin + steps, per_step, dtype)
    some = draw_normals([replicas[i] for i in chosen], 9, first + begin, steps, per_step, dtype)
    assert np.array_equal(some, all_of_them[chosen, begin:])


@settings(max_examples=40)
@given(first=st.integers(0, 2**40), per_step=st.integers(1, 9), dtype=st.sampled_from(PRECISIONS))
def test_numbers_of_a_step_follow_those_of_the_step_before(first, per_step, dtype):
    """Number n of a replica is one and the same however many make a step."""
    many = draw_normals([1, 70], 9, first, 13, per_step, dtype)
    one_by_one = draw_normals([1, 70], 9, first * per_step, 13 * per_step, 1, dtype)
    assert np.array_equal(many.reshape(2, -1), one_by_one[..., 0])


@pytest.mark.parametrize("dtype", PRECISIONS)
def test_no_two_of_a_million_numbers_are_at_one_place(dtype):
    """Addresses that differ in one bit alone, of replica, step or key, give other numbers."""
    base = draw_normals([0], 0, 0, 1, 4, dtype).ravel()
    replicas = [1 << bit for bit in range(64)]
    others = draw_normals(replicas, 0, 0, 1, 4, dtype).reshape(64, 4)
    keys = np.array([draw_normals([0], 1 << bit, 0, 1, 4, dtype).ravel() for bit in range(64)])
    steps = np.array([draw_normals([0], 0, 1 << bit, 1, 4, dtype).ravel() for bit in range(60)])
    every = np.concatenate([base[None], others, keys, steps])
    assert len(np.unique(every[:, 0])) == len(every)
    alone = draw_normals(range(1000), 3, 0, 1000, 1, np.float64)
    assert len(np.unique(alone)) == alone.size


# --- The law ----------------------------------------------------------------------------------------------------------

# 4096 replicas × 256 steps at a time, 96 times: 1.007 · 10⁸ numbers.
REPLICAS, STEPS, TIMES = 4096, 256, 96
DRAWS = REPLICAS * STEPS * TIMES
TAILS = (3.0, 4.0, 5.0)


def sampled(dtype, scale: float = 1.0, times: int = TIMES):
    """Moments 1 … 6, counts beyond ±3, ±4, ±5, and the largest, of DRAWS numbers."""
    moments, beyond, extreme = np.zeros(6), np.zeros((2, len(TAILS)), int), 0.0
    for time in range(times):
        x = draw_normals(range(REPLICAS), Seeds(3).key("a law"), time * STEPS, STEPS, 1, dtype).ravel()
        x = np.float64(scale) * x
        high, low = float(x.max()), float(x.min())  # NaN where any is
        extreme = max(extreme, high, -low) if high == high and low == low else math.inf
        for which, threshold in enumerate(TAILS):
            beyond[:, which] += np.count_nonzero(x > threshold), np.count_nonzero(x < -threshold)
        square = x * x
        cube = square * x
        one = np.ones_like(x)
        moments += [x @ one, x @ x, x @ square, square @ square, square @ cube, cube @ cube]
    return moments, beyond, extreme


def normal_moment(k: int) -> int:
    return 0 if k % 2 else math.prod(range(1, k, 2))


def assert_moments(sums: np.ndarray, count: int) -> None:
    """⟨x^k⟩ within standard errors √((m_2k − m_k²)/n): 10⁻⁴ of the mean, 1.4·10⁻⁴ of the variance at 10⁸ numbers."""
    for k, total in enumerate(sums, start=1):
        error = math.sqrt((normal_moment(2 * k) - normal_moment(k) ** 2) / count)
        assert abs(total / count - normal_moment(k)) <= SIGMAS * error, f"moment {k}"


def assert_tails(beyond: np.ndarray, count: int) -> None:
    """Binomial counts on either side: 1.4·10⁵ beyond 3, 3,200 beyond 4 and 29 beyond 5 standard deviations."""
    for side in beyond:
        for seen, threshold in zip(side, TAILS, strict=True):
            p = stats.norm.sf(threshold)
            assert abs(seen - count * p) <= SIGMAS * math.sqrt(count * p * (1 - p)), f"tail beyond {threshold}"


@pytest.mark.parametrize("dtype", PRECISIONS)
def test_a_hundred_million_numbers_are_finite_and_have_the_moments_and_tails_of_the_normal_law(dtype):
    """The largest of 10⁸ is near 5.7: beyond 7 there is one in 4,000 such samples."""
    moments, beyond, extreme = sampled(dtype)
    assert 5.0 < extreme < 7.0
    assert_moments(moments, DRAWS)
    assert_tails(beyond, DRAWS)


def test_a_variance_one_percent_up_fails_moments_and_tails():
    """A tenth of the numbers suffices: 1 % of the variance is 22 of its standard errors, √(2/10⁷)."""
    times = TIMES // 10
    moments, beyond, _ = sampled(np.float64, math.sqrt(1.01), times)
    with pytest.raises(AssertionError, match="moment 2"):
        assert_moments(moments, DRAWS * times // TIMES)
    with pytest.raises(AssertionError, match="tail beyond 3"):
        assert_tails(beyond, DRAWS * times // TIMES)
    # One number in 10⁵ that is 7: its sixth moment gives it away.
    with pytest.raises(AssertionError, match="moment"):
        assert_moments(sampled(np.float64, 1.0, times)[0] + 100 * 7.0 ** np.arange(1, 7), DRAWS * times // TIMES)


def kolmogorov_smirnov(x: np.ndarray) -> float:
    """√n times the largest distance of the distribution functions."""
    below = stats.norm.cdf(np.sort(x))
    places = np.arange(len(x) + 1) / len(x)
    return math.sqrt(len(x)) * max(float((places[1:] - below).max()), float((below - places[:-1]).max()))


@pytest.mark.parametrize("dtype", PRECISIONS)
def test_distribution_function_is_the_normal_one(dtype):
    """√n D exceeds 2.5 in one of 10⁵ samples; a variance 1 % up makes it 0.0012 √n = 3.5 at n = 2²³."""
    x = draw_normals(range(4096), Seeds(0).key("distribution"), 0, 2048, 1, dtype).ravel().astype(np.float64)
    assert kolmogorov_smirnov(x) <= 2.5
    assert kolmogorov_smirnov(math.sqrt(1.01) * x) > 2.5


# --- Independence -----------------------------------------------------------------------------------------------------


def assert_uncorrelated(x: np.ndarray, y: np.ndarray) -> None:
    """Means of x y and of (x² − 1)(y² − 1) over n pairs are 0 within 1/√n and 2/√n."""
    x, y = x.ravel().astype(np.float64), y.ravel().astype(np.float64)
    n = len(x)
    assert abs(x @ y) / n <= SIGMAS / math.sqrt(n), "correlation"
    assert abs((x * x - 1) @ (y * y - 1)) / n <= 2 * SIGMAS / math.sqrt(n), "correlation of squares"


def assert_uncorrelated_along_axes(x: np.ndarray) -> None:
    """Shape (replica, step, number): lags along each axis, and along two at once."""
    for lag in (1, 2, 3, 4, 7, 64):
        assert_uncorrelated(x[:, lag:], x[:, :-lag])
        assert_uncorrelated(x[lag:], x[:-lag])
        assert_uncorrelated(x[lag:, lag:], x[:-lag, :-lag])
    for lag in range(1, x.shape[2]):
        assert_uncorrelated(x[..., lag:], x[..., :-lag])
        assert_uncorrelated(x[:, 1:, lag:], x[:, :-1, :-lag])


@pytest.mark.parametrize("dtype", PRECISIONS)
def test_numbers_are_uncorrelated_along_steps_replicas_and_numbers(dtype):
    """About 10⁶ pairs a lag: correlations within 0.005. Sine and cosine of one pair share a radius, and no square."""
    x = draw_normals(range(512), Seeds(1).key("lags"), 0, 400, 6, dtype)
    assert_uncorrelated_along_axes(x)
    echo = x.copy()
    echo[:, 1:] = (x[:, 1:] + 0.02 * x[:, :-1]) / math.sqrt(1 + 0.02**2)
    with pytest.raises(AssertionError, match="correlation"):
        assert_uncorrelated_along_axes(echo)
    # Cosine and sine with the radius of one another keep every correlation but that of squares.
    shared = x.copy()
    radius = np.sqrt((x[..., :1] ** 2 + x[..., 1:2] ** 2) / 2)
    shared[..., :2] = radius * np.sign(x[..., :2])
    with pytest.raises(AssertionError, match="correlation of squares"):
        assert_uncorrelated_along_axes(shared)


@pytest.mark.parametrize("dtype", PRECISIONS)
def test_seeds_purposes_and_precisions_are_independent_streams(dtype):
    """10⁶ numbers of each: next seeds, other purposes, keys one apart and with halves exchanged."""
    key = Seeds(0).key("factored noise")
    low, high = halves(key)
    others = [Seeds(1).key("factored noise"), Seeds(-1).key("factored noise"), Seeds(0).key("other noise")]
    others += [key + 1, key ^ (1 << 32), high + (low << 32)]
    first = draw_normals(range(1000), key, 0, 250, 4, dtype)
    for other in others:
        assert_uncorrelated(first, draw_normals(range(1000), other, 0, 250, 4, dtype))
    with pytest.raises(AssertionError, match="correlation"):
        assert_uncorrelated(first, draw_normals(range(1000), key, 0, 250, 4, dtype))
    # Numbers in float32 are not those in float64 rounded.
    precise, short = (draw_normals(range(1000), key, 0, 250, 4, each) for each in PRECISIONS)
    assert not np.any(precise.astype(np.float32) == short)
