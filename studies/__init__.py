"""Studies: what is asked. Each is a configuration, a run, its figures and a verdict, behind one command."""

import gc

# What is imported lives until the end. To look for garbage among it would take a quarter of the time that a command needs
# to start, and half a second at its end.
_collects = gc.isenabled()
gc.disable()
import langevin_nn.figures  # noqa: E402, F401
import langevin_nn.run.experiment  # noqa: E402, F401

gc.freeze()
if _collects:
    gc.enable()
