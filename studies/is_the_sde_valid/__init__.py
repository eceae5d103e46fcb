"""Ask whether training may be treated as a stochastic differential equation, and in which phases."""
