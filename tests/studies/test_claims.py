"""What the studies of the paper share: criteria and verdicts, what is trained, the folder, means by phase, bands."""

from __future__ import annotations

import itertools
import json
import math
import sys
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from matplotlib.figure import Figure
from scipy import stats

from langevin_nn.analyzers import detect_phases, phase_means
from langevin_nn.errors import ConfigurationError, UnknownNameError
from langevin_nn.figures.base import draw_band, shade_phases
from langevin_nn.provenance import plain
from langevin_nn.testing import four_phase_trajectory
from models import DATASETS
from studies.lab.choices import DEVIATIONS, Choices, Settled, landscape_of, load, refuse_own_network, settle
from studies.lab.claims import CLAIMS, Claim, Criterion, Finding, claims_from, too_short, write_claims
from studies.lab.command import checked, of_the_numbers, sized, words_of

# --- criteria: intervals and p-values by another route

numbers = arrays(np.float64, st.integers(2, 12), elements=st.floats(-100, 100, allow_subnormal=False))


@given(numbers, st.floats(-50, 50))
def test_intervals_and_p_values_are_those_of_one_sample_t_tests(values, bound):
    assume(values.std() > 1e-6)
    within = Criterion("mean", "bounds of a test", least=bound, most=bound + 10).held_to(values)
    lower, upper = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    assert (within.lower, within.upper) == pytest.approx((lower, upper))
    sides = [
        stats.ttest_1samp(values, bound, alternative="greater").pvalue,
        stats.ttest_1samp(values, bound + 10, alternative="less").pvalue,
    ]
    assert within.p_value == pytest.approx(max(sides))
    assert Criterion("mean", "one bound", least=bound).held_to(values).p_value == pytest.approx(sides[0])
    assert Criterion("mean", "one bound", most=bound + 10).held_to(values).p_value == pytest.approx(sides[1])
    assert within.estimate == pytest.approx(math.fsum(values) / len(values))
    assert within.effective_sample_size == len(values)


def test_two_values_have_the_closed_form_of_a_cauchy_law():
    """With one degree of freedom t is Cauchy: quantile tan(π (p − ½)), survival ½ − arctan(t)/π."""
    found = Criterion("mean", "of 1 and 3", least=0.0).held_to([1.0, 3.0])
    assert found.upper - 2 == pytest.approx(math.tan(math.pi * 0.475))
    assert found.p_value == pytest.approx(0.5 - math.atan(2.0) / math.pi)
    assert found.outcome == "undecided"


@pytest.mark.parametrize(
    ("criterion", "outcome"), [((0.5, 2.0), "holds"), ((2.0, 3.0), "fails"), ((0.9, 1.0), "holds")]
)
def test_equal_values_are_known_exactly(criterion, outcome):
    found = Criterion("mean", "no spread", *criterion).held_to([1.0, 1.0, 1.0])
    assert (found.lower, found.upper, found.outcome) == (1.0, 1.0, outcome)
    assert found.p_value == (outcome != "holds")


@given(numbers, st.integers(1, 4))
def test_missing_values_are_left_out_and_counted(values, missing):
    asked = Criterion("mean", "some are missing", least=0.0)
    holed = np.concatenate([values, np.full(missing, np.nan)])
    assert asked.held_to(holed) == replace(asked.held_to(values), missing=missing)
    assert f"({missing} more have no such value)" in asked.held_to(holed).in_words()
    assert "no such value" not in asked.held_to(values).in_words()


@pytest.mark.parametrize("values", [[], [3.0], [3.0, np.nan]])
def test_fewer_than_two_values_decide_nothing(values):
    found = Criterion("mean", "too few", least=0.0).held_to(values)
    assert found.outcome == ("undecided" if np.isfinite(values).any() else "not measured")
    assert np.isnan([found.lower, found.upper, found.p_value]).all()


# --- shares


def at_least(k: int, n: int, chance: float) -> float:
    return math.fsum(math.comb(n, i) * chance**i * (1 - chance) ** (n - i) for i in range(k, n + 1))


@pytest.mark.parametrize(("k", "n"), [(0, 4), (1, 4), (3, 5), (8, 8), (17, 20)])
def test_shares_have_the_interval_at_which_binomial_tails_are_a_fortieth(k, n):
    found = Criterion("share", "binomial sums", least=0.3, most=0.9).held_to_share(np.arange(n) < k)
    assert found.estimate == k / n
    if k == 0:
        assert found.lower == 0
    else:
        assert at_least(k, n, found.lower) == pytest.approx(0.025)
    if k == n:
        assert found.upper == 1
    else:
        assert 1 - at_least(k + 1, n, found.upper) == pytest.approx(0.025)
    assert found.p_value == pytest.approx(max(at_least(k, n, 0.3), 1 - at_least(k + 1, n, 0.9)))


@given(st.lists(st.sampled_from([0.0, 1.0]), min_size=1, max_size=12), st.integers(1, 4), st.floats(0.1, 0.9))
def test_what_is_missing_decides_no_share_and_no_mean(answers, missing, bound):
    """Whatever the missing answers would have been, a share that is decided stays so; means are as without them."""
    asked = Criterion("share", "of replicas", least=bound)
    holed = [*answers, *[np.nan] * missing]
    found = asked.held_to_share(holed)
    if found.outcome in ("holds", "fails"):
        for number in range(missing + 1):
            filled = np.where(np.arange(missing) < number, 1.0, 0.0)
            assert asked.held_to_share([*answers, *filled]).outcome == found.outcome
    assert asked.held_to(holed).outcome == asked.held_to(answers).outcome


def test_how_many_replicas_would_decide_a_share():
    """Of n successes in n the interval begins at 0.025^(1/n), which passes ½ at 6."""
    found = Criterion("share", "all", least=0.5).held_to_share([True, True])
    assert (found.outcome, found.needed) == ("undecided", 6)
    assert "undecided, about 6 replicas would decide" in found.in_words()
    mean = Criterion("mean", "of 1 and 3", least=0.0).held_to([1.0, 3.0])
    assert mean.needed > 2
    assert Criterion("mean", "decided", least=0.0).held_to([1.0, 1.1, 1.2]).needed is None


def test_shares_leave_out_what_is_missing_and_can_be_empty():
    asked = Criterion("share", "of replicas", least=0.5)
    assert asked.held_to_share([]).outcome == "not measured"
    assert asked.held_to_share([np.nan]).missing == 1


def test_an_estimate_with_an_interval_of_its_own_is_held_to_its_ends():
    asked = Criterion("slope", "of a fit", least=0.0, most=1.0)
    cases = {(0.1, 0.9): "holds", (0.0, 1.0): "holds", (-0.1, 0.9): "undecided", (1.1, 2.0): "fails", (-2, -1): "fails"}
    for (lower, upper), outcome in cases.items():
        assert asked.held_to_interval(sum((lower, upper)) / 2, lower, upper).outcome == outcome
    assert asked.held_to_interval(0.5, np.nan, 0.9).outcome == "undecided"
    assert asked.held_to_interval(np.nan, np.nan, np.nan).outcome == "not measured"


@pytest.mark.parametrize(
    "bounds", [{}, {"least": 1.0, "most": 1.0}, {"least": 2.0, "most": 1.0}, {"least": np.nan}, {"least": np.inf}]
)
def test_criteria_that_any_number_or_none_would_meet_are_refused(bounds):
    with pytest.raises(ConfigurationError, match="expected a bound"):
        Criterion("mean", "none", **bounds)


# --- verdicts

OUTCOMES = ("holds", "fails", "undecided", "not measured")


def finding(outcome: str, is_control: bool) -> Finding:
    ends = {
        "holds": (0, 1.0, 2.0),
        "fails": (0, -2.0, -1.0),
        "undecided": (0, -1.0, 1.0),
        "not measured": (np.nan,) * 3,
    }
    return Criterion("mean", "made up", least=0.0, is_control=is_control).held_to_interval(*ends[outcome])


@pytest.mark.parametrize("outcomes", list(itertools.product(OUTCOMES, repeat=3)), ids="-".join)
def test_verdicts_of_all_combinations_of_two_criteria_and_a_control(outcomes):
    *criteria, control = outcomes
    check_verdict(lambda findings, short: Claim(1, findings, "", "", too_short=short).verdict, criteria, control)


def check_verdict(verdict_of, criteria, control) -> None:
    findings = (*(finding(each, False) for each in criteria), finding(control, True))
    held = criteria.count("holds")
    without = {
        0: "not" if "fails" in criteria else "undecided" if "undecided" in criteria else "not measured",
        1: "partly",
        2: "reproduced" if control in ("fails", "undecided") else "partly",
    }
    assert verdict_of(findings, "") == without[held]
    assert verdict_of(findings, "II was not reached") == ("too short" if "not measured" in criteria else without[held])


def test_a_verdict_to_which_too_short_and_too_few_are_not_reproduced_would_be_noticed():
    def as_before(findings, _):
        criteria = [each for each in findings if not each.criterion.is_control]
        if all((each.outcome == "holds") != each.criterion.is_control for each in findings):
            return "reproduced"
        return "partly" if any(each.counts_for for each in criteria) else "not"

    check_verdict(as_before, ["holds", "holds"], "fails")
    for criteria, control in (
        (["undecided"] * 2, "fails"),
        (["not measured"] * 2, "fails"),
        (["holds"] * 2, "not measured"),
    ):
        with pytest.raises(AssertionError):
            check_verdict(as_before, criteria, control)


def test_a_run_that_did_not_reach_a_phase_is_too_short_for_it():
    curves = four_phase_trajectory(np.random.default_rng(0), boundaries=(10, 70, 200), records=100)
    phases = detect_phases(curves)
    assert too_short(phases, "III") == ""
    said = too_short(phases, "IV")
    assert said == "Phase IV was reached by 0 of 4 replicas in 99 epochs: more than 99 are needed, 198 to begin with"
    assert said in Claim(4, (finding("not measured", False),), "", "", too_short=said).in_words()


def test_controls_alone_show_nothing():
    assert Claim(1, (finding("fails", True),), "", "").verdict == "not measured"
    assert Claim(1, (), "", "").verdict == "not measured"
    assert Claim(1, (), "", "", too_short="none").verdict == "too short"


def test_claims_in_words_have_verdict_numbers_bounds_and_note():
    claim = Claim(4, (finding("holds", False), finding("fails", True)), "a.png", "digits", "A deviation.")
    said = claim.in_words()
    assert said.startswith("Claim 4 (digits): reproduced")
    assert "control, must not hold: mean" in said
    assert "(1 to 2), asked for ≥ 0: holds" in said
    assert said.endswith("A deviation.")
    assert sorted(CLAIMS) == list(range(1, 15))


# --- files of claims

floats = st.floats(allow_nan=True, allow_infinity=True)
bounds = st.tuples(st.floats(-1e9, 1e9), st.floats(1e-3, 1e9)).map(lambda ends: (ends[0], ends[0] + ends[1]))


@st.composite
def claims(draw) -> Claim:
    findings = []
    for _ in range(draw(st.integers(0, 3))):
        least, most = draw(bounds.filter(lambda ends: ends[0] < ends[1]))
        kept = draw(st.sampled_from(["both", "least", "most"]))
        asked = Criterion(
            draw(st.text()),
            draw(st.text()),
            least if kept != "most" else -np.inf,
            most if kept != "least" else np.inf,
            draw(st.booleans()),
        )
        findings.append(asked.held_to_interval(*draw(st.tuples(floats, floats, floats)), p_value=draw(floats)))
    words = [draw(st.text()) for _ in range(4)]
    return Claim(draw(st.sampled_from(sorted(CLAIMS))), tuple(findings), *words)


def without_infinity(claim: Claim) -> dict:
    """What a file can hold: numbers that are not finite are missing."""
    row = asdict(claim)
    for each in row["findings"]:
        for name in ("estimate", "lower", "upper", "p_value"):
            each[name] = each[name] if np.isfinite(each[name]) else "missing"
    return row


@given(st.lists(claims(), max_size=3))
def test_claims_come_back_from_their_file(tmp_path_factory, written):
    path = tmp_path_factory.mktemp("claims") / "claims.json"
    write_claims(path, written)
    found = claims_from(path)
    assert [without_infinity(each) for each in found] == [without_infinity(each) for each in written]
    rows = json.loads(path.read_text(encoding="utf-8"), parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    assert [row["verdict"] for row in rows] == [each.verdict for each in found] == [each.verdict for each in written]


# --- what is trained


@dataclass(frozen=True)
class Wide(Choices):
    """Choices of a study made up here."""

    replicas: int = 4
    out: Path = field(default=Path("output/wide"))
    width: int | None = None
    """Units."""


@dataclass(frozen=True, kw_only=True)
class WideSettled(Settled, Wide):
    """The same, with everything chosen."""


def settled(chosen, quick, setting="trained"):
    """As the frame has a study settle it."""
    asked = checked(chosen)
    return settle(WideSettled, sized(asked, quick) if asked.quick else asked, setting)


def test_what_was_chosen_survives_and_the_rest_is_filled_in(monkeypatch):
    monkeypatch.delenv("LANGEVIN_NN_DATA", raising=False)
    chosen = settled(Wide(learning_rate=0.3, epochs=7.0), {}, "coarse")
    assert (chosen.dataset, chosen.learning_rate, chosen.epochs) == ("digits", 0.3, 7.0)
    assert (chosen.samples_per_class, chosen.batch_size) == (64, 20)
    monkeypatch.setenv("LANGEVIN_NN_DATA", "/somewhere")
    assert settled(Wide(), {}).dataset == "mnist10k"
    assert settled(Wide(dataset="digits"), {}).dataset == "digits"


# What was published with the paper's numbers, as (samples of each class, α, B, epochs).
USED = {
    ("mnist", "trained"): (400, 0.01, 25, 500),
    ("mnist10k", "trained"): (400, 0.01, 25, 500),
    ("digits", "trained"): (120, 0.1, 25, 360),
    ("cifar10", "trained"): (200, 0.2, 25, 120),
    ("mnist10k", "clean"): (400, 0.1, 50, 200),
    ("digits", "clean"): (120, 0.1, 25, 200),
    ("cifar10", "clean"): (200, 0.2, 25, 120),
    ("mnist10k", "swept"): (400, 0.01, 25, 600),
    ("digits", "swept"): (120, 0.1, 25, 500),
    ("cifar10", "swept"): (200, 0.2, 25, 400),
    ("mnist10k", "coarse"): (64, 0.1, 20, 100),
    ("digits", "coarse"): (64, 0.2, 20, 200),
    ("cifar10", "coarse"): (200, 0.2, 25, 120),
}


@pytest.mark.parametrize(("dataset", "setting"), USED)
def test_every_data_set_leaves_nothing_open(dataset, setting):
    config = settled(Wide(dataset=dataset), {}, setting)
    chosen = (config.samples_per_class, config.learning_rate, config.batch_size, config.epochs)
    assert chosen == USED[dataset, setting]
    assert settled(config, {}) == config


BLOBS = """
import numpy as np
from torch import nn
from models import DataSet, ImageData, Setting

def blobs(samples_per_class, data_dir):
    labels = np.tile(np.arange(3), samples_per_class or 7)
    inputs = (np.eye(3)[labels] + np.arange(len(labels))[:, None] / 100).astype("float32")
    return ImageData("blobs", inputs, labels, inputs[:6], labels[:6], n_classes=3)

trained = DataSet("trained", "blobs", blobs, trained=Setting(7, 0.2, 5, 9.0), clean=Setting(8, 0.3, 5, 9.0))
coarse = DataSet("coarse", "with a network of its own", blobs, Setting(7, 0.2, 5, 9.0), network=lambda: nn.Linear(3, 3))
odd = DataSet("odd", "nothing", lambda samples_per_class, data_dir: [1])
number = 3
"""


@pytest.fixture
def own(tmp_path, monkeypatch):
    """A stranger's folder, with a module of its own name in each test, since imports are kept."""
    name = f"blobs_{tmp_path.name}"
    (tmp_path / f"{name}.py").write_text(BLOBS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", list(sys.path))
    return name


def test_a_data_set_of_ones_own_is_settled_loaded_and_trained_like_ours(own):
    config = settled(Wide(dataset=f"{own}:trained", batch_size=4), {}, "clean")
    assert (config.samples_per_class, config.learning_rate, config.batch_size, config.epochs) == (8, 0.3, 4, 9.0)
    assert settled(Wide(dataset=f"{own}:trained"), {}, "swept").samples_per_class == 7
    landscape = landscape_of(load(config), config, label_noise=0.5)
    assert landscape.labels.shape == (4, 24)
    assert landscape.relabeled.sum(-1).tolist() == [12] * 4


def test_a_network_of_its_own_is_trained_and_refused_where_widths_are_varied(own):
    config = settled(Wide(dataset=f"{own}:coarse"), {})
    assert landscape_of(load(config), config).n_parameters == 3 * 3 + 3
    with pytest.raises(ConfigurationError, match=r"fully connected.*varied; choose digits, mnist or mnist10k, or"):
        refuse_own_network(config, "since widths are varied")
    refuse_own_network(settled(Wide(dataset=f"{own}:trained"), {}), "since widths are varied")


def test_a_function_is_a_data_set_whose_training_is_chosen(own):
    with pytest.raises(ConfigurationError, match=r"without learning_rate, epochs: expected them.*trained=Setting"):
        settled(Wide(dataset=f"{own}:blobs", samples_per_class=4, batch_size=2), {})
    config = settled(
        Wide(dataset=f"{own}:blobs", quick=True),
        {"samples_per_class": 4, "learning_rate": 0.1, "epochs": 1.0, "batch_size": 2},
    )
    assert len(load(config).train_labels) == 12


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("nowhere_at_all:blobs", "No module named 'nowhere_at_all'; expected a module that can be imported from"),
        ("{own}:nothing", "has no attribute 'nothing'"),
        ("{own}:number", "of type int: expected a DataSet, or a function"),
        ("{own}:", "expected module:name"),
        (":blobs", "expected module:name"),
        ("./blobs.py:blobs", "expected module:name"),
        ("{own}:odd", r"data set odd gave .*expected an ImageData"),
    ],
)
def test_what_is_no_data_set_of_ones_own_is_refused(own, name, said):
    with pytest.raises(ConfigurationError, match=said):
        load(Wide(dataset=name.format(own=own), samples_per_class=2))


def test_quick_takes_the_place_of_what_was_not_chosen_alone():
    quick = {"dataset": "digits", "replicas": 2, "epochs": 3.0, "width": 5}
    assert settled(Wide(dataset="digits", epochs=9.0, replicas=3), quick).epochs == 9.0
    small = settled(Wide(quick=True, replicas=3), quick)
    assert (small.dataset, small.replicas, small.epochs, small.width, small.batch_size) == ("digits", 3, 3.0, 5, 25)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"dataset": "minst"}, "unknown data set 'minst'.*digits"),
        ({"replicas": 1}, "replicas=1: expected at least 2"),
        ({"learning_rate": 0.0}, "learning_rate=0"),
        ({"epochs": float("inf")}, "epochs=inf"),
        ({"epochs": float("nan")}, "epochs=nan"),
        ({"batch_size": 0}, "batch_size=0"),
        ({"replicas": 2.5}, "replicas"),
        ({"device": "cuda"}, "found none"),
    ],
)
def test_what_cannot_be_run_is_refused(wrong, said, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises((ConfigurationError, UnknownNameError), match=said):
        settled(Wide(**({"dataset": "digits"} | wrong)), {})


@pytest.fixture(scope="module")
def small():
    config = settled(Wide(dataset="digits", samples_per_class=8), {})
    return config, load(config)


def test_labels_of_a_replica_are_its_own_whatever_the_others_are(small):
    config, data = small

    def labels(config, **options) -> np.ndarray:
        return landscape_of(data, config, label_noise=0.5, **options).labels.numpy()

    whole = labels(config)
    assert whole.shape == (4, 80)
    assert len({tuple(row) for row in whole}) == 4
    for chosen in ((2,), (3, 1)):
        np.testing.assert_array_equal(labels(config, replicas=chosen), whole[[*chosen]])
    np.testing.assert_array_equal(labels(replace(config, replicas=6))[:4], whole)
    assert (labels(replace(config, seed=1)) != whole).any(1).all()


def test_label_noise_redraws_its_share_and_never_the_true_labels(small):
    config, data = small
    noisy = landscape_of(data, config, label_noise=0.25)
    assert noisy.relabeled.sum(-1).tolist() == [20] * 4
    assert (noisy.true_labels.numpy() == data.train_labels).all()
    np.testing.assert_array_equal(noisy.mislabeled, noisy.labels.numpy() != data.train_labels)
    clean = landscape_of(data, config)
    np.testing.assert_array_equal(clean.labels[0], data.train_labels)
    assert not clean.mislabeled.any()


def test_the_tensor_between_the_hidden_layers_has_the_size_that_the_paper_counts(small):
    config, data = small
    assert len(landscape_of(data, config, parameters=DATASETS["digits"].hidden_weights).measured_columns) == 50 * 50
    assert len(landscape_of(data, config, hidden=(30, 30), parameters="2.weight").measured_columns) == 30 * 30
    assert all(each.endswith(".") for each in DEVIATIONS)


def test_networks_beyond_measure_are_refused(small):
    config, data = small
    with pytest.raises(ConfigurationError, match="choose narrower layers"):
        landscape_of(data, config, hidden=(2000, 2000))


def test_words_of_a_run_are_what_decides_its_numbers(tmp_path):
    words = words_of(Wide(dataset="digits", out=tmp_path, data_dir=tmp_path, seed=3))
    assert (words["dataset"], words["seed"]) == ("digits", 3)
    assert {"out", "data_dir", "resume", "overwrite", "workers"}.isdisjoint(words)
    here, there = (of_the_numbers(Wide(dataset="digits", data_dir=tmp_path / each)) for each in ("here", "there"))
    assert plain(here) == plain(there), "points of a sweep are found where its data have moved"
    assert Path(here.data_dir) == tmp_path / "here"


# --- means by phase


@st.composite
def phases_and_values(draw):
    """Boundaries in any order of being reached, values on a clock of their own with holes."""
    replicas, boundaries = draw(st.integers(1, 3)), draw(st.sampled_from([1, 3]))
    epochs = np.array(draw(st.lists(st.integers(0, 40), min_size=2, max_size=12, unique=True).map(sorted)), dtype=float)
    begin = np.sort(draw(arrays(np.int64, (replicas, boundaries), elements=st.integers(0, 45))), axis=1).astype(float)
    begin[draw(arrays(bool, begin.shape))] = np.nan
    before = np.array([draw(st.integers(0, boundaries)) for _ in range(replicas)])
    begin[np.arange(boundaries) < before[:, None]] = np.nan  # the first record is beyond those
    values = draw(arrays(np.float64, (replicas, len(epochs)), elements=st.floats(-10, 10)))
    values[draw(arrays(bool, values.shape))] = np.nan
    return epochs, begin, 1 + before, values


@given(phases_and_values())
@settings(max_examples=25)
def test_means_by_phase_are_those_counted_record_by_record(made):
    epochs, begin, first, values = made
    replicas, boundaries = begin.shape
    names = "I II III IV" if boundaries == 3 else "fast_learning exploration"
    phases = xr.Dataset(
        {
            "boundary_epoch": (("replica", "boundary"), begin),
            "phase": (("replica", "step"), first[:, None], {"flag_meanings": names}),
        },
        coords={"boundary": [f"{k}|{k + 1}" for k in range(boundaries)]},
    )
    series = xr.DataArray(
        values, dims=("replica", "spectrum_step"), coords={"epoch": ("spectrum_step", epochs)}, attrs={"units": "nat"}
    )
    found = phase_means(series, phases)
    assert found.dims == ("replica", "phase")
    assert list(found.phase.values) == names.split()
    assert found.attrs == {"units": "nat"}
    for replica in range(replicas):
        members: dict[int, list[float]] = {number: [] for number in range(1, boundaries + 2)}
        for epoch, value in zip(epochs, values[replica], strict=True):
            number = first[replica]
            for k, start in enumerate(begin[replica]):
                if epoch >= start:
                    number = max(number, k + 2)
            if not math.isnan(value):
                members[number].append(value)
        expected = [math.fsum(each) / len(each) if each else math.nan for each in members.values()]
        np.testing.assert_allclose(found.values[replica], expected, atol=1e-12)


def test_means_by_detected_phases_agree_with_their_labels_and_keep_other_dimensions():
    """On the clock of the phases themselves each record belongs to the phase that it is labelled with."""
    record = np.arange(60.0)
    correct = np.clip(0.9 - 0.06 * record, 0.02, None)
    wrong = np.clip(1.5 - 0.03 * record, 0, 0.95)
    errors = np.stack([(correct + wrong) / 2 * (record < 52), correct, wrong], axis=-1)
    stacked = np.stack([errors, np.roll(errors, 3, axis=0)])
    stacked[1, :3] = errors[0]
    runs = xr.Dataset(
        {"train_error": (("replica", "step", "cohort"), stacked)},
        coords={"cohort": ["all", "correct", "mislabeled"], "time": ("step", 0.1 * record), "epoch": ("step", record)},
    )
    phases = detect_phases(runs)
    assert set(np.unique(phases.phase)) == {1, 2, 3, 4}
    found = phase_means(runs.train_error, phases)
    assert found.dims == ("replica", "cohort", "phase")
    for k in range(4):
        xr.testing.assert_allclose(
            found.isel(phase=k, drop=True), runs.train_error.where(phases.phase == k + 1).mean("step")
        )
    end = runs.isel(step=slice(-4, None))  # all fitted from its first record on, and so without boundaries
    in_fourth = phase_means(end.train_error, detect_phases(end))
    xr.testing.assert_allclose(in_fourth.sel(phase="IV", drop=True), end.train_error.mean("step"))
    assert np.isnan(in_fourth.sel(phase=["I", "II", "III"])).all()


def test_values_without_a_clock_are_refused():
    phases = xr.Dataset({"boundary_time": ("boundary", [1.0]), "phase": ("step", [1], {"flag_meanings": "a b"})})
    with pytest.raises(ConfigurationError, match="expected epoch or time"):
        phase_means(xr.DataArray([1.0, 2.0], dims="step", coords={"epoch": ("step", [0.0, 1.0])}), phases)


# --- bands and shades


@pytest.mark.parametrize("logarithmic", [False, True])
def test_bands_are_t_intervals_on_the_scale_of_the_axis(logarithmic):
    sample = np.exp(np.random.default_rng(2).standard_normal((6, 9)))
    values = xr.DataArray(sample, dims=("replica", "step"))
    axes = Figure().subplots()
    draw_band(axes, np.arange(9), values, logarithmic=logarithmic, color="k")
    seen = np.log(sample) if logarithmic else sample
    interval = stats.ttest_1samp(seen, 0).confidence_interval(0.95)
    expected = np.stack([interval.low, seen.mean(0), interval.high])
    expected = np.exp(expected) if logarithmic else expected
    (line,), (band,) = axes.lines, axes.collections
    np.testing.assert_allclose(line.get_ydata(), expected[1])
    corners = band.get_paths()[0].vertices
    for step in range(9):
        heights = corners[corners[:, 0] == step][:, 1]
        assert (heights.min(), heights.max()) == pytest.approx((expected[0, step], expected[2, step]))


def shades(axes) -> list[tuple[float, float]]:
    """Extents of the shaded phases, without the strips of intervals."""
    patches = [each for each in axes.patches if each.get_zorder() == -3]
    return [(each.get_x(), each.get_x() + each.get_width()) for each in patches]


def phases_at(*boundaries: float, names: str = "I II III IV") -> xr.Dataset:
    found = np.array([boundaries, boundaries], dtype=float)
    return xr.Dataset(
        {
            "boundary_epoch": (("replica", "boundary"), found),
            "phase": (("replica", "step"), np.ones((2, 1)), {"flag_meanings": names}),
        }
    )


def test_phases_are_shaded_from_boundary_to_boundary():
    axes = Figure().subplots()
    shade_phases(axes, phases_at(10, 40, 90), 200)
    assert shades(axes) == [(0, 10), (10, 40), (40, 90), (90, 200)]
    assert [each.get_text() for each in axes.texts] == ["I", "II", "III", "IV"]
    assert [each.get_position()[0] for each in axes.texts] == [5, 25, 65, 145]


def test_phases_not_reached_are_not_shaded_and_mean_boundaries_have_strips():
    axes = Figure().subplots()
    known = phases_at(10, 40, np.nan)
    for end, values in {"": [12, 41, np.nan], "_lower": [9, 38, np.nan], "_upper": [15, 44, np.nan]}.items():
        known[f"mean_boundary_epoch{end}"] = ("boundary", np.array(values, dtype=float))
    shade_phases(axes, known, 200)
    assert shades(axes) == [(0, 12), (12, 41), (41, 200)]
    strips = [(each.get_x(), each.get_x() + each.get_width()) for each in axes.patches if each.get_zorder() == -2]
    assert strips == [(9, 15), (38, 44)]
    assert [each.get_text() for each in axes.texts] == ["I", "II", "III"]


def test_on_a_logarithmic_axis_shades_begin_at_its_edge():
    axes = Figure().subplots()
    axes.set(xscale="log", xlim=(1, 400))
    shade_phases(axes, phases_at(100, names="fast_learning exploration"), 400)
    assert shades(axes) == [(1, 100), (100, 400)]
    assert [each.get_text() for each in axes.texts] == ["fast learning", "exploration"]
    assert axes.texts[0].get_position()[0] == pytest.approx(10)
