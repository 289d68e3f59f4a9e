# What people run: `make demo`, `make test`, `make check`; `make help` says more.
PYTHON ?= python3
VIDEOS ?=
OUTPUT ?= outputs/demo
RUN := .venv/bin/python

.PHONY: help setup demo test faults bench mutants check lock clean

help:
	@echo "make demo                whole Loong pipeline, small, on real film, on CPU"
	@echo "make demo VIDEOS=dir     the same on your own videos (OUTPUT=dir for another place)"
	@echo "make test                the tests (about 23 minutes on two cores)"
	@echo "make check               format, lint, types, import rules, spelling: what CI runs"
	@echo "make faults              kill-and-resume tests (longer)"
	@echo "make bench               benchmarks, each ending in one line of JSON (longer)"
	@echo "make mutants             how many small faults the tests notice, by module (up to an hour)"
	@echo "make lock                pin requirements.lock anew from pyproject.toml"
	@echo "make clean               remove outputs, caches and .venv"

setup: .venv/.ready

.venv/.ready: requirements.lock
	@test -d .venv || $(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.11")'
	test -x .venv/bin/python || $(PYTHON) -m venv .venv
	.venv/bin/python -m pip install --quiet uv==0.13.8
	.venv/bin/uv pip install --quiet --python .venv/bin/python -r requirements.lock
	@touch $@

demo: setup
	$(RUN) -m pipelines.loong --preset demo output=$(OUTPUT) $(if $(VIDEOS),"input=$(VIDEOS)")

test: setup
	$(RUN) -m pytest -n 2 --dist loadfile --no-loadscope-reorder -m "not slow and not faults and not gpu"

faults: setup
	$(RUN) -m pytest -m faults

bench: setup
	for name in prepare prepare_memory scale train generate upscale; do $(RUN) -m tests.benchmarks.$$name || exit 1; done

mutants: setup
	$(RUN) -m tests.mutants

check: setup
	.venv/bin/ruff format --check .
	.venv/bin/ruff check .
	.venv/bin/pyright
	.venv/bin/lint-imports
	.venv/bin/codespell

lock:
	.venv/bin/uv pip compile --quiet pyproject.toml --all-extras --no-emit-index-url --no-header \
		--no-annotate --python-version 3.11 -o requirements.lock

clean:
	rm -rf .venv outputs .pytest_cache .ruff_cache .hypothesis
