# Two commands on a fresh machine: `make probe` and `make test`. Everything else is for developers.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready

.PHONY: probe test lint figures notebooks outputs docs lock clean help

help:           ## say what there is to make
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed 's/:[^#]*##/\t/' | expand -t 14

probe: $(READY) ## set up, then run the embedded α sweep: table, figures and report
	$(BIN)/python -m rewardshape.probe

test: $(READY)  ## set up, then run every test
	$(BIN)/python -m pytest -n 2 --dist worksteal --durations=10

lint: $(READY)  ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

figures: $(READY) ## regenerate every figure in figures/
	$(BIN)/python figures/make.py

docs: $(READY)  ## build the site into site/, warnings are errors
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --quiet
	@echo "open site/index.html"

notebooks: $(READY) ## open the notebooks
	$(BIN)/jupyter lab notebooks

outputs: $(READY) ## execute the notebooks and keep their outputs
	$(BIN)/python notebooks/execute.py

lock: $(READY)  ## pin what is installed now
	$(BIN)/python -m pip freeze --all --exclude pip --exclude-editable | sed 's/+cpu//' > requirements.lock

$(READY): requirements.lock pyproject.toml
	$(PYTHON) -c 'import sys; assert sys.version_info >= (3, 11), "rewardshape needs Python 3.11 or newer: make PYTHON=python3.12"'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	touch $@

clean:          ## remove what was set up and built
	rm -rf $(VENV) build dist site *.egg-info
