"""How often the phase detector finds what is not there, and how often its intervals hold what is.

The suite runs it with few repetitions; ``python tests/calibrate_phases.py`` with many, and prints its counts.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import product

import numpy as np
import xarray as xr

from langevin_nn.analyzers import PhaseDetector
from langevin_nn.testing import four_phase_trajectory, score_boundaries, stationary_trajectory, two_phase_trajectory

Detector = Callable[[xr.Dataset], xr.Dataset]

# Mean, amplitude and number of samples: in the middle, at the top, about both thresholds, cut off at 0, coarse.
STATIONARY = (
    (0.5, 0.2, 1200),
    (0.9, 0.03, 1200),
    (0.02, 0.01, 1200),
    (0.01, 0.004, 10_000),
    (0.01, 0.02, 500),
    (0.3, 0.1, 10),
)


@dataclass(frozen=True)
class Count:
    """How many of how many, and what they were."""

    case: str
    hits: int
    trials: int

    @property
    def share(self) -> float:
        return self.hits / self.trials

    def standard_error(self, expected: float) -> float:
        """Of a share that is expected to be so large."""
        return float(np.sqrt(expected * (1 - expected) / self.trials))

    def __str__(self) -> str:
        return f"{self.case:<66} {self.hits:>6} of {self.trials:>6}  {100 * self.share:6.2f} %"


def together(trials: int, make: Callable[[], xr.Dataset]) -> xr.Dataset:
    return xr.concat([make() for _ in range(trials)], dim="trial", data_vars="all")


def false_alarms(
    repetitions: int,
    detector: Detector,
    *,
    correlations: tuple[float, ...] = (0.0, 0.5, 0.9, 0.95),
    records: tuple[int, ...] = (8, 20, 60, 200, 2000),
    replicas: tuple[int, ...] = (1, 4),
    seed: int = 1,
) -> Iterator[Count]:
    """Count stationary trajectories with any boundary: as many of each kind as there are repetitions."""
    generator = np.random.default_rng(seed)
    for fraction, correlation, n_records, n_replicas in product((0.0, 0.45), correlations, records, replicas):
        hits = trials = 0
        for error, amplitude, n_samples in STATIONARY:
            make = partial(
                stationary_trajectory,
                generator,
                error=error,
                amplitude=amplitude,
                n_samples=n_samples,
                correlation=correlation,
                records=n_records,
                replicas=n_replicas,
                mislabeled_fraction=fraction,
            )
            run = together(max(1, round(repetitions / n_replicas)), make)
            boundaries = detector(run).boundary_epoch
            hits += int(boundaries.notnull().any("boundary").sum())
            trials += run.sizes["trial"] * n_replicas
        kind = "four phases" if fraction else "two phases"
        yield Count(f"{kind}, correlation {correlation}, {n_records} records, {n_replicas} replicas", hits, trials)


def coverage(
    repetitions: int,
    detector: Detector,
    *,
    noises: tuple[float, ...] = (0.01, 0.03, 0.1),
    intervals: tuple[float, ...] = (0.5, 1.0, 5.0),
    correlations: tuple[float, ...] = (0.0, 0.9),
    replicas: int = 4,
    seed: int = 2,
) -> Iterator[Count]:
    """Count the ensembles whose interval holds the true mean boundary; none at all counts as a miss."""
    generator = np.random.default_rng(seed)
    for noise, interval, correlation in product(noises, intervals, correlations):
        common = {"noise": noise, "record_interval": interval, "correlation": correlation, "replicas": replicas}
        makers = {
            "four": partial(four_phase_trajectory, generator, records=round(280 / interval), **common),
            "two": partial(two_phase_trajectory, generator, records=round(100 / interval), **common),
        }
        for kind, make in makers.items():
            truth = together(repetitions, make)
            score = score_boundaries(detector(truth), truth)
            for boundary in score.boundary.values:
                trials = int(score.ensemble_count.sel(boundary=boundary))
                hits = round(float(score.covered_share.sel(boundary=boundary)) * trials)
                case = f"{kind} phases, {boundary}, noise {noise}, interval {interval}, correlation {correlation}"
                yield Count(case, hits, trials)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repetitions", type=int, default=400, help="of each kind of trajectory (default: 400)")
    repetitions = parser.parse_args(arguments).repetitions
    started = time.perf_counter()
    failed = 0
    for title, counts, expected, sign in (
        ("False alarms: at most 5 %", false_alarms(repetitions, PhaseDetector()), 0.05, 1),
        ("Intervals that hold the truth: at least 95 %", coverage(repetitions, PhaseDetector()), 0.95, -1),
    ):
        print(f"\n{title}, within 4 standard errors of the count")
        rows = []
        for count in counts:
            beyond = sign * (count.share - expected) > 4 * count.standard_error(expected)
            failed += beyond
            rows.append(count)
            print(count, "  MISSED" if beyond else "", flush=True)
        print(Count("together", sum(row.hits for row in rows), sum(row.trials for row in rows)))
    print(f"\n{failed} missed; {time.perf_counter() - started:.0f} s")
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
