"""``python -m studies.is_the_sde_valid``."""

from studies.is_the_sde_valid.study import STUDY

if __name__ == "__main__":
    raise SystemExit(STUDY.main())
