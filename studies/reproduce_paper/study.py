"""Reproduce Feng & Tu (2021), figure by figure, and say plainly what reproduces.

Runs the studies of the paper one after the other, each into a folder of its own, and writes report.html: for each of the
fourteen claims what the paper says, what came out with its interval over replicas, the verdict (reproduced, partly, not,
undecided, too short to say) and the picture. Nothing outside that one file is needed to read it. A study that is done is not
run again with --resume.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any

import tyro

from langevin_nn.checks import one_of, whole_number
from langevin_nn.errors import ConfigurationError, LangevinError, StorageError
from langevin_nn.progress import Whole, in_words
from langevin_nn.provenance import plain, versions
from langevin_nn.report import say
from langevin_nn.store import check_writable, refuse_finished
from langevin_nn.store.durable import write_durably, write_json
from models.datasets import DATA_VARIABLE, DATASETS
from studies.lab.choices import DEVIATIONS, UNLESS_GIVEN
from studies.lab.claims import CLAIMS, VERDICTS, claims_from
from studies.lab.command import BAD_INPUT, Command, Output, checked, fault
from studies.lab.named import dataset_help
from studies.reproduce_paper.page import Part, page, verdict_of

__all__ = ["PARTS", "Config", "Planned", "main", "run", "verdicts"]


@dataclass(frozen=True)
class Planned:
    """A study that is to be run.

    Parameters
    ----------
    study : str
        Module in ``studies``.
    minutes : float
        How long it takes on two cores: its share of the whole.
    options : tuple of (str, object), optional
        What it gets in the place of its defaults.
    """

    study: str
    minutes: float
    options: tuple[tuple[str, Any], ...] = ()

    @property
    def needs_files(self) -> bool:
        """Whether it runs only where a data folder is named."""
        dataset = dict(self.options).get("dataset")
        return dataset is not None and DATASETS[dataset].needs_files


NAME = "reproduce_paper"
RESULTS = ("report.html",)
PARTS = {
    "two_phases": Planned("two_phases", 13.0),
    "label_noise_phases": Planned("label_noise_phases", 12.0),
    "label_noise_sweep": Planned("label_noise_sweep", 19.0),
    "cleaning": Planned("cleaning", 19.0),
    "label_noise_phases_cifar10": Planned("label_noise_phases", 33.0, (("dataset", "cifar10"), ("replicas", 4))),
}


@dataclass(frozen=True)
class Config(Output):
    """Everything that can be chosen."""

    studies: tuple[str, ...] = tuple(PARTS)
    """Which studies to run; the report has the claims that they measure."""
    dataset: Annotated[str | None, tyro.conf.arg(help=dataset_help(f"{UNLESS_GIVEN}; CIFAR-10 is one more"))] = None
    data_dir: Path | None = None
    """Folder with the files of data sets that need them; the variable LANGEVIN_NN_DATA unless given."""
    replicas: int | None = None
    """Replicas in every study; as many as each takes by itself unless given."""
    seed: int = 0
    """Owner of all randomness."""
    device: str = "cpu"
    """Where to compute: cpu, or cuda for a GPU."""
    out: Path = field(default=Path("output/reproduce_paper"))
    """Folder for report.html and a folder of each study."""


def run(config: Config) -> list[Part]:
    """Run the studies and write the report.

    Parameters
    ----------
    config : Config
        What was chosen.

    Returns
    -------
    list of Part
        What each study gave; a study that had a problem says which, and does not stop the others.

    Raises
    ------
    ConfigurationError
        If a choice cannot be run.
    StorageError
        If the disk fails; what is done stays, and --resume goes on from there.
    """
    config = checked(config)
    planned = _planned(config)
    check_writable(config.out)
    refuse_finished(
        *(config.out / name for name in RESULTS),
        overwrite=config.overwrite,
        resume="resume=True (--resume)",
        resuming=config.resume,
    )
    started, parts = time.perf_counter(), []
    progress = Whole(NAME, {name: PARTS[name].minutes for name in planned})
    try:
        for number, name in enumerate(planned, 1):
            say(f"\n[{number} of {len(planned)}] {name}")
            with progress.part(name):  # the study's own account tells this one
                parts.append(_part(name, config))
            gone = time.perf_counter() - started
            say(f"{name}: {parts[-1].problem or 'done'}, {in_words(gone)} so far")
            _write(parts, config, gone)  # what is done can be read while the rest runs
    finally:
        progress.close()
    return parts


def _planned(config: Config) -> list[str]:
    for each in config.studies:
        one_of("study", each, PARTS)
    if not config.studies or len(set(config.studies)) < len(config.studies):
        raise ConfigurationError(
            f"studies={config.studies}: expected at least one, each of them once, since each has one folder; known are "
            f"{', '.join(PARTS)}"
        )
    if config.replicas is not None:
        whole_number(
            "replicas", config.replicas, "at least 2 (int), since claims are held to intervals over replicas", least=2
        )
    has_files = config.data_dir is not None or bool(os.environ.get(DATA_VARIABLE))
    chosen = [name for name in config.studies if has_files or not PARTS[name].needs_files]
    for name in config.studies:
        if name not in chosen:
            say(f"{name} is left out: it needs files, whose folder is named by --data-dir or {DATA_VARIABLE}.")
    if config.quick:
        chosen = [name for name in chosen if not PARTS[name].needs_files]
    return chosen


def _part(name: str, config: Config) -> Part:
    """Run a study, or find it done; a study that fails does not stop the others."""
    planned, folder = PARTS[name], config.out / name
    options: dict[str, Any] = {
        "data_dir": config.data_dir,
        "seed": config.seed,
        "device": config.device,
        "out": folder,
        "quick": config.quick,
        **({} if config.dataset is None else {"dataset": config.dataset}),
        **dict(planned.options),
        **({} if config.replicas is None else {"replicas": config.replicas}),
    }
    mark = folder / "reproduced.json"
    said = {"options": {key: plain(each) for key, each in options.items() if key != "out"}, "versions": versions()}
    if config.resume and mark.is_file() and json.loads(mark.read_text()) == said:
        return _found(name, folder)
    started = time.perf_counter()
    module = import_module(f"studies.{planned.study}.study")
    try:
        if config.resume or config.overwrite:
            mark.unlink(missing_ok=True)
        module.STUDY.run(module.Config(**options, resume=config.resume, overwrite=config.overwrite))
    except StorageError:
        raise
    except LangevinError as error:
        return Part(name, folder, (), time.perf_counter() - started, str(error))
    except Exception as error:
        return Part(name, folder, (), time.perf_counter() - started, fault(error, folder))
    write_json(mark, said, indent=None)
    return _found(name, folder)


def _found(name: str, folder: Path) -> Part:
    summary = json.loads((folder / "summary.json").read_text())
    return Part(name, folder, claims_from(folder / "claims.json"), float(summary["seconds"]))


def _write(parts: Sequence[Part], config: Config, seconds: float) -> None:
    about = {
        "command": f"python -m studies.{NAME} " + " ".join(_arguments(config)),
        "seed": str(config.seed),
        "versions": ", ".join(f"{name} {number}" for name, number in versions().items()),
        "took": f"{sum(part.seconds for part in parts) / 60:.1f} minutes in the studies, {seconds / 60:.1f} in this call",
    }
    write_durably(config.out / "report.html", page(parts, about=about, deviations=DEVIATIONS).encode())


def _arguments(config: Config) -> list[str]:
    said = [f"--dataset {config.dataset}"] if config.dataset else []
    said += [f"--replicas {config.replicas}"] if config.replicas else []
    said += [f"--studies {' '.join(config.studies)}"] if config.studies != Config.studies else []
    return [*said, f"--seed {config.seed}", f"--device {config.device}", *(["--quick"] if config.quick else [])]


def verdicts(parts: Sequence[Part]) -> str:
    """Return the verdicts in words.

    Parameters
    ----------
    parts : sequence of Part
        What the studies gave.

    Returns
    -------
    str
        A line for each claim.
    """
    lines = []
    for number, (statement, _) in CLAIMS.items():
        verdict = verdict_of([each for part in parts for each in part.claims if each.number == number])
        said = VERDICTS[verdict].split(",")[0]
        lines.append(f"{number:3d}  {said:17s}  {statement}")
    return "\n".join(lines)


def _study(config: Config) -> int:
    parts = run(config)
    say("\n" + verdicts(parts))
    say(f"\nThe report is {config.out / 'report.html'}; each study's results are in the folder of its name beside it.")
    broken = [part.name for part in parts if part.problem]
    if broken:
        print(f"error: no result from {', '.join(broken)}; mend what is wrong and go on with --resume", file=sys.stderr)
    return BAD_INPUT if broken else 0


main = Command(NAME, Config, __doc__, _study)  # no Study: it measures nothing itself, and its parts are studies
