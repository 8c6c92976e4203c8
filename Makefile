# `make demo` and `make test` do all set-up themselves, in .venv.
.DEFAULT_GOAL := help
.PHONY: help demo test test-long lint format page bench clean

PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready
# The tests start hundreds of processes: each would compile all modules again.
unexport PYTHONDONTWRITEBYTECODE

help:
	@echo "make demo       install into .venv and train a grid of 12 on handwritten digits"
	@echo "make test       run the tests;  make test-long  with the long ones"
	@echo "make lint       ruff and mypy;  make format     format the code"
	@echo "make page       build the dashboard's page into ml_board/static (needs Node)"
	@echo "make bench      measure, and write docs/benchmarks.md"

# torch first and alone: its exact pin takes a build that fits the machine, where a resolver might pick another.
$(READY): setup.cfg pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "mlgym needs Python 3.11 or later")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check "$$(grep '^torch==' constraints.txt)"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $(READY)

demo: $(READY)
	cd example/digits_grid && ../../$(BIN)/python run.py --config_path run_config.yml

test: $(READY)
	$(BIN)/python -m pytest -m "not long" -n 3 --dist worksteal

test-long: $(READY)
	$(BIN)/python -m pytest -n 3 --dist worksteal

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

page: $(READY)
	$(BIN)/python -m ml_board.wire_types > ml_board/frontend/src/wire/events.ts
	cd ml_board/frontend && npm ci --no-audit --no-fund && npm run check && npm run build && npm run build:one_file

bench: $(READY)
	$(BIN)/python -m benchmarks

clean:
	rm -rf .venv ml_board/frontend/node_modules build *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
