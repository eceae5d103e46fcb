"""Nothing that is finished is replaced unless it is asked for: the library's own writers, each with a twin that would."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from cases import digits_landscape

from langevin_nn import Process, Simulation, compare, simulate, simulate_together, sweep
from langevin_nn.__main__ import main
from langevin_nn.errors import ConfigurationError
from langevin_nn.landscape import QuadraticLandscape
from langevin_nn.noise import AnisotropicNoise
from langevin_nn.run import points_of_sweep
from langevin_nn.store import export, write_trajectory

VALLEY = QuadraticLandscape(np.eye(2), np.eye(2))
PROCESS = Process(VALLEY, AnisotropicNoise(VALLEY.noise_factor()), learning_rate=0.1)
SMALL: dict[str, Any] = {"learning_rate": 0.1, "batch_size": 5, "epochs": 1, "replicas": 2, "processes": ("langevin",)}


def planned(seed: int) -> Simulation:
    return Simulation(PROCESS, steps=3, replicas=1, seed=seed)


def compared(folder: Path, seed: int, **options: Any) -> None:
    compare(digits_landscape(20), **SMALL, seed=seed, alignment_minibatches=2, out=folder, progress=False, **options)


def merged(folder: Path, seed: int, overwrite: bool = False) -> None:
    """Join two runs at the command line, whose refusal is raised again."""
    parts = [folder / f".{seed}{k}.nc" for k in (0, 1)]
    for k, part in enumerate(parts):
        if not part.exists():
            simulate(PROCESS, steps=3, replicas=1, seed=2 * seed + k, path=part)
    words = ["merge", str(folder / "out.nc"), *map(str, parts), *(["--overwrite"] if overwrite else [])]
    if main(words):
        raise ConfigurationError(f"{folder}: overwrite, or write to another path")


# By name: the module that asks whether something is there, what writes, and the file.
WRITERS: dict[str, tuple[str, Callable[..., Any], str]] = {
    "simulate": (
        "langevin_nn.store.door",
        lambda folder, seed, **o: simulate(PROCESS, steps=3, replicas=1, seed=seed, path=folder / "out.nc", **o),
        "out.nc",
    ),
    "Simulation.run": (
        "langevin_nn.store.door",
        lambda folder, seed, **o: planned(seed).run(path=folder / "out.nc", **o),
        "out.nc",
    ),
    "compare": ("langevin_nn.store.parts", compared, "trajectories.nc"),
    "write_trajectory": (
        "langevin_nn.store.trajectory",
        lambda folder, seed, **o: write_trajectory(planned(seed).run(), folder / "out.nc", **o),
        "out.nc",
    ),
    "export": (
        "langevin_nn.store.formats",
        lambda folder, seed, **o: export(planned(seed).run(), folder / "out.csv", **o),
        "out.csv",
    ),
    "merge": ("langevin_nn.store", merged, "out.nc"),
}


def leaves_what_is_there(write: Callable[..., Any], folder: Path, name: str) -> None:
    """Write twice, with another seed; only where it is asked for does the second take the place of the first."""
    write(folder, 0)
    before = (folder / name).read_bytes()
    try:
        write(folder, 1)
    except ConfigurationError as error:
        said = str(error)
    else:
        raise AssertionError("the first was replaced without a word")
    assert (folder / name).read_bytes() == before
    assert str(folder) in said
    assert "overwrite" in said
    assert "write to another path" in said
    write(folder, 1, overwrite=True)
    assert (folder / name).read_bytes() != before


@pytest.mark.parametrize("name", WRITERS)
def test_what_is_finished_is_replaced_only_where_it_is_asked_for(name, tmp_path):
    _, write, file = WRITERS[name]
    leaves_what_is_there(write, tmp_path, file)


@pytest.mark.parametrize("name", WRITERS)
def test_a_twin_that_does_not_ask_is_caught(name, tmp_path, monkeypatch):
    module, write, file = WRITERS[name]
    monkeypatch.setattr(sys.modules[module], "refuse_finished", lambda *results, **options: None)
    monkeypatch.setattr(
        sys.modules["langevin_nn.store.trajectory"], "refuse_finished", lambda *results, **options: None
    )
    with pytest.raises(AssertionError, match="without a word"):
        leaves_what_is_there(write, tmp_path, file)


@pytest.mark.parametrize("write", [WRITERS["simulate"][1], compared], ids=["simulate", "compare"])
def test_bad_input_takes_nothing_away(write, tmp_path):
    write(tmp_path, 0)
    before = {each.name: each.read_bytes() for each in tmp_path.iterdir()}
    with pytest.raises(ConfigurationError):
        write(tmp_path, 1.5, overwrite=True)
    with pytest.raises(ConfigurationError, match="overwrite=1: expected"):
        write(tmp_path, 1, overwrite=1)
    assert {each.name: each.read_bytes() for each in tmp_path.iterdir()} == before


def test_a_comparison_that_cannot_start_leaves_the_one_that_is_there(tmp_path, monkeypatch):
    compared(tmp_path, 0)
    before = (tmp_path / "trajectories.nc").read_bytes()

    def too_large(*sizes: Any) -> None:
        if len(sizes) == 5 and sizes[0]:
            raise ConfigurationError("it does not fit")

    monkeypatch.setattr(sys.modules["langevin_nn.run.simulation"], "refuse_unless_it_fits", too_large)
    with pytest.raises(ConfigurationError, match="it does not fit"):
        compared(tmp_path, 1, overwrite=True)
    assert (tmp_path / "trajectories.nc").read_bytes() == before


def test_resume_and_overwrite_exclude_each_other(tmp_path):
    for use in (lambda: simulate(PROCESS, steps=1, resume=tmp_path / "a.nc", overwrite=True),
                lambda: compared(tmp_path, 0, resume=True, overwrite=True)):  # fmt: skip
        with pytest.raises(ConfigurationError, match="overwrite and resume were both chosen"):
            use()
    assert list(tmp_path.iterdir()) == []


def test_runs_together_take_what_has_ended_or_begin_anew(tmp_path):
    path = tmp_path / "a.nc"
    (first,) = simulate_together([planned(0)], paths=[path])
    (other,) = simulate_together([planned(1)], paths=[path])
    assert "another configuration" in str(other)
    path.touch()
    before = path.stat().st_mtime_ns
    (again,) = simulate_together([planned(0)], paths=[path])
    assert path.stat().st_mtime_ns == before
    xr.testing.assert_identical(again.to_dataset(), first.to_dataset())
    (anew,) = simulate_together([planned(1)], paths=[path], overwrite=True)
    assert anew.attrs["config_json"] != first.attrs["config_json"]


# --- sweeps


def number(a: int) -> xr.Dataset:
    return xr.Dataset({"x": ((), float(a))})


def other_number(a: int) -> xr.Dataset:
    return xr.Dataset({"x": ((), -float(a))})


def test_a_sweep_of_something_else_is_not_replaced(tmp_path):
    sweep(number, {"a": [1, 2]}, tmp_path, workers=1)
    with pytest.raises(ConfigurationError, match=r"holds a sweep of .*:number\(a\), .*overwrite=True.*another folder"):
        sweep(other_number, {"a": [1]}, tmp_path, workers=1)
    assert points_of_sweep(tmp_path).sizes["point"] == 2
    assert sweep(other_number, {"a": [1]}, tmp_path, workers=1, overwrite=True).x.values == [-1.0]


@pytest.mark.parametrize("run", [number, planned])
def test_a_sweep_that_begins_anew_keeps_what_there_was_until_something_takes_its_place(run, tmp_path, monkeypatch):
    (name,) = run.__annotations__.keys() - {"return"}
    sweep(run, {name: [1, 2]}, tmp_path, workers=1)
    files = sorted(tmp_path.glob("points/*/*.nc"))
    for each in files:
        os.utime(each, ns=(1, 1))
    # It fails at once, at every point.
    module = sys.modules["langevin_nn.run.sweeps.batches"]
    with monkeypatch.context() as context:
        context.setattr(module, "kind_of", lambda made: "nothing")
        context.setattr(module, "key_of", lambda *parts: 1 / 0)
        context.setattr(module, "_keep", lambda *parts: 1 / 0)
        with pytest.raises(ConfigurationError, match="no point of the sweep"):
            sweep(run, {name: [1, 2]}, tmp_path, workers=1, overwrite=True)
    assert all(each.stat().st_mtime_ns == 1 for each in files)
    sweep(run, {name: [1, 2]}, tmp_path, workers=1, overwrite=True)
    assert all(each.stat().st_mtime_ns > 1 for each in files)
    assert (points_of_sweep(tmp_path).state == "done").all()
