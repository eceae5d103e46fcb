"""A process: drift + noise + update rule on a landscape."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from math import inf
from numbers import Integral
from typing import Any, Literal, cast

import torch
from torch import Tensor

from langevin_nn.checks import instance, is_number, kind_of, listed, number, numbers, shown, text
from langevin_nn.drift import Drift, GradientDrift
from langevin_nn.errors import ConfigurationError, UnstableTrajectory
from langevin_nn.landscape import EmpiricalLandscape, Landscape
from langevin_nn.noise import AdditiveNoise, Minibatches, Noise, SampleWeightNoise
from langevin_nn.seeds import Key, Seeds
from langevin_nn.threads import single_threaded_products
from langevin_nn.update import Plain, State, SteppedUpdate, Update

__all__ = ["Process", "advance_together", "as_replicas", "as_seeds", "as_weights"]

_MOST_REPLICAS = 10_000_000  # their indices are listed in memory


def as_seeds(seed: int | Seeds) -> Seeds:
    """Return the tree of randomness of a seed.

    Parameters
    ----------
    seed : int or Seeds
        A number, or the tree itself.

    Returns
    -------
    Seeds
        The tree.

    Raises
    ------
    ConfigurationError
        If the seed is no whole number.
    """
    return seed if isinstance(seed, Seeds) else Seeds(seed)


def as_replicas(replicas: Any) -> tuple[int, ...]:
    """Return the indices of replicas, each of them once.

    Parameters
    ----------
    replicas : int or iterable of int
        How many, or the indices of which.

    Returns
    -------
    tuple of int
        At least one.

    Raises
    ------
    ConfigurationError
        If there is none, one comes twice, or one is no whole number from 0.
    """
    expected = (
        f"how many (int), at most {_MOST_REPLICAS:,}, or the indices of which, whole numbers from 0, since they address the "
        "randomness of each replica; pass 4 or [0, 3], for example"
    )
    if is_number(replicas, Integral) and replicas <= _MOST_REPLICAS:
        chosen = tuple(range(int(replicas)))
    else:
        chosen = listed("replicas", replicas, expected)
        if not all(is_number(each, Integral) and 0 <= each < 2**63 for each in chosen):
            raise ConfigurationError(f"replicas={shown(replicas)}: expected {expected}")
    if not chosen:
        raise ConfigurationError(f"replicas={shown(replicas)}: expected at least one")
    if len(set(chosen)) < len(chosen):
        raise ConfigurationError(
            f"replicas={shown(replicas)}: expected each index once, since two replicas of one index draw the same noise and "
            "are copies of each other; leave the repeated ones out"
        )
    return tuple(int(each) for each in chosen)


def as_weights(weights: Any) -> Tensor:
    """Return weights as a tensor.

    Parameters
    ----------
    weights : array, shape (replica, parameter)
        What a user gives: an array, a tensor, lists.

    Returns
    -------
    Tensor, shape (replica, parameter)
        In float64, but for tensors, which stay what and where they are.

    Raises
    ------
    ConfigurationError
        If they are no numbers.
    """
    if isinstance(weights, Tensor) and weights.is_floating_point():
        return weights.detach()
    expected = "an array of numbers (replica, parameter), where to start"
    return torch.as_tensor(numbers("weights", weights, expected, finite=False))


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
    >>> from langevin_nn import AnisotropicNoise, QuadraticLandscape
    >>> landscape = QuadraticLandscape(np.eye(1), np.zeros((1, 1)), start=[1.0])
    >>> process = Process(landscape, AnisotropicNoise(torch.zeros(1, 1)), learning_rate=0.5)
    >>> process.advance(process.start(replicas=1, seed=0), steps=2).weights
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
        self.noise.check(self.landscape)
        self.noise.check_rates(self.learning_rate, self.time_step)
        self._check_scale()
        self._check_calculus()
        self.update.check(self)

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
            start = as_weights(weights).to(self.landscape.device, self.landscape.dtype).clone()
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
        broken = int((~torch.isfinite(start)).sum())
        if broken:
            raise ConfigurationError(
                f"weights have {broken} entries that are NaN or infinite: expected finite numbers, since a replica that "
                "starts outside them never returns; start elsewhere"
            )
        diverged = torch.zeros(len(indices), dtype=torch.bool, device=start.device)
        with single_threaded_products(), torch.no_grad():
            memories = (self.update.start(start), self.noise.start(self.landscape, start))
        return State(0, start, *memories, seeds, indices, diverged)

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
        ratio = self.noise_ratio
        noise = self.noise.over(self.time_step)
        if isinstance(noise, AdditiveNoise):
            increment, memory = noise.increment(self.landscape, weights, memory, key)
            return torch.add(self.drift(weights), increment, alpha=ratio), memory
        assert isinstance(self.landscape, EmpiricalLandscape)
        if self.is_fused:
            coefficients, indices, memory = self.fused_weights(memory, key)
            return self.landscape.weighted_gradient(weights, coefficients, indices), memory
        assert isinstance(self.noise, SampleWeightNoise)
        drawn, memory = self.noise.sample_weights(self.landscape, memory, key)
        n = self.landscape.n_samples
        kick = self.landscape.weighted_gradient(weights, drawn.spread(n) - 1 / n)
        return torch.add(self.drift(weights), kick, alpha=ratio), memory

    @property
    def is_fused(self) -> bool:
        """Whether one weighted pass makes drift and noise together."""
        return (
            isinstance(self.noise, SampleWeightNoise)
            and type(self).stochastic_gradient is Process.stochastic_gradient
            and type(self.drift) is GradientDrift
            and self.drift.landscape is self.landscape
        )

    def fused_weights(self, memory: Any, key: Key) -> tuple[Tensor, Tensor | None, Any]:
        """Return the sample weights of drift and noise together, 1/N + √(α/Δt) (c_k − 1/N).

        Parameters
        ----------
        memory : object
            What the noise source remembers.
        key : Key
            Address of the update.

        Returns
        -------
        coefficients : Tensor, shape (replica, row)
            Of the samples in `indices`, or of all.
        indices : Tensor of int64 or None, shape (replica, row)
            Which samples.
        memory : object
            For the next update.
        """
        assert isinstance(self.noise, SampleWeightNoise)
        assert isinstance(self.landscape, EmpiricalLandscape)
        ratio, n = self.noise_ratio, self.landscape.n_samples
        drawn, memory = self.noise.sample_weights(self.landscape, memory, key)
        if ratio == 1:
            return drawn.coefficients, drawn.indices, memory
        return 1 / n + ratio * (drawn.spread(n) - 1 / n), None, memory

    @property
    def takes_minibatches(self) -> bool:
        """Whether an update is the mean gradient over a minibatch."""
        noise = self.noise
        own = isinstance(noise, Minibatches) and type(noise).sample_weights is Minibatches.sample_weights
        return own and self.is_fused and self.noise_ratio == 1

    @property
    def captured(self) -> bool:
        """Whether updates run in blocks that are captured as a graph: on a GPU, where drift, noise and rule allow it."""
        update = self.update
        return (
            self.landscape.device.type == "cuda" and isinstance(update, SteppedUpdate) and update.can_be_captured(self)
        )

    @property
    def shares(self) -> str | None:
        """Names what computes drift and noise: processes of equal names advance in one batch, other ones by themselves.

        They may differ in labels, learning rate, seeds and initial weights.
        """
        if not (self.is_fused and isinstance(self.landscape, EmpiricalLandscape)):
            return None
        problem = self.landscape.problem
        if problem is None or problem.identity is None or not isinstance(self.update, SteppedUpdate):
            return None
        return f"{problem.identity} {self.noise} {self.update} {self.noise_ratio == 1}"

    def advance(self, state: State, steps: int, on_divergence: Literal["raise", "mask"] = "raise") -> State:
        """Make a block of updates.

        Parameters
        ----------
        state : State
            Before.
        steps : int
            How many.
        on_divergence : {"raise", "mask"}, optional
            Whether a replica that leaves the finite numbers stops the run, or becomes NaN while the others go on.

        Returns
        -------
        State
            After.

        Raises
        ------
        UnstableTrajectory
            With `on_divergence` "raise", naming the replica and the step.
        """
        (after,) = advance_together([self], [state], steps, [on_divergence])
        if isinstance(after, UnstableTrajectory):
            raise after
        return after


def advance_together(
    processes: Sequence[Process],
    states: Sequence[State],
    steps: int,
    on_divergence: Sequence[Literal["raise", "mask"]],
) -> list[State | UnstableTrajectory]:
    """Make a block of updates of several processes, in one batched computation where they share one.

    Parameters
    ----------
    processes : sequence of Process
        With equal `Process.shares`, unless there is only one.
    states : sequence of State
        Of each, all at the same step.
    steps : int
        How many.
    on_divergence : sequence of {"raise", "mask"}
        Whether a replica that leaves the finite numbers stops its process, or becomes NaN while the others go on.

    Returns
    -------
    list of State or UnstableTrajectory
        Of each process, the bits that it has alone.
    """
    found: list[State | UnstableTrajectory] = list(states)
    end = states[0].step + steps
    with single_threaded_products(), torch.no_grad():
        while waiting := [k for k, each in enumerate(found) if isinstance(each, State) and each.step < end]:
            before = {k: each for k in waiting if isinstance(each := found[k], State)}
            step = min(each.step for each in before.values())
            group = [k for k in waiting if before[k].step == step]
            update = processes[group[0]].update
            if isinstance(update, SteppedUpdate):
                after = update.advance_together([(processes[k], before[k]) for k in group], end - step)
            else:
                after = [processes[k].update.advance(processes[k], before[k], end - step) for k in group]
            for k, state in zip(group, after, strict=True):
                found[k] = _checked(processes[k], before[k], state, on_divergence[k])
    return found


def _checked(process: Process, before: State, state: State, on_divergence: str) -> State | UnstableTrajectory:
    fresh = state.diverged & ~before.diverged
    if not bool(fresh.any()):
        return state
    if on_divergence == "raise":
        replica = state.replicas[int(torch.nonzero(fresh)[0, 0])]
        return UnstableTrajectory(replica, state.step, process.time_step)
    masked = state.weights.masked_fill(state.diverged[:, None], torch.nan)
    return state.replaced(state.step, masked, state.update_memory, state.noise_memory, state.diverged)
