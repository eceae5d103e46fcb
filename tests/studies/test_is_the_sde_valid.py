"""The study of the equation's validity: its calibration in short, what is written and said, bad input, and its parts."""

from __future__ import annotations

import json
import re
from dataclasses import replace

import numpy as np
import pytest
import torch
import xarray as xr
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy.stats import binom

from langevin_nn import NetworkLandscape
from langevin_nn.ensemble import covariance_factor
from langevin_nn.schedules import AtEpochs
from studies.is_the_sde_valid import study
from studies.is_the_sde_valid.conditions import noise_to_signal, scaling_range
from studies.is_the_sde_valid.noise_shape import observed_tail_index, shape_of_noise
from studies.is_the_sde_valid.plan import NEEDED, PROCESSES, Config, Plan, processes, settle
from studies.is_the_sde_valid.words import MEANS, VERDICTS, judge, label, table
from studies.lab.command import BAD_INPUT, DIVERGED, sized
from tests import calibrate_sde as calibration


@pytest.mark.proof
def test_sgd_against_sgd_is_rejected_as_often_as_the_level_says():
    """Few repetitions of what ``python tests/calibrate_sde.py`` counts 500 times."""
    repetitions = 24
    for count in calibration.false_alarms(repetitions, pairs=8):
        assert count.trials == repetitions
        assert count.hits <= binom.ppf(0.9995, repetitions, 0.05), count


def test_planted_differences_are_found():
    """44 % more noise, and a rotated covariance of the same eigenvalues, with 16 pairs: powers of 0.99 and 1."""
    for count in calibration.power(2, (16,), ("amplitude x 1.2", "covariance rotated by 90 degrees")):
        assert count.hits >= 1, count


def test_the_rotation_keeps_the_eigenvalues_of_the_covariance_and_changes_it():
    noise = torch.as_tensor(np.random.default_rng(0).standard_normal((50, 7)) * np.arange(1, 8))
    turned = calibration.RotatedNoise(5, degrees=30.0).turned(noise)
    before, after = (np.cov(each.numpy().T) for each in (noise, turned))
    np.testing.assert_allclose(np.linalg.eigvalsh(after), np.linalg.eigvalsh(before))
    assert np.abs(after - before).max() > 1
    torch.testing.assert_close(calibration.RotatedNoise(5, degrees=0.0).turned(noise), noise)


@pytest.fixture(scope="module")
def quick(quick_run):
    return quick_run("is_the_sde_valid")[0]


def test_nothing_is_said_of_a_process_that_was_not_run(quick_run):
    said = quick_run("is_the_sde_valid")[1]
    assert "heavy" not in said
    assert "The equation" in said
    assert "matched Gaussian, quarter step" in said


def test_a_quick_run_writes_all_that_it_names(quick):
    for name in study.STUDY.drawn:
        assert (quick / f"{name}.png").stat().st_size > 10_000, name
    found = json.loads((quick / "summary.json").read_text())["found"]
    assert len(found["thresholds"]) == 3
    assert {each["verdict"] for own in found["verdicts"].values() for each in own} <= set(VERDICTS)
    with xr.open_datatree(quick / "validity.nc") as tree:
        assert {"from_sgd", "from_independent_sgd", "from_langevin_quarter", "noise_shape"} <= set(tree.children)
        compared = tree["from_sgd"]
        known = list(processes(settle(sized(Config(), study.STUDY.quick))))
        assert list(compared.process.values) == known[1:]
        assert set(MEANS) <= set(compared.quantity.values)
        assert compared.distance.notnull().any()


def test_all_processes_start_from_the_same_weights_with_noise_of_their_own(quick):
    with xr.open_datatree(quick / "runs" / "pilot.nc") as pilot:
        start = pilot.train_loss.isel(step=0).sel(cohort="all").values
        last = [pilot.train_loss.isel(step=-1).sel(cohort="all").values]
    files = sorted((quick / "runs" / "processes").rglob("*.nc"))
    assert len(files) == len(processes(settle(sized(Config(), study.STUDY.quick))))
    for file in files:
        with xr.open_dataset(file) as run:
            np.testing.assert_allclose(run.train_loss.isel(step=0).sel(cohort="all").values, start, rtol=1e-6)
            last.append(run.train_loss.isel(step=-1).sel(cohort="all").values)
    assert len(np.unique(np.array(last)[:, 0])) == len(last), "no two processes drew the same noise"


NETWORK = """
import torch
from langevin_nn import NetworkLandscape


def landscape():
    inputs = torch.randn(60, 4, generator=torch.Generator().manual_seed(0))
    return NetworkLandscape(torch.nn.Linear(4, 1), inputs, inputs[:, :1] ** 2, loss=lambda y, t: ((y - t) ** 2).sum(1))


def nothing():
    return None
"""


def test_a_network_of_ones_own_without_classes_is_one_phase(tmp_path, monkeypatch, capsys):
    (tmp_path / "my_network.py").write_text(NETWORK)
    monkeypatch.chdir(tmp_path)
    out = tmp_path / "out"
    words = [
        "--quick",
        "--landscape",
        "my_network:landscape",
        "--learning-rate",
        "0.05",
        "--ladder",
        "2",
        "--processes",
        *(each for each in PROCESSES if each != "gradient_descent"),
        "--out",
        str(out),
    ]
    assert study.STUDY.main(words) == 0
    found = json.loads((out / "summary.json").read_text())["found"]
    assert list(found["phases"]) == ["all"]
    assert {each["process"] for each in found["verdicts"]["sgd"]} >= {"frozen", "heavy_tailed", "svag_2"}
    said = capsys.readouterr().out
    assert "train loss" in said
    assert "heavy-tailed noise was run at" in said
    assert study.STUDY.main([*words[:2], "my_network:nothing", *words[3:]]) == BAD_INPUT
    assert "expected a NetworkLandscape" in capsys.readouterr().err


BAD = {
    "five replicas": (["--replicas", "5"], "replicas=5: expected at least 6"),
    "three records": (["--records", "3"], "records=3: expected at least 4"),
    "an unknown process": (["--processes", "sgd", "adam"], "unknown process 'adam': expected one of sgd, "),
    "no equation": (["--processes", "sgd", "sgd_twin", "independent_sgd"], "langevin_quarter among them"),
    "no tolerance": (["--tolerance", "0"], "tolerance=0"),
    "a step twice": (["--ladder", "2", "2"], "each of them once"),
    "no factor": (["--scalings", "0"], "scalings"),
    "few permutations": (["--permutations", "300"], "permutations=300: expected at least 559"),
    "few minibatches": (["--minibatches", "100"], "minibatches=100: expected at least 200"),
    "one update": (["--epochs", "0.3"], r"at least 4 records besides the start at updates of their own in every run"),
    "large minibatches": (["--batch-size", "40"], "expected minibatches of at most 40"),
    "no such module": (["--landscape", "no_such_module:landscape"], "expected a module that can be imported"),
    "no function": (["--landscape", "json"], "expected module:function"),
}


@pytest.mark.parametrize(("arguments", "expected"), BAD.values(), ids=BAD.keys())
def test_bad_input_ends_in_one_line_and_exit_code_2(arguments, expected, refused):
    assert re.search(expected, refused(study.STUDY.main, ["--quick", *arguments]))


def test_ones_own_network_needs_rates(tmp_path, capsys):
    assert study.STUDY.main(["--landscape", "my_network:landscape", "--out", str(tmp_path / "out")]) == BAD_INPUT
    assert "without learning_rate, batch_size, epochs" in capsys.readouterr().err


def test_divergence_of_sgd_ends_with_code_3(tmp_path, monkeypatch, capsys):
    (tmp_path / "diverging_network.py").write_text(NETWORK)
    monkeypatch.chdir(tmp_path)
    words = ["--quick", "--landscape", "diverging_network:landscape", "--learning-rate", "1e5", "--out", "out"]
    assert study.STUDY.main(words) == DIVERGED
    assert "non-finite" in capsys.readouterr().err


def test_records_are_at_whole_epochs_of_long_runs_and_denser_at_first():
    plan = Plan(200.0, 32)
    assert plan.losses[0] == 0
    assert plan.losses[-1] == 200
    assert all(each == round(each) for each in plan.losses)
    gaps = np.diff(plan.losses)
    assert gaps[:5].mean() < gaps[-5:].mean()
    assert set(plan.order_parameters.at) < set(plan.losses)
    assert plan.losses[-1] in plan.order_parameters.at


def coincide(plan, clocks):
    """Every run has all records, at updates of their own: the k-th of one is the k-th of all others."""
    for schedule in (AtEpochs(plan.losses), plan.order_parameters):
        for clock in clocks:
            last = round(plan.epochs / (1 / clock))
            assert len({*schedule.steps(last, clock), last}) == len(schedule.at)


@given(
    epochs=st.floats(0.3, 300),
    records=st.integers(1, 60),
    n_samples=st.integers(20, 700),
    batch_size=st.integers(1, 10),
    factors=st.lists(st.sampled_from([1, 2, 3, 4, 8]), min_size=1, unique=True),
)
def test_records_of_all_runs_coincide_however_large_their_steps(epochs, records, n_samples, batch_size, factors):
    clocks = tuple(1 / (factor * batch_size / n_samples) for factor in (0.25, 1, *factors))
    assume(min(clocks) * epochs >= 1)
    plan = Plan(epochs, records, clocks)
    coincide(plan, clocks)
    asked = set(Plan(epochs, records).losses)
    assert {0.0, epochs} <= set(plan.losses) <= asked
    # No more is left out than must be: where nothing coincides, everything is recorded.
    steps = [{round(min(np.rint(each * clock), round(epochs / (1 / clock)))) for each in asked} for clock in clocks]
    assert (set(plan.losses) == asked) == all(len(each) == len(asked) for each in steps)


def test_a_plan_that_does_not_ask_the_clocks_is_caught():
    """SGD of 10 updates an epoch, and at four times the step: two records would fall on the start."""
    clocks = (10.0, 1 / (4 * 20 / 200))
    coincide(Plan(3.0, 6, clocks), clocks)
    with pytest.raises(AssertionError):
        coincide(Plan(3.0, 6), clocks)


@pytest.mark.proof
def test_a_short_run_at_large_steps_is_analysed_to_the_end(tmp_path, capsys):
    words = ["--samples-per-class", "4", "--hidden", "4", "--epochs", "3", "--records", "8", "--permutations", "599"]
    words += ["--batch-size", "4", "--scalings", "4", "--minibatches", "2000", "--processes", *NEEDED]
    assert study.STUDY.main(["--quick", *words, "--out", str(tmp_path)]) == 0
    said = capsys.readouterr().out
    assert re.search(r"\d of 9 records are left out: they would not be at an update of their own in every run", said)
    assert set(study.STUDY.results) <= {each.name for each in tmp_path.iterdir()}


def compared(distance, half, *, rejected=False, diverged=0):
    n = len(MEANS)
    values = {
        "distance": np.full(n, distance),
        "distance_lower": np.full(n, distance - half),
        "distance_upper": np.full(n, distance + half),
    }
    own = xr.Dataset({name: ("quantity", each) for name, each in values.items()}, coords={"quantity": list(MEANS)})
    own = own.assign(is_rejected=rejected, diverged_count=diverged, adjusted_p_value=0.001 if rejected else 0.7)
    return own.expand_dims(process=["svag_4"], phase=["I"])


@pytest.mark.parametrize(
    ("case", "expected"),
    [
        (compared(0.2, 0.5), "valid"),
        (compared(0.2, 0.5, rejected=True), "valid in the mean only"),
        (compared(3.0, 0.5, rejected=True), "not valid"),
        (compared(-3.0, 0.5, rejected=True), "not valid"),
        (compared(0.7, 0.5), "undecided"),
        (compared(0.7, 0.5, rejected=True), "undecided"),
        (compared(0.0, 0.1, diverged=1), "not valid"),
        (compared(np.nan, np.nan), "undecided"),
    ],
)
def test_verdicts_are_those_of_the_thresholds(case, expected):
    (found,) = judge(case, 1.0)
    assert found.verdict == expected
    assert expected in table([found])
    assert label("svag_4") in table([found])


def test_verdicts_say_when_a_run_is_too_short_and_how_many_replicas_would_decide():
    """Not surely invalid in a first phase that was not left is no "valid"; what is surely invalid stays so."""
    for case in (compared(0.2, 0.5), compared(0.2, 0.5, rejected=True), compared(0.7, 0.5)):
        assert judge(case, 1.0, 8, is_short=True)[0].verdict == "too short to say"
    assert judge(compared(3.0, 0.5, rejected=True), 1.0, 8, is_short=True)[0].verdict == "not valid"
    (found,) = judge(compared(0.7, 0.5), 1.0, 8)
    assert found.verdict == "undecided"
    assert found.needed > 8
    assert f"about {found.needed} replicas would decide" in table([found])
    assert judge(compared(0.2, 0.5), 1.0, 8)[0].needed is None


def test_noise_to_signal_by_phase_and_what_it_allows():
    epochs = np.array([0.0, 1.0, 2.0, 3.0, 4.0])
    noise = np.array([1.0, 8.0, 4.0, 0.5, 0.25])
    shape = (2, 5, 1)
    run = xr.Dataset(
        {
            "noise_strength": (("replica", "step", "cohort"), np.broadcast_to(noise[None, :, None], shape) * 2),
            "directed_activity": (("replica", "step", "cohort"), np.full(shape, 2.0)),
        },
        coords={"cohort": ["all"], "epoch": ("step", epochs)},
    )
    found = noise_to_signal(run, {"I": (0.0, 2.0), "II": (2.0, 4.0)}, closeness=2.0)
    np.testing.assert_allclose(found.noise_to_signal, noise[1:])
    np.testing.assert_allclose(found.smallest_noise_to_signal, [4.0, 0.25])
    np.testing.assert_allclose(found.largest_scaling, [20.0, 5.0])  # 4 (1 + N/G)
    np.testing.assert_allclose(found.holds_share, [1.0, 0.5])  # at least 1/3


def test_the_noise_to_signal_bounds_are_those_of_the_balance_of_squared_weights():
    """Equilibria 2λ r = α (G + N) and α N, with every G and N at the edge of C-closeness, by a scan of what is possible."""
    closeness, signal, generator = 1.5, 2.0, np.random.default_rng(0)
    for ratio in (0.3, 0.9, 2.0):
        noise = ratio * signal
        factors = closeness ** generator.uniform(-1, 1, (20_000, 2))
        of_equation = noise * factors[:, 1]
        possible = (np.abs(np.log((signal + noise) / of_equation)) <= np.log(closeness)).any()
        assert possible == (ratio >= 1 / (closeness**2 - 1))
        scaled = np.linspace(1, 12, 400)[:, None] * signal * factors[:, 0] + noise * factors[:, 1]
        reached = np.linspace(1, 12, 400)[(scaled / (signal + noise) <= closeness).any(1)].max()
        assert reached <= closeness**2 * (1 + ratio)
    assert reached > closeness**2


def test_the_range_of_linear_scaling_ends_at_the_first_step_that_is_told():
    rejected = [[False, False], [False, True], [True, False]]
    found = xr.Dataset(
        {"is_rejected": (("process", "phase"), np.array(rejected))},
        coords={"process": ["1", "2", "4"], "phase": ["I", "II"]},
    )
    assert scaling_range(found) == {"I": 2, "II": 1}


def regression(targets):
    """At w = 0 the gradient of sample k is −2 y_k x_k."""
    inputs = torch.as_tensor(np.random.default_rng(1).standard_normal((len(targets), 3)), dtype=torch.float32)
    labels = torch.as_tensor(targets, dtype=torch.float32)[:, None]
    network = torch.nn.Linear(3, 1, bias=False)
    return NetworkLandscape(network, inputs, labels, loss=lambda y, t: ((y - t) ** 2).sum(1))


def test_heavy_tails_are_seen_and_large_minibatches_of_light_ones_are_normal():
    generator = np.random.default_rng(2)
    heavy, light = generator.standard_cauchy(3000), generator.uniform(-1, 1, 3000)
    one, many = (
        shape_of_noise(regression(targets), torch.zeros(3), 0, batch, 2000, np.random.default_rng(3))
        for targets, batch in ((heavy, 1), (light, 100))
    )
    assert (one.tail_index.isnull() | (one.tail_index < 1.5)).all()  # a Cauchy number times a normal one is not stable
    assert (one.tail_index.isnull() == one.tail_index_standard_error.isnull()).all()
    assert (one.p_value < 1e-6).all()
    assert (one.excess_kurtosis > 10).all()
    assert (np.abs(many.tail_index - 2) < 0.15).all()
    assert (many.p_value > 0.001).all()
    assert list(one.direction.values[:4]) == ["eigenvector 1", "eigenvector 2", "eigenvector 3", "random 1"]
    assert observed_tail_index(one.expand_dims(replica=[0], phase=["I"])) == pytest.approx(float(one.tail_index.min()))
    assert observed_tail_index((np.nan * one).expand_dims(replica=[0], phase=["I"])) == 2.0
    assert observed_tail_index(many.expand_dims(replica=[0], phase=["I"]) + 1) == 2.0


def test_minibatch_means_have_the_variance_of_draws_without_replacement():
    from studies.is_the_sde_valid.noise_shape import _minibatch_means

    values = np.random.default_rng(4).exponential(size=(50, 2))
    n = 40_000
    means = _minibatch_means(values, 10, n, np.random.default_rng(5))
    expected = covariance_factor(50, 10) * values.var(0)
    assert (np.abs(means.var(0) / expected - 1) < 4.5 * (2 / n) ** 0.5).all()
    assert (np.abs(means.mean(0) - values.mean(0)) < 4.5 * np.sqrt(expected / n)).all()
    assert (np.abs(means.var(0) / (values.var(0) / 10) - 1) > 0.1).all()  # mutated twin: with replacement


def test_the_heavy_tailed_process_takes_the_index_that_is_asked_for():
    config = settle(sized(Config(tail_index=1.7, processes=(*NEEDED, "heavy_tailed")), study.STUDY.quick))
    assert processes(config)["heavy_tailed"]().noise.index == 1.7
    assert processes(replace(config, tail_index=None))["heavy_tailed"]().noise.index == 2.0
