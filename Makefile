# The everyday commands. Each makes .venv and installs what it needs when that is missing.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
export OMP_NUM_THREADS ?= 1

.PHONY: help demo test test-slurm lint bench clean

help:
	@echo "make demo    train and report a small ablation, under 10 minutes on 2 cores, into demo/"
	@echo "make test    run the tests"
	@echo "make test-slurm   run those on a real Slurm cluster, which it starts here (see docs/slurm.md)"
	@echo "make lint    ruff and mypy"
	@echo "make bench   measure speed (see docs/gpu-bench.md and docs/augmentation.md)"

$(INSTALLED): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[dev]"
	touch $@

demo: $(INSTALLED)
	$(BIN)/mrbench sweep ablations/demo.yaml --root demo
	$(BIN)/mrbench report demo --root demo

test: $(INSTALLED)
	$(BIN)/python -m pytest -n 2 --dist worksteal $(PYTEST_ARGS)

test-slurm: $(INSTALLED)
	MRBENCH_TEST_SLURM=1 $(BIN)/python -m pytest tests/slurm $(PYTEST_ARGS)

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(INSTALLED)
	$(BIN)/mrbench gpu-bench --mode train,infer
	$(BIN)/python -W ignore::DeprecationWarning -m mrbench.bench.loading
	$(BIN)/python -m mrbench.bench.many_runs
	$(BIN)/python -m mrbench.bench.reporting

clean:
	rm -rf $(VENV) demo build dist
