# groundd. `make demo` and `make test` do all their own set-up on Debian 12; the other targets assume one of them ran.
SHELL := /bin/bash
SECONDS_ARG = $(if $(filter command line environment override,$(origin SECONDS)),--seconds $(SECONDS))
GROUNDD = target/release/groundd

.PHONY: help demo test build lint setup setup-test setup-gpu deb soak clean

help:
	@echo 'make demo [SECONDS=n] [CAMERA=rtsp://…]   see it work: camera, broker, daemon, live view'
	@echo 'make test                                 every test, on real cameras and brokers'
	@echo 'make build                                target/release/groundd'
	@echo 'make soak                                 the slow tests: reconnects, broker outages, memory'
	@echo 'make setup-gpu                            ONNX Runtime with CUDA and TensorRT'

demo: build
	$(GROUNDD) demo $(SECONDS_ARG) $(CAMERA)

build: setup
	cargo build --release --locked

test: setup-test lint
	cargo test --locked --quiet -- --format terse

lint: setup-test
	cargo fmt --check
	cargo clippy --locked --quiet --all-targets -- -D warnings

soak: setup-test
	cargo test --release --locked -- --ignored --nocapture

setup:
	@tools/setup/setup.sh run

setup-test:
	@tools/setup/setup.sh test

setup-gpu:
	@tools/setup/setup.sh gpu
