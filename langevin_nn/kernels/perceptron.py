"""Gradients and whole blocks of updates of a multi-layer perceptron with cross-entropy loss, one thread a replica.

Hand-derived backpropagation over products in vector registers. All arithmetic of a replica happens in one thread and in one
order, so its bits depend neither on the number of threads nor on the replicas beside it.
"""

from __future__ import annotations

import numpy as np
from numba import njit, prange

from langevin_nn.formulas import RELU, TANH
from langevin_nn.kernels.bits import single_from_bits
from langevin_nn.kernels.cache import cached
from langevin_nn.kernels.products import add_combinations, dot_products, row_addresses

__all__ = ["at_once", "descend", "weighted_gradient"]

_CHUNK = 50  # rows of one pass: with their layers they stay in the core's own caches
# NaN and infinity are kept: a replica that diverges must be seen. What may be rounded in more than one way is compiled in one
# place, inside its caller: a second copy, of its own, would serve the process that compiles it and not those that load it.
_ROUNDED = {"fastmath": {"contract", "reassoc", "nsz", "arcp"}, "forceinline": True}
_LOG2_E = np.float32(1.4426950408889634)
_LN_2_HIGH, _LN_2_LOW = np.float32(0.693359375), np.float32(-2.12194440e-4)
_ROOT_HALF, _ROOT_2PI = np.float32(0.7071067811865476), np.float32(0.3989422804014327)
_ZERO, _HALF, _ONE, _TWO = np.float32(0), np.float32(0.5), np.float32(1), np.float32(2)
# Abramowitz & Stegun (1964), 7.1.26: the complementary error function by e^(-x²), to 1.5e-7.
_P = np.float32(0.3275911)
_ERF = tuple(np.float32(each) for each in (0.254829592, -0.284496736, 1.421413741, -1.453152027, 1.061405429))


@njit(inline="always")
def _exponential(x):
    """Return e^x for x ≤ 88 to two units in the last place, without a call, so that loops over it run in vectors."""
    x = np.float32(-87) if x < np.float32(-87) else x
    n = np.floor(x * _LOG2_E + _HALF)
    r = x - n * _LN_2_HIGH - n * _LN_2_LOW
    series = np.float32(1 / 5040)
    series = series * r + np.float32(1 / 720)
    series = series * r + np.float32(1 / 120)
    series = series * r + np.float32(1 / 24)
    series = series * r + np.float32(1 / 6)
    series = series * r + _HALF
    series = series * r + _ONE
    series = series * r + _ONE
    power = np.int32(n) if n == n else np.int32(0)
    return series * single_from_bits(np.uint32((power + np.int32(127)) << np.int32(23)))


@njit(inline="always")
def _tangent(x):
    """Return tanh x to rounding of its largest value."""
    size = abs(x)
    size = np.float32(20) if size > np.float32(20) else size
    decay = _exponential(-_TWO * size)
    positive = (_ONE - decay) / (_ONE + decay)
    # The quotient loses digits near 0, where the series has them.
    square = x * x
    series = _ONE - square * (np.float32(1 / 3) - square * np.float32(2 / 15))
    return x * series if size < np.float32(0.05) else (positive if x > _ZERO else -positive)


@njit(inline="always")
def _normal_law(x):
    """Return the distribution function of the normal law, and its density."""
    bell = _exponential(-_HALF * x * x)
    t = _ONE / (_ONE + _P * _ROOT_HALF * abs(x))
    upper = _ERF[4]
    upper = upper * t + _ERF[3]
    upper = upper * t + _ERF[2]
    upper = upper * t + _ERF[1]
    upper = upper * t + _ERF[0]
    upper = _HALF * upper * t * bell
    return (_ONE - upper if x > _ZERO else upper), _ROOT_2PI * bell


@cached(**_ROUNDED)
def _add_bias_and_activate(rows, bias, activation, slopes):
    for i in range(rows.shape[0]):
        row, slope = rows[i], slopes[i]
        if activation == RELU:
            for j in range(row.shape[0]):
                value = row[j] + bias[j]
                row[j] = _ZERO if value <= _ZERO else value
                slope[j] = _ZERO if value <= _ZERO else _ONE
        elif activation == TANH:
            for j in range(row.shape[0]):
                value = _tangent(row[j] + bias[j])
                row[j] = value
                slope[j] = _ONE - value * value
        else:
            for j in range(row.shape[0]):
                value = row[j] + bias[j]
                below, density = _normal_law(value)
                row[j] = value * below
                slope[j] = below + value * density


@cached(**_ROUNDED)
def _multiply(signals, slopes):
    for i in range(signals.shape[0]):
        signal, slope = signals[i], slopes[i]
        for j in range(signal.shape[0]):
            signal[j] *= slope[j]


@cached(**_ROUNDED)
def _cross_entropy_signals(rows, bias, labels, samples, coefficients):
    for i in range(rows.shape[0]):
        row = rows[i]
        largest = row[0] + bias[0]
        for j in range(row.shape[0]):
            row[j] += bias[j]
            largest = max(largest, row[j])
        total = _ZERO
        for j in range(row.shape[0]):
            row[j] = _exponential(row[j] - largest)
        for j in range(row.shape[0]):
            total += row[j]
        scale = coefficients[i] / total
        for j in range(row.shape[0]):
            row[j] *= scale
        row[labels[samples[i]]] -= coefficients[i]


@cached(**_ROUNDED)
def _add_column_sums(rows, out):
    for i in range(rows.shape[0]):
        row = rows[i]
        for j in range(row.shape[0]):
            out[j] += row[j]


@cached()
def _workspace(widths, n_rows):
    """Return room for activations, their slopes and the signals of a pass, and for addresses."""
    units = widths[1:]
    return np.empty(n_rows * (2 * units.sum() + 2 * units.max()), np.float32), np.empty(
        (widths.shape[0] + 1, max(n_rows, units.max())), np.int64
    )


@cached()
def _add_gradient(weights, inputs, samples, labels, coefficients, widths, activation, work, addresses, out):
    """Add Σ_k c_k ∇ℓ_k over some samples to `out`, which may be the weights themselves."""
    n_layers, n_rows = widths.shape[0] - 1, coefficients.shape[0]
    start, row_bytes = np.int64(inputs.ctypes.data), 4 * inputs.shape[1]
    for i in range(n_rows):
        addresses[0, i] = start + samples[i] * row_bytes
    position = offset = 0
    starts, offsets = np.empty(n_layers, np.int64), np.empty(n_layers, np.int64)
    total = n_rows * widths[1:].sum()
    for layer in range(n_layers):
        n_in, n_out = widths[layer], widths[layer + 1]
        starts[layer], offsets[layer] = position, offset
        size = n_rows * n_out
        matrix = weights[offset : offset + n_out * n_in].reshape(n_out, n_in)
        bias = weights[offset + n_out * n_in : offset + n_out * (n_in + 1)]
        rows = work[position : position + size].reshape(n_rows, n_out)
        dot_products(addresses[layer], n_rows, matrix, rows)
        if layer < n_layers - 1:
            slopes = work[total + position : total + position + size].reshape(n_rows, n_out)
            _add_bias_and_activate(rows, bias, activation, slopes)
        else:
            _cross_entropy_signals(rows, bias, labels, samples, coefficients)
        row_addresses(rows, addresses[layer + 1])
        position += size
        offset += n_out * (n_in + 1)

    spare, widest = 2 * total, n_rows * widths[1:].max()
    signals = work[starts[n_layers - 1] : starts[n_layers - 1] + n_rows * widths[n_layers]].reshape(
        n_rows, widths[n_layers]
    )
    for layer in range(n_layers - 1, -1, -1):
        n_in, n_out = widths[layer], widths[layer + 1]
        offset = offsets[layer]
        own = signals
        if layer > 0:
            # Before the layer's weights change, where they do.
            slot = spare + (layer % 2) * widest
            signals = work[slot : slot + n_rows * n_in].reshape(n_rows, n_in)
            signals[:] = 0
            matrix = weights[offset : offset + n_out * n_in].reshape(n_out, n_in)
            row_addresses(matrix, addresses[n_layers + 1])
            add_combinations(own, addresses[n_layers + 1], False, signals)
            begin = total + starts[layer - 1]
            _multiply(signals, work[begin : begin + n_rows * n_in].reshape(n_rows, n_in))
        add_combinations(own, addresses[layer], True, out[offset : offset + n_out * n_in].reshape(n_out, n_in))
        _add_column_sums(own, out[offset + n_out * n_in : offset + n_out * (n_in + 1)])


@cached(parallel=True)
def weighted_gradient(weights, inputs, labels, indices, coefficients, widths, activation, out):
    """Write Σ_k c_k ∇ℓ_k of every replica into `out`.

    Parameters
    ----------
    weights : ndarray of float32, shape (replica, parameter)
        Weight matrix (out, in) and bias of each layer, one after the other.
    inputs : ndarray of float32, shape (sample, feature)
        All samples.
    labels : ndarray of int64, shape (replica or 1, sample)
        All labels.
    indices : ndarray of int64, shape (replica or 1, row)
        The samples of each row.
    coefficients : ndarray of float32, shape (replica, row)
        The c_k.
    widths : ndarray of int64, shape (layer + 1,)
        Units of each layer, the inputs first.
    activation : int
        `RELU`, `TANH` or `GELU` of `langevin_nn.formulas`.
    out : ndarray of float32, shape (replica, parameter)
        The result.
    """
    n_rows = coefficients.shape[1]
    for index in prange(weights.shape[0]):
        replica = np.int64(index)  # numba's own index is unsigned, and unsigned minus signed is a float
        work, addresses = _workspace(widths, min(n_rows, _CHUNK))
        samples, given = indices[min(replica, indices.shape[0] - 1)], labels[min(replica, labels.shape[0] - 1)]
        out[replica] = 0
        for start in range(0, n_rows, _CHUNK):
            rows = slice(start, min(start + _CHUNK, n_rows))
            _add_gradient(
                weights[replica],
                inputs,
                samples[rows],
                given,
                coefficients[replica, rows],
                widths,
                activation,
                work,
                addresses,
                out[replica],
            )


@cached(**_ROUNDED)
def _accelerate(velocity, weights, momentum, weight_decay):
    for k in range(len(weights)):
        velocity[k] = momentum * velocity[k] + weight_decay * weights[k]


@cached(**_ROUNDED)
def _move(weights, velocity, time_step):
    for k in range(len(weights)):
        weights[k] -= time_step * velocity[k]


def at_once(batch_size: int, momentum: float, weight_decay: float) -> bool:
    """Return whether `descend` wants no velocities.

    Parameters
    ----------
    batch_size : int
        B.
    momentum, weight_decay : float
        μ and λ.

    Returns
    -------
    bool
        True where nothing but the gradient of one pass moves the weights.
    """
    return batch_size <= _CHUNK and momentum == 0 and weight_decay == 0


@cached(parallel=True)
def descend(weights, velocities, inputs, labels, indices, time_steps, momentum, weight_decay, widths, activation):
    """Make a block of updates v ← μv + g + λw, w ← w − Δt v in place, g the mean gradient over each minibatch.

    Parameters
    ----------
    weights, inputs, labels, widths, activation : ndarray or int
        As in `weighted_gradient`.
    velocities : ndarray of float32, shape (replica or 0, parameter)
        v; none where μ = λ = 0 and a minibatch is one pass (`at_once`): its gradient then goes to the weights directly.
    indices : ndarray of int64, shape (replica, step, row)
        The samples of each minibatch.
    time_steps : ndarray of float32, shape (replica,)
        Δt.
    momentum, weight_decay : float32
        μ and λ.
    """
    n_rows = indices.shape[2]
    for index in prange(weights.shape[0]):
        replica = np.int64(index)
        own, given = weights[replica], labels[min(replica, labels.shape[0] - 1)]
        work, addresses = _workspace(widths, min(n_rows, _CHUNK))
        direct = velocities.shape[0] == 0
        target = own if direct else velocities[replica]
        share = (-time_steps[replica] if direct else _ONE) / np.float32(n_rows)
        coefficients = np.full(min(n_rows, _CHUNK), share, np.float32)
        for step in range(indices.shape[1]):
            if not direct:
                _accelerate(target, own, momentum, weight_decay)
            for start in range(0, n_rows, _CHUNK):
                samples = indices[replica, step, start : min(start + _CHUNK, n_rows)]
                _add_gradient(
                    own,
                    inputs,
                    samples,
                    given,
                    coefficients[: len(samples)],
                    widths,
                    activation,
                    work,
                    addresses,
                    target,
                )
            if not direct:
                _move(own, target, time_steps[replica])
