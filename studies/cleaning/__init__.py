"""Clean a training set of wrong labels by losses: as the paper does, as we do, as cleanlab does (claims 11 to 13)."""
