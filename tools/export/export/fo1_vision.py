"""VLM-FO1's second tower (DaViT), its pyramid over the first, and what it makes of a region. Written from the published
description; parameters have the names that the checkpoint gives them.

Sizes are free: pictures are shown at their own, and everything follows from the tensors' shapes inside the graph.
"""

import math

import torch
from torch import nn
from torch.nn import functional as F

from . import blocks
from .qwen_vision import div

# The second tower's first stage has a cell every four pixels.
STRIDE = 4


def tree(**parts):
    return nn.ModuleDict(parts)


def near(dim):
    return tree(fn=tree(dw=nn.Conv2d(dim, dim, 3, padding=1, groups=dim)))


def attending(dim):
    return tree(norm=nn.LayerNorm(dim), fn=tree(qkv=nn.Linear(dim, 3 * dim), proj=nn.Linear(dim, dim)))


def feeding(dim, ratio=4):
    return tree(norm=nn.LayerNorm(dim), fn=tree(net=tree(fc1=nn.Linear(dim, ratio * dim), fc2=nn.Linear(ratio * dim, dim))))


class Davit(nn.Module):
    """pixel_values [1, 3, height, width] -> cells of every stage, [1, dim, rows, columns]: windows of cells and groups of
    channels take turns."""

    def __init__(self, dims, depths, heads, groups, window):
        super().__init__()
        self.heads, self.groups, self.window = heads, groups, window
        before = [3, *dims]
        self.convs = nn.ModuleList(
            tree(proj=nn.Conv2d(before[i], dim, 3 if i else 7, stride=2 if i else 4, padding=1 if i else 3),
                 norm=nn.LayerNorm(before[i] if i else dim)) for i, dim in enumerate(dims))
        self.blocks = nn.ModuleList(
            nn.ModuleList(
                tree(spatial_block=tree(conv1=near(dim), window_attn=attending(dim), conv2=near(dim), ffn=feeding(dim)),
                     channel_block=tree(conv1=near(dim), channel_attn=attending(dim), conv2=near(dim), ffn=feeding(dim)))
                for _ in range(depth)) for dim, depth in zip(dims, depths))

    def windows(self, own, x, count):
        """[1, rows, columns, dim], attended to within squares of cells; those at an edge are filled up with zeros, unmasked: so was
        it trained."""
        size, (rows, columns, dim) = self.window, x.shape[1:]
        down, across = div(rows + size - 1, size), div(columns + size - 1, size)
        x = F.pad(x, (0, 0, 0, across * size - columns, 0, down * size - rows))
        x = x.reshape(down, size, across, size, dim).permute(0, 2, 1, 3, 4).reshape(-1, size * size, dim)
        qkv = blocks.linear(own.qkv, x).reshape(-1, size * size, 3, count, dim // count).permute(2, 0, 3, 1, 4)
        x = blocks.attention(qkv[0], qkv[1], qkv[2], None, (dim // count) ** -0.5)
        x = blocks.linear(own.proj, x).float().reshape(down, across, size, size, dim).permute(0, 2, 1, 3, 4)
        return x.reshape(1, down * size, across * size, dim)[:, :rows, :columns]

    def channels(self, own, x, count):
        """Attention between channels instead of between places."""
        rows, columns, dim = x.shape[1:]
        places = rows * columns
        qkv = blocks.linear(own.qkv, x.reshape(places, dim)).reshape(-1, 3, count, dim // count).permute(1, 2, 3, 0)
        scores = torch.matmul(qkv[0].float(), qkv[1].float().transpose(1, 2)) * torch.as_tensor(places).float() ** -0.5
        mixed = torch.matmul(torch.softmax(scores, dim=-1).to(qkv[2].dtype), qkv[2])
        return blocks.linear(own.proj, mixed.permute(2, 0, 1).reshape(-1, dim)).float().reshape(1, rows, columns, dim)

    def block(self, own, name, mix, x, count):
        x = x + blocks.conv(own["conv1"].fn.dw, x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        x = x + mix(own[name].fn, blocks.layer_norm(own[name].norm, x), count)
        x = x + blocks.conv(own["conv2"].fn.dw, x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        net = own["ffn"].fn.net
        fed = F.gelu(blocks.linear(net.fc1, blocks.layer_norm(own["ffn"].norm, x)))
        return x + blocks.linear(net.fc2, fed).float()

    def forward(self, pixel_values):
        x, stages = pixel_values.permute(0, 2, 3, 1), []
        for i, (conv, layers) in enumerate(zip(self.convs, self.blocks)):
            if i:
                x = blocks.layer_norm(conv.norm, x)
            x = blocks.conv(conv.proj, x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
            if not i:
                x = blocks.layer_norm(conv.norm, x)
            for layer in layers:
                x = self.block(layer.spatial_block, "window_attn", self.windows, x, self.heads[i])
                x = self.block(layer.channel_block, "channel_attn", self.channels, x, self.groups[i])
            stages.append(x.permute(0, 3, 1, 2))
        return tuple(stages)


class ChannelNorm(nn.Module):
    """Norm over the channels of [1, channels, rows, columns]."""

    def __init__(self, dim, eps=1e-6):
        super().__init__()
        self.weight, self.bias, self.eps = nn.Parameter(torch.ones(dim)), nn.Parameter(torch.zeros(dim)), eps

    def forward(self, x):
        x = x - x.mean(1, keepdim=True)
        x = x / torch.sqrt(x.pow(2).mean(1, keepdim=True) + self.eps)
        return x * self.weight[:, None, None] + self.bias[:, None, None]


class NormedConv(nn.Conv2d):
    def __init__(self, before, after, side):
        super().__init__(before, after, side, padding=side // 2, bias=False)
        self.norm = ChannelNorm(after)

    def forward(self, x):
        return self.norm(blocks.conv(self, x))


def pyramid(dim, out):
    """The plain pyramid over one map: four times as fine, twice, the same, half."""
    def level(name, before, *first):
        return name, nn.Sequential(*first, NormedConv(before, out, 1), NormedConv(out, out, 3))
    finest = (nn.ConvTranspose2d(dim, dim // 2, 2, 2), ChannelNorm(dim // 2), nn.GELU(),
              nn.ConvTranspose2d(dim // 2, dim // 4, 2, 2))
    return tree(**dict([
        level("simfp_1", dim // 4, *finest), level("simfp_2", dim // 2, nn.ConvTranspose2d(dim, dim // 2, 2, 2)),
        level("simfp_3", dim), level("simfp_4", dim, nn.MaxPool2d(2, 2))]))


# What one cell of each level is wide, in patches.
LEVELS = {"simfp_1": 0.25, "simfp_2": 0.5, "simfp_3": 1.0, "simfp_4": 2.0}


class RoiAlign(torch.autograd.Function):
    """Samples at the middles of a grid in each bin, as many as the bin has cells; `aligned=False`, `sampling_ratio=-1` of
    torchvision. In ONNX it is an operator."""

    @staticmethod
    def symbolic(g, features, boxes, batch, scale, side):
        return g.op("RoiAlign", features, boxes, batch, coordinate_transformation_mode_s="output_half_pixel", mode_s="avg",
                    output_height_i=side, output_width_i=side, sampling_ratio_i=0, spatial_scale_f=scale)

    @staticmethod
    def weights(low, high, cells, side):
        """[side, cells]: what each cell weighs in each bin, along one axis."""
        wide = torch.clamp(high - low, min=1.0)
        points = max(1, math.ceil(float(wide) / side))
        at = low + wide / side * ((torch.arange(side * points) + 0.5) / points)
        inside = (at >= -1.0) & (at <= cells)
        at = at.clamp(0, cells - 1)
        first = at.floor().long()
        share = at - first
        found = torch.zeros(side * points, cells)
        found.scatter_add_(1, first[:, None], (1 - share)[:, None])
        found.scatter_add_(1, (first + 1).clamp(max=cells - 1)[:, None], share[:, None])
        return (found * inside[:, None]).reshape(side, points, cells).mean(1)

    @staticmethod
    def forward(ctx, features, boxes, batch, scale, side):
        rows, columns = features.shape[2:]
        found = []
        for x1, y1, x2, y2 in boxes * scale:
            down, across = RoiAlign.weights(y1, y2, rows, side), RoiAlign.weights(x1, x2, columns, side)
            found.append(down @ features[0] @ across.T)
        return torch.stack(found)


def pooled(features, boxes, scale, side):
    """[boxes, channels]: the mean of each box's bins."""
    batch = (boxes[:, 0] * 0).long()
    return RoiAlign.apply(features.float(), boxes, batch, scale, side).mean((2, 3))


def places(boxes, width, height, dim):
    """[boxes, dim]: sines and cosines of middle and size, in the order y, x, width, height."""
    x1, y1, x2, y2 = (boxes[:, i] for i in range(4))
    x1, x2, y1, y2 = x1 / width, x2 / width, y1 / height, y2 / height
    each = torch.arange(dim // 4, dtype=torch.float32)
    each = 10000 ** (2 * torch.floor(each / 2) / (dim // 4))
    found = []
    for value in (y1 + (y2 - y1) / 2, x1 + (x2 - x1) / 2, x2 - x1, y2 - y1):
        turns = value[:, None] * (2 * math.pi) / each
        found.append(torch.stack((turns[:, 0::2].sin(), turns[:, 1::2].cos()), dim=2).flatten(1))
    return torch.cat(found, dim=1)


class Regions(nn.Module):
    """vt_boxes, aux_boxes, image_grid_thw, region_states, aux_features.{0..3} -> region_features."""

    def __init__(self, patch, merge, side, fpn, norms, projector):
        super().__init__()
        self.patch, self.merge, self.side = patch, merge, side
        self.simple_fpn, self.norms, self.projector = fpn, norms, projector

    def raster(self, states, grid):
        """[layers, patches, dim] in blocks -> [1, layers*dim, rows, columns]."""
        layers, dim, merge = states.shape[0], states.shape[2], self.merge
        rows, columns = grid[0, 1], grid[0, 2]
        x = states.reshape(layers, div(rows, merge), div(columns, merge), merge, merge, dim).permute(0, 1, 3, 2, 4, 5)
        return x.reshape(layers, rows, columns, dim).permute(0, 3, 1, 2).reshape(1, layers * dim, rows, columns)

    def forward(self, vt_boxes, aux_boxes, image_grid_thw, region_states, *stages):
        cells = [stages[0], *(F.interpolate(stage, size=stages[0].shape[2:], mode="bilinear", align_corners=False)
                              for stage in stages[1:])]
        aux = torch.cat([pooled(one, aux_boxes, 1 / STRIDE, self.side) for one in cells], dim=1)
        seen = self.raster(region_states, image_grid_thw)
        if self.simple_fpn is None:
            vt = pooled(seen, vt_boxes, 1 / self.patch, self.side)
        else:
            levels = {name: self.simple_fpn[name](seen) for name in LEVELS}
            vt = torch.cat([pooled(levels[name], vt_boxes, 1 / (self.patch * wide), self.side)
                            for name, wide in LEVELS.items()], dim=1)
        if self.norms is not None:
            aux = blocks.layer_norm(self.norms["aux_region_norm"], aux)
            vt = blocks.layer_norm(self.norms["vt_region_norm"], vt)
        both = torch.cat((aux, vt), dim=1)
        sides = image_grid_thw[0].float() * self.patch
        x = both + places(vt_boxes, sides[2], sides[1], both.shape[1])
        for layer in self.projector:
            x = blocks.linear(layer, x).float() if isinstance(layer, nn.Linear) else layer(x)
        return x
