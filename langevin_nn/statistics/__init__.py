"""Statistics: arrays in, estimates with errors out, or a refusal. They know nothing of labels, networks or torch."""

from langevin_nn.statistics.autocorrelation import (
    TimeAverage,
    autocorrelation_function,
    effective_sample_size,
    integrated_autocorrelation_time,
    time_average,
)
from langevin_nn.statistics.decline import decline_p_value
from langevin_nn.statistics.intervals import jackknife, needed_replicas
from langevin_nn.statistics.mixture import GaussianMixture, gaussian_mixture
from langevin_nn.statistics.permutation import SwapTest, holm, swap_test
from langevin_nn.statistics.scaling import collapse_distance, fit_power_law
from langevin_nn.statistics.stationarity import StationarityTest, stationarity_test
from langevin_nn.statistics.tails import TailIndex, tail_index

__all__ = [
    "GaussianMixture",
    "StationarityTest",
    "SwapTest",
    "TailIndex",
    "TimeAverage",
    "autocorrelation_function",
    "collapse_distance",
    "decline_p_value",
    "effective_sample_size",
    "fit_power_law",
    "gaussian_mixture",
    "holm",
    "integrated_autocorrelation_time",
    "jackknife",
    "needed_replicas",
    "stationarity_test",
    "swap_test",
    "tail_index",
    "time_average",
]
