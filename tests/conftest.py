"""Fixtures shared by the suite: small networks on real digits, and one profile for hypothesis."""

from __future__ import annotations

import matplotlib
import numpy as np
import pytest
import torch
from hypothesis import settings

from langevin_nn import NetworkLandscape, Seeds
from models.datasets import load_dataset
from models.label_noise import corrupt_labels
from models.networks import multilayer_perceptron

matplotlib.use("Agg")

# Reproducible everywhere: no example database, no clock.
settings.register_profile("suite", deadline=None, derandomize=True, database=None, max_examples=50)
settings.load_profile("suite")


def digits_landscape(n_samples: int = 60, widths: tuple[int, ...] = (64, 8, 10), label_noise: float = 0.4, **options):
    """A small perceptron on a few real digits with noisy labels."""
    data = load_dataset("digits", samples_per_class=n_samples // 10)
    noisy = corrupt_labels(data.train_labels, label_noise, n_classes=10, seeds=Seeds(1))
    return NetworkLandscape(
        lambda: multilayer_perceptron(widths),
        data.train_inputs,
        noisy.given_labels,
        true_labels=noisy.true_labels,
        relabeled=noisy.relabeled,
        test_inputs=data.test_inputs[:50],
        test_labels=data.test_labels[:50],
        **options,
    )


@pytest.fixture
def landscape():
    return digits_landscape()


@pytest.fixture
def generator():
    return np.random.default_rng(20211)


@pytest.fixture(autouse=True)
def _own_global_state():
    """Each test has torch's global generator to itself, and must leave the number of threads as it was."""
    before = torch.get_num_threads()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield
    assert torch.get_num_threads() == before, "torch's number of threads was left changed"
