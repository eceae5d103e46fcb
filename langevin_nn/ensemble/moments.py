"""The ensemble of Gaussian gradients with given mean and covariance, for surrogates."""

from __future__ import annotations

import numpy as np
import torch
import xarray as xr
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from langevin_nn.checks import whole_number
from langevin_nn.ensemble.alignment import Alignment, alignment_of
from langevin_nn.ensemble.base import GradientEnsemble
from langevin_nn.ensemble.covariance import FactoredCovariance
from langevin_nn.ensemble.forecast import Forecast
from langevin_nn.ensemble.spectrum import Method, Spectrum
from langevin_nn.errors import ConfigurationError
from langevin_nn.operators import Eigenpairs, SymmetricOperator

__all__ = ["MomentEnsemble"]


class MomentEnsemble(GradientEnsemble):
    """Gradients N(ḡ, F Fᵀ), as of `GradientEnsemble.from_moments`; there are no cohorts but `all`."""

    def __init__(self, mean: Tensor, factor: Tensor, batch_size: int = 1) -> None:
        if mean.ndim != 1 or factor.ndim != 2 or len(mean) != len(factor):
            raise ConfigurationError(
                f"mean of shape {tuple(mean.shape)} and factor of shape {tuple(factor.shape)} came: expected "
                "(parameter,) and (parameter, rank)"
            )
        expected = "a whole number (int) of samples from 1"
        self.batch_size = whole_number("batch_size", batch_size, expected, least=1)
        self._mean, self._factor = mean.double(), factor.double()

    @property
    def mean_gradient(self) -> Tensor:  # noqa: D102
        return self._mean

    @property
    def layers(self) -> tuple[str, ...]:  # noqa: D102
        return ("",)

    @property
    def paths(self) -> dict[str, str]:  # noqa: D102
        return {"": "moments"}

    @property
    def sample_trace(self) -> NDArray[np.float64]:  # noqa: D102
        return np.full(3, np.nan)

    def closed_forms(self) -> dict[str, NDArray[np.float64]]:  # noqa: D102
        squared = float(self._mean.square().sum())
        noise = float(self._factor.square().sum())
        parallel = float((self._mean @ self._factor).square().sum()) / squared if squared > 0 else np.nan
        values = {
            "activity": squared + noise,
            "directed_activity": squared,
            "parallel_activity": squared + parallel,
            "perpendicular_activity": noise - parallel,
            "noise_strength": noise,
            "parallel_noise": parallel,
            "projection_variance": parallel / squared if squared > 0 else np.nan,
            "gradient_noise_scale": self.batch_size * noise / squared if squared > 0 else np.nan,
        }
        cohorts = {name: np.array([value, np.nan, np.nan]) for name, value in values.items()}
        return {**cohorts, "gradient_alignment": np.full(3, np.nan)}

    def closed_forms_by_layer(self) -> dict[str, NDArray[np.float64]]:  # noqa: D102
        return {name: values[None] for name, values in self.closed_forms().items() if name != "gradient_alignment"}

    def classes(self, labels: ArrayLike | Tensor | None = None) -> xr.Dataset:  # noqa: D102
        raise ConfigurationError("moments know no classes: expected an ensemble of sample gradients")

    def samples(self) -> xr.Dataset:  # noqa: D102
        raise ConfigurationError("moments know no samples: expected an ensemble of sample gradients")

    def forecast(self, *, n_minibatches: int = 64, n_modes: int = 0) -> Forecast:  # noqa: D102
        raise ConfigurationError("moments know no samples: expected an ensemble of sample gradients, whose cost counts")

    def alignment(self, generator: np.random.Generator, n_minibatches: int = 64) -> dict[str, NDArray[np.float64]]:  # noqa: D102
        whole_number("n_minibatches", n_minibatches, "a whole number (int) of minibatches from 1", least=1)
        squared = float(self._mean.square().sum())
        estimate = Alignment.undefined()
        if squared > 0:
            draws = torch.as_tensor(generator.standard_normal((n_minibatches, self._factor.shape[1])))
            estimate = alignment_of(self._mean + draws.to(self._factor.device) @ self._factor.T)
        others = [Alignment.undefined()] * 2
        return Alignment.arrays(
            [estimate, *others], np.array([squared, np.nan, np.nan]), self.closed_forms()["activity"]
        )

    @property
    def covariance(self) -> SymmetricOperator:  # noqa: D102
        return FactoredCovariance(self._factor)

    def projected_covariance(self, directions: Tensor) -> NDArray[np.float64]:  # noqa: D102
        along = directions.to(self._factor) @ self._factor
        return np.asarray((along @ along.T).cpu())

    def gaussian_noise(self, generator: np.random.Generator, n_vectors: int = 1) -> Tensor:  # noqa: D102
        draws = torch.as_tensor(generator.standard_normal((n_vectors, self._factor.shape[1])))
        return draws.to(self._factor.device) @ self._factor.T

    def _spectrum(self, n_modes: int | None, method: Method, tolerance: float) -> Spectrum:
        values = np.asarray(torch.linalg.svdvals(self._factor).square().cpu())
        zeros = np.zeros_like(values)
        n = len(values) if n_modes is None else n_modes
        trace = float(self._factor.square().sum())
        return Spectrum(values[:n], zeros[:n], zeros[:n], trace, "factor, dense", complete=n >= len(values))

    def noise_modes(self, n_modes: int, *, tolerance: float = 1e-3) -> Eigenpairs:  # noqa: D102
        vectors, values, _ = torch.linalg.svd(self._factor, full_matrices=False)
        if not 1 <= n_modes <= len(values):
            raise ConfigurationError(f"n_modes={n_modes}: expected 1 to {len(values)}, the rank of the factor at most")
        chosen = np.asarray(values.square().cpu())[:n_modes]
        return Eigenpairs(chosen, vectors.T[:n_modes].contiguous(), np.zeros(n_modes), converged=True)
