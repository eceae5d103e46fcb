"""Bytes that change on the disk: every one of them is noticed, or changes nothing."""

from __future__ import annotations

import json
import re
import struct
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from langevin_nn import open_trajectory, validate
from langevin_nn.errors import DamagedTrajectory, LangevinError
from langevin_nn.store.segments import SegmentFolder, folder_of

from .kills import Caught, check_prefix, started
from .worker import be_modest

_PATIENCE = 600


def _flip(path: Path, position: int, bits: int) -> None:
    with path.open("r+b") as file:
        file.seek(position)
        byte = file.read(1)[0]
        file.seek(position)
        file.write(bytes([byte ^ bits]))


def _gone_on(folder: Path) -> tuple[bytes | None, int, bool]:
    """Return the state from which a run would go on, the commitment it belongs to, and whether one was passed over."""
    writer = SegmentFolder(folder, {})
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            state = writer.go_on()
        return state, writer.manifest.number, any("going back" in str(each.message) for each in caught)
    finally:
        writer.close()


def flipped_segments(path: Path, flips: int, generator: np.random.Generator, kinds: tuple[str, ...]) -> Counter[str]:
    """Change single bytes of some kinds of files in a killed run's folder, one at a time, and open and go on.

    Return how often what was noticed how; the folder is as it was in the end.
    """
    folder, found = folder_of(path), Counter[str]()
    before = open_trajectory(path).load()
    until = int(before["step"].values[-1])
    manifests = sorted(folder.glob("manifest-*.json"))
    states = {int(each.stem.removeprefix("state-")): each.read_bytes() for each in folder.glob("state-*.npz")}
    needed = json.loads(manifests[-1].read_bytes().rpartition(b"\n}\n")[0] + b"\n}")
    names = [each["name"] for each in needed["segments"]] + [needed["state"]["name"], manifests[-1].name]
    files = [folder / name for name in names if name.startswith(kinds)]
    sizes = np.array([each.stat().st_size for each in files], dtype=float)
    newest = int(manifests[-1].stem.removeprefix("manifest-"))
    for _ in range(flips):
        file = files[generator.choice(len(files), p=sizes / sizes.sum())]
        kind = file.name.partition("-")[0]
        position, bits = int(generator.integers(file.stat().st_size)), int(generator.integers(1, 256))
        _flip(file, position, bits)
        try:
            try:
                tree = open_trajectory(path).load()
            except DamagedTrajectory:
                found[f"{kind}: opening refuses"] += 1
            else:
                check_prefix(tree, before, until)
                if kind != "state":
                    raise Caught(f"byte {position} of {file.name} changed, and nothing was noticed")
                found[f"{kind}: opening reads the records, which are whole"] += 1
            try:
                state, number, back = _gone_on(folder)
            except DamagedTrajectory:
                found[f"{kind}: going on refuses"] += 1
            else:
                if not back or number >= newest or state != states[number]:
                    raise Caught(f"byte {position} of {file.name} changed, and the run went on from {number}")
                found[f"{kind}: going on from the commitment before"] += 1
        finally:
            _flip(file, position, bits)
    check_prefix(open_trajectory(path).load(), before, until)
    return found


# --- The finished file ------------------------------------------------------------------------------------------------


def chunks(content: bytes) -> list[range]:
    """Return where the chunks of recorded arrays lie in a file, by its indices of them.

    These are B-trees of version 1 (HDF5 File Format Specification, section III.A.1): a node says how many chunks it
    knows, and of each its size, the filters that were left out, its offset along each dimension, and its address.
    """
    found = []
    for node in re.finditer(rb"TREE\x01\x00", content):
        entries = struct.unpack_from("<H", content, node.start() + 6)[0]
        for dimensions in range(2, 8):  # one more than the array has
            entry = 16 + 8 * dimensions
            parsed = []
            for number in range(entries):
                at = node.start() + 24 + number * entry
                size, mask, *offsets, address = struct.unpack_from(f"<II{dimensions}QQ", content, at)
                if mask or offsets[-1] or not size or not address or address + size > len(content):
                    break
                parsed.append(range(address, address + size))
            else:
                found += parsed
                break
    return found


def _content(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return numbers, and everything else that a file says."""
    numbers: dict[str, Any] = {}
    others: dict[str, Any] = {}
    with open_trajectory(path) as tree:
        others["attributes"] = {name: str(value) for name, value in tree.attrs.items()}
        for group in tree.groups:
            dataset = tree[group].to_dataset(inherit=False)
            for name, variable in dataset.variables.items():
                values = variable.values
                key = f"{group}:{name}"
                numbers[key] = values.tobytes() if values.dtype.kind in "fiub" else "".join(map(str, values.ravel()))
                others[key] = (str(values.dtype), variable.dims, variable.shape, str(variable.attrs))
    return numbers, others


def _read_flipped(path: str, folder: str, report: str, seed: int, first: int, flips: int) -> None:
    """Flip, read, compare and report line by line, since the library below may crash."""
    be_modest()
    warnings.simplefilter("ignore")
    generator, whole = np.random.default_rng(seed), Path(path).read_bytes()
    numbers, others = _content(Path(path))
    with Path(report).open("a") as said:
        for number in range(flips):
            position, bits = int(generator.integers(len(whole))), int(generator.integers(1, 256))
            if number < first:
                continue
            # A file of its own each time: of one that it has not closed, HDF5 remembers what it has read.
            changed = Path(folder) / f"changed-{number}.nc"
            changed.write_bytes(whole[:position] + bytes([whole[position] ^ bits]) + whole[position + 1 :])
            said.write(f"{number} {position} ")
            said.flush()
            try:
                found_numbers, found_others = _content(changed)
            except LangevinError:
                outcome = "refused by name"
            except Exception as error:
                outcome = f"refused with {type(error).__name__}"
            else:
                if found_numbers != numbers and set(found_numbers) == set(numbers):
                    named = any("holds other values" in each for each in validate(changed))
                    outcome = "other numbers, which validate names" if named else "OTHER NUMBERS"
                elif found_others != others or set(found_numbers) != set(numbers):
                    outcome = "other names or attributes"
                else:
                    outcome = "nothing changed"
            said.write(f"{outcome}\n")
            said.flush()
            changed.unlink()


def flipped_file(path: Path, folder: Path, flips: int, seed: int) -> tuple[Counter[str], Counter[str]]:
    """Change single bytes of a copy of a finished file, one at a time, and read all of it.

    Return how often it ended how, for bytes of recorded arrays, and for those of names, attributes and indices.
    """
    report = folder / "flips"
    report.write_text("")
    first = 0
    while first < flips:
        process = started(_read_flipped, str(path), str(folder), str(report), seed, first, flips)
        process.join(_PATIENCE)
        hung = process.exitcode is None
        if hung:
            process.kill()
            process.join()
        lines = report.read_text().splitlines()
        if process.exitcode == 0:
            break
        if lines[-1].count(" ") > 1:
            raise Caught(f"the reader of changed files ended with {process.exitcode}")
        with report.open("a") as said:
            said.write("never ended\n" if hung else f"crashed with {process.exitcode}\n")
        first = int(lines[-1].split()[0]) + 1
    places = chunks(path.read_bytes())
    of_arrays, of_rest = Counter[str](), Counter[str]()
    for line in report.read_text().splitlines():
        _, position, outcome = line.split(" ", 2)
        in_array = any(int(position) in place for place in places)
        (of_arrays if in_array else of_rest)[outcome] += 1
    return of_arrays, of_rest
