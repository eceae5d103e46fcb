"""What the study of learning with label noise can be asked."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from studies.lab.choices import Choices
from studies.lab.choices import Settled as Chosen

__all__ = ["Config", "Settled"]


@dataclass(frozen=True)
class Config(Choices):
    """Everything that can be chosen."""

    label_noise: float = 0.5
    """Fraction of training samples whose label is redrawn from all classes, above 0 and at most 1."""
    hidden: tuple[int, ...] = (50, 50)
    """Units of each hidden layer of a fully connected network; at least two layers."""
    records: int = 60
    """Records of the order parameters of the hidden weights, at epochs of about equal ratio; twice as many of losses."""
    records_of_all: int = 20
    """At how many of them those of all weights are measured."""
    alignment_minibatches: int = 64
    """Independent minibatches from which the alignment R is estimated at each record."""
    spectrum_replicas: int = 8
    """Replicas whose noise spectra are measured, at a record in each phase."""
    spectrum_replicas_of_all: int = 3
    """The same for all weights."""
    n_modes: int = 500
    """Leading eigenvalues to keep."""
    out: Path = field(default=Path("output/label_noise_phases"))
    """Folder for trajectories, summary.json, claims.json and figures."""


@dataclass(frozen=True, kw_only=True)
class Settled(Chosen, Config):
    """The same, with everything chosen."""
