"""Trajectories on disk: segments while they run, one file when they have ended."""

from langevin_nn.store.durable import refuse_finished
from langevin_nn.store.export import export
from langevin_nn.store.forecast import refuse_unless_it_fits
from langevin_nn.store.join import join_processes, merge
from langevin_nn.store.recorder import Recorder
from langevin_nn.store.segments import SegmentFolder, folder_of, has_segments, has_work
from langevin_nn.store.state import state_from
from langevin_nn.store.trajectory import check_writable, open_trajectory, write_trajectory
from langevin_nn.store.validation import validate

__all__ = [
    "Recorder",
    "SegmentFolder",
    "check_writable",
    "export",
    "folder_of",
    "has_segments",
    "has_work",
    "join_processes",
    "merge",
    "open_trajectory",
    "refuse_finished",
    "refuse_unless_it_fits",
    "state_from",
    "validate",
    "write_trajectory",
]
