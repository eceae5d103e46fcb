"""A few cells of what ``make coverage`` counts, and the harness itself: intervals that are too short do not pass it."""

from __future__ import annotations

from dataclasses import replace

import pytest
from count_coverage import CELLS, Cell, main
from scipy.special import stdtrit

from langevin_nn.ensemble.alignment import Alignment
from langevin_nn.errors import EstimationRefused

REPETITIONS = 800


def cell(estimator: str, law: str, size: str) -> Cell:
    return next(each for each in CELLS if (each.estimator, each.law, each.size) == (estimator, law, size))


def shortened(whole: Cell) -> Cell:
    """A mutated twin: an interval a fifth shorter."""

    def interval(generator):
        lower, upper, truth = whole.interval(generator)
        return lower + 0.1 * (upper - lower), upper - 0.1 * (upper - lower), truth

    return replace(whole, interval=interval)


@pytest.mark.parametrize(
    ("estimator", "law", "size"),
    [
        ("`mean_with_interval`", "normal", "16 replicas"),
        ("`mean_with_interval`", "exponential", "16 replicas"),
        ("`jackknife` of a ratio", "exponential", "32 values"),
        ("`Alignment`", "angles of spread 0.3", "64 minibatches"),
        ("`time_average`", "autoregressive 0.5, normal shocks", "500 records"),
        ("`tail_index`, block sums", "stable 1.5, skew 0.8", "2000 samples"),
    ],
)
def test_intervals_hold_the_truth_and_shorter_ones_are_caught(estimator, law, size):
    whole = cell(estimator, law, size)
    assert not whole.count(REPETITIONS).misses
    assert shortened(whole).count(REPETITIONS).misses


def test_intervals_of_a_weak_alignment_hold_it_where_students_alone_do_not(monkeypatch):
    whole = cell("`Alignment`", "normal in 2 parameters, mean 0.2", "64 minibatches")
    assert not whole.count(REPETITIONS).misses

    def students(estimate):
        reach = stdtrit(estimate.n_minibatches - 1, 0.975) * estimate.standard_error
        return estimate.value - reach, estimate.value + reach

    monkeypatch.setattr(Alignment, "interval", students)
    assert whole.count(REPETITIONS).misses


def test_false_alarms_are_counted_and_too_many_are_caught():
    whole = cell("`swap_test`", "normal, 4 features", "16 pairs")
    assert not whole.count(REPETITIONS // 2).misses
    assert replace(whole, p_value=lambda generator: whole.p_value(generator) / 2).count(REPETITIONS // 2).misses


def test_a_refusal_is_no_answer_and_no_miss():
    counted = cell("`tail_index`, block sums", "Poisson(4)", "2000 samples").count(5)
    assert (counted.refused, counted.count.trials, counted.misses) == (5, 0, False)
    assert counted.row.endswith("| – | 100 | refuses |")

    def often(generator):
        if generator.random() < 0.5:
            raise EstimationRefused("too few")
        return -1.0, 1.0, 0.0

    half = Cell("an estimator", "a law", "a size", often).count(100)
    assert (half.count.share, half.misses) == (1, False)
    assert 30 < half.refused < 70


def test_a_miss_is_called_one_and_its_reason_is_printed():
    draw = {"hit": lambda generator: (-1.0, 1.0, 0.0), "miss": lambda generator: (1.0, 2.0, 0.0)}
    ends = {
        (name, note): Cell("an estimator", "a law", "a size", interval, note=note).count(20).row.split(" | ")[-1]
        for name, interval in draw.items()
        for note in ("", "skewed")
    }
    assert list(ends.values()) == ["holds |", "skewed |", "**misses** |", "skewed |"]


def test_the_table_keeps_the_rows_that_were_not_counted_again(tmp_path, capsys):
    table = tmp_path / "coverage.md"
    assert main(["--repetitions", "20", "--only", "jackknife", "--out", str(table)]) == 0
    assert main(["--repetitions", "20", "--only", "no_such", "--out", str(table)]) == 0
    assert table.read_text().count("| `jackknife` of a ratio |") == 6
    assert "0 missed" in capsys.readouterr().out
