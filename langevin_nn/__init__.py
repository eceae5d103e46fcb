"""The training of a neural network as a stochastic process: exchange the noise, keep the instruments."""

from importlib.metadata import version

from langevin_nn.analyzers import Comparison as Comparison
from langevin_nn.analyzers import detect_phases as detect_phases
from langevin_nn.compare import compare as compare
from langevin_nn.drift import Confinement as Confinement
from langevin_nn.drift import Drift as Drift
from langevin_nn.drift import GradientDrift as GradientDrift
from langevin_nn.drift import LinearDrift as LinearDrift
from langevin_nn.drift import SumDrift as SumDrift
from langevin_nn.ensemble import GradientEnsemble as GradientEnsemble
from langevin_nn.ensemble import curvature as curvature
from langevin_nn.ensemble import effective_dimension as effective_dimension
from langevin_nn.ensemble import gradient_ensemble as gradient_ensemble
from langevin_nn.ensemble import gradient_ensembles as gradient_ensembles
from langevin_nn.ensemble import noise_curvature_overlap as noise_curvature_overlap
from langevin_nn.landscape import Hessian as Hessian
from langevin_nn.landscape import Landscape as Landscape
from langevin_nn.landscape import LinearRegressionLandscape as LinearRegressionLandscape
from langevin_nn.landscape import NetworkLandscape as NetworkLandscape
from langevin_nn.landscape import PotentialLandscape as PotentialLandscape
from langevin_nn.landscape import QuadraticLandscape as QuadraticLandscape
from langevin_nn.landscape import SampleGradients as SampleGradients
from langevin_nn.noise import AnisotropicNoise as AnisotropicNoise
from langevin_nn.noise import ColouredNoise as ColouredNoise
from langevin_nn.noise import DiagonalNoise as DiagonalNoise
from langevin_nn.noise import IndependentMinibatches as IndependentMinibatches
from langevin_nn.noise import IsotropicNoise as IsotropicNoise
from langevin_nn.noise import LandscapeNoise as LandscapeNoise
from langevin_nn.noise import MatchedGaussian as MatchedGaussian
from langevin_nn.noise import Noise as Noise
from langevin_nn.noise import ShuffledMinibatches as ShuffledMinibatches
from langevin_nn.noise import Silent as Silent
from langevin_nn.noise import StableNoise as StableNoise
from langevin_nn.noise import StateDependentNoise as StateDependentNoise
from langevin_nn.noise import ThermalNoise as ThermalNoise
from langevin_nn.operators import leading_eigenpairs as leading_eigenpairs
from langevin_nn.operators import spectral_density as spectral_density
from langevin_nn.operators import subspace_overlap as subspace_overlap
from langevin_nn.process import Process as Process
from langevin_nn.process import State as State
from langevin_nn.process import gradient_descent as gradient_descent
from langevin_nn.process import isotropic_langevin as isotropic_langevin
from langevin_nn.process import langevin as langevin
from langevin_nn.process import sgd as sgd
from langevin_nn.rerun import rerun as rerun
from langevin_nn.seeds import Seeds as Seeds
from langevin_nn.simulate import Simulation as Simulation
from langevin_nn.simulate import simulate as simulate
from langevin_nn.simulate import simulate_together as simulate_together
from langevin_nn.store import merge as merge
from langevin_nn.store import open_trajectory as open_trajectory
from langevin_nn.store import validate as validate
from langevin_nn.store import write_trajectory as write_trajectory
from langevin_nn.update import BAOAB as BAOAB
from langevin_nn.update import EulerMaruyama as EulerMaruyama
from langevin_nn.update import Heun as Heun
from langevin_nn.update import LeimkuhlerMatthews as LeimkuhlerMatthews
from langevin_nn.update import Milstein as Milstein
from langevin_nn.update import Momentum as Momentum
from langevin_nn.update import Plain as Plain
from langevin_nn.update import StrongAdditive as StrongAdditive
from langevin_nn.update import Update as Update
from langevin_nn.update import WeakSecondOrder as WeakSecondOrder

__version__ = version("langevin_nn")
