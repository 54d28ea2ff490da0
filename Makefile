# Every command a person runs, by name. Needs Python >= 3.11 and make; everything else is installed into .venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
ARGS ?=

.PHONY: install demo up test faults soak fuzz lint docs lock audit sbom clean

install: $(VENV)/.installed

# The lock file carries hashes, so what is installed is what was tested; it is complete, so pip resolves nothing (its
# resolver takes a newer release for "coverage[toml]" than the one that is locked, and then fails). Our own two packages
# come after, without an index; `pip check` says if the lock file lacks anything that they need.
$(VENV)/.installed: requirements.lock setup.cfg client/setup.cfg
	@$(PYTHON) -c 'import sys; sys.exit("Scorehouse needs Python 3.11 or newer, this is " + sys.version.split()[0]) if sys.version_info < (3, 11) else None'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --no-index -e ./client -e .
	$(BIN)/python -m pip check --quiet --disable-pip-version-check
	@touch $@

demo: install
	$(BIN)/scorehouse demo $(ARGS)

up: install
	$(BIN)/scorehouse up $(ARGS)

# In two processes: one waits for servers while the other computes.
test: install
	$(BIN)/python -m pytest --numprocesses 2 --dist loadscope $(ARGS)

# The faults of tests/faults on larger jobs and for longer; the table is in tests/faults/reports/faults.md. With FAULT_BEFORE, a
# checkout of the release before, one of its workers is tried beside those of this one.
FAULT_ROWS ?= 1000000
FAULT_SECONDS ?= 30

faults: install
	FAULT_ROWS=$(FAULT_ROWS) FAULT_SECONDS=$(FAULT_SECONDS) FAULT_REPORT=tests/faults/reports \
	    $(BIN)/python -m pytest tests/faults $(ARGS)

# Half an hour of mixed load, and what grows meanwhile; the report is in tests/soak/reports.
SOAK_SECONDS ?= 1800

soak: install
	$(BIN)/python tests/soak/long_form.py --seconds $(SOAK_SECONDS) --report tests/soak/reports

# 100,000 CSV inputs through the whole pipeline, and many more requests of the OpenAPI document; the report is in
# tests/fuzz/reports. Half an hour on two idle cores.
FUZZ_INPUTS ?= 100000
FUZZ_SEED ?= 2026
FUZZ_EXAMPLES ?= 100

fuzz: install
	$(BIN)/python tests/fuzz/long_form.py --inputs $(FUZZ_INPUTS) --seed $(FUZZ_SEED) --processes 2 --report tests/fuzz/reports
	FUZZ_EXAMPLES=$(FUZZ_EXAMPLES) $(BIN)/python -m pytest tests/fuzz/test_document.py $(ARGS)

lint: install
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# The documentation site, in build/docs. A link to a page, file or heading that is not there is a warning, and warnings are
# errors; links to elsewhere are not fetched.
docs: install
	$(BIN)/python -m sphinx --fail-on-warning --keep-going --nitpicky --quiet -c docs . build/docs

# Needs uv; run by whoever changes a dependency. The images take the same versions, and only what their role needs.
UV_COMPILE := uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-emit-find-links \
    --no-emit-package scorehouse --no-emit-package scorehouse-client --custom-compile-command "make lock"

lock:
	$(UV_COMPILE) -o requirements.lock requirements.in
	printf '.[api,s3]\n./client\nsetuptools>=77\n' | $(UV_COMPILE) -c requirements.lock -o requirements-api.lock -
	printf '.[api,worker,s3]\n./client\nsetuptools>=77\n' | $(UV_COMPILE) -c requirements.lock -o requirements-image.lock -

	printf 'pip-audit\ncyclonedx-bom\n' | $(UV_COMPILE) -o requirements-audit.lock -

# Both need the network, and look at the lock files only: known vulnerabilities of what is installed (exit 1 if there are
# any), and a bill of materials (CycloneDX) of the image. Their tools have an environment of their own.
AUDIT := .venv-audit
LOCKS := requirements.lock requirements-api.lock requirements-image.lock

$(AUDIT)/.installed: requirements-audit.lock
	@test -x $(AUDIT)/bin/python || $(PYTHON) -m venv $(AUDIT)
	$(AUDIT)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r requirements-audit.lock
	@touch $@

audit: $(AUDIT)/.installed
	$(AUDIT)/bin/pip-audit --strict --disable-pip --require-hashes $(foreach lock,$(LOCKS),--requirement $(lock)) $(ARGS)

sbom: $(AUDIT)/.installed
	$(AUDIT)/bin/cyclonedx-py requirements requirements-image.lock --output-reproducible --of JSON -o sbom.json

clean:
	rm -rf $(AUDIT) $(VENV) build/docs .mypy_cache .ruff_cache .pytest_cache
