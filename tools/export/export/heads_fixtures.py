"""What groundd's tests of scored boxes need: tiny exported folders, and what transformers makes of some pictures.

    DIR/NAME/            a folder as `python -m export FAMILY` writes it
    DIR/NAME/expected.json

`street.png`, `tall.png` and the detector `yolox` lie in DIR before, made by its own script; more pictures beside it in
`vlm`. Thresholds stand in gaps of the scores, so that no rounding decides what is found.

Pictures are resized first across and then down, each into bytes, as Pillow did while these models were trained and as
the daemon does; Pillow 13 turns that round where it is less work.
"""

import contextlib
import json
import shutil
import tempfile
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch
import transformers
from PIL import Image
from tokenizers import Tokenizer
from transformers.models.grounding_dino.image_processing_grounding_dino import get_resize_output_image_size as fitted
from transformers.models.grounding_dino.processing_grounding_dino import get_phrases_from_posmap

from . import convert, manifest, tiny_heads
from .checkpoint import Source
from .errors import Refused
from .families import FAMILIES

TEXTS = ["person in a red jacket", "car", "a dog next to the van", "traffic light"]
PICTURES = ("street", "tall", "wide", "big", "tiny")
# Scores this close to a threshold could cross it on another machine.
MARGIN = 1e-3


@contextlib.contextmanager
def across_then_down():
    theirs = Image.Image.resize

    def resize(self, size, resample=None, *rest, **more):
        if self.width != size[0] and self.height != size[1]:
            return theirs(theirs(self, (size[0], self.height), resample), tuple(size), resample)
        return theirs(self, tuple(size), resample)

    Image.Image.resize = resize
    try:
        yield
    finally:
        Image.Image.resize = theirs


@contextlib.contextmanager
def fewer_groups():
    """Grounding DINO's code has 32 groups of channels, and so no fewer channels; a fixture that is kept has fewer."""
    theirs = torch.nn.GroupNorm

    class Fewer(theirs):
        def __init__(self, groups, channels, **more):
            super().__init__(min(groups, channels // 2), channels, **more)

    torch.nn.GroupNorm = Fewer
    try:
        yield
    finally:
        torch.nn.GroupNorm = theirs


def picture(out, name):
    path = out / f"{name}.png"
    return Image.open(path if path.is_file() else out.parent / "vlm/pictures" / f"{name}.png").convert("RGB")


def gap(scores):
    """The middle of the widest gap between scores, somewhat above the median."""
    found = np.sort(np.unique(np.concatenate([np.ravel(s) for s in scores])))
    found = found[np.isfinite(found)]
    found = found[len(found) // 2:max(len(found) * 95 // 100, len(found) // 2 + 2)]
    at = int(np.diff(found).argmax())
    if found[at + 1] - found[at] < 2 * MARGIN:
        raise Refused("no threshold lies in a gap of the scores; take another seed")
    return float(found[at] + found[at + 1]) / 2


def cut(boxes, size):
    """Corners within the picture; whether anything is left."""
    boxes = np.clip(boxes, 0, [*size, *size])
    return boxes, (boxes[:, 0] < boxes[:, 2]) & (boxes[:, 1] < boxes[:, 3])


def listed(boxes, scores, keep, size):
    boxes, left = cut(boxes, size)
    rows = [[*map(float, boxes[i]), float(scores[i])] for i in np.nonzero(keep & left)[0]]
    return [[round(v, 4) for v in row] for row in sorted(rows, key=lambda row: -row[4])]


def corners(boxes):
    cx, cy, w, h = np.asarray(boxes, np.float64).T
    return np.stack([cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2], axis=1)


def varied(cases):
    """Random weights are often of one mind: what is kept has many boxes, some for one phrase and not for another, and
    some for two."""
    boxes = {tuple(round(v / 4) for v in one["box"]) for case in cases for one in case["named"]}
    several = [one["phrases"] for case in cases for one in case["named"] if len(case["texts"]) > 1]
    alike = sum(len(phrases) == len(TEXTS) for phrases in several)
    firsts = {phrases[0] for phrases in several}
    counts = {len(answer) for case in cases for answer in case["boxes"]}
    if len(boxes) < 8 or alike > len(several) * 0.6 or len(firsts) < 2 or len(counts) < 3:
        raise Refused(f"{len(boxes)} different boxes, {alike} of {len(several)} for every phrase, {len(firsts)} first, {len(counts)} counts")
    return cases


def masked(family, processor, shown):
    """A picture in the corner of the family's canvas, and the mask of where it lies."""
    height, width = fitted(np.asarray(shown), family.shortest, family.longest)
    if width > family.width or height > family.height:
        # The daemon's own: a graph of fixed size shrinks a picture that does not fit into it.
        scale = min(family.width / shown.width, family.height / shown.height)
        width, height = (max(1, int(np.floor(v * scale + 0.5))) for v in shown.size)
    pixels = processor(shown.resize((width, height), Image.Resampling.BILINEAR), do_resize=False, do_pad=False,
                       return_tensors="pt")["pixel_values"]
    canvas, mask = torch.zeros(1, 3, family.height, family.width), torch.zeros(1, family.height, family.width).long()
    canvas[:, :, :height, :width], mask[:, :height, :width] = pixels, 1
    return canvas, mask


def dino(family, model, source, tokenizer, out):
    """Boxes for every phrase by the best of its tokens; and which phrases transformers' own post-processing names."""
    processor = transformers.GroundingDinoImageProcessor(**source.preprocessor)
    cases = []
    for name, texts in ((one, texts) for one in PICTURES for texts in (TEXTS[:1], TEXTS)):
        shown = picture(out, name)
        canvas, mask = masked(family, processor, shown)
        ids = tokenizer.encode(" ".join(f"{text}." for text in texts)).ids
        given = torch.tensor([ids])
        with torch.no_grad():
            told = model(pixel_values=canvas, pixel_mask=mask, input_ids=given, token_type_ids=torch.zeros_like(given),
                         attention_mask=torch.ones_like(given))
        prob, boxes = torch.sigmoid(told.logits)[0], corners(told.pred_boxes[0]) * [*shown.size, *shown.size]
        spans, at = [], 1
        for text in texts:
            count = len(tokenizer.encode(text, add_special_tokens=False).ids)
            spans.append((at, at + count))
            at += count + 1
        scores = [prob[:, first:end].amax(1).numpy() for first, end in spans]
        least = gap(scores)
        keep = torch.nonzero(prob.amax(1) > least)[:, 0]
        named = []
        for i, tokens in zip(keep.tolist(), get_phrases_from_posmap(
                (prob[keep] > least), torch.arange(prob.shape[1]))):
            tokens = [int(t) for t in tokens]
            phrases = [n for n, (first, end) in enumerate(spans) if any(first <= t < end for t in tokens)]
            box, left = cut(boxes[i:i + 1], shown.size)
            if phrases and left[0]:
                named.append({"box": [round(float(v), 4) for v in box[0]], "phrases": phrases})
        answers = [listed(boxes, score, score > least, shown.size) for score in scores]
        cases.append({"picture": name, "texts": texts, "ids": ids, "least": least, "boxes": answers, "named": named})
    return varied(cases)


def owl(family, model, source, tokenizer, out):
    """Boxes for every query; and the query that transformers' own post-processing gives each box to."""
    processor, cases = transformers.Owlv2ImageProcessor(**source.preprocessor), []
    for name, texts in ((one, texts) for one in PICTURES for texts in (TEXTS[:1], TEXTS)):
        shown = picture(out, name)
        read = [tokenizer.encode(f"a photo of a {text}").ids for text in texts]
        ids = np.zeros((len(texts), family.length), np.int64)
        for row, one in zip(ids, read):
            row[:len(one)] = one
        mask = np.arange(family.length)[None] < np.array([[len(one)] for one in read])
        pixels = processor(shown, return_tensors="pt")["pixel_values"]
        with torch.no_grad():
            told = model(input_ids=torch.from_numpy(ids), pixel_values=pixels, attention_mask=torch.from_numpy(mask).long())
        prob = torch.sigmoid(told.logits)[0].numpy()
        boxes = corners(told.pred_boxes[0]) * max(shown.size)
        least = gap([prob])
        best = processor.post_process_object_detection(told, threshold=least, target_sizes=[shown.size[::-1]])[0]
        theirs, left = cut(best["boxes"].numpy().astype(np.float64), shown.size)
        named = [{"box": [round(float(v), 4) for v in theirs[i]], "phrases": [int(best["labels"][i])]}
                 for i in np.nonzero(left)[0]]
        answers = [listed(boxes, prob[:, n], prob[:, n] > least, shown.size) for n in range(len(texts))]
        cases.append({"picture": name, "texts": texts, "ids": ids.ravel().tolist(), "least": least, "boxes": answers,
                      "named": named})
    return varied(cases)


def closed(family, model, source, tokenizer, out):
    processor, cases = transformers.RTDetrImageProcessor(**source.preprocessor), []
    for name in PICTURES[:2]:
        shown = picture(out, name)
        with torch.no_grad():
            told = model(**processor(shown, return_tensors="pt"))
        found = processor.post_process_object_detection(told, threshold=0.4, target_sizes=[shown.size[::-1]])[0]
        scores, labels, boxes = (found[key].numpy() for key in ("scores", "labels", "boxes"))
        if np.abs(torch.sigmoid(told.logits).numpy() - 0.4).min() < 1e-4:
            raise Refused("a score lies at the threshold; take another seed")
        for label, text in enumerate(tiny_heads.LABELS):
            cases.append({"picture": name, "text": text, "boxes": listed(boxes, scores, labels == label, shown.size)})
    return cases


def offered(family, model, source, tokenizer, out):
    """Regions of whatever kind, as UPN's reference takes them: the sigmoid of the only logit at least 0.3, of two that
    overlap by more than 0.8 the surer one, the surest 100."""
    import cv2
    processor = transformers.DeformableDetrImageProcessor(**source.preprocessor)
    cases, gone, unsure = [], 0, 0
    for name in PICTURES:
        shown = picture(out, name)
        canvas, mask = masked(family, processor, shown)
        with torch.no_grad():
            told = model(pixel_values=canvas, pixel_mask=mask)
        scores = torch.sigmoid(told.logits)[0, :, 0].numpy()
        boxes = corners(told.pred_boxes[0])
        sides = np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], axis=1)
        low, high = np.maximum(boxes[:, None, :2], boxes[None, :, :2]), np.minimum(boxes[:, None, 2:], boxes[None, :, 2:])
        shared, area = (high - low).clip(0).prod(2), sides[:, 2:].prod(1)
        overlap = shared / (area[:, None] + area[None] - shared)
        if min(np.abs(scores - 0.3).min(), np.abs(overlap - 0.8).min()) < MARGIN:
            raise Refused("a score or an overlap lies at its limit; take another seed")
        kept = cv2.dnn.NMSBoxes(sides.tolist(), scores.tolist(), 0.3, 0.8)[:100]
        gone, unsure = gone + int((scores >= 0.3).sum()) - len(kept), unsure + int((scores < 0.3).sum())
        cases.append({"picture": name, "text": "object", "boxes": listed(
            boxes * [*shown.size, *shown.size], scores, np.isin(np.arange(len(boxes)), kept), shown.size)})
    counts = [len(case["boxes"]) for case in cases]
    if sum(counts) < 40 or gone < 10 or unsure < 5 or min(counts) < 4:
        raise Refused(f"{counts} boxes, {gone} suppressed, {unsure} too unsure: of one mind")
    return cases


def proposals(out, shown):
    """What `yolox` beside offers, class or no class: boxes with an objectness of 0.25, of any two that overlap by more
    than half the surer one."""
    bgr = np.asarray(shown)[:, :, ::-1]
    side, ratio = 64, min(64 / shown.width, 64 / shown.height)
    size = int(shown.width * ratio), int(shown.height * ratio)
    import cv2
    image = np.full((side, side, 3), 114, np.uint8)
    image[:size[1], :size[0]] = cv2.resize(np.ascontiguousarray(bgr), size, interpolation=cv2.INTER_LINEAR)
    session = onnxruntime.InferenceSession(out / "yolox/detector.onnx", providers=["CPUExecutionProvider"])
    rows = session.run(None, {"images": image.transpose(2, 0, 1)[None].astype(np.float32)})[0][0]
    cells = np.concatenate([np.stack([*np.meshgrid(np.arange(n), np.arange(n)), np.full((n, n), 64 // n)], axis=2)
                            .reshape(-1, 3) for n in (8, 4, 2)])
    centre, wh = (rows[:, :2] + cells[:, :2]) * cells[:, 2:], np.exp(rows[:, 2:4]) * cells[:, 2:]
    boxes = np.concatenate([centre - wh / 2, wh], axis=1)
    keep = cv2.dnn.NMSBoxes(boxes.tolist(), rows[:, 4].tolist(), 0.25, 0.5)[:100]
    found = np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1)[keep] / ratio
    found, left = cut(found, shown.size)
    return found[left][:50]


def contrast(family, model, source, tokenizer, out):
    """Texts and their embeddings, and the whole chain: proposals, crops, embeddings, scores, suppression."""
    import cv2
    rules = family.contrast(model)
    given = dict(source.preprocessor)
    kind = getattr(transformers, given.pop("image_processor_type"))
    processor = kind(**{**given, "do_center_crop": False, "size": {"height": family.side, "width": family.side}})
    reading = family.reading(model, source)

    def unit(x):
        return (x / x.norm(dim=-1, keepdim=True)).numpy().astype(np.float64)

    def text(words):
        ids = tokenizer.encode(words).ids
        if "pad" in reading:
            ids = ids + [reading["pad"]] * (family.length - len(ids))
        with torch.no_grad():
            return ids, unit(model.get_text_features(input_ids=torch.tensor([ids])))[0]

    read = [text(reading["template"].replace("{}", words)) for words in TEXTS]
    against = [text(words)[1] for words in rules.get("against", [])]
    cases = []
    for name in PICTURES[:2]:
        shown = picture(out, name)
        boxes = proposals(out, shown)
        crops = [shown.crop((int(np.floor(x1)), int(np.floor(y1)), int(np.ceil(x2)), int(np.ceil(y2))))
                 for x1, y1, x2, y2 in boxes]
        with torch.no_grad():
            seen = unit(model.get_image_features(**processor(crops, return_tensors="pt")))
        scale, answers = float(model.logit_scale.exp()), []
        for _, own in read:
            logit = scale * seen @ own + rules.get("bias", 0.0)
            rest = sum((np.exp(scale * seen @ other - logit) for other in against), np.exp(-logit) * (not against))
            answers.append(1 / (1 + rest))
        least = gap(answers)
        xywh = np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], axis=1).tolist()
        kept = [cv2.dnn.NMSBoxes(xywh, score.tolist(), least, family.scores["nms_iou"]) for score in answers]
        told = [listed(boxes, score, np.isin(np.arange(len(boxes)), list(keep)), shown.size)
                for score, keep in zip(answers, kept)]
        cases.append({"picture": name, "texts": TEXTS, "ids": [i for ids, _ in read for i in ids], "least": least,
                      "boxes": told, "named": []})
    return cases


def grounded(family, model, source, tokenizer, out):
    """The original's loop: greedy, the state that predicted each mark, the head, boxes by their share of a softmax."""
    from . import llava_grounding as real
    family.most = 16
    processor = transformers.CLIPImageProcessor(**source.preprocessor)
    before, after = real.PROMPT.split("<image>")
    end, cases = source.ends(), []
    for name in PICTURES:
        shown = picture(out, name)
        eye = processor(shown, return_tensors="pt")["pixel_values"]
        ratio = family.side / max(shown.size)
        inner = tuple(int(np.round(v * ratio)) for v in shown.size)
        canvas = np.full((family.side, family.side, 3), 128, np.float32)
        canvas[:inner[1], :inner[0]] = np.asarray(shown.resize(inner, Image.Resampling.BILINEAR))
        canvas = (canvas - np.float32([123.675, 116.28, 103.53])) / np.float32([58.395, 57.12, 57.375])
        pixels = torch.from_numpy(canvas.transpose(2, 0, 1)[None].copy())
        found, said = [], []
        for text in TEXTS:
            ids = [family.begin, *tokenizer.encode(before, add_special_tokens=False).ids,
                   *[real.IMAGE] * family.tokens(model),
                   *tokenizer.encode(after.replace("{}", text), add_special_tokens=False).ids]
            phrases, cache, feed, shown_once = [], None, torch.tensor([ids]), {"pixel_values": eye}
            with torch.no_grad():
                for step in range(family.most):
                    told = model(feed, past_key_values=cache, use_cache=True, **shown_once)
                    cache, shown_once = told.past_key_values, {}
                    two = told.logits[0, -1].topk(2).values
                    if two[0] - two[1] < 2 * MARGIN:
                        raise Refused("two best logits are too close")
                    token = int(told.logits[0, -1].argmax())
                    if token in end:
                        break
                    if token == family.mark:
                        phrases.append(told.hidden_states[:, -1:])
                    feed = torch.tensor([[token]])
                if phrases:
                    seen, phrases = model.head.see(pixels), torch.cat(phrases, dim=1)
                    last = model.head.offers(seen, phrases)[0].topk(model.head.queries + 1).values[-2:]
                    if last[0] - last[1] < MARGIN:
                        raise Refused("two offers are too close")
                    logits, boxes = model.head.find(seen, phrases)
                    found.append((torch.softmax(logits[0], dim=0).numpy(), boxes[0].numpy()))
                else:
                    found.append(None)
        if not any(found):
            raise Refused(f"{name}: no answer speaks of anything")
        least = gap([one[0] for one in found if one])
        scale, boxes, best = np.array([*shown.size, *shown.size]) * family.side / np.array([*inner, *inner]), [], []
        for one in found:
            if one is None:
                boxes.append([]), best.append([])
                continue
            shares, places = one[0], corners(one[1]) * scale
            boxes.append(listed(places, shares.max(1), shares.max(1) > least, shown.size))
            top = np.zeros(len(places), bool)
            top[shares.argmax(0)] = True
            chosen = np.where(np.arange(len(places))[:, None] == shares.argmax(0)[None], shares, 0).max(1)
            best.append(listed(places, chosen, top, shown.size))
        cases.append({"picture": name, "texts": TEXTS, "least": least, "boxes": boxes, "named": [], "best": best})
    counts = [len(one) for case in cases for one in case["best"]]
    if not (counts.count(0) and max(counts) > 1 and sum(len(b) for c in cases for b in c["boxes"]) >= 20):
        raise Refused(f"answers have {counts} boxes: of one mind")
    return cases


MADE = {
    "llava-grounding": ("llava-grounding", tiny_heads.llava_grounding, {"hidden": 16}, grounded),
    "grounding-dino": ("grounding-dino", tiny_heads.grounding_dino, {"narrow": 2, "words": 4, "layers": (1, 1), "hidden": 8}, dino),
    "owlv2": ("owlv2", tiny_heads.owlv2, {}, owl),
    "rt-detr": ("rt-detr", tiny_heads.rt_detr, {"hidden": 8}, closed),
    "d-fine": ("d-fine", tiny_heads.d_fine, {"hidden": 8}, closed),
    "deformable-detr": ("deformable-detr", tiny_heads.deformable_detr,
                        {"classes": ["object"], "queries": 40, "hidden": 8}, offered),
    "clip": ("clip", tiny_heads.clip, {}, contrast),
    "siglip": ("siglip", tiny_heads.siglip, {}, contrast),
}
# Other sizes, too large to keep: `make parity` writes and reads them.
MORE = {
    "grounding-dino-square": ("grounding-dino", tiny_heads.grounding_dino, {"shortest": 72, "longest": 72}, dino),
    "grounding-dino-long": ("grounding-dino", tiny_heads.grounding_dino, {"shortest": 64, "longest": 160, "layers": (2, 2)},
                            dino),
    "owlv2-large": ("owlv2", tiny_heads.owlv2, {"side": 72}, owl),
    "llava-grounding-openseed": ("llava-grounding", tiny_heads.llava_grounding, {"side": 128, "hidden": 16, "published": True},
                                 grounded),
    "clip-large": ("clip", tiny_heads.clip, {"side": 48, "legacy": True}, contrast),
}
SEEDS = 200


def one(name, out, say):
    family_name, make, options, ask = (MADE | MORE)[name]
    family, refused = FAMILIES[family_name], None
    for seed in range(SEEDS):
        with tempfile.TemporaryDirectory() as scratch, fewer_groups():
            checkpoint = Path(scratch) / "checkpoint"
            checkpoint.mkdir()
            make(checkpoint, seed=seed, **options)
            source = Source(checkpoint, family.reads)
            family.image = None
            model = family.prepare(family.load(checkpoint), source)
            tokenizer = Tokenizer.from_file(str(checkpoint / "tokenizer.json")) if family.reads else None
            try:
                with across_then_down():
                    cases = ask(family, model, source, tokenizer, out)
                shutil.rmtree(out / name, ignore_errors=True)
                chosen = convert.Options(name=f"tiny-{name}", provenance="random weights: for tests only",
                                         proposer="../yolox")
                report = convert.export(family, checkpoint, out / name, chosen, say=lambda _: None)
            except Refused as e:
                refused = e
                continue
        # The references suppress nothing.
        told = out / name / "model.toml"
        if family_name == "owlv2":
            told.write_text(told.read_text().replace("nms_iou = 0.5", "nms_iou = 1.0"))
        slim(out / name)
        (out / name / "expected.json").write_text(json.dumps(cases, separators=(",", ":")) + "\n")
        size = sum(path.stat().st_size for path in (out / name).iterdir())
        say(f"{name}: seed {seed}, {size / 1e3:.0f} kB; {report.line()}")
        return
    raise Refused(f"{name}: no seed below {SEEDS} will do: {refused}")


def slim(folder):
    """The same graphs with what is constant computed, and without the names of tensors, which are most of a small one."""
    text = (folder / "model.toml").read_text()
    for path in folder.glob("*.onnx"):
        old = f'path = "{path.name}"\nbytes = {path.stat().st_size}\nsha256 = "{manifest.digest(path)}"'
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
        options.optimized_model_filepath, options.log_severity_level = str(path), 3
        onnxruntime.InferenceSession(path.read_bytes(), options, providers=["CPUExecutionProvider"])
        model = onnx.load(path)
        names, kept = {}, {port.name for port in (*model.graph.input, *model.graph.output)}

        def short(name):
            return name if not name or name in kept else names.setdefault(name, f"{len(names):x}")

        del model.graph.value_info[:]
        used = {node.domain for node in model.graph.node}
        versions = [version for version in model.opset_import if version.domain in used]
        del model.opset_import[:]
        model.opset_import.extend(versions)
        for node in model.graph.node:
            node.name = node.doc_string = ""
            node.input[:], node.output[:] = map(short, node.input), map(short, node.output)
        for weight in model.graph.initializer:
            weight.name = short(weight.name)
        onnx.save(model, path)
        new = f'path = "{path.name}"\nbytes = {path.stat().st_size}\nsha256 = "{manifest.digest(path)}"'
        if old not in text:
            raise Refused(f"{path}: is not what model.toml says")
        text = text.replace(old, new)
    (folder / "model.toml").write_text(text)


def joined(out, say):
    """`clip` with both towers in one graph, as some exports are published."""
    folder = out / "clip-joined"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    vision, text = (onnx.compose.add_prefix(onnx.load(out / "clip" / f"{role}_model.onnx"), f"{role}_", rename_inputs=False,
                                            rename_outputs=False) for role in ("vision", "text"))
    for part in ("node", "input", "output", "initializer"):
        getattr(vision.graph, part).extend(getattr(text.graph, part))
    onnx.save(vision, folder / "model.onnx")
    for name in ("tokenizer.json", "expected.json"):
        shutil.copyfile(out / "clip" / name, folder / name)
    lines = (out / "clip/model.toml").read_text().split("\n[[files]]")
    graph = folder / "model.onnx"
    entry = (f'\nrole = "model"\npath = "model.onnx"\nbytes = {graph.stat().st_size}\n'
             f'sha256 = "{manifest.digest(graph)}"\n')
    head = lines[0].replace('name = "tiny-clip"', 'name = "tiny-clip-joined"')
    (folder / "model.toml").write_text("\n[[files]]".join([head, entry, lines[-1]]))
    say(f"clip-joined: {graph.stat().st_size / 1e3:.0f} kB")


def write(out, say=print, more=False, only=None):
    for name in MORE if more else MADE:
        if only in (None, name):
            one(name, Path(out), say)
    if not more and only in (None, "clip"):
        joined(Path(out), say)
