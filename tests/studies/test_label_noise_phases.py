"""Criteria of the study of label noise on trajectories of known truth and on their twins, its controls, its command."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
import xarray as xr
from cases import digits_landscape

from langevin_nn import Seeds, gradient_ensemble, sgd, simulate
from langevin_nn.analyzers import detect_phases
from langevin_nn.analyzers.phases import FOUR_PHASES
from langevin_nn.observables import NoiseSpectrum, OrderParameters, Weights
from langevin_nn.schedules import AtEpochs
from langevin_nn.testing import four_phase_trajectory, two_phase_trajectory
from studies.lab.choices import Choices, Settled, landscape_of, load, settle
from studies.lab.claims import claims_from
from studies.label_noise_phases.claims import claims_of
from studies.label_noise_phases.gradients import PAPER_DIMENSIONS, spectrum_distance
from studies.label_noise_phases.measures import (
    Runs,
    ShuffledCohorts,
    measured,
    middle_records,
    record_epochs,
    spread_records,
)
from studies.label_noise_phases.study import STUDY

REPLICAS, RECORDS = 4, 150
COHORTS, PAIRS = ["all", "correct", "mislabeled"], ["correct_mislabeled", "all_correct", "all_mislabeled"]
# By phase, as the paper has them.
ACTIVITY = (1.0, 2.0, 4.0, 0.5)
DIRECTED = (0.1, 3.0, 10.0, 0.1)  # A₀,c
RATIO = (10.0, 1.0, 1.0, 1.0)  # A₀,c / A₀,w
COSINE = (-0.5, -0.95, 0.5, -0.3)
TEST_ERROR = (0.3, 0.15, 0.3, 0.45)
DIMENSION = tuple(PAPER_DIMENSIONS.values())


def by_phase(trajectory, values, generator, jitter=0.02):
    """A quantity that is constant in each phase, but for noise, shape (replica, step)."""
    at = detect_phases(trajectory).phase.values - 1
    return np.asarray(values)[at] * np.exp(jitter * generator.standard_normal(at.shape))


def with_dims(values, *dims):
    return (("replica", "step", *dims), np.stack(values, axis=-1) if dims else values)


def paper_like(**changed) -> Runs:
    """What the study would have measured if the paper were right, but for what is changed."""
    generator = np.random.default_rng(5)
    believed = {
        "activity": ACTIVITY, "directed": DIRECTED, "ratio": RATIO, "cosine": COSINE, "test_error": TEST_ERROR,
        "dimension": DIMENSION, "shuffled_cosine": (0.5, 0.3, 0.8, 0.1), "cohort_loss": 1.2,
    } | changed  # fmt: skip
    noisy = changed.get("noisy")
    if noisy is None:
        noisy = four_phase_trajectory(generator, replicas=REPLICAS, records=RECORDS, record_interval=2.0)
    noisy = noisy[["train_error"]]
    correct = noisy.train_error.sel(cohort="correct", drop=True)
    phase = detect_phases(noisy).phase.values
    test = by_phase(noisy, believed["test_error"], generator)
    test[phase == 1] = (0.15 + correct.values)[phase == 1]
    test[:, 0] = 0.9
    for k in range(REPLICAS):  # rising through III
        inside = phase[k] == 3
        test[k, inside] = np.linspace(believed["test_error"][1], believed["test_error"][3], inside.sum())
    loss = np.ones((REPLICAS, noisy.sizes["step"])) * believed["cohort_loss"]
    loss[:, 0] = 1.0
    losses = with_dims([loss, loss, loss], "cohort")
    noisy = noisy.assign(test_error=(("replica", "step"), test), train_loss=losses)
    clean = two_phase_trajectory(generator, replicas=REPLICAS, records=RECORDS, boundary=40.0)
    clean = clean[["train_error"]]
    everything = clean.train_error.sel(cohort="all", drop=True)
    both = xr.concat([everything] * 3, xr.Variable("cohort", COHORTS)).transpose("replica", "step", "cohort")
    fallen = with_dims([0.01 + everything.values] * 3, "cohort")
    clean_phases = detect_phases(clean)
    clean = clean.assign(train_error=both, test_error=everything + 0.05, train_loss=fallen)
    order = order_of(noisy, believed, generator)
    early = clean_phases.phase.values == 1
    clean_activity = np.where(early, 1.0, 0.01) * np.exp(-0.002 * np.arange(early.shape[1]))
    clean_order = clean.assign(activity=with_dims([clean_activity] * 3, "cohort"))
    spectra = spectra_of_dimensions(noisy, believed["dimension"])
    clean_spectra = spectra_of_dimensions(clean, (60, 60, 60, 60)).isel(step=[2, 100])
    both_choices = {"hidden": order, "all": order}
    return Runs(
        noisy, clean, detect_phases(noisy), clean_phases, both_choices,
        {"hidden": clean_order, "all": clean_order}, {"hidden": spectra, "all": spectra}, {"hidden": clean_spectra},
        xr.Dataset(),
    )  # fmt: skip


def order_of(noisy, believed, generator):
    activity = by_phase(noisy, believed["activity"], generator)
    ratio, cosine = by_phase(noisy, believed["ratio"], generator), by_phase(noisy, believed["cosine"], generator)
    of_correct = by_phase(noisy, believed["directed"], generator)
    of_wrong = of_correct / ratio
    total = of_correct + of_wrong + 2 * np.sqrt(of_correct * of_wrong) * cosine
    shuffled = by_phase(noisy, believed["shuffled_cosine"], generator)
    return noisy.assign(
        activity=with_dims([activity] * 3, "cohort"),
        directed_activity=with_dims([total, of_correct, of_wrong], "cohort"),
        gradient_alignment=with_dims([cosine, 0 * cosine + 0.9, 0 * cosine - 0.2], "cohort_pair"),
        directed_activity_shuffled=with_dims([activity, activity / 4, activity / 5], "cohort"),
        gradient_alignment_shuffled=with_dims([shuffled] * 3, "cohort_pair"),
    ).assign_coords(cohort_pair=PAIRS)


def spectra_of_dimensions(trajectory, dimensions):
    """Spectra whose cumulative share grows with the logarithm of the mode, to 0.9 at the given number."""
    at = detect_phases(trajectory).phase.values - 1
    dimension = np.asarray(dimensions, dtype=float)[at]
    shares = np.minimum(0.9 * np.log1p(np.arange(801)) / np.log1p(dimension)[..., None], 1)
    values = np.diff(shares, axis=-1)
    return xr.Dataset(
        {
            "noise_eigenvalue": (("replica", "step", "mode"), values),
            "noise_strength": (("replica", "step", "cohort"), np.ones((*at.shape, 3))),
            "effective_dimension": (("replica", "step"), dimension),
        },
        coords={"cohort": COHORTS, "epoch": trajectory.epoch},
    )


def verdicts(runs: Runs) -> dict[int, str]:
    return {each.number: each.verdict for each in claims_of(runs, False, "made by hand")}


# --- criteria


def test_all_claims_hold_where_the_paper_is_right():
    found = claims_of(paper_like(), False, "made by hand")
    assert [each.number for each in found] == [4, 5, 7, 8, 9, 10]
    assert [each.in_words() for each in found if each.verdict != "reproduced"] == []


TWINS = {
    "the test error stays low": (4, {"test_error": (0.3, 0.15, 0.15, 0.16)}),
    "boundaries are three times too late": (
        4,
        {
            "noisy": four_phase_trajectory(
                np.random.default_rng(1),
                boundaries=(30, 150, 260),
                spread=0.02,
                replicas=REPLICAS,
                records=RECORDS,
                record_interval=2.0,
            )
        },
    ),
    "L_w falls in I": (5, {"cohort_loss": 0.7}),
    "L_w rises threefold in I": (5, {"cohort_loss": 3.0}),
    "activities do not grow": (7, {"activity": (1.0, 0.5, 0.25, 0.1)}),
    "activities do not fall": (7, {"activity": (1.0, 2.0, 4.0, 8.0)}),
    "directed activities do not grow": (7, {"directed": (10.0, 3.0, 1.0, 0.1)}),
    "the cohorts pull alike in I": (8, {"ratio": (1.0, 1.0, 1.0, 1.0)}),
    "the cohorts pull unlike in III": (8, {"ratio": (10.0, 1.0, 4.0, 1.0)}),
    "gradients are aligned in I": (9, {"cosine": (0.5, -0.95, 0.5, -0.3)}),
    "gradients are not quite opposite in II": (9, {"cosine": (-0.5, -0.6, 0.5, -0.3)}),
    "gradients are not aligned in III": (9, {"cosine": (-0.5, -0.95, -0.5, -0.3)}),
    "random cohorts are opposite in II too": (9, {"shuffled_cosine": (0.5, -0.95, 0.8, 0.1)}),
    "dimensions are four times as large": (10, {"dimension": tuple(4 * each for each in DIMENSION)}),
}


@pytest.mark.parametrize("name", TWINS)
def test_a_claim_fails_on_a_twin_in_which_it_is_wrong(name):
    number, changed = TWINS[name]
    assert verdicts(paper_like(**changed))[number] != "reproduced"


def test_without_mislabeled_samples_there_are_no_four_phases():
    """The control of claim 4: cohorts that nothing tells apart; with the noisy run in its place it must hold."""
    right = paper_like()
    wrong = replace(right, clean=right.noisy)

    def control(runs):
        (claim,) = [each for each in claims_of(runs, False, "") if each.number == 4]
        return next(each for each in claim.findings if each.criterion.is_control)

    assert control(right).outcome == "fails"
    assert control(wrong).outcome == "holds"


def test_the_claim_on_other_networks_needs_four_phases():
    (found,) = claims_of(paper_like(), True, "made by hand")
    assert (found.number, found.verdict) == (14, "reproduced")
    (twin,) = claims_of(paper_like(cosine=(0.5, 0.5, 0.5, 0.5)), True, "made by hand")
    assert twin.verdict == "partly"


@pytest.mark.parametrize("first", [10, 40])
def test_the_distance_of_spectra_is_that_of_exponential_laws(first):
    """Of 1 − q^l and 1 − p^l at their common maximum, by brute force over real l."""
    q, p = (0.1 ** (1 / d) for d in (first, 90))
    modes = np.arange(2000)
    spectra = [(1 - each) * each**modes for each in (q, p)]
    exact = np.abs((1 - q ** (modes + 1)) - (1 - p ** (modes + 1))).max()
    assert spectrum_distance(*spectra) == pytest.approx(exact, abs=1e-9)


# --- measurements


def test_what_is_measured_afterwards_is_what_would_have_been_recorded():
    landscape = digits_landscape()
    process = sgd(landscape, 0.1, 10)
    schedule = AtEpochs((0.0, 1.0, 3.0))
    order, spectrum = OrderParameters(8), NoiseSpectrum(5, schedule=schedule)
    there = simulate(process, epochs=3, replicas=2, schedule=schedule, observables=[order, spectrum, Weights(schedule)])
    later = measured(process, there["weights"].to_dataset(), [0, 2], [order, spectrum], seed=0, replicas=2)
    for name in ("activity", "alignment", "gradient_alignment"):
        np.testing.assert_array_equal(later[name].values, there[name].isel(step=[0, 2]).values)
    recorded = there["spectrum"].noise_eigenvalue.isel(spectrum_step=[0, 2]).values
    np.testing.assert_array_equal(later.noise_eigenvalue.values, recorded)
    np.testing.assert_allclose(later.epoch, [0, 3])


def test_shuffled_cohorts_have_the_size_of_the_true_ones_and_the_gradients_of_their_samples():
    """Against the mean of stored sample gradients; the same samples at every step."""
    landscape = digits_landscape()
    process = sgd(landscape, 0.1, 10)
    there = simulate(process, epochs=2, replicas=2, observables=[Weights(AtEpochs((0.0, 2.0)))])["weights"].to_dataset()
    found = measured(process, there, [0, 1], [ShuffledCohorts()], seed=0, replicas=2)
    generators = [Seeds(0).generator("shuffled cohorts", replica) for replica in range(2)]
    for replica, generator in enumerate(generators):
        wrong = generator.permutation(landscape.cohort[0].numpy())
        for step in range(2):
            weights = torch.as_tensor(there.weights.values[replica, step])
            gradients = landscape.sample_gradients(weights).combine(torch.eye(60, dtype=torch.float64)).numpy()
            own, other = gradients[~wrong].mean(0), gradients[wrong].mean(0)
            cosine = own @ other / np.linalg.norm(own) / np.linalg.norm(other)
            here = found.isel(replica=replica, step=step)
            assert here.gradient_alignment_shuffled[0].item() == pytest.approx(cosine, abs=1e-9)
            squares = [(wrong.mean() ** 2) * (other @ other), ((~wrong).mean() ** 2) * (own @ own)]
            np.testing.assert_allclose(here.directed_activity_shuffled[[2, 1]], squares, rtol=1e-9)
            true = gradient_ensemble(landscape, weights, 10).order_parameters().gradient_alignment[0].item()
            assert true < cosine  # what the labels tell apart pulls apart


def test_the_control_learns_the_true_labels_of_the_same_samples():
    config = settle(Settled, Choices(dataset="digits", samples_per_class=10, replicas=2))
    noisy, clean = (landscape_of(load(config), config, label_noise=0.5, trained_on=each) for each in ("given", "true"))
    assert torch.equal(noisy.mislabeled, clean.mislabeled)
    assert torch.equal(noisy.true_labels, clean.labels)
    assert 0 < noisy.mislabeled.double().mean() < 0.5


def test_records_and_middles():
    epochs = np.array(record_epochs(500.0, 60))
    assert epochs[0] == 0
    assert epochs[-1] == 500
    assert len(epochs) <= 61
    assert (np.diff(epochs) >= 500 / 480 - 1e-9).all()
    phases = detect_phases(
        four_phase_trajectory(np.random.default_rng(0), noise=0.0, spread=0.0, n_samples=10**6, replicas=2)
    )
    found = middle_records(phases, epochs)
    assert list(found) == ["I", "II", "III", "IV"]
    nearest = epochs[list(found.values())]
    exact = np.sqrt(np.array([epochs[1], 10, 70, 200]) * np.array([10, 70, 200, 500]))
    np.testing.assert_allclose(nearest, exact, rtol=0.15)
    assert spread_records(10, 4) == [0, 3, 6, 9]
    assert spread_records(3, 8) == [0, 1, 2]


# --- the command


def assert_nothing_is_said_of_what_was_not_reached(out):
    with xr.open_datatree(out / "order_parameters.nc") as tree:
        phases = detect_phases(tree.to_dataset())
        reached = [name for k, name in enumerate(FOUR_PHASES) if bool((phases.phase > k).any("step").all())]
    assert reached != list(FOUR_PHASES), "a quick run is too short for its question, and is to say so"
    for claim in claims_from(out / "claims.json"):
        assert claim.verdict == "too short", claim.number
        assert "more than 40 are needed" in claim.too_short
        for each in claim.findings:
            assert each.outcome != "holds" or np.isfinite(each.estimate), each.criterion.statistic
    with xr.open_dataset(out / "runs" / "sketches.nc") as sketches:
        assert {str(name).split(",")[0] for name in sketches.panel.values} <= {f"phase {name}" for name in reached}


def test_a_phase_that_was_not_reached_has_no_middle_record():
    curves = four_phase_trajectory(
        np.random.default_rng(0), noise=0.0, spread=0.0, n_samples=10**6, replicas=2, records=150
    )
    epochs = np.array(record_epochs(149.0, 40))
    assert list(middle_records(detect_phases(curves), epochs)) == ["I", "II", "III"]
    one = curves.copy(deep=True)
    one.train_error[1] = one.train_error[1, 0]  # a replica that never leaves I
    assert list(middle_records(detect_phases(one), epochs)) == ["I"]


def test_claims_on_a_run_that_ends_early_are_too_short_never_reproduced_nor_not():
    whole = paper_like()
    for end in (8, 40, 80):
        short = {name: getattr(whole, name).isel(step=slice(end)) for name in ("noisy", "clean")}
        clean_errors = short["clean"].train_error
        clean = detect_phases(
            short["clean"].assign(train_error=clean_errors.where(clean_errors.cohort != "mislabeled"))
        )
        phases = detect_phases(short["noisy"])
        runs = replace(whole, **short, phases=phases, clean_phases=clean)
        found = [each for each in claims_of(runs, False, "made by hand") if each.number in (4, 5)]
        assert {each.verdict for each in found} == {"too short"}, end
        if end == 8:
            (first, *_) = found
            assert first.findings[0].outcome == "not measured", "four phases are not missing where the run ends before"


def test_a_quick_run_writes_everything_and_goes_on(quick_run):
    tmp_path, said = quick_run("label_noise_phases")
    assert "Claim 9" in said
    assert_nothing_is_said_of_what_was_not_reached(tmp_path)
    assert [each.number for each in claims_from(tmp_path / "claims.json")] == [4, 5, 7, 8, 9, 10]
    with xr.open_datatree(tmp_path / "order_parameters.nc") as tree:
        assert {"train_error", "test_error"} <= set(tree.data_vars)
        assert "activity" in tree["order_parameters_hidden"]
    made = {path: path.stat().st_mtime_ns for path in (tmp_path / "runs").glob("*.nc")}
    first = (tmp_path / "claims.json").read_bytes()
    (tmp_path / "runs" / "order_parameters_noisy_hidden.nc").unlink()
    assert STUDY.main(["--quick", "--out", str(tmp_path), "--resume"]) == 0
    assert (tmp_path / "claims.json").read_bytes() == first
    again = {path: path.stat().st_mtime_ns for path in made}
    assert {path.name for path in made if again[path] != made[path]} == {"order_parameters_noisy_hidden.nc"}


BAD = {
    "no label noise": (["--label-noise", "0"], "label_noise"),
    "few records": (["--records", "3"], "records"),
    "more records of all weights than there are": (["--records", "12", "--records-of-all", "13"], "records_of_all"),
    "a spectrum of one replica": (["--spectrum-replicas", "1"], "spectrum_replicas"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_ends_with_a_line(name, refused):
    arguments, words = BAD[name]
    assert words in refused(STUDY.main, arguments)
