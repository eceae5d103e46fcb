"""Without label noise: fast learning, then exploration (claims 1 to 3)."""
