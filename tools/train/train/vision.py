"""The image side: encoder, proposals and region tokens.

Dense 3x3 convolutions in the encoder: on a CPU they run near peak and train fast; separable ones, cheap in products but bound by
memory, only where maps are many and thin (neck and heads). No attention over the picture: with little data it learns scenes by heart.
"""

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from .blocks import box_features, half_precision
from .spec import DIM, HEIGHT, MAPS, REGIONS, STRIDES, WIDTH
from .vocab import CLASSES

CHANNELS = (16, 32, 64, 128, 192)  # at strides 2, 4, 8, 16, 32
BLOCKS = (2, 4, 2)                 # residual blocks at strides 8, 16, 32
NAMED = len(CLASSES) - 1           # classes that can be asked for; the last, `other`, cannot
CANDIDATES = 512                   # best cells that compete for the regions
APART = 0.55                       # IoU above which the weaker of two candidates is the same thing
ROI = (3, 2, 1)                    # samples a side, of the maps at strides 8, 16 and 32
ROI_RGB = 5                        # samples a side, of the shrunken image itself: colours need no learning there
SHRUNK = 4                         # by how much
CEILING = 8.0     # of what a residual block says: a border or a lamp now and then sets off a chain that grows from block to block
FINE = 32                          # channels of the stride-8 map that are sampled


def conv(inputs, outputs, size=3, stride=1, groups=1, act=True):
    layers = [nn.Conv2d(inputs, outputs, size, stride, size // 2, groups=groups, bias=False), nn.BatchNorm2d(outputs, momentum=0.03)]
    return nn.Sequential(*layers, *([nn.ReLU(inplace=True)] if act else []))


def separable(channels, stride=1):
    return nn.Sequential(conv(channels, channels, 3, stride, channels), conv(channels, channels, 1))


class Residual(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.first = conv(channels, channels // 2, 1)
        self.second = conv(channels // 2, channels, act=False)

    def forward(self, x):
        return (x + self.second(self.first(x))).clamp(0.0, CEILING)


class Encoder(nn.Module):
    """Pixels to maps at strides 8, 16, 32 and 64, each seeing finer and coarser ones (top-down, then bottom-up)."""

    def __init__(self):
        super().__init__()
        c, n = CHANNELS, MAPS
        self.stem = nn.Sequential(conv(3, c[0], 3, 2), conv(c[0], c[1], 3, 2))
        self.stages = nn.ModuleList(
            nn.Sequential(conv(c[i + 1], c[i + 2], 3, 2), *[Residual(c[i + 2]) for _ in range(count)]) for i, count in enumerate(BLOCKS)
        )
        self.lateral = nn.ModuleList(nn.Conv2d(width, n, 1) for width in c[2:])
        self.top16, self.top8 = conv(n, n), separable(n)
        self.down16, self.down32, self.down64 = separable(n, 2), separable(n, 2), separable(n, 2)
        self.out16, self.out32 = separable(n), separable(n)

    def forward(self, x):
        stages = []
        x = self.stem(x)
        for stage in self.stages:
            x = stage(x)
            stages.append(x)
        p32 = self.lateral[2](stages[2])
        p16 = self.top16(self.lateral[1](stages[1]) + F.interpolate(p32, scale_factor=2.0))
        p8 = self.top8(self.lateral[0](stages[0]) + F.interpolate(p16, scale_factor=2.0))
        p16 = self.out16(p16 + self.down16(p8))
        p32 = self.out32(p32 + self.down32(p16))
        return stages, (p8, p16, p32, self.down64(p32))


class Proposals(nn.Module):
    """For every cell of every map: class-agnostic objectness, left/top/right/bottom distances, and how like each class it is."""

    def __init__(self):
        super().__init__()
        self.tower = nn.Sequential(separable(MAPS), separable(MAPS))
        self.head = nn.Conv2d(MAPS, 5 + NAMED, 1)
        self.settled = False  # whether the tower's norms have statistics to keep
        nn.init.normal_(self.head.weight, std=0.01)
        nn.init.constant_(self.head.bias, -4.0)
        with torch.no_grad():
            self.head.bias[1:5] = 0.7

    def forward(self, maps):
        """Objectness logits [B,N], boxes [B,4,N] (xyxy, fractions of the canvas, unclipped) and class logits [B,classes,N] for every cell."""
        with half_precision(self.training):
            raw = torch.cat([self.head(self.tower(m)).flatten(2) for m in maps], 2)
        raw = raw.float()
        centres, strides = cells(maps)
        sides = raw[:, 1:5].clamp(-4.0, 3.0).exp() * strides
        boxes = torch.cat([centres - sides[:, :2], centres + sides[:, 2:]], 1) / torch.cat([canvas(maps)] * 2)[:, None]
        return raw[:, 0], boxes, raw[:, 5:]


def cells(maps):
    """Centres [2,N] and strides [1,N], in pixels, of the cells of all maps."""
    centres, strides = [], []
    for stride, m in zip(STRIDES, maps):
        steps = lambda axis: (torch.arange(m.shape[axis], device=m.device).float() + 0.5) * stride
        ys, xs = torch.meshgrid(steps(2), steps(3), indexing="ij")
        centres.append(torch.stack([xs, ys]).flatten(1))
        strides.append(torch.full_like(centres[-1][:1], float(stride)))
    return torch.cat(centres, 1), torch.cat(strides, 1)


def canvas(maps):
    """Width and height of the canvas in pixels, [2]: whole cells of the third map."""
    one = maps[2].new_full((1,), float(STRIDES[2]))
    return torch.cat([one * maps[2].shape[3], one * maps[2].shape[2]])


def on_frame(boxes, maps):
    """Boxes [B,K,4] in fractions of the canvas, in fractions of the frame: the usual canvas, on which this one lies centred and as
    large as it can. Whatever shape a canvas has, places mean what they meant in training."""
    share = canvas(maps) / canvas(maps).new_tensor([WIDTH, HEIGHT])
    share = torch.cat([share / share.max()] * 2)
    return (boxes - 0.5) * share + 0.5


def overlap(boxes):
    """IoU of every pair, [K,K]."""
    sides = torch.minimum(boxes[:, None, 2:], boxes[None, :, 2:]) - torch.maximum(boxes[:, None, :2], boxes[None, :, :2])
    inter, area = sides.clamp(min=0).prod(-1), (boxes[:, 2:] - boxes[:, :2]).prod(-1)
    return inter / (area[:, None] + area[None] - inter).clamp(min=1e-12)


class Suppress(torch.autograd.Function):
    """Greedy non-maximum suppression: (picture, 0, box) of what stays, as ONNX's operator of that name has it, [M,3]. Nothing is
    learned through it."""

    @staticmethod
    def forward(ctx, boxes, scores, count):
        kept = []
        for picture, (mine, score) in enumerate(zip(boxes, scores.numpy())):
            same, left = (overlap(mine) > APART).numpy(), score > 0
            for _ in range(count):
                best = np.where(left, score, -1.0).argmax()
                if not left[best]:
                    break
                kept.append((picture, 0, int(best)))
                left &= ~same[best]
                left[best] = False
        return torch.tensor(kept, dtype=torch.long).reshape(-1, 3)

    @staticmethod
    def symbolic(g, boxes, scores, count):
        constant = lambda value, kind: g.op("Constant", value_t=torch.tensor([value], dtype=kind))
        scores = g.op("Unsqueeze", scores, constant(1, torch.long))
        return g.op("NonMaxSuppression", boxes, scores, constant(count, torch.long), constant(APART, torch.float), constant(0.0, torch.float))


def choose(objectness, boxes, count=REGIONS, candidates=CANDIDATES):
    """The best cells that no better one which stays covers: (cell [B,K], boxes [B,K,4], objectness [B,K], 0 in a slot left over)."""
    score, cell = objectness.topk(candidates, 1)
    where = boxes.gather(2, cell.unsqueeze(1).expand(-1, 4, -1)).transpose(1, 2).clamp(0.0, 1.0)
    kept = Suppress.apply(where, score, count)
    stays = torch.zeros_like(score).index_put((kept[:, 0], kept[:, 2]), torch.ones_like(kept[:, 0], dtype=score.dtype))
    score, kept = (score * stays).topk(count, 1)
    score, kept = score.reshape(-1, count), kept.reshape(-1, count)  # the exporter has lost that there are so many
    return cell.gather(1, kept), where.gather(1, kept.unsqueeze(-1).expand(-1, -1, 4)), score


def sample(features, boxes, side):
    """side x side bilinear samples inside every box: [B,K,C*side*side]."""
    b, k = boxes.shape[:2]
    steps = (torch.arange(side, device=boxes.device, dtype=boxes.dtype) + 0.5) / side
    x = boxes[..., 0:1] + (boxes[..., 2:3] - boxes[..., 0:1]) * steps
    y = boxes[..., 1:2] + (boxes[..., 3:4] - boxes[..., 1:2]) * steps
    x = x.unsqueeze(2).expand(b, k, side, side)
    y = y.unsqueeze(3).expand(b, k, side, side)
    grid = torch.stack([x, y], -1).reshape(b, k, side * side, 2) * 2 - 1
    picked = F.grid_sample(features, grid, mode="bilinear", padding_mode="border", align_corners=False)
    return picked.permute(0, 2, 1, 3).reshape(b, k, features.shape[1] * side * side)


class Regions(nn.Module):
    """One token a box: what the maps and the image show inside it, what its cell is like, and where it is."""

    looked = FINE * ROI[0] ** 2 + MAPS * (ROI[1] ** 2 + ROI[2] ** 2)
    coloured = 3 * ROI_RGB * ROI_RGB

    def __init__(self):
        super().__init__()
        self.thin = nn.Conv2d(MAPS, FINE, 1)
        self.look = nn.Linear(self.looked, DIM)
        self.kind = nn.Linear(NAMED, DIM)
        self.colour = nn.Sequential(nn.Linear(self.coloured, DIM), nn.ReLU(), nn.Linear(DIM, DIM))
        self.place = nn.Linear(box_features.width, DIM)
        self.mix = nn.Sequential(nn.LayerNorm(DIM), nn.Linear(DIM, 2 * DIM), nn.ReLU(), nn.Linear(2 * DIM, DIM))
        self.norm = nn.LayerNorm(DIM)

    def gather(self, maps, image, kinds, cells, boxes):
        """What is read inside the boxes: samples of the maps, class probabilities of the cells, samples of the image."""
        seen = torch.cat([sample(m, boxes, side) for m, side in zip((self.thin(maps[0]), *maps[1:]), ROI)], -1)
        kind = kinds.gather(2, cells.unsqueeze(1).expand(-1, NAMED, -1)).transpose(1, 2).sigmoid()
        return seen, kind, sample(image, boxes, ROI_RGB)

    def forward(self, seen, kind, colours, boxes):
        x = self.look(seen) + self.kind(kind) + self.colour(colours) + self.place(box_features(boxes))
        return self.norm(x + self.mix(x))


class Vision(nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder = Encoder()
        self.proposals = Proposals()
        self.regions = Regions()
        shrink = torch.zeros(3, 3, SHRUNK, SHRUNK)
        for channel in range(3):
            shrink[channel, channel] = 1 / SHRUNK**2
        self.register_buffer("shrink", shrink, persistent=False)

    @staticmethod
    def normalise(pixels):
        return (pixels.permute(0, 3, 1, 2).float() - 114.0) / 64.0

    def encode(self, pixels):
        """uint8 NHWC -> (encoder stages, maps, image shrunk by 4 for colours)."""
        image = self.normalise(pixels)
        with half_precision(self.training):
            stages, maps = self.encoder(image.contiguous(memory_format=torch.channels_last) if self.training else image)
        return stages, maps, F.conv2d(image, self.shrink, stride=SHRUNK)

    def look(self, pixels):
        """Everything before the region tokens, as the second part of training caches it; the chosen boxes in fractions of the canvas."""
        _, maps, small = self.encode(pixels)
        heat, boxes, kinds = self.proposals(maps)
        cells, chosen, objectness = choose(heat.sigmoid(), boxes)
        seen = self.regions.gather(maps, small, kinds, cells, chosen)
        return maps, heat, boxes, kinds, chosen, objectness, seen

    def forward(self, pixels):
        """boxes [B,K,4], objectness [B,K], regions [B,K,D], cells [B,C,N], places [B,4,N]; boxes and places in fractions of the
        frame (`on_frame`)."""
        maps, _, places, _, chosen, objectness, seen = self.look(pixels)
        cells = torch.cat([m.flatten(2) for m in maps], 2)
        chosen = on_frame(chosen, maps)
        places = on_frame(places.transpose(1, 2), maps).transpose(1, 2)
        return chosen, objectness, self.regions(*seen, chosen), cells, places
