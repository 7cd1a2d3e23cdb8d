# Two commands do all the set-up: `make demo` and `make test`. The virtual environment is made once, in .venv.
# A smaller PyTorch without CUDA: point pip at PyTorch's CPU index (see pytorch.org) before the first run.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DEMO := build/demo
TASKS := classify detect segment
WEIGHTS := build/weights
PYTEST_ARGS ?=
# Processes of the tests; each takes up to 3 GB of memory.
JOBS ?= 2
EXTRAS := onnx coreml tflite executorch tensorflow train peers dev
COMMA := ,
SPACE := $() $()

# What the apps carry: the bundles of `make demo`, or yours.
BUNDLES ?= $(TASKS:%=$(DEMO)/%)
APPS := build/apps

.PHONY: help demo test lint lock wheel clean train-classify train-detect train-segment test-android test-android-arm64 android-assets test-ios ios-assets

help:
	@echo "make demo    export, verify, evaluate and run XFormer on drawn scenes and photographs; results in $(DEMO)"
	@echo "make test    run the tests"
	@echo "make lint    formatting, lint and types"
	@echo "make lock    renew requirements.lock (needs uv)"
	@echo "make wheel   build the wheel into dist/"
	@echo "make test-android    compile and test the Android project (Maven, JDK 17, aapt2, qemu)"
	@echo "make test-android-arm64"
	@echo "                     the parity of all bundles on an emulated ARM64 processor"
	@echo "make test-ios        compile and test the Swift package and the app's code (Swift 6; on Debian it comes by itself)"
	@echo "make android-assets BUNDLES='my-bundle other-bundle'"
	@echo "                     put bundles into the Android app; without BUNDLES those of make demo"
	@echo "make ios-assets BUNDLES='my-bundle other-bundle'"
	@echo "                     put bundles into the iOS app; without BUNDLES those of make demo"
	@echo "make train-classify, train-detect, train-segment"
	@echo "             train the sample weights again; results in $(WEIGHTS)"
	@echo "make clean   remove everything that was built, the virtual environment too"

$(VENV)/ready: pyproject.toml requirements.lock
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
		{ echo "Python 3.10 or newer is needed; $(PYTHON) is `$(PYTHON) --version`. Try: make PYTHON=python3.12"; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || \
		{ echo "$(PYTHON) can't make virtual environments; on Debian or Ubuntu: apt install python3-venv"; exit 1; }
	@echo "Making the virtual environment in $(VENV): PyTorch is large, this takes minutes the first time."
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint requirements.lock --editable '.[$(subst $(SPACE),$(COMMA),$(EXTRAS))]'
	@touch $@

demo: $(VENV)/ready
	@$(BIN)/python scripts/photographs.py $(DEMO)/photographs
	@$(BIN)/python scripts/scenes.py $(DEMO)/scenes
	@$(BIN)/xformer-doctor
	@for task in $(TASKS); do \
		echo && echo "== $$task" && \
		$(BIN)/xformer-export --format all --task $$task --output $(DEMO)/$$task && \
		$(BIN)/xformer-verify $(DEMO)/$$task --images $(DEMO)/photographs && \
		$(BIN)/xformer-eval $(DEMO)/$$task --pictures 50 && \
		$(BIN)/xformer-predict $(DEMO)/$$task $(DEMO)/scenes $(DEMO)/photographs --quiet --save $(DEMO)/$$task-results \
			> $(DEMO)/$$task.txt \
		|| exit 1; \
	done
	@echo && echo "== Core ML in half precision, as an iPhone wants it"
	@$(BIN)/xformer-export --format coreml --output $(DEMO)/classify-coreml
	@echo && echo "== int8"
	@$(BIN)/xformer-export --format onnx,tflite --quantize int8 --calibration-pictures 64 --output $(DEMO)/classify-int8
	@$(BIN)/xformer-verify $(DEMO)/classify-int8 --report $(DEMO)/report
	@$(BIN)/xformer-eval $(DEMO)/classify-int8 --pictures 50
	@echo
	@echo "Bundles:      $(DEMO)/{classify,detect,segment}"
	@echo "Pictures:     $(DEMO)/{classify,detect,segment}-results"
	@echo "Report:       $(DEMO)/report/report.html"
	@echo "Predictions:  $(DEMO)/{classify,detect,segment}.txt"
	@echo "The sample weights know drawn scenes ($(DEMO)/scenes; truth.json says what is on them). On the photographs"
	@echo "they show that the exported model is the reference model; what they name there means nothing."

test: $(VENV)/ready
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses $(JOBS) --dist loadfile $(PYTEST_ARGS)

# Bundles of the sample weights, and what Python makes of pictures with them: some minutes the first time.
.PHONY: app-fixtures
app-fixtures: $(VENV)/ready
	$(BIN)/python scripts/app_fixtures.py --directory $(APPS)

test-android: $(VENV)/ready
	@android_demo/tools/prerequisites.sh
	@$(MAKE) --no-print-directory app-fixtures
	android_demo/tools/maven.sh package -Dxformer.python=$(abspath $(BIN)/python)
	android_demo/tools/apk.sh
	android_demo/tools/arm64.sh $(APPS)/bundles $(APPS)/arm64.json 1 classify-fp32 classify-int8
	@$(BIN)/python android_demo/tools/summary.py

# All bundles on ARM64, after test-android. Half an hour: the processor is emulated.
test-android-arm64:
	android_demo/tools/arm64.sh $(APPS)/bundles $(APPS)/arm64.json 2

android-assets: $(VENV)/ready
	@$(BIN)/python scripts/app_bundle.py --format onnx,ort,tflite --output android_demo/app/src/main/assets/bundles $(BUNDLES)

test-ios: app-fixtures
	ios_demo/tools/test.sh $(APPS)
	@$(BIN)/python ios_demo/tools/summary.py $(APPS)/swift-test.log

ios-assets: $(VENV)/ready
	@$(BIN)/python scripts/app_bundle.py --format coreml --output ios_demo/Demo/Bundles $(BUNDLES)

# The sample weights, each from the one before: small pictures first, 256x256 last. Hours on two CPU cores.
TRAIN := $(BIN)/xformer-train --precision bf16 --threads 1
FINE_TUNE := $(TRAIN) --batch-size 16 --pictures 1000

$(WEIGHTS)/pretrained.safetensors: | $(VENV)/ready
	$(BIN)/torchrun --nproc-per-node 2 --no-python $(TRAIN) --task segment --data synthetic-hard --image-size 128 \
		--epochs 16 --batch-size 32 --learning-rate 2e-3 --warmup-steps 50 --ema-decay 0.995 --output $@

$(WEIGHTS)/segment-192.safetensors: $(WEIGHTS)/pretrained.safetensors
	$(FINE_TUNE) --task segment --checkpoint $< --image-size 192 --epochs 7 --warmup-steps 100 --ema-decay 0.998 --output $@

$(WEIGHTS)/xformer_s-segment.safetensors: $(WEIGHTS)/segment-192.safetensors
	$(FINE_TUNE) --task segment --checkpoint $< --image-size 256 --epochs 21 --warmup-steps 40 --ema-decay 0.99 --half --output $@

$(WEIGHTS)/detect-128.safetensors: $(WEIGHTS)/pretrained.safetensors
	$(FINE_TUNE) --task detect --checkpoint $< --image-size 128 --epochs 14 --ema-decay 0.998 --output $@

$(WEIGHTS)/xformer_s-detect.safetensors: $(WEIGHTS)/detect-128.safetensors
	$(FINE_TUNE) --task detect --checkpoint $< --image-size 256 --epochs 3 --warmup-steps 40 --ema-decay 0.98 --half --output $@

$(WEIGHTS)/xformer_s-classify.safetensors: $(WEIGHTS)/xformer_s-detect.safetensors
	$(FINE_TUNE) --task classify --checkpoint $< --image-size 256 --pictures 700 --epochs 3 --warmup-steps 20 \
		--ema-decay 0.95 --half --output $@

train-classify: $(WEIGHTS)/xformer_s-classify.safetensors
train-detect: $(WEIGHTS)/xformer_s-detect.safetensors
train-segment: $(WEIGHTS)/xformer_s-segment.safetensors

# mypy has to find the package xformer_export, which lives in export/.
lint: $(VENV)/ready
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	@mkdir -p build/typecheck && ln -sfn ../../export build/typecheck/xformer_export
	MYPYPATH=build/typecheck:. $(BIN)/mypy -p xformer_mobile -p xformer_export

lock:
	uv pip compile pyproject.toml --universal --python-version 3.10 $(addprefix --extra ,$(EXTRAS) run) \
		--upgrade --no-annotate --no-header --no-emit-index-url --output-file requirements.lock

wheel: $(VENV)/ready
	$(BIN)/python -m build --wheel --outdir dist .

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
