"""Where formulas were, with which classes of users' own describe their noise, until the next release."""

from langevin_nn.former import found_elsewhere

_SAME = ("BROWNIAN", "COLOURED", "STABLE", "linear_field")
_HOMES = dict.fromkeys(_SAME, "langevin_nn.formulas")
_RENAMED = {f"Compiled{kind}": f"langevin_nn.formulas:{kind}Formula" for kind in ("Field", "Noise")}

__getattr__ = found_elsewhere(__name__, _HOMES | _RENAMED)
