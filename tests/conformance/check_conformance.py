"""Real architectures keep gradients of samples, updates of torch's optimizers, bits after a kill; or a refusal in words.

``python tests/conformance/check_conformance.py --out docs/conformance.md`` tries `architectures.py` and writes the table.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import importlib.util
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from architectures import CASES, LOSSES, Case, N
from torch import Tensor, nn

from langevin_nn import NetworkLandscape, Process, advance, gradient_ensemble, simulate, validate
from langevin_nn.draws import draws_at
from langevin_nn.errors import ConfigurationError
from langevin_nn.landscape.network import cross_entropy
from langevin_nn.noise import ShuffledMinibatches
from langevin_nn.observables import Losses, Weights
from langevin_nn.rates import Cosine
from langevin_nn.schedules import EverySteps
from langevin_nn.store import folder_of
from langevin_nn.testing.observables import Kill
from langevin_nn.threads import single_threaded_products
from langevin_nn.update import Adam, AdamW, Momentum

STEPS, SIZE, LOOKED_AT = 10, 4, 4  # updates, samples of a minibatch, samples whose gradients are compared
OFFSET = 1e-4  # ε of Adam: a gradient that is 0 but for rounding must not decide the direction of a step
# Relative differences: between float64 and gradients of samples; between two ways to the same updates.
ALLOWED = {
    torch.float64: (1e-9, 1e-9),
    torch.float32: (1e-3, 5e-3),
    torch.bfloat16: (0.1, 0.3),
    torch.float16: (0.02, 0.1),
}
_FLAT = nn.utils.parameters_to_vector


@dataclass(frozen=True)
class Recipe:
    """A rate, our update and torch's optimizer with its scheduler."""

    rate: Any
    ours: Any
    theirs: Callable[[Any], torch.optim.Optimizer]
    scheduler: Callable[[torch.optim.Optimizer], Any] | None = None


RECIPES = {
    "SGD": Recipe(0.05, Momentum(0.9, 0.01), partial(torch.optim.SGD, lr=0.05, momentum=0.9, weight_decay=0.01)),
    "Adam": Recipe(0.01, Adam(offset=OFFSET), partial(torch.optim.Adam, lr=0.01, eps=OFFSET)),
    "AdamW, cosine": Recipe(
        Cosine(0.01, STEPS, 0.001),
        AdamW(offset=OFFSET, weight_decay=0.1),
        partial(torch.optim.AdamW, lr=0.01, eps=OFFSET, weight_decay=0.1),
        lambda optimizer: torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, STEPS, 0.001),
    ),
}


@dataclass(frozen=True)
class Found:
    """What was found of one case."""

    refusal: str | None = None
    parameters: int = 0
    path: str = ""
    ensemble: float = np.nan
    training: float = np.nan
    allowed: tuple[float, float] = (0.0, 0.0)
    resumes: bool = False
    seconds: float = 0.0

    @property
    def holds(self) -> bool:
        """Whether all of it is as expected."""
        return self.ensemble <= self.allowed[0] and self.training <= self.allowed[1] and self.resumes


def missing(case: Case) -> str | None:
    """Return the package that a case needs and that is not here."""
    needed = {"torch": (), "peft": ("peft", "transformers")}.get(case.package, (case.package,))
    return next((name for name in needed if importlib.util.find_spec(name) is None), None)


def made(case: Case) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return case.make()


def landscape_of(case: Case) -> NetworkLandscape:
    return NetworkLandscape(
        made(case), case.inputs, case.labels, loss=LOSSES[case.loss], output=case.output, error=case.error, start="own"
    )


def found_of(case: Case) -> Found:
    """Try one case."""
    started = time.perf_counter()
    with single_threaded_products():
        try:
            landscape = landscape_of(case)
        except ConfigurationError as error:
            return Found(refusal=f"{type(error).__name__}: {error}", seconds=time.perf_counter() - started)
        process = process_of(case, landscape)
        of_samples = error_of_samples(case, landscape)
        of_updates = error_of_updates(case, process)
        resumes, path = killed_and_resumed(process)
    return Found(
        None, landscape.n_parameters, path, of_samples, of_updates, ALLOWED[landscape.dtype], resumes,
        time.perf_counter() - started,
    )  # fmt: skip


def process_of(case: Case, landscape: NetworkLandscape) -> Process:
    recipe = RECIPES[case.recipe]
    return Process(landscape, ShuffledMinibatches(SIZE), recipe.rate, update=recipe.ours)


class Loop:
    """The network and its losses as in a loop of one's own, without any of the package."""

    def __init__(self, case: Case, dtype: torch.dtype | None = None) -> None:
        self.case, self.module = case, made(case)
        self.trained = [each for each in self.module.parameters() if each.requires_grad]
        self.dtype = dtype or self.trained[0].dtype
        self.module.to(self.dtype)
        self.loss = LOSSES[case.loss] or cross_entropy

    def _rows(self, tensor: Tensor, rows: Tensor) -> Tensor:
        chosen = tensor[rows]
        return chosen.to(self.dtype) if chosen.is_floating_point() else chosen

    def losses(self, rows: Tensor) -> Tensor:
        inputs = self.case.inputs
        if isinstance(inputs, dict):
            outputs = self.module(**{name: self._rows(each, rows) for name, each in inputs.items()})
        else:
            outputs = self.module(*(self._rows(x, rows) for x in (inputs if isinstance(inputs, tuple) else (inputs,))))
        rule = self.case.output
        if rule is None and not isinstance(outputs, Tensor):
            outputs = outputs.logits
        elif callable(rule):
            outputs = rule(outputs)
        elif rule is not None:
            outputs = outputs[rule]
        return self.loss(outputs, self._rows(self.case.labels, rows))


def error_of_samples(case: Case, landscape: NetworkLandscape) -> float:
    """Return the largest relative error of norms of sample gradients, against a loop over samples in float64."""
    rows = torch.randperm(N, generator=torch.Generator().manual_seed(5))[:LOOKED_AT]
    ensemble = gradient_ensemble(landscape, landscape.own_weights, batch_size=SIZE)
    norms = ensemble.samples().sample_gradient_norm.values[rows.numpy()]
    loop = Loop(case, torch.float64)
    expected = []
    for row in rows:
        loop.module.zero_grad()
        loop.losses(row[None]).sum().backward()
        expected.append(float(sum(each.grad.square().sum() for each in loop.trained if each.grad is not None)) ** 0.5)
    return float(np.abs(norms / np.array(expected) - 1).max())


def error_of_updates(case: Case, process: Process) -> float:
    """Return how far some updates end from torch's, minibatch by minibatch, in units of the way."""
    recipe, loop = RECIPES[case.recipe], Loop(case)
    state = process.start(1, 0)
    begin = _FLAT(loop.trained).detach().clone()
    assert torch.equal(begin, state.weights[0])
    optimizer = recipe.theirs(loop.trained)
    scheduler = recipe.scheduler and recipe.scheduler(optimizer)
    memory = state.noise_memory
    for step in range(STEPS):
        drawn, memory = process.noise.sample_weights(N, memory, draws_at(state.key(step), state.weights), 1)
        # What has no gradient has the gradient 0 here, whereas torch's optimizers leave it out, momentum and decay with it.
        for each in loop.trained:
            each.grad = torch.zeros_like(each)
        loop.losses(drawn.indices[0, 0]).mean().backward()
        optimizer.step()
        if scheduler:
            scheduler.step()
        state = advance(process, state, 1)
    theirs = _FLAT(loop.trained).detach().double()
    way = (theirs - begin.double()).norm()
    return float((state.weights[0].double() - theirs).norm() / way)


def killed_and_resumed(process: Process) -> tuple[bool, str]:
    """Return whether a recorded run that was killed half-way goes on to the same bits, and how gradients are computed."""
    often = EverySteps(STEPS // 2)
    with tempfile.TemporaryDirectory() as folder:
        path, killed = Path(folder) / "run.nc", Path(folder) / "killed.nc"
        kill = Kill(often, STEPS // 2, folder_of(path), folder_of(killed))
        bits = []
        for options in ({"path": path}, {"resume": killed}):
            with simulate(
                process, steps=STEPS, replicas=1, observables=[Weights(often), Losses(often), kill],
                segment_seconds=0, progress=False, **options,
            ) as tree:  # fmt: skip
                values = tree["weights"].to_dataset()["weights"].values, tree["train_loss"].values
                bits.append(tuple(each.tobytes() for each in values))
                finite = np.isfinite(values[0]).all()
        faults = [*validate(path), *validate(killed)]
        path_name = process.landscape.description["gradient_path"]
    return bool(finite) and bits[0] == bits[1] and not faults, str(path_name)


def table(results: list[tuple[Case, Found]]) -> str:
    """Return the page."""
    trained = [(case, each) for case, each in results if each.refusal is None]
    refused = [(case, each) for case, each in results if each.refusal is not None]
    versions = ", ".join(
        f"{name} {importlib.metadata.version(name)}"
        for name in ("torch", "torchvision", "timm", "transformers", "peft")
    )
    lines = [
        "# Architectures that are tried",
        "",
        f"{len(results)} architectures, losses and recipes as users have them, from {versions},",
        "built from small configurations. `make conformance` tries them again, and writes this page. Each trains, or is",
        "refused in words.",
        "",
        f"- Ensemble: the largest relative error of norms of sample gradients of {LOOKED_AT} samples, against a loop over",
        "  samples in float64.",
        f"- Training: the distance after {STEPS} updates from torch's own optimizer with the same minibatches of {SIZE}, in",
        "  units of the way.",
        "- Resumes: a recorded run that was killed half-way goes on to the same bits, and both files are valid.",
        "",
        f"Recipes are SGD with momentum 0.9 and weight decay, Adam, and AdamW with a cosine schedule; there are {N} samples.",
        "A parameter without a gradient in a minibatch, as that of an expert whom no sample chose, has the gradient 0 here:",
        "its momentum goes on and it decays. torch's optimizers leave it out then, unless its `grad` is a tensor of zeros.",
        "",
        "| package | architecture | loss | recipe | parameters | gradients by | ensemble | training | resumes |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    lines += [
        f"| {case.package} | {case.name} | {case.loss} | {case.recipe} | {each.parameters:,} | {each.path} "
        f"| {each.ensemble:.0e} | {each.training:.0e} | {'yes' if each.resumes else 'no'}"
        f"{'' if each.holds else ', **does not hold**'} |"
        for case, each in trained
    ]
    lines += ["", "## Refused", "", "| package | architecture | what is said |", "| --- | --- | --- |"]
    lines += [
        f"| {case.package} | {case.name} | {str(each.refusal).replace('|', chr(92) + '|')} |" for case, each in refused
    ]
    return "\n".join(lines) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, help="file for the table")
    parser.add_argument("--only", default="", help="cases whose package or name holds this")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    results, wrong = [], 0
    for case in CASES:
        if arguments.only.lower() not in f"{case.package} {case.name}".lower():
            continue
        name = f"{case.package:12s} {case.name:36s} {case.loss:14s} {case.recipe:14s}"
        if (absent := missing(case)) is not None:
            print(f"{name} left out: {absent} is not installed; make conformance installs it", flush=True)
            wrong += 1
            continue
        try:
            found = found_of(case)
        except Exception as error:  # nothing raw may come: said, and counted
            print(f"{name} {type(error).__name__}: {error}", flush=True)
            wrong += 1
            continue
        as_expected = found.holds if case.refused is None else found.refusal is not None
        wrong += not as_expected
        said = found.refusal or (
            f"{found.path:16s} {found.ensemble:.1e} {found.training:.1e} {found.resumes} {found.seconds:.1f} s"
        )
        print(f"{name} {'' if as_expected else 'WRONG '}{said}", flush=True)
        results.append((case, found))
    if arguments.out:
        arguments.out.write_text(table(results), encoding="utf-8")
    print(f"{len(results)} cases, {wrong} not as expected")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
