"""Files of older versions of the schema, brought to this one when they are opened."""

from __future__ import annotations

from collections.abc import Callable

import xarray as xr

from langevin_nn.errors import ConfigurationError
from langevin_nn.schema import SCHEMA_VERSION

__all__ = ["MIGRATIONS", "migrated"]


def _from_1_0(tree: xr.DataTree) -> xr.DataTree:
    """1.0 had no labels of replicas where nothing was recorded in the root, and kept text without a checksum."""
    root = tree.to_dataset(inherit=False)
    if "replica" in root.coords:
        return tree
    below = [node for node in tree.subtree if "replica" in node.to_dataset(inherit=False).coords]
    if not below:
        return tree
    groups = {node.path: node.to_dataset(inherit=False) for node in tree.subtree}
    groups["/"] = root.assign_coords(replica=below[0].to_dataset(inherit=False)["replica"])
    brought = xr.DataTree.from_dict(groups)
    brought.attrs.update(tree.attrs)
    return brought


def _from_1_1(tree: xr.DataTree) -> xr.DataTree:
    """1.1 held the package's own variables only, which need no declaration, and named a user's class without its module."""
    return tree


# From which version, to which, and how; followed one after the other.
MIGRATIONS: dict[str, tuple[str, Callable[[xr.DataTree], xr.DataTree]]] = {
    "1.0": ("1.1", _from_1_0),
    "1.1": ("1.2", _from_1_1),
}


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(each) for each in version.split("."))


def migrated(tree: xr.DataTree, name: str) -> xr.DataTree:
    """Return a trajectory in this version of the schema; raise ConfigurationError where it says no known one."""
    version = str(tree.attrs.get("schema_version", ""))
    try:
        newer = _numbers(version) > _numbers(SCHEMA_VERSION)
    except ValueError:
        raise ConfigurationError(
            f"{name!r} says schema_version={version!r}: expected a trajectory of langevin_nn, which says {SCHEMA_VERSION} or "
            "an older one; open other files with xarray"
        ) from None
    if newer:
        raise ConfigurationError(
            f"{name!r} has schema_version {version}, this langevin_nn knows {SCHEMA_VERSION} and older ones: expected no "
            "newer one, whose names may mean something else; update langevin_nn"
        )
    while version != SCHEMA_VERSION:
        if version not in MIGRATIONS:
            known = ", ".join([*MIGRATIONS, SCHEMA_VERSION])
            raise ConfigurationError(f"{name!r} has schema_version {version}: expected one of {known}")
        version, step = MIGRATIONS[version]
        tree = step(tree)
        tree.attrs["schema_version"] = version
    return tree
