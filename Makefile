# `make` lists what there is. Everything works on a fresh checkout and is quick on a ready one.
SHELL = /bin/sh
BOOTSTRAP = @deploy/local/bootstrap.sh
PYTHON = .venv/bin/python
VAR = var
# In Debian haproxy and nginx are there, and not in the PATH of every user.
export PATH := $(PATH):/usr/sbin
# The tests wait more than they compute: more processes than cores, each with servers of its own.
# tests/support/scheduling.py says how the tests are spread.
PARALLEL = --numprocesses 4 --dist loadscope
LOCK = env -u PIP_FIND_LINKS uv pip compile --quiet --universal --python-version 3.11 \
  --generate-hashes --no-emit-index-url --no-emit-find-links --no-header

help: ## this list
	@sed -n 's/^\([a-z]*\):.*## /\1 /p' Makefile | while read -r target line; do \
	  printf '  make %-8s %s\n' "$$target" "$$line"; done

run: ## everything on this machine, live; DEMO=1 also sends simulated traffic
	$(BOOTSTRAP) run
	@exec $(PYTHON) -m deploy.local.run --var $(VAR) $(if $(DEMO),--demo)

site: ## a whole site: two ingresses, two workers, a proxy, Prometheus, dashboards, live
	$(BOOTSTRAP) site
	@exec $(PYTHON) -m deploy.local.site --var $(VAR)/site

test: ## unit, integration and end-to-end tests, with servers of their own
	$(BOOTSTRAP) servers
	$(PYTHON) -m pytest -m 'not long' $(PARALLEL)

chaos: ## every fault there is a test for, on servers of its own, about 20 minutes; and the table
	$(BOOTSTRAP) servers
	$(PYTHON) -m pytest tests/chaos $(PARALLEL) --chaos-table tests/chaos/RESULTS.md
	$(PYTHON) -m pytest tests/e2e -m long

matrix: ## `make test` inside other Debians, with other versions of all servers; needs root, half an hour
	$(BOOTSTRAP) matrix
	@exec $(PYTHON) -m tests.matrix --roots $(VAR)/matrix $(MATRIX)

bench: ## how fast it is here, beside what people would use instead; about 18 minutes
	$(BOOTSTRAP) bench
	@exec $(PYTHON) -m tests.bench.run $(BENCH)

fuzz: ## the ingress and the decoder against nearly valid input, for some minutes
	$(BOOTSTRAP) venv
	FUZZ_EXAMPLES=10000 $(PYTHON) -m pytest tests/fuzz $(PARALLEL) --timeout 1200

check: ## lint, format, types and unit tests, in less than a minute
	$(BOOTSTRAP) venv
	$(PYTHON) -m ruff check .
	$(PYTHON) -m ruff format --check .
	$(PYTHON) -m mypy
	$(PYTHON) -m pytest -q tests/unit $(PARALLEL)

dist: ## build and check all that a user installs: wheel, image context, chart, sample settings
	$(BOOTSTRAP) dist
	@exec $(PYTHON) -m deploy.dist

fmt: ## format the code, and mend what the linter can mend
	$(BOOTSTRAP) venv
	$(PYTHON) -m ruff check --fix-only --quiet .
	$(PYTHON) -m ruff format .

lock: ## pin the dependencies anew, in requirements*.txt; needs uv
	$(LOCK) --upgrade \
	  --extra dev --output-file requirements-dev.txt pyproject.toml
	$(LOCK) --constraint requirements-dev.txt \
	  --extra otel --output-file requirements.txt pyproject.toml
	$(LOCK) --upgrade --constraint requirements-dev.txt \
	  --extra deploy --output-file requirements-deploy.txt pyproject.toml

clean: ## remove .venv and caches; var, which holds data, stays
	rm -rf .venv .venv-bench tests/bench/peers/node/node_modules .mypy_cache .ruff_cache .pytest_cache .hypothesis dist
	find . -name __pycache__ -prune -exec rm -rf {} +

.PHONY: help run site test chaos matrix bench fuzz check dist fmt lock clean
