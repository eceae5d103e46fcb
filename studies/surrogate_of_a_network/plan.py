"""What the study of surrogates can be asked."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from studies.lab import choices
from studies.lab.choices import DatasetName

__all__ = ["Config", "Settled"]


@dataclass(frozen=True)
class Config(choices.Choices):
    """Everything that can be chosen."""

    dataset: DatasetName = "digits"
    epochs: float | None = None
    """Length of training before anything is measured, in epochs; as the data set needs unless given."""
    hidden: tuple[int, ...] = (30, 30)
    """Units of each hidden layer."""
    horizon: float = 10.0
    """Length of the runs that start there, in epochs; fluctuations are averages over its second half."""
    replicas: int = 256
    """Replicas of SGD with each kind of draws, all from the same weights; intervals are over them."""
    surrogate_replicas: int = 1024
    """Replicas of each surrogate."""
    dimensions: tuple[int, ...] = (2, 5, 10, 20)
    """Directions that surrogates keep."""
    directions: str = "noise"
    """Which: leading eigenvectors of the noise covariance (noise) or of the Hessian (hessian), or principal components
    (trajectory)."""
    tolerance: float = 1.25
    """Ratio of variances within which a surrogate counts as fluctuating like SGD: 1.25 is 12 % of an amplitude."""
    memory_tolerance: float = 0.15
    """Difference of autocorrelations, at a lag of one relaxation time, that counts as alike: 0.15 is 40 % of the time."""
    out: Path = field(default=Path("output/surrogate_of_a_network"))
    """Folder for fluctuations.nc, summary.json and the figure."""


@dataclass(frozen=True, kw_only=True)
class Settled(choices.Settled, Config):
    """The same, with everything chosen."""
