"""The contexts in which a loop makes its backward passes."""

from __future__ import annotations

from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self

from torch import Tensor

if TYPE_CHECKING:
    from langevin_nn.monitor.monitor import Monitor

__all__ = ["Part", "Step"]


class _Pass:
    """The context of one backward pass; an error within is the loop's own, and the pass does not count."""

    def __init__(self, monitor: Monitor) -> None:
        self._monitor = monitor
        self._before: dict[str, Tensor] | None = None  # gradients, where what the pass adds is asked for

    def __enter__(self) -> Self:
        if self._monitor.begin(self):  # type: ignore[arg-type]
            self._prepare()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> Literal[False]:
        probe = self._monitor.end()
        if error is None:
            self._finish(probe)
        self._monitor.arm()
        return False

    def _prepare(self) -> None: ...

    def _finish(self, probe: Any) -> None: ...

    def _keep_part(self, size: int) -> None:
        """Record what a part of a minibatch tells, with the last one."""
        assert self._before is not None
        self._monitor.keep_rates(size)
        values = self._monitor.estimator.of_part(self._before, size)
        if values is not None:
            self._monitor.keep(values)


class Part(_Pass):
    """The context of the backward pass of one part of a minibatch.

    Parameters
    ----------
    monitor : Monitor
        Whose.
    size : int
        Samples in it.
    """

    def __init__(self, monitor: Monitor, size: int) -> None:
        super().__init__(monitor)
        self._size = size

    def _prepare(self) -> None:
        self._before = self._monitor.estimator.before(for_part=True)

    def _finish(self, probe: Any) -> None:
        if self._before is not None:
            self._keep_part(self._size)
        self._monitor.advance(self._size)


class Step(_Pass):
    """The context of one backward pass, with the losses from which it starts.

    Parameters
    ----------
    monitor : Monitor
        Whose.
    losses : Tensor, shape (sample,)
        Of the minibatch.
    index : Tensor of int, shape (sample,)
        Which samples.
    labels : Tensor of int, shape (sample,), optional
        Their given labels.
    logits : Tensor, shape (sample, class), optional
        What the network said of them.
    """

    def __init__(
        self, monitor: Monitor, losses: Tensor, index: Tensor, labels: Tensor | None, logits: Tensor | None
    ) -> None:
        super().__init__(monitor)
        self._losses, self._index, self._labels, self._logits = losses, index, labels, logits
        self._factors: Tensor | None = None
        self._handle: Any = None

    def _prepare(self) -> None:
        by_parts = self._monitor.estimator.is_by_parts
        if self._monitor.probe is not None or by_parts:
            self._before = self._monitor.estimator.before(for_part=by_parts)
        if self._monitor.probe is not None:
            self._handle = self._losses.register_hook(self._keep)  # type: ignore[no-untyped-call]

    def _keep(self, factors: Tensor) -> None:
        self._factors = factors.detach() if self._factors is None else self._factors + factors.detach()

    def _finish(self, probe: Any) -> None:
        monitor, size = self._monitor, len(self._losses)
        if self._handle is not None:
            self._handle.remove()
        if probe is not None and self._before is not None:
            monitor.keep_rates(size)
            self._measure(probe)
        elif self._before is not None:
            self._keep_part(size)
        monitor.take_down(self._losses, self._index, self._labels, self._logits)
        monitor.advance()

    def _measure(self, probe: Any) -> None:
        monitor, found = self._monitor, None
        if self._factors is None:
            what = (
                "a step made no backward pass from its losses: expected loss.backward() within its context, so nothing is "
                "estimated there"
            )
            monitor.warn("steps without a backward pass", what)
        else:
            assert self._before is not None
            found = monitor.estimator.of_samples(
                probe, self._factors, self._index, self._before, monitor.step_count, monitor.cohort
            )
        root, of_layers = (monitor.ranks.pooled(each) for each in (found or (None, None)))
        if root is not None:
            monitor.keep(root, of_layers)
