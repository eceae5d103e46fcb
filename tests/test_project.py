"""What holds the project together: metadata that agree, imports that keep to their floors."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from importlib import import_module
from pathlib import Path

import pytest
import yaml

import langevin_nn

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
CITATION = yaml.safe_load((ROOT / "CITATION.cff").read_text())

# From the ground up; a module imports only from floors below its own, or from its own.
FLOORS = (
    ("errors", "former", "identity", "threads"),
    ("checks",),
    ("kernels", "theory"),
    ("memory", "operators", "statistics"),
    ("replicas", "seeds", "schema", "schedules"),
    ("draws", "provenance"),
    ("gradients",),
    ("landscape",),
    ("ensemble",),
    ("curvature", "drift", "noise"),
    ("update",),
    ("process",),
    ("engine",),
    ("surrogate",),
    ("observables",),
    ("store",),
    ("simulate",),
    ("rerun", "sweep"),
    ("analyzers",),
    ("cleaning",),
    ("report",),
    ("compare",),
    ("figures",),
    ("testing",),
)
FLOOR_OF = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}
MODULES = sorted((ROOT / "langevin_nn").rglob("*.py"))


def room_of(path: Path) -> str:
    return path.relative_to(ROOT / "langevin_nn").parts[0].removesuffix(".py")


def imported(path: Path) -> set[str]:
    """Modules that a file imports when it runs; what only type checkers read does not count."""
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and getattr(node.test, "id", "") == "TYPE_CHECKING":
            node.body = []
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add(node.module or "")
    return found


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_modules_import_only_from_their_own_floor_or_below(path):
    room = room_of(path)
    if room in ("__init__", "__main__"):
        return
    for module in imported(path):
        if module.startswith("langevin_nn."):
            other = module.split(".")[1]
            assert other == room or FLOOR_OF[other] < FLOOR_OF[room], f"{room} imports {module}, which is not below it"


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_the_library_knows_nothing_of_models_and_studies_and_draws_in_one_place(path):
    roots = {module.split(".")[0] for module in imported(path)}
    assert not roots & {"models", "studies", "tests"}
    assert "matplotlib" not in roots or room_of(path) == "figures"


# Rooms that say what a process is, and the words of how it is computed; what describes a formula for Numba is no such word.
MEANING = ("drift", "noise", "process", "update")
EXECUTION = re.compile(r"\b(devices?|cuda|gpus?|graphs?|kernels?|captur\w+|batches of runs)\b", re.IGNORECASE)
DESCRIPTIONS = re.compile(r"langevin_nn\.kernels(\.\w+)?")


@pytest.mark.parametrize("room", MEANING)
def test_what_a_process_is_does_not_say_how_it_is_computed(room):
    for path in (path for path in MODULES if room_of(path) == room):
        found = EXECUTION.findall(DESCRIPTIONS.sub("", path.read_text()))
        assert not found, f"{path} speaks of {', '.join(found)}: that belongs into engine/"
        assert not {module.split(".")[0] for module in imported(path)} & {"numba", "threading", "multiprocessing"}


def test_a_word_of_execution_would_be_noticed():
    assert EXECUTION.search("if weights.device.type == 'cuda':")
    assert EXECUTION.search(DESCRIPTIONS.sub("", "runs in a kernel of `langevin_nn.kernels`"))


def test_a_room_without_a_floor_would_be_noticed():
    rooms = {room_of(path) for path in MODULES} - {"__init__", "__main__"}
    assert rooms == set(FLOOR_OF)


def test_slow_modules_are_imported_where_they_are_used():
    code = "import sys, langevin_nn; print(*sys.modules)"
    command = [sys.executable, "-c", code]
    loaded = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=120).stdout.split()
    assert "langevin_nn.cleaning.search" in loaded
    assert not {"scipy.stats", "scipy.signal", "matplotlib", "sklearn"} & set(loaded)


def test_statistics_are_there_without_torch():
    """The package itself loads torch: a stand-in with its path alone does not."""
    code = (
        "import sys, types; sys.modules['langevin_nn'] = types.ModuleType('langevin_nn')\n"
        "sys.modules['langevin_nn'].__path__ = ['langevin_nn']\n"
        "from langevin_nn.statistics import decline_p_value; decline_p_value([0.5] * 9); print(*sys.modules)"
    )
    command = [sys.executable, "-c", code]
    loaded = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=120).stdout.split()
    assert {f"langevin_nn.statistics.{path.stem}" for path in (ROOT / "langevin_nn/statistics").glob("[!_]*")} <= set(
        loaded
    )
    assert "torch" not in loaded


def test_versions_names_and_licences_agree():
    assert langevin_nn.__version__ == PROJECT["version"] == CITATION["version"]
    assert PROJECT["license"] == CITATION["license"] == "BSD-3-Clause"
    assert "BSD 3-Clause" in (ROOT / "LICENSE").read_text()
    authors = [author["name"] for author in CITATION["authors"]]
    assert authors == [author["name"] for author in PROJECT["authors"]] == ["the langevin_nn developers"]
    assert f"## {PROJECT['version']}" in (ROOT / "CHANGELOG.md").read_text()


def test_the_paper_is_cited():
    (paper,) = CITATION["references"]
    assert paper["doi"] == "10.1088/2632-2153/abf5b9"
    assert paper["doi"] in (ROOT / "README.md").read_text()


def test_every_dependency_is_pinned_in_the_constraints_and_within_its_own_range():
    from packaging.requirements import Requirement

    pins = dict(
        line.lower().split("==")
        for line in (ROOT / "constraints.txt").read_text().splitlines()
        if line and not line.startswith("#")
    )
    extras = PROJECT["optional-dependencies"]
    for text in [*PROJECT["dependencies"], *extras["test"], *extras["lint"]]:
        requirement = Requirement(text)
        pin = pins[requirement.name.lower()]
        assert requirement.specifier.contains(pin), f"{requirement} does not admit the tested {pin}"
    assert pins["torch"] == "2.13.0"


def test_only_the_library_is_packaged_with_its_type_marker():
    setuptools = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    assert setuptools["packages"]["find"]["include"] == ["langevin_nn*"]
    assert (ROOT / "langevin_nn" / "py.typed").exists()
    assert setuptools["package-data"]["langevin_nn"] == ["py.typed"]


def test_no_image_data_are_committed():
    big = [
        path
        for path in ROOT.rglob("*")
        if path.suffix in {".gz", ".bin", ".nc"}
        and not any(part.startswith(".") for part in path.relative_to(ROOT).parts)
    ]
    assert [path for path in big if "output" not in path.parts] == []


def test_public_names_are_not_abbreviated():
    for module in (langevin_nn,):
        for name in dir(module):
            words = re.findall(r"[A-Z]?[a-z]+", name)
            assert not {"lr", "bs", "cfg", "eps", "cov", "grad", "params", "num"} & set(words), name


FORMER = {
    "analyzers": ("label", "verdict", "four_phase_trajectory", "score_boundaries"),
    "ensemble": ("curvature", "noise_curvature_overlap"),
    "landscape": ("Hessian", "flatness", "loss_profile"),
    "schema": ("describe",),
}


@pytest.mark.parametrize(("room", "name"), [(room, name) for room, names in FORMER.items() for name in names])
def test_names_that_have_moved_are_found_with_a_warning_that_says_where(room, name):
    with pytest.warns(
        DeprecationWarning, match=rf"langevin_nn\.{room}\.{name} is (langevin_nn\.\w+)\.{name} now"
    ) as caught:
        found = getattr(import_module(f"langevin_nn.{room}"), name)
    home = str(caught[0].message).split(" is ")[1].split(f".{name} now")[0]
    assert found is getattr(import_module(home), name)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        import_module(f"langevin_nn.{room}").nothing  # noqa: B018
