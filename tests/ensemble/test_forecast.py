"""What an ensemble says that it will take, against what it takes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from langevin_nn import NetworkLandscape, gradient_ensemble
from langevin_nn.ensemble import GradientEnsemble
from langevin_nn.errors import ConfigurationError
from langevin_nn.landscape import cross_entropy
from langevin_nn.memory import as_bytes, available_memory, budget

N_PARAMETERS = 3 * 32 * 9 + 32 + 32 * 64 * 9 + 64 + 64 * 10 + 10


def convolutions() -> nn.Module:
    return nn.Sequential(
        *(nn.Conv2d(3, 32, 3), nn.ReLU(), nn.Conv2d(32, 64, 3, stride=2), nn.ReLU()),
        *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10)),
    )


def landscape_of(n, seen):
    def counted(outputs, labels):
        seen.append(len(outputs))
        return cross_entropy(outputs, labels)

    torch.manual_seed(0)
    network = convolutions()
    assert sum(each.numel() for each in network.parameters()) == N_PARAMETERS
    inputs = torch.randn(n, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    return NetworkLandscape(network, inputs, torch.arange(n) % 10, loss=counted, start="own")


@pytest.mark.parametrize(
    ("n", "limit"),
    [pytest.param(600, "40 MiB", id="room for all minibatches"), pytest.param(520, "4 MiB", id="for few of them")],
)
def test_samples_are_gone_through_as_often_as_said(n, limit):
    seen = []
    landscape = landscape_of(n, seen)
    ensemble = gradient_ensemble(landscape, landscape.own_weights, 10, memory_limit=limit)
    said = ensemble.forecast()
    assert said.n_samples == n
    assert said.n_pieces > 1
    seen.clear()
    ensemble.order_parameters(np.random.default_rng(0))
    assert sum(seen) / n == pytest.approx(said.passes, abs=0.5)
    assert ensemble.forecast(n_minibatches=0).passes == 2


def test_few_samples_are_gone_through_while_many_are_held():
    seen = []
    landscape = landscape_of(200, seen)
    ensemble = gradient_ensemble(landscape, landscape.own_weights, 10, memory_limit="10 MiB")
    said = ensemble.forecast()
    assert said.n_pieces > 1
    seen.clear()
    values = ensemble.order_parameters(np.random.default_rng(0))
    assert sum(seen) / 200 == pytest.approx(said.passes, abs=0.5)
    # After Gram matrices are known, nothing takes a further pass but sums of gradients themselves.
    assert ensemble.forecast(n_modes=5).passes == 1
    held = gradient_ensemble(landscape, landscape.own_weights, 10, memory_limit="1 GiB")
    for name, expected in held.order_parameters(np.random.default_rng(0)).items():
        np.testing.assert_allclose(values[name], expected, rtol=1e-6, atol=1e-12, err_msg=name)


def test_the_limit_that_is_named_holds_them():
    landscape = landscape_of(300, [])
    tight = gradient_ensemble(landscape, landscape.own_weights, 10, memory_limit="8 MiB").forecast()
    assert f"computed anew in {tight.n_pieces} pieces; memory_limit=" in str(tight)
    roomy = gradient_ensemble(landscape, landscape.own_weights, 10, memory_limit=tight.holding_limit).forecast()
    assert roomy.n_pieces == 1
    assert "held in" in str(roomy)


def test_what_is_made_of_no_samples_has_no_forecast():
    moments = GradientEnsemble.from_moments(torch.zeros(2), torch.eye(2))
    with pytest.raises(ConfigurationError, match="moments know no samples"):
        moments.forecast()
    landscape = landscape_of(20, [])
    ensemble = gradient_ensemble(landscape, landscape.own_weights, 10)
    with pytest.raises(ConfigurationError, match=r"n_minibatches=-1: .*from 0"):
        ensemble.forecast(n_minibatches=-1)


def test_budgets_are_powers_of_two_of_what_is_free():
    free = available_memory()
    assert free is not None
    chosen = budget(None)
    assert chosen & (chosen - 1) == 0
    assert chosen == 2**28 or free / 8 < chosen < free
    assert budget("3 MiB") == as_bytes("3 MiB")
