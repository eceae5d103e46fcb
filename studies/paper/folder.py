"""The output folder of a study: whose remains lie in it, and which parts of the work are done."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from langevin_nn.errors import ConfigurationError
from langevin_nn.provenance import plain, versions
from langevin_nn.store import check_writable
from langevin_nn.store.durable import json_text, write_json
from langevin_nn.store.resumption import refuse_another

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

__all__ = ["begin", "finish", "words_of"]

_NOT_OF_THE_RUN = ("out", "data_dir", "resume", "workers")


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


def begin(config: DataclassInstance, study: str, out: Path, *, resume: bool) -> Path:
    """Return the folder for the runs of a study, empty or with the remains of the same study.

    Parameters
    ----------
    config : dataclass
        What was chosen, all of it.
    study : str
        Its name.
    out : Path
        The output folder.
    resume : bool
        Whether to go on with what lies there.

    Returns
    -------
    Path
        ``runs`` in the output folder. Each part of the work goes to a file of its own, through ``simulate(resume=...)`` or
        ``sweep``, which find what is done.

    Raises
    ------
    ConfigurationError
        If another run's remains are to be gone on with, or a run that did not end would be overwritten.
    """
    check_writable(out)
    runs = out / "runs"
    about, summary, claims = runs / "configuration.json", out / "summary.json", out / "claims.json"
    described = {"study": study, "choices": words_of(config)}
    if about.exists() and not resume:
        if not summary.exists():
            raise ConfigurationError(
                f"{str(out)!r} holds a run that did not end: expected none; go on with it (--resume), remove the folder, or "
                "write to another --out"
            )
        shutil.rmtree(runs)
    if about.exists():
        refuse_another(about.read_text(), described, str(out))
    for results in (summary, claims):  # of an earlier run must not pass for this one's
        results.unlink(missing_ok=True)
    runs.mkdir(parents=True, exist_ok=True)
    write_json(about, {**described, "versions": versions()}, indent=None)
    return runs


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
