"""OpenSeeD's published head, as LLaVA-Grounding runs it: a Swin tower, an encoder and a decoder with deformable attention
(Zhang et al. 2023, OpenSeeD; Li et al. 2023, MaskDINO; Zhu et al. 2021, Deformable DETR), without its masks. Written from the
published description, so neither detectron2 nor a compiled operator is needed; parameters have the names that the checkpoint
gives them, after `seg_model.model.`.

Levels are maps of cells of 8, 16, 32 and 64 pixels. The encoder has the finest first and the decoder the coarsest.
"""

import math
import re

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from .errors import Refused
from .openseed_swin import Swin, tree

STRIDES = (8, 16, 32, 64)
# Of each level and head; not a setting of the published code.
POINTS = 4
END = math.log(1e5)
# What no tensor shows, as published: `NUM_OBJECT_QUERIES` and `IMAGE_SIZE` of LLaVA-Grounding's configuration.
QUERIES, SIDE = 300, 1024
# Masks, losses, and the pixels' norm, which is in `model.toml`; modules that the checkpoint has under two names.
UNREAD = re.compile(r"criterion\.|pixel_(mean|std)$|backbone\.norm0\.|.*relative_position_index$|"
                    r"sem_seg_head\.pixel_decoder\.(mask_features|adapter_1|layer_1)\.|"
                    r"sem_seg_head\.predictor\.(lang_mapper$|mask_embed\.|bbox_embed\.|decoder\.(bbox_embed|norm)\.)")
TWICE = (("_bbox_embed.", ("bbox_embed.0.", "decoder.bbox_embed.0.")), ("decoder_norm.", ("decoder.norm.",)))


def mlp(*widths):
    return tree(layers=nn.ModuleList(nn.Linear(a, b) for a, b in zip(widths, widths[1:])))


def through(own, x):
    *first, last = own["layers"]
    for layer in first:
        x = F.relu(layer(x))
    return last(x)


def waves(at, width):
    """Fractions [..., n] as sines and cosines in turn, [..., n, width]."""
    slow = 10000 ** (2 * (torch.arange(width) // 2) / width)
    at = at[..., None] * (2 * math.pi) / slow
    return torch.stack([at[..., 0::2].sin(), at[..., 1::2].cos()], dim=-1).flatten(-2)


def grid(cells):
    """Centres of the cells of a square map, (x, y) in fractions, row by row."""
    y, x = torch.meshgrid(torch.arange(cells), torch.arange(cells), indexing="ij")
    return (torch.stack([x, y], dim=-1).reshape(-1, 2) + 0.5) / cells


class Deformable(nn.Module):
    """Attention to a few points beside a place in each level: Zhu et al. 2021 (arXiv 2010.04159), equation 3, which sums
    equation 2 over the levels; between cells values are mixed linearly, and outside the map they are zero."""

    def __init__(self, width, heads, levels):
        super().__init__()
        self.heads = heads
        self.sampling_offsets = nn.Linear(width, heads * levels * POINTS * 2)
        self.attention_weights = nn.Linear(width, heads * levels * POINTS)
        self.value_proj, self.output_proj = nn.Linear(width, width), nn.Linear(width, width)

    def forward(self, query, place, reach, memory, cells):
        """query [1, n, width], place [n, 2], reach [n or 1, levels or 1, 2]: how far an offset of one is, in fractions;
        memory [1, all cells, width] of maps with `cells` a side."""
        n, heads, levels = query.shape[1], self.heads, len(cells)
        offsets = self.sampling_offsets(query).reshape(n, heads, levels, POINTS, 2)
        weights = torch.softmax(self.attention_weights(query).reshape(n, heads, levels * POINTS), dim=-1)
        weights = weights.reshape(n, heads, levels, POINTS).permute(2, 1, 0, 3)
        at = place[:, None, None, None] + offsets * reach[:, None, :, None]
        at = (2 * at - 1).permute(2, 1, 0, 3, 4)
        maps = self.value_proj(memory)[0].split([side * side for side in cells])
        mixed = 0
        for level, side in enumerate(cells):
            values = maps[level].reshape(side, side, heads, -1).permute(2, 3, 0, 1)
            taken = F.grid_sample(values, at[level], "bilinear", "zeros", align_corners=False)
            mixed = mixed + (taken * weights[level][:, None]).sum(-1)
        return self.output_proj(mixed.permute(2, 0, 1).reshape(1, n, -1))


class EncoderLayer(nn.Module):
    def __init__(self, width, heads, hidden):
        super().__init__()
        self.self_attn = Deformable(width, heads, len(STRIDES))
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.linear1, self.linear2 = nn.Linear(width, hidden), nn.Linear(hidden, width)

    def forward(self, x, where, place, reach, cells):
        x = self.norm1(x + self.self_attn(x + where, place, reach, x, cells))
        return self.norm2(x + self.linear2(F.relu(self.linear1(x))))


class Transformer(nn.Module):
    def __init__(self, width, heads, hidden, layers, cells):
        super().__init__()
        self.cells = cells
        self.level_embed = nn.Parameter(torch.zeros(len(cells), width))
        self.encoder = tree(layers=nn.ModuleList(EncoderLayer(width, heads, hidden) for _ in range(layers)))
        place = [grid(side) for side in cells]
        # Places count from 1 here, and the last is a whole turn.
        last = [(at * side + 0.5) / (side + 1e-6) for at, side in zip(place, cells)]
        where = torch.cat([waves(at.flip(-1), width // 2).flatten(1) for at in last])
        level = torch.cat([torch.full((side * side,), i) for i, side in enumerate(cells)])
        self.register_buffer("place", torch.cat(place), persistent=False)
        self.register_buffer("where", where[None], persistent=False)
        self.register_buffer("level", level, persistent=False)
        self.register_buffer("reach", 1 / torch.tensor(cells)[None, :, None].expand(1, -1, 2), persistent=False)

    def forward(self, maps):
        x = torch.cat([level.flatten(2).transpose(1, 2) for level in maps], dim=1)
        where = self.where + self.level_embed[self.level]
        for layer in self.encoder["layers"]:
            x = layer(x, where, self.place, self.reach, self.cells)
        return x


class Encoder(nn.Module):
    def __init__(self, channels, width, heads, hidden, layers, cells):
        super().__init__()
        convs = [nn.Conv2d(c, width, 1) for c in channels] + [nn.Conv2d(channels[-1], width, 3, 2, 1)]
        self.input_proj = nn.ModuleList(nn.Sequential(conv, nn.GroupNorm(32, width)) for conv in convs)
        self.transformer = Transformer(width, heads, hidden, layers, cells)

    def forward(self, maps):
        """-> [1, all cells, width], the coarsest level first"""
        maps = [make(level) for make, level in zip(self.input_proj, [*maps, maps[-1]])]
        found = self.transformer(maps).split([side * side for side in self.transformer.cells], dim=1)
        return torch.cat(found[::-1], dim=1)


class DecoderLayer(nn.Module):
    def __init__(self, width, heads, hidden):
        super().__init__()
        self.self_attn = nn.MultiheadAttention(width, heads, batch_first=True)
        self.cross_attn = Deformable(width, heads, len(STRIDES))
        self.norm1, self.norm2, self.norm3 = (nn.LayerNorm(width) for _ in range(3))
        self.linear1, self.linear2 = nn.Linear(width, hidden), nn.Linear(hidden, width)

    def forward(self, x, where, boxes, memory, cells):
        asked = x + where
        x = self.norm2(x + self.self_attn(asked, asked, x, need_weights=False)[0])
        reach = boxes[0, :, None, 2:] * (0.5 / POINTS)
        x = self.norm1(x + self.cross_attn(x + where, boxes[0, :, :2], reach, memory, cells))
        return self.norm3(x + self.linear2(F.relu(self.linear1(x))))


class Predictor(nn.Module):
    def __init__(self, width, phrase, heads, hidden, layers, cells, queries):
        super().__init__()
        self.cells, self.queries = cells, queries
        self.enc_output, self.enc_output_norm = nn.Linear(width, width), nn.LayerNorm(width)
        self.class_embed = nn.Parameter(torch.zeros(width, phrase))
        self.logit_scale = nn.Parameter(torch.tensor(1.0))
        self._bbox_embed = mlp(width, width, width, 4)
        self.decoder_norm = nn.LayerNorm(width)
        self.decoder = tree(ref_point_head=mlp(2 * width, width, width),
                            layers=nn.ModuleList(DecoderLayer(width, heads, hidden) for _ in range(layers)))
        # A box a cell to begin with, larger by level; those too near an edge are not offered.
        boxes = torch.cat([torch.cat([grid(side), torch.full((side * side, 2), 0.05 * 2 ** i)], dim=1)
                           for i, side in enumerate(cells)])
        kept = ((boxes > 0.01) & (boxes < 0.99)).all(-1)
        if kept.sum() < queries:
            raise Refused(f"OpenSeeD's head: {queries} boxes are to be found and a picture of this side offers {kept.sum()}")
        self.register_buffer("begin", torch.logit(boxes)[None], persistent=False)
        self.register_buffer("closed", torch.where(kept, 0.0, -torch.inf)[None], persistent=False)

    def lengths(self, x):
        """Of x · class_embed, without its thousands of numbers: the transposed matrix is Q · R, and Q keeps lengths."""
        r = np.linalg.qr(self.class_embed.detach().double().numpy().T, mode="r")
        return (x @ torch.from_numpy(r.T.copy()).to(x.dtype)).norm(dim=-1, keepdim=True)

    def likeness(self, x, lengths, phrases):
        return x @ (self.class_embed @ phrases.transpose(1, 2)) * (self.logit_scale.exp() / (lengths + 1e-7))

    def offer(self, memory):
        offered = self.enc_output_norm(self.enc_output(memory))
        return memory, offered, self.lengths(offered)

    def offers(self, seen, phrases):
        """How well each cell fits the phrase that it fits best, [1, cells]."""
        return self.likeness(seen[1], seen[2], phrases).amax(-1) + self.closed

    def forward(self, seen, phrases):
        memory, offered, _ = seen
        best = self.offers(seen, phrases).topk(self.queries, dim=1).indices[..., None]
        x = offered.gather(1, best.expand(-1, -1, offered.shape[-1]))
        place = through(self._bbox_embed, x) + self.begin.gather(1, best.expand(-1, -1, 4))
        width = x.shape[-1] // 2
        for layer in self.decoder["layers"]:
            # The original goes through the sigmoid and back between layers, and stops at 1e-5 from either end. Logits say
            # the same with no loss near the ends, where runtimes' sigmoids round differently.
            boxes, before = torch.sigmoid(place), place.clamp(-END, END)
            # y, x, width, height
            spread = waves(torch.stack([boxes[..., i] for i in (1, 0, 2, 3)], dim=-1), width).flatten(-2)
            x = layer(x, through(self.decoder["ref_point_head"], spread), boxes, memory, self.cells)
            place = through(self._bbox_embed, x) + before
        # The last boxes are of the normed state, from where the last layer began; what is likened is normed twice.
        x = self.decoder_norm(x)
        boxes = torch.sigmoid(through(self._bbox_embed, x) + before)
        x = self.decoder_norm(x)
        return self.likeness(x, self.lengths(x), phrases), boxes


class Published(nn.Module):
    SEEN = ("memory", "offered", "lengths")

    def __init__(self, side, queries, tower, channels, width, phrase, encoder, decoder):
        super().__init__()
        if side % STRIDES[-1]:
            raise Refused(f"OpenSeeD's head: a side of {side} pixels is not a multiple of {STRIDES[-1]}")
        self.side, self.queries, self.width = side, queries, phrase
        cells = [side // stride for stride in STRIDES]
        self.backbone = Swin(*tower, side)
        self.sem_seg_head = tree(
            pixel_decoder=Encoder(channels, width, *encoder, cells),
            predictor=Predictor(width, phrase, *decoder, cells[::-1], queries))

    def see(self, pixels):
        return self.sem_seg_head["predictor"].offer(self.sem_seg_head["pixel_decoder"](self.backbone(pixels)))

    def says(self, seen, cells):
        """What some cells are likened by to phrases, [1, cells, width]."""
        return seen[1][:, cells] @ self.sem_seg_head["predictor"].class_embed

    def offers(self, seen, phrases):
        return self.sem_seg_head["predictor"].offers(seen, phrases)

    def find(self, seen, phrases):
        return self.sem_seg_head["predictor"](seen, phrases)


def many(state, before):
    """How many numbered parts there are under a name."""
    found = {name[len(before):].split(".")[0] for name in state if name.startswith(before)}
    return len(found)


def settle(state):
    """Names of a checkpoint's head as `Published` has them; modules known by two names may come under either."""
    state = dict(state)
    for name, others in TWICE:
        own = "sem_seg_head.predictor." + name
        for other in others:
            there = "sem_seg_head.predictor." + other
            for key in [key for key in state if key.startswith(there)]:
                state.setdefault(own + key[len(there):], state[key])
    return state


def build(state, side=SIDE, queries=QUERIES):
    """The module that these tensors are of, by their shapes; refuses what it is not."""
    def rows(name, axis=0):
        if name not in state:
            raise Refused(f"`seg_model.model.{name}` is missing: not OpenSeeD's head with a Swin tower, as LLaVA-Grounding "
                          "publishes it")
        return state[name].shape[axis]

    block, layer = "backbone.layers.{}.blocks.0.", "sem_seg_head.{}.layers.0."
    stages = [(many(state, f"backbone.layers.{i}.blocks."),
               rows(block.format(i) + "attn.relative_position_bias_table", 1), rows(block.format(i) + "mlp.fc1.weight"))
              for i in range(many(state, "backbone.layers."))]
    window = (math.isqrt(rows(block.format(0) + "attn.relative_position_bias_table")) + 1) // 2
    thin = rows("backbone.patch_embed.proj.weight")
    layers = []
    for name, attention in (("pixel_decoder.transformer.encoder", "self_attn"), ("predictor.decoder", "cross_attn")):
        heads = rows(f"{layer.format(name)}{attention}.attention_weights.weight") // (len(STRIDES) * POINTS)
        layers.append((heads, rows(layer.format(name) + "linear1.weight"), many(state, f"sem_seg_head.{name}.layers.")))
    head = Published(side, queries, (thin, stages, window), [thin << i for i in range(1, len(stages))],
                     *(rows("sem_seg_head.predictor.class_embed", axis) for axis in (0, 1)), *layers)
    # A part that is not built would be left out in silence.
    known = set(head.state_dict())
    strange = sorted(name for name in state if name not in known and not UNREAD.match(name))
    if strange:
        raise Refused(f"`seg_model.model.{strange[0]}` is not of OpenSeeD's head as LLaVA-Grounding publishes it")
    return head
