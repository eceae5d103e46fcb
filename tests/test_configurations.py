"""Malformed configurations: each is valid or refused with a named error. `tests.configurations` has the long form."""

from __future__ import annotations

import warnings

import configurations
import pytest
from configurations import DOORS, Door, Enough, Outcomes, attempt, hurried, run_examples

from langevin_nn.errors import ConfigurationError

ARGUMENTS = {(door.name, name) for door in DOORS for name in door.valid}


@pytest.fixture(scope="module")
def outcomes():
    return run_examples(700)


def test_every_configuration_is_valid_or_refused_with_a_named_error(outcomes):
    assert outcomes.defects == {}
    assert outcomes.examples["refused"] > 400
    assert outcomes.examples["valid"] > 20


def test_every_argument_is_hit_and_refused(outcomes):
    assert set(outcomes.hits) == ARGUMENTS
    assert {key for key, times in outcomes.refused.items() if times} == ARGUMENTS


@pytest.mark.parametrize("door", DOORS, ids=lambda door: door.name)
def test_what_is_called_valid_is_accepted_numpys_scalars_too(door):
    found = Outcomes()
    with hurried():
        attempt(door, "", door.defaults(), {}, found)
        for name, values in door.valid.items():
            for value in values[1:]:
                attempt(door, name, door.defaults() | {name: value}, {name: value}, found)
    assert (found.defects, dict(found.refused)) == ({}, {})
    assert set(found.examples) == {"valid"}


def _warns(value):
    warnings.warn("overflow", RuntimeWarning, stacklevel=2)


def _hangs(value):
    while True:
        pass


def _refuses(message):
    def use(value):
        raise ConfigurationError(message)

    return use


@pytest.mark.parametrize(
    ("use", "found"),
    [
        (lambda value: value + 1, "TypeError"),
        (lambda value: [0][value == 1 or 5], "IndexError"),
        (_warns, "RuntimeWarning"),
        (_hangs, "TooSlow"),
        (_refuses("value: no"), "nothing is expected"),
        (_refuses("expected a number"), "value is not named"),
        (_refuses("value\nexpected"), "no single line"),
    ],
)
def test_what_is_neither_is_noticed(use, found, monkeypatch):
    monkeypatch.setattr(configurations, "SECONDS", 0.2)
    outcomes = Outcomes()
    attempt(Door("one", use, {"value": (1,)}), "value", {"value": "a"}, {"value": "a"}, outcomes)
    (defect,) = outcomes.defects
    assert f"one: {found}" in defect


def test_a_run_that_has_begun_is_valid():
    def use(value):
        raise Enough

    outcomes = Outcomes()
    attempt(Door("one", use, {"value": (1,)}), "value", {"value": "a"}, {"value": "a"}, outcomes)
    assert outcomes.examples == {"valid": 1}
