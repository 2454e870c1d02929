"""PaliGemma 1 and 2: a SigLIP tower of fixed size before a Gemma decoder whose prompt is seen both ways."""

import numpy as np
import torch
from torch import nn
from transformers import PaliGemmaForConditionalGeneration

from . import blocks, decoder
from .errors import Refused
from .family import BATCH, Family, Graph, forced_tokens, padded, splice

LOCATIONS, SEGMENTS = 1024, 128


class Tower(nn.Module):
    """pixel_values -> image_features, as the decoder's embeddings are: before Gemma's factor."""

    def __init__(self, model):
        super().__init__()
        self.vision, self.projector = model.vision_tower.vision_model, model.multi_modal_projector.linear
        self.count = self.vision.config.num_attention_heads
        self.scale = model.config.text_config.hidden_size ** 0.5

    def attend(self, own, x):
        q, k, v = (blocks.heads(blocks.linear(p, x), self.count, own.head_dim)
                   for p in (own.q_proj, own.k_proj, own.v_proj))
        return blocks.linear(own.out_proj, blocks.attention(q, k, v, None, own.scale)).float()

    def forward(self, pixel_values):
        places = self.vision.embeddings
        x = blocks.conv(places.patch_embedding, pixel_values).flatten(2).transpose(1, 2)
        x = x + places.position_embedding.weight.float()
        for layer in self.vision.encoder.layers:
            x = x + self.attend(layer.self_attn, blocks.layer_norm(layer.layer_norm1, x))
            fed = layer.mlp.activation_fn(blocks.linear(layer.mlp.fc1, blocks.layer_norm(layer.layer_norm2, x)))
            x = x + blocks.linear(layer.mlp.fc2, fed).float()
        x = blocks.layer_norm(self.vision.post_layernorm, x)
        return blocks.linear(self.projector, x).float() / self.scale


class PaliGemma(Family):
    name = "paligemma"
    model_type = "paligemma"
    hub_example = "google/paligemma2-3b-mix-448"
    model_class = PaliGemmaForConditionalGeneration
    methods = ("bins",)

    def prepare(self, model, source):
        self.image_token = model.config.image_token_id
        return model

    def graphs(self, model):
        text, side = model.model.language_model, model.config.vision_config.image_size
        scale = text.config.hidden_size ** 0.5
        yield Graph("vision_encoder", Tower(model.model), {"pixel_values": torch.randn(2, 3, side, side)},
                    ["image_features"], {"pixel_values": {0: "batch"}, "image_features": {0: "batch"}})
        yield decoder.embed_graph(text.embed_tokens)
        body = decoder.Decoder(text, model.lm_head, scale=scale, bidirectional_prefill=True)
        positions = torch.tensor([[6, 7, 8], [4, 5, 6]])
        inputs, outputs, axes = decoder.ports(
            body, text.config.num_hidden_layers, text.config.hidden_size, positions, "position_ids")
        yield Graph("decoder_model_merged", body, inputs, outputs, axes)

    def cases(self, model, seed=1):
        """One length and several: transformers counts positions over the padding too, and so does this check."""
        random, side = np.random.default_rng(seed), model.config.vision_config.image_size
        ordinary = min(model.config.text_config.vocab_size, self.image_token, 50_000)
        tokens = (side // model.config.vision_config.patch_size) ** 2
        cases = []
        for name, words in (("one", [1]), ("short", [6]), ("padded-batch", [9, 3, 7]), ("long", [40])):
            prompts = [[self.image_token] * tokens + list(random.integers(0, ordinary, count)) for count in words]
            pixels = random.standard_normal((len(words), 3, side, side)).astype(np.float32)
            case = padded(name, prompts, forced_tokens(random, ordinary, len(words)), {"pixel_values": pixels})
            cases.append(self.placed(model, case))
        return cases

    def placed(self, model, case):
        """Positions count from one."""
        batch, length = case.ids.shape
        case.positions = np.broadcast_to(np.arange(1, length + 1), (batch, length))
        return case

    def reference(self, model, case, greedy=0):
        """transformers 4.57 leaves out Gemma 2's last step, though the model was trained with it: logits are bent
        towards a limit. The best token stays the best; its probability does not, and zoom asks for that."""
        expected, limit = super().reference(model, case, greedy), model.config.text_config.to_dict().get(
            "final_logit_softcapping")
        if limit is not None:
            expected.prompt, expected.steps = (np.tanh(x / limit) * limit for x in (expected.prompt, expected.steps))
        return expected

    def spliced(self, runner, case):
        embeds = runner.embed(np.where(case.ids == self.image_token, 0, case.ids))
        seen = runner.sessions.run("vision_encoder", {"pixel_values": case.images["pixel_values"]})["image_features"]
        return splice(embeds, case.ids == self.image_token, seen.reshape(-1, seen.shape[2])), {}

    def step_extra(self, runner, batch, length):
        return {"position_ids": np.broadcast_to(runner.past + 1 + np.arange(length), (batch, length))}

    def changes(self, runner, feeds, random):
        yield "position_ids", feeds["position_ids"] + 3, "`position_ids`"
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
        text, vision = model.config.text_config, model.config.vision_config
        tokens = (vision.image_size // vision.patch_size) ** 2
        context = text.max_position_embeddings
        if "sliding_attention" in (getattr(text, "layer_types", None) or []):
            # Below its window a sliding layer sees everything, as the exported graph does.
            context = min(context, text.sliding_window)
        if tokens >= context:
            raise Refused(f"config.json: a picture's {tokens} tokens do not fit in {context}; take a checkpoint of a "
                          "smaller image_size")
        return {
            "input": {"fit": "stretch", "width": vision.image_size, "height": vision.image_size,
                      **source.normalisation(), "coordinates": "bins-yxyx"},
            "limits": {"context": context, "image_tokens": tokens, "max_batch": BATCH},
            "decoder": {
                "layers": text.num_hidden_layers, "kv_heads": text.num_key_value_heads, "head_dim": text.head_dim,
                "hidden": text.hidden_size, "vocabulary": text.vocab_size, "positions": "from-one",
            },
            "tokens": {
                "image": model.config.image_token_id, "begin": source.token("<bos>"),
                **source.run("location", "<loc{:04}>", LOCATIONS), **source.run("segment", "<seg{:03}>", SEGMENTS),
            },
        }
