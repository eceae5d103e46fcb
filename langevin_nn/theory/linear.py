"""Linear systems dx = −A x dt + F dW with Q = F Fᵀ: stationary law, probability current, entropy production."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.linalg import expm, matrix_balance, solve_continuous_lyapunov, solve_discrete_lyapunov

from langevin_nn.checks import covariance, number, numbers
from langevin_nn.errors import ConfigurationError

__all__ = ["circulation", "entropy_production_rate", "stationary_covariance"]

Floats = NDArray[np.float64]

# Eigenvalues of a correlation matrix that are neither rounding nor known in spite of it.
_DOUBTFUL = 1e-13, 1e-11


@dataclass(frozen=True)
class _Law:
    """A linear system, of the equation or of its plain steps."""

    matrix: Floats
    noise: Floats
    time_step: float | None

    @classmethod
    def of(cls, matrix: ArrayLike, noise: ArrayLike, time_step: float | None) -> _Law:
        """Return a system that has a stationary law, or raise."""
        expected = "a square matrix (parameter, parameter) of finite numbers, by which displacements decay"
        a = numbers("matrix", matrix, expected)
        if a.ndim != 2 or a.shape[0] != a.shape[1] or not a.size:
            raise ConfigurationError(f"matrix has shape {a.shape}: expected {expected}")
        q = covariance("noise", noise, len(a))
        rates = np.linalg.eigvals(a)
        if time_step is None:
            slowest = float(rates.real.min())
            if slowest <= 0:
                raise ConfigurationError(
                    f"an eigenvalue of the matrix has the real part {slowest:g}: expected all positive, since there is no "
                    "stationary law where something does not decay"
                )
            return cls(a, q, None)
        step = number("time_step", time_step, "a positive number Δt, the time of one step", above=0)
        largest = float(np.abs(1 - step * rates).max())
        if largest >= 1:
            raise ConfigurationError(
                f"a step of time_step={step:g} multiplies a displacement by {largest:g}: expected less than 1, since "
                "there is no stationary law otherwise; take a smaller one"
            )
        return cls(a, q, step)

    def covariance(self) -> Floats:
        """Return S; of coordinates of very different sizes each in a unit of its own, so that none drowns in rounding."""
        law, units = self, np.ones(len(self.matrix))
        found: Floats | None = None
        own = matrix_balance(self.matrix, permute=False, separate=True)[1][0]
        for _ in range(8):
            if own.max() > 1024 * own.min():
                units = units * own
                law = _Law(law.matrix * own / own[:, None], law.noise / own / own[:, None], law.time_step)
            elif found is not None:
                break
            found = law._solution()
            variance = np.abs(np.diag(found))
            own = np.exp2(np.round(np.log2(np.where(variance > 0, variance, 1)) / 2))
        assert found is not None
        return np.asarray(found * units * units[:, None])

    def _solution(self) -> Floats:
        if self.time_step is None:
            return np.asarray(solve_continuous_lyapunov(self.matrix, self.noise))
        return np.asarray(solve_discrete_lyapunov(self._step(), self.time_step * self.noise))

    def moving(self) -> _Law:
        """Return the law of the coordinates that noise reaches, through others or by itself; the others stay at 0."""
        reached = np.diag(self.noise) > 0
        for _ in range(len(reached)):
            reached = reached | ((self.matrix != 0) & reached).any(1)
        return _Law(self.matrix[np.ix_(reached, reached)], self.noise[np.ix_(reached, reached)], self.time_step)

    def _step(self) -> Floats:
        assert self.time_step is not None
        return np.eye(len(self.matrix)) - self.time_step * self.matrix

    def over(self, record_interval: float | None) -> tuple[Floats, float] | None:
        """Return by what displacements are multiplied from record to record, and the time between; None for dense records."""
        if record_interval is None:
            return None if self.time_step is None else (self._step(), self.time_step)
        interval = number("record_interval", record_interval, "a positive time between two records", above=0)
        if self.time_step is None:
            return np.asarray(expm(-interval * self.matrix)), interval
        count = round(interval / self.time_step)
        if count < 1 or abs(count * self.time_step - interval) > 1e-9 * interval:
            raise ConfigurationError(
                f"record_interval={interval:g} with time_step={self.time_step:g}: expected a whole number of steps from 1, "
                "between which there is nothing to record"
            )
        return np.linalg.matrix_power(self._step(), count), interval


def stationary_covariance(matrix: ArrayLike, noise: ArrayLike, *, time_step: float | None = None) -> Floats:
    """Return the stationary covariance S: A S + S Aᵀ = Q, or that of plain steps, S = M S Mᵀ + Δt Q with M = 1 − Δt A.

    Parameters
    ----------
    matrix : array, shape (parameter, parameter)
        A, in units of 1/time.
    noise : array, shape (parameter, parameter)
        Q = F Fᵀ; for gradient noise α C.
    time_step : float, optional
        Δt of the Euler–Maruyama scheme; the equation itself unless given.

    Returns
    -------
    ndarray, shape (parameter, parameter)
        S; see Gardiner (2009, ISBN 978-3-540-70712-7), section 4.5.

    Raises
    ------
    ConfigurationError
        If shapes disagree, the noise is no covariance or something does not decay.

    Examples
    --------
    >>> stationary_covariance([[2.0]], [[3.0]])
    array([[0.75]])
    >>> stationary_covariance([[2.0]], [[3.0]], time_step=0.5)
    array([[1.5]])
    """
    return _Law.of(matrix, noise, time_step).covariance()


def circulation(
    matrix: ArrayLike, noise: ArrayLike, *, time_step: float | None = None, record_interval: float | None = None
) -> Floats:
    """Return the rate ⟨x_i dx_j − x_j dx_i⟩/dt at which the stationary process goes around: A S − S Aᵀ.

    It is twice the area that is enclosed in the (i, j) plane per time, and vanishes in every plane where, and only where,
    detailed balance holds: A S symmetric. In a potential, with A = H, that is noise that commutes with the Hessian. Records
    at a finite interval t cut corners: with P = e^(−At), (S Pᵀ − P S)/t is what they show, and what
    `langevin_nn.analyzers.ProbabilityCurrents` measures.

    Parameters
    ----------
    matrix, noise : array, shape (parameter, parameter)
        A and Q, as for `stationary_covariance`.
    time_step : float, optional
        Δt of the Euler–Maruyama scheme, whose covariance differs and with which P = (1 − Δt A)^(t/Δt); the equation itself
        unless given.
    record_interval : float, optional
        t between two records; unless given, dense ones of the equation, or each step of the scheme.

    Returns
    -------
    ndarray, shape (parameter, parameter)
        Antisymmetric.

    Raises
    ------
    ConfigurationError
        As for `stationary_covariance`, or if there is no whole number of steps between two records.

    Examples
    --------
    >>> circulation([[1.0, 0.0], [0.0, 2.0]], [[2.0, 0.0], [0.0, 1.0]]).round(12)
    array([[0., 0.],
           [0., 0.]])
    >>> gyrator = [[1.5, -0.8], [-0.8, 1.5]], [[0.6, 0.0], [0.0, 1.8]]
    >>> [circulation(*gyrator, record_interval=each)[0, 1].round(3).item() for each in (None, 0.1)]
    [-0.32, -0.276]
    """
    law = _Law.of(matrix, noise, time_step)
    covariance, records = law.covariance(), law.over(record_interval)
    rate = law.matrix @ covariance if records is None else -records[0] @ covariance / records[1]
    return np.asarray(rate - rate.T)


def entropy_production_rate(
    matrix: ArrayLike, noise: ArrayLike, *, time_step: float | None = None, record_interval: float | None = None
) -> float:
    """Return the rate at which the stationary process makes entropy: −Tr(D⁻¹ K S⁻¹ K), K = (A S − S Aᵀ)/2, D = Q/2.

    ⟨vᵀ D⁻¹ v⟩ of the velocity v = −K S⁻¹ x of the probability current; see Seifert (2012, doi
    10.1088/0034-4885/75/12/126001), and Chaudhari & Soatto (2018, arXiv:1710.11029) for what it means for SGD. Where the
    current runs along a direction without noise, it cannot be reversed and the rate is infinite. Records at a
    finite interval show less: the divergence of Kullback and Leibler between two of them and the same backwards, per time,
    which `langevin_nn.analyzers.ProbabilityCurrents` estimates.

    Parameters
    ----------
    matrix, noise : array, shape (parameter, parameter)
        A and Q, as for `stationary_covariance`.
    time_step, record_interval : float, optional
        As for `circulation`.

    Returns
    -------
    float
        In units of 1/time; 0 where detailed balance holds, infinity where noise is missing along the current.

    Raises
    ------
    ConfigurationError
        As for `circulation`; or if some direction across coordinates is so small, against each of them, that rounding hides
        whether noise reaches it. Coordinates themselves may have any sizes.

    Examples
    --------
    Rotation by ω in an isotropic bowl of curvature k makes 2ω²/k:

    >>> round(entropy_production_rate([[1.0, -3.0], [3.0, 1.0]], [[2.0, 0.0], [0.0, 2.0]]), 9)
    18.0
    >>> entropy_production_rate([[1.0, -3.0], [3.0, 1.0]], [[2.0, 0.0], [0.0, 0.0]])
    inf
    """
    law = _Law.of(matrix, noise, time_step).moving()
    if not len(law.matrix):
        return 0.0
    covariance, records = law.covariance(), law.over(record_interval)
    correlation, units = _standardised(covariance)  # the rate depends on no units
    reached = _axes(correlation)[0]

    def seen(each: Floats) -> Floats:
        return np.asarray(reached.T @ (each / units / units[:, None]) @ reached)

    s = seen(covariance)
    if records is None:
        current = seen(law.matrix @ covariance - covariance @ law.matrix.T) / 2
        velocities = current @ np.linalg.solve(s, current.T)
        # Of squares of velocities A x.
        return _trace(seen(law.noise) / 2, velocities, 1e-13 * seen(law.matrix @ covariance @ law.matrix.T))
    across = seen(records[0] @ covariance)
    forwards, backwards = (np.block([[s, each.T], [each, s]]) for each in (across, across.T))
    divergence = _trace(backwards, forwards, 1e-12 * forwards) - _axes(forwards)[0].shape[1]
    return float(divergence / (2 * records[1]))


def _standardised(covariance: Floats) -> tuple[Floats, Floats]:
    """Return a correlation matrix and the standard deviations that it is in units of, 1 for what does not vary."""
    variance = np.diag(covariance)
    units = np.sqrt(np.where(variance > 0, variance, 1))
    return covariance / units / units[:, None], units


def _axes(correlation: Floats) -> tuple[Floats, Floats]:
    """Return orthonormal columns that span the range of a correlation matrix, and others that span the rest."""
    values, vectors = np.linalg.eigh(correlation)
    positive = values > _DOUBTFUL[1]
    if np.any((values > _DOUBTFUL[0]) & ~positive):
        raise ConfigurationError(
            f"a direction has the variance {values[values > _DOUBTFUL[0]].min():.2g} where each coordinate has 1: expected "
            f"at least {_DOUBTFUL[1]:g}, or 0, since whether noise reaches it is lost in rounding and decides the rate; "
            "take coordinates along the directions that differ in size, a longer record_interval, or leave that direction out"
        )
    if positive.all():
        return np.eye(len(values)), np.zeros((len(values), 0))
    return vectors[:, positive], vectors[:, ~positive]


def _trace(covariance: Floats, other: Floats, rounding: Floats) -> float:
    """Return Tr(C⁻¹ O), infinite where O has a part outside the range of C that is more than rounding."""
    c, units = _standardised(covariance)
    o = other / units / units[:, None]
    within, outside = _axes(c)
    if np.trace(outside.T @ o @ outside) > (outside**2).sum(1) @ (np.diag(rounding) / units**2):
        return inf
    return float(np.trace(np.linalg.solve(within.T @ c @ within, within.T @ o @ within)))
