# Two commands on a fresh machine: `make demo` and `make test`. Each sets up what it needs in .venv.
VENV := .venv
PY := $(VENV)/bin/python

.PHONY: help demo test lint bench clean

help:
	@echo "make demo   run a small matrix of containers, made from this machine's own programs"
	@echo "make test   run all tests"
	@echo "make lint   ruff and mypy"
	@echo "make bench  compare with the other container tools that are installed"

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
