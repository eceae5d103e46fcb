"""Studies as commands: what they write, what they say, and how bad input ends."""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from langevin_nn.errors import ConfigurationError
from studies import compare_sgd_vs_langevin as study
from studies.command import BAD_INPUT, DIVERGED, FAILED, Command, Output, guarded, placed
from studies.paper.folder import begin, finish

SMALL = ["--samples-per-class", "6", "--hidden", "8", "--epochs", "3", "--batch-size", "10", "--replicas", "2"]


STUDIES = tuple(
    sorted(path.stem for path in Path(study.__file__).parent.glob("*.py") if "\nmain = Command(" in path.read_text())
)


@pytest.fixture(scope="module")
def small_run(tmp_path_factory):
    out = tmp_path_factory.mktemp("study")
    assert study.main([*SMALL, "--out", str(out)]) == 0
    return out


def test_trajectories_open_with_plain_xarray(small_run):
    with xr.open_dataset(small_run / "trajectories.nc") as root:
        assert root.sizes["process"] == 5
        assert list(root.process.values) == ["sgd", "sgd_null", "langevin", "isotropic_langevin", "gradient_descent"]
        assert {"train_loss", "test_error", "alignment", "update_count"} <= set(root.data_vars)
        choices = json.loads(root.attrs["config_json"])["choices"]
        assert choices["label_noise"] == 0.5
        assert choices["replicas"] == 2


def test_replicas_start_from_the_same_weights_and_nothing_else_is_shared(small_run):
    with xr.open_dataset(small_run / "trajectories.nc") as root:
        loss = root.train_loss.sel(cohort="all")
        start, end = loss.isel(step=0), loss.isel(step=-1)
        assert (start == start.sel(process="sgd")).all()
        assert len(np.unique(end)) == end.size


def test_summary_has_the_documented_keys(small_run):
    summary = json.loads((small_run / "summary.json").read_text())
    assert set(summary) == {
        "summary_version", "reference", "null", "replicas", "distance", "excess", "relation", "follows", "tolerance",
        "reached_share", "sample_trace", "sample_trace_epoch", "phase_boundary_epoch", "final", "configuration", "seconds",
        "told_apart", "record_interval_epochs", "needed",
    }  # fmt: skip
    documented = (study.Path(study.__file__).parent.parent / "docs" / "summary.md").read_text()
    assert all(f"`{key}`" in documented for key in summary)
    for clock in ("equal_time", "equal_loss"):
        for process in ("sgd_null", "langevin", "isotropic_langevin", "gradient_descent"):
            assert set(summary["distance"][clock][process]["mean"]) == {
                "value", "standard_error", "lower", "upper", "count",
            }  # fmt: skip


def test_the_verdict_is_said_for_each_process(small_run, tmp_path, capsys):
    assert study.main([*SMALL, "--out", str(tmp_path)]) == 0
    said = capsys.readouterr().out
    for words in (
        "passed through",
        "of 4 phases of learning: I",
        "matched Gaussian",
        "isotropic",
        "gradient descent",
        "null",
        "mean over 2 replicas",
    ):
        assert words in said
    again, first = (xr.open_datatree(path / "trajectories.nc").load() for path in (tmp_path, small_run))
    for group in first.groups:
        xr.testing.assert_identical(
            first[group].to_dataset().drop_attrs(deep=False), again[group].to_dataset().drop_attrs(deep=False)
        )
    again.close()
    first.close()


BAD = {
    "batch larger than the data": (["--batch-size", "61"], r"batch_size=61 with 60 training samples: expected 1 to 60"),
    "batch of all the data": (["--batch-size", "60"], r"batch_size=60 with 60 training samples: expected 1 to 59"),
    "a matrix on the command line": (["--label-noise-kind", "transition"], r"expected one of uniform, exclusive"),
    "label noise beyond 1": (["--label-noise", "1.5"], r"label_noise.*0 to 1, got 1\.5"),
    "label noise not a number": (["--label-noise", "nan"], r"label.noise.*nan"),
    "no label left": (
        ["--label-noise", "1", "--label-noise-kind", "exclusive"],
        r"no sample of a replica has its true",
    ),
    "unknown data set": (["--dataset", "minst"], r"minst.*digits, mnist, mnist10k, cifar10"),
    "unknown label noise": (["--label-noise-kind", "odd"], r"odd.*uniform"),
    "missing data folder": (["--dataset", "mnist10k", "--data-dir", "/nowhere/at/all"], r"/nowhere/at/all"),
    "one replica": (["--replicas", "1"], r"replicas=1: expected at least 2"),
    "no time at all": (["--epochs", "0"], r"epochs=0"),
    "negative learning rate": (["--learning-rate", "-1"], r"learning_rate=-1.0: expected a positive"),
    "momentum of one": (["--momentum", "1"], r"momentum=1.0"),
    "unknown tensor": (["--parameters", "9.weight"], r"9\.weight.*0\.weight"),
    "too many samples": (["--samples-per-class", "500"], r"500"),
    "unknown process": (["--processes", "sgdd"], r"unknown process 'sgdd': expected one of sgd, langevin"),
    "endless": (["--epochs", "inf"], r"epochs=inf: expected a positive, finite number"),
    "no records": (["--records", "0"], r"records=0: expected at least one"),
    "no hidden units": (["--hidden", "0"], r"0"),
}


@pytest.mark.filterwarnings("ignore::langevin_nn.errors.AllMislabeledWarning")
@pytest.mark.parametrize(("arguments", "expected"), BAD.values(), ids=BAD.keys())
def test_bad_input_ends_in_one_line_and_exit_code_2(arguments, expected, refused):
    assert re.search(expected, refused(study.main, [*SMALL, *arguments]))


def test_an_output_folder_that_cannot_be_made_is_found_before_anything_runs(tmp_path, capsys):
    (tmp_path / "file").write_text("in the way")
    assert study.main([*SMALL, "--out", str(tmp_path / "file" / "out")]) == BAD_INPUT
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert "cannot be written" in line


def test_a_missing_gpu_is_said(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(study.torch.cuda, "is_available", lambda: False)
    assert study.main([*SMALL, "--device", "cuda", "--out", str(tmp_path)]) == BAD_INPUT
    assert "found none" in capsys.readouterr().err


def test_divergence_ends_with_code_3_the_step_and_everything_until_then(tmp_path, capsys):
    arguments = [*SMALL, "--learning-rate", "1e30", "--out", str(tmp_path)]
    assert study.main(arguments) == DIVERGED
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert "non-finite at step" in line
    assert str(tmp_path) in line
    with xr.open_dataset(tmp_path / "sgd.nc") as saved:
        assert saved.attrs["complete"] == 0
        assert saved.sizes["step"] >= 1
        assert np.isfinite(saved.train_loss.sel(cohort="all")).all()


def test_a_fault_of_the_study_is_one_line_and_its_traceback_is_kept(tmp_path, capsys):
    def broken():
        raise ZeroDivisionError("by\nnothing")

    for out in (tmp_path, tmp_path / "nowhere"):
        assert guarded(broken, out) == FAILED
        line, *rest = capsys.readouterr().err.splitlines()
        assert line.startswith("error: ZeroDivisionError: by nothing: a fault of the study")
        assert rest[-2:] == ["ZeroDivisionError: by", "nothing"], "there is nothing yet in which to keep it"
    (tmp_path / "summary.json").write_text("what was found")
    assert guarded(broken, tmp_path) == FAILED
    (line,) = capsys.readouterr().err.splitlines()
    assert f"what was computed is kept in {tmp_path}, and --resume" in line
    assert "ZeroDivisionError" in (tmp_path / "traceback.txt").read_text()
    assert guarded(lambda: None, tmp_path) == 0
    assert [each.name for each in tmp_path.iterdir()] == ["summary.json"]


def test_a_study_may_end_with_an_exit_code_of_its_own(tmp_path):
    assert guarded(lambda: 7, tmp_path) == 7
    assert guarded(lambda: None, tmp_path) == 0


def test_without_label_noise_there_are_two_phases_and_figures_say_what_is_undefined(tmp_path):
    assert study.main([*SMALL, "--label-noise", "0", "--out", str(tmp_path)]) == 0
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert list(summary["phase_boundary_epoch"]["sgd"]) == ["fast_learning|exploration"]


def test_quick_leaves_alone_what_was_chosen():
    chosen = study.Config(quick=True, replicas=5, samples_per_class=7).sized()
    assert (chosen.replicas, chosen.samples_per_class) == (5, 7)
    assert chosen.epochs < study.Config().epochs
    assert study.Config(dataset="mnist").sized().samples_per_class == 400


def test_results_of_an_earlier_run_do_not_lie_beside_those_of_one_that_failed(tmp_path):
    for name in ("trajectories.nc", "summary.json", "distances.nc", "verdict.png"):
        (tmp_path / name).write_text("of an earlier run")
    assert study.main([*SMALL, "--batch-size", "61", "--out", str(tmp_path)]) == BAD_INPUT
    assert study.main([*SMALL, "--batch-size", "61", "--overwrite", "--out", str(tmp_path)]) == BAD_INPUT
    assert study.main([*SMALL, "--learning-rate", "1e30", "--out", str(tmp_path)]) == BAD_INPUT
    assert len(list(tmp_path.iterdir())) == 4, "bad input is found before anything is touched"
    assert study.main([*SMALL, "--learning-rate", "1e30", "--overwrite", "--out", str(tmp_path)]) == DIVERGED
    assert [path.name for path in tmp_path.iterdir()] == ["sgd.nc"]


def contents(folder: Path) -> dict[str, bytes]:
    return {str(each.relative_to(folder)): each.read_bytes() for each in folder.rglob("*") if each.is_file()}


@pytest.mark.parametrize("name", STUDIES)
def test_a_finished_run_is_left_alone_and_the_error_names_both_ways_out(name, tmp_path, capsys):
    module = import_module(f"studies.{name}")
    for each in ("notes.txt", *module.RESULTS):
        (tmp_path / each).write_text("what was found")
    before = contents(tmp_path)

    def refused(*arguments: str) -> str:
        assert module.main(["--quick", *arguments, "--out", str(tmp_path)]) == BAD_INPUT
        (line,) = capsys.readouterr().err.splitlines()
        assert contents(tmp_path) == before
        return str(line)

    said = refused()
    assert f"{str(tmp_path / module.RESULTS[0])!r} is there already" in said
    assert "--resume" in said
    assert "--overwrite" in said
    assert "overwrite and resume were both chosen" in refused("--overwrite", "--resume")
    assert "replicas=0" in refused("--overwrite", "--replicas", "0"), "bad input is found before anything is touched"


@pytest.mark.parametrize("choice", [["--batch-size", "100000"], ["--hidden", "4000", "4000"]], ids=["batch", "network"])
@pytest.mark.parametrize(
    "name", [each for each in STUDIES if "hidden" in vars(import_module(f"studies.{each}").Config)]
)
def test_what_cannot_run_is_refused_before_the_work_begins(name, choice, refused):
    assert "expected" in refused(import_module(f"studies.{name}").main, ["--quick", *choice])


@pytest.mark.parametrize("name", STUDIES)
def test_a_quick_run_has_a_folder_of_its_own(name):
    choices = import_module(f"studies.{name}").Config
    usual = Path("output") / name
    seen: list[Output] = []
    command = Command(name, choices, None, seen.append)
    for arguments in ([], ["--quick"], ["--quick", "--out", str(usual)]):
        assert command(arguments) == 0
    assert [each.out for each in seen] == [usual, Path("output") / f"{name}_quick", usual]
    assert placed(seen[1]) == seen[1]


def keeps_what_was_found(start: Callable[..., Path], out: Path) -> None:
    """A run has ended; another one is begun, and must be refused."""
    config = Output(out=out)
    runs = start(config, "made_up", ("summary.json",))
    (runs / "part.nc").write_text("all of the work")
    finish({}, config, "made_up", out, 1.0)
    with contextlib.suppress(ConfigurationError):
        start(config, "made_up", ("summary.json",))
    assert (runs / "part.nc").exists()
    assert (out / "summary.json").exists()


def test_a_twin_that_clears_the_folder_when_it_begins_is_caught(tmp_path):
    def clears(config: Output, name: str, results: tuple[str, ...]) -> Path:
        shutil.rmtree(config.out / "runs", ignore_errors=True)
        (config.out / "summary.json").unlink(missing_ok=True)
        return begin(config, name, results)

    keeps_what_was_found(begin, tmp_path / "ours")
    with pytest.raises(AssertionError):
        keeps_what_was_found(clears, tmp_path / "twin")


@pytest.mark.parametrize("fails", ["analyze", "save_figures"])
def test_what_was_computed_outlives_a_fault_and_is_analysed_again(fails, small_run, tmp_path, capsys, monkeypatch):
    out = shutil.copytree(small_run, tmp_path / "out")
    before = contents(out)
    (out / "summary.json").unlink()
    module = {"analyze": sys.modules["langevin_nn.compare"], "save_figures": study}[fails]
    with monkeypatch.context() as context:
        context.setattr(module, fails, lambda *each, **options: 1 / 0)
        assert study.main([*SMALL, "--resume", "--out", str(out)]) == FAILED
    (line,) = capsys.readouterr().err.splitlines()
    assert f"kept in {out}, and --resume with the same choices makes the analysis again" in line
    assert contents(out)["trajectories.nc"] == before["trajectories.nc"]
    assert (out / "summary.json").exists() == (fails == "save_figures"), "the summary does not wait for figures"
    assert study.main([*SMALL, "--resume", "--out", str(out)]) == 0
    assert contents(out).keys() == before.keys()


def test_distances_over_both_clocks_are_written(small_run):
    with xr.open_datatree(small_run / "distances.nc") as distances:
        assert distances["equal_time"].difference.dims == ("quantity", "process", "step")
        assert "loss_level" in distances["equal_loss"].difference.dims


def test_the_verdict_can_be_read_from_the_file_alone(small_run):
    from langevin_nn.analyzers import analyze
    from langevin_nn.report import verdict
    from langevin_nn.store import open_trajectory

    summary = json.loads((small_run / "summary.json").read_text())
    assert verdict(summary) == verdict(analyze(open_trajectory(small_run / "trajectories.nc")).summary)
