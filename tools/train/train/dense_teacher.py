"""A ready-made detector's answer for every cell of the canvas, and the features that it reads it from.

PicoDet-S has the same strides as nano, so its answers can be learned cell by cell, without labels. The file is for square pictures;
the fixed shapes inside are rewritten for nano's canvas. None of its weights enter nano.
"""

import math

import numpy as np
import onnx
import onnxruntime
from onnx import helper, numpy_helper

from . import vocab
from .spec import HEIGHT, WIDTH
from .targets import CENTRES, STRIDE

SQUARE = {52: 8, 26: 16, 13: 32, 7: 64}  # side of a map of the original 416x416 picture -> stride
HINTS = ("reshape2_3.tmp_0", "reshape2_15.tmp_0", "reshape2_19.tmp_0", "hardswish_14.tmp_0", "hardswish_22.tmp_0", "hardswish_30.tmp_0", "tmp_0")
HINT_WIDTHS = (96, 192, 384, 96, 96, 96, 96)  # three stages, then four maps
MEAN = np.array([123.675, 116.28, 103.53], np.float32)
STD = np.array([58.395, 57.12, 57.375], np.float32)


def reshape_constants(graph):
    tensors = {t.name: t for t in graph.initializer}
    tensors |= {n.output[0]: n.attribute[0].t for n in graph.node if n.op_type == "Constant"}
    for node in graph.node:
        if node.op_type != "Reshape":
            continue
        tensor = tensors[node.input[1]]
        shape = numpy_helper.to_array(tensor).copy()
        if len(shape) >= 4 and shape[-1] in SQUARE:
            stride = SQUARE[shape[-1]]
            shape[-2:] = math.ceil(HEIGHT / stride), math.ceil(WIDTH / stride)
            shape[0] = -1
            name = tensor.name
            tensor.CopyFrom(numpy_helper.from_array(shape))
            tensor.name = name


def fuse_hardswish(graph):
    """Add, clip, multiply, divide -> two operators: a quarter faster."""
    users = {}
    for node in graph.node:
        for name in node.input:
            users.setdefault(name, []).append(node)
    fused, gone = {}, set()
    for add in graph.node:
        chain = [add]
        while len(chain) < 4 and len(users.get(chain[-1].output[0], [])) == 1:
            chain.append(users[chain[-1].output[0]][0])
        if [n.op_type for n in chain] == ["Add", "Clip", "Mul", "Div"]:
            x, y = add.input[0], chain[-1].output[0]
            fused[id(chain[-1])] = [helper.make_node("HardSigmoid", [x], [y + "_gate"], alpha=1 / 6, beta=0.5),
                                    helper.make_node("Mul", [x, y + "_gate"], [y])]
            gone |= {id(n) for n in chain}
    nodes = [new for node in graph.node for new in fused.get(id(node), [] if id(node) in gone else [node])]
    del graph.node[:]
    graph.node.extend(nodes)


class DenseTeacher:
    def __init__(self, path):
        model = onnx.load(path)
        graph = model.graph
        reshape_constants(graph)
        fuse_hardswish(graph)
        size = next(i for i in graph.input if i.name == "image").type.tensor_type.shape.dim
        size[2].dim_value, size[3].dim_value = HEIGHT, WIDTH
        del graph.value_info[:]
        for output in graph.output:
            output.type.tensor_type.ClearField("shape")
        self.plain = [o.name for o in graph.output]
        graph.output.extend(helper.make_empty_tensor_value_info(name) for name in HINTS)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.log_severity_level = 1, 3
        self.session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        self.classes = np.array(vocab.FROM_COCO)

    def __call__(self, rgb):
        """Scores [N,named classes], boxes [N,4] in canvas pixels, hints (list of [C,h,w]) of an RGB canvas."""
        feed = {"image": ((rgb.astype(np.float32) - MEAN) / STD).transpose(2, 0, 1)[None]}
        outputs = self.session.run(self.plain + list(HINTS), feed)
        scores = np.concatenate([o[0] for o in outputs[:4]])
        raw = np.concatenate([o[0] for o in outputs[4:8]]).reshape(-1, 4, 8)
        raw = np.exp(raw - raw.max(-1, keepdims=True))
        sides = (raw / raw.sum(-1, keepdims=True)) @ np.arange(8, dtype=np.float32) * STRIDE[:, None]
        boxes = np.concatenate([CENTRES - sides[:, :2], CENTRES + sides[:, 2:]], 1)
        named = np.stack([scores[:, self.classes == k].max(1) if (self.classes == k).any() else np.zeros(len(scores), np.float32)
                          for k in range(len(vocab.CLASSES) - 1)], 1)
        return named, boxes, [o[0] for o in outputs[8:]]
