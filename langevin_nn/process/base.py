"""A process: drift + noise + update rule on a landscape."""

from __future__ import annotations

import inspect
from collections.abc import Iterable
from dataclasses import dataclass, field
from math import inf
from typing import Any, cast

import torch
from torch import Tensor

from langevin_nn.checks import instance, kind_of, number, text
from langevin_nn.draws import draws_at
from langevin_nn.drift import Drift, GradientDrift
from langevin_nn.errors import ConfigurationError
from langevin_nn.landscape import EmpiricalLandscape, Landscape
from langevin_nn.noise import AdditiveNoise, Noise, SampleWeightNoise
from langevin_nn.seeds import Key, Seeds, as_replicas, as_seeds, as_weights
from langevin_nn.threads import single_threaded_products
from langevin_nn.update import Plain, State, Update

__all__ = ["Process"]


@dataclass(frozen=True, eq=False)
class Process:
    """dw = −∇L dt + √(α C) dW at time step Δt, or w ← w − α Σ c_k ∇ℓ_k at Δt = α.

    Where drift and noise share a landscape and the noise is a law of sample weights, both come from one weighted
    backward pass with coefficients 1/N + √(α/Δt) (c_k − 1/N); where they do not, both are evaluated.

    Parameters
    ----------
    landscape : Landscape
        Where the noise comes from, and what is measured.
    noise : Noise
        The noise source.
    learning_rate : float
        α, in units of time; sets the noise.
    drift : Drift, optional
        The gradient of `landscape` unless said.
    update : Update, optional
        Plain steps unless said.
    time_step : float, optional
        Δt; 0, the default, stands for α.
    name : str, optional
        For figures and files.

    Raises
    ------
    ConfigurationError
        If a rate is not a positive and finite number, or parts do not fit together.

    Examples
    --------
    >>> import numpy as np
    >>> from langevin_nn import AnisotropicNoise, QuadraticLandscape, advance
    >>> landscape = QuadraticLandscape(np.eye(1), np.zeros((1, 1)), start=[1.0])
    >>> process = Process(landscape, AnisotropicNoise(torch.zeros(1, 1)), learning_rate=0.5)
    >>> advance(process, process.start(replicas=1, seed=0), steps=2).weights
    tensor([[0.2500]], dtype=torch.float64)
    """

    landscape: Landscape
    noise: Noise
    learning_rate: float
    drift: Drift = None  # type: ignore[assignment]  # filled in below
    update: Update = field(default_factory=Plain)
    time_step: float = 0.0
    name: str = ""

    def __post_init__(self) -> None:
        if not isinstance(self.landscape, Landscape):
            raise ConfigurationError(
                f"landscape is {kind_of(self.landscape)}: expected a Landscape, the loss to move on; wrap a network and its "
                "data in NetworkLandscape(...)"
            )
        if not isinstance(self.noise, Noise):
            raise ConfigurationError(
                f"noise is {kind_of(self.noise)}: expected an instance of Noise, since its parameters belong to the process; "
                "make one, MatchedGaussian(batch_size=25) for example"
            )
        expected = "a positive, finite number, the time of one update"
        object.__setattr__(self, "learning_rate", number("learning_rate", self.learning_rate, expected, above=0))
        time_step = number("time_step", self.time_step, f"{expected}, or 0 for the learning rate", least=0)
        object.__setattr__(self, "time_step", time_step or self.learning_rate)
        if cast("Drift | None", self.drift) is None:
            object.__setattr__(self, "drift", GradientDrift(self.landscape))
        instance(
            "drift", self.drift, Drift, "an instance of Drift, the deterministic field; leave it out for the gradient"
        )
        instance("update", self.update, Update, "an instance of Update, a rule such as Plain() or EulerMaruyama()")
        text("name", self.name, "by which figures and files call the process")
        of_drift = self.drift.n_parameters
        if of_drift is not None and of_drift != self.landscape.n_parameters:
            raise ConfigurationError(
                f"the drift has {of_drift} parameters, the landscape {self.landscape.n_parameters}: expected as many, since "
                "drift and noise move the same weights; give both the same architecture"
            )
        self._refuse_former_methods()
        self.noise.check(self.landscape)
        self.noise.check_rates(self.learning_rate, self.time_step)
        self._check_scale()
        self._check_calculus()
        self.update.check(self.landscape, self.drift, self.noise)
        self.update.check_rates(self.learning_rate, self.time_step)

    def _refuse_former_methods(self) -> None:
        """Raise where a class of a user's own has methods as they were before: they would fail late, or not be called."""
        sources = ("n_samples", "memory", "draws", "steps")
        for part, name, now in (
            (self.noise, "sample_weights", sources),
            (self.noise, "minibatches", sources),
            (self.update, "check", ("landscape", "drift", "noise")),
        ):
            method = getattr(type(part), name, None)
            given = tuple(inspect.signature(method).parameters)[1:] if method else now
            if "landscape" in set(given) - set(now) or "process" in given:
                raise ConfigurationError(
                    f"{type(part).__name__}.{name} takes ({', '.join(given)}): expected ({', '.join(now)}), as it is called "
                    "now; write it so"
                )
        gone = ("advance", "advance_together", "draw_on_device", "minibatches_on_device")
        for part in (self.noise, self.update):
            for name in gone:
                if hasattr(type(part), name):
                    raise ConfigurationError(
                        f"{type(part).__name__} has a method {name!r}, which nothing calls: expected "
                        "`sample_weights` or `increment` of a noise source and `apply` of an update rule; see CONTRIBUTING"
                    )

    def _check_scale(self) -> None:
        """Raise where an increment of the noise, or the clock in epochs, is beyond floating point, at either end."""
        noise, rate, step = self.noise, self.learning_rate, self.time_step
        try:
            factors = [step, step**noise.time_step_exponent, rate**noise.learning_rate_exponent, self.noise_ratio]
            powers = [*factors, step / rate, noise.strength_ratio(rate)]
        except (OverflowError, ZeroDivisionError):
            factors, powers = [0.0], [inf]
        limits = torch.finfo(self.landscape.dtype)
        if not (all(each <= limits.max for each in powers) and all(each >= limits.tiny for each in factors)):
            raise ConfigurationError(
                f"learning_rate={rate:g} and time_step={step:g} with {type(noise).__name__}: expected numbers whose powers "
                f"learning_rate^{noise.learning_rate_exponent:g} and time_step^{noise.time_step_exponent:g} are within "
                f"{self.landscape.dtype}, since they multiply the noise; choose others"
            )

    def _check_calculus(self) -> None:
        """Raise where noise and update rule read the same equation in different ways; constant noise is read in one only."""
        noise, update = self.noise, self.update
        if noise.dependence(self.landscape) == "constant" or noise.calculus == update.calculus:
            return
        names = {"ito": "Itô", "stratonovich": "Stratonovich"}
        raise ConfigurationError(
            f"{type(noise).__name__} depends on the weights and is to be read in the sense of {names[noise.calculus]}, but "
            f"{type(update).__name__} converges to the equation in the sense of {names[update.calculus]}, which differs by "
            f"a drift of ½ Σ_j (∂F_j) F_j: choose an update rule whose calculus is {noise.calculus!r}, or say which reading "
            "of the noise is meant"
        )

    @property
    def batch_size(self) -> int | None:
        """B of the noise source; None where there are no samples."""
        return self.noise.batch_size

    @property
    def weak_order(self) -> float:
        """Order in Δt, at fixed α, at which averages converge to those of the equation: the lower of rule and source."""
        return min(self.update.orders[self.noise.dependence(self.landscape)].weak, self.noise.weak_order)

    @property
    def effective_learning_rate(self) -> float:
        """α/(1 − μ); α without momentum."""
        return self.learning_rate / (1 - self.update.momentum)

    @property
    def epochs_per_step(self) -> float:
        """(Δt/α)·B/N; NaN where there are no samples."""
        if self.batch_size is None or not isinstance(self.landscape, EmpiricalLandscape):
            return float("nan")
        return self.time_step / self.learning_rate * self.batch_size / self.landscape.n_samples

    def start(self, replicas: int | Iterable[int], seed: int | Seeds, weights: Any = None) -> State:
        """Return the state from which replicas start.

        Parameters
        ----------
        replicas : int or iterable of int
            How many, or the indices of which: replica 3 is the same among 4 as among 400.
        seed : int or Seeds
            Owner of all randomness of the run.
        weights : array, shape (replica, parameter), optional
            Where to start; drawn by the landscape unless said.

        Returns
        -------
        State
            At step 0.

        Raises
        ------
        ConfigurationError
            If there is no replica, one comes twice, or the weights have another shape or are not finite.
        """
        indices = as_replicas(replicas)
        seeds = as_seeds(seed)
        if weights is None:
            start = self.landscape.initial_weights(indices, seeds)
        else:
            start = as_weights(weights, self.landscape).clone()
        expected = (len(indices), self.landscape.n_parameters)
        if tuple(start.shape) != expected:
            raise ConfigurationError(
                f"weights have shape {tuple(start.shape)}: expected (replica, parameter) = {expected}"
            )
        labelings = len(getattr(self.landscape, "mislabeled", [0]))
        if labelings not in (1, len(indices)):
            raise ConfigurationError(
                f"labels are given for {labelings} replicas and {len(indices)} are to run: expected one row of labels a "
                "replica, or one for all; run as many, or choose rows of labels"
            )
        outside = ~torch.isfinite(start)
        broken = int(outside.sum())
        if broken:
            raise ConfigurationError(
                f"weights have {broken} entries that are NaN or infinite: expected finite numbers, since a replica that "
                "starts outside them never returns; start elsewhere"
            )
        with single_threaded_products(), torch.no_grad():
            memories = (self.update.start(start), self.noise.start(self.landscape, start))
        return State(0, start, *memories, seeds, indices, outside.any(1))

    @property
    def noise_ratio(self) -> float:
        """What multiplies η where it is added to the gradient, which Δt multiplies: √(α/Δt) for noise of the gradient."""
        noise = self.noise
        if self.time_step == self.learning_rate and noise.learning_rate_exponent + noise.time_step_exponent == 1:
            return 1.0  # to the last bit
        of_rate, of_step = noise.learning_rate_exponent, noise.time_step_exponent - 1
        return float(self.learning_rate**of_rate * self.time_step**of_step)

    def stochastic_gradient(self, weights: Tensor, memory: Any, key: Key) -> tuple[Tensor, Any]:
        """Return drift and noise together.

        Parameters
        ----------
        weights : Tensor, shape (replica, parameter)
            Where.
        memory : object
            What the noise source remembers.
        key : Key
            Address of the update.

        Returns
        -------
        gradient : Tensor, shape (replica, parameter)
            What the update rule takes.
        memory : object
            For the next update.
        """
        noise, ratio = self.noise.over(self.time_step), self.noise_ratio
        if isinstance(noise, AdditiveNoise):
            increment, memory = noise.increment(self.landscape, weights, memory, key)
            return torch.add(self.drift(weights), increment, alpha=ratio), memory
        assert isinstance(self.landscape, EmpiricalLandscape)
        assert isinstance(self.noise, SampleWeightNoise)
        n = self.landscape.n_samples
        several, memory = self.noise.sample_weights(n, memory, draws_at(key, weights), 1)
        drawn = several.at(0)
        if self.is_one_sum:
            drawn = drawn if ratio == 1 else drawn.scaled(ratio, n)
            return self.landscape.weighted_gradient(weights, drawn.coefficients, drawn.indices), memory
        kick = self.landscape.weighted_gradient(weights, drawn.spread(n) - 1 / n)
        return torch.add(self.drift(weights), kick, alpha=ratio), memory

    @property
    def is_one_sum(self) -> bool:
        """Whether drift and noise are one sum over samples, Σ (1/N + √(α/Δt) (c_k − 1/N)) ∇ℓ_k."""
        return (
            isinstance(self.noise, SampleWeightNoise)
            and type(self).stochastic_gradient is Process.stochastic_gradient
            and type(self.drift) is GradientDrift
            and self.drift.landscape is self.landscape
        )
