"""``python -m studies.label_noise_phases``."""

from studies.label_noise_phases.study import STUDY

if __name__ == "__main__":
    raise SystemExit(STUDY.main())
