# make demo   sets up and runs the main job on the shipped sample fields, into ./demo-session
# make test   sets up and runs lint, types and all tests
# Only Python >= 3.10 (with venv), pip and make are needed; every other tool goes into .venv*/ here.

PYTHON ?= python3
VENV := .venv
DEMO_VENV := .venv-demo
BARE_VENV := .venv-bare
BIN := $(VENV)/bin
SOURCES := nca_edge devices train export tests
RUNTIME_FILES = $(shell find nca_edge devices/nca_devices train/nca_train export/nca_export -type f -not -path '*/__pycache__/*' 2>/dev/null)

export PIP_DISABLE_PIP_VERSION_CHECK := 1

.NOTPARALLEL:
.PHONY: help setup demo test lint types test-workstation test-bare bench wheelhouse arm clean distclean
.DEFAULT_GOAL := help

help:
	@echo "make demo    run the main job on the sample fields, into ./demo-session"
	@echo "make test    lint, types, all tests (the first call installs torch: about 1 GB)"
	@echo "make setup   only the environment in $(VENV)"
	@echo "make bench   start-up times, memory and the size of an installation"
	@echo "make lint | types | test-workstation | test-bare    one part of make test"
	@echo "make wheelhouse BOARD=raspberry-pi-5    all wheels for a board without a network"
	@echo "make arm     the wheel on emulated ARM cores, compared with this machine"
	@echo "make clean   remove what was built; make distclean also removes the environments"

# A wrong Python is one sentence here, not a traceback from pip.
define need_python
@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' \
	|| { echo "nca-edge needs Python 3.10 or newer: make PYTHON=/path/to/python3 ..." >&2; exit 2; }
endef

# Some systems ship Python without ensurepip; there the machine's own pip fills the environment.
define make_venv
@test -x $(1)/bin/pip || $(PYTHON) -m venv $(1) >/dev/null 2>&1 \
	|| { $(PYTHON) -m venv --clear --without-pip $(1) && $(PYTHON) -m pip --python $(1)/bin/python install --quiet pip; }
endef

setup: $(VENV)/.stamp

$(VENV)/.stamp: pyproject.toml requirements-test.txt hatch_build.py $(wildcard nca_edge/backends/native/*.[ch])
	$(need_python)
	$(call make_venv,$(VENV))
	$(BIN)/python -m pip install --quiet --constraint requirements-test.txt --editable '.[camera,web,train,teacher,export,dev]'
	touch $@

# The demo stands on the bare runtime: what a clinic installs, a few hundred MB, no torch.
$(DEMO_VENV)/.stamp: pyproject.toml $(RUNTIME_FILES)
	$(need_python)
	$(call make_venv,$(DEMO_VENV))
	$(DEMO_VENV)/bin/python -m pip install --quiet .
	touch $@

# A folder named demo-session that holds no session is somebody's own and stays.
demo: $(DEMO_VENV)/.stamp
	@if [ -f demo-session/session.db ]; then rm -rf demo-session; fi
	$(DEMO_VENV)/bin/nca-edge run nca_edge/samples --out demo-session
	@echo "Open demo-session/report.html in a browser."

test: lint types test-bare test-workstation

lint: $(VENV)/.stamp
	$(BIN)/ruff check $(SOURCES)
	$(BIN)/ruff format --check $(SOURCES)

types: $(VENV)/.stamp
	$(BIN)/mypy

# One process a core, at most four; a file's tests stay together, with what they share.
PARALLEL := --numprocesses=auto --maxprocesses=4 --dist=loadfile

# Everything, on the checkout, with torch. Last in `make test`: its closing line is the result.
test-workstation: $(VENV)/.stamp
	$(BIN)/python -m pytest $(PARALLEL)

# The runtime tests once more on the wheel alone: no torch, and no checkout on the import path (the tests are run from
# tests/, `pythonpath` is emptied, and NCA_EDGE_TEST_WHEEL makes test_packaging.py check where nca_edge came from).
test-bare: $(BARE_VENV)/.stamp
	rm -rf $(BARE_VENV)/wheel
	$(BARE_VENV)/bin/python -m pip wheel --quiet --no-deps --wheel-dir $(BARE_VENV)/wheel .
	$(BARE_VENV)/bin/python -m pip install --quiet --force-reinstall --no-deps $(BARE_VENV)/wheel/nca_edge-*.whl
	cd tests && NCA_EDGE_TEST_WHEEL=1 ../$(BARE_VENV)/bin/pytest $(PARALLEL) -o pythonpath= -p no:cacheprovider runtime

$(BARE_VENV)/.stamp: pyproject.toml
	$(need_python)
	rm -rf $(BARE_VENV)
	$(call make_venv,$(BARE_VENV))
	$(BARE_VENV)/bin/python -m pip install --quiet . pytest pytest-xdist hypothesis
	touch $@

bench: $(DEMO_VENV)/.stamp
	$(DEMO_VENV)/bin/python tests/benchmarks/startup.py --command $(DEMO_VENV)/bin/nca-edge
	$(DEMO_VENV)/bin/python tests/benchmarks/install_size.py

# The wheel with all that it needs, for a board without a network; on a USB stick, for setup-*.sh. BOARD_PYTHON: those of its
# systems (Raspberry Pi OS 12 and 13; JetPack 6). pip reads markers as the Python that runs it: what only an older one needs must
# be named here, and check_wheelhouse.py says what is missing.
BOARD ?= raspberry-pi-5
BOARD_PYTHON ?= $(if $(findstring jetson,$(BOARD)),310,311 313)
BOARD_EXTRAS := camera,litert,web
WHEELHOUSE := dist/wheelhouse-$(BOARD)
wheelhouse: $(VENV)/.stamp
	rm -rf $(WHEELHOUSE)
	NCA_EDGE_WHEEL=aarch64 $(BIN)/python -m pip wheel --quiet --no-deps --wheel-dir $(WHEELHOUSE) .
	set -e; wheel=$$(ls $(WHEELHOUSE)/nca_edge-*.whl); for python in $(BOARD_PYTHON); do \
		older=; test $$python -ge 311 || older="exceptiongroup tomli"; \
		$(BIN)/python -m pip download --quiet --dest $(WHEELHOUSE) --only-binary=:all: --implementation cp \
			--platform manylinux_2_28_aarch64 --platform manylinux_2_27_aarch64 --platform manylinux2014_aarch64 \
			--python-version $$python "$$wheel[$(BOARD_EXTRAS)]" $$older; \
		$(BIN)/python devices/check_wheelhouse.py $(WHEELHOUSE) $$python $(BOARD_EXTRAS); \
	done
	cp devices/setup-*.sh devices/nca-edge.service $(WHEELHOUSE)
	@echo "Copy $(WHEELHOUSE) to the board and run ./setup-$(if $(findstring jetson,$(BOARD)),jetson,raspberry-pi).sh nca_edge-*.whl . in it."

# The wheel as the cores of a Raspberry Pi 4 and 5, emulated: for Debian on x86-64, with a network once. Not part of make test.
# QEMU and PLUGIN: an emulator that counts instructions (devices/README.md).
export QEMU PLUGIN
arm: $(VENV)/.stamp
	rm -rf dist/arm-wheel
	NCA_EDGE_WHEEL=aarch64 $(BIN)/python -m pip wheel --quiet --no-deps --wheel-dir dist/arm-wheel .
	devices/emulate-arm.sh $(BIN)/python dist/arm-wheel/nca_edge-*.whl .arm devices/nca_devices/results/arm-emulation.json

clean:
	rm -rf dist build .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find nca_edge devices train export tests -name __pycache__ -type d -prune -exec rm -rf {} +
	@if [ -f demo-session/session.db ]; then rm -rf demo-session; fi

distclean: clean
	rm -rf $(VENV) $(DEMO_VENV) $(BARE_VENV)
