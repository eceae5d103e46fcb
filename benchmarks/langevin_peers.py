"""Euler–Maruyama by others: torchsde, diffrax, a compiled JAX loop, and loops in place in PyTorch and NumPy.

All integrate dx = −f(x) dt + F(x) dW of a `Case` with the same step and return the final states. A peer prepares a run of
some replicas; `fastest` lets all replicas go through one run, whose operations may use two threads, or one half of them
through each of two runs in threads of their own, whichever is faster.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.timing import medians
from langevin_nn.threads import single_threaded_products

__all__ = ["ALL_PEERS", "PEERS", "POOL", "STEPS", "THREADS", "TIME_STEP", "Case", "fastest", "halves"]

STEPS, TIME_STEP = 1000, 0.01
THREADS = 2
POOL = ThreadPoolExecutor(THREADS)

Run = Callable[[], Any]


@dataclass(frozen=True, eq=False)
class Case:
    """dx = −f(x) dt + F(x) dW.

    f is A x with `rates` A or its diagonal, or x³ − x where there are none; F is `factor`, a matrix or a diagonal, times
    √(1 + x²) in each component where it is `dependent`. Replicas start at 1.
    """

    title: str
    replicas: int
    factor: NDArray[np.float64]
    rates: NDArray[np.float64] | None = None
    dependent: bool = False

    @property
    def dimension(self) -> int:
        """Number of components."""
        return len(self.factor)

    @property
    def size(self) -> int:
        """Replicas × dimension × steps, as many as normal numbers."""
        return self.replicas * self.dimension * STEPS

    @property
    def products(self) -> int:
        """Floating-point operations in products with dense matrices."""
        n_matrices = sum(each is not None and each.ndim == 2 for each in (self.rates, self.factor))
        return 2 * n_matrices * self.dimension * self.size

    def functions(self, convert: Callable[[Any], Any], root: Callable[[Any], Any]) -> tuple[Any, Any]:
        """Return f and F(x) z for arrays of a library, shape (replica, component)."""
        factor, rates = convert(self.factor.T), None if self.rates is None else convert(self.rates.T)

        def drift(x: Any) -> Any:
            if rates is None:
                return x * (x * x - 1)
            return x @ rates if rates.ndim == 2 else rates * x

        def kick(x: Any, z: Any) -> Any:
            if self.dependent:
                return factor * root(1 + x * x) * z
            return z @ factor if factor.ndim == 2 else factor * z

        return drift, kick


def torchsde(case: Case, precision: str, n_replicas: int, index: int) -> Run:
    """Prepare torchsde: the products fused by hand (f_and_g_prod), the Brownian interval told of the step."""
    import torchsde

    warnings.filterwarnings("ignore", module="torchsde.*")
    dtype = getattr(torch, precision)
    drift, kick = case.functions(lambda values: torch.tensor(values, dtype=dtype), torch.sqrt)

    class Equation:
        noise_type = "general" if case.factor.ndim == 2 else "diagonal"
        sde_type = "ito"

        def f_and_g_prod(self, t: Any, y: Any, v: Any) -> Any:
            return -drift(y), kick(y, v)

    end, shape, equation = STEPS * TIME_STEP, (n_replicas, case.dimension), Equation()

    def run() -> torch.Tensor:
        with torch.inference_mode():
            path = torchsde.BrownianInterval(0.0, end, size=shape, dtype=dtype, entropy=index, dt=TIME_STEP)
            times = torch.tensor([0.0, end], dtype=torch.float64)
            start = torch.ones(shape, dtype=dtype)
            return torchsde.sdeint(equation, start, times, bm=path, dt=TIME_STEP, method="euler")[-1]

    return run


@cache
def _jax() -> Any:
    """Load JAX with one device a thread, vectors as wide as they come, and float64."""
    flags = [f"--xla_force_host_platform_device_count={THREADS}", "--xla_cpu_prefer_vector_width=512"]
    os.environ["XLA_FLAGS"] = " ".join([os.environ.get("XLA_FLAGS", ""), *flags]).strip()
    import jax

    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_enable_x64", True)
    return jax


def _on_a_device(function: Callable[..., Any], shape: tuple[int, ...], precision: str, index: int) -> Run:
    """Compile a function of start and key, and run it on the device of a thread."""
    jax = _jax()
    device = jax.devices()[index]
    start = jax.device_put(np.ones(shape, precision), device)
    key = jax.device_put(jax.random.key(index), device)
    compiled = jax.jit(function)
    return lambda: compiled(start, key).block_until_ready()


def diffrax(case: Case, precision: str, n_replicas: int, index: int) -> Run:
    """Prepare diffrax: the Brownian path that remembers nothing, no derivatives, all replicas one array."""
    jax = _jax()
    import diffrax
    import lineax

    jnp = jax.numpy
    drift, kick = case.functions(lambda values: jnp.asarray(values, precision), jnp.sqrt)
    end = STEPS * TIME_STEP
    shape = jax.ShapeDtypeStruct((n_replicas, case.dimension), precision)

    def diffusion(t: Any, y: Any, _: Any) -> Any:
        if case.factor.ndim == 2:
            return lineax.FunctionLinearOperator(lambda z: kick(y, z), shape)
        return lineax.DiagonalLinearOperator(kick(y, jnp.ones_like(y)))

    def solve(start: Any, key: Any) -> Any:
        path = diffrax.UnsafeBrownianPath(shape, key)
        terms = diffrax.MultiTerm(
            diffrax.ODETerm(lambda t, y, _: -drift(y)),
            diffrax.ControlTerm(diffusion, path),
        )
        solution = diffrax.diffeqsolve(
            terms,
            diffrax.Euler(),
            0.0,
            end,
            TIME_STEP,
            start,
            saveat=diffrax.SaveAt(t1=True),
            adjoint=diffrax.ForwardMode(),
            max_steps=2 * STEPS,
            throw=False,
        )
        return solution.ys[0]

    return _on_a_device(solve, shape.shape, precision, index)


def jax_scan(case: Case, precision: str, n_replicas: int, index: int) -> Run:
    """Prepare a loop compiled by JAX: its numbers drawn in each step, four steps unrolled, all replicas one array."""
    jax = _jax()
    jnp = jax.numpy
    drift, kick = case.functions(lambda values: jnp.asarray(values, precision), jnp.sqrt)
    step, root = (jnp.asarray(value, precision) for value in (TIME_STEP, TIME_STEP**0.5))

    def advance(x: Any, key: Any) -> Any:
        z = jax.random.normal(key, x.shape, x.dtype)
        return x - step * drift(x) + root * kick(x, z), None

    def solve(start: Any, key: Any) -> Any:
        return jax.lax.scan(advance, start, jax.random.split(key, STEPS), unroll=4)[0]

    return _on_a_device(solve, (n_replicas, case.dimension), precision, index)


def torch_loop(case: Case, precision: str, n_replicas: int, index: int) -> Run:
    """Prepare a loop in place: constants folded beforehand and spread over all replicas, so that nothing broadcasts."""
    dtype, shape = getattr(torch, precision), (n_replicas, case.dimension)
    root = TIME_STEP**0.5
    generator = torch.Generator().manual_seed(index)
    one, z, y = torch.ones(shape, dtype=dtype), torch.empty(shape, dtype=dtype), torch.empty(shape, dtype=dtype)
    spread = one * torch.tensor(case.factor[:, 0] if case.factor.ndim == 2 else case.factor, dtype=dtype) * root
    kept = one * (1 + TIME_STEP)
    if case.rates is not None and case.rates.ndim == 1:
        kept = one * torch.tensor(1 - TIME_STEP * case.rates, dtype=dtype)

    def dense(x: torch.Tensor) -> torch.Tensor:
        turn = torch.tensor((np.eye(case.dimension) - TIME_STEP * case.rates).T, dtype=dtype)
        push, other = torch.tensor(root * case.factor.T, dtype=dtype), torch.empty_like(x)
        for _ in range(STEPS):
            z.normal_(generator=generator)
            torch.mm(x, turn, out=other).addmm_(z, push)
            x, other = other, x
        return x

    def diagonal(x: torch.Tensor) -> torch.Tensor:
        for _ in range(STEPS):
            z.normal_(generator=generator)
            if case.dependent:
                torch.addcmul(one, x, x, out=y).sqrt_().mul_(spread)
                x.mul_(kept).addcmul_(y, z)
            elif case.rates is None:
                torch.addcmul(kept, x, x, value=-TIME_STEP, out=y)
                x.mul_(y).addcmul_(spread, z)
            else:
                x.mul_(kept).addcmul_(spread, z)
        return x

    def run() -> torch.Tensor:
        with torch.inference_mode():
            return (dense if case.factor.ndim == 2 else diagonal)(one.clone())

    return run


def numpy_loop(case: Case, precision: str, n_replicas: int, index: int) -> Run:
    """Prepare the same loop in NumPy, with its fastest generator."""
    shape, root = (n_replicas, case.dimension), TIME_STEP**0.5
    generator = np.random.Generator(np.random.SFC64(index))
    start, z, y = np.ones(shape, precision), np.empty(shape, precision), np.empty(shape, precision)
    dtype = start.dtype.type
    spread = start * (root * (case.factor[:, 0] if case.factor.ndim == 2 else case.factor)).astype(precision)
    kept = start * dtype(1 + TIME_STEP)
    if case.rates is not None and case.rates.ndim == 1:
        kept = start * (1 - TIME_STEP * case.rates).astype(precision)

    def dense(x: NDArray[Any]) -> NDArray[Any]:
        turn = np.ascontiguousarray((np.eye(case.dimension) - TIME_STEP * case.rates).T, precision)
        push = np.ascontiguousarray(root * case.factor.T, precision)
        for _ in range(STEPS):
            generator.standard_normal(out=z, dtype=dtype)
            np.dot(x, turn, out=y)
            np.dot(z, push, out=x)
            np.add(x, y, out=x)
        return x

    def diagonal(x: NDArray[Any]) -> NDArray[Any]:
        for _ in range(STEPS):
            generator.standard_normal(out=z, dtype=dtype)
            np.multiply(z, spread, out=z)
            if case.dependent:
                np.multiply(x, x, out=y)
                np.add(y, dtype(1), out=y)
                np.sqrt(y, out=y)
                np.multiply(z, y, out=z)
                np.multiply(x, kept, out=x)
            elif case.rates is None:
                np.multiply(x, x, out=y)
                np.multiply(y, dtype(-TIME_STEP), out=y)
                np.add(y, dtype(1 + TIME_STEP), out=y)
                np.multiply(x, y, out=x)
            else:
                np.multiply(x, kept, out=x)
            np.add(x, z, out=x)
        return x

    return lambda: (dense if case.factor.ndim == 2 else diagonal)(start.copy())


# Each with the package that it needs.
_PREPARED: dict[str, tuple[str, Callable[[Case, str, int, int], Run]]] = {
    "torchsde": ("torchsde", torchsde),
    "diffrax": ("diffrax", diffrax),
    "jitted jax.lax.scan": ("jax", jax_scan),
    "torch loop in place": ("torch", torch_loop),
    "NumPy loop in place": ("numpy", numpy_loop),
}
ALL_PEERS = tuple(_PREPARED)
PEERS = {name: prepare for name, (package, prepare) in _PREPARED.items() if find_spec(package)}


def halves(runs: list[Run]) -> Run:
    """Run things at the same time, each in a thread of its own and with one thread in each operation."""

    def together() -> list[Any]:
        with single_threaded_products():
            return list(POOL.map(lambda run: run(), runs))

    return together


def fastest(name: str, case: Case, precision: str) -> tuple[Run, bool]:
    """Return a peer's run of a case, and whether it is faster in two halves."""
    prepare = PEERS[name]
    whole = prepare(case, precision, case.replicas, 0)
    split = halves([prepare(case, precision, case.replicas // THREADS, index) for index in range(THREADS)])
    seconds = medians({"whole": whole, "split": split}, rounds=1)
    better = seconds["split"] < seconds["whole"]
    return (split if better else whole), better
