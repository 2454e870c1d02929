"""torch modules to ONNX files: tracing, quantising, and large weights beside the graph."""

import contextlib
import io
import logging
import tempfile
import warnings
from pathlib import Path

import onnx
import torch
from onnxruntime.quantization import matmul_nbits_quantizer as nbits

from .errors import Refused

OPSET = 17
# Beyond this a graph's weights go into `<role>.onnx_data`: protobuf ends at 2 GiB.
INLINE_BYTES = 1 << 30
TENSOR_BYTES = 1 << 31
BLOCK = 32
# Only the language model is quantised: vision towers lose boxes first, and cost little memory.
QUANTISED = ("decoder_model_merged", "encoder_model")


def fits(module, what, width=None):
    """Refuses a tensor that no graph can hold. `width` is how many bytes a number will take, where it takes others now."""
    for name, weight in module.named_parameters():
        if weight.numel() * (width or weight.element_size()) >= TENSOR_BYTES:
            remedy = "use --dtype fp16" if weight.numel() * 2 < TENSOR_BYTES else "no --dtype is small enough"
            raise Refused(f"{what}: `{name}` is larger than 2 GiB, which ONNX cannot hold; {remedy}")


def trace(graph, path):
    module = graph.module.eval()
    fits(module, graph.role)
    # The exporter prints what it thinks of itself; what matters is checked against torch afterwards.
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()), torch.no_grad():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            module, tuple(graph.inputs.values()), str(path), opset_version=OPSET, dynamo=False,
            input_names=list(graph.inputs), output_names=graph.outputs, dynamic_axes=graph.axes,
        )


def check_ports(graph, model):
    """Every axis that should be free is free, every other is fixed: a baked length answers wrongly, not with an error.

    A missing input was folded into another or into a constant.
    """
    found = {port.name: port for port in (*model.graph.input, *model.graph.output)}
    wanted = [*graph.inputs, *graph.outputs]
    if sorted(found) != sorted(wanted):
        raise Refused(f"{graph.role}: exported with ports {sorted(found)} instead of {sorted(wanted)}")
    for name, sample in graph.inputs.items():
        for axis, dim in enumerate(found[name].type.tensor_type.shape.dim):
            free = axis in graph.axes.get(name, {})
            if free == dim.HasField("dim_value") or (not free and dim.dim_value != sample.shape[axis]):
                raise Refused(f"{graph.role}: axis {axis} of `{name}` was exported as {dim.dim_value or dim.dim_param}")


def quantise(model, bits):
    """Weights to `bits` bits in blocks of 32 along the input, arithmetic in the graph's own floats."""
    config = nbits.DefaultWeightOnlyQuantConfig(block_size=BLOCK, is_symmetric=True, bits=bits, accuracy_level=0)
    tool = nbits.MatMulNBitsQuantizer(model, algo_config=config)
    logging.getLogger(nbits.__name__).setLevel(logging.ERROR)
    tool.process()
    return tool.model.model


def write(graph, folder, bits=None):
    """Traces `graph` into `folder`/role.onnx, with role.onnx_data beside it if it is large."""
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        traced = Path(scratch) / "traced.onnx"
        trace(graph, traced)
        model = onnx.load(traced)
    check_ports(graph, model)
    if bits and graph.role in QUANTISED:
        model = quantise(model, bits)
    model.producer_name, model.producer_version, model.doc_string = "groundd-export", "", ""
    # Not ByteSize: that fails on the very models it is asked for.
    large = sum(len(weight.raw_data) for weight in model.graph.initializer) > INLINE_BYTES
    path = Path(folder) / f"{graph.role}.onnx"
    onnx.save_model(model, path, save_as_external_data=large, location=f"{graph.role}.onnx_data")
    return path

