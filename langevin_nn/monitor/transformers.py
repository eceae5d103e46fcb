"""The monitor as a callback and a loss of Hugging Face's trainer."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, pad

from langevin_nn.checks import kind_of, truth
from langevin_nn.errors import ConfigurationError
from langevin_nn.monitor.plugged import Plugged

try:
    from transformers import TrainerCallback
except ImportError:  # said where a callback is made, so that whoever walks the package can read this file
    TrainerCallback = object

__all__ = ["IndexedCollator", "TransformersMonitor"]

_IGNORED = -100  # the label of what has no part in the loss
# An index travels in the upper half of each label that counts. In a column of its own the trainer would count it among the
# items of the batch, by which it divides the loss; this way it counts, shifts and gathers labels as it does without.
_BITS = 32
_FILE = "monitor.pt"


class IndexedCollator:
    """A data collator that sends with the labels which samples they are of, to `TransformersMonitor.loss`.

    Parameters
    ----------
    collator : callable
        The trainer's: it makes a batch with ``labels`` of a list of samples, one row a sample.

    Raises
    ------
    ConfigurationError
        If it cannot be called.

    Examples
    --------
    >>> collator = IndexedCollator(lambda features: {"labels": torch.tensor([each["label"] for each in features])})
    >>> labels = collator([{"label": 1, "index": 7}, {"label": 0, "index": 2}])["labels"]
    >>> labels % 2**32, labels // 2**32 - 1
    (tensor([1, 0]), tensor([7, 2]))
    """

    def __init__(self, collator: Callable[[list[Any]], Any]) -> None:
        if not callable(collator):
            raise ConfigurationError(
                f"collator is {kind_of(collator)}: expected a callable that makes a batch of samples, since it is called for "
                "each; give it the trainer's data_collator"
            )
        self.collator = collator

    def __call__(self, features: Sequence[Any]) -> Any:
        """Return a batch; samples without an index, as those of evaluation, come as they would without this.

        Parameters
        ----------
        features : sequence of mapping
            Samples, with the key ``index`` of an `IndexedDataset`.

        Returns
        -------
        mapping
            The collator's own, without the index but within ``labels``.

        Raises
        ------
        ConfigurationError
            If there are no labels, or not a row for each sample.
        """
        if not all(isinstance(each, Mapping) and "index" in each for each in features):
            return self.collator(list(features))
        index = torch.tensor([int(each["index"]) for each in features])
        batch = self.collator([{name: each[name] for name in each if name != "index"} for each in features])
        labels = batch.get("labels")
        if not isinstance(labels, Tensor) or labels.is_floating_point() or len(labels) != len(features):
            came = f"{labels.dtype} {tuple(labels.shape)}" if isinstance(labels, Tensor) else kind_of(labels)
            raise ConfigurationError(
                f"the labels of a batch are {came}: expected whole numbers, a row for each of its {len(features)} samples, "
                "since the index of each travels with them; use a collator that makes labels and packs no samples together"
            )
        batch["labels"] = _packed(labels.long(), index)
        return batch


class TransformersMonitor(Plugged, TrainerCallback):
    """A monitor of what Hugging Face's `Trainer` trains in one process: classifiers of sequences or tokens, language models.

    It is both a callback and, by `loss`, what the trainer differentiates: the cross-entropy that its models have by default::

        watcher = TransformersMonitor(len(dataset), "run.nc")
        trainer = Trainer(
            model,
            TrainingArguments(..., remove_unused_columns=False),
            train_dataset=IndexedDataset(dataset),
            data_collator=IndexedCollator(default_data_collator),
            compute_loss_func=watcher.loss,
            callbacks=[watcher],
        )
        with watcher:  # leaves records on the disk where training fails
            trainer.train()

    The loss of a sequence is the mean over its tokens that count. What it takes to go on lies as ``monitor.pt`` in the
    trainer's checkpoints.

    Parameters
    ----------
    n_samples : int
        N, the number of training samples.
    path : path, optional
        File to write the trajectory to. In memory unless said.
    shift : bool, optional
        Whether labels are those of the next token; as the model has it unless said: causal language models shift.
    checkpoint : path, optional
        Folder that training resumes from, where it is not the trainer's own ``checkpoint-<step>``.
    log : mapping of str to str, optional
        Names of the trainer's metrics, with what they are to the monitor: ``{"eval_loss": "test_loss"}``.
    stop : bool, optional
        Whether training ends at the end of the epoch in which the network has begun to memorise wrong labels.
    **options : object
        Further arguments of `Monitor`; the trainer knows the network, the optimizer and the accumulation.

    Attributes
    ----------
    monitor : Monitor or None
        The monitor, from the beginning of training on.

    Raises
    ------
    ConfigurationError
        If transformers is not installed, or an argument is malformed.
    """

    def __init__(
        self,
        n_samples: int,
        path: str | os.PathLike[str] | None = None,
        *,
        shift: bool | None = None,
        checkpoint: str | os.PathLike[str] | None = None,
        log: Mapping[str, str] | None = None,
        stop: bool = False,
        **options: Any,
    ) -> None:
        if TrainerCallback is object:
            raise ConfigurationError(
                "transformers is not installed: expected the package transformers, since its trainer calls this; "
                "pip install 'langevin_nn[models]'"
            )
        Plugged.__init__(self, n_samples, path, log, stop, options)
        self._shift = shift if shift is None else truth("shift", shift, "whether labels are those of the next token")
        self._checkpoint = checkpoint
        self._network: Any = None
        self._shifts = bool(shift)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._within is not None:
            step, self._within = self._within, None
            step.__exit__(kind, error, trace)
        if self.monitor is not None:
            self._is_open = False
            self.monitor.__exit__(kind, error, trace)

    def loss(self, outputs: Any, labels: Tensor | None, num_items_in_batch: Tensor | int | None = None) -> Tensor:
        """Return what the trainer differentiates, its ``compute_loss_func``, and begin to record the pass.

        Parameters
        ----------
        outputs : mapping or tuple
            Of the model, with logits (sample, class) or (sample, token, class).
        labels : Tensor of int, shape (sample,) or (sample, token)
            Of `IndexedCollator` in training; -100 has no part.
        num_items_in_batch : Tensor or int, optional
            Labels in all parts of the minibatch, by which the sum over this one is divided.

        Returns
        -------
        Tensor
            The sum of cross-entropies divided by `num_items_in_batch`, or their mean: over all parts of a minibatch their
            mean, also for those models whose own loss forgets `num_items_in_batch`, so that the trainer adds the means of
            parts up.

        Raises
        ------
        ConfigurationError
            If there are no labels in training, or none that tell their samples.
        """
        is_training = torch.is_grad_enabled() and (self._network is None or self._network.training)
        if labels is None:
            found = outputs.get("loss") if isinstance(outputs, Mapping) else None
            if is_training or found is None:
                raise ConfigurationError(
                    "the batch has no labels: expected those of each sample, since the loss is computed from them; use a "
                    "collator that makes labels"
                )
            return found  # type: ignore[no-any-return]
        logits = outputs["logits"] if isinstance(outputs, Mapping) else outputs[0]
        labels, index = _unpacked(labels.to(logits.device))
        losses, counts = _of_samples(logits, labels, self._shifts)
        if is_training and index is not None and bool((index < 0).any()):
            # Nothing of such a sample is learned, and nothing tells which it is.
            told = index >= 0
            losses, counts, index, labels = losses[told], counts[told], index[told], labels[told]
            logits = logits[told]
        divisor = counts.sum() if num_items_in_batch is None else num_items_in_batch
        divisor = divisor.to(losses.device) if isinstance(divisor, Tensor) else divisor
        total = (losses * counts).sum() / divisor
        if is_training:
            self._begin(losses, index, *((labels.reshape(-1), logits) if logits.ndim == 2 else (None, None)))
        return total

    def _begin(self, losses: Tensor, index: Tensor | None, labels: Tensor | None, logits: Tensor | None) -> None:
        """Enter the monitor's context, which the coming backward pass leaves."""
        if self.monitor is None:
            raise ConfigurationError(
                "the monitor has not begun: expected callbacks=[watcher] besides compute_loss_func=watcher.loss, since the "
                "trainer says there what it trains"
            )
        if index is None:
            raise ConfigurationError(
                "labels do not tell their samples: expected those of IndexedCollator over an IndexedDataset, since the loss "
                "of each sample is followed over epochs; wrap data_collator and train_dataset in them"
            )
        self._leave()  # a pass that was never made
        if not len(losses):
            return
        step = self.monitor.step(losses, index, labels=labels, logits=logits)
        step.__enter__()
        self._within = step

        def leave_at_the_end(_: Tensor) -> None:
            # The trainer clips gradients before any callback hears of the pass, while the monitor compares what the pass has
            # added to them with what samples add up to: it has to see them as they are when the pass ends. Hooks on
            # parameters cannot tell which of them is the last; the engine can, and DistributedDataParallel ends its own
            # passes by the same call. If none came, `on_substep_end` and `on_pre_optimizer_step` leave instead.
            torch.autograd.Variable._execution_engine.queue_callback(self._leave)

        losses.register_hook(leave_at_the_end)  # type: ignore[no-untyped-call]

    def _leave(self) -> None:
        if self._within is not None:
            step, self._within = self._within, None
            step.__exit__(None, None, None)

    # What the trainer calls.

    def on_train_begin(self, args: Any, state: Any, control: Any, **named: Any) -> None:
        """Make the monitor, and go on with that of a checkpoint."""
        _check_arguments(args)
        self._network, optimizer = named["model"], named.get("optimizer")
        self._shifts = _shifts_labels(self._network) if self._shift is None else self._shift
        folder = self._folder(args, state) if state.global_step else None
        saved = None if folder is None else torch.load(folder / _FILE, weights_only=True)
        inner = getattr(optimizer, "optimizer", optimizer)  # within accelerate's
        self._watch(self._network, inner, args.gradient_accumulation_steps, saved)

    def on_substep_end(self, args: Any, state: Any, control: Any, **named: Any) -> None:
        """Leave a context that no backward pass has left."""
        self._leave()

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **named: Any) -> None:
        """Leave a context that no backward pass has left."""
        self._leave()

    def on_optimizer_step(self, args: Any, state: Any, control: Any, **named: Any) -> None:
        """Count an update that the end of an epoch makes from fewer parts."""
        if self.monitor is not None:
            self.monitor.end_update()

    def on_epoch_end(self, args: Any, state: Any, control: Any, **named: Any) -> None:
        """End training where it should end."""
        if self._stop and self.monitor is not None and self.monitor.should_stop:
            control.should_training_stop = True

    def on_evaluate(self, args: Any, state: Any, control: Any, **named: Any) -> None:
        """Record what evaluation has found."""
        self._take_down(named.get("metrics") or {})

    def on_save(self, args: Any, state: Any, control: Any, **named: Any) -> None:
        """Put what it takes to go on into the trainer's checkpoint."""
        if self.monitor is None:
            return
        folder = Path(args.output_dir) / f"checkpoint-{state.global_step}"
        if folder.is_dir():
            torch.save(self.monitor.state_dict(), folder / _FILE)
        else:
            what = f"{str(folder)!r} is not there: expected the trainer's checkpoint, beside which the monitor's lies"
            self.monitor.warn("checkpoints that were not found", what)

    def on_train_end(self, args: Any, state: Any, control: Any, **named: Any) -> None:
        """Close the monitor."""
        if self.monitor is not None:
            self._leave()
            self._is_open = False
            self.monitor.close()

    def _folder(self, args: Any, state: Any) -> Path:
        """Return the checkpoint from which training resumes; the trainer tells callbacks its step, and not its path."""
        given = self._checkpoint
        folder = Path(args.output_dir) / f"checkpoint-{state.global_step}" if given is None else Path(given)
        if not (folder / _FILE).is_file():
            raise ConfigurationError(
                f"training resumes at step {state.global_step}, and {str(folder / _FILE)!r} is not there: expected what the "
                "monitor saved with that checkpoint; make the monitor with checkpoint= the folder that training resumes from"
            )
        return folder


def _check_arguments(args: Any) -> None:
    """Raise where the trainer would do what cannot be followed."""
    if args.world_size > 1:
        raise ConfigurationError(
            f"the trainer has {args.world_size} processes: expected one, since this callback follows one; start it without "
            "a launcher, or use Monitor in a loop of your own"
        )
    if args.remove_unused_columns:
        raise ConfigurationError(
            "remove_unused_columns=True: expected False, since the trainer would remove the index of each sample before it "
            "reaches IndexedCollator; say TrainingArguments(remove_unused_columns=False)"
        )
    if args.label_smoothing_factor:
        raise ConfigurationError(
            f"label_smoothing_factor={args.label_smoothing_factor}: expected 0, since the trainer does not smooth labels "
            "where compute_loss_func is given; leave it out"
        )


def _shifts_labels(network: Any) -> bool:
    """Return whether the model's own loss shifts labels."""
    from transformers.loss.loss_utils import LOSS_MAPPING, ForCausalLMLoss
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    inner = network.get_base_model() if hasattr(network, "get_base_model") else network  # within peft's
    own = LOSS_MAPPING.get(getattr(inner, "loss_type", None))
    # Older classes, as GPT2LMHeadModel, are known as such by the table alone.
    causal = own is ForCausalLMLoss or type(inner).__name__ in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.values()
    return causal and not getattr(getattr(inner, "config", None), "is_encoder_decoder", False)


def _packed(labels: Tensor, index: Tensor) -> Tensor:
    """Return labels with the index of their samples, shape (sample,) or (sample, token)."""
    upper = (index + 1).reshape(-1, *(1,) * (labels.ndim - 1)) << _BITS
    return torch.where(labels == _IGNORED, labels, labels + upper)


def _unpacked(labels: Tensor) -> tuple[Tensor, Tensor | None]:
    """Return labels, and the index of each sample: None where none was packed, -1 where no label of a sample counts."""
    if labels.is_floating_point() or labels.ndim == 0 or not bool((labels >= 2**_BITS).any()):
        return labels, None
    upper = labels >> _BITS
    index = (upper if labels.ndim == 1 else upper.flatten(1).amax(1)).clamp(min=0) - 1
    return torch.where(labels == _IGNORED, labels, labels & (2**_BITS - 1)), index


def _of_samples(logits: Tensor, labels: Tensor, shifts: bool) -> tuple[Tensor, Tensor]:
    """Return the mean cross-entropy of each sample over its labels that count, and how many these are."""
    of_sequences = logits.ndim == 2 and logits.shape[1] > 1 and labels.numel() == len(logits)
    of_tokens = logits.ndim == 3 and labels.shape == logits.shape[:2]
    if labels.is_floating_point() or not (of_sequences or of_tokens):
        raise ConfigurationError(
            f"logits are {tuple(logits.shape)} and labels {labels.dtype} {tuple(labels.shape)}: expected (sample, class) "
            "with one class a sample, or (sample, token, class) with one a token, since losses are cross-entropies; use "
            "Monitor in a loop of your own for others"
        )
    if of_sequences:
        flat = labels.reshape(-1)
        return cross_entropy(logits, flat, reduction="none"), flat.ne(_IGNORED).long()
    if shifts:
        labels = pad(labels, (0, 1), value=_IGNORED)[..., 1:]
    # In single precision, as models of transformers have it.
    tokens = cross_entropy(logits.float().flatten(0, 1), labels.flatten(), reduction="none").reshape(labels.shape)
    counts = labels.ne(_IGNORED).sum(1)
    return tokens.sum(1) / counts.clamp(min=1), counts
