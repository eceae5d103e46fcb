"""The minibatch ensemble of N samples, as some of them tell: estimates with standard errors."""

from __future__ import annotations

from functools import cached_property

import numpy as np
import torch
import xarray as xr
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from langevin_nn.checks import whole_number
from langevin_nn.ensemble.alignment import draw_minibatches
from langevin_nn.ensemble.empirical import EmpiricalEnsemble
from langevin_nn.ensemble.estimates import estimated_cosines, estimates_of_cohorts, with_errors
from langevin_nn.ensemble.groups import covariance_factor
from langevin_nn.ensemble.spectrum import Method, Spectrum
from langevin_nn.errors import ConfigurationError
from langevin_nn.gradients import SampleGradients
from langevin_nn.memory import as_text
from langevin_nn.schema import COHORTS

__all__ = ["SampledEnsemble"]

# Beyond this share of an eigenvalue, its bias is no longer small, and neither is what is left after it is taken off.
_LARGEST_BIAS = 0.25


class SampledEnsemble(EmpiricalEnsemble):
    """Minibatches of B of N samples, estimated from n of them that were drawn at random.

    Each order parameter comes with its standard error, as ``…_standard_error``; what the samples cannot tell is NaN. C, as
    an operator, projected or in noise, is the unbiased estimate (f/B)(N − 1)/N Σ_k (g_k − ḡ)(g_k − ḡ)ᵀ/(n − 1), of rank
    n − 1. Made by ``gradient_ensemble(..., subsample=n)``.
    """

    def __init__(
        self,
        gradients: SampleGradients,
        batch_size: int,
        n_samples: int,
        mislabeled: Tensor | None = None,
        replacement: bool = False,
        *,
        memory_limit: int | float | str | None = None,
    ) -> None:
        drawn = gradients.n_samples
        super().__init__(gradients, min(batch_size, drawn), mislabeled, replacement, memory_limit=memory_limit)
        if 8 * (len(gradients.layers) + 2) * drawn**2 > self._memory_limit:
            raise ConfigurationError(
                f"subsample={drawn}: expected inner products of all pairs, one matrix a layer, to fit into the "
                f"memory_limit of {as_text(self._memory_limit)}; draw fewer, or raise it"
            )
        if not replacement and batch_size > n_samples:
            raise ConfigurationError(
                f"batch_size={batch_size} with {n_samples} samples: expected 1 to {n_samples}, since a minibatch is drawn "
                "from them without replacement; choose a smaller one, or replacement=True"
            )
        self.batch_size, self._n_drawn, self._population = batch_size, drawn, n_samples
        wrong = torch.zeros(drawn, dtype=torch.bool) if mislabeled is None else mislabeled.cpu()
        self._members = np.stack([np.ones(drawn, dtype=bool), ~wrong.numpy(), wrong.numpy()])

    @cached_property
    def _grams(self) -> NDArray[np.float64]:
        """Inner products within each layer, shape (layer, sample, sample)."""
        return np.asarray(self.gradients.grams_by_layer().cpu())

    @property
    def _shares(self) -> NDArray[np.float64]:
        """Shares of the cohorts, as the drawn samples tell, shape (cohort,)."""
        return np.asarray(self._members.mean(1))

    def _estimates(self, gram: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
        """Return the order parameters of each cohort from one matrix of inner products."""
        sizes = self._population, self.batch_size
        return estimates_of_cohorts(gram, self._members, *sizes, replacement=self.replacement)

    @property
    def sample_trace(self) -> NDArray[np.float64]:  # noqa: D102
        factors = [covariance_factor(self._population * s, self.batch_size * s, self.replacement) for s in self._shares]
        return np.asarray(self.closed_forms()["noise_strength"] / np.array(factors))

    @property
    def _factor(self) -> float:
        n, drawn = self._population, self._n_drawn
        factor = covariance_factor(n, self.batch_size, self.replacement)
        return factor * (n - 1) / n * drawn / (drawn - 1) if drawn > 1 else float("nan")

    @cached_property
    def _closed_forms(self) -> dict[str, NDArray[np.float64]]:
        gram = self._grams.sum(0)
        values = self._estimates(gram)
        two = dict(zip(COHORTS[1:], self._members[1:], strict=True))
        cosines = list(estimated_cosines(gram, two, self._population).values())
        return values | with_errors({"gradient_alignment": cosines})

    def closed_forms(self) -> dict[str, NDArray[np.float64]]:
        """Return the order parameters with their standard errors, as arrays.

        Returns
        -------
        dict of str to ndarray, shape (cohort,) or (cohort_pair,)
            By name.
        """
        return dict(self._closed_forms)

    def closed_forms_by_layer(self) -> dict[str, NDArray[np.float64]]:  # noqa: D102
        layers = [self._estimates(gram) for gram in self._grams]
        return {name: np.stack([layer[name] for layer in layers]) for name in layers[0]}

    def classes(self, labels: ArrayLike | Tensor | None = None) -> xr.Dataset:  # noqa: D102
        raise ConfigurationError(
            "classes of a subsample were asked for: expected the ensemble of all samples, since a subsample may have few of "
            "a class; leave subsample= out"
        )

    def alignment(self, generator: np.random.Generator, n_minibatches: int = 64) -> dict[str, NDArray[np.float64]]:
        """Estimate R of each cohort, from pairs of minibatches that have the law of those of all samples.

        Two minibatches that are drawn from all N samples share a few; those that are put together here share as many, and all
        others are distinct, so that each pair is one of the population. R is their mean cosine.

        Parameters
        ----------
        generator : numpy.random.Generator
            Draws the minibatches.
        n_minibatches : int, optional
            How many pairs.

        Returns
        -------
        dict of str to ndarray, shape (cohort,)
            ``alignment``, ``alignment_standard_error``, of pairs and of the subsample together, the latter as it is of A₀/A;
            NaN where a pair needs more samples than were drawn.
        """
        whole_number("n_minibatches", n_minibatches, "a whole number (int) of pairs from 1", least=1)
        gram, values, errors, zeros = self._grams.sum(0), [], [], []
        of_samples = self._closed_forms["alignment_approximation_standard_error"]
        for members, share, error in zip(self._members, self._shares, of_samples, strict=True):
            cosines = self._cosines(gram, np.flatnonzero(members), share, generator, n_minibatches)
            defined = cosines[np.isfinite(cosines)]
            enough = len(cosines) > 0 and len(defined) > 1
            values.append(float(defined.mean()) if enough else np.nan)
            errors.append(float(np.hypot(error, defined.std(ddof=1) / len(defined) ** 0.5)) if enough else np.nan)
            zeros.append(1 - len(defined) / len(cosines) if len(cosines) else np.nan)
        return {
            "alignment": np.array(values),
            "alignment_standard_error": np.array(errors),
            "alignment_zero_share": np.array(zeros),
            "alignment_minibatches": np.where(np.isfinite(values), 2.0 * n_minibatches, np.nan),
        }

    def _cosines(
        self,
        gram: NDArray[np.float64],
        members: NDArray[np.int64],
        share: float,
        generator: np.random.Generator,
        n: int,
    ) -> NDArray[np.float64]:
        """Return cosines of pairs, NaN where a gradient is zero; none where a pair needs more samples than there are."""
        population, size = round(share * self._population), max(1, round(share * self.batch_size))
        cosines = np.full(n if len(members) else 0, np.nan)
        for pair in range(len(cosines)):
            drawn = draw_minibatches(generator, population, size, 2, self.replacement)
            distinct, places = np.unique(drawn, return_inverse=True)
            if len(distinct) > len(members):
                return np.empty(0)
            one, other = generator.permutation(members)[: len(distinct)][places.reshape(2, size)]
            squares = gram[np.ix_(one, one)].sum() * gram[np.ix_(other, other)].sum()
            if squares > 0:
                cosines[pair] = gram[np.ix_(one, other)].sum() / squares**0.5
        return cosines

    def spectrum(
        self, n_modes: int | None = None, *, fraction: float = 0.9, method: Method = "auto", tolerance: float = 1e-3
    ) -> xr.Dataset:
        """Return leading eigenvalues of C with their standard errors, less their bias.

        Eigenvalues of n samples are too large, since the sample's noise counts as theirs: to first order by Σ_j ⟨z_i² z_j²⟩/
        (n (e_i − e_j)), z_ki the components of g_k − ḡ along the eigenvectors; their variance is that of z_i² over n
        (Anderson 1963, doi 10.1214/aoms/1177704248, for any law). The bias is taken off, and half of it counts as error;
        where it exceeds a quarter of an eigenvalue, or that is not two standard errors from zero, it and all smaller ones are
        left out.

        Parameters
        ----------
        n_modes : int, optional
            How many at most; all that can be told unless said.
        fraction : float, optional
            The share of the noise strength that the effective dimension holds.
        method : {"auto", "samples"}, optional
            There is one way: the matrix of the drawn samples.
        tolerance : float, optional
            Unused, since that is decomposed as a whole.

        Returns
        -------
        xarray.Dataset
            As of `GradientEnsemble.spectrum`, with ``noise_eigenvalue_standard_error`` (mode); the effective dimension is
            that of the eigenvalues within two standard errors, mostly a lower bound.

        Raises
        ------
        ConfigurationError
            If `n_modes` or `fraction` make no sense, or another method is asked for.
        """
        data = self.leading_spectrum(n_modes, method=method, tolerance=tolerance).dataset(fraction)
        return data.rename(noise_eigenvalue_residual="noise_eigenvalue_standard_error").assign_attrs(
            {"n_samples": self._population, "n_drawn": self._n_drawn}
        )

    def _spectrum(self, n_modes: int | None, method: Method, tolerance: float) -> Spectrum:
        if method not in ("auto", "samples"):
            raise ConfigurationError(
                f"method={method!r} for a subsample: expected 'samples' or 'auto', since errors come from the matrix of "
                "inner products of the samples that were drawn"
            )
        n = self._n_drawn
        gram = self._grams.sum(0)
        rows = gram.mean(0)
        values, vectors = np.linalg.eigh(gram - rows - rows[:, None] + rows.mean())
        values, squares = values[::-1].clip(0), vectors[:, ::-1] ** 2
        kept = values > 1e-12 * values.max(initial=0)
        values, squares = values[kept] / (n - 1), squares[:, kept] * values[kept]
        rest = 1 - n / self._population
        variances = rest * squares.var(0, ddof=1) / n
        gaps = values[:, None] - values
        with np.errstate(divide="ignore"):
            bias = rest * (np.where(gaps == 0, 0.0, squares.T @ squares / n / np.where(gaps == 0, 1, gaps))).sum(1) / n
        errors = np.hypot(variances**0.5, bias / 2)  # what is taken off is known to some half of itself
        told = np.logical_and.accumulate((np.abs(bias) < _LARGEST_BIAS * values) & (values > 2 * errors))
        scale = covariance_factor(self._population, self.batch_size, self.replacement)
        scale *= (self._population - 1) / self._population
        n_told = int(told.sum()) if n_modes is None else min(n_modes, int(told.sum()))
        found, errors = (scale * each[:n_told] for each in (values - bias, errors))
        trace = float(self._closed_forms["noise_strength"][0])
        return Spectrum(found, errors, 2 * errors, trace, "samples drawn, dense", complete=False)
