"""Replicas that train together: per replica and epoch against a plain PyTorch loop, ``torch.func.vmap`` and the floor."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from itertools import pairwise
from statistics import median

import numba
import numpy as np
import torch
from numba import njit, prange
from torch import nn
from torch.func import functional_call, grad, vmap

from benchmarks.timing import medians, table
from langevin_nn import NetworkLandscape, Process, advance, langevin, sgd
from langevin_nn.engine import way
from langevin_nn.kernels.products import add_combinations, dot_products, row_addresses
from langevin_nn.observables import OrderParameters
from langevin_nn.observables.base import Snapshot
from langevin_nn.threads import single_threaded_products
from models.datasets import load_dataset
from models.networks import multilayer_perceptron, small_convolutional_network

WIDTHS, BATCH_SIZE, LEARNING_RATE = (784, 50, 50, 10), 25, 0.01
FLOOR = "matrix products alone, at the highest measured rate"
ROUNDS = 5


def images(widths: tuple[int, ...] = WIDTHS) -> NetworkLandscape:
    """Return the perceptron on 4,000 images of MNIST, or on numbers of the same shape where there are none."""
    module = multilayer_perceptron(widths)
    if os.environ.get("LANGEVIN_NN_DATA") and widths[0] == 784:
        data = load_dataset("mnist10k", samples_per_class=400)
        return NetworkLandscape(module, data.train_inputs.reshape(len(data.train_inputs), -1), data.train_labels)
    generator = np.random.default_rng(0)
    inputs = generator.random((4000, widths[0]), dtype=np.float32)
    return NetworkLandscape(module, inputs, generator.integers(widths[-1], size=4000))


def operations(n_samples: int, widths: tuple[int, ...] = WIDTHS) -> float:
    """Return the floating-point operations of the matrix products of one pass over so many samples."""
    layers = list(pairwise(widths))
    return n_samples * (4.0 * sum(a * b for a, b in layers) + 2.0 * sum(a * b for a, b in layers[1:]))


def torch_rate() -> float:
    """Return the measured single-precision rate of large matrix products in torch, FLOP a second."""
    a = torch.rand(1500, 1500)
    return 2 * 1500**3 / medians({"": lambda: a @ a}, rounds=9)[""]


@njit(parallel=True)
def _products(a, b, c, rounds):
    for thread in prange(len(a)):
        own = np.int64(thread)
        rows = np.empty(a.shape[1], np.int64)
        row_addresses(a[own], rows)
        for _ in range(rounds):
            dot_products(rows, a.shape[1], b[own], c[own])
            add_combinations(c[own], rows, True, b[own])


def own_rate() -> float:
    """Return the rate of the products in registers on the shapes of the first layer, FLOP a second, all threads."""
    threads, rounds = numba.get_num_threads(), 300
    a = np.full((threads, 50, 784), 1e-4, np.float32)
    b, c = np.full((threads, 50, 784), 1e-4, np.float32), np.empty((threads, 50, 50), np.float32)
    seconds = medians({"": lambda: _products(a, b, c, rounds)}, rounds=9)[""]
    return threads * rounds * 4 * 50 * 50 * 784 / seconds


def plain_loop(landscape: NetworkLandscape, replicas: int) -> None:
    """Train replicas one after the other for an epoch, as one would without this package."""
    inputs, labels = landscape.inputs, landscape.labels[0]
    for _ in range(replicas):
        module = multilayer_perceptron(WIDTHS)
        optimiser = torch.optim.SGD(module.parameters(), LEARNING_RATE)
        for rows in torch.randperm(len(inputs)).split(BATCH_SIZE):
            optimiser.zero_grad()
            nn.functional.cross_entropy(module(inputs[rows]), labels[rows]).backward()
            optimiser.step()


def vectorised(landscape: NetworkLandscape, replicas: int) -> None:
    """Train replicas together for an epoch through ``torch.func.vmap``."""
    module = multilayer_perceptron(WIDTHS)
    inputs, labels = landscape.inputs, landscape.labels[0]
    weights = {name: each.detach().expand(replicas, *each.shape).clone() for name, each in module.named_parameters()}

    def one(parameters, x, y):  # type: ignore[no-untyped-def]
        return nn.functional.cross_entropy(functional_call(module, parameters, (x,)), y)

    gradient = vmap(grad(one))
    orders = torch.stack([torch.randperm(len(inputs)) for _ in range(replicas)])
    with torch.no_grad():
        for rows in orders.split(BATCH_SIZE, dim=1):
            found = gradient(weights, inputs[rows], labels[rows])
            for name, each in weights.items():
                each.sub_(found[name], alpha=LEARNING_RATE)


def advanced(process: Process, replicas: int, steps: int) -> Callable[[], object]:
    """Return so many updates of so many replicas, from the start each time."""
    state = process.start(replicas, 0)
    return lambda: advance(process, state, steps)


def verdict(what: str, ratio: float, most: float) -> str:
    """Say whether a ratio is small enough."""
    met = "met" if ratio <= most else f"missed by a factor of {ratio / most:.2f}"
    return f"  Target, {what}: {met} ({ratio:.2f})."


def training(landscape: NetworkLandscape, rate: float) -> None:
    """Print an epoch of SGD, per replica."""
    steps = landscape.n_samples // BATCH_SIZE
    process = sgd(landscape, LEARNING_RATE, BATCH_SIZE)
    found: dict[int, dict[str, float]] = {}
    for replicas in (1, 32):
        seconds = medians(
            {
                "this package, perceptron kernel": advanced(process, replicas, steps),
                "torch.func.vmap": lambda: vectorised(landscape, replicas),  # noqa: B023
                "plain PyTorch loop": lambda: plain_loop(landscape, min(replicas, 4)),  # noqa: B023
            },
            rounds=ROUNDS,
        )
        found[replicas] = {name: each / replicas for name, each in seconds.items()}
        found[replicas]["plain PyTorch loop"] = seconds["plain PyTorch loop"] / min(replicas, 4)
        found[replicas][FLOOR] = operations(steps * BATCH_SIZE) / rate
        print(table(f"An epoch of SGD, {replicas} replica{'s' * (replicas > 1)}: per replica", found[replicas], FLOOR))
    ours, loop = (found[32][name] for name in ("this package, perceptron kernel", "plain PyTorch loop"))
    print(
        verdict("at most 1/7 of the plain loop at 32 replicas", ours / loop * 7, 1), f"{loop / ours:.1f} times as fast."
    )
    print(verdict("at most 1.5 × floor at 32 replicas", ours / found[32][FLOOR], 1.5))
    alone = found[1]
    print(
        verdict(
            "one replica no slower than the plain loop",
            alone["this package, perceptron kernel"] / alone["plain PyTorch loop"],
            1,
        )
    )


def gaussian(landscape: NetworkLandscape, rate: float) -> None:
    """Print an update of matched-Gaussian Langevin dynamics, per replica."""
    process, replicas, steps = langevin(landscape, LEARNING_RATE, BATCH_SIZE), 32, 4
    ours = medians({"": advanced(process, replicas, steps)}, rounds=ROUNDS)[""] / replicas / steps
    seconds = {"this package, perceptron kernel": ours, FLOOR: operations(landscape.n_samples) / rate}
    title = f"An update of Langevin dynamics with matched Gaussian noise, {replicas} replicas: per replica"
    print(table(title, seconds, FLOOR))
    print(verdict("at most 1.3 × floor", ours / seconds[FLOOR], 1.3))


def convolutional(n_samples: int = 250, replicas: int = 4) -> None:
    """Print what replicas of a network without a kernel take: side by side, one after another, and in a plain loop."""
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(n_samples, 3, 32, 32, generator=generator)
    labels = torch.randint(10, (n_samples,), generator=generator)
    process = sgd(NetworkLandscape(small_convolutional_network(), inputs, labels), LEARNING_RATE, BATCH_SIZE)
    state = process.start(replicas=replicas, seed=0)

    def on(threads: int, job: Callable[[], object]) -> Callable[[], object]:
        def run() -> None:
            numba.set_num_threads(threads)
            with single_threaded_products():
                job()

        return run

    def epoch() -> object:
        return advance(process, state, n_samples // BATCH_SIZE)

    def order_parameters() -> object:
        return OrderParameters().measure(Snapshot(process, state))

    def plain() -> None:
        module = small_convolutional_network()
        optimiser = torch.optim.SGD(module.parameters(), LEARNING_RATE)
        for _ in range(replicas):
            for rows in torch.randperm(n_samples).split(BATCH_SIZE):
                optimiser.zero_grad()
                nn.functional.cross_entropy(module(inputs[rows]), labels[rows]).backward()
                optimiser.step()

    threads = numba.config.NUMBA_NUM_THREADS
    loop = "PyTorch, a loop over replicas, all threads in each product"
    try:
        seconds = medians(
            {"replicas side by side": on(threads, epoch), "one after another": on(1, epoch), loop: plain}, rounds=ROUNDS
        )
        title = f"SGD on four convolutions, {n_samples} images of 3×32×32, {replicas} replicas, an epoch"
        print(table(title, seconds, "replicas side by side", "ours"))
        seconds = medians(
            {"replicas side by side": on(threads, order_parameters), "one after another": on(1, order_parameters)},
            rounds=ROUNDS,
        )
        print(table("  and their order parameters, a record", seconds, "replicas side by side", "ours"))
    finally:
        numba.set_num_threads(threads)


def ceilings(device: str, side: int, numbers: int) -> tuple[float, float]:
    """Return the measured rates of large products, FLOP a second, and of copies, bytes read and written a second."""
    a, source = torch.rand(side, side, device=device), torch.rand(numbers, device=device)
    target = torch.empty_like(source)
    # A number that is read afterwards waits for the device.
    seconds = medians(
        {"products": lambda: float((a @ a)[0, 0]), "copies": lambda: float(target.copy_(source)[0])}, rounds=9
    )
    return 2 * side**3 / seconds["products"], 2 * source.nbytes / seconds["copies"]


def least_seconds(rates: tuple[float, float], batch_size: int, widths: tuple[int, ...]) -> float:
    """Return the floor of an update of one replica: its products, or its weights and samples read and weights written."""
    n_parameters = sum((a + 1) * b for a, b in pairwise(widths))
    moved = 4 * (2 * n_parameters + batch_size * widths[0])
    return max(operations(batch_size, widths) / rates[0], moved / rates[1])


def scaling(
    device: str, most: int, widths: tuple[int, ...] = (64, 50, 50, 10), side: int = 1500, numbers: int = 2**24
) -> None:
    """Print replicas × steps a second against replicas on a device, and the share of its ceiling that this is."""
    data = load_dataset("digits", samples_per_class=120)
    network = multilayer_perceptron(widths)
    landscape = NetworkLandscape(network, data.train_inputs, data.train_labels, device=device)
    process = sgd(landscape, LEARNING_RATE, BATCH_SIZE)
    rates = ceilings(device, side, numbers)
    floor = least_seconds(rates, BATCH_SIZE, widths)
    name = torch.cuda.get_device_name(device) if device != "cpu" else "the CPU"
    shape = "-".join(str(each) for each in widths)
    captured = ", captured updates" * (way(process) == "captured")
    print(f"SGD on {name}, {shape}, {landscape.problem.path.name}{captured}: replicas × steps")
    print(
        f"a second, and share of the ceiling set by large products ({rates[0] / 1e9:,.0f} GFLOP/s) and copies "
        f"({rates[1] / 1e9:,.0f} GB/s) measured here"
    )
    replicas, epoch = 1, landscape.n_samples // BATCH_SIZE
    while replicas <= most:
        state = process.start(replicas, 0, landscape.own_weights.expand(replicas, -1))
        steps = epoch * max(1, 64 // replicas)
        laps = []
        for _ in range(4):  # the first captures, or compiles, and is not counted
            started = time.perf_counter()
            float(advance(process, state, steps).weights.sum())
            laps.append(time.perf_counter() - started)
        rate = replicas * steps / median(laps[1:])
        print(f"  {replicas:>6}{rate:>14,.0f}{100 * rate * floor:>9.1f} %", flush=True)
        replicas *= 4
    print()


def report() -> None:
    """Print all tables."""
    landscape = images()
    large, own = torch_rate(), own_rate()
    rate = max(large, own)
    print(
        f"{numba.config.NUMBA_NUM_THREADS} threads. Large float32 products of torch reach {large / 1e9:.0f} GFLOP/s, "
        f"the products in\nregisters {own / 1e9:.0f} on 50 rows of the first layer; the floor takes the higher rate.\n"
    )
    training(landscape, rate)
    print()
    gaussian(landscape, rate)
    print(f"  A floor at the rate of torch's large products would be {rate / large:.2f} times as high.")
    print()
    convolutional()
    print()
    scaling("cpu", 256)
    if torch.cuda.is_available():
        scaling("cuda", 65_536, side=8192, numbers=2**28)
