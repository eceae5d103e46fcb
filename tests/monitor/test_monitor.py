"""Loops of one's own, measured as they run: not a bit changed, gradients as autograd has them, records that go on."""

from __future__ import annotations

import subprocess
import sys
import warnings
from contextlib import suppress
from copy import deepcopy

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy, linear
from torch.utils.checkpoint import checkpoint
from torch.utils.data import DataLoader, TensorDataset

from langevin_nn import (
    NetworkLandscape,
    Seeds,
    find_mislabeled,
    gradient_ensemble,
    open_trajectory,
    plot,
    sgd,
    simulate,
    validate,
)
from langevin_nn.draws import NumPyDraws
from langevin_nn.errors import ConfigurationError, MonitorWarning
from langevin_nn.monitor import IndexedDataset, Monitor
from langevin_nn.monitor.optimizers import rates_of
from langevin_nn.monitor.probe import Probe
from langevin_nn.observables import OrderParameters, SampleLosses, Weights
from langevin_nn.schedules import EverySteps
from langevin_nn.seeds import Key

N, CLASSES = 120, 3
torch.manual_seed(0)
IMAGES, LABELS = torch.randn(N, 2, 6, 6), torch.arange(N) % CLASSES


def _network(*, mixing: bool = False, dropout: float = 0.0) -> nn.Module:
    torch.manual_seed(1)
    middle = nn.BatchNorm2d(4) if mixing else nn.GroupNorm(2, 4)
    head = (nn.Flatten(), nn.Dropout(dropout), nn.Linear(64, 8), nn.LayerNorm(8), nn.Tanh(), nn.Linear(8, CLASSES))
    return nn.Sequential(nn.Conv2d(2, 4, 3), middle, nn.ReLU(inplace=True), *head)


def _train(network: nn.Module, updates: int, monitor: Monitor | None = None, *, batch: int = 20, noise: float = 0.0):
    torch.manual_seed(2)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.05, momentum=0.9)
    done = 0
    while done < updates:
        for index in torch.randperm(N).split(batch)[: updates - done]:
            inputs = IMAGES[index] + noise * torch.randn(len(index), 2, 6, 6)
            logits = network(inputs)
            losses = cross_entropy(logits, LABELS[index], reduction="none")
            optimizer.zero_grad()
            if monitor is None:
                losses.mean().backward()
            else:
                with monitor.step(losses, index, labels=LABELS[index], logits=logits):
                    losses.mean().backward()
            optimizer.step()
            done += 1
    return torch.cat([each.detach().flatten() for each in network.state_dict().values()])


@pytest.mark.filterwarnings("ignore::langevin_nn.errors.MonitorWarning")
@pytest.mark.parametrize(("mixing", "dropout", "noise"), [(False, 0.0, 0.0), (True, 0.3, 0.5)])
def test_not_a_bit_of_the_training_run_changes(mixing: bool, dropout: float, noise: float) -> None:
    network = _network(mixing=mixing, dropout=dropout)
    watched = deepcopy(network)
    alone = _train(network, 50, noise=noise)
    monitor = Monitor(watched, N, every=1, augmented=noise > 0)
    assert torch.equal(_train(watched, 50, monitor, noise=noise), alone)
    monitor.close()
    assert not any(each._forward_hooks for each in watched.modules())
    assert mixing or monitor.trajectory.activity.notnull().sum() >= 50
    assert not mixing or monitor.counts["passes through layers that mix samples"] == 50  # no gradients of their own


def _autograd_rows(network: nn.Module, names: list[str], rows: torch.Tensor) -> torch.Tensor:
    """Each sample's gradient by a backward pass of its own."""
    tensors = [dict(network.named_parameters())[name] for name in names]
    found = []
    for k in rows:
        loss = cross_entropy(network(IMAGES[k : k + 1]), LABELS[k : k + 1])
        found.append(torch.cat([each.flatten() for each in torch.autograd.grad(loss, tensors)]))
    return torch.stack(found)


@pytest.mark.parametrize("reduction", ["mean", "sum", "weighted", "scaled", "half"])
def test_samples_have_their_gradients_whatever_is_differentiated(reduction: str) -> None:
    network = _network()
    probe, factors = Probe(network), []
    with torch.autocast("cpu", torch.bfloat16, enabled=reduction == "half"):
        losses = cross_entropy(network(IMAGES[:30]).float(), LABELS[:30], reduction="none")
    losses.register_hook(factors.append)
    total = {
        "mean": losses.mean,
        "sum": losses.sum,
        "weighted": lambda: (losses * torch.linspace(0.1, 2, 30)).sum(),
        "scaled": lambda: 1024 * losses.mean(),  # as a scaler of mixed precision does
        "half": losses.mean,
    }[reduction]()
    total.backward()
    probe.release()
    rows = torch.tensor([3, 7, 21])
    gradients = probe.sample_gradients(factors[0], rows)
    assert gradients is not None
    assert set(gradients.layers) == {"0", "1", "5", "6", "8"}
    names = [name for own in probe.tensors.values() for name in own]
    expected = _autograd_rows(network, names, rows).double()
    if reduction == "weighted":  # as what is differentiated weighs them
        expected = expected * (torch.linspace(0.1, 2, 30)[rows] / torch.linspace(0.1, 2, 30).mean())[:, None]
    tolerance = 0.1 if reduction == "half" else 1e-4
    assert (gradients.dense() - expected).norm() < tolerance * expected.norm()


def test_estimates_are_those_of_the_ensemble_within_their_errors() -> None:
    network = _network()
    mislabeled = np.arange(N) % 4 == 0
    landscape = NetworkLandscape(network, IMAGES, LABELS, true_labels=(LABELS + torch.as_tensor(mislabeled)) % CLASSES)
    exact = gradient_ensemble(landscape, landscape.own_weights, 40).order_parameters()
    monitor = Monitor(network, N, every=1, measured_samples=40, mislabeled=mislabeled)
    torch.manual_seed(0)
    for _ in range(40):  # at one point: no optimizer steps
        for index in torch.randperm(N).split(40):
            losses = cross_entropy(network(IMAGES[index]), LABELS[index], reduction="none")
            with monitor.step(losses, index):
                losses.mean().backward()
            network.zero_grad()
    found = monitor.close().isel(replica=0)
    names = ["activity", "directed_activity", "noise_strength"]
    for name in names:
        values = found[name].dropna("step", how="all")
        error = values.std("step") / values.sizes["step"] ** 0.5
        np.testing.assert_array_less(abs(values.mean("step") - exact[name]), 4 * error + 1e-12)
        ratio = (found[f"{name}_standard_error"] ** 2).mean("step") ** 0.5 / values.std("step")
        assert ((ratio > 0.7) & (ratio < 1.5))[:2].all()  # of the ten mislabeled samples of a minibatch it is up to 1.6
    layers = found["measured_layers"].layer_noise_strength.sum("layer")
    np.testing.assert_allclose(layers, found.noise_strength.sel(cohort="all").dropna("step"), rtol=1e-6)


def test_a_monitored_loop_and_simulate_of_the_same_seed_agree() -> None:
    network = _network().double()
    landscape = NetworkLandscape(network, IMAGES.double(), LABELS)
    process = sgd(landscape, 0.1, 40)
    last, times = 36, EverySteps(6)
    observables = [OrderParameters(schedule=times), SampleLosses(times), Weights(times)]
    exact = simulate(
        process, steps=last, replicas=1, seed=5, weights=landscape.own_weights[None], observables=observables
    )
    draws = NumPyDraws([Key(Seeds(5), (0,), 0)], landscape.own_weights)
    indices, _ = process.noise.drawn(N, process.noise.start(landscape, landscape.own_weights[None]), draws, last)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    monitor = Monitor(network, N, optimizer=optimizer, every=6, measured_samples=40)
    for step, index in enumerate(indices[:, 0]):
        losses = cross_entropy(network(IMAGES[index].double()), LABELS[index], reduction="none")
        if step % 6 == 0:
            known = exact["samples"].sample_loss.sel(sample_step=step).values[0, index]
            np.testing.assert_allclose(losses.detach(), known, rtol=1e-9)
        optimizer.zero_grad()
        with monitor.step(losses, index):
            losses.mean().backward()
        optimizer.step()
    weights = exact["weights"].weights.sel(weight_step=last).values[0]
    np.testing.assert_allclose(
        torch.cat([each.detach().flatten() for each in network.parameters()]), weights, rtol=1e-8
    )
    found = monitor.close()
    for name in ("activity", "directed_activity", "noise_strength"):
        known = exact[name].sel(cohort="all", step=list(range(0, last, 6)))
        estimate, error = (found[each].sel(cohort="all", step=known.step) for each in (name, f"{name}_standard_error"))
        assert (abs(estimate - known) < 4 * error).all(), name


def test_losses_lie_where_their_samples_are(tmp_path) -> None:
    network, path = _network(), tmp_path / "run.nc"
    optimizer = torch.optim.Adam(network.parameters(), lr=0.01)
    loader = DataLoader(IndexedDataset(TensorDataset(IMAGES, LABELS)), batch_size=50, drop_last=True)
    seen, predicted = np.full((2, N), np.nan), np.full((2, N), np.nan)
    with Monitor(network, N, path, optimizer=optimizer, every=2) as monitor:
        for epoch in range(2):
            for inputs, labels, index in loader:
                logits = network(inputs)
                losses = cross_entropy(logits, labels, reduction="none")
                seen[epoch, index], predicted[epoch, index] = losses.detach(), logits.detach().numpy().argmax(1)
                optimizer.zero_grad()
                with monitor.step(losses, index, labels=labels, logits=logits):
                    losses.mean().backward()
                optimizer.step()
            monitor.log(test_error=0.5)
    trajectory = open_trajectory(path)
    np.testing.assert_array_equal(trajectory["samples"].sample_loss[0, 0], seen[0].astype(np.float32))
    assert np.isnan(trajectory["samples"].sample_loss[0, 0, 100:]).all()  # never seen
    np.testing.assert_array_equal(trajectory["samples"].predicted_label[0], predicted)
    assert trajectory.test_error.notnull().sum() == 2
    assert float(trajectory.time[-1]) == pytest.approx(0.04)
    assert trajectory.metric_geometric_mean.notnull().sum() == 1  # of two measured updates the second
    validate(path)
    plot(trajectory)
    find_mislabeled(trajectory)


def test_parts_of_a_minibatch_tell_the_noise_of_any_network() -> None:
    network = _network(mixing=True)
    monitor, gradients = Monitor(network, N, every=1, accumulation=4), []
    for part in range(4):
        index = torch.arange(10 * part, 10 * part + 10)
        before = [each.grad.clone() if each.grad is not None else 0 for each in network.parameters()]
        losses = cross_entropy(network(IMAGES[index]), LABELS[index], reduction="none")
        with monitor.step(losses, index):
            (losses.mean() / 4).backward()
        grown = [4 * (each.grad - old) for each, old in zip(network.parameters(), before, strict=True)]
        gradients.append(torch.cat([each.flatten() for each in grown]).double())
    rows = torch.stack(gradients)
    mean, trace = rows.mean(0), float(rows.var(0).sum())
    found = monitor.trajectory.isel(replica=0, step=0, cohort=0)
    assert float(found.noise_strength) == pytest.approx(trace / 4)
    assert float(found.directed_activity) == pytest.approx(float(mean @ mean) - trace / 4)
    same = Monitor(deepcopy(network), N, every=1, accumulation=2)
    for _ in range(2):
        with same.part(10):
            same._network(IMAGES[:10]).square().mean().backward()
    assert float(same.trajectory.noise_strength[0, 0, 0]) >= 0


def test_parts_that_are_too_small_for_samples_are_compared_with_one_another() -> None:
    """From the second update on; parts of different sizes tell nothing."""
    network, sizes = _network(), (5, 5, 5, 5) * 3 + (5, 5, 5, 4)
    monitor, first = Monitor(network, N, every=1, accumulation=4), 0
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for size in sizes:
            losses = _losses(network, index := torch.arange(first, first := first + size))
            with monitor.step(losses, index):
                (losses.mean() / 4).backward()
    assert "how 4 parts differ" in str(caught[0].message)
    told = monitor.trajectory.noise_strength.sel(cohort="all", replica=0).notnull()
    assert told.step[told].values.tolist() == [1, 2]
    assert monitor.counts["parts of different sizes"] == 1


def test_parts_of_one_update_stay_together_however_often_segments_end(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("langevin_nn.monitor.monitor._SECONDS_BETWEEN_LOOKS", 0.0)
    network = _network(mixing=True)
    with Monitor(network, N, tmp_path / "run.nc", every=1, accumulation=2, segment_seconds=0.0) as monitor:
        for part in range(12):
            losses = _losses(network, index := torch.arange(10 * part, 10 * part + 10))
            with monitor.step(losses, index):
                (losses.mean() / 2).backward()
    found = open_trajectory(tmp_path / "run.nc").noise_strength.sel(cohort="all", replica=0)
    assert found.sel(step=range(6)).notnull().all()


def test_what_is_differentiated_besides_leaves_a_layer_out() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = nn.Linear(72, 9), nn.Linear(9, CLASSES)

        def forward(self, inputs: torch.Tensor) -> torch.Tensor:
            hidden = self.first(inputs.flatten(1)).tanh()
            return self.last(hidden) + linear(hidden, self.last.weight)  # once more, where no hook sees it

    network = Twice()
    monitor = Monitor(network, N, every=1)
    with pytest.warns(MonitorWarning, match="last"):
        _train(network, 2, monitor)
    layers = monitor.trajectory["measured_layers"].layer_noise_strength.isel(replica=0, measured_layers_step=0)
    assert np.isnan(layers.sel(layer="last"))
    assert np.isfinite(layers.sel(layer="first"))
    assert monitor.counts["layers that are left out"] == 1


class _Checkpointed(nn.Module):
    def __init__(self, network: nn.Module, reentrant: bool) -> None:
        super().__init__()
        self.network, self.reentrant = network, reentrant

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        inputs = inputs.clone().requires_grad_()
        return checkpoint(self.network, inputs, use_reentrant=self.reentrant)


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor")  # torch's own, while it compiles
@pytest.mark.parametrize(
    "wrap",
    [
        lambda network: torch.compile(network, backend="eager"),
        lambda network: _Checkpointed(network, reentrant=False),
        lambda network: _Checkpointed(network, reentrant=True),
        nn.DataParallel,
    ],
)
def test_wrapped_networks_are_measured_as_they_are_alone(wrap) -> None:
    found = []
    for wrapped in (_network(), wrap(_network())):
        monitor = Monitor(wrapped, N, every=1)
        _train(wrapped, 2, monitor)
        found.append(monitor.close()["measured_layers"].layer_noise_strength.values)
    np.testing.assert_allclose(found[0], found[1], rtol=1e-5)


def test_going_on_in_memory_makes_the_same_records(tmp_path) -> None:
    def run(interrupted: bool) -> dict[str, np.ndarray]:
        network = _network()
        optimizer = torch.optim.SGD(network.parameters(), lr=0.05)
        monitor = Monitor(network, N, every=3)
        for update in range(20):
            if interrupted and update == 11:
                torch.save(monitor.state_dict(), tmp_path / "monitor.pt")
                monitor.close()
                monitor = Monitor(network, N, every=3)
                monitor.load_state_dict(torch.load(tmp_path / "monitor.pt", weights_only=True))
            index = torch.arange(30 * update, 30 * update + 30) % N
            logits = network(IMAGES[index])
            losses = cross_entropy(logits, LABELS[index], reduction="none")
            optimizer.zero_grad()
            with monitor.step(losses, index, labels=LABELS[index], logits=logits):
                losses.mean().backward()
            optimizer.step()
        return monitor.close()

    one, other = run(False), run(True)
    for group in ("/", "/measured_layers", "/samples"):
        assert one[group].to_dataset(inherit=False).equals(other[group].to_dataset(inherit=False)), group


def test_a_checkpoint_at_the_end_of_an_epoch_loses_nothing(tmp_path) -> None:
    network, index = _network(), torch.arange(N)
    with Monitor(network, N, tmp_path / "run.nc", every=1) as monitor:
        for _ in range(2):
            for few in index.split(40):
                losses = _losses(network, few)
                with monitor.step(losses, few, labels=LABELS[few]):
                    losses.mean().backward()
            monitor.state_dict()
    samples = open_trajectory(tmp_path / "run.nc")["samples"]
    np.testing.assert_array_equal(samples.given_label[0], LABELS)
    assert samples.sizes["sample_step"] == 2


_LOOP = """
import os, sys
from pathlib import Path
import torch
from torch.nn.functional import cross_entropy
from langevin_nn.monitor import Monitor
folder, kill = Path(sys.argv[1]), int(sys.argv[2])
torch.manual_seed(0)
inputs, labels = torch.randn(120, 6), torch.arange(120) % 3
network = torch.nn.Sequential(torch.nn.Linear(6, 8), torch.nn.Tanh(), torch.nn.Linear(8, 3))
optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
saved, first = folder / "loop.pt", 0
monitor = Monitor(network, 120, folder / "run.nc", every=3, resume=saved.exists(), segment_seconds=0.0)
import langevin_nn.monitor.monitor as module
module._SECONDS_BETWEEN_LOOKS = 0.0  # a segment for each update
if saved.exists():
    loop = torch.load(saved, weights_only=True)
    network.load_state_dict(loop["network"])
    monitor.load_state_dict(loop["monitor"])
    first = loop["update"]
for update in range(first, 40):
    if update == 17:
        loop = {"network": network.state_dict(), "monitor": monitor.state_dict(), "update": update}
        torch.save(loop, saved)
    if update == kill and first == 0:
        os._exit(9)
    index = torch.arange(20 * update, 20 * update + 20) % 120
    logits = network(inputs[index])
    losses = cross_entropy(logits, labels[index], reduction="none")
    optimizer.zero_grad()
    with monitor.step(losses, index, labels=labels[index], logits=logits):
        losses.mean().backward()
    optimizer.step()
monitor.close()
"""


def test_what_has_no_loss_has_no_prediction() -> None:
    network, index = _network(), torch.arange(N)
    logits = network(IMAGES)
    spoiled = torch.where(index[:, None] < 5, torch.nan, logits)
    losses = cross_entropy(spoiled, LABELS, reduction="none")
    monitor = Monitor(network, N, every=0)
    with pytest.warns(MonitorWarning, match="not finite"), monitor.step(losses, index, labels=LABELS, logits=spoiled):
        losses.nansum().backward()
    predicted = monitor.trajectory["samples"].predicted_label[0, 0]
    assert np.isnan(predicted[:5]).all()
    np.testing.assert_array_equal(predicted[5:], logits[5:].argmax(1))


def test_records_that_are_to_be_gone_on_with_are_not_lost(tmp_path) -> None:
    """One commitment by state_dict, and then a monitor that forgets it, or takes the state elsewhere."""
    path, index = tmp_path / "run.nc", torch.arange(N)
    with suppress(KeyboardInterrupt), Monitor(_network(), N, path, every=0) as first:
        for _ in range(2):
            losses = _losses(first._network, index)
            with first.step(losses, index):
                losses.mean().backward()
        state = first.state_dict()
        raise KeyboardInterrupt
    forgetful = Monitor(_network(), N, path, every=0, resume=True)
    with pytest.raises(ConfigurationError, match="load_state_dict"):
        forgetful.step(_losses(forgetful._network, index), index)
    elsewhere = Monitor(_network(), N, tmp_path / "other.nc", every=0)
    with pytest.raises(ConfigurationError, match="of which 1 are recorded"):
        elsewhere.load_state_dict(state)
    forgetful.load_state_dict(state)
    assert forgetful.epoch == 2


def test_a_killed_loop_goes_on_to_the_same_file(tmp_path) -> None:
    files = []
    for kill, ends in ((-1, [0]), (30, [9, 0])):
        folder = tmp_path / str(kill)
        folder.mkdir()
        command = [sys.executable, "-c", _LOOP, str(folder), str(kill)]
        assert [subprocess.run(command, timeout=120).returncode for _ in ends] == ends
        files.append(open_trajectory(folder / "run.nc"))
    for group in ("/", "/measured_layers", "/samples"):
        one, other = (each[group].to_dataset(inherit=False).load() for each in files)
        for name in one.variables:
            np.testing.assert_array_equal(one[name], other[name], err_msg=f"{group} {name}")


def _losses(network: nn.Module, index: torch.Tensor | None = None) -> torch.Tensor:
    index = torch.arange(10) if index is None else index
    return cross_entropy(network(IMAGES[index % N]), LABELS[index % N], reduction="none")


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda m, n: m.step(_losses(n).mean(), torch.arange(10)), "before any mean"),
        (lambda m, n: m.step(_losses(n).detach(), torch.arange(10)), "hold no graph"),
        (lambda m, n: m.step(_losses(n), torch.arange(115, 125)), "n_samples=120"),
        (lambda m, n: m.step(_losses(n), torch.arange(9)), "which samples"),
        (lambda m, n: m.step(_losses(n), list(range(10))), "IndexedDataset"),
        (lambda m, n: m.step(_losses(n), torch.arange(10), labels=torch.zeros(3)), "class of each sample"),
        (lambda m, n: m.step(_losses(n), torch.arange(10), logits=torch.zeros(10)), r"shape \(10, class\)"),
        (lambda m, n: m.step(_losses(n), torch.arange(10), logits=torch.zeros(9, 3)), r"shape \(10, class\)"),
        (lambda m, n: m.step(_losses(n), torch.arange(10), logits="many"), "logits are of type str"),
        (lambda m, n: Monitor(n, N), "another monitor"),
        (lambda m, n: Monitor(_network, N), "expected a torch.nn.Module"),
        (lambda m, n: Monitor(_network(), 0), "n_samples"),
        (lambda m, n: m.part(5), "at least 2"),
        (lambda m, n: m.step(torch.arange(10), _losses(n)), "in this order"),
        (lambda m, n: m.log(accuracy=1.0), "test_error"),
        (lambda m, n: m.log(test_error=37), "no percentage"),
        (lambda m, n: m.log(test_loss="low"), "in nats"),
        (lambda m, n: m.load_state_dict({}), "state_dict"),
        (lambda m, n: m.load_state_dict(Monitor(_network(), N, every=7).state_dict()), "every=7"),
        (lambda m, n: Monitor(_network(), N, resume=True), "without a path"),
        (lambda m, n: (m.close(), m.step(_losses(n), torch.arange(10))), "closed"),
        (lambda m, n: Monitor(_network(), N, mislabeled=np.zeros(3, bool)), "one a sample"),
        (lambda m, n: IndexedDataset(iter([])), "map-style"),
    ],
)
def test_what_is_wrong_is_said(wrong, message: str) -> None:
    network = _network()
    monitor = Monitor(network, N)
    with pytest.raises(ConfigurationError, match=message):
        wrong(monitor, network)
    monitor.close()


def test_what_cannot_be_measured_is_counted_and_training_goes_on() -> None:
    network = _network()
    monitor, index = Monitor(network, N, every=1), torch.arange(10)

    def update(few: torch.Tensor, factor: float = 1.0, *, backward: bool = True) -> None:
        losses = factor * _losses(network, few)
        with monitor.step(losses, few):
            if backward:
                losses.mean().backward()

    for arguments, reason in (
        ({"few": index, "backward": False}, "steps without a backward pass"),
        ({"few": index[:4]}, "minibatches that are too small"),
        ({"few": index, "factor": 0.0}, "gradients"),
        ({"few": index}, ""),
    ):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            update(**arguments)
        assert [str(each.message) for each in caught if reason not in str(each.message)] == []
    losses = _losses(network) * torch.tensor([torch.nan] + [1.0] * 9)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with monitor.step(losses, index):
            losses.mean().backward()
        monitor.close()
    assert monitor.counts == {
        "steps without a backward pass": 1,
        "minibatches that are too small": 1,
        "gradients that are not finite": 1,
        "losses that are not finite": 1,
        "samples that came more than once in an epoch": 1,
    }
    assert monitor.trajectory.activity.notnull().any()


def test_order_parameters_are_of_the_gradient_that_trains() -> None:
    """The hardest samples alone are differentiated, and a penalty beside them."""
    network = _network()
    monitor, index = Monitor(network, N, every=1, measured_samples=N), torch.arange(N)
    losses = _losses(network, index)
    penalty = 0.01 * sum(each.square().sum() for each in network.parameters())
    with monitor.step(losses, index):
        (losses.topk(30).values.mean() + penalty).backward()
    network.zero_grad()
    _losses(network, index).topk(30).values.mean().backward()
    trained = sum(float(each.grad.double().square().sum()) for each in network.parameters())
    found = monitor.close()
    assert float(found.directed_activity[0, 0, 0]) == pytest.approx(trained, rel=1e-4)
    assert not monitor.counts


def test_copies_of_a_watched_network_are_not_watched(tmp_path) -> None:
    network = _network()
    monitor = Monitor(network, N, every=1)
    torch.save(network, tmp_path / "network.pt")
    for copy in (deepcopy(network), torch.load(tmp_path / "network.pt", weights_only=False)):
        copy(IMAGES[:4]).sum().backward()
    losses = _losses(network)
    with monitor.step(losses, torch.arange(10)):
        losses.mean().backward()
    assert monitor.trajectory.activity.notnull().any()


def test_half_precision_and_a_loop_that_forgets_to_close(tmp_path) -> None:
    script = (
        "import torch; from langevin_nn import Monitor; network = torch.nn.Linear(3, 2).bfloat16()\n"
        f"monitor = Monitor(network, 20, {str(tmp_path / 'run.nc')!r}, every=1)\n"
        "losses = network(torch.ones(20, 3).bfloat16()).square().mean(1)\n"
        "with monitor.step(losses, torch.arange(20)): losses.mean().backward()\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True, timeout=120)
    assert open_trajectory(tmp_path / "run.nc")["samples"].sample_loss.notnull().all()


def test_an_error_of_the_loop_is_its_own() -> None:
    network = _network()
    monitor = Monitor(network, N, every=1)
    with pytest.raises(RuntimeError, match="mine"), monitor.step(_losses(network), torch.arange(10)):
        raise RuntimeError("mine")
    losses = _losses(network)
    with monitor.step(losses, torch.arange(10)):
        losses.mean().backward()
    assert monitor.step_count == 1
    assert monitor.trajectory.activity.notnull().any()


def test_indices_come_with_any_kind_of_sample() -> None:
    assert IndexedDataset([{"text": 1}])[0] == {"text": 1, "index": 0}
    assert IndexedDataset([(1, 2)])[0] == (1, 2, 0)
    assert IndexedDataset([5])[0] == (5, 0)
    assert len(IndexedDataset([5, 6])) == 2


_TOGETHER = """
import os, sys
import torch
import torch.distributed as dist
from torch.nn.functional import cross_entropy
from langevin_nn import Monitor
folder, rank, size = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
torch.manual_seed(0)
inputs, labels = torch.randn(160, 6, dtype=torch.float64), torch.arange(160) % 3
network = torch.nn.Sequential(torch.nn.Linear(6, 8), torch.nn.Tanh(), torch.nn.Linear(8, 3)).double()
if size > 1:
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=size)
    model = torch.nn.parallel.DistributedDataParallel(network)
else:
    model = network
optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
monitor = Monitor(network, 160, f"{folder}/run.nc", optimizer=optimizer, every=4, measured_samples=40)
for epoch in range(2):
    for index in torch.arange(160).split(40):
        mine = index[rank::size]
        logits = model(inputs[mine])
        losses = cross_entropy(logits, labels[mine], reduction="none")
        optimizer.zero_grad()
        with monitor.step(losses, mine, labels=labels[mine], logits=logits):
            losses.mean().backward()
        optimizer.step()
    monitor.verdict()
monitor.close()
if size > 1:
    dist.destroy_process_group()
"""


def test_two_processes_record_what_one_would(tmp_path) -> None:
    for size in (1, 2):
        folder = tmp_path / str(size)
        folder.mkdir()
        started = [
            subprocess.Popen([sys.executable, "-c", _TOGETHER, str(folder), str(rank), str(size)])
            for rank in range(size)
        ]
        assert [each.wait(timeout=120) for each in started] == [0] * size
    one, two = (open_trajectory(tmp_path / size / "run.nc") for size in ("1", "2"))
    np.testing.assert_allclose(two["samples"].sample_loss, one["samples"].sample_loss, rtol=1e-6)
    np.testing.assert_array_equal(two["samples"].given_label, one["samples"].given_label)
    np.testing.assert_array_equal(two["samples"].predicted_label, one["samples"].predicted_label)
    np.testing.assert_array_equal(two.step_batch_size.dropna("step"), one.step_batch_size.dropna("step"))
    np.testing.assert_array_equal(two.measured_samples.dropna("step"), [[40.0, 40.0]])
    for name in ("directed_activity", "noise_strength"):
        estimates = [each[name].sel(cohort="all").dropna("step") for each in (one, two)]
        error = two[f"{name}_standard_error"].sel(cohort="all").dropna("step")
        assert (abs(estimates[1] - estimates[0]) < 4 * error).all()


@pytest.mark.parametrize(
    "make",
    [
        lambda p: torch.optim.Adam(p, 0.01),
        lambda p: torch.optim.AdamW(p, 0.01, amsgrad=True, weight_decay=0.0),
        lambda p: torch.optim.RMSprop(p, 0.01),
        lambda p: torch.optim.Adagrad(p, 0.01),
    ],
    ids=["Adam", "AMSGrad", "RMSprop", "Adagrad"],
)
def test_the_metric_is_what_torchs_optimizer_divides_gradients_by(make) -> None:
    """Where the gradient is the same in each update, so is its mean, and a step is α g / D."""
    weights, gradients = nn.Parameter(torch.zeros(40, dtype=torch.float64)), torch.rand(40, dtype=torch.float64) + 0.1
    optimizer = make([weights])
    assert list(rates_of(optimizer)) == ["step_learning_rate"], "before the first update there is no metric"
    for _ in range(4):
        before, weights.grad = weights.detach().clone(), gradients.clone()
        optimizer.step()
    metric = (0.01 * gradients / (before - weights.detach())).log()
    rates = rates_of(optimizer)
    assert rates["metric_geometric_mean"] == pytest.approx(float(metric.mean().exp()))
    assert rates["metric_deviation"] == pytest.approx(float(metric.std(correction=0)))
