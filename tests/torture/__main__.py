"""The full form: ``python -m tests.torture``, or some of its parts by name. Every number printed was measured now."""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np

from . import damage, disks, readers, sizes, worker
from .kills import Caught, caught, killed, references, say

_MEMORY = 512 * sizes.MIB


def _kills(folder: Path) -> None:
    least = {"segment": 30, "block of steps": 30, "state": 4, "manifest": 4, "merging segments": 2, "final file": 3}
    tally = killed([*worker.NETWORKS, *worker.SURROGATES], folder, 100, least, report=say)
    say("\n" + tally.table() + "\n\n" + tally.by_variant())
    lost = ", ".join(f"{records}: {n}" for records, n in sorted(tally.lost.items()))
    say(
        f"\n{tally.kills} kills, {tally.of('segment', disk=True)} of them inside a segment's write to the disk, "
        f"{tally.of('block of steps')} in the middle of a block of steps.\n"
        f"Records after the last segment that were lost, and how often: {lost}.\n"
        f"{tally.parts} parts of files were left behind and removed; {tally.merges} times segments were merged.\n"
        f"{tally.finished} runs were resumed to their end: the bits of an uninterrupted run, and nothing beside the file."
    )


def _twins(folder: Path) -> None:
    for number, (mutation, variant, aim) in enumerate(worker.TWINS):
        (folder / str(number)).mkdir()
        found = caught(mutation, variant, folder / str(number), aim)
        if not found:
            raise Caught(f"the twin {mutation!r} went unnoticed")
        say(f"{mutation:<16} caught: {found.splitlines()[-1][:180]}")


def _disks(folder: Path) -> None:
    reference = references([worker.SMALL], folder)[worker.SMALL]
    scenes: list[tuple[str, Callable[[Path], str]]] = [
        ("limit on files, at a segment", lambda path: disks.limited(path, reference, 5, 1000)),
        *(
            (f"limit of {left} bytes, at the file", lambda path, left=left: disks.limited(path, reference, 0, left))
            for left in (0, 100, 5_000, 30_000, 120_000)
        ),
        ("full disk, at a segment", lambda path: disks.filled(path, reference, 5, 0)),
        ("full disk, 20,000 bytes left, at the file", lambda path: disks.filled(path, reference, 0, 20_000)),
        ("full disk, nothing left, at the file", lambda path: disks.filled(path, reference, 0, 0)),
        ("read-only folder, at a segment", lambda path: disks.read_only(path, reference, 5)),
        ("read-only folder, at the file", lambda path: disks.read_only(path, reference, 0)),
        ("folder removed", lambda path: disks.vanished(path, reference, 5)),
    ]
    for number, (name, scene) in enumerate(scenes):
        try:
            said = scene(folder / f"scene-{number}").partition("cannot be written: ")[2]
            say(f"{name:<44} stopped, then went on to the same bits: {said.partition(';')[0]!r}")
        except disks.Unavailable as error:
            say(f"{name:<44} skipped: {error}")


def _damage(folder: Path) -> None:
    reference = references([worker.SMALL], folder)[worker.SMALL]
    path = disks.remains(folder / "remains", 6)
    generator = np.random.default_rng(0)
    for kinds in (("segment",), ("state", "manifest")):
        _counted(damage.flipped_segments(path, 1000, generator, kinds))
    of_arrays, of_rest = damage.flipped_file(reference, folder, 1000, seed=0)
    _counted(Counter({f"finished file, recorded arrays: {outcome}": n for outcome, n in of_arrays.items()}))
    _counted(Counter({f"finished file, names, attributes, indices: {outcome}": n for outcome, n in of_rest.items()}))
    if unnoticed := {outcome for outcome in of_arrays if not outcome.startswith("refused")}:
        raise Caught(f"changes of recorded arrays went unnoticed: {unnoticed}")


def _counted(found: Counter[str]) -> None:
    for outcome, n in sorted(found.items()):
        say(f"{n:>6}  {outcome}")


def _readers(folder: Path) -> None:
    variants = (worker.SMALL, "SGD with momentum", "Euler-Maruyama, thermal")
    files = references(variants, folder)
    for number, variant in enumerate(variants):
        found = readers.read_while_written(folder / str(number), files[variant], (0.0, 0.1), variant)
        say(f"{variant:<28} opened {found['opened']} times, at {found['lengths']} lengths; {found['merges']} merged")


def _sizes(folder: Path) -> None:
    for number, (kind, records) in enumerate((("scalars", 10**6), ("weights", 10**3), ("beginning of a run", 10**6))):
        found = sizes.measured(kind, folder / str(number), records)
        memory, file = found["memory"] / sizes.MIB, found["file"] / sizes.MIB
        say(
            f"{kind:<20}{records:>9} records: {memory:6.0f} MiB above the imports, {file:6.0f} MiB of file, "
            f"{found['seconds']:.0f} s"
        )
        if found["memory"] > _MEMORY:
            raise Caught(f"recording {kind} held {memory:.0f} MiB: expected at most 512 MiB")


_PARTS = {"kills": _kills, "twins": _twins, "disks": _disks, "damage": _damage, "readers": _readers, "sizes": _sizes}


def main() -> int:
    """Run the parts; return how many failed."""
    parser = argparse.ArgumentParser(prog="python -m tests.torture", description=__doc__)
    parser.add_argument("parts", nargs="*", default=list(_PARTS), help=f"of {', '.join(_PARTS)}; all unless said")
    parts = parser.parse_args().parts
    if unknown := set(parts) - set(_PARTS):
        parser.error(f"unknown {', '.join(sorted(unknown))}: expected some of {', '.join(_PARTS)}")
    failed = 0
    for name in parts:
        begun = time.monotonic()
        say(f"--- {name} ---")
        folder = Path(tempfile.mkdtemp(prefix=f"torture-{name}-"))
        try:
            _PARTS[name](folder)
        except Caught as error:
            failed += 1
            say(f"FAILED: {error}\nWhat there is lies in {folder}")
        else:
            shutil.rmtree(folder)
        say(f"({time.monotonic() - begun:.0f} s)\n")
    return failed


if __name__ == "__main__":
    sys.exit(main())
