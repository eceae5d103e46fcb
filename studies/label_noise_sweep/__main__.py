"""``python -m studies.label_noise_sweep``."""

from studies.label_noise_sweep.study import STUDY

if __name__ == "__main__":
    raise SystemExit(STUDY.main())
