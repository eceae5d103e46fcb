"""The loop: advance, record what is due, save a state now and then, and keep what there is whatever ends it."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from langevin_nn.engine import advance, advance_together
from langevin_nn.errors import StorageError, UnstableTrajectory
from langevin_nn.observables import Observable, Snapshot
from langevin_nn.observables.base import without_diverged
from langevin_nn.process import State
from langevin_nn.progress import Progress
from langevin_nn.store import Recorder, SegmentFolder, open_trajectory, write_trajectory
from langevin_nn.threads import single_threaded_products

if TYPE_CHECKING:
    from langevin_nn.run.simulation import Simulation

__all__ = ["Run", "advance_to_the_end"]

_BLOCK_SECONDS = 1.0


@dataclass(eq=False)
class Run:
    """The loop's state: where the replicas are, and whether what is due there has been recorded."""

    plan: Simulation
    recorder: Recorder
    state: State
    recorded: bool
    target: Path | None
    folder: SegmentFolder | None
    pace: int = 64  # updates between two questions

    def close(self) -> None:
        """Leave its folder to others."""
        if self.folder is not None:
            self.folder.close()

    def program(self) -> Generator[int, tuple[State, float], xr.DataTree]:
        """Ask for updates, so many at a time, and record in between; keep what there is, whatever ends the run."""
        # Whoever runs this answers with the state afterwards, which may be at an earlier step, and the seconds it took, or
        # throws what came instead.
        plan = self.plan
        try:
            if self.folder is not None and self.folder.manifest.state is None:
                # At once: what cannot be written or saved is found before the work.
                self.recorder.commit(self.state, recorded=False)
            done = self.state.step if self.recorded else self.state.step - 1
            try:
                for number in np.flatnonzero(plan.due.steps > done):
                    yield from self._advance(int(plan.due.steps[number]))
                    self._record([plan.observables[each] for each in np.flatnonzero(plan.due.wanted[:, number])])
            except UnstableTrajectory as error:
                # Whoever goes on from here diverges again: the run has ended, and becomes a file.
                error.trajectory = self._finish(complete=False)
                raise
            except StorageError:
                raise  # a disk that failed once is not tried again
            except BaseException as error:
                self._rescue(error)
                raise
            return self._finish(complete=True)
        finally:
            self.close()

    def _advance(self, step: int) -> Generator[int, tuple[State, float], None]:
        """Go to a step, in blocks of about a second, after which a state can be saved."""
        while self.state.step < step:
            before = self.state.step
            self.state, seconds = yield min(self.pace, step - before)
            self.recorded = self.state.step < step
            if self.state.step - before == self.pace:
                self.pace = max(1, min(2 * self.pace, round(self.pace * _BLOCK_SECONDS / max(seconds, 1e-9))))
            if self.recorded:
                self.recorder.commit_if_due(self.state)

    def _record(self, observables: list[Observable]) -> None:
        """Record what is due here; a loss that is no number ends a run that is not to go on without its replica."""
        self.recorded = False
        # Rates are those of the update that follows; at the end, beyond which a schedule may say nothing, of the last one.
        process, state = self.plan.process.at(min(self.state.step, self.plan.last - 1)), self.state
        snapshot = Snapshot(process, state)
        (time,), (epoch,) = self.plan.process.clock(state.step)
        with single_threaded_products():
            for observable in observables:
                values = observable.measure(snapshot)
                losses = values.get("train_loss")
                if self.plan.on_divergence == "raise" and losses is not None and not np.isfinite(losses[:, 0]).all():
                    replica = state.replicas[int(np.flatnonzero(~np.isfinite(losses[:, 0]))[0])]
                    raise UnstableTrajectory(replica, state.step, process.time_step)
                values = without_diverged(values, state.diverged)
                self.recorder.keep(observable.group, state.step, epoch, time, values)
                if not self.recorder.has_timeless(observable):
                    self.recorder.keep_timeless(observable, observable.timeless(snapshot))
        self.recorded = True
        self.recorder.commit_if_due(state)

    def _rescue(self, error: BaseException) -> None:
        """Keep what there is, whatever ended the run, an interrupt too; where that fails as well, note it on the error."""
        if not self.recorded:
            self.recorder.drop_from(self.state.step)
        if self.folder is None:
            return
        if not (self.recorder.started or self.state.step):
            self.folder.remove()  # nothing but the start
            return
        try:
            self.recorder.commit(self.state, self.recorded)
        except StorageError as second:
            error.add_note(f"and then {second}")

    def _finish(self, complete: bool) -> xr.DataTree:
        """Make the trajectory of what was recorded, and the file where there is a path."""
        if self.target is None or self.folder is None:
            return self.recorder.tree(complete=complete)
        tree = self.recorder.whole(complete=complete)
        try:
            write_trajectory(tree, self.target, overwrite=True)
        except BaseException as error:
            error.add_note(
                f"finished segments are in {str(self.folder.folder)!r}: go on with resume={str(self.target)!r}"
            )
            if isinstance(error, StorageError):
                error.trajectory = self.recorder.tree(complete=False)
            self._rescue(error)
            raise
        finally:
            tree.close()
        self.folder.remove()
        return open_trajectory(self.target)


def advance_to_the_end(runs: Sequence[Run], hidden: bool | None) -> list[xr.DataTree | Exception]:
    """Drive the programs of runs that share a computation; return what each gives or raises."""
    programs = [run.program() for run in runs]
    found: list[Any] = [None] * len(runs)
    wanted: dict[int, int] = {}

    def go_on(k: int, resume: Callable[[], int]) -> None:
        """Let a program run to its next question or its end."""
        wanted.pop(k, None)
        try:
            wanted[k] = resume()
        except StopIteration as end:
            found[k] = end.value
        except Exception as error:
            found[k] = error

    name = runs[0].plan.process.name or "process"
    described = name if len(runs) == 1 else f"{len(runs)} runs of {name}"
    first = min(run.state.step for run in runs)
    try:
        with Progress(
            total=max(run.plan.last for run in runs), initial=first, desc=described, unit="step", disable=hidden
        ) as bar:
            for k, program in enumerate(programs):
                go_on(k, partial(next, program))
            while wanted:
                step = min(runs[k].state.step for k in wanted)
                group = [k for k in wanted if runs[k].state.step == step]
                started = monotonic()
                after = _advanced([runs[k] for k in group], min(wanted[k] for k in group))
                seconds = monotonic() - started
                for k, each in zip(group, after, strict=True):
                    if isinstance(each, Exception):
                        go_on(k, partial(programs[k].throw, each))
                    else:
                        go_on(k, partial(programs[k].send, (each, seconds)))
                bar.update(max(0, min((runs[k].state.step for k in wanted), default=bar.total) - bar.n))
    except BaseException as error:
        # An interrupt: every run keeps what it has.
        for k in wanted:
            with suppress(type(error), StopIteration):
                programs[k].throw(error)
        raise
    finally:
        for program in programs:
            program.close()
    return found


def _advanced(runs: Sequence[Run], count: int) -> list[State | Exception]:
    """Make updates of several runs at once; where that fails, one by one, so that each has its own error."""
    try:
        if len(runs) == 1:
            return [advance(runs[0].plan.process, runs[0].state, count, runs[0].plan.on_divergence)]
        members = [(run.plan.process, run.state) for run in runs]
        return list(advance_together(members, count, [run.plan.on_divergence for run in runs]))
    except Exception as error:
        return [error] if len(runs) == 1 else [each for run in runs for each in _advanced([run], count)]
