"""``python -m studies.phase_diagram``."""

from studies.phase_diagram.study import STUDY

if __name__ == "__main__":
    raise SystemExit(STUDY.main())
