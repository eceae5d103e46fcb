"""Processes side by side: a noise of one's own beside SGD, one clock for all, and each as it is alone."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace

import numpy as np
import pytest
import xarray as xr
from cases import digits_landscape, same_bits

from langevin_nn import Experiment, Process, Seeds, Simulation, compare, langevin, rerun, sgd
from langevin_nn.errors import ConfigurationError, LangevinError
from langevin_nn.landscape import PotentialLandscape, QuadraticLandscape
from langevin_nn.noise import ThermalNoise
from langevin_nn.noise.base import SampleWeightNoise, SampleWeights
from langevin_nn.observables import Losses, OrderParameters
from langevin_nn.schedules import AtEpochs, EveryEpochs, EverySteps
from langevin_nn.store import write_trajectory
from langevin_nn.update import EulerMaruyama

ALPHA, B = 0.1, 10


@dataclass(frozen=True)
class Coins(SampleWeightNoise):
    """Each sample is taken with probability B/N, by a coin of its own: c_k is 0 or 1/B."""

    batch_size: int
    needs_batch_size = True

    def sample_weights(self, n_samples, memory, draws, steps):
        chance = self.batch_size / n_samples
        taken = [each.random(n_samples) < chance for each in draws.generators("coins", steps)]
        coefficients = np.reshape(taken, (steps, -1, n_samples)) / self.batch_size
        return SampleWeights(draws.tensor(coefficients)), memory


OPTIONS = {"learning_rate": ALPHA, "batch_size": B, "epochs": 3, "replicas": 2, "schedule": EverySteps(6),
           "alignment_minibatches": 4, "progress": False}  # fmt: skip


def of(tree: xr.DataTree, name: str) -> xr.Dataset:
    return tree.to_dataset().sel(process=name)


def test_a_noise_of_one_s_own_is_compared_with_sgd_in_one_call(digits, tmp_path):
    """Beside the null, in the verdict, in the file; and the file runs again to its bits."""
    coins = Process(digits, Coins(B), ALPHA, name="coins")
    result = compare(digits, **OPTIONS, processes=["langevin", coins], out=tmp_path)
    assert result.trajectories.process.values.tolist() == ["sgd", "sgd_null", "langevin", "coins"]
    assert set(result.summary["excess"]["equal_time"]) == {"langevin", "coins"}
    assert "\n- Coins: " in result.verdict
    # The same start, and numbers that depend on nothing but the seed and the name.
    alone = Simulation(
        coins, epochs=3, seed=Seeds(Seeds(0).integer("noise of coins", 0)), replicas=2,
        weights=digits.initial_weights((0, 1), Seeds(0)), schedule=EverySteps(6), observables=[OrderParameters(4), Losses()],
    ).run()  # fmt: skip
    for name in ("train_loss", "activity", "alignment"):
        assert np.array_equal(of(result.trajectories, "coins")[name], alone[name], equal_nan=True), name
    losses = result.trajectories.train_loss.sel(cohort="all")
    assert len(np.unique(losses.isel(step=0))) == 2, "a start for each replica, the same in all processes"
    again = rerun(tmp_path / "trajectories.nc", landscape=digits)
    assert again.same
    mapped = compare(digits, **OPTIONS, processes={"langevin": "langevin", "coins": replace(coins, name="")})
    same_bits(mapped.trajectories, result.trajectories)


def test_a_comparison_that_has_ended_is_known_by_all_that_it_recorded_with(digits, tmp_path):
    """And one of before, whose file did not say it, is taken by what it said."""
    whole = tmp_path / "trajectories.nc"
    first = compare(digits, **OPTIONS, processes=[], out=tmp_path)
    with pytest.raises(ConfigurationError, match=r"another configuration: observables.*n_minibatches: 4 there, 5 now"):
        compare(digits, **(OPTIONS | {"alignment_minibatches": 5}), processes=[], out=tmp_path, resume=True)
    tree = first.trajectories
    config = json.loads(tree.attrs["config_json"])
    for name in ("seeds", "steps", "observables", "schedule", "on_divergence", "weights"):
        del config[name]
    tree.attrs["config_json"] = json.dumps(config)
    write_trajectory(tree, whole, overwrite=True)
    again = compare(digits, **OPTIONS, processes=[], out=tmp_path, resume=True)
    assert again.summary["excess"] == first.summary["excess"]
    with pytest.raises(ConfigurationError, match="learning_rate"):
        compare(digits, **(OPTIONS | {"learning_rate": 0.2}), processes=[], out=tmp_path, resume=True)


def test_a_process_of_one_s_own_has_noise_of_its_own(digits):
    """SGD passed as one's own is another ensemble: neither SGD's path nor that of its null."""
    processes = {"twin": sgd(digits, ALPHA, B), "third": "sgd"}
    found = compare(digits, **OPTIONS, processes=processes).trajectories.train_loss.sel(cohort="all")
    assert len(np.unique(found.isel(step=-1).sel(replica=0))) == len(found.process) == 4


def test_a_part_that_cannot_be_found_is_refused_when_a_file_is_run_again(digits, tmp_path):
    @dataclass(frozen=True)
    class Local(Coins):
        pass

    compare(digits, **OPTIONS, processes={"local": Process(digits, Local(B), ALPHA)}, out=tmp_path)
    with pytest.raises(ConfigurationError, match=r"Local, which cannot be imported here"):
        rerun(tmp_path / "trajectories.nc", landscape=digits)


def test_each_process_has_the_bits_that_it_has_alone(digits):
    """SGD and its null advance in one batch."""
    experiment = Experiment(
        [sgd(digits, ALPHA, B), langevin(digits, ALPHA, B)], epochs=2, replicas=2, seed=3, null=True,
        observables=[Losses()], schedule=EverySteps(3),
    )  # fmt: skip
    keys = [each.batch_key for each in experiment.simulations.values()]
    assert keys[0] == keys[1] != keys[2]
    together = experiment.run(progress=False)
    for name, each in experiment.simulations.items():
        assert np.array_equal(of(together, name).train_loss, each.run(progress=False).train_loss)
    seeds = [each.seeds for each in experiment.simulations.values()]
    assert len(set(seeds)) == 3


@pytest.mark.parametrize("interval", [0.25, 0.4, 1.0])
def test_finer_time_steps_are_recorded_at_the_same_times(digits, interval):
    """Of six updates an epoch, every 1.5th: SGD's are rounded, and those of ten times as many are taken from them."""
    fine = langevin(digits, ALPHA, B, time_step=ALPHA / 10)
    observables = [Losses(), OrderParameters(4, schedule=AtEpochs((0.3, 1.1)))]
    experiment = Experiment(
        [fine, sgd(digits, ALPHA, B)], epochs=2, replicas=2, schedule=EveryEpochs(interval), observables=observables
    )
    found = experiment.run(progress=False)
    counts = found.update_count.isel(replica=0)
    assert np.array_equal(counts.sel(process="langevin"), 10 * counts.sel(process="sgd"))
    assert np.allclose(found.time, ALPHA * counts.sel(process="sgd"))
    assert found.activity.notnull().any(("process", "replica", "cohort")).sum() == 2


def test_processes_without_samples_have_one_clock_too():
    """Thermal noise in a quadratic valley, at two temperatures and three time steps: ⟨w²⟩ = T/κ in the end."""
    valley = QuadraticLandscape(np.eye(1), np.zeros((1, 1)), start=[0.0])
    processes = {
        f"{temperature} {step}": Process(valley, ThermalNoise(temperature), 0.1, update=EulerMaruyama(), time_step=step)
        for temperature, step in ((0.5, 0.1), (0.5, 0.05), (2.0, 0.025))
    }
    experiment = Experiment(processes, steps=400, replicas=2000, observables=[Losses()], schedule=EverySteps(100))
    found = experiment.run(progress=False)
    assert np.allclose(found.time, 10.0 * np.arange(5))
    last = found.train_loss.sel(cohort="all").isel(step=-1)
    for name, process in processes.items():
        step, temperature = process.time_step, process.noise.temperature
        expected = temperature / (1 - step / 2) / 2  # of the scheme at this step
        # Var of χ² with one degree of freedom: twice its squared mean.
        assert abs(last.sel(process=name).mean() - expected) < 4.5 * expected * np.sqrt(2 / 2000)


def other_landscape():
    return digits_landscape(50)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda d: [sgd(other_landscape(), ALPHA, B)], "two processes are named 'sgd'"),
        (lambda d: {"a": sgd(other_landscape(), ALPHA, B)}, "'a' moves on another landscape than 'sgd'"),
        (lambda d: {"a": sgd(d, 0.2, B)}, "'a' has learning_rate=0.2, 'sgd' 0.1"),
        (lambda d: {"a": sgd(d, ALPHA, B, momentum=0.5)}, "'a' has effective_learning_rate=0.2, 'sgd' 0.1"),
        (lambda d: {"a": sgd(d, ALPHA, 5)}, r"'a' makes .* epochs in a unit of time.*the same batch_size \(10\)"),
        (lambda d: {"a": langevin(d, ALPHA, B, time_step=0.07)}, r"whole fraction of it.*choose 0\.1"),
        (lambda d: [Process(d, Coins(B), ALPHA)], "a process has no name"),
        (lambda d: {"a/b": sgd(d, ALPHA, B)}, "expected a name that can be a file's"),
        (lambda d: {"trajectories": sgd(d, ALPHA, B)}, "or the file of all of them is"),
        (lambda d: {"a": 3}, "unknown process '3'"),
        (lambda d: 3, "processes=3: expected names"),
        (lambda d: {"sgd": "langevin"}, "two processes are named 'sgd'"),
        (lambda d: {"a": "sdg"}, "unknown process 'sdg'"),
    ],
)
def test_processes_that_cannot_stand_beside_sgd_are_refused_before_anything_runs(digits, tmp_path, make, said):
    with pytest.raises(ConfigurationError, match=said):
        compare(digits, **OPTIONS, processes=make(digits), out=tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("options", "said"), [({"seeds": {"sgdd": 3}}, "sgdd.*sgd"), ({"config": {"parts": 1}}, "config has 'parts'")]
)
def test_a_seed_of_nobody_and_a_word_that_files_need_are_refused(digits, options, said):
    with pytest.raises(LangevinError, match=said):
        Experiment([sgd(digits, ALPHA, B)], epochs=1, **options)


def test_a_finer_clock_may_be_the_first():
    """The others are held to the process with the longest time step, wherever it stands."""
    well = PotentialLandscape(lambda x: 0.5 * x[0] ** 2, 1, start=[1.0])
    made = [
        Process(well, ThermalNoise(0.1), 0.1, update=EulerMaruyama(), time_step=t, name=str(t)) for t in (0.05, 0.1)
    ]
    found = Experiment(made, steps=10, replicas=2).run(progress=False)
    assert found.update_count.sel(process="0.05").max() == 20
