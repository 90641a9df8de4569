# Every target sets up what it needs: a virtual environment with the versions of constraints.txt.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

# The tests start a few hundred Python programs: what is compiled is kept, whatever the environment says.
test slow laws crash: export PYTHONDONTWRITEBYTECODE =

.PHONY: setup demo check test slow laws crash bench soak clean

setup: $(READY)

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	touch $(READY)

demo: $(READY)
	$(BIN)/sendengine demo

check: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

test: $(READY)
	$(BIN)/python -m pytest -m "not slow" --numprocesses auto --dist worksteal

# What make test leaves out: benchmarks at a tiny size, HTTP/2's conformance on a second loop, and a few whole programs.
slow: $(READY)
	$(BIN)/python -m pytest -m slow --numprocesses auto --dist worksteal

# The laws, with other and many more examples than in `make test`; some minutes.
laws: $(READY)
	H2_FUZZ_ROUNDS=3000 H2_FUZZ_EXAMPLES=3000 \
	  $(BIN)/python -m pytest tests/core tests/limiter tests/engine tests/transport --hypothesis-profile=explore \
	  --numprocesses auto --dist worksteal --override-ini timeout=900

# Processes killed a thousand times, and a journal's files damaged ten thousand times; some minutes.
crash: $(READY)
	CRASH_KILLS=1000 CRASH_BYTES=10000 $(BIN)/python -m pytest tests/crash --numprocesses auto --dist worksteal \
	  --override-ini timeout=900

# All benchmarks but the soak, one after another; an hour and a half, on a machine that does nothing else.
bench: $(READY)
	$(BIN)/python -m benchmarks all

# 20 minutes at both ceilings: is memory flat, and is anything left over?
soak: $(READY)
	$(BIN)/python -m benchmarks soak

clean:
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache .sendengine runs
