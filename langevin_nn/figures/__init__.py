"""Figures: datasets → matplotlib. The only package that imports it; `base` has what figures do alike."""

from langevin_nn.figures.base import write_figures
from langevin_nn.figures.cleaning import cleaning_figure, removal_figure
from langevin_nn.figures.comparison import (
    FIGURES,
    distance_figure,
    order_parameter_figure,
    save_figures,
    spectrum_figure,
    training_figure,
    verdict_figure,
)
from langevin_nn.figures.curvature import noise_and_curvature_figure
from langevin_nn.figures.flat_minima import flat_minima_figure
from langevin_nn.figures.gradients import gradient_sketch
from langevin_nn.figures.label_noise import cohort_order_parameter_figure, memorisation_figure, phase_spectrum_figure
from langevin_nn.figures.label_noise_sweep import label_noise_figure
from langevin_nn.figures.phase_diagram import collapse_figure, finite_size_figure, phase_diagram_figure
from langevin_nn.figures.surrogate import surrogate_figure
from langevin_nn.figures.two_phases import (
    effective_dimension_figure,
    rates_figure,
    time_average_figure,
    two_phases_figure,
    two_spectra_figure,
)
from langevin_nn.figures.validity import (
    conditions_figure,
    ladder_figure,
    law_distance_figure,
    noise_shape_figure,
    validity_figure,
)
from langevin_nn.figures.variance_flatness import loss_profile_figure, variance_flatness_figure

__all__ = [
    "FIGURES",
    "cleaning_figure",
    "cohort_order_parameter_figure",
    "collapse_figure",
    "conditions_figure",
    "distance_figure",
    "effective_dimension_figure",
    "finite_size_figure",
    "flat_minima_figure",
    "gradient_sketch",
    "label_noise_figure",
    "ladder_figure",
    "law_distance_figure",
    "loss_profile_figure",
    "memorisation_figure",
    "noise_and_curvature_figure",
    "noise_shape_figure",
    "order_parameter_figure",
    "phase_diagram_figure",
    "phase_spectrum_figure",
    "rates_figure",
    "removal_figure",
    "save_figures",
    "spectrum_figure",
    "surrogate_figure",
    "time_average_figure",
    "training_figure",
    "two_phases_figure",
    "two_spectra_figure",
    "validity_figure",
    "variance_flatness_figure",
    "verdict_figure",
    "write_figures",
]
