"""``python -m studies.cleaning``."""

from studies.cleaning.study import STUDY

if __name__ == "__main__":
    raise SystemExit(STUDY.main())
