# groundd. `make demo` and `make test` do all their own set-up on Debian 12; the other targets assume one of them ran.
SHELL := /bin/bash
SECONDS_ARG = $(if $(filter command line environment override,$(origin SECONDS)),--seconds $(SECONDS))
GROUNDD = target/release/groundd

# Whatever runs here: the tests and the tools of Python load ONNX Runtime, too, which would tell its maker.
export ORT_DISABLE_TELEMETRY = 1

.PHONY: help demo test build deb deb-test home-assistant bench bench-gpu lint setup setup-test setup-gpu soak fuzz parity parity-detectors

help:
	@echo 'make demo [SECONDS=n] [CAMERA=rtsp://…]   see it work: camera, broker, daemon, live view'
	@echo 'make test                                 every test, on real RTSP servers, brokers and a browser'
	@echo 'make build                                target/release/groundd'
	@echo 'make deb                                  target/debian/groundd_….deb, with the runtime and the model inside'
	@echo 'make deb-test                             the package on a Debian made from nothing, booted in a container (as root)'
	@echo 'make home-assistant                       a running Home Assistant beside groundd, and what becomes of its entities'
	@echo 'make bench                                throughput, delay and cost, beside other systems (14 GB of packages)'
	@echo 'make bench-gpu                            the same on a CUDA device, after make setup-gpu'
	@echo 'make soak                                 fuzzing, overload for half an hour, and the tests of RTSP and brokers again and again'
	@echo 'make parity                               exported models against transformers, kind by kind (fetches torch)'
	@echo 'make setup-gpu                            ONNX Runtime with CUDA and TensorRT, instead of the CPU one'

demo: build
	$(GROUNDD) demo $(SECONDS_ARG) $(if $(CAMERA),'$(CAMERA)')

build: setup
	cargo build --release --locked

CARGO_DEB = 3.8.0

deb: build
	test -x .runtime/cargo-deb-$(CARGO_DEB)/bin/cargo-deb || \
		cargo install --locked --version $(CARGO_DEB) --root .runtime/cargo-deb-$(CARGO_DEB) cargo-deb
	PATH="$(CURDIR)/.runtime/cargo-deb-$(CARGO_DEB)/bin:$$PATH" cargo deb --no-build

deb-test: deb
	tools/package/try.sh target/debian/groundd_*.deb

home-assistant: build
	python3 tools/homeassistant/check.py

# Also BENCH_STREAMS=1,2,4,8, BENCH_SECONDS=10, BENCH_PEERS="plain roboflow ultralytics" (empty: groundd alone).
bench: build
	tools/bench/run.sh

bench-gpu:
	tools/bench/gpu.sh

# Lints last: a compiler later than the one this was written with may know more of them.
test: setup-test
	cargo test --locked -- --test-threads=1
	$(MAKE) --no-print-directory lint

lint: setup-test
	cargo fmt --check
	cargo clippy --locked --quiet --all-targets -- -D warnings
	cargo check --locked --quiet --manifest-path fuzz/Cargo.toml

SOAK_ROUNDS = 10
# How long four times the possible load lasts.
SOAK_SECONDS = 1800

soak: setup-test fuzz
	GROUNDD_SOAK_SECONDS=$(SOAK_SECONDS) cargo test --release --locked --test tests -- --nocapture streams::four_times
	for round in $$(seq $(SOAK_ROUNDS)); do \
		cargo test --release --locked --test tests -- --test-threads=1 ingest:: publish:: service:: || exit 1; done

# Coverage-guided fuzzing of every parser, on the stable compiler: what cargo-fuzz passes, without its nightly flags.
FUZZ_FLAGS = --cfg fuzzing -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
	-Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
	-Cllvm-args=-sanitizer-coverage-trace-compares -Ccodegen-units=1
FUZZ_TARGET = $(shell rustc -vV | sed -n 's/^host: //p')
FUZZ_SECONDS = 60

fuzz: setup-test
	cd fuzz && mkdir -p corpus/codecs corpus/tensors && \
		RUSTFLAGS="$(FUZZ_FLAGS)" cargo build --release --target $(FUZZ_TARGET)
	cd fuzz && target/$(FUZZ_TARGET)/release/codecs corpus/codecs -dict=codecs.dict -max_total_time=$(FUZZ_SECONDS) -max_len=2048
	cd fuzz && target/$(FUZZ_TARGET)/release/tensors corpus/tensors -max_total_time=$(FUZZ_SECONDS) -max_len=4096

# Small models of every kind, made and exported by the pinned transformers in an environment of its own, and run by the daemon's
# code on real pictures.
PARITY = $(CURDIR)/target/parity
PARITY_VENV = $(CURDIR)/.runtime/venv-parity
# As in: make parity PYTHON=python3.13
PYTHON ?= python3
NEW_PYTHON = $(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("make: Python 3.11 or later is needed, and \
	$(PYTHON) is " + sys.version.split()[0] + "; name another, as in PYTHON=python3.13")'
HEADS = grounding-dino owlv2 clip siglip rt-detr d-fine deformable-detr vlm-fo1 llava-grounding

parity: setup-test
	$(NEW_PYTHON)
	rm -rf $(PARITY_VENV) && $(PYTHON) -m venv $(PARITY_VENV)
	$(PARITY_VENV)/bin/pip install --quiet --disable-pip-version-check -r tools/export/requirements.txt
	cd tools/export && $(PARITY_VENV)/bin/python -m export parity $(PARITY) --clip ../../assets/demo.mp4
	GROUNDD_PARITY=$(PARITY) cargo test --locked --test tests parity:: -- --ignored --nocapture
	cd tools/export && for family in $(HEADS); do $(PARITY_VENV)/bin/python -W ignore -m export selftest --family $$family || exit 1; done
	mkdir -p $(PARITY)/vlm && cp -r tests/data/heads $(PARITY)/heads && cp -r tests/data/vlm/pictures $(PARITY)/vlm
	cd tools/export && $(PARITY_VENV)/bin/python -W ignore -m export head-fixtures $(PARITY)/heads --more
	cd tools/export && $(PARITY_VENV)/bin/python -W ignore -m export region-fixtures $(PARITY)/heads --more
	GROUNDD_PARITY_HEADS=$(PARITY)/heads cargo test --locked --test tests models_of_other -- --ignored --nocapture

# As in: make parity-detectors PICTURES=coco DETECTORS="--detector yolox=yolox_nano.onnx"
# or, as proposers: make parity-detectors FILMS="a.mp4 b.mp4" DETECTORS="--teacher picodet=….onnx --detector yolox=yolox_nano.onnx"
parity-detectors: setup-test
	test -d $(PARITY_VENV) || { $(NEW_PYTHON) && $(PYTHON) -m venv $(PARITY_VENV); }
	$(PARITY_VENV)/bin/pip install --quiet --disable-pip-version-check numpy==2.4.6 onnxruntime==1.32.0 \
		opencv-python-headless==5.0.0.93 pycocotools==2.0.11
	$(PARITY_VENV)/bin/python tools/parity/detectors.py $(if $(FILMS),--films $(FILMS),--pictures $(PICTURES)) $(DETECTORS)

setup:
	@tools/setup/setup.sh run

setup-test:
	@tools/setup/setup.sh test

setup-gpu:
	@tools/setup/setup.sh gpu
