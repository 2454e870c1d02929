"""Gives the tiny Qwen2.5-VL's decoder a half-precision cache, as fp16 exports have: pip install onnx; python make.py"""

from pathlib import Path

import onnx
from onnx import TensorProto, helper

HERE = Path(__file__).parent
model = onnx.load(HERE.parent / "qwen2.5-vl/model/decoder_model_merged.onnx")
graph = model.graph
casts = {"past_key_values.": [], "present.": []}


def rename(old, new):
    for node in graph.node:
        for names in (node.input, node.output):
            for at, name in enumerate(names):
                if name == old:
                    names[at] = new


for port in [*graph.input, *graph.output]:
    for prefix, nodes in casts.items():
        if port.name.startswith(prefix):
            port.type.tensor_type.elem_type = TensorProto.FLOAT16
            full = f"{port.name}.f32"
            rename(port.name, full)
            taken = prefix == "past_key_values."
            ends = (port.name, full) if taken else (full, port.name)
            nodes.append(helper.make_node("Cast", [ends[0]], [ends[1]], to=TensorProto.FLOAT if taken else TensorProto.FLOAT16))
nodes = [*casts["past_key_values."], *graph.node, *casts["present."]]
del graph.node[:]
graph.node.extend(nodes)
onnx.checker.check_model(model)
onnx.save(model, HERE / "decoder_model_merged.onnx")
