"""How often two ensembles of SGD are told apart, and how often planted differences are found.

The suite runs it with few repetitions; ``python tests/calibrate_sde.py`` with 500, and prints its counts.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from itertools import pairwise

import numpy as np
import torch
import xarray as xr
from calibrate_phases import Count
from scipy.stats import binom
from torch import Tensor

from langevin_nn import NetworkLandscape, Process, Seeds, simulate
from langevin_nn.analyzers import LawComparison, detect_phases, phase_windows
from langevin_nn.draws import draws_at
from langevin_nn.landscape import EmpiricalLandscape, Landscape
from langevin_nn.noise import AdditiveNoise, Noise, ScaledNoise, ShuffledMinibatches
from langevin_nn.observables import Losses
from langevin_nn.schedules import EveryEpochs
from langevin_nn.seeds import Key
from models.datasets import load_dataset
from models.networks import multilayer_perceptron

RATE, BATCH, EPOCHS, RECORDS = 0.2, 5, 30.0, 15
PERMUTATIONS = 999
_TOGETHER = 800  # replicas in one run
_WIDTHS = (64, 16, 16, 10)


@dataclass(frozen=True)
class RotatedNoise(AdditiveNoise):
    """Noise of shuffled minibatches, turned by an angle in planes of two parameters each: same trace, same eigenvalues."""

    batch_size: int
    degrees: float = 90.0
    needs_batch_size = True

    def start(self, landscape: Landscape, weights: Tensor) -> object:
        return self._source.start(landscape, weights)

    @property
    def _source(self) -> ShuffledMinibatches:
        return ShuffledMinibatches(self.batch_size)

    def increment(self, landscape: Landscape, weights: Tensor, memory: object, key: Key) -> tuple[Tensor, object]:
        assert isinstance(landscape, EmpiricalLandscape)
        several, memory = self._source.sample_weights(landscape.n_samples, memory, draws_at(key, weights), 1)
        drawn = several.at(0)
        noise = landscape.weighted_gradient(weights, drawn.coefficients, drawn.indices) - landscape.gradient(weights)
        return self.turned(noise), memory

    def turned(self, noise: Tensor) -> Tensor:
        order = torch.as_tensor(np.random.default_rng(0).permutation(noise.shape[1]))
        half = noise.shape[1] // 2
        first, second = order[:half], order[half : 2 * half]
        angle = np.deg2rad(self.degrees)
        turned = noise.clone()
        turned[:, first] = np.cos(angle) * noise[:, first] - np.sin(angle) * noise[:, second]
        turned[:, second] = np.sin(angle) * noise[:, first] + np.cos(angle) * noise[:, second]
        return turned

    def strength(self, memory: object, landscape: Landscape, weights: Tensor, sample_trace: Tensor | None) -> Tensor:
        return self._source.strength(memory, landscape, weights, sample_trace)


PLANTED: Mapping[str, Noise] = {
    "covariance x 1.2": ScaledNoise(ShuffledMinibatches(BATCH), 1.2),
    "amplitude x 1.2": ScaledNoise(ShuffledMinibatches(BATCH), 1.44),
    "covariance rotated by 90 degrees": RotatedNoise(BATCH),
}


def described(count: Count) -> str:
    """Return a count with its error, and what chance gives at 5 %."""
    low, high = binom.ppf((0.025, 0.975), count.trials, 0.05) / count.trials
    error = count.standard_error(count.share)
    return f"{count} ± {100 * error:.1f} %  (5 %: {100 * low:.1f} to {100 * high:.1f} %)"


@cache
def landscape() -> NetworkLandscape:
    """A small perceptron on 100 digits, which learns them all within a short run: two phases."""
    data = load_dataset("digits", samples_per_class=10)
    return NetworkLandscape(
        lambda: multilayer_perceptron(_WIDTHS),
        data.train_inputs.reshape(len(data.train_inputs), -1),
        data.train_labels,
        test_inputs=data.test_inputs.reshape(len(data.test_inputs), -1)[:300],
        test_labels=data.test_labels[:300],
    )


def ensemble(noise: Noise, replicas: range, seed: int) -> xr.Dataset:
    """Replica r starts from weights of its own whatever noise and seed are."""
    process = Process(landscape(), noise, RATE)
    edges = [*range(replicas.start, replicas.stop, _TOGETHER), replicas.stop]
    runs = []
    for first, last in pairwise(edges):
        chosen = tuple(range(first, last))
        runs.append(
            simulate(
                process,
                epochs=EPOCHS,
                replicas=chosen,
                seed=Seeds(seed),
                weights=landscape().initial_weights(chosen, Seeds(0)),
                schedule=EveryEpochs(EPOCHS / RECORDS),
                observables=[Losses()],
                progress=False,
            ).to_dataset()
        )
    return xr.concat(runs, "replica")


@cache
def windows() -> dict[str, tuple[float, float]]:
    """Phases of an ensemble that takes no part in the comparisons."""
    pilot = ensemble(ShuffledMinibatches(BATCH), range(10**6, 10**6 + 32), seed=99)
    return phase_windows(detect_phases(pilot), EPOCHS)


def rejections(processes: Mapping[str, xr.Dataset], pairs: int) -> list[xr.Dataset]:
    """Compare disjoint groups of pairs: one dataset a repetition."""
    whole = xr.concat(list(processes.values()), xr.Variable("process", list(processes)))
    found = []
    for k in range(whole.sizes["replica"] // pairs):
        own = whole.isel(replica=slice(k * pairs, (k + 1) * pairs))
        found.append(LawComparison(permutations=PERMUTATIONS, seed=k)(own, windows()))
    return found


def false_alarms(repetitions: int, pairs: int = 16) -> Iterator[Count]:
    """SGD against SGD: rejections of each process in each phase, and of any after correction."""
    replicas = range(repetitions * pairs)
    names = ("sgd", "first twin", "second twin")
    runs = {name: ensemble(ShuffledMinibatches(BATCH), replicas, seed) for seed, name in enumerate(names, 1)}
    found = xr.concat(rejections(runs, pairs), "repetition")
    for name in names[1:]:
        for phase in found.phase.values:
            hits = int((found.p_value.sel(process=name, phase=phase) <= 0.05).sum())
            yield Count(f"SGD against SGD, {name}, phase {phase}", hits, repetitions)
    any_of_them = found.is_rejected.any(("process", "phase"))
    yield Count("SGD against SGD, any process in any phase, corrected", int(any_of_them.sum()), repetitions)


def power(
    repetitions: int, pairs: tuple[int, ...] = (16, 32, 64), names: tuple[str, ...] = tuple(PLANTED)
) -> Iterator[Count]:
    """Planted differences: any phase rejected after correction for the phases."""
    replicas = range(10**5, 10**5 + repetitions * min(pairs))
    reference = ensemble(ShuffledMinibatches(BATCH), replicas, seed=11)
    for seed, name in enumerate(names, 12):
        planted = ensemble(PLANTED[name], replicas, seed)
        for size in pairs:
            found = rejections({"sgd": reference, name: planted}, size)
            if found:
                hits = sum(bool(each.is_rejected.any()) for each in found)
                yield Count(f"{name}, {size} pairs", hits, len(found))


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repetitions", type=int, default=500, help="of SGD against SGD (default: 500)")
    parser.add_argument("--planted", type=int, default=120, help="groups of 16 pairs of each difference (default: 120)")
    chosen = parser.parse_args(arguments)
    started = time.perf_counter()
    print(f"phases: {', '.join(f'{name} to epoch {end:.0f}' for name, (_, end) in windows().items())}")
    failed = 0
    for count in false_alarms(chosen.repetitions):
        low, high = binom.ppf((0.0005, 0.9995), count.trials, 0.05)
        # Holm's correction is an upper bound: fewer is no failure.
        missed = count.hits > high or (count.hits < low and "corrected" not in count.case)
        failed += missed
        print(described(count), "  MISSED" if missed else "", flush=True)
    for count in power(chosen.planted):
        print(described(count), flush=True)
    print(f"\n{failed} missed; {time.perf_counter() - started:.0f} s")
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
