"""What groundd's own tests need: tiny exported folders, pictures, and what transformers makes of them.

    DIR/pictures/NAME.png          what goes in
    DIR/FAMILY/model/              a folder as `python -m export FAMILY` writes it
    DIR/FAMILY/published/*.json    what lies beside the graphs of an export published for transformers.js
    DIR/FAMILY/cases.json          the cases: pictures, text, token ids, what is in tensors.safetensors for each
    DIR/FAMILY/tensors.safetensors `CASE.WHAT` for every case
"""

import json
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import PIL
import torch
import transformers
from PIL import Image
from safetensors.numpy import save_file
from tokenizers import Tokenizer

from . import convert, tiny
from .checkpoint import Source
from .errors import Refused
from .families import WRITERS
from .family import Case

# Width and height. Where a picture meets the tiny Qwen limits: 42x70 falls on ties, 20x12 is scaled up, 300x170 down.
PICTURES = {"wide": (92, 50), "ties": (42, 70), "tiny": (20, 12), "big": (300, 170)}
CASES = {"ties": ["ties"], "wide": ["wide"], "tiny": ["tiny"], "big": ["big"], "two": ["wide", "tiny"]}
# The case that is followed for many steps.
FOLLOWED, STEPS, FEW = "ties", 64, 2
# Of the followed case the best logit of every step is kept, and all logits of these many positions and steps.
LAST, FIRST = 3, 10
SEEDS = 12
# Two logits closer than this may change places from one machine to another.
MARGIN = 2e-3


@dataclass
class Wish:
    """What is asked of a model, and how much of the answers is kept."""

    pictures: dict  # by name
    cases: dict  # names of pictures, by the case's name
    followed: tuple  # cases that are followed for STEPS steps, with pixels and LAST positions of the prompt
    first: int  # steps of which all logits are kept
    margin: float


NARROW = {"heads": 1, "width": 8, "head": 8, "sections": (2, 1, 1), "text": {
    "hidden_size": 24, "intermediate_size": 32, "num_attention_heads": 2, "num_key_value_heads": 1}}
CHECKPOINTS = {
    "qwen2-vl": (tiny.qwen2_vl, {**NARROW}),
    "qwen2.5-vl": (tiny.qwen2_5_vl, {**NARROW, "depth": 2, "window": 56}),
    "qwen3-vl": (tiny.qwen3_vl, {**NARROW, "depth": 2, "table": 25}),
    "florence-2": (tiny.florence2, {"dims": (8, 16), "hidden": 16}),
    "paligemma": (tiny.paligemma, {"hidden": 16, "side": 42}),
}
ASKED = "Locate the person, output its bbox coordinates using JSON format."
SENT = {"florence-2": "Locate the phrases in the caption: a man next to the van", "paligemma": "detect person ; car\n"}


def picture(width, height, seed):
    """Edges, a slope and some noise: enough for a wrong filter, order or channel to show."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width]
    base = np.stack([255 * x / width, 255 * y / height, 128 + 100 * np.sin(x / 5) * np.cos(y / 3)], axis=2)
    base[height // 4:height // 2, width // 3:width // 2] = (230, 30, 40)
    base[:12, :20] += random.normal(0, 30, base[:12, :20].shape)
    return Image.fromarray(np.clip(base, 0, 255).astype(np.uint8))


def qwen_pixels(source, pictures):
    """transformers' pixels; the bytes they follow from are found by undoing its last, exact steps."""
    given, size = source.preprocessor, source.preprocessor.get("size") or {}
    processor = transformers.Qwen2VLImageProcessor(
        min_pixels=given.get("min_pixels") or size["shortest_edge"],
        max_pixels=given.get("max_pixels") or size["longest_edge"], patch_size=given["patch_size"],
        image_mean=given["image_mean"], image_std=given["image_std"])
    out = processor(pictures, return_tensors="np")
    patch, resized = given["patch_size"], []
    for (_, rows, columns), shown in zip(out["image_grid_thw"], pictures):
        resized.append(np.asarray(shown.resize((int(columns) * patch, int(rows) * patch), Image.Resampling.BICUBIC)))
    flat = np.concatenate([cut(one, given, patch) for one in resized])
    if np.abs(flat - out["pixel_values"]).max() > 1e-6:
        raise Refused("transformers' pixels are not the resized bytes, normed and cut into patches")
    return {"pixel_values": out["pixel_values"].astype(np.float32), "image_grid_thw": out["image_grid_thw"]}, resized


def normed(bytes_, given):
    value = bytes_.astype(np.float64) * given["rescale_factor"]
    return ((value - given["image_mean"]) / given["image_std"]).astype(np.float32)


def cut(bytes_, given, patch):
    """[height, width, 3] -> [patches, 3*2*patch*patch], merged blocks first, the one frame twice."""
    x = normed(bytes_, given)
    rows, columns = x.shape[0] // patch // 2, x.shape[1] // patch // 2
    x = x.reshape(rows, 2, patch, columns, 2, patch, 3).transpose(0, 3, 1, 4, 6, 2, 5)
    return np.repeat(x[:, :, :, :, :, None], 2, axis=5).reshape(rows * columns * 4, -1)


def square_pixels(source, pictures):
    given, side = source.preprocessor, source.preprocessor["size"]["height"]
    kind = getattr(transformers, given["image_processor_type"])
    out = kind(**{key: value for key, value in given.items() if key != "image_processor_type"})(
        pictures, return_tensors="np")["pixel_values"]
    resized = [np.asarray(one.resize((side, side), Image.Resampling.BICUBIC)) for one in pictures]
    if np.abs(np.stack([normed(one, given).transpose(2, 0, 1) for one in resized]) - out).max() > 1e-6:
        raise Refused("transformers' pixels are not the resized bytes, normed")
    return {"pixel_values": out.astype(np.float32)}, resized


def prompt(family, tokenizer, source, images):
    """Token ids as each family's processor lays them out, image tokens in their full number."""
    def ids(text):
        return tokenizer.encode(text, add_special_tokens=False).ids

    if family.name == "florence-2":
        text = SENT[family.name]
        return text, [family.image_token] * family.image_tokens + ids("<s>" + text + "</s>")
    if family.name == "paligemma":
        text, count = SENT[family.name], source.config["vision_config"]["num_image_tokens"]
        return text, [family.image_token] * count + ids("<bos>" + text)
    shown = "".join("<|vision_start|>" + "<|image_pad|>" * int(grid.prod() // 4) + "<|vision_end|>"
                    for grid in images["image_grid_thw"])
    system = "" if family.name == "qwen3-vl" else "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
    return ASKED, ids(f"{system}<|im_start|>user\n{shown}{ASKED}<|im_end|>\n<|im_start|>assistant\n")


def case_of(family, model, tokenizer, source, name, shown):
    qwen = hasattr(family, "grid_name")
    images, resized = (qwen_pixels if qwen else square_pixels)(source, shown)
    text, ids = prompt(family, tokenizer, source, images)
    ids = np.array([ids], np.int64)
    case = Case(name, ids, np.ones_like(ids), np.zeros((1, 1), np.int64), images)
    return (family.placed(model, case) if hasattr(family, "placed") else case), text, resized


def margins(logits):
    best = np.sort(logits, axis=-1)
    return best[..., -1] - best[..., -2]


@torch.no_grad()
def features(family, model, images):
    """What transformers' own vision encoder says."""
    pixels = torch.from_numpy(images["pixel_values"])
    if not hasattr(family, "grid_name"):
        return {"image_features": model.model.get_image_features(pixels).numpy()}
    out = model.model.visual(pixels, grid_thw=torch.from_numpy(images["image_grid_thw"]))
    if isinstance(out, tuple):
        return {"image_features": out[0].numpy(), "deepstack_features": torch.stack(out[1]).numpy()}
    return {"image_features": out.numpy()}


def answers(family, model, tokenizer, source, wish, runner=None):
    """Every case with what transformers says of it, or a `runner` of exported graphs if there is one; None where two logits
    are too close to tell."""
    listed, tensors = [], {}
    for name in [n for n in wish.cases if hasattr(family, "grid_name") or len(wish.cases[n]) == 1]:
        shown = [wish.pictures[one] for one in wish.cases[name]]
        case, text, resized = case_of(family, model, tokenizer, source, name, shown)
        followed = name in wish.followed
        steps = STEPS if followed else FEW
        expected = runner.greedy(case, steps) if runner else family.reference(model, case, greedy=steps)
        if min(margins(expected.prompt[:, -1]).min(), margins(expected.steps).min()) < wish.margin:
            return None
        seen = runner.seen_by_tower(case) if runner else features(family, model, case.images)
        kept = {"input_ids": case.ids, "tokens": expected.tokens, "step_best": expected.steps.max(axis=-1),
                "step_logits": expected.steps[:, :wish.first],
                "prompt_logits": expected.prompt[:, -LAST if followed else -1:],
                **seen, **{f"resized.{i}": one for i, one in enumerate(resized)}}
        if followed:
            kept["pixel_values"] = case.images["pixel_values"]
        if case.positions is not None:
            kept["position_ids"] = case.positions
        if case.delta is not None:
            kept["rope_delta"] = case.delta
        if "image_grid_thw" in case.images:
            kept["image_grid_thw"] = case.images["image_grid_thw"].astype(np.int64)
        tensors |= {f"{name}.{what}": np.ascontiguousarray(value) for what, value in kept.items()}
        listed.append({"name": name, "pictures": wish.cases[name], "text": text, "steps": expected.tokens.shape[1],
                       "margin": float(margins(expected.steps).min()),
                       "tensors": {what: [str(value.dtype), *value.shape] for what, value in kept.items()}})
    return listed, tensors


def publish(checkpoint, folder):
    """What a published export has beside its graphs and its vocabulary."""
    folder.mkdir()
    for name in ("config.json", "generation_config.json", "preprocessor_config.json"):
        shutil.copyfile(checkpoint / name, folder / name)


def read(family, checkpoint):
    source = Source(checkpoint)
    model = family.prepare(family.load(checkpoint), source)
    return source, model, Tokenizer.from_file(str(checkpoint / "tokenizer.json"))


def clear(family, make, options, wish, scratch, prepare=lambda checkpoint: None):
    """A checkpoint whose answers vary and leave no doubt: how many tokens they have, where it lies, and the answers."""
    best = None
    for seed in range(SEEDS):
        checkpoint = scratch / f"tiny-{family.name}-{seed}"
        checkpoint.mkdir()
        make(checkpoint, **{**options, "seed": seed})
        prepare(checkpoint)
        source, model, tokenizer = read(family, checkpoint)
        found = answers(family, model, tokenizer, source, wish)
        variety = 0 if found is None else len(set(found[1][f"{wish.followed[0]}.tokens"].ravel().tolist()))
        if found and (best is None or variety > best[0]):
            best = variety, checkpoint, found
        if best and best[0] > STEPS // 3:
            break
    if best is None:
        raise Refused(f"{family.name}: no seed below {SEEDS} gives answers that are {wish.margin} apart")
    return best


def tell(folder, family, listed, tensors):
    told = {"family": family.name, "pillow": int(PIL.__version__.split(".")[0]), "cases": listed}
    (folder / "cases.json").write_text(json.dumps(told, separators=(",", ":")) + "\n")
    save_file(tensors, folder / "tensors.safetensors")


def one(family, folder, say):
    """Writes a family's fixtures, with the first seed whose answers vary and are clear."""
    make, options = CHECKPOINTS[family.name]
    shown = {name: picture(*size, seed) for seed, (name, size) in enumerate(PICTURES.items())}
    wish = Wish(shown, CASES, (FOLLOWED,), FIRST, MARGIN)
    with tempfile.TemporaryDirectory() as scratch:
        variety, checkpoint, (listed, tensors) = clear(family, make, options, wish, Path(scratch))
        options = convert.Options(name=f"tiny-{family.name}", provenance="random weights: for tests only")
        report = convert.export(family, checkpoint, folder / "model", options, say=lambda _: None)
        publish(checkpoint, folder / "published")
    tell(folder, family, listed, tensors)
    say(f"{family.name}: {variety} different tokens in {STEPS} steps; {report.line()}")


def write(out, say=print):
    """Writes every family's fixtures into `out`, replacing those that are there."""
    out = Path(out)
    for folder in (out / "pictures", *(out / name for name in WRITERS)):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
    for seed, (name, size) in enumerate(PICTURES.items()):
        picture(*size, seed).save(out / "pictures" / f"{name}.png", optimize=True)
    for name, family in WRITERS.items():
        one(family, out / name, say)
    total = sum(path.stat().st_size for path in out.rglob("*") if path.is_file())
    say(f"{out}: {total / 1e6:.2f} MB")
