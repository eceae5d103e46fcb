"""Observables, the package's and a stranger's: declared, held to their laws, and seen by all that reads files."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
import xarray as xr
from cases import ROOT, digits_landscape

from langevin_nn import (
    NetworkLandscape,
    Process,
    Simulation,
    langevin,
    merge,
    observables,
    open_sweep,
    open_trajectory,
    provenance,
    rerun,
    sgd,
    simulate,
    sweep,
    validate,
)
from langevin_nn.__main__ import main
from langevin_nn.analyzers.labels import along_clock
from langevin_nn.errors import ConfigurationError
from langevin_nn.landscape import QuadraticLandscape
from langevin_nn.noise import AnisotropicNoise
from langevin_nn.observables import (
    Coordinate,
    DrivingNoise,
    Losses,
    LossesOfAverage,
    MeasuredWeights,
    NoiseSpectrum,
    Observable,
    OrderParameters,
    SampleLosses,
    Variable,
    Weights,
    describe,
)
from langevin_nn.schedules import AtSteps, EverySteps, Schedule
from langevin_nn.schema import COHORTS, SCHEMA_VERSION
from langevin_nn.store import export, folder_of, join_processes, migration, write_trajectory
from langevin_nn.testing import check_observable
from langevin_nn.update import Averaged, Plain, Update

N, B, ALPHA = 60, 10, 0.1
PAGE = (ROOT / "docs" / "observables.md").read_text()


def valley(update: Update | None = None) -> Process:
    landscape = QuadraticLandscape(np.diag([1.0, 3.0]), [[2.0, 0.5], [0.5, 1.0]], start=[1.0, -1.0])
    return Process(landscape, AnisotropicNoise(landscape.noise_factor()), ALPHA, update=update or Plain())


@pytest.fixture(scope="module")
def layers():
    """The observable of the page, in a module of its own as a stranger's is."""
    block = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)[0]
    assert len(block.splitlines()) <= 60
    module = sys.modules["strangers"] = ModuleType("strangers")
    exec(compile(block, "strangers.py", "exec"), module.__dict__)
    yield module.Layers(("hidden", "output"), (64 * 8 + 8, 8 * 10 + 10))
    del sys.modules["strangers"]


@dataclass(frozen=True)
class Squares(Schedule):
    """A stranger's own."""

    def steps(self, last_step, steps_per_epoch):
        return np.arange(int(last_step**0.5) + 1) ** 2


# --- Laws ---------------------------------------------------------------------------------------------------------------

OWN = {
    "DrivingNoise": DrivingNoise(),
    "Losses": Losses(),
    "MeasuredWeights": MeasuredWeights(),
    "NoiseSpectrum": NoiseSpectrum(3, n_hessian_modes=2),
    "OrderParameters": OrderParameters(8),
    "SampleLosses": SampleLosses(AtSteps((3, 6))),
    "Weights": Weights(),
}


AVERAGED = Averaged(Plain(), 0.5)


def test_every_observable_of_the_package_is_held_to_the_laws():
    classes = {name for name in observables.__all__ if isinstance(each := getattr(observables, name), type)
               and issubclass(each, Observable)}  # fmt: skip
    assert classes == {*OWN, "LossesOfAverage", "Observable"}


@pytest.mark.parametrize("make", [lambda digits: sgd(digits, ALPHA, B, update=AVERAGED), lambda _: valley(AVERAGED)])
def test_losses_of_the_average_keep_the_laws_of_rules_that_have_one(digits, make):
    check_observable(LossesOfAverage(), make(digits))


@pytest.mark.parametrize("observable", OWN.values(), ids=OWN.keys())
def test_observables_keep_the_laws_on_a_network(digits, observable):
    check_observable(observable, sgd(digits, ALPHA, B))


@pytest.mark.parametrize("observable", [each for name, each in OWN.items() if name != "SampleLosses"])
def test_observables_keep_the_laws_on_a_surrogate(observable):
    check_observable(observable, valley())


def test_measured_weights_are_those_of_the_measured_tensors_alone():
    process = sgd(digits_landscape(N, parameters="2.weight"), ALPHA, B)
    check_observable(MeasuredWeights(), process)
    own, every = (
        simulate(process, steps=3, observables=[each(AtSteps((3,)))], progress=False)["weights"].weights.values
        for each in (MeasuredWeights, Weights)
    )
    np.testing.assert_array_equal(own, every[..., 65 * 8 : 65 * 8 + 8 * 10])


def test_a_strangers_observable_keeps_the_laws(digits, layers):
    check_observable(layers, langevin(digits, ALPHA, B))


NORM = Variable("norm", "norm of the weights", (), "weight", "own")


@dataclass(frozen=True)
class Own(Observable):
    """A stranger's, which twins break in one way each."""

    schedule: Schedule = field(default_factory=lambda: EverySteps(2))
    variables = (NORM,)

    def measure(self, snapshot):
        return {"norm": self.of(snapshot.state.weights, snapshot).numpy()}

    def of(self, weights, snapshot):
        return weights.norm(dim=1)


def refusing(self, weights, snapshot):
    assert weights.isfinite().all(), "wants numbers"
    return weights.norm(dim=1)


COUNTED = count()
TWINS = {
    "Sharing": lambda self, weights, snapshot: weights.norm(dim=1) + 1e-9 * weights.norm(dim=1)[:1] + 0 * weights.sum(),
    "Disturbing": lambda self, weights, snapshot: weights.mul_(1.001).norm(dim=1),
    "Drawing": lambda self, weights, snapshot: weights.norm(dim=1) + np.random.default_rng().normal(),
    "Counting": lambda self, weights, snapshot: weights.norm(dim=1) + next(COUNTED),
    "Refusing": refusing,
}


@pytest.mark.parametrize(
    ("twin", "said"),
    [
        ("Sharing", "'norm' has other bits alone than among other replicas"),
        ("Sharing", "'norm' of other replicas changes where one diverged"),
        ("Disturbing", "measuring changes the run"),
        ("Drawing", "'norm' at step 0 is recorded as .* and measured again .* with other values"),
        ("Counting", "'norm' has other bits after being killed and resumed"),
        ("Refusing", "raises where a replica diverged .*wants numbers"),
        ("Empty", "nothing was recorded"),
    ],
)
def test_an_observable_that_breaks_a_law_is_told_which(twin, said):
    check_observable(Own(), valley())
    methods = {"of": TWINS[twin]} if twin in TWINS else {"measure": lambda self, snapshot: {}}
    with pytest.raises(AssertionError, match=rf"{twin} breaks \d laws: .*{said}"):
        check_observable(type(twin, (Own,), methods)(), valley())


# --- A stranger's observable, seen by all that reads files ----------------------------------------------------------------


@pytest.fixture(scope="module")
def run(digits, layers, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("stranger") / "run.nc"
    recorded = [Losses(), layers, Weights(EverySteps(5))]
    simulate(sgd(digits, ALPHA, B), steps=20, replicas=2, schedule=EverySteps(4), observables=recorded, path=path)
    return path


def test_what_it_measures_lies_in_its_own_group_on_its_own_clock(run):
    tree = open_trajectory(run)
    group = tree["layers"].to_dataset(inherit=False)
    assert group.layers_step.values.tolist() == [0, 5, 10, 15, 20]
    assert group.layer.values.tolist() == ["hidden", "output"]
    assert group.layer_size.values.tolist() == [[520, 90], [520, 90]]
    assert {"time", "epoch"} <= set(group.coords)
    assert group.layer_velocity.attrs["units"] == "weight time-1"
    weights = tree["weights"].weights.values
    expected = np.stack([np.linalg.norm(weights[..., :520], axis=-1), np.linalg.norm(weights[..., 520:], axis=-1)], -1)
    np.testing.assert_allclose(group.layer_norm, expected, rtol=1e-6)
    assert validate(run) == ()


def test_nothing_of_it_is_read_before_it_is_asked_for(run):
    assert not open_trajectory(run)["layers"].layer_norm.variable._in_memory


def test_its_file_is_run_again_to_the_same_bits_with_a_strangers_schedule_too(digits, layers, tmp_path):
    own = type(layers)(layers.names, layers.sizes, Squares())
    simulate(sgd(digits, ALPHA, B), steps=9, replicas=2, observables=own, schedule=Squares(), path=tmp_path / "run.nc")
    config = json.loads(open_trajectory(tmp_path / "run.nc").attrs["config_json"])
    assert config["observables"][0]["type"] == "strangers:Layers"
    assert config["schedule"]["type"] == f"{__name__}:Squares"
    again = rerun(tmp_path / "run.nc", landscape=digits)
    assert again.same
    assert again.trajectory["layers"].layers_step.values.tolist() == [0, 1, 4, 9]


def test_it_is_merged_joined_swept_and_exported(digits, layers, run, tmp_path):
    other = simulate(
        langevin(digits, ALPHA, B), steps=20, replicas=2, seed=1, schedule=EverySteps(4),
        observables=[Losses(), layers, Weights(EverySteps(5))],
    )  # fmt: skip
    one = open_trajectory(run)
    merged = merge([one, other])
    assert merged["layers"].layer_norm.dims == ("replica", "layers_step", "layer")
    np.testing.assert_array_equal(merged["layers"].layer_norm[2:], other["layers"].layer_norm)
    joined = join_processes({"sgd": one, "langevin": other}, {"seed": 0})
    assert joined["layers"].layer_norm.dims == ("process", "replica", "layers_step", "layer")
    assert joined["layers"].layer_size.dims == ("replica", "layer")
    for number, tree in enumerate((merged, joined)):
        assert validate(tree) == validate(write_trajectory(tree, tmp_path / f"{number}.nc")) == ()
    table = export(one, tmp_path / "table.csv", group="layers").read_text().splitlines()
    assert table[0].startswith("replica,layers_step,epoch,time,layer_norm[hidden],layer_norm[output],layer_velocity")
    assert len(table) == 1 + 2 * 5
    stored = xr.open_datatree(export(one, tmp_path / "store.zarr", "zarr"), engine="zarr")
    assert validate(stored) == ()


def simulated(rate: float) -> Simulation:
    return Simulation(Process(valley().landscape, valley().noise, rate), steps=4, replicas=2, observables=[Own()])


def test_it_is_swept(tmp_path):
    sweep(simulated, {"rate": [0.1, 0.2]}, folder=tmp_path / "sweep", progress=False)
    assert open_sweep(tmp_path / "sweep")["own"].norm.dims == ("point", "replica", "own_step")


def test_its_other_units_are_not_merged_into_one_variable():
    @dataclass(frozen=True)
    class Other(Own):
        variables = (Variable("norm", "norm of the weights", (), "kg", "own"),)

    runs = [
        simulate(valley(), steps=4, replicas=2, seed=k, observables=each) for k, each in enumerate((Own(), Other()))
    ]
    with pytest.raises(ConfigurationError, match="trajectory 1 and the first say other things of norm"):
        merge(runs)
    with pytest.raises(ConfigurationError, match="process 'b' and 'a' say other things of norm"):
        join_processes(dict(zip("ab", runs, strict=True)), {})


def test_info_and_analyzers_see_it(run, capsys):
    assert main(["info", str(run)]) == 0
    said = capsys.readouterr().out
    assert "/layers       3 variables" in said
    assert (
        "layer_velocity (replica, layers_step, layer): norm of the velocity of a layer's weights [weight time-1]"
        in said
    )
    assert "by strangers:Layers" in said
    values, clock = along_clock(open_trajectory(run)["layers"].layer_norm, None)
    assert (values.dims[-1], clock) == ("layers_step", "layers_step")
    assert main(["export", str(run), "--group", "layers", "--out", str(run.with_name("t.csv"))]) == 0


# --- Declarations that cannot be recorded ---------------------------------------------------------------------------------


def declaring(*variables, labels=None):
    @dataclass(frozen=True)
    class Declaring(Own):
        def coordinates(self, process):
            return labels or {}

        def measure(self, snapshot):
            raise AssertionError("the run has started")

    Declaring.variables = variables
    return Declaring()


def named(name="norm", dimensions=(), units="weight", group="own", **more):
    return Variable(name, "something", dimensions, units, group, **more)


REFUSED = {
    "another's units": ([Own(), declaring(named())], r"Own and .*Declaring both declare 'norm' with other long_name"),
    "our name, other units": ([declaring(named("weights", ("parameter",), "kg", "weights"))], "with other long_name .*units"),
    "our name, other group": ([declaring(named("test_error", group="own"))], r"describe\('test_error'\)"),
    "a reserved group": ([declaring(named(group="spectrum"))], "in the group 'spectrum', which is reserved"),
    "a group called like replicas": ([declaring(named(group="replica"))], "which is reserved"),
    "a group called like a scalar": ([declaring(named(group="train_loss"))], "declares 'train_loss' twice"),
    "a group called like a label of the root": ([declaring(named(group="cohort"))], "which is reserved"),
    "a name of a coordinate": ([declaring(named("epoch"))], "declares 'epoch', which is reserved"),
    "a name of a clock": ([declaring(named("some_step"))], "declares 'some_step', which is reserved"),
    "a dimension of the clock": ([declaring(named(dimensions=("own_step",)))], "do not end in '_step'"),
    "a dimension of replicas": ([declaring(named(dimensions=("replica",)))], "are added by themselves"),
    "a dimension twice": ([declaring(named(dimensions=("layer", "layer")))], "expected names that come once"),
    "called like its dimension": ([declaring(named("layer", ("layer",)))], "declares 'layer' twice"),
    "a dimension called like our scalar": (
        [Losses(), declaring(named(dimensions=("test_loss",), group=""))], "Declaring declares 'test_loss' twice"
    ),
    "a dimension of the root called like our group": (
        [declaring(named(dimensions=("weights",), group=""))], "Declaring declares 'weights' twice"
    ),
    "two groups": ([declaring(named(), named("other", group="else"))], "of the groups /else, /own: expected one"),
    "no variables": ([declaring("norm")], r"expected a tuple of Variable"),
    "labels of nothing": ([declaring(named(), labels={"layer": Coordinate([1], "l")})], "labels the dimension 'layer'"),
    "labels of ours": (
        [declaring(named(dimensions=("cohort",)), labels={"cohort": Coordinate(COHORTS, "cohort")})], "that has no labels yet"
    ),
    "labels that are none": ([declaring(named(dimensions=("layer",)), labels={"layer": [1, 2]})], "expected a Coordinate"),
    "labels of two kinds": (
        [
            declaring(named(dimensions=("layer",)), labels={"layer": Coordinate([1, 2], "l")}),
            declaring(named("other", ("layer",)), labels={"layer": Coordinate([1, 3], "l")}),
        ],
        "labels the dimension 'layer' otherwise",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("chosen", "said"), REFUSED.values(), ids=REFUSED.keys())
def test_what_cannot_be_recorded_is_refused_before_the_run(tmp_path, chosen, said):
    with pytest.raises(ConfigurationError, match=said):
        simulate(valley(), steps=4, observables=chosen, path=tmp_path / "run.nc")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"name": "a name"}, "letters, digits and underscores"),
        ({"group": "a/b"}, "letters, digits and underscores"),
        ({"dimensions": "layer"}, r"write \('layer',\) for one"),
        ({"dimensions": (1,)}, "letters, digits and underscores"),
        ({"units": None}, "units of 'norm'"),
    ],
)
def test_a_variable_that_is_none_is_refused(change, said):
    with pytest.raises(ConfigurationError, match=said):
        named(**change)


@dataclass(frozen=True)
class Measuring(Observable):
    """Measures what it is told to, for the first time in the middle of the run."""

    what: object = None
    schedule: Schedule = field(default_factory=lambda: AtSteps((3,)))
    variables = (named(dimensions=("layer",)), named("constant", timeless=True), named("second", ("layer",)))

    def coordinates(self, process):
        return {"layer": Coordinate(["a", "b"], "layer")}

    def measure(self, snapshot):
        return self.what


@pytest.mark.parametrize(
    ("what", "said"),
    [
        (
            {"nrm": np.zeros((2, 2))},
            "measured 'nrm', which none of the run declares: expected one of constant, norm, second",
        ),
        ({"norm": np.zeros(2)}, r"'norm' has shape \(2,\): expected \(replica, layer\)"),
        ({"norm": np.zeros((3, 2))}, "'norm' has 3 along 'replica': expected 2"),
        ({"norm": np.zeros((2, 3))}, "'norm' has 3 along 'layer': expected 2"),
        ({"norm": torch.zeros(2, 2)}, "'norm' is of type Tensor: expected a NumPy array"),
        ({"norm": np.zeros((2, 2), complex)}, "'norm' is of dtype complex128: expected a NumPy array of real numbers"),
        ({"norm": np.zeros((2, 2), "M8[s]")}, "'norm' is of dtype datetime64"),
        (
            {"constant": np.zeros(2)},
            "'constant' was measured for group /own, at a time: expected group /own, the same at all",
        ),
        ({"train_loss": np.zeros((2, 3))}, "measured 'train_loss', which none of the run declares"),
    ],
)
def test_what_is_measured_otherwise_than_declared_is_refused_before_the_run(tmp_path, what, said):
    Measuring.what = what
    with pytest.raises(ConfigurationError, match=said):
        simulate(valley(), steps=4, replicas=2, observables=Measuring(what), path=tmp_path / "run.nc")
    assert not list(tmp_path.iterdir())


# --- Files that are not what they say -------------------------------------------------------------------------------------


def with_group(tree: xr.DataTree, change, to: str = "/layers") -> xr.DataTree:
    groups = {node.path: node.to_dataset(inherit=False).copy(deep=True) for node in tree.subtree}
    groups[to] = change(groups.pop("/layers"))
    made = xr.DataTree.from_dict(groups)
    made.attrs.update(tree.attrs)
    return made


def attribute(name, value):
    def change(group):
        group.layer_norm.attrs[name] = value
        return group

    return change


def undeclared(group):
    del group.layer_norm.attrs["declaration"]
    return group


BROKEN = {
    "other units": (attribute("units", "kg"), "variable 'layer_norm' of group /layers has units='kg': expected 'weight'"),
    "another long name": (attribute("long_name", "x"), "has long_name='x': expected \"norm of a layer's weights\""),
    "no JSON": (attribute("declaration", "{"), "carries a declaration that cannot be understood or is another's"),
    "JSON of a list": (attribute("declaration", "[1]"), "carries a declaration that cannot be understood"),
    "another name": (lambda group: group.rename(layer_norm="layer_nrm"), "'layer_nrm' of group /layers carries a"),
    "another order": (
        lambda group: group.assign(layer_norm=group.layer_norm.transpose()),
        "has dimensions layer, layers_step, replica: expected replica, layers_step, layer",
    ),
    "no labels": (lambda group: group.drop_vars("layer"), "dimension 'layer' of group /layers lacks its labels"),
    "no time": (lambda group: group.drop_vars("time"), "group /layers lacks the coordinate 'time' along 'layers_step'"),
    "no declaration": (undeclared, "variable 'layer_norm' of group /layers is unknown"),
}  # fmt: skip


@pytest.mark.parametrize(("change", "said"), BROKEN.values(), ids=BROKEN.keys())
def test_a_file_is_held_against_its_own_declaration(run, change, said):
    tree = open_trajectory(run).load()
    assert validate(tree) == ()
    found = validate(with_group(tree, change))
    assert found, "nothing was found"
    assert all(said in each or "holds other values" in each for each in found), found


def test_a_declaration_in_the_wrong_group_is_named(run):
    moved = with_group(open_trajectory(run).load(), lambda group: group, to="/other")
    assert any("'layer_norm' of group /other belongs into group /layers" in each for each in validate(moved))


# --- Older files ----------------------------------------------------------------------------------------------------------


def test_a_file_of_schema_1_1_opens_as_the_current_one(digits, tmp_path):
    tree = simulate(sgd(digits, ALPHA, B), steps=4, replicas=2, observables=[Losses(), SampleLosses(), Weights()])
    tree.attrs["schema_version"] = "1.1"
    write_trajectory(tree, tmp_path / "old.nc")
    opened = open_trajectory(tmp_path / "old.nc")
    assert opened.attrs["schema_version"] == SCHEMA_VERSION
    assert validate(opened) == ()
    assert rerun(tmp_path / "old.nc", landscape=digits).same
    assert migration.MIGRATIONS["1.1"][0] == SCHEMA_VERSION == "1.2"


class Stopped(Exception):
    pass


@dataclass(frozen=True)
class Stopping(Losses):
    """Ends the first run."""

    def measure(self, snapshot):
        if snapshot.state.step == 4 and STOP.pop("now", False):
            raise Stopped
        return super().measure(snapshot)


STOP: dict[str, bool] = {}


def test_a_run_that_named_a_users_class_without_its_module_goes_on(tmp_path, monkeypatch):
    options = {"steps": 6, "replicas": 2, "schedule": EverySteps(1), "observables": [Stopping()]}
    STOP["now"] = True
    with monkeypatch.context() as patch:
        patch.setattr(provenance, "class_name", lambda kind: kind.__name__)
        patch.setattr(provenance, "SCHEMA_VERSION", "1.1")
        with pytest.raises(Stopped):
            simulate(valley(), **options, path=tmp_path / "run.nc")
    assert folder_of(tmp_path / "run.nc").is_dir()
    went_on = simulate(valley(), **options, resume=tmp_path / "run.nc")
    np.testing.assert_array_equal(went_on.train_loss, simulate(valley(), **options).train_loss)
    assert validate(tmp_path / "run.nc") == ()
    with pytest.raises(ConfigurationError, match=r"observables.0.type: .*Stopping.* there, .*Losses"):
        simulate(valley(), **{**options, "observables": [Losses()]}, resume=tmp_path / "run.nc")


SCRIPT = """
import sys
from dataclasses import dataclass
import numpy as np
from langevin_nn import Process, rerun, simulate
from langevin_nn.landscape import QuadraticLandscape
from langevin_nn.noise import AnisotropicNoise
from langevin_nn.observables import Observable, Variable

@dataclass(frozen=True)
class Mine(Observable):
    variables = (Variable("norm", "norm", (), "weight", "mine"),)

    def measure(self, snapshot):
        return {"norm": snapshot.state.weights.norm(dim=1).numpy()}

def main():
    landscape = QuadraticLandscape(np.diag([1.0, 3.0]), [[2.0, 0.5], [0.5, 1.0]], start=[1.0, -1.0])
    process = Process(landscape, AnisotropicNoise(landscape.noise_factor()), 0.1)
    simulate(process, steps=2, observables=[Mine()], resume="run.nc")
    assert rerun("run.nc").same

if __name__ == "__main__":
    main()
    assert "scr" not in sys.modules
"""


def test_a_script_and_the_same_as_a_module_go_on_with_each_other(tmp_path):
    (tmp_path / "scr.py").write_text(SCRIPT)
    for how in (["scr.py"], ["-c", "import scr; scr.main()"], ["-m", "scr"]):
        subprocess.run(
            [sys.executable, *how],
            cwd=tmp_path,
            check=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(tmp_path)])},
        )


# --- Records --------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Constant(Observable):
    """A constant beside the losses, and a scalar."""

    schedule: Schedule | None = None
    variables = (Variable("charge", "charge", (), "C", timeless=True), Variable("distance", "distance", (), "weight"))

    def measure(self, snapshot):
        return {"distance": snapshot.state.weights.norm(dim=1).numpy()}

    def timeless(self, snapshot):
        return {"charge": np.arange(len(snapshot.state.weights))}


def test_constants_of_several_observables_of_one_group_are_all_kept(tmp_path):
    run = simulate(valley(), steps=4, replicas=2, observables=[Losses(), Constant()], path=tmp_path / "run.nc")
    assert run.charge.values.tolist() == [0, 1]
    assert run.distance.dims == ("replica", "step")
    assert validate(run) == ()


def test_a_type_that_changes_is_refused(tmp_path):
    @dataclass(frozen=True)
    class Changing(Own):
        def measure(self, snapshot):
            return {"norm": np.zeros(4, np.float64 if snapshot.state.step else np.float32)}

    with pytest.raises(ConfigurationError, match="'norm' is of float64 at step 2: expected float32"):
        simulate(valley(), steps=4, observables=Changing())


def test_half_precision_is_kept_in_memory_and_written_in_single_precision(tmp_path):
    network = torch.nn.Linear(5, 3).half()
    landscape = NetworkLandscape(network, torch.randn(12, 5), torch.arange(12) % 3)
    options = {"steps": 2, "replicas": 2, "seed": 0, "observables": [Weights()]}
    kept = simulate(sgd(landscape, ALPHA, 4), **options)["weights"].weights
    written = simulate(sgd(landscape, ALPHA, 4), **options, path=tmp_path / "run.nc")["weights"].weights
    assert (kept.dtype, written.dtype) == (np.float16, np.float32)
    np.testing.assert_array_equal(kept, written)


def test_variables_of_the_package_are_told_by_name():
    assert describe("weights").recorded_dimensions == ("replica", "weight_step", "parameter")


def test_a_constant_that_is_not_declared_is_refused():
    class Undeclared(Constant):
        variables = Constant.variables[1:]

    with pytest.raises(ConfigurationError, match="measured 'charge', which none of the run declares"):
        simulate(valley(), steps=2, observables=Undeclared())


@pytest.mark.parametrize("first", [0, 3], ids=["at the start", "later"])
def test_other_cohorts_than_those_of_files_are_refused_by_name(tmp_path, first):
    @dataclass(frozen=True)
    class Halves(Own):
        variables = (named("half", ("cohort",), group=""),)

        def measure(self, snapshot):
            return {"half": np.zeros((1, 2))} if snapshot.state.step >= first else {}

    with pytest.raises(ConfigurationError, match="'half' has 2 along 'cohort': expected 3"):
        simulate(valley(), steps=4, replicas=1, observables=[Halves()], path=tmp_path / "run.nc")
