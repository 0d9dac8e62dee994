# Needlestream: `make help` lists what can be made.
PYTHON ?= python3.11
VENV ?= .venv
BIN := $(VENV)/bin
# Frames of your own for `make demo FRAMES=path`; several paths in quotes.
FRAMES ?=
OUT ?= demo-output

.DEFAULT_GOAL := help
.PHONY: help demo test check bench faults kafka clean

help: ## this list
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "  make %-8s %s\n", $$1, $$2}'

$(BIN)/python:
	@command -v $(PYTHON) >/dev/null || { echo "make: no $(PYTHON) found; name another with PYTHON=..., 3.11 is what is tested" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)

# torch first and by pip, at the pinned version: anything looser may fetch gigabytes of CUDA libraries.
$(VENV)/.torch: $(BIN)/python constraints.txt
	$(BIN)/python -m pip install --quiet --progress-bar off torch==2.13.0
	@touch $@

$(VENV)/.demo: $(VENV)/.torch pyproject.toml constraints.txt
	$(BIN)/python -m pip install --quiet --progress-bar off --constraint constraints.txt --editable '.[embedded,train]'
	@touch $@

$(VENV)/.dev: $(VENV)/.demo
	$(BIN)/python -m pip install --quiet --progress-bar off --constraint constraints.txt --editable '.[embedded,train,dev]'
	@touch $@

demo: $(VENV)/.demo ## simulated (or your own: FRAMES=path) frames through a broker and a worker, and what was found
	$(BIN)/needlestream demo --out $(OUT) $(FRAMES)

test: $(VENV)/.dev ## every test, two files at a time; those that need Kafka or real frames are skipped, with the reason, where there is none
	$(BIN)/python -m pytest -n 2 --dist loadfile

check: $(VENV)/.dev ## ruff, mypy, import-linter
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(VENV)/.dev ## speed and memory, each beside a peer or a measured limit of this machine
	for each in benchmarks/bench_*.py; do $(BIN)/python $$each || exit 1; done

faults: $(VENV)/.dev ## 200 faults on Apache Kafka, 1,000 bad messages, 10,000 damaged files; about half an hour
	$(BIN)/python -m tests.stream.faults --faults 200
	NEEDLESTREAM_BAD_MESSAGES=1000 $(BIN)/python -m pytest -q tests/stream/faults/test_bad_messages.py
	$(BIN)/python -m tests.detector.damaged --files 10000

kafka: ## the Apache Kafka that the tests use, by Maven, into .kafka/
	mvn -q -f deploy/kafka/pom.xml dependency:copy-dependencies -DoutputDirectory=$(CURDIR)/.kafka/libs

clean: ## what was built here (not the tests' cache of Kafka)
	rm -rf $(VENV) build dist *.egg-info $(OUT)
