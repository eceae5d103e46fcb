"""Training loops of one's own, measured where they run."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from langevin_nn.monitor.averages import pooled as pooled
    from langevin_nn.monitor.indexed import IndexedDataset as IndexedDataset
    from langevin_nn.monitor.monitor import Monitor as Monitor
    from langevin_nn.monitor.tensorboard import ScalarWriter as ScalarWriter
    from langevin_nn.monitor.verdict import Verdict as Verdict
    from langevin_nn.monitor.verdict import verdict_of as verdict_of
    from langevin_nn.monitor.words import live as live
    from langevin_nn.monitor.words import of_trajectory as of_trajectory
else:
    from langevin_nn.lazy import lazily

    __getattr__, __dir__, __all__ = lazily(__name__)
