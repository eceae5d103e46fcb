"""``python -m langevin_nn``: what it prints, what it writes, and how it ends."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import xarray as xr
from cases import digits_landscape
from matplotlib.image import imread

from langevin_nn import Process, gradient_descent, langevin, merge, open_trajectory, sgd, simulate
from langevin_nn.__main__ import main
from langevin_nn.analyzers import detect_phases, mean_boundaries
from langevin_nn.landscape import QuadraticLandscape
from langevin_nn.noise import DiagonalNoise
from langevin_nn.observables import DrivingNoise, Losses, OrderParameters, Weights
from langevin_nn.provenance import attributes
from langevin_nn.report import plot, report, say
from langevin_nn.schedules import AtSteps, EverySteps
from langevin_nn.store import folder_of, join_processes, write_trajectory
from langevin_nn.testing import four_phase_trajectory

N, B, ALPHA = 60, 10, 0.1
MARKS = {"train": "•", "test": "o"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Two seeds of SGD, Langevin dynamics, a surrogate, the remains of a run, a damaged file, and what is none of ours."""
    made = tmp_path_factory.mktemp("files")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        digits = digits_landscape(N)
    seen = [Losses(), OrderParameters(8), DrivingNoise(), Weights(EverySteps(60))]
    options = {"steps": 120, "replicas": 2, "schedule": EverySteps(6), "observables": seen}
    for seed in (0, 1):
        simulate(sgd(digits, ALPHA, B), seed=seed, path=made / f"sgd{seed}.nc", **options)
    simulate(langevin(digits, ALPHA, B), path=made / "langevin.nc", **options)
    simulate(surrogate(), steps=20, replicas=2, path=made / "surrogate.nc")

    class Breaks(Losses):
        def measure(self, snapshot):
            if snapshot.state.step == 12:
                raise KeyboardInterrupt
            return super().measure(snapshot)

    with pytest.raises(KeyboardInterrupt):
        simulate(sgd(digits, ALPHA, B), steps=18, schedule=EverySteps(6), observables=Breaks(), path=made / "killed.nc")
    (made / "text.nc").write_text("no netCDF")
    xr.Dataset({"a": ("x", [1.0])}).to_netcdf(made / "foreign.nc")
    content = bytearray((made / "sgd0.nc").read_bytes())
    with xr.open_dataset(made / "sgd0.nc") as scalars:
        content[content.find(scalars.test_loss.values.tobytes()[-16:])] ^= 1
    (made / "damaged.nc").write_bytes(content)
    return made


def surrogate() -> Process:
    valley = QuadraticLandscape(np.diag([1.0, 3.0]), np.zeros((2, 2)), start=[2.0, 0.0])
    return Process(valley, DiagonalNoise(0.0), ALPHA, name="surrogate")


@pytest.fixture
def command(capsys):
    """Run the command; return its exit code, and what it said on either stream."""

    def run(*arguments) -> tuple[int, str, str]:
        try:
            code = main([str(each) for each in arguments])
        except SystemExit as end:
            code = end.code
        said = capsys.readouterr()
        return code, said.out, said.err

    return run


def module(*arguments, **variables) -> subprocess.CompletedProcess:
    """Run it as a user does."""
    environment = {**os.environ, **variables}
    line = [sys.executable, "-m", "langevin_nn", *map(str, arguments)]
    return subprocess.run(line, capture_output=True, env=environment, timeout=120, check=False)


# --- info --------------------------------------------------------------------------------------------------------------


def test_info_says_what_was_run_with_what_and_what_was_found(folder, command):
    code, said, wrong = command("info", folder / "sgd1.nc")
    assert (code, wrong) == (0, "")
    for words in (
        "sgd1.nc: complete",
        "seed: 1",
        "learning_rate: 0.1",
        "noise: ShuffledMinibatches",
        "batch_size: 10",
        f"numpy {np.__version__}",
        f"torch {torch.__version__}",
        "langevin_nn ",
        "schema 1.2",
        "2 replica × 21 step",
        "/weights",
        "3 weight_step",
        "steps: 120",
        "Phases of learning",
        "error, mean over replicas (• train, o test)",
    ):
        assert words in said, words
    assert re.search(r"(II|III|IV|exploration).*: (at epoch|not reached).* of 2 replicas", said)


def test_plot_draws_a_file_and_the_remains_of_a_run_and_replaces_nothing_unasked(folder, command, tmp_path):
    out = tmp_path / "figures" / "sgd.png"
    assert command("plot", folder / "sgd0.nc", "-o", out) == (0, f"{out}\n", "")
    height, width = imread(out).shape[:2]
    assert 900 < width < height
    code, said, wrong = command("plot", folder / "sgd0.nc", "-o", out)
    assert (code, said) == (2, "")
    assert "is there already" in wrong
    options = ("--variables", "train_loss", "--clock", "step", "--overwrite")
    assert command("plot", folder / "sgd0.nc", "-o", out, *options)[0] == 0
    assert imread(out).shape[0] < height, "one panel"
    assert command("plot", folder / "killed.nc", "--out", tmp_path / "killed.pdf")[0] == 0
    assert (tmp_path / "killed.pdf").read_bytes().startswith(b"%PDF")
    for file, out, words in (
        ("text.nc", "wrong.png", "cannot be read as netCDF"),
        ("sgd1.nc", "wrong.doc", "unknown kind of figure 'doc'"),
    ):
        code, _, wrong = command("plot", folder / file, "-o", tmp_path / out)
        assert code == 2
        assert words in wrong


def test_phases_are_reported_with_the_intervals_of_their_beginnings():
    trajectory = four_phase_trajectory(np.random.default_rng(3), replicas=5)
    tree = xr.DataTree.from_dict({"/": trajectory})
    tree.attrs |= {"complete": 1, "config_json": "{}", "schema_version": "1.2", "source": "synthetic", "created_at": ""}
    said = report(tree)
    phases = mean_boundaries(detect_phases(trajectory))
    ends = [phases[f"mean_boundary_epoch{end}"].values for end in ("", "_lower", "_upper")]
    assert np.isfinite(ends).all()
    for name, mean, lower, upper in zip(("II", "III", "IV"), *ends, strict=True):
        assert re.search(
            rf"\b{name}\b.*: at epoch {mean:.4g} \(95 % interval {lower:.4g} to {upper:.4g}\), 5 of 5 replicas", said
        ), said


def drawn(said: str) -> tuple[list[list[int]], dict[str, set[tuple[int, int]]], str]:
    """Return the marks of a plot, by name, as (row, column); and its last line."""
    lines = said.splitlines()
    last = next(k for k, line in enumerate(lines) if re.fullmatch(r" {6} \+-+", line))
    first = max(k for k, line in enumerate(lines[:last]) if "mean over replicas" in line)
    rows = [line.partition("|")[2].ljust(64) for line in lines[first + 1 : last]]
    points = {name: {(r, c) for r, row in enumerate(rows) for c, each in enumerate(row) if each == mark}
              for name, mark in MARKS.items()}  # fmt: skip
    return rows, points, lines[last + 1]


def test_the_points_of_the_plot_lie_where_the_data_are(folder, command):
    """From the axis alone: column by the logarithm of the epoch, row by the height between the extremes that it names."""
    code, said, _ = command("info", folder / "sgd0.nc")
    assert code == 0
    rows, points, axis = drawn(said)
    with xr.open_dataset(folder / "sgd0.nc") as scalars:
        epochs = scalars.epoch.values[1:]
        curves = {
            "train": scalars.train_error.sel(cohort="all").mean("replica").values[1:],
            "test": scalars.test_error.mean("replica").values[1:],
        }
    left, name, right = axis.split()
    assert (float(left), name, float(right)) == (epochs[0], "epoch", epochs[-1])
    plotted = said[said.index("error, mean over replicas") :].splitlines()
    high, low = float(plotted[1].split()[0]), float(plotted[len(rows)].split()[0])
    everything = np.concatenate(list(curves.values()))
    assert high == pytest.approx(everything.max(), rel=2e-3)
    assert low == pytest.approx(everything.min(), rel=2e-3)
    span = np.log(epochs[-1] / epochs[0])
    expected = {
        which: {
            (
                round((everything.max() - value) / np.ptp(everything) * (len(rows) - 1)),
                round(np.log(epoch / epochs[0]) / span * 63),
            )
            for epoch, value in zip(epochs, values, strict=True)
        }
        for which, values in curves.items()
    }
    assert points["test"] == expected["test"], "drawn last, on top"
    assert points["train"] == expected["train"] - expected["test"]


def test_a_surrogate_shows_its_loss_over_time(folder, command):
    code, said, _ = command("info", folder / "surrogate.nc")
    assert code == 0
    assert "loss, mean over replicas (• train)" in said
    assert "none told: training errors were not recorded" in said
    _, points, axis = drawn(said)
    assert axis.split() == ["0.1", "time", "2"]
    # ½ · 4 · 0.81ⁿ falls: one row each column, never upwards.
    falling = sorted(points["train"], key=lambda point: point[1])
    assert falling[0] == (0, 0)
    assert falling[-1] == (11, 63)
    assert all(one[0] <= other[0] for one, other in pairwise(falling))


def test_info_of_the_remains_of_a_run_says_so(folder, command):
    for path in (folder / "killed.nc", folder_of(folder / "killed.nc")):
        code, said, _ = command("info", path)
        assert code == 0
        assert "not complete: it is running, was killed, or diverged" in said
        assert "2 step" in said


def test_info_of_several_processes_tells_each(folder, command, tmp_path):
    trees = {name: open_trajectory(folder / f"{name}.nc") for name in ("sgd0", "langevin")}
    path = write_trajectory(join_processes(trees, {"seed": 0}), tmp_path / "both.nc")
    code, said, _ = command("info", path)
    assert code == 0
    assert "in sgd0: " in said
    assert "in langevin: " in said
    assert "error of sgd0, mean over replicas" in said
    merged = write_trajectory(merge([open_trajectory(folder / f"sgd{k}.nc") for k in (0, 1)]), tmp_path / "merged.nc")
    code, said, _ = command("info", merged)
    assert code == 0
    assert "of 4 replicas" in said


ODD = {
    "one record": {"schedule": AtSteps((6,))},
    "only the start": {"schedule": AtSteps((0,))},
    "weights only": {"observables": Weights(EverySteps(6))},
    "losses from a coarser schedule": {"observables": [DrivingNoise(EverySteps(1)), Losses(EverySteps(4))]},
    "a setting called drift": {"config": {"drift": 3, "versions": 1, "nothing": None, "study": ["a", {"b": "c"}]}},
    "a long setting": {"config": {"text": "x" * 500}},
}


@pytest.mark.parametrize("options", ODD.values(), ids=ODD.keys())
def test_info_of_odd_trajectories_ends_well(command, tmp_path, options):
    simulate(surrogate(), steps=12, path=tmp_path / "run.nc", **options)
    code, said, wrong = command("info", tmp_path / "run.nc")
    assert (code, wrong) == (0, "")
    assert "complete" in said
    assert max(map(len, said.splitlines()[1:])) <= 130


def test_info_of_losses_beyond_all_numbers_ends_well(command, tmp_path):
    """A loss may overflow where its weights do not; those that do not are drawn."""
    valley = QuadraticLandscape(np.diag([-1.0, 1.0]), np.zeros((2, 2)), start=[1e100, 1.0])
    process = Process(valley, DiagonalNoise(0.0), 1e10, name="wild")
    run = simulate(process, steps=8, schedule=EverySteps(1), replicas=1, on_divergence="mask", path=tmp_path / "run.nc")
    assert np.isinf(run.train_loss.sel(cohort="all")).any()
    run.attrs["config_json"] = "no JSON"
    code, said, _ = command("info", write_trajectory(run, tmp_path / "other.nc"))
    assert code == 0
    assert "config_json" in said
    code, said, _ = command("info", tmp_path / "run.nc")
    assert code == 0
    assert "mean over replicas" in said


def test_report_and_plot_from_python(folder):
    said = report(open_trajectory(folder / "surrogate.nc"))
    assert said.startswith("trajectory: complete")
    assert plot(np.array([0.0, 1.0]), {"train": np.array([1.0, 2.0])}, "t", "x") == [], "one point that is positive"
    assert plot(np.array([1.0, 2.0]), {"train": np.full(2, np.nan)}, "t", "x") == []
    flat = plot(np.array([1.0, 10.0]), {"a": np.full(2, 3.0)}, "t", "x")
    assert flat[1].startswith("     3 |•")


# --- validate ----------------------------------------------------------------------------------------------------------


def test_valid_files_end_with_0_and_others_with_1_and_their_faults(folder, command, tmp_path):
    code, said, wrong = command("validate", folder / "sgd0.nc", folder / "surrogate.nc", folder / "killed.nc")
    assert (code, wrong) == (0, "")
    assert said.count(": valid\n") == 3
    tree = open_trajectory(folder / "surrogate.nc").load().copy()
    tree.train_loss.attrs["units"] = "J"
    bad = write_trajectory(tree, tmp_path / "bad.nc")
    code, said, _ = command("validate", folder / "sgd0.nc", bad)
    assert code == 1
    assert said.splitlines() == [
        f"{folder / 'sgd0.nc'}: valid",
        f"{bad}: not valid",
        "  variable 'train_loss' of group / has units='J': expected 'nat'",
    ]


def test_results_of_a_study_are_no_trajectory_and_are_held_to_what_holds_for_them(command, tmp_path):
    phases = xr.Dataset({"onset": (("label_noise", "replica"), np.ones((2, 3)))}, coords={"label_noise": [0.0, 0.5]})
    tree = xr.DataTree.from_dict({"/phases": phases, "/curves": phases})
    tree.attrs.update(attributes({"study": "label_noise", "choices": {"seed": 1}}))
    good = write_trajectory(tree, tmp_path / "good.nc")
    for line, told in (("validate", "valid, results of the study"), ("info", "These are results of the study")):
        code, said, _ = command(line, good)
        assert code == 0
        assert f"{told} 'label_noise'" in said
    del tree.attrs["created_at"]
    tree["phases"] = phases.assign_coords(label_noise=[0.0, np.nan])
    code, said, _ = command("validate", write_trajectory(tree, tmp_path / "bad.nc"))
    assert code == 1
    assert "dimension 'label_noise' of group /phases has labels that are not finite" in said
    assert "attribute 'created_at' is missing" in said


def test_a_damaged_file_is_not_valid_and_nothing_else_can_be_made_of_it(folder, command, tmp_path):
    code, said, _ = command("validate", folder / "damaged.nc")
    assert code == 1
    assert "variable 'test_loss' of group / cannot be read" in said
    for arguments in (
        ("export", folder / "damaged.nc", "--out", tmp_path / "out.csv"),
        ("export", folder / "damaged.nc", "--out", tmp_path / "out.zarr", "--format", "zarr"),
        ("merge", tmp_path / "out.nc", folder / "damaged.nc", folder / "sgd1.nc"),
    ):
        code, said, wrong = command(*arguments)
        assert (code, said) == (2, "")
        (line,) = wrong.strip().splitlines()
        assert "cannot be read" in line
        assert "damaged" in line
        assert list(tmp_path.iterdir()) == []


# --- merge -------------------------------------------------------------------------------------------------------------


def test_merge_joins_replicas(folder, command, tmp_path):
    out = tmp_path / "joined.nc"
    code, said, wrong = command("merge", out, folder / "sgd0.nc", folder / "sgd1.nc")
    assert (code, wrong) == (0, "")
    assert said.startswith(f"{out}: ")
    assert "4 replica" in said
    joined = open_trajectory(out)
    assert joined["seed"].values.tolist() == [0, 0, 1, 1]
    for seed in (0, 1):
        own = open_trajectory(folder / f"sgd{seed}.nc")
        np.testing.assert_array_equal(joined.test_loss[2 * seed : 2 * seed + 2], own.test_loss)
    assert command("validate", out)[0] == 0


def test_merge_joins_processes(folder, command, tmp_path):
    out = tmp_path / "joined.nc"
    code, said, _ = command("merge", out, folder / "sgd0.nc", folder / "langevin.nc", "--along", "process")
    assert code == 0
    assert "2 process" in said
    joined = open_trajectory(out)
    assert joined["process"].values.tolist() == ["sgd", "langevin"]
    np.testing.assert_array_equal(
        joined.test_loss.sel(process="langevin"), open_trajectory(folder / "langevin.nc").test_loss
    )
    assert command("validate", out)[0] == 0


def test_merge_writes_over_a_file_where_asked_one_of_its_own_parts_too(folder, command, tmp_path):
    out, other = tmp_path / "grows.nc", open_trajectory(folder / "sgd1.nc")
    parts = [write_trajectory(other.sel(replica=[k]), tmp_path / f"part{k}.nc") for k in (0, 1)]
    assert command("merge", out, folder / "sgd0.nc", parts[0])[0] == 0
    before = out.read_bytes()
    code, _, wrong = command("merge", out, folder / "sgd0.nc", parts[0])
    assert code == 2
    assert "is there already: expected nothing there" in wrong
    assert out.read_bytes() == before
    assert command("merge", out, out, parts[1], "--overwrite")[0] == 0
    assert open_trajectory(out).sizes["replica"] == 4
    before = out.read_bytes()
    code, _, wrong = command("merge", out, out, folder / "sgd1.nc", "--overwrite")
    assert code == 2
    assert "trajectories 0 and 1 both hold replicas 0, 1 of seed 1" in wrong
    assert out.read_bytes() == before


# --- export ------------------------------------------------------------------------------------------------------------


def test_export_writes_a_table_beside_the_file(folder, command, tmp_path):
    path = tmp_path / "run.nc"
    path.write_bytes((folder / "sgd0.nc").read_bytes())
    code, said, wrong = command("export", path)
    assert (code, said, wrong) == (0, f"{tmp_path / 'run.csv'}\n", "")
    frame = pd.read_csv(tmp_path / "run.csv")
    np.testing.assert_allclose(frame["test_loss"], open_trajectory(path).test_loss.values.ravel(), rtol=1e-15)
    assert command("export", path, "--group", "weights")[0] == 0
    assert (tmp_path / "run-weights.csv").exists()
    assert command("export", path)[0] == 2, "it is there already"
    assert command("export", path, "--overwrite")[0] == 0
    assert command("export", path, "--format", "zarr", "--out", tmp_path / "store")[0] == 0
    with xr.open_zarr(tmp_path / "store") as stored:
        np.testing.assert_array_equal(stored.test_loss, open_trajectory(path).test_loss)
    code, _, wrong = command("export", path, "--group", "spectrum")
    assert code == 2
    assert "there is no group 'spectrum'" in wrong


def test_export_of_the_remains_of_a_run_writes_what_there_is(folder, command, tmp_path):
    assert command("export", folder / "killed.nc", "--out", tmp_path / "killed.csv")[0] == 0
    assert pd.read_csv(tmp_path / "killed.csv")["step"].tolist() == [0, 6] * 4


# --- What cannot be done -----------------------------------------------------------------------------------------------

BAD = {
    "nowhere": (["info", "nowhere.nc"], "no trajectory at .*nowhere.nc.*: expected a netCDF file"),
    "a folder": (["info", "."], "no trajectory at '.', which is a folder: expected the file"),
    "the root": (["info", "/"], "no trajectory at '/', which is a folder"),
    "text": (["info", "text.nc"], "text.nc.* cannot be read as netCDF"),
    "another netCDF": (["validate", "foreign.nc"], "expected a trajectory of langevin_nn.*open other files with xarray"),
    "no file at all": (["validate"], "no file to validate: expected at least one"),
    "text to merge": (["merge", "out.nc", "sgd0.nc", "text.nc"], "text.nc.* cannot be read as netCDF"),
    "one file": (["merge", "out.nc", "sgd0.nc"], "merging needs at least two trajectories, got 1"),
    "none": (["merge", "out.nc"], "merging needs at least two trajectories, got 0"),
    "one process": (["merge", "out.nc", "sgd0.nc", "--along", "process"], "hold the processes sgd: expected at least two"),
    "one process twice": (
        ["merge", "out.nc", "sgd0.nc", "sgd1.nc", "--along", "process"],
        "hold the processes sgd, sgd: .*each of them once; join replicas of one process with --along replica",
    ),
    "unlike": (["merge", "out.nc", "sgd0.nc", "surrogate.nc"], "the same observables of all"),
    "a folder that is not there": (["merge", "no/out.nc", "sgd0.nc", "sgd1.nc"], "no/out.nc.* cannot be written: the folder"),
    "out of a folder that is not there": (["export", "sgd0.nc", "--out", "no/out.csv"], "cannot be written"),
}  # fmt: skip


@pytest.mark.parametrize(("arguments", "said"), BAD.values(), ids=BAD.keys())
def test_bad_input_ends_in_one_line_and_exit_code_2(folder, command, monkeypatch, arguments, said):
    monkeypatch.chdir(folder)
    before = sorted(each.name for each in folder.iterdir())
    code, out, wrong = command(*arguments)
    assert (code, out) == (2, "")
    (line,) = wrong.strip().splitlines()
    assert line.startswith("error: ")
    assert re.search(said, line), line
    assert sorted(each.name for each in folder.iterdir()) == before


@pytest.mark.parametrize(
    "arguments", [[], ["inform"], ["info"], ["info", "a", "b"], ["export", "a", "--format", "xlsx"]]
)
def test_a_command_line_that_says_nothing_sensible_ends_with_2_and_help(command, arguments):
    code, out, wrong = command(*arguments)
    assert code == 2
    assert out == ""
    assert "--help" in wrong


TAUGHT = {
    "": ["info", "validate", "merge", "export", "being written", "killed"],
    "info": ["versions", "phases", "plot", "finished file, a running one, or the remains"],
    "validate": ["identity", "checksum", "exit code 1"],
    "merge": ["--along", "replica", "process", "--overwrite", "at least two"],
    "export": ["--format", "csv", "zarr", "--group", "spectrum", "--out", "--overwrite", "column for each"],
}


@pytest.mark.parametrize(("name", "words"), TAUGHT.items())
def test_help_teaches(command, name, words):
    code, out, _ = command(*([name] if name else []), "--help")
    assert code == 0
    text = re.sub(r"[\s│]+", " ", out)
    for word in words:
        assert word in text, word


def test_an_error_that_is_a_bug_is_not_swallowed(folder, monkeypatch):
    monkeypatch.setattr("langevin_nn.report.report", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        main(["info", str(folder / "sgd0.nc")])

    def broken(*_):
        raise RuntimeError("no matter of files")

    monkeypatch.setattr("langevin_nn.report.report", broken)
    with pytest.raises(RuntimeError, match="no matter of files"):
        main(["info", str(folder / "sgd0.nc")])


def test_an_interrupt_ends_with_130(folder, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("langevin_nn.open_trajectory", interrupted)
    assert main(["info", str(folder / "sgd0.nc")]) == 130


# --- As a real command -------------------------------------------------------------------------------------------------


def test_as_a_real_command_it_prints_and_returns_its_code(folder):
    done = module("validate", folder / "sgd0.nc", folder / "damaged.nc", PYTHONIOENCODING="utf-8")
    assert done.returncode == 1
    assert done.stderr == b""
    assert "sgd0.nc: valid" in done.stdout.decode()
    assert "damaged.nc: not valid" in done.stdout.decode()


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_where_there_is_no_unicode_the_same_is_said_in_plain_characters(folder, encoding):
    done = module("info", folder / "sgd0.nc", PYTHONIOENCODING=encoding)
    assert (done.returncode, done.stderr) == (0, b"")
    said = done.stdout.decode(encoding)
    assert "(* train, o test)" in said
    assert "2 replica x 21 step" in said or "2 replica × 21 step" in said
    plain = drawn(said.replace("*", "•"))
    assert plain[1] == drawn(report(open_trajectory(folder / "sgd0.nc")))[1]


def test_letters_that_nobody_foresaw_become_question_marks(monkeypatch, tmp_path):
    with (tmp_path / "out").open("w", encoding="ascii") as file:
        monkeypatch.setattr(sys, "stdout", file)
        say("A∥ = A₀ + D∥, σ_λ² ± ξ")
    assert (tmp_path / "out").read_text().strip() == "A_parallel = A0 + D_parallel, sigma_lambda2 +- ?"


def test_a_reader_that_has_seen_enough_ends_it_quietly(folder):
    """The pipe is closed before anything is written, which is when it hurts most."""
    reading, writing = os.pipe()
    os.close(reading)
    line = [sys.executable, "-m", "langevin_nn", "info", "sgd0.nc"]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    with os.fdopen(writing, "wb") as pipe:
        done = subprocess.run(
            line, stdout=pipe, stderr=subprocess.PIPE, cwd=folder, env=environment, timeout=120, check=False
        )
    assert done.stderr == b""
    assert done.returncode == 0


def test_a_table_of_gradient_descent_without_epochs_is_exported(command, tmp_path):
    simulate(gradient_descent(digits_landscape(N), ALPHA), steps=2, observables=Losses(), path=tmp_path / "run.nc")
    assert command("info", tmp_path / "run.nc")[0] == 0
    assert command("export", tmp_path / "run.nc")[0] == 0
