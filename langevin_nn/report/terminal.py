"""What is printed, wherever it goes."""

from __future__ import annotations

import sys

__all__ = ["say"]

# For terminals and pipes that have no Unicode; what is not here becomes a question mark.
_IN_ASCII = str.maketrans(
    {
        "•": "*",
        "×": "x",
        "±": "+-",
        "−": "-",
        "–": "-",
        "√": "sqrt",
        "α": "alpha",
        "λ": "lambda",
        "μ": "mu",
        "σ": "sigma",
    }
    | {"Σ": "Sigma", "Δ": "Delta", "ρ": "rho", "₀": "0", "₂": "2", "²": "2", "∥": "_parallel", "⊥": "_perpendicular"}
)


def say(text: str) -> None:
    """Print text wherever it goes, also where only ASCII does."""
    encoding = sys.stdout.encoding or "utf-8"
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        text = text.translate(_IN_ASCII).encode(encoding, "replace").decode(encoding)
    print(text)
