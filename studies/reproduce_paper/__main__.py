"""``python -m studies.reproduce_paper``."""

from studies.reproduce_paper.study import main

if __name__ == "__main__":
    raise SystemExit(main())
