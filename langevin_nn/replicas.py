"""Which path of a process a replica is: its configuration, seed and index name it, and it counts once."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr

from langevin_nn.errors import ConfigurationError

__all__ = ["KEPT_LABELS", "Replica", "check_each_once", "is_silent", "repetitions", "replicas_of", "runs_of", "said_of"]

# Labels before a merge numbered replicas anew: the ones that address randomness.
KEPT_LABELS = "replica_of_file"

# What a configuration says besides what makes the numbers of a path: how far and how often it was looked at, and where.
_OF_LOOKING = (
    "versions", "replicas", "seed", "steps", "epochs", "schedule", "observables", "records", "on_divergence", "updates",
    "out", "path", "resume", "quick", "workers", "progress", "device",
)  # fmt: skip
_OF_MEASURING = (
    "device", "gradient_path", "measured_parameters", "cohort_mask", "mislabeled_fraction", "start", "own_weights_sha256",
)  # fmt: skip


@dataclass(frozen=True)
class Replica:
    """The name of one path of a process.

    Parameters
    ----------
    configuration : str
        Digest of what makes its numbers, however long it runs and whatever is recorded of it.
    seed : object
        Owner of its randomness; None where nothing says it.
    replica : int
        Its index, which addresses its randomness.
    told : tuple, optional
        What coordinates along ``replica`` say of it besides.
    """

    configuration: str
    seed: Any
    replica: int
    told: tuple[Any, ...] = ()


def _configuration(attributes: Mapping[Any, Any]) -> dict[str, Any]:
    try:
        found = json.loads(str(attributes.get("config_json", "{}")))
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _without(value: Any, names: Iterable[str]) -> Any:
    if isinstance(value, Mapping):
        return {key: _without(item, names) for key, item in value.items() if key not in names}
    return [_without(item, names) for item in value] if isinstance(value, list) else value


def _shorn(config: Any) -> Any:
    """Return a configuration without what is said in it of looking, at its first level."""
    if not isinstance(config, Mapping):
        return config
    return {key: each for key, each in config.items() if key not in _OF_LOOKING}


def is_silent(process: Any) -> bool:
    """Return whether a configuration says that a process has no noise, so that equal starts make equal paths.

    It is ``process`` of a file's configuration, or one of its ``processes``.

    Returns
    -------
    bool
        True for silent noise, for minibatches of all samples drawn without replacement, and for strengths that are all zero.
    """
    noise = process.get("noise") if isinstance(process, Mapping) else None
    if not isinstance(noise, Mapping):
        return False
    landscape = process.get("landscape")
    samples = landscape.get("n_samples") if isinstance(landscape, Mapping) else None
    size = noise.get("batch_size")
    if noise.get("type") == "Silent" or (isinstance(size, int) and size == samples and not noise.get("replacement")):
        return True
    strengths = [*_numbers({key: each for key, each in noise.items() if key != "batch_size"})]
    return bool(strengths) and not any(strengths)


def _numbers(value: Any) -> Iterable[float]:
    if isinstance(value, Mapping):
        for key, item in value.items():
            if key not in ("type", "dtype", "shape"):
                yield from _numbers(item)
    elif isinstance(value, list):
        for item in value:
            yield from _numbers(item)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield value


def _of_path(config: Mapping[str, Any], replica: int, processes: tuple[str, ...]) -> str:
    """Return the digest of what makes the numbers of a replica."""
    described: Any
    if isinstance(config.get("process"), Mapping):
        process = config["process"]
        described = {key: each for key, each in process.items() if key != "name"}
        if is_silent(process):  # without noise the start is all that tells paths apart
            landscape = process.get("landscape")
            own = landscape.get("own_weights_sha256") if isinstance(landscape, Mapping) else None
            described["from"] = (_row(config, replica), own)
    elif isinstance(config.get("processes"), Mapping):
        described = [config["processes"].get(name, name) for name in processes] or config["processes"]
    else:
        # Choices of a study stand a level deeper; what parts of it have under such names is their own.
        chosen = {key: _shorn(each) if key == "choices" else each for key, each in config.items()}
        described = [_shorn(chosen), processes]
    said = json.dumps(_without(described, _OF_MEASURING), sort_keys=True)
    return hashlib.sha256(said.encode()).hexdigest()


def _row(config: Mapping[str, Any], replica: int) -> Any:
    """Return where a replica started, as far as the configuration says it."""
    weights, replicas = config.get("weights"), config.get("replicas")
    rows = weights.get("values") if isinstance(weights, Mapping) else None
    if isinstance(rows, list) and isinstance(replicas, list) and len(rows) == len(replicas) and replica in replicas:
        return rows[replicas.index(replica)]
    return weights


def _labels_of(config: Mapping[str, Any]) -> list[int]:
    replicas = config.get("replicas")
    return list(range(replicas)) if isinstance(replicas, int) else list(replicas or ())


def runs_of(root: xr.Dataset) -> list[tuple[int, dict[str, Any], int]] | None:
    """Return which run made each replica of a trajectory, given its root, also of a selection of them.

    Returns
    -------
    list of (int, dict, int) or None
        Number of the run among those that were merged, its configuration, and the replica's label there; None where labels
        are not among those that the configuration has.
    """
    config = _configuration(root.attrs)
    labels = np.atleast_1d(root["replica"].values).tolist()
    merged = config.get("merged")
    if not isinstance(merged, list) or not all(isinstance(each, dict) for each in merged):
        return [(0, config, label) for label in labels]
    whole = [(number, each, label) for number, each in enumerate(merged) for label in _labels_of(each)]
    # A merge numbers replicas from 0 where labels come twice, and leaves them where they do not.
    known = {label: place for place, (_, _, label) in enumerate(whole)}
    places = {label: label for label in range(len(whole))} if KEPT_LABELS in root.coords else known
    if not all(label in places for label in labels):
        return None
    found = [whole[places[label]] for label in labels]
    kept = np.atleast_1d(root[KEPT_LABELS].values).tolist() if KEPT_LABELS in root.coords else labels
    return found if [label for _, _, label in found] == kept else None


def replicas_of(root: xr.Dataset) -> list[Replica]:
    """Return the name of each replica's path, as far as the file says it.

    Two runs of one configuration and seed have equal names, however long they are, whatever was recorded, on which device
    and with which versions, and whatever the process is called. Where replicas start is not part of the name, since those
    of one seed and index draw the same noise from anywhere; only without noise the start is all that there is.

    Returns
    -------
    list of Replica
        One a replica; empty where nothing is known of them.

    Examples
    --------
    >>> config = '{"process": {"type": "Process", "name": "sgd"}, "seed": 3, "steps": 100}'
    >>> run = xr.Dataset(coords={"replica": [0, 1]}, attrs={"config_json": config})
    >>> longer = run.assign_attrs(config_json=config.replace("100", "300").replace("sgd", "twin"))
    >>> replicas_of(run) == replicas_of(longer), replicas_of(run)[1].seed, replicas_of(run)[1].replica
    (True, 3, 1)
    """
    if "replica" not in root.coords or (runs := runs_of(root)) is None:
        return []
    processes = tuple(str(name) for name in np.atleast_1d(root["process"].values)) if "process" in root.coords else ()
    told = [()] * len(runs) if "merged" in _configuration(root.attrs) else _told(root, len(runs))
    of_seeds = "seed" in root.coords and root["seed"].dims in ((), ("replica",))
    seeds = np.broadcast_to(root["seed"].values, len(runs)).tolist() if of_seeds else [None] * len(runs)
    digests: dict[Any, str] = {}
    found = []
    for (number, config, label), words, seed in zip(runs, told, seeds, strict=True):
        key = (number, label if config.get("weights") and is_silent(config.get("process")) else None)
        if key not in digests:
            digests[key] = _of_path(config, label, processes)
        choices = config.get("choices")
        said = config.get("seed", choices.get("seed") if isinstance(choices, Mapping) else None)
        found.append(Replica(digests[key], said if seed is None else seed, label, words))
    return found


def _told(root: xr.Dataset, count: int) -> list[tuple[Any, ...]]:
    """Return what other coordinates say of each replica, where files were put together by hand."""
    names = sorted(
        str(name) for name in root.coords if root[name].dims == ("replica",) and name not in ("replica", "seed")
    )
    rows = [[repr(each) for each in root[name].values.tolist()] for name in names]
    return list(zip(*rows, strict=True)) if rows else [()] * count


def said_of(chosen: Iterable[Replica]) -> str:
    """Return replicas in words, by seed.

    Returns
    -------
    str
        Their labels and seeds.

    Examples
    --------
    >>> said_of([Replica("", 3, 0), Replica("", 3, 1), Replica("", 4, 1)])
    'replicas 0, 1 of seed 3, replica 1 of seed 4'
    """
    by_seed: dict[Any, dict[int, None]] = {}
    for each in chosen:
        by_seed.setdefault(each.seed, {})[each.replica] = None
    parts = []
    for seed, labels in by_seed.items():
        listed = ", ".join(map(str, [*labels][:8])) + (", …" if len(labels) > 8 else "")
        parts.append(f"replica{'s' * (len(labels) > 1)} {listed}{'' if seed is None else f' of seed {seed}'}")
    return ", ".join(parts)


def check_each_once(root: xr.Dataset) -> None:
    """Raise ConfigurationError where a replica of a dataset along ``replica`` comes twice, and say which."""
    if repeated := repetitions(root):
        raise ConfigurationError(
            f"{said_of(repeated)} come{'s' * (len(repeated) == 1)} twice: expected each once, since configuration, seed and "
            "index name one path of the process, and intervals that count it twice are too narrow; leave copies out with "
            ".isel(replica=...), run other seeds, or join files with langevin_nn.merge, which keeps what tells replicas apart"
        )


def repetitions(root: xr.Dataset) -> list[Replica]:
    """Return the paths that come twice or more in a dataset along ``replica``, each once."""
    if "replica" not in root.dims or "replica" not in root.coords:
        return []
    if KEPT_LABELS not in root.coords and len(np.unique(root["replica"].values)) == root.sizes["replica"]:
        return []  # quickly: most files
    return [each for each, count in Counter(replicas_of(root)).items() if count > 1]
