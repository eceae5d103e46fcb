"""``python -m studies.surrogate_of_a_network``."""

from studies.surrogate_of_a_network.study import STUDY

if __name__ == "__main__":
    raise SystemExit(STUDY.main())
