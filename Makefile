# Two commands: `make study` and `make test`. Both build the virtual environment .venv where it is missing.
PYTHON ?= python3
VENV := .venv
# GPU users leave this empty, so that pip chooses torch's CUDA build: make study CONSTRAINTS=
CONSTRAINTS := constraints.txt
BIN := $(VENV)/bin
BENCH := .venv-bench

.PHONY: help study paper test proofs torture coverage conformance calibrate calibrate-sde lint types bench clean

help:
	@echo "make study   run the front door: SGD against Langevin dynamics (some 4 minutes on two cores)"
	@echo "make paper   reproduce the paper, claim by claim, into output/reproduce_paper/report.html (an hour and a half on two cores; goes on where it was killed)"
	@echo "make test    run the whole test suite, a worker for each core; ARGS='-n0 tests/store/test_store.py': a part, in one process"
	@echo "make proofs  run the tests that take long: kills, rates of escape, other processors (some minutes)"
	@echo "make torture    kill, corrupt and starve recordings by the hundred, and count (about 10 minutes)"
	@echo "make coverage   how often every interval holds the truth, and false alarms of every test, into docs/coverage.md (some minutes)"
	@echo "make conformance  try architectures of torchvision, timm, transformers and peft, which it installs, into docs/conformance.md (some minutes)"
	@echo "make calibrate  false alarms and coverage of phases of learning, over thousands of synthetic trajectories"
	@echo "make calibrate-sde  false alarms and power of the test that tells SGD from a stochastic differential equation"
	@echo "make lint    ruff: style and docstrings"
	@echo "make types   mypy, strict"
	@echo "make bench   time gradients, replicas, ensembles, Langevin dynamics, recording and sweeps against peers, installed into $(BENCH); ARGS=langevin: a part"
	@echo "make clean   remove the environment and caches"

$(VENV)/installed: pyproject.toml $(CONSTRAINTS)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "langevin_nn needs Python 3.11 or newer; name one with: make PYTHON=/path/to/python3.11 $(MAKECMDGOALS)"; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet $(addprefix --constraint ,$(CONSTRAINTS)) --editable '.[test,lint]'
	$(BIN)/python -m langevin_nn.kernels
	@touch $@

study: $(VENV)/installed
	$(BIN)/python -m studies.compare_sgd_vs_langevin $(ARGS)

# With cleanlab, with which the study of cleaning compares.
$(VENV)/compared: $(VENV)/installed
	$(BIN)/python -m pip install --quiet $(addprefix --constraint ,$(CONSTRAINTS)) --editable '.[compare]'
	@touch $@

paper: $(VENV)/compared
	$(BIN)/python -m studies.reproduce_paper $(if $(filter --overwrite,$(ARGS)),,--resume) $(ARGS)

# A worker for each core. Threads that wait must not spin: they would take the core of the other worker.
test: $(VENV)/installed
	OMP_WAIT_POLICY=passive $(BIN)/python -m pytest --numprocesses auto --dist worksteal $(ARGS)

# What takes long, and has a shorter relative in the suite.
proofs: $(VENV)/installed
	OMP_WAIT_POLICY=passive $(BIN)/python -m pytest --numprocesses auto --dist worksteal -m proof $(ARGS)

torture: $(VENV)/installed
	$(BIN)/python -m tests.torture $(ARGS)
	$(BIN)/python -m tests.configurations --examples 10000

coverage: $(VENV)/installed
	$(BIN)/python tests/count_coverage.py --out docs/coverage.md $(ARGS)

# With the libraries whose networks are tried.
$(VENV)/models: $(VENV)/installed
	$(BIN)/python -m pip install --quiet $(addprefix --constraint ,$(CONSTRAINTS)) --editable '.[models]'
	@touch $@

conformance: $(VENV)/models
	OMP_WAIT_POLICY=passive $(BIN)/python tests/conformance/check_conformance.py --out docs/conformance.md $(ARGS)

calibrate: $(VENV)/installed
	$(BIN)/python tests/calibrate_phases.py $(ARGS)

calibrate-sde: $(VENV)/installed
	$(BIN)/python tests/calibrate_sde.py $(ARGS)

lint: $(VENV)/installed
	$(BIN)/python -m ruff check .
	$(BIN)/python -m ruff format --check .

types: $(VENV)/installed
	$(BIN)/python -m mypy

$(BENCH)/installed: pyproject.toml $(CONSTRAINTS) benchmarks/requirements.txt
	$(PYTHON) -m venv $(BENCH)
	$(BENCH)/bin/python -m pip install --quiet $(addprefix --constraint ,$(CONSTRAINTS)) --editable '.[sweep]' \
		--requirement benchmarks/requirements.txt
	$(BENCH)/bin/python -m langevin_nn.kernels
	@touch $@

bench: $(BENCH)/installed
	$(BENCH)/bin/python -m benchmarks $(ARGS)

clean:
	rm -rf $(VENV) $(BENCH) build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
