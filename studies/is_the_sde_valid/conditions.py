"""When theory allows the equation: noise to signal along the trajectory, and how far steps and minibatches may grow."""

from __future__ import annotations

import numpy as np
import xarray as xr

from langevin_nn.analyzers import LawComparison, Quantity, logarithm, mean_with_interval
from langevin_nn.analyzers.laws import RECORDED

__all__ = ["CLOSENESS", "noise_to_signal", "scaling_comparison", "scaling_range"]

# The constant C of Li, Malladi & Arora: squared weights, squared gradients and noise agree to within this factor.
CLOSENESS = 2**0.5

# What does not depend on the size of the minibatch by its definition.
_OF_THE_WEIGHTS: tuple[Quantity, ...] = tuple(
    each for each in RECORDED if each.variable not in ("activity", "noise_strength", "projection_variance", "alignment")
)


def noise_to_signal(
    trajectory: xr.Dataset, windows: dict[str, tuple[float, float]], closeness: float = CLOSENESS
) -> xr.Dataset:
    """Evaluate the noise-to-signal condition along a trajectory.

    In one step of SGD the squared weights change by −2α w·∇L + α²(G + N) on average, with G = ‖∇L‖² = A₀ and
    N = Tr C = D; by the equation they change by −2α w·∇L + α² N. With weight decay λ and a loss that does not depend on the
    length of the weights, w·∇L = 0, they are 2λ‖w‖² = α(G + N) and α N in equilibrium. So squared weights, G and N can
    agree within a factor C between SGD and the equation only if N/G ≥ 1/(C² − 1), and between SGD and SGD at κ times
    learning rate and minibatch (whose N is κ times smaller) only if κ ≤ C² (1 + N/G): the argument of Li, Malladi & Arora
    (2021, arXiv:2102.12470, section 5). Networks here are neither of that kind nor in equilibrium. That both conditions are
    evaluated at each record of the trajectory instead is ours: a rule of thumb that tells where the drift of one step is
    no longer small against its noise.

    Parameters
    ----------
    trajectory : xarray.Dataset
        Of SGD: ``noise_strength`` and ``directed_activity``.
    windows : dict
        Phases.
    closeness : float, optional
        C.

    Returns
    -------
    xarray.Dataset
        Along ``step``, with epochs: ``noise_to_signal`` D/A₀, geometric mean over replicas, with ``_lower`` and
        ``_upper``. By ``phase``: ``smallest_noise_to_signal``, ``holds_share`` (of records at which the condition holds) and
        ``largest_scaling``, the bound on κ at the smallest D/A₀.
    """
    own = trajectory.sel(cohort="all", drop=True)
    ratio = logarithm(own["noise_strength"]) - logarithm(own["directed_activity"])
    measured = np.flatnonzero(ratio.notnull().any("replica").values & (own["epoch"].values > 0))
    moments = np.exp(mean_with_interval(ratio.isel(step=measured)))
    found = xr.Dataset(
        {
            "noise_to_signal": moments["mean_value"],
            "noise_to_signal_lower": moments["lower"],
            "noise_to_signal_upper": moments["upper"],
        }
    )
    epochs, values = found["epoch"].values, found["noise_to_signal"].values
    least = 1 / (closeness**2 - 1)
    names, rows = [], []
    for name, (begin, end) in windows.items():
        inside = values[(epochs > begin) & (epochs <= end)]
        if len(inside):
            names.append(name)
            rows.append((inside.min(), (inside >= least).mean(), closeness**2 * (1 + inside.min())))
    columns = np.array(rows).reshape(len(rows), 3).T
    for key, column in zip(("smallest_noise_to_signal", "holds_share", "largest_scaling"), columns, strict=True):
        found[key] = "phase", column
    return found.assign_coords(phase=names).assign_attrs(closeness=closeness, least_noise_to_signal=least)


def scaling_comparison(
    reference: xr.Dataset, scaled: xr.Dataset, windows: dict[str, tuple[float, float]], comparison: LawComparison
) -> xr.Dataset:
    """Compare SGD at larger and larger steps and minibatches with SGD.

    Parameters
    ----------
    reference : xarray.Dataset
        SGD and its twin, by ``process``.
    scaled : xarray.Dataset
        By ``process``, named after κ.
    windows : dict
        Phases.
    comparison : LawComparison
        Its settings; order parameters of the minibatch, which differ with its size by definition, are left out.

    Returns
    -------
    xarray.Dataset
        Of `LawComparison`, ``process`` "1" standing for the twin.
    """
    twins = reference.sel(process=["sgd", "sgd_twin"]).assign_coords(process=["sgd", "1"])
    shared = [name for name in twins.data_vars if name in scaled.data_vars]
    both = xr.concat([twins[shared], scaled[shared]], "process", join="override", coords="minimal", compat="override")
    chosen = LawComparison(
        quantities=_OF_THE_WEIGHTS,
        moments=comparison.moments,
        permutations=comparison.permutations,
        level=comparison.level,
        seed=comparison.seed,
    )
    return chosen(both, windows)


def scaling_range(compared: xr.Dataset) -> dict[str, int]:
    """Return, for each phase, the largest κ up to which no step is told from SGD.

    Parameters
    ----------
    compared : xarray.Dataset
        Of `scaling_comparison`.

    Returns
    -------
    dict of str to int
        1 where the smallest one is told already.
    """
    found = {}
    for phase in compared["phase"].values:
        rejected = compared["is_rejected"].sel(phase=phase)
        largest = 1
        for factor in sorted(int(each) for each in compared["process"].values):
            if bool(rejected.sel(process=str(factor))):
                break
            largest = factor
        found[str(phase)] = largest
    return found
