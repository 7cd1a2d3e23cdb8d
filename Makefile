# Two commands do all the set-up: `make demo` and `make test`. The virtual environment is made once, in .venv.
# A smaller PyTorch without CUDA: point pip at PyTorch's CPU index (see pytorch.org) before the first run.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DEMO := build/demo
TASKS := classify detect segment
PYTEST_ARGS ?=

.PHONY: help demo test lint lock wheel clean

help:
	@echo "make demo    export, verify and run XFormer on real photographs; results in $(DEMO)"
	@echo "make test    run the tests"
	@echo "make lint    formatting, lint and types"
	@echo "make lock    renew requirements.lock (needs uv)"
	@echo "make wheel   build the wheel into dist/"
	@echo "make clean   remove everything that was built, the virtual environment too"

$(VENV)/ready: pyproject.toml requirements.lock
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
		{ echo "Python 3.10 or newer is needed; $(PYTHON) is `$(PYTHON) --version`. Try: make PYTHON=python3.12"; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || \
		{ echo "$(PYTHON) can't make virtual environments; on Debian or Ubuntu: apt install python3-venv"; exit 1; }
	@echo "Making the virtual environment in $(VENV): PyTorch is large, this takes minutes the first time."
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint requirements.lock --editable '.[onnx,dev]'
	@touch $@

demo: $(VENV)/ready
	@$(BIN)/python scripts/photographs.py $(DEMO)/photographs
	@for task in $(TASKS); do \
		echo && echo "== $$task" && \
		$(BIN)/xformer-export --format onnx --task $$task --output $(DEMO)/$$task && \
		$(BIN)/xformer-verify $(DEMO)/$$task --images $(DEMO)/photographs && \
		$(BIN)/xformer-predict $(DEMO)/$$task $(DEMO)/photographs --quiet --save $(DEMO)/$$task-results > $(DEMO)/$$task.txt \
		|| exit 1; \
	done
	@echo
	@echo "Bundles:      $(DEMO)/{classify,detect,segment}"
	@echo "Pictures:     $(DEMO)/{classify,detect,segment}-results"
	@echo "Predictions:  $(DEMO)/{classify,detect,segment}.txt"
	@echo "The weights are untrained: this shows that the exported model is the reference model, not what it sees."

test: $(VENV)/ready
	$(BIN)/python -m pytest $(PYTEST_ARGS)

# mypy has to find the package xformer_export, which lives in export/.
lint: $(VENV)/ready
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	@mkdir -p build/typecheck && ln -sfn ../../export build/typecheck/xformer_export
	MYPYPATH=build/typecheck:. $(BIN)/mypy -p xformer_mobile -p xformer_export

lock:
	uv pip compile pyproject.toml --universal --python-version 3.10 --extra run --extra onnx --extra dev \
		--upgrade --no-annotate --no-header --no-emit-index-url --output-file requirements.lock

wheel: $(VENV)/ready
	$(BIN)/python -m build --wheel --outdir dist .

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
