"""Ask whether a network's training may be treated as a stochastic differential equation, and in which phases of learning.

Runs, from the same weights and labels and with noise of their own: SGD with shuffled epochs and with independent
minibatches; SVAG, which tends to the equation as l grows; Gaussian noise of a minibatch's covariance at once, half and a
quarter of the time step, at the same learning rate and hence for the same equation; and other noises as controls: frozen
low-rank, diagonal, isotropic, heavy-tailed, none. Says for each process and phase whether its law is SGD's: distances of
everything recorded in units of SGD's spread over replicas, one p-value by exchanging pairs of replicas, and a verdict by
thresholds fixed beforehand. Beside it: the noise-to-signal condition along the trajectory, the range of the linear scaling
rule, tail indices and normality of the noise by direction. Writes trajectories, validity.nc, summary.json and figures, and
prints the verdict.
"""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import xarray as xr

from langevin_nn.analyzers import LawComparison, detect_phases, phase_windows
from langevin_nn.errors import EstimationRefused
from langevin_nn.figures import (
    conditions_figure,
    ladder_figure,
    law_distance_figure,
    noise_shape_figure,
    validity_figure,
    write_figures,
)
from langevin_nn.provenance import attributes
from langevin_nn.report import say
from langevin_nn.store import write_trajectory
from studies.command import Command, sized
from studies.paper.folder import begin, finish, words_of
from studies.sde.conditions import noise_to_signal, scaling_comparison, scaling_range
from studies.sde.noise_shape import noise_shapes, observed_tail_index
from studies.sde.plan import QUICK, Config, landscape_for, plan_for, processes, settle
from studies.sde.runs import all_runs, pilot_run, scaled_runs
from studies.sde.words import REASONS, Verdict, judge, label, table

__all__ = ["Config", "Found", "main", "run", "verdict"]

# The finest discretisation of the equation, and the two kinds of SGD that it is held against.
EQUATION = "langevin_quarter"
REFERENCES = {"sgd": "shuffled SGD", "independent_sgd": "independent SGD"}
_NAME = "is_the_sde_valid"
_FIGURES = ("verdicts", "distances", "ladder", "conditions", "noise")
RESULTS = ("validity.nc", "summary.json", *(f"{name}.png" for name in _FIGURES))


@dataclass(frozen=True)
class Found:
    """What the study found.

    Parameters
    ----------
    compared : dict of str to Dataset
        `LawComparison` by reference: both kinds of SGD, and the equation.
    verdicts : dict of str to list of Verdict
        By reference.
    signal, scaled, shapes, phases : Dataset
        The noise-to-signal ratio, SGD at larger steps, the shape of the noise, phases of the pilot.
    windows : dict
        Phases, begin and end.
    scalings : dict of str to int
        Largest κ not told from SGD, by phase.
    tail_index : float
        Of the heavy-tailed noise.
    """

    compared: dict[str, xr.Dataset]
    verdicts: dict[str, list[Verdict]]
    signal: xr.Dataset
    scaled: xr.Dataset
    shapes: xr.Dataset
    phases: xr.Dataset
    windows: dict[str, tuple[float, float]]
    scalings: dict[str, int]
    tail_index: float


def run(config: Config) -> Found:
    """Run the study and write its results.

    Parameters
    ----------
    config : Config
        What was chosen.

    Returns
    -------
    Found
        Comparisons, verdicts and conditions.

    Raises
    ------
    ConfigurationError
        If a choice cannot be run.
    """
    chosen, config = config, settle(config)
    _say_what_is_left_out(chosen, config)
    started = time.perf_counter()
    runs = begin(config, _NAME, RESULTS)
    found = _evidence(config, runs)
    _write(config, found)
    summary = {
        "verdict": verdict(found, config).splitlines(),
        "thresholds": [each.format(tolerance=config.tolerance) for each in REASONS],
        "phases": {name: list(window) for name, window in found.windows.items()},
        "verdicts": {key: [asdict(each) for each in own] for key, own in found.verdicts.items()},
        "linear_scaling": found.scalings,
        "allowed_by_noise_to_signal": _bounds(found),
        "tail_index": found.tail_index,
    }
    finish(summary, config, _NAME, config.out, time.perf_counter() - started)
    _draw(config, found)
    return found


def _say_what_is_left_out(chosen: Config, config: Config) -> None:
    """Say which of the choices cannot be run."""
    wanted = sized(chosen, QUICK) if chosen.quick else chosen
    if missing := [str(each) for each in wanted.scalings if each not in config.scalings]:
        say(f"scalings {', '.join(missing)} are left out: their minibatches would be more than half of the samples.")
    made, asked = plan_for(config), replace(plan_for(config), clocks=())
    if len(made.losses) < len(asked.losses):
        say(
            f"{len(asked.losses) - len(made.losses)} of {len(asked.losses)} records are left out: they would not be at an "
            "update of their own in every run."
        )


def _evidence(config: Config, runs: Path) -> Found:
    """Run everything, or find what was run, and compare."""
    assert config.epochs is not None
    pilot = pilot_run(config, runs)
    phases, windows = _phases(pilot.to_dataset().load(), config)
    shapes = noise_shapes(config, pilot["weights"].to_dataset().load(), windows)
    index = config.tail_index if config.tail_index is not None else round(observed_tail_index(shapes), 2)
    whole = all_runs(replace(config, tail_index=index), runs)
    comparison = LawComparison(permutations=config.permutations, seed=config.seed)
    compared = {
        reference: replace(comparison, reference=reference)(whole, windows) for reference in (*REFERENCES, EQUATION)
    }
    signal = noise_to_signal(whole.sel(process="sgd"), windows)
    scaled = scaling_comparison(whole, scaled_runs(config, runs), windows, comparison)
    return Found(
        compared=compared,
        verdicts={
            reference: judge(
                compared[reference], config.tolerance, whole.sizes["replica"], is_short=_is_short(phases, windows)
            )
            for reference in REFERENCES
        },
        signal=signal,
        scaled=scaled,
        shapes=shapes,
        phases=phases,
        windows=windows,
        scalings=scaling_range(scaled),
        tail_index=index,
    )


def _phases(pilot: xr.Dataset, config: Config) -> tuple[xr.Dataset, dict[str, tuple[float, float]]]:
    """Return phases of learning; without classes or enough records to find any, the run is one phase."""
    assert config.epochs is not None
    if landscape_for(config).is_classifier:
        try:
            phases = detect_phases(pilot)
            return phases, phase_windows(phases, config.epochs)
        except EstimationRefused as error:
            say(f"phases: {error}")
    one = xr.DataArray(
        np.ones((pilot.sizes["replica"], pilot.sizes["step"]), np.int8), dims=("replica", "step"),
        attrs={"flag_meanings": "all"},
    )  # fmt: skip
    nothing = xr.Dataset({"phase": one, "boundary_epoch": (("replica", "boundary"), np.empty((len(one), 0)))})
    return nothing, {"all": (0.0, config.epochs)}


def _is_short(phases: xr.Dataset, windows: dict[str, tuple[float, float]]) -> bool:
    """Return whether SGD has not left the first phase of learning, where there are phases."""
    names = phases["phase"].attrs["flag_meanings"].split()
    return len(names) > 1 and list(windows) == names[:1]


def _bounds(found: Found) -> dict[str, float]:
    return {
        str(name): float(each)
        for name, each in zip(found.signal.phase.values, found.signal.largest_scaling.values, strict=True)
    }


def _as_dataset(verdicts: list[Verdict]) -> xr.Dataset:
    names = list(dict.fromkeys(each.process for each in verdicts))
    phases = list(dict.fromkeys(each.phase for each in verdicts))
    shape = (len(names), len(phases))
    return xr.Dataset(
        {
            "verdict": (("process", "phase"), np.array([each.verdict for each in verdicts]).reshape(shape)),
            "p_value": (("process", "phase"), np.array([each.p_value for each in verdicts]).reshape(shape)),
        },
        coords={"process": names, "phase": phases},
    )


def _write(config: Config, found: Found) -> None:
    """Write what was made of the runs."""
    tables = {f"from_{name}": each for name, each in found.compared.items()} | {
        "noise_to_signal": found.signal.rename(step="record").reset_coords(drop=True).assign_coords(
            epoch=("record", found.signal.epoch.values)
        ),
        "linear_scaling": found.scaled,
        "noise_shape": found.shapes,
        "phases": found.phases,
    }  # fmt: skip
    tree = xr.DataTree.from_dict({f"/{name}": each for name, each in tables.items()})
    tree.attrs.update(attributes({"study": _NAME, "choices": words_of(config)}))
    write_trajectory(tree, config.out / "validity.nc", overwrite=True)


def _draw(config: Config, found: Found) -> None:
    labels = {name: label(name) for name in processes(config)}
    steps = {"langevin": "α", "langevin_half": "α/2", "langevin_quarter": "α/4"}
    figures = {
        "verdicts": validity_figure({REFERENCES[k]: _as_dataset(v) for k, v in found.verdicts.items()}, labels),
        "distances": law_distance_figure(found.compared["sgd"], labels, config.tolerance),
        "ladder": ladder_figure(
            {
                "the equation": found.compared[EQUATION],
                **{words: found.compared[reference] for reference, words in REFERENCES.items()},
            },
            config.ladder,
            steps,
        ),
        "conditions": conditions_figure(found.signal, found.phases, found.scaled, _bounds(found), config.tolerance),
        "noise": noise_shape_figure(found.shapes),
    }
    write_figures(figures, config.out)


def verdict(found: Found, config: Config) -> str:
    """Return what was found, in words.

    Parameters
    ----------
    found : Found
        Of `run`.
    config : Config
        What was chosen.

    Returns
    -------
    str
        The answer, then the table behind it.
    """
    lines = []
    for reference, words in REFERENCES.items():
        of_equation = [each for each in found.verdicts[reference] if each.process == EQUATION]
        said = ", ".join(f"{each.phase}: {each.verdict}" for each in of_equation)
        lines.append(f"The equation (Gaussian noise of covariance C, a quarter of the step) against {words}: {said}.")
    if _is_short(found.phases, found.windows):
        end = next(iter(found.windows.values()))[1]
        lines.append(
            f"SGD has not left the first phase of learning in {end:g} epochs: more than {end:g} are needed, "
            f"{2 * end:g} to begin with."
        )
    shares = found.signal
    for k, phase in enumerate(shares.phase.values):
        lines.append(
            f"Phase {phase}: D/A0 is at least {float(shares.smallest_noise_to_signal[k]):.2g} (needed: "
            f"{shares.attrs['least_noise_to_signal']:.2g}); it allows linear scaling up to "
            f"{float(shares.largest_scaling[k]):.3g}, SGD is not told from itself up to {found.scalings[str(phase)]}."
        )
    known = found.shapes.adjusted_p_value.notnull()
    share = float((found.shapes.adjusted_p_value <= 0.05).where(known).mean())
    run_at = f"; heavy-tailed noise was run at {found.tail_index:.2f}" if "heavy_tailed" in config.processes else ""
    index = found.shapes.tail_index
    unstable = float(index.isnull().mean())
    indices = f"tail index {float(index.min()):.2f} to {float(index.max()):.2f}, " if unstable < 1 else ""
    lines.append(
        f"Noise: {indices}{100 * unstable:.0f} % of directions not stable, "
        f"{100 * share:.0f} % of directions not normal{run_at}."
    )
    for reference, words in REFERENCES.items():
        lines.append(f"\nAgainst {words}, by phase; p corrected, then the farthest mean in spreads:")
        lines.append(table(found.verdicts[reference]))
    return "\n".join(lines)


def _study(config: Config) -> None:
    say(verdict(run(config), settle(config)))
    say(f"\nResults are in {config.out}: runs/, {', '.join(RESULTS)}.")


main = Command(_NAME, Config, __doc__, _study)


if __name__ == "__main__":
    raise SystemExit(main())
