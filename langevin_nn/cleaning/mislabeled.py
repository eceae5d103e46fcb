"""Which samples are mislabeled, told from their losses over training."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from langevin_nn.analyzers.labels import described, on_clocks
from langevin_nn.checks import number, whole_number
from langevin_nn.cleaning.records import SampleRecords, sample_records
from langevin_nn.cleaning.search import Search
from langevin_nn.errors import ConfigurationError

__all__ = ["find_mislabeled"]

Floats = NDArray[np.float64]


def find_mislabeled(
    sample_loss: Any,
    given_label: Any = None,
    *,
    epoch: Any = None,
    n_classes: int | None = None,
    threshold: float = 0.5,
    least_separation: float = 1.5,
    least_precision: float = 0.5,
    most_of_class: float = 0.95,
) -> xr.Dataset:
    """Tell which samples are mislabeled, from their losses over training, or refuse.

    A network learns first what its samples agree on. The losses of correctly labeled samples fall, while those of
    mislabeled ones stay at or above ln M, the loss of a guess among M classes, until they are learned by heart (Feng &
    Tu 2021, doi 10.1088/2632-2153/abf5b9). The score of a sample is its loss averaged over training until t_c, which
    remembers that; see Pleiss et al. (2020, arXiv:2001.10528) for such averages. Scores are fitted by a log-normal of
    learned samples and a normal of mislabeled ones, about means of their own in each given class, and t_c is the record
    at which a score tells most of the component that it comes from.

    It refuses where learning has not begun, which is when the mean loss has fallen below 0.95 ln M for two records and
    that of the lower component is below 0.75 ln M: before, losses part by the outputs of an untrained network; where the
    components are not apart: where Ashman's D = (m_w − m_c)/√((s_c² + s_w²)/2) (Ashman, Bird & Zepf 1994, doi
    10.1086/117248) is at most 1.5,
    one component explains the scores as well, or the upper one lies below 0.95 ln M, as hard samples do that are correct;
    and where the precision that is predicted for the removal is below one half. It takes as many of the correct samples to
    lie above the threshold as those of any unimodal distribution of the lower component's mean and deviation can (the
    one-sided inequality of Vysochanskij and Petunin; Ion, Klaassen & van den Heuvel 2023, doi 10.1007/s11749-022-00844-9),
    so that a few per cent of wrong labels are often missed, rather than correct samples removed.

    The ranking is returned all the same, by a score that asks for no components: the loss averaged until the mean loss
    has fallen to a tenth of its largest.

    Missing losses are NaN: of a partial epoch, of a last minibatch that was dropped, of samples that were never seen. Each
    sample is judged by what was seen of it. Where it was not seen it is given the loss of its rank in that record, and
    its rank is interpolated in time between the records in which it was seen: losses fall while a network learns, so that
    averages over different records cannot be compared. A sample that was seen in fewer than two records between the
    beginning of learning and t_c has no verdict, since losses tell nothing of a label before: its score and probability
    are NaN, it is not removed, and it has no part in the components. A record without any loss is left out. An infinite
    loss of a few is missing; where most are infinite the network has diverged, from which on nothing is looked at, nor
    after a record in which more than half of the samples were seen for the last time.

    Parameters
    ----------
    sample_loss : array, xarray.DataTree or xarray.Dataset
        Losses of shape (epoch, sample) or (replica, epoch, sample), or a trajectory with ``sample_loss``; cross-entropies
        in nats, recorded from the start of training.
    given_label : array of int, shape (sample,) or (replica, sample), optional
        Class that each sample was trained on; a trajectory's own unless said. Without it all samples are one class.
    epoch : array, shape (epoch,), optional
        When an array's losses were recorded; 0, 1, 2, … unless said.
    n_classes : int, optional
        M. Those that were given unless said; without labels the mean loss of the first record is taken for ln M.
    threshold : float, optional
        Probability above which a sample is removed.
    least_separation : float, optional
        D that the components must exceed.
    least_precision : float, optional
        Share of mislabeled samples among those removed that must be predicted.
    most_of_class : float, optional
        Share of a given class that is removed at most, those with the largest scores.

    Returns
    -------
    xarray.Dataset
        By run, ``mislabeled_probability``, ``mislabeled_score`` (in nats) and ``is_removed`` (sample); ``is_refused`` and
        the ``reason``; ``predicted_precision`` of the removal, also of one that is refused, NaN where nothing would go;
        ``mislabeled_fraction``; ``cleaning_record`` and ``cleaning_time`` (clock) of the components, and
        ``ranking_record``, until which losses are averaged for the score: the same unless it refuses;
        ``score_threshold``, the lowest score that is removed; ``separation``, ``component_mean`` (component: low, high);
        ``samples_seen`` and ``records_taken``, how many there are any losses of, ``samples_judged`` and
        ``records_missing``; with labels ``class_samples`` and ``class_removed`` (class). Where it refuses, nothing is
        removed, but the numbers stay.

    Raises
    ------
    ConfigurationError
        If they are no such losses, or another argument cannot be.
    EstimationRefused
        If there are fewer than 100 samples, or no run has a single finite loss.

    Examples
    --------
    >>> generator = np.random.default_rng(0)
    >>> epochs, wrong = np.arange(40)[:, None], np.arange(1000) < 300
    >>> learned = np.exp(-epochs / 10)
    >>> level = np.where(wrong, np.log(10) * (1.5 - 0.5 * learned), np.log(10) * (0.1 + 0.9 * learned))
    >>> result = find_mislabeled(level * np.exp(0.2 * generator.standard_normal(1000)))
    >>> result.is_refused.item(), int(result.is_removed.sum()), round(result.mislabeled_fraction.item(), 2)
    (0, 300, 0.3)
    """
    number("threshold", threshold, "a probability from 0 to 1, above which samples are removed", least=0, most=1)
    number("least_separation", least_separation, "a number from 0, which Ashman's D must exceed", least=0)
    number(
        "least_precision", least_precision, "a share from 0 to 1 of those removed, mislabeled at least", least=0, most=1
    )
    number("most_of_class", most_of_class, "a share from 0 to 1 of a class, removed at most", least=0, most=1)
    if n_classes is not None:
        whole_number("n_classes", n_classes, "a whole number (int) of classes from 2", least=2)
    records = sample_records(sample_loss, given_label, epoch)
    losses, clock, dims = records.losses, records.clock, records.dimensions
    times = _times(records)
    if (losses.values < 0).any():
        raise ConfigurationError(
            f"sample_loss goes down to {np.nanmin(losses.values):g}: expected cross-entropies, which are at least 0, since "
            "they are compared with the loss of a guess; pass losses rather than their logarithms or accuracies"
        )
    _refuse_two_values(losses.values)
    if n_classes is not None and records.labels is not None and len(found := np.unique(records.labels)) > n_classes:
        raise ConfigurationError(
            f"n_classes={n_classes} beside given labels of {len(found)} classes, {found[0]} to {found[-1]}: expected "
            "at least as many, since losses are compared with ln M, that of a guess among all; leave n_classes out, or "
            "correct the labels"
        )
    shape = losses.shape[:-2]
    search = Search(n_classes, float(threshold), float(least_separation), float(least_precision), float(most_of_class))
    runs = [
        search(
            losses.values[index],
            times if times.ndim == 1 else times[index],
            None if records.labels is None else records.labels[index],
        )
        for index in np.ndindex(shape)
    ]

    def of(name: str) -> NDArray[Any]:
        values = np.array([getattr(run, name) for run in runs])
        return values.reshape((*shape, *values.shape[1:]))

    reasons = of("reason")
    removed, score, each = of("removed"), of("score"), [*dims, "sample"]
    record = of("record")
    variables = {
        "mislabeled_probability": described(each, of("probability"), "probability that the given label is wrong"),
        "mislabeled_score": described(each, score, "loss averaged over training", "nat"),
        "is_removed": described(each, removed, "whether a sample is removed"),
        "is_refused": described(dims, reasons != "", "whether nothing is removed since nothing can be told"),
        "reason": described(dims, reasons, "why nothing is removed"),
        "mislabeled_fraction": described(dims, of("fraction"), "estimated share of mislabeled samples"),
        "predicted_precision": described(
            dims, of("precision"), "predicted share of mislabeled samples among those that would be removed"
        ),
        "cleaning_record": described(dims, record, "record of the components"),
        "cleaning_time": on_clocks(
            np.where(record < 0, np.nan, record), losses, clock, dims, "time t_c of the components"
        ),
        "ranking_record": described(dims, of("ranking_record"), "record until which losses are averaged"),
        "samples_seen": described(dims, of("seen").sum(-1), "samples with any loss"),
        "samples_judged": described(dims, of("judged").sum(-1), "samples that there is a verdict on"),
        "records_taken": described(dims, of("records_taken"), "records with any loss"),
        "records_missing": described(dims, of("records_missing"), "records without any loss, which were left out"),
        "score_threshold": described(
            dims, np.where(removed, score, np.inf).min(-1), "lowest score that is removed", "nat"
        ),
        "separation": described(dims, of("separation"), "Ashman's D of the components"),
        "component_mean": described(
            [*dims, "component"], np.stack([of("lower_mean"), of("upper_mean")], -1), "mean score of a component", "nat"
        ),
    }
    labels = {"component": described(["component"], ["low", "high"], "component of the scores")}
    return xr.Dataset(variables, coords=labels).assign(_by_class(records, removed))


def _refuse_two_values(losses: Floats) -> None:
    """Raise where samples are right or wrong, which is no loss."""
    smallest, largest = np.nanmin(losses), np.nanmax(losses)
    if smallest < largest and bool(((losses == smallest) | (losses == largest) | np.isnan(losses)).all()):
        raise ConfigurationError(
            f"sample_loss takes two values only, {smallest:g} and {largest:g}: expected cross-entropies in nats, whose size "
            "tells how far a sample is from being learned, and not errors; record losses with SampleLosses()"
        )


def _times(records: SampleRecords) -> Floats:
    """Return the moments of records on the best clock that there is, shape (clock,) or (..., clock)."""
    losses, clock = records.losses, records.clock
    for name in ("epoch", clock):
        if name in losses.coords:
            moments = losses[name].astype(np.float64)
            if moments.ndim > 1:
                moments = moments.broadcast_like(losses.isel(sample=0, drop=True)).transpose(*records.dimensions, clock)
            return np.asarray(moments.values)
    return np.arange(losses.sizes[clock], dtype=np.float64)


def _by_class(records: SampleRecords, removed: NDArray[np.bool_]) -> xr.Dataset:
    if records.labels is None:
        return xr.Dataset()
    classes = np.unique(records.labels)
    own = records.labels[..., None, :] == classes[:, None]
    dims = [*records.dimensions, "class"]
    return xr.Dataset(
        {
            "class_samples": described(dims, own.sum(-1), "samples of a given class"),
            "class_removed": described(dims, (own & removed[..., None, :]).sum(-1), "removed samples of a given class"),
        },
        coords={"class": described(["class"], classes, "given class")},
    )
