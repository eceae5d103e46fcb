"""Reduce a network near a minimum to a few directions, and ask where it still fluctuates as SGD does."""
