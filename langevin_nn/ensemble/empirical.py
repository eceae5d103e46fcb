"""The exact minibatch ensemble of N sample gradients."""

from __future__ import annotations

import numpy as np
import torch
import xarray as xr
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from langevin_nn.checks import whole_number
from langevin_nn.ensemble.alignment import Alignment, alignment_of_minibatches, draw_minibatches
from langevin_nn.ensemble.base import GradientEnsemble, labelled
from langevin_nn.ensemble.covariance import CentredGram, NoiseCovariance
from langevin_nn.ensemble.forecast import Forecast, forecast
from langevin_nn.ensemble.groups import Groups
from langevin_nn.ensemble.spectrum import Method, Route, Spectrum, cheapest, routes
from langevin_nn.errors import ConfigurationError
from langevin_nn.gradients import SampleGradients
from langevin_nn.memory import as_bytes
from langevin_nn.operators import Eigenpairs, SplitOperator, SymmetricOperator, leading_eigenpairs

__all__ = ["EmpiricalEnsemble"]

_COHORTS = ((0, 1), (0,), (1,))


class EmpiricalEnsemble(GradientEnsemble):
    """Minibatches of B of N samples, for the whole training set and for its two cohorts."""

    # Arguments as those of `GradientEnsemble.from_sample_gradients`, and the class of each sample where it has one.

    def __init__(
        self,
        gradients: SampleGradients,
        batch_size: int,
        mislabeled: Tensor | None = None,
        replacement: bool = False,
        *,
        labels: Tensor | None = None,
        memory_limit: int | float | str | None = None,
    ) -> None:
        self.gradients = gradients
        n = gradients.n_samples
        batch_size = whole_number("batch_size", batch_size, "a whole number (int), since samples are counted; round it")
        if replacement and batch_size < 1:
            raise ConfigurationError(
                f"batch_size={batch_size}: expected at least 1, since an empty minibatch has no gradient; choose a larger one"
            )
        if not replacement and not 1 <= batch_size <= n:
            raise ConfigurationError(
                f"batch_size={batch_size} with {n} samples: expected 1 to {n}, since a minibatch is drawn from them "
                "without replacement; choose a smaller one, or replacement=True"
            )
        self.n_samples, self.batch_size, self.replacement = n, batch_size, replacement
        self._memory_limit = as_bytes(memory_limit)
        self._labels = labels
        nobody = torch.zeros(n, dtype=torch.bool, device=gradients.device)
        wrong = nobody if mislabeled is None else mislabeled.to(nobody)
        self._cohorts = Groups(gradients, torch.stack([~wrong, wrong]), _COHORTS, batch_size, replacement)

    @property
    def mean_gradient(self) -> Tensor:  # noqa: D102
        return self._cohorts.means[0]

    @property
    def sample_trace(self) -> NDArray[np.float64]:  # noqa: D102
        return self._cohorts.sample_traces

    @property
    def _factor(self) -> float:
        return float(self._cohorts.factors[0])

    @property
    def layers(self) -> tuple[str, ...]:  # noqa: D102
        return self.gradients.layers

    @property
    def paths(self) -> dict[str, str]:  # noqa: D102
        return self.gradients.paths

    def closed_forms(self) -> dict[str, NDArray[np.float64]]:  # noqa: D102
        cosines = self._cohorts.cosines()
        pairs = np.array([cosines[1, 2], cosines[0, 1], cosines[0, 2]])
        return {**self._cohorts.closed_forms(), "gradient_alignment": pairs}

    def closed_forms_by_layer(self) -> dict[str, NDArray[np.float64]]:  # noqa: D102
        return self._cohorts.closed_forms(by_layer=True)

    def classes(self, labels: ArrayLike | Tensor | None = None) -> xr.Dataset:  # noqa: D102
        chosen = self._labels if labels is None else torch.as_tensor(np.asarray(labels))
        if chosen is None or tuple(chosen.shape) != (self.n_samples,):
            raise ConfigurationError(
                f"ensembles of classes need one class a sample, shape ({self.n_samples},), got "
                f"{'none' if chosen is None else tuple(chosen.shape)}: pass labels="
            )
        names, members = torch.unique(chosen.to(self.gradients.device), return_inverse=True)
        parts = torch.nn.functional.one_hot(members, len(names)).T.bool()
        alone = [(part,) for part in range(len(names))]
        groups = Groups(self.gradients, parts, alone, self.batch_size, self.replacement, self._cohorts.squared_norms)
        data = labelled(groups.closed_forms(), "class")
        data = data.merge(labelled({"class_alignment": groups.cosines()}, "class", "other_class"))
        data = data.merge(labelled({"class_size": groups.sizes.astype(np.int64)}, "class"))
        values = names.cpu().numpy()
        return data.assign_coords({"class": values, "other_class": values})

    def samples(self) -> xr.Dataset:  # noqa: D102
        norms = self._cohorts.squared_norms.sum(0).sqrt()
        values = {"sample_gradient_norm": norms}
        if (losses := self.gradients.losses) is not None:
            values["sample_loss"] = losses
        return labelled({name: np.asarray(value.double().cpu()) for name, value in values.items()}, "sample")

    def forecast(self, *, n_minibatches: int = 64, n_modes: int = 0) -> Forecast:  # noqa: D102
        whole_number("n_minibatches", n_minibatches, "a whole number (int) of minibatches from 0", least=0)
        whole_number("n_modes", n_modes, "a whole number (int) of eigenvalues from 0, which stands for none", least=0)
        operations = self.routes(n_modes)[0].operations if n_modes else 0.0
        return forecast(self.gradients, n_minibatches, self.batch_size, operations)

    def alignment(self, generator: np.random.Generator, n_minibatches: int = 64) -> dict[str, NDArray[np.float64]]:  # noqa: D102
        whole_number("n_minibatches", n_minibatches, "a whole number (int) of minibatches from 1", least=1)
        estimates = [self._cohort_alignment(0, generator, n_minibatches)]
        for cohort in (1, 2):
            everybody = self._cohorts.sizes[cohort] == self.n_samples
            estimates.append(estimates[0] if everybody else self._cohort_alignment(cohort, generator, n_minibatches))
        squared = np.asarray(self._cohorts.means.square().sum(1).cpu())
        return Alignment.arrays(estimates, squared, self._cohorts.closed_forms()["activity"])

    def _cohort_alignment(self, cohort: int, generator: np.random.Generator, n_minibatches: int) -> Alignment:
        groups = self._cohorts
        members = torch.nonzero(groups.masks[cohort])[:, 0]
        n = len(members)
        if n == 0 or float(groups.means[cohort].square().sum()) == 0:
            return Alignment.undefined()
        size = max(1, round(float(groups.batch_sizes[cohort])))
        if size == n and not self.replacement:
            return Alignment(1.0, 0.0, 0.0, 0, 0.0)
        if size == 1:
            return self._exact_alignment(members)
        drawn = draw_minibatches(generator, n, size, n_minibatches, self.replacement)
        indices = members[torch.as_tensor(drawn, device=members.device)]
        return alignment_of_minibatches(self.gradients, indices)

    def _exact_alignment(self, members: Tensor) -> Alignment:
        """At B = 1 the minibatches are the samples: R = ‖mean of ĝ_k‖²."""
        norms = self._cohorts.squared_norms.sum(0).sqrt()
        nonzero = members[norms[members] > 0]
        zero_share = 1 - len(nonzero) / len(members)
        if len(nonzero) == 0:
            return Alignment.undefined(zero_share)
        coefficients = torch.zeros(1, self.n_samples, dtype=torch.float64, device=norms.device)
        coefficients[0, nonzero] = 1 / (norms[nonzero] * len(nonzero))
        value = float(self.gradients.combine(coefficients).square().sum())
        relative = norms[members] / norms[members].square().mean().sqrt()
        return Alignment(value, 0.0, zero_share, 0, float((1 - relative).square().mean()))

    @property
    def covariance(self) -> SymmetricOperator:  # noqa: D102
        return NoiseCovariance(self.gradients, self._factor)

    def projected_covariance(self, directions: Tensor) -> NDArray[np.float64]:  # noqa: D102
        along = self.gradients.project(directions.to(self.gradients.device).double())
        along = along - along.mean(0)
        return np.asarray((along.T @ along).cpu()) * (self._factor / self.n_samples)

    def gaussian_noise(self, generator: np.random.Generator, n_vectors: int = 1) -> Tensor:  # noqa: D102
        draws = torch.as_tensor(generator.standard_normal((n_vectors, self.n_samples)), device=self.gradients.device)
        centred = draws - draws.mean(1, keepdim=True)
        return self.gradients.combine(centred * (self._factor / self.n_samples) ** 0.5)

    def routes(self, n_modes: int | None = None) -> list[Route]:
        """Return the ways to the leading or all modes of the noise spectrum with what each would cost, cheapest first."""
        gradients = self.gradients
        anew = 6.0 * self.n_samples * gradients.n_parameters if gradients.n_pieces > 1 else 0.0
        costs = gradients.pair_cost, anew, gradients.n_pieces, gradients.moment_cost
        found = routes(self.n_samples, gradients.n_parameters, n_modes, *costs)
        return sorted(found, key=lambda route: route.operations)

    @property
    def _memory_left(self) -> int:
        """What the sample gradients leave of the budget."""
        return self._memory_limit - self.gradients.n_bytes

    def _matrix(self, route: Route) -> Tensor:
        """Return the P×P or N×N matrix whose eigenvalues, times f/(BN), are those of C."""
        if route.method == "parameters":
            mean = self.mean_gradient
            return self.gradients.second_moments().addmm_(mean[:, None], mean[None], alpha=-self.n_samples)
        matrix = self.gradients.gram()
        row = matrix.mean(0)
        return matrix.sub_(row).sub_((row - row.mean())[:, None])

    def _spectrum(self, n_modes: int | None, method: Method, tolerance: float) -> Spectrum:
        shape = f"{self.n_samples} samples and {self.gradients.n_parameters} measured parameters"
        route = cheapest(self.routes(n_modes), method, self._memory_left, shape)
        trace = self._factor * float(self.sample_trace[0])
        least = min(self.n_samples, self.gradients.n_parameters)
        wanted = least if n_modes is None else min(n_modes, least)
        name = f"{route.method}, {route.solver}"
        zeros = np.zeros(wanted)
        if trace == 0 or not np.isfinite(trace):
            same = zeros if trace == 0 else np.full(wanted, np.nan)
            return Spectrum(same, same, same, trace, name, complete=True)
        if route.solver == "dense":
            values = torch.linalg.eigvalsh(self._matrix(route)).flip(0)[:wanted].clamp_min(0).cpu().numpy()
            values = values * (self._factor / self.n_samples)
            return Spectrum(values, zeros, zeros, trace, name, complete=wanted == least)
        pairs = self._iterated(route, wanted, tolerance)
        values = np.clip(pairs.values, 0, None)
        return Spectrum(values, pairs.residuals, pairs.errors, trace, name, complete=wanted == least)

    def _iterated(self, route: Route, n_modes: int, tolerance: float) -> Eigenpairs:
        operator: SymmetricOperator
        if route.method == "matrix-free":
            fewer_samples = self.n_samples < self.gradients.n_parameters
            operator = CentredGram(self.gradients, self._factor) if fewer_samples else self.covariance
        else:
            operator = SplitOperator(self._matrix(route).mul_(self._factor / self.n_samples))
        largest = int(self._memory_left / (16 * operator.size))
        return leading_eigenpairs(operator, n_modes, tolerance=tolerance, max_dimension=max(n_modes, largest))

    def noise_modes(self, n_modes: int, *, tolerance: float = 1e-3) -> Eigenpairs:  # noqa: D102
        return leading_eigenpairs(self.covariance, n_modes, tolerance=tolerance)
