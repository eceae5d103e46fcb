"""Statistics: arrays in, estimates with errors out, or a refusal. They know nothing of labels, networks or torch."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from langevin_nn.statistics.autocorrelation import TimeAverage as TimeAverage
    from langevin_nn.statistics.autocorrelation import autocorrelation_function as autocorrelation_function
    from langevin_nn.statistics.autocorrelation import effective_sample_size as effective_sample_size
    from langevin_nn.statistics.autocorrelation import (
        integrated_autocorrelation_time as integrated_autocorrelation_time,
    )
    from langevin_nn.statistics.autocorrelation import time_average as time_average
    from langevin_nn.statistics.decline import decline_p_value as decline_p_value
    from langevin_nn.statistics.intervals import jackknife as jackknife
    from langevin_nn.statistics.intervals import needed_replicas as needed_replicas
    from langevin_nn.statistics.mixture import GaussianMixture as GaussianMixture
    from langevin_nn.statistics.mixture import gaussian_mixture as gaussian_mixture
    from langevin_nn.statistics.permutation import SwapTest as SwapTest
    from langevin_nn.statistics.permutation import holm as holm
    from langevin_nn.statistics.permutation import swap_test as swap_test
    from langevin_nn.statistics.scaling import collapse_distance as collapse_distance
    from langevin_nn.statistics.scaling import fit_power_law as fit_power_law
    from langevin_nn.statistics.stationarity import StationarityTest as StationarityTest
    from langevin_nn.statistics.stationarity import stationarity_test as stationarity_test
    from langevin_nn.statistics.tails import TailIndex as TailIndex
    from langevin_nn.statistics.tails import tail_index as tail_index
else:
    from langevin_nn.lazy import lazily

    __getattr__, __dir__, __all__ = lazily(__name__)
