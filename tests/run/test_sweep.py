"""Grids of runs: which points there are, what is found again, what is lost when something dies, and where it runs."""

from __future__ import annotations

import json
import os
import pickle
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import xarray as xr
from distributed import LocalCluster
from hypothesis import given
from hypothesis import strategies as st

from langevin_nn import NetworkLandscape, Simulation, detect_phases, open_sweep, sgd, simulate, sweep
from langevin_nn.__main__ import main
from langevin_nn.errors import ConfigurationError
from langevin_nn.observables import Losses
from langevin_nn.run import log_spaced, log_uniform, points_of_sweep, random_points, uniform
from langevin_nn.run.sweeps import points_of
from langevin_nn.run.sweeps.batches import function_digest, visit
from langevin_nn.run.sweeps.run import _cut
from langevin_nn.schedules import EveryEpochs
from models.datasets import load_dataset
from models.networks import multilayer_perceptron

# --- grids


@given(
    st.dictionaries(
        st.sampled_from("abcd"), st.lists(st.integers(-5, 5), min_size=1, max_size=4, unique=True), min_size=1
    )
)
def test_a_mapping_is_the_product_of_its_values(axes):
    points = points_of(axes)
    assert len(points) == np.prod([len(values) for values in axes.values()])
    assert len({tuple(point.items()) for point in points}) == len(points)
    assert all(point[name] in axes[name] for point in points for name in axes)
    assert [tuple(point.values()) for point in points] == [
        tuple(axes[name][k] for name, k in zip(axes, at, strict=True))
        for at in np.ndindex(*[len(values) for values in axes.values()])
    ]


@given(st.floats(1e-6, 1e6), st.floats(1e-6, 1e6), st.integers(2, 30))
def test_log_spaced_numbers_have_one_ratio(start, stop, count):
    found = log_spaced(start, stop, count)
    assert (len(found), found[0], found[-1]) == (count, start, stop)
    assert np.allclose(np.diff(np.log(found)), np.log(stop / start) / (count - 1), atol=1e-9)


def test_random_points_are_those_of_their_seed_and_lie_in_their_ranges():
    ranges = {"rate": log_uniform(0.01, 1), "noise": uniform(0, 0.5), "size": [10, 25]}
    points = random_points(2000, 3, **ranges)
    assert points[:7] == random_points(7, 3, **ranges)
    assert points[:7] != random_points(7, 4, **ranges)
    rates, noises = (np.array([point[name] for point in points]) for name in ("rate", "noise"))
    assert 0.01 <= rates.min() < rates.max() <= 1
    # Means of uniform laws on [−2, 0] in the logarithm and on [0, 0.5]: 4.5 standard errors.
    assert abs(np.log10(rates).mean() + 1) < 4.5 * 2 / np.sqrt(12 * 2000)
    assert abs(noises.mean() - 0.25) < 4.5 * 0.5 / np.sqrt(12 * 2000)
    assert {point["size"] for point in points} == {10, 25}
    assert abs(np.mean([point["size"] == 10 for point in points]) - 0.5) < 4.5 * 0.5 / np.sqrt(2000)
    points_of(points)


@pytest.mark.parametrize(
    ("grid", "said"),
    [
        ({}, "the grid is empty"),
        ([], "no points"),
        ({"a": []}, "a has no values"),
        ({"a": "text"}, "expected a sequence"),
        ({"a": 3}, "expected a sequence"),
        ({"a": [np.nan]}, "expected a finite number"),
        ({"a": [object()]}, "expected a finite number"),
        ({"point": [1]}, "dimensions of the result"),
        ({3: [1]}, "expected the name of an argument"),
        ({"a": [1, 1]}, "point 1 is point 0 again"),
        ({"a": [1, 1.0]}, "point 1 is point 0 again"),
        ([{"a": 1}, {"b": 1}], "having a, b"),
        ([3], "a point of the grid"),
        (3, "a mapping of names to values"),
    ],
)
def test_grids_that_are_none_are_refused(grid, said, tmp_path):
    with pytest.raises(ConfigurationError, match=said):
        sweep(lambda **_: None, grid, tmp_path, workers=1)


@given(st.integers(1, 500), st.integers(1, 9), st.none() | st.integers(1, 80))
def test_batches_hold_every_point_once_and_none_is_too_large(count, workers, most):
    batches = _cut(list(range(count)), workers, most)
    assert [each for batch in batches for each in batch] == list(range(count))
    sizes = [len(batch) for batch in batches]
    assert max(sizes) <= (most or 64)
    assert max(sizes) - min(sizes) <= 1
    assert most is not None or workers == 1 or count < workers or len(batches) >= workers


# --- functions


def walk(drift, seed, records=5, calls=None):
    """A random walk, which leaves a mark whenever it is called."""
    if calls is not None:
        (Path(calls) / f"{drift}-{seed}-{time.time_ns()}").touch()
    if drift == "none":
        raise ValueError(f"drift {drift!r} of seed {seed}")
    steps = drift + np.random.default_rng(seed).standard_normal(records)
    variables = {"position": ("step", np.cumsum(steps)), "start": ((), float(seed))}
    return xr.Dataset(
        variables, coords={"step": np.arange(records), "time": ("step", (1 + drift) * np.arange(records))}
    )


def marks(folder: Path) -> int:
    return len(list(folder.iterdir()))


@pytest.fixture
def calls(tmp_path):
    (tmp_path / "calls").mkdir()
    return tmp_path / "calls"


def test_a_sweep_of_a_function_is_one_dataset(tmp_path):
    found = sweep(walk, {"drift": [0.0, 1.0], "seed": [1, 2]}, tmp_path / "sweep", workers=1)
    assert dict(found.sizes) == {"point": 4, "step": 5}
    assert found.drift.values.tolist() == [0, 0, 1, 1]
    assert found.seed.values.tolist() == [1, 2, 1, 2]
    for point in range(4):
        alone = walk(float(found.drift[point]), int(found.seed[point]))
        assert np.array_equal(found.position[point], alone.position)
        assert np.array_equal(found.time[point], alone.time)
        assert found.start[point] == alone.start
    assert found.step.dims == ("step",)
    assert found.attrs["points_done"] == 4


def test_the_dataset_is_lazy(tmp_path):
    found = sweep(walk, {"drift": [0.0], "seed": range(3)}, tmp_path, workers=1)
    paths = [tmp_path / str(each) for each in points_of_sweep(tmp_path).file.values]
    kept = found.position[0].values
    paths[2].unlink()
    assert np.array_equal(found.position[0], kept)
    with pytest.raises(FileNotFoundError):
        found.position.load()


def test_the_dataset_can_be_copied_pickled_and_closed(tmp_path):
    found = sweep(walk, {"drift": [0.0], "seed": range(3)}, tmp_path, workers=1)
    first = found.position[0].values
    copies = found.copy(deep=True), pickle.loads(pickle.dumps(found))
    found.close()
    for each in (found, *copies):
        assert np.array_equal(each.position[0], first)
        assert each.to_dataset().equals(found.to_dataset())


def test_what_is_shorter_is_filled_up(tmp_path):
    found = sweep(walk, {"drift": [0.0], "seed": [0], "records": [3, 5]}, tmp_path, workers=1)
    assert found.position.shape == (2, 5)
    assert np.isnan(found.position.values).sum(1).tolist() == [2, 0]
    assert np.array_equal(found.position[0, :3], walk(0.0, 0, 3).position)
    assert np.array_equal(found.position[:, [4, 0]].values[1], walk(0.0, 0, 5).position.values[[4, 0]])
    assert found.position[0, 1] == walk(0.0, 0, 3).position[1]
    assert found.step.values.tolist() == [0, 1, 2, 3, 4]
    assert np.isnan(found.update_count.values[0, 3:]).all()


def test_a_failing_point_is_recorded_and_does_not_stop_the_others(tmp_path):
    found = sweep(walk, {"drift": ["none", 0.5], "seed": [0, 1]}, tmp_path, workers=1)
    assert found.sizes["point"] == 2
    assert (found.attrs["points_done"], found.attrs["points_failed"]) == (2, 2)
    table = points_of_sweep(tmp_path)
    assert table.state.values.tolist() == ["failed", "failed", "done", "done"]
    assert "ValueError: drift 'none' of seed 1" in str(table.error.values[1])
    assert re.search(r'File ".*test_sweep.py", line \d+, in walk', str(table.traceback.values[1]))
    with pytest.raises(ConfigurationError, match=r"no point of the sweep at .* is done, 1 of 1 failed: ValueError"):
        sweep(walk, {"drift": ["none"], "seed": [0]}, tmp_path / "all", workers=1)


def test_what_is_no_trajectory_fails_by_name(tmp_path):
    with pytest.raises(ConfigurationError, match="expected an xarray Dataset or DataTree, or a Simulation"):
        sweep(lambda a: a, {"a": [1]}, tmp_path, workers=1)


def test_what_is_done_is_found_and_a_larger_grid_adds_to_it(tmp_path, calls):
    grid = {"drift": [0.0, "none"], "seed": [0, 1], "calls": [str(calls)]}
    sweep(walk, grid, tmp_path / "sweep", workers=1)
    assert marks(calls) == 4
    sweep(walk, grid, tmp_path / "sweep", workers=1, retry=False)
    assert marks(calls) == 4
    sweep(walk, grid, tmp_path / "sweep", workers=1)
    assert marks(calls) == 6, "the failed ones once more"
    larger = sweep(walk, {**grid, "drift": [0.0, 2.0]}, tmp_path / "sweep", workers=1)
    assert marks(calls) == 8
    assert larger.sizes["point"] == 4
    sweep(walk, {**grid, "drift": [0.0]}, tmp_path / "sweep", workers=1, overwrite=True)
    assert marks(calls) == 10
    Path(tmp_path / "sweep" / str(points_of_sweep(tmp_path / "sweep").file.values[0])).unlink()
    sweep(walk, {**grid, "drift": [0.0]}, tmp_path / "sweep", workers=1)
    assert marks(calls) == 11, "its file had gone"


def test_another_function_or_version_is_another_point(tmp_path, calls, monkeypatch):
    def shifted(by):
        return lambda drift, seed: walk(drift + by, seed, calls=calls)

    grid = {"drift": [0.0], "seed": [0]}
    first = sweep(shifted(1.0), grid, tmp_path, workers=1).position.values
    sweep(shifted(1.0), grid, tmp_path, workers=1)
    assert marks(calls) == 1, "the same source with the same number closed over"
    second = sweep(shifted(2.0), grid, tmp_path, workers=1).position.values
    assert marks(calls) == 2
    assert not np.array_equal(first, second)
    run = sys.modules["langevin_nn.run.sweeps.run"]
    monkeypatch.setattr(run, "versions", lambda: {"langevin_nn": "0.0.1"})
    sweep(shifted(2.0), grid, tmp_path, workers=1)
    assert marks(calls) == 3


# --- simulations

DATA = load_dataset("digits", samples_per_class=12)


def network(label_noise, learning_rate, batch_size=20, width=9, epochs=6, on_divergence="raise"):
    labels = np.array(DATA.train_labels)
    generator = np.random.default_rng(1)
    chosen = generator.permutation(len(labels))[: round(label_noise * len(labels))]
    labels[chosen] = generator.integers(10, size=len(chosen))
    module = multilayer_perceptron((64, width, 10))
    landscape = NetworkLandscape(
        module, DATA.train_inputs, labels, true_labels=DATA.train_labels,
        test_inputs=DATA.test_inputs, test_labels=DATA.test_labels,
    )  # fmt: skip
    return Simulation(
        sgd(landscape, learning_rate, batch_size), epochs=epochs, replicas=2, schedule=EveryEpochs(1),
        observables=[Losses()], on_divergence=on_divergence,
    )  # fmt: skip


GRID = {"label_noise": [0.0, 0.5], "learning_rate": [0.1, 0.2], "batch_size": [20, 30]}


def same(one: xr.DataTree, other: xr.DataTree) -> bool:
    return all(one[path].to_dataset().equals(other[path].to_dataset()) for path in one.groups)


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    folder = tmp_path_factory.mktemp("done")
    sweep(network, GRID, folder, workers=1)
    return folder


def test_simulations_are_those_alone_with_their_own_clocks(done):
    found = open_sweep(done)
    assert found.sizes["point"] == 8
    for number, point in enumerate(points_of(GRID)):
        alone = network(**point).run().to_dataset()
        own = found.to_dataset().isel(point=number)
        for name in alone.data_vars:
            assert np.array_equal(own[name], alone[name], equal_nan=True), (point, name)
        assert np.array_equal(own.time, alone.time)
        assert np.array_equal(own.update_count, alone.step)
        assert own.learning_rate == point["learning_rate"]
    assert found.epoch.dims == ("step",)
    assert found.time.dims == found.update_count.dims == ("point", "step")


def test_points_that_ask_for_one_simulation_are_counted(tmp_path):
    """SGD has no use for a temperature: its points are one path, named twice."""

    def trained(temperature, rate):
        return network(0.5, rate, epochs=1)

    found = sweep(trained, {"temperature": [1.0, 2.0], "rate": [0.1, 0.2]}, tmp_path, workers=1)
    assert (found.sizes["point"], found.attrs["points_repeated"]) == (4, 2)
    assert len(set(points_of_sweep(tmp_path).file.values)) == 2, "each is run once"
    assert np.array_equal(found.train_loss[0], found.train_loss[2], equal_nan=True)


def test_analyzers_work_on_all_points_at_once(done):
    noisy = open_sweep(done).to_dataset().sel(point=open_sweep(done).label_noise > 0)
    phases = detect_phases(noisy)
    assert phases.phase.dims == ("point", "replica", "step")
    alone = detect_phases(network(0.5, 0.1, 20).run())
    assert np.array_equal(phases.phase[0], alone.phase)


@pytest.mark.parametrize("points_per_batch", [1, 3])
def test_packing_does_not_change_bits(done, tmp_path, points_per_batch):
    again = sweep(network, GRID, tmp_path, workers=1, points_per_batch=points_per_batch)
    assert same(again, open_sweep(done))


def test_one_point_that_diverges_does_not_take_its_batch_along(tmp_path):
    rates = {"label_noise": [0.5], "learning_rate": [0.1, 1e30, 0.2]}
    found = sweep(network, rates, tmp_path / "raise", workers=1)
    assert found.learning_rate.values.tolist() == [0.1, 0.2]
    for again in range(2):
        table = points_of_sweep(tmp_path / "raise")
        assert table.state.values.tolist() == ["done", "failed", "done"]
        assert ("UnstableTrajectory" if again == 0 else "would diverge again") in str(table.error.values[1])
        sweep(network, rates, tmp_path / "raise", workers=1)
    masked = sweep(network, rates | {"on_divergence": ["mask"]}, tmp_path / "mask", workers=1)
    last = masked.train_loss.sel(cohort="all")[:, :, -1].values
    assert np.isnan(last).tolist() == [[False] * 2, [True] * 2, [False] * 2]
    assert np.array_equal(last[[0, 2]], found.train_loss.sel(cohort="all")[:, :, -1])


def test_different_variables_become_no_dataset_and_nothing_is_lost(tmp_path):
    def either(which):
        return xr.Dataset({"a" if which else "b": ("step", [1.0])}, coords={"step": [0]})

    with pytest.raises(ConfigurationError, match="recorded with different variables"):
        sweep(either, {"which": [0, 1]}, tmp_path, workers=1)
    assert points_of_sweep(tmp_path).state.values.tolist() == ["done", "done"]


SETTINGS = SimpleNamespace(slope=1.0)


def helped(a):
    return SETTINGS.slope * a


def reads_settings(a):
    return xr.Dataset({"b": ("step", [helped(a)])}, coords={"step": [0]})


def test_points_are_run_again_where_anything_changed_that_the_function_reads(tmp_path, monkeypatch):
    def swept():
        return sweep(reads_settings, {"a": [1.0, 2.0]}, tmp_path, workers=1).b.values.ravel().tolist()

    def follows_settings():
        monkeypatch.setattr(SETTINGS, "slope", 1.0)
        assert swept() == [1.0, 2.0]
        monkeypatch.setattr(SETTINGS, "slope", 3.0)
        assert swept() == [3.0, 6.0]

    follows_settings()
    shutil.rmtree(tmp_path)
    of_code = {
        "name": "reads_settings",
        "sha256": reads_settings.__code__.co_code.hex(),
    }  # what it calls is not looked at
    for module in ("run", "batches"):
        monkeypatch.setattr(sys.modules[f"langevin_nn.run.sweeps.{module}"], "function_digest", lambda _: of_code)
    with pytest.raises(AssertionError):
        follows_settings()


KEPT: dict[float, float] = {}


def of_one_landscape():
    module = torch.nn.Sequential(torch.nn.Linear(64, 3), torch.nn.Sigmoid(), torch.nn.Linear(3, 10))  # without a kernel
    landscape = NetworkLandscape(module, DATA.train_inputs, DATA.train_labels, start="drawn")

    def run(learning_rate, seed):
        KEPT[learning_rate] = seed
        return Simulation(sgd(landscape, learning_rate, 20), epochs=1, seed=seed, observables=[Losses()])

    return run


@pytest.mark.parametrize("workers", [1, 2])
def test_what_a_function_keeps_in_memory_from_point_to_point_does_not_make_it_another(tmp_path, workers):
    """A landscape that is used keeps its traces, and a function may remember what it has made."""
    run = of_one_landscape()
    grid = {"learning_rate": [0.1, 0.2], "seed": [0, 1]}
    found = sweep(run, grid, tmp_path, workers=workers, points_per_batch=1)
    assert found.attrs["points_failed"] == 0
    KEPT.clear()
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.nc")}
    assert same(sweep(run, grid, tmp_path, workers=1), found)
    assert before == {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.nc")}, "nothing is run again"


# --- workers


def test_a_worker_that_would_run_another_function_fails(tmp_path, monkeypatch):
    """Modules are imported anew there: what was changed in them in memory is not seen."""
    (tmp_path / "points").mkdir()
    said = function_digest(reads_settings)
    monkeypatch.setattr(SETTINGS, "slope", 2.0)
    monkeypatch.setattr(sys.modules["langevin_nn.run.sweeps.batches"], "_known_here", set())
    assert visit(reads_settings, str(tmp_path), "0", {"a": 1.0}, said, {}) is None
    (status,) = map(read, (tmp_path / "points").glob("*.json"))
    assert status["state"] == "failed"
    assert "imports modules anew" in json.dumps(status)


def test_workers_give_the_same_bits_and_report_what_fails(done, tmp_path, capfd):
    with socket.socket() as other:  # another sweep on this machine: no warning, which would be an error here
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        with suppress(OSError):  # it is there already
            other.bind(("", 8787))
            other.listen()
        found = sweep(network, GRID, tmp_path / "two", workers=2, progress=True)
    assert same(found, open_sweep(done))
    said = capfd.readouterr().err
    assert "8/8" in said
    assert "failed=0" in said
    script = f"""
import numpy as np, xarray as xr
from langevin_nn import sweep
from langevin_nn.run import points_of_sweep
def here(a):
    if a == 2:
        raise RuntimeError("two")
    return xr.Dataset({{"b": ("step", [float(a)])}}, coords={{"step": [0]}})
found = sweep(here, {{"a": [1, 2, 3, 4]}}, {str(tmp_path / "script")!r}, workers=2)
print(found.b.values.ravel().tolist(), points_of_sweep({str(tmp_path / "script")!r}).state.values.tolist())
"""
    path = tmp_path / "script.py"
    path.write_text(script)  # without a guard around its code: workers must not run it again
    ran = subprocess.run([sys.executable, path], capture_output=True, text=True, timeout=120, check=True)
    assert ran.stdout.split() == ["[1.0,", "3.0,", "4.0]", "['done',", "'failed',", "'done',", "'done']"]


@pytest.mark.proof
def test_a_scheduler_that_is_there_already_is_used(tmp_path):
    """By its address and as a cluster; its workers go on living."""
    with LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address=":0", silence_logs=50) as cluster:
        for number, scheduler in enumerate((cluster.scheduler_address, cluster)):
            grid = {"drift": [0.0, "none"], "seed": [number]}
            found = sweep(walk, grid, tmp_path / str(number), scheduler=scheduler)
            assert np.array_equal(found.position[0], walk(0.0, number).position)
            (status,) = [
                s for s in map(read, (tmp_path / str(number) / "points").glob("*.json")) if s["state"] == "done"
            ]
            assert status["process"] != os.getpid()


def read(path: Path) -> dict:
    return json.loads(path.read_text())


KILLED = """
import os, signal, sys, time
from pathlib import Path
sys.path[:0] = [{tests!r}, {root!r}]
import test_sweep
from langevin_nn import sweep

def slow(seed):
    (Path({calls!r}) / f"{{seed}}-{{os.getpid()}}-{{time.time_ns()}}").touch()
    time.sleep(0.25)
    if seed == 3 and len(list(Path({calls!r}).glob("3-*"))) == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return test_sweep.walk(0.0, seed)

if __name__ == "__main__":
    found = sweep(slow, {{"seed": range(6)}}, {folder!r}, workers=2)
    print(found.sizes["point"], found.attrs["points_failed"])
"""


@pytest.mark.proof
def test_a_worker_that_is_killed_loses_nothing(tmp_path, calls):
    path, here = tmp_path / "killed.py", Path(__file__).parent
    path.write_text(
        KILLED.format(tests=str(here), root=str(here.parents[1]), folder=str(tmp_path / "sweep"), calls=str(calls))
    )
    ran = subprocess.run([sys.executable, path], capture_output=True, text=True, timeout=120, check=True)
    assert ran.stdout.split() == ["6", "0"]
    assert len(list(calls.glob("3-*"))) >= 2
    found = open_sweep(tmp_path / "sweep")
    for seed in range(6):
        assert np.array_equal(found.position[seed], walk(0.0, seed).position)


def test_a_killed_sweep_of_simulations_goes_on_within_them(tmp_path, done):
    """To the bits of an uninterrupted one."""
    script = f"""
import sys
sys.path[:0] = [{str(Path(__file__).parent)!r}, {str(Path(__file__).parents[2])!r}]
import os, signal
import test_sweep
from langevin_nn import simulate, sweep
module = sys.modules["langevin_nn.run.loop"]
real, count = module._advanced, [0]
def dying(runs, steps):
    count[0] += 1
    if count[0] == 9:
        for run in runs:
            run.recorder.commit(run.state, run.recorded)
        os.kill(os.getpid(), signal.SIGKILL)
    return real(runs, steps)
module._advanced = dying
sweep(test_sweep.network, test_sweep.GRID, {str(tmp_path)!r}, workers=1)
"""
    ran = subprocess.run([sys.executable, "-c", script], timeout=120, check=False)
    assert ran.returncode == -signal.SIGKILL
    left = list(tmp_path.glob("points/*/*.segments"))
    assert len(left) >= 2
    assert same(sweep(network, GRID, tmp_path, workers=1), open_sweep(done))
    assert not list(tmp_path.glob("points/*/*.segments"))


def test_an_interrupted_sweep_says_so_and_goes_on(tmp_path, calls):
    def interrupted(seed):
        (calls / f"{seed}-{time.time_ns()}").touch()
        if seed == 2 and marks(calls) == 3:
            raise KeyboardInterrupt
        return walk(0.0, seed)

    with pytest.raises(KeyboardInterrupt):
        sweep(interrupted, {"seed": range(4)}, tmp_path / "sweep", workers=1)
    assert points_of_sweep(tmp_path / "sweep").state.values.tolist() == ["done", "done", "stopped", "waiting"]
    assert sweep(interrupted, {"seed": range(4)}, tmp_path / "sweep", workers=1).sizes["point"] == 4
    assert marks(calls) == 5


def test_a_point_that_another_process_runs_is_left_to_it(tmp_path, calls):
    grid = {"drift": [0.0], "seed": [0, 1], "calls": [str(calls)]}
    sweep(walk, grid, tmp_path, workers=1)
    key = json.loads((tmp_path / "sweep.json").read_text())["keys"][0]
    path = tmp_path / "points" / f"{key}.json"
    status = json.loads(path.read_text())
    status.pop("process_start")  # as statuses of before, which do not know it
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as other:
        path.write_text(json.dumps(status | {"state": "running", "process": other.pid}))
        assert sweep(walk, grid, tmp_path, workers=1).sizes["point"] == 1
        assert marks(calls) == 2
        other.communicate(b"\n")
    assert sweep(walk, grid, tmp_path, workers=1).sizes["point"] == 2, "it has gone"
    assert marks(calls) == 3


def test_without_dask_workers_are_refused(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(ConfigurationError, match=r"install 'langevin_nn\[sweep\]', or pass workers=1"):
        sweep(walk, {"drift": [0.0], "seed": [0, 1]}, tmp_path, workers=2)
    assert sweep(walk, {"drift": [0.0], "seed": [0, 1]}, tmp_path, workers=1).sizes["point"] == 2


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"workers": 0}, "workers=0: expected at least 1"),
        ({"points_per_batch": 0}, "points_per_batch=0"),
        ({"retry": "yes"}, "retry"),
        ({"scheduler": "nonsense"}, "expected the address of a Dask scheduler"),
        ({"scheduler": 3}, "expected the address of a Dask scheduler"),
        ({"scheduler": "tcp://"}, "does not answer"),
        ({"run": 3}, "expected a function"),
        ({"folder": 3}, "folder"),
    ],
)
def test_wrong_arguments_are_refused(tmp_path, wrong, said):
    right = {"run": walk, "grid": {"drift": [0.0], "seed": [0]}, "folder": tmp_path}
    with pytest.raises(ConfigurationError, match=said):
        sweep(**(right | wrong))


def test_folders_without_a_sweep_are_refused(tmp_path):
    with pytest.raises(ConfigurationError, match="no sweep at"):
        open_sweep(tmp_path)
    with pytest.raises(ConfigurationError, match="no sweep at"):
        points_of_sweep(tmp_path / "nowhere")
    (tmp_path / "sweep.json").write_text("{")
    with pytest.raises(ConfigurationError, match=r"sweep.json' cannot be read: expected an object of JSON"):
        open_sweep(tmp_path)


# --- watching


def test_watch_says_how_it_fares(tmp_path, capsys, done):
    sweep(walk, {"drift": ["none", 0.5], "seed": [0, 1, 2]}, tmp_path, workers=1)
    index = json.loads((tmp_path / "sweep.json").read_text())
    running = tmp_path / "points" / f"{index['keys'][3]}.json"
    status = json.loads(running.read_text())
    running.write_text(json.dumps(status | {"state": "running", "process": os.getpid()}))
    (tmp_path / "points" / f"{index['keys'][4]}.json").unlink()
    assert main(["watch", str(tmp_path), "--once"]) == 0
    said = capsys.readouterr().out
    assert "test_sweep:walk: 1 of 6 points done, 1 running, 3 failed, 1 waiting" in said
    assert re.search(r"about \d+ s remain, at [\d.e-]+ s a point on 1 worker", said)
    assert re.search(r"running since [\d:]{8}: drift 0.5, seed 0, \d+ s", said)
    assert "failed: drift none, seed 2: ValueError: drift 'none' of seed 2" in said
    assert main(["watch", str(done)]) == 0, "it ends by itself where nothing is left to run"
    assert "8 of 8 points done, 0 running, 0 failed, 0 waiting" in capsys.readouterr().out
    assert main(["watch", str(tmp_path / "nowhere"), "--once"]) == 2
    assert "nothing is recorded at" in capsys.readouterr().err


def test_watch_sees_how_far_a_simulation_has_come(tmp_path, capsys):
    sweep(network, {"label_noise": [0.5], "learning_rate": [0.1]}, tmp_path, workers=1)
    table = points_of_sweep(tmp_path)
    file = tmp_path / str(table.file.values[0])
    (status,) = tmp_path.glob("points/*.json")
    content = json.loads(status.read_text())
    status.write_text(json.dumps(content | {"state": "running", "process": 2**22 + 1}))
    assert file.is_file()
    assert main(["watch", str(tmp_path)]) == 0, "nobody works on it any more"
    said = capsys.readouterr().out
    assert "it was stopped, go on with it" in said
    assert "recorded until step 36" in said
    assert "its process has gone: run the sweep again" in said


def test_a_point_may_bring_its_own_file(tmp_path):
    """A function that simulates by itself: what it recorded is copied."""

    def own(seed):
        made = network(0.5, 0.1)
        return simulate(
            made.process, epochs=2, replicas=1, seed=seed, observables=[Losses()], path=tmp_path / f"{seed}.nc"
        )

    found = sweep(own, {"seed": [0, 1]}, tmp_path / "sweep", workers=1)
    assert found.train_loss.dims == ("point", "replica", "step", "cohort")
    assert found.seed.dims == ("point",)
