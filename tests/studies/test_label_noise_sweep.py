"""The sweep of label noise: criteria on curves of known law and their twins, the study as a command, its figure."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from cases import ROOT, assert_on_paper
from hypothesis import given
from hypothesis import strategies as st

from langevin_nn.analyzers import Timescales
from langevin_nn.errors import ConfigurationError
from studies.lab.claims import claims_from
from studies.lab.lines import explained, slopes
from studies.lab.sweeps import record_times, whole_sweep
from studies.label_noise_sweep.claims import CRITERIA, claims_of, size_findings
from studies.label_noise_sweep.figures import label_noise_figure
from studies.label_noise_sweep.study import STUDY, Config, measures

NOISES = np.round(np.arange(20) * 0.05, 2)
REPLICAS = 5

# --- criteria on measures of known law


def measured(seed: int = 0, **laws) -> xr.Dataset:
    """Measures of five replicas: what the paper reports, but for the laws that are given instead, within 2 %."""
    rho = NOISES
    final = 0.06 + 0.84 * rho
    threshold = np.clip((rho - 0.65) / 0.25, 0, 1)
    paper = {
        "time_of_minimum": np.full(20, 30.0),
        "time_of_fit": 120 * np.exp(1.5 * rho),
        "final_test_error": final,
        "minimum_test_error": np.where(rho > 0, (0.04 + 0.1 * rho) * (1 - threshold) + 0.97 * final * threshold, 0.05),
        "rise": np.where(rho > 0, 0.3, np.nan),
        "has_four_phases": rho > 0.04,
    }
    generator = np.random.default_rng(seed)
    found = xr.Dataset(coords={"label_noise": rho, "clock": ["step", "epoch", "time"]}, attrs={"epochs": 500.0})
    for name, law in (paper | laws).items():
        values = np.broadcast_to(law, (REPLICAS, 20))
        if values.dtype != bool:
            values = values * np.exp(0.02 * generator.standard_normal((REPLICAS, 20)))
        array = xr.DataArray(values, dims=("replica", "label_noise"))
        found[name] = array.expand_dims(clock=3) if name.startswith("time") else array
    flags = xr.DataArray(np.zeros((REPLICAS, 20), dtype=bool), dims=("replica", "label_noise"))
    found = found.assign(is_censored=flags, minimum_is_last=flags)
    return found.assign_coords(mislabeled_fraction=("label_noise", 0.9 * rho))


def outcomes(found: xr.Dataset) -> dict[str, str]:
    """Outcomes by the name of their criterion."""
    names = {criterion.statistic: name for name, criterion in CRITERIA.items()}
    claims = claims_of(found, seed=0, figure="", setting="")
    return {names[each.criterion.statistic]: each.outcome for claim in claims for each in claim.findings}


def test_what_the_paper_reports_is_reproduced():
    for seed in range(3):
        four, six = claims_of(measured(seed), seed=seed, figure="a.png", setting="made up")
        assert (four.number, four.verdict) == (4, "reproduced"), four.in_words()
        assert (six.number, six.verdict) == (6, "reproduced"), six.in_words()
        assert all(each.effective_sample_size == REPLICAS for each in (*four.findings, *six.findings))


def test_every_criterion_is_asked_once():
    assert sorted(outcomes(measured())) == sorted(CRITERIA)


RHO = NOISES
TWINS = {
    "t_m that grows": ({"time_of_minimum": 30 * np.exp(2 * RHO)}, "t_m", "fails"),
    "t_m that falls": ({"time_of_minimum": 60 * np.exp(-2 * RHO)}, "t_m", "fails"),
    "t_f as t_m": ({"time_of_fit": np.full(20, 33.0)}, "t_m against t_f", "holds"),
    "t_f that falls": ({"time_of_fit": 120 * np.exp(-0.5 * RHO)}, "t_f", "fails"),
    "a square": ({"final_test_error": 0.06 + 0.84 * RHO**2}, "line", "fails"),
    "a root": ({"final_test_error": 0.06 + 0.84 * np.sqrt(RHO)}, "line", "fails"),
    "a linear minimum": ({"minimum_test_error": 0.05 + 0.8 * RHO}, "line of minimum", "holds"),
    "a minimum that rises from the start": ({"minimum_test_error": 0.05 + 0.8 * RHO}, "flat", "fails"),
    "a minimum without threshold": ({"minimum_test_error": 0.05 + 0.8 * RHO}, "sharp", "fails"),
    "a minimum that stays": ({"minimum_test_error": 0.05 + 0.05 * RHO}, "approach", "fails"),
    "a minimum flat to the end": ({"minimum_test_error": 0.05 + 0.05 * RHO}, "flat to the end", "holds"),
    "a final error with a threshold": (
        {"final_test_error": 0.06 + 0.1 * RHO + 3 * np.clip(RHO - 0.7, 0, None)},
        "sharp final",
        "holds",
    ),
    "no gap at a half": ({"minimum_test_error": 0.06 + 0.82 * RHO}, "apart", "holds"),
    "a gap without label noise": ({"final_test_error": 0.16 + 0.74 * RHO}, "rise without noise", "holds"),
    "no rise": ({"rise": np.full(20, 0.01)}, "rise", "fails"),
    "half of the range": ({"has_four_phases": (RHO > 0) & (RHO < 0.5)}, "four phases", "fails"),
    "phases where there are none": ({"has_four_phases": RHO >= 0}, "four phases without noise", "holds"),
}


@pytest.mark.parametrize(("laws", "criterion", "outcome"), TWINS.values(), ids=TWINS.keys())
def test_twins_of_another_law_are_told(laws, criterion, outcome):
    found = measured(**laws)
    assert outcomes(found)[criterion] == outcome
    assert {each.verdict for each in claims_of(found, seed=0, figure="", setting="")} != {"reproduced"}


def test_permuted_label_noise_explains_nothing():
    """Of 60 seeds a slope above 0 is seen in 2.5 %: at most 6, four binomial standard errors more."""
    found = measured()
    held = []
    for seed in range(60):
        six = claims_of(found, seed=seed, figure="", setting="")[1]
        held.append({each.criterion.statistic: each.outcome for each in six.findings})
    assert sum(each[CRITERIA["t_f shuffled"].statistic] == "holds" for each in held) <= 6
    assert all(each[CRITERIA["line shuffled"].statistic] == "fails" for each in held)


def test_censored_runs_are_left_out_and_said():
    found = measured()
    late = found.label_noise > 0.85
    for name in ("time_of_fit", "final_test_error"):
        found[name] = found[name].where(~late)
    found["is_censored"] = found.is_censored | late
    six = claims_of(found, seed=0, figure="", setting="")[1]
    assert "Not fitted by the end in 10 of 100 runs" in six.note
    said = {each.criterion.statistic: each for each in six.findings}
    assert said[CRITERIA["t_f"].statistic].outcome == "holds"
    assert said[CRITERIA["approach"].statistic].outcome == "not measured"
    assert six.verdict == "too short"
    assert "at label noise 0.9, 0.95: more than 500 epochs are needed, 1000 to begin with" in six.too_short
    assert said[CRITERIA["approach"].statistic].missing == REPLICAS


@given(st.integers(0, 10_000), st.integers(3, 12))
def test_lines_are_those_of_covariances(seed, length):
    generator = np.random.default_rng(seed)
    x, y = generator.standard_normal(length), generator.standard_normal((4, length))
    holed = y.copy()
    if length > 4:
        holed[1, 2] = np.nan
    for row, slope, share in zip(holed, slopes(x, holed), explained(x, holed), strict=True):
        known = np.isfinite(row)
        covariance = np.cov(x[known], row[known])
        assert slope == pytest.approx(covariance[0, 1] / covariance[0, 0])
        assert share == pytest.approx(covariance[0, 1] ** 2 / covariance[0, 0] / covariance[1, 1])
    assert np.isnan(slopes(x[:2], y[:, :2])).all()


@pytest.mark.parametrize(
    ("exponent", "held"), [(0.0, ("holds", "fails")), (1.0, ("fails", "holds")), (0.5, ("fails",) * 2)]
)
def test_times_are_told_to_depend_on_samples_in_updates_or_in_epochs(exponent, held):
    samples = np.array([500, 1000, 2000, 4000])
    noise = np.exp(0.02 * np.random.default_rng(1).standard_normal((4, 5)))
    updates = 10 * samples[:, None] ** exponent * noise
    times = xr.DataArray(
        np.stack([updates, updates * 25 / samples[:, None]]),
        dims=("clock", "point", "replica"),
        coords={"clock": ["step", "epoch"]},
    )
    found = size_findings(xr.Dataset({"time_of_minimum": times}, coords={"samples": ("point", samples)}))
    assert tuple(each.outcome for each in found) == held


# --- measures of curves with planted phases


def planted_runs(replicas: int = 2) -> xr.Dataset:
    """Errors that are lines between planted epochs: learned at 20, memorised from 60 to 100 + 100 ρ."""
    epoch = np.arange(0, 301, 4.0)
    noises = np.array([0.0, 0.3, 0.6])
    train, test = np.full((3, replicas, len(epoch), 3), np.nan), np.empty((3, replicas, len(epoch)))
    for k, rho in enumerate(noises):
        for r in range(replicas):
            end = 100 + 100 * rho + 8 * r
            correct = np.interp(epoch, [0, 20, 60, end], [0.9, 0.1, 0.1, 0])
            wrong = np.interp(epoch, [0, 20, 60, end], [0.9, 0.95, 0.95, 0])
            share = rho if rho else 0.0
            train[k, r, :, 0] = (1 - share) * correct + share * wrong
            train[k, r, :, 1] = correct
            if rho:
                train[k, r, :, 2] = wrong
            test[k, r] = np.interp(epoch, [0, 20, 40, 60, end], [0.9, 0.12, 0.1, 0.12, 0.12 + 0.8 * rho])
    return xr.Dataset(
        {
            "test_error": (("label_noise", "replica", "step"), test),
            "train_error": (("label_noise", "replica", "step", "cohort"), train),
        },
        coords={
            "label_noise": noises,
            "cohort": ["all", "correct", "mislabeled"],
            "step": 10 * np.arange(len(epoch)),
            "epoch": ("step", epoch),
            "time": ("step", epoch),
        },
    )


def test_measures_find_planted_phases_and_none_where_the_cohorts_are_a_sham():
    runs = planted_runs()
    found = measures(runs, 1000)
    assert found.has_four_phases.sel(label_noise=[0.3, 0.6]).all()
    assert not found.has_four_phases.sel(label_noise=0.0).any()
    assert (found.time_of_minimum.sel(clock="epoch") == 40).all()
    for k, rho in enumerate(found.label_noise.values):
        ends = 100 + 100 * rho + 8 * np.arange(2)
        fitted = found.time_of_fit.sel(clock="epoch")[k]
        assert ((fitted >= ends - 4) & (fitted < ends + 4)).all()
        if rho:
            np.testing.assert_allclose(found.rise[k], 0.8 * rho + 0.01, atol=0.03)


# --- schedules and sweeps


@given(st.floats(1, 1e5), st.integers(4, 200), st.floats(0.01, 0.9))
def test_records_are_in_order_end_with_the_run_and_keep_their_distance(longest, records, least):
    times = record_times(longest, records, least=least)
    assert (times[0], len(times)) == (0, records)
    assert times[-1] == pytest.approx(longest)
    gaps = np.diff(times)
    assert (gaps[:-1] >= least * longest / records * (1 - 1e-9)).all()


def failing(share):
    if share == 0.5:
        raise ValueError("no such share")
    return xr.Dataset({"share": ("step", [share])}, coords={"step": [0]})


def test_a_sweep_with_failed_points_is_refused(tmp_path):
    with pytest.raises(ConfigurationError, match=r"1 points of .* failed.*--resume"):
        whole_sweep(failing, {"share": [0.1, 0.5]}, tmp_path, 1)
    assert whole_sweep(failing, {"share": [0.1, 0.2]}, tmp_path / "other", 1).sizes["point"] == 2


# --- the study


@pytest.fixture(scope="module")
def quick(quick_run) -> Path:
    return quick_run("label_noise_sweep")[0]


def results(out: Path) -> tuple[dict, xr.Dataset]:
    summary = json.loads((out / "summary.json").read_text())
    summary.pop("seconds")
    with xr.open_datatree(out / "sweep.nc") as tree:
        return summary, tree["/measures"].to_dataset().load()


def test_quick_leaves_what_it_says(quick):
    summary, found = results(quick)
    assert [each.number for each in claims_from(quick / "claims.json")] == [4, 6]
    assert len(summary["found"]["by_label_noise"]) == found.sizes["label_noise"] == 6
    assert [row["samples"] for row in summary["found"]["by_samples"]] == [60, 90, 120]
    assert found.mislabeled_fraction[0] == 0
    assert (np.diff(found.mislabeled_fraction) > 0).all()
    assert (found.mislabeled_fraction <= found.label_noise).all()
    with xr.open_datatree(quick / "sweep.nc") as tree:
        curves, sizes = tree["/curves"].to_dataset(), tree["/sizes"].to_dataset()
        again = Timescales()(curves.sel(label_noise=0.5)).time_of_minimum
        whole = sizes.isel(point=list(sizes.samples.values).index(120))
        np.testing.assert_array_equal(whole.time_of_minimum, again)
        assert tree.attrs["schema_version"]
        updates, epochs = (sizes.time_of_minimum.sel(clock=clock) for clock in ("step", "epoch"))
        np.testing.assert_allclose(updates * 10 / sizes.samples, epochs)


@pytest.mark.proof
def test_what_was_killed_goes_on_to_the_same_results(quick, tmp_path, capsys):
    command = [sys.executable, "-m", "studies.label_noise_sweep", "--quick", "--out", str(tmp_path)]
    root = ROOT
    begun = subprocess.Popen(command, cwd=root, env=os.environ, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while begun.poll() is None and not list(tmp_path.glob("runs/label_noise/points/*/*")):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    begun.send_signal(signal.SIGKILL)
    begun.wait()
    assert not (tmp_path / "summary.json").exists(), "it was killed too late to show anything"
    assert STUDY.main(["--quick", "--out", str(tmp_path)]) == 2
    assert "go on with it (resume=True, --resume)" in capsys.readouterr().err
    assert STUDY.main(["--quick", "--out", str(tmp_path), "--resume", "--seed", "1"]) == 2
    assert "seed: 0 there, 1 now" in capsys.readouterr().err
    assert STUDY.main(["--quick", "--out", str(tmp_path), "--resume"]) == 0
    (summary, found), (expected, uninterrupted) = results(tmp_path), results(quick)
    assert summary == expected
    xr.testing.assert_equal(found, uninterrupted)
    assert (tmp_path / "claims.json").read_bytes() == (quick / "claims.json").read_bytes()


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"label_noises": (0.1, 0.2, 0.3, 0.4, 0.5, 0.9)}, "label_noises=.*expected 0"),
        ({"label_noises": (0.0, 0.1, 0.2, 0.3, 0.4, 0.5)}, r"at least one above 0\.85"),
        ({"label_noises": (0.0, 0.1, 0.5, 0.5, 0.8, 0.9)}, "each of them once"),
        ({"label_noises": (0.0, 0.1, 0.5, 0.6, 0.8, 1.9)}, "label_noise"),
        ({"label_noise": 0.0}, "no minimum without it"),
        ({"label_noise": 0.33}, "expected one of those swept"),
        ({"class_sizes": (6, 12)}, "class_sizes=.*at least 3"),
        ({"class_sizes": (3, 6, 9)}, "largest is samples_per_class=12"),
        ({"class_sizes": (0, 6, 12)}, "class_sizes"),
        ({"records": 3}, "records=3"),
        ({"replicas": 1}, "replicas=1"),
        ({"workers": 0}, "workers=0"),
        ({"hidden": (5000, 5000)}, "choose narrower layers"),
    ],
)
def test_wrong_choices_are_refused(tmp_path, wrong, said):
    with pytest.raises(ConfigurationError, match=said):
        STUDY.run(Config(out=tmp_path, quick=True, **wrong))


# --- the figure


def test_the_figure_shows_means_with_labels_and_nothing_cut_off(quick):
    _, found = results(quick)
    with xr.open_datatree(quick / "sweep.nc") as tree:
        curves, sizes = (tree[name].to_dataset().load() for name in ("/curves", "/sizes"))
    figure = label_noise_figure(curves, found, sizes)
    assert_on_paper(figure)
    curve, times, errors, number = figure.axes[:4]
    assert all(axes.get_xlabel() and axes.get_ylabel() for axes in (curve, times, errors, number))
    np.testing.assert_allclose(curve.lines[0].get_ydata(), curves.test_error[0, :, 1:].mean("replica"))
    (minimum,) = [each for each in times.containers if "t_m" in each.get_label()]
    expected = np.exp(np.log(found.time_of_minimum.sel(clock="epoch")).mean("replica"))
    np.testing.assert_allclose(np.asarray(minimum.lines[0].get_ydata(), dtype=float), expected)
    assert len({line.get_linestyle() for line in curve.lines[:6]}) >= 4, "told apart in grey"
    (caption,) = [text.get_text() for text in figure.texts]
    assert "replicas" in caption
