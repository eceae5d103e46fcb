"""Faults on purpose: kills, full disks, damaged files, readers beside writers, and how much memory recording takes."""
