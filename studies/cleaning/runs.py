"""What is trained to judge cleaning: all samples, the truly correct ones, and what each rule leaves of them."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr
from numpy.typing import NDArray

from langevin_nn import NetworkLandscape, Process, Seeds, Simulation, open_sweep, sgd, simulate
from langevin_nn.analyzers.labels import described
from langevin_nn.cleaning import find_mislabeled, literal_rule
from langevin_nn.observables import Losses, SampleLosses, Weights
from langevin_nn.provenance import attributes
from langevin_nn.schedules import AtSteps
from models.datasets import ImageData
from studies.lab.choices import Choices, landscape_of, load
from studies.lab.choices import Settled as Chosen
from studies.lab.command import Place, words_of

__all__ = ["RULES", "Config", "Settled", "cleaned", "has_cleanlab", "record_steps", "uncleaned"]

# "pure" removes what is mislabeled in truth; "random" as many samples as equal_density, and must not help.
RULES = ("pure", "equal_density", "midpoint", "random", "cleanlab", "find_mislabeled")

FOLDS = 5  # cleanlab's own number

Flags = NDArray[np.bool_]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Config(Choices):
    """Everything that can be chosen."""

    hidden: tuple[int, ...] = (50, 50)
    """Units of each hidden layer."""
    label_noises: tuple[float, ...] = (0.0, 0.2, 0.35, 0.5, 0.65, 0.8)
    """Shares ρ of training samples whose label is redrawn from all classes."""
    shown_noise: float = 0.5
    """The one of them whose losses are shown and held to claims 11 and 12."""
    replicas: int = 5
    """Replicas, each with its own labels, initial weights and minibatches."""
    with_cleanlab: bool | None = None
    """Whether to compare with cleanlab; where it is installed unless given."""
    cleanlab_noises: tuple[float, ...] = (0.2, 0.5, 0.8)
    """The label noises at which it is compared, five trainings of a fifth of the length and one more a replica each."""
    workers: int | None = None
    """Local processes; as many as there are cores unless given."""
    out: Path = field(default=Path("output/cleaning"))
    """Folder for runs, cleaning.nc, summary.json, claims.json and figures."""


@dataclass(frozen=True, kw_only=True)
class Settled(Chosen, Config):
    """The same, with everything chosen; without cleanlab there are no noises at which it is compared."""

    @property
    def n_updates(self) -> int:
        """Updates of every run, whatever is left of its samples: those of the epochs over all of them."""
        return round(self.epochs * (len(load(self).train_labels) // self.batch_size))

    @property
    def points(self) -> list[dict[str, Any]]:
        """What is cleaned: each replica by each rule at each label noise at which it is tried."""
        noises = {"random": (self.shown_noise,), "cleanlab": self.cleanlab_noises}
        return [
            {"label_noise": noise, "replica_index": replica, "rule": rule}
            for replica in range(self.replicas)
            for rule in RULES
            for noise in noises.get(rule, self.label_noises)
        ]

    def process(self, landscape: NetworkLandscape) -> Process:
        """Return SGD on some samples."""
        return sgd(landscape, self.learning_rate, self.batch_size)


@dataclass(frozen=True)
class Decision:
    """What a rule removes.

    Parameters
    ----------
    removed : ndarray of bool, shape (sample,)
        Which samples.
    score : ndarray, shape (sample,)
        The higher, the more likely mislabeled.
    record : int
        Of the weights from which training goes on without them; 0 stands for the start.
    """

    removed: Flags
    score: Floats
    record: int = 0


def has_cleanlab() -> bool:
    """Return whether cleanlab is installed.

    Returns
    -------
    bool
        Without importing it.
    """
    return find_spec("cleanlab") is not None


def record_steps(last: int) -> NDArray[np.int64]:
    """Return when runs are recorded: closely in the first fifth, where phases I and II lie.

    Parameters
    ----------
    last : int
        Number of updates.

    Returns
    -------
    ndarray of int, shape (step,)
        From 0 to the last.

    Examples
    --------
    >>> record_steps(1000)[[0, 1, -2, -1]], len(record_steps(80_000))
    (array([   0,    5,  980, 1000]), 81)
    """
    shares = np.r_[np.arange(40) / 200, np.arange(10, 51) / 50]
    return np.unique(np.rint(last * shares).astype(np.int64))


def uncleaned(label_noise: float, *, choices: Settled) -> Simulation:
    """Return the run on all samples.

    Parameters
    ----------
    label_noise : float
        Share of the labels that are redrawn.
    choices : Settled
        What is trained.

    Returns
    -------
    Simulation
        All replicas, with the losses of all samples.
    """
    landscape = landscape_of(load(choices), choices, label_noise=label_noise, hidden=choices.hidden)
    schedule = AtSteps(tuple(record_steps(choices.n_updates).tolist()))
    return Simulation(
        choices.process(landscape),
        steps=choices.n_updates,
        replicas=choices.replicas,
        seed=choices.seed,
        schedule=schedule,
        observables=[Losses(), SampleLosses(schedule)],
    )


def cleaned(label_noise: float, replica_index: int, rule: str, *, choices: Settled, place: Place) -> xr.Dataset:
    """Find the mislabeled samples of one replica by a rule, and train on what is left.

    A rule that takes losses at a time t_c goes on from the weights there, as the paper does, any other from the start; all
    runs take equally many updates. Where a rule removes nothing, the run on all samples stands for its own.

    Parameters
    ----------
    label_noise : float
        Share of the labels that are redrawn.
    replica_index : int
        Which labels, initial weights and minibatches.
    rule : str
        One of `RULES`.
    choices : Settled
        What is trained.
    place : Place
        Folder of the sweep of `uncleaned`.

    Returns
    -------
    xarray.Dataset
        ``accuracy`` (step) of the test set, ``is_removed`` and ``score`` (sample), ``cleaning_record`` and ``is_refused``,
        whether nothing is removed.
    """
    with open_sweep(place.folder) as tree:
        point = int(np.flatnonzero(tree.label_noise.values == label_noise)[0])
        whole = 1 - tree.test_error.isel(point=point, replica=replica_index).values
        samples = tree["samples"].to_dataset().isel(point=point, replica=replica_index).load()
    decision = _decided(rule, samples, choices, replica_index)
    steps = record_steps(choices.n_updates)
    refused = not decision.removed.any()
    accuracy = whole
    if not refused:
        start = _weights_at(int(steps[decision.record]), label_noise, replica_index, choices)
        later = _accuracy_without(decision.removed, samples, start, steps[decision.record :], replica_index, choices)
        accuracy = np.r_[whole[: decision.record], later]
    return xr.Dataset(
        {
            "accuracy": described(["step"], accuracy, "test accuracy"),
            "is_removed": described(["sample"], decision.removed, "whether a sample is removed"),
            "score": described(["sample"], decision.score.astype(np.float32), "the higher, the likelier mislabeled"),
            "cleaning_record": described([], np.array(decision.record), "record from which it trains on the rest"),
            "is_refused": described([], np.array(refused), "whether nothing is removed"),
        },
        coords={"step": steps},
        attrs=attributes({"study": "cleaning", "choices": words_of(choices)}),
    )


def _decided(rule: str, samples: xr.Dataset, choices: Settled, replica: int) -> Decision:
    if rule == "pure":
        wrong = samples.mislabeled.values.astype(bool)
        return Decision(wrong, wrong.astype(np.float64))
    if rule == "cleanlab":
        return _by_cleanlab(samples.given_label.values, choices, replica)
    if rule == "find_mislabeled":
        ours = find_mislabeled(samples[["sample_loss", "given_label"]])
        return Decision(ours.is_removed.values.astype(bool), ours.mislabeled_score.values, _record(ours))
    literal = literal_rule(samples[["sample_loss"]])
    record = _record(literal)
    threshold = "equal_density" if rule == "random" else rule
    removed = literal.is_removed.sel(threshold_rule=threshold).values.astype(bool)
    if rule != "random":
        return Decision(removed, samples.sample_loss.values[record].astype(np.float64), record)
    place = Seeds(choices.seed).generator("removal at random", replica).permutation(len(removed))
    return Decision(place < removed.sum(), -place.astype(np.float64), record)


def _record(found: xr.Dataset) -> int:
    return max(0, int(found.cleaning_record))


def _weights_at(step: int, label_noise: float, replica: int, choices: Settled) -> NDArray[np.floating]:
    """Return the weights of the run on all samples, which is repeated to the same bits up to there."""
    data = load(choices)
    landscape = landscape_of(data, choices, label_noise=label_noise, hidden=choices.hidden, replicas=(replica,))
    if step == 0:
        start: NDArray[np.floating] = landscape.initial_weights((replica,), Seeds(choices.seed)).cpu().numpy()
        return start
    run = simulate(
        choices.process(landscape),
        steps=step,
        replicas=[replica],
        seed=choices.seed,
        observables=[Weights(AtSteps((step,)))],
        progress=False,
    )
    found: NDArray[np.floating] = run["weights"].weights.values[:, -1]
    return found


def _part(data: ImageData, given: NDArray[np.int64], kept: Flags) -> ImageData:
    """Return some of the samples, with the labels that were given."""
    return replace(data, train_inputs=data.train_inputs[kept], train_labels=given[kept])


def _accuracy_without(
    removed: Flags,
    samples: xr.Dataset,
    start: NDArray[np.floating],
    steps: NDArray[np.int64],
    replica: int,
    choices: Settled,
) -> Floats:
    """Return the test accuracy at some steps of training on the rest; NaN where that is less than a minibatch."""
    if (~removed).sum() <= choices.batch_size:
        return np.full(len(steps), np.nan)
    rest = _part(load(choices), samples.given_label.values, ~removed)
    landscape = landscape_of(rest, choices, hidden=choices.hidden)
    if len(steps) == 1:  # t_c is the end
        _, errors = landscape.losses_and_errors(torch.as_tensor(start, device=landscape.device), test=True)
        return 1 - errors.double().mean(1).cpu().numpy()
    run = simulate(
        choices.process(landscape),
        steps=int(steps[-1] - steps[0]),
        replicas=[replica],
        seed=choices.seed,
        weights=start,
        schedule=AtSteps(tuple((steps - steps[0]).tolist())),
        observables=[Losses()],
        progress=False,
    )
    accuracy: Floats = 1 - run.test_error.values[0]
    return accuracy


def _by_cleanlab(given: NDArray[np.int64], choices: Settled, replica: int) -> Decision:
    """Decide as Northcutt, Jiang & Chuang (2021, doi 10.1613/jair.1.12125), with cleanlab's own defaults."""
    from cleanlab.filter import find_label_issues
    from cleanlab.rank import get_label_quality_scores

    probability = _out_of_sample(given, choices, replica)
    removed = np.asarray(find_label_issues(given, probability, n_jobs=1), dtype=bool)
    return Decision(removed, 1 - np.asarray(get_label_quality_scores(given, probability), dtype=np.float64))


def _out_of_sample(given: NDArray[np.int64], choices: Settled, replica: int) -> Floats:
    """Return the probabilities of classes of each sample, shape (sample, class), by a network that has not seen it."""
    data, seeds = load(choices), Seeds(choices.seed)
    fold = seeds.generator("folds of the cross-validation", replica).permutation(len(given)) % FOLDS
    # One that has memorised wrong labels says little of others: all folds stop where held-out losses are lowest.
    stops = np.unique(np.rint(choices.n_updates * (1 - 1 / FOLDS) / 5 * np.arange(1, 51) / 50).astype(np.int64))
    logarithm = np.empty((len(stops), len(given), data.n_classes))
    for number in range(FOLDS):
        out = fold == number
        landscape = landscape_of(_part(data, given, ~out), choices, hidden=choices.hidden)
        run = simulate(
            choices.process(landscape),
            steps=int(stops[-1]),
            replicas=[replica],
            seed=choices.seed,
            observables=[Weights(AtSteps(tuple(stops.tolist())))],
            progress=False,
        )
        weights, inputs = (
            torch.as_tensor(each, device=landscape.device)
            for each in (run["weights"].weights.values[0], data.train_inputs[out])
        )
        logarithm[:, out] = landscape.outputs(weights, inputs).double().log_softmax(-1).cpu().numpy()
    loss = -np.take_along_axis(logarithm, given[None, :, None], -1)[..., 0].mean(-1)
    probability: Floats = np.exp(logarithm[loss.argmin()])
    return probability
