"""A run on the screen of a terminal, looked at again and again while it goes on."""

from __future__ import annotations

import os
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from langevin_nn.errors import ConfigurationError, LangevinError
from langevin_nn.monitor.words import averages_of, counted, of_trajectory, spread, state_of_file, whereabouts
from langevin_nn.store import open_trajectory

try:
    from rich.text import Text
    from textual.app import App
    from textual.containers import Grid, Vertical
    from textual.widgets import Footer, Static
    from textual_plotext import PlotextPlot
except ImportError:  # said where a screen is made, so that whoever walks the package can read this file
    App = object

__all__ = ["Screen"]

Colour = tuple[int, int, int]
_CORRECT, _WRONG, _NEUTRAL = (86, 180, 233), (230, 110, 30), (190, 190, 190)
_LOW, _WIDE = 20, 120  # rows below which two plots are left out, and columns from which headings say more
_MARKERS = {"line": "braille", "points": "dot", "bars": "hd"}
_PLOTS = ("losses", "histogram", "activities", "scale")


@dataclass
class _Panel:
    """What one plot shows: its name, what is said where there is room, a legend, and (kind, x, y, colour) of each mark."""

    name: str
    more: str
    unit: str = "epoch"
    is_log: bool = False
    legend: dict[str, Colour] = field(default_factory=dict)
    marks: list[tuple[str, Any, Any, Colour]] = field(default_factory=list)

    def heading(self, width: int) -> Text:
        """Return its name and legend."""
        text = Text(self.name if self.marks else f"{self.name}: not told yet", no_wrap=True)
        for name, colour in self.legend.items():
            text.append(" ━ ", "rgb({},{},{})".format(*colour)).append(name)
        return text.append(self.more if self.marks and width >= _WIDE else "", "dim")

    def draw(self, plot: Any) -> None:
        """Draw it anew, with three ticks at either axis."""
        plot.clear_figure()
        plot.xaxes(bool(self.marks), False)
        plot.yaxes(bool(self.marks), False)
        # The ticks of plotext's own logarithmic axes are no numbers that one reads.
        marks = [(kind, x, np.log10(y) if self.is_log else y, colour) for kind, x, y, colour in self.marks]
        for kind, x, y, colour in marks:
            draw = plot.plot if kind == "line" else plot.scatter
            draw(x.tolist(), y.tolist(), marker=_MARKERS[kind], color=colour, fillx=kind == "bars")
        if marks:
            x, y = (np.concatenate([mark[axis] for mark in marks]) for axis in (1, 2))
            lowest = y.min() if self.is_log else min(0.0, y.min())
            across, up = _ticks(x.min(), x.max()), _ticks(lowest, y.max())
            plot.xlim(*_limits(across))
            plot.ylim(*_limits(up))
            plot.xticks(across, [*(f"{each:.3g}" for each in across[:-1]), f"{self.unit} {across[-1]:.3g}"])
            plot.yticks(up, [f"{10**each if self.is_log else each:.3g}" for each in up])


@dataclass(frozen=True)
class _Look:
    """What one look at the file has found; without panels where there was nothing to draw."""

    state: str
    said: str = ""
    phase: str = ""
    is_complete: bool = False
    panels: tuple[_Panel, ...] = ()


class Screen(App):
    """A run on the screen of a terminal: state, verdict, losses, their histogram, order parameters, the noise scale.

    The file is looked at in a thread of its own, also while another process writes it. Key r looks at once, q quits.

    Parameters
    ----------
    file : path
        That the run writes, will write, or has written.
    interval : float, optional
        Seconds between two looks.

    Raises
    ------
    ConfigurationError
        If Textual is not installed.
    """

    ENABLE_COMMAND_PALETTE = False
    BINDINGS = (("q", "quit", "Quit"), ("r", "look", "Look now"))
    CSS = """
    #state { height: 1; text-style: bold; }
    #said { height: auto; max-height: 40%; padding-left: 1; border-left: thick $surface-lighten-2; }
    #said.memorising { color: #ff6b5e; border-left: thick #ff6b5e; }
    #said.learning { color: #5fd787; border-left: thick #5fd787; }
    Grid { grid-size: 2; grid-gutter: 0 2; background: $surface; }
    Grid Static { height: 1; }
    """

    def __init__(self, file: str | os.PathLike[str], interval: float = 2.0) -> None:
        if App is object:
            raise ConfigurationError(
                "Textual is not installed: expected the packages textual and textual-plotext, which draw the screen; "
                "pip install 'langevin_nn[watch]'"
            )
        super().__init__()
        self._file, self._interval = Path(file), interval
        self.title = self._file.name
        self._seen = _Look(f"{self._file.name}: looked for")
        self._worker: Any = None

    def compose(self) -> Any:
        """Yield what is on the screen."""
        yield Static(id="state", markup=False)
        yield Static(id="said", markup=False)
        with Grid():
            for name in _PLOTS:
                with Vertical(id=name):
                    yield Static(markup=False)
                    yield PlotextPlot()
        yield Footer()

    def on_mount(self) -> None:
        """Begin to look."""
        self.set_interval(self._interval, self._look_again)
        self.action_look()

    def on_resize(self) -> None:
        """Draw what was seen at the new size, which is known when all have heard of it."""
        self.call_later(self._show)

    def action_look(self) -> None:
        """Look at the file, unless a look still goes on: a slow disk shall not gather them."""
        if self._worker is None or self._worker.is_finished:
            self._worker = self.run_worker(lambda: _look(self._file), thread=True, exclusive=True)

    def _look_again(self) -> None:
        """Look, unless nothing more will come."""
        if not self._seen.is_complete:
            self.action_look()

    def on_worker_state_changed(self, event: Any) -> None:
        """Show what a look has found."""
        found = event.worker.result
        if event.worker is self._worker and isinstance(found, _Look):
            # A file that cannot be read for a moment is no reason to take down what was seen.
            keeps = self._seen.panels and not found.panels
            self._seen = replace(self._seen, state=found.state) if keeps else found
            self._show()

    def _show(self) -> None:
        """Put on the screen what was seen."""
        seen, said = self._seen, self.query_one("#said")
        self.query_one("#state").update(Text(seen.state, no_wrap=True, overflow="ellipsis"))
        said.update(seen.said)
        said.display = bool(seen.said)
        said.set_classes(seen.phase if seen.phase in ("memorising", "learning") else "")
        for number, name in enumerate(_PLOTS):
            place = self.query_one(f"#{name}")
            place.display = bool(seen.panels) and (number < 2 or self.size.height >= _LOW)
            if seen.panels:
                place.query_one(Static).update(seen.panels[number].heading(self.size.width))
                seen.panels[number].draw(place.query_one(PlotextPlot).plt)
                place.query_one(PlotextPlot).refresh()


def _look(file: Path) -> _Look:
    """Return what is in a file, or why nothing is."""
    try:
        with open_trajectory(file) as trajectory:
            root = trajectory.to_dataset().isel(replica=0, missing_dims="ignore")
            state, ended = state_of_file(file, trajectory)
            if not (where := whereabouts(root)):
                what = "that could be shown." if ended else "yet. It is looked for again."
                return _Look(f"{file.name}: {state}", f"Nothing is recorded {what}")
            verdict = of_trajectory(trajectory)
            said = f"No losses of samples are recorded{'' if ended else ' yet'}." if verdict is None else str(verdict)
            samples = (
                None if verdict is None else trajectory["samples"].to_dataset().isel(replica=0, missing_dims="ignore")
            )
            panels = (
                *_of_losses(root, samples, None if verdict is None else verdict.mislabeled),
                *_of_averages(averages_of(trajectory)),
            )
            phase = "" if verdict is None else verdict.phase
            return _Look(f"{file.name}: {where}, {state}", said, phase, state == "complete", panels)
    except (LangevinError, OSError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and "NetCDF" not in str(error):
            raise
        return _Look(f"{file.name}: cannot be read now, looked for again", f"There is nothing to show yet: {error}.")


def _of_losses(root: xr.Dataset, samples: xr.Dataset | None, wrong: Any) -> tuple[_Panel, _Panel]:
    """Return losses by epoch, and a histogram of those of the last one."""
    losses = _Panel("loss", " (80 % between faint lines)")
    histogram = _Panel("samples by loss, last epoch", "", "nat")
    for name, colour in (("train_loss", _CORRECT), ("test_loss", _NEUTRAL)):
        if name in root and "epoch" in root.coords and (name == "test_loss" or samples is None):
            curve = (root[name].sel(cohort="all") if "cohort" in root[name].dims else root[name]).dropna("step")
            if curve.size:
                losses.marks.append(("line", curve.epoch.values, curve.values, colour))
                losses.legend[name.removesuffix("_loss")] = colour
    if samples is not None and samples.sizes["sample_step"]:
        for name, (epochs, low, middle, high) in spread(samples, wrong).items():
            colour = _WRONG if name == "look mislabeled" else _CORRECT
            losses.marks[:0] = [("line", epochs, each, _faint(colour)) for each in (low, high)]  # below all else
            losses.marks.append(("line" if len(epochs) > 2 else "points", epochs, middle, colour))
            losses.legend["mislabeled" if colour == _WRONG else name] = colour
        last = samples.sample_loss.values[-1]
        if np.isfinite(last).any():
            edges, (right, other) = counted(last, wrong)
            x = np.linspace(edges[0], edges[-1], 32 * len(right) + 1)[:-1]
            bins = np.arange(len(x)) // 32
            # A cell of the screen has one colour: where few lie below many, that of the many.
            for counts, colour in ((right + other, _WRONG), (np.where(right < other / 4, 0, right), _CORRECT)):
                there = counts[bins] > 0
                if there.any():
                    histogram.marks.append(("bars", x[there], counts[bins][there], colour))
    return losses, histogram


def _of_averages(averages: xr.Dataset | None) -> tuple[_Panel, _Panel]:
    """Return A₀ and D, and the gradient noise scale beside the batch size, with two standard errors either way."""
    both = _Panel("order parameters", " (nat² / weight², averages over passes)", is_log=True)
    scale = _Panel("gradient noise scale", " (samples, averages over passes)", is_log=True)
    if averages is None:
        return both, scale
    for panel, name, symbol, colour in (
        (both, "directed_activity", "A₀", _CORRECT),
        (both, "noise_strength", "D", _WRONG),
        (scale, "gradient_noise_scale", "", _CORRECT),
    ):
        values = averages[name].where(averages[name] > 0).dropna("step")
        if not values.size:
            continue
        errors = 2 * averages[f"{name}_standard_error"].sel(step=values.step).fillna(0).values
        epochs = np.broadcast_to(values.epoch.values, values.shape)  # a single average has a single epoch
        for epoch, value, error in zip(epochs, values.values, errors, strict=True):
            ends = np.array([max(value - error, value / 2), value + error])  # what reaches 0 has no end on this scale
            panel.marks.insert(0, ("line", np.array([epoch, epoch]), ends, _faint(colour)))
        panel.marks.append(("points", epochs, values.values, colour))
        panel.legend |= {symbol: colour} if symbol else {}
    if scale.marks:
        sizes = averages.step_batch_size.values
        scale.marks.append(("line", np.broadcast_to(averages.epoch.values, sizes.shape), sizes, _NEUTRAL))
        scale.legend[f"batch size {sizes[-1]:g}"] = _NEUTRAL
    return both, scale


def _ticks(low: float, high: float) -> list[float]:
    """Return three places of an axis, or the one that there is."""
    return [float(low), float(low + high) / 2, float(high)] if high > low else [float(low)]


def _limits(ticks: list[float]) -> tuple[float, float]:
    """Return where an axis begins and ends."""
    return (ticks[0], ticks[-1]) if len(ticks) > 1 else (ticks[0] - 1, ticks[0] + 1)


def _faint(colour: Colour) -> Colour:
    return (colour[0] // 2, colour[1] // 2, colour[2] // 2)
