"""The gradient ensemble of a transformer, a convolutional and a residual network, in units of an epoch's time.

An epoch is one forward and backward pass of plain PyTorch over all samples: the physical floor of anything that sees each
of them. Measured are the seconds from nothing to the order parameters with R, and to the leading eigenvalues where they
are asked for, and the peak memory, each job in a fresh process.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from statistics import median
from typing import Any

import numba
import numpy as np
import torch
import xarray as xr
from torch import Tensor, nn

from benchmarks.gradient_ensemble import columns, target
from benchmarks.timing import peak
from langevin_nn import NetworkLandscape, gradient_ensemble


class Block(nn.Module):
    """Attention and a perceptron, both after a layer normalisation and beside the identity."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norms = nn.ModuleList([nn.LayerNorm(width), nn.LayerNorm(width)])
        self.attention, self.projection = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.perceptron = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        """Return what follows, shape (sample, position, width)."""
        parts = self.attention(self.norms[0](x)).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        seen = nn.functional.scaled_dot_product_attention(*parts, is_causal=True)
        x = x + self.projection(seen.transpose(1, 2).flatten(2))
        return x + self.perceptron(self.norms[1](x))


class Transformer(nn.Module):
    """A language model whose last layer shares its matrix with the first, as GPT-2 does."""

    def __init__(self, words: int = 512, positions: int = 64, width: int = 128, blocks: int = 4) -> None:
        super().__init__()
        self.words, self.positions = nn.Embedding(words, width), nn.Embedding(positions, width)
        self.blocks = nn.Sequential(*(Block(width, heads=4) for _ in range(blocks)))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, words, bias=False)
        self.head.weight = self.words.weight

    def forward(self, tokens: Tensor) -> Tensor:
        """Return a score of each word at each position."""
        places = torch.arange(tokens.shape[1], device=tokens.device)
        return self.head(self.norm(self.blocks(self.words(tokens) + self.positions(places))))


class Residual(nn.Module):
    """Two convolutions with group normalisation beside the identity, or beside a convolution of one pixel."""

    def __init__(self, n_in: int, n_out: int, stride: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(n_in, n_out, 3, stride, 1, bias=False)
        self.second = nn.Conv2d(n_out, n_out, 3, 1, 1, bias=False)
        self.norms = nn.ModuleList([nn.GroupNorm(8, n_out), nn.GroupNorm(8, n_out)])
        self.beside: nn.Module = nn.Identity()
        if stride > 1 or n_in != n_out:
            self.beside = nn.Sequential(nn.Conv2d(n_in, n_out, 1, stride, bias=False), nn.GroupNorm(8, n_out))

    def forward(self, x: Tensor) -> Tensor:
        """Return what follows, shape (sample, channel, row, column)."""
        through = torch.relu(self.norms[0](self.first(x)))
        return torch.relu(self.norms[1](self.second(through)) + self.beside(x))


def residual_network() -> nn.Module:
    """Return a residual network of 18 layers for images of 3×32×32."""
    widths = (64, 64, 128, 256, 512)
    blocks: list[nn.Module] = [nn.Conv2d(3, 64, 3, 1, 1, bias=False), nn.GroupNorm(8, 64), nn.ReLU()]
    for k, (n_in, n_out) in enumerate(pairwise(widths)):
        blocks += [Residual(n_in, n_out, 1 if k == 0 else 2), Residual(n_out, n_out, 1)]
    return nn.Sequential(*blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, 10))


def convolutional_network() -> nn.Module:
    """Return six convolutions for images of 3×32×32."""
    layers: list[nn.Module] = []
    for n_in, n_out in ((3, 32), (32, 64), (64, 128), (128, 128), (128, 192), (192, 192)):
        layers += [nn.Conv2d(n_in, n_out, 3, padding=1), nn.ReLU()]
        if n_out != n_in and n_out > 32:
            layers.append(nn.MaxPool2d(2))
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(192 * 16, 10))


def of_each_word(outputs: Tensor, labels: Tensor) -> Tensor:
    """Return the mean cross-entropy of each sequence."""
    losses = nn.functional.cross_entropy(outputs.flatten(0, -2), labels.flatten(), reduction="none")
    return losses.view(labels.shape).mean(1)


@dataclass(frozen=True)
class Job:
    """A network with its samples, what is asked for and what is promised."""

    make: Callable[[], nn.Module]
    samples: Callable[[torch.Generator], tuple[Tensor, Tensor]]
    title: str
    promise: str
    kept: Callable[[dict[str, float]], float]  # what was reached in units of the promise, and more is better
    n_modes: int | None = None
    memory_limit: str | None = None
    loss: Any = None


def _images(n_samples: int) -> Callable[[torch.Generator], tuple[Tensor, Tensor]]:
    return lambda generator: (
        torch.randn(n_samples, 3, 32, 32, generator=generator),
        torch.randint(10, (n_samples,), generator=generator),
    )


def _words(generator: torch.Generator) -> tuple[Tensor, Tensor]:
    return tuple(torch.randint(512, (200, 64), generator=generator) for _ in range(2))  # type: ignore[return-value]


JOBS = {
    "transformer": Job(
        Transformer,
        _words,
        "transformer, 200 sequences of 64 words",
        "order parameters with R in at most 4 epochs' time",
        lambda found: 4 * found["epoch"] / found["order"],
        loss=of_each_word,
    ),
    "convolutional": Job(
        convolutional_network,
        _images(1000),
        "six convolutions, 1,000 images",
        "with R and 20 eigenvalues in at most 60 s and 2 GiB",
        lambda found: min(60 / found["modes"], 2048 / found["mib"]),
        n_modes=20,
        memory_limit="2 GiB",
    ),
    "residual": Job(
        residual_network,
        _images(64),
        "18 layers with group normalisation, 64 images",
        "order parameters with R in at most 20 epochs' time",
        lambda found: 20 * found["epoch"] / found["order"],
    ),
}


def epoch(landscape: NetworkLandscape, module: nn.Module, loss: Callable[[Tensor, Tensor], Tensor]) -> float:
    """Return the median seconds of a forward and backward pass over all samples, in pieces of 64."""
    found = []
    for _ in range(3):
        started = time.perf_counter()
        for start in range(0, landscape.n_samples, 64):
            some = slice(start, start + 64)
            module.zero_grad()
            loss(module(landscape.inputs[some]), landscape.labels[0, some]).mean().backward()
        found.append(time.perf_counter() - started)
    return median(found)


def measured(name: str) -> dict[str, float]:
    """Run one job in this fresh process: seconds of an epoch and to the end of each stage, peak memory in MiB."""
    job = JOBS[name]
    torch.manual_seed(0)
    module = job.make()
    inputs, labels = job.samples(torch.Generator().manual_seed(0))
    options = {} if job.loss is None else {"loss": job.loss}
    landscape = NetworkLandscape(module, inputs, labels, start="own", **options)
    xr.Dataset({"loads": ("what", [1.0])})  # what xarray takes from disk when it is first used is no part of the job
    before, started = peak(), time.perf_counter()
    ensemble = gradient_ensemble(landscape, landscape.own_weights, 20, memory_limit=job.memory_limit)
    ensemble.order_parameters(np.random.default_rng(0))
    found = {"order": time.perf_counter() - started, "parameters": float(landscape.n_parameters)}
    if job.n_modes is not None:
        ensemble.spectrum(job.n_modes)
        found["modes"] = time.perf_counter() - started
    found["mib"] = peak() - before
    found["epoch"] = epoch(landscape, module, job.loss or nn.CrossEntropyLoss())
    return found


def report() -> None:
    """Print the table."""
    rows, notes = [], []
    for name, job in JOBS.items():
        arguments = [sys.executable, "-m", "benchmarks.networks", "--measure", name]
        done = subprocess.run(arguments, stdout=subprocess.PIPE, text=True, check=True)
        found = json.loads(done.stdout.splitlines()[-1])
        modes = found.get("modes", "")
        share = found["order"] / found["epoch"]
        rows.append((name, f"{found['parameters']:,.0f}", found["epoch"], found["order"], share, modes, found["mib"]))
        notes += [f"{name.capitalize()}: {job.title}.", target(job.promise, job.kept(found))]
    header = ("parameters", "epoch, s", "order param., s", "in epochs", "eigenvalues, s", "MiB")
    print(columns("Order parameters with R of networks of other layers, minibatches of 20", header, rows, notes))


def main() -> None:
    """Print the table, or measure one job in this process."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--measure", choices=tuple(JOBS), help="run this job here and print what was measured")
    options = parser.parse_args()
    torch.set_num_threads(numba.config.NUMBA_NUM_THREADS)
    if options.measure:
        print(json.dumps(measured(options.measure)))
    else:
        report()


if __name__ == "__main__":
    main()
