"""Fixtures shared by the suite: small networks on real digits, runs of studies, and one profile for hypothesis."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import matplotlib
import numpy as np
import pytest
import torch
from cases import ROOT, assert_json, digits_landscape
from filelock import FileLock
from hypothesis import settings

from langevin_nn.threads import single_threaded_products
from studies.lab.command import BAD_INPUT

matplotlib.use("Agg")

# Reproducible everywhere: no example database, no clock. `make test ARGS=--hypothesis-profile=thorough` looks longer.
settings.register_profile("suite", deadline=None, derandomize=True, database=None, max_examples=30)
settings.register_profile("thorough", settings.get_profile("suite"), max_examples=300)
settings.load_profile("suite")


@pytest.fixture(scope="session")
def digits():
    """Sixty of them; whoever asks must not change it."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return digits_landscape(60)


@pytest.fixture
def landscape():
    return digits_landscape()


@pytest.fixture
def generator():
    return np.random.default_rng(20211)


@pytest.fixture(scope="module")
def one_thread():
    """Matrices this small are slower on more threads, by far where other processes want the cores, too."""
    with single_threaded_products():
        yield


# Their runs go over processes; the default of --quick is one.
OVER_WORKERS = ("is_the_sde_valid", "phase_diagram")


@pytest.fixture(scope="session")
def quick_run(tmp_path_factory) -> Callable[[str], tuple[Path, str]]:
    """Give a copy of what a study's --quick writes, and what it says; it runs once, whichever worker asks first."""
    base = tmp_path_factory.getbasetemp()
    shared = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "quick_runs"
    shared.mkdir(exist_ok=True)

    def copy(study: str) -> tuple[Path, str]:
        original, said = shared / study, shared / f"{study}.txt"
        with FileLock(shared / f"{study}.lock"):
            if not said.exists():
                shutil.rmtree(original, ignore_errors=True)
                command = [sys.executable, "-m", f"studies.{study}", "--quick", "--out", str(original)]
                command += ["--workers", "2"] if study in OVER_WORKERS else []
                environment = {**os.environ, "PYTHONWARNINGS": "error::FutureWarning"}
                done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
                assert done.returncode == 0, done.stderr
                assert_json(original)
                said.write_text(done.stdout)
        return shutil.copytree(original, tmp_path_factory.mktemp(study) / "out"), said.read_text()

    return copy


@pytest.fixture
def refused(tmp_path, capsys) -> Callable[[Callable[[list[str]], int], list[str]], str]:
    """Give the one line with which a study refuses its choices before anything is written."""

    def line_of(main: Callable[[list[str]], int], arguments: list[str]) -> str:
        out = tmp_path / "refused"
        assert main([*arguments, "--out", str(out)]) == BAD_INPUT
        said = capsys.readouterr()
        (line,) = said.err.splitlines()
        assert line.startswith("error: ")
        assert not out.exists() or not list(out.iterdir())
        return line

    return line_of


@pytest.fixture(autouse=True)
def _own_global_state():
    """Each test has torch's global generator to itself, and must leave the number of threads as it was."""
    before = torch.get_num_threads()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield
    assert torch.get_num_threads() == before, "torch's number of threads was left changed"
