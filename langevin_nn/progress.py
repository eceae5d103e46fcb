"""How far long work has come: bars on terminals, and one account of a work of several parts, also in a log."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from math import ceil
from time import monotonic
from typing import Any

from tqdm import tqdm

__all__ = ["Progress", "Whole", "in_words", "sample_bar"]

_LINE_SECONDS = 60.0  # between lines where there is no terminal
_SHOWN_SECONDS = 5.0  # from which work that is not a run shows how far it has come
_FOUND_SECONDS = 1.0  # a part that took less and showed no bar was found, not made
_watched: ContextVar[_Part | None] = ContextVar("watched", default=None)


def in_words(seconds: float) -> str:
    """Return a time from 0 s on as one says it.

    Returns
    -------
    str
        To the minute from two minutes on.

    Examples
    --------
    >>> in_words(61.2), in_words(150), in_words(7260)
    ('61 s', '3 min', '2 h 1 min')
    """
    hours, minutes = divmod(ceil(round(seconds) / 60), 60)
    return f"{seconds:.0f} s" if seconds < 120 else f"{hours} h {minutes} min" if hours else f"{minutes} min"


class Progress(tqdm):  # type: ignore[misc]
    """A bar of one piece of work; inside a `Whole` it tells that one instead of drawing itself.

    Parameters
    ----------
    **options : object
        Of `tqdm.tqdm`, by name: total, initial, desc, unit, disable.
    """

    def __init__(self, **options: Any) -> None:
        self._told = None if options.get("disable") else _watched.get()
        self._total, self._count = options["total"], options.get("initial", 0)
        super().__init__(**{**options, "disable": True if self._told else options.get("disable")})
        if self._told is not None:
            self.n = self._count  # a bar that is not drawn does not count
            self._told.begin(self._count / max(1, self._total))

    @property
    def is_seen(self) -> bool:
        """Whether anybody is told."""
        return self._told is not None or not self.disable

    def update(self, n: float | None = 1) -> bool | None:
        """Say that `n` more is done; return whether the bar was drawn."""
        if self._told is None:
            drawn: bool | None = super().update(n)
            return drawn
        self.n += n or 0
        self._told.at(self.n / max(1, self._total))
        return None

    def close(self) -> None:
        """End the bar."""
        told, self._told = getattr(self, "_told", None), None
        if told is not None:
            told.end()
        super().close()


def sample_bar(name: str, n_samples: int) -> tqdm:
    """Return a bar over samples that shows itself after five seconds, on a terminal; a context manager.

    Parameters
    ----------
    name : str
        What is done with each.
    n_samples : int
        How many.

    Returns
    -------
    tqdm.tqdm
        To be told by ``update(n)``.
    """
    return tqdm(total=n_samples, desc=name, unit=" samples", delay=_SHOWN_SECONDS, disable=None, leave=False)


class Whole:
    """Progress of a work of several parts, and what remains: a bar on a terminal, else a line a minute.

    Parameters
    ----------
    name : str
        Of the work.
    costs : mapping of str to float
        What each part costs, in any unit.
    hidden : bool, optional
        Whether nothing is shown.

    Examples
    --------
    >>> whole = Whole("work", {"first": 3, "second": 1}, hidden=True)
    >>> with whole.part("first"):
    ...     with Progress(total=10) as bar:
    ...         for _ in range(5):
    ...             _ = bar.update()
    ...         whole.share
    0.375
    >>> whole.share
    0.75
    """

    def __init__(self, name: str, costs: Mapping[str, float], *, hidden: bool = False) -> None:
        total = sum(costs.values())
        self._name, self._shares = name, {part: cost / total for part, cost in costs.items()}
        self._done, self._within, self._found, self._found_told = 0.0, 0.0, 0.0, 0.0
        self._started = self._said = monotonic()
        self._above, self._hidden = _watched.get(), hidden
        self._bar: Any = None
        if self._above is None and not hidden and sys.stderr.isatty():
            form = "{desc} {percentage:3.0f}%|{bar:30}|{postfix}"
            self._bar = tqdm(total=1.0, desc=name, bar_format=form, leave=False)

    @property
    def parts(self) -> tuple[str, ...]:
        """Their names."""
        return tuple(self._shares)

    @property
    def share(self) -> float:
        """What is done, of 1."""
        return self._done + self._within

    @contextmanager
    def part(self, name: str, runs: int = 1) -> Iterator[None]:
        """Do a part while it is entered; `runs` is how many bars it will show, one after the other."""
        part = _Part(self, name, self._shares[name], runs)
        if self._above is None and not self._hidden:
            self._show(name, anew=True)
        token = _watched.set(part)
        try:
            yield
        finally:
            _watched.reset(token)
        if not part.bars and monotonic() - part.started < _FOUND_SECONDS:
            self._found += part.share * (1 - part.found)
        self._done, self._within = self._done + part.share, 0.0
        self._tell(name)

    def close(self) -> None:
        """End the account."""
        if self._bar is not None:
            self._bar.close()

    def at(self, part: _Part, share: float, found: float) -> None:
        """Say which share of a part is done, and what more of it was found done."""
        self._within, self._found = part.share * share, self._found + part.share * found
        self._tell(part.name)

    def _tell(self, name: str) -> None:
        if self._above is not None:
            found, self._found_told = self._found - self._found_told, self._found
            self._above.at(self.share, found)
        elif not self._hidden:
            self._show(name)

    def _show(self, name: str, *, anew: bool = False) -> None:
        now, gone = monotonic(), monotonic() - self._started
        made, left = self.share - self._found, 1 - self.share
        remain = f"about {in_words(gone * left / made)} remain" if made > 1e-3 and gone > 1 else ""
        if self._bar is not None:
            self._bar.set_description_str(f"{self._name}: {name}", refresh=False)
            self._bar.set_postfix_str(remain, refresh=False)
            self._bar.update(self.share - self._bar.n)
            if anew:
                self._bar.refresh()
        elif now - self._said >= _LINE_SECONDS:
            self._said = now
            said = f", {remain}" if remain else ""
            print(f"{self._name}: {self.share:.0%} ({name}) after {in_words(gone)}{said}", file=sys.stderr, flush=True)


class _Part:
    """What bars tell while a part is done; `runs` of them come, one after the other."""

    def __init__(self, whole: Whole, name: str, share: float, runs: int) -> None:
        self.whole, self.name, self.share, self.runs = whole, name, share, runs
        self.bars, self.found, self.started = 0, 0.0, monotonic()

    def begin(self, found: float) -> None:
        """Say that a bar is there, of whose work a share was found done."""
        self.bars += 1
        self.whole.at(self, self._before(found), found / self.runs)

    def at(self, share: float, found: float = 0.0) -> None:
        """Say which share of the bar, or of the whole within, is done, and what more of it was found done."""
        self.found += found / self.runs
        self.whole.at(self, self._before(share), found / self.runs)

    def end(self) -> None:
        """Say that the bar is done."""
        self.at(1.0)

    def _before(self, share: float) -> float:
        return min(1.0, (max(0, self.bars - 1) + share) / self.runs)
