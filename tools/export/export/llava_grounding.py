"""LLaVA-Grounding: a LLaMA whose states name phrases, behind a CLIP tower and one linear layer, and a head of its own.

The checkpoint is LLaVA-Grounding's own, not transformers': `model.*`, `lm_head.*`, `model.vision_tower.vision_tower.*`,
`model.mm_projector.*` and `seg_model.model.*` of one state.
"""

import json

import numpy as np
import torch
from safetensors.torch import load_file
from torch import nn
from transformers import CLIPVisionConfig, CLIPVisionModel, LlamaConfig, LlamaForCausalLM
from transformers.modeling_outputs import CausalLMOutputWithPast

from . import decoder, openseed, openseed_head
from .errors import Refused
from .family import Family, Graph, forced_tokens, padded, splice
from .heads import Measured, compare

IMAGE = -200
# What it was taught on Visual Genome's and RefCOCO's phrases, to the letter, where the answer is `<seg> .`
# (`vg_instance_new_baseline_dataset_mapper.py`). With `(with grounding)` at their end, questions are answered in words.
PROMPT = ("A chat between a curious user and an artificial intelligence assistant. The assistant gives helpful, detailed, "
          "and polite answers to the user's questions. USER: <image>\n Please detect the object according to the text {} "
          "(referring). ASSISTANT:")
MARK, AROUND = "<seg>", ["<g_s>", "<g_e>"]
# The part of the queries that may differ from torch's: none of a small head's.
SPARED = 0.05
# Of the largest value. The head is in single precision in every form, and is asked with what torch gave: no form excuses it.
HEAD = 1e-3
# Of the states, which every form rounds in its own way. In floats, of the largest value. Quantised weights move every value a
# little: there the length of all differences counts, relative to the length of all states, which is 0.009 and 0.18 of small
# models, and from 0.49 on where the states are those of the layer before.
STATES = {"fp32": 1e-3, "fp16": 2e-2, "int8": 0.1, "int4": 0.4}
TOWER = "model.vision_tower.vision_tower."


class Model(nn.Module):
    def __init__(self, text, vision, layer, head):
        super().__init__()
        self.language, self.tower, self.layer = LlamaForCausalLM(text), CLIPVisionModel(vision), layer
        self.projector, self.head = nn.Linear(vision.hidden_size, text.hidden_size), head
        self.config = text

    def seen(self, pixel_values):
        states = self.tower(pixel_values=pixel_values, output_hidden_states=True).hidden_states[self.layer]
        return self.projector(states[:, 1:])

    def forward(self, input_ids, pixel_values=None, **more):
        embeds = self.language.model.embed_tokens(input_ids.clamp(min=0))
        if pixel_values is not None:
            at = input_ids == IMAGE
            embeds[at] = self.seen(pixel_values).reshape(-1, embeds.shape[-1])
        out = self.language.model(inputs_embeds=embeds, **more)
        logits = self.language.lm_head(out.last_hidden_state)
        return CausalLMOutputWithPast(logits=logits, past_key_values=out.past_key_values, hidden_states=out.last_hidden_state)


class Tower(nn.Module):
    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, pixel_values):
        return self.model.seen(pixel_values)


def named(name):
    """Where a tensor of the checkpoint belongs in `Model`."""
    for old, new in ((TOWER, "tower."), ("model.mm_projector.", "projector."), ("seg_model.model.", "head."),
                     ("model.", "language.model."), ("lm_head.", "language.lm_head.")):
        if name.startswith(old):
            return new + name[len(old):]
    return name


class LlavaGrounding(Family):
    name = "llava-grounding"
    model_type = "llava"
    hub_example = "Haozhangcx/llava_grounding_gd_vp"
    methods = ("detector",)
    roles = ("vision_encoder", "embed_tokens", "decoder_model_merged")
    eye = "mm_vision_tower"
    # Most tokens of an answer, as in the original's loop.
    most = 1000

    def load(self, checkpoint):
        told = json.loads((checkpoint / "config.json").read_text())
        path = checkpoint / "vision_config.json"
        if not path.is_file():
            raise Refused(f"{path}: is missing; put `vision_config` of {told.get('mm_vision_tower', 'the CLIP tower')}'s "
                          "config.json there")
        vision, state = CLIPVisionConfig(**json.loads(path.read_text())), {}
        files = sorted(checkpoint.glob("model*.safetensors")) or sorted(checkpoint.glob("pytorch_model*.bin"))
        for file in files:
            part = load_file(file) if file.suffix == ".safetensors" else torch.load(file, "cpu", weights_only=True)
            state |= {named(name): tensor.float() for name, tensor in part.items()}
        head, state = self.read_head(checkpoint, told, state)
        model = Model(LlamaConfig(**{**told, "model_type": "llama"}), vision, told.get("mm_vision_select_layer", -2), head)
        lost = sorted(set(dict(model.named_parameters())) - set(state))
        if lost:
            raise Refused(f"{checkpoint}: {len(lost)} tensors are missing, the first is `{lost[0]}`; the folder should be "
                          f"laid out as {self.hub_example} is")
        try:
            model.load_state_dict(state, strict=False)
        except RuntimeError as e:
            raise Refused(f"{checkpoint}: {e}") from e
        return model.float().eval().requires_grad_(False)

    def read_head(self, checkpoint, told, state):
        """The head that the tensors are of, and all tensors by the names that it has for its own."""
        if small := told.get("groundd_head"):
            return openseed.Small(**small), state
        own = openseed_head.settle({name[5:]: state[name] for name in state if name.startswith("head.")})
        try:
            head = openseed_head.build(own, **told.get("groundd_openseed", {}))
        except Refused as e:
            raise Refused(f"{checkpoint}: {e}") from e
        if head.width != told["hidden_size"]:
            raise Refused(f"{checkpoint}: the head takes phrases of {head.width} numbers, and the language model's states "
                          f"have {told['hidden_size']}")
        return head, state | {f"head.{name}": tensor for name, tensor in own.items()}

    def halved(self, model):
        return model.language

    def prepare(self, model, source):
        self.mark = source.token(MARK)
        for text in AROUND:
            source.token(text)
        self.begin, self.side, self.width = source.token("<s>"), model.head.side, model.config.hidden_size
        return model

    def graphs(self, model):
        side, text = model.tower.config.image_size, model.language.model
        yield Graph("vision_encoder", Tower(model), {"pixel_values": torch.randn(2, 3, side, side)}, ["image_features"],
                    {"pixel_values": {0: "batch"}, "image_features": {0: "batch"}})
        yield decoder.embed_graph(text.embed_tokens)
        body = decoder.Decoder(text, model.language.lm_head, states=True)
        inputs, outputs, axes = decoder.ports(body, text.config.num_hidden_layers, text.config.hidden_size,
                                              torch.tensor([[5, 6, 7], [3, 4, 5]]), "position_ids")
        yield Graph("decoder_model_merged", body, inputs, outputs, axes)
        yield from openseed.graphs(model.head, self.side, self.width)

    def tokens(self, model):
        vision = model.tower.config
        return (vision.image_size // vision.patch_size) ** 2

    def cases(self, model, seed=1):
        random, side = np.random.default_rng(seed), model.tower.config.image_size
        ordinary, cases = min(model.config.vocab_size - 3, 30_000), []
        for name, words in (("one", [1]), ("short", [6]), ("padded-batch", [9, 3, 7]), ("long", [40])):
            prompts = [[self.begin] + [IMAGE] * self.tokens(model) + list(random.integers(3, ordinary, n)) for n in words]
            pixels = random.standard_normal((len(words), 3, side, side)).astype(np.float32)
            case = padded(name, prompts, forced_tokens(random, ordinary, len(words)), {"pixel_values": pixels})
            case.positions = np.broadcast_to(np.arange(case.ids.shape[1]), case.ids.shape)
            cases.append(case)
        random = torch.Generator().manual_seed(seed)
        self.heads, self.found = [], []
        with torch.no_grad():
            for count in (1, 4):
                pixels = torch.randn(1, 3, self.side, self.side, generator=random)
                seen = model.head.see(pixels)
                phrases = openseed.clear(model.head, seen, count, random)
                self.heads.append((pixels, phrases))
                self.found.append((seen, model.head.find(seen, phrases)))
            case = cases[1]
            self.states = model(**self.tokens_of(case)).hidden_states.numpy()
            self.stated = case
            self.seen_names = model.head.SEEN
        return cases

    def verify(self, folder, cases, expected, exactness, dtype):
        report = super().verify(folder, cases, expected, exactness, dtype)
        self.verify_states(self.runner(folder), exactness)
        self.verify_head(folder)
        return report

    def verify_states(self, runner, exactness):
        runner.start(self.stated)
        states = runner.sessions.run("decoder_model_merged", runner.feeds | {
            name: np.zeros_like(runner.empty_cache(1)[name]) for name in runner.cache_ports})["hidden_states"]
        measured = Measured()
        compare(states, self.states, "`hidden_states`", measured)
        error, of = measured.error, "the largest value"
        if exactness in ("int8", "int4"):
            error, of = float(np.linalg.norm(states - self.states) / np.linalg.norm(self.states)), "their length"
        if error > STATES[exactness]:
            raise Refused(f"`hidden_states` differ from transformers by {error:.1e} of {of}; allowed for {exactness} is "
                          f"{STATES[exactness]:g}")

    def verify_head(self, folder):
        from .runner import Sessions
        sessions, measured = Sessions(folder, ("head_vision", "head")), Measured()
        for (pixels, phrases), (seen, (logits, boxes)) in zip(self.heads, self.found):
            got = sessions.run("head_vision", {"pixel_values": pixels.numpy()})
            for name, want in zip(self.seen_names, seen):
                compare(got[name], want.numpy(), f"`{name}`", measured)
            found = sessions.run("head", {**got, "phrase_embeds": phrases.numpy()})
            given = found["pred_logits"], found["pred_boxes"]
            # Of hundreds of queries a few are chosen by a hair, or stand where rounding is blown up.
            told, given = openseed.paired((logits.numpy(), boxes.numpy()), given, SPARED)
            for own, want, name in zip(given, told, ("`pred_logits`", "`pred_boxes`")):
                compare(own, want, name, measured)
            moved = sessions.run("head", {**got, "phrase_embeds": -phrases.numpy()})
            if np.array_equal(moved["pred_logits"], found["pred_logits"]):
                raise Refused("head: `phrase_embeds` has no effect")
        if measured.error > HEAD:
            raise Refused(f"the head differs from torch by {measured.error:.1e} of the largest value in {measured.worst}; "
                          f"allowed is {HEAD:g}")

    def spliced(self, runner, case):
        embeds = runner.embed(np.where(case.ids == IMAGE, 0, case.ids))
        seen = runner.sessions.run("vision_encoder", {"pixel_values": case.images["pixel_values"]})["image_features"]
        return splice(embeds, case.ids == IMAGE, seen.reshape(-1, seen.shape[2])), {}

    def step_extra(self, runner, batch, length):
        return {"position_ids": np.broadcast_to(runner.past + np.arange(length), (batch, length))}

    def changes(self, runner, feeds, random):
        # Equal shifts change nothing here: angles are relative to one another.
        yield "position_ids", feeds["position_ids"] * 2 + 1, "`position_ids`"
        hidden = np.array(feeds["attention_mask"])
        hidden[:, -2] = 0
        yield "attention_mask", hidden, "`attention_mask`"

    def vision_changes(self, case):
        pixels = case.images["pixel_values"]
        for i in range(len(pixels)):
            changed = pixels.copy()
            changed[i, 0, 0] += 1
            yield f"picture {i} of the batch", {"pixel_values": pixels}, {"pixel_values": changed}

    def settings(self, model, source):
        text, vision = model.config, model.tower.config
        queries = model.head.queries
        return {
            # detectron2's `ResizeScale` and `FixedSizeCrop`: grey of 128 beside the picture.
            "input": {"fit": "corner", "width": self.side, "height": self.side, "pad": 128, "resample": "bilinear",
                      "scale": 1.0, "mean": [123.675, 116.28, 103.53], "std": [58.395, 57.12, 57.375]},
            "look": {"fit": "centre", "width": vision.image_size, "height": vision.image_size, **source.normalisation()},
            "limits": {"context": text.max_position_embeddings, "image_tokens": self.tokens(model),
                       "answer_tokens": self.most, "max_batch": 1},
            "scores": {"objectness": 0.0, "match": 0.2, "nms_iou": 1.0},
            "grounding": {"prompt": PROMPT, "mark": MARK, "around": AROUND, "boxes": queries},
            "decoder": {
                "layers": text.num_hidden_layers, "kv_heads": text.num_key_value_heads,
                "head_dim": text.hidden_size // text.num_attention_heads, "hidden": text.hidden_size,
                "vocabulary": text.vocab_size, "positions": "from-zero",
            },
            "tokens": {"begin": self.begin},
        }
