"""Potentials of few dimensions whose wells, barriers and valleys are known in closed form."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from langevin_nn.errors import ConfigurationError
from langevin_nn.formulas import LANES, TILE, FieldFormula, NoiseFormula
from langevin_nn.landscape import PotentialLandscape

__all__ = ["Formula", "TwoValleys", "degenerate_valley", "double_well", "mueller_brown", "rugged", "two_valleys"]


class Formula(PotentialLandscape):
    """A potential with a formula of its gradient over a tile of replicas.

    Parameters
    ----------
    potential : callable
        ``potential(x)`` returns L at one point.
    field : callable
        ``field(x, constants, out)`` writes the gradient, see `langevin_nn.formulas`.
    constants : sequence of float
        What the field needs.
    n_parameters : int
        Dimensions of the space.
    minima, saddles : sequence of points
        Where the gradient vanishes, as far as it is known in closed form.
    start : array, shape (parameter,)
        Where replicas start.
    dtype : torch.dtype
        Precision of the weights.

    Attributes
    ----------
    minima, saddles : ndarray, shape (point, parameter)
        Where the gradient vanishes.
    """

    def __init__(
        self,
        potential: Callable[[Any], Any],
        field: Callable[..., Any],
        constants: Any,
        n_parameters: int,
        *,
        minima: Any = (),
        saddles: Any = (),
        start: Any = None,
        dtype: torch.dtype = torch.float64,
    ) -> None:
        self.minima, self.saddles = (np.array(each, float).reshape(-1, n_parameters) for each in (minima, saddles))
        self.constants = np.array(constants, dtype=np.float64)
        self._field = field
        if start is None:
            start = self.minima[0] if len(self.minima) else None
        super().__init__(potential, n_parameters, start=start, dtype=dtype)
        self._check_gradient()

    @property
    def description(self) -> dict[str, object]:
        """What a file says of the landscape on which a process ran."""
        return {**super().description, "constants": self.constants.tolist()}

    def gradient_formula(self) -> FieldFormula:  # noqa: D102
        return FieldFormula(TILE, self._field, self.constants)


def _positive(**values: float) -> None:
    for name, value in values.items():
        if not 0 < value < float("inf"):
            raise ConfigurationError(f"{name}={value!r}: expected a positive, finite number")


def _double_well(x: Any, constants: Any, out: Any) -> None:
    scale = x.dtype.type(4) * constants[0]
    for lane in range(LANES):
        here = x[0, lane]
        out[0, lane] = scale * here * (here * here - x.dtype.type(1))


def double_well(barrier: float = 1.0, *, dtype: torch.dtype = torch.float64) -> Formula:
    """Return L = b (x² − 1)²: minima of curvature 8b at ±1, a barrier of height b and curvature −4b at 0.

    Kramers' rate is √32 b/(2π) e^(−b/T); see Hänggi, Talkner & Borkovec (1990, doi 10.1103/RevModPhys.62.251).

    Parameters
    ----------
    barrier : float, optional
        b, in units of the loss.
    dtype : torch.dtype, optional
        Precision of the weights.

    Returns
    -------
    Formula
        One dimension; replicas start at −1.

    Examples
    --------
    >>> landscape = double_well(2.0)
    >>> round(landscape.kramers_rate(landscape.minima[0], landscape.saddles[0], temperature=0.5), 6)
    0.03298
    >>> round(float(32**0.5 * 2 / (2 * np.pi) * np.exp(-4)), 6)
    0.03298
    """
    _positive(barrier=barrier)
    return Formula(
        lambda x: barrier * (x[0] ** 2 - 1) ** 2,
        _double_well,
        [barrier],
        1,
        minima=[[-1.0], [1.0]],
        saddles=[[0.0]],
        dtype=dtype,
    )


_MUELLER_BROWN = np.array(
    [
        [-200.0, -1.0, 0.0, -10.0, 1.0, 0.0],
        [-100.0, -1.0, 0.0, -10.0, 0.0, 0.5],
        [-170.0, -6.5, 11.0, -6.5, -0.5, 1.5],
        [15.0, 0.7, 0.6, 0.7, -1.0, 1.0],
    ]
)


def _mueller_brown_gradient(x: Any, constants: Any, out: Any) -> None:
    for lane in range(LANES):
        out[0, lane] = x.dtype.type(0)
        out[1, lane] = x.dtype.type(0)
        for term in range(constants.shape[0] // 6):
            height, a, b, c, x0, y0 = constants[6 * term : 6 * term + 6]
            u, v = x[0, lane] - x0, x[1, lane] - y0
            value = height * np.exp(a * u * u + b * u * v + c * v * v)
            out[0, lane] += value * (2 * a * u + b * v)
            out[1, lane] += value * (b * u + 2 * c * v)


def mueller_brown(scale: float = 1.0, *, dtype: torch.dtype = torch.float64) -> Formula:
    """Return the potential of Müller & Brown (1979, doi 10.1007/BF00547608): three minima along a bent path.

    Parameters
    ----------
    scale : float, optional
        Multiplies the potential, whose depths are 146.7, 108.2 and 80.8.
    dtype : torch.dtype, optional
        Precision of the weights.

    Returns
    -------
    Formula
        Two dimensions; minima and saddles to ten digits, by Newton's method; replicas start at the deepest minimum.

    Examples
    --------
    >>> landscape = mueller_brown()
    >>> landscape.loss(torch.as_tensor(landscape.minima)).numpy().round(3)
    array([-146.7  , -108.167,  -80.768])
    """
    _positive(scale=scale)

    def potential(x: Any) -> Any:
        height, a, b, c, x0, y0 = _MUELLER_BROWN.T
        u, v = x[0] - x0, x[1] - y0
        return scale * np.sum(height * np.exp(a * u**2 + b * u * v + c * v**2))

    constants = _MUELLER_BROWN.copy()
    constants[:, 0] *= scale
    return Formula(
        potential,
        _mueller_brown_gradient,
        constants.ravel(),
        2,
        minima=[[-0.5582236346, 1.4417258418], [0.6234994049, 0.0280377585], [-0.0500108230, 0.4666941049]],
        saddles=[[-0.8220015587, 0.6243128028], [0.2124865820, 0.2929883251]],
        dtype=dtype,
    )


def _rugged(x: Any, constants: Any, out: Any) -> None:
    stiffness, height, number = constants[0], constants[1], constants[2]
    for i in range(x.shape[0]):
        for lane in range(LANES):
            out[i, lane] = stiffness * x[i, lane] - height * number * np.sin(number * x[i, lane])


def rugged(
    n_parameters: int = 1,
    *,
    stiffness: float = 1.0,
    roughness: float = 0.2,
    wave_number: float = 20.0,
    dtype: torch.dtype = torch.float64,
) -> Formula:
    """Return L = Σ_i [½ k x_i² + ε cos(q x_i)]: a bowl with ripples, over which diffusion is slowed down.

    For ripples much shorter than the bowl, the coarse dynamics diffuse with D/I₀(ε/T)², I₀ a Bessel function (Zwanzig
    1988, doi 10.1073/pnas.85.7.2029).

    Parameters
    ----------
    n_parameters : int, optional
        Dimensions, all alike.
    stiffness : float, optional
        k of the bowl.
    roughness : float, optional
        ε, the height of the ripples.
    wave_number : float, optional
        q of the ripples.
    dtype : torch.dtype, optional
        Precision of the weights.

    Returns
    -------
    Formula
        Replicas start at the origin, the top of a ripple.
    """
    _positive(stiffness=stiffness, roughness=roughness, wave_number=wave_number)

    def potential(x: Any) -> Any:
        return np.sum(0.5 * stiffness * x**2 + roughness * np.cos(wave_number * x))

    return Formula(potential, _rugged, [stiffness, roughness, wave_number], n_parameters, dtype=dtype)


def _degenerate_valley(x: Any, constants: Any, out: Any) -> None:
    mean, variation, number = constants[0], constants[1], constants[2]
    half, one = x.dtype.type(0.5), x.dtype.type(1)
    for lane in range(LANES):
        squared = x.dtype.type(0)
        for i in range(1, x.shape[0]):
            squared += x[i, lane] * x[i, lane]
        curvature = mean * (one + variation * np.cos(number * x[0, lane]))
        out[0, lane] = -half * mean * variation * number * np.sin(number * x[0, lane]) * squared
        for i in range(1, x.shape[0]):
            out[i, lane] = curvature * x[i, lane]


def degenerate_valley(
    n_parameters: int = 2,
    *,
    curvature: float = 1.0,
    variation: float = 0.8,
    wave_number: float = 1.0,
    dtype: torch.dtype = torch.float64,
) -> Formula:
    """Return L = ½ κ(x₁) Σ_{i>1} x_i², κ = κ₀ (1 + v cos q x₁): a valley of zero loss whose flatness varies along it.

    Loss alone prefers no place along the valley. Thermal noise does: its law along the valley is κ^(−(P − 1)/2), exactly,
    so that flat places are where it is found.

    Parameters
    ----------
    n_parameters : int, optional
        Dimensions, from 2.
    curvature : float, optional
        κ₀.
    variation : float, optional
        v, from 0 to below 1.
    wave_number : float, optional
        q.
    dtype : torch.dtype, optional
        Precision of the weights.

    Returns
    -------
    Formula
        Replicas start at the origin, the steepest place of the valley.

    Raises
    ------
    ConfigurationError
        If there is no valley.
    """
    _positive(curvature=curvature, wave_number=wave_number)
    if n_parameters < 2 or not 0 <= variation < 1:
        raise ConfigurationError(
            f"n_parameters={n_parameters} and variation={variation} came: expected at least 2 dimensions and a variation "
            "from 0 to below 1, since a valley has walls everywhere"
        )

    def potential(x: Any) -> Any:
        return 0.5 * curvature * (1 + variation * np.cos(wave_number * x[0])) * np.sum(x[1:] ** 2)

    constants = [curvature, variation, wave_number]
    return Formula(potential, _degenerate_valley, constants, n_parameters, dtype=dtype)


def _two_valleys(x: Any, constants: Any, out: Any) -> None:
    height, mean, skew = constants[0], constants[1], constants[2]
    one, four, eight = x.dtype.type(1), x.dtype.type(4), x.dtype.type(8)
    difference = mean * mean - skew * skew
    for lane in range(LANES):
        r = x[0, lane] + skew
        y = (r * mean - skew * np.sqrt(r * r + difference)) / difference
        length = np.sqrt(one + y * y)
        slope = one / (mean + skew * y / length)
        bend = -slope * slope * slope * skew / (length * length * length)
        squared = x.dtype.type(0)
        for i in range(1, x.shape[0]):
            squared += x[i, lane] * x[i, lane]
        out[0, lane] = -four * height * y * (one - y * y) * slope + eight * height * slope * bend * squared
        for i in range(1, x.shape[0]):
            out[i, lane] = eight * height * slope * slope * x[i, lane]


def _two_valleys_amplitude(x: Any, constants: Any, out: Any) -> None:
    scale, mean, skew = constants[0], constants[1], constants[2]
    one = x.dtype.type(1)
    difference = mean * mean - skew * skew
    for lane in range(LANES):
        r = x[0, lane] + skew
        y = (r * mean - skew * np.sqrt(r * r + difference)) / difference
        slope = one / (mean + skew * y / np.sqrt(one + y * y))
        for i in range(x.shape[0]):
            out[i, lane] = scale * slope


class TwoValleys(Formula):
    """L = h (1 − y²)² + ½ κ(x₁) Σ_{i>1} x_i², with x₁ = m y + q (√(1 + y²) − 1) and κ = 8h (dy/dx₁)².

    Both valleys are at depth 0, under a barrier of height h at the origin; all curvatures at the bottom of a valley are
    8h/width². Its own noise is proportional to that curvature, C = c κ(x₁) 1, as the noise of minibatches is near an
    interpolating minimum (Wu et al. 2022, arXiv:2207.02628).

    Parameters
    ----------
    n_parameters : int, optional
        Dimensions.
    narrow, wide : float, optional
        Widths of the valleys, dx₁/dy at their bottoms.
    barrier : float, optional
        h.
    noise : float, optional
        c.
    dtype : torch.dtype, optional
        Precision of the weights.

    Raises
    ------
    ConfigurationError
        If widths are not positive or too different (beyond 5.8).

    Examples
    --------
    >>> landscape = TwoValleys(narrow=0.5, wide=1.0)
    >>> landscape.curvature(landscape.minima[:, 0])  # 8h/width²
    array([32.,  8.])
    >>> landscape.loss(torch.as_tensor(landscape.minima)).abs().max() < 1e-25
    tensor(True)
    """

    def __init__(
        self,
        n_parameters: int = 2,
        *,
        narrow: float = 0.6,
        wide: float = 1.2,
        barrier: float = 1.0,
        noise: float = 1.0,
        dtype: torch.dtype = torch.float64,
    ) -> None:
        _positive(narrow=narrow, wide=wide, barrier=barrier, noise=noise)
        self.narrow, self.wide, self.barrier, self.noise = narrow, wide, barrier, noise
        self.mean, self.skew = (narrow + wide) / 2, (wide - narrow) / np.sqrt(2)
        if abs(self.skew) >= self.mean:
            raise ConfigurationError(
                f"widths {narrow} and {wide} came: expected a ratio below {(np.sqrt(2) + 1) / (np.sqrt(2) - 1):.1f}, beyond "
                "which the path between the valleys folds over"
            )

        def potential(x: Any) -> Any:
            y = self.valley_coordinate(x[0])
            return barrier * (1 - y**2) ** 2 + 0.5 * self.curvature(x[0]) * np.sum(x[1:] ** 2)

        bottoms = np.zeros((2, n_parameters))
        bottoms[:, 0] = self.position(np.array([-1.0, 1.0]))
        super().__init__(
            potential,
            _two_valleys,
            [barrier, self.mean, self.skew],
            n_parameters,
            minima=bottoms,
            saddles=np.zeros((1, n_parameters)),
            dtype=dtype,
        )

    def position(self, coordinate: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return x₁ at y.

        Parameters
        ----------
        coordinate : ndarray
            y: −1 at the bottom of the narrow valley, 0 at the barrier, 1 at the bottom of the wide one.

        Returns
        -------
        ndarray
            x₁ = m y + q (√(1 + y²) − 1).
        """
        return np.asarray(self.mean * coordinate + self.skew * (np.sqrt(1 + np.square(coordinate)) - 1))

    def valley_coordinate(self, position: Any) -> Any:
        """Return y at x₁.

        Parameters
        ----------
        position : ndarray
            x₁.

        Returns
        -------
        ndarray
            The inverse of `position`.
        """
        r, difference = position + self.skew, self.mean**2 - self.skew**2
        return (r * self.mean - self.skew * np.sqrt(r**2 + difference)) / difference

    def curvature(self, position: Any) -> Any:
        """Return κ at x₁, the curvature across the valley; at the bottoms that along it, too.

        Parameters
        ----------
        position : ndarray
            x₁.

        Returns
        -------
        ndarray
            8h (dy/dx₁)².
        """
        y = self.valley_coordinate(position)
        return 8 * self.barrier / (self.mean + self.skew * y / np.sqrt(1 + y**2)) ** 2

    def noise_formula(self, batch_size: int | None = None, replacement: bool = False) -> NoiseFormula:  # noqa: D102
        constants = np.array([np.sqrt(8 * self.barrier * self.noise), self.mean, self.skew])
        field = FieldFormula(TILE, _two_valleys_amplitude, constants)
        return NoiseFormula.dependent(field, self.n_parameters, None)


def two_valleys(n_parameters: int = 2, **options: Any) -> TwoValleys:
    """Return two valleys of equal depth and unequal width, with noise proportional to curvature.

    Parameters
    ----------
    n_parameters : int, optional
        Dimensions.
    **options : object
        Of `TwoValleys`.

    Returns
    -------
    TwoValleys
        Replicas start at the bottom of the narrow valley.
    """
    return TwoValleys(n_parameters, **options)
