"""Whether a trajectory is what it says: names, dimensions, units, identities, provenance."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from datetime import datetime
from itertools import chain
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from langevin_nn.errors import ConfigurationError
from langevin_nn.observables.declarations import declaration_of
from langevin_nn.observables.variables import GROUPS, OWN, describe
from langevin_nn.provenance import study_of
from langevin_nn.replicas import is_silent, repetitions, runs_of, said_of
from langevin_nn.schema import COHORT_PAIRS, COHORTS, SCHEMA_VERSION, Variable, clock_of_group
from langevin_nn.store.netcdf import DIGEST, content_digest
from langevin_nn.store.trajectory import open_trajectory

__all__ = ["validate"]

_ROUNDING = 1e-6  # of the largest term of an identity
# By which paths are told apart, the first that was recorded, at so many records.
_PATHS = (("", "train_loss"), ("samples", "sample_loss"), ("weights", "weights"))
_TRIED = 16
_BLOCK = 2**25  # bytes that are held at a time
_SUMS = (  # formula, for which cohort, left side, terms of the right side
    ("A = A∥ + A⊥", None, "activity", "parallel_activity", "perpendicular_activity"),
    ("D = A⊥ + D∥", None, "noise_strength", "perpendicular_activity", "parallel_noise"),
    ("A = A₀ + D", "all", "activity", "directed_activity", "noise_strength"),
    ("A∥ = A₀ + D∥", "all", "parallel_activity", "directed_activity", "parallel_noise"),
)
_ATTRIBUTES = ("schema_version", "config_json", "created_at", "source", "complete")


def validate(trajectory: xr.DataTree | xr.Dataset | str | os.PathLike[str]) -> tuple[str, ...]:
    """Say what is wrong with a trajectory.

    Names, dimensions, units and long names are those of `langevin_nn.observables.describe`, of a user's own variables those
    that their observable declared, which the file carries; clocks move forward; the order parameters obey the identities
    that hold to rounding (A = A₀ + D = A∥ + A⊥, D = A⊥ + D∥, A∥ = A₀ + D∥, σ_λ² = D∥/A₀, A₀ = A₀,c + A₀,w +
    2 (A₀,c A₀,w)^½ R_cw; Feng & Tu 2021, doi 10.1088/2632-2153/abf5b9), eigenvalues descend and do not exceed D, errors are
    shares, the attributes say where the file comes from, and each replica comes once: no two have one configuration, seed and
    index, nor, where there is noise, the same numbers. All values are read, so that a finished file's checksums are
    tried too. Results of a study are no trajectory: their groups and variables are its own, and they are held to labels
    without gaps, provenance and checksums.

    Parameters
    ----------
    trajectory : xarray.DataTree, xarray.Dataset or path
        All groups, or the root alone, or where they are.

    Returns
    -------
    tuple of str
        One sentence for each thing that is wrong; none where all is well.

    Raises
    ------
    ConfigurationError
        If it is neither a trajectory nor the path of one.

    Examples
    --------
    >>> validate(xr.Dataset({"test_eror": ("step", [0.5])}))[0]
    "variable 'test_eror' of group / is unknown: did you mean 'test_error'?"
    """
    if isinstance(trajectory, str | os.PathLike):
        trajectory = open_trajectory(trajectory)
    if isinstance(trajectory, xr.Dataset):
        trajectory = xr.DataTree(trajectory)
    if not isinstance(trajectory, xr.DataTree):
        raise ConfigurationError(
            f"trajectory is {type(trajectory).__name__}: expected an xarray DataTree or Dataset, or the path of a file"
        )
    found: list[str] = []
    is_study = study_of(trajectory.attrs) is not None
    for node in trajectory.subtree:
        if is_study:
            found += _labels(node.to_dataset(inherit=False), node.path)
            continue
        found += _names(node.to_dataset(), node.path.strip("/"))
        found += _clock(node.to_dataset(), node.path.strip("/"))
    damage = [_damage(node.to_dataset(inherit=False), node.path) for node in trajectory.subtree]
    unreadable, changed = (list(chain.from_iterable(each)) for each in zip(*damage, strict=True))
    if not unreadable and not is_study:
        root = trajectory.to_dataset()
        found += (*_shares(root), *_identities(root), *_spectra(trajectory), *_repeated(trajectory))
    return (*found, *unreadable, *changed, *_provenance(trajectory.attrs))


def _damage(node: xr.Dataset, path: str) -> tuple[list[str], list[str]]:
    """Read everything, block by block; name what cannot be read, and what is not what was written."""
    unreadable, changed = [], []
    for name, variable in node.variables.items():
        where = f"variable {str(name)!r} of group {path}"
        try:
            found = content_digest(variable) if variable.dtype.kind in "fiub" else str(variable.values)
        except (OSError, RuntimeError) as error:
            unreadable.append(f"{where} cannot be read ({error}): its checksum differs, the file is damaged")
            continue
        # Where an index of chunks is damaged, others are read in their place, each with a checksum that holds.
        whole = variable.encoding.get("original_shape") == variable.shape
        if whole and variable.encoding.get(DIGEST, found) != found:
            changed.append(f"{where} holds other values than were written: it was changed, or the file is damaged")
    return unreadable, changed


def _names(node: xr.Dataset, group: str) -> Iterator[str]:
    declared = {name: declaration_of(each.attrs) for name, each in node.data_vars.items()}
    if group and group not in GROUPS and all(each is None for each in declared.values()):
        yield (
            f"group /{group} is unknown: expected /, {', '.join(f'/{name}' for name in GROUPS)}, or one of which a "
            "variable carries the declaration of a user's own observable"
        )
        return
    processes = ("process",) if "process" in node.sizes else ()
    for name, variable in node.data_vars.items():
        where = f"variable {str(name)!r} of group /{group}"
        if name == "update_count":
            continue
        said = declared[name]
        known: Variable | None
        if said is not None and name not in OWN:
            known = said.get("variable")
            if known is None or known.name != name:
                yield f"{where} carries a declaration that cannot be understood or is another's: expected its observable's"
                continue
            for dimension in said.get("labelled", []):
                if dimension in variable.dims and dimension not in node.coords:
                    yield f"dimension {dimension!r} of group /{group} lacks its labels: expected those that were declared"
        else:
            try:
                known = describe(str(name))
            except ConfigurationError as error:
                hint = (
                    str(error).rpartition("; ")[2]
                    if "did you mean" in str(error)
                    else "see langevin_nn.observables.variables"
                )
                yield f"{where} is unknown: {hint}"
                continue
        if known.group != group:
            yield f"{where} belongs into group /{known.group}"
            continue
        expected = (*(() if known.timeless else processes), *known.recorded_dimensions)
        if variable.dims != expected:
            yield f"{where} has dimensions {', '.join(map(str, variable.dims))}: expected {', '.join(expected)}"
        for attribute, value in known.attributes.items():
            if variable.attrs.get(attribute) != value:
                yield f"{where} has {attribute}={variable.attrs.get(attribute)!r}: expected {value!r}"
        if variable.dtype.kind not in "fiub":
            yield f"{where} holds {variable.dtype}: expected numbers"
    for name, labels in (("cohort", COHORTS), ("cohort_pair", COHORT_PAIRS)) if not group else ():
        if name in node.dims and (name not in node.coords or tuple(node[name].values) != labels):
            yield f"dimension {name!r} of group /{group} lacks its labels: expected {', '.join(labels)}"


def _labels(node: xr.Dataset, path: str) -> Iterator[str]:
    """Name coordinates of results that label with numbers which are none."""
    for name in node.dims:
        if name in node.coords and node[name].dtype.kind == "f" and not np.isfinite(node[name].values).all():
            yield f"dimension {str(name)!r} of group {path} has labels that are not finite: expected a number for each"


def _clock(node: xr.Dataset, group: str) -> Iterator[str]:
    clock = clock_of_group(group)
    if clock not in node.sizes:
        return
    for name in (clock, "time", "epoch"):
        if name not in node.coords:
            if name != "epoch":
                yield f"group /{group} lacks the coordinate {name!r} along {clock!r}"
            continue
        values = np.asarray(node[name].values, dtype=np.float64)
        if not np.isfinite(values).all() or not (np.diff(values, axis=-1) > 0).all() or (values < 0).any():
            yield f"coordinate {name!r} of group /{group} does not move forward from 0 on: expected increasing values"


def _shares(tree: xr.Dataset) -> Iterator[str]:
    for name in ("train_error", "test_error", "average_train_error", "average_test_error"):
        if name in tree.data_vars:
            values = tree[name].values
            with np.errstate(invalid="ignore"):
                if ((values < 0) | (values > 1)).any():
                    yield f"{name!r} leaves 0 to 1: expected shares of samples"
    for name in ("gradient_alignment", "alignment"):
        if name in tree.data_vars:
            with np.errstate(invalid="ignore"):
                if (np.abs(tree[name].values) > 1 + _ROUNDING).any():
                    yield f"{name!r} leaves −1 to 1: expected cosines"


def _disagrees(whole: Any, *terms: Any) -> bool:
    """Return whether terms do not add up, to rounding of the largest of them."""
    arrays: list[NDArray[np.float64]] = [np.asarray(each, dtype=np.float64) for each in (whole, *terms)]
    scale = np.max(np.abs(arrays), axis=0)
    with np.errstate(invalid="ignore"):
        return bool((np.abs(arrays[0] - sum(arrays[1:])) > _ROUNDING * scale).any())


def _identities(tree: xr.Dataset) -> Iterator[str]:
    def has(*names: str) -> bool:
        return all(name in tree.data_vars and "cohort" in tree[name].dims for name in names)

    def of(name: str, cohort: str | None = None) -> Any:
        return tree[name].values if cohort is None else tree[name].sel(cohort=cohort).values

    if "cohort" not in tree.coords:
        return
    for formula, cohort, *names in _SUMS:
        if has(*names) and _disagrees(*(of(name, cohort) for name in names)):
            where = "" if cohort is None else " for all samples"
            yield f"{formula} does not hold{where}: {names[0]} is not {' + '.join(names[1:])}"
    if has("projection_variance", "parallel_noise", "parallel_activity"):
        variance, noise = of("projection_variance"), of("parallel_noise")
        with np.errstate(invalid="ignore", over="ignore"):
            terms = variance * of("parallel_activity"), noise, variance * noise
        if _disagrees(*terms):
            # Directed activities of cohorts carry weights; A∥ − D∥ is a cohort's own squared mean gradient.
            yield "σ_λ² = D∥/(A∥ − D∥) does not hold: projection_variance disagrees with parallel_activity and parallel_noise"
    if has("projection_variance", "parallel_noise", "directed_activity"):
        product = of("projection_variance", "all") * of("directed_activity", "all")
        if _disagrees(product, of("parallel_noise", "all")):
            yield "σ_λ² = D∥/A₀ does not hold for all samples: projection_variance is not parallel_noise/directed_activity"
    if has("directed_activity") and "gradient_alignment" in tree.data_vars and "cohort_pair" in tree.coords:
        whole, correct, wrong = (of("directed_activity", cohort) for cohort in COHORTS)
        cosine = tree["gradient_alignment"].sel(cohort_pair="correct_mislabeled").values
        with np.errstate(invalid="ignore"):
            mixed = 2 * np.sqrt(correct * wrong) * cosine
        if _disagrees(whole, correct, wrong, mixed):
            yield "A₀ = A₀,c + A₀,w + 2 √(A₀,c A₀,w) R_cw does not hold: directed_activity and gradient_alignment disagree"


def _spectra(tree: xr.DataTree) -> Iterator[str]:
    if "spectrum" not in tree.children or "noise_eigenvalue" not in tree.children["spectrum"].data_vars:
        return
    spectrum, root = tree.children["spectrum"].to_dataset(inherit=False), tree.to_dataset()
    values = spectrum["noise_eigenvalue"].transpose(..., "mode").values
    largest = np.abs(values).max(-1, keepdims=True, initial=0)
    with np.errstate(invalid="ignore"):
        if (np.diff(values, axis=-1) > _ROUNDING * largest).any() or (values < -_ROUNDING * largest).any():
            yield "'noise_eigenvalue' does not descend from a largest value to 0: expected the spectrum of a covariance"
    if "noise_strength" not in root.data_vars or "cohort" not in root.coords or "step" not in root.coords:
        return
    if "spectrum_step" not in spectrum.coords:
        return
    _, here, there = np.intersect1d(spectrum["spectrum_step"].values, root["step"].values, return_indices=True)
    strength = root["noise_strength"].sel(cohort="all").isel(step=there).values
    total = spectrum["noise_eigenvalue"].isel(spectrum_step=here).sum("mode", skipna=False).values
    with np.errstate(invalid="ignore"):
        if (total > (1 + 1e-3) * strength).any():
            yield "the sum of 'noise_eigenvalue' exceeds 'noise_strength', its trace"


def _repeated(tree: xr.DataTree) -> Iterator[str]:
    """Name replicas that are counted twice: by what the file says of them, or by their numbers."""
    root = tree.to_dataset()
    if found := repetitions(root):
        yield (
            f"{said_of(found)} come{'s' * (len(found) == 1)} twice: expected each once, since configuration, seed and index "
            "name one path, and errors over replicas look smaller than they are"
        )
        return
    if "replica" not in root.dims:
        return
    labels = root["replica"].values.tolist() if "replica" in root.coords else [*range(root.sizes["replica"])]
    names = [str(name) for name in root["process"].values] if "process" in root.coords else [None]
    for position, name in enumerate(names):
        of_process = {} if name is None else {"process": position}
        for equal in _of_equal_numbers(tree, of_process):
            if not _may_be_equal(root.isel(of_process), name, equal):
                same = ", ".join(str(labels[k]) for k in equal)
                of_name = "" if name is None else f" of process {name!r}"
                yield (
                    f"replicas {same}{of_name} have the same numbers to the last bit, and not at the start alone: expected "
                    "paths of their own, since noise drives them; one is a copy of the other, or their seeds are one"
                )


def _of_equal_numbers(tree: xr.DataTree, of_process: dict[str, int]) -> list[list[int]]:
    """Return groups of replicas whose numbers are the same bits at records after the start, and move."""
    for group, name in _PATHS:
        node = tree.children.get(group, tree)
        if name not in node.data_vars or not {"replica", clock_of_group(group)} <= {*node[name].dims}:
            continue
        values = node[name].isel(of_process)
        if "cohort" in values.dims:
            values = values.isel(cohort=0)
        if values.dtype.kind != "f":
            continue
        length = values.sizes[clock_of_group(group)]
        at = np.unique(np.linspace(1, max(length - 1, 1), _TRIED).round().astype(int))[: length - 1]
        chosen = values.isel({clock_of_group(group): at}).transpose("replica", clock_of_group(group), ...)
        together = max(1, _BLOCK * chosen.sizes["replica"] // max(chosen.nbytes, 1))
        rows: dict[tuple[bytes, ...], list[int]] = {}
        for begin in range(0, chosen.sizes["replica"], together):
            block = np.asarray(chosen.isel(replica=slice(begin, begin + together)).values)
            for position, own in enumerate(block, begin):
                bits = tuple(hashlib.sha256(record.tobytes()).digest() for record in own)
                if len(set(bits)) > 1 and np.isfinite(own).all():
                    rows.setdefault(bits, []).append(position)
        return [each for each in rows.values() if len(each) > 1]
    return []


def _may_be_equal(root: xr.Dataset, name: str | None, equal: list[int]) -> bool:
    """Return whether replicas have no noise, as the file says; where it does not, whether all of them are one path."""
    if "driving_noise_strength" in root:
        strength = root["driving_noise_strength"].isel(replica=equal).values
        if not np.nan_to_num(strength).any():
            return True
    runs = runs_of(root) or [(0, {}, 0)] * root.sizes["replica"]
    described = [runs[k][1] for k in equal]
    processes = [each.get("process") or dict(each.get("processes") or {}).get(name) for each in described]
    if all(processes):
        return any(is_silent(each) for each in processes)
    return len(equal) == root.sizes["replica"]


def _provenance(attributes: Any) -> Iterator[str]:
    for name in _ATTRIBUTES:
        if name not in attributes:
            yield f"attribute {name!r} is missing: nobody could tell what was run"
    version = attributes.get("schema_version", SCHEMA_VERSION)
    if version != SCHEMA_VERSION:
        yield f"attribute schema_version is {version!r}: expected {SCHEMA_VERSION!r}"
    if "config_json" in attributes:
        try:
            config = json.loads(str(attributes["config_json"]))
        except ValueError:
            yield "attribute config_json is no JSON"
            return
        if not isinstance(config, dict):
            yield "attribute config_json is no object of JSON"
            return
        if json.dumps(config, sort_keys=True) != attributes["config_json"]:
            yield "attribute config_json has unsorted keys: expected them sorted, so that equal configurations are equal text"
        # A study's seed is among its choices, and so is that of each of its runs.
        for name in ("versions",) if {"merged", "study"} & {*config} else ("seed", "versions"):
            if name not in config:
                yield f"config_json lacks {name!r}, without which the run cannot be repeated"
    try:
        datetime.fromisoformat(str(attributes.get("created_at", "2021-01-01")))
    except ValueError:
        yield f"attribute created_at is {attributes['created_at']!r}: expected a moment in ISO 8601"
    if attributes.get("complete", 1) not in (0, 1):
        yield f"attribute complete is {attributes['complete']!r}: expected 0 or 1"
