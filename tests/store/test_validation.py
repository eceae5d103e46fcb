"""What cannot be run is refused before it runs, with a message that says why."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
import torch
from cases import digits_landscape
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from langevin_nn import NetworkLandscape, Process, simulate
from langevin_nn.drift import GradientDrift
from langevin_nn.ensemble import GradientEnsemble, gradient_ensemble
from langevin_nn.errors import ConfigurationError, UnknownNameError
from langevin_nn.gradients import SampleGradients
from langevin_nn.gradients.blocks import OuterProductBlock
from langevin_nn.landscape import QuadraticLandscape
from langevin_nn.memory import as_bytes
from langevin_nn.noise import (
    AnisotropicNoise,
    IndependentMinibatches,
    MatchedGaussian,
    ShuffledMinibatches,
    Silent,
)
from langevin_nn.observables import Losses, OrderParameters, SampleLosses, Snapshot
from langevin_nn.provenance import plain
from langevin_nn.schedules import EverySteps
from langevin_nn.store import join_processes, open_trajectory
from langevin_nn.update import Momentum, Plain


def refused(*parts: str):
    """Expect one line that holds all parts, in order."""
    return pytest.raises(ConfigurationError, match=r"\A[^\n]*" + r"[^\n]*".join(map(re.escape, parts)) + r"[^\n]*\Z")


def quadratic(**options):
    landscape = QuadraticLandscape(np.eye(2), np.eye(2), start=[1.0, 0.0])
    arguments = {"noise": AnisotropicNoise(landscape.noise_factor()), "learning_rate": 0.1} | options
    return Process(landscape, **arguments)


def network(**options):
    inputs = torch.randn(6, 3, generator=torch.Generator().manual_seed(0))
    arguments = {"module": nn.Linear(3, 2), "inputs": inputs, "labels": [0, 1, 0, 1, 0, 1]} | options
    return NetworkLandscape(**arguments)


# Item 1: files.


def test_a_folder_as_the_path_is_refused_before_the_run(tmp_path, monkeypatch):
    monkeypatch.setattr(Process, "start", lambda *_: pytest.fail("the run has begun"))
    with refused("path", "is a folder", "file name"):
        simulate(quadratic(), steps=1, path=tmp_path)


@pytest.mark.parametrize(
    "content", [b"", b"no netCDF at all", b"\x89HDF\r\n\x1a\n" + bytes(200), b"CDF\x01" + bytes(3)]
)
def test_a_file_that_is_no_netcdf_is_refused(tmp_path, content):
    (tmp_path / "run.nc").write_bytes(content)
    with refused("run.nc", "cannot be read as netCDF", "expected a file written by langevin_nn"):
        open_trajectory(tmp_path / "run.nc")


# Item 2: joining.


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"replicas": [0, 2]}, "'replica'"),
        ({"process": quadratic(learning_rate=0.2, time_step=0.1)}, "'learning_rate'"),
        ({"process": quadratic(update=Momentum(0.5))}, "'effective_learning_rate'"),
    ],
)
def test_processes_whose_replicas_differ_are_not_joined(change, name):
    arguments = {"process": quadratic(), "steps": 2, "replicas": 2, "schedule": EverySteps(1)}
    runs = {"one": simulate(**arguments), "other": simulate(**(arguments | change))}
    with refused(name, "'other'", "'one'", "expected the same in all processes"):
        join_processes(runs, {})


def test_processes_whose_labels_or_groups_differ_are_not_joined():
    arguments = {"steps": 2, "replicas": 1, "observables": [Losses(), SampleLosses(schedule=EverySteps(2))]}
    one = simulate(Process(network(), Silent(2), 0.1), **arguments)
    other = simulate(Process(network(labels=[1, 1, 0, 1, 0, 1]), Silent(2), 0.1), **arguments)
    with refused("'given_label'", "'other'", "expected the same in all processes"):
        join_processes({"one": one, "other": other}, {})
    fewer = simulate(Process(network(), Silent(2), 0.1), **(arguments | {"observables": Losses()}))
    with refused("'fewer'", "groups", "expected the same observables"):
        join_processes({"one": one, "fewer": fewer}, {})
    assert join_processes({"one": one, "same": one}, {}).sizes["process"] == 2


# Item 3: provenance.


def test_the_configuration_says_how_a_run_was_recorded_and_started():
    def config(**options):
        return json.loads(simulate(quadratic(), steps=4, replicas=1, **options).attrs["config_json"])

    said = config(schedule=EverySteps(2), on_divergence="mask", weights=np.ones((1, 2)))
    assert said["schedule"]["type"] == "EverySteps"
    assert 2 in said["schedule"].values()
    assert (said["on_divergence"], said["weights"]["values"]) == ("mask", [[1.0, 1.0]])
    assert said["process"]["noise"]["factor"] == {
        "type": "ndarray",
        "dtype": "float64",
        "shape": [2, 2],
        "values": [[1.0, 0.0], [0.0, 1.0]],
    }
    unsaid = config()
    assert (unsaid["schedule"]["type"], unsaid["on_divergence"], unsaid["weights"]) == ("EverySteps", "raise", None)


@pytest.mark.parametrize(
    ("make", "kind", "dtype"), [(np.zeros, "ndarray", "float64"), (torch.zeros, "Tensor", "float32")]
)
def test_little_arrays_are_described_with_their_values_and_large_ones_with_a_digest(make, kind, dtype):
    described = {"type": kind, "dtype": dtype}
    assert plain(make((2, 1))) == {**described, "shape": [2, 1], "values": [[0.0], [0.0]]}
    assert "values" in plain(make((64, 64)))
    large = plain(make((20_000,)))
    assert large == {**described, "shape": [20_000], "sha256": large["sha256"]}
    other = make((20_000,))
    other[19_999] = 1e-30
    assert plain(other)["sha256"] != large["sha256"] == plain(make((20_000,)))["sha256"]
    assert json.dumps(plain(make(2) + float("nan")), allow_nan=False)


# Item 4: arguments of simulate.


@pytest.mark.parametrize(
    ("change", "parts"),
    [
        ({"process": QuadraticLandscape(np.eye(1), np.eye(1))}, ("process is of type QuadraticLandscape", "a Process")),
        ({"process": Process}, ("process is the class Process",)),
        ({"steps": 2.5}, ("steps=2.5", "whole number")),
        ({"steps": "2"}, ("steps='2'", "whole number")),
        ({"steps": True}, ("steps=True", "whole number")),
        ({"steps": None, "epochs": "2"}, ("no samples",)),
        ({"replicas": 2.0}, ("replicas=2.0", "expected how many (int)")),
        ({"replicas": "2"}, ("replicas='2'", "expected how many (int)")),
        ({"replicas": [0, 1.5]}, ("replicas=[0, 1.5]", "whole numbers")),
        ({"replicas": [-1]}, ("replicas=[-1]", "whole numbers")),
        ({"replicas": [3, 0, 3]}, ("replicas=[3, 0, 3]", "each index once")),
        ({"replicas": 0}, ("replicas=0", "at least one")),
        ({"schedule": 10}, ("schedule is of type int", "a Schedule")),
        ({"schedule": EverySteps}, ("schedule is the class", "a Schedule")),
        ({"observables": [Losses(), "losses"]}, ("an observable is of type str", "Observable")),
        ({"observables": Losses}, ("an observable is the class Losses", "Observable")),
        ({"on_divergence": "masks"}, ("unknown on_divergence 'masks'", "raise, mask", "did you mean 'mask'")),
        ({"seed": 1.0}, ("seed=1.0", "whole number")),
        ({"seed": None}, ("seed=None", "whole number")),
        ({"weights": [[0.0, np.nan], [np.inf, 0.0]]}, ("2 entries", "NaN or infinite", "finite numbers")),
    ],
)
def test_arguments_that_cannot_be_run_are_refused(change, parts):
    with refused(*parts):
        simulate(**({"process": quadratic(), "steps": 2, "replicas": 2} | change))


def test_a_name_that_is_none_is_an_unknown_name():
    with pytest.raises(UnknownNameError):
        simulate(quadratic(), steps=1, on_divergence="ignore")


def test_epochs_that_are_no_number_are_refused():
    with refused("epochs='2'", "expected a number"):
        simulate(Process(network(), Silent(2), 0.1), epochs="2")


def test_one_observable_and_numpy_numbers_are_taken():
    run = simulate(quadratic(), steps=np.int64(2), replicas=np.arange(2), seed=np.int64(3), observables=Losses())
    assert set(run.data_vars) == {"train_loss"}
    assert run.replica.values.tolist() == [0, 1]
    start = quadratic().start(torch.tensor([4, 2]), np.int64(3))
    assert start.replicas == (4, 2)


# Item 5: processes.


@pytest.mark.parametrize(
    ("make", "parts"),
    [
        (lambda: Process(network(), MatchedGaussian, 0.1), ("noise is the class MatchedGaussian", "instance of Noise")),
        (lambda: Process(nn.Linear(1, 1), Silent(), 0.1), ("landscape is of type Linear", "NetworkLandscape")),
        (lambda: quadratic(learning_rate="0.1"), ("learning_rate='0.1'", "expected a positive, finite number")),
        (lambda: quadratic(learning_rate=True), ("learning_rate=True", "expected a positive, finite number")),
        (lambda: quadratic(time_step=None), ("time_step=None", "expected a positive, finite number")),
        (lambda: Process(network(), MatchedGaussian(2.0), 0.1), ("batch_size=2.0", "whole number")),
        (lambda: Process(network(), ShuffledMinibatches("2"), 0.1), ("batch_size='2'", "whole number")),
        (
            lambda: quadratic(drift=GradientDrift(QuadraticLandscape(np.eye(3), np.eye(3)))),
            ("drift has 3 parameters", "landscape 2", "as many"),
        ),
        (lambda: AnisotropicNoise("F"), ("factor is of type str", "expected an array")),
        (lambda: Plain(-0.1), ("weight_decay=-0.1", "finite number λ ≥ 0")),
        (lambda: Plain(float("nan")), ("weight_decay=nan", "finite number λ ≥ 0")),
        (lambda: Momentum(0.5, float("inf")), ("weight_decay=inf", "finite number λ ≥ 0")),
        (lambda: Momentum(0.5, "0"), ("weight_decay='0'", "finite number λ ≥ 0")),
        (lambda: Momentum("0.5"), ("momentum='0.5'", "0 ≤ μ < 1")),
    ],
)
def test_processes_that_do_not_fit_together_are_refused(make, parts):
    with refused(*parts):
        make()


def test_anisotropic_noise_takes_numpy_arrays():
    factor = np.array([[1.0, 0.0], [2.0, 1.0]])
    given, tensor = (simulate(quadratic(noise=AnisotropicNoise(f)), steps=5) for f in (factor, torch.as_tensor(factor)))
    np.testing.assert_array_equal(given.train_loss, tensor.train_loss)


# Item 6: networks.


@pytest.mark.parametrize(
    ("change", "parts"),
    [
        (
            {"inputs": [[np.nan] * 3] + [[0.0] * 3] * 5},
            ("inputs hold NaN or infinite", "1 samples", "sample 0", "finite"),
        ),
        ({"inputs": [[0.0] * 3] * 5 + [[1e300] * 3]}, ("inputs hold NaN or infinite", "sample 5")),
        (
            {"test_inputs": [[np.inf] * 3], "test_labels": [0]},
            ("test_inputs hold NaN or infinite", "finite"),
        ),
        ({"device": "gpu"}, ("device='gpu' cannot be used here", "expected a device of this machine")),
        ({"device": "meta"}, ("device='meta' cannot be used here",)),
        ({"parameters": ()}, ("parameters=() names no tensor", "at least one pattern")),
        ({"module": nn.Linear(3, 2).requires_grad_(False)}, ("all parameters are frozen", "at least one to train")),
        ({"start": "given"}, ("unknown start 'given'", "own, drawn")),
        ({"inputs": {"x": np.zeros((6, 3))}}, ("cannot take inputs of x", "by name in a dictionary")),
        ({"module": "linear"}, ("module is of type str", "torch.nn.Module")),
        ({"module": lambda: 3}, ("returned something of type int", "torch.nn.Module")),
        ({"cohort_mask": "wrong"}, ("unknown cohort mask 'wrong'", "mislabeled, relabeled")),
    ],
)
def test_networks_that_cannot_be_run_are_refused(change, parts):
    with refused(*parts):
        network(**change)


@pytest.mark.skipif(torch.cuda.is_available(), reason="a machine with a GPU")
def test_cuda_without_a_gpu_is_refused():
    with refused("device='cuda' cannot be used here", "cpu, since no GPU"):
        network(device="cuda")


def test_own_weights_are_a_copy_of_what_the_module_came_with():
    module = nn.Linear(3, 2)
    landscape = network(module=module)
    expected = torch.cat([module.weight.detach().reshape(-1), module.bias.detach()])
    landscape.own_weights.zero_()
    assert torch.equal(landscape.own_weights, expected)
    process = Process(landscape, Silent(2), 0.1)
    assert torch.equal(process.start(2, 0, landscape.own_weights.expand(2, -1)).weights[1], expected)


def test_the_cohort_is_chosen_once_for_all_measurements():
    by_default, chosen = digits_landscape(), digits_landscape(cohort_mask="relabeled")
    assert torch.equal(by_default.cohort, by_default.mislabeled)
    assert torch.equal(chosen.cohort, chosen.relabeled)
    assert not torch.equal(chosen.cohort, by_default.cohort)
    runs = [simulate(Process(each, Silent(6), 0.1), steps=1, replicas=1) for each in (by_default, chosen)]
    weights = by_default.initial_weights((0,), quadratic().start(1, 0).seeds)
    for landscape, run in zip((by_default, chosen), runs, strict=True):
        losses = landscape.sample_losses(weights)[0]
        mean = losses[landscape.cohort[0]].mean()
        assert float(run.train_loss.sel(cohort="mislabeled")[0, 0]) == pytest.approx(float(mean), rel=1e-5)
        own, said = (
            gradient_ensemble(landscape, weights[0], 6, cohort_mask=mask).closed_forms()["activity"]
            for mask in (None, landscape.cohort_mask)
        )
        np.testing.assert_array_equal(own, said)
        np.testing.assert_allclose(run.activity[0, 0], own, rtol=1e-5)
    assert json.loads(runs[1].attrs["config_json"])["process"]["landscape"]["cohort_mask"] == "relabeled"


# Item 7: minibatches with replacement.


@pytest.mark.parametrize("noise", [IndependentMinibatches, MatchedGaussian])
def test_empty_minibatches_with_replacement_are_refused_for_the_right_reason(noise):
    with refused("batch_size=0", "at least 1") as caught:
        Process(network(), noise(0, replacement=True), 0.1)
    assert "without" not in str(caught.value)
    with refused("batch_size=7", "without replacement"):
        Process(network(), noise(7), 0.1)


@pytest.mark.parametrize("size", [2, 6, 9])
def test_minibatches_larger_than_the_training_set_are_measured(size):
    process = Process(network(), IndependentMinibatches(size, replacement=True), 0.1)
    state = process.start(1, 0)
    measured = Snapshot(process, state).ensembles[0].closed_forms()
    expected = gradient_ensemble(process.landscape, state.weights[0], size, replacement=size > 6).closed_forms()
    np.testing.assert_array_equal(measured["noise_strength"], expected["noise_strength"])
    simulate(process, steps=2, replicas=1, observables=[OrderParameters()])


def test_ensembles_of_more_than_all_samples_are_refused_without_replacement_only():
    gradients = SampleGradients.from_matrix(torch.eye(3))
    with refused("batch_size=4 with 3 samples", "without replacement"):
        GradientEnsemble.from_sample_gradients(gradients, 4)
    with refused("batch_size=0", "at least 1"):
        GradientEnsemble.from_sample_gradients(gradients, 0, replacement=True)
    assert GradientEnsemble.from_sample_gradients(gradients, 4, replacement=True).closed_forms()["activity"][0] > 0


# Item 8: what the docstrings say.


# Item 9 and 10: ensembles.


def test_the_noise_factor_of_constant_noise_needs_no_weights():
    assert torch.equal(QuadraticLandscape(np.eye(2), 4 * np.eye(2)).noise_factor(), 2 * torch.eye(2).double())


@pytest.mark.parametrize(
    ("n", "n_out", "n_in", "limit", "figure"),
    [
        (24_000, 155, 155, None, "12.9 GiB by its smallest way (samples)"),
        (100_000, 75, 75, "512 MiB", "724 MiB by its smallest way (parameters)"),
    ],
)
def test_spectra_too_large_for_memory_are_refused_unless_few_modes_are_wanted(n, n_out, n_in, limit, figure):
    block = OuterProductBlock(torch.zeros(n, n_out).double(), torch.zeros(n, n_in).double())
    ensemble = GradientEnsemble.from_sample_gradients(SampleGradients({"w": block}), 10, memory_limit=limit)
    shape = f"{n} samples and {n_out * n_in} measured parameters"
    with refused(
        shape,
        figure,
        "expected at most",
        "memory_limit",
        "fewer eigenvalues with n_modes=",
        "parameters= pattern",
        "raise memory_limit",
    ):
        ensemble.noise_eigenvalues()
    assert ensemble.spectrum(5).attrs["method"] == "matrix-free, Lanczos"


class LargestTensor(TorchDispatchMode):
    """Sees every tensor that is made."""

    def __enter__(self):
        self.elements = 0
        return super().__enter__()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        made = function(*args, **(kwargs or {}))
        self.elements = max(self.elements, made.numel())
        return made


@pytest.mark.parametrize(("widths", "own"), [((9, 10), 2 * 4 * 4), ((2, 3), 2 * 3)], ids=["samples", "parameters"])
@pytest.mark.parametrize("has_bias", [False, True])
def test_sums_of_minibatches_are_made_in_pieces(widths, own, has_bias, monkeypatch):
    """By Gram matrices of their samples, or where a layer has fewer parameters as they are."""
    generator = torch.Generator().manual_seed(0)
    tensors = {"weight": widths[0] * widths[1]} | ({"bias": widths[0]} if has_bias else {})
    block = OuterProductBlock(*(torch.randn(8, k, generator=generator).double() for k in widths), tensors)
    indices = torch.randint(8, (7, 4), generator=generator)
    with LargestTensor() as unlimited:
        whole = block.minibatch_squared_norms(indices)
    # Two minibatches at a time: signals and activations of 4 samples each, and what is made of them.
    limit = 2 * (4 * sum(widths) + own)
    monkeypatch.setattr("langevin_nn.gradients.blocks.ELEMENTS_AT_A_TIME", limit)
    with LargestTensor() as limited:
        pieces = block.minibatch_squared_norms(indices)
    torch.testing.assert_close(pieces, whole)
    assert (unlimited.elements, limited.elements) == (7 * 4 * widths[1], 2 * 4 * widths[1])
    torch.testing.assert_close(whole, block.rows(slice(None))[indices].mean(1).square().sum(1))


@pytest.mark.parametrize(
    ("limit", "expected"),
    [
        (None, 2**30),
        (2**20, 2**20),
        (3e6, 3_000_000),
        (np.int64(2**21), 2**21),
        ("1048576", 2**20),
        ("1048576 B", 2**20),
        ("2000 kB", 2_000_000),
        ("2048KiB", 2**21),
        ("1.5 MB", 1_500_000),
        (" 512 MiB ", 2**29),
        ("2 GB", 2 * 10**9),
        ("0.5 GiB", 2**29),
        ("1 TiB", 2**40),
        ("1e3 MiB", 1000 * 2**20),
    ],
)
def test_budgets_of_memory_are_read_as_bytes(limit, expected):
    assert as_bytes(limit) == expected


@pytest.mark.parametrize(
    "limit",
    ["", "a lot", "12 GBit", "1 gib", "MiB", "1.2.3 MiB", "-1 GiB", float("nan"), float("inf"), "1e999 GiB", True],
)
def test_what_is_no_budget_of_memory_is_refused_with_the_units(limit):
    with refused(f"memory_limit={limit!r}: expected bytes", "B, kB, MB, GB, KiB, MiB, GiB, TiB", '"512 MiB"'):
        as_bytes(limit)


@pytest.mark.parametrize(("limit", "size"), [(0, 0), ("1 kB", 1000), (2**20 - 1, 2**20 - 1), ("0.99 MiB", 1038090)])
def test_a_budget_in_which_nothing_fits_is_refused(limit, size):
    with refused(f"memory_limit={limit!r} is {size} bytes: expected at least 1 MiB"):
        as_bytes(limit)


def test_every_front_door_reads_a_budget_before_it_begins():
    landscape = network()
    weights = landscape.own_weights
    for ask in (
        lambda: landscape.sample_gradients(weights, memory_limit="little"),
        lambda: gradient_ensemble(landscape, weights, 2, memory_limit="little"),
        lambda: landscape.hessian_product(weights[None], weights[None], memory_limit="little"),
        lambda: GradientEnsemble.from_sample_gradients(
            SampleGradients.from_matrix(torch.eye(3)), 2, memory_limit="little"
        ),
    ):
        with refused("memory_limit='little': expected bytes"):
            ask()


def test_every_ensemble_has_a_sample_trace():
    moments = GradientEnsemble.from_moments(torch.ones(2), torch.eye(2))
    assert moments.sample_trace.shape == (3,)
    assert np.isnan(moments.sample_trace).all()
    samples = GradientEnsemble.from_sample_gradients(SampleGradients.from_matrix(torch.eye(3)), 1)
    assert samples.sample_trace[0] == pytest.approx(2 / 3)


@pytest.mark.parametrize("kind", ["samples", "moments"])
def test_r_is_estimated_from_as_many_minibatches_as_the_observable_takes(kind):
    ensemble = (
        GradientEnsemble.from_moments(torch.ones(2), torch.eye(2))
        if kind == "moments"
        else GradientEnsemble.from_sample_gradients(SampleGradients.from_matrix(torch.eye(9)), 3)
    )
    unsaid = ensemble.alignment(np.random.default_rng(0))
    said = ensemble.alignment(np.random.default_rng(0), OrderParameters().n_minibatches)
    np.testing.assert_array_equal(unsaid["alignment"], said["alignment"])
    order = ensemble.order_parameters(np.random.default_rng(0))
    np.testing.assert_array_equal(order.alignment, said["alignment"])
