"""Where training starts: state dictionaries, modules, checkpoint files, states."""

from __future__ import annotations

from copy import deepcopy

import numpy as np
import pytest
import torch
from torch import nn

from langevin_nn import NetworkLandscape, Process, advance, compare, gradient_ensemble, rerun, sgd, simulate
from langevin_nn.errors import ConfigurationError
from langevin_nn.landscape import QuadraticLandscape, read_checkpoint
from langevin_nn.noise import ThermalNoise
from langevin_nn.observables import Losses, Weights
from langevin_nn.schedules import EverySteps
from langevin_nn.update import BAOAB, Adam, Momentum, UnderdampedLangevin

INPUTS = torch.randn(40, 5, generator=torch.Generator().manual_seed(0))
LABELS = (INPUTS[:, 0] > 0).long()


def network(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(5, 6), nn.Tanh(), nn.Linear(6, 2))


def trained() -> nn.Sequential:
    """A module with a history, in the order of parameters that vector functions of torch have."""
    module = network(3)
    optimizer = torch.optim.SGD(module.parameters(), lr=0.5)
    for _ in range(20):
        optimizer.zero_grad()
        nn.functional.cross_entropy(module(INPUTS), LABELS).backward()
        optimizer.step()
    return module


@pytest.fixture
def landscape() -> NetworkLandscape:
    return NetworkLandscape(network(), INPUTS, LABELS, start="drawn")


def saved(module: nn.Module, path, how: str):
    if how == "mapping":
        return module.state_dict()
    if how == "module":
        return module
    state = module.state_dict()
    if how == "safetensors":
        pytest.importorskip("safetensors")
        from safetensors.torch import save_file

        save_file(state, path / "w.safetensors")
        return path / "w.safetensors"
    wrapped = {"plain": state, "within": {"epoch": 3, "model_state_dict": state}}
    wrapped["parallel"] = {f"module.{name}": each for name, each in state.items()}
    torch.save(wrapped[how], path / "w.pt")
    return str(path / "w.pt")


@pytest.mark.parametrize("how", ["mapping", "module", "plain", "within", "parallel", "safetensors"])
def test_a_run_starts_from_what_a_network_holds(landscape, tmp_path, how):
    module = trained()
    given = saved(module, tmp_path, how)
    expected = nn.utils.parameters_to_vector(module.parameters()).detach()
    process = sgd(landscape, 0.1, 5)
    assert torch.equal(process.start(3, 0, given).weights, expected.expand(3, -1))
    run = simulate(process, steps=2, replicas=2, weights=given, observables=[Losses(), Weights()], progress=False)
    np.testing.assert_array_equal(run["weights/weights"][:, 0], expected.expand(2, -1))
    one, other = (gradient_ensemble(landscape, each, 5).closed_forms()["activity"] for each in (given, expected))
    np.testing.assert_array_equal(one, other)


def test_a_list_is_one_for_each_replica(landscape):
    states = [network(seed).state_dict() for seed in (1, 2)]
    found = sgd(landscape, 0.1, 5).start(2, 0, states).weights
    assert torch.equal(found[1], nn.utils.parameters_to_vector(network(2).parameters()))
    with pytest.raises(ConfigurationError, match=r"expected \(replica, parameter\) = \(3, 50\)"):
        sgd(landscape, 0.1, 5).start(3, 0, states)


def test_compare_starts_from_a_checkpoint(landscape, tmp_path):
    path = saved(trained(), tmp_path, "plain")
    result = compare(
        NetworkLandscape(network(), INPUTS, LABELS),
        learning_rate=0.1,
        batch_size=5,
        epochs=3,
        replicas=2,
        processes=["langevin"],
        weights=path,
        progress=False,
    )
    losses = result.trajectories.train_loss.sel(cohort="all").isel(step=0)
    expected = nn.functional.cross_entropy(trained()(INPUTS), LABELS).item()
    np.testing.assert_allclose(losses, expected, rtol=1e-5)


def test_another_network_is_refused(landscape, tmp_path):
    process = sgd(landscape, 0.1, 5)
    with pytest.raises(ConfigurationError, match=r"has no '0.weight' \(4 of 4 tensors do not fit\)"):
        process.start(1, 0, nn.Linear(5, 2).state_dict())
    for no_tensors in ({1: [2.0]}, {"0.weight": "text"}):
        with pytest.raises(ConfigurationError, match=r"has no '0.weight'"):
            simulate(sgd(landscape, 0.1, 8), steps=1, weights=no_tensors)
    wide = nn.Sequential(nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, 2))
    with pytest.raises(ConfigurationError, match=r"has \(7, 5\) in the place of \(6, 5\)"):
        process.start(1, 0, wide.state_dict())
    with pytest.raises(ConfigurationError, match="and there is none"):
        process.start(1, 0, tmp_path / "none.pt")
    (tmp_path / "text.pt").write_text("hello")
    with pytest.raises(ConfigurationError, match="cannot be read"):
        process.start(1, 0, tmp_path / "text.pt")
    torch.save(network(), tmp_path / "whole.pt")  # a pickled module, which runs code
    with pytest.raises(ConfigurationError, match=r"cannot be read .* save module.state_dict\(\)"):
        read_checkpoint(tmp_path / "whole.pt")
    torch.save({"epoch": 3}, tmp_path / "other.pt")
    with pytest.raises(ConfigurationError, match="holds epoch: expected a state dictionary"):
        read_checkpoint(tmp_path / "other.pt")
    with pytest.raises(ConfigurationError, match="is no network"):
        Process(QuadraticLandscape(np.eye(2), np.eye(2)), ThermalNoise(0.1), 0.1).start(1, 0, network().state_dict())


def test_other_constants_are_refused():
    """Running means of a checkpoint belong to the function of the weights: they are not dropped silently."""
    module = nn.Sequential(nn.Linear(5, 6), nn.BatchNorm1d(6), nn.Linear(6, 2)).eval()
    landscape = NetworkLandscape(module, INPUTS, LABELS)
    process = sgd(landscape, 0.1, 5)
    process.start(1, 0, module.state_dict())
    other = deepcopy(module)
    other[1].running_mean += 1
    with pytest.raises(ConfigurationError, match=r"another '1.running_mean'.* load it into the module"):
        process.start(1, 0, other.state_dict())


@pytest.mark.parametrize("update", [Momentum(0.9), Adam(), UnderdampedLangevin(mass=1.0)])
def test_going_on_from_a_state_keeps_momenta(landscape, update, tmp_path):
    process = sgd(landscape, 0.1, 40, update=update, independent=True)  # all samples: no noise
    half = advance(process, process.start(2, 0), 7)
    whole = advance(process, half, 5)
    going_on = process.start(2, 1, half)
    torch.testing.assert_close(advance(process, going_on, 5).weights, whole.weights, rtol=1e-5, atol=1e-6)
    without = advance(process, process.start(2, 1, half.weights), 5).weights
    assert not torch.allclose(without, whole.weights, rtol=1e-3)
    path = tmp_path / "run.nc"
    options = {"steps": 5, "replicas": 2, "schedule": EverySteps(5), "observables": [Losses(), Weights()]}
    run = simulate(process, weights=half, path=path, progress=False, **options)
    torch.testing.assert_close(
        torch.as_tensor(run["weights/weights"].values[:, -1]), whole.weights, rtol=1e-5, atol=1e-6
    )
    assert rerun(path, landscape=landscape, weights=half).same
    with pytest.raises(ConfigurationError, match="whose momenta are not in the file"):
        rerun(path, landscape=landscape)


def test_a_state_of_another_rule_is_refused(landscape):
    half = sgd(landscape, 0.1, 5, update=Adam()).start(2, 0)
    with pytest.raises(ConfigurationError, match=r"a State whose rule remembers .*AdamMoments"):
        sgd(landscape, 0.1, 5).start(2, 0, half)


@pytest.mark.parametrize("update", [BAOAB(0.5), UnderdampedLangevin(mass=0.25)])
def test_velocities_have_maxwells_law(update):
    valley = QuadraticLandscape(np.eye(3), np.eye(3), start=[1.0, 0.0, 0.0])
    process = Process(valley, ThermalNoise(0.4), 0.05, update=update)
    state = process.thermal_start(20_000, 2, temperature=0.4)
    expected, error = 0.4 / update.mass, 5 * np.sqrt(2 / 60_000)
    velocities = state.update_memory
    assert abs(float(velocities.square().mean()) / expected - 1) < error
    assert float(velocities.mean(0).abs().max()) < 5 * np.sqrt(expected / 20_000)
    assert torch.equal(process.thermal_start([7], 2, 0.4).update_memory[0], velocities[7])  # alone as in company
    with pytest.raises(ConfigurationError, match="has no mass"):
        Process(valley, ThermalNoise(0.4), 0.05).thermal_start(2, 0, temperature=0.4)
    with pytest.raises(ConfigurationError, match="temperature=-1"):
        process.thermal_start(2, 0, temperature=-1)
