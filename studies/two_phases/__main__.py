"""``python -m studies.two_phases``."""

from studies.two_phases.study import STUDY

if __name__ == "__main__":
    raise SystemExit(STUDY.main())
