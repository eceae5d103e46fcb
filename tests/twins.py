"""Twins that several tests share, typed independently: gradients one by one, coloured noise over a step, Philox."""

from __future__ import annotations

import math
from copy import deepcopy

import numpy as np
import torch
from scipy.linalg import expm
from torch import nn
from torch.func import functional_call

from langevin_nn.noise import ColouredNoise


def entropy(outputs, labels):
    return nn.functional.cross_entropy(outputs, labels, reduction="none")


def one_by_one(module, weights, inputs, labels, loss=entropy):
    """Gradients (sample, parameter) and losses of samples, each alone, through a float64 copy and plain autograd."""
    network = deepcopy(module).double().requires_grad_(True)
    nn.utils.vector_to_parameters(weights.double(), network.parameters())
    rows, losses = [], []
    for sample, label in zip(inputs, labels, strict=True):
        sample, label = (each.double() if each.is_floating_point() else each for each in (sample, label))
        value = loss(network(sample[None].clone()), label[None]).sum()
        gradients = torch.autograd.grad(value, list(network.parameters()))
        rows.append(torch.cat([gradient.reshape(-1) for gradient in gradients]))
        losses.append(value.detach())
    return torch.stack(rows), torch.stack(losses)


def slow_gradients(*arguments):
    return one_by_one(*arguments)[0]


def losses_of(module, inputs, labels):
    """Cross-entropies of all samples as a function of the weights in one vector, for automatic differentiation."""
    shapes = {name: tensor.shape for name, tensor in module.named_parameters()}

    def losses(flat):
        pieces = flat.split([shape.numel() for shape in shapes.values()])
        tensors = {name: piece.view(shape) for (name, shape), piece in zip(shapes.items(), pieces, strict=True)}
        return entropy(functional_call(module, tensors, (inputs,)), labels)

    return losses


def over_a_step(
    drift: np.ndarray, diffusion: np.ndarray, tau: float, time_step: float
) -> tuple[np.ndarray, np.ndarray]:
    """Matrix and covariance of y over a step, dy = drift y dt + √diffusion dW, τ the shortest time in it.

    Van Loan's exponential (1978, doi 10.1109/TAC.1978.1101743) of a piece of the step that is short against τ, which is
    then doubled: at once it would overflow.
    """
    doublings, n = max(0, math.ceil(math.log2(2 * time_step / tau))), len(drift)
    block = expm(time_step / 2**doublings * np.block([[-drift, diffusion], [np.zeros((n, n)), drift.T]]))
    matrix = block[n:, n:].T
    covariance = matrix @ block[:n, n:]
    for _ in range(doublings):
        matrix, covariance = matrix @ matrix, matrix @ covariance @ matrix.T + covariance
    return matrix, covariance


class Straight(ColouredNoise):
    """Mutated twin for the kernel: ζ is a straight line over a step."""

    def law_parameters(self, time_step):
        lost, gain, _, _, first, *_ = super().law_parameters(time_step)
        return lost, gain, 0.5, 0.0, first, 0.5 * (2 + lost), 0.5 * gain


MASK = 2**32 - 1


def slow_philox(counter: tuple[int, ...], key: tuple[int, ...], rounds: int = 10) -> tuple[int, ...]:
    """Philox4x32 in whole numbers of Python: each round two products, whose halves cross; keys grow by Weyl's constants."""
    a, b, c, d = counter
    for turn in range(rounds):
        left, right = divmod(0xD2511F53 * a, 2**32), divmod(0xCD9E8D57 * c, 2**32)
        keys = [(word + turn * weyl) % 2**32 for word, weyl in zip(key, (0x9E3779B9, 0xBB67AE85), strict=True)]
        a, b, c, d = right[0] ^ b ^ keys[0], right[1], left[0] ^ d ^ keys[1], left[1]
    return a, b, c, d


def halves(number: int) -> tuple[int, int]:
    return number & MASK, number >> 32


KNOWN_ANSWERS = [
    ("00000000 00000000 00000000 00000000", "00000000 00000000", "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
    ("ffffffff ffffffff ffffffff ffffffff", "ffffffff ffffffff", "408f276d 41c83b0e a20bc7c6 6d5451fd"),
    ("243f6a88 85a308d3 13198a2e 03707344", "a4093822 299f31d0", "d16cfe09 94fdcceb 5001e420 24126ea1"),
]


def words_of(text: str) -> tuple[int, ...]:
    return tuple(int(word, 16) for word in text.split())
