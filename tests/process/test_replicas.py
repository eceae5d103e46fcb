"""Configuration, seed and index name one path of a process, which counts once, whatever it came through."""

from __future__ import annotations

import json
from itertools import pairwise

import numpy as np
import pytest
import torch
import xarray as xr
from cases import digits_landscape
from hypothesis import given, settings
from hypothesis import strategies as st

import langevin_nn.store.join
from langevin_nn import (
    NetworkLandscape,
    Process,
    Seeds,
    advance,
    gradient_descent,
    merge,
    open_trajectory,
    sgd,
    simulate,
    validate,
)
from langevin_nn.analyzers import (
    Autocorrelation,
    ComparisonAnalyzer,
    LawComparison,
    Quantity,
    TransitionRates,
    analyze,
    detect_phases,
    mean_with_interval,
)
from langevin_nn.errors import ConfigurationError
from langevin_nn.landscape import QuadraticLandscape
from langevin_nn.noise import AnisotropicNoise, IndependentMinibatches, Silent
from langevin_nn.observables import Losses, Weights
from langevin_nn.provenance import plain
from langevin_nn.replicas import check_each_once, is_silent, replicas_of
from langevin_nn.run.experiment import compare
from langevin_nn.schedules import AtSteps, EverySteps
from langevin_nn.store import join_processes, write_trajectory

TWICE = r"\A[^\n]*replica[^\n]*seed 0[^\n]*(other seeds|run other seeds)[^\n]*\Z"


def valley(noise=None, learning_rate=0.1, name=""):
    landscape = QuadraticLandscape(np.eye(2), np.eye(2), start=[1.0, 0.0])
    return Process(landscape, noise or AnisotropicNoise(landscape.noise_factor()), learning_rate, name=name)


def run(replicas=4, seed=0, steps=20, process=None, **options):
    options = {"schedule": EverySteps(5), "observables": Losses(), "progress": False, **options}
    return simulate(process or valley(), steps=steps, replicas=replicas, seed=seed, **options)


def copied(tree: xr.DataTree, folder) -> xr.DataTree:
    return open_trajectory(write_trajectory(tree, folder / "copy.nc"))


def by_hand(*trees: xr.DataTree) -> xr.Dataset:
    return xr.concat([tree.to_dataset() for tree in trees], "replica", coords="different", compat="equals")


def forged(tree: xr.DataTree, **claims) -> xr.DataTree:
    """Somebody else's file: what it says of itself and what it holds are two things."""
    made = tree.copy()
    made.attrs["config_json"] = json.dumps({**json.loads(tree.attrs["config_json"]), **claims}, sort_keys=True)
    return made


def by_labels_alone(patch: pytest.MonkeyPatch) -> None:
    """The old fault: whatever came was counted."""
    patch.setattr(langevin_nn.store.join, "_check_each_once", lambda _: None)
    for module in ("replicas", "store.validation"):
        patch.setattr(f"langevin_nn.{module}.repetitions", lambda _: [])
    patch.setattr("langevin_nn.store.validation._of_equal_numbers", lambda *_: [])


# --- merging

AGAIN = {
    "itself": lambda one, folder: [one, one],
    "a copy of its file": lambda one, folder: [one, copied(one, folder)],
    "some of its replicas": lambda one, folder: [one, run([3, 7])],
    "a selection": lambda one, folder: [one.sel(replica=[0, 2]), one.sel(replica=[2, 3])],
    "an earlier merge": lambda one, folder: [run(seed=1), merge([run(seed=2), one]), one],
    "two merges": lambda one, folder: [merge([run(seed=1), one]), merge([one, run(seed=2)])],
    "a selection of a merge": lambda one, folder: [merge([run(seed=1), one]).isel(replica=[5, 6]), one],
    "a merge of selections": lambda one, folder: [merge([one.sel(replica=[1, 3]), run([9])]), one.sel(replica=[3])],
    "the process by another name": lambda one, folder: [one, run(process=valley(name="twin"))],
    "another schedule": lambda one, folder: [one, run(schedule=AtSteps((0, 5, 10, 15, 20)))],
    "other starts, with the same noise": lambda one, folder: [one, run(weights=np.ones((4, 2)))],
    "put together by hand": lambda one, folder: [xr.DataTree(by_hand(one, one)), run(seed=1)],
}


@pytest.mark.parametrize("make", AGAIN.values(), ids=AGAIN.keys())
def test_a_replica_that_comes_twice_is_not_merged(make, tmp_path):
    trees = make(run(), tmp_path)
    with pytest.raises(ConfigurationError, match=TWICE):
        merge(trees)
    with pytest.MonkeyPatch.context() as twin:
        by_labels_alone(twin)
        merge(trees)  # mutated twin: it went through


def test_lengths_do_not_tell_paths_apart():
    one, longer = (replicas_of(run(steps=steps).to_dataset()) for steps in (20, 60))
    assert one == longer
    assert len({*one}) == 4
    assert not {*one} & {*replicas_of(run(seed=1).to_dataset())}
    assert not {*one} & {*replicas_of(run(process=valley(learning_rate=0.2)).to_dataset())}


def test_measuring_other_things_does_not_tell_paths_apart():
    options = {"steps": 2, "replicas": 2, "observables": Losses(), "progress": False}
    one, other = (
        simulate(sgd(digits_landscape(**which), 0.1, 10), **options) for which in ({}, {"parameters": "2.weight"})
    )
    assert replicas_of(one.to_dataset()) == replicas_of(other.to_dataset())
    with pytest.raises(ConfigurationError, match=TWICE):
        merge([one, other])


NOT_AGAIN = {
    "other seeds": lambda: [run(), run(seed=1)],
    "other replicas": lambda: [run(), run([4, 5])],
    "parts of one run": lambda: [run().sel(replica=[0, 3]), run().sel(replica=[1])],
    "other learning rates, which become a coordinate": lambda: [run(), run(process=valley(learning_rate=0.2))],
    "descents from other starts, without noise": lambda: [
        run(process=valley(Silent()), weights=scale * np.ones((4, 2))) for scale in (1.0, 2.0)
    ],
}


@pytest.mark.parametrize("make", NOT_AGAIN.values(), ids=NOT_AGAIN.keys())
def test_what_is_not_the_same_is_merged(make):
    assert merge(make()).sizes["replica"] >= 3


@settings(max_examples=6)
@given(st.permutations(range(6)), st.sets(st.integers(1, 5), max_size=3), st.integers(0, 5))
def test_parts_in_any_order_are_the_run_of_all_and_any_overlap_is_refused(whole_of_six, order, cuts, extra):
    edges = [0, *sorted(cuts | {3}), 6]
    parts = [whole_of_six.sel(replica=sorted(order[begin:end])) for begin, end in pairwise(edges)]
    merged = merge(parts).to_dataset().sortby("replica")
    whole = whole_of_six.to_dataset()
    assert merged.replica.values.tolist() == [*range(6)]
    np.testing.assert_array_equal(merged.train_loss, whole.train_loss)
    assert [(each.seed, each.replica) for each in replicas_of(merged)] == [(0, label) for label in range(6)]
    assert {each.configuration for each in replicas_of(merged)} == {each.configuration for each in replicas_of(whole)}
    again = whole_of_six.sel(replica=[extra])
    with pytest.raises(ConfigurationError, match=f"replica {extra} of seed 0"):
        merge([*parts, again])
    with pytest.raises(ConfigurationError, match=f"replica {extra} of seed 0"):
        merge([merge(parts), again])


@pytest.fixture(scope="module")
def whole_of_six():
    return run(6)


# --- intervals


def standard_error_of(trees) -> float:
    """As a user would get it from runs that she took for more replicas."""
    loss = merge(trees).train_loss.sel(cohort="all").isel(step=-1)
    return float(mean_with_interval(loss).standard_error)


def test_copies_do_not_make_the_standard_error_smaller(tmp_path):
    one = run(64)
    honest = float(mean_with_interval(one.train_loss.sel(cohort="all").isel(step=-1)).standard_error)
    twice = by_hand(one, one)

    def cannot_be_had():
        with pytest.raises(ConfigurationError, match="replica"):
            standard_error_of([one, one])
        with pytest.raises(ConfigurationError, match="replica"):
            standard_error_of([one, copied(one, tmp_path)])
        with pytest.raises(ConfigurationError, match="replica"):
            mean_with_interval(twice.train_loss.sel(cohort="all").isel(step=-1))

    cannot_be_had()
    assert standard_error_of([one, run(64, seed=1)]) == pytest.approx(honest / 2**0.5, rel=0.3)
    with pytest.MonkeyPatch.context() as twin:
        by_labels_alone(twin)
        assert standard_error_of([one, one]) == pytest.approx(honest / 2**0.5, rel=0.01)
        with pytest.raises(pytest.fail.Exception):
            cannot_be_had()


ANALYZERS = {
    "phases": detect_phases,
    "autocorrelation": Autocorrelation("train_loss", {"cohort": "all"}),
    "rates": TransitionRates(0.0, 1.0),
    "comparison": ComparisonAnalyzer("sgd", "sgd_null"),
    "laws": lambda found: LawComparison()(found, {"all": (0.0, 9.0)}),
}


@pytest.mark.parametrize("analyzer", ANALYZERS.values(), ids=ANALYZERS.keys())
def test_analyzers_do_not_count_a_replica_twice(analyzer):
    observables = [Losses(), Weights()]
    once = run(observables=observables)
    with pytest.MonkeyPatch.context() as before:
        by_labels_alone(before)
        merged = merge([once, run([3, 4], observables=observables)])  # as an older version wrote it
    for twice in (merged, by_hand(once, once)):
        with pytest.raises(ConfigurationError, match="come"):
            analyzer(twice)


def test_coordinates_tell_apart_what_was_put_together_by_hand():
    one, other = run(), run(seed=1)
    with pytest.raises(ConfigurationError, match=TWICE):
        check_each_once(by_hand(one, other))  # nothing says that seeds differ
    check_each_once(by_hand(one, other).assign_coords(seed=("replica", np.repeat([0, 1], 4))))
    check_each_once(by_hand(one, run(process=valley(learning_rate=0.2))))
    with pytest.raises(ConfigurationError, match="replica 2 of seed 0 comes twice"):
        check_each_once(by_hand(one, one.sel(replica=[2])))


# --- files that somebody else made


def by_validation(tree) -> str:
    return "; ".join(validate(tree))


def test_validate_names_replicas_that_are_counted_twice(tmp_path):
    one = run()
    with pytest.MonkeyPatch.context() as before:
        by_labels_alone(before)
        said_twice = write_trajectory(merge([one, run([3, 4])]), tmp_path / "said.nc")
        assert validate(said_twice) == ()  # mutated twin: it was called valid
    assert "replica 3 of seed 0 comes twice" in by_validation(said_twice)
    # The file says other seeds, and holds the same numbers.
    held_twice = write_trajectory(merge([one, forged(one, seed=8)]), tmp_path / "held.nc")
    assert "replicas 0, 4 have the same numbers to the last bit" in by_validation(held_twice)
    assert validate(write_trajectory(merge([one, run(seed=8)]), tmp_path / "right.nc")) == ()


@pytest.mark.parametrize("observables", [Losses(), Weights()], ids=["losses", "weights"])
def test_numbers_tell_copies_where_nothing_else_is_known(observables):
    one = run(observables=observables)
    bare = one.copy()
    bare.attrs["config_json"] = json.dumps({"seed": 0, "versions": {}}, sort_keys=True)
    assert not any("numbers" in each for each in validate(bare))
    group = "/" if "train_loss" in one.data_vars else "weights"
    name = "train_loss" if group == "/" else "weights"
    groups = {node.path: node.to_dataset(inherit=False).copy(deep=True) for node in bare.subtree}
    groups["/" + group.strip("/")][name].values[3] = one[group][name].values[1]
    bare = xr.DataTree.from_dict(groups)
    assert "replicas 1, 3 have the same numbers" in by_validation(bare)


DETERMINISTIC = {
    "silent": lambda: run(process=valley(Silent())),
    "a strength of zero": lambda: run(process=valley(AnisotropicNoise(torch.zeros(2, 2)))),
    "all samples": lambda: simulate(
        sgd(digits_landscape(), 0.1, 60), steps=8, replicas=2, observables=Losses(EverySteps(2)),
        weights=digits_landscape().initial_weights((0,), Seeds(0)).expand(2, -1), progress=False,
    ),
    "a network without noise": lambda: simulate(
        gradient_descent(digits_landscape(), 0.1, 10), steps=8, replicas=2, observables=Losses(EverySteps(2)),
        weights=digits_landscape().initial_weights((0,), Seeds(0)).expand(2, -1), progress=False,
    ),
}  # fmt: skip


@pytest.mark.parametrize("make", DETERMINISTIC.values(), ids=DETERMINISTIC.keys())
def test_paths_without_noise_may_be_equal(make):
    tree = make()
    assert validate(tree) == ()
    np.testing.assert_allclose(tree.train_loss[1], tree.train_loss[0], rtol=1e-6)


# --- pairs


@pytest.fixture(scope="module")
def pairs() -> dict[str, xr.DataTree]:
    """SGD, its null from the same weights, and one from weights of its own."""
    landscape = digits_landscape()
    start = landscape.initial_weights(tuple(range(6)), Seeds(0))
    options = {"steps": 12, "replicas": 6, "schedule": EverySteps(3), "observables": Losses(), "progress": False}
    process = sgd(landscape, 0.1, 10)
    return {
        "sgd": simulate(process, seed=0, weights=start, **options),
        "sgd_null": simulate(process, seed=5, weights=start, **options),
        "from elsewhere": simulate(process, seed=5, **options),
    }


LOSS = (Quantity("train_loss", "train_loss"),)
COMPARED_IN_PAIRS = {
    "comparison": ComparisonAnalyzer(quantities=LOSS),
    "laws": lambda tree: LawComparison(quantities=LOSS, permutations=99)(tree, {"all": (0.0, 9.0)}),
}


@pytest.mark.parametrize("analyzer", COMPARED_IN_PAIRS.values(), ids=COMPARED_IN_PAIRS.keys())
def test_pairs_from_other_weights_are_refused_with_the_numbers(analyzer, pairs):
    together = join_processes({name: pairs[name] for name in ("sgd", "sgd_null")}, {"seed": 0})
    assert analyzer(together).attrs["common_start"] == 1
    apart = join_processes({"sgd": pairs["sgd"], "sgd_null": pairs["from elsewhere"]}, {"seed": 0})
    loss = float(pairs["from elsewhere"].train_loss.isel(replica=0, step=0).sel(cohort="all"))

    def refused():
        with pytest.raises(ConfigurationError, match=rf"'sgd_null' and 'sgd' start from other weights.*{loss:.6g}"):
            analyzer(apart)

    refused()
    with pytest.MonkeyPatch.context() as twin:
        for module in ("comparison", "laws"):
            twin.setattr(f"langevin_nn.analyzers.{module}.common_start", lambda *_: True)
        with pytest.raises(pytest.fail.Exception):
            refused()
    # What was not recorded cannot be shown, and the result says so.
    late = apart.to_dataset().isel(step=slice(1, None))
    assert analyzer(late).attrs["common_start"] == 0


def test_rounding_is_no_other_start(pairs):
    tree = join_processes({name: pairs[name] for name in ("sgd", "sgd_null")}, {"seed": 0}).to_dataset().load()
    tree["train_loss"] = tree.train_loss.astype(np.float32) * np.float32(1 + 3e-7)
    assert ComparisonAnalyzer(quantities=LOSS)(tree).attrs["common_start"] == 1


def test_a_null_that_is_the_reference_again_is_refused(pairs):
    copy = join_processes({"sgd": pairs["sgd"], "sgd_null": pairs["sgd"]}, {"seed": 0})
    with pytest.raises(ConfigurationError, match="'sgd_null' has the numbers of 'sgd' to the last bit"):
        ComparisonAnalyzer(quantities=LOSS)(copy)


def test_the_front_door_compares_pairs_and_its_merged_files_count_once():
    options = {"learning_rate": 0.1, "batch_size": 10, "epochs": 1, "replicas": 2, "processes": ["gradient_descent"]}
    options |= {"schedule": EverySteps(2), "alignment_minibatches": 4, "progress": False}
    found = compare(digits_landscape(), **options)
    assert found.equal_time.attrs["common_start"] == 1
    with pytest.raises(ConfigurationError, match="both hold replicas 0, 1 of seed 0"):
        merge([found.trajectories, found.trajectories])
    other = compare(digits_landscape(), **options, seed=1)
    merged, alone = (
        analyze(each, epoch=1.0).summary
        for each in (merge([found.trajectories, other.trajectories]), found.trajectories)
    )
    assert merged["replicas"] == 4
    assert set(merged["sample_trace"]) == set(alone["sample_trace"]) != set()


@pytest.mark.parametrize("replacement", [False, True])
def test_minibatches_of_all_samples_have_noise_where_one_may_come_twice(replacement):
    inputs = torch.tensor([[0.0], [1.0], [2.0], [3.0]])
    landscape = NetworkLandscape(torch.nn.Linear(1, 2), inputs, torch.tensor([0, 1, 0, 1]))
    process = Process(landscape, IndependentMinibatches(4, replacement=replacement), 0.1)
    start = process.start(2, 0)
    descent = start.weights - 0.1 * landscape.gradient(start.weights)
    assert torch.allclose(advance(process, start, 1).weights, descent) is (not replacement)
    assert is_silent(plain(process)) is (not replacement)


def test_runs_of_other_data_or_losses_are_told_apart_where_they_are_merged():
    inputs, labels = torch.arange(12.0).reshape(6, 2) / 12, torch.tensor([0, 1, 0, 1, 1, 0])

    def doubled(outputs, targets):
        return 2 * torch.nn.functional.cross_entropy(outputs, targets, reduction="none")

    def trained(seed, labels=labels, loss=None):
        landscape = NetworkLandscape(torch.nn.Linear(2, 2), inputs, labels, loss=loss)
        return simulate(sgd(landscape, 0.1, 2), steps=2, replicas=2, seed=seed, observables=[Losses()], progress=False)

    first = trained(0)
    for other, name in ((trained(1, labels=1 - labels), "data_sha256"), (trained(1, loss=doubled), "loss_sha256")):
        values = merge([first, other])[name].values
        assert values[0] == values[1] != values[2] == values[3]
    assert not {"data_sha256", "loss_sha256"} & {*merge([first, trained(1)]).coords}
