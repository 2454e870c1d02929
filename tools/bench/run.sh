#!/usr/bin/env bash
# `make bench`: groundd beside the bare engine and beside what a user would pick otherwise, on this machine, in one run.
# Each other system gets a virtual environment of its own under .runtime, from pinned packages; one that cannot be
# installed is named in the table with the reason. Needs the network the first time, and about 14 GB of disk for all.
#
#   BENCH_STREAMS=1,2,4,8   BENCH_SECONDS=10   BENCH_PEERS="plain roboflow ultralytics"   BENCH_OUT=.runtime/bench
#
# What else is given goes on to `groundd bench`, as in `tools/bench/run.sh --warm-up 3 --model models/yolox-nano`; by the default,
# nano, the other systems run nano's `vision.onnx`. Run it after `make build`. Rows: `groundd` reuses answers as the service does,
# `groundd, asking always` asks every query on every frame, `plain` is a loop of OpenCV, ONNX Runtime and paho, `roboflow` its
# InferencePipeline, `ultralytics` its loop over several streams.
set -euo pipefail
# The other systems load ONNX Runtime, which would tell its maker.
export ORT_DISABLE_TELEMETRY=1
cd "$(dirname "$0")/../.."

STREAMS=${BENCH_STREAMS:-1,2,4,8}
SECONDS_EACH=${BENCH_SECONDS:-10}
PEERS=${BENCH_PEERS-plain roboflow ultralytics}
OUT=${BENCH_OUT:-.runtime/bench}
declare -A PROGRAM=([plain]=plain.py [roboflow]=roboflow.py [ultralytics]=ultralytics_streams.py)

say() { printf '\033[1m==>\033[0m %s\n' "$*" >&2; }

# Makes the environment of a peer; what pip says last goes to stdout when it fails.
environment() {
    local name=$1 pins=tools/bench/peers/$1.txt venv=.runtime/bench/$1 log=.runtime/bench/$1.log
    cmp -s "$pins" "$venv/pins" && return
    say "installing $name into $venv"
    rm -rf "$venv"
    if python3 -m venv "$venv" >"$log" 2>&1 &&
        "$venv/bin/pip" install --disable-pip-version-check --no-input -q --no-deps -r "$pins" >>"$log" 2>&1; then
        cp "$pins" "$venv/pins"
    else
        grep -E 'ERROR|rror:' "$log" | tail -n 1 || tail -n 1 "$log"
        return 1
    fi
}

mkdir -p .runtime/bench "$OUT"
arguments=()
for name in $PEERS; do
    if reason=$(environment "$name"); then
        arguments+=(--peer "$name=.runtime/bench/$name/bin/python tools/bench/peers/${PROGRAM[$name]}")
    else
        arguments+=(--absent "$name=not installed: ${reason:-see .runtime/bench/$name.log}")
    fi
done
exec target/release/groundd bench --streams "$STREAMS" --seconds "$SECONDS_EACH" \
    --json "$OUT/bench.json" --plot "$OUT/bench.svg" "${arguments[@]}" "$@"
