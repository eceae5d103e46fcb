"""Scaling and collapse on data of known law, and the study that asks them of training."""

from __future__ import annotations

import json

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from langevin_nn.analyzers import Timescales, collapse_distance, fit_power_law
from langevin_nn.errors import ConfigurationError, EstimationRefused
from studies.phase_diagram import study
from studies.phase_diagram.measures import sharpness
from studies.phase_diagram.runs import simulation
from studies.phase_diagram.study import STUDY, Config

SIZES = np.array([10, 20, 40, 80, 160])


# --- power laws


@given(st.floats(-3, 3), st.floats(0.01, 100), st.floats(0.01, 0.3))
def test_an_exact_power_law_is_found(exponent, prefactor, error):
    fit = fit_power_law(SIZES, prefactor * SIZES.astype(float) ** exponent, np.full(5, error))
    assert fit.exponent.item() == pytest.approx(exponent, abs=1e-9)
    assert fit.prefactor.item() == pytest.approx(prefactor, rel=1e-8)
    assert fit.p_value.item() == pytest.approx(1)


def fits(exponent: float, errors: np.ndarray, repetitions: int, bend: float = 0.0) -> list[xr.Dataset]:
    generator = np.random.default_rng(3)
    x = np.log(SIZES)
    exact = exponent * x + bend * (x - x.mean()) ** 2
    return [
        fit_power_law(SIZES, np.exp(exact + errors * generator.standard_normal(5)), errors) for _ in range(repetitions)
    ]


def test_intervals_of_exponents_and_p_values_are_nominal():
    """400 repetitions: 4.5 binomial standard errors; intervals from half the errors must fail."""
    errors = np.array([0.05, 0.2, 0.1, 0.15, 0.1])
    found = fits(0.7, errors, 400)
    held = np.mean([fit.exponent_lower.item() <= 0.7 <= fit.exponent_upper.item() for fit in found])
    assert abs(held - 0.95) < 4.5 * np.sqrt(0.95 * 0.05 / 400)
    narrow = np.mean([abs(fit.exponent.item() - 0.7) <= 0.98 * fit.exponent_standard_error.item() for fit in found])
    assert abs(narrow - 0.95) > 4.5 * np.sqrt(0.95 * 0.05 / 400)
    refused = np.mean([fit.verdict.item() == "no power law" for fit in found])
    assert abs(refused - 0.05) < 4.5 * np.sqrt(0.95 * 0.05 / 400)
    assert np.mean([fit.verdict.item() == "power law" for fit in found]) > 0.9


def test_what_is_no_power_law_or_no_dependence_is_said_to_be_none():
    errors = np.full(5, 0.05)
    assert {fit.verdict.item() for fit in fits(0.5, errors, 50, bend=0.3)} == {"no power law"}
    flat = [fit.verdict.item() for fit in fits(0.0, errors, 200)]
    assert flat.count("no dependence seen") > 170


def test_few_sizes_are_refused():
    with pytest.raises(EstimationRefused, match="at least 3 sizes"):
        fit_power_law([1, 2], [1, 2], [0.1, 0.1])
    with pytest.raises(EstimationRefused, match="at least 3 sizes"):
        fit_power_law([1, 1, 2], [1, 2, 3], [0.1] * 3)
    with pytest.raises(ConfigurationError, match="positive numbers"):
        fit_power_law("a", [1], [1])


def refuses_what_has_no_logarithm(fit):
    with pytest.raises(ConfigurationError, match=r"values\[1\] = -1: expected positive numbers"):
        fit([10, 20, 40, 80], [3.0, -1.0, 2.0, 1.0], [0.1] * 4)
    with pytest.raises(ConfigurationError, match=r"sizes\[0\] = 0, relative_errors\[3\] = 0"):
        fit([0, 20, 40, 80], [3.0, 1.0, 2.0, 1.0], [0.1, 0.1, 0.1, 0.0])


def test_nothing_is_left_out_of_a_power_law():
    refuses_what_has_no_logarithm(fit_power_law)

    def twin(sizes, values, errors):
        arrays = np.array([sizes, values, errors])
        return fit_power_law(*arrays[:, (arrays > 0).all(0)])

    with pytest.raises(pytest.fail.Exception):
        refuses_what_has_no_logarithm(twin)


# --- collapse


def test_replicas_that_do_not_differ_are_infinitely_far_from_others():
    one, other = np.zeros((3, 4)), np.ones((3, 4))
    assert collapse_distance(one, one).squared_distance.item() == 0
    assert collapse_distance(one, other).squared_distance.item() == np.inf


@given(st.integers(3, 9), st.integers(3, 9), st.floats(0, 3))
@settings(max_examples=25, deadline=None)
def test_the_squared_distance_is_unbiased_whatever_the_number_of_replicas(first, second, shift):
    """Means of 40 repetitions of 50 independent records against shift², within 5 standard errors of their scatter."""
    generator = np.random.default_rng(first + 10 * second)
    found = []
    for _ in range(40):
        one, other = generator.standard_normal((first, 50)), shift + generator.standard_normal((second, 50))
        found.append(collapse_distance(one, other).squared_distance.item())
    # The ratio of two estimates has a bias of the order of the variance of its denominator, 1/(25 (first + second)).
    bias = (1 + shift**2) / (10 * (first + second))
    assert abs(np.mean(found) - shift**2) < 5 * np.std(found) / np.sqrt(40) + bias


@pytest.mark.parametrize(("shift", "least", "most"), [(0.0, 1.2, 1.9), (2.0, 0.8, 1.3)])
def test_the_error_of_a_distance_is_its_scatter(shift, least, most):
    """Correlated records, as of trajectories; too large where nothing but squares of noise is left, as it says."""
    generator = np.random.default_rng(5)
    steps = np.sqrt(0.1) * generator.standard_normal((2, 300, 8, 40))
    curves = np.cumsum(steps, axis=-1)
    found = [collapse_distance(one, other + shift) for one, other in zip(*curves, strict=True)]
    scatter = np.std([each.squared_distance.item() for each in found])
    stated = np.sqrt(np.mean([each.squared_distance_standard_error.item() ** 2 for each in found]))
    assert least < stated / scatter < most
    if not shift:
        deviation = np.concatenate([each.deviation.values for each in found])
        assert np.mean(deviation**2) == pytest.approx(14 / 12, rel=0.2)  # of Student's t with 14 degrees of freedom


def test_few_replicas_and_other_records_are_refused():
    one, other = np.random.default_rng(6).standard_normal((2, 12, 30))
    with pytest.raises(EstimationRefused, match="at least 3 replicas"):
        collapse_distance(one[:2], other)
    with pytest.raises(EstimationRefused, match="the same records"):
        collapse_distance(one, other[:, :5])


# --- sharpness


def logistic_runs(spread: float, rate: float, replicas: int = 400) -> xr.Dataset:
    """Memorisation m = 1/(1 + (t_r/t)^rate), with half-times t_r log-normal: all measures have closed forms."""
    generator = np.random.default_rng(7)
    half = 100 * np.exp(spread * generator.standard_normal(replicas))
    time = np.concatenate([[0], np.geomspace(1, 10_000, 400)])
    with np.errstate(divide="ignore"):
        memorised = 1 / (1 + (half[:, None] / time) ** rate)
    error = np.stack([1 - memorised] * 3, axis=-1)[None]
    coordinates = {
        "time": ("step", time),
        "cohort": ["all", "correct", "mislabeled"],
        "label_noise": ("point", [0.5]),
        "samples_per_class": ("point", [100]),
        "width": ("point", [10]),
    }
    return xr.Dataset({"train_error": (("point", "replica", "step", "cohort"), error)}, coords=coordinates)


def test_measures_of_sharpness_have_their_closed_forms():
    spread, rate = 0.05, 3.0
    found = sharpness(logistic_runs(spread, rate)).isel(point=0)
    assert found.half_time.item() == pytest.approx(100, rel=0.02)
    # Four standard errors of a standard deviation over 400 replicas are 14 %.
    assert found.relative_spread.item() == pytest.approx(spread, rel=0.15)
    assert found.susceptibility.item() == pytest.approx(450 * (rate / 4 * spread) ** 2, rel=0.3)
    assert found.slope.item() == pytest.approx(rate / 4, rel=0.1)  # over a factor of 1.5 in time: 3 % less
    assert found.relative_spread_relative_error.item() == pytest.approx(1 / np.sqrt(2 * 399))


def test_what_never_reaches_half_is_missing():
    early = logistic_runs(0.05, 3.0).isel(step=slice(0, 100))
    assert np.isnan(sharpness(early).relative_spread.item())


# --- timescales of points with clocks of their own


def test_times_of_points_with_their_own_clocks():
    record = np.arange(41.0)
    one = xr.Dataset(
        {
            "test_error": ("step", 0.1 + 0.0004 * (record - 20) ** 2),
            "train_error": ("step", np.maximum(0.9 - 0.03 * record, 0)),
        },
        coords={"step": record, "time": ("step", 0.5 * record)},
    )
    alone = [Timescales()(one.assign_coords(time=factor * one.time)) for factor in (1, 3)]
    both = xr.concat([one, one], "point").assign_coords(time=(("point", "step"), np.outer([1, 3], 0.5 * record)))
    found = Timescales()(both)
    for point in range(2):
        assert found.time_of_minimum.sel(clock="time")[point] == alone[point].time_of_minimum.sel(clock="time")
        assert found.time_of_fit.sel(clock="time")[point] == alone[point].time_of_fit.sel(clock="time")


# --- the study


def test_points_through_which_laws_are_fitted_have_noise_of_their_own():
    options = {"label_noise": 0.5, "learning_rate": 0.2, "batch_size": 10, "replicas": 3, "times": (0.0, 1.0)}

    def seeds(**changes):
        sizes = [{"width": width, "samples_per_class": size} for width, size in ((4, 2), (8, 2), (4, 3))]
        return [simulation(**options, **each, seed=0, **changes).seeds.seed for each in sizes]

    assert len({*seeds(of_sizes=True)}) == 3
    assert len({*seeds()}) == 1  # mutated twin: one seed for all sizes, as it was


def test_phases_follow_one_another_and_without_label_noise_there_is_one_boundary(quick_run):
    out, said = quick_run("phase_diagram")
    assert "Collapse" in said
    found = json.loads((out / "summary.json").read_text())["found"]
    assert len(found["boundaries"]) == 8
    assert {pair["noise_ratio"] for pair in found["collapse"]} == {1, 2, 4}
    base = xr.load_dataset(out / "phases.nc", group="boundaries")
    order = base.boundary.sel(point=base.label_noise > 0).values
    assert (np.diff(order, axis=-1)[np.isfinite(order).all(-1)] >= 0).all()
    assert np.isnan(base.sel(point=base.label_noise == 0, phase=["II", "III"]).boundary).all()


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"label_noises": (0.0, 2.0)}, "label_noise"),
        ({"learning_rates": (0.1, 0.1)}, "each of them once"),
        ({"learning_rate": 0.3}, "expected one of those swept"),
        ({"label_noise": 0.0}, "no memorisation without it"),
        ({"widths": (10, 20)}, "at least 3 whole numbers"),
        ({"replicas": 2}, "replicas=2"),
        ({"size_replicas": 2}, "size_replicas=2"),
        ({"records": 3}, "records=3"),
        ({"longest": 1.0}, "longest=1 and records=.*at updates of their own at every learning rate"),
        ({"workers": 0}, "workers=0"),
    ],
)
def test_wrong_choices_are_refused(tmp_path, wrong, said):
    with pytest.raises(ConfigurationError, match=said):
        STUDY.run(Config(out=tmp_path, **wrong))


def test_points_that_fail_are_named(tmp_path, monkeypatch):
    def failing(label_noise, **rest):
        if label_noise == 0:
            raise ValueError("no clean labels")
        return simulation(label_noise, **rest)

    monkeypatch.setattr(study, "simulation", failing)
    with pytest.raises(ConfigurationError, match=r"4 points of .*diagram.* failed"):
        STUDY.run(Config(out=tmp_path, quick=True))
