"""Sweeps: how much faster two workers are than one, and what planning, packing and resuming cost."""

from __future__ import annotations

import tempfile
import time
from functools import cache
from pathlib import Path
from typing import Any

import numba
import numpy as np
import torch
import xarray as xr

from langevin_nn import NetworkLandscape, Simulation, advance, sgd, sweep
from langevin_nn.observables import Losses
from langevin_nn.schedules import EveryEpochs
from models.datasets import load_dataset
from models.networks import multilayer_perceptron

BATCHES, SECONDS = 32, 10.0
POINTS = 1000
LEAST, MOST = 1.8, 10.0


def training(steps: int, number: int) -> xr.Dataset:
    """Train four replicas on the digits, in one thread."""
    threads = numba.get_num_threads()
    numba.set_num_threads(1)
    try:
        data = load_dataset("digits", samples_per_class=120)
        network = multilayer_perceptron((64, 50, 50, 10))
        process = sgd(NetworkLandscape(network, data.train_inputs, data.train_labels), 0.1, 25)
        weights = advance(process, process.start(4, number), steps).weights
    finally:
        numba.set_num_threads(threads)
    return xr.Dataset({"largest_weight": ("step", [float(weights.abs().max())])}, coords={"step": [steps]})


def speedup(batches: int = BATCHES, seconds: float = SECONDS) -> None:
    """Print how much faster two single-threaded workers are than one."""
    training(1000, 0)
    started = time.perf_counter()
    training(4000, 0)
    steps = round(4000 * seconds / (time.perf_counter() - started))
    grid = {"steps": [steps], "number": range(batches)}
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        for workers in (1, 2):
            started = time.perf_counter()
            sweep(training, grid, Path(folder) / str(workers), workers=workers, progress=False).close()
            found[workers] = time.perf_counter() - started
    ratio = found[1] / found[2]
    met = "met" if ratio >= LEAST else f"missed by a factor of {LEAST / ratio:.2f}"
    print(f"{batches} batches of about {seconds:g} s of SGD in one thread each")
    print(f"  one worker {found[1]:.1f} s, two workers {found[2]:.1f} s with their start: {ratio:.2f} times as fast.")
    print(f"  Target, at least {LEAST} times: {met}.\n")


@cache
def digits() -> Any:
    """Return a few digits, loaded once, as one would for a sweep."""
    return load_dataset("digits", samples_per_class=12)


def simulation(label_noise: float, seed: int) -> Simulation:
    """Return a small run on the digits with other labels."""
    data = digits()
    generator = np.random.default_rng(seed)
    labels = np.where(generator.random(len(data.train_labels)) < label_noise, 0, data.train_labels)
    landscape = NetworkLandscape(multilayer_perceptron((64, 20, 10)), data.train_inputs, labels)
    process = sgd(landscape, 0.1, 20)
    return Simulation(process, epochs=1, replicas=1, seed=seed, schedule=EveryEpochs(1), observables=[Losses()])


def overhead(points: int = POINTS) -> None:
    """Print what 1,000 points cost beside the simulations themselves."""
    from langevin_nn.run.sweeps import batches as module

    grid = {"label_noise": [round(0.02 * k, 2) for k in range(1, points // 20 + 1)], "seed": range(20)}
    spent = {"simulate_together": 0.0}
    real = module.simulate_together

    def timed(*given, **options):  # type: ignore[no-untyped-def]
        started = time.perf_counter()
        try:
            return real(*given, **options)
        finally:
            spent["simulate_together"] += time.perf_counter() - started

    with tempfile.TemporaryDirectory() as folder:
        module.simulate_together = timed
        try:
            started = time.perf_counter()
            sweep(simulation, grid, folder, workers=1, progress=False).close()
            whole = time.perf_counter() - started
        finally:
            module.simulate_together = real
        started = time.perf_counter()
        sweep(simulation, grid, folder, workers=1, progress=False).close()
        again = time.perf_counter() - started
    simulating = spent["simulate_together"]
    together = whole - simulating + again
    met = "met" if together <= MOST else f"missed by a factor of {together / MOST:.2f}"
    print(f"{points} points, each a simulation with a file of its own, in one process")
    print(f"  planned and packed in {whole - simulating:.1f} s, simulated and written in {simulating:.1f} s,")
    print(f"  resumed where all are done, and opened, in {again:.2f} s.")
    print(f"  Target, at most {MOST:g} s of overhead: {met} ({together:.1f} s).")


def report() -> None:
    """Print all tables."""
    torch.set_num_threads(1)
    overhead()
    print()
    speedup()
