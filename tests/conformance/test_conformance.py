"""Architectures as users have them train as in torch, or are refused in words; those that take long are proofs."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from architectures import CASES, Case
from check_conformance import ALLOWED, error_of_samples, error_of_updates, found_of, landscape_of, missing, process_of

from langevin_nn.update import Momentum


def _row(case: Case) -> object:
    marks = [pytest.mark.proof] if case.proof else []
    return pytest.param(case, id=f"{case.package}, {case.name}, {case.loss}, {case.recipe}", marks=marks)


# Libraries warn of what is slow in torch, and of names of their own.
@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning", "ignore::FutureWarning")
@pytest.mark.parametrize("case", [_row(case) for case in CASES])
def test_an_architecture_trains_as_in_torch_or_is_refused_in_words(case):
    absent = missing(case)
    if absent is not None:
        pytest.skip(f"{absent} is not installed: `make conformance` installs it, as does pip install '.[models]'")
    found = found_of(case)
    if case.refused is not None:
        assert found.refusal is not None
        assert re.search(case.refused, found.refusal), found.refusal
        return
    assert found.refusal is None
    assert found.holds, found


@pytest.mark.usefixtures("one_thread")
def test_another_recipe_and_other_labels_are_found():
    """Mutated twins: a momentum that is 1 % off, and labels of other samples."""
    case = next(each for each in CASES if each.name == "convolutional")
    landscape = landscape_of(case)
    of_samples, of_updates = ALLOWED[landscape.dtype]
    process = process_of(case, landscape)
    assert error_of_updates(case, process) < of_updates
    assert error_of_updates(case, replace(process, update=Momentum(0.891, 0.01))) > of_updates
    assert error_of_samples(case, landscape) < of_samples
    assert error_of_samples(replace(case, labels=case.labels.roll(1)), landscape) > of_samples
