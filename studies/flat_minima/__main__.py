"""``python -m studies.flat_minima``."""

from studies.flat_minima.study import STUDY

if __name__ == "__main__":
    raise SystemExit(STUDY.main())
