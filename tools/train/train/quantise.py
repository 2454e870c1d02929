"""nano-int8: the image side with convolutions in eight bits, for CPUs; everything else is nano's own file.

Static quantisation in ONNX Runtime's QDQ form, scales per channel, ranges from training frames. Weights have seven bits
(`reduce_range`): with eight, processors that have AVX2 but not VNNI saturate when they add two products.
"""

import os

import cv2
import numpy as np
from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process

from . import evaluate, export, samples
from .distil import new_sampler

FRAMES = 32
SHARED = ("text.onnx", "select.onnx", "detect.onnx", "write.onnx", "vocab.json", "answers.json")


class Frames(CalibrationDataReader):
    """Whole training frames, spread over all sources."""

    def __init__(self, work):
        sampler, rng = new_sampler(work, 0), np.random.default_rng(0)
        records = sampler.records[:: len(sampler.records) // FRAMES][:FRAMES]
        frames = (evaluate.letterboxed(samples.Frame.read(sampler.folder, record), rng).image for record in records)
        self.feeds = ({"pixels": cv2.cvtColor(image, cv2.COLOR_BGR2RGB)[None]} for image in frames)

    def get_next(self):
        return next(self.feeds, None)


def quantise(work, nano, provenance, scores):
    """Writes `nano`'s sibling."""
    folder = nano.with_name(f"{nano.name}-int8")
    folder.mkdir(exist_ok=True)
    prepared = work / "vision-prepared.onnx"
    quant_pre_process(nano / "vision.onnx", prepared, skip_symbolic_shape=True)
    quantize_static(prepared, folder / "vision.onnx", Frames(work), per_channel=True, reduce_range=True, activation_type=QuantType.QUInt8,
                    weight_type=QuantType.QInt8, op_types_to_quantize=["Conv"])
    for name in SHARED:
        (folder / name).unlink(missing_ok=True)
        os.symlink(f"../{nano.name}/{name}", folder / name)
    export.manifest(folder, f"{provenance}; convolutions of the image side quantised", scores)
