"""How a landscape bends at a point: its Hessian, its flatness along lines, and the noise beside it."""

import sys
import warnings
from types import ModuleType
from typing import Any

from langevin_nn.curvature.hessian import Hessian
from langevin_nn.curvature.lines import flatness, loss_profile
from langevin_nn.curvature.overlap import hessian_spectrum, noise_curvature_overlap
from langevin_nn.former import found_elsewhere

__all__ = ["Hessian", "flatness", "hessian_spectrum", "loss_profile", "noise_curvature_overlap"]

__getattr__ = found_elsewhere(__name__, {"curvature": f"{__name__}:hessian_spectrum"})


class _Callable(ModuleType):
    """Until 0.1 a function hid this room; for one release more the room can be called in its place."""

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        words = f"{__name__}(...) is {__name__}.hessian_spectrum(...) now, and is found there alone from the next release on"
        warnings.warn(words, DeprecationWarning, stacklevel=2)
        return hessian_spectrum(*arguments, **options)


sys.modules[__name__].__class__ = _Callable
