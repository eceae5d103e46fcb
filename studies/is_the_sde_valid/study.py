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

from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from langevin_nn.analyzers import LawComparison, detect_phases, phase_windows
from langevin_nn.errors import EstimationRefused
from langevin_nn.report import say
from studies.is_the_sde_valid.conditions import noise_to_signal, scaling_comparison, scaling_range
from studies.is_the_sde_valid.figures import (
    conditions_figure,
    ladder_figure,
    law_distance_figure,
    noise_shape_figure,
    validity_figure,
)
from studies.is_the_sde_valid.noise_shape import noise_shapes, observed_tail_index
from studies.is_the_sde_valid.plan import QUICK, Config, Settled, landscape_for, plan_for, processes, settle
from studies.is_the_sde_valid.runs import all_runs, pilot_run, scaled_runs
from studies.is_the_sde_valid.words import REASONS, Verdict, judge, label, table
from studies.lab.study import Answer, Study, Work

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["STUDY", "Config", "Found"]

# The finest discretisation of the equation, and the two kinds of SGD that it is held against.
EQUATION = "langevin_quarter"
REFERENCES = {"sgd": "shuffled SGD", "independent_sgd": "independent SGD"}


@dataclass(frozen=True)
class Found:
    """What the study found.

    Parameters
    ----------
    compared : dict of str to Dataset
        `LawComparison` by reference: both kinds of SGD, and the equation.
    signal, scaled, shapes, phases : Dataset
        The noise-to-signal ratio, SGD at larger steps, the shape of the noise, phases of the pilot.
    windows : dict
        Phases, begin and end.
    tail_index : float
        Of the heavy-tailed noise.
    """

    compared: dict[str, xr.Dataset]
    signal: xr.Dataset
    scaled: xr.Dataset
    shapes: xr.Dataset
    phases: xr.Dataset
    windows: dict[str, tuple[float, float]]
    tail_index: float

    @property
    def is_short(self) -> bool:
        """Whether SGD has not left the first phase of learning, where there are phases."""
        names = self.phases["phase"].attrs["flag_meanings"].split()
        return len(names) > 1 and list(self.windows) == names[:1]

    @property
    def bounds(self) -> dict[str, float]:
        """By phase, up to which κ the noise-to-signal ratio allows linear scaling."""
        found: dict[str, float] = self.signal.largest_scaling.to_series().to_dict()
        return found

    @property
    def scalings(self) -> dict[str, int]:
        """By phase, the largest κ that was not told from SGD."""
        return scaling_range(self.scaled)

    def verdicts(self, settled: Settled) -> dict[str, list[Verdict]]:
        """Return what each process is judged to be, by reference."""
        return {
            reference: judge(self.compared[reference], settled.tolerance, settled.replicas, is_short=self.is_short)
            for reference in REFERENCES
        }


class IsTheSDEValid(Study[Config, Settled, Found]):
    """Whether each process follows SGD, phase by phase."""

    name = "is_the_sde_valid"
    choices = Config
    quick = QUICK
    table = "validity.nc"
    drawn = ("verdicts", "distances", "ladder", "conditions", "noise")

    def settle(self, choices: Config) -> Settled:
        settled = settle(choices)
        _say_what_is_left_out(choices, settled)
        return settled

    def plan(self, settled: Settled) -> dict[str, float]:
        updates = [1 / make().epochs_per_step for make in processes(settled).values()]
        return {
            "pilot": updates[0],
            "shape of the noise": 2 * updates[0],
            "processes": sum(updates),
            "larger steps": updates[0] * sum(1 / factor for factor in settled.scalings),
            "comparisons": updates[0],
        }

    def measure(self, settled: Settled, work: Work) -> Found:
        with work.part("pilot"):
            pilot = pilot_run(settled, work.folder)
            phases, windows = _phases(pilot.to_dataset().load(), settled)
        with work.part("shape of the noise"):
            weights = pilot["weights"].to_dataset()
            shapes = work.kept("noise_shape", lambda: noise_shapes(settled, weights.load(), windows))
        index = settled.tail_index if settled.tail_index is not None else round(observed_tail_index(shapes), 2)
        with work.part("processes"):
            whole = all_runs(replace(settled, tail_index=index), work.folder)
        with work.part("larger steps"):
            larger = scaled_runs(settled, work.folder)
        with work.part("comparisons"):
            comparison = LawComparison(permutations=settled.permutations, seed=settled.seed)
            return Found(
                compared={
                    each: replace(comparison, reference=each)(whole, windows) for each in (*REFERENCES, EQUATION)
                },
                signal=noise_to_signal(whole.sel(process="sgd"), windows),
                scaled=scaling_comparison(whole, larger, windows, comparison),
                shapes=shapes,
                phases=phases,
                windows=windows,
                tail_index=index,
            )

    def tables(self, settled: Settled, found: Found) -> dict[str, xr.Dataset]:
        signal = found.signal.rename(step="record").reset_coords(drop=True)
        return {f"from_{name}": each for name, each in found.compared.items()} | {
            "noise_to_signal": signal.assign_coords(epoch=("record", found.signal.epoch.values)),
            "linear_scaling": found.scaled,
            "noise_shape": found.shapes,
            "phases": found.phases,
        }

    def verdict(self, answer: Answer[Settled, Found]) -> str:
        found, settled = answer.found, answer.settled
        verdicts, scalings = found.verdicts(settled), found.scalings
        lines = []
        for reference, words in REFERENCES.items():
            of_equation = [each for each in verdicts[reference] if each.process == EQUATION]
            said = ", ".join(f"{each.phase}: {each.verdict}" for each in of_equation)
            lines.append(
                f"The equation (Gaussian noise of covariance C, a quarter of the step) against {words}: {said}."
            )
        if found.is_short:
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
                f"{float(shares.largest_scaling[k]):.3g}, SGD is not told from itself up to {scalings[str(phase)]}."
            )
        known = found.shapes.adjusted_p_value.notnull()
        share = float((found.shapes.adjusted_p_value <= 0.05).where(known).mean())
        run_at = (
            f"; heavy-tailed noise was run at {found.tail_index:.2f}" if "heavy_tailed" in settled.processes else ""
        )
        index = found.shapes.tail_index
        unstable = float(index.isnull().mean())
        indices = f"tail index {float(index.min()):.2f} to {float(index.max()):.2f}, " if unstable < 1 else ""
        lines.append(
            f"Noise: {indices}{100 * unstable:.0f} % of directions not stable, "
            f"{100 * share:.0f} % of directions not normal{run_at}."
        )
        for reference, words in REFERENCES.items():
            lines.append(f"\nAgainst {words}, by phase; p corrected, then the farthest mean in spreads:")
            lines.append(table(verdicts[reference]))
        return "\n".join(lines)

    def summary(self, answer: Answer[Settled, Found]) -> dict[str, Any]:
        found, settled = answer.found, answer.settled
        return {
            "thresholds": [each.format(tolerance=settled.tolerance) for each in REASONS],
            "phases": {name: list(window) for name, window in found.windows.items()},
            "verdicts": {key: [asdict(each) for each in own] for key, own in found.verdicts(settled).items()},
            "linear_scaling": found.scalings,
            "allowed_by_noise_to_signal": found.bounds,
            "tail_index": found.tail_index,
        }

    def figures(self, answer: Answer[Settled, Found]) -> dict[str, Figure]:
        found, settled = answer.found, answer.settled
        labels = {name: label(name) for name in processes(settled)}
        steps = {"langevin": "α", "langevin_half": "α/2", "langevin_quarter": "α/4"}
        from_each = {words: found.compared[reference] for reference, words in REFERENCES.items()}
        judged = {REFERENCES[reference]: _as_dataset(each) for reference, each in found.verdicts(settled).items()}
        return {
            "verdicts": validity_figure(judged, labels),
            "distances": law_distance_figure(found.compared["sgd"], labels, settled.tolerance),
            "ladder": ladder_figure({"the equation": found.compared[EQUATION], **from_each}, settled.ladder, steps),
            "conditions": conditions_figure(found.signal, found.phases, found.scaled, found.bounds, settled.tolerance),
            "noise": noise_shape_figure(found.shapes),
        }


def _say_what_is_left_out(chosen: Config, settled: Settled) -> None:
    """Say which of the choices cannot be run."""
    if missing := [str(each) for each in chosen.scalings if each not in settled.scalings]:
        say(f"scalings {', '.join(missing)} are left out: their minibatches would be more than half of the samples.")
    made, asked = plan_for(settled), replace(plan_for(settled), clocks=())
    if len(made.losses) < len(asked.losses):
        say(
            f"{len(asked.losses) - len(made.losses)} of {len(asked.losses)} records are left out: they would not be at an "
            "update of their own in every run."
        )


def _phases(pilot: xr.Dataset, settled: Settled) -> tuple[xr.Dataset, dict[str, tuple[float, float]]]:
    """Return phases of learning; without classes or enough records to find any, the run is one phase."""
    if landscape_for(settled).is_classifier:
        try:
            phases = detect_phases(pilot)
            return phases, phase_windows(phases, settled.epochs)
        except EstimationRefused as error:
            say(f"phases: {error}")
    one = xr.DataArray(
        np.ones((pilot.sizes["replica"], pilot.sizes["step"]), np.int8), dims=("replica", "step"),
        attrs={"flag_meanings": "all"},
    )  # fmt: skip
    nothing = xr.Dataset({"phase": one, "boundary_epoch": (("replica", "boundary"), np.empty((len(one), 0)))})
    return nothing, {"all": (0.0, settled.epochs)}


def _as_dataset(verdicts: list[Verdict]) -> xr.Dataset:
    coords = {name: list(dict.fromkeys(getattr(each, name) for each in verdicts)) for name in ("process", "phase")}
    shape = tuple(map(len, coords.values()))
    values = {name: np.array([getattr(each, name) for each in verdicts]) for name in ("verdict", "p_value")}
    return xr.Dataset({name: (tuple(coords), each.reshape(shape)) for name, each in values.items()}, coords=coords)


STUDY = IsTheSDEValid()
