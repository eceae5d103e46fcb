"""What the phase diagram can be asked."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from studies.lab.command import Output

__all__ = ["Config"]


@dataclass(frozen=True)
class Config(Output):
    """Everything that can be chosen."""

    label_noises: tuple[float, ...] = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
    """Shares of training samples whose label is redrawn from all classes."""
    learning_rates: tuple[float, ...] = (0.05, 0.1, 0.2)
    """Learning rates α, in units of gradient-flow time."""
    batch_sizes: tuple[int, ...] = (10, 20, 40)
    """Minibatches B; with the learning rates, several pairs share α/B."""
    widths: tuple[int, ...] = (30, 40, 60, 90, 130, 200)
    """Units of each hidden layer, at which the sharpness of memorisation is measured."""
    class_sizes: tuple[int, ...] = (30, 45, 60, 90, 120)
    """Training samples a class, at which it is measured, too."""
    width: int = 50
    """Units of each of the two hidden layers elsewhere."""
    samples_per_class: int = 120
    """Training samples a class elsewhere."""
    label_noise: float = 0.5
    """Label noise of the collapse and of the sizes."""
    learning_rate: float = 0.1
    """Learning rate of the diagram against label noise and of the sizes: one of those swept."""
    batch_size: int = 20
    """Minibatch of the diagram against label noise and of the sizes: one of those swept."""
    replicas: int = 8
    """Replicas of each point of the diagram: their weights and minibatches differ, their labels do not."""
    size_replicas: int = 32
    """Replicas at each size, whose fluctuation is measured."""
    longest: float = 1800.0
    """Length of each run, in units of gradient-flow time."""
    records: int = 120
    """Records of each run, at times of equal ratio."""
    seed: int = 0
    """Owner of all randomness."""
    workers: int | None = None
    """Local processes; as many as there are cores unless given."""
    out: Path = field(default=Path("output/phase_diagram"))
    """Folder for the sweeps, phases.nc, summary.json and the figures."""
