"""The gradient ensemble at one point in weight space."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from langevin_nn.ensemble.base import GradientEnsemble as GradientEnsemble
    from langevin_nn.ensemble.forecast import Forecast as Forecast
    from langevin_nn.ensemble.groups import covariance_factor as covariance_factor
    from langevin_nn.ensemble.measure import gradient_ensemble as gradient_ensemble
    from langevin_nn.ensemble.measure import gradient_ensembles as gradient_ensembles
    from langevin_nn.ensemble.plane import draw_minibatch_gradients as draw_minibatch_gradients
    from langevin_nn.ensemble.plane import project_gradients as project_gradients
    from langevin_nn.ensemble.replicas import ReplicaEnsembles as ReplicaEnsembles
    from langevin_nn.ensemble.spectrum import Spectrum as Spectrum
    from langevin_nn.ensemble.spectrum import effective_dimension as effective_dimension
else:
    from langevin_nn.lazy import lazily

    _BENT = {"curvature": "langevin_nn.curvature:hessian_spectrum", "noise_curvature_overlap": "langevin_nn.curvature"}
    __getattr__, __dir__, __all__ = lazily(__name__, _BENT)
