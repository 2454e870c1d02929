"""Checkpoint to the three ONNX graphs, the vocabulary and model.toml; checks that the graphs say what torch says."""

import hashlib
import json
import tempfile
import warnings
from pathlib import Path

import numpy as np
import onnxruntime
import torch

from . import spec, vocab
from .language import WRITE_LAYERS, DetectGraph, SelectGraph
from .model import Nano

VERSION = "0.8.0"
GRAPHS = ("vision", "text", "select", "detect", "write")
METHODS = ["retrieve", "detector", "coords", "bins", "zoom"]
TOLERANCE = 2e-3
SURE = 0.05  # slots that score less are left over: which cell fills them is chance
DEFAULT_SCORES = {"objectness": 0.30, "match": 0.50, "nms_iou": 0.60, "soft_nms": 0.30}


def new_model():
    return Nano(vocab.SIZE, len(vocab.CLASSES), len(vocab.COLOURS))


def examples(batch, generator, shape=(spec.WIDTH, spec.HEIGHT)):
    """Inputs of every graph. Two frames at least: a batch of one would be baked in as a constant."""
    pixels = torch.randint(0, 256, (batch, *shape[::-1], 3), dtype=torch.uint8, generator=generator)
    ids = torch.randint(2, vocab.SIZE, (batch, spec.TOKENS), generator=generator)
    ids[:, 5:] = spec.PAD
    return pixels, ids


def graphs(model, batch, generator, written=3, shape=(spec.WIDTH, spec.HEIGHT)):
    """(name, module, inputs by name, output names, axes that vary beside the first) for every file."""
    pixels, ids = examples(batch, generator, shape)
    with torch.no_grad():
        boxes, objectness, regions, cells, places = model.vision(pixels)
        text = model.text(ids)
        match, _, states = SelectGraph(model.select)(regions, boxes, objectness, text, ids)
    looked = {"cells": {2: "cells"}, "places": {2: "cells"}}
    outputs = ["boxes", "objectness", "regions", "cells", "places"]
    yield "vision", model.vision, {"pixels": pixels}, outputs, {"pixels": {1: "height", 2: "width"}, **looked}
    yield "text", model.text, {"ids": ids}, ["text"], {}
    pairs = {"regions": regions, "boxes": boxes, "objectness": objectness, "text": text, "ids": ids}
    yield "select", SelectGraph(model.select), pairs, ["match", "none", "states"], {}
    read = {"cells": cells, "places": places, "text": text, "ids": ids}
    yield "detect", DetectGraph(model.detect), read, ["boxes", "scores"], looked
    tokens = torch.randint(0, len(spec.ANSWERS), (batch, 2), generator=generator)
    past = torch.randn(batch, 2 * WRITE_LAYERS, spec.HEADS, written, spec.DIM // spec.HEADS, generator=generator)
    said = {"states": states, "shown": match, "tokens": tokens, "past": past}
    yield "write", model.write, said, ["logits", "present"], {"tokens": {1: "new"}, "past": {3: "written"}, "logits": {1: "new"}, "present": {3: "grown"}}


def export_graphs(model, folder):
    generator = torch.Generator().manual_seed(0)
    for name, module, inputs, outputs, axes in graphs(model, 2, generator):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.onnx.export(
                module.eval(), tuple(inputs.values()), folder / f"{name}.onnx", opset_version=spec.OPSET,
                input_names=list(inputs), output_names=outputs, dynamo=False,
                dynamic_axes={key: {0: "batch", **axes.get(key, {})} for key in (*inputs, *outputs)},
            )


def worst(outputs, got, want):
    """Largest difference. Slots of chosen boxes are compared by box, not by place: near-equal scores may change places."""
    got, want = dict(zip(outputs, got)), dict(zip(outputs, want))
    score = "objectness" if "objectness" in want else "scores"
    if score not in want:
        return max(float(np.abs(got[key] - want[key]).max()) for key in want)
    slots = [key for key in ("boxes", "regions", score) if key in want]
    plain = [float(np.abs(got[key] - want[key]).max()) for key in want if key not in slots]
    lost = total = 0
    for row in range(len(want[score])):
        for slot in np.flatnonzero(want[score][row] > SURE):
            apart = np.abs(got["boxes"][row] - want["boxes"][row, slot]).max(-1) + np.abs(got[score][row] - want[score][row, slot])
            twin, total = apart.argmin(), total + 1
            if apart[twin] > TOLERANCE:
                lost += 1  # another candidate won by a hair
            else:
                plain += [float(np.abs(got[key][row, twin] - want[key][row, slot]).max()) for key in slots]
    if lost > 0.1 * total:
        return float("inf")
    return max(plain, default=0.0)


def check_graphs(model, folder):
    """Largest difference per graph between torch and ONNX Runtime, at batch sizes and shapes other than the traced ones."""
    differences = {}
    tried = [(1, 0, (spec.WIDTH, spec.HEIGHT)), (3, 7, (spec.WIDTH, spec.HEIGHT)), *((1, 2, shape) for shape in spec.SHAPES)]
    for seed, (batch, written, shape) in enumerate(tried):
        generator = torch.Generator().manual_seed(seed)
        for name, module, inputs, outputs, _ in graphs(model, batch, generator, written, shape):
            with torch.no_grad():
                want = module(*inputs.values())
            want = want if isinstance(want, tuple) else (want,)
            session = onnxruntime.InferenceSession(folder / f"{name}.onnx", providers=["CPUExecutionProvider"])
            got = session.run(None, {key: value.numpy() for key, value in inputs.items()})
            difference = worst(outputs, got, [w.numpy() for w in want])
            differences[name] = max(difference, differences.get(name, 0.0))
    return differences


def manifest(folder, provenance, scores):
    files = [(role, f"{role}.onnx") for role in GRAPHS] + [("vocabulary", "vocab.json"), ("answers", "answers.json")]
    lines = [
        f'name = "{folder.name}"', f'version = "{VERSION}"', 'family = "nano"', f"methods = {json.dumps(METHODS)}",
        'licence = "Apache-2.0"', f'provenance = "{provenance}"', "",
        "[input]", f"width = {spec.WIDTH}", f"height = {spec.HEIGHT}",
        f"shapes = {json.dumps(spec.SHAPES)}   # for pictures that are larger there", 'fit = "letterbox"        # centred, black', "",
        "[limits]", f"regions = {spec.REGIONS}", f"query_tokens = {spec.TOKENS}", "max_batch = 16", "",
        "[scores]",
        f"objectness = {scores['objectness']:.2f}        # regions below are not offered",
        f"match = {scores['match']:.2f}             # the lowest at which 0.9 of absent things are declared absent, held out",
        f"nms_iou = {scores['nms_iou']:.2f}           # of two matches that overlap more the better one stays",
        f"soft_nms = {scores['soft_nms']:.2f}          # of two that overlap less the weaker one's score falls", "",
        "[tokens]", 'vocabulary = "vocab.json"', f"one = {json.dumps(vocab.ONE)}",
    ]
    for role, path in files:
        data = (folder / path).read_bytes()
        lines += ["", "[[files]]", f'role = "{role}"', f'path = "{path}"', f"bytes = {len(data)}",
                  f'sha256 = "{hashlib.sha256(data).hexdigest()}"']
    (folder / "model.toml").write_text("\n".join(lines) + "\n")


def export(model, folder, provenance, scores=DEFAULT_SCORES):
    """Writes everything the daemon loads into `folder`; ends, and leaves it as it was, if a graph differs from torch."""
    folder.mkdir(parents=True, exist_ok=True)
    model = model.eval()
    with tempfile.TemporaryDirectory(dir=folder.parent) as fresh:
        fresh = Path(fresh)
        export_graphs(model, fresh)
        differences = check_graphs(model, fresh)
        if max(differences.values()) > TOLERANCE:
            raise SystemExit(f"exported graphs differ from torch: {differences}")
        vocab.write(fresh / "vocab.json")
        for file in fresh.iterdir():
            file.replace(folder / file.name)
    manifest(folder, provenance, scores)
    return differences
