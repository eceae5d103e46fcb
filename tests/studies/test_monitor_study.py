"""The study of the monitor's verdict: wrong labels of four kinds, rules of known truth, what is refused."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
import xarray as xr
from cases import assert_on_paper
from scipy.stats import kurtosis

from langevin_nn import Monitor, Seeds
from langevin_nn.errors import ConfigurationError, LangevinError, UnstableTrajectory
from studies.lab.claims import claims_from
from studies.lab.command import sized
from studies.monitor.alignment import GradientWeightAlignment
from studies.monitor.claims import claims_of, in_words
from studies.monitor.figures import NAMES, monitor_figure
from studies.monitor.labels import KINDS, class_dependent_matrix, given_labels, pair_matrix
from studies.monitor.measures import (
    RULES,
    best_with_patience,
    first_minimum,
    first_stop,
    heard,
    judged,
    running_mean,
    together,
)
from studies.monitor.runs import Cell, Config, load, network_of, trained
from studies.monitor.study import STUDY


def settled(**chosen):
    return STUDY.settle(sized(Config(quick=True, **chosen), STUDY.quick))


# --- labels


@pytest.fixture(scope="module")
def images():
    return load(settled(samples_per_class=100))


def labels_of(images, kind, rate, replica=0):
    truth = images.train_labels
    return truth, given_labels(images.train_inputs, truth, images.n_classes, kind, rate, Seeds(3), replica)


@pytest.mark.parametrize("rate", [0.1, 0.4, 0.6])
@pytest.mark.parametrize("kind", KINDS)
def test_as_many_labels_are_wrong_as_were_asked_for(images, kind, rate):
    truth, given = labels_of(images, kind, rate)
    assert (given != truth).sum() == round(rate * len(truth))
    assert (labels_of(images, kind, rate)[1] == given).all()
    assert (labels_of(images, kind, rate, 1)[1] != given).any()


def test_clean_labels_are_the_true_ones(images):
    truth, given = labels_of(images, "clean", 0.0)
    assert (given == truth).all()
    assert given is not truth


def test_pairs_go_to_the_next_class_and_classes_that_are_alike_to_few(images):
    truth, given = labels_of(images, "pair", 0.4)
    wrong = given != truth
    assert (given[wrong] == (truth[wrong] + 1) % 10).all()
    for matrix in (pair_matrix(10), class_dependent_matrix(10)):
        assert np.diag(matrix).max() == 0
        np.testing.assert_allclose(matrix.sum(1), 1)
    three = np.sort(class_dependent_matrix(10), axis=1)[:, -3:].sum(1)
    assert three.mean() > 0.7, "a class is confused mostly with three others"


def test_labels_that_depend_on_the_image_are_wrong_where_a_nearest_mean_is_least_certain(images):
    """Another probe, which knows nothing of gradients, finds the same images harder."""
    truth, given = labels_of(images, "instance_dependent", 0.2)
    flat = images.train_inputs.reshape(len(truth), -1)
    means = np.stack([flat[truth == k].mean(0) for k in range(10)])
    distance = ((flat[:, None] - means) ** 2).sum(-1)
    own = distance[np.arange(len(truth)), truth]
    other = np.where(np.eye(10, dtype=bool)[truth], np.inf, distance)
    margin, wrong = other.min(1) - own, given != truth
    assert margin[wrong].mean() < 0.5 * margin[~wrong].mean()
    assert (given[wrong] == other.argmin(1)[wrong]).mean() > 0.4, "by chance it would be 1/9"
    symmetric = labels_of(images, "symmetric", 0.2)[1] != truth
    assert margin[symmetric].mean() > 0.8 * margin[~symmetric].mean(), "which symmetric noise does not"


# --- rules


def test_the_running_mean_is_over_five_epochs():
    curve = np.random.default_rng(0).random(30)
    np.testing.assert_allclose(running_mean(curve)[2:-2], np.lib.stride_tricks.sliding_window_view(curve, 5).mean(1))
    assert running_mean(curve)[0] == pytest.approx((3 * curve[0] + curve[1] + curve[2]) / 5)


@pytest.mark.parametrize(
    ("values", "patience", "taken", "end"),
    [
        ([1, 2, 3, 2, 2, 5], 2, 2, 4),
        ([1, 2, 3, 2, 2, 5], 3, 5, None),
        ([3, 3, 3, 3], 2, 0, 2),
        ([np.nan, 1, 2, 1, np.nan, np.nan], 5, 2, None),
        ([np.nan, np.nan], 1, 1, None),
    ],
)
def test_patience_ends_after_so_many_epochs_and_takes_the_first_best(values, patience, taken, end):
    assert best_with_patience(np.array(values, float), patience) == (taken, end)


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ([9, 7, 5, 3, 5, 9, 1], 5),  # means 8 6 4 4 7 5: the last that is least
        ([9, 8, 7, 6, 5], None),
        ([1, 2, 3, 4, 5], None),
        ([9, 5, 7, 1, 1, 9], 5),  # means 7 6 4 1 5
    ],
)
def test_label_wave_stops_at_the_first_local_minimum_of_the_mean_over_two_epochs(changes, found):
    assert first_minimum(np.array([np.nan, *changes])) == (None if found is None else found)


CURVE = np.array([0.2, 0.5, 0.8, 0.9, 0.9, 0.9, 0.9, 0.9, 0.8, 0.7, 0.6, 0.6, 0.6, 0.6])


def run(stop=np.nan, named=np.nan, curve=CURVE, held=CURVE - 0.02) -> xr.Dataset:
    changes = np.r_[np.nan, 90.0, 60.0, 30.0, 20.0, 10.0, 10.0, np.linspace(20, 80, len(curve) - 7)]
    curves = {
        "accuracy": curve,
        "changed_predictions": changes,
        "truly_right": curve,
        "weight_norm": np.arange(len(curve)),
        "gradient_weight_alignment": -np.arange(len(curve)),
        "accuracy_held_out": held,
        "validation_accuracy": held,
    }
    return xr.Dataset(
        {name: ("epoch", each) for name, each in curves.items()}
        | {"stop_epoch": stop, "named_epoch": named, "wrong_share": 0.4},
        {"epoch": np.arange(1, len(curve) + 1)},
    )


def results(*runs: tuple[str, xr.Dataset]) -> xr.Dataset:
    cells = [Cell("perceptron", kind, 0.0 if kind == "clean" else 0.4, k) for k, (kind, _) in enumerate(runs)]
    return judged(together(cells, [each for _, each in runs]), patience=3)


def test_what_each_rule_loses_is_what_the_curve_says():
    found = results(("symmetric", run(stop=10, named=8)), ("clean", run()))
    lost = found.lost.isel(run=0).to_series()
    assert list(lost.index) == list(RULES) == list(NAMES)
    assert lost["monitor"] == pytest.approx(100 * (0.9 - 0.72))  # mean of .9 .8 .7 .6 .6
    assert lost["monitor_named"] == pytest.approx(100 * (0.9 - 0.84))
    assert lost["never"] == lost["weight_norm"] == pytest.approx(30)
    assert lost["alignment"] == pytest.approx(100 * (0.9 - 0.38))  # the first epoch
    assert lost["true_labels"] == 0
    assert lost["label_wave"] == lost["label_wave_patient"] == pytest.approx(2)  # epoch 7, of .9 .9 .9 .9 .8
    assert lost["validation"] == pytest.approx(100 * (0.9 - 0.78))  # the first best, 0.88, is that of epoch 4
    assert found.lost_raw.isel(run=0).sel(rule="monitor") == pytest.approx(20)
    assert found.lost_raw.isel(run=0).sel(rule="validation") == pytest.approx(2)
    assert found.delay.values[0] == 2
    assert np.isnan(found.delay.values[1])
    assert found.lost.isel(run=1).sel(rule="monitor") == pytest.approx(30), "a monitor that says nothing goes on"
    assert np.isnan(found.said_epoch.isel(run=1).sel(rule=["monitor", "never"])).all()


def outcomes(found):
    return [[each.outcome for each in claim.findings] for claim in claims_of(found, "synthetic")]


def test_a_monitor_that_stops_at_the_best_holds_and_one_that_does_not_fails():
    generator = np.random.default_rng(0)
    scattered = [CURVE + 0.002 * generator.standard_normal(len(CURVE)) for _ in range(100)]
    good = results(
        *(("symmetric", run(6, 6, each, each - 0.02)) for each in scattered),
        *(("clean", run(curve=each)) for each in scattered),
    )
    (stop, near), (alarms,), better = outcomes(good)
    assert {stop, near, alarms, better[0], better[-1]} == {"holds"}
    bad = results(
        *(("symmetric", run(14, 14, each, each)) for each in scattered),
        *(("clean", run(5, 5, each)) for each in scattered),
    )
    (stop, near), (alarms,), better = outcomes(bad)
    assert {stop, near, alarms, *better[:3]} == {"fails"}
    silent = results(*(("symmetric", run(curve=each)) for each in scattered), ("clean", run()), ("clean", run()))
    assert outcomes(silent)[2][-1] == "fails", "a monitor that says nothing is not better than never stopping"
    words = "\n".join(in_words(claims_of(bad, "synthetic")))
    assert "wanted ≥ 0.95: does not hold" in words
    assert "wanted ≤ 0.05: does not hold" in words


def test_the_figure_stays_on_its_paper_and_shows_every_run():
    kinds = ("clean", *KINDS)
    found = results(*((kind, run(stop, stop)) for kind in kinds for stop in (8, 12)))
    figure = monitor_figure(found)
    assert_on_paper(figure)
    assert len(figure.axes) == len(kinds)
    shown = [line for line in figure.axes[1].lines if line.get_linestyle() == "None"]
    assert sum(len(line.get_xdata()) for line in shown) == 2 * len(RULES)


# --- the loop


def test_a_monitor_in_the_loop_changes_no_bit_of_what_is_learned():
    choices = settled(epochs=5.0)
    data = load(choices)
    inputs, labels = torch.as_tensor(data.train_inputs), torch.as_tensor(data.train_labels)
    torch.manual_seed(0)
    watched, plain = (network_of("convolutional", data, ()) for _ in range(2))
    plain.load_state_dict(watched.state_dict())
    for epoch, monitor in trained(watched, inputs, labels, choices, 0):
        assert isinstance(monitor, Monitor)
        assert (monitor.epoch, monitor.should_stop) == (epoch, False)
    order = torch.Generator().manual_seed(Seeds(choices.seed).integer("minibatches", 0))
    optimizer = torch.optim.SGD(plain.parameters(), choices.learning_rate, momentum=choices.momentum)
    plain.train()
    for _ in range(5):
        for index in torch.randperm(len(labels), generator=order).split(choices.batch_size):
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(plain(inputs[index]), labels[index]).backward()
            optimizer.step()
    for ours, theirs in zip(watched.state_dict().values(), plain.state_dict().values(), strict=True):
        assert torch.equal(ours, theirs)


def test_a_run_that_diverges_is_said():
    choices = replace(settled(), learning_rate=1e30)
    data = load(choices)
    network = network_of("perceptron", data, (8,))
    with pytest.raises(UnstableTrajectory):
        list(trained(network, *map(torch.as_tensor, (data.train_inputs, data.train_labels)), choices, 0))


# --- the study


def test_quick_leaves_what_it_says(quick_run):
    out, said = quick_run("monitor")
    assert [claim.number for claim in claims_from(out / "claims.json")] == [15, 16, 17]
    summary = json.loads((out / "summary.json").read_text())["found"]
    assert {(row["kind"], row["rule"]) for row in summary["lost"]} == {
        (kind, rule) for kind in ("clean", "symmetric") for rule in RULES
    }
    with xr.open_dataset(out / "monitor.nc") as found:
        assert found.sizes == {"run": 4, "rule": len(RULES), "epoch": 30}
        np.testing.assert_allclose(found.wrong_share, found.label_noise)
        stopped = np.isfinite(found.stop_epoch).groupby(found.kind).sum()
        assert {kind: int(stopped.sel(kind=kind)) for kind in stopped.kind.values} == summary["stopped"]
    assert "does not hold" in said or "holds" in said or "undecided" in said


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"networks": ("transformer",)}, "transformer.*perceptron"),
        ({"networks": ()}, "networks=.*at least one"),
        ({"kinds": ("odd",)}, "odd.*symmetric"),
        ({"kinds": ("pair", "pair")}, "each of them once"),
        ({"label_noises": (0.0, 0.2)}, "label_noises"),
        ({"label_noises": (1.5,)}, "label_noises"),
        ({"hidden": (0,)}, "hidden=0"),
        ({"replicas": 1}, "replicas=1"),
        ({"clean_replicas": 1}, "clean_replicas=1"),
        ({"momentum": 1.0}, "momentum"),
        ({"held_out": 0.0}, "held_out"),
        ({"held_out": 0.99}, "minibatch of others"),
        ({"patience": 0}, "patience=0"),
        ({"test_samples": 0}, "test_samples=0"),
        ({"epochs": 4.0}, "epochs=4"),
    ],
)
def test_wrong_choices_are_refused(tmp_path, wrong, said):
    with pytest.raises(LangevinError, match=said):
        STUDY.run(Config(out=tmp_path, dataset="digits", **wrong))
    assert list(tmp_path.iterdir()) == []


def test_images_that_are_too_small_for_a_convolution_are_refused(images):
    odd = replace(images, train_inputs=images.train_inputs[:, :60], test_inputs=images.test_inputs[:, :60])
    with pytest.raises(ConfigurationError, match="--networks perceptron"):
        network_of("convolutional", odd, ())


# --- what the monitor and others say


def test_what_is_heard_afterwards_is_what_the_monitor_said_while_it_ran():
    choices = settled(epochs=40.0, learning_rate=0.1, samples_per_class=60)
    data = load(choices)
    seeds, truth = Seeds(3), data.train_labels
    given = given_labels(data.train_inputs, truth, data.n_classes, "symmetric", 0.4, seeds, 0)
    network, said = network_of("perceptron", data, (30,)), (np.nan, np.nan)
    for epoch, watching in trained(network, *map(torch.as_tensor, (data.train_inputs, given)), choices, 0):
        monitor = watching
        if np.isnan(said[0]) and monitor.should_stop:
            said = float(epoch), monitor.verdict().since
    samples = monitor.trajectory["samples"].to_dataset().isel(replica=0)
    run = xr.Dataset(
        {name: (("epoch", "sample"), samples[name].values) for name in ("sample_loss", "predicted_label")}
        | {"given_label": ("sample", given), "true_label": ("sample", truth)},
        {"epoch": np.arange(1, 41)},
    )
    assert np.isfinite(said).all()
    assert first_stop(run) == said
    found = heard(run.expand_dims("run"))
    assert (float(found.stop_epoch[0]), float(found.named_epoch[0])) == said
    assert float(found.truly_right[0, -1]) == (samples.predicted_label.values[-1] == truth).mean()


def test_the_alignment_of_gradients_is_that_of_autograd_and_scipy():
    torch.manual_seed(0)
    network = torch.nn.Sequential(torch.nn.Linear(5, 8), torch.nn.Tanh(), torch.nn.Linear(8, 3)).double()
    inputs, labels = torch.randn(40, 5, dtype=torch.float64), torch.arange(40) % 3
    weights, cosines = network[2].weight, []
    for k in range(40):
        loss = torch.nn.functional.cross_entropy(network(inputs[k : k + 1]), labels[k : k + 1])
        (gradient,) = torch.autograd.grad(loss, weights)
        cosines.append(-torch.nn.functional.cosine_similarity(gradient.flatten(), weights.flatten(), dim=0).item())
    with GradientWeightAlignment(network) as alignment:
        for rows in torch.arange(40).split(15):
            alignment.take(network(inputs[rows]), labels[rows])
        assert alignment.end_epoch() == pytest.approx(np.mean(cosines) / (kurtosis(cosines) + 1.2))
    assert not network[2]._forward_pre_hooks
