"""Makes the tiny model beside this script: every graph of the nano family, and what it answers.

    pip install onnx==1.23.2 onnxruntime numpy && python tests/data/nano_tiny/make.py

The canvas is 16x8, or 12x10, and carries the answer itself. Row k of the canvas is cell k, in the first two pixels:
(R,G,B),(R,G,B) = (x1, y1, x2), (y2, objectness, brightness), each divided by 255. The first four cells are the regions.

    bright, light   brightness          dark    1 - brightness
    left            1 - x1              sure    objectness
    the, a          mean nothing

What fits a phrase is the mean over its words that mean something. The decoder that writes boxes has random weights;
cases.json has what ONNX Runtime makes of them here, without a cache, one answer at a time, under the grammar of
src/ground/codec/nano.rs told anew.
"""

import hashlib
import json
import pathlib

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto as T, helper as h, numpy_helper

HERE = pathlib.Path(__file__).parent
WIDTH, HEIGHT, K, L, D, CELLS, BEST = 16, 8, 4, 5, 4, 8, 5
OTHER = 12, 10  # another canvas, on which the cells are told in the same way
HEADS, HEAD, LAYERS, LONGEST, MOST = 2, 4, 2, 140, 10
VOCABULARY = {"<pad>": 0, "<unk>": 1, "bright": 2, "light": 2, "dark": 3, "the": 4, "a": 4, "left": 5, "sure": 6}
ANSWERS = ["<pad>", "<coords>", "<bins>", "<box>", "<end>", *"0123456789", *(f"<bin_{i}>" for i in range(256))]
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
    return h.make_node(op, inputs.split(), output.split(), **attributes)


def ints(*values):
    return np.array(values, np.int64)


def vision():
    nodes = [
        n("Slice", "pixels from to axes", "corner"),
        n("Cast", "corner", "raw", to=T.FLOAT),
        n("Div", "raw full", "fractions"),
        n("Reshape", "fractions rows", "row"),
        n("Slice", "row zero four last", "corners"),
        n("Slice", "corners zero four middle", "boxes"),
        n("Slice", "row four five last", "sure"),
        n("Slice", "sure zero four middle", "offered"),
        n("Squeeze", "offered last", "objectness"),
        n("Slice", "row five six last", "bright"),
        n("Sub", "one bright", "dark"),
        n("Slice", "row zero unit last", "x1"),
        n("Sub", "one x1", "left"),
        n("Concat", "bright dark left sure", "known", axis=2),
        n("Slice", "known zero four middle", "regions"),
        n("Transpose", "known", "cells", perm=[0, 2, 1]),
        n("Transpose", "corners", "places", perm=[0, 2, 1]),
    ]
    constants = {
        "from": ints(0, 0), "to": ints(CELLS, 2), "axes": ints(1, 2), "full": np.float32(255), "one": np.float32(1),
        "rows": ints(0, 0, 6), "zero": ints(0), "unit": ints(1), "four": ints(4), "five": ints(5), "six": ints(6),
        "middle": ints(1), "last": ints(2),
    }
    save(
        "vision", nodes, [tensor("pixels", T.UINT8, "batch", "height", "width", 3)],
        [tensor("boxes", T.FLOAT, "batch", K, 4), tensor("objectness", T.FLOAT, "batch", K),
         tensor("regions", T.FLOAT, "batch", K, D), tensor("cells", T.FLOAT, "batch", D, CELLS),
         tensor("places", T.FLOAT, "batch", 4, CELLS)], constants,
    )


def text():
    save(
        "text", [n("Gather", "meaning ids", "text")], [tensor("ids", T.INT64, "batch", L)],
        [tensor("text", T.FLOAT, "batch", L, D)], {"meaning": MEANING},
    )


# What fits the words, of rows that know what there is to know: `known` [P,n,D] -> `fit` [P,n].
FIT = [
    n("ReduceSum", "text words", "sum", keepdims=1),
    n("Transpose", "sum", "asked", perm=[0, 2, 1]),
    n("MatMul", "known asked", "total"),
    n("Gather", "meaningful ids", "counted"),
    n("ReduceSum", "counted words", "count", keepdims=1),
    n("Max", "count unit", "divisor"),
    n("Squeeze", "total last", "flat"),
    n("Div", "flat divisor", "fit"),
]
FIT_CONSTANTS = {"words": ints(1), "unit": np.float32(1), "meaningful": MEANING.sum(1), "last": ints(2)}
ASKED = [tensor("text", T.FLOAT, "batch", L, D), tensor("ids", T.INT64, "batch", L)]


def select():
    nodes = [
        n("Identity", "regions", "known"), *FIT,
        n("Identity", "fit", "match"),
        n("ReduceMax", "fit", "best", axes=[1], keepdims=0),
        n("Sub", "unit best", "none"),
        # Read by the decoder: what a region is, and where.
        n("Mul", "boxes regions", "states"),
    ]
    save(
        "select", nodes,
        [tensor("regions", T.FLOAT, "batch", K, D), tensor("boxes", T.FLOAT, "batch", K, 4),
         tensor("objectness", T.FLOAT, "batch", K), *ASKED],
        [tensor("match", T.FLOAT, "batch", K), tensor("none", T.FLOAT, "batch"), tensor("states", T.FLOAT, "batch", K, D)],
        FIT_CONSTANTS,
    )


def detect():
    nodes = [
        n("Transpose", "cells", "known", perm=[0, 2, 1]), *FIT,
        n("TopK", "fit most", "scores at", axis=1),
        n("Transpose", "places", "corners", perm=[0, 2, 1]),
        n("Unsqueeze", "at last", "rows"),
        n("Expand", "rows four", "index"),
        n("GatherElements", "corners index", "boxes", axis=1),
    ]
    save(
        "detect", nodes,
        [tensor("cells", T.FLOAT, "batch", D, CELLS), tensor("places", T.FLOAT, "batch", 4, CELLS), *ASKED],
        [tensor("boxes", T.FLOAT, "batch", BEST, 4), tensor("scores", T.FLOAT, "batch", BEST)],
        {**FIT_CONSTANTS, "most": ints(BEST), "four": ints(1, 1, 4)},
    )


def leaning():
    """By the place in a box: corners that come first lean to the top left, the others to the bottom right, so that random
    weights write boxes that are some."""
    digits, bins = np.zeros((13, len(ANSWERS)), np.float32), np.zeros((5, len(ANSWERS)), np.float32)
    for corner in range(4):
        first = corner < 2
        digits[1 + 3 * corner, slice(5, 9) if first else slice(10, 15)] = 4
        bins[1 + corner, slice(15, 115) if first else slice(135, 271)] = 4
    return {"by13": digits, "by5": bins, "n13": np.int64(13), "n5": np.int64(5)}


def write(seed):
    dice = np.random.default_rng(seed)
    wide = HEADS * HEAD
    weight = lambda *shape, scale=1.0: dice.normal(0, scale, shape).astype(np.float32)
    constants = {
        "words": weight(len(ANSWERS), wide), "order": weight(LONGEST, wide, scale=0.5), "say": weight(wide, len(ANSWERS)),
        "hidden": np.float32(-1e4), "least": np.float32(1e-3), "one": np.float32(1), "zero": ints(0), "step": ints(1),
        "split": ints(0, 0, HEADS, HEAD), "join": ints(0, 0, wide), "root": np.float32(HEAD**0.5), "first": ints(1),
        "i0": np.int64(0), "i1": np.int64(1), "i3": np.int64(3), "row": ints(1), "line": ints(0),
        "rooted": np.float32(wide**0.5), **leaning(),
    }
    nodes = [
        n("Gather", "words tokens", "said"),
        n("Shape", "past", "past_shape"), n("Gather", "past_shape i3", "before"),
        n("Shape", "tokens", "token_shape"), n("Gather", "token_shape i1", "new"),
        n("Add", "before new", "after"),
        n("Range", "before after i1", "here"), n("Range", "i0 after i1", "there"),
        n("Gather", "order here", "place"), n("Add", "said place", "x0"),
        n("Unsqueeze", "here row", "down"), n("Unsqueeze", "there line", "across"),
        n("Less", "down across", "later"), n("Cast", "later", "late", to=T.FLOAT), n("Mul", "late hidden", "reach"),
        n("Max", "shown least", "floor"), n("Log", "floor", "log"), n("Unsqueeze", "log row", "meant"),
    ]
    caches = []
    for i in range(LAYERS):
        for name in ("q", "k", "v", "o"):
            constants[f"{name}{i}"] = weight(wide, wide, scale=0.6)
        constants[f"oq{i}"], constants[f"oo{i}"] = weight(wide, wide), weight(wide, wide)
        constants[f"ok{i}"], constants[f"ov{i}"] = weight(D, wide, scale=3.0), weight(D, wide, scale=3.0)
        constants[f"at{i}k"], constants[f"at{i}v"] = np.int64(2 * i), np.int64(2 * i + 1)
        for name, from_past in (("q", False), ("k", True), ("v", True)):
            nodes += [
                n("MatMul", f"x{i} {name}{i}", f"{name}{i}_flat"), n("Reshape", f"{name}{i}_flat split", f"{name}{i}_split"),
                n("Transpose", f"{name}{i}_split", f"{name}{i}_new", perm=[0, 2, 1, 3]),
            ]
            if from_past:
                nodes += [
                    n("Gather", f"past at{i}{name}", f"{name}{i}_past", axis=1),
                    n("Concat", f"{name}{i}_past {name}{i}_new", f"{name}{i}_all", axis=2),
                    n("Unsqueeze", f"{name}{i}_all first", f"{name}{i}_cache"),
                ]
                caches.append(f"{name}{i}_cache")
        nodes += [
            n("Transpose", f"k{i}_all", f"k{i}_turned", perm=[0, 1, 3, 2]), n("MatMul", f"q{i}_new k{i}_turned", f"a{i}_raw"),
            n("Div", f"a{i}_raw root", f"a{i}_scaled"), n("Add", f"a{i}_scaled reach", f"a{i}_masked"),
            n("Softmax", f"a{i}_masked", f"a{i}", axis=-1), n("MatMul", f"a{i} v{i}_all", f"h{i}_heads"),
            n("Transpose", f"h{i}_heads", f"h{i}_split", perm=[0, 2, 1, 3]), n("Reshape", f"h{i}_split join", f"h{i}_flat"),
            n("MatMul", f"h{i}_flat o{i}", f"h{i}"), n("Add", f"x{i} h{i}", f"y{i}_raw"), n("Tanh", f"y{i}_raw", f"y{i}"),
            # Of the regions, as much as each is meant.
            n("MatMul", f"y{i} oq{i}", f"r{i}_q"), n("MatMul", f"states ok{i}", f"r{i}_k"), n("MatMul", f"states ov{i}", f"r{i}_v"),
            n("Transpose", f"r{i}_k", f"r{i}_turned", perm=[0, 2, 1]), n("MatMul", f"r{i}_q r{i}_turned", f"r{i}_raw"),
            n("Div", f"r{i}_raw rooted", f"r{i}_scaled"), n("Add", f"r{i}_scaled meant", f"r{i}_biased"),
            n("Softmax", f"r{i}_biased", f"r{i}_a", axis=-1), n("MatMul", f"r{i}_a r{i}_v", f"r{i}_read"),
            n("MatMul", f"r{i}_read oo{i}", f"r{i}"), n("Add", f"y{i} r{i}", f"z{i}"), n("Tanh", f"z{i}", f"x{i + 1}"),
        ]
    nodes += [
        n("Mod", "here n13", "in13"), n("Gather", "by13 in13", "lean13"), n("Mod", "here n5", "in5"), n("Gather", "by5 in5", "lean5"),
        n("MatMul", f"x{LAYERS} say", "free"), n("Add", "free lean13", "leant"), n("Add", "leant lean5", "logits"),
    ]
    nodes += [n("Concat", " ".join(caches), "present", axis=1)]
    del constants["one"], constants["zero"], constants["step"]
    cache = [2 * LAYERS, HEADS]
    save(
        "write", nodes,
        [tensor("states", T.FLOAT, "batch", K, D), tensor("shown", T.FLOAT, "batch", K),
         tensor("tokens", T.INT64, "batch", "new"), tensor("past", T.FLOAT, "batch", *cache, "written", HEAD)],
        [tensor("logits", T.FLOAT, "batch", "new", len(ANSWERS)), tensor("present", T.FLOAT, "batch", *cache, "grown", HEAD)],
        constants,
    )


def manifest():
    lines = [
        'name = "tiny"', 'version = "2"', 'family = "nano"', 'methods = ["retrieve", "detector", "coords", "bins", "zoom"]',
        'licence = "Apache-2.0"', 'provenance = "made by make.py: worked out from the pixels, or random"', "", "[input]",
        f"width = {WIDTH}", f"height = {HEIGHT}", f"shapes = [{list(OTHER)}]", 'fit = "letterbox"', "", "[limits]", f"regions = {K}",
        f"query_tokens = {L}", "max_batch = 8", "", "[scores]", "objectness = 0.30", "match = 0.50", "nms_iou = 0.60",
        "detector = 0.70", "", "[tokens]", 'vocabulary = "vocab.json"',
    ]
    for role in ("vision", "text", "select", "detect", "write", "vocabulary", "answers"):
        path = {"vocabulary": "vocab.json", "answers": "answers.json"}.get(role, f"{role}.onnx")
        content = (HERE / path).read_bytes()
        lines += ["", "[[files]]", f'role = "{role}"', f'path = "{path}"', f"bytes = {len(content)}",
                  f'sha256 = "{hashlib.sha256(content).hexdigest()}"']
    (HERE / "model.toml").write_text("\n".join(lines) + "\n")


# --- what it answers ---


class Model:
    def __init__(self):
        self.sessions = {}

    def run(self, name, **inputs):
        if name not in self.sessions:
            self.sessions[name] = onnxruntime.InferenceSession(HERE / f"{name}.onnx", providers=["CPUExecutionProvider"])
        session = self.sessions[name]
        return dict(zip([output.name for output in session.get_outputs()], session.run(None, inputs)))


def answer(model, states, shown, form):
    """Boxes in fractions with the probability of each one's `<box>`, and the answer's tokens."""
    value = {name: i for i, name in enumerate(ANSWERS)}
    tokens, found, boxes, repeats = [value[f"<{form}>"]], [], 0, 0

    def best(legal):
        past = np.zeros((1, 2 * LAYERS, HEADS, 0, HEAD), np.float32)
        logits = model.run("write", states=states, shown=shown, tokens=np.array([tokens], np.int64), past=past)["logits"]
        some = logits[0, -1, legal].astype(np.float64)
        chances = np.exp(some - some.max())
        at = int(some.argmax())
        tokens.append(legal[at])
        return at, float(chances[at] / chances.sum())

    while boxes < MOST and repeats < 2:
        over, sure = best([value["<box>"], value["<end>"]])
        if over:
            break
        boxes += 1
        if form == "coords":
            digits = [best([value[digit] for digit in "0123456789"])[0] for _ in range(12)]
            box = [int("".join(map(str, digits[i:i + 3]))) / 1000 for i in range(0, 12, 3)]
        else:
            bins = [best([value[f"<bin_{bin}>"] for bin in range(256)])[0] for _ in range(4)]
            box = [(bin + 0.5) / 256 for bin in bins]
        if box[0] < box[2] and box[1] < box[3]:
            if box in [other for other, _ in found]:
                repeats += 1
            else:
                found.append((box, sure))
    return found, tokens


def cases(model):
    dice = np.random.default_rng(7)
    made = []
    for _ in range(12):
        low, side = dice.integers(0, 150, (CELLS, 2)), dice.integers(20, 100, (CELLS, 2))
        cells = np.concatenate([low, low + side, dice.integers(60, 256, (CELLS, 2))], 1)
        pixels = np.zeros((1, HEIGHT, WIDTH, 3), np.uint8)
        pixels[0, :, :2] = cells.reshape(CELLS, 2, 3)
        looked = model.run("vision", pixels=pixels)
        for words in ("the bright", "dark", "sure left"):
            ids = [VOCABULARY[word] for word in words.split()]
            ids = np.array([ids + [0] * (L - len(ids))], np.int64)
            said = model.run("text", ids=ids)["text"]
            part = {name: looked[name] for name in ("regions", "boxes", "objectness")}
            selected = model.run("select", **part, text=said, ids=ids)
            scored = model.run("detect", cells=looked["cells"], places=looked["places"], text=said, ids=ids)
            written = {form: answer(model, selected["states"], selected["match"], form) for form in ("coords", "bins")}
            made.append({
                "cells": cells.tolist(), "text": words, "match": selected["match"][0].tolist(),
                "none": float(selected["none"][0]),
                "detector": [[box.tolist(), float(score)] for box, score in zip(scored["boxes"][0], scored["scores"][0])],
                **{form: {"boxes": found, "tokens": len(tokens)} for form, (found, tokens) in written.items()},
            })
    return made


def variety(made):
    """How much the answers differ in length, and how often there is something to read."""
    counts = [len(case[form]["boxes"]) for case in made for form in ("coords", "bins")]
    lengths = {case[form]["tokens"] for case in made for form in ("coords", "bins")}
    return min(len(set(counts)), 6) + min(len(lengths), 12) / 2 + (2 if 0 in counts else 0)


if __name__ == "__main__":
    vision()
    text()
    select()
    detect()
    (HERE / "vocab.json").write_text(json.dumps(VOCABULARY, indent=1) + "\n")
    (HERE / "answers.json").write_text(json.dumps({name: i for i, name in enumerate(ANSWERS)}, indent=0) + "\n")
    best = (-1, 0)
    for seed in range(40):
        write(seed)
        best = max(best, (variety(cases(Model())), -seed))
    write(-best[1])
    made = cases(Model())
    print(best, [(len(case[form]["boxes"]), case[form]["tokens"]) for case in made for form in ("coords", "bins")])
    (HERE / "cases.json").write_text("[\n" + ",\n".join(json.dumps(case, separators=(",", ":")) for case in made) + "\n]\n")
    manifest()
