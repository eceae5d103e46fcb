"""Trees of datasets as netCDF-4, block by block: what is written need not fit in memory."""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Iterator
from itertools import product
from math import ceil, prod
from pathlib import Path
from typing import Any

import netCDF4
import numpy as np
import xarray as xr
from numpy.typing import NDArray

from langevin_nn.errors import DamagedTrajectory
from langevin_nn.schema import is_clock

__all__ = ["DIGEST", "blocks", "chunk_shape", "content_digest", "netcdf_bytes", "write_netcdf"]

DIGEST = "sha256"

_CHUNK = 2**20  # bytes
_BLOCK = 2**25  # bytes that are held at a time
_ALONG_TIME = 128  # records that a chunk holds at least, where a record is wide
_SAMPLE = 2**13  # bytes that are compressed on trial
_PAYS = 0.8


def netcdf_bytes(tree: xr.DataTree) -> memoryview:
    """Return a segment as the content of a netCDF-4 file, made in memory: plain arrays, quick to write."""
    file = netCDF4.Dataset("segment.nc", "w", memory=2**16)
    try:
        _write(file, tree, finished=False)
    except BaseException:
        file.close()
        raise
    content: memoryview = file.close()
    return content


def write_netcdf(tree: xr.DataTree, path: Path, finished: bool = True) -> None:
    """Write a tree to a file, block by block where it is lazily opened.

    A `finished` one is chunked for reading along time, has checksums, and is compressed where that pays.

    Raises
    ------
    OSError
        If it cannot be written, whatever the library below made of it.
    """
    try:
        with netCDF4.Dataset(path, "w") as file:
            _write(file, tree, finished)
    except (RuntimeError, OSError) as error:
        # HDF5 has no words for a full disk, or the wrong ones; the system has, when asked for a little more.
        with path.open("ab") as probe:
            probe.write(bytes(_CHUNK))
        raise OSError(None, f"the netCDF library says: {error}") from error


def _write(file: netCDF4.Dataset, tree: xr.DataTree, finished: bool) -> None:
    # All in the order of names, which does not depend on how records fell into segments.
    for node in sorted(tree.subtree, key=lambda node: node.path):
        group = file if node.path == "/" else file.createGroup(node.path.strip("/"))
        dataset = node.to_dataset(inherit=False)
        # Where a group has records along a dimension of its parents, their label is said once.
        known: dict[str, int] = {}
        for above in [*node.parents[::-1]] if node.path != "/" else []:
            known |= {str(name): size for name, size in above.to_dataset(inherit=False).sizes.items()}
        for name in sorted(dataset.sizes, key=str):
            if known.get(str(name)) != dataset.sizes[name]:
                group.createDimension(str(name), dataset.sizes[name])
        group.setncatts(dataset.attrs)
        for name in [*sorted(dataset.data_vars, key=str), *sorted(dataset.coords, key=str)]:
            variable = dataset.variables[name]
            attributes = dict(variable.attrs)
            if name in dataset.data_vars:
                extra = [str(key) for key, each in dataset.coords.items() if _belongs(str(key), each, variable)]
                if extra:
                    attributes["coordinates"] = " ".join(sorted(extra))
            _variable(group, str(name), variable, attributes, finished)
        # Coordinates that no variable names would come back as variables.
        if unused := _unused_coordinates(dataset):
            group.setncattr("coordinates", " ".join(sorted(unused)))


def _belongs(name: str, coordinate: xr.DataArray, variable: xr.Variable) -> bool:
    return coordinate.dims != (name,) and set(coordinate.dims) <= set(variable.dims)


def _unused_coordinates(dataset: xr.Dataset) -> list[str]:
    others = [str(name) for name, each in dataset.coords.items() if each.dims != (name,)]
    variables = [each.variable for each in dataset.data_vars.values()]
    return [name for name in others if not any(_belongs(name, dataset.coords[name], each) for each in variables)]


def _variable(
    group: netCDF4.Dataset, name: str, variable: xr.Variable, attributes: dict[str, Any], finished: bool
) -> None:
    dims, dtype = [str(each) for each in variable.dims], variable.dtype
    text = dtype.kind not in "fiub"
    if text:
        values = _as_characters(np.asarray(variable.values, dtype=str))
        # Characters of fixed length, unlike netCDF strings, can carry a checksum.
        dims, dtype = [*dims, f"string{values.shape[-1]}"], values.dtype
        if dims[-1] not in group.dimensions:
            group.createDimension(dims[-1], values.shape[-1])
        attributes["_Encoding"] = "utf-8"
        variable = xr.Variable(dims, values)
    elif dtype.kind == "b":
        attributes["dtype"] = "bool"
        dtype = np.dtype(np.int8)
    options: dict[str, Any] = {"fill_value": False}
    shape = variable.shape
    chunk = chunk_shape(tuple(dims), shape, dtype.itemsize)
    if finished and chunk and all(shape):
        # With fill values: a chunk that is not found, in a damaged file, is not read as whatever lay in memory.
        options = {"chunksizes": chunk, "fletcher32": True}
        if _compression_pays(variable, chunk, name):
            options |= {"compression": "zlib", "complevel": 1, "shuffle": True}
    made = group.createVariable(name, dtype, tuple(dims), **options)
    made.set_auto_maskandscale(False)
    made.set_auto_chartostring(False)
    made.setncatts(attributes)
    content = hashlib.sha256()
    for key in blocks(shape, chunk, tuple(dims), dtype.itemsize):
        block = np.ascontiguousarray(_read(variable[key], name), dtype=dtype)
        made[key or ...] = block
        content.update(block.data)
    if finished and not text:
        made.setncattr(DIGEST, content.hexdigest())


def content_digest(variable: xr.Variable) -> str:
    """Return the SHA-256 of a variable's values in the order of files: the attribute `DIGEST` in a finished one."""
    dims, size, content = tuple(map(str, variable.dims)), variable.dtype.itemsize, hashlib.sha256()
    for key in blocks(variable.shape, chunk_shape(dims, variable.shape, size), dims, size):
        content.update(np.ascontiguousarray(variable[key].values).data)
    return content.hexdigest()


def _read(variable: xr.Variable, name: str) -> Any:
    """Return values, and tell a damaged source from a target that cannot be written."""
    try:
        return variable.values
    except (OSError, RuntimeError) as error:
        raise DamagedTrajectory(
            f"variable {name!r} cannot be read ({error}): expected the values as they were written; its checksum differs, "
            "the file that holds it is damaged; restore it from a copy"
        ) from error


def _as_characters(values: NDArray[np.str_]) -> NDArray[np.bytes_]:
    encoded = np.char.encode(values, "utf-8")
    width = max(1, encoded.dtype.itemsize)
    return np.frombuffer(encoded.astype(f"S{width}").tobytes(), dtype="S1").reshape(*values.shape, width)


def chunk_shape(dims: tuple[str, ...], shape: tuple[int, ...], itemsize: int) -> tuple[int, ...]:
    """Return chunks of about 1 MiB that are long in time: a history is read from few of them."""
    chunk = [max(1, size) for size in shape]

    def too_large() -> bool:
        return prod(chunk) * itemsize > _CHUNK

    for axis, name in enumerate(dims):
        if name in ("process", "replica") and too_large():
            chunk[axis] = 1
    clocks = [axis for axis, name in enumerate(dims) if is_clock(name)]
    for axis in clocks:
        if too_large():
            of_record = prod(chunk) // chunk[axis] * itemsize
            chunk[axis] = min(chunk[axis], max(_ALONG_TIME, _CHUNK // of_record))
    for axis in sorted(set(range(len(dims))) - set(clocks), key=lambda axis: -chunk[axis]):
        if too_large():
            pieces = ceil(prod(chunk) * itemsize / _CHUNK)
            chunk[axis] = max(1, ceil(chunk[axis] / pieces))
    return tuple(chunk)


def blocks(
    shape: tuple[int, ...], chunk: tuple[int, ...], dims: tuple[str, ...], itemsize: int
) -> Iterator[tuple[slice, ...]]:
    """Cover an array in whole chunks, with blocks of bounded size, as long in time as that allows."""
    if not prod(shape):
        return
    block = list(chunk)
    order = sorted(range(len(shape)), key=lambda axis: not is_clock(dims[axis]))
    for axis in order:
        room = _BLOCK // (prod(block) * itemsize)
        block[axis] = min(ceil(shape[axis] / chunk[axis]), max(1, room)) * chunk[axis]
    ranges = [range(0, size, length) for size, length in zip(shape, block, strict=True)]
    for start in product(*ranges):
        bounds = zip(start, block, shape, strict=True)
        yield tuple(slice(first, min(first + length, size)) for first, length, size in bounds)


def _compression_pays(variable: xr.Variable, chunk: tuple[int, ...], name: str) -> bool:
    """Try it on a piece from the middle: mantissas of floating-point numbers are noise, labels and NaN are not."""
    if prod(variable.shape) * variable.dtype.itemsize < _SAMPLE // 8:
        return False
    starts = [size // 2 // length * length for size, length in zip(variable.shape, chunk, strict=True)]
    piece = variable[tuple(slice(s, s + length) for s, length in zip(starts, chunk, strict=True))]
    numbers = np.ascontiguousarray(np.asarray(_read(piece, name)).ravel()[: _SAMPLE // variable.dtype.itemsize])
    shuffled = numbers.view(np.uint8).reshape(len(numbers), -1).T.tobytes()
    return len(zlib.compress(shuffled, 1)) < _PAYS * len(shuffled)
