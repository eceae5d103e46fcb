"""The frame of every study: what is chosen, settled, measured, decided and drawn, in this order, each in its place."""

from __future__ import annotations

import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar, cast

import xarray as xr

from langevin_nn.checks import kind_of, one_of
from langevin_nn.figures import write_figures
from langevin_nn.progress import Whole
from langevin_nn.provenance import attributes, versions
from langevin_nn.report import say
from langevin_nn.store import Parts, write_trajectory
from langevin_nn.store.durable import write_json
from studies.lab.claims import Claim, write_claims
from studies.lab.command import Command, Output, checked, sized, words_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["SUMMARY_VERSION", "Answer", "Output", "Study", "Work"]

SUMMARY_VERSION = "2.0"  # docs/summary.md
_FEW = 100  # numbers that a summary takes by itself

C = TypeVar("C", bound=Output)  # what can be chosen
S = TypeVar("S", bound=Output)  # the same, of which all is settled
F = TypeVar("F")  # what is found


@dataclass(frozen=True)
class Work:
    """Where the parts of a study lie, and how far it has come.

    Parameters
    ----------
    parts : Parts
        Their folder.
    progress : Whole
        Of all of them.
    """

    parts: Parts
    progress: Whole

    @property
    def folder(self) -> Path:
        """Where they lie."""
        return self.parts.folder

    def path(self, name: str) -> Path:
        """Return the file of a part, for ``simulate(resume=...)``, or the folder of a sweep.

        Parameters
        ----------
        name : str
            Of the file or folder.

        Returns
        -------
        Path
            Whether or not it is there.
        """
        return self.folder / name

    def kept(self, name: str, make: Callable[[], xr.Dataset]) -> xr.Dataset:
        """Return what is made once, and found from then on.

        Parameters
        ----------
        name : str
            Of its file, without its suffix.
        make : callable
            Gives the dataset.

        Returns
        -------
        xarray.Dataset
            In memory, as the file has it, but for what the file says of itself.
        """
        found = self.parts.kept(name, make).to_dataset()
        own = {key: each for key, each in found.attrs.items() if key not in attributes({})}
        return found.drop_attrs(deep=False).assign_attrs(own)

    @contextmanager
    def part(self, name: str, runs: int = 1) -> Iterator[None]:
        """Do a part of the plan; of a study without one, whatever it is.

        Parameters
        ----------
        name : str
            As the plan has it.
        runs : int, optional
            How many simulations or sweeps it makes, one after the other.

        Yields
        ------
        None
            While it is done.

        Raises
        ------
        UnknownNameError
            If the plan has no such part.
        """
        known = self.progress.parts
        with self.progress.part(one_of("part of the plan", name, known), runs) if known else nullcontext():
            yield


@dataclass(frozen=True)
class Answer(Generic[S, F]):
    """What a study says.

    Parameters
    ----------
    settled : dataclass
        What was run.
    found : object
        What was measured.
    claims : tuple of Claim
        With their findings.
    verdict : str
        In words.
    """

    settled: S
    found: F
    claims: tuple[Claim, ...]
    verdict: str


class Study(ABC, Generic[C, S, F]):
    """A question, and how it is answered.

    The docstring of its module is what ``--help`` begins with. A study says what can be chosen, settles it, and measures;
    from what was measured follow tables, claims, a verdict, a summary and figures. The frame refuses what is in the way,
    keeps what is done, goes on after a kill, shows how far the whole has come, and writes results in the order in which they
    matter, figures last, so that no fault in a later one loses an earlier one.

    One of one's own needs ``name``, ``choices``, ``measure`` and ``verdict``. What was found is then a dataset, or several by
    group, which go into the table; the few numbers in them, into the summary. Whatever else it says takes the place of that.

    Attributes
    ----------
    name : str
        Of the folder in ``studies`` and of the command.
    choices : type
        The dataclass of what can be chosen; docstrings of its fields are what ``--help`` says of each.
    quick : mapping
        What ``--quick`` takes in the place of what was not chosen.
    table : str
        File of what was measured; found.nc unless given.
    drawn : sequence of str
        Names of the figures.
    has_claims : bool
        Whether claims of the paper are decided.
    """

    name: ClassVar[str]
    choices: type[C]
    quick: ClassVar[Mapping[str, Any]] = {}
    table: ClassVar[str] = "found.nc"
    drawn: ClassVar[Sequence[str]] = ()
    has_claims: ClassVar[bool] = False

    def settle(self, choices: C) -> S:
        """Return what is run, with everything chosen, before anything runs.

        Parameters
        ----------
        choices : dataclass
            Checked for their types.

        Returns
        -------
        dataclass
            With nothing left open.

        Raises
        ------
        ConfigurationError
            If a choice cannot be run, or tells nothing.
        """
        return cast("S", choices)

    def plan(self, settled: S) -> Mapping[str, float]:
        """Return the parts of the work.

        Parameters
        ----------
        settled : dataclass
            Of `settle`.

        Returns
        -------
        mapping of str to float
            What each costs, in any unit; without any, each run shows its own bar.
        """
        return {}

    @abstractmethod
    def measure(self, settled: S, work: Work) -> F:
        """Do the work, part by part, or find what is done.

        Parameters
        ----------
        settled : dataclass
            Of `settle`.
        work : Work
            Where it lies, and how far it is.

        Returns
        -------
        object
            What was found: a dataset, a mapping of them by group, or what `tables` takes.
        """

    def tables(self, settled: S, found: F) -> Mapping[str, xr.Dataset]:
        """Return what goes into the table's file.

        Parameters
        ----------
        settled : dataclass
            Of `settle`.
        found : object
            Of `measure`.

        Returns
        -------
        mapping of str to xarray.Dataset
            By group; the root is named "".

        Raises
        ------
        TypeError
            If what was found is no dataset and no mapping of them.
        """
        several = isinstance(found, Mapping) and not isinstance(found, xr.Dataset)
        tables = cast("Mapping[str, xr.Dataset]", found if several else {"": found})
        for each in tables.values():
            if not isinstance(each, xr.Dataset):
                raise TypeError(
                    f"measure() of {self.name} returned {kind_of(each)}: expected a Dataset, or a mapping of them by group; "
                    "give tables() to say what of it goes into the file"
                )
        return tables

    def claims(self, settled: S, found: F) -> Sequence[Claim]:
        """Return claims of the paper.

        Parameters
        ----------
        settled : dataclass
            Of `settle`.
        found : object
            Of `measure`.

        Returns
        -------
        sequence of Claim
            Decided.
        """
        return ()

    @abstractmethod
    def verdict(self, answer: Answer[S, F]) -> str:
        """Return what was found, in words.

        Parameters
        ----------
        answer : Answer
            Whose verdict is empty as yet.

        Returns
        -------
        str
            Of one line or several.
        """

    def summary(self, answer: Answer[S, F]) -> dict[str, Any]:
        """Return the numbers of this question, for ``found`` in summary.json.

        Parameters
        ----------
        answer : Answer
            What was found.

        Returns
        -------
        dict
            By name: small variables of the tables unless given.
        """
        tables = self.tables(answer.settled, answer.found)
        return {
            f"{group}_{name}" if group and len(tables) > 1 else str(name): each.values
            for group, table in tables.items()
            for name, each in table.items()
            if each.size <= _FEW
        }

    def figures(self, answer: Answer[S, F]) -> Mapping[str, Figure]:
        """Return the figures.

        Parameters
        ----------
        answer : Answer
            What was found.

        Returns
        -------
        mapping of str to Figure
            By the names in ``drawn``.
        """
        return {}

    @property
    def results(self) -> tuple[str, ...]:
        """The files that are written beside the runs."""
        claims = ("claims.json",) if self.has_claims else ()
        return (self.table, *claims, "summary.json", *(f"{name}.png" for name in self.drawn))

    def run(self, choices: C) -> Answer[S, F]:
        """Answer the question, and write the results.

        Parameters
        ----------
        choices : dataclass
            What was chosen.

        Returns
        -------
        Answer
            What was found.

        Raises
        ------
        ConfigurationError
            If a choice cannot be run, or an earlier run that would be lost is in the way.
        """
        asked = checked(choices)
        settled = self.settle(sized(asked, self.quick) if asked.quick else asked)
        started = time.perf_counter()
        parts = self.begin(settled)
        plan = self.plan(settled)
        progress = Whole(self.name, plan, hidden=not plan)
        try:
            found = self.measure(settled, Work(parts, progress))
        finally:
            progress.close()
        return self._answered(settled, found, started)

    def begin(self, settled: S) -> Parts:
        """Return the folder for the runs.

        Parameters
        ----------
        settled : dataclass
            Of `settle`.

        Returns
        -------
        Parts
            Empty, or with the remains of the same study.

        Raises
        ------
        ConfigurationError
            If an earlier run that would be lost is in the way.
        """
        return Parts.begin(
            settled.out / "runs",
            _described(self.name, settled),
            results=[settled.out / name for name in self.results],
            resume=settled.resume,
            overwrite=settled.overwrite,
        )

    def _answered(self, settled: S, found: F, started: float) -> Answer[S, F]:
        """Write what follows from what was found, figures last."""
        write_tables(settled.out / self.table, self.name, settled, self.tables(settled, found))
        claims = tuple(self.claims(settled, found))
        if self.has_claims:
            write_claims(settled.out / "claims.json", claims)
        answer = Answer(settled, found, claims, "")
        answer = Answer(settled, found, claims, self.verdict(answer))
        whole = {
            "summary_version": SUMMARY_VERSION,
            "study": self.name,
            "verdict": answer.verdict.splitlines(),
            "found": self.summary(answer),
            "choices": words_of(settled),
            "versions": versions(),
            "seconds": round(time.perf_counter() - started, 1),
        }
        write_json(settled.out / "summary.json", whole)
        figures = self.figures(answer)
        for name in figures:
            one_of("figure", name, self.drawn)  # what is not in `drawn` is not held against what is there
        write_figures(figures, settled.out)
        return answer

    def main(self, arguments: list[str] | None = None) -> int:
        """Be the command ``python -m studies.NAME``.

        Parameters
        ----------
        arguments : list of str, optional
            Those of the command line unless given.

        Returns
        -------
        int
            0; 1 for a fault of the study; 2 for bad input; 3 for dynamics that diverged; 130 for an interrupt.
        """

        def told(choices: C) -> None:
            say(self.run(choices).verdict)
            runs = ["runs/"] if (choices.out / "runs").is_dir() else []
            say(f"\nResults are in {choices.out}: {', '.join([*runs, *self.results])}.")

        module = type(self).__module__  # its class has a docstring of its own
        file = Path(sys.argv[0]).name if module == "__main__" else None
        return Command(self.name, self.choices, sys.modules[module].__doc__, told, file)(arguments)


def write_tables(path: Path, study: str, settled: Output, tables: Mapping[str, xr.Dataset]) -> None:
    """Write what a study measured; a file whose root is empty says where to look.

    Parameters
    ----------
    path : Path
        The file.
    study : str
        Its name.
    settled : dataclass
        What was run.
    tables : mapping of str to xarray.Dataset
        By group; that of the root is named "".
    """
    tree = xr.DataTree.from_dict({f"/{name}": each for name, each in tables.items()})
    tree.attrs.update(attributes(_described(study, settled)))
    if "" not in tables:
        names = ", ".join(tables)
        tree.attrs["comment"] = f"tables lie in the groups {names}: xarray.open_dataset(path, group=...) opens one"
    write_trajectory(tree, path, overwrite=True)


def _described(study: str, settled: Output) -> dict[str, Any]:
    return {"study": study, "choices": words_of(settled)}
