"""Analyzers: a dataset in, a dataset out; they work on files, and on trajectories that somebody else made."""

from langevin_nn.analyzers.comparison import COMPARED, ComparisonAnalyzer, Quantity, at_equal_loss
from langevin_nn.analyzers.phases import PhaseDetector, detect_phases
from langevin_nn.analyzers.statistics import logarithm, mean_with_interval
from langevin_nn.analyzers.summary import Comparison, analyze
from langevin_nn.analyzers.transitions import TransitionRates
from langevin_nn.analyzers.verdict import label, verdict

__all__ = [
    "COMPARED",
    "Comparison",
    "ComparisonAnalyzer",
    "PhaseDetector",
    "Quantity",
    "TransitionRates",
    "analyze",
    "at_equal_loss",
    "detect_phases",
    "label",
    "logarithm",
    "mean_with_interval",
    "verdict",
]
