"""``python -m studies``: the studies, with a line each."""

from __future__ import annotations

import ast
from pathlib import Path

__all__ = ["listed", "main"]


def listed() -> dict[str, str]:
    """Return the studies, by name, with what each asks; none is imported for it.

    Returns
    -------
    dict of str to str
        Of every folder beside this file that is a command.
    """
    folders = sorted(path.parent for path in Path(__file__).parent.glob("*/__main__.py"))
    found = {each.name: ast.get_docstring(ast.parse((each / "__init__.py").read_text("utf-8"))) for each in folders}
    return {name: (words or "").splitlines()[0] for name, words in found.items()}


def main() -> int:
    """Print them.

    Returns
    -------
    int
        0.
    """
    names = listed()
    width = max(map(len, names))
    print("python -m studies.NAME --help says what can be chosen; --quick runs a small one in seconds.\n")
    for name, words in names.items():
        print(f"  {name:{width}}  {words}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
