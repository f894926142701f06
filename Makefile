# make demo        the main job on real data, with and without tiering
# make test        everything CI checks, but for wheel and test-numa
# make test-numpy  NumPy's own suite in 16 MiB of DRAM; with KILLS=1, its pager is killed once a second; with
#                  USER_MODE=1, as an ordinary user for whom page faults of system calls are not served (wants root)
# make test-numa   beside a slow memory node and on Linux 6.1, in a machine that is emulated
# make fidelity    programs of all sorts plain and tiered, in every mode, must do the same; installs libraries of theirs
# make torture     the pager killed 1,000 times, at every point and at random; stores that fail at every call, and rot;
#                  each operation of a program interrupted at every instruction
# make soak        all that programs, their children and guests can do, while pagers die and devices fail; MINUTES=10
# make bench       beside what a user would pick instead, for benchmarks/README.md: an hour; bench-quick: five minutes
# make wheel       one wheel for this machine and every Python, tried in those that are here
# make lint | native | docs | sanitized | clean

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready
PEERS  := $(VENV)/.peers
GUESTS := $(VENV)/.guests

NUMPY_MEMORY ?= dram=16MiB, zstd=256MiB, file:/var/tmp=8GiB
KILLER := $(if $(KILLS),$(BIN)/python tests/pagers.py --kills-a-second $(KILLS) --)
# The one capability left is to read this environment, wherever it is.
ifdef USER_MODE
ORDINARY := setpriv --reuid=65534 --regid=65534 --clear-groups \
    --inh-caps=-all,+dac_read_search --ambient-caps=-all,+dac_read_search
endif
MINUTES ?= 10

.PHONY: bench bench-quick demo fidelity test test-numa test-numpy torture soak lint native types imports docs pytest sanitized wheel clean
.DELETE_ON_ERROR:

demo: $(READY)
	$(BIN)/python demo/demo.py

test: lint native types imports docs pytest sanitized

test-numpy: $(READY)
	$(KILLER) $(ORDINARY) $(BIN)/thermocline run --memory "$(NUMPY_MEMORY)" --min-array 4KiB -- tests/numpy_suite.py

# Installs what it needs: QEMU and busybox by apt-get, Debian's kernel into the user's cache.
test-numa: $(READY)
	$(BIN)/python tests/numa/suite.py

bench: $(PEERS)
	$(BIN)/python benchmarks/suite --json build/bench.json
	$(BIN)/python benchmarks/suite --render build/bench.json

bench-quick: $(PEERS)
	$(BIN)/python benchmarks/suite --quick --json build/bench-quick.json

# What a program of tests/fidelity needs and is not there, it is skipped for: PyTorch, unless you install it.
fidelity: $(GUESTS)
	$(BIN)/pytest --numprocesses auto --dist loadgroup tests/fidelity --fidelity

torture: $(READY)
	$(BIN)/python tests/torture/torture.py --kills 1000
	$(BIN)/pytest -m slow tests/live/test_interruptions.py

soak: $(READY)
	$(BIN)/python tests/soak/soak.py --minutes $(MINUTES) $(if $(SEED),--seed $(SEED))

# Warnings are errors here, and not where users install. The sanitizers' tests are those that run native code.
native: $(READY)
	@mkdir -p build/native
	CFLAGS='-Werror -fanalyzer' $(BIN)/python hatch_build.py build/native/libthermocline.so
	CFLAGS='-Werror -fanalyzer' $(BIN)/python hatch_build.py build/native/libthermocline-syscalls.so

sanitized: $(READY)
	$(BIN)/python tests/sanitized.py

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(READY)
	$(BIN)/mypy

imports: $(READY)
	$(BIN)/lint-imports --no-cache

# The wheel is for the oldest C library that has all the symbols which the native library needs (PEP 600).
wheel: $(READY)
	@rm -rf build/wheel dist
	@$(BIN)/python -m pip wheel --quiet --disable-pip-version-check --no-deps --wheel-dir build/wheel .
	@PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/auditwheel repair --wheel-dir dist build/wheel/*.whl 2>build/wheel/log || { \
	    cat build/wheel/log >&2; exit 1; }
	$(BIN)/python tests/wheel.py dist/*.whl

docs: $(READY)
	$(BIN)/mkdocs build --strict --quiet

# Tests run beside each other, but for those that want the machine for themselves: they measure time or memory, count
# what the pager does of its own accord, or end an interpreter while its threads run.
ALONE := tests/lab tests/live/test_memory.py tests/live/test_pressure.py tests/test_bench_suite.py \
    tests/test_numpy_allocator.py

pytest: $(READY)
	$(BIN)/pytest --numprocesses auto --dist loadgroup -m 'not slow' tests $(ALONE:%=--ignore %)
	$(BIN)/pytest -m 'not slow' $(ALONE)

# Debian's python3 comes without ensurepip: then the system's own pip (python3-pip) fills the environment,
# and where there is none either, the user is told the one package that is missing.
$(READY): pyproject.toml hatch_build.py $(wildcard src/thermocline/native/*.[ch] src/thermocline/native/*/*.[ch])
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	    echo 'make: Python 3.11 or newer is needed; write: make PYTHON=python3.12' >&2; exit 1; }
	@command -v "$${CC:-cc}" >/dev/null || command -v gcc >/dev/null || command -v clang >/dev/null || { \
	    echo 'make: a C compiler is needed; run: sudo apt-get install gcc libc6-dev' >&2; exit 1; }
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || { \
	    rm -rf $(VENV); \
	    if $(PYTHON) -c 'import ensurepip, venv' 2>/dev/null; then $(PYTHON) -m venv $(VENV); \
	    elif $(PYTHON) -m pip --version >/dev/null 2>&1; then \
	        $(PYTHON) -m venv --without-pip $(VENV) && \
	        $(PYTHON) -m pip --python $(BIN)/python install --quiet pip; \
	    else false; \
	    fi || { \
	        rm -rf $(VENV); \
	        echo 'make: no virtual environment can be made; run: sudo apt-get install python3-venv' >&2; exit 1; }; }
	@echo 'installing into $(VENV) (once; a minute or two)'
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[test,demo]'
	@touch $@

$(PEERS): $(READY)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[bench]'
	@touch $@

$(GUESTS): $(READY)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[fidelity]'
	@touch $@

# The environment stays: it takes minutes to make. `rm -rf .venv` removes it as well.
clean:
	rm -rf build dist site .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	find src tests demo -name __pycache__ -type d -prune -exec rm -rf {} + 2>/dev/null || true
