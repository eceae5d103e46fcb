"""Runs seen from another process: in words, as a page, averaged over passes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from langevin_nn import Monitor, NetworkLandscape, gradient_ensemble, open_trajectory
from langevin_nn.__main__ import main
from langevin_nn.errors import ConfigurationError
from langevin_nn.figures.monitored import monitor_page
from langevin_nn.monitor import live, pooled
from langevin_nn.monitor.words import histogram

_LOOP = """
import sys, time
import torch
from torch.nn.functional import cross_entropy
from langevin_nn import Monitor
import langevin_nn.monitor.monitor as module
module._SECONDS_BETWEEN_LOOKS = 0.0
torch.manual_seed(0)
inputs, labels = torch.randn(150, 6), torch.arange(150) % 3
network = torch.nn.Linear(6, 3)
optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
monitor = Monitor(network, 150, sys.argv[1], optimizer=optimizer, every=2, segment_seconds=0.0)
while True:
    for index in torch.randperm(150).split(30):
        losses = cross_entropy(network(inputs[index]), labels[index], reduction="none")
        optimizer.zero_grad()
        with monitor.step(losses, index, labels=labels[index]):
            losses.mean().backward()
        optimizer.step()
    if monitor.epoch == 6:
        print("six", flush=True)
        time.sleep(600)
"""


class _Page(HTMLParser):
    """Tags of a page, and whatever it would load."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.loads: list[str] = []
        self.tags: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag not in ("meta", "br", "use", "path", "rect"):
            self.open.append(tag)
        self.loads += [str(v) for k, v in attrs if k in ("src", "href", "xlink:href") and not str(v).startswith("#")]

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag in self.open:
            while self.open.pop() != tag:
                pass


def test_a_run_of_another_process_and_one_that_was_killed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, page = tmp_path / "run.nc", tmp_path / "page.html"
    with subprocess.Popen([sys.executable, "-c", _LOOP, str(path)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            assert process.stdout.readline() == "six\n"
            text, ended = live(path)
            assert f"running: process {process.pid}" in text
            assert not ended
            assert main(["watch", str(path), "--once"]) == 0
            assert "order parameters about epoch" in capsys.readouterr().out
            assert 'http-equiv="refresh" content="7"' in monitor_page(path, 7.0)[0]
        finally:
            os.kill(process.pid, signal.SIGKILL)
    text, ended = live(path)
    assert "has gone" in text
    assert ended
    assert main(["watch", str(path), "--html", str(page)]) == 0
    written = _Page(page.read_text())
    assert written.open == []
    assert written.loads == []
    assert "svg" in written.tags
    assert "refresh" not in page.read_text()
    assert [each.name for each in tmp_path.iterdir() if each.suffix == ".part"] == []


def test_averages_over_passes_tell_the_noise_scale() -> None:
    torch.manual_seed(0)
    inputs, labels = torch.randn(200, 5), torch.arange(200) % 2
    inputs[:, 0] += labels
    network = nn.Linear(5, 2)
    landscape = NetworkLandscape(network, inputs, labels)
    exact = gradient_ensemble(landscape, landscape.own_weights, 20).order_parameters().sel(cohort="all")
    monitor = Monitor(network, 200, every=1, measured_samples=20)
    for _ in range(300):
        index = torch.randperm(200)[
            :20
        ]  # independent passes: those of one epoch have no sample in common, and err less
        losses = cross_entropy(network(inputs[index]), labels[index], reduction="none")
        with monitor.step(losses, index):
            losses.mean().backward()
        network.zero_grad()
    trajectory = monitor.close()
    averages = pooled(trajectory, 300).isel(replica=0).sel(cohort="all")
    assert averages.sizes["step"] == 1
    for name in ("directed_activity", "noise_strength", "gradient_noise_scale", "alignment_approximation"):
        value, error = (float(averages[each][0]) for each in (name, f"{name}_standard_error"))
        known = float(exact["directed_activity"] / exact["activity"] if name.startswith("align") else exact[name])
        assert abs(value - known) < 4 * error, name
        assert error < 0.2 * known
    many = pooled(trajectory, 10).isel(replica=0).sel(cohort="all")
    spread = float(many.noise_strength.std()) / float((many.noise_strength_standard_error**2).mean() ** 0.5)
    assert 0.6 < spread < 1.5
    with pytest.raises(ConfigurationError, match="whole number"):
        pooled(trajectory, 0)


def test_what_is_not_there_is_said(tmp_path: Path) -> None:
    network = nn.Linear(2, 2)
    monitor = Monitor(network, 4, tmp_path / "run.nc", every=0)
    losses = cross_entropy(network(torch.ones(4, 2)), torch.zeros(4, dtype=torch.int64), reduction="none")
    with monitor.step(losses, torch.arange(4)):
        losses.mean().backward()
    monitor.close()
    text, ended = live(tmp_path / "run.nc")
    assert "cannot be told" in text
    assert ended
    assert "cannot be told" in monitor_page(tmp_path / "run.nc")[0]
    with pytest.raises(ConfigurationError, match="no estimates"):
        pooled(open_trajectory(tmp_path / "run.nc"))
    assert histogram(np.array([np.nan]), None) == []


def test_a_page_of_nothing_says_that_there_is_nothing(tmp_path, capsys):
    assert main(["watch", str(tmp_path / "none.nc"), "--html", str(tmp_path / "page.html"), "--once"]) == 2
    assert "no trajectory at" in capsys.readouterr().err


def test_a_run_that_has_only_begun_is_shown(tmp_path):
    monitor = Monitor(torch.nn.Linear(3, 2), 10, tmp_path / "run.nc")
    page, ended = monitor_page(tmp_path / "run.nc")
    assert ("not told yet" in page, ended) == (True, False)
    assert "nothing recorded yet" in live(tmp_path / "run.nc")[0]
    monitor.close()
