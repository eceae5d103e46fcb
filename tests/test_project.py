"""What holds the project together: metadata that agree, imports that keep to their floors."""

from __future__ import annotations

import ast
import builtins
import re
import subprocess
import sys
import tomllib
from importlib import import_module
from pathlib import Path
from types import ModuleType

import pytest
import yaml

import langevin_nn
from langevin_nn.landscape import QuadraticLandscape

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
CITATION = yaml.safe_load((ROOT / "CITATION.cff").read_text())

# From the ground up; a module imports only from floors below its own, or from its own.
FLOORS = (
    ("errors", "former", "formulas", "identity", "progress", "readable", "threads"),
    ("checks", "lazy"),
    ("kernels", "theory"),
    ("evaluation", "memory", "operators", "statistics"),
    ("rates", "replicas", "seeds", "schema", "schedules"),
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
    ("analyzers",),
    ("cleaning",),
    ("report",),
    ("run",),
    ("monitor",),
    ("figures",),
    ("accessor", "testing"),
)
FLOOR_OF = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}
MODULES = sorted((ROOT / "langevin_nn").rglob("*.py"))


def room_of(path: Path) -> str:
    return path.relative_to(ROOT / "langevin_nn").parts[0].removesuffix(".py")


def imported(path: Path) -> set[str]:
    """Modules that a file imports when it runs; what only type checkers read does not count, but where names are lazy."""
    text = path.read_text()
    tree, lazy = ast.parse(text), "lazily(__name__" in text
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and getattr(node.test, "id", "") == "TYPE_CHECKING" and not lazy:
            node.body = []
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add(node.module or "")
    return found


def loaded_with(modules: str) -> set[str]:
    """Modules in a process that imports some."""
    command = [sys.executable, "-c", f"import sys, {modules}; print(*sys.modules)"]
    return set(
        subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=120).stdout.split()
    )


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


# Rooms that say what a process is, and the words of how it is computed. Users are told that their functions are to be such
# "that Numba understands", and give the device on which weights of a landscape lie: nothing there may ask which it is.
MEANING = ("drift", "landscape", "noise", "process", "update")
EXECUTION = re.compile(
    r"\b(devices?|cuda|gpus?|graphs?|kernels?|numba|compil\w+|captur\w+|jit|batches of runs)\b", re.IGNORECASE
)
SAID_TO_USERS = {
    "drift": r"$^",
    "landscape": r"that Numba understands|\bdevice is not None|(?<!if )\bdevices?\b(?! *[=!]=|\.(type|index)\b)",
    "noise": r"that Numba understands",
    "process": r"$^",
    "update": r"found_elsewhere\(.*\)",  # its class had such a name
}


def words_of_execution(room: str, text: str) -> list[str]:
    return EXECUTION.findall(re.sub(SAID_TO_USERS[room], "", text))


@pytest.mark.parametrize("room", MEANING)
def test_what_a_process_is_does_not_say_how_it_is_computed(room):
    for path in (path for path in MODULES if room_of(path) == room):
        found = words_of_execution(room, path.read_text())
        assert not found, f"{path} speaks of {', '.join(found)}: that belongs into engine/"
        assert not {module.split(".")[0] for module in imported(path)} & {"numba", "threading", "multiprocessing"}


@pytest.mark.parametrize(
    "mutant",
    [
        "if self.device.type == 'cuda':",
        "batched = weights.device == self.device",
        "x = a if device else b",
        "from langevin_nn.kernels.fields import evaluate",
        "functions that are compiled",
        "@njit\ndef numba(x):",
    ],
)
def test_a_word_of_execution_would_be_noticed(mutant):
    assert all(words_of_execution(room, mutant) for room in MEANING)
    assert not words_of_execution(
        "landscape", "device : str\n    Where.\nself.device = device if device is not None else 0"
    )


def test_what_a_process_is_is_there_without_the_compiler():
    rooms = ", ".join(f"langevin_nn.{room}" for room in MEANING)
    assert "numba" not in loaded_with(rooms)
    assert "numba" in loaded_with(f"{rooms}, langevin_nn.kernels.fields")


def test_a_room_without_a_floor_would_be_noticed():
    rooms = {room_of(path) for path in MODULES} - {"__init__", "__main__"}
    assert rooms == set(FLOOR_OF)


HEAVY = {"torch", "numba", "matplotlib", "sklearn", "scipy.stats", "scipy.signal"}
ROOMS_OF_DATA = "; ".join(
    f"from langevin_nn.{room} import *" for room in ("statistics", "analyzers", "cleaning", "report")
)
LOADED = {
    "the package": ("import langevin_nn", {*HEAVY, "numpy", "scipy", "xarray"}),
    "its help": ("__main__.main(['--help'])", {*HEAVY, "scipy", "xarray"}),
    "what data need": (ROOMS_OF_DATA, HEAVY),
    "figures": ("import langevin_nn.figures", HEAVY - {"matplotlib"}),
    "a check of a file": ("__main__.main(['validate', FILE])", HEAVY),
    "a look at a file": ("__main__.main(['info', FILE])", HEAVY),
    "a run": ("langevin_nn.compare, langevin_nn.sweep, langevin_nn.fit_surrogate", HEAVY - {"torch", "numba"}),
}


@pytest.mark.parametrize(("code", "without"), LOADED.values(), ids=LOADED.keys())
def test_one_pays_only_for_what_one_uses(code, without, tmp_path):
    file = tmp_path / "run.nc"
    if "FILE" in code:
        valley = QuadraticLandscape([[1.0]], [[1.0]])
        langevin_nn.simulate(langevin_nn.gradient_descent(valley, 0.1), steps=20, path=file, progress=False)
    head = "import atexit, sys, langevin_nn" + ("; from langevin_nn import __main__" if "__main__" in code else "")
    code = f"{head}; atexit.register(lambda: print(*sys.modules, file=sys.stderr)); {code.replace('FILE', repr(str(file)))}"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True, timeout=120
    )
    assert not without & set(done.stderr.split())


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
    for name in dir(langevin_nn):
        words = re.findall(r"[A-Z]?[a-z]+", name)
        assert not {"lr", "bs", "cfg", "eps", "cov", "grad", "params", "num"} & set(words), name


PACKAGES = [".".join(path.relative_to(ROOT).parts[:-1]) for path in MODULES if path.name == "__init__.py"]


@pytest.mark.parametrize("name", PACKAGES)
def test_no_name_of_a_package_hides_one_of_its_modules(name):
    package = import_module(name)
    folder = Path(package.__file__).parent
    modules = {path.stem for path in folder.glob("[!_]*.py")} | {
        path.parent.name for path in folder.glob("*/__init__.py")
    }
    for public in package.__all__:
        found = getattr(package, public)
        assert public not in modules or found is sys.modules[f"{name}.{public}"], f"{name}.{public} hides a module"


def test_the_face_has_few_names_and_rooms_for_the_rest():
    rooms = {name for name in langevin_nn.__all__ if isinstance(getattr(langevin_nn, name), ModuleType)}
    assert rooms <= set(FLOOR_OF)
    assert len(set(langevin_nn.__all__) - rooms) <= 27
    assert langevin_nn.noise.MatchedGaussian(25).batch_size == 25
    assert set(dir(langevin_nn)) >= set(langevin_nn.__all__)
    with pytest.raises(AttributeError, match="'langevin_nn' has no attribute 'nothing'"):
        langevin_nn.nothing  # noqa: B018


@pytest.mark.parametrize(
    ("base", "former", "now"),
    [
        (langevin_nn.noise.FactoredNoise, "compiled", "formula"),
        (langevin_nn.drift.Drift, "compiled", "formula"),
        (langevin_nn.landscape.PotentialLandscape, "compiled_gradient", "gradient_formula"),
        (langevin_nn.landscape.PotentialLandscape, "compiled_noise", "noise_formula"),
    ],
)
def test_methods_of_ones_own_are_taken_under_former_names_with_a_warning_where_they_are(base, former, now):
    with pytest.warns(DeprecationWarning, match=f"Own.{former} is to be called {now}") as caught:

        class Own(base):
            locals()[former] = lambda self, *arguments: "own"

    assert caught[0].filename == __file__
    assert getattr(Own, now)(None) == "own"
    assert now not in Own.__abstractmethods__


# All that was flat, and what has moved from room to room.
FLAT = """
    AnisotropicNoise BAOAB Adam ColouredNoise Comparison Confinement DiagonalNoise Drift EulerMaruyama GradientDrift
    GradientEnsemble Hessian Heun IndependentMinibatches IsotropicNoise Landscape LandscapeNoise LeimkuhlerMatthews
    LinearDrift LinearRegressionLandscape LowRankNoise MatchedDiagonal MatchedGaussian MatchedStable Milstein Momentum Noise
    Plain PotentialLandscape QuadraticLandscape SVAG SampleGradients ScaledNoise ShuffledMinibatches Silent StableNoise State
    StateDependentNoise StrongAdditive SumDrift Surrogate ThermalNoise UnderdampedLangevin Update WeakSecondOrder
    effective_dimension gradient_ensembles leading_eigenpairs log_spaced log_uniform noise_curvature_overlap points_of_sweep
    random_points spectral_density subspace_overlap uniform write_trajectory
"""
FORMER = {
    "": FLAT.split(),
    ".analyzers": ["label", "verdict", "four_phase_trajectory", "score_boundaries"],
    ".curvature": ["curvature"],
    ".ensemble": ["curvature", "noise_curvature_overlap"],
    ".landscape": ["Hessian", "flatness", "loss_profile"],
    ".schema": ["describe"],
    ".kernels.sources": ["COLOURED", "CompiledField", "CompiledNoise", "linear_field"],
    ".update": ["CompiledUpdate"],
}


@pytest.mark.parametrize(("room", "name"), [(room, name) for room, names in FORMER.items() for name in names])
def test_names_that_have_moved_are_found_with_a_warning_that_says_where(room, name):
    said: dict[str, object] = {}
    with pytest.warns(DeprecationWarning, match=rf"langevin_nn{room}\.{name} is langevin_nn\.[\w.]+ now") as caught:
        exec(f"from langevin_nn{room} import {name} as found", said)
    home, now = re.search(r" is (.*)\.(\w+) now", str(caught[0].message)).groups()
    assert said["found"] is getattr(import_module(home), now)
    assert {Path(each.filename).name for each in caught} == {"<string>"}
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        import_module(f"langevin_nn{room}").nothing  # noqa: B018


def test_a_function_that_hid_its_room_is_still_called():
    valley = QuadraticLandscape([[4.0]], [[1.0]])
    hessian = langevin_nn.curvature.Hessian(valley, valley.initial_weights((0,), langevin_nn.Seeds(0))[0])
    with pytest.warns(DeprecationWarning, match=r"langevin_nn\.curvature\.hessian_spectrum\(\.\.\.\) now"):
        assert float(langevin_nn.curvature(hessian, n_modes=1).hessian_trace) == pytest.approx(4.0)


def test_the_house_uses_no_former_name():
    for path in (path for room in ("benchmarks", "models", "studies", "tests") for path in (ROOT / room).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and node.module == "langevin_nn":
                assert {alias.name for alias in node.names} <= {*langevin_nn.__all__, *FLOOR_OF, "__main__"}, path


def test_benchmarks_name_what_is_there():
    """Their peers are not installed here, but what they measure of ours is."""
    assert "benchmarks.recording" in loaded_with("benchmarks.__main__")
    recording = import_module("benchmarks.recording")
    assert all(hasattr(kind, name) for kind, name in recording.WRITING)
    names: dict[str, object] = {}
    exec(recording._PREAMBLE.replace("sys.argv[1]", "''"), names)
    for code in recording._MEMORY.values():
        assert set(compile(code, "", "exec").co_names) - {"Flat", "path", *dir(builtins)} <= set(names)
