"""Going on, from outside: a run that was stopped anywhere and resumed is the run that never stopped."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr
from cases import digits_landscape, same_bits

import langevin_nn.provenance
from langevin_nn import (
    NetworkLandscape,
    Process,
    Seeds,
    compare,
    isotropic_langevin,
    langevin,
    open_trajectory,
    sgd,
    simulate,
    validate,
)
from langevin_nn.errors import ConfigurationError, ResumedElsewhereWarning, UnstableTrajectory
from langevin_nn.landscape import QuadraticLandscape
from langevin_nn.noise import ColouredNoise, DiagonalNoise, ThermalNoise
from langevin_nn.observables import DrivingNoise, Losses, NoiseSpectrum, OrderParameters, SampleLosses, Weights
from langevin_nn.run import loop
from langevin_nn.schedules import AtSteps, EverySteps
from langevin_nn.store import folder_of
from langevin_nn.update import BAOAB, EulerMaruyama, Plain
from studies.flat_minima import study as flat_minima
from studies.lab.command import BAD_INPUT, INTERRUPTED

N, B, ALPHA = 60, 10, 0.1


class Stopped(Exception):
    pass


class Fuse:
    """Goes off once, at the first call at or beyond a step; part of no configuration."""

    def __init__(self, at: int, error: type[BaseException] = Stopped) -> None:
        self.at, self.error, self.burnt = at, error, False

    def touch(self, step: int) -> None:
        if not self.burnt and step >= self.at:
            self.burnt = True
            raise self.error


FUSE: list[Fuse] = []


@dataclass(frozen=True)
class Burning(DrivingNoise):
    """Records the driving noise, unless there is a fuse that goes off there."""

    def measure(self, snapshot):
        for fuse in FUSE:
            fuse.touch(snapshot.state.step)
        return super().measure(snapshot)


def stopping(patch, fuse: Fuse, midway: bool) -> None:
    """Patch what advances processes: their parts could not be without changing the configuration."""
    real = loop.advance

    def advance(process, state, steps, on_divergence="raise"):
        end = state.step + steps
        while state.step < end:
            if not midway:
                fuse.touch(state.step)
            state = real(process, state, 1, on_divergence)
            if midway:
                fuse.touch(state.step)
        return state

    patch.setattr(loop, "advance", advance)


ROOT = (Losses(), OrderParameters(4), Burning())
GROUPS = (NoiseSpectrum(4, schedule=EverySteps(5)), SampleLosses(EverySteps(4)), Weights(EverySteps(3)))


def valley() -> QuadraticLandscape:
    return QuadraticLandscape(np.diag([1.0, 3.0]), [[2.0, 0.5], [0.5, 1.0]], start=[1.0, -1.0])


CASES: dict[str, Callable] = {
    "shuffled minibatches with momentum": lambda d: (sgd(d, ALPHA, B, momentum=0.9, weight_decay=0.01), {}),
    "independent minibatches": lambda d: (sgd(d, ALPHA, 7, independent=True), {}),
    "matched Gaussian": lambda d: (langevin(d, ALPHA, B, time_step=0.04), {}),
    "isotropic with its held trace": lambda d: (isotropic_langevin(d, ALPHA, B, refresh_every=4), {}),
    "coloured": lambda d: (on_valley(ColouredNoise([0.3, 0.5], 0.4), EulerMaruyama()), surrogate_options()),
    "underdamped": lambda d: (on_valley(ThermalNoise(0.3), BAOAB(1.5)), surrogate_options()),
    "given weights": lambda d: (sgd(d, ALPHA, B), {"weights": d.initial_weights((4, 5), Seeds(9))}),
    "other replicas": lambda d: (sgd(d, ALPHA, B), {"replicas": (5, 2)}),
    "masks of divergence": lambda d: (sgd(d, ALPHA, B), {"weights": wild(d), "on_divergence": "mask"}),
    "surrogates that diverge": lambda d: (
        replace(on_valley(DiagonalNoise(0.3), EulerMaruyama()), learning_rate=ALPHA, time_step=ALPHA),
        surrogate_options() | {"weights": [[1.0, 1.0], [1.7e308, 1.7e308]], "on_divergence": "mask"},
    ),
    "schedules of their own": lambda d: (
        sgd(d, ALPHA, B),
        {
            "observables": (
                Losses(EverySteps(1)),
                OrderParameters(4, EverySteps(4)),
                Burning(AtSteps((2, 5, 9, 12))),
                *GROUPS,
            )
        },
    ),
}


def on_valley(noise, update=None) -> Process:
    return Process(valley(), noise, ALPHA, update=update or Plain(), name="surrogate")


def surrogate_options() -> dict:
    return {"observables": (Losses(), Burning(), Weights(EverySteps(2)))}


def wild(digits: NetworkLandscape):
    weights = digits.initial_weights((0, 1), Seeds(0))
    weights[1] = 1e38
    return weights


OPTIONS = {"steps": 12, "replicas": 2, "seed": 3, "schedule": EverySteps(2), "observables": (*ROOT, *GROUPS)}


@pytest.fixture(scope="module")
def uninterrupted(digits):
    made: dict[str, xr.DataTree] = {}

    def run(name: str) -> xr.DataTree:
        if name not in made:
            process, options = CASES[name](digits)
            made[name] = simulate(process, **(OPTIONS | options))
        return made[name]

    return run


def stopped(path: Path, process: Process, options, fuse: Fuse, patch, where: str) -> None:
    with patch.context() as context:
        if where == "measure":
            context.setattr(sys.modules[__name__], "FUSE", [fuse])
        else:
            stopping(context, fuse, midway=where == "after an update")
        with pytest.raises(fuse.error):
            simulate(process, path=path, **options)
    assert fuse.burnt
    assert not path.exists()


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize(("where", "at"), [("measure", 5), ("after an update", 9)])
def test_a_run_that_was_stopped_and_resumed_is_the_run_that_never_stopped(
    digits, uninterrupted, tmp_path, monkeypatch, name, where, at
):
    process, options = CASES[name](digits)
    path = tmp_path / "run.nc"
    stopped(path, process, OPTIONS | options, Fuse(at), monkeypatch, where)
    whole = uninterrupted(name)
    remains = open_trajectory(path)
    assert remains.attrs["complete"] == 0
    assert 0 < remains.sizes["step"] < whole.sizes["step"]
    remains.close()
    resumed = simulate(process, resume=path, **(OPTIONS | options))
    same_bits(resumed, whole)
    assert [each.name for each in tmp_path.iterdir()] == ["run.nc"]


PLACES = [(where, at) for at in (0, 1, 2, 11, 12) for where in ("measure", "before an update", "after an update")]
PLACES.remove(("before an update", 12))  # there is no update from the last step


@pytest.mark.parametrize(("where", "at"), PLACES)
def test_at_any_step_whatever_stopped_it(digits, uninterrupted, tmp_path, monkeypatch, where, at):
    error = KeyboardInterrupt if at % 2 else Stopped
    name = "shuffled minibatches with momentum" if at == 11 else "coloured"
    process, options = CASES[name](digits)
    path = tmp_path / "run.nc"
    stopped(path, process, OPTIONS | options, Fuse(at, error), monkeypatch, where)
    same_bits(simulate(process, resume=path, **(OPTIONS | options)), uninterrupted(name))
    assert validate(path) == ()


def test_however_often_segments_are_finished_the_bits_are_the_same(digits, uninterrupted, tmp_path, monkeypatch):
    name = "schedules of their own"
    process, options = CASES[name](digits)
    for seconds, limit in ((0.0, None), (1e9, None), (1e9, "1 MiB")):
        path = tmp_path / f"{seconds}-{limit}.nc"
        chosen = OPTIONS | options | {"segment_seconds": seconds, "memory_limit": limit}
        stopped(path, process, chosen, Fuse(9), monkeypatch, "before an update")
        # Neither is part of the configuration.
        same_bits(simulate(process, resume=path, **(OPTIONS | options)), uninterrupted(name))


# --- What resume does where there is nothing to resume ------------------------------------------------------------------


def test_a_finished_run_is_returned_untouched(tmp_path):
    process, options = CASES["underdamped"](None)
    path = tmp_path / "run.nc"
    run = simulate(process, path=path, **(OPTIONS | options))
    os.utime(path, ns=(10**18, 10**18))
    before = path.read_bytes()
    same_bits(simulate(process, resume=path, **(OPTIONS | options)), run)
    assert path.stat().st_mtime_ns == 10**18
    assert path.read_bytes() == before
    assert [each.name for each in tmp_path.iterdir()] == ["run.nc"]


def test_where_nothing_is_a_run_begins(tmp_path):
    process, options = CASES["underdamped"](None)
    path = tmp_path / "new folder" / "run.nc"
    run = simulate(process, resume=path, **(OPTIONS | options))
    same_bits(run, simulate(process, **(OPTIONS | options)))
    assert path.exists()


def test_path_and_resume_may_be_the_same_and_not_differ(tmp_path):
    process, options = CASES["coloured"](None)
    path = tmp_path / "run.nc"
    with pytest.raises(
        ConfigurationError, match=r"path='.*other.nc' and resume='.*run.nc': expected one of them, or the same"
    ):
        simulate(process, path=tmp_path / "other.nc", resume=path, **(OPTIONS | options))
    run = simulate(process, path=str(path), resume=path, **(OPTIONS | options))
    same_bits(simulate(process, path=path, resume=str(path), **(OPTIONS | options)), run)


def test_the_folder_of_segments_names_the_run_too(tmp_path, monkeypatch):
    process, options = CASES["coloured"](None)
    path = tmp_path / "run.nc"
    stopped(path, process, OPTIONS | options, Fuse(5), monkeypatch, "measure")
    run = simulate(process, resume=folder_of(path), **(OPTIONS | options))
    same_bits(run, simulate(process, **(OPTIONS | options)))
    assert path.exists()


def test_a_new_run_where_remains_lie_is_refused_and_says_how_to_go_on(tmp_path, monkeypatch):
    process, options = CASES["coloured"](None)
    path = tmp_path / "run.nc"
    stopped(path, process, OPTIONS | options, Fuse(5), monkeypatch, "measure")
    before = {each.name: each.read_bytes() for each in folder_of(path).iterdir()}
    with pytest.raises(
        ConfigurationError, match=r"holds a run that did not end.*go on with resume='.*run\.nc', remove the"
    ):
        simulate(process, path=path, **(OPTIONS | options))
    assert {each.name: each.read_bytes() for each in folder_of(path).iterdir()} == before
    same_bits(simulate(process, resume=path, **(OPTIONS | options)), simulate(process, **(OPTIONS | options)))


def test_an_older_file_stays_until_the_run_that_goes_on_has_ended(tmp_path, monkeypatch):
    process, options = CASES["coloured"](None)
    path = tmp_path / "run.nc"
    older = simulate(process, path=path, **(OPTIONS | options | {"seed": 99})).load()
    with monkeypatch.context() as context:
        context.setattr(sys.modules[__name__], "FUSE", [Fuse(5)])
        with pytest.raises(Stopped):
            simulate(process, path=path, overwrite=True, **(OPTIONS | options))
    same_bits(open_trajectory(path), older)
    same_bits(simulate(process, resume=path, **(OPTIONS | options)), simulate(process, **(OPTIONS | options)))


def test_a_run_that_diverged_has_ended(digits, tmp_path):
    arguments = OPTIONS | {"observables": Losses()}
    with pytest.raises(UnstableTrajectory):
        simulate(sgd(digits, 1e30, B), path=tmp_path / "run.nc", **arguments)
    before = (tmp_path / "run.nc").read_bytes()
    with pytest.raises(
        ConfigurationError, match="ended before its time, by a divergence: expected one that was interrupted"
    ):
        simulate(sgd(digits, 1e30, B), resume=tmp_path / "run.nc", **arguments)
    assert (tmp_path / "run.nc").read_bytes() == before


# --- Another run is not resumed -----------------------------------------------------------------------------------------


OTHERS = {
    "steps": ({"steps": 13}, "steps: 12 there, 13 now"),
    "seed": ({"seed": 4}, "seed: 3 there, 4 now"),
    "replicas": ({"replicas": 3}, r"replicas: \[0, 1\] there, \[0, 1, 2\] now"),
    "schedule": ({"schedule": EverySteps(3)}, r"schedule\.interval: 2 there, 3 now"),
    "observables": ({"observables": (Losses(), Burning())}, r"observables\.2"),
    "their schedule": (
        {"observables": (Losses(), Burning(), Weights(EverySteps(4)))},
        r"observables\.2\.schedule\.interval: 2 there, 4 now",
    ),
    "divergence": ({"on_divergence": "mask"}, 'on_divergence: "raise" there, "mask" now'),
    "weights": ({"weights": [[0.0, 0.0], [1.0, 1.0]]}, r"weights.*: (null|\"absent\") there"),
    "settings": ({"config": {"label": "b"}}, 'label: "absent" there, "b" now'),
    "noise": (
        {"process": on_valley(ColouredNoise([0.3, 0.6], 0.4), EulerMaruyama())},
        r"process\.noise\.factor\.values: \[0\.3, 0\.5\] there, \[0\.3, 0\.6\] now",
    ),
    "update": (
        {"process": on_valley(DiagonalNoise([0.3, 0.5]), EulerMaruyama())},
        r"process\.noise\.type: .ColouredNoise. there, .DiagonalNoise. now",
    ),
}  # fmt: skip


@pytest.mark.parametrize("ended", [False, True], ids=["stopped", "ended"])
@pytest.mark.parametrize(("other", "said"), OTHERS.values(), ids=OTHERS.keys())
def test_another_configuration_is_refused_with_the_difference(tmp_path, monkeypatch, other, said, ended):
    process, options = CASES["coloured"](None)
    path = tmp_path / "run.nc"
    if ended:
        simulate(process, path=path, **(OPTIONS | options))
    else:
        stopped(path, process, OPTIONS | options, Fuse(5), monkeypatch, "measure")
    arguments = {"process": process, **OPTIONS, **options, **other}
    with pytest.raises(ConfigurationError, match=rf"the run at .*run\.nc.* has another configuration: .*{said}"):
        simulate(**arguments, resume=path)
    same_bits(simulate(process, resume=path, **(OPTIONS | options)), simulate(process, **(OPTIONS | options)))


def test_a_difference_is_listed_once(tmp_path):
    """The weights of a start as a whole; labels, which the landscape and its drift both tell of, in one place."""
    landscape = NetworkLandscape(torch.nn.Linear(2, 2), torch.ones(6, 2), torch.tensor([0, 1, 0, 1, 0, 1]))
    other = NetworkLandscape(torch.nn.Linear(2, 2), torch.ones(6, 2), torch.tensor([0, 1, 0, 1, 0, 0]))
    path, options = tmp_path / "run.nc", {"epochs": 1, "replicas": 2}
    simulate(sgd(landscape, 0.1, 2), path=path, **options)
    for process, changed, name in (
        (sgd(landscape, 0.1, 2), {"weights": torch.zeros(2, 6)}, "weights"),
        (sgd(other, 0.1, 2), {}, "data_sha256"),
    ):
        with pytest.raises(
            ConfigurationError, match=r"has another configuration: [^;]* now( \(in 2 places\))?: "
        ) as error:
            simulate(process, resume=path, **options, **changed)
        assert str(error.value).count(name) == 1


def test_other_data_are_another_run(digits, tmp_path, monkeypatch):
    path = tmp_path / "run.nc"
    stopped(path, sgd(digits, ALPHA, B), OPTIONS, Fuse(5), monkeypatch, "measure")
    other = digits_landscape(N, label_noise=0.41)
    with pytest.raises(ConfigurationError, match=r"process\.landscape\.data_sha256: "):
        simulate(sgd(other, ALPHA, B), resume=path, **OPTIONS)


def test_other_versions_of_libraries_only_warn(tmp_path, monkeypatch):
    process, options = CASES["coloured"](None)
    versions = {**langevin_nn.provenance.versions(), "numpy": "1.0"}
    for name, ended in (("stopped.nc", False), ("ended.nc", True)):
        path = tmp_path / name
        with monkeypatch.context() as context:
            context.setattr(langevin_nn.provenance, "versions", lambda: versions)
            if ended:
                simulate(process, path=path, **(OPTIONS | options))
            else:
                stopped(path, process, OPTIONS | options, Fuse(5), monkeypatch, "measure")
        expected = rf"goes on with other versions \(numpy 1\.0 there, {re.escape(np.__version__)} now\)"
        with pytest.warns(ResumedElsewhereWarning, match=expected):
            resumed = simulate(process, resume=path, **(OPTIONS | options))
        whole = simulate(process, **(OPTIONS | options))
        np.testing.assert_array_equal(resumed.train_loss, whole.train_loss)
        assert resumed.attrs["complete"] == 1


def test_the_progress_bar_of_a_resumed_run_starts_where_it_was_left(tmp_path, monkeypatch, capsys):
    process, options = CASES["coloured"](None)
    path = tmp_path / "run.nc"
    stopped(path, process, OPTIONS | options, Fuse(9), monkeypatch, "after an update")
    assert open_trajectory(path)["step"].values[-1] == 8
    capsys.readouterr()
    simulate(process, resume=path, progress=True, **(OPTIONS | options))
    shown = re.findall(r"(\d+)/12", capsys.readouterr().err)
    assert shown[0] == "8"
    assert shown[-1] == "12"
    simulate(process, progress=True, **(OPTIONS | options))
    assert re.findall(r"(\d+)/12", capsys.readouterr().err)[0] == "0"


# --- Comparisons and studies --------------------------------------------------------------------------------------------

COMPARED = {
    "learning_rate": ALPHA, "batch_size": B, "epochs": 2, "replicas": 2, "processes": ["gradient_descent"],
    "alignment_minibatches": 4, "trace_epoch": 1.0, "schedule": EverySteps(3),
}  # fmt: skip


def breaking_in(monkeypatch_context, name: str, step: int, error: type[BaseException] = Stopped) -> None:
    """Stop the process of a name when it has made so many updates; a batch with it falls apart before."""
    real, together = loop.advance, loop.advance_together
    fuse = Fuse(step, error)

    def advance(process, state, steps, on_divergence="raise"):
        if process.name != name:
            return real(process, state, steps, on_divergence)
        end = state.step + steps
        while state.step < end:
            fuse.touch(state.step)
            state = real(process, state, 1, on_divergence)
        return state

    def advance_together(members, steps, on_divergence=None):
        _, state = members[0]
        if not fuse.burnt and name in [each.name for each, _ in members] and state.step + steps > step:
            raise error
        return together(members, steps, on_divergence)

    monkeypatch_context.setattr(loop, "advance", advance)
    monkeypatch_context.setattr(loop, "advance_together", advance_together)


@pytest.fixture(scope="module")
def compared(digits):
    return compare(digits, **COMPARED)


@pytest.mark.parametrize(("name", "step"), [("sgd", 0), ("sgd_null", 5), ("gradient_descent", 11)])
def test_a_comparison_that_was_stopped_and_resumed_is_the_one_that_never_stopped(
    digits, compared, tmp_path, monkeypatch, name, step
):
    whole = compared
    with monkeypatch.context() as context:
        breaking_in(context, name, step)
        with pytest.raises(Stopped):
            compare(digits, **COMPARED, out=tmp_path)
    assert not (tmp_path / "trajectories.nc").exists()
    with pytest.raises(ConfigurationError, match=r"holds a run that did not end.*resume=True, --resume"):
        compare(digits, **COMPARED, out=tmp_path)
    resumed = compare(digits, **COMPARED, out=tmp_path, resume=True)
    same_bits(resumed.trajectories, whole.trajectories)
    assert resumed.summary == whole.summary
    assert resumed.verdict == whole.verdict
    xr.testing.assert_identical(resumed.equal_time.drop_attrs(), whole.equal_time.drop_attrs())
    assert [each.name for each in tmp_path.iterdir()] == ["trajectories.nc"]


def test_a_comparison_that_has_ended_is_returned_untouched_and_one_that_has_not_begun_begins(digits, tmp_path):
    first = compare(digits, **COMPARED, out=tmp_path, resume=True)
    os.utime(tmp_path / "trajectories.nc", ns=(10**18, 10**18))
    again = compare(digits, **COMPARED, out=tmp_path, resume=True)
    assert (tmp_path / "trajectories.nc").stat().st_mtime_ns == 10**18
    assert again.summary == first.summary
    same_bits(again.trajectories, first.trajectories)
    with pytest.raises(ConfigurationError, match=r"another configuration: learning_rate: 0\.1 there, 0\.2 now"):
        compare(digits, **(COMPARED | {"learning_rate": 0.2}), out=tmp_path, resume=True)
    with pytest.raises(ConfigurationError, match="resume=True without out: expected the folder"):
        compare(digits, **COMPARED, resume=True)


def datasets(path: Path) -> dict[str, xr.Dataset]:
    with xr.open_datatree(path) as tree:
        return {node.path: node.to_dataset(inherit=False).load().drop_attrs(deep=False) for node in tree.subtree}


def summary(folder: Path) -> dict:
    found = json.loads((folder / "summary.json").read_text())
    del found["seconds"]
    return found


FLAT = ["--quick", "--replicas", "32", "--batch-sizes", "6", "8", "--longest", "20", "--records", "40"]


@pytest.fixture(scope="module")
def valleys(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("valleys")
    assert flat_minima.STUDY.main([*FLAT, "--out", str(out)]) == 0
    return out


def same_rates(one: Path, other: Path) -> None:
    xr.testing.assert_identical(datasets(one / "rates.nc")["/"], datasets(other / "rates.nc")["/"])
    assert summary(one) == summary(other)
    assert {each.name for each in one.iterdir()} == {each.name for each in other.iterdir()}


def test_flat_minima_goes_on_where_it_was_stopped(valleys, tmp_path, monkeypatch, capsys):
    arguments = [*FLAT, "--out", str(tmp_path)]
    with monkeypatch.context() as context:
        breaking_in(context, "anisotropic", 0, KeyboardInterrupt)
        assert flat_minima.STUDY.main(arguments) == INTERRUPTED
    done = sorted(each.name for each in (tmp_path / "runs").glob("*.nc"))
    assert done == ["isotropic-6.nc", "isotropic-8.nc"]
    stamps = {name: (tmp_path / "runs" / name).stat().st_mtime_ns for name in done}
    capsys.readouterr()
    assert flat_minima.STUDY.main(arguments) == BAD_INPUT
    assert "holds a run that did not end" in capsys.readouterr().err
    for other in (["--seed", "1"], ["--barrier", "1.1"], ["--replicas", "33"]):
        assert flat_minima.STUDY.main([*arguments, "--resume", *other]) == BAD_INPUT
        (line,) = capsys.readouterr().err.strip().splitlines()
        assert "has another configuration" in line
        assert f"{other[1]} now" in line
    assert {name: (tmp_path / "runs" / name).stat().st_mtime_ns for name in done} == stamps
    ran = []
    real = flat_minima._measured
    monkeypatch.setattr(flat_minima, "_measured", lambda *each: ran.append(each[1:]) or real(*each))
    assert flat_minima.STUDY.main([*arguments, "--resume"]) == 0
    assert ran == [(size, name) for name in ("anisotropic", "curvature") for size in (6, 8)]
    same_rates(tmp_path, valleys)
