"""Which share of the noise minibatches make, and which the forward pass: the law of total variance, measured."""

from __future__ import annotations

from dataclasses import dataclass
from math import sqrt
from typing import Any

import torch
from torch import Tensor

from langevin_nn.checks import instance, whole_number
from langevin_nn.draws import draws_at
from langevin_nn.errors import ConfigurationError, EstimationRefused
from langevin_nn.landscape import EmpiricalLandscape, Landscape
from langevin_nn.landscape.weights import as_weights
from langevin_nn.noise.base import Noise, SampleWeightNoise
from langevin_nn.noise.forward import ForwardNoise
from langevin_nn.readable import Readable
from langevin_nn.seeds import Key, Seeds, as_seeds
from langevin_nn.threads import single_threaded_products

__all__ = ["NoiseShares", "noise_shares"]


@dataclass(frozen=True, eq=False)
class NoiseShares(Readable):
    """Traces of covariances of the gradient g(S, ω) of a minibatch S through a forward pass ω, with standard errors.

    By the law of total variance, Tr Cov g = Tr Cov⟨g|S⟩ + ⟨Tr Cov(g|S)⟩; so are the estimates, to rounding.

    Parameters
    ----------
    minibatches, minibatches_error : float
        Tr Cov⟨g|S⟩, that of minibatches whose passes are averaged; exactly 0 where no samples are drawn.
    forward_pass, forward_pass_error : float
        ⟨Tr Cov(g|S)⟩, that of passes of one minibatch, averaged over minibatches.
    total, total_error : float
        Tr Cov g.
    drift, drift_error : Tensor of float64, shape (parameter,)
        ⟨g⟩, the drift of the process, and the standard error of each of its components.
    draws : int
        Minibatches that were drawn, with two passes of each.
    """

    minibatches: float
    minibatches_error: float
    forward_pass: float
    forward_pass_error: float
    total: float
    total_error: float
    drift: Tensor
    drift_error: Tensor
    draws: int


def noise_shares(
    landscape: EmpiricalLandscape, noise: Noise, weights: Any, *, draws: int = 256, seed: int | Seeds = 0
) -> NoiseShares:
    """Measure the covariance of noise of the forward pass beside that of the minibatches, and the drift of both.

    Minibatches are drawn independently, and for each of them two passes, so that what they have in common is that of the
    minibatch: with deviations x and y of the gradients of both passes from their means, Σ x·y/(n − 1) is that of the
    minibatches and Σ |x − y|²/2(n − 1) that of the pass (a random-effects analysis of variance). Standard errors are those
    of the jackknife. Minibatches alone, in the deterministic landscape, have C in closed form: `gradient_ensemble`.

    Parameters
    ----------
    landscape : EmpiricalLandscape
        Where the gradients come from.
    noise : Noise
        As its first update sees it, with at least one `ForwardNoise` and at most one law of sample weights; sources that
        are added to the gradient are left out, since they add their own covariance. ``ShuffledMinibatches(25) +
        DropoutNoise()``, for example.
    weights : array, shape (parameter,), or state dictionary, module or checkpoint file
        Where.
    draws : int, optional
        n, the number of minibatches. Gradients of 2n passes are kept.
    seed : int or Seeds, optional
        Owner of the randomness.

    Returns
    -------
    NoiseShares
        Traces and drift with standard errors.

    Raises
    ------
    ConfigurationError
        If there is no noise of the forward pass, or it cannot run on this landscape.
    EstimationRefused
        If there are fewer than 3 draws, of whose variance there is no error.

    Examples
    --------
    >>> from langevin_nn import NetworkLandscape
    >>> from langevin_nn.noise import IndependentMinibatches, LabelSmoothingNoise
    >>> inputs = torch.ones(4, 1)
    >>> landscape = NetworkLandscape(torch.nn.Linear(1, 2), inputs, torch.tensor([0, 0, 1, 1]), start="drawn")
    >>> noise = IndependentMinibatches(1) + LabelSmoothingNoise(0.5)  # labels are a coin, whichever sample came
    >>> found = noise_shares(landscape, noise, torch.zeros(4), draws=2_000)
    >>> abs(found.minibatches) < 4 * found.minibatches_error
    True
    >>> round(found.total, 1)  # of gradients ±½ in four components
    1.0
    """
    instance("landscape", landscape, Landscape, "a Landscape of samples")
    instance("noise", noise, Noise, "a noise source, such as ShuffledMinibatches(25) + DropoutNoise()")
    draws = whole_number("draws", draws, "a whole number (int) of minibatches, at least 3", least=0)
    if not any(isinstance(each, ForwardNoise) for each in noise.parts):
        raise ConfigurationError(
            f"{noise!r} has no noise of the forward pass: expected a source such as DropoutNoise(), whose share is measured; "
            "of minibatches alone gradient_ensemble(...) has the covariance in closed form"
        )
    if draws < 3:
        raise EstimationRefused(
            f"{draws} draws came: expected at least 3, since a variance with a standard error is estimated; ask for some "
            "hundreds",
            draws=draws,
        )
    noise = noise.at(0)
    noise.check(landscape)
    given = as_weights(weights, landscape)
    point = given[0] if given.ndim == 2 and len(given) == 1 else given
    if point.shape != (landscape.n_parameters,):
        raise ConfigurationError(
            f"weights have shape {tuple(point.shape)}: expected ({landscape.n_parameters},), one point of weight space"
        )
    with single_threaded_products(), torch.no_grad():
        first, second = _passes(landscape, noise, point.expand(draws, -1), as_seeds(seed))
    return _shares(first, second, any(isinstance(each, SampleWeightNoise) for each in noise.parts))


def _passes(landscape: EmpiricalLandscape, noise: Noise, rows: Tensor, seeds: Seeds) -> tuple[Tensor, Tensor]:
    """Return gradients of two passes of independent minibatches, each of shape (draw, parameter)."""
    replicas = tuple(range(len(rows)))
    key, again = (Key(each, replicas, 0) for each in (seeds, Seeds(seeds.integer("second pass", 0))))
    drawn = None
    for k, each in enumerate(noise.parts):
        if isinstance(each, SampleWeightNoise):
            draws = draws_at(key.of_part(k), rows)
            drawn = each.sample_weights(landscape.n_samples, each.start(landscape, rows), draws, 1)[0].at(0)
    found: list[Tensor] = []
    for where in (key, again):
        seen = landscape
        for k, each in enumerate(noise.parts):
            if isinstance(each, ForwardNoise):
                seen = each.seen(seen, where.of_part(k))
        if drawn is None:
            found.append(seen.gradient(rows))
        else:
            found.append(seen.weighted_gradient(rows, drawn.coefficients, drawn.indices))
    return found[0], found[1]


def _shares(first: Tensor, second: Tensor, of_minibatches: bool) -> NoiseShares:
    n = len(first)
    means = first.double().mean(0), second.double().mean(0)
    products, squares, variance = [], [], torch.zeros_like(means[0])
    for one, other in zip(first, second, strict=True):  # row by row, since in float64 all would be as many again
        x, y = one.double() - means[0], other.double() - means[1]
        products.append(x @ y)
        squares.append((x @ x + y @ y) / 2)
        variance += ((x + y) / 2).square() / (n - 1)
    common, total = torch.stack(products), torch.stack(squares)
    if not of_minibatches:
        common = torch.zeros_like(common)
    minibatches, of_pass, both = _with_error(common), _with_error(total - common), _with_error(total)
    return NoiseShares(*minibatches, *of_pass, *both, (means[0] + means[1]) / 2, (variance / n).sqrt(), n)


def _with_error(products: Tensor) -> tuple[float, float]:
    """Return Σ z/(n − 1) of products of centred numbers, and its standard error by the jackknife."""
    n = len(products)
    spread = float((products - products.mean()).square().sum())
    return float(products.sum()) / (n - 1), sqrt(n / ((n - 1) * (n - 2) ** 2) * spread)
