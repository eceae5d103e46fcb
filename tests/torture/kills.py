"""Chains of kills: a run is killed, looked at and resumed until it ends, and must end as if nothing had happened."""

from __future__ import annotations

import multiprocessing
import os
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import netCDF4
import numpy as np
import xarray as xr

from langevin_nn import open_trajectory
from langevin_nn.errors import LangevinError
from langevin_nn.schema import clock_of_group
from langevin_nn.store.segments import folder_of

from . import worker
from .page import ACTIONS, KINDS, Page

_PATIENCE = 120.0  # seconds for a run that nobody kills
ROOT = Path(__file__).parents[2]

# How long what is aimed at takes, in seconds: kills come at a random moment of it.
DURATIONS = {
    "block of steps": 4e-3,
    "measurement": 1e-3,
    "segment": 4e-4,
    "state": 3e-4,
    "manifest": 3e-4,
    "merging segments": 0.15,
    "final file": 0.1,
    "cleaning": 1e-4,
    "removing": 1e-3,
    "anywhere": 0.5,
}


class Caught(AssertionError):
    """Something is not as it was, after a kill."""


# --- Workers ----------------------------------------------------------------------------------------------------------


def workers() -> Any:
    """Return the maker of processes, which forks them from one that has imported everything and computed nothing."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([worker.__name__])
    return context


@contextmanager
def _paths_for_children() -> Iterator[None]:
    """The server of forks does not inherit sys.path, but the environment."""
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join([str(ROOT), str(ROOT / "tests"), *([before] if before else [])])
    try:
        yield
    finally:
        if before is None:
            del os.environ["PYTHONPATH"]
        else:
            os.environ["PYTHONPATH"] = before


def started(function: Any, *arguments: Any) -> Any:
    """Start a function of `worker` in a process of its own."""
    with _paths_for_children():
        process = workers().Process(target=function, args=arguments)
        process.start()
    return process


def finish(process: Any, page: Path, patience: float = _PATIENCE) -> int:
    """Wait for the end of a process; return its exit code."""
    process.join(patience)
    if process.exitcode is None:
        process.kill()
        process.join()
        raise Caught(f"a worker did not end within {patience:g} s; it was {' '.join(Page(page).doing)}")
    error = page.with_suffix(".error")
    if process.exitcode > 0 and error.exists():
        raise Caught(f"a worker failed: {error.read_text()}")
    return int(process.exitcode)


# --- What must be the same --------------------------------------------------------------------------------------------


def _bits(values: Any) -> Any:
    array = np.asarray(values)
    return array.tobytes() if array.dtype.kind in "fiub" else array.tolist()


def check_prefix(tree: xr.DataTree, reference: xr.DataTree, until: int) -> int:
    """Raise unless a tree holds the bits of a reference up to a step and nothing after it; return the steps it holds."""
    records = 0
    for path in reference.groups:
        clock = clock_of_group(path.strip("/"))
        expected = reference[path].to_dataset(inherit=False)
        expected = expected.isel({clock: expected[clock].values <= until})
        if path not in tree.groups or clock not in tree[path].dims:
            if expected.sizes[clock]:
                raise Caught(f"{path} has no records: expected {expected.sizes[clock]} up to step {until}")
            continue
        found = tree[path].to_dataset(inherit=False)
        if found[clock].values.tolist() != expected[clock].values.tolist():
            raise Caught(
                f"{path} has steps {found[clock].values.tolist()[-5:]}: expected {expected[clock].values.tolist()[-5:]}"
            )
        records += expected.sizes[clock]
        for name, variable in expected.variables.items():
            if name not in found.variables:  # on a coarser schedule, none of it yet
                if not np.isnan(variable.values.astype(float)).all():
                    raise Caught(f"{path}{name} is missing")
                continue
            # A whole number whose gaps are still to come is of another type than it will be.
            kept = found.variables[name].values
            if kept.dtype != variable.dtype and kept.dtype.kind in "iub":
                kept = kept.astype(variable.dtype)
            if kept.dtype != variable.dtype or _bits(kept) != _bits(variable.values):
                raise Caught(f"{path}{name} has other bits than the uninterrupted run up to step {until}")
        if unknown := set(found.variables) - set(expected.variables):
            raise Caught(f"{path} has {unknown}, which the uninterrupted run has not")
    return records


def _structure(group: Any) -> dict[str, Any]:
    """Return how a file is built: dimensions, types, chunks, filters, and attributes in their order."""
    found = {f"dimension {name}": len(each) for name, each in group.dimensions.items()}
    found |= {f"attribute {name}": group.getncattr(name) for name in group.ncattrs() if name != "created_at"}
    for name, each in group.variables.items():
        attributes = {key: each.getncattr(key) for key in each.ncattrs()}
        found[f"variable {name}"] = each.dtype, each.dimensions, each.chunking(), each.filters(), attributes
    for name, each in group.groups.items():
        found |= {f"{name}/{key}": value for key, value in _structure(each).items()}
    return found


def check_same_file(path: Path, reference: Path) -> None:
    """Raise unless two files have the same variables, types, chunks, filters, attributes and bits."""
    with netCDF4.Dataset(path) as one, netCDF4.Dataset(reference) as other:
        found, expected = _structure(one), _structure(other)
        different = [name for name in {**expected, **found} if str(found.get(name)) != str(expected.get(name))]
        if different or list(found) != list(expected):
            raise Caught(f"{path} is not built as the uninterrupted run's: {different or list(found)}")
    with xr.open_datatree(path) as one, xr.open_datatree(reference) as other:
        if one.groups != other.groups:
            raise Caught(f"{path} has groups {one.groups}: expected {other.groups}")
        for group in other.groups:
            left, right = one[group].to_dataset(inherit=False), other[group].to_dataset(inherit=False)
            for name, variable in right.variables.items():
                if left.variables[name].dtype != variable.dtype or _bits(left.variables[name]) != _bits(variable):
                    raise Caught(f"{group}{name} has other bits than the uninterrupted run")


# --- Chains -----------------------------------------------------------------------------------------------------------


@dataclass
class Tally:
    """Where kills hit, and what was found after them."""

    hits: Counter[tuple[str, str, str]] = field(default_factory=Counter)  # variant, kind, action
    lost: Counter[int] = field(default_factory=Counter)
    parts: int = 0
    finished: int = 0
    merges: int = 0

    @property
    def kills(self) -> int:
        return sum(self.hits.values())

    def of(self, *kinds: str, disk: bool = False) -> int:
        """Return the kills inside something; inside a write to the disk, where asked."""
        return sum(
            n for (_, kind, action), n in self.hits.items() if kind in kinds and not (disk and action == ACTIONS[1])
        )

    def table(self) -> str:
        """Return the histogram."""
        columns = [action or "(no file)" for action in ACTIONS]
        rows = [f"{'killed while':<18}" + "".join(f"{each:>16}" for each in columns) + f"{'all':>8}"]
        by_place: Counter[tuple[str, str]] = Counter()
        for (_, kind, action), n in self.hits.items():
            by_place[kind, action] += n
        for kind in KINDS:
            counts = [by_place[kind, action] for action in ACTIONS]
            if sum(counts):
                rows.append(f"{kind:<18}" + "".join(f"{n or '':>16}" for n in counts) + f"{sum(counts):>8}")
        rows.append(f"{'all':<18}" + " " * 16 * len(columns) + f"{self.kills:>8}")
        return "\n".join(rows)

    def by_variant(self) -> str:
        """Return the kills of each variant."""
        counts: Counter[str] = Counter()
        for (variant, _, _), n in self.hits.items():
            counts[variant] += n
        return "\n".join(f"{variant:<32}{n:>8}" for variant, n in sorted(counts.items()))


class Chain:
    """One run, its uninterrupted twin, and what is known of its commitments."""

    def __init__(self, variant: str, folder: Path, reference: Path, seconds: float = 0.0, mutation: str = "") -> None:
        folder.mkdir()
        self._variant, self._seconds, self._mutation = variant, seconds, mutation
        self._path, self._page = folder / "run.nc", folder / "page"
        self._reference_path = reference
        self._reference = open_trajectory(reference).load()
        self._known = -1, -1  # the newest manifest and until where it records
        self.ended = False

    def _start(self) -> tuple[Any, Page]:
        page = Page(self._page)
        page.begin()
        arguments = (self._variant, str(self._path), str(self._page), self._seconds, self._mutation)
        return started(worker.work, *arguments), page

    def kill(self, aim: str, tally: Tally, generator: np.random.Generator) -> bool:
        """Start the run, or go on with it, and kill it; return whether it was still running."""
        process, page = self._start()
        wait = 1 + generator.integers(1 if aim in ("final file", "removing", "merging segments") else 8)
        delay = generator.uniform(0, DURATIONS[aim])
        deadline = time.monotonic() + _PATIENCE
        if aim == "anywhere":
            while page["kind"] == 0 and page["committed"] == -1 and process.is_alive():
                time.sleep(1e-3)
        else:
            number = KINDS.index(aim)
            patient = wait > 1 or aim in ("final file", "removing", "merging segments")
            while True:
                entries = page.entries(aim)
                if entries > wait or (entries == wait and page["kind"] == number and page["action"] != 1):
                    break
                if entries < wait - 1 or patient:
                    time.sleep(2e-5)
                if time.monotonic() > deadline:
                    break
                if not process.is_alive():
                    break
        begun = time.perf_counter()
        while time.perf_counter() - begun < delay:
            pass
        process.kill()
        code = finish(process, self._page)
        if code == 0:
            self._check_end()
            tally.finished += 1
            tally.merges += page["merges"]
            return False
        tally.hits[self._variant, *page.doing] += 1
        tally.merges += page["merges"]
        self._check_remains(page, tally)
        return True

    def _check_remains(self, page: Page, tally: Tally) -> None:
        """Raise unless every record up to the last commitment is there, and no other."""
        folder = folder_of(self._path)
        tally.parts += sum(1 for each in self._path.parent.rglob(".*.part"))
        if self._path.exists():
            # From then on the run is a file, whole, and what is left of its segments says nothing any more.
            check_same_file(self._path, self._reference_path)
            return
        found = sorted(folder.glob("manifest-*.json")) if folder.is_dir() else []
        newest = int(found[-1].stem.removeprefix("manifest-")) if found else -1
        known, until = self._known
        committed = max(known, page["committed"])
        if newest not in (committed, max(committed, page["announced"])):
            raise Caught(f"the newest manifest is {newest}: expected {committed}, or {page['announced']} at the most")
        if newest == page["committed"]:
            until = page["committed_until"]
        elif newest == page["announced"]:  # renamed, and killed before it could be told
            until = page["announced_until"]
        self._known = newest, until
        if newest < 0:
            return
        try:
            tree = open_trajectory(self._path)
        except LangevinError as error:
            raise Caught(f"what a kill left cannot be opened: {error}") from error
        if tree.attrs["complete"] != 0:
            raise Caught("a run that was killed says that it is complete")
        check_prefix(tree, self._reference, until)
        tree.close()
        steps = {
            step
            for path in self._reference.groups
            for step in self._reference[path].to_dataset(inherit=False)[clock_of_group(path.strip("/"))].values.tolist()
        }
        lost = sum(1 for step in steps if until < step <= page["recorded"])
        tally.lost[lost] += 1
        if self._seconds == 0 and lost > 1:
            raise Caught(f"{lost} records are lost: expected at most the last segment, which holds one")

    def end(self, tally: Tally) -> None:
        """Let the run go on to its end."""
        if self.ended:
            return
        process, page = self._start()
        if finish(process, self._page) != 0:
            raise Caught(f"a run that nobody killed ended with {process.exitcode}")
        tally.merges += page["merges"]
        self._check_end()
        tally.finished += 1

    def _check_end(self) -> None:
        self.ended = True
        check_same_file(self._path, self._reference_path)
        beside = sorted(each.name for each in self._path.parent.iterdir())
        if beside != ["page", "run.nc"]:
            raise Caught(f"beside the finished file lie {beside}: expected nothing but it")


def references(variants: Sequence[str], folder: Path) -> dict[str, Path]:
    """Run variants without interruption, in one segment where they are short; return their files."""
    found, processes = {}, []
    for number, variant in enumerate(variants):
        path, page = folder / f"reference-{number}.nc", folder / f"reference-{number}"
        Page(page)
        found[variant] = path
        processes.append((started(worker.work, variant, str(path), str(page), 30.0), page))
    for process, page in processes:
        if finish(process, page) != 0:
            raise Caught("an uninterrupted run did not reach its end")
    return found


def killed(
    variants: Sequence[str],
    folder: Path,
    kills: int,
    least: Mapping[str, int],
    seed: int = 0,
    per_chain: int = 9,
    report: Any = None,
) -> Tally:
    """Kill runs of variants, in turn, until there were enough kills, and of each kind enough that had reached the disk.

    After some kills a run may end.
    """
    generator = np.random.default_rng(seed)
    files = references(variants, folder)
    tally, number = Tally(), 0
    while tally.kills < kills or any(tally.of(kind, disk=True) < n for kind, n in least.items()):
        variant = variants[number % len(variants)]
        seconds = 0.0 if number % 3 else 0.03
        chain = Chain(variant, folder / f"chain-{number}", files[variant], seconds)
        for turn in range(per_chain):
            missing = [kind for kind, n in least.items() if tally.of(kind, disk=True) < n]
            late = turn >= per_chain - max(1, per_chain // 4)
            choices = [each for each in missing if (each in ("final file", "removing")) == late]
            choices = choices or [each for each in DURATIONS if (each in ("final file", "removing")) == late]
            aim = str(generator.choice(choices))
            if not chain.kill(aim, tally, generator):
                break
            if tally.kills >= kills and not missing:
                break
        chain.end(tally)
        number += 1
        if report:
            report(f"run {number}: {variant}, {tally.kills} kills so far")
    return tally


def caught(mutation: str, variant: str, folder: Path, aim: str, kills: int = 6, seed: int = 0) -> str:
    """Kill runs of a library that was broken on purpose; return what the harness found, or nothing."""
    files = references([variant], folder)
    chain = Chain(variant, folder / "chain", files[variant], 0.0, mutation)
    generator, tally = np.random.default_rng(seed), Tally()
    try:
        for _ in range(kills):
            if not chain.kill(aim, tally, generator):
                break
        chain.end(tally)
    except Caught as error:
        return str(error)
    return ""


def say(text: str) -> None:
    """Print at once."""
    print(text, file=sys.stdout, flush=True)
