"""Weighted gradient of a multi-layer perceptron with cross-entropy loss, one thread a replica.

Hand-derived backpropagation over BLAS matrix products. All arithmetic of a replica happens in one thread and in one
order, so its bits depend neither on the number of threads nor on the replicas beside it.
"""

from __future__ import annotations

import numpy as np
from numba import njit, prange

__all__ = ["RELU", "TANH", "weighted_gradient", "workspace_size"]

RELU, TANH = 0, 1


def workspace_size(widths: tuple[int, ...], n_rows: int, gather: bool) -> int:
    """Return how many float32 numbers one replica's activations and signals need.

    Parameters
    ----------
    widths : tuple of int
        Units of each layer, the inputs first.
    n_rows : int
        Samples in one pass.
    gather : bool
        Whether the pass copies chosen samples together first.

    Returns
    -------
    int
        Length of one row of the workspace.
    """
    return n_rows * (gather * widths[0] + sum(widths[1:]) + 2 * max(widths[1:]))


@njit(fastmath=True, cache=True)
def _add_bias_and_activate(rows, bias, activation):
    for i in range(rows.shape[0]):
        for j in range(rows.shape[1]):
            value = rows[i, j] + bias[j]
            if activation == 0:
                rows[i, j] = value if value > 0 else np.float32(0)
            else:
                rows[i, j] = np.tanh(value)


@njit(fastmath=True, cache=True)
def _multiply_by_derivative(signals, activations, activation):
    for i in range(signals.shape[0]):
        for j in range(signals.shape[1]):
            a = activations[i, j]
            if activation == 0:
                signals[i, j] = signals[i, j] if a > 0 else np.float32(0)
            else:
                signals[i, j] *= np.float32(1) - a * a


@njit(cache=True)
def _cross_entropy_signals(rows, bias, labels, index, coefficients):
    for i in range(rows.shape[0]):
        largest = rows[i, 0] + bias[0]
        for j in range(rows.shape[1]):
            rows[i, j] += bias[j]
            largest = max(largest, rows[i, j])
        total = np.float32(0)
        for j in range(rows.shape[1]):
            rows[i, j] = np.exp(rows[i, j] - largest)
            total += rows[i, j]
        scale = coefficients[i] / total
        for j in range(rows.shape[1]):
            rows[i, j] *= scale
        rows[i, labels[index[i]]] -= coefficients[i]


@njit(fastmath=True, cache=True)
def _column_sums(rows, out):
    out[:] = 0
    for i in range(rows.shape[0]):
        for j in range(rows.shape[1]):
            out[j] += rows[i, j]


@njit(cache=True)
def _replica_gradient(weights, inputs, labels, index, gather, coefficients, widths, activation, work, out):
    n_layers = widths.shape[0] - 1
    n_rows = coefficients.shape[0]
    n_inputs = widths[0]
    position = 0
    if gather:
        position = n_rows * n_inputs
        rows = work[:position].reshape(n_rows, n_inputs)
        for i in range(n_rows):
            rows[i] = inputs[index[i]]
    else:
        rows = inputs
    first = rows
    widest = 0
    offset = 0
    starts = np.empty(n_layers, np.int64)
    offsets = np.empty(n_layers, np.int64)
    for layer in range(n_layers):
        n_in, n_out = widths[layer], widths[layer + 1]
        widest = max(widest, n_out)
        starts[layer], offsets[layer] = position, offset
        matrix = weights[offset : offset + n_out * n_in].reshape(n_out, n_in)
        bias = weights[offset + n_out * n_in : offset + n_out * (n_in + 1)]
        activations = work[position : position + n_rows * n_out].reshape(n_rows, n_out)
        np.dot(rows, matrix.T, activations)
        if layer < n_layers - 1:
            _add_bias_and_activate(activations, bias, activation)
        else:
            _cross_entropy_signals(activations, bias, labels, index, coefficients)
        rows = activations
        position += n_rows * n_out
        offset += n_out * (n_in + 1)

    signals = rows
    for layer in range(n_layers - 1, -1, -1):
        n_in, n_out = widths[layer], widths[layer + 1]
        offset = offsets[layer]
        if layer > 0:
            below = work[starts[layer - 1] : starts[layer - 1] + n_rows * n_in].reshape(n_rows, n_in)
        else:
            below = first
        np.dot(signals.T, below, out[offset : offset + n_out * n_in].reshape(n_out, n_in))
        _column_sums(signals, out[offset + n_out * n_in : offset + n_out * (n_in + 1)])
        if layer > 0:
            matrix = weights[offset : offset + n_out * n_in].reshape(n_out, n_in)
            slot = position + (layer % 2) * n_rows * widest
            propagated = work[slot : slot + n_rows * n_in].reshape(n_rows, n_in)
            np.dot(signals, matrix, propagated)
            _multiply_by_derivative(propagated, below, activation)
            signals = propagated


@njit(parallel=True, cache=True)
def weighted_gradient(weights, inputs, labels, indices, gather, coefficients, widths, activation, work, out):
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
        The samples of each row; all of them in order, in one row, unless `gather`.
    gather : bool
        Whether rows are chosen samples or simply all of them.
    coefficients : ndarray of float32, shape (replica, row)
        The c_k.
    widths : ndarray of int64, shape (layer + 1,)
        Units of each layer, the inputs first.
    activation : int
        `RELU` or `TANH`.
    work : ndarray of float32, shape (replica, workspace)
        Scratch space of `workspace_size`.
    out : ndarray of float32, shape (replica, parameter)
        The result.
    """
    for index in prange(weights.shape[0]):
        replica = np.int64(index)  # numba's own index is unsigned, and unsigned minus signed is a float
        _replica_gradient(
            weights[replica],
            inputs,
            labels[min(replica, labels.shape[0] - 1)],
            indices[min(replica, indices.shape[0] - 1)],
            gather,
            coefficients[replica],
            widths,
            activation,
            work[replica],
            out[replica],
        )
