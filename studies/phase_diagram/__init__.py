"""Label noise, learning rate and batch size, asked as a physicist asks of a phase transition."""
