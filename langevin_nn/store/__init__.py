"""Trajectories on disk: segments while they run, one file when they have ended."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from langevin_nn.store.door import Finished as Finished
    from langevin_nn.store.door import Running as Running
    from langevin_nn.store.door import open_run as open_run
    from langevin_nn.store.durable import refuse_finished as refuse_finished
    from langevin_nn.store.forecast import refuse_unless_it_fits as refuse_unless_it_fits
    from langevin_nn.store.formats import export as export
    from langevin_nn.store.join import join_processes as join_processes
    from langevin_nn.store.join import merge as merge
    from langevin_nn.store.parts import Parts as Parts
    from langevin_nn.store.recorder import Recorder as Recorder
    from langevin_nn.store.segments import SegmentFolder as SegmentFolder
    from langevin_nn.store.segments import folder_of as folder_of
    from langevin_nn.store.segments import has_segments as has_segments
    from langevin_nn.store.segments import has_work as has_work
    from langevin_nn.store.state import state_from as state_from
    from langevin_nn.store.trajectory import check_writable as check_writable
    from langevin_nn.store.trajectory import open_trajectory as open_trajectory
    from langevin_nn.store.trajectory import write_trajectory as write_trajectory
    from langevin_nn.store.validation import validate as validate
else:
    from langevin_nn.lazy import lazily

    __getattr__, __dir__, __all__ = lazily(__name__)
