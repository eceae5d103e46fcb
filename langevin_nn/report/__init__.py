"""What is said of results: a trajectory in the terminal, a comparison's verdict in words."""

from langevin_nn.report.trajectory import plot, report, say
from langevin_nn.report.verdict import Comparison, label, verdict

__all__ = ["Comparison", "label", "plot", "report", "say", "verdict"]
