"""The study of two phases: what is written and said, bad input, and what it computes on curves of known truth."""

from __future__ import annotations

import json
import re
from dataclasses import replace

import numpy as np
import pytest
import xarray as xr

from langevin_nn import gradient_ensemble
from langevin_nn.analyzers import detect_phases
from studies.lab.choices import landscape_of, load
from studies.lab.claims import claims_from
from studies.two_phases import study
from studies.two_phases.claims import Evidence, claims
from studies.two_phases.curves import Curves
from studies.two_phases.plan import CHOICES, Config, Plan

FIGURES = ("two_phases", "gradients", "spectra", "effective_dimension", "rates", "time_averages")


@pytest.fixture(scope="module")
def quick(quick_run):
    return quick_run("two_phases")[0]


def test_a_quick_run_writes_all_that_it_names(quick):
    for name in FIGURES:
        assert (quick / f"{name}.png").stat().st_size > 10_000, name
    decided = claims_from(quick / "claims.json")
    assert [each.number for each in decided] == [1, 2, 3]
    for claim in decided:
        assert any(finding.criterion.is_control for finding in claim.findings), f"claim {claim.number} has no control"
        assert (quick / claim.figure).exists()
    summary = json.loads((quick / "summary.json").read_text())
    assert summary["choices"]["dataset"] == "digits"
    assert summary["found"]["deviations"]
    with xr.open_datatree(quick / "two_phases.nc") as tree:
        assert set(tree.children) == {"phases", "time_averages", "sketch", "widths", "grid", "exponents"}
        assert tree["widths"].effective_dimension.notnull().any()
        assert set(np.unique(tree["grid"].learning_rate)) == {0.2, 0.3}


def test_both_choices_of_parameters_are_measured_on_the_same_trajectory(quick):
    hidden, whole = (xr.load_dataset(quick / "runs" / f"{name.replace(' ', '_')}.nc") for name in CHOICES)
    few = whole.sizes["replica"]
    both = np.intersect1d(hidden.step, whole.step)
    losses = [run.train_loss.sel(cohort="all", step=both).isel(replica=slice(few)) for run in (hidden, whole)]
    np.testing.assert_array_equal(*(each.dropna("step").values for each in losses))
    measured = [
        run.activity.sel(cohort="all", step=both).isel(replica=slice(few)).dropna("step") for run in (hidden, whole)
    ]
    assert (measured[1] > measured[0]).all(), "all parameters have more activity than some of them"


def test_recorded_spectra_weights_and_time_averages_are_those_of_the_network(quick):
    words = json.loads((quick / "summary.json").read_text())["choices"]
    config = Config(
        **{name: words[name] for name in ("dataset", "samples_per_class", "seed", "replicas", "batch_size")}
    )
    tree = xr.open_datatree(quick / "runs" / "all_parameters.nc")
    weights = tree["weights"].weights.isel(replica=0, weight_step=-1).values
    landscape = landscape_of(load(config), config, hidden=tuple(words["hidden"]), parameters="*")
    import torch

    ensemble = gradient_ensemble(landscape, torch.as_tensor(weights), config.batch_size)
    # By another route: the dense covariance of all sample gradients.
    dense = ensemble.gradients.dense().numpy()
    n = len(dense)
    factor = (n - config.batch_size) / (n - 1) / config.batch_size
    own = np.linalg.svd(dense - dense.mean(0), compute_uv=False) ** 2 * factor / n
    recorded = tree["spectrum"].noise_eigenvalue.isel(replica=0, spectrum_step=-1).values
    np.testing.assert_allclose(recorded[:20], own[:20], rtol=1e-4)
    cumulative = np.cumsum(own) / own.sum()
    assert tree["spectrum"].effective_dimension.isel(replica=0, spectrum_step=-1) == np.argmax(cumulative >= 0.9) + 1
    columns = landscape_of(load(config), config, hidden=tuple(words["hidden"]), parameters="2.weight").measured_columns
    with xr.open_datatree(quick / "runs" / "hidden_weights.nc") as other:
        step = tree["weights"].weight_step.values[-1]
        windows = other["weights"].weights
        assert windows.sizes["parameter"] == len(columns) == np.prod(words["hidden"])
        if step in windows.weight_step:
            np.testing.assert_array_equal(windows.isel(replica=0).sel(weight_step=step), weights[columns])
    tree.close()


BAD = {
    "one replica": (["--replicas", "1"], "replicas=1: expected at least 2"),
    "more of the few than there are": (["--few-replicas", "9"], "few_replicas=9"),
    "one hidden layer": (["--hidden", "30"], r"hidden=\(30,\): expected two"),
    "two widths": (["--widths", "10", "20"], "expected at least 3 whole numbers"),
    "a width twice": (["--widths", "10", "20", "20"], "each of them once"),
    "a rate twice": (["--learning-rates", "0.1", "0.1"], "each of them once"),
    "a negative rate": (["--learning-rates", "-0.1"], "learning_rates"),
    "no minibatch": (["--batch-sizes", "0"], "batch_sizes"),
    "large minibatches": (["--batch-sizes", "100"], "at most a quarter"),
    "a large minibatch": (["--batch-size", "60"], "expected at most 50"),
    "a moment": (["--epochs", "2"], "epochs=2 are 40 updates: expected at least"),
    "convolutions": (["--dataset", "cifar10"], "fully connected"),
}


@pytest.mark.parametrize(("arguments", "expected"), BAD.values(), ids=BAD.keys())
def test_bad_input_ends_in_one_line_and_exit_code_2(arguments, expected, refused):
    assert re.search(expected, refused(study.STUDY.main, ["--quick", *arguments]))


def test_windows_are_whole_epochs_within_the_run():
    plan = Plan(200.0, 80)
    assert plan.last == 16_000
    assert all(last - first == 80 and first >= 0 and last <= plan.last for first, last in plan.windows)
    assert set(plan.losses[::2]) <= set(plan.order_parameters)
    assert plan.losses[0] == 0
    assert plan.losses[-1] == plan.last


def known_curves(replicas=4):
    """Two phases of exactly known order parameters that change at epoch 10."""
    epoch = np.unique(np.concatenate([np.geomspace(0.01, 100, 121), [10 - 1e-6, 10]]))
    scale = 1 + 0.01 * np.arange(replicas)[:, None]
    slow = epoch >= 10
    values = {
        "activity": np.where(slow, 1e-3, 1.0) * scale,
        "alignment": np.where(slow, 0.01, 0.3) * scale,
        "alignment_approximation": np.where(slow, 0.011, 0.31) * scale,
        "projection_variance": np.where(slow, 10.0, 1.0) * scale,
        "train_loss": np.exp(-0.5 * np.minimum(epoch, 10) - 0.01 * np.maximum(epoch - 10, 0)) * scale,
        "train_error": np.where(slow, 0.0, 0.02 + 0.08 * (10 - epoch)) * scale,
        "directed_activity": np.where(slow, 1e-5, 0.3) * scale,
    }
    return Curves(dict.fromkeys(values, epoch), values, np.full(replicas, 10.0), 900)


def test_means_over_time_are_those_of_the_known_curves():
    curves = known_curves()
    fast, slow = curves.both
    assert curves.end == pytest.approx(100)
    np.testing.assert_allclose(curves.mean("alignment", *fast), 0.3 * (1 + 0.01 * np.arange(4)), rtol=1e-6)
    np.testing.assert_allclose(
        curves.mean("activity", *slow, logarithmic=True), np.log(1e-3 * (1 + 0.01 * np.arange(4)))
    )
    np.testing.assert_allclose(curves.slope("train_loss", *slow), -0.01, rtol=1e-6)
    np.testing.assert_allclose(curves.slope("train_loss", np.full(4, 1.0), np.full(4, 9.0)), -0.5, rtol=1e-3)
    np.testing.assert_allclose(curves.fall_of_activity(), 10, rtol=1e-6)
    own, shuffled = curves.correlation("alignment", "alignment_approximation")
    assert own.min() > 0.999
    assert abs(shuffled).max() < 0.5
    never = replace(curves, boundary=np.array([10.0, np.nan, 10.0, 10.0]))
    assert np.isnan(never.mean("alignment", *never.both[0])).tolist() == [False, True, False, False]
    assert np.isnan(never.fall_of_activity()).tolist() == [False, True, False, False]


def evidence(dimension=100.0, slope=0.0, one_phase=False):
    """Everything as the paper has it, but for what is asked to differ."""
    curves = known_curves()
    epoch = curves.epochs["activity"]
    errors = curves.values["train_error"] + 0.2 * one_phase
    cohorts = np.stack([errors, errors, np.full_like(errors, np.nan)], axis=2)
    clock = {"epoch": ("step", epoch), "time": ("step", 8 * epoch), "cohort": ["all", "correct", "mislabeled"]}
    root = xr.Dataset(
        {"train_error": (("replica", "step", "cohort"), cohorts), "test_error": (("replica", "step"), errors)},
        coords={**clock, "step": np.arange(len(epoch)), "replica": np.arange(4)},
    )
    phases = detect_phases(root)
    curves = replace(curves, boundary=phases.boundary_epoch.values[:, 0])
    wrong = xr.full_like(root.train_error, 0.4)
    modes = np.exp(-np.arange(900) / 43)
    eigenvalues = np.stack([np.stack([modes, 1e-3 * modes])] * 4) * (1 + 0.01 * np.arange(4))[:, None, None]
    counts = dimension * np.array([1.0, 1.01, 0.99, 1.0])[:, None] * np.ones(2)
    spectra = xr.Dataset(
        {
            "noise_eigenvalue": (("replica", "spectrum_step", "mode"), eigenvalues),
            "effective_dimension": (("replica", "spectrum_step"), counts),
        },
        coords={"epoch": ("spectrum_step", [2.5, 50.0])},
    )
    sizes = np.array([400.0, 2500.0, 40_000.0])
    grown = counts[None, None] * (sizes / 400)[None, :, None, None] ** slope * np.ones((2, 1, 1, 1))
    at = np.broadcast_to([0.1 + one_phase, 0.2 * one_phase], grown.shape)
    widths = xr.Dataset(
        {
            "effective_dimension": (("choice", "width", "replica", "phase"), grown),
            "train_error": (("choice", "width", "replica", "phase"), at),
            "n_parameters": (("choice", "width"), np.stack([sizes, sizes])),
        },
        coords={"choice": list(CHOICES), "width": [20, 50, 200], "phase": ["fast_learning", "exploration"]},
    )
    windows = np.array([1.0, 5.0, 30.0, 90.0])
    averaged = {
        name: (("replica", "window"), np.array([np.interp(windows, epoch, row) for row in curves.values[name]]))
        for name in ("activity", "alignment", "projection_variance")
    }
    averages = xr.Dataset(averaged, coords={"epoch": ("window", windows)})
    grid = xr.Dataset({"reached": (("point", "replica"), np.full((9, 4), not one_phase))})
    of = dict.fromkeys(CHOICES, curves)
    return Evidence(
        of, root, phases, root.assign(train_error=wrong), dict.fromkeys(CHOICES, spectra), widths, grid, averages
    )


def decided(found):
    config = Config(
        dataset="mnist10k", samples_per_class=400, learning_rate=0.1, batch_size=50, epochs=100.0, replicas=4
    )
    return claims(found, config)


def failing(claim):
    return [each.in_words() for each in claim.findings if not each.counts_for]


def test_what_the_paper_reports_would_be_reproduced():
    first, second, third = decided(evidence())
    # Four replicas that all do it show a share of no more than 0.40 with 95 % confidence.
    assert all("share of replicas" in words for words in failing(first)), failing(first)
    assert failing(second) == []
    assert failing(third) == []
    assert second.verdict == third.verdict == "reproduced"


def test_claims_fail_where_the_paper_would_be_wrong():
    assert any("slope" in words for words in failing(decided(evidence(slope=0.6))[2]))
    assert any("D_s in fast learning" in words for words in failing(decided(evidence(dimension=30.0))[2]))
    first, second, _ = decided(evidence(one_phase=True))
    said = " ".join(failing(first))
    for words in ("with a transition", "over the grid", "over widths", "relative rate"):
        assert words in said, words
    assert second.verdict == "too short"


def test_a_run_that_never_reaches_exploration_is_too_short_to_say():
    """Nothing is measured in a phase that was not reached: not D_s at the moment that is called late, nor time averages."""
    for claim in decided(evidence(one_phase=True)):
        assert claim.verdict == "too short"
        assert "Phase exploration was reached by 0 of 4 replicas in 100 epochs" in claim.too_short
        late = [each for each in claim.findings if "in exploration" in each.criterion.statistic]
        assert {each.outcome for each in late} <= {"not measured"}, [each.in_words() for each in late]


def test_a_control_that_holds_spoils_the_claim():
    found = evidence()
    fitted = found.control.assign(train_error=0 * found.control.train_error)
    claim = decided(replace(found, control=fitted))[0]
    finding = next(each for each in claim.findings if "half of the labels" in each.criterion.statistic)
    assert finding.estimate == 1
    assert finding.criterion.is_control
