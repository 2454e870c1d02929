"""The decoder-only language model that Qwen and Gemma checkpoints share, as one graph for prefill and cached steps."""

import torch
from torch import nn

from . import blocks
from .errors import Refused
from .family import Graph


def rotary_rows(sections, interleaved):
    """Which of the three position rows (time, height, width) turns each rotary pair."""
    if not interleaved:
        return [row for row, size in enumerate(sections) for _ in range(size)]
    rows = [0] * sum(sections)
    for row in (1, 2):
        rows[row:sections[row] * 3:3] = [row] * len(rows[row:sections[row] * 3:3])
    return rows


class Decoder(nn.Module):
    """inputs_embeds, attention_mask, position_ids, num_logits_to_keep[, deepstack_embeds], cache -> logits[,
    hidden_states], cache."""

    def __init__(self, text, head, rows=None, deepstack=0, scale=1.0, bidirectional_prefill=False,
                 states=False):
        super().__init__()
        config = text.config
        rotary = text.rotary_emb
        kind = getattr(rotary, "rope_type", "default")
        if kind in ("dynamic", "longrope"):
            raise Refused(f"config.json: rope type `{kind}` changes with the length of the text and cannot be "
                          "exported; set rope_scaling to a static type")
        self.text, self.head = text, head
        self.layers_count, self.deepstack = config.num_hidden_layers, deepstack
        self.count, self.kv_count = config.num_attention_heads, config.num_key_value_heads
        self.dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        self.eps, self.input_scale = config.rms_norm_eps, scale
        # Gemma stores its norms' weights less one.
        self.offset = 1.0 if config.model_type.startswith("gemma") else 0.0
        self.score_scale = text.layers[0].self_attn.scaling
        self.softcap = getattr(config, "attn_logit_softcapping", None)
        self.logit_softcap = getattr(config, "final_logit_softcapping", None)
        self.bidirectional_prefill, self.states = bidirectional_prefill, states
        self.register_buffer("frequencies", rotary.inv_freq.float().clone(), persistent=False)
        self.rotary_scale = float(getattr(rotary, "attention_scaling", 1.0))
        self.register_buffer("rows", None if rows is None else torch.tensor(rows), persistent=False)

    def cache_dtype(self):
        return self.text.layers[0].self_attn.k_proj.weight.dtype

    def norm(self, layer, x):
        return blocks.rms_norm(x, layer.weight.float() + self.offset, self.eps)

    def angles(self, positions):
        """Products, not a matrix product: GPUs may round those to ten bits, and positions go past a thousand."""
        if self.rows is None:
            turns = positions[:, :, None].float() * self.frequencies
        else:
            turns = positions.float().index_select(0, self.rows).permute(1, 2, 0) * self.frequencies
        turns = torch.cat((turns, turns), dim=-1)[:, None]
        return turns.cos() * self.rotary_scale, turns.sin() * self.rotary_scale

    def bias(self, mask, length, past):
        seen = blocks.causal(length, past)
        if self.bidirectional_prefill:
            # Image and prompt see each other both ways: whatever is fed with an empty cache is that prefix.
            seen = seen | (torch.as_tensor(past) == 0)
        visible = seen[None, None] & (mask[:, None, None, :] > 0)
        return (~visible).float() * blocks.MASKED

    def attend(self, layer, x, cos, sin, bias, past_key, past_value):
        own = layer.self_attn
        q, k, v = (blocks.heads(blocks.linear(p, x), n, self.dim) for p, n in (
            (own.q_proj, self.count), (own.k_proj, self.kv_count), (own.v_proj, self.kv_count)))
        if hasattr(own, "q_norm"):
            q, k = self.norm(own.q_norm, q).to(v.dtype), self.norm(own.k_norm, k).to(v.dtype)
        key = blocks.extend(past_key, blocks.rotate(k, cos, sin))
        value = blocks.extend(past_value, v)
        mixed = blocks.attention(blocks.rotate(q, cos, sin), key, value, bias, self.score_scale, self.softcap)
        return blocks.linear(own.o_proj, mixed).float(), key, value

    def feed(self, mlp, x):
        return blocks.linear(mlp.down_proj, mlp.act_fn(blocks.linear(mlp.gate_proj, x)) * blocks.linear(mlp.up_proj, x))

    def forward(self, inputs_embeds, attention_mask, position_ids, num_logits_to_keep, *rest):
        deepstack, cache = (rest[0], rest[1:]) if self.deepstack else (None, rest)
        x = inputs_embeds.float() * self.input_scale
        length, past = x.shape[1], cache[0].shape[2]
        cos, sin = self.angles(position_ids)
        bias = self.bias(attention_mask, length, past)
        present = []
        for i, layer in enumerate(self.text.layers[:self.layers_count]):
            mixed, key, value = self.attend(
                layer, self.norm(layer.input_layernorm, x), cos, sin, bias, cache[2 * i], cache[2 * i + 1])
            present += [key, value]
            if hasattr(layer, "pre_feedforward_layernorm"):
                x = x + self.norm(layer.post_attention_layernorm, mixed)
                fed = self.feed(layer.mlp, self.norm(layer.pre_feedforward_layernorm, x))
                x = x + self.norm(layer.post_feedforward_layernorm, fed)
            else:
                x = x + mixed
                x = x + self.feed(layer.mlp, self.norm(layer.post_attention_layernorm, x)).float()
            if i < self.deepstack:
                x = x + deepstack[i]
        # The vocabulary is most of the work: only the positions that are asked for reach it. 0 keeps all.
        kept = x[:, -num_logits_to_keep:]
        normed = self.norm(self.text.norm, kept)
        logits = blocks.linear(self.head, normed).float()
        if self.logit_softcap is not None:
            logits = torch.tanh(logits / self.logit_softcap) * self.logit_softcap
        return (logits, normed, *present) if self.states else (logits, *present)


class Embed(nn.Module):
    """input_ids -> inputs_embeds"""

    def __init__(self, embedding, scale=1.0):
        super().__init__()
        self.embedding, self.scale = embedding, scale

    def forward(self, input_ids):
        found = nn.functional.embedding(input_ids, self.embedding.weight).float()
        return found if self.scale == 1.0 else found * self.scale


def cache_names(layers):
    """Input and output names of the cache, in the order the decoder takes and gives it."""
    kinds = [(i, kind) for i in range(layers) for kind in ("key", "value")]
    return [f"past_key_values.{i}.{k}" for i, k in kinds], [f"present.{i}.{k}" for i, k in kinds]


def embed_graph(embedding, scale=1.0):
    return Graph("embed_tokens", Embed(embedding, scale), {"input_ids": torch.randint(0, 9, (2, 3))},
                 ["inputs_embeds"], {n: {0: "batch", 1: "sequence"} for n in ("input_ids", "inputs_embeds")})


def ports(body, layers, hidden, positions, positions_name):
    """Sample inputs, output names and free axes of a decoder-only graph: batch 2, 5 tokens seen, 3 new."""
    taken, given = cache_names(layers)
    inputs = {
        "inputs_embeds": torch.randn(2, 3, hidden), "attention_mask": torch.ones(2, 8, dtype=torch.long),
        positions_name: positions, "num_logits_to_keep": torch.tensor(2),
        **{name: torch.randn(2, body.kv_count, 5, body.dim).to(body.cache_dtype()) for name in taken},
    }
    free = {"inputs_embeds": {0: "batch", 1: "sequence"}, "attention_mask": {0: "batch", 1: "total"},
            positions_name: {positions.dim() - 2: "batch", positions.dim() - 1: "sequence"},
            "logits": {0: "batch", 1: "kept"}}
    free |= {name: {0: "batch", 2: "past"} for name in taken} | {name: {0: "batch", 2: "total"} for name in given}
    if body.states:
        free["hidden_states"] = {0: "batch", 1: "kept"}
    return inputs, ["logits", *(["hidden_states"] if body.states else []), *given], free
