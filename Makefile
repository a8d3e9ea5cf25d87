# make demo            the whole system on this machine, no hardware   (ARGS="--seconds 10 --out DIR")
# make test            every check that CI runs
# make lock            resolve the dependencies again
# make wheels          do they all have wheels for a Raspberry Pi?
# make arm64           do the unit tests pass on (emulated) arm64?
# make systemd-trixie  does all of systemd/ work on Debian trixie, too? (CI does bookworm)

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
WORKERS ?= 2
LIBCAMERA := /var/cache/edgecap-libcamera
SYSTEMD_ROOT := /var/cache/edgecap-systemd-root
LOCK := uv pip compile --quiet --universal --generate-hashes --no-annotate --no-header --no-emit-index-url --python-version 3.11 pyproject.toml

.PHONY: demo test lint types layers unit lock wheels arm64 systemd-trixie bench clean system-packages

demo: $(VENV)/demo
	@$(BIN)/edgecap demo $(ARGS)

test: system-packages $(VENV)/dev lint types layers unit

lint: $(VENV)/dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/dev
	$(BIN)/mypy

layers: $(VENV)/dev
	$(BIN)/lint-imports

unit: $(VENV)/dev
	@$(BIN)/edgecap warmup >/dev/null  # the workers share the cache of compiled kernels
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile $(ARGS)

# What the tests need of the system. As root on Debian it is installed; elsewhere it must be there already:
# mosquitto (a real broker), file systems whose power can be cut (as root), dtc, and libcamera's virtual camera,
# without which the picamera2 tests are skipped.
system-packages:
	@if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	  { { command -v mosquitto || test -x /usr/sbin/mosquitto; } >/dev/null 2>&1 && command -v cc >/dev/null && command -v ip >/dev/null && \
	    command -v mkfs.xfs >/dev/null && command -v mkfs.ext4 >/dev/null && command -v fdtoverlay >/dev/null; } || \
	    { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
	      mosquitto gcc libc6-dev make iproute2 iptables xfsprogs e2fsprogs device-tree-compiler; }; \
	  { command -v arm-none-eabi-gcc && command -v node && command -v npm; } >/dev/null 2>&1 || \
	    { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
	      gcc-arm-none-eabi libnewlib-arm-none-eabi $$(command -v npm >/dev/null || echo nodejs npm); }; \
	  { command -v debootstrap && command -v systemd-nspawn && command -v systemd-analyze && command -v udevadm && \
	    command -v shellcheck && command -v umockdev-run; } >/dev/null 2>&1 || \
	    { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
	      debootstrap systemd systemd-container udev shellcheck umockdev; }; \
	  test -e $(SYSTEMD_ROOT)/wheels || echo "Building a small Debian to install into, in $(SYSTEMD_ROOT), once; this takes two minutes …"; \
	  tests/systemd/build_root.sh $(SYSTEMD_ROOT) >$(SYSTEMD_ROOT).log 2>&1 || { tail -20 $(SYSTEMD_ROOT).log; exit 1; }; \
	  test -d $(LIBCAMERA)/venv || echo "Building libcamera's virtual camera into $(LIBCAMERA), once; this takes three minutes …"; \
	  tests/camera/build_libcamera.sh $(LIBCAMERA) >$(LIBCAMERA).log 2>&1 || { tail -20 $(LIBCAMERA).log; exit 1; }; \
	elif ! { command -v mosquitto || test -x /usr/sbin/mosquitto; } >/dev/null 2>&1; then \
	  echo "edgecap: mosquitto is missing; install it with: sudo apt-get install mosquitto" >&2; exit 1; \
	fi

$(VENV)/python:
	@$(PYTHON) -c '' || \
	  { echo "edgecap: $(PYTHON) cannot be run; install Python 3.11 or newer, or name one with PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "edgecap: $(PYTHON) is older than 3.11; name a newer one with PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV) || \
	  { rm -rf $(VENV); echo "edgecap: cannot make a virtual environment; on Debian: apt-get install python3-venv" >&2; exit 1; }
	@touch $@

$(VENV)/demo: requirements.lock pyproject.toml | $(VENV)/python
	@echo "Installing Python packages into $(VENV), once; this takes a minute or two …"
	@$(BIN)/python -m pip install -q --disable-pip-version-check --require-hashes -r requirements.lock
	@$(BIN)/python -m pip install -q --disable-pip-version-check --no-deps -e .
	@touch $@

$(VENV)/dev: requirements-dev.lock pyproject.toml | $(VENV)/python
	$(BIN)/python -m pip install -q --disable-pip-version-check --require-hashes -r requirements-dev.lock
	$(BIN)/python -m pip install -q --disable-pip-version-check --no-deps -e .
	@touch $@ $(VENV)/demo

lock:
	$(LOCK) --extra ingest --extra fleet --extra export --extra sim -o requirements.lock
	$(LOCK) --extra rig -c requirements.lock -o requirements-rig.lock
	$(LOCK) --extra ingest --extra fleet -c requirements.lock -o requirements-site.lock
	$(LOCK) --all-extras -o requirements-dev.lock

# Every package of the locks has a wheel for 64-bit Raspberry Pi OS, bookworm's Python and trixie's. Needs uv, as lock does.
wheels:
	@for python in 3.11 3.13; do for lock in requirements-rig.lock requirements-site.lock requirements.lock; do \
	  uv pip install --quiet --dry-run --target build/no-wheels --python-version $$python \
	    --python-platform aarch64-manylinux_2_36 --only-binary :all: --no-deps --require-hashes -r $$lock || exit 1; \
	  echo "$$lock: a wheel of every package for aarch64, Python $$python"; \
	done; done

# The wheels of a rig and the unit tests on emulated arm64: root on Debian, and time; what is left out: .ci/arm64.without.
arm64:
	.ci/arm64 $(ARGS)

# The installer and a rig's whole life on Debian trixie (systemd 257, Python 3.13), in a container: root on Debian.
systemd-trixie: $(VENV)/dev
	SUITE=trixie tests/systemd/build_root.sh $(SYSTEMD_ROOT)-trixie
	EDGECAP_SYSTEMD_ROOT=$(SYSTEMD_ROOT)-trixie CI=1 $(BIN)/python -m pytest -v tests/systemd $(ARGS)

bench: $(VENV)/dev
	$(BIN)/python bench/pipeline.py $(ARGS)

clean:
	rm -rf $(VENV) build hw/firmware/build tests/hw/emulator/node_modules
