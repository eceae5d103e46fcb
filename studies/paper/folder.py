"""The output folder of a study: whose remains lie in it, and which parts of the work are done."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from langevin_nn.errors import ConfigurationError
from langevin_nn.provenance import plain, versions
from langevin_nn.store import check_writable, refuse_finished
from langevin_nn.store.durable import json_text, write_json
from langevin_nn.store.resumption import refuse_another
from studies.command import Output

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

__all__ = ["begin", "finish", "words_of"]

_NOT_OF_THE_RUN = ("out", "data_dir", "resume", "overwrite", "workers")


def words_of(config: DataclassInstance) -> dict[str, Any]:
    """Return the choices that made the numbers; where they were written is none of them.

    Parameters
    ----------
    config : dataclass
        What was chosen.

    Returns
    -------
    dict of str to object
        As JSON has them.
    """
    chosen = {name: plain(value) for name, value in asdict(config).items() if name not in _NOT_OF_THE_RUN}
    words: dict[str, Any] = json.loads(json_text(chosen))
    return words


def begin(config: Output, study: str, results: Iterable[str], *, runs: str = "runs") -> Path:
    """Return the folder for the runs of a study, empty or with the remains of the same study.

    Parameters
    ----------
    config : Output
        What was chosen, all of it.
    study : str
        Its name.
    results : iterable of str
        The files that it writes beside its runs; summary.json, by which it counts as done, among them.
    runs : str, optional
        Name of the folder.

    Returns
    -------
    Path
        Each part of the work goes to a file of its own there, through ``simulate(resume=...)`` or ``sweep``, which find what
        is done.

    Raises
    ------
    ConfigurationError
        If another run's remains are to be gone on with, or a run would be overwritten: one that did not end, or one that did
        and is not to be overwritten.
    """
    check_writable(config.out)
    folder, there = config.out / runs, [config.out / name for name in results]
    about = folder / "configuration.json"
    described = {"study": study, "choices": words_of(config)}
    if about.exists() and config.resume:
        refuse_another(about.read_text(), described, str(config.out))
    else:
        _refuse_others(config.out, folder, about)
        refuse_finished(*there, overwrite=config.overwrite, resume="" if config.resume else "resume=True (--resume)")
        for result in there:  # of an earlier run must not pass for this one's
            result.unlink(missing_ok=True)
        shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(exist_ok=True)
    write_json(about, {**described, "versions": versions()}, indent=None)
    return folder


def _refuse_others(out: Path, folder: Path, about: Path) -> None:
    """Raise where runs lie in the folder that did not end, or of which nobody knows what they are."""
    if about.exists() and not (out / "summary.json").exists():
        raise ConfigurationError(
            f"{str(out)!r} holds a run that did not end: expected none; go on with it (--resume), remove the folder, or "
            "write to another --out"
        )
    if not about.exists() and folder.exists() and any(not each.name.startswith(".") for each in folder.iterdir()):
        raise ConfigurationError(
            f"{str(folder)!r} holds files that do not say of which run they are: expected an empty folder; remove it, or "
            "write to another --out"
        )


def finish(summary: dict[str, Any], config: DataclassInstance, study: str, out: Path, seconds: float) -> None:
    """Write summary.json, by which a study counts as done.

    Parameters
    ----------
    summary : dict
        What was found.
    config : dataclass
        What was chosen.
    study : str
        Its name.
    out : Path
        The output folder.
    seconds : float
        How long it took.
    """
    whole = {
        "study": study,
        **summary,
        "choices": words_of(config),
        "versions": versions(),
        "seconds": round(seconds, 1),
    }
    write_json(out / "summary.json", whole)
