"""Analyzers: a dataset in, a dataset out; they work on files, and on trajectories that somebody else made."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from langevin_nn.analyzers.autocorrelation import Autocorrelation as Autocorrelation
    from langevin_nn.analyzers.comparison import COMPARED as COMPARED
    from langevin_nn.analyzers.comparison import Comparison as Comparison
    from langevin_nn.analyzers.comparison import ComparisonAnalyzer as ComparisonAnalyzer
    from langevin_nn.analyzers.comparison import Quantity as Quantity
    from langevin_nn.analyzers.comparison import analyze as analyze
    from langevin_nn.analyzers.comparison import at_equal_loss as at_equal_loss
    from langevin_nn.analyzers.currents import ProbabilityCurrents as ProbabilityCurrents
    from langevin_nn.analyzers.fluctuations import Fluctuations as Fluctuations
    from langevin_nn.analyzers.fluctuations import decay_time as decay_time
    from langevin_nn.analyzers.gradient_average import TimeAveragedOrderParameters as TimeAveragedOrderParameters
    from langevin_nn.analyzers.laws import RECORDED as RECORDED
    from langevin_nn.analyzers.laws import LawComparison as LawComparison
    from langevin_nn.analyzers.laws import phase_windows as phase_windows
    from langevin_nn.analyzers.losses import LossMixture as LossMixture
    from langevin_nn.analyzers.means import logarithm as logarithm
    from langevin_nn.analyzers.means import mean_with_interval as mean_with_interval
    from langevin_nn.analyzers.phases import PhaseDetector as PhaseDetector
    from langevin_nn.analyzers.phases import detect_phases as detect_phases
    from langevin_nn.analyzers.phases import mean_boundaries as mean_boundaries
    from langevin_nn.analyzers.phases import phase_means as phase_means
    from langevin_nn.analyzers.principal_components import PrincipalComponents as PrincipalComponents
    from langevin_nn.analyzers.stationarity import Stationarity as Stationarity
    from langevin_nn.analyzers.timescales import Timescales as Timescales
    from langevin_nn.analyzers.timescales import smoothed_minimum as smoothed_minimum
    from langevin_nn.analyzers.transitions import TransitionRates as TransitionRates
    from langevin_nn.statistics import GaussianMixture as GaussianMixture
    from langevin_nn.statistics import StationarityTest as StationarityTest
    from langevin_nn.statistics import SwapTest as SwapTest
    from langevin_nn.statistics import TailIndex as TailIndex
    from langevin_nn.statistics import TimeAverage as TimeAverage
    from langevin_nn.statistics import autocorrelation_function as autocorrelation_function
    from langevin_nn.statistics import collapse_distance as collapse_distance
    from langevin_nn.statistics import decline_p_value as decline_p_value
    from langevin_nn.statistics import effective_sample_size as effective_sample_size
    from langevin_nn.statistics import fit_power_law as fit_power_law
    from langevin_nn.statistics import gaussian_mixture as gaussian_mixture
    from langevin_nn.statistics import holm as holm
    from langevin_nn.statistics import integrated_autocorrelation_time as integrated_autocorrelation_time
    from langevin_nn.statistics import jackknife as jackknife
    from langevin_nn.statistics import needed_replicas as needed_replicas
    from langevin_nn.statistics import stationarity_test as stationarity_test
    from langevin_nn.statistics import swap_test as swap_test
    from langevin_nn.statistics import tail_index as tail_index
    from langevin_nn.statistics import time_average as time_average
else:
    from langevin_nn.lazy import lazily

    _SYNTHETIC = ("four_phase_trajectory", "score_boundaries", "stationary_trajectory", "two_phase_trajectory")
    _FORMER = dict.fromkeys(("label", "verdict"), "langevin_nn.report") | dict.fromkeys(
        _SYNTHETIC, "langevin_nn.testing"
    )
    __getattr__, __dir__, __all__ = lazily(__name__, _FORMER)
