"""Cleaning: which samples are mislabeled, told from their losses over training alone."""

from langevin_nn.cleaning.literal import literal_rule
from langevin_nn.cleaning.mislabeled import find_mislabeled
from langevin_nn.cleaning.summary import cleaning_summary

__all__ = ["cleaning_summary", "find_mislabeled", "literal_rule"]
