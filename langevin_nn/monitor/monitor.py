"""The monitor: a training loop of one's own, measured at the backward passes that it makes anyway."""

from __future__ import annotations

import atexit
import os
import warnings
import weakref
from collections import Counter
from collections.abc import Iterator, Mapping
from time import monotonic
from types import TracebackType
from typing import Any, Self

import numpy as np
import torch
import xarray as xr
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn

from langevin_nn.checks import as_path, kind_of, number, shown, truth, whole_number
from langevin_nn.errors import ConfigurationError, MonitorWarning
from langevin_nn.monitor.estimator import LEAST_MEASURED, Estimator
from langevin_nn.monitor.losses import SeenLosses
from langevin_nn.monitor.optimizers import rates_of
from langevin_nn.monitor.record import Record
from langevin_nn.monitor.settled import MISSING
from langevin_nn.monitor.steps import Part, Step
from langevin_nn.monitor.together import Ranks
from langevin_nn.monitor.verdict import Verdict, verdict_of
from langevin_nn.readable import Readable

__all__ = ["Monitor"]

_SECONDS_BETWEEN_LOOKS = 1.0
_LOGGED = ("test_loss", "test_error", "train_error")
_WRONG = {
    "indices out of range": "indices are not from 0 to N − 1, N = {n}: left out",
    "losses that are not finite": "losses are not finite: they are missing in the record",
    "samples that came more than once in an epoch": (
        "losses are of samples that had come before in the same epoch of {n}: expected each once, so that only the last "
        "of each is kept; check that index is the place in the data set, not in the minibatch, and n_samples its length"
    ),
}
_WRONG["samples that were never seen"] = (
    "of {n} samples have come in no epoch yet: expected all of them by now; give n_samples the length of the data set that "
    "is trained on"
)
_watched: weakref.WeakKeyDictionary[nn.Module, weakref.ref[Monitor]] = weakref.WeakKeyDictionary()


class Monitor(Readable):
    """A recorder of somebody else's training loop.

    It follows the loss of each sample over the epochs, and the class that was predicted for it, from what the loop computes
    anyway, and every so many updates estimates the order parameters of the minibatch ensemble from the gradients of single
    samples within the backward pass that the loop makes anyway. It makes no pass of its own, draws no random numbers of
    torch's, and changes no bit of the training run. What it records is a trajectory like that of `simulate`, in the same
    file.

    Parameters
    ----------
    network : torch.nn.Module
        The network that is trained.
    n_samples : int
        N, the number of training samples.
    path : path, optional
        File to write the trajectory to; while training goes on its records lie in ``<path>.segments``. In memory unless
        said.
    optimizer : torch.optim.Optimizer, optional
        Of which learning rates and the metric are recorded, and `time` is the sum of the former; each update counts as 1
        unless said.
    every : int, optional
        Updates between estimates of order parameters; 0 for none.
    measured_samples : int, optional
        From how many samples of a minibatch they are estimated.
    augmented : bool, optional
        Whether a sample comes otherwise at each pass, by augmentation: there are then more samples than N. With dropout that
        is so in any case.
    accumulation : int, optional
        Backward passes for each update.
    mislabeled : array of bool, shape (sample,), optional
        Which labels are known to be wrong, for experiments; the cohort that the verdict finds unless said.
    seed : int, optional
        Which samples of a minibatch are measured.
    resume : bool, optional
        Whether to go on with the run that was killed at `path`: give `load_state_dict` what `state_dict` returned when the
        loop saved its checkpoint.
    overwrite : bool, optional
        Whether the file may take the place of one that is at `path`.
    segment_seconds : float, optional
        After how many seconds records are on the disk at the latest.

    Attributes
    ----------
    step_count : int
        Updates until now.
    epoch : int
        Epochs that have ended.
    counts : dict of str to int
        What was left out, by reason.

    Raises
    ------
    ConfigurationError
        If the network is none, is watched already, or numbers are none.

    Warns
    -----
    MonitorWarning
        Where something cannot be measured; once a reason, and `counts` goes on.

    Examples
    --------
    >>> import torch
    >>> from torch.nn.functional import cross_entropy
    >>> _ = torch.manual_seed(0)
    >>> inputs, labels = torch.randn(200, 5), torch.arange(200) % 2
    >>> network = torch.nn.Linear(5, 2)
    >>> optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    >>> monitor = Monitor(network, n_samples=200, optimizer=optimizer, every=5)
    >>> for epoch in range(3):
    ...     for index in torch.randperm(200).split(20):
    ...         logits = network(inputs[index])
    ...         losses = cross_entropy(logits, labels[index], reduction="none")
    ...         optimizer.zero_grad()
    ...         with monitor.step(losses, index, labels=labels[index], logits=logits):
    ...             losses.mean().backward()
    ...         optimizer.step()
    >>> monitor.trajectory.sizes["step"], monitor.trajectory["samples"].sample_loss.shape
    (7, (1, 3, 200))
    """

    def __init__(
        self,
        network: nn.Module,
        n_samples: int,
        path: str | os.PathLike[str] | None = None,
        *,
        optimizer: torch.optim.Optimizer | None = None,
        every: int = 100,
        measured_samples: int = 64,
        augmented: bool = False,
        accumulation: int = 1,
        mislabeled: ArrayLike | Tensor | None = None,
        seed: int = 0,
        resume: bool = False,
        overwrite: bool = False,
        segment_seconds: float = 30.0,
    ) -> None:
        self._closed = False
        _check_watched(network, optimizer)
        expected = (
            "a whole number (int) of training samples from 1 to 2²⁸, since the loss of each is kept for each epoch"
        )
        self.n_samples = whole_number("n_samples", n_samples, expected, least=1, most=2**28)
        expected = "a whole number (int) of updates from 0, which stands for never"
        self.every = whole_number("every", every, expected, least=0)
        expected = f"a whole number (int) from {LEAST_MEASURED}, since triples and quadruples of samples are compared"
        measured_samples = whole_number("measured_samples", measured_samples, expected, least=LEAST_MEASURED)
        expected = "a whole number (int) of backward passes from 1"
        self.accumulation = whole_number("accumulation", accumulation, expected, least=1)
        augmented = truth("augmented", augmented, "whether samples come otherwise at each pass")
        self._network, self._optimizer = network, optimizer
        self._known = None if mislabeled is None else self._mask(mislabeled)
        self._found: NDArray[np.bool_] | None = None  # the cohort of the last verdict
        self._verdict: Verdict | None = None
        self.counts: Counter[str] = Counter()
        self.ranks = Ranks()
        self._losses = SeenLosses(self.n_samples, self.ranks)
        self.estimator = Estimator(
            network, self.n_samples, measured_samples, augmented, self.accumulation, seed, self.warn, self.ranks
        )
        self.step_count, self.time, self._passes = 0, 0.0, 0
        self._looked = 0.0  # when it was asked whether a segment is due
        self._within: Step | Part | None = None
        described = {
            "process": {"type": "Monitor", "name": "monitored"},
            "network": {
                "module": str(network),
                "n_parameters": sum(each.numel() for each in network.parameters()),
                "measured_parameters": self.estimator.n_measured if self.every else 0,
            },
            "n_samples": self.n_samples,
            "every": self.every,
            "measured_samples": measured_samples,
            "augmented": augmented,
            "accumulation": self.accumulation,
            "seed": seed,
            "replicas": [0],
            **({} if optimizer is None else {"optimizer": type(optimizer).__name__}),
        }
        expected = "a number of seconds from 0, after which a segment is finished"
        segment_seconds = number("segment_seconds", segment_seconds, expected, least=0)
        target = None if path is None or self.ranks.rank else as_path("path", path)
        resume = truth("resume", resume, "whether to go on with the run at path")
        overwrite = truth("overwrite", overwrite, "whether a file that is there is replaced")
        if resume and path is None:
            raise ConfigurationError(
                "resume=True without a path: expected the path of the file that the run was to write, since its records are "
                "gone on with; leave resume out in memory, where load_state_dict brings them all"
            )
        layers = self.estimator.layers if self.every else ()
        self._record = Record(described, layers, target, resume=resume, overwrite=overwrite, seconds=segment_seconds)
        self._waits = resume and self._record.goes_on
        atexit.register(_keep_at_exit, weakref.ref(self))
        _watched[network] = weakref.ref(self)
        self._probe = self.estimator.probe() if self._is_due and not self.estimator.is_by_parts else None

    def _said(self) -> Iterator[str]:
        yield f"{self.n_samples:,} samples"
        yield f"step {self.step_count:,}"
        yield f"epoch {self.epoch:,}"
        measured, every = self.estimator.n_measured, sum(each.numel() for each in self._network.parameters())
        yield f"gradients of {measured:,} of {every:,} parameters" if self.every else "losses alone"
        if self._record.target is not None:
            yield f"path={str(self._record.target)!r}"

    def _mask(self, mislabeled: ArrayLike | Tensor) -> NDArray[np.bool_]:
        try:
            given = mislabeled.detach().cpu().numpy() if isinstance(mislabeled, Tensor) else np.asarray(mislabeled)
            came = f"of {given.dtype} and shape {given.shape}"
        except ValueError:  # rows of different lengths
            given, came = np.empty(0), kind_of(mislabeled)
        if given.dtype != bool or given.shape != (self.n_samples,):
            raise ConfigurationError(f"mislabeled is {came}: expected bool ({self.n_samples},), one a sample")
        return given

    @property
    def epoch(self) -> int:
        """Epochs that have ended."""
        return len(self._losses.epochs)

    @property
    def _is_due(self) -> bool:
        """Whether this update is to be measured."""
        return bool(self.every) and self.step_count % self.every == 0

    @property
    def _now(self) -> tuple[int, float, float]:
        return self.step_count, self._losses.total / self.n_samples, self.time

    # What the loop calls.

    def step(
        self, losses: Tensor, index: Tensor, *, labels: Tensor | None = None, logits: Tensor | None = None
    ) -> Step:
        """Return the context of one backward pass.

        Parameters
        ----------
        losses : Tensor, shape (sample,)
            The loss of each sample of the minibatch, of which the loop makes what it differentiates: their mean, sum or any
            other, with what it adds.
        index : Tensor of int, shape (sample,)
            Which samples they are, from 0 to N − 1; `IndexedDataset` gives it.
        labels : Tensor of int, shape (sample,), optional
            Their given labels, with which the verdict compares predictions, and losses with those of the same class.
        logits : Tensor, shape (sample, class), optional
            What the network said of them, of which the largest is its prediction. The verdict is much better with them.

        Returns
        -------
        context manager
            For ``with``; the backward pass is made within.

        Raises
        ------
        ConfigurationError
            If losses are not one a sample or cannot be differentiated, the index is none, or labels or logits do not fit.
        """
        if self._closed or self._waits:
            self._refuse_now()
        self._check(losses, index, labels, logits)
        return Step(self, losses, index, labels, logits)

    def _refuse_now(self) -> None:
        if self._closed:
            raise ConfigurationError("the monitor is closed: expected no more steps; make another for another run")
        raise ConfigurationError(
            f"the run at {str(self._record.target)!r} is to be gone on with: expected load_state_dict(...) first, with what "
            "state_dict() returned when the loop saved its checkpoint, since what came later is recorded anew"
        )

    def _check(self, losses: Tensor, index: Tensor, labels: Tensor | None, logits: Tensor | None) -> None:
        if isinstance(losses, Tensor) and isinstance(index, Tensor) and index.requires_grad > losses.requires_grad:
            raise ConfigurationError(
                "losses hold no graph, and index does: expected step(losses, index), in this order; swap them"
            )
        if not isinstance(losses, Tensor) or losses.ndim != 1 or len(losses) == 0:
            shape = tuple(losses.shape) if isinstance(losses, Tensor) else kind_of(losses)
            raise ConfigurationError(
                f"losses have shape {shape}: expected (sample,), the loss of each sample before any mean, since samples are "
                'told apart by them; compute them with reduction="none", and of sequences or images average the rest'
            )
        if not losses.requires_grad:
            raise ConfigurationError(
                "losses hold no graph: expected what backward() starts from, since gradients of samples are taken from that "
                "pass; do not detach them, and call step outside of torch.no_grad()"
            )
        if not isinstance(index, Tensor) or index.is_floating_point() or index.shape != losses.shape:
            came = f"of {index.dtype} and shape {tuple(index.shape)}" if isinstance(index, Tensor) else kind_of(index)
            raise ConfigurationError(
                f"index is {came}: expected whole numbers of shape {tuple(losses.shape)}, which samples these losses are; "
                "wrap the data set in IndexedDataset"
            )
        if labels is not None and (not isinstance(labels, Tensor) or labels.shape != losses.shape):
            raise ConfigurationError(
                f"labels are {tuple(labels.shape) if isinstance(labels, Tensor) else kind_of(labels)}: expected a tensor of "
                f"shape {tuple(losses.shape)}, the class of each sample"
            )
        of_classes = isinstance(logits, Tensor) and logits.ndim == 2 and logits.shape[1] > 1
        if logits is not None and not (of_classes and len(logits) == len(losses)):
            raise ConfigurationError(
                f"logits are {tuple(logits.shape) if isinstance(logits, Tensor) else kind_of(logits)}: expected a tensor of "
                f"shape ({len(losses)}, class), one number a class, since the largest is taken for the prediction; leave "
                "them out where there are no classes"
            )
        if labels is not None and labels.is_floating_point():
            raise ConfigurationError(
                f"labels are {labels.dtype}: expected whole numbers, the class of each sample; leave them out where there "
                "are no classes"
            )
        # Whoever gives wrong ones does so in the first epoch; later they are counted at an epoch's end, without a delay.
        if not self.epoch and (int(index.min()) < 0 or int(index.max()) >= self.n_samples):
            raise ConfigurationError(
                f"index goes from {int(index.min())} to {int(index.max())}: expected 0 to {self.n_samples - 1}, since "
                f"n_samples={self.n_samples}; give the monitor the length of the data set"
            )

    def part(self, size: int) -> Part:
        """Return the context of the backward pass of one of `accumulation` parts of a minibatch, without losses of samples.

        From the gradients that the parts add, A₀, D and the gradient noise scale are estimated, for any network and any loss
        (McCandlish et al. 2018, arXiv:1812.06162, appendix A.1): parts are to be of one size, each loss the mean over its
        part divided by their number, as gradient accumulation has it.

        Parameters
        ----------
        size : int
            Samples in the part.

        Returns
        -------
        context manager
            For ``with``; the backward pass is made within.

        Raises
        ------
        ConfigurationError
            If there is one part for each update, or the monitor is closed.
        """
        if self._closed or self._waits:
            self._refuse_now()
        if self.accumulation < 2:
            raise ConfigurationError(
                "accumulation=1, and parts of minibatches came: expected at least 2, since the noise is how they differ; "
                "make the monitor with accumulation= their number"
            )
        return Part(self, whole_number("size", size, "a whole number (int) of samples from 1", least=1))

    def log(self, **values: float) -> None:
        """Record numbers of one's own at this step.

        Parameters
        ----------
        **values : float
            ``test_loss``, and ``test_error`` or ``train_error`` as shares of samples, from which analyzers tell phases of
            learning.

        Raises
        ------
        ConfigurationError
            If one is no number, no share where that is expected, or has another name.
        """
        for name in values:
            if name not in _LOGGED:
                raise ConfigurationError(
                    f"{name!r} cannot be logged: expected {', '.join(_LOGGED)}, of which files know"
                )
        found = {name: np.array([_logged(name, value)]) for name, value in values.items()}
        if "train_error" in found:
            found["train_error"] = np.array([[found["train_error"][0], np.nan, np.nan]])
        self._record.keep("", self._now, found)

    # What steps ask for.

    def begin(self, within: Step | Part) -> bool:
        """Enter a context; return whether the pass within is to be measured."""
        if self._within is not None:
            raise ConfigurationError(
                "a step has begun within another: expected one after the other; leave the first context"
            )
        self._within = within
        return self._is_due

    def end(self) -> Any:
        """Leave a context; take all hooks off, and return what they saw."""
        self._within, probe, self._probe = None, self._probe, None
        if probe is not None:
            probe.release()
        return probe

    @property
    def probe(self) -> Any:
        """The hooks that are on the layers; None where the pass is not measured through them."""
        return self._probe

    def arm(self) -> None:
        """Put hooks on the layers where the coming pass is to be measured."""
        first = self._passes % self.accumulation == 0
        if self._is_due and first and not self.estimator.is_by_parts and self._probe is None and not self._closed:
            self._probe = self.estimator.probe()

    def warn(self, reason: str, what: str) -> None:
        """Take down what could not be measured; say it once."""
        self.counts[reason] += 1
        if self.counts[reason] == 1:
            warnings.warn(f"{what} (counted in counts[{reason!r}])", MonitorWarning, stacklevel=2)

    def keep(self, values: Mapping[str, NDArray[Any]], of_layers: Mapping[str, NDArray[Any]] | None = None) -> None:
        """Record variables of the root and of the layers at this update."""
        self._record.keep("", self._now, values)
        if of_layers:
            self._record.keep("measured_layers", self._now, of_layers)

    def keep_rates(self, size: int) -> None:
        """Record what the update is made with."""
        if self._passes % self.accumulation:
            return
        norms = [each.detach().double().square().sum() for each in self._network.parameters()]
        values = {
            "weight_norm": np.array([float(torch.stack(norms).sum().sqrt())]),
            "step_batch_size": np.array([float(size * self.accumulation * self.ranks.size)]),
        }
        self.keep(values if self._optimizer is None else values | rates_of(self._optimizer))

    def take_down(self, losses: Tensor, index: Tensor, labels: Tensor | None, logits: Tensor | None) -> None:
        """Keep the losses of a minibatch; record an epoch where it has ended."""
        if not self._losses.has_room(len(losses)):
            self._end_epoch()
        self._losses.take_down(losses, index, labels, logits)

    def advance(self, size: int = 0) -> None:
        """Count a backward pass, and an update where it is the last of them; `size` samples came without losses."""
        is_last = (self._passes + 1) % self.accumulation == 0  # all that belongs to this update has been recorded
        if is_last and monotonic() - self._looked > _SECONDS_BETWEEN_LOOKS:
            self._looked = monotonic()
            self._record.commit_if_due(self.step_count, lambda: self._memory)
        self._losses.total += size * self.ranks.size
        self._passes += 1
        if self._passes % self.accumulation == 0:
            self.estimator.forget_parts()
            self.step_count += 1
            self.time += 1.0 if self._optimizer is None else float(self._optimizer.param_groups[0]["lr"])
        if self._losses.is_full:
            self._end_epoch()

    def end_update(self) -> None:
        """Count an update that a loop makes from fewer parts than there are to be, as at the end of an epoch."""
        if self._passes % self.accumulation:
            while self._passes % self.accumulation:
                self.advance()
            self.arm()

    def _end_epoch(self) -> None:
        """Record the losses of an epoch."""
        found, predicted, wrong = self._losses.end_epoch()
        for reason, count in wrong.items():
            self.warn(reason, f"{count} {_WRONG[reason].format(n=self.n_samples)}")
        parts = (None, None) if self.cohort is None else (~self.cohort, self.cohort)
        of_parts = [found, *(found[each] if each is not None else found[:0] for each in parts)]
        means = [float(np.nanmean(each)) if np.isfinite(each).any() else np.nan for each in of_parts]
        self._record.keep("", self._now, {"train_loss": np.array([means])})
        samples = {"sample_loss": found[None]}
        if (predicted != MISSING).any():
            samples["predicted_label"] = np.where(predicted == MISSING, np.nan, predicted).astype(np.float32)[None]
        self._record.keep("samples", self._now, samples)
        if (labels := self._losses.labels) is not None:
            self._record.keep_labels(labels[None])
        self._verdict = None

    @property
    def cohort(self) -> NDArray[np.bool_] | None:
        """Samples that are known to be mislabeled, or look so by the last verdict, shape (sample,); None before."""
        return self._found if self._known is None else self._known

    # What it says.

    def verdict(self) -> Verdict:
        """Return what is going on, from losses and predictions of the epochs that have ended.

        Returns
        -------
        Verdict
            To be printed; its cohort is what order parameters of cohorts are estimated with from then on.
        """
        if self._verdict is None:
            seen = self._losses
            self._verdict = verdict_of(seen.epochs, seen.clock, seen.labels, seen.settling)
            if self._verdict.mislabeled is not None:
                self._found = self._verdict.mislabeled
        return self._verdict

    @property
    def should_stop(self) -> bool:
        """Whether the verdict is that the network has begun to memorise wrong labels."""
        settling = self._losses.settling
        told = settling.settled is not None and settling.settled.is_given_up
        wants_cohorts = bool(self.every) and self._known is None  # to measure their alignments
        if not (settling.is_empty or told or wants_cohorts):
            return False  # as the verdict would say, without looking for cohorts
        return self.verdict().should_stop

    @property
    def trajectory(self) -> xr.DataTree:
        """Everything that has been recorded until now."""
        return self._finished if self._closed else self._record.tree()

    # Going on, and the end.

    @property
    def _memory(self) -> dict[str, Any]:
        return {
            "step_count": self.step_count,
            "time": self.time,
            "passes": self._passes,
            "found": None if self._found is None else torch.as_tensor(self._found),
            "losses": self._losses.memory,
            "estimator": self.estimator.memory,
            "every": self.every,
            "accumulation": self.accumulation,
        }

    def state_dict(self) -> dict[str, Any]:
        """Return what it takes to go on from here, to be saved beside the loop's own checkpoint.

        Returns
        -------
        dict
            Numbers and tensors, for ``torch.save``. Records are in the file's segments, or in it where there is no path.
        """
        memory = self._memory
        return {**memory, "records": self._record.saved(self.step_count, memory)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from where `state_dict` was called; what was recorded later is forgotten, since the loop makes it again.

        Parameters
        ----------
        state : mapping
            Of `state_dict`.

        Raises
        ------
        ConfigurationError
            If it is none of this monitor's.
        """
        missing = {*self._memory, "records"} - set(state if isinstance(state, Mapping) else ())
        if missing:
            raise ConfigurationError(
                f"the state has no {', '.join(sorted(missing))}: expected what state_dict() returned"
            )
        count = state["losses"]["n_samples"]
        if count != self.n_samples:
            raise ConfigurationError(
                f"the state is of {count} samples: expected {self.n_samples}, those of this monitor"
            )
        for name in ("every", "accumulation"):
            if state[name] != getattr(self, name):
                raise ConfigurationError(
                    f"the state is of a monitor with {name}={state[name]}: expected {getattr(self, name)}, as this one has, "
                    "since updates are counted by it; make the monitor as it was made"
                )
        self.step_count, self.time, self._passes = state["step_count"], state["time"], state["passes"]
        self._found = None if state["found"] is None else state["found"].numpy()
        self.estimator.go_on(state["estimator"])
        epochs, predictions, clock = self._record.load(
            state["records"], self.step_count, dict(state) | {"records": None}
        )
        if len(epochs) != state["losses"]["epochs"]:
            where = "this monitor" if self._record.target is None else repr(str(self._record.target))
            raise ConfigurationError(
                f"the state is of a run of {state['losses']['epochs']} epochs, of which {len(epochs)} are recorded in "
                f"{where}: expected the path at which it was recorded, and resume=True, since records lie there; go on at "
                "that path"
            )
        self._losses.go_on(state["losses"], epochs, predictions, clock)
        if (labels := self._losses.labels) is not None and epochs:
            self._record.keep_labels(labels[None])
        self._verdict, self._waits = None, False
        self.end()
        self.arm()

    def close(self) -> xr.DataTree:
        """End the run: finish the file, and take all hooks off.

        Returns
        -------
        xarray.DataTree
            What was recorded, from the file where there is one.
        """
        if not self._closed:
            if self._losses.is_under_way:
                self._end_epoch()
            self._finished = self._record.finish(self.step_count, self._memory)
            self._leave()
        return self._finished

    def _leave(self) -> None:
        self._closed = True
        self.end()
        _watched.pop(self._network, None)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self.close()
        elif not self._closed:
            self._finished = self._record.tree()
            self._record.leave(self.step_count, self._memory)
            self._leave()


def _keep_at_exit(watching: weakref.ref[Monitor]) -> None:
    """Put on the disk what a loop that ends without closing its monitor has recorded."""
    monitor = watching()
    if monitor is not None and not monitor._closed and not monitor._waits:
        monitor._record.leave(monitor.step_count, monitor._memory)


def _logged(name: str, value: Any) -> float:
    """Return a number that is to be recorded; those of a run that has diverged are no errors of the loop."""
    try:
        found = float(value)
    except (TypeError, ValueError):
        found = None
    is_share = name.endswith("error")
    if found is None or (is_share and not (np.isnan(found) or 0 <= found <= 1)):
        expected = "a share of samples, from 0 to 1 and no percentage" if is_share else "a number, in nats"
        raise ConfigurationError(f"{name}={shown(value)}: expected {expected}")
    return found


def _check_watched(network: Any, optimizer: Any) -> None:
    """Raise where there is nothing to watch, or somebody does."""
    if not isinstance(network, nn.Module):
        raise ConfigurationError(f"network is {kind_of(network)}: expected a torch.nn.Module, the one that is trained")
    if not any(each.requires_grad for each in network.parameters()):
        raise ConfigurationError("the network has no parameter that is trained: expected one with requires_grad=True")
    if optimizer is not None and not isinstance(optimizer, torch.optim.Optimizer):
        raise ConfigurationError(f"optimizer is {kind_of(optimizer)}: expected a torch.optim.Optimizer, or none")
    other = _watched.get(network)
    if other is not None and (living := other()) is not None and not living._closed:
        raise ConfigurationError(
            "the network is watched by another monitor: expected one, since each counts every update; close() the other first"
        )
