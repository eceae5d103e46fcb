"""Benchmarks: ``python -m benchmarks`` prints medians, and ratios measured in the same run."""
