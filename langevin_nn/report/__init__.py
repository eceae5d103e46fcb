"""What is said of results: a trajectory in the terminal, a comparison's verdict in words."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from langevin_nn.report.comparison import Comparison as Comparison
    from langevin_nn.report.comparison import label as label
    from langevin_nn.report.comparison import verdict as verdict
    from langevin_nn.report.parts import watched as watched
    from langevin_nn.report.terminal import say as say
    from langevin_nn.report.trajectory import plot as plot
    from langevin_nn.report.trajectory import report as report
else:
    from langevin_nn.lazy import lazily

    __getattr__, __dir__, __all__ = lazily(__name__)
