"""Cleaning: which samples are mislabeled, told from their losses over training alone."""

from langevin_nn.cleaning.literal import literal_rule
from langevin_nn.cleaning.mislabeled import cleaning_summary, find_mislabeled

__all__ = ["cleaning_summary", "find_mislabeled", "literal_rule"]
