"""A process: drift + noise + update rule on a landscape."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Iterable, Iterator
from copy import copy
from dataclasses import dataclass, field, replace
from math import inf, sqrt
from typing import Any, Literal, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from langevin_nn.checks import instance, kind_of, number, one_of, text
from langevin_nn.draws import draws_at
from langevin_nn.drift import Drift, GradientDrift
from langevin_nn.errors import ConfigurationError
from langevin_nn.landscape import EmpiricalLandscape, Landscape
from langevin_nn.landscape.weights import as_weights
from langevin_nn.noise import AdditiveNoise, ForwardNoise, Noise, SampleWeightNoise, SampleWeights, SumNoise
from langevin_nn.rates import Constant, Rate, Times, as_rate
from langevin_nn.readable import Readable
from langevin_nn.seeds import Key, Seeds, as_replicas, as_seeds
from langevin_nn.threads import single_threaded_products
from langevin_nn.update import Plain, State, Update
from langevin_nn.update.state import shape_of

__all__ = ["Process"]

_NOISES = (AdditiveNoise, SampleWeightNoise, ForwardNoise)

_LONGEST = 2**27  # updates of a run with a schedule


@dataclass(frozen=True, eq=False)
class Process(Readable):
    """dw = −∇L dt + √(α C) dW at time step Δt, or w ← w − α Σ c_k ∇ℓ_k at Δt = α.

    Where drift and noise share a landscape and the noise is a law of sample weights, both come from one weighted
    backward pass with coefficients 1/N + √(α/Δt) (c_k − 1/N); where they do not, both are evaluated.

    Parameters
    ----------
    landscape : Landscape
        Where the noise comes from, and what is measured.
    noise : Noise
        The noise source.
    learning_rate : float or Rate
        α, in units of time; sets the noise. Of a `Rate`, each update has its own; see `langevin_nn.rates`.
    drift : Drift, optional
        The gradient of `landscape` unless said.
    update : Update, optional
        Plain steps unless said.
    time_step : float or Rate, optional
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
    >>> from langevin_nn import advance
    >>> from langevin_nn.landscape import QuadraticLandscape
    >>> from langevin_nn.noise import AnisotropicNoise
    >>> landscape = QuadraticLandscape(np.eye(1), np.zeros((1, 1)), start=[1.0])
    >>> process = Process(landscape, AnisotropicNoise(torch.zeros(1, 1)), learning_rate=0.5)
    >>> advance(process, process.start(replicas=1, seed=0), steps=2).weights
    tensor([[0.2500]], dtype=torch.float64)
    >>> process
    Process(AnisotropicNoise(factor=float64[1, 1]), learning_rate=0.5, landscape=QuadraticLandscape(1 parameter, float64))
    """

    landscape: Landscape
    noise: Noise
    learning_rate: Any  # a number, or a Rate, of which `at` makes one
    drift: Drift = None  # type: ignore[assignment]  # filled in below
    update: Update = field(default_factory=Plain)
    time_step: Any = 0.0
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
        if not isinstance(self.learning_rate, Rate):
            object.__setattr__(self, "learning_rate", number("learning_rate", self.learning_rate, expected, above=0))
        if not isinstance(self.time_step, Rate):
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
        self.at(0)._check_parts()

    def _check_parts(self) -> None:
        """Raise where parts do not fit together at their rates."""
        for part in self.noise.parts:
            instance(
                "noise", part, _NOISES, "an AdditiveNoise, a SampleWeightNoise or a ForwardNoise, or a sum of such"
            )
        self.noise.check(self.landscape)
        self.noise.check_rates(self.learning_rate, self.time_step)
        self._check_scale()
        self._check_pass()
        self._check_calculus()
        self.update.check(self.landscape, self.drift, self.noise)
        self.update.check_rates(self.learning_rate, self.time_step)

    @property
    def has_schedule(self) -> bool:
        """Whether a rate, a batch size or a temperature changes along the run."""
        return isinstance(self.learning_rate, Rate) or isinstance(self.time_step, Rate) or bool(self.noise.rates)

    def at(self, step: int) -> Process:
        """Return the process as one update sees it, of which all rates are numbers.

        Parameters
        ----------
        step : int
            Number of updates made before it.

        Returns
        -------
        Process
            Itself where nothing changes.

        Raises
        ------
        ConfigurationError
            If a rate is not positive there.

        Examples
        --------
        >>> import numpy as np
        >>> from langevin_nn.landscape import QuadraticLandscape
        >>> from langevin_nn.noise import Silent
        >>> from langevin_nn.rates import Cosine
        >>> valley = QuadraticLandscape(np.eye(1), np.eye(1))
        >>> round(Process(valley, Silent(), learning_rate=Cosine(0.2, steps=4, final=0.1)).at(2).learning_rate, 3)
        0.15
        """
        if not self.has_schedule:
            return self
        found = copy(self)
        for name in ("learning_rate", "time_step"):
            rate = getattr(self, name)
            if isinstance(rate, Rate):
                expected = (
                    f"a positive, finite number at update {step}: let the schedule end above 0, or the run before it"
                )
                object.__setattr__(found, name, number(name, rate.at(step), expected, above=0))
        object.__setattr__(found, "noise", self.noise.at(step))
        return found

    def same_until(self, step: int) -> int:
        """Return up to which update all rates surely stay the same.

        Parameters
        ----------
        step : int
            From which on.

        Returns
        -------
        int
            The first update with others, as far as is known.
        """
        rates = (self.learning_rate, self.time_step, *self.noise.rates)
        return min((each.same_until(step) for each in rates if isinstance(each, Rate)), default=2**62)

    def check_until(self, last: int) -> None:
        """Raise where a rate is not positive, or parts do not fit, at an update of a run.

        Parameters
        ----------
        last : int
            How many updates the run has.

        Raises
        ------
        ConfigurationError
            At the first and the last update, and where a rate is smallest or largest.
        """
        rates = [each for each in (self.learning_rate, self.time_step, *self.noise.rates) if isinstance(each, Rate)]
        if rates and last > _LONGEST:
            raise ConfigurationError(
                f"the run would have {last:,} updates, with {rates[0]!r}: expected at most {_LONGEST:,}, "
                "since each is looked at before the run; run it in parts, or at one rate"
            )
        values = [each.along(np.arange(last, dtype=np.int64)) for each in rates]
        outermost = {int(each(found)) for found in values for each in (np.argmin, np.argmax)}
        for step in sorted({0, last - 1} | outermost) if rates else ():
            self.at(step)._check_parts()

    def clock(self, steps: Any) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return time, Σ Δt, and epoch, Σ (Δt/α) B/N, after some updates.

        Parameters
        ----------
        steps : array of int, shape (step,)
            How many.

        Returns
        -------
        time, epoch : ndarray, shape (step,)
            Epochs are NaN where there are no samples.
        """
        steps = np.atleast_1d(np.asarray(steps, dtype=np.int64))
        time = self.time_step.sums(steps) if isinstance(self.time_step, Rate) else steps * self.time_step
        if self.has_even_epochs:
            return time, steps * self.epochs_per_step
        assert isinstance(self.landscape, EmpiricalLandscape)
        every = np.arange(int(steps.max(initial=0)))
        ratio = as_rate(self.time_step).along(every) / as_rate(self.learning_rate).along(every)
        of_each = ratio * as_rate(self.noise.batch_size).along(every) / self.landscape.n_samples
        return time, np.concatenate([[0.0], np.cumsum(of_each)])[steps]

    @property
    def has_even_epochs(self) -> bool:
        """Whether all updates make equal parts of an epoch; not where the batch size, or Δt/α, changes."""
        size: Any = self.noise.batch_size
        if isinstance(size, Rate):
            return False
        if self.time_step is self.learning_rate:
            return True
        rate, step = as_rate(self.learning_rate), as_rate(self.time_step)
        return (
            not isinstance(self.landscape, EmpiricalLandscape)
            or step == rate
            or (isinstance(step, Times) and step.rate == rate)
            or (isinstance(rate, Constant) and isinstance(step, Constant))
        )

    def _said(self) -> Iterator[str]:
        yield f"{self.name}: {self.noise!r}" if self.name else repr(self.noise)
        if type(self.update) is not Plain or self.update.weight_decay:
            yield repr(self.update)
        if not (type(self.drift) is GradientDrift and self.drift.landscape is self.landscape):
            yield f"drift={self.drift!r}"
        yield f"learning_rate={self.learning_rate!r}"
        if self.time_step != self.learning_rate:
            yield f"time_step={self.time_step!r}"
        yield f"landscape={self.landscape!r}"

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

    def _check_pass(self) -> None:
        """Raise where a random forward pass does not give the drift."""
        in_the_pass = [each for each in self.noise.parts if isinstance(each, ForwardNoise)]
        if in_the_pass and not self._drifts_down:
            raise ConfigurationError(
                f"{in_the_pass[0]!r} with drift={self.drift!r}: expected the gradient of the landscape, since the drift is "
                "the mean of the very pass that is random; leave drift out, and give a decay of weights to the update rule"
            )

    def _check_scale(self) -> None:
        """Raise where an increment of the noise, or the clock in epochs, is beyond floating point, at either end."""
        for noise in self.noise.parts:
            self._check_scale_of(noise)

    def _check_scale_of(self, noise: Noise) -> None:
        rate, step = self.learning_rate, self.time_step
        try:
            factors = [step, step**noise.time_step_exponent, rate**noise.learning_rate_exponent, self._ratio(noise)]
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
        for part in (noise, update):
            one_of(f"calculus of {type(part).__name__}", part.calculus, names)
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
        """α/(1 − μ), of the first update; α without momentum."""
        return float(self.at(0).learning_rate / (1 - self.update.momentum))

    @property
    def epochs_per_step(self) -> float:
        """(Δt/α)·B/N, of the first update; NaN where there are no samples."""
        first = self.at(0)
        if first.batch_size is None or not isinstance(self.landscape, EmpiricalLandscape):
            return float("nan")
        return float(first.time_step / first.learning_rate * first.batch_size / self.landscape.n_samples)

    def start(self, replicas: int | Iterable[int], seed: int | Seeds, weights: Any = None) -> State:
        """Return the state from which replicas start.

        Parameters
        ----------
        replicas : int or iterable of int
            How many, or the indices of which: replica 3 is the same among 4 as among 400.
        seed : int or Seeds
            Owner of all randomness of the run.
        weights : array, shape (replica, parameter), or state dictionary, checkpoint file or State, optional
            Where to start; drawn by the landscape unless said. Of a network's state dictionary, a module or a checkpoint
            file, as in `langevin_nn.landscape.read_checkpoint`, all replicas start alike. A `State` goes on with its momenta
            and whatever else rule and noise remember.

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
        before = weights if isinstance(weights, State) else None
        if weights is None:
            start = self.landscape.initial_weights(indices, seeds)
        else:
            given = weights if before is None else before.weights
            start = as_weights(given, self.landscape, len(indices)).clone()
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
            memories = (self.update.start(start), self.at(0).noise.start(self.landscape, start))
        if before is not None:
            memories = self._memories_of(before, memories)
        return State(0, start, *memories, seeds, indices, outside.any(1))

    def thermal_start(
        self, replicas: int | Iterable[int], seed: int | Seeds, temperature: float, weights: Any = None
    ) -> State:
        """Return a state from which replicas start with velocities of Maxwell's law, v ~ N(0, T/m) in each direction.

        Parameters
        ----------
        replicas, seed, weights : object
            As in `start`.
        temperature : float
            T, in units of the loss.

        Returns
        -------
        State
            At step 0; to be passed on as ``weights=``.

        Raises
        ------
        ConfigurationError
            If the rule has no mass, or T is negative or not finite.

        Examples
        --------
        >>> import numpy as np
        >>> from langevin_nn.landscape import QuadraticLandscape
        >>> from langevin_nn.noise import ThermalNoise
        >>> from langevin_nn.update import BAOAB
        >>> process = Process(QuadraticLandscape(np.eye(1), np.eye(1)), ThermalNoise(0.5), 0.1, update=BAOAB(1.0))
        >>> round(float(process.thermal_start(20_000, 0, temperature=0.5).update_memory.var()), 1)
        0.5
        """
        if self.update.mass is None:
            raise ConfigurationError(
                f"{type(self.update).__name__} has no mass: expected a rule of underdamped dynamics, BAOAB or "
                "UnderdampedLangevin, whose velocities have a temperature; start others with start()"
            )
        temperature = number("temperature", temperature, "a finite number T ≥ 0, in units of the loss", least=0)
        state = self.start(replicas, seed, weights)
        draws = draws_at(Key(state.seeds, state.replicas, 0), state.weights)
        normals = draws.normals("velocities", state.weights.shape[1], 1)[0].to(state.weights)
        return replace(state, update_memory=sqrt(temperature / self.update.mass) * normals)

    def _memories_of(self, before: State, fresh: tuple[Any, Any]) -> tuple[Any, Any]:
        """Return what rule and noise remember of a state; noise of another kind begins anew, another rule is refused."""
        kept, noise = before.update_memory, before.noise_memory
        if shape_of(kept) != shape_of(fresh[0]):
            raise ConfigurationError(
                f"weights is a State whose rule remembers {shape_of(kept)}, and {type(self.update).__name__} "
                f"{shape_of(fresh[0])}: expected a state of the same rule and as many replicas, since momenta go on; pass "
                "state.weights to begin with none"
            )
        return kept, noise if type(noise) is type(fresh[1]) else fresh[1]

    def advance(self, state: State, steps: int, on_divergence: Literal["raise", "mask"] = "raise") -> State:
        """Make a block of updates: deprecated, call ``langevin_nn.advance(process, state, steps)``."""
        warnings.warn(
            "Process.advance(state, steps) is deprecated, since a process says what it is and not how it is computed: call "
            "langevin_nn.advance(process, state, steps); the next release has no method of that name",
            DeprecationWarning,
            stacklevel=2,
        )
        import langevin_nn  # here, since what is called lies above

        return langevin_nn.advance(self, state, steps, on_divergence)

    @property
    def noise_ratio(self) -> float:
        """What multiplies η where it is added to the gradient, which Δt multiplies: √(α/Δt) for noise of the gradient."""
        return self._ratio(self.noise)

    def _ratio(self, noise: Noise) -> float:
        if self.time_step == self.learning_rate and noise.learning_rate_exponent + noise.time_step_exponent == 1:
            return 1.0  # to the last bit
        of_rate, of_step = noise.learning_rate_exponent, noise.time_step_exponent - 1
        return float(self.learning_rate**of_rate * self.time_step**of_step)

    def driving_noise_strength(self, memory: Any, weights: Tensor, sample_trace: Tensor | None) -> Tensor:
        """Return the trace of the covariance of the noise, as of noise of the gradient, Δw = √(αΔt) η.

        Parameters
        ----------
        memory : object
            What the noise source remembers.
        weights : Tensor, shape (replica, parameter)
            Where.
        sample_trace : Tensor or None, shape (replica,)
            Tr Σ of the sample gradients there, where there are samples.

        Returns
        -------
        Tensor, shape (replica,) or (1,)
            Summed over sources.
        """
        total = torch.zeros(1, dtype=torch.float64)
        for part, own in zip(self.noise.parts, self._memories(memory), strict=True):
            strength = part.strength(own, self.landscape, weights, sample_trace)
            total = total.to(strength) + strength * part.strength_ratio(self.learning_rate)
        return total

    def _memories(self, memory: Any) -> tuple[Any, ...]:
        """Return what each source remembers."""
        return (memory,) if self.noise.parts == (self.noise,) else memory

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
        if not isinstance(self.noise, SumNoise):
            return self._with_drift(self.noise, weights, memory, key)
        memories, leading = list(memory), self.noise.leading
        seen = self.noise.seen(self.landscape, key)
        gradient, memories[leading] = self._with_drift(
            self.noise.terms[leading], weights, memory[leading], key.of_part(leading), seen
        )
        for k, each in enumerate(self.noise.terms):
            if k != leading and not isinstance(each, ForwardNoise):
                kick, memories[k] = self._kick(each, weights, memory[k], key.of_part(k))
                gradient = torch.add(gradient, kick, alpha=self._ratio(each))
        return gradient, tuple(memories)

    def _with_drift(
        self, noise: Noise, weights: Tensor, memory: Any, key: Key, seen: Landscape | None = None
    ) -> tuple[Tensor, Any]:
        """Return drift and the noise of one source, in one pass where they are one sum, of the landscape as it is seen."""
        if isinstance(noise, ForwardNoise):  # of a sum, the others have changed the landscape already
            assert isinstance(self.landscape, EmpiricalLandscape)
            seen = noise.seen(self.landscape, key) if seen is None else seen
            return seen.gradient(weights), memory
        seen, ratio = self.landscape if seen is None else seen, self._ratio(noise)
        if not (self._drifts_down and isinstance(noise, SampleWeightNoise)):
            kick, memory = self._kick(noise, weights, memory, key)
            drift = self.drift(weights) if seen is self.landscape else seen.gradient(weights)
            return torch.add(drift, kick, alpha=ratio), memory
        drawn, n, memory = self._sample_weights(noise, weights, memory, key)
        drawn = drawn if ratio == 1 else drawn.scaled(ratio, n)
        return seen.weighted_gradient(weights, drawn.coefficients, drawn.indices), memory  # type: ignore[attr-defined]

    def _kick(self, noise: Noise, weights: Tensor, memory: Any, key: Key) -> tuple[Tensor, Any]:
        """Return η of one source."""
        noise = noise.over(self.time_step)
        if isinstance(noise, AdditiveNoise):
            kick, memory = noise.increment(self.landscape, weights, memory, key)
            if not isinstance(kick, Tensor) or kick.shape != weights.shape:
                came = f"shape {tuple(kick.shape)}" if isinstance(kick, Tensor) else kind_of(kick)
                raise ConfigurationError(
                    f"{type(noise).__name__}.increment returned something of {came.removeprefix('of ')}: expected a tensor "
                    f"of shape (replica, parameter) = {tuple(weights.shape)}, which is added to the gradient, and what the "
                    "source remembers; check_noise in langevin_nn.testing says what else it must keep"
                )
            return kick, memory
        assert isinstance(self.landscape, EmpiricalLandscape)
        assert isinstance(noise, SampleWeightNoise)
        drawn, n, memory = self._sample_weights(noise, weights, memory, key)
        return self.landscape.weighted_gradient(weights, drawn.spread(n) - 1 / n), memory

    def _sample_weights(
        self, noise: SampleWeightNoise, weights: Tensor, memory: Any, key: Key
    ) -> tuple[SampleWeights, int, Any]:
        assert isinstance(self.landscape, EmpiricalLandscape)
        n = self.landscape.n_samples
        several, memory = noise.sample_weights(n, memory, draws_at(key, weights), 1)
        return several.at(0), n, memory

    @property
    def _drifts_down(self) -> bool:
        """Whether the drift is the gradient of the landscape, so that samples can be weighed for it, too."""
        return type(self.drift) is GradientDrift and self.drift.landscape is self.landscape

    @property
    def is_one_sum(self) -> bool:
        """Whether drift and noise are one sum over samples, Σ (1/N + √(α/Δt) (c_k − 1/N)) ∇ℓ_k."""
        return (
            isinstance(self.noise, SampleWeightNoise)
            and type(self).stochastic_gradient is Process.stochastic_gradient
            and self._drifts_down
        )
