"""The training of a neural network as a stochastic process: exchange the noise, keep the instruments.

What one types in the first hour is here; the rest is in rooms, ``langevin_nn.noise.MatchedGaussian(25)``. Both are loaded
when they are first used.
"""

from importlib.metadata import version
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from langevin_nn import analyzers as analyzers
    from langevin_nn import cleaning as cleaning
    from langevin_nn import curvature as curvature
    from langevin_nn import drift as drift
    from langevin_nn import engine as engine
    from langevin_nn import ensemble as ensemble
    from langevin_nn import errors as errors
    from langevin_nn import figures as figures
    from langevin_nn import gradients as gradients
    from langevin_nn import landscape as landscape
    from langevin_nn import monitor as monitor
    from langevin_nn import noise as noise
    from langevin_nn import observables as observables
    from langevin_nn import operators as operators
    from langevin_nn import process as process
    from langevin_nn import rates as rates
    from langevin_nn import report as report
    from langevin_nn import run as run
    from langevin_nn import schedules as schedules
    from langevin_nn import seeds as seeds
    from langevin_nn import statistics as statistics
    from langevin_nn import store as store
    from langevin_nn import surrogate as surrogate
    from langevin_nn import testing as testing
    from langevin_nn import theory as theory
    from langevin_nn import update as update
    from langevin_nn.analyzers import detect_phases as detect_phases
    from langevin_nn.cleaning import find_mislabeled as find_mislabeled
    from langevin_nn.engine import advance as advance
    from langevin_nn.ensemble import gradient_ensemble as gradient_ensemble
    from langevin_nn.figures import plot as plot
    from langevin_nn.landscape import NetworkLandscape as NetworkLandscape
    from langevin_nn.monitor import Monitor as Monitor
    from langevin_nn.process import Process as Process
    from langevin_nn.process import frozen_langevin as frozen_langevin
    from langevin_nn.process import gradient_descent as gradient_descent
    from langevin_nn.process import isotropic_langevin as isotropic_langevin
    from langevin_nn.process import langevin as langevin
    from langevin_nn.process import sgd as sgd
    from langevin_nn.process import svag as svag
    from langevin_nn.run import Experiment as Experiment
    from langevin_nn.run import Simulation as Simulation
    from langevin_nn.run import compare as compare
    from langevin_nn.run import open_sweep as open_sweep
    from langevin_nn.run import rerun as rerun
    from langevin_nn.run import simulate as simulate
    from langevin_nn.run import simulate_together as simulate_together
    from langevin_nn.run import sweep as sweep
    from langevin_nn.seeds import Seeds as Seeds
    from langevin_nn.store import merge as merge
    from langevin_nn.store import open_trajectory as open_trajectory
    from langevin_nn.store import validate as validate
    from langevin_nn.surrogate import fit_surrogate as fit_surrogate
else:
    from langevin_nn.lazy import lazily

    # Flat until 0.1, and found for one release more.
    _FORMER = {
        "curvature": ("Hessian", "noise_curvature_overlap"),
        "drift": ("Confinement", "Drift", "GradientDrift", "LinearDrift", "SumDrift"),
        "ensemble": ("GradientEnsemble", "effective_dimension", "gradient_ensembles"),
        "landscape": (
            "Landscape", "LinearRegressionLandscape", "PotentialLandscape", "QuadraticLandscape", "SampleGradients"
        ),
        "noise": (
            "SVAG", "AnisotropicNoise", "ColouredNoise", "DiagonalNoise", "IndependentMinibatches", "IsotropicNoise",
            "LandscapeNoise", "LowRankNoise", "MatchedDiagonal", "MatchedGaussian", "MatchedStable", "Noise",
            "ScaledNoise", "ShuffledMinibatches", "Silent", "StableNoise", "StateDependentNoise", "ThermalNoise"
        ),
        "operators": ("leading_eigenpairs", "spectral_density", "subspace_overlap"),
        "process": ("State",),
        "report": ("Comparison",),
        "run": ("log_spaced", "log_uniform", "points_of_sweep", "random_points", "uniform"),
        "store": ("write_trajectory",),
        "surrogate": ("Surrogate",),
        "update": (
            "BAOAB", "Adam", "EulerMaruyama", "Heun", "LeimkuhlerMatthews", "Milstein", "Momentum", "Plain",
            "StrongAdditive", "UnderdampedLangevin", "Update", "WeakSecondOrder"
        ),
    }  # fmt: skip
    _former = {name: f"langevin_nn.{room}" for room, names in _FORMER.items() for name in names}
    __getattr__, __dir__, __all__ = lazily(__name__, _former)

__version__ = version("langevin_nn")
