"""The tiny Qwen2.5-VL in half precision to the last port, as fp16 exports may be: pip install onnx; python make.py"""

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

HERE = Path(__file__).parent


def rename(graph, old, new):
    for node in graph.node:
        for names in (node.input, node.output):
            for at, name in enumerate(names):
                if name == old:
                    names[at] = new


def halve(model):
    """Floats at the border become halves, and so do large weights; between, everything stays as it is."""
    graph, before, after = model.graph, [], []
    for ports, casts, inward in ((graph.input, before, True), (graph.output, after, False)):
        for port in ports:
            if port.type.tensor_type.elem_type != TensorProto.FLOAT:
                continue
            port.type.tensor_type.elem_type = TensorProto.FLOAT16
            full = f"{port.name}.f32"
            rename(graph, port.name, full)
            ends, to = ((port.name, full), TensorProto.FLOAT) if inward else ((full, port.name), TensorProto.FLOAT16)
            casts.append(helper.make_node("Cast", [ends[0]], [ends[1]], to=to))
    for weight in graph.initializer:
        if weight.data_type == TensorProto.FLOAT and np.prod(weight.dims) > 64:
            name, half = weight.name, numpy_helper.to_array(weight).astype(np.float16)
            weight.CopyFrom(numpy_helper.from_array(half, f"{name}.f16"))
            before.append(helper.make_node("Cast", [f"{name}.f16"], [name], to=TensorProto.FLOAT))
    nodes = [*before, *graph.node, *after]
    del graph.node[:]
    graph.node.extend(nodes)
    onnx.checker.check_model(model)
    return model


for role in ("vision_encoder", "embed_tokens", "decoder_model_merged"):
    onnx.save(halve(onnx.load(HERE.parent / f"qwen2.5-vl/model/{role}.onnx")), HERE / f"{role}.onnx")
