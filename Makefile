# Both targets need Python 3.11 or newer with its venv module, and make; all the rest goes into .venv.
#
#   make try              compress, verify, list and decompress a real file
#   make try FILE=path    the same with another file
#   make test             lint, type check and tests

PYTHON ?= python3
TORCH ?= torch==2.13.0
FILE ?=

.PHONY: try test clean

try: .venv/installed
	@bench/try.sh .venv/bin "$(FILE)"

# Threads that wait must not spin: beside another busy process they would starve each other.
test: export OMP_WAIT_POLICY = passive
test: .venv/installed-for-tests
	.venv/bin/ruff check src tests bench examples
	.venv/bin/mypy
	.venv/bin/pytest

clean:
	rm -rf .venv

.venv/installed: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit("sepzip needs Python 3.11 or newer: make PYTHON=..." if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv .venv
	.venv/bin/python -m pip install --quiet "$(TORCH)" --editable .
	@touch $@

.venv/installed-for-tests: .venv/installed
	.venv/bin/python -m pip install --quiet "$(TORCH)" --editable ".[dev]"
	@touch $@
