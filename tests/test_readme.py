"""Every command and every example of the README runs."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest
from cases import assert_json

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
COMMANDS = [line for block in re.findall(r"```sh\n(.*?)```", README, re.DOTALL) for line in block.splitlines() if line]
COMMANDS += re.findall(r"`(\.venv/bin/python [^`]+)`", README)
# This very run is `make test`, and what `make study` runs is another of the commands.
PAPER = ("two_phases", "label_noise_phases", "label_noise_sweep", "cleaning")
FRONT_DOOR = ".venv/bin/python -m studies.compare_sgd_vs_langevin --quick"
RUN = [command for command in COMMANDS if command not in ("make test", FRONT_DOOR)]


def as_run_here(command: str, out: Path) -> list[str]:
    """The same command with this environment instead of a new one, and the study in its --quick form."""
    if command.startswith("make "):
        venv = Path(sys.prefix)
        there = [f"--old-file={venv / name}" for name in ("installed", "compared")]
        return [*command.split(), f"VENV={venv}", *there, f"ARGS=--quick --out {out}"]
    words = command.replace(".venv/bin/python", sys.executable).split()
    if "--help" in words or words[-1] == "studies":
        return words
    return [*words, *([] if "--quick" in words else ["--quick"]), "--out", str(out)]


def test_the_readme_has_the_two_commands():
    assert COMMANDS[:2] == ["make study", "make test"]
    assert FRONT_DOOR in COMMANDS


def test_make_study_runs_the_front_door():
    command = ["make", "--no-print-directory", "--dry-run", "--old-file=.venv/installed", "study", "ARGS=--quick"]
    told = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert told.strip() == FRONT_DOOR


@pytest.mark.parametrize("command", RUN)
def test_command(command, tmp_path, quick_run):
    """Of the paper each study runs once in the suite; the report finds it done."""
    shared = re.fullmatch(r"\.venv/bin/python -m studies\.(\w+) --quick", command)
    if shared and shared[1] in ("is_the_sde_valid", "phase_diagram"):
        out, said = quick_run(shared[1])
        assert_done(command, out, said)
        return
    if command == "make paper":
        for study in PAPER:
            shutil.copytree(quick_run(study)[0], tmp_path / "out" / study)
    environment = {**os.environ, "PYTHONWARNINGS": "error::FutureWarning"}
    done = subprocess.run(
        as_run_here(command, tmp_path / "out"), cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    if "--help" in command:
        assert "--label-noise" in done.stdout
        assert "gradient-flow time" in done.stdout
        return
    if command.endswith("-m studies"):
        assert "compare_sgd_vs_langevin" in done.stdout
        return
    assert_done(command, tmp_path / "out", done.stdout)


def results_of(name: str) -> tuple[str, ...]:
    module = import_module(f"studies.{name}.study")
    return module.STUDY.results if hasattr(module, "STUDY") else module.RESULTS


def assert_done(command: str, out: Path, said: str) -> None:
    """What a command has said and written is what the README says of it."""
    names = {path.name for path in out.iterdir()}
    if "paper" not in command:  # those are looked at where they are run
        assert_json(out)
    if "flat_minima" in command:
        assert "wide valley" in said
        assert names == {"runs", "rates.nc", "summary.json", "flat_minima.png"}
    elif "paper" in command:
        assert re.search(r"not measured +The same phases appear on CIFAR-10", said)
        assert names == {"report.html", *PAPER}
        for each in PAPER:
            written = {path.name for path in (out / each).iterdir()}
            assert written == {"runs", "reproduced.json", *results_of(each)}
    elif "phase_diagram" in command:
        assert "Collapse" in said
        assert names == {"runs", "phases.nc", "summary.json"} | {
            f"{name}.png" for name in ("phase_diagram", "collapse", "finite_size")
        }
    elif "is_the_sde_valid" in command:
        assert "The equation (Gaussian noise of covariance C, a quarter of the step) against shuffled SGD" in said
        pictures = {f"{name}.png" for name in ("verdicts", "distances", "ladder", "conditions", "noise")}
        assert names == {"runs", "validity.nc", "summary.json"} | pictures
    else:
        assert "follow" in said
        pictures = {"verdict.png", "training.png", "order_parameters.png", "distances.png", "spectra.png"}
        assert names == {"trajectories.nc", "distances.nc", "summary.json"} | pictures


def test_without_the_constraints_file_pip_is_free_to_choose_a_gpu_build():
    told = subprocess.run(
        ["make", "--dry-run", "--always-make", "study", "CONSTRAINTS="],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert "pip install" in told
    assert "--constraint" not in told
    usual = subprocess.run(
        ["make", "--dry-run", "--always-make", "study"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    assert "--constraint constraints.txt" in usual


def test_examples(tmp_path, monkeypatch, capsys):
    """The Python examples run one after the other, as a reader would type them."""
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    for block in re.findall(r"```python\n(.*?)```", README, re.DOTALL):
        exec(compile(block, "README.md", "exec"), names)
    assert "follow" in capsys.readouterr().out


def test_links_lead_somewhere():
    for target in re.findall(r"\]\(([^)]+)\)", README):
        file, _, heading = target.partition("#")
        assert target.startswith("https://") or (ROOT / file).exists(), target
        if heading:
            headings = re.findall(r"^#+ (.+)$", (ROOT / file).read_text(), re.MULTILINE)
            assert heading in [re.sub(r"[^\w -]", "", each).lower().replace(" ", "-") for each in headings], target
