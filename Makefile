# The everyday commands. Each makes .venv and installs what it needs when that is missing.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
export OMP_NUM_THREADS ?= 1

MRBENCH ?= $(BIN)/mrbench
BUDGET ?=

.PHONY: help demo test test-slurm lint bench gpu clean

help:
	@echo "make demo    train and report a small ablation, under 10 minutes on 2 cores, into demo/"
	@echo "make test    run the tests"
	@echo "make test-slurm   run those on a real Slurm cluster, which it starts here (see docs/slurm.md)"
	@echo "make lint    ruff and mypy"
	@echo "make bench   measure speed (see docs/gpu-bench.md and docs/augmentation.md)"
	@echo "make gpu     on a GPU machine: its tests, and speed and largest batch into results/gpu (see docs/gpu-bench.md)"

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

# BUDGET=30m measures what fits into half an hour a record. With the packages that a machine has:
# make gpu INSTALLED= BIN=/usr/bin MRBENCH="python3 -m mrbench". A record in which something failed (-) is reported too.
R50 = model=mask_rcnn_r50_fpn runtime.device=cuda --precision fp32,tf32,fp16,bf16 --image-size 800x1333,1024x1024
CARD = results/gpu/$(shell nvidia-smi --query-gpu=name --format=csv,noheader -i 0 2>/dev/null | tr 'A-Z ' 'a-z-')
GPUS = $(shell nvidia-smi -L 2>/dev/null | wc -l)
, := ,
# Of a `make gpu` that was stopped the record that was under way goes on; a complete one stays as it is.
record = if grep -qs '^ "state": "completed"' $(1); then echo "$(1) is complete"; \
    else $(MRBENCH) gpu-bench $(2) $(if $(BUDGET),--budget $(BUDGET)) --out $(1); fi
gpu: $(INSTALLED)
	@nvidia-smi -L >/dev/null 2>&1 || { echo "make gpu needs an NVIDIA GPU and its driver (nvidia-smi)" >&2; exit 2; }
	$(BIN)/python3 -m pytest tests/gpu $(PYTEST_ARGS)
	mkdir -p results/gpu
	-$(call record,$(CARD).json,$(R50) --mode train$(,)infer --batch 1$(,)2$(,)4$(,)8$(,)16 --peer torchvision \
	    $(if $(BUDGET),,--largest-batch))
	-$(call record,$(CARD)-layouts.json,$(R50) --mode train --batch 4 --channels-last off$(,)on --compile off$(,)on \
	    --repeats 5)
	-test $(GPUS) -eq 1 || { $(call record,$(CARD)-devices.json,$(R50) --mode train --batch 4 --devices 1$(,)$(GPUS)); }
	$(MRBENCH) report --bench $$(ls $(CARD).json $(CARD)-layouts.json $(CARD)-devices.json 2>/dev/null) --out results/gpu

clean:
	rm -rf $(VENV) demo build dist
