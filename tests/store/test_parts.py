"""Works in parts: what is found again, what is refused, what each part is said to be, whoever died meanwhile."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest
import xarray as xr
from cases import digits_landscape
from test_results_that_are_there import planned
from test_resume import COMPARED, Stopped, breaking_in

from langevin_nn import compare, sweep
from langevin_nn.__main__ import main
from langevin_nn.errors import ConfigurationError, ResumedElsewhereWarning, UnstableTrajectory
from langevin_nn.provenance import attributes, versions
from langevin_nn.store import write_trajectory
from langevin_nn.store.lock import this_process
from langevin_nn.store.parts import Parts, is_alive

WORK = {"study": "numbers", "choices": {"seed": 0}}


def begun(out: Path, work=WORK, **options) -> Parts:
    return Parts.begin(out / "runs", work, results=[out / "numbers.nc", out / "summary.json"], **options)


def number(value: float) -> xr.Dataset:
    return xr.Dataset({"x": value})


def test_a_part_is_made_once_and_found_by_the_same_work_alone(tmp_path):
    parts = begun(tmp_path)
    assert parts.kept("one", lambda: number(1.0)).x == 1.0
    with pytest.raises(ConfigurationError, match="holds a run that did not end"):
        begun(tmp_path)
    with pytest.raises(ConfigurationError, match="holds a run that did not end"):
        begun(tmp_path, overwrite=True)
    with pytest.raises(ConfigurationError, match=r"another configuration: choices\.seed: 0 there, 1 now"):
        begun(tmp_path, {"study": "numbers", "choices": {"seed": 1}}, resume=True)
    again = begun(tmp_path, resume=True)
    assert again.kept("one", lambda: 1 / 0).x == 1.0
    assert main(["validate", str(again.path("one"))]) == 0
    assert json.loads(again.kept("one", dict).attrs["config_json"]).items() >= WORK.items()
    assert not again.is_done
    (tmp_path / "summary.json").write_text("{}")
    assert again.is_done
    with pytest.raises(ConfigurationError, match=r"summary\.json' is there already.*overwrite=True"):
        begun(tmp_path)
    anew = begun(tmp_path, {"study": "numbers", "choices": {"seed": 1}}, overwrite=True)
    assert not (tmp_path / "summary.json").exists()
    assert anew.statuses() == {}


def test_what_a_part_is_said_to_be(tmp_path):
    """By its own word, or by the files of a run alone."""
    parts = begun(tmp_path, keys=("later",))
    with pytest.raises(ZeroDivisionError):
        parts.kept("wrong", lambda: number(1 / 0))
    with pytest.raises(KeyboardInterrupt):
        parts.kept("stopped", lambda: (_ for _ in ()).throw(KeyboardInterrupt))
    planned(0).run(resume=parts.path("whole"))
    script = f"""
import os, signal
from langevin_nn.provenance import attributes, versions
from langevin_nn.store import write_trajectory
from langevin_nn.store.parts import Parts
import xarray as xr
Parts({str(tmp_path / "runs")!r}).kept("killed", lambda: os.kill(os.getpid(), signal.SIGKILL))
"""
    assert subprocess.run([sys.executable, "-c", script], check=False, timeout=60).returncode == -signal.SIGKILL
    found = parts.statuses()
    states = {"wrong": "failed", "stopped": "stopped", "whole": "done", "killed": "running"}
    assert {key: each["state"] for key, each in found.items()} == states
    assert "ZeroDivisionError: division by zero" in found["wrong"]["error"]
    assert parts.status("later") is None
    assert parts.kept("wrong", lambda: number(2.0)).x == 2.0
    assert parts.status("wrong")["state"] == "done"
    for name in ("", "../one", ".one", "configuration"):
        with pytest.raises(ConfigurationError, match="expected a name that can be a file's"):
            parts.path(name)


def test_any_work_in_parts_is_shown(tmp_path, capsys):
    parts = begun(tmp_path, keys=("one", "two", "three"))
    parts.kept("one", lambda: number(1.0))
    parts.say("two", "running")
    sweep(number, {"value": [1.0, 2.0]}, tmp_path / "runs" / "grid", workers=1)
    for command in (["info", str(tmp_path)], ["watch", str(tmp_path), "--once"]):
        assert main(command) == 0
        said = capsys.readouterr().out
        assert "numbers: 1 of 3 parts done, 1 running, 0 failed, 1 waiting" in said
        assert ":number: 2 of 2 points done" in said
        assert re.search(r"about \d+ s remain, at [\d.e-]+ s a part on 1 worker", said)
        assert re.search(r"running since [\d:]{8}: part two, \d+ s", said)
    (tmp_path / "summary.json").write_text("{}")
    assert main(["watch", str(tmp_path)]) == 0, "it ends by itself where the results are there"


def test_a_study_s_folder_of_before_is_taken_up(tmp_path):
    """It said what the work is, and nothing of parts."""
    about = tmp_path / "runs" / "configuration.json"
    about.parent.mkdir()
    about.write_text(json.dumps({**WORK, "versions": versions()}))
    xr.DataTree(number(1.0)).to_netcdf(tmp_path / "runs" / "one.nc")
    parts = begun(tmp_path, resume=True)
    assert parts.kept("one", lambda: 1 / 0).x == 1.0
    assert parts.status("one")["state"] == "done"
    about.unlink()
    with pytest.raises(ConfigurationError, match="do not say of which run they are"):
        begun(tmp_path, resume=True)


def keeps_what_was_found(begin, out: Path) -> None:
    """A work has ended; another one is begun, and must be refused."""
    begin(out).kept("one", lambda: number(1.0))
    (out / "summary.json").write_text("{}")
    with suppress(ConfigurationError):
        begin(out)
    assert (out / "runs" / "one.nc").exists()
    assert (out / "summary.json").exists()


def test_a_twin_that_clears_the_folder_when_it_begins_is_caught(tmp_path):
    def clears(out: Path) -> Parts:
        shutil.rmtree(out / "runs", ignore_errors=True)
        (out / "summary.json").unlink(missing_ok=True)
        return begun(out)

    keeps_what_was_found(begun, tmp_path / "ours")
    with pytest.raises(AssertionError):
        keeps_what_was_found(clears, tmp_path / "twin")


def test_a_comparison_says_what_it_is_while_it_runs(tmp_path, monkeypatch, capsys):
    with monkeypatch.context() as context:
        breaking_in(context, "sgd_null", 5)
        with pytest.raises(Stopped):
            compare(digits_landscape(), **COMPARED, out=tmp_path)
    assert main(["info", str(tmp_path)]) == 0
    said = capsys.readouterr().out
    assert "sgd, sgd_null, gradient_descent: 1 of 3 parts done, 0 running, 0 failed, 2 waiting" in said
    (tmp_path / "notes.txt").write_text("of the user's own")
    compare(digits_landscape(), **COMPARED, out=tmp_path, resume=True)
    assert sorted(os.listdir(tmp_path)) == ["notes.txt", "trajectories.nc"]


def test_a_comparison_leaves_alone_what_is_not_its_own(tmp_path):
    for name in ("sgd.json", "gradient_descent.json"):
        (tmp_path / name).write_text("of the user's own")
    planned(0).run(path=tmp_path / "gradient_descent.nc")
    with pytest.raises(ConfigurationError, match="holds a run that did not end"):
        compare(digits_landscape(), **COMPARED, out=tmp_path)
    (tmp_path / "gradient_descent.nc").unlink()
    compare(digits_landscape(), **COMPARED, out=tmp_path)
    assert sorted(os.listdir(tmp_path)) == ["gradient_descent.json", "sgd.json", "trajectories.nc"]


def test_results_whose_parts_are_gone_are_made_again(tmp_path):
    begun(tmp_path).kept("one", lambda: number(1.0))
    write_trajectory(xr.DataTree(number(2.0).assign_attrs(attributes(WORK))), tmp_path / "numbers.nc")
    (tmp_path / "summary.json").write_text("{}")
    shutil.rmtree(tmp_path / "runs")
    with pytest.raises(ConfigurationError, match="another configuration"):
        begun(tmp_path, {**WORK, "study": "others"}, resume=True)
    assert begun(tmp_path, resume=True).kept("one", lambda: number(3.0)).x == 3.0


def test_a_process_is_alive_by_its_number_and_its_start(monkeypatch):
    own = this_process()
    assert is_alive(own)
    assert not is_alive({**own, "host": "elsewhere"})
    assert not is_alive({"host": own["host"]})
    assert not is_alive({**own, "process_start": "1"}), "another one has its number by now"

    def refused(process, signal):
        raise PermissionError

    monkeypatch.setattr(os, "kill", refused)
    assert is_alive(own), "somebody else's process lives, too"


def test_two_that_make_a_part_at_once_agree_that_it_is_done(tmp_path):
    parts = begun(tmp_path)

    def meanwhile():
        Parts(parts.folder).kept("one", lambda: number(1.0))
        return number(2.0)

    assert parts.kept("one", meanwhile).x == 1.0
    parts.say("one", "running")  # one that was killed when its file was there
    assert parts.kept("one", lambda: 1 / 0).x == 1.0
    assert parts.status("one")["state"] == "done"


def test_a_comparison_that_diverged_has_had_its_day(tmp_path, capsys):
    """It may be replaced without a word by one that does not, and cannot be gone on with."""
    wild = {**COMPARED, "learning_rate": 1e30}
    with pytest.raises(UnstableTrajectory):
        compare(digits_landscape(), **wild, out=tmp_path)
    assert main(["info", str(tmp_path)]) == 0
    assert "2 failed" in capsys.readouterr().out
    for _ in range(2):
        with pytest.raises(ConfigurationError, match="by a divergence"):
            compare(digits_landscape(), **wild, out=tmp_path, resume=True)
    compare(digits_landscape(), **COMPARED, out=tmp_path)
    assert os.listdir(tmp_path) == ["trajectories.nc"]


def test_an_index_holds_what_described_the_work(tmp_path):
    begun(tmp_path, keys=("one",))
    known = json.loads((tmp_path / "runs" / "configuration.json").read_text())
    assert WORK.items() <= known.items()
    assert "numba" in known["versions"]
    assert known["parts"] == {"keys": ["one"], "results": ["../numbers.nc", "../summary.json"]}
    known["versions"]["numba"] = "0.1"
    (tmp_path / "runs" / "configuration.json").write_text(json.dumps(known))
    with pytest.warns(ResumedElsewhereWarning, match=r"numba 0\.1 there"):
        begun(tmp_path, keys=("one",), resume=True)
