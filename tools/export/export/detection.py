"""Grounding DINO, OWLv2, RT-DETR and D-FINE: one graph each, with the names of the published exports.

Sizes of the picture are fixed: what follows from them inside these models (windows, grids, anchors) is baked when it is
traced, and another size would answer wrongly rather than fail. A picture that is smaller lies in the corner and is
masked. The text stays free.
"""

import contextlib
import re

import numpy as np
import torch
from torch import nn
from transformers import (
    DFineForObjectDetection, GroundingDinoForObjectDetection, Owlv2ForObjectDetection, RTDetrForObjectDetection)
from transformers.models.grounding_dino import modeling_grounding_dino

from .errors import Refused
from .family import Graph
from .heads import Head, Run, blotches

IMAGENET = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
CLIP = [0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711]


def must_be(source, mean_std, resample):
    """The daemon's preparation of these pictures is the published one; another cannot be told in model.toml."""
    found = source.preprocessor
    pairs = ((found.get("image_mean"), mean_std[0]), (found.get("image_std"), mean_std[1]))
    if any(have is None or not np.allclose(have, want, atol=1e-6) for have, want in pairs):
        raise Refused(f"{source.folder / 'preprocessor_config.json'}: image_mean and image_std should be {mean_std}")
    if found.get("resample", resample) != resample or abs(found.get("rescale_factor", 1 / 255) - 1 / 255) > 1e-9:
        raise Refused(f"{source.folder / 'preprocessor_config.json'}: resample should be {resample}, rescale_factor 1/255")


def phrase_masks(input_ids):
    """What tokens of a text see of one another, and where each stands in its phrase, for any text.

    A separator ends a phrase: its tokens and the separator see one another. The first token and the last see only
    themselves, and so does what no separator ends. transformers finds this in a loop, which a trace would unroll for
    the one text it was shown.
    """
    marks = torch.tensor(modeling_grounding_dino.SPECIAL_TOKENS, device=input_ids.device)
    special = (input_ids[:, :, None] == marks).any(-1)
    at = torch.cumsum(torch.ones_like(input_ids), dim=1) - 1
    far = at[:, -1:] + 1
    # [batch, token, other]: the separator at or after a token, and the one before it.
    later = special[:, None, :] & (at[:, None, :] >= at[:, :, None])
    end = torch.where(later, at[:, None, :], far[:, :, None]).amin(-1)
    earlier = special[:, None, :] & (at[:, None, :] < at[:, :, None])
    start = torch.where(earlier, at[:, None, :], torch.full_like(at[:, None, :], -1)).amax(-1)
    whole = (end > 0) & (end < far - 1)
    same = (end[:, :, None] == end[:, None, :]) & whole[:, :, None]
    alone = at[:, :, None] == at[:, None, :]
    return same | alone, torch.where(whole, at - start - 1, torch.zeros_like(at))


def nearest(x, size):
    """torch's nearest neighbours, in whole numbers: runtimes divide by a rounded scale, and take the pixel before the
    edge of a mask for the one after it."""
    rows, columns = ([i * int(have) // int(want) for i in range(int(want))] for have, want in zip(x.shape[-2:], size))
    return x.index_select(-2, torch.tensor(rows)).index_select(-1, torch.tensor(columns))


@contextlib.contextmanager
def traceable():
    """transformers' code for the time of a trace, with two functions that hold for more than the example."""
    masks, shrink = "generate_masks_with_special_tokens_and_transfer_map", nn.functional.interpolate
    theirs = getattr(modeling_grounding_dino, masks)
    setattr(modeling_grounding_dino, masks, phrase_masks)
    nn.functional.interpolate = lambda x, size=None, **other: shrink(x, size, **other) if other else nearest(x, size)
    try:
        yield
    finally:
        setattr(modeling_grounding_dino, masks, theirs)
        nn.functional.interpolate = shrink


class Dino(nn.Module):
    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, pixel_values, input_ids, token_type_ids, attention_mask, pixel_mask):
        with traceable():
            out = self.model(pixel_values=pixel_values, input_ids=input_ids, token_type_ids=token_type_ids,
                             attention_mask=attention_mask, pixel_mask=pixel_mask)
        return out.logits, out.pred_boxes


class Shortest:
    """Pictures whose shorter side has a given length, in the corner of an image, beside a mask that covers them."""

    sized = True

    def measure(self, source):
        must_be(source, IMAGENET, 2)
        size = source.preprocessor.get("size") or {}
        if isinstance(size, int):
            # As the first checkpoints have it; the bound is transformers' own where they state none.
            size = {"shortest_edge": size, "longest_edge": source.preprocessor.get("max_size", 1333)}
        if not isinstance(size, dict) or not size.get("shortest_edge") or not size.get("longest_edge"):
            raise Refused(f"{source.folder / 'preprocessor_config.json'}: size should have shortest_edge and longest_edge, or be "
                          "the shortest edge, with the longest as max_size")
        self.shortest, self.longest = size["shortest_edge"], size["longest_edge"]
        self.width, self.height = self.image or (self.longest, self.shortest)

    def picture(self, random, inner=None):
        """A picture of which `inner` columns and rows count."""
        pixels = blotches(random, self.height, self.width)
        mask = np.ones((1, self.height, self.width), np.int64)
        columns, rows = inner or (self.width, self.height)
        for free in (pixels[:, :, rows:], pixels[:, :, :, columns:], mask[:, rows:], mask[:, :, columns:]):
            free[...] = 0
        return {"pixel_values": pixels, "pixel_mask": mask}


class GroundingDino(Shortest, Head):
    name = "grounding-dino"
    model_type = "grounding-dino"
    hub_example = "IDEA-Research/grounding-dino-tiny"
    model_class = GroundingDinoForObjectDetection
    methods = ("detector",)
    roles = ("model",)
    # Boxes steer where the decoder looks next, which makes much of a little: with random weights transformers itself
    # moves logits by 1e-3 of the largest and boxes by 4e-4 from single to double precision; at the published size (six
    # layers, 1333 x 800), of the queries that are not spared, one in twenty by more than 2.4e-3.
    allowed, exact = 1e-2, 2e-3
    spared, ordered = 0.05, False

    def prepare(self, model, source):
        self.measure(source)
        self.begin, self.end, self.stop = (source.token(text) for text in ("[CLS]", "[SEP]", "."))
        if [self.begin, self.end, self.stop] != modeling_grounding_dino.SPECIAL_TOKENS[:3]:
            raise Refused(f"{source.folder / 'tokenizer.json'}: `[CLS]`, `[SEP]` and `.` should have the ids "
                          f"{modeling_grounding_dino.SPECIAL_TOKENS[:3]}, which are fixed in the model's code")
        self.ordinary = [i for i in range(1, min(model.config.text_config.vocab_size, 30_000))
                         if i not in modeling_grounding_dino.SPECIAL_TOKENS]
        self.length = model.config.max_text_len
        return model

    def feeds(self, random, words, inner=None):
        """A text of phrases of so many words, and a picture of which `inner` columns and rows count."""
        ids = [self.begin]
        for count in words:
            ids += [*random.choice(self.ordinary, count), self.stop]
        ids = np.array([[*ids, self.end]], np.int64)
        shown = self.picture(random, inner)
        # In the order that the graph takes them.
        return {"pixel_values": shown["pixel_values"], "input_ids": ids, "token_type_ids": np.zeros_like(ids),
                "attention_mask": np.ones_like(ids), "pixel_mask": shown["pixel_mask"]}

    def graphs(self, model):
        random = np.random.default_rng(3)
        sample = self.feeds(random, [2, 3], (self.width - 5, self.height))
        inputs = {name: torch.from_numpy(value) for name, value in sample.items()}
        axes = {name: {1: "tokens"} for name in ("input_ids", "token_type_ids", "attention_mask")}
        yield Graph("model", Dino(model), inputs, ["logits", "pred_boxes"], axes)

    def expected(self, model, role, feeds):
        out = model(**feeds)
        return {"logits": out.logits, "pred_boxes": out.pred_boxes}

    def runs(self, model, random):
        full = self.width, self.height
        for name, words, inner in (
                ("one word", [1], None), ("three phrases, half the picture", [1, 4, 2], (full[0] // 2, full[1])),
                ("many phrases", [2] * 20, (full[0], full[1] * 2 // 3)), ("long phrases", [30, 25], None)):
            yield Run(name, "model", self.feeds(random, words, inner))

    def settings(self, model, source):
        return {
            "input": {"fit": "shortest", "width": self.width, "height": self.height, "shortest": self.shortest,
                      "longest": self.longest},
            "limits": {"max_batch": 1},
            "scores": {"objectness": 0.0, "match": 0.35, "nms_iou": 1.0},
            "text": {"length": self.length, "lowercase": True},
            "tokens": {"begin": self.begin, "end": [self.end]},
        }


class Owl(nn.Module):
    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, input_ids, pixel_values, attention_mask):
        out = self.model(input_ids=input_ids, pixel_values=pixel_values, attention_mask=attention_mask)
        return out.logits, out.pred_boxes


class Owlv2(Head):
    name = "owlv2"
    model_type = "owlv2"
    hub_example = "google/owlv2-base-patch16-ensemble"
    model_class = Owlv2ForObjectDetection
    methods = ("detector",)
    roles = ("model",)
    spared = 5e-3

    def prepare(self, model, source):
        must_be(source, CLIP, source.preprocessor.get("resample", 2))
        self.side = model.config.vision_config.image_size
        size = source.preprocessor.get("size") or {}
        size = size if isinstance(size, dict) else {"height": size, "width": size}
        if (size.get("height"), size.get("width")) != (self.side, self.side):
            raise Refused(f"{source.folder / 'preprocessor_config.json'}: `size` should be the model's {self.side} pixels")
        text = model.config.text_config
        self.length, self.words = text.max_position_embeddings, text.vocab_size
        self.begin, self.end = (source.token(mark) for mark in ("<|startoftext|>", "<|endoftext|>"))
        return model

    def feeds(self, random, counts):
        """So many queries, each of so many words, filled up with zeros as the processor does."""
        ids, mask = np.zeros((2, len(counts), self.length), np.int64)
        for row, count in enumerate(counts):
            words = random.integers(1, min(self.begin, self.end), count)
            ids[row, :count + 2], mask[row, :count + 2] = [self.begin, *words, self.end], 1
        pixels = blotches(random, self.side, self.side)
        return {"input_ids": ids, "pixel_values": pixels, "attention_mask": mask}

    def graphs(self, model):
        inputs = {name: torch.from_numpy(v) for name, v in self.feeds(np.random.default_rng(3), [2, 5, 1]).items()}
        axes = {"input_ids": {0: "queries"}, "attention_mask": {0: "queries"}, "logits": {2: "queries"}}
        yield Graph("model", Owl(model), inputs, ["logits", "pred_boxes"], axes)

    def expected(self, model, role, feeds):
        out = model(**feeds)
        return {"logits": out.logits, "pred_boxes": out.pred_boxes}

    def runs(self, model, random):
        # What pads a text comes after its end and is not seen from there: the mask says nothing new.
        for name, counts in (("one query", [3]), ("five queries", [1, 4, self.length - 2, 2, 2]), ("many", [2] * 17)):
            yield Run(name, "model", self.feeds(random, counts), idle=("attention_mask",))

    def settings(self, model, source):
        return {
            "input": {"fit": "square", "width": self.side, "height": self.side},
            "limits": {"max_batch": 1},
            "scores": {"objectness": 0.0, "match": 0.2, "nms_iou": 0.5},
            "text": {"length": self.length, "pad": 0, "lowercase": True, "template": "a photo of a {}"},
            "tokens": {"begin": self.begin, "end": [self.end]},
        }


class Queries(nn.Module):
    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, pixel_values):
        out = self.model(pixel_values=pixel_values)
        return out.logits, out.pred_boxes


# What checkpoints call a place that stands for nothing; COCO's 91 places have several of these.
NOTHING = {"n/a", "na", "__background__"}


def named(model):
    """The classes' names, in the order of their scores; of a place that stands for nothing, none."""
    names = [model.config.id2label[i] for i in range(len(model.config.id2label))]
    names = [re.sub(r"\s+", " ", name).strip() for name in names]
    return ["" if name.lower() in NOTHING else name for name in names]


class Closed(Head):
    """Detectors with classes of their own."""

    methods = ("detector",)
    roles = ("detector",)
    reads = False
    spared, ordered = 0.05, False

    def prepare(self, model, source):
        size = source.preprocessor.get("size") or {}
        # A plain number is no square here: transformers takes it for the shortest edge, and the other follows from the picture.
        if not isinstance(size, dict) or not size.get("height") or not size.get("width"):
            raise Refused(f"{source.folder / 'preprocessor_config.json'}: size should have a height and a width")
        self.height, self.width = size["height"], size["width"]
        if model.config.anchor_image_size not in (None, [self.height, self.width]):
            raise Refused(f"{source.folder / 'config.json'}: anchor_image_size is not the picture's size")
        return model

    def pixels(self, random):
        return {"pixel_values": np.clip(blotches(random, self.height, self.width) / 4 + 0.5, 0, 1)}

    def graphs(self, model):
        inputs = {name: torch.from_numpy(value) for name, value in self.pixels(np.random.default_rng(3)).items()}
        yield Graph("detector", Queries(model), inputs, ["logits", "pred_boxes"], {})

    def expected(self, model, role, feeds):
        out = model(**feeds)
        return {"logits": out.logits, "pred_boxes": out.pred_boxes}

    def runs(self, model, random):
        for name in ("a picture", "another"):
            yield Run(name, "detector", self.pixels(random))

    def settings(self, model, source):
        normal = source.normalisation()
        if not source.preprocessor.get("do_normalize", False):
            normal |= {"mean": [0.0] * 3, "std": [1.0] * 3}
        return {
            "input": {"fit": "stretch", "width": self.width, "height": self.height, **normal},
            "limits": {"max_batch": 1},
            "scores": {"objectness": 0.1, "match": 0.4, "nms_iou": 1.0},
            "head": {"classes": named(model)},
        }


class RtDetr(Closed):
    name = "rt-detr"
    model_type = "rt_detr"
    hub_example = "PekingU/rtdetr_r50vd"
    model_class = RTDetrForObjectDetection


class DFine(Closed):
    name = "d-fine"
    model_type = "d_fine"
    hub_example = "ustc-community/dfine-small-coco"
    model_class = DFineForObjectDetection
