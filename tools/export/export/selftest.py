"""Small random checkpoints of every kind through the whole exporter: the base of `make parity`."""

import importlib.util
import json
import shutil
import tempfile
import tomllib
from pathlib import Path

import numpy as np
from safetensors.torch import load_file, save_file

from . import convert, heads, manifest, onnx_files, openseed_reference, tiny, tiny_fo1, tiny_heads
from .checkpoint import Source
from .errors import Refused
from .families import FAMILIES
from .vlm_fo1 import ORDERS, SQUASHED, VlxSeek

MANY = {"num_hidden_layers": 3, "num_attention_heads": 6, "num_key_value_heads": 1}
FULL = {"num_hidden_layers": 1, "num_attention_heads": 4, "num_key_value_heads": 4}
KINDS = {
    "qwen2-vl": (tiny.qwen2_vl, {
        "plain": {}, "tied, one key head, 3 layers": {"tied": True, "text": MANY, "seed": 1},
        "as published": {"flat": True, "tied": True, "seed": 3},
        "a key head a head, 1 layer": {"text": FULL, "depth": 1, "heads": 4, "seed": 2}}),
    "qwen2.5-vl": (tiny.qwen2_5_vl, {
        "plain": {},
        "tied, windows of 56": {"tied": True, "text": MANY, "window": 56, "depth": 4, "whole": (0, 3), "seed": 1},
        "windows only": {"text": FULL, "whole": (), "heads": 1, "seed": 2},
        "as published": {"flat": True, "seed": 4},
        "no windows": {"whole": (0, 1, 2), "seed": 3}}),
    "qwen3-vl": (tiny.qwen3_vl, {
        "plain": {}, "tied, table of 3": {"tied": True, "text": MANY, "table": 9, "seed": 1},
        "late features, as many as layers": {
            "text": {"num_hidden_layers": 3}, "depth": 4, "deep": (3, 1, 2), "seed": 2}}),
    "florence-2": (tiny.florence2, {
        "plain": {}, "three stages, whole windows": {
            "dims": (8, 16, 32), "depths": (1, 2, 1), "window": 4, "side": 64, "layers": 3, "heads": 2, "seed": 1}}),
    "paligemma": (tiny.paligemma, {
        "gemma 2": {}, "gemma 1": {"version": 1, "seed": 1},
        "gemma 2, more key heads": {"layers": 3, "kv_heads": 2, "side": 84, "seed": 2}}),
    "vlm-fo1": (tiny_fo1.checkpoint, {
        "plain": {}, "squashed, no pyramid, norms, a projector": {
            "dynamic": False, "fpn": False, "whole": (0, 2), "norms": True, "projector": "mlp2x_gelu", "roi": 5, "seed": 1},
        "in three files, windows of 56, norms": {
            "window": 56, "depth": 4, "whole": (0, 3), "norms": True, "parts": 3, "roi": 14, "seed": 2}}),
    "clip": (tiny_heads.clip, {"plain": {}, "as first published, another side": {"legacy": True, "side": 48, "seed": 1}}),
    "siglip": (tiny_heads.siglip, {"plain": {}, "longer texts": {"length": 48, "side": 56, "seed": 1}}),
    "grounding-dino": (tiny_heads.grounding_dino, {
        "plain": {}, "windows that do not divide": {"shortest": 56, "longest": 120, "old": True, "seed": 1},
        "more layers": {"layers": (2, 3), "depths": (1, 1, 2, 1), "shortest": 96, "longest": 96, "seed": 2}}),
    "owlv2": (tiny_heads.owlv2, {"plain": {}, "another side": {"side": 72, "old": True, "seed": 1}}),
    "rt-detr": (tiny_heads.rt_detr, {"plain": {}, "another side": {"side": 96, "seed": 1}}),
    "llava-grounding": (tiny_heads.llava_grounding, {
        "plain": {}, "another side": {"side": 96, "eye": 48, "seed": 1},
        "the published head": {"side": 128, "published": True, "seed": 2}}),
    "deformable-detr": (tiny_heads.deformable_detr, {
        "plain": {}, "two stages, other sides": {"two_stage": True, "shortest": 72, "longest": 120, "old": True, "seed": 1},
        "one class": {"classes": ["object"], "hidden": 64, "layers": (2, 3), "seed": 2}}),
    "d-fine": (tiny_heads.d_fine, {"plain": {}, "another side": {"side": 96, "seed": 1}}),
}
FORMS = {"half": {"dtype": "fp16"}, "int8": {"weights": "int8"}, "int4": {"weights": "int4"},
         "half, int4": {"dtype": "fp16", "weights": "int4"}}


def vouched(folder):
    """The manifest lists every file that lies there, as it lies there."""
    listed = tomllib.loads((folder / "model.toml").read_text())["files"]
    found = {path.name for path in folder.iterdir()} - {"model.toml"}
    if found != {entry["path"] for entry in listed}:
        raise Refused(f"{folder}: model.toml does not list what lies there")
    for entry in listed:
        path = folder / entry["path"]
        if path.stat().st_size != entry["bytes"] or manifest.digest(path) != entry["sha256"]:
            raise Refused(f"{path}: is not what model.toml says")


def must_refuse(what, family, checkpoint, out, saying, **how):
    """A bad export must say why, and leave nothing."""
    try:
        convert.export(family, checkpoint, out, convert.Options(**how), say=lambda _: None)
    except Refused as e:
        if saying not in str(e):
            raise Refused(f"{what}: was refused for another reason: {e}") from e
    else:
        raise Refused(f"{what}: was exported")
    left = [path.name for path in out.parent.iterdir() if out.name in path.name]
    if left:
        raise Refused(f"{what}: left {left} behind")


def refusals(family, checkpoint, scratch, say):
    """What the exporter must not let through."""
    out = scratch / "refused"
    other = next(f for name, f in FAMILIES.items() if name != family.name and f.reads == family.reads)
    must_refuse("a checkpoint of another family", other, checkpoint, out, "as in")

    lacking = scratch / "lacking"
    shutil.copytree(checkpoint, lacking)
    weights = load_file(lacking / "model.safetensors")
    lost = next(name for name in sorted(weights) if name.endswith(("proj.weight", "layers.0.weight")))
    save_file({name: w.clone() for name, w in weights.items() if name != lost}, lacking / "model.safetensors",
              metadata={"format": "pt"})
    must_refuse("a checkpoint that lacks a tensor", family, lacking, out, "missing")
    if not family.sized:
        must_refuse("a picture's size where there is no choice", family, checkpoint, out, "--image", image=(64, 48))
    passed, choice = (2, "") if family.sized else (3, ", a picture's size")

    if not family.writes:
        say(f"{family.name}: refuses another family, a missing tensor{choice}")
        return passed
    honest = family.runner

    def miswired(folder):
        """A runner that feeds one layer's keys as values and its values as keys: shapes agree, numbers do not."""
        runner = honest(folder)
        key, value, plain = *runner.cache_ports[:2], runner.sessions.run

        def swap(role, feeds):
            return plain(role, {**feeds, key: feeds[value], value: feeds[key]} if key in feeds else feeds)

        runner.sessions.run = swap
        return runner

    family.runner = miswired
    try:
        must_refuse("a graph whose cache is miswired", family, checkpoint, out, "does not come back")
    finally:
        del family.runner
    large(family, checkpoint, out)
    say(f"{family.name}: refuses another family, a missing tensor{choice}, a miswired cache, a tensor that is too large")
    return passed + 2


def large(family, checkpoint, out):
    """A tensor that no graph can hold is refused before any work, where halves would not do instead."""
    def work(_):
        raise Refused("the work has begun")

    most = max(weight.numel() for weight in family.load(checkpoint).parameters())
    limit, onnx_files.TENSOR_BYTES, family.cases = onnx_files.TENSOR_BYTES, 4 * most, work
    try:
        must_refuse("a tensor that is too large", family, checkpoint, out, "use --dtype fp16")
        must_refuse("a tensor that fits in halves", family, checkpoint, out, "the work has begun", dtype="fp16")
        onnx_files.TENSOR_BYTES = 2 * most
        must_refuse("a tensor too large even in halves", family, checkpoint, out, "no --dtype", dtype="fp16")
    finally:
        onnx_files.TENSOR_BYTES = limit
        del family.cases


def spoilt(family, name, spoil):
    """Has a method of the family give what is spoilt, until `delattr`."""
    honest = getattr(family, name)

    def spoiling(*given, **more):
        found = honest(*given, **more)
        spoil(found)
        return found

    setattr(family, name, spoiling)


def parts(family, checkpoint, scratch, say):
    """What stands beside the language model is held against torch whatever the language model's form."""
    def states(_):
        # As if each place gave what its neighbour has.
        family.states = np.roll(family.states, 1, axis=1)

    def boxes(_):
        family.found = [(seen, (logits, told + 0.01)) for seen, (logits, told) in family.found]

    def regions(told):
        if told.regions is not None:
            told.regions = told.regions * 1.1

    wrong = {"llava-grounding": [("states", "cases", states, "`hidden_states` differ"),
                                 ("boxes", "cases", boxes, "the head differs")],
             "vlm-fo1": [("regions", "reference", regions, "the region encoder differs")]}[family.name]
    forms = {"": {}, **FORMS}
    for what, method, spoil, saying in wrong:
        spoilt(family, method, spoil)
        try:
            for form, how in forms.items():
                must_refuse(f"wrong {what}{form and f', {form}'}", family, checkpoint, scratch / "refused", saying, **how)
        finally:
            delattr(family, method)
    say(f"{family.name}: refuses wrong {' and wrong '.join(what for what, *_ in wrong)} in every form")
    return len(wrong) * len(forms)


def changed(checkpoint, folder, **keys):
    """A copy of a checkpoint, with other values of some keys of its configuration."""
    shutil.copytree(checkpoint, folder)
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | keys))
    return folder


def ways(family, checkpoint, scratch, say):
    """The second tower's picture and the order of regions are the original's, by keys whose other values are refused."""
    def told(kind, name, **keys):
        one, folder = kind(), changed(checkpoint, scratch / name, **keys)
        one.prepare(one.load(folder), Source(folder))
        return one

    size = told(type(family), "squash", aux_image_aspect_ratio="squash", aux_image_size=1024).size
    if size != (SQUASHED, SQUASHED):
        raise Refused(f"a squashed picture is {size}")
    if told(VlxSeek, "unsaid").shown_regions["order"] != "none":
        raise Refused("an order that nobody named")
    for mode, order in ORDERS.items():
        if told(VlxSeek, mode, mm_bbox_order_mode=mode).shown_regions["order"] != order:
            raise Refused(f"{mode}: is not {order}")
    padded = changed(checkpoint, scratch / "pad", aux_image_aspect_ratio="pad")
    must_refuse("a picture that is neither squashed nor left", family, padded, scratch / "refused", "`aux_image_aspect_ratio` is 'pad'")
    say(f"{family.name}: squashes pictures as published, refuses other ways; {len(ORDERS)} orders of regions")
    return 2 + len(ORDERS) + 1


def elsewhere(family, checkpoint, scratch, say):
    """Whoever lacks the picture's settings is told in whose repository they are."""
    lacking = scratch / "blind"
    shutil.copytree(checkpoint, lacking)
    (lacking / "preprocessor_config.json").unlink()
    must_refuse("a checkpoint without its tower's settings", family, lacking, scratch / "refused",
                "take it from the repository `openai/clip-vit-large-patch14`, which config.json names as `mm_vision_tower`")
    say(f"{family.name}: says where the picture's settings lie")
    return 1


def backbones(family, checkpoint, scratch, say):
    """As published, with a backbone of timm's: that is told where there is no timm, and fetched from nowhere."""
    published = changed(checkpoint, scratch / "timm", backbone="resnet18", backbone_config=None, use_timm_backbone=True,
                        use_pretrained_backbone=True)
    if family.loading(published)["config"].use_pretrained_backbone:
        raise Refused("a backbone would be fetched")
    missing = importlib.util.find_spec("timm") is None
    # With timm the backbone is another than the checkpoint's.
    must_refuse("a checkpoint with a backbone of timm's", family, published, scratch / "refused",
                "pip install timm" if missing else "size mismatch")
    say(f"{family.name}: fetches no backbone, and says what is wrong with one")
    return 2


def sizes(family, checkpoint, scratch, say):
    """Where both sides are wanted, a plain number is neither."""
    plain = scratch / "plain"
    shutil.copytree(checkpoint, plain)
    path = plain / "preprocessor_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"size": 64}))
    must_refuse("a size that is a plain number", family, plain, scratch / "refused", f"{path}: size should")
    say(f"{family.name}: refuses a size that is a plain number")
    return 1


def spares(family, say):
    """Of many rows as many may be wrong as the family allows, in any order where order means nothing, and not one more; none of few."""
    random, rows = np.random.default_rng(5), 400
    want = {"pred_boxes": random.random((1, rows, 4)), "logits": random.standard_normal((1, rows, 3))}
    # Some have the same box and the same best logit, and are not the same.
    want["pred_boxes"][:, :80] = want["pred_boxes"][:, :1]
    want["logits"][:, :80, 0] = 4.0
    order = np.arange(rows) if family.ordered else random.permutation(rows)
    allowed = int(family.spared * rows)

    def error(wrong, kept=rows):
        cut = {name: value[:, :kept] for name, value in want.items()}
        got = {name: value[:, order[order < kept]].copy() for name, value in cut.items()}
        got["logits"][:, :wrong] += 3.0
        report = heads.Measured()
        wanted, given = heads.settled(cut, got, family.spared, family.ordered)
        for name in wanted:
            heads.compare(given[name], wanted[name], name, report)
        return report.error

    few = heads.MANY - 1
    if error(allowed) > 0 or error(allowed + 1) < family.allowed or (family.ordered and error(1, few) < family.allowed):
        raise Refused(f"{family.name}: other than {allowed} of {rows} rows may differ")
    say(f"{family.name}: {allowed} of {rows} rows may differ, not {allowed + 1}")
    return 1


# What is tried of one family besides.
MORE = {"vlm-fo1": ways, "llava-grounding": elsewhere, "deformable-detr": backbones, "rt-detr": sizes, "d-fine": sizes}


def run(names, say=print):
    """Every kind of every family named; raises Refused at the first that fails."""
    passed = 0
    for name in names:
        family, (make, kinds) = FAMILIES[name], KINDS[name]
        with tempfile.TemporaryDirectory() as folder:
            scratch = Path(folder)
            for number, (kind, options) in enumerate(kinds.items()):
                checkpoint = scratch / f"checkpoint-{number}"
                checkpoint.mkdir()
                make(checkpoint, **options)
                forms = {"": {}, **FORMS} if number == 0 and family.writes else {"": {}}
                for form, how in forms.items():
                    out = scratch / f"{number}-{form.replace(', ', '-') or 'full'}"
                    report = convert.export(family, checkpoint, out, convert.Options(**how), say=lambda _: None)
                    vouched(out)
                    if not form and report.error > family.exact * report.scale:
                        raise Refused(f"{name}, {kind}: {report.line()}; small models should be within {family.exact:g}")
                    passed += 1
                    say(f"{name}, {kind}{form and f', {form}'}: {report.line()}")
            passed += refusals(family, scratch / "checkpoint-0", scratch, say)
            if name in ("llava-grounding", "vlm-fo1"):
                passed += parts(family, scratch / "checkpoint-0", scratch, say)
            if name in MORE:
                passed += MORE[name](family, scratch / "checkpoint-0", scratch, say)
            if getattr(family, "spared", 0):
                passed += spares(family, say)
            if name == "llava-grounding":
                for done in (openseed_reference.held(scratch), openseed_reference.refused()):
                    say(f"{name}: {done}")
                    passed += 1
    say(f"{passed} passed, 0 failed")
