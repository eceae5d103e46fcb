"""Analyzers: a dataset in, a dataset out; they work on files, and on trajectories that somebody else made."""

from langevin_nn.analyzers.autocorrelation import Autocorrelation
from langevin_nn.analyzers.comparison import (
    COMPARED,
    Comparison,
    ComparisonAnalyzer,
    Quantity,
    analyze,
    at_equal_loss,
)
from langevin_nn.analyzers.currents import ProbabilityCurrents
from langevin_nn.analyzers.fluctuations import Fluctuations, decay_time
from langevin_nn.analyzers.gradient_average import TimeAveragedOrderParameters
from langevin_nn.analyzers.laws import RECORDED, LawComparison, phase_windows
from langevin_nn.analyzers.losses import LossMixture
from langevin_nn.analyzers.means import logarithm, mean_with_interval
from langevin_nn.analyzers.phases import PhaseDetector, detect_phases, mean_boundaries, phase_means
from langevin_nn.analyzers.principal_components import PrincipalComponents
from langevin_nn.analyzers.stationarity import Stationarity
from langevin_nn.analyzers.timescales import Timescales, smoothed_minimum
from langevin_nn.analyzers.transitions import TransitionRates
from langevin_nn.former import found_elsewhere
from langevin_nn.statistics import (
    GaussianMixture,
    StationarityTest,
    SwapTest,
    TailIndex,
    TimeAverage,
    autocorrelation_function,
    collapse_distance,
    decline_p_value,
    effective_sample_size,
    fit_power_law,
    gaussian_mixture,
    holm,
    integrated_autocorrelation_time,
    jackknife,
    needed_replicas,
    stationarity_test,
    swap_test,
    tail_index,
    time_average,
)

__all__ = [
    "COMPARED",
    "RECORDED",
    "Autocorrelation",
    "Comparison",
    "ComparisonAnalyzer",
    "Fluctuations",
    "GaussianMixture",
    "LawComparison",
    "LossMixture",
    "PhaseDetector",
    "PrincipalComponents",
    "ProbabilityCurrents",
    "Quantity",
    "Stationarity",
    "StationarityTest",
    "SwapTest",
    "TailIndex",
    "TimeAverage",
    "TimeAveragedOrderParameters",
    "Timescales",
    "TransitionRates",
    "analyze",
    "at_equal_loss",
    "autocorrelation_function",
    "collapse_distance",
    "decay_time",
    "decline_p_value",
    "detect_phases",
    "effective_sample_size",
    "fit_power_law",
    "gaussian_mixture",
    "holm",
    "integrated_autocorrelation_time",
    "jackknife",
    "logarithm",
    "mean_boundaries",
    "mean_with_interval",
    "needed_replicas",
    "phase_means",
    "phase_windows",
    "smoothed_minimum",
    "stationarity_test",
    "swap_test",
    "tail_index",
    "time_average",
]

_SYNTHETIC = ("four_phase_trajectory", "score_boundaries", "stationary_trajectory", "two_phase_trajectory")
__getattr__ = found_elsewhere(
    __name__,
    dict.fromkeys(("label", "verdict"), "langevin_nn.report") | dict.fromkeys(_SYNTHETIC, "langevin_nn.testing"),
)
