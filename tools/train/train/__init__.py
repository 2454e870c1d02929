"""Trains groundd's bundled model, nano. See ../README.md."""

import os

# Before ONNX Runtime is imported, which would tell its maker.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
