# Needs Python 3.11 and make; everything else, ffmpeg too, comes as wheels into .venv.
# PYTHON=/path/to/python3.11 names one that is not on PATH; ARGS="..." goes to the command of demo and results.

.PHONY: setup demo results test lint check clean
.DEFAULT_GOAL := setup
READY := .venv/.ready
unexport PYTHONDONTWRITEBYTECODE  # compiled modules serve the next run, and Ray's workers in this one

setup: $(READY)

$(READY): pyproject.toml constraints.txt
	@for python in $(PYTHON) python3.11 python3 python; do \
	  "$$python" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' 2>/dev/null && found=$$python && break; \
	done; \
	if [ -z "$$found" ]; then \
	  echo "error: no Python 3.11 on PATH (python3 is: $$(python3 --version 2>&1 || true))" >&2; \
	  echo "  remedy: install Python 3.11, or name it: make setup PYTHON=/path/to/python3.11" >&2; \
	  exit 2; \
	fi; \
	[ -x .venv/bin/python ] || "$$found" -m venv .venv
	.venv/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

demo: setup
	.venv/bin/avmend study demo $(ARGS)

results: setup
	.venv/bin/avmend study results $(ARGS)

test: setup
	.venv/bin/python -m pytest -m unit -n 2 --dist loadfile $(ARGS)
	.venv/bin/python -m pytest -m integration -n 2 --dist loadfile $(ARGS)
	.venv/bin/python -m pytest -m ray -n 2 --dist loadfile $(ARGS)

lint: setup
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy
	.venv/bin/codespell

check: lint test

clean:
	rm -rf .venv build *.egg-info .pytest_cache .ruff_cache .mypy_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
