# Two commands on a fresh machine: `make demo` and `make test`. Each sets up what it needs in .venv.
VENV := .venv
PY := $(VENV)/bin/python

.PHONY: help demo test test-vm lint bench clean

help:
	@echo "make demo     run a small matrix of containers, made from this machine's own programs"
	@echo "make test     run all tests"
	@echo "make test-vm  run those that need a kernel of their own in one; VM=--qemu: those that need an emulated computer"
	@echo "make lint     ruff and mypy"
	@echo "make bench    compare with the other container tools that are installed"

demo:
	@./setup.sh $(VENV)
	@mkdir -p build/demo
	@for format in tar.gz zip tar.zst; do \
		test -e build/demo/small.$$format || \
		$(VENV)/bin/guntainer pack -o build/demo/small.$$format sh cat echo ls uname env sleep || exit 1; \
	done
	$(VENV)/bin/guntainer batch configs/demo.toml

test:
	@./setup.sh $(VENV) dev
	$(PY) -m pytest $(TESTS)

# the tests that need a delegated cgroup v2 or open devices, in a throw-away kernel that has both; with VM=--qemu those that
# need the controllers and the second processor of an emulated computer; there, none may be skipped
EMULATED := $(filter --qemu,$(VM))
test-vm:
	@./setup.sh $(VENV) dev
	$(PY) tests/vm/kernel.py --swap 256 --timeout $(if $(EMULATED),300,900) $(VM) --env GUNTAINER_NO_SKIP=1 \
		$(if $(GUNTAINER_TEST_ROOTFS),--env GUNTAINER_TEST_ROOTFS=$(GUNTAINER_TEST_ROOTFS)) \
		-- $(CURDIR)/$(PY) -m pytest -m $(if $(EMULATED),qemu tests/vm,vm) $(TESTS)

lint:
	@./setup.sh $(VENV) dev
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

bench:
	@./setup.sh $(VENV)-bench bench
	$(VENV)-bench/bin/python -m bench $(CASES)

clean:
	rm -rf $(VENV) build
