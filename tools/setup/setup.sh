#!/usr/bin/env bash
# Brings a bare Debian 12 machine to where groundd builds, runs and tests. Safe to run again: it does only what is
# missing. Needs root or sudo for the Debian packages.
#
#   tools/setup/setup.sh run      what building and running needs
#   tools/setup/setup.sh test     that, and what the tests need
#   tools/setup/setup.sh gpu      run, with ONNX Runtime's GPU library instead of the CPU one
set -euo pipefail
cd "$(dirname "$0")/../.."

ORT_VERSION=1.31.1

BUILD="build-essential pkg-config libssl-dev libgstreamer1.0-dev libgstreamer-plugins-base1.0-dev libgstrtspserver-1.0-dev"
RUN="ca-certificates python3 python3-venv python3-pip unzip mosquitto mosquitto-clients glib-networking
     gstreamer1.0-plugins-base gstreamer1.0-plugins-good gstreamer1.0-plugins-bad gstreamer1.0-plugins-ugly gstreamer1.0-libav"
TEST="ffmpeg openssl procps chromium chromium-driver systemd vlc-bin vlc-plugin-base"

say() { printf '\033[1m==>\033[0m %s\n' "$*"; }
die() { printf 'setup: %s\n' "$*" >&2; exit 69; }

as_root() {
    if [ "$(id -u)" = 0 ]; then "$@"; elif command -v sudo >/dev/null; then sudo "$@"
    else die "installing Debian packages needs root; run as root, install sudo, or install by hand: $*"; fi
}

debian_packages() {
    command -v apt-get >/dev/null || die "no apt-get here; install the equivalents of: $*"
    local missing=()
    for package in "$@"; do
        dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing+=("$package")
    done
    [ ${#missing[@]} = 0 ] && return
    say "Debian packages: ${missing[*]}"
    as_root apt-get update -q
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends "${missing[@]}"
}

rust_toolchain() {
    local wanted here
    wanted=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml)
    command -v cargo >/dev/null || die "no cargo here; install Rust $wanted or later, with rustup for example"
    here=$(cargo --version | cut -d' ' -f2)
    [ "$(printf '%s\n' "$wanted" "${here%%-*}" | sort -V | head -n 1)" = "$wanted" ] ||
        die "cargo $here is too old; install Rust $wanted or later, with rustup for example"
}

# The shared library is all we take, so any wheel of this machine's architecture serves, whatever Python is here;
# `pip` checks the download against the hashes in the requirements file.
onnx_runtime() {
    local package=$1 stamp=.runtime/onnxruntime/$1-$ORT_VERSION arch
    [ -e "$stamp" ] && [ -e .runtime/onnxruntime/LICENSE ] && return
    say "ONNX Runtime $ORT_VERSION out of the $package wheel"
    arch=$(uname -m); work=$(mktemp -d)
    python3 -m venv "$work/venv"
    "$work/venv/bin/pip" download --disable-pip-version-check --no-deps --only-binary=:all: --require-hashes \
        --python-version 3.11 --implementation cp --platform "manylinux_2_27_$arch" --platform "manylinux_2_28_$arch" \
        -d "$work" -r "tools/setup/$package.txt"
    unzip -q "$work"/*.whl 'onnxruntime/capi/libonnxruntime*' onnxruntime/LICENSE onnxruntime/ThirdPartyNotices.txt -d "$work/wheel"
    rm -rf .runtime/onnxruntime && mkdir -p .runtime/onnxruntime/lib
    mv "$work"/wheel/onnxruntime/capi/libonnxruntime* .runtime/onnxruntime/lib/
    mv "$work"/wheel/onnxruntime/{LICENSE,ThirdPartyNotices.txt} .runtime/onnxruntime/
    rm -rf "$work"
    touch "$stamp"
}

# Who has the GPU library keeps it, of this version: it computes on the CPU as well.
either_runtime() {
    if compgen -G '.runtime/onnxruntime/onnxruntime-gpu-*' >/dev/null; then onnx_runtime onnxruntime-gpu
    else onnx_runtime onnxruntime; fi
}

work=""
trap '[ -z "$work" ] || rm -rf "$work"' EXIT
mode=${1:-run}
case $mode in
    # shellcheck disable=SC2086 # the lists are words
    run) debian_packages $BUILD $RUN; rust_toolchain; either_runtime ;;
    # shellcheck disable=SC2086
    test) debian_packages $BUILD $RUN $TEST; rust_toolchain; either_runtime ;;
    # shellcheck disable=SC2086
    gpu) debian_packages $BUILD $RUN; rust_toolchain; onnx_runtime onnxruntime-gpu
         say "CUDA and cuDNN must be on the loader's path. Without system packages:
    python3 -m venv /opt/cuda-venv && /opt/cuda-venv/bin/pip install 'onnxruntime-gpu[cuda,cudnn]==$ORT_VERSION'
    export LD_LIBRARY_PATH=\$(echo /opt/cuda-venv/lib/python3*/site-packages/nvidia/*/lib | tr ' ' :)
For provider = \"tensorrt\" also \`pip install tensorrt-cu12\` there, and its tensorrt_libs folder in that path (not tried),
and for the service the same as \`Environment=LD_LIBRARY_PATH=…\` in a drop-in" ;;
    *) die "unknown mode \`$mode\`; use run, test or gpu" ;;
esac
