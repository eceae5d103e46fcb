"""Randomness of the forward pass as noise: dropout, augmented inputs, redrawn labels, statistics of the minibatch."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from math import isclose
from typing import Any

import torch
from torch import Tensor

from langevin_nn.checks import instance, kind_of, listed, number
from langevin_nn.errors import ConfigurationError
from langevin_nn.gradients.forward import ForwardChange, batch_layers, dropout_layers
from langevin_nn.landscape import EmpiricalLandscape, Landscape, NetworkLandscape
from langevin_nn.landscape.forward import ForwardPass
from langevin_nn.noise.base import Noise
from langevin_nn.provenance import described_function
from langevin_nn.seeds import Key

__all__ = [
    "AugmentationNoise",
    "BatchStatistics",
    "DropoutNoise",
    "ForwardChange",
    "ForwardNoise",
    "LabelSmoothingNoise",
    "ModuleNoise",
]

Transform = Callable[[Any, torch.Generator], Any]
# What would be unknown of a function elsewhere: here torch's generators are seeded, which is tried.
_DRAWN = ("rand", "rand_like", "randn", "randn_like", "randint", "randint_like", "randperm")
_SEEDED = {f"torch.{name}" for name in (*_DRAWN, "bernoulli", "normal", "multinomial", "poisson")}


class ForwardNoise(Noise):
    """Noise of a forward pass that is itself random.

    It is neither a law of sample weights nor a vector that could be added: what a mask does to a gradient depends on which
    samples come through it. A source of this kind therefore changes the landscape as one update sees it (`seen`), and the
    weighted gradient is taken of that, so that drift, minibatch and the pass are one gradient of one pass, as in a loop of
    one's own. In ``ShuffledMinibatches(5) + DropoutNoise()`` the masks are those of the five samples; sources see what
    those before them have changed.

    The drift of such a process is the mean over all that is drawn, for dropout that over masks, which is another vector
    than the gradient of the landscape (that of a network in evaluation mode), and has no closed form; `noise_shares`
    estimates it, with the covariance, beside that of the minibatches. `strength` is NaN for the same reason, and losses and
    order parameters that are recorded are those of the landscape. It belongs to Δt = α: at shorter steps drift and noise
    would have to be told apart within one pass.

    Numbers are addressed. For each replica and update torch's generator is seeded with
    ``seeds.generator("forward pass", replica, step).integers(2**63)``; of a sum, its part number k has seeds of its own
    (`Key.of_part`), the first those that it has alone.
    """

    family = "forward"
    weak_order = 0.0

    @abstractmethod
    def seen(self, landscape: EmpiricalLandscape, key: Key) -> EmpiricalLandscape:
        """Return the landscape as one update sees it.

        Parameters
        ----------
        landscape : EmpiricalLandscape
            As sources before this one have changed it.
        key : Key
            Address of the update.

        Returns
        -------
        EmpiricalLandscape
            Whose `weighted_gradient` is that of the update, with one row for each replica of the key.
        """

    def seeds(self, key: Key) -> tuple[int, ...]:
        """Return with which number torch's generator is seeded for each replica.

        Parameters
        ----------
        key : Key
            Address of the update.

        Returns
        -------
        tuple of int
            Below 2⁶³; of each, torch takes the last 32 bits on a CPU.
        """
        return tuple(int(each.integers(2**63)) for each in key.generators("forward pass"))

    def check_rates(self, learning_rate: float, time_step: float) -> None:  # noqa: D102
        if not isclose(time_step, learning_rate, rel_tol=1e-6):
            raise ConfigurationError(
                f"time_step={time_step:g} at learning_rate={learning_rate:g} with {type(self).__name__}: expected "
                f"{learning_rate:g}, the learning rate, since a random forward pass gives drift and noise as one gradient, "
                "whose noise cannot be scaled alone; leave time_step out"
            )

    def strength(self, memory: Any, landscape: Landscape, weights: Tensor, sample_trace: Tensor | None) -> Tensor:
        """Return NaN: it is measured by `noise_shares`, together with that of the minibatches."""
        return torch.full((1,), torch.nan, dtype=torch.float64)


class ModuleNoise(ForwardNoise):
    """Noise of a network's forward pass, told by `change` as what that does otherwise; a source of one's own extends this."""

    @abstractmethod
    def change(self, landscape: NetworkLandscape) -> ForwardChange:
        """Return what the pass does otherwise.

        Parameters
        ----------
        landscape : NetworkLandscape
            Of the network.

        Returns
        -------
        ForwardChange
            The same for all updates.

        Raises
        ------
        ConfigurationError
            If the network has nothing that could be random.
        """

    def seen(self, landscape: EmpiricalLandscape, key: Key) -> EmpiricalLandscape:  # noqa: D102
        assert isinstance(landscape, NetworkLandscape | ForwardPass)
        network = landscape.landscape if isinstance(landscape, ForwardPass) else landscape
        return landscape.through(self.change(network), self.seeds(key))

    def check(self, landscape: Landscape) -> None:  # noqa: D102
        if not isinstance(landscape, NetworkLandscape):
            raise ConfigurationError(
                f"{type(self).__name__} on {type(landscape).__name__}, which has no forward pass: expected a "
                "NetworkLandscape; add its noise to that of a network with its data"
            )
        self.change(landscape)


@dataclass(frozen=True)
class DropoutNoise(ModuleNoise):
    """The network's own dropout, active while gradients are made: η of the masks that are drawn.

    The landscape is that of the network in evaluation mode. Probabilities are those of the layers. Dropout as a regulariser:
    Srivastava et al. (2014, jmlr.org/papers/v15/srivastava14a.html); its noise in the gradient: Wei, Kakade & Ma (2020,
    arXiv:2002.12915).

    Parameters
    ----------
    layers : str or tuple of str, optional
        Patterns of layer names (``"1"``, ``"*.attention"``) that are put into training mode, themselves alone, for modules
        of one's own that draw where ``self.training`` says so. Unless said, all of torch's dropout layers, attention and
        recurrent layers with dropout, torchvision's ``StochasticDepth`` and timm's ``DropPath``, whose probability is above
        0.

    Raises
    ------
    ConfigurationError
        If there is no such layer, or it normalises over the batch.

    Examples
    --------
    >>> import torch
    >>> from torch import nn
    >>> from langevin_nn import NetworkLandscape, Process, simulate
    >>> from langevin_nn.noise import ShuffledMinibatches
    >>> from langevin_nn.observables import Losses
    >>> network = nn.Sequential(nn.Linear(2, 8), nn.ReLU(), nn.Dropout(0.5), nn.Linear(8, 2)).eval()
    >>> landscape = NetworkLandscape(network, torch.randn(20, 2), torch.arange(20) % 2, start="drawn")
    >>> process = Process(landscape, ShuffledMinibatches(5) + DropoutNoise(), learning_rate=0.1)
    >>> simulate(process, steps=4, replicas=2, observables=[Losses()], progress=False).train_loss.shape
    (2, 5, 3)
    """

    layers: str | tuple[str, ...] = ()

    def __post_init__(self) -> None:
        expected = (
            "names of layers or patterns of them, such as '*.dropout', since these are put into training mode; leave it "
            "out for all dropout layers"
        )
        given = (self.layers,) if isinstance(self.layers, str) else listed("layers", self.layers, expected)
        for each in given:
            instance("a name in layers", each, str, expected)
        object.__setattr__(self, "layers", given)

    def change(self, landscape: NetworkLandscape) -> ForwardChange:  # noqa: D102
        network = landscape.layers[""]
        if not self.layers:
            found = dropout_layers(network)
            if not found:
                raise ConfigurationError(
                    "the network has no dropout layer of probability above 0: expected one, since it draws what is random; "
                    "add nn.Dropout(p), or name layers of your own that draw in training mode by DropoutNoise(layers=...)"
                )
            return ForwardChange(layers=found)
        named = {each: [name for name in landscape.layers if fnmatchcase(name, each)] for each in self.layers}
        for pattern, names in named.items():
            if not names:
                known = ", ".join(map(repr, list(landscape.layers)[1:13]))
                raise ConfigurationError(
                    f"no layer is called {pattern!r}: expected one of {known}, the layers that there are; see "
                    "landscape.layers"
                )
        chosen = tuple(dict.fromkeys(name for names in named.values() for name in names))
        mixing = set(batch_layers(network)).intersection(chosen)
        if mixing:
            raise ConfigurationError(
                f"layer {min(mixing)!r} normalises over the batch: expected layers that draw for each sample; leave it "
                "out, and add BatchStatistics() if it is to be in training mode"
            )
        return ForwardChange(layers=chosen)


@dataclass(frozen=True)
class AugmentationNoise(ModuleNoise):
    """Inputs that are transformed at random whenever they are used, as crops, flips or added noise do.

    The drift is the mean gradient over all transformed samples, of which the data hold one version.

    Parameters
    ----------
    transform : callable
        (inputs, generator) → inputs of the same shape and type: all those of one minibatch, shape (row, ...). Random
        numbers come from the ``torch.Generator`` that it is given, or from torch's own, which is seeded alike
        (torchvision's transforms take it); whatever else it draws from is refused.

    Raises
    ------
    ConfigurationError
        If it cannot be called, fails, returns other shapes or types, or draws elsewhere.

    Examples
    --------
    >>> import torch
    >>> def flipped(images, generator):
    ...     chosen = torch.rand(len(images), generator=generator) < 0.5
    ...     return torch.where(chosen[:, None, None, None], images.flip(-1), images)
    >>> AugmentationNoise(flipped)
    AugmentationNoise(transform=flipped)
    """

    transform: Transform

    def __post_init__(self) -> None:
        if not callable(self.transform):
            raise ConfigurationError(
                f"transform is {kind_of(self.transform)}: expected a function (inputs, generator) → inputs, which is called "
                "whenever samples are used; wrap what you have in one"
            )

    @property
    def description(self) -> dict[str, Any]:
        """What a file says of it: another transform is another run."""
        described = described_function(self.transform)
        unknown = [each for each in described.pop("unknown", []) if each not in _SEEDED]
        return {"transform": described | ({"unknown": unknown} if unknown else {})}

    def change(self, landscape: NetworkLandscape) -> ForwardChange:  # noqa: D102
        return ForwardChange(samples=lambda inputs, labels, generator: (self.transform(inputs, generator), labels))

    def check(self, landscape: Landscape) -> None:  # noqa: D102
        super().check(landscape)
        assert isinstance(landscape, NetworkLandscape)
        inputs: Any = landscape.inputs
        if not isinstance(inputs, Tensor):
            return  # of several inputs the network says what it cannot take
        few = inputs[: min(2, landscape.n_samples)]
        versions = [self._tried(few, landscape, seed) for seed in (0, 0, 1)]
        found = versions[0]
        if not isinstance(found, Tensor) or (found.shape, found.dtype) != (few.shape, few.dtype):
            what = f"{tuple(found.shape)}, {found.dtype}" if isinstance(found, Tensor) else kind_of(found)
            raise ConfigurationError(
                f"the transform returned {what} for inputs of {tuple(few.shape)}, {few.dtype}: expected the same shape and "
                "type, since the network takes the one like the other; convert what it returns"
            )
        if not torch.equal(versions[0], versions[1]):
            raise ConfigurationError(
                "the transform returned other inputs from the same seed: expected random numbers of the generator that it is "
                "given, or of torch's own, since a run is to be repeated and resumed; draw from no other"
            )

    def _tried(self, few: Tensor, landscape: NetworkLandscape, seed: int) -> Any:
        seen: list[Any] = []

        def transform(inputs: Any, labels: Tensor, generator: torch.Generator) -> tuple[Any, Tensor]:
            seen.append(self.transform(inputs.clone(), generator))
            return inputs, labels

        pass_ = landscape.through(ForwardChange(samples=transform), [seed] * len(landscape.labels))
        weights = landscape.own_weights[None].expand(len(landscape.labels), -1)
        rows = torch.arange(len(few)).to(weights).long().expand(len(weights), -1)
        try:
            pass_.weighted_gradient(weights, torch.ones_like(rows), rows)
        except Exception as error:  # whatever a user's function raises
            if seen:
                raise
            raise ConfigurationError(
                f"the transform fails on inputs of shape {tuple(few.shape)} ({type(error).__name__}: "
                f"{(str(error).splitlines() or [''])[0]}): expected a function (inputs, generator) → inputs of some "
                "samples at once; see what shape and type it takes"
            ) from error
        return seen[0]


@dataclass(frozen=True)
class LabelSmoothingNoise(ModuleNoise):
    """Each label is replaced with probability p by another class, all alike, whenever it is used.

    For the cross-entropy the drift is the gradient of the loss with smoothed labels, 1 − p on the given class and p/(M − 1)
    on each of the M − 1 others, which is torch's ``label_smoothing`` of p M/(M − 1). DisturbLabel of Xie et al. (2016, doi
    10.1109/CVPR.2016.514).

    Parameters
    ----------
    probability : float
        p.

    Raises
    ------
    ConfigurationError
        If p is none, or labels are not one class a sample.
    """

    probability: float

    def __post_init__(self) -> None:
        expected = "a probability from 0 to 1, with which a label is replaced by another class"
        object.__setattr__(self, "probability", number("probability", self.probability, expected, least=0, most=1))

    def change(self, landscape: NetworkLandscape) -> ForwardChange:  # noqa: D102
        n_classes = landscape.n_classes
        if n_classes is None or n_classes < 2:
            raise ConfigurationError(
                f"LabelSmoothingNoise(probability={self.probability:g}) where labels are not one class a sample: expected "
                "classes, since a label is replaced by another one; add noise to labels of other kinds by a loss of your own"
            )

        def redrawn(inputs: Any, labels: Tensor, generator: torch.Generator) -> tuple[Any, Tensor]:
            uniform = labels.new_empty(labels.shape, dtype=torch.float64).uniform_(generator=generator)
            others = torch.empty_like(labels).random_(1, n_classes, generator=generator)
            return inputs, torch.where(uniform < self.probability, (labels + others) % n_classes, labels)

        return ForwardChange(samples=redrawn)


@dataclass(frozen=True)
class BatchStatistics(ModuleNoise):
    """Batch normalisation in training mode: each minibatch is normalised by its own means and variances.

    The minibatch enters the forward pass: an update is the gradient of the mean loss of a minibatch that is normalised by
    its own statistics. The drift is the mean of these over minibatches, which is no average of sample gradients and depends
    on B; `noise_shares` estimates it with its error. Without minibatches, statistics are those of all samples. Ioffe &
    Szegedy (2015, arXiv:1502.03167).

    Running means and variances are no weights that are trained, and no update changes them. Losses that are recorded
    are those in evaluation mode with the statistics that the network came with, or, with
    ``Losses(batch_statistics="recomputed")``, with those of the training data at the present weights. Order parameters are
    refused, since sample gradients are undefined.

    Raises
    ------
    ConfigurationError
        If the network has no such layer, or samples are weighed otherwise than by minibatches.
    """

    def change(self, landscape: NetworkLandscape) -> ForwardChange:  # noqa: D102
        found = batch_layers(landscape.layers[""])
        if not found:
            raise ConfigurationError(
                "the network has no batch normalisation: expected a layer such as nn.BatchNorm2d, whose statistics are "
                "those of the minibatch; leave BatchStatistics() out"
            )
        return ForwardChange(batch_statistics=found)

    def check_size(self, landscape: NetworkLandscape, batch_size: int | None) -> None:
        """Raise where a minibatch has no statistics.

        Parameters
        ----------
        landscape : NetworkLandscape
            Of the network.
        batch_size : int or None
            B.

        Raises
        ------
        ConfigurationError
            If there is one value only of what is normalised.
        """
        rows = torch.arange(min(batch_size or 1, 2)).expand(len(landscape.labels), -1).to(landscape.labels)
        weights = landscape.own_weights[None].expand(len(rows), -1)
        try:
            landscape.through(self.change(landscape), [0] * len(rows)).weighted_gradient(
                weights, torch.ones_like(rows), rows.long()
            )
        except ValueError as error:
            raise ConfigurationError(
                f"batch normalisation fails on a minibatch of {batch_size} ({(str(error).splitlines() or [''])[0]}): "
                "expected at least 2 values of what is normalised, since one has no variance; take a larger batch_size"
            ) from error
