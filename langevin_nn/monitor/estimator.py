"""Order parameters from the backward passes of somebody else's loop."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import inf
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from langevin_nn.gradients import SampleGradients
from langevin_nn.gradients.forward import batch_layers
from langevin_nn.monitor.measures import of_layers, of_pass
from langevin_nn.monitor.probe import Probe
from langevin_nn.monitor.together import Ranks
from langevin_nn.seeds import Seeds

__all__ = ["Estimator"]

# Of the largest gradient of a layer, between the sum of its samples' gradients and what autograd accumulated.
_ROUNDING = {torch.float64: 1e-7, torch.float32: 1e-2, torch.float16: 0.3, torch.bfloat16: 0.3}
LEAST_MEASURED = 8
_CANCELLED = 1e-3  # of the largest weight of a sample's loss, where their mean is none to divide by
_MOST_LEFT_OUT = 0.1  # of the parameters, before it is said

Arrays = dict[str, NDArray[np.float64]]
Warn = Callable[[str, str], None]


class Estimator:
    """What estimates the order parameters of a network's minibatch ensemble.

    Parameters
    ----------
    network : torch.nn.Module
        The network.
    n_samples : int
        N.
    measured_samples : int
        Samples of a minibatch whose gradients are compared.
    augmented : bool
        Whether samples come otherwise at each pass.
    accumulation : int
        Parts of a minibatch.
    seed : int
        Which samples are compared.
    warn : callable
        (reason, sentence): takes down what could not be estimated.
    ranks : Ranks
        The processes that share each minibatch.
    """

    def __init__(
        self,
        network: nn.Module,
        n_samples: int,
        measured_samples: int,
        augmented: bool,
        accumulation: int,
        seed: int,
        warn: Warn,
        ranks: Ranks,
    ) -> None:
        self._network, self._n, self._measured, self._augmented = network, n_samples, measured_samples, augmented
        self._accumulation, self._seeds, self._warn = accumulation, Seeds(seed), warn
        self._ranks = ranks
        self._left_out: frozenset[str] = frozenset()
        self._verified = ranks.size > 1  # there, gradients are already those of all processes when a pass ends
        self._parts: list[tuple[Tensor, int]] = []
        self._are_small = False  # parts of too few samples to compare with one another
        layers = Probe.layers_of(network)
        self.layers, self.n_measured = tuple(layers), sum(layers.values())

    def probe(self) -> Probe:
        """Return hooks for the coming pass."""
        return Probe(self._network, self._left_out)

    @property
    def is_by_parts(self) -> bool:
        """Whether estimates are to come from parts of a minibatch, since its samples have no gradients of their own."""
        has_parts = self._accumulation > 1 and self._ranks.size == 1
        return has_parts and (self._are_small or bool(batch_layers(self._network)))

    def before(self, *, for_part: bool = False) -> dict[str, Tensor]:
        """Return copies of the gradients before a pass, where what it adds will be asked for."""
        if self._verified and not for_part:
            return {}
        return {name: each.grad.detach().clone() for name, each in self._trained.items() if each.grad is not None}

    @property
    def _trained(self) -> dict[str, Tensor]:
        return {name: each for name, each in self._network.named_parameters() if each.requires_grad}

    def of_samples(
        self, probe: Probe, factors: Tensor, index: Tensor, before: Mapping[str, Tensor], step: int, cohort: Any
    ) -> tuple[Arrays, Arrays] | None:
        """Estimate from the gradients of single samples.

        Parameters
        ----------
        probe : Probe
            What it saw.
        factors : Tensor, shape (sample,)
            The derivative of what was differentiated by each sample's loss.
        index : Tensor of int, shape (sample,)
            Which samples.
        before : mapping of str to Tensor
            The gradients before.
        step : int
            Updates made.
        cohort : ndarray of bool, shape (n_samples,), or None
            Which samples are taken to be mislabeled.

        Returns
        -------
        tuple of two dict, or None
            Variables of the root and of the layers; None where nothing can be estimated, which is taken down.
        """
        if probe.mixing:
            what = (
                f"layer {probe.mixing[0]!r} mixes the samples of a minibatch: these have no gradients of their own, and "
                "nothing is estimated; accumulate the gradient over parts of the minibatch, say accumulation= their "
                "number, and estimates come from how the parts differ"
            )
            self._warn("passes through layers that mix samples", what)
            return None
        mean = float(factors.double().mean())
        if not bool(torch.isfinite(factors).all()) or abs(mean) <= _CANCELLED * float(factors.abs().max()):
            what = "losses of samples have no finite weight on average in what is differentiated: nothing is estimated there"
            self._warn("passes without a gradient", what)
            return None
        count = min(self._measured, len(factors))
        if count < LEAST_MEASURED:
            self._are_small = count == len(factors)
            instead = "nothing is estimated there"
            if self.is_by_parts:
                instead = f"from the next update on estimates come from how {self._accumulation} parts differ"
            what = f"a minibatch has {count} samples: expected {LEAST_MEASURED} or more, so {instead}"
            self._warn("minibatches that are too small", what)
            return None
        self._verify(probe, factors, before)
        chosen = self._seeds.generator("monitor", self._ranks.rank, step).permutation(len(factors))[:count]
        rows = torch.as_tensor(np.sort(chosen), device=factors.device)
        gradients = probe.sample_gradients(factors, rows)
        gram = None if gradients is None else gradients.grams_by_layer().sum(0).cpu().numpy()
        if gradients is None or gram is None:
            what = (
                "no layer could be measured: expected linear, convolutional, embedding or normalisation layers that are "
                "called with samples along the first dimension"
            )
            self._warn("passes without a measured layer", what)
            return None
        if not np.isfinite(gram).all():
            self._warn(
                "gradients that are not finite", "gradients of samples are not finite: nothing is estimated there"
            )
            return None
        population = inf if self._augmented or probe.random else float(self._n)
        size = len(factors) * self._accumulation * self._ranks.size
        wrong = None if cohort is None else cohort[index[rows.to(index.device)].cpu().numpy()]
        values = of_pass(gram, population, size, wrong)
        values["measured_samples"] = np.array([float(count)])
        return values, of_layers(gradients, self.layers, population, size)

    def _verify(self, probe: Probe, factors: Tensor, before: Mapping[str, Tensor]) -> None:
        """Hold sums of sample gradients against the gradients of the first pass, and leave out layers where they differ."""
        if self._verified:
            return
        self._verified = True
        share = self.n_measured / max(1, sum(each.numel() for each in self._trained.values()))
        if share < 1 - _MOST_LEFT_OUT:
            what = (
                f"gradients of {share:.0%} of the parameters are measured, those of linear, convolutional, embedding and "
                "normalisation layers: order parameters are of these, and attention, recurrent layers and free parameters "
                "have no part in them"
            )
            self._warn("parameters that are not measured", what)
        gradients = probe.sample_gradients(factors, torch.arange(len(factors), device=factors.device))
        differing = (
            [] if gradients is None else self._differing(probe, gradients, float(factors.double().mean()), before)
        )
        if differing:
            self._left_out = frozenset(differing)
            what = (
                f"layers {', '.join(differing)} have another gradient than their samples add up to: expected the same, so "
                "they are left out; something besides the losses is differentiated there, gradients were clipped or set to "
                "zero before the context was left, which ends right after backward(), or layers are used in another way"
            )
            self._warn("layers that are left out", what)
            probe.leave_out(differing)

    def _differing(
        self, probe: Probe, gradients: SampleGradients, mean: float, before: Mapping[str, Tensor]
    ) -> list[str]:
        weights = torch.full((1, gradients.n_samples), mean, dtype=torch.float64, device=gradients.device)
        sums = gradients.split(gradients.combine(weights))
        found = []
        for layer, total in sums.items():
            tensors = probe.tensors[layer]
            made = torch.cat([_grown(each, before.get(name)).double().flatten() for name, each in tensors.items()])
            rounding = max(_ROUNDING[each] for each in (*probe.precisions, *(each.dtype for each in tensors.values())))
            held = torch.cat([each.detach().double().flatten() for each in tensors.values()])
            if float(_unexplained(made - total[0].to(made), held)) > rounding * float(made.norm()):
                found.append(layer)
        return found

    def of_part(self, before: Mapping[str, Tensor], size: int) -> Arrays | None:
        """Take one part of a minibatch, and with the last one estimate from all.

        Parameters
        ----------
        before : mapping of str to Tensor
            The gradients before it.
        size : int
            Samples in it.

        Returns
        -------
        dict or None
            Variables of the root; None until the last part, or where nothing can be estimated.
        """
        grown = [_grown(each, before.get(name)).double().flatten() for name, each in self._trained.items()]
        self._parts.append((torch.cat(grown) * self._accumulation, size))
        if len(self._parts) < self._accumulation:
            return None
        (gradients, sizes), self._parts = zip(*self._parts, strict=True), []
        if len(set(sizes)) > 1:
            what = f"parts of {min(sizes)} to {max(sizes)} samples: expected one size, so nothing is estimated there"
            self._warn("parts of different sizes", what)
            return None
        rows = torch.stack(gradients)
        gram = (rows @ rows.T).cpu().numpy()
        if not np.isfinite(gram).all():
            self._warn("gradients that are not finite", "gradients of parts are not finite: nothing is estimated there")
            return None
        values = of_pass(gram, inf, self._accumulation, None)
        for name in ("gradient_noise_scale", "gradient_noise_scale_standard_error"):
            values[name] = values[name] * np.mean(sizes)  # counted in samples, not in parts
        values["measured_samples"] = np.array([float(sum(sizes))])
        return values

    def forget_parts(self) -> None:
        """Begin another minibatch."""
        self._parts = []

    @property
    def memory(self) -> dict[str, Any]:
        """What it takes to go on."""
        return {"left_out": sorted(self._left_out), "verified": self._verified, "are_small": self._are_small}

    def go_on(self, memory: Mapping[str, Any]) -> None:
        """Take up what was remembered."""
        self._left_out, self._verified, self._parts = frozenset(memory["left_out"]), bool(memory["verified"]), []
        self._are_small = bool(memory["are_small"])


def _unexplained(difference: Tensor, weights: Tensor) -> Tensor:
    """Return what is left of a difference of gradients beside penalties: multiples of the weights and of their signs."""
    penalties = torch.stack([weights, weights.sign()], dim=1)
    fitted = torch.linalg.lstsq(penalties, difference[:, None], driver="gelsd").solution
    left: Tensor = torch.linalg.vector_norm(difference - (penalties @ fitted)[:, 0])
    return left


def _grown(parameter: Tensor, before: Tensor | None) -> Tensor:
    """Return what a backward pass has added to a gradient."""
    if parameter.grad is None:
        return torch.zeros_like(parameter)
    return parameter.grad.detach() if before is None else parameter.grad.detach() - before
