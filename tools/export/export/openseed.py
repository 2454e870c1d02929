"""The head of LLaVA-Grounding as two graphs: what looks at the picture, and what finds phrases in it.

`head_vision` takes the picture once a frame; `head` takes what that gave and an embedding a phrase. A head is a module
with `see(pixels) -> tensors` and `find(tensors, phrase_embeds) -> pred_logits, pred_boxes`; `SEEN` names the tensors.
The published one is in openseed_head.py. The small one here has its shape (two stages, queries chosen by likeness to the
phrases, boxes refined layer by layer, only queries brought to length one) with plain attention in the place of the deformable
kind: it can be taught a few answers, which the daemon's tests need.
"""

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from .errors import Refused
from .family import Graph


class See(nn.Module):
    def __init__(self, head):
        super().__init__()
        self.head = head

    def forward(self, pixel_values):
        return self.head.see(pixel_values)


class Find(nn.Module):
    def __init__(self, head):
        super().__init__()
        self.head = head

    def forward(self, *given):
        return self.head.find(given[:-1], given[-1])


def graphs(head, side, width):
    pixels = torch.randn(1, 3, side, side)
    yield Graph("head_vision", See(head), {"pixel_values": pixels}, list(head.SEEN), {})
    with torch.no_grad():
        seen = head.see(pixels)
    inputs = dict(zip(head.SEEN, seen)) | {"phrase_embeds": torch.randn(1, 3, width)}
    axes = {"phrase_embeds": {1: "phrases"}, "pred_logits": {2: "phrases"}}
    yield Graph("head", Find(head), inputs, ["pred_logits", "pred_boxes"], axes)


def paired(these, those, spared=0.0):
    """Logits and boxes of both, in the order in which `those` have the queries: equally good ones come in any order. A part of
    them may be left out, those that differ most."""
    a, b = (np.concatenate(found, axis=-1)[0] for found in (these, those))
    if a.shape != b.shape:
        raise Refused(f"head: {b.shape[0]} boxes came and should be {a.shape[0]}")
    far, at, off = np.abs(a[None] - b[:, None]).max(-1), [], []
    for row in range(len(a)):
        at.append(int(far[row].argmin()))
        off.append(far[row, at[-1]])
        far[:, at[-1]] = np.inf
    kept = np.sort(np.argsort(off)[:len(a) - int(spared * len(a))])
    return [found[:, at][:, kept] for found in these], [found[:, kept] for found in those]


def clear(head, seen, count, random):
    """Phrases for a check, [1, count, width], that are about something, as a trained model's are: with any others all logits
    are sums that cancel, and little but rounding. The last cell that is chosen fits clearly better than the first that is
    not, for where they are equal, rounding decides."""
    drawn, best = None, -1.0
    for _ in range(16):
        said = head.says(seen, torch.randint(seen[0].shape[1], (count,), generator=random))
        said = said / said.norm(dim=-1, keepdim=True) * head.width ** 0.5
        phrases = said + 0.5 * torch.randn(said.shape, generator=random)
        last, first = head.offers(seen, phrases)[0].topk(head.queries + 1).values[-2:]
        if last - first > best:
            drawn, best = phrases, last - first
    return drawn


class Layer(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.own = nn.ModuleList(nn.Linear(width, width) for _ in range(3))
        self.other = nn.ModuleList(nn.Linear(width, width) for _ in range(3))
        self.feed = nn.Sequential(nn.Linear(width, 2 * width), nn.ReLU(), nn.Linear(2 * width, width))
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(3))

    @staticmethod
    def mixed(parts, query, of):
        q, k, v = parts[0](query), parts[1](of), parts[2](of)
        return torch.softmax(q @ k.transpose(1, 2) / q.shape[-1] ** 0.5, dim=-1) @ v

    def forward(self, x, memory):
        x = self.norms[0](x + self.mixed(self.own, x, x))
        x = self.norms[1](x + self.mixed(self.other, x, memory))
        return self.norms[2](x + self.feed(x))


class Small(nn.Module):
    SEEN = ("memory",)

    def __init__(self, width, side, hidden=16, queries=12, layers=2):
        super().__init__()
        self.queries, self.width, self.side = queries, width, side
        self.stem = nn.Conv2d(3, hidden, 8, 8)
        self.down = nn.Conv2d(hidden, hidden, 2, 2)
        self.enc, self.enc_norm, self.dec_norm = nn.Linear(hidden, hidden), nn.LayerNorm(hidden), nn.LayerNorm(hidden)
        self.class_embed = nn.Linear(hidden, width, bias=False)
        self.logit_scale = nn.Parameter(torch.tensor(1.0))
        self.boxes = nn.Sequential(nn.Linear(hidden, hidden), nn.ReLU(), nn.Linear(hidden, 4))
        self.layers = nn.ModuleList(Layer(hidden) for _ in range(layers))
        cells = []
        for stride in (8, 16):
            n = side // stride
            y, x = torch.meshgrid(torch.arange(n), torch.arange(n), indexing="ij")
            at = torch.stack([(x + 0.5) / n, (y + 0.5) / n], -1).reshape(-1, 2)
            cells.append(torch.cat([at, torch.full_like(at, 2 / n)], dim=1))
        self.register_buffer("places", torch.logit(torch.cat(cells), 1e-3)[None], persistent=False)

    def see(self, pixels):
        fine = F.relu(self.stem(pixels))
        coarse = F.relu(self.down(fine))
        return (torch.cat([level.flatten(2).transpose(1, 2) for level in (fine, coarse)], dim=1),)

    def likeness(self, x, phrases):
        x = self.class_embed(x)
        x = x / (x.norm(dim=-1, keepdim=True) + 1e-7)
        return self.logit_scale.exp() * x @ phrases.transpose(1, 2)

    def says(self, seen, cells):
        """What some cells are likened by to phrases, [1, cells, width]."""
        return self.class_embed(self.enc_norm(self.enc(seen[0][:, cells])))

    def offers(self, seen, phrases):
        """How well each cell fits the phrase that it fits best, [1, cells]."""
        return self.likeness(self.enc_norm(self.enc(seen[0])), phrases).amax(-1)

    def find(self, seen, phrases):
        memory, = seen
        offered = self.enc_norm(self.enc(memory))
        best = self.offers(seen, phrases).topk(self.queries, dim=1).indices[..., None]
        x = offered.gather(1, best.expand(-1, -1, offered.shape[-1]))
        place = (self.boxes(offered) + self.places).gather(1, best.expand(-1, -1, 4))
        for layer in self.layers:
            x = layer(x, memory)
            place = place + self.boxes(x)
        return self.likeness(self.dec_norm(x), phrases), torch.sigmoid(place)
