"""A user's own potential: a plain function of a point."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from langevin_nn.checks import point as checked_point
from langevin_nn.checks import whole_number
from langevin_nn.errors import ConfigurationError
from langevin_nn.evaluation import evaluate
from langevin_nn.formulas import MATRIX, POINT, POTENTIAL, FieldFormula, NoiseFormula
from langevin_nn.landscape.base import MomentLandscape
from langevin_nn.provenance import described_function
from langevin_nn.readable import brief
from langevin_nn.seeds import Seeds

__all__ = ["PotentialLandscape", "try_out"]

MOST_PARAMETERS, MOST_COLUMNS = 10_000, 10_000  # matrices of these sizes are made

# Central differences of step 1e-5 agree with a derivative to about 1e-10 of the scale of the potential.
_STEP, _AGREEMENT = 1e-5, 1e-5


def try_out(
    name: str, function: Callable[[Any, Any], None], point: NDArray[np.float64], shape: tuple[int, ...]
) -> None:
    """Call a user's function once as plain Python, which minds the bounds of arrays: where it runs, nothing does.

    Parameters
    ----------
    name : str
        Of the argument.
    function : callable
        ``function(x, out)``.
    point : ndarray, shape (parameter,)
        Where.
    shape : tuple of int
        Of what it writes.

    Raises
    ------
    ConfigurationError
        If it fails there, or leaves out a number.
    """
    out = np.full(shape, np.nan)
    plain = getattr(function, "py_func", function)
    try:
        with np.errstate(all="ignore"):
            plain(point.copy(), out)
    except Exception as error:
        raise ConfigurationError(
            f"{name}(x, out) fails at {point} with out of shape {shape} ({type(error).__name__}: {error}): expected it to "
            "write its result into out; correct it"
        ) from error

    def written(x: NDArray[np.float64]) -> NDArray[np.float64]:
        result = np.zeros(shape)
        plain(x, result)
        return result

    _refuse_impure(f"{name}(x, out)", written, point)
    if np.isnan(out).any():
        raise ConfigurationError(
            f"{name}(x, out) left numbers of out, shape {shape}, unwritten or NaN at {point}: expected all of them, since "
            "what is left out moves replicas too; write zeros where there is nothing"
        )


def _refuse_impure(name: str, function: Callable[[NDArray[np.float64]], Any], point: NDArray[np.float64]) -> None:
    """Raise where a function changes the point that it is given, or gives another result when it is asked again."""
    moved = point + 0.1 * np.random.default_rng(0).standard_normal(len(point))
    given = moved.copy()
    try:
        with np.errstate(all="ignore"):
            first, again = function(given), function(moved.copy())
    except Exception:  # beyond its domain, which the start is not
        return
    if not np.array_equal(given, moved):
        raise ConfigurationError(
            f"{name} changes the point x that it is given, from {moved} to {given}: expected x to stay as it is, since the "
            "integrators go on from it; work on a copy, x.copy()"
        )
    if not np.array_equal(first, again, equal_nan=True):
        raise ConfigurationError(
            f"{name} gives {first} and then {again} at the same point: expected a function of the point alone; randomness "
            "belongs into the noise of the process"
        )


class PotentialLandscape(MomentLandscape):
    """L(x) from a plain function of one point.

    Hessian products are central differences of the gradient: about nine digits in float64; six, of the scale of the
    potential, where the gradient is itself made of differences.

    Parameters
    ----------
    potential : callable
        ``potential(x)`` returns L at one point x, shape (parameter,). Plain Python that Numba understands.
    n_parameters : int
        Dimensions of the space.
    gradient : callable, optional
        ``gradient(x, out)`` writes ∇L at x into out. Where it is missing, central differences of the potential are taken:
        ten digits, at 2P potentials a step.
    amplitude : callable, optional
        ``amplitude(x, out)`` writes a factor F of the landscape's own noise covariance, or its diagonal; see
        `langevin_nn.noise.LandscapeNoise`. No noise unless said.
    rank : int, optional
        Columns of that factor; a diagonal unless said.
    start : array, shape (parameter,), optional
        Where replicas start; at the origin unless said.
    dtype : torch.dtype, optional
        Precision of the weights: ``torch.float64`` or ``torch.float32``.

    Raises
    ------
    ConfigurationError
        If a function is none that Numba understands, or the gradient is not that of the potential.

    Examples
    --------
    >>> landscape = PotentialLandscape(lambda x: x[0] ** 4 / 4 - x[0] ** 2 / 2, 1)
    >>> landscape.gradient(torch.tensor([[2.0]], dtype=torch.float64))
    tensor([[6.0000]], dtype=torch.float64)
    """

    def __init__(
        self,
        potential: Callable[[Any], Any],
        n_parameters: Any,
        *,
        gradient: Callable[[Any, Any], None] | None = None,
        amplitude: Callable[[Any, Any], None] | None = None,
        rank: Any = None,
        start: Any = None,
        dtype: torch.dtype = torch.float64,
    ) -> None:
        expected = f"a whole number from 1 to {MOST_PARAMETERS:,}, the dimensions of the space"
        self.n_parameters = whole_number("n_parameters", n_parameters, expected, least=1, most=MOST_PARAMETERS)
        if dtype not in (torch.float64, torch.float32):
            raise ConfigurationError(
                f"dtype={dtype}: expected torch.float64 or torch.float32, which the integrators know"
            )
        for name, function in (("potential", potential), ("gradient", gradient), ("amplitude", amplitude)):
            if function is not None and not callable(function):
                raise ConfigurationError(f"{name} is of type {type(function).__name__}: expected a function of a point")
        self.potential, self._gradient, self._amplitude, self._rank = potential, gradient, amplitude, rank
        self.dtype, self.device = dtype, torch.device("cpu")
        self.start = np.zeros(self.n_parameters) if start is None else checked_point("start", start, self.n_parameters)
        if rank is not None:
            expected = "a whole number from 1, the columns of F; leave it out for a diagonal"
            self._rank = whole_number("rank", rank, expected, least=1, most=MOST_COLUMNS)
        self._check_potential()
        if gradient is not None:
            try_out("gradient", gradient, self.start, (self.n_parameters,))
            self._check_gradient()
        if amplitude is not None:
            shape = (self.n_parameters,) if rank is None else (self.n_parameters, int(rank))
            try_out("amplitude", amplitude, self.start, shape)

    def _said(self) -> Iterator[str]:
        yield brief(getattr(self.potential, "py_func", self.potential))
        yield from super()._said()

    def _check_potential(self) -> None:
        """Raise unless the potential gives a number where replicas start."""
        try:
            value = self._value(self.start)
        except Exception as error:
            raise ConfigurationError(
                f"potential(x) fails at the start {self.start} ({type(error).__name__}: {error}): expected a number; correct "
                "it, or choose another start"
            ) from error
        if not np.isfinite(value):
            raise ConfigurationError(
                f"potential(x) is {value} at the start {self.start}: expected a finite number, since replicas begin there"
            )
        _refuse_impure("potential(x)", getattr(self.potential, "py_func", self.potential), self.start)

    def _check_gradient(self) -> None:
        """Raise unless the gradient is what differences of the potential say, at the start and around it."""
        generator = np.random.default_rng(0)
        points = self.start + np.vstack(
            [np.zeros(self.n_parameters), generator.standard_normal((3, self.n_parameters))]
        )
        for point, slope in zip(points, self._evaluated(points), strict=True):
            moves = _STEP * np.eye(self.n_parameters)
            expected = np.array(
                [(self._value(point + move) - self._value(point - move)) / (2 * _STEP) for move in moves]
            )
            if not np.isfinite(expected).all():
                continue  # beyond the domain of the potential
            off = np.abs(slope - expected).max()
            rounding = 1e-15 / _STEP * abs(self._value(point))
            if not off <= _AGREEMENT * max(1.0, float(np.abs(expected).max())) + rounding:
                raise ConfigurationError(
                    f"the gradient is {slope} at {point}, where differences of the potential are {expected}: expected them "
                    "to agree, since the dynamics follow the gradient; correct it, or leave it out"
                )

    def _value(self, point: NDArray[np.float64]) -> float:
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
            return float(self.potential(point))

    def _evaluated(self, points: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.asarray(evaluate(self.gradient_formula(), points))

    @property
    def description(self) -> dict[str, object]:
        """What a file says of the landscape on which a process ran."""
        functions = {"potential": self.potential, "gradient": self._gradient, "amplitude": self._amplitude}
        given = {name: described_function(each) for name, each in functions.items() if each is not None}
        return {**given, "n_parameters": self.n_parameters, "start": self.start.tolist(), "dtype": str(self.dtype)}

    def initial_weights(self, replicas: tuple[int, ...], seeds: Seeds) -> Tensor:  # noqa: D102
        return torch.as_tensor(np.tile(self.start, (len(replicas), 1))).to(self.dtype)

    def loss(self, weights: Tensor) -> Tensor:  # noqa: D102
        return torch.tensor([self._value(point) for point in weights.double().numpy()], dtype=self.dtype)

    def gradient(self, weights: Tensor) -> Tensor:  # noqa: D102
        return torch.as_tensor(self._evaluated(weights.double().numpy())).to(self.dtype)

    def hessian_product(self, weights: Tensor, vectors: Tensor) -> Tensor:  # noqa: D102
        points, along = weights.double().numpy(), vectors.double().numpy()
        sizes = np.linalg.norm(along, axis=1, keepdims=True)
        unit = along / np.where(sizes > 0, sizes, 1)
        change = (self._evaluated(points + _STEP * unit) - self._evaluated(points - _STEP * unit)) / (2 * _STEP)
        return torch.as_tensor(change * sizes).to(self.dtype)

    def noise_factor(self, weights: Tensor | None = None) -> Tensor:  # noqa: D102
        noise = self.noise_formula()
        if noise.rank == 0:
            return torch.zeros(self.n_parameters, 1, dtype=torch.float64)
        if weights is None:
            raise ConfigurationError(
                "the noise of this landscape depends on the weights: expected a point; give weights"
            )
        rows = self.n_parameters if noise.is_diagonal else self.n_parameters * noise.rank
        values = torch.as_tensor(evaluate(noise.field, weights.double().numpy()[None], rows)[0])
        return torch.diag(values) if noise.is_diagonal else values.reshape(self.n_parameters, noise.rank)

    def gradient_formula(self) -> FieldFormula:  # noqa: D102
        if self._gradient is None:
            return FieldFormula(POTENTIAL, self.potential)
        return FieldFormula(POINT, self._gradient)

    def noise_formula(self, batch_size: int | None = None, replacement: bool = False) -> NoiseFormula:  # noqa: D102
        if self._amplitude is None:
            return NoiseFormula.silent()
        kind = POINT if self._rank is None else MATRIX
        return NoiseFormula.dependent(FieldFormula(kind, self._amplitude), self.n_parameters, self._rank)

    def boltzmann_density(self, temperature: float, *axes: Any) -> NDArray[np.float64]:
        """Return exp(−L/T)/Z on a grid, for one or two dimensions.

        Parameters
        ----------
        temperature : float
            T, in units of the loss.
        *axes : array
            Equidistant points along each dimension, wide enough to hold the law.

        Returns
        -------
        ndarray, one dimension an axis
            Normalised by the trapezoidal rule.

        Raises
        ------
        ConfigurationError
            If there are not as many axes as dimensions.
        """
        if len(axes) != self.n_parameters:
            raise ConfigurationError(f"{len(axes)} axes came: expected {self.n_parameters}, one a dimension")
        grids = np.stack([each.ravel() for each in np.meshgrid(*axes, indexing="ij")], axis=1)
        energies = np.array([self._value(point) for point in grids]).reshape([len(axis) for axis in axes])
        density = np.exp(-(energies - energies.min()) / temperature)
        total = density
        for axis in reversed(axes):
            total = np.trapezoid(total, axis, axis=-1)
        return np.asarray(density / total)

    def hessian_at(self, point: Any) -> NDArray[np.float64]:
        """Return ∇²L at one point, by differences of the gradient.

        Parameters
        ----------
        point : array, shape (parameter,)
            Where.

        Returns
        -------
        ndarray, shape (parameter, parameter)
            Symmetric.
        """
        here = torch.as_tensor(np.array(point, dtype=np.float64)).expand(self.n_parameters, -1)
        rows = self.hessian_product(here, torch.eye(self.n_parameters, dtype=torch.float64)).double().numpy()
        return np.asarray((rows + rows.T) / 2)

    def kramers_rate(self, minimum: Any, saddle: Any, temperature: float) -> float:
        """Return the rate of escape from a minimum over a saddle under thermal noise, for barriers well above T.

        k = (|λ|/2π) (det H_min / |det H_saddle|)^½ exp(−ΔL/T), λ the negative eigenvalue at the saddle: Kramers in one
        dimension, Langer in several (Hänggi, Talkner & Borkovec 1990, doi 10.1103/RevModPhys.62.251).

        Parameters
        ----------
        minimum, saddle : array, shape (parameter,)
            Where the gradient vanishes.
        temperature : float
            T, in units of the loss.

        Returns
        -------
        float
            In units of 1/time.

        Raises
        ------
        ConfigurationError
            If the points are not a minimum and a saddle of first order.
        """
        bottom, top = (np.linalg.eigvalsh(self.hessian_at(point)) for point in (minimum, saddle))
        if bottom[0] <= 0 or top[0] >= 0 or (top[1:] <= 0).any():
            raise ConfigurationError(
                f"curvatures {bottom} at the minimum and {top} at the saddle: expected all positive at the first and one "
                "negative at the second, since escape leads over a saddle; give such points"
            )
        barrier = self._value(np.asarray(saddle, float)) - self._value(np.asarray(minimum, float))
        prefactor = abs(top[0]) / (2 * np.pi) * np.sqrt(np.prod(bottom) / abs(np.prod(top)))
        return float(prefactor * np.exp(-barrier / temperature))
