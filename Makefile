# Everything runs in .venv, which is made on first use and again when its requirements change. A Python that is
# named, as in "make test PYTHON=python3.13", has an environment of its own: .venv-python3.13.
# Python 3.11 gets the exact versions of requirements.lock, others the newest that setup.cfg admits.

PYTHON ?= python3
VENV := .venv$(patsubst %,-%,$(filter-out python3,$(notdir $(PYTHON))))
BIN := $(VENV)/bin
READY := $(VENV)/.ready

# A file's tests stay on one worker, where they share fixtures and compiled programs.
WORKERS := --numprocesses=auto --maxprocesses=4 --dist=loadfile

# Compilers for chips that are absent. In .venv JAX would look for the chips, in every command.
COMPILERS := .venv-compilers

# The tests start many processes, each of which would compile anew what it imports.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help demo docs test test-all test-compilers lock clean

help: ## show this help
	@sed -n 's/^\([a-z-]*\):.*## /make \1\t/p' Makefile

demo: $(READY) ## generate the shapes dataset, train on it, evaluate, draw predictions
	$(BIN)/mrcnn-jax shapes --output=data/shapes
	$(BIN)/mrcnn-jax train --config=shapes --workdir=runs/demo
	$(BIN)/mrcnn-jax evaluate --workdir=runs/demo
	$(BIN)/mrcnn-jax predict --workdir=runs/demo --output=runs/demo/pictures \
		$$(ls -d data/shapes/val/* | head -n 6)
	@echo
	@echo "pictures: runs/demo/pictures; during training, runs/demo/validation"
	@echo "numbers:  runs/demo/evaluation.json"
	@echo "curves:   runs/demo/tensorboard (pip install tensorboard; tensorboard --logdir=runs/demo)"

docs: $(READY) ## build the documentation's site
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict
	@echo
	@echo "open build/site/index.html, or: $(BIN)/python -m http.server --directory build/site (the search needs it)"

test: $(READY) ## lint, check types and run the quick tests
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy mrcnn_jax scripts
	$(BIN)/python -m pytest $(WORKERS)

test-all: $(VENV)/.slow ## the same with the slow tests, before a release
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy mrcnn_jax scripts
	$(BIN)/python -m pytest $(WORKERS) -m ""
	@if $(BIN)/python -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))'; then $(MAKE) test-compilers; fi

test-compilers: $(COMPILERS)/.ready ## compile for TPUs and GPUs that need not be here (Python 3.11)
	$(COMPILERS)/bin/python -m pytest tests/compile_report -m ""

lock: ## rewrite requirements.lock with the newest versions that setup.cfg allows
	$(PYTHON) -m venv --clear .venv-lock
	.venv-lock/bin/pip install --quiet --disable-pip-version-check --upgrade '.[test]' setuptools
	head -n 2 requirements.lock > .venv-lock/requirements
	.venv-lock/bin/pip freeze --all --exclude pip --exclude mrcnn_jax >> .venv-lock/requirements
	mv .venv-lock/requirements requirements.lock
	rm -r .venv-lock

clean: ## remove the environments; keep data and runs
	rm -rf .venv .venv-python* $(COMPILERS)

$(READY): requirements.lock setup.cfg pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' 2>/dev/null || { \
		echo "error: Python 3.11, 3.12 or 3.13 is needed, but $(PYTHON) is $$($(PYTHON) --version 2>&1 || true);" \
			"choose another: make PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
		echo "error: $(PYTHON) cannot create virtual environments; install its venv package (python3-venv)" >&2; exit 1; }
	@echo "installing into $(VENV) (a minute or two, 2 GB) ..."
	@$(PYTHON) -m venv --clear $(VENV)
	@if $(BIN)/python -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))'; then \
		$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile -r requirements.lock && \
		$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .; \
	else $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile --editable '.[test]'; fi
	@touch $@

$(VENV)/.slow: $(READY) requirements-slow.txt
	@if $(BIN)/python -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))'; then \
		$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile -r requirements-slow.txt; \
	else $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile --editable '.[test,ray,tracks]' openvino; fi
	@touch $@

$(COMPILERS)/.ready: requirements.lock requirements-compilers.txt setup.cfg pyproject.toml
	@echo "installing into $(COMPILERS) (a minute or two, 3 GB) ..."
	@$(PYTHON) -m venv --clear $(COMPILERS)
	@$(COMPILERS)/bin/python -m pip install --quiet --disable-pip-version-check --no-compile \
		-r requirements.lock -r requirements-compilers.txt
	@$(COMPILERS)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@
