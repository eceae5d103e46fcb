"""Figures: datasets → matplotlib. The only package that imports it; `base` has what figures do alike."""

from langevin_nn.figures.base import write_figures
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
from langevin_nn.figures.gradients import gradient_sketch
from langevin_nn.figures.trajectory import plot
from langevin_nn.former import found_elsewhere

__all__ = [
    "FIGURES",
    "distance_figure",
    "gradient_sketch",
    "noise_and_curvature_figure",
    "order_parameter_figure",
    "plot",
    "save_figures",
    "spectrum_figure",
    "training_figure",
    "verdict_figure",
    "write_figures",
]

# A figure of one study lies with the study.
_OF_STUDIES = {
    "cleaning": "cleaning removal",
    "flat_minima": "flat_minima",
    "is_the_sde_valid": "conditions ladder law_distance noise_shape validity",
    "label_noise_phases": "cohort_order_parameter memorisation phase_spectrum",
    "label_noise_sweep": "label_noise",
    "phase_diagram": "collapse finite_size phase_diagram",
    "surrogate_of_a_network": "surrogate",
    "two_phases": "effective_dimension rates time_average two_phases two_spectra",
    "variance_flatness": "loss_profile variance_flatness",
}
__getattr__ = found_elsewhere(
    __name__,
    {f"{name}_figure": f"studies.{study}.figures" for study, names in _OF_STUDIES.items() for name in names.split()},
)
