"""What recording costs: its share of a run, its memory, and its throughput against peers and the bare disk."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median

import numpy as np
import xarray as xr

from benchmarks.timing import medians, table
from langevin_nn import Process, advance, open_trajectory, sgd, simulate
from langevin_nn.landscape import NetworkLandscape
from langevin_nn.observables import Observable, Variable, default_observables
from langevin_nn.run.loop import Run
from langevin_nn.schedules import EveryEpochs
from langevin_nn.store import Recorder, SegmentFolder, write_trajectory
from models.datasets import load_dataset
from models.networks import multilayer_perceptron

# Methods that do nothing but record; none calls another.
WRITING = ((SegmentFolder, "__init__"), (Recorder, "keep"), (Recorder, "commit"), (Run, "_finish"))
LARGEST_SHARE = 0.05
BUDGET_MIB = 512
ROUNDS = 2
RECORDS, PARAMETERS = 64, 10**6  # of the throughput: 244 MiB of weights


@contextmanager
def clocked(owner: type, name: str, seconds: dict[str, float]) -> Iterator[None]:
    """Add up the time that a method takes; its calls must not nest."""
    method, key = getattr(owner, name), f"{owner.__name__}.{name}"
    seconds[key] = 0.0

    def timed(*args: object, **kwargs: object) -> object:
        started = time.perf_counter()
        try:
            return method(*args, **kwargs)
        finally:
            seconds[key] += time.perf_counter() - started

    setattr(owner, name, timed)
    try:
        yield
    finally:
        setattr(owner, name, method)


class Timed(Observable):
    """Another observable, whose computation is timed."""

    def __init__(self, inner: Observable, seconds: dict[str, float]) -> None:
        self._inner, self._seconds = inner, seconds

    @property
    def variables(self) -> tuple[Variable, ...]:  # type: ignore[override]
        """Those of the other."""
        return self._inner.variables

    @property
    def description(self) -> dict[str, object]:
        """What is timed."""
        return {"inner": type(self._inner).__name__}

    def measure(self, snapshot):  # type: ignore[no-untyped-def]  # noqa: D102
        started = time.perf_counter()
        try:
            return self._inner.measure(snapshot)
        finally:
            self._seconds["measure"] += time.perf_counter() - started


def share(name: str, process: Process, epochs: int, replicas: int) -> str:
    """Run the same steps without and with recording; return the shares in one row."""
    found: dict[str, list[float]] = {key: [] for key in ("without", "measure", "write", "total")}
    for number in range(ROUNDS + 1):
        state = process.start(replicas, 0)
        steps = round(epochs / process.epochs_per_step)
        started = time.perf_counter()
        advance(process, state, steps)
        without = time.perf_counter() - started
        seconds = {"measure": 0.0}
        observables = [Timed(each, seconds) for each in default_observables()]
        options = {"schedule": EveryEpochs(1), "observables": observables, "progress": False}
        with tempfile.TemporaryDirectory() as folder, ExitStack() as clocks:
            for owner, method in WRITING:
                clocks.enter_context(clocked(owner, method, seconds))
            started = time.perf_counter()
            simulate(process, epochs=epochs, replicas=replicas, path=Path(folder) / "run.nc", **options).close()
            total = time.perf_counter() - started
        if number:  # the first round warms up
            found["without"].append(without)
            found["measure"].append(seconds["measure"])
            found["write"].append(sum(seconds[f"{owner.__name__}.{method}"] for owner, method in WRITING))
            found["total"].append(total)
    middle = {key: median(values) for key, values in found.items()}
    writing, measuring = middle["write"] / middle["without"], middle["measure"] / middle["without"]
    verdict = "met" if writing <= LARGEST_SHARE else f"missed by {writing / LARGEST_SHARE:.2f}"
    return (
        f"  {name:<44}{middle['without']:>8.2f}{middle['total']:>8.2f}{middle['measure']:>9.2f}{middle['write']:>9.3f}"
        f"{100 * measuring:>10.0f} %{100 * writing:>9.1f} %  {verdict}"
    )


def shares() -> None:
    """Print what recording all scalar order parameters every epoch costs."""
    print("Recording all scalar order parameters every epoch, seconds (medians of runs in turn)")
    print(
        f"  {'':<44}{'steps':>8}{'whole':>8}{'order':>9}{'':>9}{'order p.':>12}{'writing':>11}  target: writing at most\n"
        f"  {'':<44}{'alone':>8}{'run':>8}{'param.':>9}{'writing':>9}{'/ alone':>12}{'/ alone':>11}  5 % of the steps alone"
    )
    digits = load_dataset("digits", samples_per_class=120)
    small = NetworkLandscape(multilayer_perceptron((64, 50, 50, 10)), digits.train_inputs, digits.train_labels)
    print(share("64-50-50-10, 1,200 digits, 4 × 360 epochs", sgd(small, 0.1, 25), 360, 4), flush=True)
    if os.environ.get("LANGEVIN_NN_DATA"):
        images = load_dataset("mnist10k", samples_per_class=400)
        inputs = images.train_inputs.reshape(len(images.train_inputs), -1)
        large = NetworkLandscape(multilayer_perceptron((784, 50, 50, 10)), inputs, images.train_labels)
        print(share("784-50-50-10, 4,000 images, 4 × 60 epochs", sgd(large, 0.01, 25), 60, 4), flush=True)
    print()


def weights_of(records: int, parameters: int) -> xr.DataTree:
    """Return a trajectory of weights in memory."""
    values = np.random.default_rng(0).standard_normal((1, records, parameters), dtype=np.float32)
    described = {"long_name": "weights", "units": "weight"}
    coordinates = {"weight_step": np.arange(records), "time": ("weight_step", 0.1 * np.arange(records))}
    group = xr.Dataset({"weights": (("replica", "weight_step", "parameter"), values, described)}, coords=coordinates)
    tree = xr.DataTree.from_dict({"/": xr.Dataset(coords={"replica": [0]}), "/weights": group})
    tree.attrs["schema_version"] = "1.1"
    return tree


def throughput() -> None:
    """Print how fast weights are written, and how fast the history of one of them is read."""
    tree = weights_of(RECORDS, PARAMETERS)
    values = tree["weights"]["weights"].values
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)

        def flushed(path: Path) -> None:
            with path.open("rb") as file:
                os.fsync(file.fileno())

        def bare() -> None:
            with (folder / "bare.npy").open("wb") as file:
                np.save(file, values)
                file.flush()
                os.fsync(file.fileno())

        def by_xarray() -> None:
            tree.to_netcdf(folder / "xarray.nc", engine="netcdf4")
            flushed(folder / "xarray.nc")

        contestants: dict[str, Callable[[], object]] = {
            "this package (chunks, checksums, renamed)": lambda: write_trajectory(
                tree, folder / "ours.nc", overwrite=True
            ),
            "xarray to_netcdf (contiguous, no checksums)": by_xarray,
            "numpy.save, flushed: the disk": bare,
        }
        written = medians(contestants, rounds=5)
        print(table(f"Writing {values.nbytes / 2**20:.0f} MiB of weights", written, "numpy.save, flushed: the disk"))

        def history(path: Path) -> Callable[[], object]:
            def read() -> object:
                with open_trajectory(path) if path.name == "ours.nc" else xr.open_datatree(path) as opened:
                    return opened["weights"]["weights"][0, :, PARAMETERS // 2].values

            return read

        read = medians(
            {
                "this package": history(folder / "ours.nc"),
                "xarray to_netcdf": history(folder / "xarray.nc"),
                "numpy.load, mapped: the memory": lambda: np.load(folder / "bare.npy", mmap_mode="r")[
                    0, :, PARAMETERS // 2
                ].copy(),
            },
            rounds=5,
        )
        print(table(f"Reading one weight's {RECORDS} records", read, "numpy.load, mapped: the memory"))
        print()


_PREAMBLE = """
import sys, torch
from benchmarks.timing import peak
from langevin_nn import *
from langevin_nn.landscape import QuadraticLandscape
from langevin_nn.noise import Silent, ThermalNoise
from langevin_nn.observables import Losses, Weights
from langevin_nn.schedules import EverySteps
from langevin_nn.update import EulerMaruyama
path = sys.argv[1]
valley = QuadraticLandscape([[1.0]], [[0.0]])
process = Process(valley, ThermalNoise(0.1), 0.01, update=EulerMaruyama())
advance(process, process.start(1, 0), 10)
"""
_MEMORY = {
    "bare import": "",
    "10⁶ records of scalars": """
process = Process(valley, ThermalNoise(0.1), 0.01, update=EulerMaruyama())
simulate(process, steps=10**6, replicas=1, schedule=EverySteps(1), observables=[Losses()], path=path, progress=False)
""",
    "10³ records of 10⁶ weights": """
class Flat(QuadraticLandscape):
    def __init__(self):
        super().__init__([[1.0]], [[0.0]])
        self.n_parameters, self.dtype = 10**6, torch.float32
    def initial_weights(self, replicas, seeds):
        return torch.ones(len(replicas), 10**6)
    def gradient(self, weights):
        return weights
process = Process(Flat(), Silent(), 0.01)
simulate(process, steps=999, replicas=1, observables=[Weights(EverySteps(1))], path=path, progress=False)
""",
}


def memory() -> None:
    """Print the peak memory of long recordings above the bare import, each in a process of its own."""
    print("Peak memory of recording, above the bare import, and what was written")
    preamble = _PREAMBLE
    after = "\nprint(peak())\n"
    base = 0.0
    for name, code in _MEMORY.items():
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "run.nc"
            started = time.perf_counter()
            command = [sys.executable, "-c", preamble + code + after, str(path)]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            seconds = time.perf_counter() - started
            peak = float(done.stdout)
            if not code:
                base = peak
                print(f"  {name:<30}{peak:>8.0f} MiB")
                continue
            size = path.stat().st_size / 2**20
            verdict = "met" if peak - base <= BUDGET_MIB else f"missed by {(peak - base) / BUDGET_MIB:.2f}"
            print(
                f"  {name:<30}{peak - base:>8.0f} MiB{size:>10.0f} MiB in {seconds:.0f} s; at most {BUDGET_MIB}: {verdict}"
            )
    print()


def report() -> None:
    """Print all tables."""
    shares()
    throughput()
    memory()
