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
CUDA_EXTRA="[cuda,cudnn]"

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
    local package=$1 stamp=.runtime/onnxruntime/$1-$ORT_VERSION arch work
    [ -e "$stamp" ] && return
    say "ONNX Runtime $ORT_VERSION out of the $package wheel"
    arch=$(uname -m); work=$(mktemp -d); trap 'rm -rf "$work"' RETURN
    python3 -m venv "$work/venv"
    "$work/venv/bin/pip" download --disable-pip-version-check --no-deps --only-binary=:all: --require-hashes \
        --python-version 3.11 --implementation cp --platform "manylinux_2_27_$arch" --platform "manylinux_2_28_$arch" \
        -d "$work" -r "tools/setup/$package.txt"
    unzip -q "$work"/*.whl 'onnxruntime/capi/libonnxruntime*' -d "$work/wheel"
    rm -rf .runtime/onnxruntime && mkdir -p .runtime/onnxruntime/lib
    mv "$work"/wheel/onnxruntime/capi/libonnxruntime* .runtime/onnxruntime/lib/
    touch "$stamp"
}

mode=${1:-run}
case $mode in
    # Who has the GPU library keeps it, `run` or `test`: it computes on the CPU as well.
    # shellcheck disable=SC2086 # the lists are words
    run) debian_packages $BUILD $RUN; rust_toolchain
         [ -e ".runtime/onnxruntime/onnxruntime-gpu-$ORT_VERSION" ] || onnx_runtime onnxruntime ;;
    # shellcheck disable=SC2086
    test) debian_packages $BUILD $RUN $TEST; rust_toolchain
          [ -e ".runtime/onnxruntime/onnxruntime-gpu-$ORT_VERSION" ] || onnx_runtime onnxruntime ;;
    # shellcheck disable=SC2086
    gpu) debian_packages $BUILD $RUN; rust_toolchain; onnx_runtime onnxruntime-gpu
         say "CUDA and cuDNN must be on the loader's path; without system packages: pip install 'onnxruntime-gpu$CUDA_EXTRA==$ORT_VERSION'" ;;
    *) die "unknown mode \`$mode\`; use run, test or gpu" ;;
esac
