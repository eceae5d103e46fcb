"""Trajectory files from outside: valid or not, of older versions, run again, merged, joined, exported."""

from __future__ import annotations

import inspect
import json
import re
import shutil
import sys
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path

import netCDF4
import numpy as np
import pandas as pd
import pytest
import xarray as xr
from cases import digits_landscape, same_bits
from hypothesis import given
from hypothesis import strategies as st

from langevin_nn import (
    Process,
    Seeds,
    gradient_descent,
    langevin,
    merge,
    open_trajectory,
    rerun,
    sgd,
    simulate,
    validate,
)
from langevin_nn import drift as drifts
from langevin_nn import landscape as landscapes
from langevin_nn import observables as seen
from langevin_nn import schedules as timetables
from langevin_nn.drift import Confinement, GradientDrift, LinearDrift, SumDrift
from langevin_nn.errors import ConfigurationError, DamagedTrajectory, UnknownNameError, UnstableTrajectory
from langevin_nn.landscape import LinearRegressionLandscape, PotentialLandscape, QuadraticLandscape
from langevin_nn.noise import (
    AnisotropicNoise,
    IndependentMinibatches,
    IsotropicNoise,
    LowRankNoise,
    MatchedDiagonal,
    MatchedStable,
    Silent,
    StableNoise,
    StateDependentNoise,
    ThermalNoise,
)
from langevin_nn.observables import (
    DrivingNoise,
    Losses,
    LossesOfAverage,
    MeasuredWeights,
    NoiseSpectrum,
    OrderParameters,
    SampleLosses,
    Weights,
)
from langevin_nn.provenance import study_of
from langevin_nn.run.repetition import rebuilt_process
from langevin_nn.schedules import AtEpochs, AtSteps, EveryEpochs, EverySteps, Logarithmic
from langevin_nn.schema import SCHEMA_VERSION
from langevin_nn.store import export, folder_of, join_processes, write_trajectory
from langevin_nn.update import Adam, Averaged, Momentum, Plain
from studies.compare_sgd_vs_langevin import study as compare_sgd_vs_langevin
from studies.flat_minima import study as flat_minima

N, B, ALPHA = 60, 10, 0.1
ALL_GROUPS = (
    Losses(),
    OrderParameters(16),
    DrivingNoise(),
    NoiseSpectrum(n_modes=5, schedule=EverySteps(6)),
    SampleLosses(schedule=EverySteps(4)),
    Weights(schedule=EverySteps(3)),
)


def valley(**options) -> QuadraticLandscape:
    return QuadraticLandscape(np.diag([1.0, 3.0]), [[2.0, 0.5], [0.5, 1.0]], start=[1.0, -1.0], **options)


def surrogate(**options) -> Process:
    landscape = valley()
    return Process(landscape, AnisotropicNoise(landscape.noise_factor()), ALPHA, name="surrogate", **options)


def recorded(process: Process, **options) -> xr.DataTree:
    chosen = {"steps": 12, "replicas": 2, "schedule": EverySteps(3), "observables": ALL_GROUPS, **options}
    return simulate(process, **chosen)


@pytest.fixture(scope="module")
def network_file(digits, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("network") / "run.nc"
    recorded(sgd(digits, ALPHA, B), path=path)
    return path


def in_memory(path) -> xr.DataTree:
    with open_trajectory(path) as tree:
        return tree.copy(deep=True).load()


@pytest.fixture(scope="module")
def network_run(digits) -> xr.DataTree:
    """The same, and never on a disk: what a file remembers of its values is not asked of trees that tests break."""
    return recorded(sgd(digits, ALPHA, B))


class Interrupted(Exception):
    pass


@dataclass(frozen=True)
class Stops(DrivingNoise):
    """Ends the run at a step."""

    at: int = 6

    def measure(self, snapshot):
        if snapshot.state.step == self.at:
            raise Interrupted
        return super().measure(snapshot)


def interrupted(process: Process, path: Path, **options) -> Path:
    observables = (*options.pop("observables", (Losses(),)), Stops())
    with pytest.raises(Interrupted):
        recorded(process, path=path, observables=observables, **options)
    assert folder_of(path).is_dir()
    return path


# --- Valid files have no complaints -------------------------------------------------------------------------------------


def test_a_network_s_file_with_all_groups_is_valid(network_file):
    tree = open_trajectory(network_file)
    assert set(tree.children) == {"spectrum", "samples", "weights"}
    assert validate(network_file) == validate(str(network_file)) == validate(tree) == ()


def test_the_root_alone_is_valid(network_file):
    with xr.open_dataset(network_file) as scalars:
        assert validate(scalars) == ()


VALID = {
    "surrogate": lambda d: recorded(surrogate(), observables=None),
    "surrogate with its groups": lambda d: recorded(
        surrogate(), observables=[NoiseSpectrum(schedule=EverySteps(6)), Weights(EverySteps(5))]
    ),
    "regression": lambda d: recorded(regression_process(), observables=None),
    "training loss only": lambda d: recorded(sgd(d, ALPHA, B), observables=Losses()),
    "weights only": lambda d: recorded(sgd(d, ALPHA, B), observables=Weights(EverySteps(4))),
    "samples only, from later on": lambda d: recorded(sgd(d, ALPHA, B), observables=SampleLosses(AtSteps((3, 6)))),
    "spectrum only": lambda d: recorded(sgd(d, ALPHA, B), observables=NoiseSpectrum(schedule=EverySteps(6))),
    "one record": lambda d: recorded(sgd(d, ALPHA, B), schedule=AtSteps((7,))),
    "clocks of their own": lambda d: recorded(
        sgd(d, ALPHA, B), observables=[Losses(EverySteps(1)), OrderParameters(schedule=EverySteps(5))]
    ),
    "no label noise, and an empty cohort": lambda d: recorded(sgd(digits_landscape(N, label_noise=0.0), ALPHA, B)),
    "relabeled samples as the cohort": lambda d: recorded(sgd(digits_landscape(N, cohort_mask="relabeled"), ALPHA, B)),
    "some tensors only": lambda d: recorded(sgd(digits_landscape(N, parameters="2.weight"), ALPHA, B)),
    "full batches": lambda d: recorded(gradient_descent(d, ALPHA, N)),
    "without a batch size": lambda d: recorded(gradient_descent(d, ALPHA), observables=Losses()),
    "batches of one": lambda d: recorded(sgd(d, ALPHA, 1), steps=3),
    "stable noise, of infinite strength": lambda d: recorded(
        Process(valley(), StableNoise(1.0, 1.5), ALPHA), observables=None
    ),
    "merged": lambda d: merge([recorded(sgd(d, ALPHA, B), seed=seed) for seed in (0, 1)]),
    "a sweep of learning rates": lambda d: merge([recorded(sgd(d, rate, B)) for rate in (0.1, 0.2)]),
    "a sweep of batch sizes": lambda d: merge(
        [
            recorded(sgd(d, ALPHA, size), steps=None, epochs=2, schedule=EveryEpochs(1), observables=None)
            for size in (10, 20)
        ]
    ),
    "joined": lambda d: join_processes(
        {"sgd": recorded(sgd(d, ALPHA, B)), "langevin": recorded(langevin(d, ALPHA, B))}, {"seed": 0}
    ),
    "joined and merged": lambda d: merge(
        [
            join_processes(
                {make.__name__: recorded(make(d, ALPHA, B), seed=seed) for make in (sgd, langevin)}, {"seed": seed}
            )
            for seed in (0, 1)
        ]
    ),
}


def regression() -> LinearRegressionLandscape:
    generator = np.random.default_rng(4)
    inputs = generator.standard_normal((12, 2))
    return LinearRegressionLandscape(inputs, inputs @ [1.0, -2.0] + generator.standard_normal(12))


def regression_process(**options) -> Process:
    return Process(regression(), IndependentMinibatches(3), 0.05, **options)


@pytest.mark.parametrize("make", VALID.values(), ids=VALID.keys())
def test_every_kind_of_trajectory_is_valid_in_memory_and_as_a_file(digits, tmp_path, make):
    tree = make(digits)
    assert validate(tree) == ()
    assert validate(write_trajectory(tree, tmp_path / "run.nc")) == ()


def test_a_file_whose_replicas_diverged_is_valid(digits, tmp_path):
    weights = digits.initial_weights((0, 1), Seeds(0))
    weights[1] = 1e38
    run = recorded(sgd(digits, ALPHA, B), weights=weights, on_divergence="mask", path=tmp_path / "run.nc")
    assert np.isnan(run.train_loss.sel(replica=1, step=12)).all()
    assert validate(run) == ()


def test_a_run_that_diverged_is_valid_and_not_complete(digits, tmp_path):
    with pytest.raises(UnstableTrajectory):
        recorded(sgd(digits, 1e30, B), path=tmp_path / "run.nc")
    assert open_trajectory(tmp_path / "run.nc").attrs["complete"] == 0
    assert validate(tmp_path / "run.nc") == ()


def test_the_folder_of_a_run_that_did_not_end_is_valid(digits, tmp_path):
    path = interrupted(sgd(digits, ALPHA, B), tmp_path / "run.nc", observables=ALL_GROUPS[:2] + ALL_GROUPS[3:])
    assert validate(path) == validate(folder_of(path)) == ()


def test_anything_else_than_a_trajectory_is_refused():
    with pytest.raises(
        ConfigurationError, match="trajectory is list: expected an xarray DataTree or Dataset, or the path"
    ):
        validate([1, 2])


# --- Broken files are named ---------------------------------------------------------------------------------------------


def changed(tree: xr.DataTree, path: str, change, to: str = "") -> xr.DataTree:
    """The tree with one of its groups changed, under another path where one is said."""
    groups = {node.path: node.to_dataset(inherit=False) for node in tree.subtree}
    groups[to or path] = change(groups.pop(path))
    made = xr.DataTree.from_dict(groups)
    made.attrs.update(tree.attrs)
    return made


def within(path: str, change, to: str = ""):
    return lambda tree: changed(tree, path, change, to)


def root(change):
    return within("/", change)


def attribute_of(path: str, name: str, which: str, value=None):
    """An attribute of a variable with another value, or with none."""

    def change(tree):
        attrs = tree[path][name].attrs
        del attrs[which]
        attrs.update({} if value is None else {which: value})
        return tree

    return change


def clock_with(path: str, name: str, position: int, value: float):
    def change(group):
        values = group[name].values.astype(float)
        values[position] = value
        return group.assign_coords({name: (group[name].dims, values, group[name].attrs)})

    return within(path, change)


def scaled(name: str, factor: float = 1 + 1e-3, **where):
    def change(group):
        values = group[name].copy(deep=True)
        values.loc[{"replica": 1, "step": 6, **where}] *= factor
        return group.assign({name: values})

    return root(change)


def with_value(path: str, name: str, value: float, **where):
    def change(group):
        values = group[name].copy(deep=True).astype(float)
        values[where] = value
        return group.assign({name: values})

    return within(path, change)


def eigenvalues(change):
    """Other ones, of the same attributes."""

    def exchange(group):
        found = group.noise_eigenvalue
        return group.assign(noise_eigenvalue=found.copy(data=change(found.values)))

    return within("/spectrum", exchange)


def attribute(name: str, value=None, change=None):
    def change_it(tree):
        if value is None and change is None:
            del tree.attrs[name]
        else:
            tree.attrs[name] = value if change is None else change(tree.attrs[name])
        return tree

    return change_it


def with_seed(tree: xr.DataTree, seed: int) -> xr.DataTree:
    config = {**json.loads(tree.attrs["config_json"]), "seed": seed}
    return attribute("config_json", json.dumps(config, sort_keys=True))(tree.copy())


def unsorted(text: str) -> str:
    config = json.loads(text)
    return json.dumps(dict(reversed(config.items())))


def lacking(key: str):
    return lambda text: json.dumps(
        {name: value for name, value in json.loads(text).items() if name != key}, sort_keys=True
    )


DESCENDS = "'noise_eigenvalue' does not descend from a largest value to 0"
BROKEN = {
    "a name misspelt": (
        root(lambda group: group.rename(train_loss="train_los")),
        "variable 'train_los' of group / is unknown: did you mean 'train_loss'?",
    ),
    "a name of nothing": (
        root(lambda group: group.rename(train_loss="qqq")),
        "variable 'qqq' of group / is unknown: see langevin_nn.observables.variables",
    ),
    "a variable in the wrong group": (
        root(lambda group: group.assign(effective_dimension=("replica", np.ones(2)))),
        "variable 'effective_dimension' of group / belongs into group /spectrum",
    ),
    "a group of another name": (
        within("/spectrum", lambda group: group, to="/spectra"),
        "group /spectra is unknown: expected /, /spectrum, /samples, /weights",
    ),
    "dimensions in another order": (
        root(lambda group: group.assign(test_loss=group.test_loss.transpose())),
        "variable 'test_loss' of group / has dimensions step, replica: expected replica, step",
    ),
    "a dimension missing": (
        root(lambda group: group.assign(train_loss=group.train_loss.isel(cohort=0, drop=True))),
        "variable 'train_loss' of group / has dimensions replica, step: expected replica, step, cohort",
    ),
    "other units": (
        attribute_of("/", "activity", "units", "J"),
        "variable 'activity' of group / has units='J': expected 'loss2 weight-2'",
    ),
    "no units": (
        attribute_of("/", "activity", "units"),
        "variable 'activity' of group / has units=None: expected 'loss2 weight-2'",
    ),
    "another long name": (
        attribute_of("/spectrum", "noise_eigenvalue", "long_name", "eigenvalue"),
        "variable 'noise_eigenvalue' of group /spectrum has long_name='eigenvalue': "
        "expected 'eigenvalue of the noise covariance'",
    ),
    "text in the place of numbers": (
        root(lambda group: group.assign(test_loss=group.test_loss.astype("U32"))),
        "variable 'test_loss' of group / holds <U32: expected numbers",
    ),
    "cohorts in another order": (
        root(lambda group: group.assign_coords(cohort=["all", "mislabeled", "correct"])),
        "dimension 'cohort' of group / lacks its labels: expected all, correct, mislabeled",
    ),
    "pairs without labels": (
        root(lambda group: group.drop_vars("cohort_pair")),
        "dimension 'cohort_pair' of group / lacks its labels",
    ),
    "a spectrum that ascends": (eigenvalues(lambda values: values[..., ::-1]), DESCENDS),
    "a negative eigenvalue": (
        with_value("/spectrum", "noise_eigenvalue", -1e-3, replica=0, spectrum_step=1, mode=4),
        DESCENDS,
    ),
    "eigenvalues above their trace": (
        eigenvalues(lambda values: 3 * values),
        "the sum of 'noise_eigenvalue' exceeds 'noise_strength', its trace",
    ),
    "another version": (attribute("schema_version", "0.9"), "attribute schema_version is '0.9': expected '1.2'"),
    "no JSON": (attribute("config_json", "{seed: 0}"), "attribute config_json is no JSON"),
    "JSON of a list": (attribute("config_json", "[1]"), "attribute config_json is no object of JSON"),
    "unsorted keys": (attribute("config_json", change=unsorted), "attribute config_json has unsorted keys"),
    "no seed": (attribute("config_json", change=lacking("seed")), "config_json lacks 'seed'"),
    "no versions": (attribute("config_json", change=lacking("versions")), "config_json lacks 'versions'"),
    "no moment": (attribute("created_at", "yesterday"), "attribute created_at is 'yesterday': expected a moment in ISO 8601"),
    "half complete": (attribute("complete", 2), "attribute complete is 2: expected 0 or 1"),
}  # fmt: skip
for _name in ("schema_version", "config_json", "created_at", "source", "complete"):
    BROKEN[f"no {_name}"] = (attribute(_name), f"attribute '{_name}' is missing: nobody could tell what was run")
for _name in ("time", "weight_step"):
    BROKEN[f"weights without {_name}"] = (
        within("/weights", lambda group, name=_name: group.drop_vars(name)),
        f"group /weights lacks the coordinate '{_name}' along 'weight_step'",
    )
for _path, _name, _position, _value in [
    ("/", "step", 2, 3.0),
    ("/", "step", 0, -1.0),
    ("/", "time", 4, 0.1),
    ("/", "epoch", 1, np.nan),
    ("/weights", "weight_step", 1, 0.0),
    ("/samples", "time", 0, 99.0),
    ("/spectrum", "epoch", 2, np.inf),
]:
    BROKEN[f"{_name} of {_path} with {_value} at {_position}"] = (
        clock_with(_path, _name, _position, _value),
        f"coordinate '{_name}' of group {_path} does not move forward from 0 on: expected increasing values",
    )
for _name, _value, _said in [
    ("train_error", 1.01, "'train_error' leaves 0 to 1: expected shares of samples"),
    ("test_error", -0.01, "'test_error' leaves 0 to 1: expected shares of samples"),
    ("alignment", 1.001, "'alignment' leaves −1 to 1: expected cosines"),
    ("gradient_alignment", -1.001, "'gradient_alignment' leaves −1 to 1: expected cosines"),
]:
    BROKEN[f"{_name} of {_value}"] = (with_value("/", _name, _value, replica=0, step=1), _said)
ALL, CORRECT, WRONG = ({"cohort": each} for each in ("all", "correct", "mislabeled"))
IDENTITIES = {
    "A = A∥ + A⊥": {"activity": ALL, "parallel_activity": ALL, "perpendicular_activity": WRONG},
    "D = A⊥ + D∥": {"noise_strength": ALL, "perpendicular_activity": ALL, "parallel_noise": WRONG},
    "A = A₀ + D": {"activity": ALL, "directed_activity": ALL, "noise_strength": ALL},
    "A∥ = A₀ + D∥": {"parallel_activity": ALL, "directed_activity": ALL, "parallel_noise": ALL},
    "σ_λ² = D∥/A₀": {"projection_variance": ALL, "parallel_noise": ALL, "directed_activity": ALL},
    "σ_λ² = D∥/(A∥ − D∥)": {"projection_variance": WRONG, "parallel_noise": WRONG, "parallel_activity": WRONG},
    "A₀ = A₀,c + A₀,w + 2 √(A₀,c A₀,w) R_cw": {
        "directed_activity": CORRECT,
        "gradient_alignment": {"cohort_pair": "correct_mislabeled"},
    },
}
for _identity, _places in IDENTITIES.items():
    for _name, _where in _places.items():
        BROKEN[f"{_identity}, off by {_name}"] = (scaled(_name, **_where), f"{_identity} does not hold")


@pytest.mark.parametrize(("change", "expected"), BROKEN.values(), ids=BROKEN.keys())
def test_a_file_that_is_broken_in_one_way_is_named_for_it(network_run, change, expected):
    broken = change(network_run.copy(deep=True))
    found = validate(broken)
    assert any(each.startswith(expected) for each in found), found
    # An order parameter takes part in several identities, and values are known by their digest; everything else breaks one
    # rule and no other.
    related = (" does not hold", "holds other values than were written")
    assert all(each.startswith(expected) or any(words in each for words in related) for each in found), found
    assert validate(network_run) == ()


def test_several_faults_are_all_named(network_run):
    tree = with_value("/", "test_error", 2.0, replica=0, step=0)(network_run.copy(deep=True))
    tree = attribute_of("/", "activity", "units", "J")(attribute("source")(tree))
    found = " | ".join(validate(tree))
    assert all(word in found for word in ("units='J'", "'source'", "'test_error' leaves 0 to 1"))


OF_COHORTS = (
    *("activity", "parallel_activity", "perpendicular_activity", "noise_strength"),
    *("parallel_noise", "projection_variance", "directed_activity"),
)
PLACES = [*product(OF_COHORTS, ["cohort"], range(3)), ("gradient_alignment", "cohort_pair", 0)]


@given(
    st.sampled_from(PLACES),
    st.integers(0, 1),
    st.integers(0, 4),
    st.floats(1e-4, 0.5),
    st.sampled_from([-1, 1]),
)
def test_any_perturbation_of_an_order_parameter_is_found(network_run, place, replica, record, size, sign):
    """R_cw counts as much as it moves A₀: 1e-4 of the largest term there."""
    name, dimension, position = place
    root = network_run.to_dataset()
    at = {"replica": replica, "step": record, dimension: position}
    value = float(root[name][at])
    change = sign * size * value
    if name in ("gradient_alignment", "directed_activity"):
        whole, correct, wrong = root.directed_activity[{"replica": replica, "step": record}].values
        scale = max(whole, correct, wrong) / (2 * np.sqrt(correct * wrong) if name == "gradient_alignment" else 1)
        change = sign * size * max(abs(value), scale)
    broken = root.assign({name: root[name].copy(deep=True)})
    broken[name][at] += change
    assert validate(broken), (name, at, change)
    assert validate(root) == ()


@pytest.mark.parametrize(
    ("group", "name"),
    [("/", "test_loss"), ("/", "activity"), ("/", "alignment"), ("/spectrum", "effective_dimension")],
)
def test_a_flipped_bit_on_the_disk_is_found_and_the_variable_named(network_file, tmp_path, group, name):
    """Also of values that take part in no identity: checksums cover what nothing else looks at."""
    values = np.ascontiguousarray(in_memory(network_file)[group].to_dataset()[name].values)
    content = bytearray(network_file.read_bytes())
    position = content.find(values.tobytes()[-24:])
    assert position > 0, "this variable is compressed"
    content[position] ^= 1
    path = tmp_path / "copy.nc"
    path.write_bytes(content)
    (found,) = validate(path)
    assert found.startswith(f"variable {name!r} of group {group} cannot be read")
    assert "checksum" in found
    with pytest.raises(DamagedTrajectory, match=f"variable '{name}' cannot be read"):
        write_trajectory(
            merge([open_trajectory(path), with_seed(open_trajectory(network_file), 1)]), tmp_path / "merged.nc"
        )
    assert not (tmp_path / "merged.nc").exists()


def merge_to_file(paths, out: Path) -> xr.DataTree:
    return open_trajectory(write_trajectory(merge([open_trajectory(path) for path in paths]), out))


# --- Older and newer versions -----------------------------------------------------------------------------------------


def as_of_1_0(tree: xr.DataTree, path: Path) -> Path:
    """Write a file as schema 1.0 was: by xarray, each group with labels of replicas unless those above it have them."""
    tree = tree.copy(deep=True)
    if not tree.to_dataset(inherit=False).data_vars:
        labels = tree["replica"].variable
        groups = {
            node.path: node.to_dataset(inherit=False).assign_coords(replica=labels)
            for node in tree.subtree
            if node.path != "/"
        }
        groups["/"] = tree.to_dataset(inherit=False).drop_vars("replica")
        attrs, tree = tree.attrs, xr.DataTree.from_dict(groups)
        tree.attrs.update(attrs)
    tree.attrs["schema_version"] = "1.0"
    tree.to_netcdf(path, engine="netcdf4")
    return path


@pytest.mark.parametrize(
    "observables", [ALL_GROUPS, Weights(EverySteps(4)), SampleLosses(EverySteps(6)), ALL_GROUPS[3:]]
)
def test_a_file_of_schema_1_0_opens_as_the_current_one(digits, tmp_path, observables):
    run = recorded(sgd(digits, ALPHA, B), replicas=(3, 1), observables=observables)
    old = as_of_1_0(run, tmp_path / "old.nc")
    with netCDF4.Dataset(old) as file:
        assert file.schema_version == "1.0"
        assert ("replica" in file.variables) == (observables is ALL_GROUPS)
    opened = open_trajectory(old)
    assert opened.attrs == run.attrs
    assert opened.attrs["schema_version"] == SCHEMA_VERSION == "1.2"
    assert opened["replica"].values.tolist() == [3, 1]
    same_bits(opened, run)
    assert validate(old) == ()
    assert rerun(old, landscape=digits).same


NEWER = r"has schema_version {}, this langevin_nn knows 1\.2 .*update"
UNKNOWN = r"has schema_version {}: expected one of 1\.0, 1\.1, 1\.2"
NONE = r"says schema_version='{}': expected a trajectory of langevin_nn.*open other files with xarray"
VERSIONS = {NEWER: ("1.3", "2.0", "10.0", "1.2.1"), UNKNOWN: ("0.9", "1", "1.0.5"), NONE: ("", "latest")}


@pytest.mark.parametrize(("said", "version"), [(said, each) for said, found in VERSIONS.items() for each in found])
def test_files_of_other_versions_are_refused(network_run, tmp_path, said, version):
    path = write_trajectory(attribute("schema_version", version)(network_run.copy()), tmp_path / "other.nc")
    with pytest.raises(ConfigurationError, match=said.format(re.escape(version))):
        open_trajectory(path)


# --- A file's own configuration, run again ------------------------------------------------------------------------------

FACTOR = np.array([[1.0, 0.0], [0.5, 0.7]])
EVERY = EverySteps(4)


def on_valley(noise, **options) -> Process:
    return Process(valley(), noise, ALPHA, **options)


# With what their own checks leave at its default.
OPTIONS = {
    "IsotropicNoise": lambda: Process(regression(), IsotropicNoise(3, refresh_every=5), 0.05),
    "LowRankNoise": lambda: Process(regression(), LowRankNoise(3, 1, 5, "none"), 0.05),
    "MatchedDiagonal": lambda: Process(regression(), MatchedDiagonal(3, 5), 0.05),
    "MatchedStable": lambda: Process(regression(), MatchedStable(3, 1.8, 5), 0.05),
    "Adam": lambda: surrogate(update=Adam(0.8, 0.9, 1e-4, 0.01)),
    "Momentum": lambda: surrogate(update=Momentum(0.9, 0.01)),
}
DRIFTS = {
    "Confinement": lambda: surrogate(drift=Confinement(2.0, 0.5, [0.1, 0.2])),
    "GradientDrift": lambda: surrogate(drift=GradientDrift(QuadraticLandscape(np.eye(2), np.zeros((2, 2))))),
    "LinearDrift": lambda: surrogate(drift=LinearDrift([[1.0, 0.3], [-0.3, 1.0]], [0.5, 0.0])),
    "SumDrift": lambda: surrogate(drift=GradientDrift(valley()) + Confinement(1.0, 0.2)),
}
LANDSCAPES = {
    "LinearRegressionLandscape": lambda: regression_process(),
    "QuadraticLandscape": lambda: Process(
        valley(minimum=[1 / 3, 0.1]), AnisotropicNoise(FACTOR), ALPHA, time_step=0.03, name="inf"
    ),
}
# What is no part of a process, or cannot lie in a file and is refused below.
NO_PARTS = {
    drifts: {"Drift"},
    landscapes: {
        "EmpiricalLandscape", "Landscape", "MomentLandscape", "NetworkLandscape", "PotentialLandscape", "SampleGradients",
        "cross_entropy", "read_checkpoint",
    },
    seen: {"Coordinate", "Observable", "Snapshot", "Variable", "default_observables", "describe"},
    timetables: {"Schedule"},
}  # fmt: skip
SCHEDULES = {
    "AtEpochs": AtEpochs((0.0, 1.5)),
    "AtSteps": AtSteps((1, 7)),
    "EveryEpochs": EveryEpochs(0.5),
    "EverySteps": EverySteps(5),
    "Logarithmic": Logarithmic(3),
}
OBSERVABLES = {
    "DrivingNoise": DrivingNoise(EVERY),
    "Losses": Losses(EVERY),
    "LossesOfAverage": LossesOfAverage(EVERY),
    "MeasuredWeights": MeasuredWeights(EVERY),
    "NoiseSpectrum": NoiseSpectrum(3, 0.5, 1, EVERY),
    "OrderParameters": OrderParameters(9, EVERY, "euclidean"),
    "SampleLosses": SampleLosses(EVERY),
    "Weights": Weights(EVERY),
}


@pytest.mark.parametrize(
    ("module", "covered"),
    [(drifts, DRIFTS), (landscapes, LANDSCAPES), (seen, OBSERVABLES), (timetables, SCHEDULES)],
    ids=lambda each: getattr(each, "__name__", "").rpartition(".")[2],
)
def test_every_public_class_has_a_way_back_or_is_known_to_have_none(module, covered):
    """Noise sources and update rules have it in the checks of their laws."""
    assert set(module.__all__) == set(covered) | NO_PARTS[module]


SURROGATES = {**OPTIONS, **DRIFTS, **LANDSCAPES}


@pytest.mark.parametrize("make", SURROGATES.values(), ids=SURROGATES.keys())
def test_a_surrogate_is_run_again_from_its_file_alone_to_the_same_bits(tmp_path, make):
    process = make()
    path = tmp_path / "run.nc"
    observables = [Losses(), DrivingNoise(), Weights(EverySteps(5))]
    simulate(process, steps=20, replicas=(2, 0), seed=3, observables=observables, schedule=EVERY, path=path)
    found = rerun(path)
    assert found.same, found.differences
    assert found.versions == {}
    same_bits(found.trajectory, open_trajectory(path))
    assert found.trajectory.attrs["config_json"] == open_trajectory(path).attrs["config_json"]
    # A twin with another seed is told apart.
    other = simulate(process, steps=20, replicas=(2, 0), seed=4, observables=observables, schedule=EVERY)
    other.attrs.update(open_trajectory(path).attrs)
    assert "/weights/weights" in rerun(write_trajectory(other, path, overwrite=True)).differences


@pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES.keys())
def test_every_schedule_is_run_again(tmp_path, schedule):
    observables = [OrderParameters(5), Weights(schedule)]
    run = simulate(regression_process(), steps=12, schedule=schedule, observables=observables, path=tmp_path / "run.nc")
    found = rerun(tmp_path / "run.nc")
    assert found.same
    np.testing.assert_array_equal(found.trajectory["weights"].weight_step, run["weights"].weight_step)


@pytest.mark.parametrize("observable", OBSERVABLES.values(), ids=OBSERVABLES.keys())
def test_every_observable_of_a_network_is_run_again_with_its_landscape(digits, tmp_path, observable):
    update = Averaged(Plain(), 0.5) if isinstance(observable, LossesOfAverage) else Plain()
    process = sgd(digits, ALPHA, B, update=update)
    simulate(process, steps=4, replicas=2, observables=observable, path=tmp_path / "run.nc")
    assert validate(tmp_path / "run.nc") == ()
    assert rerun(tmp_path / "run.nc", landscape=digits_landscape(N)).same


def test_a_sum_of_drifts_on_a_network_is_run_again_with_its_landscape(digits, tmp_path):
    process = replace(sgd(digits, ALPHA, B), drift=SumDrift((GradientDrift(digits), Confinement(0.1, 1.0))))
    recorded(process, path=tmp_path / "run.nc", observables=ALL_GROUPS[2:])
    assert rerun(tmp_path / "run.nc", landscape=digits).same


def test_a_run_from_given_weights_is_run_again(digits, tmp_path):
    few = simulate(surrogate(), steps=5, replicas=2, weights=[[0.1, 0.2], [1 / 3, 7.0]], path=tmp_path / "few.nc")
    assert rerun(tmp_path / "few.nc").same
    assert few.train_loss[0, 0, 0] == pytest.approx(0.5 * (0.01 + 3 * 0.04))
    weights = digits.initial_weights(tuple(range(30)), Seeds(5))  # too large to lie in the file
    simulate(
        sgd(digits, ALPHA, B), steps=2, replicas=30, weights=weights, path=tmp_path / "many.nc", observables=Losses()
    )
    assert rerun(tmp_path / "many.nc", landscape=digits, weights=weights).same
    with pytest.raises(ConfigurationError, match=r"digest of an array of shape \[30, 610\].*weights="):
        rerun(tmp_path / "many.nc", landscape=digits)
    weights[3, 17] += 1e-3
    with pytest.raises(ConfigurationError, match=r"weights given are not those from which .*sha256 differ"):
        rerun(tmp_path / "many.nc", landscape=digits, weights=weights)


def test_a_network_without_its_data_is_asked_for(network_file):
    with pytest.raises(
        ConfigurationError, match=r"NetworkLandscape and does not hold its inputs.*pass it as landscape="
    ):
        rerun(network_file)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"label_noise": 0.3}, "mislabeled_fraction, data_sha256|data_sha256, mislabeled_fraction"),
        ({"widths": (64, 9, 10)}, "module"),
        ({"cohort_mask": "relabeled"}, "cohort_mask"),
        ({"parameters": "0.weight"}, "measured_parameters"),
    ],
)  # fmt: skip
def test_another_landscape_is_refused_with_what_differs(network_file, options, said):
    with pytest.raises(ConfigurationError, match=f"landscape given is not the one of the file: .*({said}).* differ"):
        rerun(network_file, landscape=digits_landscape(N, **options))


def double_well(x):
    return (x[0] ** 2 - 1) ** 2 + x[1] ** 2


def proportional(x, out):
    out[0], out[1] = 0.1 * x[0], 0.2


def test_a_potential_given_by_a_function_is_asked_for_and_told_from_another(tmp_path):
    landscape = PotentialLandscape(double_well, 2, start=[0.9, 0.1])
    simulate(Process(landscape, ThermalNoise(0.1), 0.01), steps=5, path=tmp_path / "run.nc")
    with pytest.raises(
        ConfigurationError, match=r"name and the digest of the function .*double_well and not the function"
    ):
        rerun(tmp_path / "run.nc")
    assert rerun(tmp_path / "run.nc", landscape=PotentialLandscape(double_well, 2, start=[0.9, 0.1])).same
    deeper = PotentialLandscape(lambda x: 2 * (x[0] ** 2 - 1) ** 2 + x[1] ** 2, 2, start=[0.9, 0.1])
    with pytest.raises(ConfigurationError, match=r"not the one of the file: .*potential.* differ"):
        rerun(tmp_path / "run.nc", landscape=deeper)


def test_a_noise_given_by_a_function_is_asked_for(tmp_path):
    process = Process(valley(), StateDependentNoise(proportional), ALPHA)
    simulate(process, steps=5, path=tmp_path / "run.nc")
    with pytest.raises(ConfigurationError, match=r"proportional and not the function: .* run="):
        rerun(tmp_path / "run.nc")
    assert rerun(tmp_path / "run.nc", run=lambda config: simulate(process, steps=config["steps"])).same


def test_a_factor_too_large_for_the_file_is_asked_for(tmp_path):
    landscape = QuadraticLandscape(np.eye(130), np.eye(130))
    process = Process(landscape, AnisotropicNoise(landscape.noise_factor()), ALPHA)
    simulate(process, steps=3, path=tmp_path / "run.nc", observables=Losses())
    with pytest.raises(
        ConfigurationError, match=r"digest of an array of shape \[130, 130\].*where it belongs to the noise.*run="
    ):
        rerun(tmp_path / "run.nc")


def test_an_observable_of_the_user_s_own_is_imported_or_asked_for(tmp_path):
    simulate(surrogate(), steps=4, observables=Stops(at=99), path=tmp_path / "run.nc")
    assert rerun(tmp_path / "run.nc").same

    @dataclass(frozen=True)
    class Hidden(Stops):
        pass

    simulate(surrogate(), steps=4, observables=Hidden(at=99), path=tmp_path / "hidden.nc")
    with pytest.raises(ConfigurationError, match=r"made with .*<locals>.Hidden, which cannot be imported here.*run="):
        rerun(tmp_path / "hidden.nc")


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("nowhere.at.all:Thing", "cannot be imported here .No module named"),
        ("langevin_nn:Thing", "cannot be imported here .module 'langevin_nn' has no attribute"),
        ("subprocess:Popen", "is none: expected a dataclass or a subclass of Noise"),
        ("os:getcwd", "is none: expected a dataclass"),
        ("Thing", "none of langevin_nn's own"),
    ],
)
def test_a_file_calls_nothing_but_parts_of_runs(tmp_path, name, said):
    tree = simulate(surrogate(), steps=4, observables=Losses())
    config = json.loads(tree.attrs["config_json"])
    config["observables"][0]["type"] = name
    path = write_trajectory(attribute("config_json", json.dumps(config, sort_keys=True))(tree), tmp_path / "run.nc")
    with pytest.raises(ConfigurationError, match=said):
        rerun(path)


@pytest.mark.parametrize(
    "flip", ["/test_loss", "/alignment", "/weights/weights", "/spectrum/noise_eigenvalue", "/time"]
)
def test_a_flipped_bit_is_named_by_its_variable(digits, network_file, tmp_path, flip):
    path = tmp_path / "copy.nc"
    shutil.copy(network_file, path)
    with netCDF4.Dataset(path, "r+") as file:
        variable = file[flip]
        variable.set_auto_mask(False)
        values = variable[:].copy()
        values.view(np.uint8).reshape(-1)[-8] ^= 1  # the least bit of the last number or two
        variable[:] = values
    found = rerun(path, landscape=digits)
    assert found.differences == (flip,)
    assert not found.same


def test_a_value_whose_checksum_differs_is_named_too(digits, network_file, tmp_path):
    content = bytearray(network_file.read_bytes())
    values = in_memory(network_file).test_loss.values
    content[content.find(values.tobytes()[-16:])] ^= 1
    (tmp_path / "copy.nc").write_bytes(content)
    assert rerun(tmp_path / "copy.nc", landscape=digits).differences == ("/test_loss",)


def test_the_remains_of_an_interrupted_network_are_run_again_from_their_own_configuration(
    digits, tmp_path, monkeypatch
):
    class Never(Exception):
        pass

    path = tmp_path / "run.nc"
    real = type(digits).weighted_gradient
    calls = []

    def failing(self, *arguments):
        calls.append(1)
        if len(calls) > 8:
            raise Never
        return real(self, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(type(digits), "weighted_gradient", failing)
        with pytest.raises(Never):
            recorded(langevin(digits, ALPHA, B), path=path)
    assert open_trajectory(path)["step"].values.tolist() == [0, 3, 6]
    found = rerun(path, landscape=digits)
    assert found.same, found.differences
    assert found.trajectory.sizes["step"] == 5


def test_a_run_that_diverged_diverges_again_to_the_same_bits(digits, tmp_path):
    with pytest.raises(UnstableTrajectory):
        recorded(sgd(digits, 1e30, B), schedule=EverySteps(1), path=tmp_path / "run.nc", observables=Losses())
    assert open_trajectory(tmp_path / "run.nc").sizes["step"] >= 1
    assert rerun(tmp_path / "run.nc", landscape=digits).same
    wild = on_valley(ThermalNoise(0.1))
    far = [[0.1, 0.2], [1e38, 1e38]]
    simulate(wild, steps=3000, replicas=2, weights=far, on_divergence="mask", path=tmp_path / "masked.nc")
    assert rerun(tmp_path / "masked.nc").same


def test_other_versions_are_told(tmp_path):
    run = simulate(surrogate(), steps=3)
    config = json.loads(run.attrs["config_json"])
    config["versions"]["numpy"] = "1.0"
    run.attrs["config_json"] = json.dumps(config, sort_keys=True)
    found = rerun(write_trajectory(run, tmp_path / "run.nc"))
    assert found.same
    assert found.versions == {"numpy": ("1.0", np.__version__)}


@pytest.fixture(scope="module")
def front_door(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("front door")
    small = ["--samples-per-class", "6", "--hidden", "8", "--epochs", "3", "--records", "3", "--processes", "langevin"]
    assert compare_sgd_vs_langevin.STUDY.main(["--quick", *small, "--replicas", "2", "--out", str(out)]) == 0
    return out


def test_the_front_door_s_file_is_valid_and_run_again_by_its_study(front_door):
    path = front_door / "trajectories.nc"
    assert validate(path) == ()
    found = rerun(path, run=compare_sgd_vs_langevin.run_configuration)
    assert found.same, found.differences
    with pytest.raises(
        ConfigurationError,
        match=r"not made by one simulate.*run=studies\.compare_sgd_vs_langevin\.study\.run_configuration",
    ):
        rerun(path)


def test_what_studies_write_beside_trajectories_is_told_from_them(front_door, tmp_path):
    assert validate(front_door / "distances.nc") == ()
    flat_minima.STUDY.run(
        flat_minima.Config(quick=True, replicas=8, batch_sizes=(6,), longest=2.0, records=10, out=tmp_path)
    )
    results = open_trajectory(tmp_path / "rates.nc")
    assert study_of(results.attrs) == "flat_minima"
    assert validate(results) == ()
    found = validate(results.to_dataset().drop_attrs(deep=False))  # nothing says that they are of a study
    assert any("is unknown: see langevin_nn.observables" in each for each in found)


def test_a_process_is_rebuilt_with_drift_and_noise_on_the_same_landscape():
    """So that both come from one weighted pass, as they did."""
    process = regression_process()
    config = json.loads(simulate(process, steps=1).attrs["config_json"])
    again = rebuilt_process(config["process"])
    assert again.drift.landscape is again.landscape
    assert inspect.signature(Process).parameters.keys() == {key for key in config["process"] if key != "type"}


# --- Merged and joined ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def seeds(digits, tmp_path_factory) -> list[Path]:
    folder = tmp_path_factory.mktemp("seeds")
    paths = [folder / f"{seed}.nc" for seed in range(4)]
    for seed, path in enumerate(paths):
        recorded(sgd(digits, ALPHA, B), seed=seed, path=path)
    return paths


def opened(paths) -> list[xr.DataTree]:
    return [open_trajectory(path) for path in paths]


def test_merging_is_concatenation_along_replicas(seeds):
    merged = merge(opened(seeds[:3]))
    loaded = [in_memory(path) for path in seeds[:3]]
    assert set(merged.groups) == set(loaded[0].groups)
    for path in merged.groups:
        group = merged[path].to_dataset(inherit=False)
        parts = [tree[path].to_dataset(inherit=False) for tree in loaded]
        for name in parts[0].data_vars:
            expected = np.concatenate([part[name].values for part in parts], axis=0)
            assert group[name].dtype == expected.dtype
            np.testing.assert_array_equal(group[name].values, expected, err_msg=str(name))
            assert group[name].attrs == parts[0][name].attrs
            assert group[name].dims == parts[0][name].dims
        dims = [name for name in parts[0].dims if name != "replica"]
        for name in {each for each in parts[0].coords if set(parts[0][each].dims) <= set(dims)}:
            xr.testing.assert_identical(group[name].variable, parts[0][name].variable)
    root = merged.to_dataset()
    assert root.replica.values.tolist() == list(range(6))
    assert root.replica_of_file.values.tolist() == [0, 1] * 3
    assert root.seed.values.tolist() == [0, 0, 1, 1, 2, 2]


def test_merged_files_written_and_opened_again_are_identical(seeds, tmp_path):
    merged = merge(opened(seeds[:2]))
    path = write_trajectory(merged, tmp_path / "merged.nc")
    again = open_trajectory(path)
    same_bits(again, merged)
    assert dict(again.attrs) == dict(merged.attrs)
    assert validate(path) == ()


def test_replicas_that_differ_keep_their_labels(digits):
    parts = [recorded(sgd(digits, ALPHA, B), replicas=chosen, observables=Losses()) for chosen in ((0, 5), (3,))]
    merged = merge(parts)
    assert merged["replica"].values.tolist() == [0, 5, 3]
    assert "replica_of_file" not in merged.coords
    whole = recorded(sgd(digits, ALPHA, B), replicas=(0, 5, 3), observables=Losses())
    np.testing.assert_array_equal(merged.train_loss, whole.train_loss)


@pytest.mark.parametrize("nesting", ["left", "right", "both"])
def test_merging_what_was_merged_is_merging_all_at_once(seeds, tmp_path, nesting):
    at_once = merge(opened(seeds))
    if nesting == "left":
        nested = merge([merge_to_file(seeds[:3], tmp_path / "a.nc"), *opened(seeds[3:])])
    elif nesting == "right":
        nested = merge([*opened(seeds[:1]), merge_to_file(seeds[1:], tmp_path / "a.nc")])
    else:
        nested = merge([merge_to_file(seeds[:2], tmp_path / "a.nc"), merge_to_file(seeds[2:], tmp_path / "b.nc")])
    same_bits(nested, at_once)
    assert nested.attrs["config_json"] == at_once.attrs["config_json"]
    assert validate(nested) == ()


def test_a_sweep_of_learning_rates_has_its_rates_and_times(digits):
    rates = (0.1, 0.2)
    parts = [recorded(sgd(digits, rate, B), observables=Losses()) for rate in rates]
    merged = merge(parts)
    assert merged.learning_rate.values.tolist() == [0.1, 0.1, 0.2, 0.2]
    assert merged.time.dims == ("replica", "step")
    np.testing.assert_allclose(merged.time, np.outer([0.1, 0.1, 0.2, 0.2], merged.step), rtol=1e-14)
    np.testing.assert_array_equal(merged.epoch, parts[0].epoch)
    third = recorded(sgd(digits, 0.3, B), observables=Losses())
    for nested in (merge([merged, third]), merge([third, merged])):
        rows = nested.time.sel(replica=nested.replica[nested.learning_rate == 0.3])
        np.testing.assert_allclose(rows, np.tile(0.3 * merged.step.values, (2, 1)), rtol=1e-14)


def test_a_sweep_of_batch_sizes_counts_updates(digits, tmp_path):
    options = {"epochs": 2, "replicas": 2, "schedule": EveryEpochs(1), "observables": Losses()}
    parts = [simulate(sgd(digits, ALPHA, size), **options) for size in (10, 20)]
    merged = merge(parts)
    assert merged.batch_size.values.tolist() == [10, 10, 20, 20]
    assert merged.update_count.dims == ("replica", "step")
    np.testing.assert_array_equal(merged.update_count, [[0, 6, 12]] * 2 + [[0, 3, 6]] * 2)
    third = simulate(sgd(digits, ALPHA, 10), **options, seed=1)
    for nested in (merge([merged, third]), merge([third, merged])):
        assert sorted(nested.update_count[:, 2].values.tolist()) == [6, 6, 12, 12, 12, 12]
    langevins = merge([simulate(langevin(digits, ALPHA, size), **options) for size in (10, 20)])
    both = join_processes({"sgd": merged, "langevin": langevins}, {"seed": 0})
    assert both.update_count.dims == ("process", "replica", "step")
    np.testing.assert_array_equal(both.update_count, np.stack([merged.update_count] * 2))
    assert validate(write_trajectory(both, tmp_path / "both.nc")) == ()


def test_a_sweep_of_label_noise_has_the_realised_fractions():
    landscapes = [digits_landscape(N, label_noise=share) for share in (0.2, 0.6)]
    merged = merge([recorded(sgd(each, ALPHA, B), observables=SampleLosses(EverySteps(6))) for each in landscapes])
    expected = [float(each.mislabeled.double().mean()) for each in landscapes]
    assert merged["mislabeled_fraction"].values.tolist() == np.repeat(expected, 2).tolist()
    np.testing.assert_allclose(merged["samples"].mislabeled.mean("sample"), merged["mislabeled_fraction"])
    data = merged["data_sha256"].values
    assert data[0] == data[1] != data[2] == data[3]


def test_words_and_a_user_s_own_settings_become_coordinates(digits):
    parts = [
        recorded(make(digits, ALPHA, B), observables=Losses(), config={"temperature": t, "note": None, "on": t > 1})
        for make, t in ((sgd, 1), (langevin, 2.5))
    ]
    merged = merge(parts)
    assert merged["temperature"].values.tolist() == [1.0, 1.0, 2.5, 2.5]
    assert merged["name"].values.tolist() == ["sgd", "sgd", "langevin", "langevin"]
    assert merged["type"].values.tolist() == ["ShuffledMinibatches"] * 2 + ["MatchedGaussian"] * 2
    assert "note" not in merged.coords


REFUSED = {
    "one alone": (lambda d, run: [run], "merging needs at least two trajectories, got 1"),
    "other groups": (lambda d, run: [run, recorded(sgd(d, ALPHA, B), observables=None)], "the same observables of all"),
    "other variables": (
        lambda d, run: [recorded(sgd(d, ALPHA, B), observables=[each]) for each in (Losses(), DrivingNoise())],
        "trajectory 1 and the first differ in driving_noise_strength",
    ),
    "other moments": (
        lambda d, run: [recorded(sgd(d, ALPHA, B), schedule=AtSteps(at), observables=Losses()) for at in ((0, 6), (0, 8))],
        "trajectory 1 was recorded along another epoch than the first",
    ),
    "other lengths": (
        lambda d, run: [recorded(sgd(d, ALPHA, B), steps=n, observables=Losses()) for n in (12, 9)],
        "trajectory 1 was recorded along another step than the first",
    ),
    "other networks": (
        lambda d, run: [
            recorded(sgd(each, ALPHA, B), observables=Weights(EverySteps(6)))
            for each in (d, digits_landscape(N, widths=(64, 5, 10)))
        ],
        "trajectory 1 was recorded along another parameter than the first",
    ),
    "other processes": (
        lambda d, run: [
            join_processes({"sgd": run, name: recorded(make(d, ALPHA, B))}, {"seed": 0})
            for name, make in (("langevin", langevin), ("gradient_descent", gradient_descent))
        ],
        "trajectory 1 was recorded along another process than the first",
    ),
    "a network and a surrogate": (
        lambda d, run: [recorded(each, observables=Weights(EVERY)) for each in (surrogate(), sgd(d, ALPHA, B))],
        "trajectory 1 and the first differ in epoch",
    ),
    "without a configuration": (
        lambda d, run: [attribute("config_json")(run.copy()), run],
        "no configuration in its attribute config_json",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("make", "said"), REFUSED.values(), ids=REFUSED.keys())
def test_what_cannot_be_merged_is_refused(digits, network_run, make, said):
    with pytest.raises(ConfigurationError, match=said):
        merge(make(digits, network_run))


def test_an_incomplete_part_makes_the_whole_incomplete(network_run):
    one, other = (network_run.sel(replica=[label]) for label in (0, 1))
    assert merge([one, attribute("complete", 0)(other.copy())]).attrs["complete"] == 0
    assert merge([one, other]).attrs["complete"] == 1


@pytest.mark.parametrize("order", [1, -1])
@pytest.mark.parametrize(("observables", "said"), [(DrivingNoise(), "driving_noise_strength"), (Losses(), "epoch")])
def test_processes_recorded_otherwise_are_not_joined(digits, observables, said, order):
    """Of other observables, and a network beside a surrogate."""
    process = surrogate() if said == "epoch" else langevin(digits, ALPHA, B)
    runs = [
        recorded(sgd(digits, ALPHA, B), observables=Losses()),
        recorded(process, observables=[Losses(), observables]),
    ]
    with pytest.raises(ConfigurationError, match=f"differ in {said}"):
        join_processes(dict(zip("ab", runs[::order], strict=True)), {})


def test_processes_on_other_networks_are_not_joined(digits):
    other = digits_landscape(N, widths=(64, 5, 10))
    runs = {name: recorded(sgd(d, ALPHA, B), observables=Weights(EVERY)) for name, d in (("a", digits), ("b", other))}
    with pytest.raises(
        ConfigurationError, match=r"process 'b' has 385 parameters, 'a' has 610: expected the same landscape"
    ):
        join_processes(runs, {})


def test_joined_trajectories_are_not_joined_again(digits, network_run):
    joined = join_processes({"sgd": network_run, "langevin": recorded(langevin(digits, ALPHA, B))}, {"seed": 0})
    with pytest.raises(
        ConfigurationError, match="'a' is a trajectory of several processes, sgd, langevin: expected one"
    ):
        join_processes({"a": joined, "b": joined}, {})


def test_files_of_many_megabytes_are_joined_within_a_few(tmp_path):
    import tracemalloc

    landscape = QuadraticLandscape(np.eye(32), np.zeros((32, 32)))
    paths = [tmp_path / f"{seed}.nc" for seed in (0, 1)]
    for seed, path in enumerate(paths):
        simulate(
            Process(landscape, Silent(), 0.1),
            steps=255,
            replicas=128,
            seed=seed,
            observables=Weights(EverySteps(1)),
            path=path,
        )
    trees = opened(paths)
    tracemalloc.start()
    try:
        merged = merge(trees)["weights"].weights
        joined = join_processes({"a": trees[0], "b": trees[1]}, {"seed": 0})["weights"].weights
        found = [each.isel(weight_step=2, replica=3).values for each in (merged[128:], joined.isel(process=1))]
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert merged.nbytes == joined.nbytes == 2**24
    np.testing.assert_array_equal(found, [trees[1]["weights"].weights.values[3, 2]] * 2)
    assert peak < 2**22


# --- In other formats --------------------------------------------------------------------------------------------------


def table(path: Path) -> pd.DataFrame:
    """Read numbers as Python does, to the last bit."""
    frame = pd.read_csv(path, dtype=str)
    return frame.apply(lambda column: column if column.name == "process" else column.astype(object).astype(float))


def test_a_table_holds_every_number_of_the_root(network_run, tmp_path):
    frame = table(export(network_run, tmp_path / "run.csv"))
    root = network_run.to_dataset()
    assert len(frame) == root.sizes["replica"] * root.sizes["step"]
    assert list(zip(frame.replica, frame.step, strict=True)) == [(r, s) for r in (0, 1) for s in (0, 3, 6, 9, 12)]
    seen = {"replica", "step"}
    for name, variable in root.data_vars.items():
        (label,) = [each for each in variable.dims if each not in ("replica", "step")] or [None]
        for item in [None] if label is None else variable[label].values:
            column = name if item is None else f"{name}[{item}]"
            expected = variable if item is None else variable.sel({label: item})
            np.testing.assert_array_equal(frame[column].to_numpy(), expected.values.ravel(), err_msg=column)
            seen.add(column)
    for name in ("time", "epoch"):
        np.testing.assert_array_equal(frame[name].to_numpy(), np.tile(root[name].values, 2))
        seen.add(name)
    np.testing.assert_array_equal(frame.learning_rate, ALPHA)
    assert set(frame.columns) == {*seen, "learning_rate", "effective_learning_rate"}


@pytest.mark.parametrize(
    ("group", "name", "clock", "labels"),
    [
        ("spectrum", "noise_eigenvalue", "spectrum_step", range(1, 6)),
        ("samples", "sample_loss", "sample_step", range(N)),
        ("weights", "weights", "weight_step", range(610)),
    ],
)  # fmt: skip
def test_a_table_of_a_group_holds_every_number_of_it(network_run, tmp_path, group, name, clock, labels):
    frame = table(export(network_run, tmp_path / "run.csv", group=group))
    values = network_run[group].to_dataset()[name]
    columns = frame[[f"{name}[{label}]" for label in labels]].to_numpy().astype(values.dtype)
    np.testing.assert_array_equal(columns, values.values.reshape(-1, len(labels)))
    assert frame[clock].tolist() == values[clock].values.tolist() * 2


def test_a_table_of_several_processes_names_them(digits, network_run, tmp_path):
    joined = join_processes({"sgd": network_run, "langevin": recorded(langevin(digits, ALPHA, B))}, {"seed": 0})
    frame = table(export(joined, tmp_path / "run.csv"))
    assert frame.columns[:3].tolist() == ["process", "replica", "step"]
    root = joined.to_dataset()
    for name, values in (("test_loss", root.test_loss), ("activity[correct]", root.activity.sel(cohort="correct"))):
        np.testing.assert_array_equal(frame[name].to_numpy(), values.values.ravel())
    assert frame.process.tolist() == ["sgd"] * 10 + ["langevin"] * 10


def test_a_table_of_a_sweep_has_the_swept_parameters(digits, tmp_path):
    merged = merge([recorded(sgd(digits, rate, B), observables=Losses()) for rate in (0.1, 0.2)])
    frame = table(export(merged, tmp_path / "run.csv"))
    np.testing.assert_array_equal(frame.time.to_numpy(), merged.time.values.ravel())
    np.testing.assert_array_equal(frame.learning_rate.to_numpy(), np.repeat(merged.learning_rate.values, 5))


def test_a_long_table_is_written_piece_by_piece_to_the_same_text(network_run, tmp_path, monkeypatch):
    whole = export(network_run, tmp_path / "whole.csv").read_text().splitlines()
    monkeypatch.setattr(sys.modules["langevin_nn.store.formats"], "_TOGETHER", 2)
    pieces = export(network_run, tmp_path / "pieces.csv").read_text().splitlines()
    assert pieces[0] == whole[0]
    assert sorted(pieces) == sorted(whole)


TREES = {
    "network": lambda d, run: run,
    "surrogate": lambda d, run: recorded(surrogate(), observables=[Losses(), Weights(EVERY)]),
    "weights only": lambda d, run: recorded(sgd(d, ALPHA, B), observables=Weights(EVERY)),
    "sweep": lambda d, run: merge([recorded(sgd(d, rate, B)) for rate in (0.1, 0.2)]),
    "processes": lambda d, run: join_processes({"a": run, "b": recorded(langevin(d, ALPHA, B))}, {"seed": 0}),
}


@pytest.mark.parametrize("from_file", [False, True])
@pytest.mark.parametrize("make", TREES.values(), ids=TREES.keys())
def test_a_zarr_store_holds_the_tree(digits, network_run, tmp_path, make, from_file):
    tree = make(digits, network_run)
    if from_file:
        tree = open_trajectory(write_trajectory(tree, tmp_path / "run.nc"))
    export(tree, tmp_path / "run.zarr", "zarr")
    with xr.open_datatree(tmp_path / "run.zarr", engine="zarr") as stored:
        assert set(stored.groups) == set(tree.groups)
        assert dict(stored.attrs) == dict(tree.attrs)
        for path in tree.groups:
            one, other = (each[path].to_dataset(inherit=False) for each in (tree, stored))
            assert set(one.variables) == set(other.variables)
            assert set(one.coords) == set(other.coords)
            for name in one.variables:
                np.testing.assert_array_equal(one[name].values, other[name].values, err_msg=str(name))
                assert one[name].dims == other[name].dims
                assert one[name].attrs == other[name].attrs
        assert validate(stored.load()) == ()


@pytest.mark.parametrize("kind", ["csv", "zarr"])
def test_what_is_there_is_replaced_only_where_asked(network_run, tmp_path, kind):
    path = tmp_path / f"run.{kind}"
    path.write_text("mine")
    with pytest.raises(ConfigurationError, match="is there already: expected nothing there"):
        export(network_run, path, kind)
    assert path.read_text() == "mine"
    export(network_run, path, kind, overwrite=True)
    export(network_run, path, kind, overwrite=True)
    assert [each.name for each in tmp_path.iterdir()] == [path.name]
    assert path.is_dir() == (kind == "zarr")


def test_a_format_or_group_that_there_is_not_is_refused(network_run, tmp_path):
    with pytest.raises(UnknownNameError, match="unknown format 'xlsx': expected one of csv, zarr"):
        export(network_run, tmp_path / "run.xlsx", "xlsx")
    with pytest.raises(
        ConfigurationError, match=r"no group 'wights': expected one of \(root\), (samples|spectrum), .*, weights"
    ):
        export(network_run, tmp_path / "run.csv", group="wights")
    rootless = simulate(surrogate(), steps=2, observables=Weights(EVERY))
    with pytest.raises(ConfigurationError, match=r"group \(root\) has no records: choose another with group="):
        export(rootless, tmp_path / "run.csv")
    assert list(tmp_path.iterdir()) == []
