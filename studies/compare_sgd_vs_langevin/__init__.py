"""The front door: which noise makes Langevin dynamics follow SGD, and which does not."""
