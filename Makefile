# `make venv` sets everything up, `make test` does that and runs the tests.
PYTHON ?= python3
PIP = .venv/bin/python -m pip --disable-pip-version-check

.PHONY: venv test lint benchmark

venv: .venv/installed

# learn2learn is compiled during the installation, which takes a C compiler; apt-get is asked only where none is found.
.venv/installed: requirements.txt
	command -v cc >/dev/null || { apt-get update && apt-get install -y gcc libc6-dev; }
	test -x .venv/bin/python || $(PYTHON) -m venv .venv
	$(PIP) install -r requirements.txt
	touch $@

test: venv
	.venv/bin/python -m pytest

lint: venv
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .

benchmark: venv
	OMP_WAIT_POLICY=PASSIVE .venv/bin/python benchmarks/speed.py
