"""Checkpoint to the three ONNX graphs, the vocabulary and model.toml; checks that the graphs say what torch says."""

import hashlib
import warnings

import numpy as np
import onnxruntime
import torch

from . import spec, vocab
from .model import Nano, SelectGraph

VERSION = "0.1.0"
TOLERANCE = 2e-3
DEFAULT_SCORES = {"objectness": 0.30, "match": 0.50, "nms_iou": 0.60}


def new_model():
    return Nano(vocab.SIZE, len(vocab.CLASSES), len(vocab.COLOURS))


def examples(batch, generator):
    """Inputs of every graph. Two frames at least: a batch of one would be baked in as a constant."""
    pixels = torch.randint(0, 256, (batch, spec.HEIGHT, spec.WIDTH, 3), dtype=torch.uint8, generator=generator)
    ids = torch.randint(2, vocab.SIZE, (batch, spec.TOKENS), generator=generator)
    ids[:, 5:] = spec.PAD
    return pixels, ids


def graphs(model, batch, generator):
    """(name, module, inputs by name, output names) for the three files."""
    pixels, ids = examples(batch, generator)
    with torch.no_grad():
        boxes, objectness, regions = model.vision(pixels)
        text = model.text(ids)
    yield "vision", model.vision, {"pixels": pixels}, ["boxes", "objectness", "regions"]
    yield "text", model.text, {"ids": ids}, ["text"]
    pairs = {"regions": regions, "boxes": boxes, "objectness": objectness, "text": text, "ids": ids}
    yield "select", SelectGraph(model.select), pairs, ["match", "none"]


def export_graphs(model, folder):
    generator = torch.Generator().manual_seed(0)
    for name, module, inputs, outputs in graphs(model, 2, generator):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.onnx.export(
                module.eval(), tuple(inputs.values()), folder / f"{name}.onnx", opset_version=spec.OPSET,
                input_names=list(inputs), output_names=outputs, dynamo=False,
                dynamic_axes={key: {0: "batch"} for key in (*inputs, *outputs)},
            )


def check_graphs(model, folder):
    """Largest difference per graph between torch and ONNX Runtime, at batch sizes other than the traced one."""
    differences = {}
    for batch in (1, 3):
        generator = torch.Generator().manual_seed(batch)
        for name, module, inputs, _ in graphs(model, batch, generator):
            with torch.no_grad():
                want = module(*inputs.values())
            want = want if isinstance(want, tuple) else (want,)
            session = onnxruntime.InferenceSession(folder / f"{name}.onnx", providers=["CPUExecutionProvider"])
            got = session.run(None, {key: value.numpy() for key, value in inputs.items()})
            worst = max(float(np.abs(g - w.numpy()).max()) for g, w in zip(got, want))
            differences[name] = max(worst, differences.get(name, 0.0))
    return differences


def manifest(folder, provenance, scores):
    files = [(role, f"{role}.onnx") for role in ("vision", "text", "select")] + [("vocabulary", "vocab.json")]
    lines = [
        'name = "nano"', f'version = "{VERSION}"', 'family = "nano"', 'methods = ["retrieve"]',
        'licence = "Apache-2.0"', f'provenance = "{provenance}"', "",
        "[input]", f"width = {spec.WIDTH}", f"height = {spec.HEIGHT}", 'fit = "letterbox"        # centred, black', "",
        "[limits]", f"regions = {spec.REGIONS}", f"query_tokens = {spec.TOKENS}", "max_batch = 16", "",
        "[scores]",
        f"objectness = {scores['objectness']:.2f}        # regions below are not offered",
        f"match = {scores['match']:.2f}             # best F1 on the held-out data",
        f"nms_iou = {scores['nms_iou']:.2f}           # applied on the matched boxes by the runtime", "",
        "[tokens]", 'vocabulary = "vocab.json"',
    ]
    for role, path in files:
        data = (folder / path).read_bytes()
        lines += ["", "[[files]]", f'role = "{role}"', f'path = "{path}"', f"bytes = {len(data)}",
                  f'sha256 = "{hashlib.sha256(data).hexdigest()}"']
    (folder / "model.toml").write_text("\n".join(lines) + "\n")


def export(model, folder, provenance, scores=DEFAULT_SCORES):
    """Writes everything the daemon loads into `folder`; raises if a graph differs from torch."""
    folder.mkdir(parents=True, exist_ok=True)
    model = model.eval()
    export_graphs(model, folder)
    differences = check_graphs(model, folder)
    if max(differences.values()) > TOLERANCE:
        raise SystemExit(f"exported graphs differ from torch: {differences}")
    vocab.write(folder / "vocab.json")
    manifest(folder, provenance, scores)
    return differences
