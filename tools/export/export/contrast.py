"""CLIP and SigLIP: a picture tower and a text tower, as the exports published for transformers.js have them."""

import torch
from torch import nn
from transformers import CLIPModel, SiglipModel

from .errors import Refused
from .family import Graph
from .heads import Head, Run


class Pictures(nn.Module):
    """pixel_values -> the pictures' embeddings, not yet of length one."""

    def __init__(self, model, projection):
        super().__init__()
        self.tower, self.projection = model.vision_model, projection or nn.Identity()

    def forward(self, pixel_values):
        return self.projection(self.tower(pixel_values=pixel_values).pooler_output)


class Texts(nn.Module):
    """input_ids -> the texts' embeddings, not yet of length one."""

    def __init__(self, model, projection):
        super().__init__()
        self.tower, self.projection = model.text_model, projection or nn.Identity()

    def forward(self, input_ids):
        return self.projection(self.tower(input_ids=input_ids).pooler_output)


class Contrast(Head):
    methods = ("retrieve",)
    roles = ("vision_model", "text_model")
    outputs = ()
    any_length = False

    def prepare(self, model, source):
        picture = source.preprocessor
        size = picture.get("crop_size") or picture.get("size") or {}
        size = size if isinstance(size, dict) else {"height": size, "width": size}
        self.side = model.config.vision_config.image_size
        if size.get("height") != self.side or size.get("width") != self.side:
            raise Refused(f"{source.folder / 'preprocessor_config.json'}: `size` should be the model's {self.side} pixels")
        self.length = model.config.text_config.max_position_embeddings
        return model

    def projections(self, model):
        return None, None

    def graphs(self, model):
        picture, text = self.projections(model)
        yield Graph("vision_model", Pictures(model, picture), {"pixel_values": torch.randn(2, 3, self.side, self.side)},
                    [self.outputs[0]], {"pixel_values": {0: "batch"}, self.outputs[0]: {0: "batch"}})
        ids = torch.tensor(self.sample(model))
        free = {0: "batch", 1: "length"} if self.any_length else {0: "batch"}
        axes = {"input_ids": free, self.outputs[1]: {0: "batch"}}
        yield Graph("text_model", Texts(model, text), {"input_ids": ids}, [self.outputs[1]], axes)

    def expected(self, model, role, feeds):
        if role == "vision_model":
            return {self.outputs[0]: model.get_image_features(**feeds)}
        return {self.outputs[1]: model.get_text_features(**feeds)}

    def runs(self, model, random):
        for count in (1, 3):
            pixels = random.standard_normal((count, 3, self.side, self.side)).astype("float32")
            yield Run(f"{count} pictures", "vision_model", {"pixel_values": pixels})
        for name, ids in self.texts(model, random):
            yield Run(name, "text_model", {"input_ids": ids})

    def settings(self, model, source):
        return {
            "input": {"fit": "stretch", "width": self.side, "height": self.side, **source.normalisation()},
            "limits": {"max_batch": 1},
            "scores": self.scores,
            "text": self.reading(model, source),
            "contrast": {"scale": float(model.logit_scale.exp()), **self.contrast(model)},
            "proposer": {"regions": 50},
            "tokens": {},
        }


class Clip(Contrast):
    name = "clip"
    model_type = "clip"
    hub_example = "openai/clip-vit-base-patch16"
    model_class = CLIPModel
    outputs = ("image_embeds", "text_embeds")
    any_length = True
    scores = {"objectness": 0.0, "match": 0.5, "nms_iou": 0.6}

    def prepare(self, model, source):
        text = model.config.text_config
        # Where the text ends is told by the token, or by its being the highest, as the first checkpoints have it.
        self.end = text.vocab_size - 1 if text.eos_token_id == 2 else text.eos_token_id
        return super().prepare(model, source)

    def projections(self, model):
        return model.visual_projection, model.text_projection

    def sample(self, model):
        return [[1, 4, 6, self.end], [1, 5, self.end, self.end]]

    def texts(self, model, random):
        for words in (1, 7, self.length - 2):
            ids = random.integers(3, self.end, (2, words + 2))
            # The second text is shorter, and filled up with what ends it.
            ids[:, -1], ids[1, 2:] = self.end, self.end
            yield f"texts of {words} words", ids

    def contrast(self, model):
        return {"activation": "softmax", "against": ["a photo of something else", "a blurry photo of the background"]}

    def reading(self, model, source):
        return {"length": self.length, "template": "a photo of a {}"}


class Siglip(Contrast):
    name = "siglip"
    model_type = "siglip"
    hub_example = "google/siglip-base-patch16-224"
    model_class = SiglipModel
    outputs = ("pooler_output", "pooler_output")
    scores = {"objectness": 0.0, "match": 0.2, "nms_iou": 0.6}

    def sample(self, model):
        return [list(range(2, 2 + self.length)), list(range(3, 3 + self.length))]

    def texts(self, model, random):
        """Always filled up: that is how it was trained, and its embedding is the last place's."""
        ids = random.integers(2, model.config.text_config.vocab_size, (3, self.length))
        ids[1, 5:], ids[2, 1:] = 1, 1
        yield "one text", ids[:1]
        yield "three texts", ids

    def contrast(self, model):
        return {"bias": float(model.logit_bias), "activation": "sigmoid"}

    def reading(self, model, source):
        pad = next((source.added[name] for name in ("<pad>", "</s>") if name in source.added), None)
        if pad is None:
            raise Refused(f"{source.folder / 'tokenizer.json'}: has neither `<pad>` nor `</s>` to fill texts up with")
        return {"length": self.length, "pad": pad, "lowercase": True, "plain": True, "template": "a photo of {}"}
