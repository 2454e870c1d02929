#!/usr/bin/env bash
# `make bench-gpu`: the benchmark on a CUDA device, with ONNX Runtime's GPU library (`make setup-gpu`).
set -euo pipefail
cd "$(dirname "$0")/../.."

die() { printf 'bench-gpu: %s\n' "$*" >&2; exit 69; }

compgen -G '/dev/nvidia[0-9]*' >/dev/null && nvidia-smi -L >/dev/null 2>&1 ||
    die "there is no CUDA device here (no /dev/nvidia0 that nvidia-smi can see); nothing was measured"
compgen -G '.runtime/onnxruntime/lib/libonnxruntime_providers_cuda*' >/dev/null ||
    die "ONNX Runtime here is the CPU one; run make setup-gpu first"
cargo build --release --locked
# The compared programs are installed for the CPU; against a GPU they would say nothing.
BENCH_PEERS= BENCH_STREAMS=${BENCH_STREAMS:-1,4,16,32} BENCH_OUT=${BENCH_OUT:-.runtime/bench/gpu} \
    tools/bench/run.sh --provider cuda "$@"
