"""Gradients, the gradient ensemble, Langevin dynamics and recording, against peers and the physical floor.

``python -m benchmarks`` runs all parts, ``python -m benchmarks langevin`` one of them.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from itertools import pairwise

import numba
import torch
from torch import nn
from torch.func import functional_call, grad, vmap

from benchmarks import gradient_ensemble, langevin, monitor, networks, recording, replicas, sweeps
from benchmarks.timing import medians, table
from langevin_nn import NetworkLandscape, Seeds
from langevin_nn.gradients.layout import ParameterLayout
from langevin_nn.gradients.traced import TracedGradient
from langevin_nn.threads import single_threaded_products
from models.datasets import load_dataset
from models.networks import multilayer_perceptron

WIDTHS = (64, 50, 50, 10)
PASSES = 10


def repeated(run: Callable[[], object]) -> Callable[[], object]:
    """Run so many passes at a time."""

    def passes() -> None:
        for _ in range(PASSES):
            run()

    return passes


def in_a_block(run: Callable[[], object]) -> Callable[[], object]:
    """Run so many passes as a process does, which holds products to one thread for a block of updates."""

    def block() -> None:
        with single_threaded_products():
            repeated(run)()

    return block


def peak() -> float:
    """Return the measured single-precision rate of large matrix products, in FLOP a second."""
    a = torch.rand(1500, 1500)
    return 2 * 1500**3 / medians({"": lambda: a @ a}, rounds=9)[""]


def products(n_rows: int, n_replicas: int) -> float:
    """Return the floating-point operations of one weighted gradient's matrix products."""
    layers = list(pairwise(WIDTHS))
    forward_and_weights = sum(4 * n_in * n_out for n_in, n_out in layers)
    backward = sum(2 * n_in * n_out for n_in, n_out in layers[1:])
    return n_replicas * n_rows * (forward_and_weights + backward)


def loop(landscape: NetworkLandscape, module: nn.Module, rows: torch.Tensor, n_replicas: int) -> None:
    """Run what one would write without this package: one replica after the other, autograd each time."""
    for _ in range(n_replicas):
        module.zero_grad()
        nn.functional.cross_entropy(module(landscape.inputs[rows]), landscape.labels[0, rows]).backward()


def gradients(landscape: NetworkLandscape, module: nn.Module, n_replicas: int, n_rows: int, rate: float) -> str:
    """Time one weighted gradient of several replicas."""
    n = landscape.n_samples
    layout = ParameterLayout.of(module)
    loss = nn.functional.cross_entropy

    def sample_losses(outputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        return loss(outputs, labels, reduction="none")

    traced = TracedGradient(module, layout, sample_losses)
    weights = landscape.initial_weights(tuple(range(n_replicas)), Seeds(0))
    full = n_rows == n
    indices = None if full else torch.randint(n, (n_replicas, n_rows))
    rows = torch.arange(n_rows)
    coefficients = torch.full((n_replicas, n_rows), 1 / n_rows)
    inputs = landscape.inputs if indices is None else landscape.inputs[indices]
    labels = landscape.labels.expand(n_replicas, -1) if indices is None else landscape.labels[0][indices]

    def one(parameters, x, y):  # type: ignore[no-untyped-def]
        return loss(functional_call(module, parameters, (x,)), y)

    vectorised = vmap(grad(one), in_dims=(0, None if full else 0, 0))

    def general() -> torch.Tensor:
        return traced(weights, landscape.inputs, landscape.labels, coefficients, indices)

    seconds = medians(
        {
            "this package, perceptron kernel": in_a_block(
                lambda: landscape.weighted_gradient(weights, coefficients, indices)
            ),
            "this package, traced torch.func (any network)": in_a_block(general),
            "torch.func.vmap(grad)": repeated(lambda: vectorised(layout.split(weights), inputs, labels)),
            "plain PyTorch loop": repeated(lambda: loop(landscape, module, rows, n_replicas)),
        }
    )
    seconds = {name: value / PASSES for name, value in seconds.items()}
    floor = "matrix products at the measured peak"
    seconds[floor] = products(n_rows, n_replicas) / rate
    return table(f"Weighted gradient, {n_replicas} replicas × {n_rows} samples", seconds, floor)


def report() -> None:
    """Print the tables of weighted gradients."""
    data = load_dataset("digits")
    module = multilayer_perceptron(WIDTHS)
    landscape = NetworkLandscape(module, data.train_inputs, data.train_labels)
    rate = peak()
    print(f"{numba.config.NUMBA_NUM_THREADS} threads; large matrix products reach {rate / 1e9:.0f} GFLOP/s in float32.")
    for n_replicas, n_rows in ((4, 25), (32, 25), (4, 1200)):
        print("", gradients(landscape, module, n_replicas, n_rows, rate), sep="\n", flush=True)


PARTS = {
    "gradients": report,
    "ensemble": gradient_ensemble.report,
    "networks": networks.report,
    "monitor": monitor.report,
    "langevin": langevin.report,
    "replicas": replicas.report,
    "recording": recording.report,
    "sweeps": sweeps.report,
}


def main() -> None:
    """Print the tables of the parts that are named, or of all."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"{', '.join(PARTS)}; all of them unless named")
    chosen = parser.parse_args().parts or list(PARTS)
    unknown = [each for each in chosen if each not in PARTS]
    if unknown:
        parser.error(f"unknown part {', '.join(unknown)}: expected some of {', '.join(PARTS)}")
    torch.set_num_threads(numba.config.NUMBA_NUM_THREADS)
    for number, name in enumerate(chosen):
        print(end="\n" if number else "")
        PARTS[name]()


if __name__ == "__main__":
    main()
