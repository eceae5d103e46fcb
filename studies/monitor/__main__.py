"""``python -m studies.monitor``."""

from studies.monitor.study import STUDY

if __name__ == "__main__":
    raise SystemExit(STUDY.main())
