"""Studies as commands: what they write, what they say, and how bad input ends."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from contextlib import redirect_stdout
from importlib import import_module
from io import StringIO
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from langevin_nn.__main__ import main as library
from studies.compare_sgd_vs_langevin import study
from studies.lab import study as frame
from studies.lab.command import BAD_INPUT, DIVERGED, FAILED, INTERRUPTED, Command, Output, guarded, placed

ROOT = Path(study.__file__).parents[2]
SMALL = ["--samples-per-class", "6", "--hidden", "8", "--epochs", "3", "--batch-size", "10", "--replicas", "2"]


STUDIES = tuple(sorted(path.parent.name for path in Path(study.__file__).parent.parent.glob("*/__main__.py")))


def main_of(name: str) -> Callable[[list[str]], int]:
    module = import_module(f"studies.{name}.study")
    return getattr(module, "STUDY", module).main


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """Where a short run wrote, and what it said."""
    out, said = tmp_path_factory.mktemp("study"), StringIO()
    with redirect_stdout(said):
        assert study.STUDY.main([*SMALL, "--out", str(out)]) == 0
    return out, said.getvalue()


@pytest.fixture(scope="module")
def small_run(small):
    return small[0]


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


SETTLED = [name for name in STUDIES if hasattr(import_module(f"studies.{name}.study"), "STUDY")]


@pytest.mark.parametrize("name", SETTLED)
def test_every_study_writes_one_documented_summary_and_files_that_say_what_they_are(name, quick_run):
    out, said = quick_run(name)
    summary = json.loads((out / "summary.json").read_text())
    whole, *sections = re.split(r"^## ", (ROOT / "docs" / "summary.md").read_text(), flags=re.MULTILINE)
    (own,) = (each for each in sections if each.splitlines()[0] == name)
    documented = [
        set(re.findall(r"`(\w+)`", " ".join(re.findall(r"^\| (.*?) \|", words, re.MULTILINE))))
        for words in (whole, own)
    ]
    assert [set(summary), set(summary["found"])] == documented
    assert summary["study"] == name
    assert "\n".join(summary["verdict"]) in said
    assert {each.name for each in out.iterdir()} - {"runs"} == set(import_module(f"studies.{name}.study").STUDY.results)
    for path in sorted(out.rglob("*.nc")):
        with xr.open_dataset(path) as root:
            assert len(root.data_vars) or "xarray.open_dataset(path, group=...)" in root.attrs["comment"], path
        assert library(["validate", str(path)]) == 0
        assert library(["info", str(path)]) == 0


@pytest.mark.parametrize("name", SETTLED)
def test_going_on_finds_everything_done_and_says_the_same(name, quick_run, capsys):
    out, said = quick_run(name)

    def state() -> tuple[dict[Path, int], dict[str, object]]:
        files = {path: path.stat().st_mtime_ns for path in (out / "runs").rglob("*.nc")}
        told = {path.name: json.loads(path.read_text()) for path in out.glob("*.json")}
        return files, told | {"summary.json": {**told["summary.json"], "seconds": 0}}

    before = state()
    assert main_of(name)(["--quick", "--resume", "--out", str(out)]) == 0
    assert state() == before
    assert capsys.readouterr().out.splitlines()[-3::-1] == said.splitlines()[-3::-1], "all but where results are"


def test_figures_of_the_front_door_are_over_both_clocks(small_run):
    found = json.loads((small_run / "summary.json").read_text())["found"]
    for clock in ("equal_time", "equal_loss"):
        for process in ("sgd_null", "langevin", "isotropic_langevin", "gradient_descent"):
            assert set(found["distance"][clock][process]["mean"]) == {
                "value", "standard_error", "lower", "upper", "count",
            }  # fmt: skip


def test_the_verdict_is_said_for_each_process(small):
    for words in (
        "passed through",
        "of 4 phases of learning: I",
        "matched Gaussian",
        "isotropic",
        "gradient descent",
        "null",
        "mean over 2 replicas",
    ):
        assert words in small[1]


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
    assert re.search(expected, refused(study.STUDY.main, [*SMALL, *arguments]))


def test_an_output_folder_that_cannot_be_made_is_found_before_anything_runs(tmp_path, capsys):
    (tmp_path / "file").write_text("in the way")
    assert study.STUDY.main([*SMALL, "--out", str(tmp_path / "file" / "out")]) == BAD_INPUT
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert "cannot be written" in line


def test_a_missing_gpu_is_said(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert study.STUDY.main([*SMALL, "--device", "cuda", "--out", str(tmp_path)]) == BAD_INPUT
    assert "found none" in capsys.readouterr().err


def test_divergence_ends_with_code_3_the_step_and_everything_until_then(tmp_path, capsys):
    arguments = [*SMALL, "--learning-rate", "1e30", "--out", str(tmp_path)]
    assert study.STUDY.main(arguments) == DIVERGED
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
    assert study.STUDY.main([*SMALL, "--label-noise", "0", "--out", str(tmp_path)]) == 0
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert list(summary["found"]["phase_boundary_epoch"]["sgd"]) == ["fast_learning|exploration"]


def test_results_of_an_earlier_run_do_not_lie_beside_those_of_one_that_failed(tmp_path):
    for name in ("trajectories.nc", "summary.json", "distances.nc", "verdict.png"):
        (tmp_path / name).write_text("of an earlier run")
    assert study.STUDY.main([*SMALL, "--batch-size", "61", "--out", str(tmp_path)]) == BAD_INPUT
    assert study.STUDY.main([*SMALL, "--batch-size", "61", "--overwrite", "--out", str(tmp_path)]) == BAD_INPUT
    assert study.STUDY.main([*SMALL, "--learning-rate", "1e30", "--out", str(tmp_path)]) == BAD_INPUT
    assert len(list(tmp_path.iterdir())) == 4, "bad input is found before anything is touched"
    assert study.STUDY.main([*SMALL, "--learning-rate", "1e30", "--overwrite", "--out", str(tmp_path)]) == DIVERGED
    assert sorted(path.name for path in tmp_path.iterdir()) == ["experiment.json", "sgd.nc", "sgd_null.nc"]


def contents(folder: Path) -> dict[str, bytes]:
    return {str(each.relative_to(folder)): each.read_bytes() for each in folder.rglob("*") if each.is_file()}


@pytest.mark.parametrize("name", STUDIES)
def test_a_finished_run_is_left_alone_and_the_error_names_both_ways_out(name, tmp_path, capsys):
    module = import_module(f"studies.{name}.study")
    results, main = (
        (module.STUDY.results, module.STUDY.main) if hasattr(module, "STUDY") else (module.RESULTS, module.main)
    )
    for each in ("notes.txt", *results):
        (tmp_path / each).write_text("what was found")
    before = contents(tmp_path)

    def refused(*arguments: str) -> str:
        assert main(["--quick", *arguments, "--out", str(tmp_path)]) == BAD_INPUT
        (line,) = capsys.readouterr().err.splitlines()
        assert contents(tmp_path) == before
        return str(line)

    said = refused()
    assert f"{str(tmp_path / results[0])!r} is there already" in said
    assert "--resume" in said
    assert "--overwrite" in said
    assert "overwrite and resume were both chosen" in refused("--overwrite", "--resume")
    assert "replicas=0" in refused("--overwrite", "--replicas", "0"), "bad input is found before anything is touched"


@pytest.mark.parametrize("choice", [["--batch-size", "100000"], ["--hidden", "4000", "4000"]], ids=["batch", "network"])
@pytest.mark.parametrize(
    "name", [each for each in STUDIES if "hidden" in vars(import_module(f"studies.{each}.study").Config)]
)
def test_what_cannot_run_is_refused_before_the_work_begins(name, choice, refused):
    assert "expected" in refused(main_of(name), ["--quick", *choice])


@pytest.mark.parametrize("name", STUDIES)
def test_help_begins_with_the_question(name, capsys):
    with pytest.raises(SystemExit):
        main_of(name)(["--help"])
    first, *_ = sys.modules[f"studies.{name}.study"].__doc__.split("\n\n")
    assert " ".join(first.split()) in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize("name", STUDIES)
def test_a_quick_run_has_a_folder_of_its_own(name):
    choices = import_module(f"studies.{name}.study").Config
    usual = Path("output") / name
    seen: list[Output] = []
    command = Command(name, choices, None, seen.append)
    for arguments in ([], ["--quick"], ["--quick", "--out", str(usual)]):
        assert command(arguments) == 0
    assert [each.out for each in seen] == [usual, Path("output") / f"{name}_quick", usual]
    assert placed(seen[1]) == seen[1]


@pytest.mark.parametrize("fails", ["analyze", "write_figures"])
def test_what_was_computed_outlives_a_fault_and_is_analysed_again(fails, small_run, tmp_path, capsys, monkeypatch):
    out = shutil.copytree(small_run, tmp_path / "out")
    before = contents(out)
    (out / "summary.json").unlink()
    module = {"analyze": sys.modules["langevin_nn.run.experiment"], "write_figures": frame}[fails]
    with monkeypatch.context() as context:
        context.setattr(module, fails, lambda *each, **options: 1 / 0)
        assert study.STUDY.main([*SMALL, "--resume", "--out", str(out)]) == FAILED
    (line,) = capsys.readouterr().err.splitlines()
    assert f"kept in {out}, and --resume with the same choices makes the analysis again" in line
    assert contents(out)["trajectories.nc"] == before["trajectories.nc"]
    assert (out / "summary.json").exists() == (fails == "write_figures"), "the summary does not wait for figures"
    assert study.STUDY.main([*SMALL, "--resume", "--out", str(out)]) == 0
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
    assert verdict(summary["found"]) == verdict(analyze(open_trajectory(small_run / "trajectories.nc")).summary)


# --- a study of one's own


@pytest.fixture
def own(tmp_path, monkeypatch):
    """The study that docs/extending_study.md shows, as a file in an empty folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    (text,) = re.findall(
        r"```python\n(# spread\.py\n.*?)```", (ROOT / "docs/extending_study.md").read_text(), re.DOTALL
    )
    assert len(text.splitlines()) <= 60
    Path("spread.py").write_text(text)
    yield import_module("spread")
    del sys.modules["spread"]


def test_a_file_is_a_command(own):
    def called(*arguments: str) -> str:
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        command = [sys.executable, "spread.py", *arguments]
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout

    assert "Results are in output/spread_quick: runs/, spread.nc, summary.json, spread.png." in called("--quick")
    told = called("--help")
    assert told.startswith("usage: python spread.py")
    assert "Replicas of each run." in told
    found = json.loads(Path("output/spread_quick/summary.json").read_text())["found"]
    assert np.allclose(found["spread"], found["predicted"], rtol=0.16)  # five standard errors over 2,000 replicas
    for path in Path("output").rglob("*.nc"):
        assert library(["validate", str(path)]) == library(["info", str(path)]) == 0


def test_a_study_of_ones_own_goes_on_and_replaces_nothing(own, capsys, monkeypatch):
    main, made, simulate = own.Spread().main, [], own.simulate

    def killed(process, **options):
        made.append(process.learning_rate)
        if made == [0.1, 0.3]:
            raise KeyboardInterrupt
        return simulate(process, **options)

    monkeypatch.setattr(own, "simulate", killed)
    assert main(["--quick", "--rates", "3"]) == BAD_INPUT
    assert main(["--quick", "--rates", "0.1", "0.3"]) == INTERRUPTED
    assert main(["--quick", "--rates", "0.1", "0.3"]) == BAD_INPUT
    assert "go on with it (resume=True, --resume)" in capsys.readouterr().err
    assert main(["--quick", "--rates", "0.1", "0.5", "--resume"]) == BAD_INPUT
    assert "choices.rates: [0.1, 0.3] there, [0.1, 0.5] now" in capsys.readouterr().err
    first = Path("output/spread_quick/runs/0.1.nc")
    before = first.stat().st_mtime_ns
    assert main(["--quick", "--rates", "0.1", "0.3", "--resume"]) == 0
    assert first.stat().st_mtime_ns == before
    assert main(["--quick", "--rates", "0.1", "0.3"]) == BAD_INPUT
    assert main(["--quick", "--rates", "0.1", "0.3", "--overwrite"]) == 0
    assert first.stat().st_mtime_ns > before


def test_what_a_study_does_not_say_has_a_default_or_an_error_that_names_it(tmp_path, capsys):
    class Least(frame.Study):
        name, choices = "least", Output
        found = xr.Dataset({"few": ("x", [1.0, np.nan]), "many": ("y", np.zeros(1000))})

        def measure(self, settled, work):
            with work.part("without a plan"):
                return self.found

        def verdict(self, answer):
            return "said"

    answer = Least().run(Output(out=tmp_path))
    assert json.loads((tmp_path / "summary.json").read_text())["found"] == {"few": [1.0, None]}
    assert xr.load_dataset(tmp_path / "found.nc").equals(answer.found)
    for name, said in (
        ("found", "measure() of least returned of type int: expected a Dataset"),
        ("plan", "unknown part of the plan 'without a plan': expected one of other"),
        ("figures", "unknown figure 'other'"),
    ):
        value = {"found": 3}.get(name, lambda *each: {"other": 1.0})
        assert type("Wrong", (Least,), {name: value})().main(["--out", str(tmp_path / name)]) != 0
        assert said in capsys.readouterr().err
