"""What the monitor costs a training loop, beside other people's instruments for what these can do.

Three loops with AdamW: a perceptron, a small residual network with batch normalisation and a small transformer. Each is timed
alone, with losses and verdict only, and with order parameters at the default schedule, 100 updates at a time and in turn; the
verdict is asked for once an epoch. Then one pass that measures: the monitor's, BackPACK's squared norms and variances of
sample gradients, gns-pytorch's noise scale, and sample gradients by `torch.func`, each in the place of a plain pass.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from time import perf_counter

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap
from torch.nn.functional import cross_entropy

from benchmarks.networks import Transformer
from benchmarks.timing import medians, table
from langevin_nn import Monitor
from models.networks import multilayer_perceptron

_UPDATES = 100


class Residual(nn.Module):
    """Two convolutions with batch normalisation, beside the identity."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        layers = [nn.Conv2d(channels, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels), nn.ReLU()]
        self.path = nn.Sequential(
            *layers, nn.Conv2d(channels, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return what follows, shape (sample, channel, row, column)."""
        return (x + self.path(x)).relu()


def residual_network(width: int = 16) -> nn.Module:
    """Return a residual network of three stages."""
    stages: list[nn.Module] = [nn.Conv2d(3, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
    for stage in range(3):
        stages += [Residual(width), Residual(width)]
        if stage < 2:
            stages += [
                nn.Conv2d(width, 2 * width, 3, stride=2, padding=1, bias=False),
                nn.BatchNorm2d(2 * width),
                nn.ReLU(),
            ]
            width *= 2
    return nn.Sequential(*stages, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, 10))


def _of_classes(outputs: Tensor, labels: Tensor) -> Tensor:
    return cross_entropy(outputs, labels, reduction="none")


def _of_tokens(outputs: Tensor, tokens: Tensor) -> Tensor:
    return cross_entropy(outputs[:, :-1].mT, tokens[:, 1:], reduction="none").mean(1)


@dataclass
class Loop:
    """A training loop of somebody's own."""

    name: str
    network: nn.Module
    inputs: Tensor
    labels: Tensor
    loss: Callable[[Tensor, Tensor], Tensor]
    batch_size: int

    def run(self, monitor: Monitor | None, updates: int = _UPDATES) -> None:
        """Make some updates, and ask for the verdict once an epoch."""
        optimizer, n, done = torch.optim.AdamW(self.network.parameters(), lr=1e-4), len(self.inputs), 0
        while done < updates:
            for index in torch.randperm(n).split(self.batch_size)[: updates - done]:
                labels = self.labels[index]
                outputs = self.network(self.inputs[index])
                losses = self.loss(outputs, labels)
                known = {"labels": labels, "logits": outputs} if outputs.ndim == 2 else {}
                optimizer.zero_grad()
                with nullcontext() if monitor is None else monitor.step(losses, index, **known):
                    losses.mean().backward()
                optimizer.step()
                done += 1
            if monitor is not None:
                monitor.verdict()


def loops() -> list[Loop]:
    """Return the three loops, with data of one to some epochs in what is timed."""
    torch.manual_seed(0)
    tokens = torch.randint(0, 512, (400, 64))
    return [
        Loop(
            "perceptron 64-50-50-10, B = 100",
            multilayer_perceptron((64, 50, 50, 10)),
            torch.randn(5000, 64),
            torch.randint(0, 10, (5000,)),
            _of_classes,
            100,
        ),
        Loop(
            "residual network with batch normalisation, 0.27 M, 3x32x32, B = 64",
            residual_network(),
            torch.randn(3200, 3, 32, 32),
            torch.randint(0, 10, (3200,)),
            _of_classes,
            64,
        ),
        Loop("transformer, 0.87 M, 64 tokens, B = 16", Transformer(), tokens, tokens, _of_tokens, 16),
    ]


def costs(loop: Loop, rounds: int) -> str:
    """Return what monitoring adds to the time of a loop."""
    warnings.simplefilter("ignore")

    def monitored(every: int) -> Callable[[], object]:
        monitors = []

        def run() -> None:
            if monitors:
                monitors.pop().close()
            monitors.append(Monitor(loop.network, len(loop.inputs), every=every))
            loop.run(monitors[0])
            monitors.pop().close()

        return run

    seconds = medians(
        {
            "the loop alone": lambda: loop.run(None),
            "with losses and verdict": monitored(0),
            "with order parameters every 100 updates": monitored(100),
        },
        rounds,
    )
    return table(f"{loop.name}: {_UPDATES} updates", seconds, "the loop alone", unit="loop")


def passes(loop: Loop, rounds: int) -> str:
    """Return what one pass takes that measures, by the monitor and by others."""
    network, inputs, labels = loop.network, loop.inputs[: loop.batch_size], loop.labels[: loop.batch_size]
    index = torch.arange(len(inputs))

    def losses() -> Tensor:
        network.zero_grad()
        return loop.loss(network(inputs), labels)

    def plain() -> None:
        losses().mean().backward()

    def monitored() -> None:
        monitor = Monitor(network, len(loop.inputs), every=1)
        found = losses()
        with monitor.step(found, index):
            found.mean().backward()
        monitor._record = None  # type: ignore[assignment]  # nothing of it is kept
        monitor._leave()

    def by_func() -> None:
        weights = {name: each.detach() for name, each in network.named_parameters()}

        def one(chosen: dict[str, Tensor], sample: Tensor, label: Tensor) -> Tensor:
            return loop.loss(functional_call(network, chosen, (sample[None],)), label[None]).sum()

        vmap(grad(one), in_dims=(None, 0, 0), randomness="different")(weights, inputs, labels)

    contestants: dict[str, Callable[[], object]] = {
        "a plain pass": plain,
        "monitor: all order parameters with errors": monitored,
    }
    if not any(isinstance(each, nn.BatchNorm2d) for each in network.modules()):
        contestants["torch.func: sample gradients alone"] = by_func
    contestants |= _peers(loop, inputs, labels, losses)
    return table(f"{loop.name}: one pass that measures", medians(contestants, rounds), "a plain pass", unit="pass")


def _peers(loop: Loop, inputs: Tensor, labels: Tensor, losses: Callable[[], Tensor]) -> dict[str, Callable[[], object]]:
    """Return what others can do here, as far as they are installed."""
    found: dict[str, Callable[[], object]] = {}
    try:
        from gns_pytorch import compute_gns

        found["gns-pytorch: noise scale of a tenth of the tensors"] = lambda: compute_gns(losses(), loop.network)
    except ImportError:
        pass
    try:
        from backpack import backpack, extend, extensions
    except ImportError:
        return found
    if isinstance(loop.network, nn.Sequential) and not any(
        isinstance(each, nn.BatchNorm2d) for each in loop.network.modules()
    ):
        network, loss = extend(multilayer_perceptron((64, 50, 50, 10))), extend(nn.CrossEntropyLoss())

        def run() -> None:
            network.zero_grad()
            with backpack(extensions.BatchL2Grad(), extensions.Variance()):
                loss(network(inputs), labels).backward()

        found["BackPACK: squared norms and variances"] = run
    return found


def report() -> None:
    """Print costs of loops and of passes."""
    torch.set_num_threads(1)  # of small layers two threads mostly wait for each other
    print(f"Monitor: torch {torch.__version__}, one thread")
    started = perf_counter()
    for loop in loops():
        small = loop.inputs.ndim == 2 and loop.inputs.is_floating_point()
        print(costs(loop, 31 if small else 5), passes(loop, 31 if small else 7), sep="\n\n", end="\n\n", flush=True)
    print(f"{perf_counter() - started:.0f} s")
