"""The compiled integrators against those of others, and against the time that drawing the same normal numbers takes.

Euler–Maruyama, 1,000 steps, final states only, two threads for everybody, float64 and float32. The floor of a case is the
time in which the fastest well-kept generator draws its numbers in the same run: NumPy's SFC64 in float64, torch's in
float32, one in each of two threads. Dense matrices add their products at the rate of large ones.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import numba
import numpy as np
import torch

from benchmarks.gradient_ensemble import columns, target
from benchmarks.langevin_peers import ALL_PEERS, PEERS, POOL, STEPS, THREADS, TIME_STEP, Case, fastest
from benchmarks.timing import medians, peak
from langevin_nn import Process, advance
from langevin_nn.drift import LinearDrift
from langevin_nn.kernels.langevin import kernel
from langevin_nn.landscape import PotentialLandscape
from langevin_nn.noise import AnisotropicNoise, DiagonalNoise, StateDependentNoise, ThermalNoise
from langevin_nn.update import EulerMaruyama
from models.potentials import double_well

OURS = "this package"
FLOOR = "floor"
PRODUCTS = {"torch": "matrix products by torch", "numpy": "matrix products by NumPy"}
TEMPERATURE, AMPLITUDE = 0.25, 0.5
BLOCK, PRODUCT = 2**15, 1500
RECORDS = (1000, 10_000)
LARGEST_DEVIATION = 0.15

_GENERATOR = np.random.default_rng(0)
_RATES = np.linspace(0.5, 2.0, 16)
CASES = {
    "A": Case("16-d Ornstein–Uhlenbeck, diagonal noise", 1000, np.linspace(0.5, 1.5, 16), _RATES),
    "B": Case("1-d double well, thermal noise", 10_000, np.full(1, np.sqrt(2 * TEMPERATURE))),
    "C": Case(
        "64-d linear drift and noise, both of dense matrices",
        256,
        _GENERATOR.standard_normal((64, 64)) / 8,
        np.eye(64) + _GENERATOR.standard_normal((64, 64)) / 16,
    ),
    "D": Case("16-d Ornstein–Uhlenbeck, noise √(1 + x²)/2", 1000, np.full(16, AMPLITUDE), _RATES, dependent=True),
}


def flat(x):  # type: ignore[no-untyped-def]
    """Return a potential that does nothing: the drift is given."""
    return 0.0


def amplitude(x, out):  # type: ignore[no-untyped-def]
    """Write the noise of case D, in the precision of x."""
    one, scale = x.dtype.type(1), x.dtype.type(AMPLITUDE)
    for i in range(x.shape[0]):
        out[i] = scale * np.sqrt(one + x[i] * x[i])


def well(x):  # type: ignore[no-untyped-def]
    """Return the potential of case B as a user writes it."""
    return x[0] ** 4 / 4 - x[0] ** 2 / 2


def slope(x, out):  # type: ignore[no-untyped-def]
    """Write its gradient."""
    out[0] = x[0] ** 3 - x[0]


def process(name: str, precision: str, functions: str = "") -> Process:
    """Return a case for this package; the double well from a user's functions, "gradient" or "potential", if asked for."""
    case, dtype = CASES[name], getattr(torch, precision)
    drift, noise = None, ThermalNoise(TEMPERATURE)
    landscape = PotentialLandscape(flat, case.dimension, dtype=dtype)
    if name == "B":
        gradient = slope if functions == "gradient" else None
        landscape = (
            PotentialLandscape(well, 1, gradient=gradient, dtype=dtype) if functions else double_well(0.25, dtype=dtype)
        )
    else:
        drift = LinearDrift(np.diag(case.rates) if case.rates.ndim == 1 else case.rates)
        noise = (AnisotropicNoise if case.factor.ndim == 2 else DiagonalNoise)(case.factor)
        noise = StateDependentNoise(amplitude) if case.dependent else noise
    return Process(landscape, noise, learning_rate=1.0, drift=drift, update=EulerMaruyama(), time_step=TIME_STEP)


def our_run(name: str, precision: str, steps: int = STEPS, functions: str = "") -> Callable[[], object]:
    """Prepare a run by this package."""
    prepared, case = process(name, precision, functions), CASES[name]
    state = prepared.start(case.replicas, seed=0, weights=np.ones((case.replicas, case.dimension)))
    return lambda: advance(prepared, state, steps).weights


def draws(size: int, precision: str) -> Callable[[], object]:
    """Prepare drawing so many normal numbers and nothing else."""
    blocks = size // THREADS // BLOCK

    def numbers(index: int) -> Callable[[int], object]:
        if precision == "float64":
            generator, out = np.random.Generator(np.random.SFC64(index)), np.empty(BLOCK)
            return lambda count: generator.standard_normal(out=out[:count])
        torch_generator, tensor = torch.Generator().manual_seed(index), torch.empty(BLOCK, dtype=torch.float32)
        return lambda count: tensor[:count].normal_(generator=torch_generator)

    def draw(some: Callable[[int], object]) -> None:
        for _ in range(blocks):
            some(BLOCK)
        some(size // THREADS - blocks * BLOCK)

    generators = [numbers(index) for index in range(THREADS)]
    return lambda: list(POOL.map(draw, generators))


def large_products(precision: str) -> dict[str, Callable[[], object]]:
    """Prepare one large matrix product by each library."""
    a = torch.rand(PRODUCT, PRODUCT, dtype=getattr(torch, precision))
    b, out, other = a.numpy().copy(), torch.empty_like(a), np.empty_like(a.numpy())
    return {PRODUCTS["torch"]: lambda: torch.mm(a, a, out=out), PRODUCTS["numpy"]: lambda: np.dot(b, b, out=other)}


def disagreement(final: object, reference: object) -> float:
    """Return by how much ⟨x²⟩ of final states differs from that of a reference."""
    parts = final if isinstance(final, list) else [final]
    square = np.mean([np.mean(np.square(np.asarray(part, np.float64))) for part in parts])
    return float(abs(square / np.mean(np.square(np.asarray(reference, np.float64))) - 1))


def timed(name: str, precision: str, rounds: int) -> tuple[dict[str, float], list[str], float]:
    """Time everybody on one case: seconds, the peers that are faster in halves, and the rate of large products."""
    case = CASES[name]
    runs: dict[str, Callable[[], object]] = {OURS: our_run(name, precision)}
    split = []
    for peer in PEERS:
        runs[peer], better = fastest(peer, case, precision)
        split += [peer] if better else []
    reference = runs[OURS]()
    for peer in PEERS:
        off = disagreement(runs[peer](), reference)
        if off > LARGEST_DEVIATION:
            raise RuntimeError(f"case {name}, {precision}: ⟨x²⟩ of {peer} is {off:.0%} off: expected the same equation")
    extra = large_products(precision) if case.products else {}
    seconds = medians({**runs, FLOOR: draws(case.size, precision), **extra}, rounds)
    rate = 2 * PRODUCT**3 / min(seconds.pop(each) for each in extra) if extra else np.inf
    seconds[FLOOR] += case.products / rate
    return seconds, split, rate


def verdict(promise: str, ratios: Mapping[str, float]) -> str:
    """Say whether a target is met in every case, and where it is furthest away if not."""
    worst = min(ratios, key=ratios.__getitem__)
    said = target(promise, ratios[worst])
    return said if ratios[worst] >= 1 else f"{said[:-1]} (case {worst})."


def precision_table(precision: str, rounds: int) -> str:
    """Return the table of one precision."""
    found = {name: timed(name, precision, rounds) for name in CASES}
    seconds = {name: each for name, (each, _, _) in found.items()}
    rows: list[tuple[object, ...]] = [
        (who, *(f"{each[who] / each[FLOOR]:.2f}" for each in seconds.values())) for who in (OURS, *PEERS)
    ]
    rates = {
        who: [f"{CASES[name].size / each[who] / 1e8:.2f}" for name, each in seconds.items()] for who in (FLOOR, OURS)
    }
    rows += [("floor, 10⁸ numbers/s", *rates[FLOOR]), ("this package, 10⁸ updates/s", *rates[OURS])]
    split = {peer: "".join(name for name in CASES if peer in found[name][1]) for peer in PEERS}
    gflops = max(rate for _, _, rate in found.values() if np.isfinite(rate)) / 1e9
    source = "NumPy's SFC64" if precision == "float64" else "torch's normal_"
    notes = [
        f"Floor: as many normal numbers from {source}; in C also the products with both matrices at {gflops:.0f} GFLOP/s.",
        "Update: one component of one replica by one step. Peers: all replicas together, or a half in each of two threads",
        f"where that is faster ({'; '.join(f'{peer} in {cases}' for peer, cases in split.items() if cases) or 'nowhere'}).",
        verdict("at most 1.2 × floor", {name: 1.2 * each[FLOOR] / each[OURS] for name, each in seconds.items()}),
    ]
    for peer, factor in (("torchsde", 8), ("diffrax", 2)) if precision == "float64" else ():
        if peer in PEERS:
            ratios = {name: each[peer] / each[OURS] / factor for name, each in seconds.items()}
            notes.append(verdict(f"{factor} times as fast as {peer}", ratios))
    ratios = {name: min(each[peer] for peer in PEERS) / each[OURS] for name, each in seconds.items()}
    notes.append(verdict("faster than every peer", ratios))
    return columns(f"{precision.capitalize()}, multiples of the floor", list(CASES), rows, notes)


def function_lines(rounds: int) -> str:
    """Say how fast plain functions of a user are in case B."""
    rows = []
    for precision in ("float64", "float32"):
        runs = {kind: our_run("B", precision, functions=kind) for kind in ("", "gradient", "potential")}
        seconds = medians(runs, rounds)
        rows.append((precision, *(CASES["B"].size / seconds[kind] / 1e8 for kind in runs)))
    header = ("compiled", "gradient", "potential only")
    return columns("Case B with a compiled gradient, or a plain function of one point, 10⁸ updates/s", header, rows)


def memory_of(steps: int) -> float:
    """Run case A in this fresh process, so many steps in one block: peak above imports and loaded kernels, in MiB."""
    kernel(np.dtype(np.float64))
    before = peak()
    our_run("A", "float64", steps)()
    return peak() - before


def memory_line() -> str:
    """Say what a run takes between two records."""
    mib = {}
    for steps in RECORDS:
        arguments = [sys.executable, "-m", "benchmarks.langevin", "--memory", str(steps)]
        done = subprocess.run(arguments, stdout=subprocess.PIPE, text=True, check=True)
        mib[steps] = float(json.loads(done.stdout.splitlines()[-1]))
    said = ", ".join(f"{value:.1f} MiB with {steps:,} steps between records" for steps, value in mib.items())
    stored = RECORDS[-1] * CASES["A"].replicas * CASES["A"].dimension * 8 / 2**20
    return (
        f"Peak memory of case A in float64, in a fresh process above imports and loaded kernels: {said}.\n"
        f"  The numbers drawn in {RECORDS[-1]:,} steps would fill {stored:,.0f} MiB."
    )


@contextmanager
def two_threads() -> Iterator[None]:
    """Hold everything to two threads: numba, torch, and by the cores they see those that are loaded later."""
    before, torch_before, cores = numba.get_num_threads(), torch.get_num_threads(), None
    numba.set_num_threads(min(THREADS, numba.config.NUMBA_NUM_THREADS))
    torch.set_num_threads(THREADS)
    if hasattr(os, "sched_setaffinity"):
        cores = os.sched_getaffinity(0)
        os.sched_setaffinity(0, sorted(cores)[:THREADS])
    try:
        yield
    finally:
        numba.set_num_threads(before)
        torch.set_num_threads(torch_before)
        if cores is not None:
            os.sched_setaffinity(0, cores)


def report(rounds: int = 7) -> None:
    """Print the tables."""
    print(f"Langevin dynamics: Euler–Maruyama, {STEPS:,} steps, two threads, all in one process, in turn.")
    for name, case in CASES.items():
        print(f"  {name}: {case.title}, {case.replicas:,} replicas")
    for name in (name for name in ALL_PEERS if name not in PEERS):
        print(f"{name} is not installed, and left out: `make bench` installs it in an environment of its own.")
    with two_threads():
        for precision in ("float64", "float32"):
            print("", precision_table(precision, rounds), sep="\n", flush=True)
        print("", function_lines(rounds), "", memory_line(), sep="\n", flush=True)


def main() -> None:
    """Print the tables, or measure one run's memory in this process."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7, help="timed runs of each contestant")
    parser.add_argument("--memory", type=int, metavar="STEPS", help="run so many steps and print the peak memory")
    options = parser.parse_args()
    if options.memory:
        with two_threads():
            print(json.dumps(memory_of(options.memory)))
    else:
        report(options.rounds)


if __name__ == "__main__":
    main()
