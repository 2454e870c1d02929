"""Florence-2: a DaViT tower of fixed size, and BART's encoder and decoder."""

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F
from transformers import Florence2ForConditionalGeneration
from transformers.modeling_outputs import BaseModelOutput

from . import blocks, decoder
from .errors import Refused
from .family import BATCH, Case, Expected, Family, Graph, forced_tokens, splice
from .florence2_vision import Tower, sides
from .runner import Runner

LOCATIONS = 1000
KINDS = ("decoder.key", "decoder.value", "encoder.key", "encoder.value")


class Bart(nn.Module):
    def __init__(self, stack):
        super().__init__()
        self.stack, self.count = stack, stack.layers[0].self_attn.num_heads

    def embed(self, inputs_embeds, past):
        # BART's table of positions starts with two that are never used.
        at = torch.arange(inputs_embeds.shape[1]) + past + self.stack.embed_positions.offset
        x = inputs_embeds.float() + F.embedding(at, self.stack.embed_positions.weight).float()
        return blocks.layer_norm(self.stack.layernorm_embedding, x)

    def parts(self, own, x):
        return tuple(blocks.heads(blocks.linear(p, x), self.count, own.head_dim) for p in (own.k_proj, own.v_proj))

    def attend(self, own, x, key, value, bias):
        query = blocks.heads(blocks.linear(own.q_proj, x), self.count, own.head_dim)
        return blocks.linear(own.out_proj, blocks.attention(query, key, value, bias, own.scaling)).float()

    def feed(self, layer, x):
        fed = blocks.linear(layer.fc2, layer.activation_fn(blocks.linear(layer.fc1, x))).float()
        return blocks.layer_norm(layer.final_layer_norm, x + fed)


class Encoder(Bart):
    """inputs_embeds, attention_mask -> last_hidden_state"""

    def forward(self, inputs_embeds, attention_mask):
        x, bias = self.embed(inputs_embeds, 0), blocks.key_bias(attention_mask)
        for layer in self.stack.layers:
            mixed = self.attend(layer.self_attn, x, *self.parts(layer.self_attn, x), bias)
            x = self.feed(layer, blocks.layer_norm(layer.self_attn_layer_norm, x + mixed))
        return x


class Decoder(Bart):
    """One graph for the first step and the cached ones.

    With `use_cache_branch` false the encoder's keys and values are computed from its states; with true none of the
    states is used, and they come from the cache. Either way they are `past` followed by the new: no branch is needed.
    """

    def __init__(self, stack, head):
        super().__init__(stack)
        self.head = head

    def forward(self, encoder_attention_mask, encoder_hidden_states, inputs_embeds, use_cache_branch, *cache):
        past = cache[0].shape[2]
        x = self.embed(inputs_embeds, past)
        own_bias = (~blocks.causal(inputs_embeds.shape[1], past)).float()[None, None] * blocks.MASKED
        their_bias = blocks.key_bias(encoder_attention_mask)
        fresh = encoder_hidden_states.shape[1] * (1 - use_cache_branch.long()[0])
        states = encoder_hidden_states[:, :fresh]
        present = []
        for i, layer in enumerate(self.stack.layers):
            own, theirs = layer.self_attn, layer.encoder_attn
            kept = [blocks.extend(old, new) for old, new in zip(
                cache[4 * i:4 * i + 4], (*self.parts(own, x), *self.parts(theirs, states)))]
            present += kept
            x = blocks.layer_norm(layer.self_attn_layer_norm, x + self.attend(own, x, kept[0], kept[1], own_bias))
            mixed = self.attend(theirs, x, kept[2], kept[3], their_bias)
            x = self.feed(layer, blocks.layer_norm(layer.encoder_attn_layer_norm, x + mixed))
        return (blocks.linear(self.head, x).float(), *present)


class SeqRunner(Runner):
    roles = (*Runner.roles, "encoder_model")

    def decode(self, feeds):
        """The encoder's part of the cache is taken from the first step, as published exports ask."""
        held = {name: kept for name, kept in self.cache.items() if ".encoder." in name and kept.shape[2]}
        logits = super().decode(feeds)
        self.cache.update(held)
        return logits

    def start(self, case, keep=0):
        embeds, _ = self.family.spliced(self, case)
        self.case, self.mask = case, case.mask
        self.states = self.sessions.run(
            "encoder_model", {"inputs_embeds": embeds, "attention_mask": case.mask})["last_hidden_state"]
        self.cache = self.empty_cache(len(case.ids))
        return self.piece(np.full((len(case.ids), 1), self.family.first_token), cached=False)

    def step(self, tokens, keep=0):
        return self.piece(tokens, cached=True)

    def piece(self, tokens, cached):
        return self.decode({"encoder_attention_mask": self.mask, "encoder_hidden_states": self.states,
                            "inputs_embeds": self.embed(tokens), "use_cache_branch": np.array([cached])})


class Florence2(Family):
    name = "florence-2"
    model_type = "florence2"
    hub_example = "florence-community/Florence-2-base-ft"
    model_class = Florence2ForConditionalGeneration
    methods = ("bins",)

    def runner(self, folder):
        return SeqRunner(folder, self)

    def prepare(self, model, source):
        text, picture = model.config.text_config, source.preprocessor
        size = picture.get("crop_size") or picture.get("size", {})
        if not size.get("height") or size.get("height") != size.get("width"):
            raise Refused(f"{source.folder / 'preprocessor_config.json'}: `size` should be a height and an equal width")
        self.side = size["height"]
        self.image_tokens = sides(model.model.vision_tower, self.side)[-1] ** 2 + 1
        self.image_token, self.first_token = model.config.image_token_id, text.decoder_start_token_id
        return model

    def graphs(self, model):
        text = model.model.language_model
        config, head = text.config, model.lm_head
        hidden, count = config.d_model, config.decoder_attention_heads
        pixels = {"pixel_values": torch.randn(2, 3, self.side, self.side)}
        yield Graph("vision_encoder", Tower(model.model, self.side), pixels, ["image_features"],
                    {"pixel_values": {0: "batch"}, "image_features": {0: "batch"}})
        yield decoder.embed_graph(text.shared, float(text.encoder.embed_tokens.embed_scale))
        yield Graph(
            "encoder_model", Encoder(text.encoder),
            {"inputs_embeds": torch.randn(2, 7, hidden), "attention_mask": torch.ones(2, 7, dtype=torch.long)},
            ["last_hidden_state"], {name: {0: "batch", 1: "encoder_sequence"} for name in (
                "inputs_embeds", "attention_mask", "last_hidden_state")})
        names = [f"{i}.{kind}" for i in range(config.decoder_layers) for kind in KINDS]
        dtype = text.decoder.layers[0].self_attn.k_proj.weight.dtype
        inputs = {
            "encoder_attention_mask": torch.ones(2, 11, dtype=torch.long),
            "encoder_hidden_states": torch.randn(2, 7, hidden), "inputs_embeds": torch.randn(2, 3, hidden),
            "use_cache_branch": torch.tensor([False]),
            **{f"past_key_values.{name}": torch.randn(
                2, count, 4 if "encoder." in name else 5, hidden // count).to(dtype) for name in names},
        }
        axes = {"encoder_attention_mask": {0: "batch", 1: "encoder_total"},
                "encoder_hidden_states": {0: "batch", 1: "encoder_sequence"},
                "inputs_embeds": {0: "batch", 1: "sequence"}, "logits": {0: "batch", 1: "sequence"}}
        for name in names:
            part = "encoder_" if "encoder." in name else ""
            axes[f"past_key_values.{name}"] = {0: "batch", 2: f"{part}past"}
            axes[f"present.{name}"] = {0: "batch", 2: f"{part}total"}
        yield Graph("decoder_model_merged", Decoder(text.decoder, head), inputs,
                    ["logits", *(f"present.{name}" for name in names)], axes)

    def cases(self, model, seed=1):
        random, text = np.random.default_rng(seed), model.config.text_config
        ordinary = min(text.vocab_size, self.image_token, 50_000)
        cases = []
        for name, lengths in (("one", [1]), ("short", [5]), ("padded-batch", [9, 4, 7]), ("long", [40])):
            words = max(lengths)
            ids, mask = np.full((len(lengths), words), text.pad_token_id), np.zeros((len(lengths), words), np.int64)
            for row, length in enumerate(lengths):
                ids[row, :length], mask[row, :length] = random.integers(4, ordinary, length), 1
            pixels = random.standard_normal((len(lengths), 3, self.side, self.side)).astype(np.float32)
            cases.append(self.case(name, ids, mask, forced_tokens(random, ordinary, len(lengths)), pixels))
        return cases

    def case(self, name, ids, mask, forced, pixels):
        """Image tokens come first, then the words; padding is on the right."""
        front = np.full((len(ids), self.image_tokens), self.image_token)
        ids, mask = np.concatenate([front, ids], axis=1), np.concatenate([np.ones_like(front), mask], axis=1)
        return Case(name, ids.astype(np.int64), mask.astype(np.int64), forced, {"pixel_values": pixels})

    @torch.no_grad()
    def reference(self, model, case, greedy=0):
        start = torch.full((len(case.ids), 1), self.first_token)
        given = {"attention_mask": torch.from_numpy(case.mask), "use_cache": True}
        out = model(**self.tokens_of(case), decoder_input_ids=start, use_cache=True)
        prompt, last, states = out.logits, out.logits[:, -1], BaseModelOutput(out.encoder_last_hidden_state)
        steps, tokens = [], []
        for i in range(greedy or case.forced.shape[1]):
            token = last.argmax(-1, keepdim=True) if greedy else torch.from_numpy(case.forced[:, i:i + 1])
            out = model(decoder_input_ids=token, encoder_outputs=states, past_key_values=out.past_key_values,
                        cache_position=torch.tensor([i + 1]), **given)
            last = out.logits[:, -1]
            steps.append(last)
            tokens.append(token)
        judged = np.ones((len(case.ids), 1), bool)
        return Expected(prompt.numpy(), torch.stack(steps, dim=1).numpy(), torch.cat(tokens, dim=1).numpy(), judged)

    def spliced(self, runner, case):
        embeds = runner.embed(np.where(case.ids == self.image_token, 0, case.ids))
        seen = runner.sessions.run("vision_encoder", {"pixel_values": case.images["pixel_values"]})["image_features"]
        return splice(embeds, case.ids == self.image_token, seen.reshape(-1, seen.shape[2])), {}

    def changes(self, runner, feeds, random):
        hidden = np.array(feeds["encoder_attention_mask"])
        hidden[:, 1] = 0
        yield "encoder_attention_mask", hidden, "`encoder_attention_mask`"

    def vision_changes(self, case):
        pixels = case.images["pixel_values"]
        for i in range(len(pixels)):
            changed = pixels.copy()
            changed[i, 0, 0] += 1
            yield f"picture {i} of the batch", {"pixel_values": pixels}, {"pixel_values": changed}

    def settings(self, model, source):
        text = model.config.text_config
        return {
            "input": {"fit": "stretch", "width": self.side, "height": self.side, **source.normalisation(),
                      "coordinates": "bins-xyxy"},
            "limits": {"context": text.max_position_embeddings, "image_tokens": self.image_tokens, "max_batch": BATCH},
            "decoder": {
                "layers": text.decoder_layers, "kv_heads": text.decoder_attention_heads,
                "head_dim": text.d_model // text.decoder_attention_heads, "hidden": text.d_model,
                "vocabulary": text.vocab_size, "positions": "in-graph",
            },
            "tokens": {"image": self.image_token, "first": self.first_token,
                       "begin": source.token("<s>"), "pad": text.pad_token_id,
                       **source.run("location", "<loc_{}>", LOCATIONS)},
        }
