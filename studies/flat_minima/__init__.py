"""Ask whether noise prefers flat minima, and which noise does."""
