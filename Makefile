# make demo   fetch a small model, quantize, compile, measure (a fresh machine needs python3 >= 3.11, a C compiler, cmake)
# make test   C tests (-Werror, then sanitizers, then emulated Arm), a short fuzz run, pytest
# make bench  C benchmarks, then frugal beside onnxruntime; writes docs/benchmarks.md (BENCH_ARGS='--pairs en.csv fr.csv' adds accuracy)
# make lint   ruff, mypy, clang-format
# make clean

PYTHON ?= python3
VENV ?= .venv
BUILD ?= build
JOBS ?= $(shell getconf _NPROCESSORS_ONLN)
FUZZ_CASES ?= 5000
FUZZ_SEED ?= 1
PYTEST_ARGS ?=
EXPORT_PACKAGES ?= torch==2.13.0 optimum-onnx==0.1.0 transformers==4.57.6
CROSS_CC ?= aarch64-linux-gnu-gcc
PIP = $(VENV)/bin/python -m pip --disable-pip-version-check -q
# Not the headers that are tables set by hand: include/*.h, isa.h.
C_FILES = $(filter-out %/isa.h,$(wildcard kernels/src/*.[ch] kernels/src/isa/*.[ch] kernels/tests/*.[ch] kernels/bench/*.[ch]))
BUILD_INPUTS = pyproject.toml CMakeLists.txt kernels/CMakeLists.txt bindings/make_ffi.py \
	$(wildcard kernels/include/*.h kernels/src/*.[ch] kernels/src/isa/*.[ch])

.PHONY: demo test test-c test-cross test-python test-export bench lint clean tools
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

# The instruction sets that this machine may lack, under qemu: aarch64 without sdot, with it, with smmla.  A host without AVX2
# also runs the x86-64 test under qemu (AVX2 from 7.2 on).  Root on a Debian gets compiler and emulator; elsewhere, skipped with the reason.
test-cross: tools
	@compiler() { command -v $(CROSS_CC) >/dev/null && echo 'int main(void){return 0;}' | $(CROSS_CC) -static -xc -o /dev/null - 2>/dev/null; }; \
	emulator() { command -v qemu-$$1-static || command -v qemu-$$1; }; \
	missing=""; \
	compiler || missing="gcc-aarch64-linux-gnu libc6-dev-arm64-cross"; \
	emulator aarch64 >/dev/null || missing="$$missing qemu-user-static"; \
	if [ -n "$$missing" ] && [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	  { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq $$missing; } >/dev/null 2>&1; \
	fi; \
	if ! compiler; then echo "skipped: Arm tests ($(CROSS_CC) with a static libc is not here: gcc-aarch64-linux-gnu libc6-dev-arm64-cross)"; \
	elif ! qemu=$$(emulator aarch64); then echo "skipped: Arm tests (no qemu-aarch64: qemu-user-static)"; \
	else \
	  set -e; quick=""; \
	  cmake -S kernels -B $(BUILD)/aarch64 -DFRUGAL_WERROR=ON -DCMAKE_SYSTEM_NAME=Linux -DCMAKE_SYSTEM_PROCESSOR=aarch64 \
	    -DCMAKE_C_COMPILER=$(CROSS_CC) -DCMAKE_EXE_LINKER_FLAGS=-static >/dev/null; \
	  cmake --build $(BUILD)/aarch64 -j $(JOBS) --target test_isa test_session test_conv test_qconv test_control \
	    test_recurrent test_index test_spatial; \
	  for cpu in cortex-a53 cortex-a76 max; do \
	    echo "aarch64, $$cpu:"; \
	    $$qemu -cpu $$cpu $(BUILD)/aarch64/test_isa $$quick; \
	    for program in test_session test_conv test_qconv test_control; do $$qemu -cpu $$cpu $(BUILD)/aarch64/$$program; done; \
	    for program in test_recurrent test_index test_spatial; do $$qemu -cpu $$cpu $(BUILD)/aarch64/$$program quick; done; \
	    quick=quick; \
	  done; \
	fi; \
	if [ "$$(uname -m)" = x86_64 ] && ! grep -qw avx2 /proc/cpuinfo; then \
	  if qemu=$$(emulator x86_64) && [ -x $(BUILD)/release/test_isa ]; then \
	    echo "x86-64, max:"; $$qemu -cpu max $(BUILD)/release/test_isa quick; \
	  else echo "skipped: AVX2 tests (not on this CPU, and no qemu-x86_64 or no $(BUILD)/release)"; fi; \
	fi

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

bench: $(VENV)/.dev
	cmake -S kernels -B $(BUILD)/release >/dev/null
	cmake --build $(BUILD)/release -j $(JOBS)
	for program in $(patsubst kernels/bench/%.c,$(BUILD)/release/%,$(wildcard kernels/bench/*.c)); do $$program; done
	$(VENV)/bin/python tests/bench/minilm.py --work .cache/bench --out docs/benchmarks.md $(BENCH_ARGS)
	$(VENV)/bin/python tests/bench/graphs.py --work .cache/bench --out docs/benchmarks.md

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
