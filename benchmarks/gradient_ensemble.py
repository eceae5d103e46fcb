"""The gradient ensemble at one point, against peers that store the N×P sample gradients.

Measured are the seconds of the order parameters (mean gradient, Tr C, activities, σ, R over 200 minibatches of 25) and
of the same with the 200 largest eigenvalues of the noise covariance C, the accuracy of both, the peak memory, the same
for one matrix of the network alone, and how the cost of this package grows with the number of parameters.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from statistics import median

import numba
import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from benchmarks.peers import (
    ALL_PEERS,
    BATCH_SIZE,
    EIGENVALUES,
    MATRIX,
    N_MINIBATCHES,
    N_MODES,
    ORDER_PARAMETERS,
    PEERS,
    Problem,
    Stages,
    materialised,
    noise_matrix,
    top_eigenvalues,
    vectorised,
)
from benchmarks.timing import peak
from langevin_nn import NetworkLandscape, gradient_ensemble
from models.datasets import DATA_VARIABLE, load_dataset
from models.networks import multilayer_perceptron, small_convolutional_network

OURS = "this package"
GENERAL = "vmap(grad), Gram by torch"
CONVOLUTIONAL = "convolutional network"
N_SAMPLES = 4000
N_IMAGES = 2000
WIDTHS = (50, 200, 800)
MIDDLE = "2.weight"
LARGEST_DEVIATION = 1e-3
MIB = 2**20

Laps = Mapping[str, float]
Found = Mapping[str, NDArray[np.float64]]


def digits(n_samples: int) -> tuple[torch.Tensor, torch.Tensor, str]:
    """Return images and labels, and what they are."""
    if os.environ.get(DATA_VARIABLE):
        data = load_dataset("mnist10k", samples_per_class=n_samples // 10)
        return torch.from_numpy(data.train_inputs), torch.from_numpy(data.train_labels), "images of MNIST"
    generator = torch.Generator().manual_seed(0)
    inputs = torch.rand(n_samples, 784, generator=generator)
    labels = torch.randint(10, (n_samples,), generator=generator)
    return inputs, labels, f"random images (set {DATA_VARIABLE} for MNIST's)"


def trained(make: Callable[[], nn.Module], inputs: torch.Tensor, labels: torch.Tensor) -> Problem:
    """Return a network after a few dozen steps of plain SGD from its default start."""
    torch.manual_seed(0)
    module = make()
    optimiser = torch.optim.SGD(module.parameters(), lr=0.1)
    for rows in torch.randint(len(inputs), (60, BATCH_SIZE)):
        optimiser.zero_grad()
        nn.functional.cross_entropy(module(inputs[rows]), labels[rows]).backward()
        optimiser.step()
    optimiser.zero_grad()
    return Problem(module, inputs, labels)


def perceptron(n_samples: int, width: int = WIDTHS[0]) -> Problem:
    """Return the perceptron 784-w-w-10 on digits."""
    return trained(lambda: multilayer_perceptron((784, width, width, 10)), *digits(n_samples)[:2])


def convolutional(n_samples: int) -> Problem:
    """Return four convolutions on random images."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(n_samples, 3, 32, 32, generator=generator)
    return trained(small_convolutional_network, images, torch.randint(10, (n_samples,), generator=generator))


def ours(landscape: NetworkLandscape, weights: torch.Tensor) -> Stages:
    """Run the job by this package; the ensemble is made anew, since it remembers."""
    ensemble = gradient_ensemble(landscape, weights, batch_size=BATCH_SIZE)
    found = ensemble.order_parameters(np.random.default_rng(0), n_minibatches=N_MINIBATCHES)
    yield ORDER_PARAMETERS, found.noise_strength.sel(cohort="all").values
    yield EIGENVALUES, ensemble.spectrum(n_modes=N_MODES).noise_eigenvalue.values[:N_MODES]


def our_job(problem: Problem) -> Callable[[], Stages]:
    """Prepare the job for this package."""
    landscape = problem.landscape()
    return lambda: ours(landscape, landscape.own_weights)


def peer_job(name: str, problem: Problem, precision: torch.dtype) -> Callable[[], Stages]:
    """Prepare the job for a peer."""
    sample_gradients = PEERS[name](problem)
    return lambda: materialised(sample_gradients, precision)


def all_jobs(problem: Problem, precision: torch.dtype) -> dict[str, Callable[[], Stages]]:
    """Prepare the job for everybody."""
    return {OURS: our_job(problem)} | {name: peer_job(name, problem, precision) for name in PEERS}


def laps(stages: Stages) -> tuple[Laps, Found]:
    """Run a job: seconds from its start to the end of each stage, and what each found."""
    started, seconds, found = time.perf_counter(), {}, {}
    for stage, value in stages:
        seconds[stage] = time.perf_counter() - started
        found[stage] = value
    return seconds, found


def alternating(
    jobs: Mapping[str, Callable[[], Stages]], rounds: int
) -> tuple[dict[str, dict[str, float]], dict[str, Found]]:
    """Run jobs in turn, each once untimed first: median seconds to the end of each stage, and what was found."""
    found = {name: laps(job())[1] for name, job in jobs.items()}
    runs: dict[str, list[Laps]] = {name: [] for name in jobs}
    for _ in range(rounds):
        for name, job in jobs.items():
            runs[name].append(laps(job())[0])
    seconds = {name: {stage: median(run[stage] for run in each) for stage in each[0]} for name, each in runs.items()}
    return seconds, found


def deviation(values: NDArray[np.float64], reference: NDArray[np.float64]) -> float:
    """Return the largest relative deviation."""
    return float(np.max(np.abs(values - reference) / reference))


def faster_precision(problem: Problem, reference: NDArray[np.float64]) -> tuple[torch.dtype, str]:
    """Return the precision in which a peer's eigenvalues come fastest at the accuracy asked for, and what was seen."""
    with torch.no_grad():
        matrix = noise_matrix(vectorised(problem)())
    tried = {}
    for precision in (torch.float32, torch.float64):
        top_eigenvalues(matrix[:100, :100], 100, precision)  # loads what the timed one needs
        started = time.perf_counter()
        values = top_eigenvalues(matrix, len(problem.inputs), precision)
        tried[precision] = time.perf_counter() - started, deviation(values, reference)
    accurate = [each for each, (_, error) in tried.items() if error <= LARGEST_DEVIATION]
    chosen = min(accurate, key=lambda each: tried[each][0], default=torch.float64)
    seen = ", ".join(f"{each}: {spent:.2f} s, {error:.0e} off" for each, (spent, error) in tried.items())
    return chosen, f"Peers: all eigenvalues in {chosen}, the faster one accurate to {LARGEST_DEVIATION} ({seen})."


def columns(title: str, header: Sequence[str], rows: Iterable[Sequence[object]], notes: Iterable[str] = ()) -> str:
    """Return a table: a name and then numbers or text in columns; notes below."""
    lines = [title, f"  {'':<32}" + "".join(f"{name:>16}" for name in header)]
    for name, *values in rows:
        cells = (f"{value:>16.3g}" if isinstance(value, float) else f"{value:>16}" for value in values)
        lines.append(f"  {name:<32}" + "".join(cells))
    return "\n".join([*lines, *(f"  {note}" for note in notes)])


def target(promise: str, ratio: float) -> str:
    """Say whether a target is met; `ratio` is what was reached in units of it, and more is better."""
    return f"Target, {promise}: " + ("met." if ratio >= 1 else f"missed by a factor of {1 / ratio:.2f}.")


def least(seconds: Mapping[str, Mapping[str, float]], stage: str) -> float:
    """Return the fastest peer's ratio to this package, which reaches the order parameters without a matrix."""
    own = seconds[OURS][ORDER_PARAMETERS if stage == MATRIX else stage]
    return min(seconds[name][stage] for name in PEERS) / own


def order_parameter_table(seconds: Mapping[str, Mapping[str, float]]) -> str:
    """Return the table of the order parameters alone."""
    own = seconds[OURS][ORDER_PARAMETERS]
    rows: list[Sequence[object]] = [(OURS, own, 1.0)]
    for name in (*PEERS, GENERAL):
        direct, matrix = seconds[name][ORDER_PARAMETERS], seconds[name][MATRIX]
        rows.append((name, direct, direct / own, matrix, matrix / own))
    return columns(
        "1. Order parameters, without eigenvalues",
        ("seconds", "ratio", "with Gram, s", "ratio"),
        rows,
        (
            "This package: of three cohorts. Peers: of one; norms and projections only, and the same with their Gram matrix,",
            "of which NumPy computes half; the last row is what torch's general product G @ G.T takes.",
            target("50 times as fast as every peer with its Gram matrix", least(seconds, MATRIX) / 50),
        ),
    )


def spectrum_table(
    seconds: Mapping[str, Mapping[str, float]], found: Mapping[str, Found], reference: Found, note: str
) -> str:
    """Return the table of the job with eigenvalues, and of its accuracy."""
    own = seconds[OURS][EIGENVALUES]
    rows = []
    for name, each in seconds.items():
        errors = (deviation(found[name][stage], reference[stage]) for stage in (EIGENVALUES, ORDER_PARAMETERS))
        rows.append((name, each[EIGENVALUES], each[EIGENVALUES] / own, *errors))
    return columns(
        f"2. Order parameters and {N_MODES} eigenvalues of C",
        ("seconds", "ratio", "eigenvalues off", "Tr C off"),
        rows,
        (
            "Off: largest relative deviation from stored sample gradients in float64.",
            note,
            target("8 times as fast as every peer", least(seconds, EIGENVALUES) / 8),
        ),
    )


def memory_of(name: str, n_samples: int, precision: torch.dtype) -> dict[str, float]:
    """Run one job in this fresh process: peak above what stood before it in MiB, and seconds."""
    problem = convolutional(n_samples) if name == CONVOLUTIONAL else perceptron(n_samples)
    job = peer_job(name, problem, precision) if name in PEERS else our_job(problem)
    before = peak()
    seconds, _ = laps(job())
    return {"mib": peak() - before, "seconds": seconds[EIGENVALUES]}


def in_a_fresh_process(name: str, n_samples: int, precision: torch.dtype = torch.float32) -> dict[str, float]:
    """Run `memory_of` in a process of its own."""
    arguments = ["--memory", name, "--samples", str(n_samples), "--precision", str(precision).removeprefix("torch.")]
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.gradient_ensemble", *arguments],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    measured: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return measured


def memory_table(n_samples: int, precision: torch.dtype) -> str:
    """Return the table of peak memory."""
    mib = {name: in_a_fresh_process(name, n_samples, precision)["mib"] for name in (OURS, *PEERS)}
    ratios = {name: value / mib[OURS] for name, value in mib.items()}
    return columns(
        "3. Peak memory of the job of table 2",
        ("MiB", "ratio"),
        [(name, value, ratios[name]) for name, value in mib.items()],
        (
            "Resident memory of a fresh process at its peak, less its peak after imports, data and network.",
            target("a quarter of every peer's or less", min(ratios[name] for name in PEERS) / 4),
        ),
    )


def matrix_table(problem: Problem, precision: torch.dtype, rounds: int) -> str:
    """Return the table of one matrix of the network alone, which has fewer elements than there are samples."""
    seconds, _ = alternating(all_jobs(problem, precision), rounds)
    own = seconds[OURS][EIGENVALUES]
    return columns(
        f"4. The job of table 2 for the matrix {MIDDLE} alone, where the peers decompose the P×P covariance",
        ("seconds", "ratio"),
        [(name, each[EIGENVALUES], each[EIGENVALUES] / own) for name, each in seconds.items()],
        (target("no slower than any peer", least(seconds, EIGENVALUES)),),
    )


def growth_table(n_samples: int, rounds: int) -> str:
    """Return the table of this package's cost against the number of parameters."""
    problems = {f"784-{width}-{width}-10": perceptron(n_samples, width) for width in WIDTHS}
    seconds, _ = alternating({name: our_job(problem) for name, problem in problems.items()}, rounds)
    rows = []
    for name, problem in problems.items():
        each, p = seconds[name], sum(parameter.numel() for parameter in problem.module.parameters())
        costs = (value for stage in (ORDER_PARAMETERS, EIGENVALUES) for value in (each[stage], each[stage] / p * 1e6))
        rows.append((name, f"{p:,}", *costs))
    return columns(
        f"5. {OURS.capitalize()} against the number of parameters P (1: as in table 1, 2: as in table 2)",
        ("P", "1, seconds", "1, s per 10⁶ P", "2, seconds", "2, s per 10⁶ P"),
        rows,
    )


def convolutional_table(n_samples: int) -> str:
    """Return the table of the convolutional network."""
    measured = in_a_fresh_process(CONVOLUTIONAL, n_samples)
    return columns(
        f"6. The job of table 2 for four convolutions on {n_samples:,} random images of 3×32×32, first run of a process",
        ("seconds", "MiB"),
        [(OURS, measured["seconds"], measured["mib"])],
        (target("at most 2 GiB", 2048 / measured["mib"]),),
    )


def report(n_samples: int = N_SAMPLES, rounds: int = 5) -> None:
    """Print the tables."""
    problem = perceptron(n_samples)
    p = sum(parameter.numel() for parameter in problem.module.parameters())
    print(f"Gradient ensemble of a perceptron 784-50-50-10 (P = {p:,}) on {n_samples:,} {digits(n_samples)[2]}.")
    for name in (name for name in ALL_PEERS if name not in PEERS):
        print(f"{name} is not installed, and left out: `make bench` installs it in an environment of its own.")
    reference = laps(materialised(vectorised(problem.double()), torch.float64))[1]
    precision, note = faster_precision(problem, reference[EIGENVALUES])
    plain = {GENERAL: lambda: materialised(vectorised(problem), precision, general=True)}
    seconds, found = alternating(all_jobs(problem, precision) | plain, rounds)
    print("", order_parameter_table(seconds), "", spectrum_table(seconds, found, reference, note), sep="\n")
    middle = Problem(problem.module, problem.inputs, problem.labels, MIDDLE)
    for make in (
        lambda: memory_table(n_samples, precision),
        lambda: matrix_table(middle, precision, rounds),
        lambda: growth_table(n_samples, rounds),
        lambda: convolutional_table(min(n_samples, N_IMAGES)),
    ):
        print("", make(), sep="\n", flush=True)


def main() -> None:
    """Print the tables, or measure one job's memory in this process."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--samples", type=int, default=N_SAMPLES, help="number of samples N")
    parser.add_argument("--rounds", type=int, default=5, help="timed runs of each contestant")
    parser.add_argument("--memory", metavar="NAME", help="run this contestant's job and print its peak memory")
    parser.add_argument("--precision", choices=("float32", "float64"), default="float32", help="of peers' eigenvalues")
    options = parser.parse_args()
    torch.set_num_threads(numba.config.NUMBA_NUM_THREADS)
    if options.memory:
        print(json.dumps(memory_of(options.memory, options.samples, getattr(torch, options.precision))))
    else:
        report(options.samples, options.rounds)


if __name__ == "__main__":
    main()
