# Two commands are enough on a fresh machine: make demo, make test. Both set up .venv themselves.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
PIP    := $(BIN)/python -m pip --disable-pip-version-check -q
STAMP  := $(VENV)/.stamp

# Hours: every fault as often as docs/fault-matrix.md says. FAULTS="--only power --share 0.1" makes it shorter.
test-faults: $(STAMP)-dev
	$(BIN)/python -m tests.faults.matrix --out docs/fault-matrix.md $(FAULTS)

.PHONY: test-faults demo test lint bench proto docs release clean

demo: $(STAMP)-run
	$(BIN)/spheroidd demo

test: $(STAMP)-dev
	$(BIN)/python -m pytest -n auto --dist loadfile

lint: $(STAMP)-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	PYTHONPATH=tests/_typeroot $(BIN)/lint-imports

bench: $(STAMP)-bench
	$(BIN)/python -m bench

proto: $(STAMP)-dev
	$(BIN)/python -m tests.protocols.wire_contract

# The pages that are made from code, then the site (site/index.html).
docs: $(STAMP)-docs
	$(BIN)/python -m tests.daemon.export.schema_document
	$(BIN)/python -m tests.protocols.fault_document
	$(BIN)/python -m tests.daemon.verification.findings_document
	$(BIN)/python -m tests.daemon.cli.command_document
	$(BIN)/python -m mkdocs build --quiet --clean

$(STAMP)-run: pyproject.toml constraints.txt
	test -d $(VENV) || $(PYTHON) -m venv $(VENV)
	$(PIP) install -c constraints.txt -e .
	touch $@

$(STAMP)-dev: $(STAMP)-run
	$(PIP) install -c constraints.txt -e '.[train,test,lint]'
	touch $@

$(STAMP)-docs: $(STAMP)-dev
	$(PIP) install -c constraints.txt -e '.[docs]'
	touch $@

$(STAMP)-bench: $(STAMP)-dev
	$(PIP) install -c constraints.txt -e '.[train,test,bench]'
	touch $@

clean:
	rm -rf $(VENV) build dist site *.egg-info
