"""On a CUDA device: the same starting bits as on the CPU, and the same numbers to float32 rounding.

Minibatches and matched noise are drawn on the device: their twin is the CPU with ``captured=True``, which draws the same.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from cases import digits_landscape

from langevin_nn import (
    NetworkLandscape,
    Process,
    Seeds,
    Simulation,
    advance,
    draws,
    gradient_descent,
    gradient_ensemble,
    isotropic_langevin,
    langevin,
    sgd,
    simulate,
)
from langevin_nn.curvature import Hessian
from langevin_nn.engine import advance_together, way
from langevin_nn.engine.graph import CapturedSteps
from langevin_nn.errors import UnstableTrajectory
from langevin_nn.schedules import EverySteps
from langevin_nn.seeds import Key
from langevin_nn.store.state import state_bytes, state_from
from langevin_nn.update import State

DEVICE = "cuda"
pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")

N, B, ALPHA = 60, 10, 0.1


@pytest.fixture(scope="module")
def landscapes() -> tuple[NetworkLandscape, NetworkLandscape]:
    """The same digits and network on the CPU and on the device."""
    with torch.random.fork_rng():
        return digits_landscape(N), digits_landscape(N, device=DEVICE)


def start(landscape: NetworkLandscape, replicas: int = 3) -> torch.Tensor:
    return landscape.initial_weights(tuple(range(replicas)), Seeds(0))


def assert_close(host: torch.Tensor, device: torch.Tensor, rounding: float = 1e-5) -> None:
    """Equal to a fraction of the largest entry."""
    assert device.device.type == DEVICE
    scale = float(host.abs().max())
    np.testing.assert_allclose(device.cpu().numpy(), host.numpy(), rtol=0, atol=rounding * scale)


def test_initial_weights_are_the_same_bits_on_both_devices(landscapes):
    host, device = (start(landscape) for landscape in landscapes)
    assert device.device.type == DEVICE
    assert torch.equal(host, device.cpu())


def test_sample_losses_and_errors_agree(landscapes):
    for test in (False, True):
        host, device = (each.losses_and_errors(2 * start(each), test=test) for each in landscapes)
        assert_close(host[0], device[0])
        assert torch.equal(host[1], device[1].cpu())


@pytest.mark.parametrize("chosen", [False, True], ids=["all samples", "chosen samples"])
def test_weighted_gradients_agree(landscapes, chosen):
    generator = np.random.default_rng(0)
    n_rows = B if chosen else N
    coefficients = torch.as_tensor(generator.standard_normal((3, n_rows)), dtype=torch.float32)
    indices = torch.as_tensor(generator.integers(N, size=(3, n_rows))) if chosen else None
    host, device = (
        each.weighted_gradient(start(each), coefficients.to(each.device), indices.to(each.device) if chosen else None)
        for each in landscapes
    )
    assert_close(host, device)
    assert float(host.abs().max()) > 0.01


def test_order_parameters_and_spectrum_agree(landscapes):
    host, device = (gradient_ensemble(each, start(each)[0], B) for each in landscapes)
    expected, measured = host.order_parameters(), device.order_parameters()
    for name, variable in expected.data_vars.items():
        np.testing.assert_allclose(measured[name], variable, rtol=1e-4, err_msg=str(name))
    one, other = host.noise_eigenvalues(), device.noise_eigenvalues()
    np.testing.assert_allclose(other, one, atol=1e-5 * one[0])


def convolutional(**options) -> NetworkLandscape:
    """Layers of every kind of path, on random images."""
    generator = np.random.default_rng(5)
    inputs = torch.as_tensor(generator.standard_normal((24, 2, 6, 6)), dtype=torch.float32)
    labels = torch.as_tensor(generator.integers(3, size=24))

    def make() -> torch.nn.Module:
        return torch.nn.Sequential(
            torch.nn.Conv2d(2, 4, 3, padding=1),
            torch.nn.GroupNorm(2, 4),
            torch.nn.Tanh(),
            torch.nn.AvgPool2d(2),
            torch.nn.Conv2d(4, 4, 2, groups=2),
            torch.nn.Flatten(),
            torch.nn.Linear(16, 3),
        )

    return NetworkLandscape(make, inputs, labels, true_labels=labels.roll(1), **options)


@pytest.fixture(scope="module")
def convolutions() -> tuple[NetworkLandscape, NetworkLandscape]:
    """The same convolutional network on the CPU and on the device."""
    with torch.random.fork_rng():
        return convolutional(), convolutional(device=DEVICE)


@pytest.mark.parametrize("memory_limit", ["1 GiB", "1 MiB"])
def test_order_parameters_of_convolutions_agree(convolutions, memory_limit):
    """The alignment too: its minibatches are drawn on the CPU."""
    host, device = (gradient_ensemble(each, start(each)[0], 6, memory_limit=memory_limit) for each in convolutions)
    one, other = (each.order_parameters(np.random.default_rng(0), 40) for each in (host, device))
    for name, variable in one.data_vars.items():
        np.testing.assert_allclose(other[name], variable, rtol=5e-3, atol=1e-4, err_msg=str(name))
    assert other.equals(device.order_parameters(np.random.default_rng(0), 40))
    one, other = host.by_layer(), device.by_layer()
    assert other.path.values.tolist() == one.path.values.tolist()
    for name in ("activity", "directed_activity", "noise_strength"):
        scale = float(one[name].sel(cohort="all").max())
        np.testing.assert_allclose(other[name], one[name], atol=1e-3 * scale, err_msg=name)
    np.testing.assert_allclose(device.samples().sample_loss, host.samples().sample_loss, rtol=1e-4, atol=1e-5)
    one, other = host.classes(), device.classes()
    np.testing.assert_allclose(other.class_alignment, one.class_alignment, atol=1e-3)


@pytest.mark.parametrize("method", ["auto", "parameters", "samples", "matrix-free"])
def test_leading_spectra_agree(convolutions, method):
    host, device = (gradient_ensemble(each, start(each)[0], 6) for each in convolutions)
    one, other = (each.spectrum(4, method=method, tolerance=1e-5) for each in (host, device))
    np.testing.assert_allclose(other.noise_eigenvalue, one.noise_eigenvalue, atol=1e-3 * float(one.noise_eigenvalue[0]))
    np.testing.assert_allclose(other.noise_strength, one.noise_strength, rtol=1e-3)


def test_noise_modes_and_gaussian_noise_live_on_the_device(convolutions):
    host, device = (gradient_ensemble(each, start(each)[0], 6) for each in convolutions)
    modes = device.noise_modes(2)
    assert modes.vectors.device.type == DEVICE
    covariance = host.projected_covariance(modes.vectors.cpu())
    np.testing.assert_allclose(np.diag(covariance), modes.values, rtol=1e-2)
    noise = [each.gaussian_noise(np.random.default_rng(0), 3) for each in (host, device)]
    assert_close(*noise, rounding=1e-3)


def test_hessian_products_agree(convolutions):
    generator = np.random.default_rng(1)
    vectors = torch.as_tensor(generator.standard_normal((3, convolutions[0].n_parameters)), dtype=torch.float32)
    host, device = (each.hessian_product(start(each), vectors.to(each.device)) for each in convolutions)
    assert_close(host, device, rounding=1e-3)
    rows = vectors.double().numpy()
    products = [Hessian(each, start(each)[0]).matmat(rows.T) for each in convolutions]
    np.testing.assert_allclose(products[1], products[0], atol=1e-3 * np.abs(products[0]).max())


PROCESSES = {
    "sgd": lambda each: sgd(each, ALPHA, B),
    "sgd independent": lambda each: sgd(each, ALPHA, B, independent=True),
    "sgd momentum": lambda each: sgd(each, ALPHA, B, momentum=0.9, weight_decay=0.01),
    "langevin": lambda each: langevin(each, ALPHA, B, time_step=ALPHA / 2),
    "isotropic_langevin": lambda each: isotropic_langevin(each, ALPHA, B, refresh_every=3),
    "gradient_descent": lambda each: gradient_descent(each, ALPHA, B),
}


CAPTURED = ("sgd", "sgd independent", "sgd momentum", "langevin")


def advanced(process: Process, state: State, steps: int) -> State:
    """On the CPU what a GPU does, one operation after the other."""
    return advance(process, state, steps, captured=True)


@pytest.mark.parametrize("name", PROCESSES)
def test_short_runs_agree(landscapes, name):
    """Ten updates with the same random numbers."""
    host, device = (PROCESSES[name](each) for each in landscapes)
    assert (way(device) == "captured") == (name in CAPTURED)
    expected = advanced(host, host.start(3, 0), 10).weights
    assert_close(expected, advance(device, device.start(3, 0), 10).weights, rounding=1e-4)


def test_recorded_runs_agree(landscapes):
    """Losses, errors and order parameters of a run, R included: its minibatches are the same."""
    host, device = (
        simulate(gradient_descent(each, ALPHA, B), steps=6, replicas=2, schedule=EverySteps(3)) for each in landscapes
    )
    for name, variable in host.data_vars.items():
        np.testing.assert_allclose(device[name], variable, rtol=2e-3, atol=1e-5, err_msg=str(name))


# --- captured updates


def the_steps(landscape: NetworkLandscape) -> CapturedSteps:
    """Those that were captured last."""
    return list(landscape.problem.path.kept.values())[-1]


def test_draws_are_the_same_on_both_devices():
    key = Key(Seeds(1), (0, 3, 2**40), 0)
    host, device = (draws.addresses([key], "test", torch.device(each)) for each in ("cpu", DEVICE))
    for whole in (
        lambda rows: draws.permutations(rows, 1000, 3),
        lambda rows: draws.distinct_integers(rows, 1000, 20, 5, 4),
        lambda rows: draws.integers(rows, torch.full((9,), 60_000, device=rows.device), 5, 4),
    ):
        assert torch.equal(whole(host), whole(device).cpu())
    assert_close(draws.normals(host, 1000, 5, 4), draws.normals(device, 1000, 5, 4), rounding=1e-6)


@pytest.mark.parametrize("name", CAPTURED)
@pytest.mark.parametrize("traced", [False, True], ids=["batched products", "torch.func"])
def test_captured_updates_are_those_one_by_one(landscapes, convolutions, name, traced):
    chosen = (convolutions if traced else landscapes)[1]
    process = PROCESSES[name](chosen)
    state = process.start(3, 0)
    graph = advance(process, state, 10).weights
    steps = the_steps(chosen)
    assert steps.captured
    chosen.problem.path.kept.clear()
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(CapturedSteps, "_captured", lambda self: None)
            eager = advance(process, state, 10).weights
    finally:
        chosen.problem.path.kept.clear()
    assert_close(eager.cpu(), graph, rounding=1e-6)
    assert not torch.equal(graph, state.weights)


def test_what_cannot_be_captured_is_said_and_runs(landscapes):
    """An operation that waits for the device."""
    chosen = digits_landscape(N, device=DEVICE)
    path = chosen._path

    def waiting(weights, *given):
        assert bool(torch.isfinite(weights).all())
        return path.capturable(weights, *given)

    chosen._path = replace(path, capturable=waiting)
    process, known = sgd(chosen, ALPHA, B), sgd(landscapes[1], ALPHA, B)
    with pytest.warns(RuntimeWarning, match="cannot be captured"):
        found = advance(process, process.start(2, 0), 10).weights
    assert_close(advance(known, known.start(2, 0), 10).weights.cpu(), found, rounding=1e-6)


@pytest.mark.parametrize("name", CAPTURED)
def test_a_replica_is_the_same_alone_and_among_many(landscapes, name):
    """Its numbers are; products of other batches may round otherwise."""
    process = PROCESSES[name](landscapes[1])
    many = advance(process, process.start(400, 0), 10).weights
    alone = advance(process, process.start([3], 0), 10).weights
    assert_close(many[3:4].cpu(), alone, rounding=1e-4)


@pytest.mark.parametrize("name", CAPTURED)
def test_a_run_that_goes_on_from_a_saved_state_has_the_same_bits(landscapes, name):
    process = PROCESSES[name](landscapes[1])
    whole = advance(process, process.start(3, 0), 20)
    saved = state_bytes(advance(process, process.start(3, 0), 8), recorded=True)
    landscapes[1].problem.path.kept.clear()
    state, _ = state_from(saved, landscapes[1].device)
    assert torch.equal(advance(process, state, 12).weights, whole.weights)


def test_a_replica_that_diverges_is_masked_and_the_others_go_on(landscapes):
    process = sgd(landscapes[1], ALPHA, B)
    start = process.start(3, 0).weights
    wild = start.clone()
    wild[1] *= 1e30
    state = advance(process, process.start(3, 0, wild), 24, "mask")
    assert state.diverged.tolist() == [False, True, False]
    assert torch.isnan(state.weights[1]).all()
    expected = advance(process, process.start(3, 0), 24).weights
    assert_close(expected[[0, 2]].cpu(), state.weights[[0, 2]], rounding=1e-5)
    with pytest.raises(UnstableTrajectory) as error:
        advance(process, process.start(3, 0, wild), 24)
    assert error.value.replica == 1


def test_processes_that_differ_in_labels_and_rate_share_a_graph(landscapes):
    processes = [
        sgd(digits_landscape(N, label_noise=noise, device=DEVICE), rate, B) for noise, rate in ((0.0, 0.1), (0.5, 0.02))
    ]
    states = [process.start(2, 0) for process in processes]
    after = advance_together(list(zip(processes, states, strict=True)), 10)
    for process, state, got in zip(processes, states, after, strict=True):
        assert_close(advance(process, state, 10).weights.cpu(), got.weights, rounding=1e-4)


def test_a_file_says_that_updates_were_captured(landscapes):
    host, device = (Simulation(sgd(each, ALPHA, B), steps=3, replicas=1).described for each in landscapes)
    assert device["updates"] == "captured"
    assert "updates" not in host
    assert device["process"]["landscape"]["gradient_path"] == "batched products"
