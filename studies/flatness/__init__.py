"""What the study of variance and flatness is made of."""
