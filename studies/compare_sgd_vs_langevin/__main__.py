"""``python -m studies.compare_sgd_vs_langevin``."""

from studies.compare_sgd_vs_langevin.study import STUDY

if __name__ == "__main__":
    raise SystemExit(STUDY.main())
