"""The study of a network's surrogates: statistics of known truth, what is written and said, bad input."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
import xarray as xr
from cases import assert_on_paper

from langevin_nn import NetworkLandscape, advance, simulate
from langevin_nn.observables import Weights
from langevin_nn.process import sgd
from langevin_nn.schedules import AtSteps
from studies.lab.choices import landscape_of, load
from studies.lab.study import Answer
from studies.surrogate_of_a_network import study
from studies.surrogate_of_a_network.figures import surrogate_figure
from studies.surrogate_of_a_network.fluctuations import compared, exact, expected, fluctuations, lags_of

UPDATES = np.arange(2, 202, 2)
HESSIAN, NOISE, RATE = np.diag([2.0, 0.3, 0.0, -0.2]), np.diag([1.0, 2.0, 0.5, 1.0]), 0.1
LAGS = lags_of(np.array([-1 / np.log(0.8), -1 / np.log(0.97), np.nan, np.nan]), 2, len(UPDATES))


def walk(seed: int, replicas: int = 800, strength: float = 1.0, curvature: float = 1.0) -> np.ndarray:
    """SGD with Gaussian noise on a quadratic, step by step."""
    generator, place, seen = np.random.default_rng(seed), np.zeros((replicas, 4)), []
    for update in range(1, UPDATES[-1] + 1):
        kick = generator.standard_normal(place.shape) * np.sqrt(strength * NOISE.diagonal())
        place = place - RATE * (0.5 + curvature * place * HESSIAN.diagonal() + kick)
        if update in UPDATES:
            seen.append(place)
    return np.stack(seen, 1)


# --- Statistics


def test_lags_are_relaxation_times_within_the_window():
    np.testing.assert_array_equal(LAGS, [2, 16, 25, 25])


def test_variances_and_memory_are_those_of_the_law():
    found, law = fluctuations(walk(0), LAGS), expected(HESSIAN, NOISE, RATE, UPDATES, LAGS)
    for name in ("variance", "memory"):
        deviation = (found[name] - law[name]) / found[f"{name}_standard_error"]
        assert (np.abs(deviation) < 4).all(), name
    np.testing.assert_allclose(law.memory, (1 - RATE * HESSIAN.diagonal()) ** (2 * LAGS), rtol=1e-9)
    ratio = found.variance_by_record[-1] / law.variance_by_record[-1]
    np.testing.assert_allclose(ratio, 1, atol=4 * (2 / 800) ** 0.5)
    mutated = fluctuations(walk(0, strength=1.3), LAGS)
    assert (np.abs((mutated.variance - law.variance) / mutated.variance_standard_error) > 4).all()


def test_errors_over_replicas_are_the_spread_of_repetitions():
    runs = [fluctuations(walk(seed, replicas=60), LAGS) for seed in range(60)]
    for name in ("variance", "memory"):
        spread = np.std([run[name] for run in runs], axis=0, ddof=1)
        error = np.mean([run[f"{name}_standard_error"] for run in runs], axis=0)
        np.testing.assert_allclose(error, spread, rtol=0.35)  # a spread of 60 is known to 9 %


def test_like_processes_hold_and_unlike_ones_fail():
    sgd_walk = fluctuations(walk(1, replicas=3000), LAGS)
    law = expected(HESSIAN, NOISE, RATE, UPDATES, LAGS)
    np.testing.assert_array_equal(compared(sgd_walk, law, 1.25, 0.15).relation, 2)
    np.testing.assert_array_equal(compared(sgd_walk, fluctuations(walk(2, 3000), LAGS), 1.25, 0.15).relation, 2)
    louder = compared(sgd_walk, fluctuations(walk(2, 3000, strength=1.6), LAGS), 1.25, 0.15)
    np.testing.assert_array_equal(louder.relation, 0)
    np.testing.assert_allclose(louder.variance_ratio, 1.6, rtol=0.1)
    assert ((louder.variance_ratio_lower < 1.6) & (louder.variance_ratio_upper > 1.6)).sum() >= 3
    # Memory alone tells a direction of other curvature from one of other noise.
    forgetful = compared(sgd_walk, exact(law.variance_by_record.values, law.memory.values - 0.3), 1.25, 0.15)
    np.testing.assert_array_equal(forgetful.relation, 0)
    few = compared(fluctuations(walk(3, replicas=12), LAGS), law, 1.25, 0.15)
    assert (few.relation == 1).any()
    unknown = compared(sgd_walk, exact(np.nan * law.variance_by_record.values, law.memory.values), 1.25, 0.15)
    np.testing.assert_array_equal(unknown.relation, 0)


def test_directions_are_listed_in_runs():
    assert study._listed(np.array([2, 2, 0, 2, 2, 2]), 2) == "1–2 4–6"
    assert study._listed(np.array([2, 2]), 0) == "none"


# --- The run


@pytest.fixture(scope="module")
def quick(quick_run):
    return quick_run("surrogate_of_a_network")[0]


@pytest.fixture(scope="module")
def result(quick):
    with xr.open_datatree(quick / "fluctuations.nc") as tree:
        return tree.load()


def test_a_quick_run_writes_all_that_it_names(quick, result):
    assert (quick / "surrogate_of_a_network.png").stat().st_size > 10_000
    summary = json.loads((quick / "summary.json").read_text())
    for words in (
        "in the exploration phase",
        "4 directions explain",
        "shuffled epochs",
        "independent draws",
        "Lyapunov",
    ):
        assert words in "\n".join(summary["verdict"])
    found = summary["found"]
    assert found["start"]["train_error"] == 0
    assert set(found["relation"]) == set(result.children) == {"2", "4"}
    for relation in found["relation"]["4"]["shuffled"].values():
        assert sorted(each for listed in relation.values() for each in listed) == [1, 2, 3, 4]
    assert all(each.attrs["units"] for each in result["4"].data_vars.values())
    assert (result.explained_share.sel(noise="constant").diff("dimension") > 0).all()


def test_shuffled_epochs_spread_less_than_independent_draws_and_than_the_surrogate(result):
    """Their noise takes itself back within an epoch: in the law as in SGD."""
    group = result["4"]
    assert (group.variance.sel(draws="shuffled") < group.variance.sel(draws="independent")).all()
    law = group.predicted_variance.sel(predictor="lyapunov")
    assert (law.sel(draws="shuffled") < law.sel(draws="independent")).all()
    ratio = group.variance_ratio.sel(predictor="state_dependent").mean("direction")
    assert ratio.sel(draws="shuffled") > 1.5 * ratio.sel(draws="independent")


def test_displacements_are_those_of_sgd_from_the_end_of_training(quick, result):
    words = json.loads((quick / "summary.json").read_text())["choices"]
    config = study.Config(
        **{
            name: words[name]
            for name in ("dataset", "samples_per_class", "seed", "replicas", "batch_size", "learning_rate")
        }
    )
    landscape: NetworkLandscape = landscape_of(load(config), config, hidden=tuple(words["hidden"]))
    with xr.open_dataset(quick / "runs" / "training.nc", group="weights") as file:
        start = file.weights.values[0, 0]
    per_epoch = landscape.n_samples // config.batch_size
    training = sgd(landscape, config.learning_rate, config.batch_size)
    trained = advance(training, training.start(1, 0), int(words["epochs"] * per_epoch))
    np.testing.assert_array_equal(trained.weights[0], start)
    last = int(result["2"].record[-1])
    runs = simulate(
        sgd(landscape, config.learning_rate, config.batch_size, independent=True),
        steps=last,
        replicas=range(17, 33),
        weights=np.tile(start, (16, 1)),
        observables=[Weights(AtSteps((last,)))],
        progress=False,
    )
    moved = runs["weights"].weights.values[:, 0].astype(float) - start
    with xr.open_dataset(quick / "runs" / "independent.nc") as file:
        kept = file.displacement.values[:, -1]
    # Directions are not kept, but lengths and angles between replicas within a subspace are at most those of the whole.
    assert (np.square(kept[:, 2:]).sum(1) < np.square(moved).sum(1)).all()
    basis = np.linalg.lstsq(moved - moved.mean(0), kept - kept.mean(0), rcond=None)[0]
    np.testing.assert_allclose((moved - moved.mean(0)) @ basis, kept - kept.mean(0), atol=1e-5)


def test_the_figure_fits_its_paper_and_names_its_axes(result):
    figure = surrogate_figure(result, 1.25)
    assert_on_paper(figure)
    assert all(axes.get_xlabel() and axes.get_ylabel() for axes in figure.axes)


def test_a_network_that_has_not_learned_is_said_to_be_elsewhere(result):
    early = result.copy()
    early.attrs["train_error"] = 0.2
    said = study.STUDY.verdict(Answer(study.Config(), early, (), ""))
    assert "NOT in the exploration phase" in said


BAD = {
    "few replicas": (["--replicas", "3"], r"replicas=3: expected at least 4"),
    "few replicas of surrogates": (["--surrogate-replicas", "1"], r"surrogate_replicas=1: expected at least 4"),
    "no dimensions": (["--dimensions", "0", "2"], r"dimensions=\(0, 2\): expected growing"),
    "falling dimensions": (["--dimensions", "4", "2"], r"expected growing whole numbers"),
    "more directions than the network has": (["--dimensions", "100000"], "numbers in memory: expected at most"),
    "unknown directions": (["--directions", "pca"], "'pca': expected one of noise, hessian, trajectory"),
    "a moment": (["--horizon", "0.1"], r"horizon=0.1 is 2 updates: expected at least 16"),
    "no tolerance": (["--tolerance", "1"], r"tolerance=1.0: expected a ratio above 1"),
    "no tolerance of memory": (["--memory-tolerance", "0"], r"memory_tolerance=0.0: expected a difference"),
    "a minibatch of most samples": (["--batch-size", "150"], "at most half of them in a minibatch"),
    "an endless horizon": (["--horizon", "inf"], "horizon=inf: expected a finite number"),
}


@pytest.mark.parametrize(("arguments", "expected"), BAD.values(), ids=BAD.keys())
def test_bad_input_ends_in_one_line_and_exit_code_2(arguments, expected, refused):
    assert re.search(expected, refused(study.STUDY.main, ["--quick", *arguments]))
