"""The recording loop and its files: schema, values against independent computation, crashes, several processes."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from pathlib import Path

import netCDF4
import numba
import numpy as np
import pytest
import torch
import xarray as xr
from cases import digits_landscape, same_bits
from torch import nn

from langevin_nn import (
    Process,
    Seeds,
    advance,
    gradient_descent,
    isotropic_langevin,
    langevin,
    open_trajectory,
    sgd,
    simulate,
)
from langevin_nn.errors import ConfigurationError, UnstableTrajectory
from langevin_nn.gradients.streamed import StreamedSampleGradients
from langevin_nn.landscape import QuadraticLandscape
from langevin_nn.noise import AnisotropicNoise
from langevin_nn.observables import (
    DrivingNoise,
    Losses,
    NoiseSpectrum,
    OrderParameters,
    SampleLosses,
    Weights,
    default_observables,
    describe,
)
from langevin_nn.observables.base import Snapshot
from langevin_nn.schedules import AtEpochs, AtSteps, EveryEpochs, EverySteps
from langevin_nn.schema import COHORT_PAIRS, COHORTS, SCHEMA_VERSION, clock_of_group
from langevin_nn.store import check_writable, join_processes, write_trajectory
from langevin_nn.threads import single_threaded_products
from models.networks import multilayer_perceptron

N, B, ALPHA = 60, 10, 0.1
STEPS = 12
EVERYTHING = (
    *default_observables(),
    NoiseSpectrum(n_modes=5, schedule=EverySteps(6)),
    SampleLosses(schedule=EverySteps(4)),
    Weights(schedule=EverySteps(3)),
)


def quadratic(update=None) -> Process:
    landscape = QuadraticLandscape(np.diag([1.0, 3.0]), [[2.0, 0.5], [0.5, 1.0]], start=[1.0, -1.0])
    noise = AnisotropicNoise(landscape.noise_factor())
    options = {} if update is None else {"update": update}
    return Process(landscape, noise, ALPHA, name="surrogate", **options)


@pytest.fixture(scope="module")
def network_file(digits, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("network") / "run.nc"
    simulate(
        sgd(digits, ALPHA, B),
        steps=STEPS,
        replicas=(3, 1),
        seed=7,
        schedule=EverySteps(3),
        observables=EVERYTHING,
        path=path,
        config={"study": "test", "nothing": None},
    )
    return path


@pytest.fixture(scope="module")
def surrogate_file(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("surrogate") / "run.nc"
    observables = (*default_observables(), NoiseSpectrum(schedule=EverySteps(6)), Weights(schedule=EverySteps(3)))
    simulate(quadratic(), steps=STEPS, replicas=2, schedule=EverySteps(3), observables=observables, path=path)
    return path


# --- Schema -----------------------------------------------------------------------------------------------------------


def test_network_file_has_all_groups_and_root_variables_of_the_design(network_file):
    tree = open_trajectory(network_file)
    assert set(tree.children) == {"spectrum", "samples", "weights"}
    assert set(tree.data_vars) == {
        *("train_loss", "train_error", "test_loss", "test_error", "driving_noise_strength", "gradient_alignment"),
        *("activity", "directed_activity", "parallel_activity", "perpendicular_activity", "noise_strength"),
        *("parallel_noise", "projection_variance", "gradient_noise_scale"),
        *("alignment", "alignment_standard_error", "alignment_zero_share", "alignment_minibatches"),
        *("alignment_approximation", "alignment_approximation_bound"),
    }
    assert set(tree["samples"].data_vars) == {"sample_loss", "given_label", "true_label", "mislabeled", "relabeled"}
    spectrum = {"noise_eigenvalue", "effective_dimension", "effective_dimension_is_lower_bound"}
    assert set(tree["spectrum"].data_vars) == spectrum
    assert tree["replica"].values.tolist() == [3, 1]
    assert tuple(tree["cohort"].values) == COHORTS == ("all", "correct", "mislabeled")
    assert tuple(tree["cohort_pair"].values) == COHORT_PAIRS
    assert tree["learning_rate"].values.tolist() == [ALPHA, ALPHA]
    assert tree["spectrum"]["mode"].values.tolist() == [1, 2, 3, 4, 5]


def test_surrogate_file_has_no_samples_no_test_quantities_and_no_epoch(surrogate_file):
    tree = open_trajectory(surrogate_file)
    assert set(tree.children) == {"spectrum", "weights"}
    for node in tree.subtree:
        assert "epoch" not in node.coords
    assert not [name for name in tree.data_vars if str(name) in ("test_loss", "test_error", "train_error")]
    assert {"train_loss", "activity", "noise_strength", "alignment"} <= set(tree.data_vars)


def test_groups_are_recorded_on_clocks_of_their_own(network_file):
    tree = open_trajectory(network_file)
    clocks = {node.path: node.to_dataset(inherit=False)[clock_of_group(node.path.strip("/"))] for node in tree.subtree}
    assert clocks["/"].values.tolist() == [0, 3, 6, 9, 12]
    assert clocks["/spectrum"].values.tolist() == [0, 6, 12]
    assert clocks["/samples"].values.tolist() == [0, 4, 8, 12]
    assert clocks["/weights"].values.tolist() == [0, 3, 6, 9, 12]
    for path, clock in clocks.items():
        group = tree[path].to_dataset(inherit=False)
        np.testing.assert_allclose(group["time"], ALPHA * clock.values, rtol=1e-14)
        np.testing.assert_allclose(group["epoch"], clock.values * B / N, rtol=1e-14)
        assert group["time"].dims == group["epoch"].dims == clock.dims


def test_file_carries_configuration_seed_and_versions(network_file):
    attributes = open_trajectory(network_file).attrs
    config = json.loads(attributes["config_json"])
    assert attributes["config_json"] == json.dumps(config, sort_keys=True)
    assert (config["seed"], config["steps"], config["replicas"]) == (7, STEPS, [3, 1])
    assert (config["study"], config["nothing"]) == ("test", None)
    assert config["process"]["noise"] == {"type": "ShuffledMinibatches", "batch_size": B}
    assert config["process"]["learning_rate"] == ALPHA
    assert config["versions"]["torch"] == torch.__version__
    assert config["versions"]["numpy"] == np.__version__
    assert {"langevin_nn", "numba", "xarray", "python"} <= set(config["versions"])
    assert attributes["schema_version"] == SCHEMA_VERSION
    assert attributes["source"].startswith("langevin_nn ")
    assert datetime.fromisoformat(attributes["created_at"]).tzinfo is not None
    assert attributes["complete"] == 1


def test_plain_open_dataset_gives_the_scalars_and_open_datatree_the_groups(network_file):
    with xr.open_dataset(network_file) as scalars, xr.open_datatree(network_file) as tree:
        assert scalars.train_loss.dims == ("replica", "step", "cohort")
        assert scalars.attrs["schema_version"] == tree.attrs["schema_version"]
        np.testing.assert_array_equal(scalars.train_loss, tree.train_loss)
        assert tree["weights"]["weights"].shape == (2, 5, 65 * 8 + 9 * 10)
        assert float(scalars.train_loss.sel(replica=1, step=6, cohort="all")) > 0


def test_netcdf4_reads_the_file_without_xarray(network_file):
    with netCDF4.Dataset(network_file) as file:
        assert file.variables["train_loss"].dimensions == ("replica", "step", "cohort")
        assert file.variables["train_loss"].units == "nat"
        assert file.groups["spectrum"].variables["noise_eigenvalue"].dimensions == ("replica", "spectrum_step", "mode")
        assert list(file.variables["cohort"][:]) == list(COHORTS)
        assert file.complete == 1
        assert file.data_model == "NETCDF4"


def test_one_seed_writes_one_file_and_another_seed_another(digits, tmp_path):
    def run(name: str, seed: int) -> xr.DataTree:
        path = tmp_path / name
        simulate(sgd(digits, ALPHA, B), steps=6, replicas=2, seed=seed, schedule=EverySteps(3), path=path)
        return open_trajectory(path)

    one, other, third = run("one.nc", 1), run("other.nc", 1), run("third.nc", 2)
    same_bits(one, other)
    attributes = [{k: v for k, v in tree.attrs.items() if k != "created_at"} for tree in (one, other)]
    assert attributes[0] == attributes[1]
    assert not np.array_equal(one.train_loss, third.train_loss)


def test_saving_and_loading_changes_no_bit_nan_included(digits, tmp_path):
    weights = digits.initial_weights((0, 1), Seeds(0))
    weights[1] = 1e38  # becomes NaN
    tree = simulate(
        sgd(digits, ALPHA, B),
        steps=4,
        replicas=2,
        weights=weights,
        schedule=EverySteps(2),
        observables=EVERYTHING,
        on_divergence="mask",
    )
    assert np.isnan(tree.train_loss.sel(replica=1, step=4)).all()
    path = write_trajectory(tree, tmp_path / "one.nc")
    loaded = open_trajectory(path)
    same_bits(tree, loaded)
    assert dict(loaded.attrs) == dict(tree.attrs)
    same_bits(loaded, open_trajectory(write_trajectory(loaded, tmp_path / "two.nc")))


# --- Values -----------------------------------------------------------------------------------------------------------


def test_recorded_losses_and_errors_are_those_of_the_recorded_weights(digits, network_file):
    """By torch in float64, sample by sample, each cohort over its own samples."""
    tree = open_trajectory(network_file)
    wrong = (digits.labels[0] != digits.true_labels[0]).numpy()
    assert 0 < wrong.sum() < N
    cohorts = {"all": np.ones(N, bool), "correct": ~wrong, "mislabeled": wrong}
    with torch.random.fork_rng(devices=[]):
        module = multilayer_perceptron((64, 8, 10)).double()
    for replica in (3, 1):
        for step in (0, 6, STEPS):
            record = tree.to_dataset().sel(replica=replica, step=step)
            weights = tree["weights"]["weights"].sel(replica=replica, weight_step=step).values
            nn.utils.vector_to_parameters(torch.as_tensor(weights).double(), module.parameters())
            with torch.no_grad():
                outputs = module(digits.inputs.double())
                tested = module(digits.test_inputs.double())
            loss = nn.functional.cross_entropy(outputs, digits.labels[0], reduction="none").numpy()
            error = (outputs.argmax(1) != digits.labels[0]).numpy()
            for cohort, members in cohorts.items():
                chosen = record.sel(cohort=cohort)
                assert float(chosen.train_loss) == pytest.approx(loss[members].mean(), rel=1e-5)
                assert float(chosen.train_error) == pytest.approx(error[members].mean(), abs=1e-6)
            test_loss = float(nn.functional.cross_entropy(tested, digits.test_labels))
            assert float(record.test_loss) == pytest.approx(test_loss, rel=1e-5)
            test_error = float((tested.argmax(1) != digits.test_labels).double().mean())
            assert float(record.test_error) == pytest.approx(test_error, abs=1e-6)
            if step in tree["samples"]["sample_step"]:
                recorded = tree["samples"]["sample_loss"].sel(replica=replica, sample_step=step)
                np.testing.assert_allclose(recorded, loss, rtol=1e-4, atol=1e-6)


def test_recorded_labels_are_those_of_the_landscape(digits, network_file):
    samples = open_trajectory(network_file)["samples"]
    for name in ("given_label", "true_label", "mislabeled", "relabeled"):
        expected = {"given_label": digits.labels, "true_label": digits.true_labels}.get(name)
        expected = getattr(digits, name) if expected is None else expected
        assert samples[name].dims == ("replica", "sample")
        np.testing.assert_array_equal(samples[name], np.tile(expected[0].numpy(), (2, 1)))
    np.testing.assert_array_equal(samples["mislabeled"], samples["given_label"] != samples["true_label"])


def test_spectrum_in_the_file_descends_and_sums_to_the_noise_strength(surrogate_file):
    tree = open_trajectory(surrogate_file)
    values = tree["spectrum"]["noise_eigenvalue"]
    assert (values.diff("mode") <= 0).all()
    expected = np.linalg.eigvalsh([[2.0, 0.5], [0.5, 1.0]])[::-1]
    np.testing.assert_allclose(values, np.broadcast_to(expected, values.shape), rtol=1e-12)
    np.testing.assert_allclose(tree.noise_strength.sel(cohort="all"), 3.0, rtol=1e-12)
    np.testing.assert_allclose(tree.driving_noise_strength, 3.0, rtol=1e-12)


def test_surrogate_records_its_loss_under_the_cohort_all_only(surrogate_file):
    tree = open_trajectory(surrogate_file)
    weights = tree["weights"]["weights"].values
    expected = 0.5 * weights[..., 0] ** 2 + 1.5 * weights[..., 1] ** 2
    np.testing.assert_allclose(tree.train_loss.sel(cohort="all"), expected, rtol=1e-12)
    for cohort in ("correct", "mislabeled"):
        for name in ("train_loss", "activity", "alignment"):
            assert np.isnan(tree[name].sel(cohort=cohort)).all()


# The trace Tr Σ, times: f/B without and 1/B with replacement, what a source that is not SGD makes of it.
F = (N - B) / (N - 1)
DRIVEN: dict[str, tuple[Callable, Callable[[float], float]]] = {
    "sgd": (lambda d: sgd(d, ALPHA, B), lambda trace: F / B * trace),
    "sgd with replacement": (lambda d: sgd(d, ALPHA, B, replacement=True), lambda trace: trace / B),
    "langevin": (lambda d: langevin(d, ALPHA, B, time_step=ALPHA / 2), lambda trace: F / B * trace),
    "gradient_descent": (lambda d: gradient_descent(d, ALPHA, B), lambda trace: 0.0),
    "isotropic_langevin": (lambda d: isotropic_langevin(d, ALPHA, B, refresh_every=1), None),
}


@pytest.mark.parametrize("name", DRIVEN)
def test_driving_noise_strength_is_the_trace_of_what_drives_the_process(digits, name):
    make, expected = DRIVEN[name]
    observables = (*default_observables(), Weights(EverySteps(1)))
    tree = simulate(make(digits), steps=3, replicas=1, schedule=EverySteps(1), observables=observables)
    driving = tree.driving_noise_strength.sel(replica=0).values
    ensemble = tree.noise_strength.sel(replica=0, cohort="all").values
    traces = []
    for weights in tree["weights"]["weights"].sel(replica=0).values:
        g = digits.sample_gradients(torch.as_tensor(weights)).dense().numpy()
        traces.append(np.square(g - g.mean(0)).sum(1).mean())
    # Order parameters are those of the landscape's minibatches, whatever drives the process.
    np.testing.assert_allclose(ensemble, F / B * np.array(traces), rtol=1e-8)
    if expected is not None:
        np.testing.assert_allclose(driving, [expected(trace) for trace in traces], rtol=1e-8)
    else:  # held since the update before the record
        np.testing.assert_allclose(driving[1:], F / B * np.array(traces[:-1]), rtol=1e-8)


def test_driving_noise_is_over_all_tensors_though_order_parameters_are_restricted(digits):
    """The paper measures one layer; what drives the process is the noise of all."""
    with torch.random.fork_rng(devices=[]):
        restricted = digits_landscape(N, parameters="2.weight")
    whole, part = (
        simulate(sgd(each, ALPHA, B), steps=1, replicas=2, observables=default_observables())
        for each in (digits, restricted)
    )
    np.testing.assert_allclose(part.driving_noise_strength, whole.driving_noise_strength, rtol=1e-10)
    assert (part.noise_strength.sel(cohort="all") < 0.9 * part.driving_noise_strength).all()


@pytest.mark.parametrize("ratio", [1.0, 0.5, 0.25])
def test_time_counts_time_steps_and_epoch_learning_rate_worths_of_minibatches(digits, ratio):
    """time = Σ Δt, epoch = Σ (Δt/α) B/N; `epochs=` runs as many updates as that takes."""
    process = langevin(digits, ALPHA, B, time_step=ratio * ALPHA)
    tree = simulate(process, epochs=2, replicas=1, schedule=EveryEpochs(1), observables=(Losses(),))
    per_epoch = round(N / B / ratio)
    assert tree["step"].values.tolist() == [0, per_epoch, 2 * per_epoch]
    np.testing.assert_allclose(tree["epoch"], [0, 1, 2], rtol=1e-12)
    np.testing.assert_allclose(tree["time"], tree["step"] * ratio * ALPHA, rtol=1e-12)
    np.testing.assert_allclose(tree["epoch"], tree["time"] / ALPHA * B / N, rtol=1e-12)


def test_recorded_weights_are_those_that_the_process_reaches(digits, network_file):
    process = sgd(digits, ALPHA, B)
    recorded = open_trajectory(network_file)["weights"]["weights"]
    state = process.start((3, 1), 7)
    for step in recorded["weight_step"].values:
        state = advance(process, state, int(step) - state.step)
        np.testing.assert_array_equal(recorded.sel(weight_step=step), state.weights.numpy())


def test_run_continues_to_its_end_although_the_last_record_is_earlier(digits):
    """A divergence after the last record of an explicit schedule is still an error."""
    weights = digits.initial_weights((0,), Seeds(0)) * 1e30
    with pytest.raises(UnstableTrajectory):
        simulate(
            sgd(digits, 1e30, B),
            steps=50,
            replicas=1,
            weights=weights,
            schedule=AtSteps((0,)),
            observables=(Weights(AtSteps((0,))),),
        )


def test_default_schedule_records_about_two_hundred_times():
    tree = simulate(quadratic(), steps=1003, replicas=1, observables=(Losses(),))
    assert 190 <= tree.sizes["step"] <= 210
    assert tree["step"].values[[0, -1]].tolist() == [0, 1003]


# --- Runs that do not reach their end ----------------------------------------------------------------------------------


def leftovers(folder: Path) -> list[str]:
    return sorted(each.name for each in folder.iterdir())


def test_diverging_run_leaves_a_file_with_all_records_until_then(tmp_path):
    """w ← −10⁶⁰ w per update, without noise: 10²⁴⁰ after four, whose square is no number."""
    landscape = QuadraticLandscape(np.eye(1), np.zeros((1, 1)), start=[1.0])
    process = Process(landscape, AnisotropicNoise(torch.zeros(1, 1).double()), 1e60)
    path = tmp_path / "run.nc"
    with pytest.raises(
        UnstableTrajectory, match=r"replica 2 became non-finite at step 3 with time step 1e\+60"
    ) as caught:
        simulate(
            process,
            steps=20,
            replicas=(2, 0),
            schedule=EverySteps(1),
            observables=(Losses(), DrivingNoise()),
            path=path,
        )
    assert (caught.value.replica, caught.value.step) == (2, 3)
    tree = open_trajectory(path)
    assert tree.attrs["complete"] == 0
    assert tree["step"].values.tolist() == [0, 1, 2]
    np.testing.assert_allclose(tree.train_loss.sel(cohort="all", replica=2), [0.5, 0.5e120, 0.5e240], rtol=1e-12)
    same_bits(tree, caught.value.trajectory)
    assert caught.value.trajectory.attrs["complete"] == 0
    assert leftovers(tmp_path) == ["run.nc"]


def test_diverging_network_carries_its_trajectory_without_a_file(digits):
    with pytest.raises(UnstableTrajectory) as caught:
        simulate(sgd(digits, 1e30, B), steps=20, replicas=1, schedule=EverySteps(1), observables=(Losses(),))
    trajectory = caught.value.trajectory
    assert trajectory.attrs["complete"] == 0
    assert trajectory["step"].values[0] == 0
    assert np.isfinite(trajectory.train_loss.sel(cohort="all")).all()


def test_masked_run_reaches_its_end_and_leaves_the_other_replicas_alone(digits):
    weights = digits.initial_weights((0, 1), Seeds(0))
    wild = weights.clone()
    wild[0] = 1e38
    run = {"steps": 4, "replicas": 2, "schedule": EverySteps(1), "observables": EVERYTHING}
    calm = simulate(sgd(digits, ALPHA, B), weights=weights, **run)
    masked = simulate(sgd(digits, ALPHA, B), weights=wild, on_divergence="mask", **run)
    assert masked.attrs["complete"] == 1
    for path in masked.groups:
        for name, variable in masked[path].to_dataset(inherit=False).data_vars.items():
            expected = calm[path][name].sel(replica=1).values
            np.testing.assert_array_equal(variable.sel(replica=1).values, expected, err_msg=str(name))
            # Errors, too: of outputs that are no numbers one is still the largest, by chance the label.
            if variable.dtype.kind == "f":
                later = variable.sel(replica=0).isel({clock_of_group(path.strip("/")): slice(1, None)})
                assert np.isnan(later).all(), name


def test_run_that_breaks_before_its_first_record_writes_no_file(digits, tmp_path):
    class Breaking(DrivingNoise):
        def measure(self, snapshot):
            raise RuntimeError("at once")

    with pytest.raises(RuntimeError, match="at once"):
        simulate(sgd(digits, ALPHA, B), steps=4, observables=Breaking(), path=tmp_path / "run.nc")
    assert leftovers(tmp_path) == []


def test_finished_run_leaves_nothing_but_the_file_and_overwrites_an_older_one_where_asked(tmp_path):
    path = tmp_path / "run.nc"
    path.write_text("an older run")
    with pytest.raises(ConfigurationError, match=r"run\.nc' is there already: .*resume='.*run\.nc'.*overwrite=True"):
        simulate(quadratic(), steps=3, replicas=1, path=path)
    assert path.read_text() == "an older run"
    simulate(quadratic(), steps=3, replicas=1, path=path, overwrite=True)
    assert leftovers(tmp_path) == ["run.nc"]
    assert open_trajectory(path).attrs["complete"] == 1


def test_failed_write_leaves_the_older_file_and_no_part(tmp_path):
    path = write_trajectory(simulate(quadratic(), steps=3, replicas=1), tmp_path / "run.nc")
    before = path.read_bytes()
    broken = open_trajectory(path)
    broken.attrs["bad"] = {"netCDF": "has no dict"}
    with pytest.raises((TypeError, ValueError)):
        write_trajectory(broken, path, overwrite=True)
    with pytest.raises(ConfigurationError, match="is there already"):
        write_trajectory(open_trajectory(path), path)
    assert leftovers(tmp_path) == ["run.nc"]
    assert path.read_bytes() == before


# --- What cannot run --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("length", [{}, {"epochs": 1, "steps": 6}])
def test_length_of_the_run_is_given_exactly_once(digits, length):
    with pytest.raises(ConfigurationError, match=r"epochs=.* and steps=.*: expected exactly one of them"):
        simulate(sgd(digits, ALPHA, B), **length)


def test_surrogate_has_no_epochs():
    with pytest.raises(ConfigurationError, match="no samples and hence no epochs: give the length of the run in steps"):
        simulate(quadratic(), epochs=2)


@pytest.mark.parametrize("length", [{"steps": 0}, {"steps": -3}, {"epochs": 0.01}])
def test_run_without_an_update_is_refused(digits, length):
    with pytest.raises(ConfigurationError, match=r"the run would have -?\d updates: expected at least one"):
        simulate(sgd(digits, ALPHA, B), **length)


def test_opening_a_missing_trajectory_says_so(tmp_path):
    with pytest.raises(ConfigurationError, match=r"no trajectory at .*nowhere\.nc.*: expected a netCDF file"):
        open_trajectory(tmp_path / "nowhere.nc")


def test_check_writable_makes_folders_and_refuses_a_file_in_the_way(tmp_path):
    check_writable(tmp_path / "new" / "folder")
    assert (tmp_path / "new" / "folder").is_dir()
    assert leftovers(tmp_path / "new" / "folder") == []
    check_writable(tmp_path / "new" / "folder")
    (tmp_path / "file").write_text("in the way")
    for folder in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(ConfigurationError, match=r"output folder .* cannot be written \(.+\): expected a folder"):
            check_writable(folder)


@pytest.mark.parametrize(("progress", "shown"), [(True, True), (False, False), (None, False)])
def test_progress_bar_goes_to_stderr_where_asked_for(capsys, progress, shown):
    """Unless said, only on a terminal."""
    simulate(quadratic(), steps=4, replicas=1, progress=progress)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert bool(captured.err) == shown
    if shown:
        assert "surrogate" in captured.err
        assert "4/4" in captured.err


# --- Several processes in one file -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def runs(digits) -> dict[str, xr.DataTree]:
    processes = [make(digits, ALPHA, B) for make in (sgd, langevin, gradient_descent)]
    options = {"steps": 6, "replicas": 2, "schedule": EverySteps(3), "observables": EVERYTHING}
    return {process.name: simulate(process, **options) for process in processes}


def test_joined_processes_lie_along_a_first_dimension(runs, tmp_path):
    joined = open_trajectory(write_trajectory(join_processes(runs, {"study": "joined"}), tmp_path / "joined.nc"))
    assert joined["process"].values.tolist() == ["sgd", "langevin", "gradient_descent"]
    assert joined.attrs["complete"] == 1
    assert json.loads(joined.attrs["config_json"])["study"] == "joined"
    for path in joined.groups:
        group = joined[path].to_dataset(inherit=False)
        for name, variable in group.data_vars.items():
            if name == "update_count":
                continue
            known = describe(str(name))
            if known.timeless:
                assert variable.dims == ("replica", "sample"), "kept once"
                np.testing.assert_array_equal(variable, runs["sgd"][path][name])
                continue
            clock = clock_of_group(path.strip("/"))
            assert variable.dims == ("process", "replica", clock, *known.dimensions)
            assert variable.attrs == known.attributes
            for process, run in runs.items():
                np.testing.assert_array_equal(joined[path][name].sel(process=process), run[path][name])
        for coordinate in ("time", "epoch"):
            np.testing.assert_array_equal(group[coordinate], runs["sgd"][path].to_dataset(inherit=False)[coordinate])


def test_joined_file_counts_the_updates_of_each_process(runs):
    counts = join_processes(runs, {})["update_count"]
    assert counts.dims == ("process", "replica", "step")
    assert counts.attrs == {"long_name": "number of updates", "units": "1"}
    np.testing.assert_array_equal(counts, np.broadcast_to([0, 3, 6], (3, 2, 3)))


def test_joined_run_is_complete_only_if_all_are(runs):
    broken = runs["sgd"].copy()
    broken.attrs["complete"] = 0
    assert join_processes({**runs, "sgd": broken}, {}).attrs["complete"] == 0


def test_processes_recorded_at_different_steps_cannot_be_joined(digits, runs):
    other = simulate(sgd(digits, ALPHA, B), steps=6, replicas=2, schedule=EverySteps(2), observables=EVERYTHING)
    with pytest.raises(ConfigurationError, match="different epochs or times along 'step': expected common ones"):
        join_processes({"one": runs["sgd"], "other": other}, {})
    with pytest.raises(
        ConfigurationError, match="different epochs or times along 'step'"
    ):  # as many, of another length
        join_processes(
            {str(b): simulate(sgd(digits, ALPHA, b), steps=6, schedule=EverySteps(3)) for b in (B, 2 * B)}, {}
        )
    sparse = tuple(replace(each, schedule=EverySteps(6)) if isinstance(each, Weights) else each for each in EVERYTHING)
    other = simulate(sgd(digits, ALPHA, B), steps=6, replicas=2, schedule=EverySteps(3), observables=sparse)
    with pytest.raises(ConfigurationError, match="different epochs or times along 'weight_step'"):
        join_processes({"one": runs["sgd"], "other": other}, {})


# --- The same call for networks and surrogates --------------------------------------------------------------------------


def test_number_of_minibatches_for_r_changes_nothing_but_r(digits):
    one, other = (
        simulate(sgd(digits, ALPHA, B), steps=2, replicas=1, observables=(OrderParameters(n),)) for n in (10, 40)
    )
    of_draws = ("alignment", "alignment_standard_error", "alignment_minibatches", "alignment_approximation_bound")
    for name in one.data_vars:
        equal = np.array_equal(one[name], other[name], equal_nan=True)
        assert equal != (name in of_draws), name


@dataclass(frozen=True)
class BreaksOnce(DrivingNoise):
    """Fails at the second record, after the observables before it have been measured; not where the file is gone."""

    fuse: Path | None = None

    def measure(self, snapshot):
        if snapshot.state.step == 2 and self.fuse.exists():
            raise RuntimeError("in the middle of a record")
        return super().measure(snapshot)


def test_observables_of_one_group_may_have_schedules_of_their_own(digits):
    observables = (Losses(EverySteps(1)), OrderParameters(schedule=EverySteps(3)))
    run = simulate(sgd(digits, ALPHA, B), steps=6, replicas=1, observables=observables)
    assert np.isfinite(run.train_loss.sel(cohort="all")).all()
    recorded = np.isfinite(run.activity.sel(cohort="all", replica=0).values)
    np.testing.assert_array_equal(recorded, np.arange(7) % 3 == 0)


def test_labels_are_there_whenever_sample_losses_begin(digits):
    run = simulate(sgd(digits, ALPHA, B), steps=6, replicas=2, observables=[SampleLosses(AtSteps((3, 6)))])
    np.testing.assert_array_equal(run["samples"].given_label[1], digits.labels[0])


def test_two_observables_of_one_variable_leave_its_gaps_missing():
    chosen = [Losses(EverySteps(2)), Losses(EverySteps(2)), DrivingNoise(EverySteps(1))]
    run = simulate(quadratic(), steps=4, replicas=1, observables=chosen)
    missing = np.isnan(run.train_loss.sel(cohort="all").values[0])
    assert missing.tolist() == [False, True, False, True, False]


def test_labels_are_kept_by_a_run_whose_first_record_of_them_broke_off(digits, tmp_path):
    path, fuse = tmp_path / "run.nc", tmp_path / "fuse"
    arguments = {"steps": 6, "observables": (SampleLosses(AtSteps((2, 6))), BreaksOnce(EverySteps(1), fuse))}
    fuse.touch()
    with pytest.raises(RuntimeError, match="in the middle of a record"):
        simulate(sgd(digits, ALPHA, B), **arguments, path=path)
    fuse.unlink()
    went_on = simulate(sgd(digits, ALPHA, B), **arguments, resume=path)
    np.testing.assert_array_equal(went_on["samples"].given_label[1], digits.labels[0])


def test_processes_of_different_time_steps_join_at_common_epochs(digits):
    coarse = simulate(langevin(digits, ALPHA, B), epochs=2, replicas=2, schedule=EveryEpochs(1))
    fine = langevin(digits, ALPHA, B, time_step=ALPHA / 2)
    fine = simulate(fine, epochs=2, replicas=2, schedule=EveryEpochs(1))
    root = join_processes({"coarse": coarse, "fine": fine}, {}).to_dataset()
    np.testing.assert_array_equal(root.update_count[:, 0], [[0, 6, 12], [0, 12, 24]])
    np.testing.assert_allclose(root.epoch, [0, 1, 2])


@pytest.mark.parametrize("schedule", [EveryEpochs(1), AtEpochs((0, 1))])
def test_epochs_of_a_surrogate_are_refused(schedule):
    with pytest.raises(ConfigurationError, match="needs a process with samples"):
        simulate(quadratic(), steps=4, schedule=schedule)


def test_sample_losses_of_a_surrogate_are_refused():
    with pytest.raises(ConfigurationError, match="sample losses need a network with its data"):
        simulate(quadratic(), steps=4, observables=[SampleLosses(EverySteps(1))])


def test_the_driving_noise_of_isotropic_langevin_is_known_from_the_start(digits):
    run = simulate(isotropic_langevin(digits, ALPHA, B), steps=2, replicas=2, schedule=EverySteps(1))
    start = run.isel(step=0)
    np.testing.assert_allclose(start.driving_noise_strength, start.noise_strength.sel(cohort="all"), rtol=1e-9)


def test_the_rate_that_momentum_makes_of_the_learning_rate_is_recorded(digits):
    run = simulate(sgd(digits, ALPHA, B, momentum=0.9), steps=2, replicas=3)
    np.testing.assert_allclose(run.effective_learning_rate, np.full(3, 10 * ALPHA))
    assert float(run.time[-1]) == pytest.approx(2 * ALPHA)


def test_a_path_that_cannot_be_written_is_found_before_the_run(digits, tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(ConfigurationError, match="cannot be written"):
        simulate(sgd(digits, ALPHA, B), steps=2, path=tmp_path / "file" / "run.nc")


def test_the_rates_of_replicas_are_kept_without_any_scalar(digits):
    run = simulate(sgd(digits, ALPHA, B), steps=2, replicas=2, observables=[Weights(AtSteps((2,)))])
    np.testing.assert_array_equal(run.learning_rate, [ALPHA, ALPHA])


def test_a_file_says_what_it_was_made_of(digits):
    network = json.loads(simulate(sgd(digits, ALPHA, B), steps=1, replicas=1).attrs["config_json"])["process"][
        "landscape"
    ]
    assert "Linear(in_features=64, out_features=8" in network["module"]
    assert network["n_samples"] == N
    assert network["gradient_path"] == "perceptron kernel"
    surrogate = json.loads(simulate(quadratic(), steps=1, replicas=1).attrs["config_json"])["process"]["landscape"]
    assert surrogate["hessian"] == [[1.0, 0.0], [0.0, 3.0]]


@pytest.mark.parametrize("streamed", [False, True])
def test_replicas_measured_side_by_side_have_the_bits_of_those_measured_one_by_one(streamed, monkeypatch):
    landscape = digits_landscape(1000, (64, 64, 10))
    if streamed:  # gradients are computed anew at each use, by the network itself
        monkeypatch.setattr("langevin_nn.memory.DEFAULT_MEMORY_LIMIT", 2**20)
    process = sgd(landscape, 0.1, 10)
    snapshot = partial(Snapshot, process, process.start(replicas=6, seed=0))
    assert isinstance(snapshot().ensembles[0].gradients, StreamedSampleGradients) == streamed
    observables = (OrderParameters(), NoiseSpectrum(n_modes=5)) if not streamed else (OrderParameters(),)
    before = numba.get_num_threads()
    with single_threaded_products():
        together = [each.measure(snapshot()) for each in observables]
        try:
            numba.set_num_threads(1)
            apart = [each.measure(snapshot()) for each in observables]
        finally:
            numba.set_num_threads(before)
    for mine, other in zip(together, apart, strict=True):
        assert list(mine) == list(other)
        for name, values in mine.items():
            assert values.tobytes() == other[name].tobytes(), name


def test_products_stay_single_threaded_when_numba_starts_its_threads():
    """In a process of its own, where Numba has none yet: starting them sets the number that torch has."""
    lines = [
        "import numba, torch",
        "from langevin_nn.threads import single_threaded_products",
        "before = torch.get_num_threads()",
        "with single_threaded_products():",
        "    numba.get_num_threads()",
        "    assert torch.get_num_threads() == 1, torch.get_num_threads()",
        "assert torch.get_num_threads() == before",
    ]
    done = subprocess.run([sys.executable, "-c", "\n".join(lines)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
