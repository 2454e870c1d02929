"""Dumps what the reference processors do into the small fixtures beside this file.

    pip install transformers==4.57.1 torch torchvision pillow==12.0.0 scipy
    python tests/data/codec/generate.py

Needs no weights: processors are built from their published settings, model methods are called unbound. Pictures are
made by `picture` below and by `picture` in src/ground/vision/reference.rs, so none is stored; large results are stored
as SHA-256 of their little-endian bytes.
"""

import hashlib
import json
import random
import re
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch
from PIL import Image
from transformers import CLIPImageProcessor, SiglipImageProcessor
from transformers.models.florence2.processing_florence2 import Florence2PostProcessor
from transformers.models.grounding_dino.image_processing_grounding_dino import (
    GroundingDinoImageProcessor,
    get_size_with_aspect_ratio,
)
from transformers.models.owlv2.image_processing_owlv2 import Owlv2ImageProcessor
from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import Qwen2_5_VLModel
from transformers.models.qwen2_vl.image_processing_qwen2_vl import Qwen2VLImageProcessor, smart_resize
from transformers.models.qwen2_vl.modeling_qwen2_vl import Qwen2VLModel
from transformers.models.qwen3_vl.modeling_qwen3_vl import Qwen3VLModel

HERE = Path(__file__).parent
IMAGENET = {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}


def picture(width, height, kind, seed):
    """kind 0: noise; 1: black and white noise; 2: a smooth slope."""
    n = width * height * 3
    if kind == 2:
        y, x, c = np.meshgrid(np.arange(height), np.arange(width), np.arange(3), indexing="ij")
        return ((x * 3 + y * 2 + c * 40 + seed) // 4 % 256).astype(np.uint8)
    out = np.empty(n, dtype=np.uint32)
    state = seed & 0xFFFFFFFF
    for i in range(n):
        state = (state * 1664525 + 1013904223) & 0xFFFFFFFF
        out[i] = state >> 24
    if kind == 1:
        out = np.where(out >= 128, 255, 0)
    return out.astype(np.uint8).reshape(height, width, 3)


def digest(array):
    return hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()


def save(name, value):
    text = json.dumps(value, separators=(",", ":"))
    text = re.sub(r"(\},)(\{)", r"\1\n\2", text)
    (HERE / name).write_text(text + "\n")
    print(name, len(text))


def resample():
    rng = random.Random(1)
    sizes = [(1, 1), (2, 3), (7, 5), (64, 48), (33, 100), (200, 70), (129, 257), (320, 180), (360, 480)]
    targets = [(1, 1), (3, 2), (28, 28), (56, 84), (64, 100), (224, 224), (211, 137), (300, 64), (17, 200)]
    out = []
    for i in range(60):
        (w, h), (tw, th) = rng.choice(sizes), rng.choice(targets)
        kind, cubic = i % 3, i % 4 != 0
        image = Image.fromarray(picture(w, h, kind, i))
        resized = image.resize((tw, th), Image.BICUBIC if cubic else Image.BILINEAR)
        out.append({"from": [w, h], "to": [tw, th], "kind": kind, "seed": i, "cubic": cubic, "sha256": digest(np.asarray(resized))})
    save("resample.json", out)


def sizes():
    rng = random.Random(2)
    smart, dino = [], []
    pairs = [(70, 70), (14, 14), (42, 98), (28, 5600), (1, 200), (1, 201), (480, 640), (1080, 1920), (2160, 3840), (56, 56), (126, 210)]
    pairs += [(rng.randint(1, 4000), rng.randint(1, 4000)) for _ in range(150)]
    pairs += [(14 * rng.randint(1, 60), 14 * rng.randint(1, 60)) for _ in range(60)]
    for h, w in pairs:
        for factor, low, high in [(28, 3136, 12845056), (28, 3136, 1003520), (28, 200704, 401408), (32, 65536, 16777216)]:
            try:
                got = list(smart_resize(h, w, factor, low, high))
            except ValueError:
                got = None
            smart.append([h, w, factor, low, high, got])
        dino.append([h, w, *get_size_with_aspect_ratio((h, w), 800, 1333)])
    save("sizes.json", {"smart_resize": smart, "grounding_dino": dino})


def tensors():
    out = []
    for i, (w, h) in enumerate([(70, 45), (100, 33), (61, 150), (320, 180)]):
        image = Image.fromarray(picture(w, h, i % 3, 100 + i))
        base = {"size": [w, h], "kind": i % 3, "seed": 100 + i}
        for name, processor in {
            "qwen2": Qwen2VLImageProcessor(min_pixels=3136, max_pixels=12845056),
            "qwen3": Qwen2VLImageProcessor(
                patch_size=16, min_pixels=65536, max_pixels=16777216, image_mean=[0.5] * 3, image_std=[0.5] * 3
            ),
        }.items():
            got = processor(images=image, return_tensors="np")
            values = got["pixel_values"].astype(np.float32)
            out.append(base | {"model": name, "shape": list(values.shape), "grid": got["image_grid_thw"][0].tolist(), "sha256": digest(values), "head": values[0, :8].tolist()})
        fixed = {
            "florence": CLIPImageProcessor(size={"height": 768, "width": 768}, do_center_crop=False, resample=3, **IMAGENET),
            "paligemma": SiglipImageProcessor(size={"height": 224, "width": 224}, resample=3),
            "dino": GroundingDinoImageProcessor(size={"shortest_edge": 80, "longest_edge": 133}),
        }
        for name, processor in fixed.items():
            got = processor(images=image, return_tensors="np")
            values = got["pixel_values"].astype(np.float32)
            out.append(base | {"model": name, "shape": list(values.shape), "sha256": digest(values), "head": values[0, 0, 0, :8].tolist()})
        processor = GroundingDinoImageProcessor(size={"shortest_edge": 80, "longest_edge": 133}, pad_size={"height": 140, "width": 140})
        got = processor(images=image, return_tensors="np")
        values = got["pixel_values"].astype(np.float32)
        mask = got["pixel_mask"].astype(np.int64)
        out.append(base | {"model": "dino_canvas", "shape": list(values.shape), "sha256": digest(values), "mask_sha256": digest(mask), "head": values[0, 0, 0, :8].tolist()})
        if i < 3:
            for side in (16, 96):
                got = Owlv2ImageProcessor(size={"height": side, "width": side})(images=image, return_tensors="np")
                values = got["pixel_values"].astype(np.float64)
                step = 1 if side == 16 else 37
                flat = [round(float(v), 6) for v in values.ravel()[::step]]
                out.append(base | {"model": "owl", "shape": list(values.shape), "step": step, "values": flat})
    save("tensors.json", out)


def mrope():
    rng = random.Random(3)
    out = []
    config = SimpleNamespace(
        vision_config=SimpleNamespace(spatial_merge_size=2, tokens_per_second=2),
        image_token_id=7, video_token_id=8, vision_start_token_id=5,
    )
    for grids in [[], [(10, 12)], [(4, 4), (2, 8)], [(8, 2)], [(6, 6), (6, 6), (12, 4)]]:
        tokens = [1] * rng.randint(1, 5)
        for h, w in grids:
            tokens += [5] + [7] * (h * w // 4) + [6] + [1] * rng.randint(0, 4)
        thw = torch.tensor([[1, h, w] for h, w in grids]) if grids else None
        results = []
        for model in (Qwen2VLModel, Qwen2_5_VLModel, Qwen3VLModel):
            ids, delta = model.get_rope_index(SimpleNamespace(config=config), torch.tensor([tokens]), thw)
            results.append((ids[:, 0].tolist(), int(delta[0, 0])))
        assert results[0] == results[1] == results[2]
        out.append({"tokens": tokens, "grids": grids, "ids": sum(results[0][0], []), "delta": results[0][1]})
    save("mrope.json", out)


def sound(box):
    """Corners in order; None if nothing is left. The daemon does this to every box."""
    x1, y1, x2, y2 = box
    x1, x2, y1, y2 = min(x1, x2), max(x1, x2), min(y1, y2), max(y1, y2)
    return [x1, y1, x2, y2] if x1 < x2 and y1 < y2 else None


def florence():
    banned = json.loads((HERE / "florence_banned.json").read_text())
    config = {"phrase_grounding": {"banned_grounding_tokens": banned}}
    post = Florence2PostProcessor(config, SimpleNamespace(all_special_tokens=["<s>", "</s>", "<pad>"]))
    # Texts of other tasks are drawn and left alone, so that those of this one stay as they are.
    kinds = ["od", "proposal", "phrase", "open", "segment"]
    rng = random.Random(4)
    loc = lambda: f"<loc_{rng.randint(0, 999)}>"
    words = ["cat", " a red car ", "it", "the image", "café au lait", "two\nlines", "  ", "A Tree, or so", "images"]
    texts = {kind: ["", "</s><s>nothing</s>"] for kind in kinds}
    for kind in kinds:
        for _ in range(12):
            text = "</s><s>"
            for _ in range(rng.randint(1, 4)):
                label = "" if kind in ("proposal", "segment") else rng.choice(words)
                count = rng.choice([4, 4, 8, 12, 5, 7])
                run = "".join(loc() for _ in range(count))
                if kind == "segment":
                    run = "".join(loc() for _ in range(rng.choice([6, 7, 10]))) + rng.choice(["", "<sep>" + run])
                    text += run
                    break
                if rng.random() < 0.1:
                    run = run.replace("><", "><pad><", 1)
                text += label + run
            texts[kind].append(text + "</s>")
    for _ in range(4):
        texts["open"].append("".join(f"cat {i}<poly>" + "".join(loc() for _ in range(8)) + "<sep>" + "".join(loc() for _ in range(6)) + "</poly>" for i in range(2)))
    out = []
    for text in texts["phrase"]:
        got = post(text=text, image_size=(1000, 1000), parse_tasks="phrase_grounding")["phrase_grounding"]
        boxes = [[inst["cat_name"], *sound(box)] for inst in got for box in inst["bbox"] if sound(box)]
        out.append({"text": text, "boxes": boxes})
    quantised = []
    for _ in range(60):
        w, h = rng.randint(1, 4000), rng.randint(1, 4000)
        box = [rng.uniform(0, w), rng.uniform(0, h), rng.uniform(0, w), rng.uniform(0, h)]
        bins = post.quantize(torch.tensor([box], dtype=torch.float64), (w, h))[0].tolist()
        quantised.append([w, h, box, bins])
    save("florence.json", {"parsed": out, "quantised": quantised})


def paligemma():
    # The pattern of the authors' demo (big_vision, paligemma).
    pattern = re.compile(r"(.*?)" + r"<loc(\d{4})>" * 4 + r"\s*" + "(?:%s)?" % (r"<seg(\d{3})>" * 16) + r"\s*([^;<>]+)? ?(?:; )?")
    rng = random.Random(5)
    out = []
    for _ in range(30):
        text = rng.choice(["", "detect ", "sure "])
        for _ in range(rng.randint(0, 4)):
            text += "".join(f"<loc{rng.randint(0, 1023):04d}>" for _ in range(4))
            if rng.random() < 0.3:
                text += "".join(f"<seg{rng.randint(0, 127):03d}>" for _ in range(16))
            text += rng.choice([" cat ; ", " big dog ; ", "; ", " ", "car"])
        whole, boxes = text, []
        while text:
            m = pattern.match(text)
            if not m:
                break
            groups = m.groups()
            y1, x1, y2, x2 = (int(v) for v in groups[1:5])
            box = sound([x1, y1, x2, y2])
            if box:
                boxes.append([(groups[-1] or "").strip(), *box])
            text = text[m.end():]
        out.append({"text": whole, "boxes": boxes})
    save("paligemma.json", out)


for dump in (resample, sizes, tensors, mrope, florence, paligemma):
    dump()
