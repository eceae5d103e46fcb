"""On a CUDA device: the same starting bits as on the CPU, and the same numbers to float32 rounding."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from conftest import digits_landscape

from langevin_nn import (
    NetworkLandscape,
    Seeds,
    gradient_descent,
    gradient_ensemble,
    isotropic_langevin,
    langevin,
    sgd,
    simulate,
)
from langevin_nn.schedules import EverySteps

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


PROCESSES = {
    "sgd": lambda each: sgd(each, ALPHA, B),
    "sgd independent": lambda each: sgd(each, ALPHA, B, independent=True),
    "sgd momentum": lambda each: sgd(each, ALPHA, B, momentum=0.9, weight_decay=0.01),
    "langevin": lambda each: langevin(each, ALPHA, B, time_step=ALPHA / 2),
    "isotropic_langevin": lambda each: isotropic_langevin(each, ALPHA, B, refresh_every=3),
    "gradient_descent": lambda each: gradient_descent(each, ALPHA, B),
}


@pytest.mark.parametrize("name", PROCESSES)
def test_short_runs_agree(landscapes, name):
    """Ten updates with the same random numbers: the noise is drawn on the CPU."""
    processes = [PROCESSES[name](each) for each in landscapes]
    host, device = (each.advance(each.start(3, 0), 10).weights for each in processes)
    assert_close(host, device, rounding=1e-4)


def test_recorded_runs_agree(landscapes):
    """Losses, errors and order parameters of a run, R included: its minibatches are the same."""
    host, device = (simulate(sgd(each, ALPHA, B), steps=6, replicas=2, schedule=EverySteps(3)) for each in landscapes)
    for name, variable in host.data_vars.items():
        np.testing.assert_allclose(device[name], variable, rtol=2e-3, atol=1e-5, err_msg=str(name))


def test_replica_and_repetition_give_the_same_bits_on_the_device(landscapes):
    process = sgd(landscapes[1], ALPHA, B)
    first, again = (process.advance(process.start(2, 0), 10).weights for _ in range(2))
    assert torch.equal(first, again)
