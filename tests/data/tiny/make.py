"""Makes the tiny model beside this script: the nano family's graphs, with behaviour that can be worked out by hand.

    pip install onnx==1.23.2 && python tests/data/tiny/make.py

The canvas is 16x8 and carries the answer itself. Row k of the canvas is region k, in the first two pixels:
(R,G,B),(R,G,B) = (x1, y1, x2), (y2, objectness, brightness), each divided by 255.

    bright, light   brightness          dark    1 - brightness
    left            1 - x1              sure    objectness
    the, a          mean nothing

A region's match is the mean over the phrase's words that mean something.
"""

import hashlib
import json
import pathlib

import numpy as np
import onnx
from onnx import TensorProto as T, helper as h, numpy_helper

HERE = pathlib.Path(__file__).parent
WIDTH, HEIGHT, K, L, D = 16, 8, 4, 5, 4
VOCABULARY = {"<pad>": 0, "<unk>": 1, "bright": 2, "light": 2, "dark": 3, "the": 4, "a": 4, "left": 5, "sure": 6}
MEANING = np.zeros((7, D), np.float32)
for row, word in enumerate(["bright", "dark", "left", "sure"]):
    MEANING[VOCABULARY[word], row] = 1


def save(name, nodes, inputs, outputs, constants):
    initialisers = [numpy_helper.from_array(np.asarray(value), key) for key, value in constants.items()]
    graph = h.make_graph(nodes, name, inputs, outputs, initialisers)
    model = h.make_model(graph, opset_imports=[h.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model, full_check=True)
    (HERE / f"{name}.onnx").write_bytes(model.SerializeToString())


def tensor(name, kind, *shape):
    return h.make_tensor_value_info(name, kind, shape)


def n(op, inputs, output, **attributes):
    return h.make_node(op, inputs.split(), [output], **attributes)


def vision():
    nodes = [
        n("Slice", "pixels from to axes", "corner"),
        n("Cast", "corner", "raw", to=T.FLOAT),
        n("Div", "raw full", "fractions"),
        n("Reshape", "fractions rows", "row"),
        n("Slice", "row zero four last", "boxes"),
        n("Slice", "row four five last", "sure"),
        n("Squeeze", "sure last", "objectness"),
        n("Slice", "row five six last", "bright"),
        n("Sub", "one bright", "dark"),
        n("Mul", "bright none", "nothing"),
        n("Concat", "bright dark nothing nothing", "regions", axis=2),
    ]
    i = np.int64
    constants = {
        "from": np.array([0, 0], i), "to": np.array([K, 2], i), "axes": np.array([1, 2], i),
        "full": np.float32(255), "one": np.float32(1), "none": np.float32(0), "rows": np.array([0, 0, 6], i),
        "zero": np.array([0], i), "four": np.array([4], i), "five": np.array([5], i), "six": np.array([6], i),
        "last": np.array([2], i),
    }
    save(
        "vision", nodes, [tensor("pixels", T.UINT8, "batch", HEIGHT, WIDTH, 3)],
        [tensor("boxes", T.FLOAT, "batch", K, 4), tensor("objectness", T.FLOAT, "batch", K),
         tensor("regions", T.FLOAT, "batch", K, D)], constants,
    )


def text():
    save(
        "text", [n("Gather", "meaning ids", "text")], [tensor("ids", T.INT64, "batch", L)],
        [tensor("text", T.FLOAT, "batch", L, D)], {"meaning": MEANING},
    )


def select():
    nodes = [
        n("Slice", "boxes zero one last", "x1"),
        n("Sub", "unit x1", "left"),
        n("Unsqueeze", "objectness last", "sure"),
        n("Slice", "regions zero two last", "brightness"),
        n("Concat", "brightness left sure", "seen", axis=2),
        n("ReduceSum", "text words", "sum", keepdims=1),
        n("Transpose", "sum", "asked", perm=[0, 2, 1]),
        n("MatMul", "seen asked", "total"),
        n("Gather", "meaningful ids", "counted"),
        n("ReduceSum", "counted words", "count", keepdims=1),
        n("Max", "count unit", "divisor"),
        n("Squeeze", "total last", "flat"),
        n("Div", "flat divisor", "match"),
        n("ReduceMax", "match", "best", axes=[1], keepdims=0),
        n("Sub", "unit best", "none"),
    ]
    i = np.int64
    constants = {
        "zero": np.array([0], i), "one": np.array([1], i), "two": np.array([2], i), "last": np.array([2], i),
        "words": np.array([1], i), "unit": np.float32(1), "meaningful": MEANING.sum(1),
    }
    save(
        "select", nodes,
        [tensor("regions", T.FLOAT, "batch", K, D), tensor("boxes", T.FLOAT, "batch", K, 4),
         tensor("objectness", T.FLOAT, "batch", K), tensor("text", T.FLOAT, "batch", L, D),
         tensor("ids", T.INT64, "batch", L)],
        [tensor("match", T.FLOAT, "batch", K), tensor("none", T.FLOAT, "batch")], constants,
    )


def manifest():
    lines = [
        'name = "tiny"', 'version = "1"', 'family = "nano"', 'methods = ["retrieve"]', 'licence = "Apache-2.0"',
        'provenance = "made by make.py; answers are worked out from the pixels"', "", "[input]", f"width = {WIDTH}",
        f"height = {HEIGHT}", 'fit = "letterbox"', "", "[limits]", f"regions = {K}", f"query_tokens = {L}",
        "max_batch = 8", "", "[scores]", "objectness = 0.30", "match = 0.50", "nms_iou = 0.60", "", "[tokens]",
        'vocabulary = "vocab.json"',
    ]
    for role, path in [("vision", "vision.onnx"), ("text", "text.onnx"), ("select", "select.onnx"),
                       ("vocabulary", "vocab.json")]:
        content = (HERE / path).read_bytes()
        lines += ["", "[[files]]", f'role = "{role}"', f'path = "{path}"', f"bytes = {len(content)}",
                  f'sha256 = "{hashlib.sha256(content).hexdigest()}"']
    (HERE / "model.toml").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    vision()
    text()
    select()
    (HERE / "vocab.json").write_text(json.dumps(VOCABULARY, indent=1) + "\n")
    manifest()
