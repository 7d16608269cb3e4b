# make demo, make test: each sets up everything it needs in ./.venv, from constraints.txt. PYTHON=... picks another Python.
SHELL := /bin/sh
PYTHON ?= $(firstword $(foreach p,python3.11 python3.12 python3.13 python3,$(if $(shell command -v $(p) 2>/dev/null),$(p))))
VENV := .venv
BIN := $(VENV)/bin
# A process for each core, four at most (each may hold a TensorFlow); the tests of one file share what they set up.
SIDE_BY_SIDE := -n auto --maxprocesses 4 --dist loadfile

.PHONY: help demo test test-long test-emulated lint format benchmarks clean check-python
.DEFAULT_GOAL := help

help:
	@echo 'make demo         the whole main job on this machine, in under two minutes after the installation'
	@echo 'make test         the tests, with coverage'
	@echo 'make test-long    the tests and the long proofs'
	@echo 'make test-emulated  the main job on emulated Raspberry Pis, as root (they are made the first time: 15 minutes)'
	@echo 'make lint         ruff, mypy, import-linter'
	@echo 'make benchmarks   the figures of docs/benchmarks.md, as ratios in one run'
	@echo 'make clean        removes .venv and caches'
	@echo 'PYTHON=python3.12 picks another Python (3.11 to 3.13)'

check-python:
	@[ -n "$(PYTHON)" ] || { echo 'make: no Python found. Install Python 3.11, 3.12 or 3.13 (Debian: sudo apt install python3 python3-venv), or name one: make PYTHON=/path/to/python3.11' >&2; exit 2; }
	@command -v "$(PYTHON)" >/dev/null 2>&1 || { echo 'make: there is no $(PYTHON). Name a Python 3.11 to 3.13: make PYTHON=/path/to/python3.11' >&2; exit 2; }
	@"$(PYTHON)" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' || { echo 'make: $(PYTHON) is not Python 3.11, 3.12 or 3.13. Name one that is: make PYTHON=/path/to/python3.11' >&2; exit 2; }
	@"$(PYTHON)" -c 'import venv, ensurepip' 2>/dev/null || { echo 'make: $(PYTHON) has no venv. Install it (Debian: sudo apt install python3-venv), then run make again' >&2; exit 2; }

# The stamp says which Python and which extras the environment was made from; another Python makes it anew.
define environment
	@id=$$("$(PYTHON)" -c 'import sys; print(sys.version.split()[0], sys.base_prefix)'); \
	if [ "$$(cat $(VENV)/.made-with 2>/dev/null)" != "$$id" ]; then rm -rf $(VENV); "$(PYTHON)" -m venv $(VENV) && printf '%s\n' "$$id" >$(VENV)/.made-with; fi
	@if [ ! -e $(VENV)/.has-$(1) ] || [ -n "$$(find pyproject.toml constraints.txt -newer $(VENV)/.has-$(1))" ]; then \
	echo 'make: installing edgepack[$(1)] into $(VENV) (TensorFlow is large: a minute or several)'; \
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[$(1)]' && touch $(VENV)/.has-$(1); fi
endef

demo: check-python
	$(call environment,demo)
	@$(BIN)/edgepack demo

test: check-python
	$(call environment,test)
	@$(BIN)/python -m coverage erase
	@$(BIN)/python -m coverage run -m pytest $(SIDE_BY_SIDE) && $(BIN)/python -m coverage combine -q && $(BIN)/python -m coverage report

test-long: check-python
	$(call environment,test)
	$(BIN)/python -m pytest --slow $(SIDE_BY_SIDE)

# Emulated devices are made with debootstrap and run in a chroot: root on Linux only.
ifeq ($(shell id -u) $(shell uname -s),0 Linux)
test-emulated: check-python
	$(call environment,test)
	$(BIN)/python -m pytest tests/emulated
else
test-emulated:
	@echo "make: test-emulated does not run: emulated Raspberry Pis need root on Linux, and this is $$(id -un) on $$(uname -s). Run it as root." >&2
endif

lint: check-python
	$(call environment,test)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format:
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

benchmarks: check-python
	$(call environment,test)
	$(BIN)/python benchmarks/run_all.py

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis .coverage .coverage.* dist build
