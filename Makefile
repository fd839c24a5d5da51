# All targets need Python 3.11 or newer with its venv module, and make; all the rest goes into .venv.
#
#   make try              compress, verify, list and decompress a real file
#   make try FILE=path    the same with another file
#   make test             lint, type check and tests
#   make bench            networks and other compressors over a real file; tables, plots and a page in OUT
#   make bench FILES="a b" PLAN=full DEVICE=cuda OUT=folder

PYTHON ?= python3
TORCH ?= torch==2.13.0
FILE ?=
FILES ?=
PLAN ?= quick
DEVICE ?= auto
OUT ?= bench-results

.PHONY: try test bench clean

try: .venv/installed
	@bench/try.sh .venv/bin "$(FILE)"

# Threads that wait must not spin: beside another busy process they would starve each other.
test: export OMP_WAIT_POLICY = passive
test: .venv/installed-for-tests
	.venv/bin/ruff check src tests bench examples setup.py
	.venv/bin/mypy
	.venv/bin/pytest --numprocesses logical --maxprocesses 8 --dist worksteal

# Results of before are kept and not measured again; a page is made of what there is, even if a case failed.
bench: .venv/installed
	status=0; .venv/bin/python bench/suite.py $(FILES) --plan $(PLAN) --device $(DEVICE) --out "$(OUT)" || status=$$?; \
	.venv/bin/python bench/page.py "$(OUT)/results.jsonl" && exit $$status

clean:
	rm -rf .venv

.venv/installed: pyproject.toml setup.py $(wildcard src/sepzip/recall/*.[ch]) $(wildcard src/sepzip/recompression/*.c)
	@$(PYTHON) -c 'import sys; sys.exit("sepzip needs Python 3.11 or newer: make PYTHON=..." if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv .venv
	.venv/bin/python -m pip install --quiet "$(TORCH)" --editable .
	@touch $@

.venv/installed-for-tests: .venv/installed
	.venv/bin/python -m pip install --quiet "$(TORCH)" --editable ".[dev]"
	@touch $@
