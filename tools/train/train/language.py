"""The language side: words are encoded once a query; regions and words then attend jointly.

Text and regions form a bidirectional prefix; task tokens come after it and only read. `<rgn>` is the first such
token. Decoded suffixes (coordinates, bins, yes/no) continue the same sequence, which is why it is laid out this way.
"""

import torch
from torch import nn

from .blocks import Layer, box_features, half_precision, pair_features
from .spec import DIM, HEADS, PAD, TOKENS

LAYERS = 3
HIDDEN = -1e4   # attention bias of what must not be seen; finite, so that a row of nothing stays a number
OFFERED = 0.05  # objectness under which a slot is empty rather than a region


class Text(nn.Module):
    def __init__(self, vocabulary):
        super().__init__()
        self.words = nn.Embedding(vocabulary, DIM)
        self.order = nn.Parameter(torch.randn(TOKENS, DIM) * 0.02)
        self.layers = nn.ModuleList(Layer(DIM, HEADS) for _ in range(2))
        nn.init.normal_(self.words.weight, std=0.3)

    def forward(self, ids):
        hidden = (ids == PAD).to(self.order.dtype)[:, None, None, :] * HIDDEN
        x = self.words(ids) + self.order[: ids.shape[1]]
        with half_precision(self.training):
            for layer in self.layers:
                x = layer(x, hidden)
        return x.float()


class Select(nn.Module):
    """Points from `<rgn>` at the regions that the phrase means, or says that none is meant."""

    def __init__(self):
        super().__init__()
        self.place = nn.Linear(box_features.width + 2, DIM)
        self.kind = nn.Parameter(torch.randn(2, DIM) * 0.02)  # marks words and regions
        self.task = nn.Parameter(torch.randn(1, 1, DIM) * 0.02)
        self.pair = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, LAYERS * HEADS))
        self.layers = nn.ModuleList(Layer(DIM, HEADS) for _ in range(LAYERS))
        self.norm = nn.LayerNorm(DIM)
        self.key, self.query = nn.Linear(DIM, DIM), nn.Linear(DIM, DIM)
        self.own = nn.Linear(DIM, 1)
        self.nothing = nn.Linear(DIM, 1)
        nn.init.constant_(self.own.bias, -2.0)

    def bias(self, boxes, objectness, ids):
        """Per layer [P,heads,T,T] for the sequence words, regions, <rgn>."""
        p, k = objectness.shape
        length = ids.shape[1]
        hidden = torch.cat([(ids == PAD).to(boxes.dtype), (objectness < OFFERED).to(boxes.dtype)], 1)
        hidden = torch.cat([hidden, torch.ones_like(hidden[:, :1])], 1) * HIDDEN  # prefix never reads a task token
        mask = hidden.reshape(p, 1, 1, -1)
        own = torch.zeros(length + k + 1, length + k + 1, device=boxes.device)
        own[-1, -1] = -HIDDEN                                                    # but a task token reads itself
        pairs = self.pair(pair_features(boxes)).permute(0, 3, 1, 2)
        pairs = nn.functional.pad(pairs, (length, 1, length, 1))
        return (pairs + mask + own).reshape(p, LAYERS, HEADS, length + k + 1, length + k + 1)

    def forward(self, regions, boxes, objectness, text, ids):
        """Logits: match [P,K], none [P]."""
        p, k = objectness.shape
        length = ids.shape[1]
        sure = torch.stack([objectness, objectness.clamp(1e-3, 0.999).logit() / 4], -1)
        where = self.place(torch.cat([box_features(boxes), sure], -1))
        x = torch.cat([text + self.kind[0], regions + where + self.kind[1], self.task.expand(p, 1, DIM)], 1)
        bias = self.bias(boxes, objectness, ids)
        with half_precision(self.training):
            for i, layer in enumerate(self.layers):
                x = layer(x, bias[:, i])
        x = self.norm(x.float())
        seen, task = x[:, length:length + k], x[:, -1]
        match = (self.key(seen) * self.query(task).unsqueeze(1)).sum(-1) / DIM**0.5 + self.own(seen).squeeze(-1)
        return match, self.nothing(task).squeeze(-1)
