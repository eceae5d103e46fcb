"""The store: what lies in a run's folder, who may write it, what fits, and what becomes of records on their way to a file."""

from __future__ import annotations

import errno
import io
import json
import math
import os
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import netCDF4
import numpy as np
import pytest
import torch
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st
from torture.kills import check_prefix, check_same_file, started, workers

from langevin_nn import Process, Seeds, open_trajectory, simulate
from langevin_nn.errors import (
    ConfigurationError,
    DamagedTrajectory,
    RunInUse,
    StorageError,
    StrayFileWarning,
    UnknownNameError,
)
from langevin_nn.landscape import QuadraticLandscape
from langevin_nn.noise import ThermalNoise
from langevin_nn.noise.isotropic import HeldTrace
from langevin_nn.observables import Losses, Observable, Weights, describe
from langevin_nn.provenance import attributes
from langevin_nn.schedules import AtSteps, EverySteps
from langevin_nn.store import Recorder, SegmentFolder, folder_of, has_segments, segments, state_from, write_trajectory
from langevin_nn.store import lock as locking
from langevin_nn.store.durable import json_text, storage_errors, write_durably, write_json
from langevin_nn.store.forecast import recording_limit, refuse_unless_it_fits
from langevin_nn.store.lazy import joined, stacked_lazily
from langevin_nn.store.lock import RunLock, owner_of
from langevin_nn.store.netcdf import chunk_shape, netcdf_bytes, write_netcdf
from langevin_nn.store.state import state_bytes
from langevin_nn.update import BAOAB
from langevin_nn.update.state import State

MIB = 2**20


def quadratic(learning_rate: float = 0.1, temperature: float = 0.5) -> Process:
    landscape = QuadraticLandscape(np.diag([1.0, 3.0]), np.eye(2), start=[1.0, -1.0])
    return Process(landscape, ThermalNoise(temperature), learning_rate, update=BAOAB(1.0))


RUN: dict[str, Any] = {
    "steps": 40,
    "replicas": 2,
    "schedule": EverySteps(5),
    "observables": (Losses(), Weights(EverySteps(10))),
}


class Interrupted(Exception):
    """Ends a run before its time."""


@dataclass(frozen=True)
class Interrupting(Losses):
    """Losses, up to a step; the configuration does not know of it."""

    until: ClassVar[int] = 10**9
    error: ClassVar[type[Exception]] = Interrupted

    def measure(self, snapshot):
        if snapshot.state.step >= self.until:
            raise self.error("enough")
        return super().measure(snapshot)


def interrupted(path: Path, monkeypatch, until: int = 25, error: Any = Interrupted, **options: Any) -> Path:
    """A run that ended before a record, with the segments of those before; return its folder.

    After a StorageError nothing is tried any more: what is there is what a killed run would have left.
    """
    run = {**RUN, "observables": (Interrupting(), Weights(EverySteps(10))), **options}
    with monkeypatch.context() as patched:
        patched.setattr(Interrupting, "until", until)
        patched.setattr(Interrupting, "error", error)
        with pytest.raises(error, match="enough"):
            simulate(quadratic(), **run, path=path, segment_seconds=0)
    return folder_of(path)


def go_on(path: Path, **options: Any) -> xr.DataTree:
    run = {**RUN, "observables": (Interrupting(), Weights(EverySteps(10))), **options}
    return simulate(quadratic(), **run, resume=path, segment_seconds=0)


@pytest.fixture
def whole(tmp_path) -> Path:
    """The file of the run that is interrupted elsewhere."""
    path = tmp_path / "whole.nc"
    go_on(path)
    return path


def steps_of(tree: xr.DataTree) -> list[int]:
    return tree["step"].values.tolist()


def names(folder: Path) -> list[str]:
    return sorted(each.name for each in folder.iterdir())


# --- A folder in which something is wrong -----------------------------------------------------------------------------


def test_a_folder_holds_the_two_newest_commitments_and_what_they_need(tmp_path, monkeypatch):
    folder = interrupted(tmp_path / "run.nc", monkeypatch)
    assert names(folder) == [
        *("manifest-000005.json", "manifest-000006.json"),
        *(f"segment-{number:06d}.nc" for number in range(1, 6)),
        *("state-000005.npz", "state-000006.npz"),
    ]
    newest = json.loads((folder / "manifest-000006.json").read_text().rsplit("\n", 2)[0])
    assert newest["recorded_until"] == 24
    assert [each["name"] for each in newest["segments"]] == [f"segment-{number:06d}.nc" for number in range(1, 6)]


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (
            lambda path: os.truncate(path, path.stat().st_size // 2),
            r"segment-000005\.nc' is damaged: it has \d+ bytes where \d+ were written",
        ),
        (lambda path: path.write_bytes(b""), r"segment-000005\.nc' is damaged: it has 0 bytes where"),
        (Path.unlink, r"segment-000005\.nc' is damaged: it is missing"),
        (
            lambda path: shutil.copy(path.with_name("segment-000002.nc"), path),
            r"segment-000005\.nc' is damaged: it has \d+ bytes where|its checksum differs",
        ),
    ],
    ids=["truncated", "empty", "missing", "a copy of another"],
)
def test_a_segment_that_is_not_what_was_written_is_refused_and_the_run_goes_on_before_it(
    tmp_path, monkeypatch, whole, damage, message
):
    path = tmp_path / "run.nc"
    folder = interrupted(path, monkeypatch, error=StorageError)
    assert steps_of(open_trajectory(path)) == [0, 5, 10, 15, 20]
    damage(folder / "segment-000005.nc")
    with pytest.raises(DamagedTrajectory, match=message):
        open_trajectory(path)
    with pytest.warns(UserWarning, match="left out"):
        rest = open_trajectory(path, on_damage="leave_out")
    assert steps_of(rest) == [0, 5, 10, 15]
    check_prefix(rest, open_trajectory(whole), 15)
    with pytest.warns(UserWarning, match="going back to the segment before: .*segment-000005"):
        go_on(path)
    check_same_file(path, whole)
    assert names(tmp_path) == ["run.nc", "whole.nc"]


def test_a_segment_that_every_commitment_needs_is_not_made_up(tmp_path, monkeypatch):
    path = tmp_path / "run.nc"
    folder = interrupted(path, monkeypatch)
    (folder / "segment-000003.nc").unlink()
    for refused in (open_trajectory, go_on):
        with pytest.raises(DamagedTrajectory, match=r"segment-000003\.nc' is damaged: it is missing"):
            refused(path)
    with pytest.warns(UserWarning, match="left out"):
        assert steps_of(open_trajectory(path, on_damage="leave_out")) == [0, 5, 15, 20]


def test_a_copy_of_a_segment_or_of_a_manifest_adds_no_records(tmp_path, monkeypatch, whole):
    path = tmp_path / "run.nc"
    folder = interrupted(path, monkeypatch)
    shutil.copy(folder / "segment-000004.nc", folder / "segment-000099.nc")
    assert steps_of(open_trajectory(path)) == [0, 5, 10, 15, 20]
    shutil.copy(folder / "manifest-000005.json", folder / "manifest-000099.json")
    with pytest.raises(DamagedTrajectory, match=r"manifest-000099\.json' is damaged: it is a copy of manifest-000005"):
        open_trajectory(path)
    with pytest.warns(UserWarning, match="going back"):
        go_on(path)
    check_same_file(path, whole)
    assert names(tmp_path) == ["run.nc", "whole.nc"]


def test_somebody_elses_file_is_named_and_neither_read_nor_removed(tmp_path, monkeypatch, whole):
    path = tmp_path / "run.nc"
    folder = interrupted(path, monkeypatch)
    (folder / "notes.txt").write_text("mine")
    (folder / ".download.part").write_text("mine, too")
    with pytest.warns(StrayFileWarning, match=r"'\.download\.part', 'notes\.txt', which langevin_nn did not write"):
        assert steps_of(open_trajectory(path)) == [0, 5, 10, 15, 20]
    with pytest.warns(StrayFileWarning):
        go_on(path)
    check_same_file(path, whole)
    assert names(folder) == [".download.part", "notes.txt"]


@pytest.mark.parametrize(
    "content", [b"", b"{}", b"[1]\n}\n", b"no JSON", b"\xff\xfe\x00", b'{\n "number": 5\n}\nabc\n']
)
def test_a_manifest_that_is_none_is_refused(tmp_path, monkeypatch, content):
    path = tmp_path / "run.nc"
    folder = interrupted(path, monkeypatch)
    (folder / "manifest-000006.json").write_bytes(content)
    with pytest.raises(DamagedTrajectory, match=r"manifest-000006\.json' is damaged"):
        open_trajectory(path)
    with pytest.warns(UserWarning, match=r"left out: .*manifest-000006"):
        assert steps_of(open_trajectory(path, on_damage="leave_out")) == [0, 5, 10, 15, 20]


def test_a_folder_without_a_manifest_is_no_trajectory(tmp_path):
    folder = folder_of(tmp_path / "run.nc")
    folder.mkdir()
    assert not has_segments(folder)
    with pytest.raises(ConfigurationError, match="no trajectory at"):
        open_trajectory(tmp_path / "run.nc")


def test_the_folder_opens_as_its_file_does(tmp_path, monkeypatch, whole):
    path = tmp_path / "run.nc"
    folder = interrupted(path, monkeypatch)
    assert steps_of(open_trajectory(folder)) == steps_of(open_trajectory(path))
    go_on(folder)
    check_same_file(path, whole)


def test_damage_is_raised_or_left_out_and_nothing_else(tmp_path):
    with pytest.raises(UnknownNameError, match="unknown on_damage 'ignore': expected one of raise, leave_out"):
        open_trajectory(tmp_path, on_damage="ignore")


# --- Going on ---------------------------------------------------------------------------------------------------------


def test_a_run_that_goes_on_makes_the_same_file_with_attributes_in_the_same_order(tmp_path, monkeypatch, whole):
    path = tmp_path / "run.nc"
    interrupted(path, monkeypatch)
    tree = go_on(path)
    check_same_file(path, whole)
    assert tree.attrs["complete"] == 1
    assert [*tree.attrs] == [*open_trajectory(whole).attrs]
    assert names(tmp_path) == ["run.nc", "whole.nc"]


def test_a_run_that_was_killed_when_its_file_was_there_loses_its_segments_when_it_is_resumed(
    tmp_path, monkeypatch, whole
):
    path = tmp_path / "run.nc"
    folder = interrupted(path, monkeypatch)
    shutil.copy(whole, path)
    assert steps_of(go_on(path))[-1] == 40
    assert not folder.exists()
    # Half of them gone, manifests first.
    folder.mkdir()
    (folder / "segment-000003.nc").write_bytes(b"")
    (folder / "lock").write_text("")
    go_on(path)
    assert not folder.exists()


def test_parts_of_the_file_that_a_killed_writer_left_are_removed_and_others_are_not(tmp_path, monkeypatch):
    path = tmp_path / "run.nc"
    interrupted(path, monkeypatch)
    for name in (".run.nc.4242.part", ".another.nc.4242.part", ".run.nc.part"):
        (tmp_path / name).write_bytes(b"half a file")
    go_on(path)
    assert names(tmp_path) == [".another.nc.4242.part", ".run.nc.part", "run.nc"]


def test_a_run_without_records_yet_is_kept_and_goes_on(tmp_path, monkeypatch):
    """Its first record is its last; until then there are states alone."""
    path = tmp_path / "run.nc"
    options = {"steps": 400, "schedule": AtSteps((400,)), "observables": (Interrupting(AtSteps((400,))),)}
    folder = interrupted(path, monkeypatch, until=400, **options)
    assert not list(folder.glob("segment-*"))
    tree = open_trajectory(path)
    assert (tree.attrs["complete"], dict(tree.sizes)) == (0, {})
    assert steps_of(go_on(path, **options)) == [400]
    simulate(quadratic(), **RUN | options, path=tmp_path / "whole.nc")
    check_same_file(path, tmp_path / "whole.nc")


# --- One writer -------------------------------------------------------------------------------------------------------


def _hold(folder: str, said: Any) -> None:
    lock = RunLock(Path(folder))
    said.send(os.getpid())
    time.sleep(60)
    lock.release()


@pytest.fixture
def holder(tmp_path):
    """Another process that holds a folder."""
    receiver, sender = workers().Pipe(duplex=False)
    process = started(_hold, str(tmp_path), sender)
    with receiver, sender:
        assert receiver.recv() == process.pid
    yield process
    process.kill()
    process.join()


def test_two_processes_that_write_one_run_are_told_apart_and_a_killed_one_is_in_nobodys_way(tmp_path, holder):
    with pytest.raises(
        RunInUse, match=rf"is being written by process {holder.pid} on .* since 20.*: expected one writer"
    ):
        RunLock(tmp_path)
    assert owner_of(tmp_path)["process"] == holder.pid
    holder.kill()
    holder.join()
    assert owner_of(tmp_path)["process"] == holder.pid  # it could not clean up
    lock = RunLock(tmp_path)
    assert owner_of(tmp_path)["process"] == os.getpid()
    lock.release()
    assert names(tmp_path) == []


def test_a_run_that_is_being_written_is_neither_begun_nor_gone_on_with(tmp_path, monkeypatch):
    path = tmp_path / "run.nc"
    lock = RunLock(interrupted(path, monkeypatch))
    with pytest.raises(RunInUse, match=f"process {os.getpid()} on "):
        go_on(path)
    with pytest.raises(RunInUse, match=f"process {os.getpid()} on "):
        simulate(quadratic(), **RUN, path=path)
    assert steps_of(open_trajectory(path)) == [0, 5, 10, 15, 20]  # reading needs no lock
    lock.release()
    assert steps_of(go_on(path))[-1] == 40


def _owner(folder: Path, **changed: Any) -> None:
    lock = RunLock(folder)
    owner = json.loads((folder / "lock").read_text())
    lock.release()
    (folder / "lock").write_text(json.dumps({**owner, **changed}))


def test_without_locks_of_the_system_a_living_owner_is_known_by_its_number_and_its_start(tmp_path, monkeypatch):
    monkeypatch.setattr(locking, "_LOCKS", False)
    _owner(tmp_path)
    with pytest.raises(RunInUse, match=f"process {os.getpid()}"):
        RunLock(tmp_path)
    # The same number, of a process that began at another time: it is used again.
    _owner_of_before = json.loads((tmp_path / "lock").read_text())
    assert _owner_of_before["process_start"] != ""
    (tmp_path / "lock").write_text(json.dumps({**_owner_of_before, "process_start": "1"}))
    RunLock(tmp_path).release()
    # A number that no process has.
    (tmp_path / "lock").write_text(json.dumps({**_owner_of_before, "process": 2**22 + 1}))
    RunLock(tmp_path).release()


def test_an_owner_on_another_machine_counts_as_dead_after_ten_minutes_of_silence(tmp_path):
    _owner(tmp_path, host="elsewhere", process=1)
    with pytest.raises(RunInUse, match="process 1 on elsewhere"):
        RunLock(tmp_path)
    silent = time.time() - 590
    os.utime(tmp_path / "lock", (silent, silent))
    with pytest.raises(RunInUse):
        RunLock(tmp_path)
    os.utime(tmp_path / "lock", (silent - 20, silent - 20))
    RunLock(tmp_path).release()


@pytest.mark.parametrize("content", ["", "{", "[]", "null"])
def test_a_lock_that_says_nothing_is_nobodys(tmp_path, content):
    (tmp_path / "lock").write_text(content)
    RunLock(tmp_path).release()


def test_a_writer_that_lost_its_run_notices_before_it_writes(tmp_path):
    """Taken over from another machine, or removed with its folder and begun anew."""
    taken = RunLock(tmp_path)
    os.utime(tmp_path / "lock", (0, 0))
    taken.renew()
    assert time.time() - (tmp_path / "lock").stat().st_mtime < 60
    (tmp_path / "lock").write_text('{"host": "elsewhere", "process": 7}')
    with pytest.raises(RunInUse, match="process 7 on elsewhere"):
        taken.renew()
    (tmp_path / "lock").unlink()
    anew = RunLock(tmp_path)
    with pytest.raises(RunInUse, match=f"process {os.getpid()}"):
        taken.renew()
    anew.renew()
    taken.release()
    assert names(tmp_path) == ["lock"], "another's lock is not removed"
    anew.release()


def test_a_run_whose_folder_was_removed_and_begun_anew_does_not_write_into_it(tmp_path):
    folder = folder_of(tmp_path / "run.nc")
    first = SegmentFolder(folder, attributes({"seed": 0}, complete=False))
    first.commit(None, b"state", 0, ())
    shutil.rmtree(folder)
    second = SegmentFolder(folder, attributes({"seed": 1}, complete=False))
    before = names(folder)
    with pytest.raises(RunInUse):
        first.commit(None, b"state", 1, ())
    assert names(folder) == before
    first.close()
    second.close()


# --- Segments that become one -----------------------------------------------------------------------------------------


def small_tree(step: int) -> xr.DataTree:
    values = np.full((2, 1, 3), step / 3, np.float32)
    root = xr.Dataset(coords={"replica": [0, 1]})
    weights = xr.Dataset({"weights": (("replica", "weight_step", "parameter"), values)}, {"weight_step": [step]})
    return xr.DataTree.from_dict({"/": root, "/weights": weights})


def test_small_segments_become_larger_ones_level_by_level_and_none_is_lost(tmp_path, monkeypatch):
    monkeypatch.setattr(segments, "_TOGETHER", 3)
    folder = SegmentFolder(folder_of(tmp_path / "run.nc"), attributes({"seed": 0}, complete=False))
    for step in range(31):
        folder.commit(small_tree(step), str(step).encode(), step, ("weights",))
        with open_trajectory(tmp_path / "run.nc") as tree:
            assert tree["weights"]["weight_step"].values.tolist() == list(range(step + 1))
            expected = np.repeat((np.arange(step + 1) / 3).astype(np.float32), 3).reshape(-1, 3)
            np.testing.assert_array_equal(tree["weights"]["weights"].values, [expected, expected])
            assert tree["weights"]["weights"].dtype == np.float32
    assert [each.level for each in folder.manifest.segments] == [3, 1, 0]  # 27, 3 and 1 of them
    folder.close()


def test_large_segments_stay_as_they_are(tmp_path, monkeypatch):
    monkeypatch.setattr(segments, "_TOGETHER", 3)
    monkeypatch.setattr(segments, "_LARGEST", 1)
    folder = SegmentFolder(folder_of(tmp_path / "run.nc"), attributes({"seed": 0}, complete=False))
    for step in range(5):
        folder.commit(small_tree(step), b"", step, ())
    assert [each.level for each in folder.manifest.segments] == [0] * 5
    folder.close()


# --- Records ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Often(Observable):
    schedule: EverySteps = EverySteps(1)  # noqa: RUF009
    variables = (describe("effective_dimension"),)

    def measure(self, snapshot):
        return {"effective_dimension": np.full(1, snapshot.state.step)}


@dataclass(frozen=True)
class Seldom(Observable):
    schedule: EverySteps = EverySteps(8)  # noqa: RUF009
    variables = (describe("effective_dimension_is_lower_bound"), describe("hessian_trace"))

    def measure(self, snapshot):
        step = snapshot.state.step
        return {
            "effective_dimension_is_lower_bound": np.full(1, step % 3, np.int8),
            "hessian_trace": np.full(1, step, np.float32),
        }


@pytest.mark.parametrize("seconds", [0, 30], ids=["a segment a record", "one segment"])
def test_types_of_variables_with_gaps_do_not_depend_on_segments(tmp_path, seconds):
    """int8 has no NaN, netCDF has no float16, and a segment may lack a variable altogether."""
    path = tmp_path / "run.nc"
    simulate(quadratic(), steps=20, replicas=1, observables=[Often(), Seldom()], path=path, segment_seconds=seconds)
    spectrum = open_trajectory(path)["spectrum"]
    steps = np.arange(21)
    gaps = ~np.isin(steps, [0, 8, 16, 20])
    assert spectrum["effective_dimension"].dtype == np.int64
    for name, expected in {"effective_dimension_is_lower_bound": steps % 3, "hessian_trace": steps}.items():
        assert spectrum[name].dtype == np.float32
        np.testing.assert_array_equal(spectrum[name].values[0], np.where(gaps, np.nan, expected))


def _state(step: int) -> State:
    return State(step, torch.zeros(1, 2), None, None, Seeds(0), (0,), torch.zeros(1, dtype=torch.bool))


def recorder_to(path: Path, expected: int, limit: Any = None, seconds: float = 1e9) -> tuple[Recorder, SegmentFolder]:
    folder = SegmentFolder(folder_of(path), attributes({"seed": 0}, complete=False))
    return Recorder((0,), attributes({"seed": 0}), {}, {"weights": expected}, folder, limit, seconds), folder


def test_a_segment_is_finished_when_an_eighth_of_the_budget_is_held(tmp_path):
    recorder, folder = recorder_to(tmp_path / "run.nc", 40, "8 MiB")
    found = []
    for step in range(40):
        recorder.keep("weights", step, np.nan, step, {"weights": np.full((1, 2**16), step, np.float32)})  # ¼ MiB
        recorder.commit_if_due(_state(step))
        found.append(folder.manifest.number)
    np.testing.assert_array_equal(found, np.arange(1, 41) // 4 - 1)
    folder.close()


def test_a_segment_is_finished_when_it_is_old_enough(tmp_path):
    recorder, folder = recorder_to(tmp_path / "run.nc", 3, seconds=0.05)
    recorder.keep("weights", 0, np.nan, 0.0, {"weights": np.zeros((1, 2))})
    recorder.commit_if_due(_state(0))
    assert folder.manifest.number == -1
    time.sleep(0.06)
    recorder.commit_if_due(_state(0))
    assert folder.manifest.number == 0
    folder.close()


def test_records_of_another_shape_are_refused():
    recorder = Recorder((0,), {}, {}, {"weights": 2})
    recorder.keep("weights", 0, np.nan, 0.0, {"weights": np.zeros((1, 2))})
    with pytest.raises(ConfigurationError, match=r"'weights' has shape \(1, 3\) at step 1: expected \(1, 2\)"):
        recorder.keep("weights", 1, np.nan, 1.0, {"weights": np.zeros((1, 3))})


# --- What fits --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Huge(Losses):
    """Says that it is larger than anything."""

    size: int = 0

    def bytes_per_replica(self, process: Process) -> int:
        return self.size

    def measure(self, snapshot):
        raise AssertionError("the run has started")


TOO_LARGE = r"one record is 2 TiB|would hold about .* in memory, of which .* is free: its records are 18 TiB"
LIMITED = r"one record is {}, and recording may hold memory_limit={}: expected room for four.*{}"


@pytest.mark.parametrize(
    ("size", "options", "message"),
    [
        (2**40, {"path": "run.nc"}, TOO_LARGE),
        (2**40, {}, r"its records are 18 TiB, its weights 0\.0000305 MiB|so that they go to disk"),
        (2**36, {"path": "run.nc", "memory_limit": "1 GiB"}, LIMITED.format("128 GiB", "1 GiB", "")),
        (2**23, {"path": "run.nc", "memory_limit": "1 MiB"}, LIMITED.format("16 MiB", "1 MiB", "64 MiB")),
    ],
)
def test_a_run_that_cannot_fit_is_refused_with_the_figures_before_it_starts(
    tmp_path, monkeypatch, size, options, message
):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigurationError, match=message):
        simulate(quadratic(), **RUN | {"observables": [Huge(size=size)]}, **options)
    assert names(tmp_path) == []


def test_records_that_do_not_fit_on_the_disk_are_refused_with_the_figures(tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=100 * MIB))
    message = r"would need about 120 MiB of disk at .*, where 100 MiB is free: its records are 60 MiB, twice"
    with pytest.raises(ConfigurationError, match=message):
        refuse_unless_it_fits(60 * MIB, MIB, 0, tmp_path / "run.nc.segments", None)
    refuse_unless_it_fits(49 * MIB, MIB, 0, tmp_path / "run.nc.segments", None)


def test_what_an_observable_does_not_declare_is_found_at_its_first_record(tmp_path, monkeypatch):
    """Weights say what they need; here they do not."""
    monkeypatch.setattr(Weights, "bytes_per_replica", lambda self, process: 0)
    landscape = QuadraticLandscape(np.eye(300), np.eye(300))
    process = Process(landscape, ThermalNoise(0.5), 0.1, update=BAOAB(1.0))
    with pytest.raises(ConfigurationError, match=r"one record is 2\.29 MiB, and recording may hold memory_limit=1 MiB"):
        simulate(
            process,
            steps=4,
            replicas=1000,
            observables=[Weights(EverySteps(1))],
            path=tmp_path / "run.nc",
            memory_limit="1 MiB",
        )
    assert names(tmp_path) == []


def test_recording_may_hold_four_records_at_least():
    assert recording_limit(None, MIB) == 256 * MIB
    assert recording_limit(None, 100 * MIB) == 400 * MIB
    assert recording_limit("2 MiB", 100 * MIB) == 2 * MIB


# --- States -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Memory:
    """Of a user's own noise."""

    numbers: np.ndarray
    count: int
    inner: Any


def test_a_state_comes_back_to_the_last_bit():
    weights = torch.tensor([[0.1, -0.0, np.nan], [np.inf, 1e-310, 3.0]], dtype=torch.float64)
    memory = Memory(np.array([1, 2], np.uint64), 3, ({"a": [1.5, None, True], "b": "text"}, HeldTrace(weights[0], 7)))
    state = State(12, weights, memory, (), Seeds(5), (4, 2), torch.tensor([True, False]))
    found, recorded = state_from(state_bytes(state, recorded=True), torch.device("cpu"))
    assert recorded
    assert (found.step, found.seeds.seed, found.replicas, found.noise_memory) == (12, 5, (4, 2), ())
    assert found.weights.numpy().tobytes() == weights.numpy().tobytes()
    assert found.weights.dtype == torch.float64
    assert found.diverged.tolist() == [True, False]
    kept = found.update_memory
    assert type(kept) is Memory
    assert kept.numbers.dtype == np.uint64
    assert (kept.numbers.tolist(), kept.count, kept.inner[0]) == ([1, 2], 3, {"a": [1.5, None, True], "b": "text"})
    assert type(kept.inner[1]) is HeldTrace
    assert kept.inner[1].trace.numpy().tobytes() == weights[0].numpy().tobytes()


def test_what_cannot_be_saved_is_refused_by_name():
    state = State(
        0, torch.zeros(1, 1), {"open": [io.BytesIO()]}, None, Seeds(0), (0,), torch.zeros(1, dtype=torch.bool)
    )
    with pytest.raises(ConfigurationError, match=r"update_memory\.open\.0 is _io\.BytesIO, which cannot be saved"):
        state_bytes(state, recorded=True)


def test_reading_a_state_imports_and_runs_nothing():
    content = state_bytes(_state(0), recorded=True)
    with np.load(io.BytesIO(content), allow_pickle=False) as file:
        arrays = {name: file[name] for name in file.files}
    structure = json.loads(str(arrays.pop("structure")))
    structure["update_memory"] = {"kind": "dataclass", "type": "antigravity:Popen", "items": {}}
    buffer = io.BytesIO()
    np.savez(buffer, structure=np.array(json.dumps(structure)), **arrays)
    with pytest.raises(
        DamagedTrajectory, match="holds a antigravity:Popen, which is not among the imported dataclasses"
    ):
        state_from(buffer.getvalue(), torch.device("cpu"))


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 and then nothing", b"\x80\x04N."])
def test_a_state_that_is_none_is_refused(content):
    with pytest.raises(DamagedTrajectory, match="the state of the run cannot be read"):
        state_from(content, torch.device("cpu"))


# --- Files ------------------------------------------------------------------------------------------------------------


def test_a_file_appears_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "file"
    write_durably(path, b"before")

    def fails(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "no space")

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", fails)
        with pytest.raises(OSError, match="no space"):
            write_durably(path, b"after")
    assert (path.read_bytes(), names(tmp_path)) == (b"before", ["file"])
    write_durably(path, memoryview(b"after"))
    assert (path.read_bytes(), names(tmp_path)) == (b"after", ["file"])


_LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.floats(width=32).map(np.float32)
_VALUES = st.recursive(
    _LEAVES | st.lists(st.floats(), max_size=4).map(np.array),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


def assert_missing_numbers_are_null(write, path: Path, value) -> None:
    """A parser that knows neither NaN nor infinity reads what was written, with null in the place of what is missing."""

    def expected(each):
        if isinstance(each, dict):
            return {name: expected(inner) for name, inner in each.items()}
        if isinstance(each, list | np.ndarray):
            return [expected(inner) for inner in each]
        number = each.item() if isinstance(each, np.generic) else each
        return None if isinstance(number, float) and (number != number or abs(number) == math.inf) else number

    write(path, value)
    try:
        read = json.loads(path.read_text(), parse_constant=lambda word: {}[word])
    except KeyError as error:
        raise AssertionError(f"{error} is no JSON") from error
    assert read == expected(value)


@given(_VALUES)
def test_json_has_null_in_the_place_of_what_is_missing(tmp_path_factory, value):
    assert_missing_numbers_are_null(write_json, tmp_path_factory.mktemp("json") / "file.json", value)


def test_a_writer_that_lets_nan_through_would_be_noticed(tmp_path):
    with pytest.raises(AssertionError, match="NaN"):
        assert_missing_numbers_are_null(
            lambda path, value: path.write_text(json.dumps(value)), tmp_path / "twin.json", {"distance": [math.nan]}
        )
    assert json.loads(attributes({"distance": math.nan})["config_json"])["distance"] == "nan"
    assert json_text({"a": (1, 2.5)}, indent=None) == '{"a": [1, 2.5]}'


@pytest.mark.parametrize(
    ("number", "reason"),
    [
        (errno.ENOSPC, "the disk is full"),
        (errno.EDQUOT, "the quota is used up"),
        (errno.EFBIG, "the file would be larger than the limit"),
        (errno.ENOENT, "the folder has vanished"),
        (errno.EROFS, "the disk is read-only"),
        (errno.EACCES, "the folder may not be written"),
        (errno.EIO, "what the system says"),
    ],
)
def test_errors_of_the_system_say_what_remains(number, reason):
    with (
        pytest.raises(StorageError, match=f"'run.nc' cannot be written: {reason}.*; all is well") as caught,
        storage_errors(Path("run.nc"), "all is well"),
    ):
        raise OSError(number, "what the system says")
    assert caught.value.__cause__.errno == number


def test_every_variable_of_a_finished_file_is_chunked_and_carries_a_checksum(whole):
    def walk(group):
        yield from group.variables.values()
        for each in group.groups.values():
            yield from walk(each)

    with netCDF4.Dataset(whole) as file:
        variables = list(walk(file))
        assert len(variables) > 8
        for variable in variables:
            assert variable.filters()["fletcher32"], variable.name
            assert variable.chunking() != "contiguous", variable.name


def test_a_changed_byte_of_a_recorded_array_is_noticed(tmp_path):
    """Each byte of the array's image in the file, one at a time; a twin without checksums reads another number."""
    values = np.random.default_rng(0).standard_normal((1, 6, 2))
    coordinates = {"weight_step": np.arange(6)}
    weights = xr.Dataset({"weights": (("replica", "weight_step", "parameter"), values)}, coordinates)
    tree = xr.DataTree.from_dict({"/": xr.Dataset(coords={"replica": [0]}), "/weights": weights})
    for finished in (True, False):
        path = tmp_path / f"{finished}.nc"
        write_netcdf(tree, path, finished=finished)
        content = path.read_bytes()
        start = content.index(values.tobytes())
        for position in range(start, start + values.nbytes):
            changed = bytearray(content)
            changed[position] ^= 0x10
            path.write_bytes(changed)
            with netCDF4.Dataset(path) as file:
                if finished:
                    with pytest.raises(RuntimeError, match="HDF error"):
                        file["weights"]["weights"][:]
                else:
                    assert (file["weights"]["weights"][:] != values).sum() == 1


def test_text_truth_values_and_whole_numbers_come_back_as_they_were(tmp_path):
    root = xr.Dataset(
        {"flags": ("replica", np.array([True, False])), "counts": ("replica", np.array([3, 4], np.uint8))},
        coords={"replica": [0, 1], "name": ("replica", ["α", "longer"])},
    )
    tree = xr.DataTree(root)
    for path in (write_trajectory(tree, tmp_path / "one.nc"), tmp_path / "two.nc"):
        if path.name == "two.nc":
            path.write_bytes(netcdf_bytes(tree))
        with xr.open_datatree(path) as found:
            assert found["flags"].dtype == bool
            assert found["flags"].values.tolist() == [True, False]
            assert found["counts"].dtype == np.uint8
            assert found["name"].values.tolist() == ["α", "longer"]
            assert set(found.coords) == {"replica", "name"}


def test_arrays_larger_than_a_block_are_written_piece_by_piece(tmp_path):
    values = np.random.default_rng(0).standard_normal((2, 600, 9000), np.float32)  # 41 MiB: more than one block
    tree = xr.DataTree.from_dict(
        {
            "/": xr.Dataset(coords={"replica": [0, 1]}),
            "/weights": xr.Dataset(
                {"weights": (("replica", "weight_step", "parameter"), values)}, {"weight_step": range(600)}
            ),
        }
    )
    with netCDF4.Dataset(write_trajectory(tree, tmp_path / "run.nc")) as file:
        assert file["weights"]["weights"].chunking() == [1, 128, 1800]
        assert np.asarray(file["weights"]["weights"][:]).tobytes() == values.tobytes()


sizes = st.integers(1, 3000)


@given(st.tuples(st.integers(1, 9), sizes, sizes, sizes), st.sampled_from([1, 4, 8]))
def test_chunks_lie_within_the_array_are_a_mebibyte_at_most_and_long_in_time(shape, itemsize):
    dims = ("replica", "step", "cohort", "mode")
    chunk = chunk_shape(dims, shape, itemsize)
    assert all(1 <= length <= size for length, size in zip(chunk, shape, strict=True))
    assert np.prod(chunk) * itemsize <= MIB
    assert chunk[1] >= min(128, shape[1])


def test_numbers_compress_where_that_pays(tmp_path):
    noise = np.random.default_rng(0).standard_normal((1, 5000))
    data = {"noisy": (("replica", "step"), noise), "level": (("replica", "step"), np.full((1, 5000), 0.25))}
    tree = xr.DataTree(xr.Dataset(data, coords={"replica": [0], "step": np.arange(5000)}))
    with netCDF4.Dataset(write_trajectory(tree, tmp_path / "run.nc")) as file:
        assert not file["noisy"].filters()["zlib"]
        assert file["level"].filters()["zlib"]


pieces = st.lists(st.integers(1, 5), min_size=1, max_size=5)


def slices(size: int) -> st.SearchStrategy[slice]:
    """All but empty ones that go backwards, at which xarray itself fails."""
    return st.slices(size).filter(lambda key: (key.step or 1) > 0 or len(range(size)[key]) > 0)


@given(pieces, st.data())
def test_parts_that_lie_one_after_the_other_are_indexed_like_one_array(lengths, data):
    total = sum(lengths)
    array = np.arange(3.0 * total).reshape(3, total)
    ends = np.cumsum(lengths)[:-1]
    one = joined([xr.Variable(("replica", "step"), part) for part in np.split(array, ends, axis=1)], "step")
    along = data.draw(
        st.one_of(
            st.integers(-total, total - 1),
            slices(total),
            st.lists(st.integers(0, total - 1), min_size=1, max_size=6).map(np.array),
        )
    )
    first = data.draw(st.one_of(st.integers(-3, 2), slices(3)))
    found = one[first, along].values
    expected = array[first][..., along]
    assert found.dtype == expected.dtype
    np.testing.assert_array_equal(found, expected)


@given(st.data())
def test_parts_that_lie_side_by_side_are_indexed_like_one_array(data):
    array = np.arange(24.0).reshape(4, 3, 2)
    one = stacked_lazily([xr.Variable(("replica", "step"), part) for part in array], "process")
    first = data.draw(st.one_of(st.integers(-4, 3), slices(4)))
    second = data.draw(st.one_of(st.integers(-3, 2), slices(3)))
    np.testing.assert_array_equal(one[first, second].values, array[first][..., second, :])


# --- Older files ------------------------------------------------------------------------------------------------------


def test_a_finished_file_that_was_cut_short_is_refused(tmp_path, whole):
    content = whole.read_bytes()
    for share in (0.1, 0.5, 0.999):
        (tmp_path / "cut.nc").write_bytes(content[: int(len(content) * share)])
        with pytest.raises(ConfigurationError, match="cannot be read as netCDF"):
            open_trajectory(tmp_path / "cut.nc")
