# Needs GNU make, g++ and Python 3.11 to 3.14 with its venv module; installs the rest
# into .venv. `make setup TORCH_ARGS="--index-url URL"` takes torch from another index.
MAKEFLAGS += --warn-undefined-variables --no-builtin-rules --no-print-directory
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
# One recipe at a time: pytest's report must not mix with a linter's.
.NOTPARALLEL:

PYTHON     ?=
TESTARGS   ?=
TESTWORKERS ?= 2
RUNARGS    ?=
BENCHARGS  ?=
CONFORMANCEARGS ?=
SUITES ?=
PROGRAMSARGS ?=
TORCH_ARGS ?=

TORCH    := torch==2.13.0
# `===`: the index's own build, which is one for CUDA, not a CPU build of that version.
CUDA_TORCH ?= torch===2.13.0
CUDA_PYTHON ?=
VENV     := .venv
BIN      := $(VENV)/bin
STAMP    := $(VENV)/.installed
SUITES_STAMP := $(VENV)/.suites
CUDA_VENV  := .venv-cuda
CUDA_BIN   := $(CUDA_VENV)/bin
CUDA_STAMP := $(CUDA_VENV)/.installed
LOG      := $(VENV)/setup.log
SOURCES  := client_stub server protocol pool_registry perf tests examples
PACKAGES := xpool_protocol xpool xpool_server xpool_registry xpool_perf

# What the caller has set for another Python must not reach ours.
unexport PYTHONPATH PYTHONHOME PYTHONSTARTUP PYTHONOPTIMIZE PYTHONWARNINGS
unexport PYTHONUSERBASE PYTHONINSPECT PYTHONSAFEPATH PYTHONPLATLIBDIR
unexport PIP_TARGET PIP_PREFIX PIP_ROOT PIP_USER PIP_CONSTRAINT PIP_REQUIREMENT
export PYTHONNOUSERSITE := 1

# `make test-gpu PYTHON=/usr/bin/python3` takes that interpreter and its torch as they
# are, for a machine where nothing can be installed; SITE is a folder with packages that
# it lacks (pip install --target).
SITE ?=
GPU_SCENARIOS ?= torch_ops train decode transfer
GPU_TESTS := tests/gpu tests/server/devices
GPU_VENV  := .venv-gpu
ifeq ($(PYTHON),)
GPU_NEEDS  := native
GPU_PYTHON := $(BIN)/python
else
GPU_NEEDS  := gpu-venv
GPU_PYTHON := $(GPU_VENV)/bin/python
endif
GPU_BUILD = $(GPU_PYTHON) -m xpool.native.build; \
  $(GPU_PYTHON) -m xpool_server.native.build

# A moved checkout needs its editable install again: the stamp holds its place.
ifneq ($(file <$(STAMP)),$(CURDIR))
.PHONY: $(STAMP)
endif

# $(call quietly,COMMAND): the output is shown only when the command fails.
quietly = $(1) >$(LOG) 2>&1 || { cat $(LOG) >&2; exit 1; }

.PHONY: help
help: ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

.PHONY: run
run: native ## train the example in a pool on this machine and locally; compare
	@exec $(BIN)/python -m xpool_perf.demo $(RUNARGS)

.PHONY: check
check: lint types test ## everything that a change must pass; needs no GPU

.PHONY: lint
lint: setup ## style, import order, dead code
	@$(BIN)/ruff format --check $(SOURCES)
	@$(BIN)/ruff check $(SOURCES)

.PHONY: types
types: setup ## strict static types
	@$(BIN)/python -m mypy $(addprefix -p ,$(PACKAGES))

# A real etcd for the tests of several registries: this machine's own, or Debian's
# package unpacked into a folder that git ignores; nothing is installed or started.
.PHONY: etcd
etcd: ## fetch etcd for the tests, where this machine has none
	@command -v etcd >/dev/null || [ -x .tools/etcd/usr/bin/etcd ] || { \
	  echo "etcd: fetching Debian's package etcd-server"; \
	  mkdir -p .tools/etcd && cd .tools/etcd && \
	  apt-get download etcd-server >/dev/null && dpkg -x etcd-server_*.deb . && \
	  rm etcd-server_*.deb; } || \
	  echo "etcd: not to be had here, its tests are skipped: apt-get install etcd-server"

# A test that hangs fails with its stacks; it does not end the whole run. Files start in
# the order that tests/conftest.py gives them: long ones first.
.PHONY: test
test: native etcd ## unit, property, conformance, fault and end-to-end tests on the CPU
	@exec $(BIN)/python -m pytest -m "not gpu and not cuda_wheel" \
	  -n $(TESTWORKERS) --dist loadfile --no-loadscope-reorder --timeout 600 \
	  $(TESTARGS)

.PHONY: test-gpu
test-gpu: $(GPU_NEEDS) ## the tests that need a CUDA device
	@$(GPU_PYTHON) -m xpool_perf.gpu_host
	@$(GPU_BUILD)
	@$(GPU_PYTHON) -m pytest -m gpu $(GPU_TESTS) $(TESTARGS)

.PHONY: bench-gpu
bench-gpu: $(GPU_NEEDS) ## measure against a CUDA device of this machine; keep the results
	@$(GPU_PYTHON) -m xpool_perf.gpu_host
	@$(GPU_BUILD)
	@for scenario in $(GPU_SCENARIOS); do \
	  $(GPU_PYTHON) -m xpool_perf $$scenario --device cuda --keep $(BENCHARGS); \
	done

.PHONY: test-cuda-wheel
test-cuda-wheel: native native-cuda-wheel ## a client with a CUDA build of torch (5 GB)
	@SERVER_PYTHON=$(BIN)/python exec $(CUDA_BIN)/python -m pytest -m cuda_wheel \
	  tests/cuda_wheel $(TESTARGS)

.PHONY: test-leaving
test-leaving: native ## every way in which a job can end, thirty times each
	@exec $(BIN)/python -m pytest tests/e2e/test_leaving.py --repetitions 30 $(TESTARGS)

.PHONY: conformance
conformance: native $(if $(SUITES),$(SUITES_STAMP)) ## torch's own suites through a pool; with SUITES=DIR CuPy's, see README
ifeq ($(SUITES),)
	@exec $(BIN)/python tests/compat/run_suites.py $(CONFORMANCEARGS)
else
	@exec $(BIN)/python tests/compat/arrays/run_array_suites.py $(SUITES) $(CONFORMANCEARGS)
endif

$(SUITES_STAMP): tests/compat/arrays/requirements.txt | setup
	@$(call quietly,$(BIN)/python -m pip install -r $<)
	@touch $@

.PHONY: conformance-cuda-wheel
conformance-cuda-wheel: native native-cuda-wheel ## the same, a CUDA build of torch as client
	@exec $(CUDA_BIN)/python tests/compat/run_suites.py --cuda-build \
	  --server-python $(BIN)/python $(CONFORMANCEARGS)

.PHONY: programs
programs: native ## every program of tests/programs in a pool and locally, compared
	@exec $(BIN)/python tests/programs/run.py $(PROGRAMSARGS)

.PHONY: bench
bench: native ## measure the main scenario; one JSON object on stdout
	@exec $(BIN)/python -m xpool_perf main_job --json $(BENCHARGS)

.PHONY: native
native: setup ## build the native libraries of client and server (a minute each, once)
	@command -v g++ >/dev/null || { \
	  echo "make: g++ is missing: apt-get install g++" >&2; exit 1; }
	@$(BIN)/python -m xpool.native.build
	@$(BIN)/python -m xpool_server.native.build

# Nothing is downloaded: what PYTHON has, what SITE has, and this folder.
.PHONY: gpu-venv
gpu-venv:
	@$(PYTHON) -m venv --clear --without-pip --system-site-packages $(GPU_VENV)
	@{ printf '%s\n' $(addprefix $(CURDIR)/,client_stub server protocol pool_registry perf) \
	    $(if $(SITE),$(abspath $(SITE))); \
	  $(PYTHON) -c 'import sysconfig; \
	    print("import site; site.addsitedir(%r)" % sysconfig.get_path("purelib"))'; \
	} >"$$($(GPU_PYTHON) -c 'import sysconfig; print(sysconfig.get_path("purelib"))')"/xpool.pth

.PHONY: native-cuda-wheel
native-cuda-wheel: $(CUDA_STAMP)
	@$(CUDA_BIN)/python -m xpool.native.build

.PHONY: setup
setup: $(STAMP) ## make .venv with everything pinned in constraints.txt

$(STAMP): pyproject.toml constraints.txt
	@found= ; \
	for python in $(PYTHON) python3.14 python3.13 python3.12 python3.11 python3; do \
	  "$$python" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 15))' \
	    2>/dev/null || continue; \
	  found="$$python"; \
	  if "$$python" -c 'import ensurepip, venv' 2>/dev/null; then break; fi; \
	  found= ; novenv="$$python"; \
	done; \
	if [ -z "$$found" ] && [ -n "$${novenv-}" ]; then \
	  echo "make: $$novenv has no venv module: apt-get install python3-venv" >&2; exit 1; \
	elif [ -z "$$found" ]; then \
	  echo "make: Python 3.11 to 3.14 is missing:" \
	    "apt-get install python3 python3-venv" >&2; exit 1; \
	fi; \
	echo "setup: $$("$$found" --version) in $(VENV)"; \
	mkdir -p $(VENV); \
	$(call quietly,"$$found" -m venv $(VENV))
# torch first and alone: a plain `pip install` finds the CPU wheel where there is one.
	@echo "setup: installing $(TORCH) (the largest download)"
	@$(call quietly,$(BIN)/python -m pip install $(TORCH_ARGS) $(TORCH))
	@echo "setup: installing the packages of constraints.txt"
	@$(call quietly,$(BIN)/python -m pip install -r constraints.txt)
	@echo "setup: installing xpool from this folder"
	@$(call quietly,$(BIN)/python -m pip install --no-build-isolation --no-deps -e .)
	@printf '%s' '$(CURDIR)' >$@

# Not for CI: some gigabytes. The Python of .venv, unless CUDA_PYTHON names another one.
$(CUDA_STAMP): pyproject.toml constraints.txt | setup
	@echo "setup: installing $(CUDA_TORCH) in $(CUDA_VENV), some gigabytes"
	@python=$(CUDA_PYTHON); \
	  $(call quietly,"$${python:-$(BIN)/python}" -m venv $(CUDA_VENV))
	@$(call quietly,$(CUDA_BIN)/python -m pip install $(TORCH_ARGS) $(CUDA_TORCH))
	@$(call quietly,$(CUDA_BIN)/python -m pip install \
	  -r <(grep -vE '^(torch|sympy|networkx|fsspec|filelock|Jinja2|mpmath)==' constraints.txt))
	@$(call quietly,$(CUDA_BIN)/python -m pip install --no-build-isolation --no-deps -e .)
	@printf '%s' '$(CURDIR)' >$@

.PHONY: clean
clean: ## remove .venv, caches and build outputs
	rm -rf $(VENV) $(CUDA_VENV) $(GPU_VENV) build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find $(SOURCES) -name __pycache__ -type d -prune -exec rm -rf {} +
