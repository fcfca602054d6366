# make demo   set up and run the main job         make test   set up, lint, types, tests
# make dashboards-types   check Grafana's dashboards against Grafana's own types (needs npm)
# make chart  lint, render and validate the Helm chart (builds helm and kubeconform with Go)
# make containers   execute the containers' commands and configuration without an engine (Go; root for namespaces)
# make dashboards-go   check that the store answers the Go client of Grafana's ClickHouse plugin (needs go)
# make pictures   play an incident of ten minutes and take the pictures of docs/dashboards.md (needs chromium)
# make lock   resolve the lock files anew
# make test-cluster   test Ray clusters of several nodes, and networks between them (as root)
# make test-external   test against servers that nobody here wrote
# make test-locust-examples   run Locust's own examples, unmodified, on the fleet (fetches them from GitHub)
# make bench   measure precision and cost against a server that keeps the truth     make bench-definitions   other tools' definitions
# make bench-scale   what one driver holds, up to a thousand workers
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test test-cluster test-external test-locust-examples lint chart containers lock bench bench-scale bench-peers bench-definitions dashboards-types dashboards-go pictures
.DELETE_ON_ERROR:

.venv/run.stamp: pyproject.toml requirements.lock requirements-grafana.lock
	@$(PYTHON) -c 'import sys; sys.exit(None if (3, 11) <= sys.version_info < (3, 14) else "Python 3.11, 3.12 or 3.13 is needed; this is " + sys.version.split()[0] + ". Name another one: make PYTHON=python3.12")'
	@echo "Setting up .venv: some 300 MB to download, a minute or two."
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@$(BIN)/python -m pip install -q --disable-pip-version-check --require-hashes -r requirements-grafana.lock
	@rm -f .venv/lib/python3.*/site-packages/urllib3_future.pth  # see pyproject.toml, grafana
	@$(BIN)/python -m pip install -q --disable-pip-version-check --require-hashes -r requirements.lock
	@$(BIN)/python -m pip install -q --disable-pip-version-check --no-deps --no-build-isolation --config-settings editable_mode=compat -e .
	@touch $@

.venv/dev.stamp: .venv/run.stamp requirements-dev.lock
	@echo "Adding what lint, types and tests need."
	@$(BIN)/python -m pip install -q --disable-pip-version-check --require-hashes -r requirements-dev.lock
	@touch $@

demo: .venv/run.stamp
	@$(BIN)/python examples/demo.py

lint: .venv/dev.stamp
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

test: lint
	$(BIN)/pytest -n 2 --dist worksteal

test-cluster: .venv/dev.stamp
	$(BIN)/pytest tests/clusters

.venv-external/stamp: requirements-external.lock requirements-external-build.lock
	@echo "Setting up .venv-external: PyTorch, transformers, llama.cpp, GuideLLM; some 3 GB to download, 6 GB on disk, ten minutes."
	@test -x .venv-external/bin/python || $(PYTHON) -m venv .venv-external
	@.venv-external/bin/python -m pip install -q --disable-pip-version-check --require-hashes -r requirements-external-build.lock
	@PATH="$(CURDIR)/.venv-external/bin:$$PATH" CMAKE_ARGS="-DGGML_NATIVE=OFF -DLLAVA_BUILD=OFF" .venv-external/bin/python -m pip install -q --disable-pip-version-check --require-hashes --no-build-isolation -r requirements-external.lock
	@touch $@

test-external: .venv/dev.stamp .venv-external/stamp
	$(BIN)/pytest tests/external

.venv-bench/server/stamp: requirements-bench.lock
	@test -x .venv-bench/server/bin/python || $(PYTHON) -m venv .venv-bench/server
	@.venv-bench/server/bin/python -m pip install -q --disable-pip-version-check --require-hashes -r requirements-bench.lock
	@touch $@

bench-scale: .venv/dev.stamp
	$(BIN)/python -m bench.scale

bench: .venv/dev.stamp .venv-bench/server/stamp
	$(BIN)/python -m bench.run

bench-peers: .venv/dev.stamp .venv-bench/server/stamp
	$(BIN)/python -m bench.peers

bench-definitions: .venv/dev.stamp
	$(BIN)/python -m bench.definitions

tests/grafana_schema/node_modules/stamp: tests/grafana_schema/package-lock.json
	npm ci --prefix tests/grafana_schema --ignore-scripts --no-audit --no-fund --silent
	@touch $@

dashboards-types: .venv/dev.stamp tests/grafana_schema/node_modules/stamp
	$(BIN)/pytest tests/test_grafana_types.py

# Programs that pip cannot bring, from the Go module proxy, each of a fixed version.
HELM := helm.sh/helm/v4/cmd/helm@v4.3.1
KUBECONFORM := github.com/yannh/kubeconform/cmd/kubeconform@v0.8.0

.tools/chart.stamp: helm/schemas.py Makefile .venv/dev.stamp
	@command -v go >/dev/null || { echo "The chart's checks need Go 1.26 or newer, to build helm and kubeconform."; exit 1; }
	@echo "Building helm and kubeconform into .tools: five minutes the first time."
	@GOBIN=$(CURDIR)/.tools/bin go install -trimpath $(HELM)
	@GOBIN=$(CURDIR)/.tools/bin go install -trimpath $(KUBECONFORM)
	@rm -rf .tools/schemas
	@$(BIN)/python helm/schemas.py .tools/schemas
	@touch $@

chart: .tools/chart.stamp
	@$(BIN)/python -m helm.check

BUILDER := go.opentelemetry.io/collector/cmd/builder@v0.161.0
COMPOSE_SPEC := github.com/compose-spec/compose-go/v2/cmd@v2.16.2

.tools/containers.stamp: tests/containers/otelcol.yaml Makefile
	@command -v go >/dev/null || { echo "Executing the containers needs Go 1.26 or newer, to build the Collector."; exit 1; }
	@echo "Building the OpenTelemetry Collector and the validator of compose files into .tools: five minutes the first time."
	@GOBIN=$(CURDIR)/.tools/build go install -trimpath $(COMPOSE_SPEC)
	@GOBIN=$(CURDIR)/.tools/build go install -trimpath $(BUILDER)
	@mkdir -p .tools/bin && mv .tools/build/cmd .tools/bin/compose-spec
	@.tools/build/builder --config tests/containers/otelcol.yaml --skip-strict-versioning --skip-compilation
	@cd .tools/build/otelcol && CGO_ENABLED=0 go build -trimpath -ldflags "-s -w" -o $(CURDIR)/.tools/bin/otelcol .
	@touch $@

# As deploy/Dockerfile does.
.venv-image/stamp: requirements-image.lock requirements-sbom.lock deploy/Dockerfile
	@test -x .venv-image/bin/python || $(PYTHON) -m venv --without-pip .venv-image
	@test -x .venv-image-tools/bin/python || $(PYTHON) -m venv .venv-image-tools
	@.venv-image-tools/bin/pip --python .venv-image/bin/python install -q --disable-pip-version-check --require-hashes --only-binary :all: -r requirements-image.lock
	@.venv-image-tools/bin/pip install -q --disable-pip-version-check --require-hashes --only-binary :all: -r requirements-sbom.lock
	@touch $@

containers: .venv/dev.stamp .tools/chart.stamp .tools/containers.stamp .venv-image/stamp
	@.venv-image-tools/bin/pip --python .venv-image/bin/python install -q --disable-pip-version-check --no-deps --no-build-isolation --force-reinstall .
	$(BIN)/pytest tests/containers

tests/grafana_go/client: tests/grafana_go/main.go tests/grafana_go/go.mod tests/grafana_go/go.sum
	cd tests/grafana_go && go build -o client .

dashboards-go: .venv/dev.stamp tests/grafana_go/client
	$(BIN)/pytest tests/test_grafana_go.py

LOCUST_GIT ?= https://github.com/locustio/locust
LOCUST_COMMIT := 407343d0f5ab84a32f41f6f9a7c991188d10a55a
.locust-examples/stamp:
	@git init -q .locust-examples
	@git -C .locust-examples fetch -q --depth 1 $(LOCUST_GIT) $(LOCUST_COMMIT)
	@git -C .locust-examples checkout -q FETCH_HEAD
	@$(BIN)/python -m pip install -q --disable-pip-version-check --no-deps --target .locust-examples/packages bidict==0.24.1 cssselect==1.6.0 dnspython==2.9.2 flask-login==0.6.3 grpc-interceptor==0.15.4 grpcio==1.85.3 lxml==6.1.3 paho-mqtt==2.2.0 protobuf==7.36.2 pyquery==2.1.0 python-engineio==4.15.1 python-socketio==5.18.1 simple-websocket==1.1.0 websocket-client==1.9.2 wsproto==1.3.2
	@touch $@

test-locust-examples: .venv/dev.stamp .locust-examples/stamp
	PYTHONPATH=$(CURDIR)/.locust-examples/packages $(BIN)/python tests/external/locust_examples.py .locust-examples $(EXAMPLES)

pictures: .venv/dev.stamp
	PYTHONPATH=. $(BIN)/python tests/pictures.py

lock:
	uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-header --no-annotate pyproject.toml --group build -o requirements.lock
	uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-header --no-annotate --group grafana -c requirements.lock -o requirements-grafana.lock
	uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-header --no-annotate --group dev -c requirements.lock -o requirements-dev.lock
	uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-header --no-annotate --group external-build -o requirements-external-build.lock
	uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-header --no-annotate --group external -o requirements-external.lock
	uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-header --no-annotate pyproject.toml --group build --group image -c requirements.lock -o requirements-image.lock
	uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-header --no-annotate --group sbom -o requirements-sbom.lock
	uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-header --no-annotate --group bench -o requirements-bench.lock
