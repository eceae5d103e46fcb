"""The monitor as a callback of Lightning's trainer."""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import wraps
from typing import Any

from langevin_nn.checks import kind_of
from langevin_nn.errors import ConfigurationError
from langevin_nn.monitor.plugged import Plugged

try:
    from lightning.pytorch import Callback
except ImportError:
    try:
        from pytorch_lightning import Callback
    except ImportError:  # said where a callback is made, so that whoever walks the package can read this file
        Callback = object

__all__ = ["LightningMonitor"]


class LightningMonitor(Plugged, Callback):
    """A monitor of what a Lightning trainer fits, by automatic optimization in one process.

    `training_step` returns a dict with ``loss``, ``losses`` (sample,), ``index`` (sample,) and, where there are any,
    ``labels`` (sample,) and ``logits`` (sample, class)::

        def training_step(self, batch, batch_idx):
            inputs, labels, index = batch  # of an IndexedDataset
            logits = self(inputs)
            losses = cross_entropy(logits, labels, reduction="none")
            return {"loss": losses.mean(), "losses": losses, "index": index, "labels": labels, "logits": logits.detach()}

        callback = LightningMonitor(len(dataset), "run.nc", log={"val_error": "test_error"})
        Trainer(callbacks=[callback]).fit(module, loader)

    What it takes to go on lies in the trainer's own checkpoints: ``fit(..., ckpt_path=...)`` goes on with the records, too.

    Parameters
    ----------
    n_samples : int
        N, the number of training samples.
    path : path, optional
        File to write the trajectory to. In memory unless said.
    log : mapping of str to str, optional
        Names under which the module logs, with what they are to the monitor: ``{"val_error": "test_error"}``.
    stop : bool, optional
        Whether training ends at the end of the epoch in which the network has begun to memorise wrong labels.
    **options : object
        Further arguments of `Monitor`; the trainer knows the network, the optimizer and the accumulation.

    Attributes
    ----------
    monitor : Monitor or None
        The monitor, from the beginning of a fit on.

    Raises
    ------
    ConfigurationError
        If Lightning is not installed, or an argument is malformed.
    """

    def __init__(
        self,
        n_samples: int,
        path: str | os.PathLike[str] | None = None,
        *,
        log: Mapping[str, str] | None = None,
        stop: bool = False,
        **options: Any,
    ) -> None:
        if Callback is object:
            raise ConfigurationError(
                "Lightning is not installed: expected the package lightning, since its trainer calls this; "
                "pip install 'langevin_nn[lightning]'"
            )
        Plugged.__init__(self, n_samples, path, log, stop, options)
        self._given: dict[str, Any] | None = None  # of a checkpoint, until the fit begins
        self._kept: dict[str, Any] = {}  # where the last fit ended
        self._module: Any = None
        self._own_step: Any = None  # a training_step that lay in the module itself
        self._returned: Mapping[str, Any] | None = None

    # What the trainer calls.

    def on_fit_start(self, trainer: Any, pl_module: Any) -> None:
        """Make the monitor."""
        if trainer.world_size > 1:
            raise ConfigurationError(
                f"the trainer has {trainer.world_size} processes: expected one, since this callback follows one; "
                "use devices=1, or Monitor in a loop of your own"
            )
        if not pl_module.automatic_optimization:
            raise ConfigurationError(
                "the module optimizes by hand: expected automatic optimization, since losses are taken from what "
                "training_step returns before its backward pass; use Monitor.step around manual_backward"
            )
        given, self._given = self._given, None
        optimizer = trainer.optimizers[0] if trainer.optimizers else None
        self._watch(pl_module, optimizer, trainer.accumulate_grad_batches, given)
        self._wrap(pl_module)

    def on_before_backward(self, trainer: Any, pl_module: Any, loss: Any) -> None:
        """Enter the monitor's context with what `training_step` returned."""
        if self.monitor is None or self._returned is None:
            return
        returned, self._returned = self._returned, None
        if trainer.accumulate_grad_batches != self.monitor.accumulation:
            raise ConfigurationError(
                f"accumulate_grad_batches={trainer.accumulate_grad_batches}, and the fit began with "
                f"{self.monitor.accumulation}: expected one number, since updates are counted by it; schedule no accumulation"
            )
        known = {name: returned.get(name) for name in ("labels", "logits")}
        step = self.monitor.step(returned["losses"], returned["index"], **known)
        step.__enter__()
        self._within = step

    def on_after_backward(self, trainer: Any, pl_module: Any) -> None:
        """Leave the context; the trainer clips gradients later."""
        if self._within is not None:
            step, self._within = self._within, None
            step.__exit__(None, None, None)

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Count an update that the last batch of an epoch makes from fewer parts."""
        is_last = trainer.is_last_batch or batch_idx + 1 >= trainer.num_training_batches
        if self.monitor is not None and is_last:
            self.monitor.end_update()

    def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
        """Record what validation has logged."""
        if not trainer.sanity_checking:
            self._take_down(trainer.callback_metrics, "test_")

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        """Record what training has logged, and end it where it should end."""
        self._take_down(trainer.callback_metrics, "train_")
        if self.monitor is None:
            return
        for name in sorted(set(self._log) - set(trainer.callback_metrics)):
            what = f"{name!r} was not logged by the end of an epoch: expected self.log({name!r}, ...) in the module"
            self.monitor.warn("metrics that were not logged", what)
        if self._stop and self.monitor.should_stop:
            trainer.should_stop = True

    def on_fit_end(self, trainer: Any, pl_module: Any) -> None:
        """Close the monitor."""
        if self.monitor is not None and self._is_open:
            # A run in memory may go on from a checkpoint that is saved after the fit; a file is complete.
            self._kept = self.monitor.state_dict() if self._path is None else {}
            self._unwrap()
            self.monitor.close()

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        """Leave the monitor so that the run can be gone on with."""
        if self.monitor is None or not self._is_open:
            return
        kind, trace = type(exception), exception.__traceback__
        if self._within is not None:
            step, self._within = self._within, None
            step.__exit__(kind, exception, trace)
        self._kept = self.monitor.state_dict()  # for checkpoints that other callbacks make of an exception
        self._unwrap()
        self.monitor.__exit__(kind, exception, trace)

    def state_dict(self) -> dict[str, Any]:
        """Return what it takes to go on, which lies in the trainer's checkpoints."""
        return self.monitor.state_dict() if self.monitor is not None and self._is_open else self._kept

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a checkpoint when the fit begins."""
        self._given = state_dict

    # How it learns of the losses.

    def _wrap(self, module: Any) -> None:
        """Listen to what `training_step` returns: no hook of Lightning has it before the backward pass."""
        self._module, self._own_step = module, module.__dict__.get("training_step")
        step = module.training_step

        @wraps(step)
        def listened(*given: Any, **named: Any) -> Any:
            returned = step(*given, **named)
            self._returned = None if returned is None else _checked(returned)  # Lightning skips the step without any
            return returned

        module.training_step = listened

    def _unwrap(self) -> None:
        self._is_open, self._returned = False, None
        if self._own_step is not None:
            self._module.training_step = self._own_step
        elif self._module is not None:
            del self._module.training_step
        self._module = self._own_step = None


def _checked(returned: Any) -> Mapping[str, Any]:
    """Return what `training_step` returned, or raise where the losses of samples are not there."""
    wanted = ("loss", "losses", "index")
    missing = [name for name in wanted if name not in returned] if isinstance(returned, Mapping) else list(wanted)
    if missing:
        came = f"a dict without {', '.join(missing)}" if isinstance(returned, Mapping) else kind_of(returned)
        raise ConfigurationError(
            f"what training_step returned is {came}: expected a dict with loss, losses and index, since samples are told "
            'apart by their losses; return {"loss": losses.mean(), "losses": losses, "index": index}'
        )
    found: Mapping[str, Any] = returned
    return found
