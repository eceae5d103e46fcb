"""The tail index on samples of known index: bias, coverage of its intervals, a Gaussian control, and what misleads it."""

from __future__ import annotations

from contextlib import suppress
from functools import cache

import numpy as np
import pytest
from count_coverage import stable
from scipy.stats import binom

from langevin_nn.analyzers import TailIndex, tail_index
from langevin_nn.errors import ConfigurationError, EstimationRefused
from langevin_nn.noise.stable import stable_numbers
from langevin_nn.statistics import tails

RUNS, N = 200, 2000
INDICES = (1.2, 1.5, 1.8, 2.0)
METHODS = ("characteristic function", "block sums")


@cache
def estimates(index: float, method: str) -> tuple[TailIndex, ...]:
    """Of samples drawn as Chambers, Mallows and Stuck do, shifted and stretched."""
    normals = np.random.default_rng(int(100 * index)).standard_normal((RUNS, 2 * N))
    found = []
    for row in stable_numbers(normals, index):
        with suppress(EstimationRefused):  # 1 % at most
            found.append(tail_index(3 * row + 5, method))
    assert len(found) >= 0.97 * RUNS
    return tuple(found)


@pytest.mark.parametrize("index", INDICES)
def test_the_index_is_found_without_bias_and_its_interval_covers_it(index):
    found = estimates(index, METHODS[0])
    values = np.array([each.index for each in found])
    error = values.std(ddof=1) / len(values) ** 0.5
    assert abs(values.mean() - index) < 4.5 * error + 0.003  # of order 1/n
    assert abs(values.mean() - index - 0.05) > 4.5 * error + 0.003  # mutated twin: off by 0.05
    hits = sum(low <= index <= high for low, high in (each.interval() for each in found))
    assert binom.ppf(0.0005, len(found), 0.94) <= hits <= binom.ppf(0.9995, len(found), 0.96)
    halved = sum(abs(each.index - index) < 0.98 * each.standard_error for each in found)
    assert halved < binom.ppf(0.0005, len(found), 0.94)  # mutated twin: an error half as large
    assert found[0].n_samples == N


@pytest.mark.parametrize("index", INDICES)
def test_block_sums_find_it_too_with_larger_errors(index):
    """Their bias is that of a ratio: a few percent of the index at this number of samples."""
    found = estimates(index, METHODS[1])
    values = np.array([each.index for each in found])
    assert abs(np.median(values) - index) < 0.05
    errors = np.array([each.standard_error for each in found])
    assert 0.8 < np.median(errors) / values.std() < 1.25
    assert values.std() > 1.5 * np.std([each.index for each in estimates(index, METHODS[0])])


def test_a_gaussian_is_told_from_heavy_tails():
    gaussian, heavy = estimates(2.0, METHODS[0]), estimates(1.8, METHODS[0])
    assert np.mean([each.index + 2 * each.standard_error < 2 for each in gaussian]) < 0.05
    assert np.mean([each.index + 2 * each.standard_error < 2 for each in heavy]) > 0.9


@pytest.mark.parametrize("method", METHODS)
def test_gaussians_of_different_scale_pooled_look_heavy_tailed_and_each_alone_does_not(method):
    """Scales over two orders of magnitude, as those of a network's parameters."""
    generator = np.random.default_rng(4)
    scales = np.exp(generator.uniform(np.log(0.01), 0, 400))
    samples = scales[:, None] * generator.standard_normal((400, 100))
    pooled = samples.T.ravel() if method == METHODS[0] else samples.ravel()
    with pytest.raises(EstimationRefused, match="not stable") as refusal:
        tail_index(pooled, method)
    assert refusal.value.numbers["index"] < 1.7
    divided = (samples / scales[:, None]).ravel()
    found = tail_index(divided, method)
    assert abs(found.index - 2) < 4.5 * found.standard_error


def pooled_scales(generator, n):
    return generator.standard_normal(n) * np.where(generator.random(n) < 0.5, 1.0, 10.0)


@pytest.mark.parametrize(
    "draw",
    [lambda g, n: g.exponential(size=n), lambda g, n: g.standard_t(5, n), pooled_scales, lambda g, n: g.random(n)],
)
def test_samples_that_are_not_stable_have_no_index(draw):
    generator = np.random.default_rng(0)
    for method in METHODS:
        with pytest.raises(EstimationRefused, match="the samples are not stable") as refusal:
            tail_index(draw(generator, 20_000), method)
        numbers = refusal.value.numbers
        assert abs(numbers["index"] - numbers["index_of_sums"]) > 3.5 * numbers["standard_error"]


def refused_share(n, draws, draw):
    generator, refused = np.random.default_rng(3), 0
    for _ in range(draws):
        try:
            tail_index(draw(generator, n))
        except EstimationRefused:
            refused += 1
    return refused / draws


def test_stable_samples_are_hardly_ever_refused_for_what_they_are():
    """One of a hundred at most: 600 draws know that to 0.4 %."""
    laws = [(index, skew) for index in (1.2, 1.5, 1.8) for skew in (0, 0.8)] + [(1.95, 0), (2.0, 0)]
    shares = [refused_share(N, 75, lambda g, n, law=law: stable(g, n, *law)) for law in laws]
    assert np.mean(shares) < 0.01 + 3 * 0.004
    assert refused_share(N, 40, lambda g, n: g.standard_t(5, n)) > 0.5


def test_location_and_scale_do_not_matter():
    x = np.random.default_rng(0).standard_cauchy(5000)
    for method in METHODS:
        one, other = tail_index(x, method), tail_index(-1e6 + 1e4 * x, method)
        assert other.index == pytest.approx(one.index, rel=1e-4)
        assert other.standard_error == pytest.approx(one.standard_error, rel=1e-3)


@pytest.mark.parametrize(
    ("samples", "error", "message"),
    [
        (np.zeros((300, 2)), ConfigurationError, r"samples have shape \(300, 2\): expected \(sample,\)"),
        (np.full(300, np.nan), ConfigurationError, "samples"),
        (np.arange(1999.0), EstimationRefused, "1999 samples: expected at least 2000"),
        (np.zeros(2000), EstimationRefused, "half of the samples are equal"),
    ],
)
def test_what_has_no_tail_is_refused(samples, error, message):
    with pytest.raises(error, match=message):
        tail_index(samples)


def from_blocks_of_samples(x):
    """A mutated twin: sums of the samples themselves, their median taken off."""
    x = x - np.median(x)
    length = int(len(x) ** 0.5)
    blocks = x[: len(x) // length * length].reshape(-1, length)
    tiny = np.finfo(float).tiny
    terms = np.log(np.maximum(np.abs(blocks.sum(1)), tiny)) - np.log(np.maximum(np.abs(blocks), tiny)).mean(1)
    inverse = terms.mean() / np.log(length)
    return float(1 / inverse), float(terms.std() / np.log(length) / len(terms) ** 0.5 / inverse**2)


def coverage_under_skew() -> float:
    generator = np.random.default_rng(8)
    held = [low <= 1.5 <= high for low, high in
            (tail_index(stable(generator, N, 1.5, 0.8), METHODS[1]).interval() for _ in range(RUNS))]  # fmt: skip
    return float(np.mean(held))


def test_block_sums_hold_the_index_of_skewed_samples_and_sums_of_the_samples_themselves_do_not(monkeypatch):
    assert coverage_under_skew() >= binom.ppf(0.0005, RUNS, 0.94) / RUNS
    monkeypatch.setattr(tails, "_from_blocks", from_blocks_of_samples)
    assert coverage_under_skew() < 0.6


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("draw", [lambda g: g.poisson(4, N), lambda g: g.standard_normal(N).round(1)])
def test_samples_that_are_counted_or_rounded_have_no_index(method, draw):
    samples = draw(np.random.default_rng(0))
    with pytest.raises(EstimationRefused, match=r"pairs of neighbouring samples are equal") as refusal:
        tail_index(samples, method)
    assert refusal.value.numbers["equal"] == sum(
        one == other for one, other in zip(samples[::2], samples[1::2], strict=True)
    )


def test_a_sample_that_comes_again_costs_block_sums_alone():
    samples = np.random.default_rng(0).standard_normal(N)
    once = tail_index(samples)
    samples[1] = samples[0]
    assert tail_index(samples).index == pytest.approx(once.index, abs=0.05 * once.standard_error)
    with pytest.raises(EstimationRefused, match="1 of 1000 pairs"):
        tail_index(samples, METHODS[1])


def test_another_method_is_refused():
    with pytest.raises(ConfigurationError, match="method"):
        tail_index(np.arange(3000.0), "hill")
