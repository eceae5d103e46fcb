"""Redraw half of the labels: four phases, and what tells them apart (claims 5 and 7 to 10)."""
