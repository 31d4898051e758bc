# `make demo` and `make test` do everything from a fresh clone, set-up included; both may be stopped and run again.
# Needs Python >= 3.11 and nothing else. `make PYTHON=/path/to/python3.12 demo` chooses the interpreter.

SHELL := /bin/sh
VENV := .venv/bin
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: help demo life-cycle test test-fast lint reliability docs docs-check benchmarks readme clean environment environment-test compiler

help: ## what can be made
	@grep -E '^[a-z-]+:.*## ' Makefile | sed 's/:.*## /\t/' | expand -t 14

demo: environment ## fine-tune a real model on this machine and show what it learned (about 5 minutes)
	@$(VENV)/tunewright demo

life-cycle: environment ## all stages one after the other on the demo model, from pre-training to conversation (about half an hour)
	@$(VENV)/python examples/life_cycle/life_cycle.py

test: environment-test compiler ## the whole test suite
	@sh scripts/test.sh

test-fast: environment-test compiler ## the tests that take seconds
	@HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1 $(VENV)/python -m pytest -q -m "not slow and not real"

lint: environment-test ## style, types, import rules, generated files, coverage of the vocabularies
	@sh scripts/lint.sh

reliability: environment-test compiler ## show all that is promised of faults and exactness, for docs/reliability.md (hours)
	@HF_HUB_OFFLINE=1 $(VENV)/tunewright selftest --full --record docs/reliability.jsonl
	@$(VENV)/python scripts/generate.py --write

benchmarks: environment-test demo-model ## measure all of docs/benchmarks.md anew, peers in environments of their own (about three hours)
	@for part in training dpo_step generation startup preprocessing gpu_training; do \
	  echo "== $$part"; $(VENV)/python benchmarks/$$part.py || [ "$$part" = gpu_training ] || exit; done
	@$(VENV)/python benchmarks/table.py

demo-model: environment-test
	@$(VENV)/python -c 'from tunewright.models.demo_model import ensure; ensure()'

docs: environment-test ## write the generated files anew: parameters, schema, figures of the README
	@$(VENV)/python scripts/generate.py --write

docs-check: environment-test ## fail if a generated file is out of date
	@$(VENV)/python scripts/generate.py --check

readme: environment ## put the figures of the last demo (runs/demo/report.json) into the README
	@$(VENV)/python scripts/generate.py --adopt-demo-report runs/demo/report.json

clean: ## remove the environment and everything that can be made again
	rm -rf .venv build dist .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find src tests scripts -name __pycache__ -type d -prune -exec rm -rf {} +

environment:
	@$(FIND_PYTHON) && "$$python" scripts/environment.py demo

environment-test:
	@$(FIND_PYTHON) && "$$python" scripts/environment.py test

# The kill-point tests load a small C library that they compile; a machine without a compiler gets one from the package index.
compiler: environment-test
	@command -v cc >/dev/null 2>&1 || command -v gcc >/dev/null 2>&1 || command -v clang >/dev/null 2>&1 \
	  || $(VENV)/python -c 'import ziglang' 2>/dev/null \
	  || { echo "environment: no C compiler found; installing one (ziglang) into .venv"; \
	       $(VENV)/python -m pip --no-input install --quiet -c constraints.txt ziglang; }

# The first interpreter that starts, is new enough and can make an environment. A name on the PATH alone proves nothing:
# version managers leave names there that do not run.
FIND_PYTHON = python=; old=; bare=; \
	for candidate in $(PYTHON) python3 python3.13 python3.12 python3.11 python3.14 python; do \
	  command -v "$$candidate" >/dev/null 2>&1 || continue; \
	  "$$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 || { old="$$old $$candidate"; continue; }; \
	  "$$candidate" -c 'import venv, ensurepip' >/dev/null 2>&1 || { bare="$$bare $$candidate"; continue; }; \
	  python=$$candidate; break; \
	done; \
	if [ -z "$$python" ] && [ -n "$$bare" ]; then \
	  echo "error: Python found ($${bare\# }), but it cannot make environments; on Debian or Ubuntu: apt-get install python3-venv" >&2; exit 1; \
	elif [ -z "$$python" ]; then \
	  echo "error: tunewright needs Python 3.11 or newer (tried:$${old:- nothing found}); install it, or: make PYTHON=/path/to/python3.12 ..." >&2; exit 1; \
	fi
