"""The screen of a run: what is on it, at which size, and that it follows a file that another process writes."""

from __future__ import annotations

import asyncio
import html
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from langevin_nn import Monitor

pytest.importorskip("textual")
pytest.importorskip("textual_plotext")

from langevin_nn.monitor.screen import Screen

_LOOP = """
import sys
import torch
from torch.nn.functional import cross_entropy
from langevin_nn import Monitor
import langevin_nn.monitor.monitor as module
module._SECONDS_BETWEEN_LOOKS = 0.0
torch.set_num_threads(1)
torch.manual_seed(0)
inputs, labels = torch.randn(150, 6), torch.arange(150) % 3
network = torch.nn.Linear(6, 3)
monitor = Monitor(network, 150, sys.argv[1], every=2, segment_seconds=0.0)
for line in sys.stdin:
    for _ in range(int(line)):
        for index in torch.randperm(150).split(30):
            losses = cross_entropy(network(inputs[index]), labels[index], reduction="none")
            with monitor.step(losses, index, labels=labels[index]):
                losses.mean().backward()
            network.zero_grad()
    print("seen", flush=True)
monitor.close()
"""


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Compute in one thread: several wait for one another longer than these networks take."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def _recorded(path: Path, epochs: int = 24) -> None:
    """Train on labels of which a third is wrong."""
    torch.manual_seed(0)
    labels = torch.arange(300) % 3
    inputs = torch.randn(300, 20) + 3 * nn.functional.one_hot(labels, 20)
    given = torch.where(torch.rand(300) < 0.3, (labels + 1) % 3, labels)
    network = nn.Sequential(nn.Linear(20, 30), nn.ReLU(), nn.Linear(30, 3))
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    with Monitor(network, 300, path, optimizer=optimizer, every=10) as monitor:
        for _ in range(epochs):
            for index in torch.randperm(300).split(30):
                logits = network(inputs[index])
                losses = cross_entropy(logits, given[index], reduction="none")
                optimizer.zero_grad()
                with monitor.step(losses, index, labels=given[index], logits=logits):
                    losses.mean().backward()
                optimizer.step()
            monitor.log(test_loss=cross_entropy(network(inputs), labels).item())


def _text_of(app: Any) -> str:
    """Return what is on the screen, row after row."""
    pieces = re.findall(r"<text[^>]*>([^<]*)</text>", app.export_screenshot())
    return " ".join(html.unescape(" ".join(pieces)).split())


async def _shows(app: Any, pilot: Any, what: str, seconds: float = 8.0) -> str:
    """Wait until something is on the screen."""
    for _ in range(int(seconds / 0.05)):
        await pilot.pause(0.05)
        if what in (text := _text_of(app)):
            return text
    raise AssertionError(f"{what!r} is not on the screen: {text}")


def test_a_run_at_several_sizes(tmp_path: Path) -> None:
    _recorded(tmp_path / "run.nc")

    async def looks() -> None:
        app = Screen(tmp_path / "run.nc", 60.0)
        async with app.run_test(size=(80, 24)) as pilot:
            text = await _shows(app, pilot, "samples look mislabeled (predicted precision")
            assert "run.nc: step 240, epoch 24, complete" in text
            for heading in ("loss", "look correct", "mislabeled", "test", "samples by loss", "A₀", "D", "noise scale"):
                assert heading in text, heading
            assert "epoch 24" in text.partition("samples by loss")[2]  # at an axis
            assert "q Quit" in text
            assert "r Look now" in text
            assert "averages over passes" not in text
            await pilot.resize_terminal(160, 50)
            await _shows(app, pilot, "(nat² / weight², averages over passes)")
            await pilot.resize_terminal(80, 16)
            await pilot.pause(0.2)
            text = _text_of(app)
            assert "samples by loss" in text
            assert "A₀" not in text
            await pilot.press("q")
            await pilot.pause()
        assert app.return_code == 0
        assert not app.is_running

    asyncio.run(looks())


def test_a_file_that_appears_later_and_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "run.nc"

    async def looks() -> None:
        app = Screen(path, 0.2)
        async with app.run_test(size=(100, 30)) as pilot:
            await _shows(app, pilot, "There is nothing to show yet: no trajectory at")
            with subprocess.Popen(
                [sys.executable, "-c", _LOOP, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
            ) as process:
                assert process.stdin is not None
                for epochs, seen in ((2, 1.6), (4, 5.6)):  # of the last pass that was measured
                    process.stdin.write(f"{epochs}\n")
                    process.stdin.flush()
                    text = await _shows(app, pilot, f"epoch {seen}, running: process {process.pid}")
                    assert ("cannot be told" in text) == (seen < 4)
                process.kill()
            text = await _shows(app, pilot, "stopped: process")
            assert "samples by loss" in text

    asyncio.run(looks())
