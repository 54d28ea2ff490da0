# Every command a person runs, by name. Needs Python >= 3.11 and make; everything else is installed into .venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
ARGS ?=

.PHONY: install demo up test faults lint lock clean

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

# The faults of tests/faults on larger jobs and for longer; the table is in tests/faults/reports/faults.md.
FAULT_ROWS ?= 1000000
FAULT_SECONDS ?= 30

faults: install
	FAULT_ROWS=$(FAULT_ROWS) FAULT_SECONDS=$(FAULT_SECONDS) FAULT_REPORT=tests/faults/reports \
	    $(BIN)/python -m pytest tests/faults $(ARGS)

lint: install
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# Needs uv; run by whoever changes a dependency. The images take the same versions, and only what their role needs.
UV_COMPILE := uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-emit-find-links \
    --no-emit-package scorehouse --no-emit-package scorehouse-client --custom-compile-command "make lock"

lock:
	$(UV_COMPILE) -o requirements.lock requirements.in
	printf '.[api,s3]\n./client\nsetuptools>=77\n' | $(UV_COMPILE) -c requirements.lock -o requirements-api.lock -
	printf '.[api,worker,s3]\n./client\nsetuptools>=77\n' | $(UV_COMPILE) -c requirements.lock -o requirements-image.lock -

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache
