"""The study of variance and flatness: what is written and said, bad input, and what it finds in data of known truth."""

from __future__ import annotations

import json
import re
from copy import deepcopy

import numpy as np
import pytest
import torch
import xarray as xr
from scipy.linalg import expm
from twins import losses_of

from studies.lab.choices import load
from studies.lab.command import BAD_INPUT
from studies.lab.study import Answer
from studies.variance_flatness import study
from studies.variance_flatness.exponents import dissipation, exponents, pooled
from studies.variance_flatness.measures import BASES, currents
from studies.variance_flatness.runs import PROCESSES, RANDOM_WALK, Config, Settled, Start, network, random_walk

ALPHA, WINDOW = 0.1, 100.0


@pytest.fixture(scope="module")
def quick(quick_run):
    return quick_run("variance_flatness")[0]


def test_a_quick_run_writes_all_that_it_names(quick):
    for name in study.STUDY.drawn:
        assert (quick / f"{name}.png").stat().st_size > 10_000, name
    assert len(json.loads((quick / "summary.json").read_text())["found"]["exploration_begins"]) == 2
    with xr.open_datatree(quick / "variance_flatness.nc") as tree:
        names = {"measured", "exponents", "pooled", "dissipation", "currents", "profiles", "losses"}
        assert set(tree.children) == names
        measured = tree["measured"].to_dataset().load()
        assert measured.process.values.tolist() == ["sgd", "independent_sgd", "isotropic_langevin", RANDOM_WALK]
        assert measured.basis.values.tolist() == list(BASES)
        for name in ("variance", "held_out_variance", "flatness", "correlation_time"):
            assert measured[name].isel(rank=0).notnull().all(), name
        # With its drift the leading component is the drift, and more varies along it.
        drift = measured.sel(basis="with their drift", process="sgd").isel(rank=0)
        assert (drift.variance > measured.sel(basis=BASES[0], process="sgd").isel(rank=0).variance).all()
        assert (drift.trend_share > 0.8).all()


def test_measured_numbers_are_those_of_the_network_and_its_recorded_weights(quick):
    """Along the leading eigenvector of the Hessian, by other routes: dense matrices, differences of losses, NumPy."""
    words = json.loads((quick / "summary.json").read_text())["choices"]
    lists = {name: tuple(words[name]) for name in ("hidden", "processes")}
    config = Settled(**{**words, **lists})
    landscape = network(config, load(config))
    with xr.open_datatree(quick / "runs" / "training.nc") as tree:
        start = tree["weights"].weights.isel(replica=1).mean("weight_step").values.astype(np.float64)
    with xr.open_datatree(quick / "runs" / "independent_sgd.nc") as tree:
        recorded = tree["weights"].weights.isel(replica=slice(4, 8)).values.astype(np.float64)
        assert tree["weights"].weight_step.values.tolist() == config.steps_of(landscape.n_samples).tolist()
    with xr.open_datatree(quick / "variance_flatness.nc") as tree:
        own = tree["measured"].to_dataset().sel(process="independent_sgd").isel(replica=1).load()
    gradients = landscape.sample_gradients(torch.as_tensor(start).float()).dense().numpy().astype(np.float64)
    n, size = len(gradients), config.batch_size
    covariance = np.cov(gradients.T, bias=True) * (n - size) / (n - 1) / size
    # The first principal component, from NumPy alone.
    time = np.arange(recorded.shape[1]) - (recorded.shape[1] - 1) / 2
    rest = recorded - recorded.mean(1, keepdims=True)
    rest -= time[:, None] * (np.einsum("t,rtp->rp", time, rest) / (time @ time))[:, None]
    direction = np.linalg.svd(rest[0], full_matrices=False)[2][0]
    leading = own.sel(basis=BASES[0]).isel(rank=0)
    assert leading.variance.item() == pytest.approx(((rest[0] @ direction) ** 2).mean(), rel=1e-6)
    assert leading.held_out_variance.item() == pytest.approx(((rest[1:] @ direction) ** 2).mean(), rel=1e-4)
    assert leading.noise.item() == pytest.approx(direction @ covariance @ direction, rel=1e-3)

    def loss(displacement):
        return landscape.loss(torch.as_tensor(start + displacement * direction).float()[None]).item()

    losses = losses_of(deepcopy(landscape._module).double(), landscape.inputs.double(), landscape.labels[0])
    along, slope = torch.as_tensor(direction), torch.func.grad(lambda flat: losses(flat).mean())
    product = torch.func.jvp(slope, (torch.as_tensor(start).float().double(),), (along,))[1]
    assert leading.curvature.item() == pytest.approx((product @ along).item(), rel=1e-3)
    grid = np.linspace(0, 2 * leading.flatness.item(), 400)
    widths = [min(d for d in grid if loss(sign * d) >= np.e * loss(0.0)) for sign in (-1, 1)]
    assert leading.flatness.item() == pytest.approx(sum(widths), rel=0.02)
    hidden = own.sel(basis="hidden weights").isel(rank=0)
    assert 0 < hidden.variance.item() < leading.variance.item() * 1.0001


def said(parts):
    nowhere = Start(torch.zeros(0), np.zeros(0), np.zeros(0), 0.0)
    return study.STUDY.verdict(Answer(Config(), study.Found(start=nowhere, **parts), (), ""))


def test_the_verdict_names_what_shows_the_relation_and_what_a_random_walk_shows(quick):
    with xr.open_datatree(quick / "variance_flatness.nc") as tree:
        parts = {name: tree[name].to_dataset().load() for name in tree.children}
    for name in ("exponents", "dissipation", "currents"):  # as if all had been run
        parts[name] = parts[name].isel(process=0, drop=True).expand_dims(process=[*PROCESSES, RANDOM_WALK])
    spread = xr.DataArray([-0.01, 0.01], dims="replica")
    values = xr.DataArray(
        [-4.0, -3.0, 0.0, -4.0, 2.0, -4.0], dims="process", coords={"process": [*PROCESSES, RANDOM_WALK]}
    )
    known = (values + spread).broadcast_like(parts["exponents"].exponent)
    parts["exponents"] = parts["exponents"].assign(exponent=known)
    parts["dissipation"] = parts["dissipation"].dissipation_ratio
    *_, shown, walk = said(parts).splitlines()
    assert shown.startswith(
        "The inverse relation shows in: SGD, shuffled epochs, SGD, independent draws, frozen Gaussian;"
    )
    assert shown.endswith("not in: matched Gaussian (neither), isotropic (as in equilibrium).")
    assert "shows it too (-4 (" in walk
    # Differences of a network from itself have no spread: those that are not zero are told.
    assert walk.endswith("other exponents than its have: SGD, independent draws, matched Gaussian, isotropic.")
    flat = parts["exponents"].exponent.where(parts["exponents"].process != RANDOM_WALK, 0.5)
    parts["exponents"] = parts["exponents"].assign(exponent=flat)
    assert "does not show it (0.5" in said(parts)


@pytest.mark.proof
def test_processes_that_the_quick_run_leaves_out(tmp_path):
    chosen = ["sgd", "langevin", "frozen_langevin"]
    assert study.STUDY.main(["--quick", "--processes", *chosen, "--out", str(tmp_path)]) == 0
    with xr.open_dataset(tmp_path / "variance_flatness.nc", group="measured") as measured:
        assert measured.process.values.tolist() == [*chosen, RANDOM_WALK]
        assert measured.variance.isel(rank=0).notnull().all()


def test_the_random_walk_has_the_noise_of_minibatches_and_nothing_else():
    config = Settled(
        dataset="digits", samples_per_class=10, batch_size=5, learning_rate=0.2, epochs=1.0, hidden=(4, 4), parameters="*",
        copies=20, records=100, replicas=1, window=25.0, burn_in=0.0,
    )  # fmt: skip
    landscape = network(config, load(config))
    weights = landscape.own_weights[None]
    walk = random_walk(config, landscape, Start(weights, np.ones(1), np.ones(1), 0.0), 0)
    gap = int(np.diff(walk.weight_step.values)[0])
    assert gap == 5
    np.testing.assert_allclose(np.diff(walk.time), gap * 0.2)
    increments = np.diff(walk.weights.values, axis=1).reshape(-1, landscape.n_parameters)
    gradients = landscape.sample_gradients(weights[0]).dense().numpy()
    covariance = np.cov(gradients.T, bias=True) * 95 / 99 / 5
    values, vectors = np.linalg.eigh(covariance)
    for k in (-1, -3, -10):
        along = increments @ vectors[:, k]
        error = np.sqrt(2 / len(along))
        ratio = (along**2).mean() / (gap * 0.2**2 * values[k])
        assert abs(ratio - 1) < 4 * error
        assert abs(1.1**2 * ratio - 1) > 4 * error, "a tenth more noise would be seen"
        assert abs((along[1:] * along[:-1]).mean() / (along**2).mean()) < 4 / len(along) ** 0.5


def table(law, scatter=0.1, replicas=8, ranks=12, seed=0, noise=1.0):
    """Fluctuations of one process along directions of known flatness, σ² = law(F, h)."""
    generator = np.random.default_rng(seed)
    curvature = np.geomspace(2.0, 0.001, ranks) * np.exp(0.1 * generator.standard_normal((replicas, ranks)))
    widths = 2 * np.sqrt(2 * 0.01 * (np.e - 1) / curvature)
    values = law(widths, curvature) * np.exp(scatter * generator.standard_normal((replicas, ranks)))
    each = {
        "flatness": widths,
        "curvature_flatness": widths,
        "curvature": curvature,
        "variance": values,
        "held_out_variance": values,
        "correlation_time": 1 / curvature,
        "noise": noise * np.ones_like(widths),
    }
    dimensions = ("process", "basis", "replica", "rank")
    return xr.Dataset(
        {name: (dimensions, array[None, None]) for name, array in each.items()},
        coords={"process": ["one"], "basis": [BASES[0]]},
    )


@pytest.mark.parametrize(
    ("power", "kind"), [(-4.0, "inverse"), (2.0, "as in equilibrium"), (0.0, "neither")], ids=["-4", "2", "0"]
)
def test_exponents_of_synthetic_fluctuations_are_recovered(power, kind):
    measured = table(lambda width, _: 1e-5 * width**power)
    found = exponents(measured, WINDOW).exponent.sel(width="flatness", process="one", basis=BASES[0])
    own = found.sel(quantity="variance", range="all")
    error = float(own.std(ddof=1)) / own.size**0.5
    # 12 directions over ln F from -1 to 2.8: one slope has the deviation 0.1/(√12 · 1.2).
    assert error < 0.05
    assert abs(own.mean() - power) < 4 * error
    assert abs(own.mean() - power - 0.3) > 4 * error
    assert study.kind_of(own) == kind
    assert found.sel(quantity="correlation_time", range="all").mean() == pytest.approx(2.0)
    assert abs(found.sel(quantity="noise", range="all")).max() < 1e-9
    one = pooled(measured).isel(process=0, basis=0)
    assert one.exponent_lower < power + 0.1
    assert one.exponent_upper > power - 0.1
    assert one.verdict != "no power law"


def test_a_law_with_two_ranges_is_told_in_each_and_no_power_law_overall():
    """Relaxed directions hold σ² = const, slow ones σ² ~ F⁻²; 10 relaxation times in the window tell them apart."""
    measured = table(lambda _, h: 1e-5 * np.minimum(1.0, h * WINDOW / 10), scatter=0.02)
    found = exponents(measured, WINDOW).exponent.sel(width="flatness", quantity="variance").isel(process=0, basis=0)
    assert abs(found.sel(range="relaxed")).max() < 0.15
    assert found.sel(range="slow").mean() == pytest.approx(-2.0, abs=0.1)
    assert -1.9 < found.sel(range="all").mean() < -0.3
    assert pooled(measured).verdict.item() == "no power law"


def test_variances_of_the_balance_of_noise_and_restoring_force_have_the_ratio_1():
    """σ² = α² C/(1 − (1 − αh)²), the law of an autoregression, typed independently."""
    measured = table(lambda _, h: ALPHA**2 * 3.0 / (1 - (1 - ALPHA * h) ** 2), scatter=0.0, noise=3.0)
    found = dissipation(measured, ALPHA, WINDOW)
    np.testing.assert_allclose(found, 1.0, rtol=1e-9)
    double = measured.assign(noise=2 * measured.noise)
    np.testing.assert_allclose(dissipation(double, ALPHA, WINDOW), 0.5, rtol=1e-9)


def copies_of_plane(drift, noise, seed, copies=4, records=300, path=None):
    generator = np.random.default_rng(seed)
    step, factor = expm(-0.2 * drift), np.linalg.cholesky(noise)
    state, rows = np.zeros((copies, len(drift))), []
    for _ in range(records):
        state = state @ step.T + generator.standard_normal(state.shape) @ factor.T
        rows.append(state)
    weights = np.stack(rows, axis=1) + (0 if path is None else path)
    clocks = {"weight_step": np.arange(records), "time": ("weight_step", 0.2 * np.arange(records))}
    return xr.Dataset({"weights": (("replica", "weight_step", "parameter"), weights)}, coords=clocks)


TURNING = np.array([[1.0, -1.5], [1.5, 1.0]])


@pytest.mark.proof
def test_currents_of_copies_see_a_rotation_and_no_common_path():
    path = np.stack([30 * np.cos(np.arange(300) / 40), 30 * np.sin(np.arange(300) / 40)], axis=1)
    rates, still = [], []
    for seed in range(30):
        found = currents(copies_of_plane(TURNING, np.eye(2), seed))
        assert found.sizes["plane"] == 1
        same = currents(copies_of_plane(TURNING, np.eye(2), seed, path=path))
        assert same.entropy_production_rate.item() == pytest.approx(found.entropy_production_rate.item(), rel=1e-6)
        rates.append(found.entropy_production_rate.item())
        reversible = copies_of_plane(np.diag([1.0, 0.3]), np.eye(2), seed, path=path)
        still.append(currents(reversible).entropy_production_rate.item())
    rates, still = np.array(rates), np.array(still)
    # Per record: [[m, a], [−a, m]] = exp(−0.2 A) makes 4a²/(1 − m² − a²).
    a, decay = np.exp(-0.2) * np.sin(0.3), np.exp(-0.4)
    exact = 4 * a**2 / (1 - decay) / 0.2
    error = rates.std(ddof=1) / 30**0.5
    assert error < 0.15 * exact
    assert abs(rates.mean() - exact) < 4 * error
    assert abs(still.mean()) < 4 * still.std(ddof=1) / 30**0.5
    assert still.std(ddof=1) < 0.2 * exact


BAD = {
    "one replica": (["--replicas", "1"], "replicas=1: expected at least 2"),
    "two copies": (["--copies", "2"], "copies=2: expected at least 4"),
    "one hidden layer": (["--hidden", "30"], r"hidden=\(30,\): expected two"),
    "no sgd": (["--processes", "langevin"], "expected sgd"),
    "an unknown process": (["--processes", "sgd", "langevine"], "langevine"),
    "no window": (["--window", "0"], "window"),
    "a negative burn-in": (["--burn-in", "-1"], "burn_in"),
    "few records": (["--records", "5"], "records"),
    "few components": (["--components", "4"], "components"),
    "more components than records": (["--components", "90"], "expected at most 38"),
    "no directions": (["--rank", "0"], "rank"),
    "convolutions": (["--dataset", "cifar10"], "fully connected"),
    "an unknown tensor": (["--parameters", "9.weight"], "9.weight"),
}


@pytest.mark.parametrize(("arguments", "expected"), BAD.values(), ids=BAD.keys())
def test_bad_input_ends_in_one_line_and_exit_code_2(arguments, expected, refused):
    assert re.search(expected, refused(study.STUDY.main, ["--quick", *arguments]))


def test_networks_that_have_not_reached_exploration_are_refused(tmp_path, capsys):
    assert study.STUDY.main(["--quick", "--epochs", "8", "--out", str(tmp_path)]) == BAD_INPUT
    assert "had not reached the exploration phase" in capsys.readouterr().err
