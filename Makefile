# `make venv` sets everything up, `make test` does that and runs the tests.
PYTHON ?= python3
# threads as boa.py has them, which a benchmark that loads torch first does not
AS_BOA = OMP_WAIT_POLICY=PASSIVE GOMP_SPINCOUNT=1000
PIP = .venv/bin/python -m pip --disable-pip-version-check

.PHONY: venv demo test lint format benchmark growth benchmark-video rates ablation dynaboa-ablation wild-rates footage-rates

venv: .venv/installed

# learn2learn is compiled, which takes a compiler and Python's headers: what is missing is named, and to root installed.
# The option that it needs in requirements.txt is known to pip from 23.1 on, and some Pythons bring an older one.
.venv/installed: requirements.txt
	$(PYTHON) tools/check_system.py --install
	test -x .venv/bin/python || $(PYTHON) -m venv .venv
	$(PIP) install --quiet --upgrade "pip>=23.1"
	$(PIP) install -r requirements.txt
	touch $@

.venv/dev: requirements-dev.txt .venv/installed
	$(PIP) install -r requirements-dev.txt
	touch $@

# The free benchmark: frozen network and BOA on a rendered stream, then table, plot and video in experiments/demo.
# What is rendered already, by this renderer and with this body, is not rendered again.
demo: venv
	.venv/bin/python process_data.py --dataset synthetic --seed 1
	.venv/bin/python boa.py --name demo-frozen --dataset_name synthetic --method frozen --save_predictions --overwrite
	.venv/bin/python boa.py --name demo --dataset_name synthetic --first_order --save_predictions --overwrite
	.venv/bin/python compare.py experiments/demo-frozen experiments/demo --video

# A video needs MediaPipe only when no file gives the joints, so that its absence is no failure of the set-up.
.venv/video: requirements-video.txt .venv/installed
	$(PIP) install --no-deps -r requirements-video.txt && touch $@ \
		|| echo "MediaPipe cannot be had here; what needs it is not tested"

# Files of tests side by side, each on one thread.
test: .venv/dev .venv/video
	OMP_NUM_THREADS=1 .venv/bin/python -m pytest --numprocesses logical --maxprocesses 4 --dist loadfile

lint: .venv/dev
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .

format: .venv/dev
	.venv/bin/ruff check --fix .
	.venv/bin/ruff format .

benchmark: venv
	$(AS_BOA) .venv/bin/python benchmarks/step.py
	$(AS_BOA) .venv/bin/python benchmarks/frame.py
	.venv/bin/python benchmarks/convert.py

growth: venv
	$(AS_BOA) .venv/bin/python benchmarks/growth.py

benchmark-video: venv .venv/video
	.venv/bin/python benchmarks/video.py $(CLIP)

# Tables of docs/benchmarks.md; they take hours, and go on where they stopped.
footage-rates: .venv/video
rates ablation dynaboa-ablation wild-rates footage-rates: venv
	.venv/bin/python benchmarks/ablation.py $@
