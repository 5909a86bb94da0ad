# The commands of a developer. "make" or "make help" lists them.
# PYTHON is the interpreter for .venv; VENV is its folder.

PYTHON ?= python3
VENV ?= .venv
LISTEN ?= 127.0.0.1:50051
DATABASE ?= sqlite:///tollwire.db

BIN := $(VENV)/bin
PY := $(BIN)/python
TEST_COSTS ?= 10000000
# Three processes for tests: many tests wait, and two processes would leave processors idle.
PYTEST := $(PY) -m pytest --numprocesses 3 --dist loadfile --no-loadscope-reorder
# The core, and the folders of service/ that need neither gRPC nor processes.
QUICK_TESTS := $(addprefix tests/,core domain cache accounts rating record reports test_layout.py)
STAMP := $(VENV)/.set-up
# Python files without an extension, which ruff checks only if they are named.
CI_SCRIPTS := .ci/audit-answer .ci/licences .ci/secrets
PROTOS := $(shell find proto -name '*.proto')
export PATH := $(abspath $(BIN)):$(abspath .tools/bin):$(PATH)
# Some images for containers set it. Then each of the many processes that the tests start would compile
# every module again.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help setup build run demo test test-slow test-all test-quick test-large test-costs check lint format types proto audit secrets secrets-accept debug sanitize fuzz fuzz-quick bench bench-quick bench-docs config-docs cli-docs man torture rolling overload fuzz-rpc hostile-port soak tools freeze clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: $(STAMP) build ## set up .venv with everything pinned, and Tollwire itself in it

$(STAMP): requirements/dev.txt pyproject.toml setup.py
	@echo "Setting up $(VENV): once, for about two minutes"
	@test -x $(PY) || { echo "1/3: creating the virtual environment"; $(PYTHON) -m venv $(VENV); }
	@echo "2/3: installing the pinned packages (about a minute)"
	@$(PY) -m pip install --disable-pip-version-check -q \
		--require-hashes -r requirements/dev.txt
	@echo "3/3: compiling the core and installing Tollwire (about half a minute)"
	@PYTHONWARNINGS=ignore $(PY) -m pip install --disable-pip-version-check -q --no-build-isolation \
		--no-deps -e .
	@touch $@
	@echo "$(VENV) is ready"

build: $(STAMP) ## compile what changed of the core and the protos
	@$(PY) setup.py -q build_protos build_ext --inplace

run: setup ## serve on 127.0.0.1:50051 with an SQLite file (LISTEN=, DATABASE= to change)
	tollwire serve --listen $(LISTEN) --database $(DATABASE)

demo: setup ## the real deck and a million calls through a server; prints what each step took
	$(PY) -m benchmarks.demo

bench: setup $(VENV)/.bench ## measure everything beside its baselines (bench-NAME: one subject)
	@.ci/tools ghz || echo "ghz cannot be installed: a client in Python sends the RateCalls"
	$(PY) -m benchmarks

bench-quick: setup $(VENV)/.bench ## the same, tiny: checks the results, not the times
	$(PY) -m benchmarks --quick

bench-docs: setup ## update docs/performance.md from the last results
	$(PY) -m pip install --disable-pip-version-check -q -r requirements/pictures.txt
	$(PY) -m benchmarks --write-docs

config-docs: setup ## update the settings in docs/configuration.md
	$(PY) -m tests.cli.test_configuration_document

cli-docs: setup ## update the tables in docs/cli.md
	$(PY) -m tests.cli.test_cli_document

man: setup ## write a manual page for each command into build/man/man1
	$(PY) -m tollwire.service.cli.manual build/man/man1

bench-%: setup $(VENV)/.bench
	$(PY) -m benchmarks $*

$(VENV)/.bench: requirements/bench.txt $(STAMP)
	@sed '/^#/d' $< | while read -r package; do \
		$(PY) -m pip install --disable-pip-version-check -q "$$package" \
			|| echo "$$package cannot be installed: its row is left out"; \
	done
	@touch $@

test: setup ## run the tests except the slow ones
	$(PYTEST) -m "not slow" $(PYTEST_ARGS)

test-slow: setup ## run the slow tests: servers that are killed, attacked and overloaded, builds
	$(PYTEST) -m slow $(PYTEST_ARGS)

test-all: setup ## run all tests
	$(PYTEST) $(PYTEST_ARGS)

test-quick: setup ## the tests of the core and of the layers below gRPC on SQLite, in seconds
	TOLLWIRE_TEST_POSTGRES=0 TOLLWIRE_TEST_EXAMPLES=quick $(PYTEST) -m quick \
		$(QUICK_TESTS) $(PYTEST_ARGS)

test-large: setup ## the tests of large decks, with five million prefixes: a minute, 1.2 GB
	TOLLWIRE_TEST_PREFIXES=5000000 $(PY) -m pytest tests/core/test_sizes.py --timeout 600

test-costs: setup ## ten million random costs against the oracle: an hour (TEST_COSTS=10000000)
	TOLLWIRE_TEST_COMPARISONS=$(TEST_COSTS) $(PY) -m pytest tests/core/test_random_costs.py \
		--timeout 36000

torture: setup ## kill everything during uploads, then count the records: over an hour on two busy cores
	$(PY) -m tests.torture $(TORTURE_ARGS)

rolling: setup ## restart two servers alternately under load: no call may be lost (ENDURANCE_ARGS)
	$(PY) -m tests.endurance rolling $(ENDURANCE_ARGS)

overload: setup ## ten times the capacity of a server for a minute, and clients that hold streams (ENDURANCE_ARGS="--seconds 300")
	$(PY) -m tests.endurance overload $(ENDURANCE_ARGS)
	$(PY) -m tests.endurance holding $(ENDURANCE_ARGS)

check: lint types proto audit secrets test test-slow ## all that CI runs

lint: $(STAMP) ## ruff: rules and formatting; cython-lint: the core
	ruff check . $(CI_SCRIPTS)
	ruff format --check . $(CI_SCRIPTS)
	cython-lint ratingcore

format: $(STAMP) ## ruff: repair what it can
	ruff check --fix . $(CI_SCRIPTS)
	ruff format . $(CI_SCRIPTS)

types: build ## mypy, strict except for tests; stubtest: the .pyi files of the core against the compiled modules
	mypy --strict -p tollwire.client -p tollwire.service -p ratingcore -p benchmarks
	mypy -p tests
	stubtest ratingcore --allowlist .ci/stubtest-allowlist

# The comparison is with the last commit of main whose protos differ from the working tree. There is no
# such commit until the protos change for the first time.
proto: $(STAMP) ## buf: lint the protos, find breaking changes
	buf lint
	@base=$$(.ci/proto-base) || exit 1; \
	if [ -z "$$base" ]; then echo "buf breaking: no earlier protos to compare with"; exit 0; fi; \
	echo "buf breaking: against $$(git log -1 --format='%h, %s' $$base)"; \
	old=$$(mktemp -d); trap 'rm -rf "$$old"' EXIT; \
	git archive "$$base" proto buf.yaml | tar -x -C "$$old" && buf breaking --against "$$old"

audit: $(STAMP) ## pip-audit: advisories about the pinned packages, if its database can be reached
	@.ci/audit $(PYTHON) $(VENV)

secrets: $(STAMP) ## detect-secrets: possible secrets that were not accepted yet
	@$(PY) .ci/secrets

secrets-accept: $(STAMP) ## accept the findings of "make secrets"
	@$(PY) .ci/secrets --accept

debug: $(STAMP) ## build the core with its checks on, test it; "make build" goes back
	TOLLWIRE_DEBUG=1 $(PY) setup.py -q build_protos build_ext --inplace
	$(PY) -m pytest tests/core tests/fuzz $(PYTEST_ARGS)

# Python itself is not built with the sanitizers, so their library is loaded first. Python's memory comes
# from malloc, so that they check it, and is not all freed at exit. A finding ends the run.
SANITIZERS = $$(gcc -print-file-name=libasan.so):$$(gcc -print-file-name=libstdc++.so.6)
SANITIZER_OPTIONS = ASAN_OPTIONS=detect_leaks=0 UBSAN_OPTIONS=halt_on_error=1:print_stacktrace=1 \
	PYTHONMALLOC=malloc

# It reads the memory in use from glibc's malloc, and the sanitizers have a malloc of their own.
UNSANITIZED = --deselect tests/core/test_memory.py::test_nbytes_is_the_memory_of_a_deck

sanitize: $(STAMP) ## the same as debug, under the address and undefined behaviour sanitizers
	TOLLWIRE_SANITIZE=address,undefined $(PY) setup.py -q build_protos build_ext --inplace
	LD_PRELOAD="$(SANITIZERS)" $(SANITIZER_OPTIONS) \
		$(PY) -m pytest tests/core tests/fuzz --capture=no $(UNSANITIZED) $(PYTEST_ARGS)

# Without atheris the search is random.
fuzz: $(STAMP) ## fuzz the codecs under the sanitizers (FUZZ_ARGS="read --seconds 600")
	@$(PY) -m pip install --disable-pip-version-check -q -r requirements/fuzz.txt \
		|| echo "atheris cannot be installed: the search is not guided by coverage"
	TOLLWIRE_SANITIZE=address,undefined TOLLWIRE_COVERAGE=1 \
		$(PY) setup.py -q build_protos build_ext --inplace
	mkdir -p build/fuzz && gcc -O2 -shared -fPIC -o build/fuzz/coverage.so tests/fuzz/coverage.c
	LD_PRELOAD="$(SANITIZERS):$(CURDIR)/build/fuzz/coverage.so" $(SANITIZER_OPTIONS) \
		$(PY) -m tests.fuzz $(FUZZ_ARGS)

fuzz-quick: setup ## the same for seconds, at random, with the present build of the core
	$(PY) -m tests.fuzz --seconds 5

fuzz-rpc: setup ## send unusual requests to every RPC of real servers (FUZZ_RPC_ARGS="60 --seed 1")
	$(PY) -m tests.hostile.fuzzing $(FUZZ_RPC_ARGS)

hostile-port: setup ## malformed traffic and ten thousand connections on the port, while calls are rated (HOSTILE_PORT_ARGS="--transport native")
	$(PY) -m tests.hostile.port $(HOSTILE_PORT_ARGS)
	$(PY) -m tests.hostile.strangers $(HOSTILE_PORT_ARGS)

soak: setup ## ten minutes of mixed work: do memory, descriptors or threads grow? (SOAK_ARGS=3600)
	$(PY) -m tests.hostile.soak $(SOAK_ARGS)

tools: ## grpcurl, ghz, Prometheus and PgBouncer into .tools/bin, if they can be installed
	.ci/tools

freeze: ## update requirements/constraints.txt and dev.txt from dev.in and pyproject.toml
	.ci/freeze $(PYTHON)

clean: ## remove all that the other targets created, except databases
	rm -rf build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis $(VENV)
	find ratingcore -name '*.so' -delete
	rm -f proto/tollwire/v1/*_pb2*.py proto/tollwire/v1/*_pb2*.pyi
	rm -f proto/tollwire/v1/descriptors.binpb proto/tollwire/client/rpcs.py proto/tollwire/client/async_rpcs.py
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
