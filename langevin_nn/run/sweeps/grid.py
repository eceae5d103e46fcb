"""Which points a sweep visits: products, lists, log-spaced and random values."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from itertools import product
from math import isfinite
from typing import Any

import numpy as np

from langevin_nn.checks import instance, kind_of, listed, number, shown, whole_number
from langevin_nn.errors import ConfigurationError

__all__ = ["Point", "log_spaced", "log_uniform", "points_of", "random_points", "uniform"]

Point = dict[str, Any]
Range = Callable[[np.random.Generator], Any]


def log_spaced(start: float, stop: float, count: int) -> tuple[float, ...]:
    """Return numbers whose logarithms are equidistant.

    Parameters
    ----------
    start, stop : float
        The first and the last, positive.
    count : int
        How many, at least 2.

    Returns
    -------
    tuple of float
        Both ends are exact.

    Raises
    ------
    ConfigurationError
        If an end is not positive, or there are fewer than two numbers.

    Examples
    --------
    >>> log_spaced(0.01, 1, 3)
    (0.01, 0.1, 1.0)
    """
    ends = [
        number(name, each, "a positive, finite number, since it has a logarithm", above=0)
        for name, each in (("start", start), ("stop", stop))
    ]
    many = whole_number("count", count, "at least 2 numbers, the two ends", least=2)
    inner = np.geomspace(ends[0], ends[1], many)[1:-1].tolist()
    return (ends[0], *(float(f"{each:.12g}") for each in inner), ends[1])


def uniform(low: float, high: float) -> Range:
    """Return a range for `random_points`, in which all numbers are alike.

    Parameters
    ----------
    low, high : float
        Its ends.

    Returns
    -------
    callable
        From a generator to a number.

    Raises
    ------
    ConfigurationError
        If an end is not finite, or they are in the wrong order.
    """
    ends = _ends(low, high)
    return lambda generator: float(generator.uniform(*ends))


def log_uniform(low: float, high: float) -> Range:
    """Return a range for `random_points`, in which all ratios are alike.

    Parameters
    ----------
    low, high : float
        Its ends, positive.

    Returns
    -------
    callable
        From a generator to a number.

    Raises
    ------
    ConfigurationError
        If an end is not positive and finite, or they are in the wrong order.
    """
    ends = _ends(low, high)
    number("low", low, "a positive number, since it has a logarithm", above=0)
    return lambda generator: float(np.exp(generator.uniform(*np.log(ends))))


def _ends(low: float, high: float) -> tuple[float, float]:
    below = number("low", low, "a finite number, the lower end of the range")
    above = number("high", high, "a finite number above the lower end of the range", least=below)
    return below, above


def random_points(count: int, seed: int, **ranges: Any) -> list[Point]:
    """Return points drawn at random, which tell more of many parameters than a product of few values each.

    Compare Bergstra & Bengio, *Random search for hyper-parameter optimization* (JMLR 13, 281, 2012).

    Parameters
    ----------
    count : int
        How many.
    seed : int
        The first points of a longer list with the same seed are the same.
    **ranges : callable or sequence
        `uniform`, `log_uniform`, or values from which one is chosen.

    Returns
    -------
    list of dict
        For `sweep`.

    Raises
    ------
    ConfigurationError
        If there are no ranges, or one has no values.

    Examples
    --------
    >>> points = random_points(2, 0, learning_rate=log_uniform(0.01, 1), batch_size=[10, 25])
    >>> [sorted(point) for point in points]
    [['batch_size', 'learning_rate'], ['batch_size', 'learning_rate']]
    """
    many = whole_number("count", count, "at least 1 point", least=1)
    start = whole_number("seed", seed, "a whole number from 0, from which the points follow", least=0)
    if not ranges:
        raise ConfigurationError(
            "no ranges came: expected at least one, learning_rate=log_uniform(0.01, 1) for example"
        )
    choices = {name: each if callable(each) else _values(name, each) for name, each in ranges.items()}
    points = []
    for position in range(many):
        generator = np.random.default_rng([start, position])
        points.append(
            {
                name: each(generator) if callable(each) else each[int(generator.integers(len(each)))]
                for name, each in choices.items()
            }
        )
    return points


def points_of(grid: Any) -> list[Point]:
    """Return the points of a grid.

    Parameters
    ----------
    grid : mapping or sequence of mappings
        Names with the values of each, whose product is taken, the first name varying slowest; or the points themselves.

    Returns
    -------
    list of dict
        Values are numbers, text, None, or tuples of them.

    Raises
    ------
    ConfigurationError
        If there are no points, names differ between them, one comes twice, or a value cannot be kept in a file.

    Examples
    --------
    >>> points_of({"label_noise": [0, 0.5], "seed": range(2)})[1]
    {'label_noise': 0, 'seed': 1}
    """
    if isinstance(grid, Mapping):
        if not grid:
            raise ConfigurationError("the grid is empty: expected names with the values of each; give at least one")
        axes = {_name(name): _values(str(name), values) for name, values in grid.items()}
        points = [dict(zip(axes, values, strict=True)) for values in product(*axes.values())]
    else:
        expected = "a mapping of names to values, whose product is swept, or a list of points, each a mapping"
        points = []
        for each in listed("grid", grid, expected):
            instance("a point of the grid", each, Mapping, "a mapping of names to one value each")
            points.append({_name(name): _value(str(name), value) for name, value in each.items()})
    if not points or not points[0]:
        raise ConfigurationError("the grid has no points: expected at least one value of each name")
    names = set(points[0])
    for position, point in enumerate(points):
        if set(point) != names:
            odd = ", ".join(sorted(names ^ set(point)))
            raise ConfigurationError(
                f"point {position} and the first differ in having {odd}: expected the same names in all points, since each "
                "becomes a coordinate; give it everywhere"
            )
    seen: dict[tuple[Any, ...], int] = {}
    for position, point in enumerate(points):
        said = tuple(point[name] for name in points[0])  # 1 and 1.0 are one value
        if said in seen:
            raise ConfigurationError(
                f"point {position} is point {seen[said]} again, {shown(point)}: expected each once, since the same "
                "configuration gives the same run; leave it out, or sweep the seed"
            )
        seen[said] = position
    return points


def _name(name: Any) -> str:
    if not isinstance(name, str) or not name.isidentifier() or name in ("point", "replica", "step"):
        raise ConfigurationError(
            f"{shown(name)} is swept: expected the name of an argument other than point, replica and step, which are "
            "dimensions of the result"
        )
    return name


def _values(name: str, values: Any) -> tuple[Any, ...]:
    if isinstance(values, str | Mapping) or not isinstance(values, Iterable):
        raise ConfigurationError(
            f"{name} has the values {shown(values)} ({kind_of(values)}): expected a sequence, since it is swept; put a "
            "single value into a list"
        )
    found = tuple(_value(name, each) for each in values)
    if not found:
        raise ConfigurationError(f"{name} has no values: expected at least one, since a product with none is empty")
    return found


def _value(name: str, value: Any) -> Any:
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, list | tuple):
        return tuple(_value(name, each) for each in value)
    if value is None or isinstance(value, str | bool | int) or (isinstance(value, float) and isfinite(value)):
        return value
    raise ConfigurationError(
        f"{name} has the value {shown(value)} ({kind_of(value)}): expected a finite number, text, None, or a tuple of them, "
        "since points are kept in files; let the function turn a name into what it needs"
    )
