"""Noise and curvature at one point."""

from __future__ import annotations

import matplotlib as mpl
import matplotlib.ticker
import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from langevin_nn.figures.base import STYLE, plain_powers, write_caption

__all__ = ["noise_and_curvature_figure"]


@mpl.rc_context(STYLE)
def noise_and_curvature_figure(spectrum: xr.Dataset, curvature: xr.Dataset, overlap: xr.Dataset) -> Figure:
    """Draw what noise and curvature are like at one point: two spectra, and the directions that they share.

    Parameters
    ----------
    spectrum : Dataset
        Of `langevin_nn.ensemble.GradientEnsemble.spectrum`.
    curvature : Dataset
        Of `langevin_nn.curvature.hessian_spectrum`.
    overlap : Dataset
        Of `langevin_nn.curvature.noise_curvature_overlap`.

    Returns
    -------
    matplotlib.figure.Figure
        Three panels.
    """
    figure = Figure(figsize=(7.0, 3.0))
    left, middle, right = figure.subplots(1, 3)
    _draw_noise_spectrum(left, spectrum)
    _draw_density(middle, curvature)
    squared = overlap["eigenvector_overlap"].values
    n, k = squared.shape
    image = right.imshow(squared, cmap="Greys", vmin=0, vmax=1, extent=(0.5, k + 0.5, n + 0.5, 0.5))
    right.set(xlabel="mode of the Hessian", ylabel="mode of the noise")
    for axis in (right.xaxis, right.yaxis):
        axis.set_major_locator(mpl.ticker.MaxNLocator(5, integer=True))
    share, chance = float(overlap["subspace_overlap"]), float(overlap["random_overlap"])
    right.set_title(f"squared cosines; shared: {share:.2f}\n(unrelated directions: {chance:.2g})")
    figure.colorbar(image, ax=right, fraction=0.046, pad=0.03)
    figure.subplots_adjust(left=0.085, right=0.95, top=0.86, bottom=0.33, wspace=0.48)
    bound = "at least " if int(spectrum["effective_dimension_is_lower_bound"]) else ""
    write_caption(
        figure,
        f"Left: eigenvalues of the minibatch noise covariance; D_s, {bound}the number of modes that hold "
        f"{100 * spectrum.attrs['fraction']:.0f} % of the noise.\nMiddle: density of the Hessian's eigenvalues "
        f"(± 2 standard errors of {curvature.attrs['n_probes']} random probes), its largest eigenvalues as ticks.\n"
        "Right: overlap of the leading eigenvectors of both.",
    )
    return figure


def _draw_noise_spectrum(axes: Axes, spectrum: xr.Dataset) -> None:
    values, dimension = spectrum["noise_eigenvalue"].values, float(spectrum["effective_dimension"])
    axes.plot(np.arange(1, len(values) + 1), values, color="#0072B2")
    if np.isfinite(dimension):
        axes.axvline(dimension, color="#555555", linestyle=":", linewidth=1)
    sign = "≥" if int(spectrum["effective_dimension_is_lower_bound"]) else "="
    axes.set_title(f"noise: $D_s$ {sign} {dimension:.0f}")
    axes.set(xscale="log", yscale="log", xlabel="mode $l$", ylabel="eigenvalue $e_l$ of $C$ (nat² / weight²)")
    if values.max(initial=0) > 0:
        axes.set_ylim(max(values.max() * 1e-5, values[values > 0].min() / 2), values.max() * 2)
    plain_powers(axes, "x", "y")


def _draw_density(axes: Axes, curvature: xr.Dataset) -> None:
    at, density = curvature["eigenvalue"].values, curvature["spectral_density"].values
    error = curvature["spectral_density_standard_error"].values
    axes.plot(at, density, color="#D55E00")
    axes.fill_between(
        at, np.maximum(density - 2 * error, 1e-300), density + 2 * error, color="#D55E00", alpha=0.25, lw=0
    )
    axes.plot(
        curvature["hessian_eigenvalue"],
        np.zeros(curvature.sizes["hessian_mode"]) + 0.02,
        "k|",
        markersize=5,
        transform=axes.get_xaxis_transform(),
    )
    trace, spread = float(curvature["hessian_trace"]), float(curvature["hessian_trace_standard_error"])
    axes.set_title(f"curvature: trace {trace:.3g} ± {spread:.1g}")
    lowest = 0.1 / (curvature.attrs["n_parameters"] * curvature.attrs["width"])
    axes.set(yscale="log", xlabel="eigenvalue (nat / weight²)", ylabel="density (weight² / nat)")
    axes.set_ylim(lowest, 3 * density.max())
    plain_powers(axes, "y")
