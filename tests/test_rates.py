"""Learning rates, batch sizes and temperatures that change along a run."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from cases import digits_landscape, same_bits
from torch.optim import lr_scheduler

from langevin_nn import Experiment, Process, advance, langevin, sgd, simulate, svag
from langevin_nn.errors import ConfigurationError, LangevinError
from langevin_nn.landscape import QuadraticLandscape
from langevin_nn.noise import IndependentMinibatches, ScaledNoise, ShuffledMinibatches, Silent, ThermalNoise
from langevin_nn.observables import Losses, Weights
from langevin_nn.rates import (
    Constant,
    Cosine,
    Cyclic,
    InverseSquareRoot,
    OfStep,
    Piecewise,
    StepDecay,
    WarmUp,
)
from langevin_nn.schedules import EveryEpochs, EverySteps
from langevin_nn.update import BAOAB, EulerMaruyama, Momentum, Plain

ALL = (
    Constant(0.2),
    StepDecay(0.3, every=7, factor=0.5),
    Cosine(0.3, steps=30, final=0.01),
    WarmUp(Cosine(0.3, steps=25, final=0.02), steps=5),
    InverseSquareRoot(0.3, steps=4),
    Cyclic(0.05, 0.3, steps=6),
    Piecewise((0.3, 0.1, 0.2), boundaries=(8, 20)),
    OfStep(lambda step: 0.3 / (1 + 0.1 * step)),
)


def torch_rates(make, initial: float, n: int) -> list[float]:
    """What a scheduler of torch gives, update by update."""
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=initial)
    scheduler = make(optimizer)
    found = []
    for _ in range(n):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return found


@pytest.mark.parametrize(
    ("rate", "initial", "make"),
    [
        (StepDecay(0.3, 7, 0.5), 0.3, lambda o: lr_scheduler.StepLR(o, 7, 0.5)),
        (Cosine(0.3, 30, 0.01), 0.3, lambda o: lr_scheduler.CosineAnnealingLR(o, 30, 0.01)),
        (WarmUp(0.3, 5, initial=0.06), 0.3, lambda o: lr_scheduler.LinearLR(o, 0.2, total_iters=5)),
        (Cyclic(0.05, 0.3, 6), 0.05, lambda o: lr_scheduler.CyclicLR(o, 0.05, 0.3, 6, cycle_momentum=False)),
        (Piecewise((0.3, 0.03), (8,)), 0.3, lambda o: lr_scheduler.MultiStepLR(o, [8])),
        (OfStep(lambda s: 0.3 / (1 + s)), 0.3, lambda o: lr_scheduler.LambdaLR(o, lambda s: 1 / (1 + s))),
    ],
)
def test_rates_are_those_of_torch(rate, initial, make):
    np.testing.assert_allclose(rate.along(np.arange(30)), torch_rates(make, initial, 30), rtol=1e-12)


@pytest.mark.parametrize("rate", ALL, ids=lambda rate: type(rate).__name__)
def test_one_number_and_many_agree_and_sums_are_sums(rate):
    steps = np.arange(40)
    values = rate.along(steps)
    np.testing.assert_allclose([rate.at(int(s)) for s in steps], values, rtol=1e-15)
    np.testing.assert_allclose(rate.sums(steps), np.concatenate([[0], np.cumsum(values)[:-1]]), rtol=1e-12)
    for s in steps:
        until = min(rate.same_until(int(s)), 40)
        assert (values[s:until] == values[s]).all()


@pytest.mark.parametrize("update", [Plain(0.01), Momentum(0.9, 0.001)])
def test_a_schedule_trains_as_torch_with_its_scheduler(update):
    landscape = digits_landscape()
    rate = WarmUp(Cosine(0.2, steps=40, final=0.01), steps=10, initial=0.02)
    process = sgd(landscape, rate, 5, update=update)
    start = process.start(1, seed=3)
    module = landscape._module
    parameters = landscape._layout.split(start.weights[0].clone())
    tracked = [each.clone().requires_grad_() for each in parameters.values()]
    optimizer = torch.optim.SGD(tracked, lr=1.0, momentum=update.momentum, weight_decay=update.weight_decay)
    memory, state = process.at(0).noise.start(landscape, start.weights), start
    from langevin_nn.draws import draws_at

    for s in range(50):
        rows, memory = ShuffledMinibatches(5).drawn(60, memory, draws_at(start.key(s), start.weights), 1)
        optimizer.param_groups[0]["lr"] = rate.at(s)
        optimizer.zero_grad()
        named = dict(zip(parameters, tracked, strict=True))
        outputs = torch.func.functional_call(module, named, (landscape.inputs[rows[0, 0]],))
        torch.nn.functional.cross_entropy(outputs, landscape.labels[0, rows[0, 0]]).backward()
        optimizer.step()
    state = advance(process, start, 50)
    expected = torch.cat([each.detach().reshape(-1) for each in tracked])
    np.testing.assert_allclose(state.weights[0], expected, rtol=2e-4, atol=2e-6)


def test_time_and_epoch_are_sums():
    landscape = digits_landscape()
    rate = Cosine(0.2, steps=24, final=0.1)
    run = simulate(
        sgd(landscape, rate, 5), steps=24, replicas=1, schedule=EverySteps(4), observables=Losses(), progress=False
    )
    np.testing.assert_allclose(run.time, [sum(rate.at(s) for s in range(n)) for n in run.step.values], rtol=1e-12)
    np.testing.assert_allclose(run.epoch, run.step / 12)
    assert "learning_rate" not in run.coords
    told = json.loads(run.attrs["config_json"])["process"]["learning_rate"]
    assert told == {"type": "Cosine", "initial": 0.2, "steps": 24, "final": 0.1}


def test_a_constant_schedule_is_a_number():
    landscape = digits_landscape()
    options = {"steps": 30, "replicas": 2, "schedule": EverySteps(10), "observables": [Losses(), Weights()]}
    for make in (sgd, langevin):
        one, other = (simulate(make(landscape, rate, 5), **options, progress=False) for rate in (0.1, Constant(0.1)))
        np.testing.assert_array_equal(one["weights/weights"], other["weights/weights"])


@pytest.mark.parametrize("rate", [StepDecay(0.2, 7, 0.5), Cosine(0.2, 40, 0.05)])
def test_a_run_goes_on_after_a_kill_with_the_same_bits(rate, tmp_path):
    landscape = digits_landscape()
    process = sgd(landscape, rate, Piecewise((5, 9), (11,)), update=Momentum(0.5))
    options = {"steps": 40, "replicas": 2, "schedule": EverySteps(8), "observables": [Losses(), Weights()]}
    whole = simulate(process, path=tmp_path / "whole.nc", **options, progress=False)

    class Stop(Losses):
        def measure(self, snapshot):
            if snapshot.state.step == 24 and stop:
                raise KeyboardInterrupt
            return super().measure(snapshot)

    stop = True
    options["observables"] = [Stop(), Weights()]
    with pytest.raises(KeyboardInterrupt):
        simulate(process, path=tmp_path / "killed.nc", segment_seconds=0, **options, progress=False)
    stop = False
    killed = simulate(process, resume=tmp_path / "killed.nc", **options, progress=False)
    np.testing.assert_array_equal(whole["weights/weights"], killed["weights/weights"])
    np.testing.assert_array_equal(whole.train_loss, killed.train_loss)


def test_batches_of_any_size_shuffle_epochs():
    """Each sample comes once before any comes twice, but for the few that are left at the end of an epoch."""
    landscape = digits_landscape()
    noise = ShuffledMinibatches(OfStep(lambda step: 7 + step % 5))
    from langevin_nn.draws import draws_at

    process = Process(landscape, noise, 0.1)
    state = process.start(2, seed=0)
    memory, seen = noise.at(0).start(landscape, state.weights), []
    for s in range(60):
        rows, memory = noise.at(s).drawn(60, memory, draws_at(state.key(s), state.weights), 1)
        assert rows.shape == (1, 2, 7 + s % 5)
        if memory.used == rows.shape[-1]:
            seen = []
        seen += rows[0, 0].tolist()
        assert len(set(seen)) == len(seen) <= 60
    sizes = np.array([7 + s % 5 for s in range(60)])
    np.testing.assert_allclose(process.clock([60])[1], sizes.sum() / 60)
    assert not process.has_even_epochs


def test_epochs_of_a_growing_batch():
    landscape = digits_landscape()
    process = Process(landscape, IndependentMinibatches(Piecewise((5, 30), (24,))), 0.1)
    run = simulate(process, epochs=4, replicas=1, schedule=EveryEpochs(1.0), observables=Losses(), progress=False)
    assert run.step.values.tolist() == [0, 12, 24, 26, 28]  # two epochs of 12 updates, two of 2
    np.testing.assert_allclose(run.epoch, [0, 1, 2, 3, 4])


@pytest.mark.parametrize("scheme", [EulerMaruyama(), Plain()])
def test_a_temperature_that_changes_has_the_variance_of_its_equation(scheme):
    """V' = −2hV + 2T(t), step by step: V ← (1 − hΔt)² V + 2TΔt."""
    temperature = Piecewise((0.5, 0.1), (30,))
    valley = QuadraticLandscape([[2.0]], [[0.0]], start=[0.0])
    process = Process(valley, ThermalNoise(temperature), 0.02, update=scheme)
    n = 20_000
    state = advance(process, process.start(n, seed=1), 60)
    expected = 0.0
    for s in range(60):
        expected = (1 - 0.04) ** 2 * expected + 2 * temperature.at(s) * 0.02
    assert abs(float(state.weights.var()) / expected - 1) < 5 * np.sqrt(2 / n)
    constant = replace(process, noise=ThermalNoise(0.5))
    mutant = float(advance(constant, constant.start(n, seed=1), 60).weights.var())
    assert abs(mutant / expected - 1) > 5 * np.sqrt(2 / n)


def test_amplified_noise_follows_a_schedule_in_time():
    landscape, rate = digits_landscape(), Cosine(0.2, steps=24, final=0.1)
    process, finer = sgd(landscape, rate, 5), svag(landscape, rate, 5, 2)
    np.testing.assert_allclose(finer.clock([48]), process.clock([24]), rtol=1e-12)
    options = {"steps": 24, "replicas": 2, "schedule": EverySteps(8), "observables": Losses()}
    both = Experiment([process, finer], **options).run(progress=False)
    assert both.train_loss.sizes["process"] == 2
    np.testing.assert_allclose(both.time, process.clock(both.step.values)[0], rtol=1e-12)
    with pytest.raises(ConfigurationError, match="change in different ways"):
        Experiment([process, langevin(landscape, Cosine(0.2, 30, 0.1), 5)], **options)


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: Cosine(0.1, steps=0),
        lambda: Cosine(-0.1, steps=3),
        lambda: StepDecay(0.1, every=2.5),
        lambda: WarmUp("0.1", steps=3),
        lambda: Piecewise((0.1, 0.2), (3, 2)),
        lambda: Piecewise((0.1,), (3,)),
        lambda: OfStep(0.1),
        lambda: Constant(float("nan")),
        lambda: simulate(sgd(digits_landscape(), Cosine(0.1, steps=5), 5), steps=8, progress=False),
        lambda: simulate(sgd(digits_landscape(), OfStep(lambda s: 0.1 - 0.02 * s), 5), steps=8, progress=False),
        lambda: simulate(sgd(digits_landscape(), 0.1, Piecewise((5, 500), (4,))), steps=8, progress=False),
    ],
)
def test_what_is_no_rate_is_refused_before_the_run(wrong):
    with pytest.raises(LangevinError, match="expected"):
        wrong()


def test_together_each_has_the_bits_that_it_has_alone():
    landscape = digits_landscape()
    from langevin_nn import Simulation, simulate_together

    def made(rate, seed):
        return Simulation(
            sgd(landscape, rate, 5),
            steps=20,
            replicas=2,
            seed=seed,
            schedule=EverySteps(5),
            observables=[Losses(), Weights()],
        )

    rates = [Cosine(0.2, 30, 0.1), Cosine(0.2, 30, 0.1), StepDecay(0.2, 4, 0.5), 0.1]
    together = simulate_together([made(rate, k) for k, rate in enumerate(rates)], progress=False)
    for k, rate in enumerate(rates):
        same_bits(made(rate, k).run(progress=False), together[k])


def test_scaled_noise_and_silence_take_schedules():
    landscape = digits_landscape()
    hot = Process(landscape, ScaledNoise(IndependentMinibatches(5), Piecewise((1.0, 0.0), (3,))), 0.1)
    state = advance(hot, hot.start(2, seed=0), 3)
    quiet = Process(landscape, Silent(5), 0.1)
    np.testing.assert_allclose(advance(hot, state, 2).weights, advance(quiet, state, 2).weights, rtol=1e-4, atol=1e-6)
    rate = StepDecay(0.01, 5, 0.5)
    valley = QuadraticLandscape(np.eye(1), np.eye(1), start=[1.0])
    for scheme in (EulerMaruyama(), BAOAB(1.0)):
        process = Process(valley, ThermalNoise(0.0), rate, update=scheme)
        assert torch.isfinite(advance(process, process.start(1, 0), 12).weights).all()


def test_a_function_is_asked_for_no_update_beyond_the_run():
    """Also beside finer steps, and however often the sums are asked for, to the same bits."""
    table = np.linspace(0.3, 0.1, 12)
    landscape, rate = digits_landscape(), OfStep(lambda step: float(table[step]))
    options = {"steps": 12, "replicas": 1, "schedule": EverySteps(1), "observables": Losses()}
    run = simulate(sgd(landscape, rate, 5), **options, progress=False)
    np.testing.assert_array_equal(run.time, np.concatenate([[0], np.cumsum(table)]))
    Experiment([sgd(landscape, rate, 5), svag(landscape, rate, 5, 2)], **options).run(progress=False)
    to_zero = simulate(sgd(landscape, Cosine(0.2, steps=12), 5), steps=12, replicas=1, progress=False)
    assert np.isfinite(to_zero.driving_noise_strength).all()
    with pytest.raises(ConfigurationError, match="expected at most 134,217,728"):
        simulate(sgd(landscape, Cosine(0.1, 10, 0.01), 5), steps=10**9)
