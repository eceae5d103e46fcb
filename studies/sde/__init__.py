"""Parts of the study that asks whether the stochastic differential equation is valid."""
