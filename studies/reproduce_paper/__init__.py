"""Feng & Tu (2021), claim by claim, on one page that says plainly what reproduces."""
