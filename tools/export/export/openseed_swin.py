"""The tower of OpenSeeD's published head: Swin (Liu et al. 2021, arXiv 2103.14030), written from the paper; parameters have
the names that the checkpoint gives them.

The side is fixed, so what follows from it alone (masks, places in a window) is worked out once, outside the graph.
"""

import torch
from torch import nn
from torch.nn import functional as F


def tree(**parts):
    return nn.ModuleDict(parts)


def regions(size, window, shift):
    """Which of three strips each of `size` cells belongs to: after a shift, the last window holds cells of both edges."""
    at = torch.arange(size)
    return (at >= size - window).long() + (at >= size - shift).long()


class Windows(nn.Module):
    """[1, cells, cells, width], attended to within squares of cells. Those at an edge are filled up with zeros, unmasked: so
    was it trained."""

    def __init__(self, width, heads, window, shift, cells):
        super().__init__()
        self.heads, self.window, self.shift = heads, window, shift
        self.relative_position_bias_table = nn.Parameter(torch.zeros((2 * window - 1) ** 2, heads))
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.fill = -cells % window
        y, x = (at.flatten() for at in torch.meshgrid(torch.arange(window), torch.arange(window), indexing="ij"))
        apart = [at[:, None] - at[None] + window - 1 for at in (y, x)]
        self.register_buffer("apart", apart[0] * (2 * window - 1) + apart[1], persistent=False)
        if shift:
            strip = regions(cells + self.fill, window, shift)
            of = self.cut((strip[:, None] * 3 + strip)[None, ..., None])[..., 0]
            self.register_buffer("mask", -100.0 * (of[:, None] != of[:, :, None])[:, None].float(), persistent=False)

    def cut(self, x):
        """[1, rows, columns, width] -> [windows, cells of one, width]"""
        n, size = x.shape[1] // self.window, self.window
        return x.reshape(n, size, n, size, x.shape[3]).transpose(1, 2).reshape(n * n, size * size, x.shape[3])

    def forward(self, x):
        cells, width = x.shape[2:]
        x = F.pad(x, (0, 0, 0, self.fill, 0, self.fill))
        if self.shift:
            x = torch.roll(x, (-self.shift, -self.shift), (1, 2))
        n, size = (cells + self.fill) // self.window, self.window
        x = self.cut(x)
        q, k, v = self.qkv(x).reshape(n * n, size * size, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        scores = (q * q.shape[-1] ** -0.5) @ k.transpose(2, 3) + self.relative_position_bias_table[self.apart].permute(2, 0, 1)
        if self.shift:
            scores = scores + self.mask
        x = self.proj((torch.softmax(scores, dim=-1) @ v).transpose(1, 2).reshape(n * n, size * size, width))
        x = x.reshape(n, n, size, size, width).transpose(1, 2).reshape(1, n * size, n * size, width)
        if self.shift:
            x = torch.roll(x, (self.shift, self.shift), (1, 2))
        return x[:, :cells, :cells]


class Block(nn.Module):
    def __init__(self, width, heads, window, shift, cells, hidden):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attn = Windows(width, heads, window, shift, cells)
        self.mlp = tree(fc1=nn.Linear(width, hidden), fc2=nn.Linear(hidden, width))

    def forward(self, x):
        x = x + self.attn(self.norm1(x))
        return x + self.mlp["fc2"](F.gelu(self.mlp["fc1"](self.norm2(x))))


class Swin(nn.Module):
    """pixel_values [1, 3, side, side] -> [1, width · 2^i, side / 2^(i+2), …] of the stages 1 to 3; that of stage 0 is for
    masks alone. `stages` has (blocks, heads, numbers between) of each."""

    def __init__(self, width, stages, window, side):
        super().__init__()
        self.patch_embed = tree(proj=nn.Conv2d(3, width, 4, 4), norm=nn.LayerNorm(width))
        self.layers, cells = nn.ModuleList(), side // 4
        for i, (depth, heads, hidden) in enumerate(stages):
            own = tree(blocks=nn.ModuleList(
                Block(width, heads, window, window // 2 * (j % 2), cells, hidden) for j in range(depth)))
            if i:
                self.add_module(f"norm{i}", nn.LayerNorm(width))
            if i < len(stages) - 1:
                own["downsample"] = tree(norm=nn.LayerNorm(4 * width), reduction=nn.Linear(4 * width, 2 * width, bias=False))
            self.layers.append(own)
            width, cells = 2 * width, cells // 2

    def forward(self, pixels):
        x = self.patch_embed["norm"](self.patch_embed["proj"](pixels).permute(0, 2, 3, 1))
        found = []
        for i, own in enumerate(self.layers):
            for block in own["blocks"]:
                x = block(x)
            if i:
                found.append(getattr(self, f"norm{i}")(x).permute(0, 3, 1, 2))
            if "downsample" in own:
                n, width = x.shape[2] // 2, x.shape[3]
                # Of four cells, the left two come first.
                x = x.reshape(1, n, 2, n, 2, width).permute(0, 1, 3, 4, 2, 5).reshape(1, n, n, 4 * width)
                x = own["downsample"]["reduction"](own["downsample"]["norm"](x))
        return found
