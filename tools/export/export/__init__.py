"""Real vision-language checkpoints to the ONNX folders that groundd loads."""

import os

# Before ONNX Runtime is imported, which would tell its maker.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
