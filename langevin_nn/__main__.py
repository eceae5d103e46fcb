"""Look at trajectory files, draw, check, join and export them, and watch what runs in parts.

A file may be finished, still being written, or the remains of a run that was killed: name the file that the run writes.
Each command has a --help of its own.
"""

from __future__ import annotations

import os
import sys
import time
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Literal

import tyro

import langevin_nn  # rooms are loaded by the commands that use them
from langevin_nn.checks import number
from langevin_nn.errors import ConfigurationError, LangevinError
from langevin_nn.provenance import configuration, study_of
from langevin_nn.report import say

__all__ = ["main"]

INVALID, BAD_INPUT, INTERRUPTED = 1, 2, 130


@dataclass(frozen=True)
class Info:
    """Print what was run, with which versions, which phases were found, and a small plot; of a folder, how its parts fare."""

    file: tyro.conf.Positional[Path]
    """The trajectory: a finished file, a running one, or the remains of a killed one; or the folder of a sweep, a comparison
    or a study."""

    def run(self) -> int:
        """Print the report."""
        if self.file.is_dir() and langevin_nn.store.Parts.at(self.file):
            say(langevin_nn.report.watched(self.file)[0])
        else:
            say(langevin_nn.report.report(langevin_nn.open_trajectory(self.file), str(self.file)))
        return 0


@dataclass(frozen=True)
class Plot:
    """Draw it: losses, errors, order parameters and variables of the user's own, replica by replica, and their means."""

    file: tyro.conf.Positional[Path]
    """The trajectory: a finished file, a running one, or the remains of a killed one."""
    out: Annotated[Path | None, tyro.conf.arg(aliases=["-o"])] = None
    """The figure to write (.png, .pdf, .svg); beside the file, as PNG, unless given."""
    variables: tuple[str, ...] = ()
    """What to draw, one a panel; chosen by what there is unless given."""
    clock: Literal["epoch", "time", "step"] | None = None
    """Of the horizontal axis; the first that there is unless given."""
    overwrite: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Replace a figure that is there."""

    def run(self) -> int:
        """Write it."""
        out = self.out or self.file.with_suffix(".png")
        langevin_nn.store.refuse_finished(out, overwrite=self.overwrite)
        langevin_nn.plot(self.file, self.variables or None, clock=self.clock, path=out)
        say(str(out))
        return 0


@dataclass(frozen=True)
class Validate:
    """Say whether files hold what they say, to the last identity and checksum; exit code 1 where one does not."""

    files: tyro.conf.Positional[tuple[Path, ...]]
    """The trajectories."""

    def run(self) -> int:
        """Print what is wrong with each."""
        if not self.files:
            raise ConfigurationError("no file to validate: expected at least one")
        found = 0
        for file in self.files:
            tree = langevin_nn.open_trajectory(file)
            problems, study = langevin_nn.validate(tree), study_of(tree.attrs)
            found += len(problems)
            kind = "" if study is None else f", results of the study {study!r} and no trajectory"
            say(f"{file}: {'not valid' if problems else 'valid'}{kind}")
            for problem in problems:
                say(f"  {problem}")
        return INVALID if found else 0


@dataclass(frozen=True)
class Merge:
    """Join files: their replicas one after the other, or their processes side by side."""

    out: tyro.conf.Positional[Path]
    """The file to write."""
    files: tyro.conf.Positional[tuple[Path, ...]]
    """The trajectories to join, at least two."""
    along: Literal["replica", "process"] = "replica"
    """Replicas (more seeds, or points of a sweep: what their configurations differ in becomes a coordinate), or processes."""
    overwrite: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Replace the file to write where it exists."""

    def run(self) -> int:
        """Write the joined file."""
        langevin_nn.store.refuse_finished(self.out, overwrite=self.overwrite)
        trees = [langevin_nn.open_trajectory(file) for file in self.files]
        if self.along == "replica":
            joined = langevin_nn.merge(trees)
        else:
            configs = [configuration(tree.attrs, str(file)) for tree, file in zip(trees, self.files, strict=True)]
            pairs = zip(configs, self.files, strict=True)
            names = [config.get("process", {}).get("name") or file.stem for config, file in pairs]
            if len(names) < 2 or len(set(names)) < len(names):
                raise ConfigurationError(
                    f"the files hold the processes {', '.join(names)}: expected at least two, each of them once; join "
                    "replicas of one process with --along replica"
                )
            joined = langevin_nn.store.join_processes(dict(zip(names, trees, strict=True)), {"merged": configs})
        langevin_nn.store.write_trajectory(joined, self.out, overwrite=self.overwrite)
        say(f"{self.out}: {' × '.join(f'{size} {name}' for name, size in joined.sizes.items())}")
        return 0


@dataclass(frozen=True)
class Export:
    """Write a table (CSV) of one group, or a Zarr store of all of them."""

    file: tyro.conf.Positional[Path]
    """The trajectory."""
    format: Literal["csv", "zarr"] = "csv"
    """CSV: a row for each replica and record, a column for each variable and label. Zarr needs the extra [zarr]."""
    group: str = ""
    """Of a table: spectrum, samples, weights or one of the user's own; the root, which holds the scalars, unless given."""
    out: Path | None = None
    """Where to write; beside the file unless given."""
    overwrite: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Replace what is there."""

    def run(self) -> int:
        """Write it."""
        name = f"{self.file.stem}{f'-{self.group}' if self.group else ''}.{self.format}"
        out = self.out or self.file.with_name(name)
        langevin_nn.store.export(
            langevin_nn.open_trajectory(self.file), out, self.format, group=self.group, overwrite=self.overwrite
        )
        say(str(out))
        return 0


@dataclass(frozen=True)
class Watch:
    """Say how a run, a sweep, a comparison or a study fares, again and again until it has ended.

    Of a run that a Monitor or simulate writes, from another process or another machine: the verdict, losses and their
    histogram, order parameters. Of work in parts: those done, running and failed, and the time that remains.

    In a terminal a run has a screen of its own where the extra langevin_nn[watch] is installed, which q ends.
    """

    path: tyro.conf.Positional[Path]
    """The file that a run writes; the folder of a sweep, or the output of a comparison or study."""
    html: Path | None = None
    """Write one page of HTML in the place of text, for a browser, which loads it anew while the run goes on."""
    once: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Say it once, rather than until all has ended."""
    plain: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Print text, also where there could be a screen."""
    interval: float = 2.0
    """Seconds between two looks."""

    def run(self) -> int:
        """Print it again and again."""
        number("interval", self.interval, "a positive number of seconds between two looks", above=0)
        in_parts = not (self.path.is_file() or langevin_nn.store.folder_of(self.path).is_dir())
        if self.html is not None and in_parts and self.path.exists():
            raise ConfigurationError(
                f"--html of {str(self.path)!r}, a work in parts: expected the file of one run, whose losses are "
                "drawn; name that"
            )
        if self._has_screen():
            from langevin_nn.monitor.screen import Screen

            screen = Screen(self.path, self.interval)
            screen.run()
            return int(screen.return_code or 0)
        while True:
            if self.html is not None:
                ended = self._write(self.html)
            else:
                text, ended = langevin_nn.report.watched(self.path) if in_parts else langevin_nn.monitor.live(self.path)
                if sys.stdout.isatty() and not self.once:
                    text = f"\x1b[2J\x1b[H{text}"  # on a cleared screen
                say(text)
                sys.stdout.flush()
            if self.once or ended:
                return 0
            time.sleep(self.interval)

    def _has_screen(self) -> bool:
        """Return whether a run is to be shown on a screen; one that is not there yet is waited for."""
        wants_text = self.once or self.plain or self.html is not None
        if wants_text or not (sys.stdout.isatty() and sys.stdin.isatty()):
            return False
        is_folder = self.path.is_dir() and not langevin_nn.store.folder_of(self.path).is_dir()
        is_run = not is_folder and not langevin_nn.store.Parts.at(self.path)
        return is_run and all(find_spec(name) is not None for name in ("textual", "textual_plotext"))

    def _write(self, out: Path) -> bool:
        """Write the page, whole or not at all: a browser may load it at any moment."""
        from langevin_nn.figures.monitored import monitor_page

        page, ended = monitor_page(self.path, self.interval)
        aside = out.with_name(f".{out.name}.part")
        aside.write_text(page, encoding="utf-8")
        aside.replace(out)
        return ended


def main(arguments: list[str] | None = None) -> int:
    """Run the command.

    Parameters
    ----------
    arguments : list of str, optional
        Those of the command line unless given.

    Returns
    -------
    int
        Exit code: 0; 1 where a file is not valid; 2 for bad input.

    Raises
    ------
    RuntimeError
        If something fails that is no damage of a file.
    """
    command = tyro.cli(
        Info | Plot | Validate | Merge | Export | Watch,
        prog="python -m langevin_nn",
        description=__doc__,
        args=arguments,
    )
    try:
        code = command.run()
        sys.stdout.flush()
        return code
    except LangevinError as error:
        print(f"error: {error}", file=sys.stderr)
        return BAD_INPUT
    except BrokenPipeError:
        # The reader of a pipe has seen enough. Python would try once more to write the rest when it ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except RuntimeError as error:
        if "NetCDF" not in str(error):
            raise
        print(
            f"error: a value cannot be read ({error}): the file is damaged; validate names the variables",
            file=sys.stderr,
        )
        return BAD_INPUT
    except KeyboardInterrupt:
        return INTERRUPTED


if __name__ == "__main__":
    raise SystemExit(main())
