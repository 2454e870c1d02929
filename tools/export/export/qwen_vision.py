"""Where every patch lies, from `image_grid_thw` alone, and the attention the three Qwen vision towers share.

Published Qwen2.5 exports assume windows that fill the picture. Here the graph works out, for any list of grids, which
picture and which window a patch belongs to; windows at an edge are padded and masked, so their results are exact and
their cost stays that of a window.
"""

import torch
from torch import nn

from . import blocks


def div(a, b):
    return torch.div(a, b, rounding_mode="trunc")


class Layout:
    """Patch positions of the pictures in `grid` [pictures, 3] = frames, rows, columns of patches.

    Patches come in blocks of merge*merge that become one token; blocks go row by row.
    """

    def __init__(self, grid, merge):
        frames, rows, columns = grid[:, 0], grid[:, 1], grid[:, 2]
        areas = rows * columns
        ends = torch.cumsum(frames * areas, dim=0)
        # Counted from the grid, so that pixels of another number fail instead of being misplaced.
        index = torch.arange(ends[-1])
        self.picture = (index[:, None] >= ends[None, :]).long().sum(dim=1)
        local = index - (ends - frames * areas)[self.picture]
        area, columns_here = areas[self.picture], columns[self.picture]
        self.frame = div(local, area)
        self.inner = local % (merge * merge)
        unit = div(local % area, merge * merge)
        units_wide = div(columns_here, merge)
        self.unit_row, self.unit_column = div(unit, units_wide), unit % units_wide
        self.row = self.unit_row * merge + div(self.inner, merge)
        self.column = self.unit_column * merge + self.inner % merge
        self.rows, self.columns = rows[self.picture], columns_here
        # One attention segment a frame, counted over all pictures.
        self.segment = (torch.cumsum(frames, dim=0) - frames)[self.picture] + self.frame
        self.index, self.grid, self.merge = index, (frames, rows, columns), merge

    def segment_bias(self):
        return (self.segment[:, None] != self.segment[None, :]).float()[None, None] * blocks.MASKED

    def windows(self, side):
        """Windows of side*side units: each patch's place in the padded windows, and what fills each place."""
        frames, rows, columns = self.grid
        high, wide = (div(div(n, self.merge) + side - 1, side) for n in (rows, columns))
        counts = frames * high * wide
        starts = torch.cumsum(counts, dim=0) - counts
        window = starts[self.picture] + self.frame * (high * wide)[self.picture]
        window = window + div(self.unit_row, side) * wide[self.picture] + div(self.unit_column, side)
        spot = (self.unit_row % side * side + self.unit_column % side) * self.merge ** 2 + self.inner
        capacity = side * side * self.merge ** 2
        places = window * capacity + spot
        empty = torch.arange(counts.sum() * capacity) * 0
        source = empty.scatter(0, places, self.index)
        filled = empty.scatter(0, places, torch.ones_like(self.index))
        return places, source, blocks.key_bias(filled.reshape(-1, capacity))


class Attention(nn.Module):
    """Self-attention over patches, within frames or within windows."""

    def __init__(self, own, count):
        super().__init__()
        self.own, self.count = own, count

    def forward(self, x, cos, sin, segment_bias, windows=None):
        length = x.shape[0]
        qkv = blocks.linear(self.own.qkv, x).reshape(length, 3, self.count, -1).permute(1, 0, 2, 3)
        q, k, v = blocks.rotate(qkv[0], cos, sin), blocks.rotate(qkv[1], cos, sin), qkv[2]
        dim = q.shape[2]
        if windows is None:
            q, k, v = (part.transpose(0, 1)[None] for part in (q, k, v))
            mixed = blocks.attention(q, k, v, segment_bias, dim ** -0.5)[0]
        else:
            places, source, bias = windows
            capacity = bias.shape[3]
            q, k, v = (part[source].reshape(-1, capacity, self.count, dim).transpose(1, 2) for part in (q, k, v))
            mixed = blocks.attention(q, k, v, bias, dim ** -0.5).reshape(-1, self.count * dim)[places]
        return blocks.linear(self.own.proj, mixed).float()


def angles(layout, frequencies):
    """Rotary cosines and sines: the first half of a head turns with the row, the second with the column."""
    turns = torch.cat((layout.row[:, None].float() * frequencies, layout.column[:, None].float() * frequencies), dim=1)
    turns = torch.cat((turns, turns), dim=1)[:, None]
    return turns.cos(), turns.sin()


class Tower(nn.Module):
    """pixel_values, image_grid_thw -> image_features. What differs between the versions is overridden."""

    def __init__(self, vision):
        super().__init__()
        self.vision, self.merge = vision, vision.config.spatial_merge_size
        self.attentions = nn.ModuleList(Attention(block.attn, vision.config.num_heads) for block in vision.blocks)
        self.register_buffer("frequencies", vision.rotary_pos_emb.inv_freq.float().clone(), persistent=False)

    def embed(self, pixel_values, layout):
        return blocks.patches(self.vision.patch_embed.proj, pixel_values)

    def norm(self, layer, x):
        return blocks.layer_norm(layer, x)

    def windows(self, layout):
        """The windows' tables, or None where every block sees the whole picture."""
        return None

    def windowed(self, i):
        return False

    def merged(self, x):
        merger = self.vision.merger
        x = self.norm(merger.ln_q, x).reshape(-1, merger.hidden_size)
        return blocks.linear(merger.mlp[2], merger.mlp[1](blocks.linear(merger.mlp[0], x))).float()

    def forward(self, pixel_values, image_grid_thw):
        layout = Layout(image_grid_thw, self.merge)
        x = self.embed(pixel_values, layout)
        cos, sin = angles(layout, self.frequencies)
        whole, windows = layout.segment_bias(), self.windows(layout)
        depths = []
        for i, (block, attention) in enumerate(zip(self.vision.blocks, self.attentions)):
            x = x + attention(self.norm(block.norm1, x), cos, sin, whole, windows if self.windowed(i) else None)
            x = x + self.feed(block.mlp, self.norm(block.norm2, x)).float()
            depths += self.deepen(i, x)
        if depths:
            return self.merged(x), torch.stack(depths)
        return self.merged(x)

    def feed(self, mlp, x):
        return blocks.linear(mlp.fc2, mlp.act(blocks.linear(mlp.fc1, x)))

    def deepen(self, i, x):
        """Further features taken after block `i`."""
        return []
