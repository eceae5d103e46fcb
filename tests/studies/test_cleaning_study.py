"""The study of cleaning: its measures against closed forms, its claims on synthetic losses, what it writes and refuses."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import norm

from langevin_nn.analyzers import LossMixture, detect_phases
from langevin_nn.errors import ConfigurationError
from langevin_nn.run import points_of_sweep
from studies.cleaning import runs as cleaning_runs
from studies.cleaning import study as cleaning
from studies.cleaning.claims import claim_11, claim_12, claim_13, which_to_use
from studies.cleaning.measures import cleaning_quality, final_accuracy, removal, separability
from studies.cleaning.runs import Settled
from studies.cleaning.study import STUDY, Config
from studies.lab.claims import claims_from
from studies.lab.command import sized

# --- measures

accuracies = st.floats(0.0, 1.0)


@given(accuracies, accuracies, st.floats(-0.5, 1.5))
def test_quality_is_the_share_of_the_gap_that_is_recovered(uncleaned, pure, share):
    found = cleaning_quality(
        xr.DataArray(uncleaned + share * (pure - uncleaned)), xr.DataArray(uncleaned), xr.DataArray(pure)
    ).item()
    if pure == uncleaned:
        assert np.isnan(found), "there is nothing to recover"
    elif abs(pure - uncleaned) > 1e-6:
        assert found == pytest.approx(share, abs=1e-8)


def test_the_final_accuracy_is_over_the_last_tenth_of_updates():
    steps = np.arange(0, 1001, 10)
    curve = xr.DataArray(np.where(steps < 900, 0.0, steps / 1000), dims="step", coords={"step": steps})
    assert final_accuracy(curve).item() == pytest.approx(0.95)


def test_removals_are_counted_and_missing_where_there_is_nothing_to_count():
    wrong = xr.DataArray([1, 1, 1, 0, 0], dims="sample")
    score = xr.DataArray([5.0, 4.0, 1.0, 2.0, 3.0], dims="sample")
    found = removal(xr.DataArray([1, 1, 0, 0, 1], dims="sample"), score, wrong)
    assert found.precision.item() == pytest.approx(2 / 3)
    assert found.recall.item() == pytest.approx(2 / 3)
    assert found.removed_share.item() == pytest.approx(3 / 5)
    assert found.area_under_curve.item() == pytest.approx(4 / 6)  # of six pairs two are in the wrong order
    nothing = removal(0 * wrong, score, 0 * wrong)
    assert np.isnan([nothing.precision, nothing.recall, nothing.area_under_curve]).all()


def test_separability_of_shifted_gaussians_has_its_closed_forms(generator):
    shift, n = 1.5, 4000
    wrong = np.arange(2 * n) < n
    losses = generator.standard_normal((3, 1, 2 * n)) + shift * wrong
    found = separability(
        xr.DataArray(losses, dims=("replica", "step", "sample")),
        xr.DataArray(np.broadcast_to(wrong, (3, 2 * n)), dims=("replica", "sample")),
    ).mean(("replica", "step"))
    # Four standard errors: Hanley and McNeil's of the area is below 0.006 / √3, that of a mean √(2/n/3).
    assert found.area_under_curve.item() == pytest.approx(norm.cdf(shift / 2**0.5), abs=0.014)
    assert found.transport_distance.item() == pytest.approx(shift, abs=4 * (2 / n / 3) ** 0.5)
    assert found.kolmogorov_smirnov.item() == pytest.approx(2 * norm.cdf(shift / 2) - 1, abs=0.03)


# --- claims on synthetic losses

EPOCHS = np.array([0.0, 1, 2, 3, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30, 32, 34, 36, 38, 40])


def synthetic(apart: float, replicas: int = 4, n: int = 600, late: float = 0.05) -> tuple[xr.Dataset, xr.Dataset]:
    """Losses whose cohorts part by so much in phase II and are learned in the end, with their phases."""
    generator = np.random.default_rng(7)
    gap = np.interp(EPOCHS, [0, 8, 20, 28, 40], [0, apart, apart, late, late])
    level = np.interp(EPOCHS, [0, 8, 20, 28, 40], [2.3, 1.0, 1.0, 0.1, 0.1])
    wrong = np.tile(np.arange(n) < n // 2, (replicas, 1))
    losses = (
        level[:, None] + gap[:, None] * wrong[:, None] + 0.2 * generator.standard_normal((replicas, len(EPOCHS), n))
    )
    correct = np.interp(EPOCHS, [0, 8, 20, 28, 40], [0.9, 0.05, 0.05, 0, 0])
    mislabeled = np.interp(EPOCHS, [0, 8, 20, 28, 40], [0.9, 0.95, 0.95, 0, 0])
    error = np.stack([(correct + mislabeled) / 2, correct, mislabeled], axis=-1)
    coordinates = {"epoch": ("step", EPOCHS), "time": ("step", EPOCHS), "cohort": ["all", "correct", "mislabeled"]}
    shown = xr.Dataset(
        {
            "sample_loss": (("replica", "step", "sample"), losses, {"units": "nat"}),
            "mislabeled": (("replica", "sample"), wrong),
            "train_error": (("replica", "step", "cohort"), np.tile(error, (replicas, 1, 1))),
        },
        coords={**coordinates, "step": 10 * EPOCHS.astype(int)},
    )
    return shown, detect_phases(shown[["train_error"]])


def outcomes(claim) -> list[str]:
    return [finding.outcome for finding in claim.findings]


def test_losses_that_part_in_ii_and_meet_in_iv_reproduce_claim_11():
    claim = claim_11(*synthetic(1.0, late=0.0), "synthetic")
    assert outcomes(claim) == ["holds"] * 5 + ["fails"]
    assert claim.verdict == "reproduced"


@pytest.mark.parametrize(("apart", "late", "failing"), [(0.1, 0.0, [1]), (1.0, 0.6, [3, 4])])
def test_losses_that_do_not_are_found_out(apart, late, failing):
    found = outcomes(claim_11(*synthetic(apart, late=late), "synthetic"))
    assert [found[k] for k in failing] == ["fails"] * len(failing)


def test_of_a_run_that_ends_before_a_phase_nothing_is_claimed():
    """The larger of the distances in I and III is none where III was not reached, whatever II is."""
    shown, _ = synthetic(1.0, late=0.0)
    short = shown.isel(step=EPOCHS <= 18)
    phases = detect_phases(short[["train_error"]])
    claim = claim_11(short, phases, "synthetic")
    assert claim.verdict == "too short"
    assert "more than 18 are needed, 36 to begin with" in claim.too_short
    assert outcomes(claim)[2:5] == ["not measured"] * 3
    beginning = shown.isel(step=EPOCHS <= 6)
    first = detect_phases(beginning[["train_error"]])
    assert claim_11(beginning, first, "synthetic").findings[-1].outcome == "not measured", (
        "no record of II, no control in it"
    )


def test_two_gaussians_reproduce_claim_12_and_a_shifted_fit_does_not():
    shown, phases = synthetic(1.0)
    mixture = LossMixture()(shown[["sample_loss", "mislabeled"]])
    claim = claim_12(shown, phases, mixture, "synthetic")
    assert outcomes(claim) == ["holds", "fails", "holds", "holds", "fails"]
    assert claim.verdict == "reproduced"
    off = mixture.assign(component_mean=mixture.component_mean + 0.2)
    assert outcomes(claim_12(shown, phases, off, "synthetic"))[3] == "fails"


RULES = ("equal_density", "midpoint", "random", "find_mislabeled", "stopped_literal", "stopped_ours")


def table(**qualities: float) -> xr.Dataset:
    """Results in which rules have given qualities at all label noises, but for some scatter over four replicas."""
    noises, scatter = [0.0, 0.2, 0.5, 0.8], 0.01 * np.array([-1.0, 1.0, 2.0, -2.0])
    uncleaned = xr.DataArray([0.9, 0.8, 0.5, 0.2], dims="label_noise", coords={"label_noise": noises})
    pure = xr.DataArray([0.9, 0.89, 0.88, 0.86], dims="label_noise", coords={"label_noise": noises})
    noise = xr.DataArray(scatter, dims="replica")
    rows = [qualities.get(rule, 0.0 if rule == "random" else 0.9) for rule in RULES]
    quality = xr.DataArray(rows, dims="rule", coords={"rule": list(RULES)}) + noise + 0 * uncleaned
    quality = quality.where(quality.label_noise > 0)
    gap = pure - uncleaned
    decided = (quality.sel(rule=list(RULES[:4])).rename(rule="cleaning_rule") * 0).fillna(0)
    return xr.Dataset(
        {
            "accuracy_uncleaned": uncleaned + 0 * noise,
            "accuracy_pure": pure + 0 * noise,
            "accuracy_cleaned": uncleaned + quality.fillna(0) * gap - 0.01 * (gap == 0) * (1 + noise),
            "cleaning_quality": quality,
            "removed_share": decided + 0.1,
        }
    )


def test_a_rule_that_recovers_nearly_everything_reproduces_claim_13():
    claim = claim_13(table(), "synthetic")
    assert outcomes(claim) == ["holds"] * 6 + ["fails"] * 2
    assert claim.verdict == "reproduced"
    assert "find_mislabeled: Q = 0.90" in claim.note
    assert "At ρ = 0 the paper's rule removes 10%" in claim.note


@pytest.mark.parametrize(
    ("qualities", "failing"),
    [
        ({"equal_density": 0.3, "midpoint": 0.3, "stopped_literal": 0.3}, [0, 1, 2]),
        ({"stopped_literal": 0.5}, [3]),
        ({"midpoint": 0.6}, [4]),
    ],
)
def test_a_rule_that_does_not_is_found_out(qualities, failing):
    claim = claim_13(table(**qualities), "synthetic")
    assert [k for k, outcome in enumerate(outcomes(claim)[:6]) if outcome == "fails"] == failing
    assert claim.verdict == "partly"


def test_which_rule_to_use_is_said_by_the_difference_from_replica_to_replica():
    results = table(equal_density=0.5)
    results["cleaning_quality"] = results.cleaning_quality.copy()
    results.cleaning_quality.loc[{"rule": "find_mislabeled", "label_noise": 0.8}] = [0.4, 0.6, 0.3, 0.7]
    no_noise, low, _, high, asked = which_to_use(results)[1:]
    assert no_noise == "  no wrong labels: samples removed for nothing: find_mislabeled 10.0%, equal_density 10.0%."
    assert low == "  ρ = 0.2: find_mislabeled is better than equal_density (+0.40, +0.40 to +0.40)."
    # Differences −0.09, 0.09, −0.22, 0.22 have mean 0 and standard error 0.0970, times 3.182 of Student's t.
    assert high == "  ρ = 0.8: find_mislabeled is not told apart from equal_density (+0.00, -0.31 to +0.31)."
    assert "cleanlab" in asked
    assert "is worse than equal_density (-0.40" in which_to_use(table(find_mislabeled=0.5))[2]


def test_a_control_that_holds_takes_the_worth_from_the_claim():
    assert claim_13(table(random=0.9), "synthetic").verdict == "partly"


# --- the study


@pytest.fixture(scope="module")
def quick(quick_run) -> Path:
    return quick_run("cleaning")[0]


def settled(**chosen) -> Settled:
    return STUDY.settle(sized(Config(quick=True, **chosen), STUDY.quick))


def test_quick_leaves_what_it_says(quick):
    assert [claim.number for claim in claims_from(quick / "claims.json")] == [11, 12, 13]
    summary = json.loads((quick / "summary.json").read_text())
    assert not summary["found"]["with_cleanlab"]
    with xr.open_dataset(quick / "cleaning.nc") as found:
        assert set(found.rule.values) == {*RULES}
        clean = found.sel(label_noise=0)
        assert (clean.accuracy_pure == clean.accuracy_uncleaned).all(), "without label noise all labels are correct"
        assert np.isnan(clean.cleaning_quality).all(), "there is nothing to recover"
        refused = found.is_refused.sel(cleaning_rule="find_mislabeled").values == 1
        removed = found.removed_share.sel(cleaning_rule="find_mislabeled").values
        assert (removed[refused] == 0).all()
        same = (found.accuracy_cleaned.sel(rule="find_mislabeled") == found.accuracy_uncleaned).values
        assert same[refused].all(), "a refusal is as no cleaning"


def test_what_is_trained_without_a_rule_goes_on_from_the_same_weights_to_the_same_bits(quick):
    """A run repeated up to t_c, alone, ends where the run of all replicas was."""
    place = quick / "runs" / "uncleaned"
    choices = settled()
    step = int(cleaning_runs.record_steps(choices.n_updates)[30])
    weights = cleaning_runs._weights_at(step, 0.5, 1, choices)
    data = cleaning_runs.load(choices)
    landscape = cleaning_runs.landscape_of(data, choices, label_noise=0.5, hidden=choices.hidden, replicas=(1,))
    import torch

    losses = landscape.sample_losses(torch.as_tensor(weights)).double().numpy()[0]
    with cleaning_runs.open_sweep(place) as tree:
        samples = tree["samples"].to_dataset()
        recorded = samples.sample_loss.sel(point=tree.label_noise.values == 0.5, sample_step=step).isel(
            point=0, replica=1
        )
        np.testing.assert_allclose(losses, recorded.values, rtol=1e-5, atol=1e-6)


def test_without_cleanlab_it_says_how_to_get_it(quick, capsys, monkeypatch):
    monkeypatch.setattr(cleaning, "has_cleanlab", lambda: False)
    (quick / "summary.json").unlink()
    done = points_of_sweep(quick / "runs" / "cleaned").seconds.values
    assert STUDY.main(["--quick", "--out", str(quick)]) == 2
    assert "go on with it (resume=True, --resume)" in capsys.readouterr().err
    assert STUDY.main(["--quick", "--out", str(quick), "--resume"]) == 0
    assert "cleanlab is left out; to compare with it: pip install 'langevin_nn[compare]'" in capsys.readouterr().out
    assert np.array_equal(points_of_sweep(quick / "runs" / "cleaned").seconds.values, done), "nothing was run again"
    with pytest.raises(ConfigurationError, match="which is not installed"):
        STUDY.run(Config(quick=True, with_cleanlab=True, out=quick))


def test_cleanlab_finds_most_wrong_labels_from_probabilities_out_of_sample():
    pytest.importorskip("cleanlab", reason="cleanlab is not installed (the extra 'compare')")
    choices = settled(samples_per_class=60, epochs=60.0)
    data = cleaning_runs.load(choices)
    landscape = cleaning_runs.landscape_of(data, choices, label_noise=0.3, replicas=(0,))
    wrong = landscape.mislabeled.numpy()[0]
    decision = cleaning_runs._by_cleanlab(landscape.labels_of(0).numpy(), choices, 0)
    found = removal(*(xr.DataArray(each, dims="sample") for each in (decision.removed, decision.score, wrong)))
    assert found.recall.item() > 0.7
    assert found.precision.item() > 0.7


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"label_noises": (0.0, 2.0)}, "label_noises"),
        ({"label_noises": (0.5, 0.5)}, "each value once"),
        ({"shown_noise": 0.3}, "expected one of label_noises"),
        ({"shown_noise": 0.0}, "not 0"),
        ({"hidden": (0,)}, "hidden=0"),
        ({"replicas": 1}, "replicas=1"),
        ({"workers": 0}, "workers=0"),
        ({"cleanlab_noises": (-1.0,)}, "cleanlab_noises"),
    ],
)
def test_wrong_choices_are_refused(tmp_path, wrong, said):
    with pytest.raises(ConfigurationError, match=said):
        STUDY.run(Config(out=tmp_path, dataset="digits", **wrong))
    assert list(tmp_path.iterdir()) == []
