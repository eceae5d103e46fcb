"""The short form of the torture: a few kills, full disks, changed bytes, readers and sizes; ``make torture`` does all."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from torture import damage, disks, readers, sizes, worker
from torture.kills import Caught, caught, check_prefix, check_same_file, killed, references

from langevin_nn import open_trajectory
from langevin_nn.store import write_trajectory

NETWORK, SURROGATE = "SGD, sparse observables", "diverging replicas masked"


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> dict[str, Path]:
    """Runs that nobody disturbs."""
    return references([worker.SMALL, NETWORK], tmp_path_factory.mktemp("references"))


@pytest.fixture(scope="module")
def reference(files) -> Path:
    return files[worker.SMALL]


def test_runs_that_are_killed_and_resumed_end_with_the_bits_of_uninterrupted_ones(tmp_path, capsys):
    least = {"segment": 1, "block of steps": 1}
    tally = killed([NETWORK, SURROGATE], tmp_path, 4, least, per_chain=2)
    with capsys.disabled():
        print(f"\n{tally.table()}\n{tally.finished} runs ended with the bits of uninterrupted ones")
    assert tally.kills >= 4
    assert tally.of("segment", disk=True) >= 1
    assert tally.of("block of steps") >= 1
    assert tally.finished >= 2
    assert {variant for variant, _, _ in tally.hits} == {NETWORK, SURROGATE}


@pytest.mark.parametrize(("mutation", "variant", "aim"), worker.TWINS, ids=[twin[0] for twin in worker.TWINS])
def test_a_twin_that_commits_wrongly_is_caught(tmp_path, mutation, variant, aim):
    found = caught(mutation, variant, tmp_path, aim)
    expected = {
        "manifest first": "cannot be opened: .*(is missing|checksum differs)|state-.* is damaged",
        "forgetful": "has other bits than the uninterrupted run",
        "overwriting": "is damaged: (its checksum differs|it has .* bytes)",
    }[mutation]
    assert re.search(expected, found), found


def test_a_folder_that_vanishes_stops_the_run_with_a_clear_error(tmp_path, reference):
    assert "the folder has vanished" in disks.vanished(tmp_path / "run", reference, at=5, own_interpreter=False)


def test_every_changed_byte_of_a_running_trajectory_is_noticed_on_opening_and_on_going_on(tmp_path):
    path = disks.remains(tmp_path / "run", at=4)
    generator = np.random.default_rng(7)
    of_segments = damage.flipped_segments(path, 80, generator, ("segment",))
    assert of_segments["segment: opening refuses"] == 80
    assert of_segments["segment: going on refuses"] + of_segments["segment: going on from the commitment before"] == 80
    of_others = damage.flipped_segments(path, 80, generator, ("state", "manifest"))
    assert of_others["manifest: opening refuses"] > 0
    assert of_others["manifest: opening refuses"] == of_others["manifest: going on from the commitment before"]
    assert of_others["state: going on from the commitment before"] > 0


def test_a_run_is_read_while_it_is_written(tmp_path, reference):
    found = readers.read_while_written(tmp_path / "run", reference, (0.0, 0.05), worker.SMALL)
    assert found["merges"] >= 1
    assert min(found["lengths"]) >= 3


@pytest.mark.parametrize(
    ("kind", "records", "least"), [("scalars", 10**5, 10 * sizes.MIB), ("weights", 24, 32 * sizes.MIB)]
)
def test_recording_stays_within_its_budget(tmp_path, kind, records, least):
    """Less than the records where these are many, and never more than 512 MiB."""
    found = sizes.measured(kind, tmp_path / "run", records)
    assert least < found["memory"] < 512 * sizes.MIB


def test_the_harness_notices_other_bits_another_type_and_a_missing_record(reference, tmp_path):
    whole = open_trajectory(reference).load()
    assert check_prefix(whole, whole, 3000) == 2 * 61
    with pytest.raises(Caught, match="has steps"):
        check_prefix(whole, whole, 2950)
    other = whole.copy(deep=True)
    other["train_loss"].values[3, 40, 0] = np.nextafter(other["train_loss"].values[3, 40, 0], 9)
    with pytest.raises(Caught, match="train_loss has other bits"):
        check_prefix(other, whole, 3000)
    other = whole.copy(deep=True)
    other["weights"]["weights"] = whole["weights"]["weights"].astype(np.float32)
    with pytest.raises(Caught, match="weights has other bits"):
        check_prefix(other, whole, 3000)
    other = whole.copy(deep=True)
    other.attrs["complete"] = 0
    write_trajectory(other, tmp_path / "other.nc")
    with pytest.raises(Caught, match="attribute complete"):
        check_same_file(tmp_path / "other.nc", reference)
