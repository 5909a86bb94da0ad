# Everything a developer does, by one word each. "make" or "make help" lists them.
# PYTHON is the interpreter that .venv is made with; VENV is where it goes.

PYTHON ?= python3
VENV ?= .venv
LISTEN ?= 127.0.0.1:50051
DATABASE ?= sqlite:///tollwire.db

BIN := $(VENV)/bin
PY := $(BIN)/python
STAMP := $(VENV)/.set-up
CORE_SOURCES := $(wildcard ratingcore/*.pyx ratingcore/*.pxd ratingcore/*.pxi ratingcore/*.h)
PROTOS := $(shell find proto -name '*.proto')
export PATH := $(abspath $(BIN)):$(abspath .tools/bin):$(PATH)

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help setup build run demo test check lint format types proto debug bench freeze clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: $(STAMP) build ## set up .venv with everything pinned, and Tollwire itself in it

$(STAMP): requirements/dev.txt pyproject.toml setup.py
	test -x $(PY) || $(PYTHON) -m venv $(VENV)
	$(PY) -m pip install --disable-pip-version-check -q -r requirements/dev.txt
	$(PY) -m pip install --disable-pip-version-check -q --no-build-isolation --no-deps -e .
	touch $@

build: $(STAMP) ## compile what changed of the core and the protos
	@$(PY) setup.py -q build_protos build_ext --inplace

run: setup ## serve on 127.0.0.1:50051 with an SQLite file (LISTEN=, DATABASE= to change)
	tollwire serve --listen $(LISTEN) --database $(DATABASE)
