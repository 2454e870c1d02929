"""The language side: words are encoded once a query, and five ways to answer share what they mean.

`Select` lets regions and words attend to one another and points at the regions that are meant (retrieve; its `none` also answers
whether a crop shows what is asked for, which drives zoom). `Write` reads the regions after that and writes boxes as digits or as
location tokens (coords, bins). `Detect` lets the query's own vector filter every cell of the maps (detector).
"""

import torch
from torch import nn

from .blocks import Layer, Reader, box_features, half_precision, pair_features
from .spec import ANSWERS, DIM, HEADS, MAPS, PAD, TOKENS
from .vision import choose

LAYERS = 2         # of Select; each costs a query about a twentieth of a frame
WRITE_LAYERS = 2
LONGEST = 224      # answer tokens
HIDDEN = -1e4      # attention bias of what must not be seen; finite, so that a row of nothing stays a number
OFFERED = 0.05     # objectness under which a slot is empty rather than a region


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
    """Points at the regions that the phrase means, or says that none is meant.

    The words are only read: regions and one task token, `<rgn>`, attend to words and regions. How two regions lie to one another
    is an attention bias: superlatives and relations are comparisons.
    """

    def __init__(self):
        super().__init__()
        self.place = nn.Linear(box_features.width + 2, DIM)
        self.kind = nn.Parameter(torch.randn(2, DIM) * 0.02)  # marks words and regions
        self.task = nn.Parameter(torch.randn(1, 1, DIM) * 0.02)
        self.pair = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, LAYERS * HEADS))
        self.layers = nn.ModuleList(Reader(DIM, HEADS) for _ in range(LAYERS))
        self.norm = nn.LayerNorm(DIM)
        self.key, self.query = nn.Linear(DIM, DIM), nn.Linear(DIM, DIM)
        self.own = nn.Linear(DIM, 1)
        self.nothing = nn.Linear(DIM, 1)
        self.report = nn.Linear(DIM + box_features.width, DIM)
        nn.init.constant_(self.own.bias, -2.0)

    def bias(self, boxes, objectness, ids):
        """Per layer [P,heads,K+1,L+K+1]: rows regions and <rgn>, columns words, regions and <rgn>."""
        p, k = objectness.shape
        length = ids.shape[1]
        hidden = torch.cat([(ids == PAD).to(boxes.dtype), (objectness < OFFERED).to(boxes.dtype)], 1)
        hidden = torch.cat([hidden, torch.ones_like(hidden[:, :1])], 1) * HIDDEN  # regions never read the task token
        own = torch.zeros(k + 1, length + k + 1, device=boxes.device)
        own[-1, -1] = -HIDDEN                                                    # but it reads itself
        pairs = self.pair(pair_features(boxes)).permute(0, 3, 1, 2)
        pairs = nn.functional.pad(pairs, (length, 1, 0, 1))
        return (pairs + hidden.reshape(p, 1, 1, -1) + own).reshape(p, LAYERS, HEADS, k + 1, length + k + 1)

    def forward(self, regions, boxes, objectness, text, ids):
        """Logits: match [P,K], none [P]; states [P,K,D], the regions as Write reads them."""
        p, k = objectness.shape
        where = box_features(boxes)
        sure = torch.stack([objectness, objectness.clamp(1e-3, 0.999).logit() / 4], -1)
        words = text + self.kind[0]
        x = torch.cat([regions + self.place(torch.cat([where, sure], -1)) + self.kind[1], self.task.expand(p, 1, DIM)], 1)
        bias = self.bias(boxes, objectness, ids)
        with half_precision(self.training):
            for i, layer in enumerate(self.layers):
                x = layer(x, words, bias[:, i])
        x = self.norm(x.float())
        seen, task = x[:, :k], x[:, k]
        match = (self.key(seen) * self.query(task).unsqueeze(1)).sum(-1) / DIM**0.5 + self.own(seen).squeeze(-1)
        return match, self.nothing(task).squeeze(-1), self.report(torch.cat([seen, where], -1))


class Detect(nn.Module):
    """A detection head fed by the query's vector: it filters every cell of every map; the boxes are those of the proposals' regressor."""

    def __init__(self):
        super().__init__()
        self.pool = nn.Linear(DIM, 1)
        self.scale, self.shift = nn.Linear(DIM, DIM), nn.Linear(DIM, DIM)
        self.cell = nn.Conv1d(MAPS + 10, DIM, 1)
        self.deep = nn.Conv1d(DIM, MAPS, 1)
        self.last = nn.Linear(DIM, MAPS)
        self.bias = nn.Parameter(torch.tensor(-3.0))

    def forward(self, cells, places, text, ids):
        """Logit of every cell, [P,N]."""
        weight = (self.pool(text).squeeze(-1) + (ids == PAD).to(text.dtype) * HIDDEN).softmax(1)
        query = (text * weight.unsqueeze(-1)).sum(1)
        low, high = places[:, :2].clamp(0, 1), places[:, 2:].clamp(0, 1)
        where = torch.cat([(low + high) / 2, high - low, ((high - low).prod(1, keepdim=True) + 1e-9).sqrt()], 1)
        x = self.cell(torch.cat([cells, where, where * where], 1))
        x = torch.relu(x * (1 + self.scale(query)).unsqueeze(-1) + self.shift(query).unsqueeze(-1))
        x = torch.relu(self.deep(x))
        return (x * self.last(query).unsqueeze(-1)).sum(1) / MAPS**0.5 + self.bias


class Write(nn.Module):
    """Writes boxes token by token, reading the regions that Select made; keys and values of what is written are handed back and forth."""

    def __init__(self):
        super().__init__()
        self.words = nn.Embedding(len(ANSWERS), DIM)
        self.order = nn.Parameter(torch.randn(LONGEST, DIM) * 0.02)
        self.layers = nn.ModuleList(Reader(DIM, HEADS) for _ in range(2 * WRITE_LAYERS))  # of itself, of the regions, …
        self.norm = nn.LayerNorm(DIM)
        self.say = nn.Linear(DIM, len(ANSWERS))
        nn.init.normal_(self.words.weight, std=0.3)

    def forward(self, states, shown, tokens, past):
        """Logits [P,T,V] and `past` grown by T: [P,2*layers,heads,S+T,D/heads]. `shown` [P,K]: how much each region is meant."""
        p, length = tokens.shape
        before = past.shape[3]
        x = self.words(tokens) + self.order[before:before + length]
        reach = torch.ones(length, before + length, device=states.device).triu(before + 1) * HIDDEN
        meant = (shown.clamp(1e-3, 1.0).log() + (shown < 1e-3).to(shown.dtype) * HIDDEN).reshape(p, 1, 1, -1)
        present = []
        with half_precision(self.training):
            for i in range(WRITE_LAYERS):
                x, keys, values = self.layers[2 * i].again(x, past[:, 2 * i], past[:, 2 * i + 1], reach)
                present += [keys, values]
                x = self.layers[2 * i + 1].other(x, states, meant)
        return self.say(self.norm(x.float())), torch.stack([part.float() for part in present], 1)


class SelectGraph(nn.Module):
    """Probabilities instead of logits, as the daemon reads them.

    A region is what is meant if there is a thing at all and it is the right one. `match` has learned some of the former; held out,
    the product with the root of objectness ranked best.
    """

    def __init__(self, select):
        super().__init__()
        self.select = select

    def forward(self, regions, boxes, objectness, text, ids):
        match, none, states = self.select(regions, boxes, objectness, text, ids)
        return torch.sigmoid(match) * objectness.clamp(min=1e-6).sqrt(), torch.sigmoid(none), states


class DetectGraph(nn.Module):
    """The best cells, after the suppression that proposals go through."""

    def __init__(self, detect):
        super().__init__()
        self.detect = detect

    def forward(self, cells, places, text, ids):
        _, boxes, scores = choose(torch.sigmoid(self.detect(cells, places, text, ids)), places)
        return boxes, scores
