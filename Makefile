# groundd. `make demo` and `make test` do all their own set-up on Debian 12; the other targets assume one of them ran.
SHELL := /bin/bash
SECONDS_ARG = $(if $(filter command line environment override,$(origin SECONDS)),--seconds $(SECONDS))
GROUNDD = target/release/groundd

.PHONY: help demo test build lint setup setup-test setup-gpu soak fuzz

help:
	@echo 'make demo [SECONDS=n] [CAMERA=rtsp://…]   see it work: camera, broker, daemon, live view'
	@echo 'make test                                 every test, on real cameras and brokers'
	@echo 'make build                                target/release/groundd'
	@echo 'make soak                                 fuzzing, and the tests of cameras and brokers again and again'
	@echo 'make setup-gpu                            ONNX Runtime with CUDA and TensorRT'

demo: build
	$(GROUNDD) demo $(SECONDS_ARG) $(CAMERA)

build: setup
	cargo build --release --locked

test: setup-test lint
	cargo test --locked -- --test-threads=1

lint: setup-test
	cargo fmt --check
	cargo clippy --locked --quiet --all-targets -- -D warnings

SOAK_ROUNDS = 10

soak: setup-test fuzz
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

setup:
	@tools/setup/setup.sh run

setup-test:
	@tools/setup/setup.sh test

setup-gpu:
	@tools/setup/setup.sh gpu
