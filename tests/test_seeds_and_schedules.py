"""Addressed randomness and record clocks: what may depend on what, and the law of the numbers."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from langevin_nn.errors import ConfigurationError
from langevin_nn.schedules import AtEpochs, AtSteps, EveryEpochs, EverySteps, Logarithmic
from langevin_nn.seeds import Key, Seeds

# A correlation of 0.03 between two streams must be seen at five standard errors, twice over: 5/√n < 0.015.
N_DRAWS = 120_000


def correlation_in_standard_errors(first, second):
    """Independent streams have a correlation of variance 1/n."""
    return abs(np.corrcoef(first, second)[0, 1]) * np.sqrt(len(first))


def moments_in_standard_errors(draws):
    """Mean, variance and fourth moment of N(0, 1) have variances 1/n, 2/n and 96/n."""
    n = len(draws)
    draws = np.asarray(draws, dtype=np.float64)
    return np.array(
        [
            draws.mean() * np.sqrt(n),
            (np.square(draws).mean() - 1) * np.sqrt(n / 2),
            ((draws**4).mean() - 3) * np.sqrt(n / 96),
        ]
    )


# --- addresses


@given(
    seed=st.integers(-(2**70), 2**70),
    replicas=st.permutations(range(6)),
    n_running=st.integers(1, 6),
    step=st.integers(0, 2**63 - 1),
)
def test_a_replica_draws_the_same_whichever_replicas_run_in_whichever_order(seed, replicas, n_running, step):
    running = tuple(replicas[:n_running])
    together = Key(Seeds(seed), running, step).normals("noise", 5)
    for row, replica in zip(together, running, strict=True):
        alone = Key(Seeds(seed), (replica,), step).normals("noise", 5)
        assert np.array_equal(row, alone[0])


def test_numbers_do_not_depend_on_what_was_drawn_before():
    seeds = Seeds(4)
    first = seeds.generator("noise", 3, 17).random(8)
    for replica in range(5):
        seeds.generator("noise", replica, 17).random(1000)
    seeds.generator("measurement", 3, 17).random(1000)
    assert np.array_equal(first, seeds.generator("noise", 3, 17).random(8))


def test_a_prefix_is_a_prefix():
    """Asking for more numbers at an address does not change the first ones."""
    key = Key(Seeds(4), (0, 2), 9)
    assert np.array_equal(key.normals("noise", 400)[:, :30], key.normals("noise", 30))


def test_a_step_is_two_to_the_192_numbers_beyond_the_one_before():
    """Another route to the same address: jump there from step 0."""
    jumped = Seeds(11).generator("noise", 2).bit_generator.advance(7 * 2**192)
    assert np.array_equal(jumped.random_raw(20), Seeds(11).generator("noise", 2, 7).bit_generator.random_raw(20))


NEIGHBOURS = {
    "purpose": {"purpose": "measurement"},
    "purpose with the replica in its name": {"purpose": "noise/3"},
    "replica": {"replica": 4},
    "step": {"step": 6},
    "far step": {"step": 2**40},
    "seed": {"seed": 2},
    "negative seed": {"seed": -1},
}


def stream(seed=1, purpose="noise", replica=3, step=5):
    return Seeds(seed).generator(purpose, replica, step)


@pytest.mark.parametrize("change", NEIGHBOURS.values(), ids=NEIGHBOURS)
def test_neighbouring_addresses_share_no_number(change):
    here, there = (s.bit_generator.random_raw(5000) for s in (stream(), stream(**change)))
    assert not np.intersect1d(here, there).size


def test_the_test_of_overlap_sees_a_counter_that_starts_one_block_later():
    """Mutated twin: the step in the lowest word of the counter makes steps overlap."""

    def overlapping(step):
        return np.random.Philox(key=123, counter=[step, 0, 0, 0]).random_raw(5000)

    assert np.intersect1d(overlapping(5), overlapping(6)).size > 4000


@pytest.mark.parametrize("change", NEIGHBOURS.values(), ids=NEIGHBOURS)
def test_neighbouring_addresses_are_uncorrelated(change):
    here, there = stream().standard_normal(N_DRAWS), stream(**change).standard_normal(N_DRAWS)
    assert correlation_in_standard_errors(here, there) < 5
    # ... and neither do their numbers come one, two or four places later (Philox makes four at a time).
    for lag in (1, 2, 4):
        assert correlation_in_standard_errors(here[lag:], there[:-lag]) < 5


def test_the_test_of_correlation_sees_three_percent():
    """Mutated twin: a stream that borrows three percent of its neighbour's."""
    here, there = stream().standard_normal(N_DRAWS), stream(replica=4).standard_normal(N_DRAWS)
    assert correlation_in_standard_errors(here, there + 0.03 * here) > 5


def test_first_numbers_of_many_addresses_are_independent():
    """Across replicas and across steps, not only along one stream: the lag-one correlation of first draws."""
    n = 20_000
    over_steps = np.array([stream(step=step).standard_normal() for step in range(n)])
    over_replicas = Key(Seeds(1), tuple(range(n)), 5).normals("noise", 1, np.float64)[:, 0]
    for draws in (over_steps, over_replicas):
        assert correlation_in_standard_errors(draws[1:], draws[:-1]) < 5
        assert (abs(moments_in_standard_errors(draws)) < 5).all()


def test_integers_for_other_libraries_are_distinct_and_fit_into_63_bits():
    integers = [Seeds(seed).integer(purpose, r) for seed in (0, 1) for purpose in "ab" for r in range(50)]
    assert len(set(integers)) == 200
    assert all(0 <= value < 2**63 for value in integers)
    # Of 200 uniform 63-bit numbers, one lies in the upper half at least: all of the range is used.
    assert max(integers) >= 2**62
    assert Seeds(1).integer("a", 3) == Seeds(1).integer("a", 3)


# --- the law of the normals


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_normals_are_standard_normal(dtype):
    draws = Key(Seeds(5), (0, 1, 2, 3), 12).normals("noise", N_DRAWS, dtype)
    assert draws.dtype == dtype
    assert draws.shape == (4, N_DRAWS)
    for row in draws:
        assert (abs(moments_in_standard_errors(row)) < 5).all()
        # √n times the Kolmogorov–Smirnov distance exceeds 2 with probability 7e-4.
        assert stats.kstest(row.astype(np.float64), "norm").statistic * np.sqrt(N_DRAWS) < 2


def test_the_test_of_normals_sees_five_percent_of_amplitude():
    """Mutated twin: noise times 1.05 has a variance too large by 0.1025, or 25 standard errors."""
    draws = 1.05 * Key(Seeds(5), (0,), 12).normals("noise", N_DRAWS, np.float64)[0]
    assert moments_in_standard_errors(draws)[1] > 20


def test_normals_are_drawn_in_their_own_precision():
    fine = Key(Seeds(5), (0,), 12).normals("noise", 1000, np.float64)
    assert np.mean(fine == fine.astype(np.float32)) < 0.01


def test_normals_of_replicas_and_steps_are_uncorrelated():
    here = Key(Seeds(5), (0, 1), 12).normals("noise", N_DRAWS)
    later = Key(Seeds(5), (0, 1), 13).normals("noise", N_DRAWS)
    for first, second in [(here[0], here[1]), (here[0], later[0]), (here[0], later[1])]:
        assert correlation_in_standard_errors(first, second) < 5


# --- schedules

periodic = st.one_of(
    st.builds(EverySteps, st.integers(1, 300)),
    st.builds(EveryEpochs, st.floats(0.05, 50)),
    st.builds(Logarithmic, st.integers(1, 40)),
)
explicit = st.one_of(
    st.builds(AtSteps, st.lists(st.integers(-5, 3000), max_size=20).map(tuple)),
    st.builds(AtEpochs, st.lists(st.floats(0, 100), max_size=20).map(tuple)),
)
lengths = st.integers(0, 2000)
epochs = st.floats(0.5, 200)


@given(schedule=st.one_of(periodic, explicit), last_step=lengths, steps_per_epoch=epochs)
def test_records_move_forward_inside_the_run(schedule, last_step, steps_per_epoch):
    steps = schedule.steps(last_step, steps_per_epoch)
    assert steps.dtype == np.int64
    assert (np.diff(steps) > 0).all()
    assert ((steps >= 0) & (steps <= last_step)).all()


@given(schedule=periodic, last_step=lengths, steps_per_epoch=epochs)
def test_first_and_last_step_belong_to_periodic_schedules(schedule, last_step, steps_per_epoch):
    steps = schedule.steps(last_step, steps_per_epoch)
    assert steps[0] == 0
    assert steps[-1] == last_step


@given(interval=st.integers(1, 300), last_step=lengths)
def test_every_steps_holds_the_multiples_and_the_end(interval, last_step):
    expected = {k for k in range(last_step + 1) if k % interval == 0} | {last_step}
    assert set(EverySteps(interval).steps(last_step, 7.0).tolist()) == expected


@given(interval=st.floats(0.05, 50), last_step=st.integers(1, 2000), steps_per_epoch=epochs)
def test_every_epochs_holds_the_update_nearest_to_each(interval, last_step, steps_per_epoch):
    steps = EveryEpochs(interval).steps(last_step, steps_per_epoch)
    wanted = np.array([k * interval * steps_per_epoch for k in range(int(last_step / (interval * steps_per_epoch)))])
    distances = [abs(steps - at).min() for at in wanted]
    # Half an update, and the rounding of k times the interval.
    assert all(distance <= 0.5 + 1e-9 * last_step for distance in distances)
    assert len(steps) <= last_step / (interval * steps_per_epoch) + 2


@given(per_decade=st.integers(1, 40), last_step=st.integers(1, 10**6))
def test_logarithmic_steps_are_powers_with_the_same_exponents_in_each_decade(per_decade, last_step):
    steps = Logarithmic(per_decade).steps(last_step, 1.0)
    places = {round(10 ** (k / per_decade)) for k in range(7 * per_decade)}
    assert set(steps.tolist()) == {0, last_step} | {place for place in places if place < last_step}


@given(at=st.lists(st.integers(0, 3000), max_size=20), last_step=lengths)
def test_at_steps_holds_what_was_asked_for_and_no_more(at, last_step):
    assert AtSteps(tuple(at)).steps(last_step, 3.0).tolist() == sorted({k for k in at if k <= last_step})


@given(at=st.lists(st.floats(0, 100), max_size=20), last_step=lengths, steps_per_epoch=epochs)
def test_at_epochs_holds_the_update_nearest_to_each(at, last_step, steps_per_epoch):
    steps = AtEpochs(tuple(at)).steps(last_step, steps_per_epoch)
    nearest = {int(np.floor(epoch * steps_per_epoch + 0.5)) for epoch in at}
    nearest |= {int(np.ceil(epoch * steps_per_epoch - 0.5)) for epoch in at}  # a tie may go either way
    assert set(steps.tolist()) <= nearest
    for epoch in at:
        if epoch * steps_per_epoch <= last_step - 0.5 - 1e-9:
            assert abs(steps - epoch * steps_per_epoch).min() <= 0.5 + 1e-9


@pytest.mark.parametrize("value", [0, -1, -0.5, float("nan")])
@pytest.mark.parametrize(
    ("schedule", "name"), [(EverySteps, "interval"), (EveryEpochs, "interval"), (Logarithmic, "per_decade")]
)
def test_a_schedule_that_stands_still_is_refused(schedule, name, value):
    with pytest.raises(ConfigurationError, match=rf"{name}={value}: expected a .*records must move forward in time"):
        schedule(value)
