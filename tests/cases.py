"""Shared cases: landscapes on which many tests run, and what they hold files to."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import xarray as xr

from langevin_nn import NetworkLandscape, Seeds
from langevin_nn.landscape import EmpiricalLandscape
from models.datasets import load_dataset
from models.label_noise import corrupt_labels
from models.networks import multilayer_perceptron

ROOT = Path(__file__).parent.parent


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


class Points(EmpiricalLandscape):
    """ℓ_k = ½ (w − k)²: the cheapest average of sample losses."""

    n_parameters, dtype, device = 1, torch.float64, torch.device("cpu")

    def __init__(self, n_samples: int) -> None:
        self.n_samples = n_samples

    def initial_weights(self, replicas, seeds):
        return torch.zeros(len(replicas), 1, dtype=self.dtype)

    def sample_losses(self, weights):
        return 0.5 * (weights - torch.arange(self.n_samples)).square()

    def weighted_gradient(self, weights, coefficients, indices=None):
        rows = torch.arange(self.n_samples) if indices is None else indices
        return (coefficients * (weights - rows)).sum(1, keepdim=True)

    def sample_gradients(self, weights, replica=0, *, everywhere=False):
        raise NotImplementedError

    def hessian_product(self, weights, vectors):
        return vectors


def same_bits(one: xr.DataTree, other: xr.DataTree) -> None:
    assert set(one.groups) == set(other.groups)
    for path in one.groups:
        left, right = (tree[path].to_dataset(inherit=False) for tree in (one, other))
        assert set(left.variables) == set(right.variables)
        for name in left.variables:
            a, b = left.variables[name], right.variables[name]
            assert a.dims == b.dims, name
            assert dict(a.attrs) == dict(b.attrs), name
            if a.dtype.kind in "fiub":
                assert (a.dtype, a.values.tobytes()) == (b.dtype, b.values.tobytes()), name
            else:
                assert a.values.tolist() == b.values.tolist(), name
    for name in ("config_json", "complete", "schema_version"):
        assert one.attrs[name] == other.attrs[name]


def assert_on_paper(figure) -> None:
    """Nothing is cut off, and panels name their axes."""
    figure.canvas.draw()
    drawn, paper = figure.get_tightbbox(), figure.bbox_inches
    assert min(drawn.x0, drawn.y0) >= -0.01
    assert drawn.x1 <= paper.x1 + 0.01
    assert drawn.y1 <= paper.y1 + 0.01


def assert_json(folder: Path) -> None:
    """Every file of JSON below a folder can be read by a parser that knows neither NaN nor infinity."""
    files = sorted(folder.rglob("*.json"))
    assert files, f"{folder} has no JSON"
    for file in files:
        json.loads(file.read_text(), parse_constant=lambda word, file=file: pytest.fail(f"{file} holds {word}"))
