"""``python -m studies.variance_flatness``."""

from studies.variance_flatness.study import STUDY

if __name__ == "__main__":
    raise SystemExit(STUDY.main())
