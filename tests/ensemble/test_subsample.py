"""Estimates from some of the samples: exact over all subsets, of all samples the ensemble itself, errors as they spread."""

from itertools import combinations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from langevin_nn.ensemble import gradient_ensemble
from langevin_nn.ensemble.empirical import EmpiricalEnsemble
from langevin_nn.ensemble.estimates import Sums, estimated_order_parameters
from langevin_nn.ensemble.subsample import SampledEnsemble
from langevin_nn.errors import ConfigurationError
from langevin_nn.gradients import SampleGradients
from langevin_nn.landscape import LinearRegressionLandscape, NetworkLandscape

N, B = 1200, 30


def _population(seed: int = 0, n: int = N, p: int = 12) -> np.ndarray:
    generator = np.random.default_rng(seed)
    rows = (
        generator.standard_normal((n, p)) * np.geomspace(2.0, 0.1, p) * np.exp(0.3 * generator.standard_normal((n, 1)))
    )
    rows[:, 0] += 2.0
    return rows


@pytest.mark.parametrize("drawn", [4, 5, 7])
def test_mean_over_all_subsets_is_the_truth(drawn: int) -> None:
    rows = _population(1, 8, 3)
    gram, everything = rows @ rows.T, Sums(rows @ rows.T, 8)
    for name in ("mean_square", "squared_mean", "trace", "fourth", "variance_along_mean"):
        subsets = [list(each) for each in combinations(range(8), drawn)]
        found = [getattr(Sums(gram[np.ix_(each, each)], 8), name).value for each in subsets]
        assert np.mean(found) == pytest.approx(getattr(everything, name).value, rel=1e-10)
    mean = rows.mean(0)
    assert everything.fourth.value == pytest.approx((mean @ mean) ** 2)
    assert everything.variance_along_mean.value == pytest.approx(np.var(rows @ mean))
    plain = np.mean([np.square(rows[each].mean(0)).sum() for each in subsets])
    assert plain > (1 + 1e-4) * (mean @ mean)  # a mean that is squared as it comes is not that


@given(seed=st.integers(0, 99), n=st.integers(6, 20), size=st.integers(1, 6), replacement=st.booleans())
@settings(max_examples=20)
def test_of_all_samples_it_is_the_ensemble_itself(seed: int, n: int, size: int, replacement: bool) -> None:
    gradients = SampleGradients.from_matrix(torch.as_tensor(_population(seed, n, 4)))
    wrong = torch.arange(n) < n // 2
    exact = EmpiricalEnsemble(gradients, size, wrong, replacement)
    sampled = SampledEnsemble(gradients, size, n, wrong, replacement)
    for name, values in exact.closed_forms().items():
        np.testing.assert_allclose(sampled.closed_forms()[name], values, rtol=1e-7, atol=1e-12)
        assert (sampled.closed_forms()[f"{name}_standard_error"] == 0).all()
    leading = sampled.spectrum(2).noise_eigenvalue.values
    np.testing.assert_allclose(leading, exact.spectrum().noise_eigenvalue[: len(leading)], rtol=1e-6)


def test_estimates_spread_as_their_errors_say() -> None:
    rows = torch.as_tensor(_population())
    exact = EmpiricalEnsemble(SampleGradients.from_matrix(rows), B)
    truth = exact.order_parameters(np.random.default_rng(0), 2000)
    eigenvalues = exact.spectrum(3).noise_eigenvalue.values
    names = [
        "activity",
        "directed_activity",
        "noise_strength",
        "projection_variance",
        "gradient_noise_scale",
        "alignment",
    ]
    found, errors, repetitions = [], [], 80
    for seed in range(repetitions):
        generator = np.random.default_rng(seed)
        few = rows[torch.as_tensor(generator.choice(N, 240, replace=False))]
        sampled = SampledEnsemble(SampleGradients.from_matrix(few), B, N)
        values, spectrum = sampled.order_parameters(generator, 40).sel(cohort="all"), sampled.spectrum(3)
        found.append([*(float(values[name]) for name in names), *spectrum.noise_eigenvalue.values])
        of_each = (float(values[f"{name}_standard_error"]) for name in names)
        errors.append([*of_each, *spectrum.noise_eigenvalue_standard_error.values])
    expected = [*(float(truth[name][0]) for name in names), *eigenvalues]
    spread = np.std(found, axis=0, ddof=1)
    assert (np.abs(np.mean(found, axis=0) - expected) < 4 * spread / repetitions**0.5).all()
    # The spread of 80 is known to 8 %: what is to be 1 is within 1 ± 0.32.
    ratio = np.mean(np.square(errors), axis=0) ** 0.5 / spread
    assert ((ratio > 0.68) & (ratio < 1.32)).all(), ratio


def test_eigenvalues_without_their_bias() -> None:
    rows = np.random.default_rng(3).standard_normal((2000, 40)) * np.r_[[2.0, 1.6], np.full(38, 0.6)]
    exact = EmpiricalEnsemble(SampleGradients.from_matrix(torch.as_tensor(rows)), B).spectrum(2).noise_eigenvalue.values
    corrected, plain = [], []
    for seed in range(120):
        few = rows[np.random.default_rng(seed).choice(2000, 100, replace=False)]
        sampled = SampledEnsemble(SampleGradients.from_matrix(torch.as_tensor(few)), B, 2000)
        corrected.append(sampled.spectrum(2).noise_eigenvalue.values / exact - 1)
        plain.append(np.linalg.eigvalsh(np.cov(few.T))[:-3:-1] / np.linalg.eigvalsh(np.cov(rows.T))[:-3:-1] - 1)
    error = np.std(corrected, axis=0) / 120**0.5
    assert (np.abs(np.mean(corrected, axis=0)) < 4 * error).all()
    assert np.mean(plain, axis=0).sum() > 3 * error.sum()  # what is decomposed as it comes is too large


def test_what_cannot_be_told_is_missing() -> None:
    rows = np.random.default_rng(0).standard_normal((9, 50))  # no mean to speak of
    found = estimated_order_parameters(rows @ rows.T, 1000, B)
    assert np.isnan([found[name].value for name in ("projection_variance", "gradient_noise_scale")]).all()
    assert np.isfinite(found["noise_strength"].standard_error)
    sampled = SampledEnsemble(SampleGradients.from_matrix(torch.as_tensor(rows)), B, 1000)
    assert np.isnan(sampled.alignment(np.random.default_rng(0), 5)["alignment"][0])  # a pair takes 60 samples
    assert sampled.spectrum().sizes["mode"] == 0
    for wrong in (lambda: sampled.classes(), lambda: sampled.spectrum(method="parameters")):
        with pytest.raises(ConfigurationError, match="expected"):
            wrong()


def test_a_landscape_is_asked_for_some_samples() -> None:
    torch.manual_seed(0)
    inputs = torch.randn(300, 6)
    network = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3))
    landscape = NetworkLandscape(network, inputs, torch.randint(0, 3, (300,)))
    weights = landscape.own_weights
    which = torch.tensor([5, 250, 7])
    every, some = landscape.sample_gradients(weights), landscape.sample_gradients(weights, samples=which)
    torch.testing.assert_close(some.dense(), every.dense()[which])
    one, same, other = (gradient_ensemble(landscape, weights, 10, subsample=60, seed=seed) for seed in (0, 0, 1))
    assert one.order_parameters().equals(same.order_parameters())
    assert not one.order_parameters().equals(other.order_parameters())
    layers = one.by_layer().noise_strength.sum("layer", skipna=False)
    np.testing.assert_allclose(layers, one.order_parameters().noise_strength)
    line = LinearRegressionLandscape(np.eye(12, 4), np.arange(12.0))
    assert gradient_ensemble(line, torch.zeros(4), 2, subsample=10).gradients.n_samples == 10
    for wrong in (3, 301, 2.5):
        with pytest.raises(ConfigurationError, match="subsample"):
            gradient_ensemble(landscape, weights, 10, subsample=wrong)  # type: ignore[arg-type]
