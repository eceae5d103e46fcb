"""Compile every kernel into the cache: ``python -m langevin_nn.kernels``."""

from langevin_nn.kernels import compile_all

if __name__ == "__main__":
    compile_all()
