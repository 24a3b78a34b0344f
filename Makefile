# make demo   fetch a small model, quantize, compile, measure (a fresh machine needs python3 >= 3.11, a C compiler, cmake)
# make test   C tests (-Werror, then sanitizers, then other CPUs emulated), a short fuzz run, pytest
# make bench  kernels beside the machine's limits, models beside their peers; writes docs/benchmarks.md; make bench-check: instructions
# make lint   ruff, mypy, clang-format
# make clean

PYTHON ?= python3
VENV ?= .venv
BUILD ?= build
JOBS ?= $(shell getconf _NPROCESSORS_ONLN)
FUZZ_CASES ?= 5000
FUZZ_SEED ?= 1
# all: also armv7, riscv64, x86-64 of 2003, AVX-VNNI
CROSS ?=
PYTEST_ARGS ?=
EXPORT_PACKAGES ?= torch==2.13.0 optimum-onnx==0.1.0 transformers==4.57.6
PIP = $(VENV)/bin/python -m pip --disable-pip-version-check -q
# Not the headers that are tables set by hand: include/*.h, isa.h.
C_FILES = $(filter-out %/isa.h,$(wildcard kernels/src/*.[ch] kernels/src/isa/*.[ch] kernels/tests/*.[ch] kernels/bench/*.[ch] \
	kernels/mcu/*.[ch] kernels/mcu/*/*.[ch]))
BUILD_INPUTS = pyproject.toml CMakeLists.txt kernels/CMakeLists.txt bindings/make_ffi.py \
	$(wildcard kernels/include/*.h kernels/src/*.[ch] kernels/src/isa/*.[ch])

.PHONY: demo test test-c test-cross test-python test-export bench bench-check bench-programs lint clean tools
.DELETE_ON_ERROR:

demo: $(VENV)/.demo
	$(VENV)/bin/python examples/01_minilm_demo.py

test: test-c test-cross test-python test-export

# Sources stay editable; the extension is rebuilt when C changes.
$(VENV)/bin/python: | tools
	$(PYTHON) -m venv $(VENV)

$(VENV)/.demo: $(BUILD_INPUTS) | $(VENV)/bin/python
	$(PIP) install -e '.[quantize,text]'
	touch $@

$(VENV)/.dev: $(BUILD_INPUTS) | $(VENV)/bin/python
	$(PIP) install -e '.[dev]'
	touch $@

# What pip cannot bring: a C compiler, cmake, venv.  Root on a Debian gets them; anyone else is told.
tools:
	@missing=""; \
	command -v cc >/dev/null || missing="$$missing gcc libc6-dev"; \
	command -v cmake >/dev/null || missing="$$missing cmake"; \
	$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || missing="$$missing python3-venv"; \
	if [ -n "$$missing" ]; then \
	  if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	    apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq $$missing; \
	  else echo "please install:$$missing" >&2; exit 1; fi; \
	fi
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "frugal needs Python 3.11 or later; set PYTHON=")'

test-c: tools
	cmake -S kernels -B $(BUILD)/release -DFRUGAL_WERROR=ON >/dev/null
	cmake --build $(BUILD)/release -j $(JOBS)
	ctest --test-dir $(BUILD)/release --output-on-failure
	cmake -S kernels -B $(BUILD)/sanitize -DFRUGAL_SANITIZE=ON >/dev/null
	cmake --build $(BUILD)/sanitize -j $(JOBS)
	ctest --test-dir $(BUILD)/sanitize --output-on-failure
	mkdir -p $(BUILD)/seeds
	for program in test_session test_control; do $(BUILD)/release/$$program $(BUILD)/seeds >/dev/null; done
	$(BUILD)/sanitize/fuzz_plan $(FUZZ_CASES) $(FUZZ_SEED) $(BUILD)/seeds/*

# The C tests on CPUs that this machine is not (Arm, RISC-V, old x86-64), under qemu.  Root on a Debian gets the compilers and
# emulators; elsewhere what is missing is named and skipped.
test-cross: tools
	CROSS=$(CROSS) sh kernels/tests/cross.sh $(BUILD) $(JOBS)

test-python: $(VENV)/.dev
	$(VENV)/bin/pytest $(PYTEST_ARGS)

# What needs PyTorch (the extra `export`): our exports beside transformers' and optimum's.  In an environment of its own, since optimum
# holds transformers back; skipped, with the reason, where PyTorch cannot be installed.
test-export: $(VENV)/.dev
	@if [ -e $(VENV)-export/.done ] || { $(PYTHON) -m venv $(VENV)-export \
	    && $(VENV)-export/bin/python -m pip --disable-pip-version-check -q install $(EXPORT_PACKAGES) \
	    && $(VENV)-export/bin/python -m pip --disable-pip-version-check -q install -e '.[test]' && touch $(VENV)-export/.done; }; then \
	  $(VENV)-export/bin/pytest -q tests/quantize -k 'transformers or optimum'; \
	else echo "skipped: tests against transformers and optimum ($(EXPORT_PACKAGES) cannot be installed here)"; fi

# Peers come from pip, each into an environment of its own below build/.  BENCH_ARGS: --quick, --only kernels,minilm,small,graphs,text,
# --pairs en.csv fr.csv (accuracy).
bench: bench-programs
	BENCH_BUILD=$(abspath $(BUILD))/release $(VENV)/bin/python tests/bench/run.py --work .cache/bench --out docs/benchmarks.md $(BENCH_ARGS)

# Instructions of the hot kernels beside tests/bench/counts.json, which holds for one compiler and AVX2: skipped with another one,
# and without valgrind.  BENCH_ARGS=--update writes the file anew.
bench-check: bench-programs
	BENCH_BUILD=$(abspath $(BUILD))/release $(VENV)/bin/python tests/bench/run.py --work .cache/bench --check tests/bench/counts.json $(BENCH_ARGS)

bench-programs: $(VENV)/.dev
	@command -v valgrind >/dev/null || [ "$$(id -u)" != 0 ] || ! command -v apt-get >/dev/null || \
	  { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq valgrind; } >/dev/null 2>&1 || true
	cmake -S kernels -B $(BUILD)/release >/dev/null
	cmake --build $(BUILD)/release -j $(JOBS)

# mypy does not follow the editable install, so it reads an installed wheel.
lint: $(VENV)/.dev
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/clang-format --dry-run -Werror $(C_FILES)
	rm -rf $(BUILD)/installed
	$(PIP) install --no-deps --target $(BUILD)/installed .
	cd $(BUILD)/installed && $(abspath $(VENV))/bin/mypy --config-file $(CURDIR)/pyproject.toml -p frugal

clean:
	rm -rf $(BUILD) dist $(VENV) $(VENV)-export .pytest_cache .mypy_cache .ruff_cache
