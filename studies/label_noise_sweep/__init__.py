"""From no label noise to nearly all: best generalisation, and the end of memorising (claims 4 and 6)."""
