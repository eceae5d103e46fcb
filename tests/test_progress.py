"""One account of a work of several parts: shares, what was found done, lines in a log."""

from __future__ import annotations

import pytest

from langevin_nn import Process, progress, simulate, sweep
from langevin_nn.landscape import QuadraticLandscape
from langevin_nn.noise import Silent
from langevin_nn.progress import Progress, Whole

LANDSCAPE = QuadraticLandscape([[1.0]], [[0.0]], start=[1.0])


def run(seed, **options):
    return simulate(Process(LANDSCAPE, Silent(), 0.1), steps=100, replicas=1, seed=seed, **options)


def point(seed):
    return run(seed, progress=False).to_dataset()


def test_runs_and_sweeps_inside_a_part_tell_the_whole_and_draw_nothing(tmp_path, capsys):
    whole = Whole("work", {"two runs": 2, "sweep": 1, "rest": 1}, hidden=True)
    with whole.part("two runs", runs=2):
        run(0)
        assert whole.share == pytest.approx(0.25)
        run(1)
        assert whole.share == pytest.approx(0.5)
    with whole.part("sweep"):
        sweep(point, {"seed": [1, 2]}, tmp_path, workers=1)
        assert whole.share == pytest.approx(0.75)
    with whole.part("rest"):
        run(2, progress=False)
        assert whole.share == pytest.approx(0.75)
    assert whole.share == 1
    assert capsys.readouterr().err == ""


def test_where_there_is_no_terminal_it_says_a_line_now_and_then(capsys, monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(progress, "monotonic", lambda: clock[0])
    whole = Whole("work", {"first": 1, "second": 3})
    with whole.part("first"):
        pass  # found done, in no time: says nothing of how fast this machine is
    with whole.part("second"), Progress(total=300, initial=100) as bar:
        for _ in range(100):
            clock[0] += 1.5
            bar.update()
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "work: 60% (second) after 60 s, about 4 min remain"  # 40 of 200 updates a minute
    assert [line.split(",")[0] for line in lines[1:]] == ["work: 70% (second) after 2 min"]


def test_a_whole_inside_a_part_tells_the_one_above_also_what_it_found_done(capsys, monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(progress, "monotonic", lambda: clock[0])
    above = Whole("all", {"study": 1, "other": 1})
    with above.part("study"):
        below = Whole("study", {"found": 1, "made": 3})
        with below.part("found"):
            pass
        assert above.share == pytest.approx(0.125)
        with below.part("made"), Progress(total=3) as bar:
            clock[0] = 60.0
            bar.update()
    assert above.share == 0.5
    # An eighth was found, and another made in a minute.
    assert capsys.readouterr().err.splitlines() == ["all: 25% (study) after 60 s, about 6 min remain"]


def test_what_a_study_finds_at_once_is_not_counted_twice():
    above = Whole("all", {"study": 1, "other": 1}, hidden=True)
    with above.part("study"), Whole("study", {"found": 1}).part("found"):
        pass
    assert above._found == above.share == 0.5
